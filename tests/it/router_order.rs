//! Order for each user, and none waiting for another.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sluice::event::Topic;

use crate::router_bed::{
    Bed, PARTITIONS, assert_kept, assert_one_at_a_time, events, wait_until, webhooks,
};
use crate::support::sink::{Got, Reply, Sink};

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Fails each event a few times, in every way, before it takes it.
fn unreliable() -> impl Fn(&Got) -> Reply + Send + Sync {
    let tries: Mutex<HashMap<String, u32>> = Mutex::default();
    move |got| {
        let mut tries = tries.lock().unwrap();
        let tried = tries.entry(got.message_id()).or_default();
        *tried += 1;
        if *tried > 3 {
            return Reply::Status(200);
        }
        match fastrand::u32(..12) {
            0 => Reply::Status(500),
            1 => Reply::Status(429),
            2 => Reply::HangUp,
            3 => Reply::RetryAfter(503, 0),
            4 => Reply::Late(502, Duration::from_millis(5)),
            5 => Reply::Late(200, Duration::from_millis(5)),
            _ => Reply::Status(200),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_user_gets_events_in_order_however_the_destination_fails() {
    let sink = Sink::answering(unreliable());
    let mut bed = Bed::new("order", &webhooks(&[("hook", &sink.url("hook"))]));
    // A hang-up in answer to the first request on a connection looks like one that cannot be made.
    bed.config.router.breaker.failures = 1_000;
    bed.config.router.breaker.unreachable = 1_000;
    let sent = events("hook", 30, 20);
    bed.send("hook", &sent[..300]).await;
    let router = bed.start("a").await;
    bed.send("hook", &sent[300..]).await;
    bed.drained("hook").await;
    assert_kept(&sent, &sink, 0);
    assert_one_at_a_time(&sink, is_success);
    assert_eq!(bed.balance(), [("hook delivered".to_owned(), 600)].into());
    let lag: f64 = router.metric("sluice_router_window_records{lane=\"hook\"}");
    router.stop().await;
    assert!(lag <= 600.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whose_event_fails_holds_up_nobody_else() {
    let sink = Sink::answering(|got| {
        if got.message_id() == "u3-00002" {
            500u16
        } else {
            200
        }
    });
    let bed = Bed::new("onekey", &webhooks(&[("hook", &sink.url("hook"))]));
    let sent = events("hook", 10, 10);
    bed.send("hook", &sent).await;
    let router = bed.start("a").await;
    wait_until("all others are served", || {
        let failing = sink.look(|got| got.iter().filter(|g| g.status == 500).count());
        sink.count() - failing == 9 * 10 + 2 && failing > 3
    })
    .await;
    assert!(
        router.metric("sluice_router_blocked_keys{destination=\"hook\"}") <= 1.0,
        "one key, whatever waits behind it"
    );
    assert_one_at_a_time(&sink, is_success);
    assert_eq!(
        bed.lag("hook").min(1),
        1,
        "the log keeps what is not delivered"
    );
    router.stop().await;
    assert_eq!(bed.dead_letters().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_asks_to_wait_is_not_asked_before() {
    let sink = Sink::answering({
        let seen: Mutex<Vec<String>> = Mutex::default();
        move |got: &Got| {
            let id = got.message_id();
            let mut seen = seen.lock().unwrap();
            if id.ends_with("-00000") && !seen.contains(&id) {
                seen.push(id);
                let status = [429, 503][seen.len() % 2];
                return Reply::RetryAfter(status, 2);
            }
            Reply::Status(200)
        }
    });
    let bed = Bed::new("after", &webhooks(&[("hook", &sink.url("hook"))]));
    let sent = events("hook", 4, 3);
    bed.send("hook", &sent).await;
    let router = bed.start("a").await;
    bed.drained("hook").await;
    router.stop().await;
    assert_kept(&sent, &sink, 0);
    assert_one_at_a_time(&sink, is_success);
    let mut asked: HashMap<String, Instant> = HashMap::new();
    for got in sink.got() {
        if let Some(before) = asked.insert(got.message_id(), got.at) {
            let waited = got.at.duration_since(before);
            assert!(waited >= Duration::from_secs(2), "{waited:?}");
            assert_eq!(got.headers["x-attempt"], "2");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_destinations_of_one_lane_do_not_wait_for_each_other() {
    let sick = Sink::answering(|_| 500u16);
    let well = Sink::start();
    let workspace = format!(
        "sources: [{{id: web, write_key: K}}]\ndestinations:\n\
         - {{id: sick, type: WEBHOOK, lane: shared, config: {{webhookUrl: \"{}\"}}}}\n\
         - {{id: well, type: WEBHOOK, lane: shared, config: {{webhookUrl: \"{}\"}}}}\n",
        sick.url("x"),
        well.url("x")
    );
    let bed = Bed::new("lane", &workspace);
    let mut sent = events("sick", 5, 10);
    sent.extend(events("well", 5, 10));
    bed.send("shared", &sent).await;
    let router = bed.start("a").await;
    wait_until("the healthy one has everything", || well.count() == 50).await;
    assert_kept(&events("well", 5, 10), &well, 0);
    router.stop().await;
    assert_eq!(bed.dead_letters().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_appears_is_served_and_one_that_is_gone_ends_its_events() {
    let (old, new) = (Sink::start(), Sink::start());
    let mut bed = Bed::new("come", &webhooks(&[("old", &old.url("x"))]));
    bed.config.router.lane_linger_ms = 5_000;
    let router = bed.start("a").await;
    bed.create(&[Topic::Deliver("new".to_owned())]);
    bed.publish(&webhooks(&[("old", &old.url("x")), ("new", &new.url("x"))]));
    bed.send("new", &events("new", 3, 3)).await;
    wait_until("the new one is served", || new.count() == 9).await;

    bed.publish(&webhooks(&[("new", &new.url("x"))]));
    let mut late = events("old", 3, 3);
    bed.send("old", &late).await;
    bed.drained("old").await;
    assert_eq!(old.count(), 0, "it is not in the workspace any more");
    let balance = bed.balance();
    assert_eq!(balance["old filtered destination_gone"], 9);
    wait_until("its lane has ended", || {
        router.metric("sluice_router_partitions{lane=\"old\"}") == 0.0
    })
    .await;

    // It comes back, and with it its lane.
    bed.publish(&webhooks(&[("old", &old.url("x")), ("new", &new.url("x"))]));
    late.iter_mut().for_each(|e| e.id.push_str("-again"));
    bed.send("old", &late).await;
    wait_until("it is served again", || old.count() == 9).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_routers_share_the_work_and_keep_order_while_partitions_move() {
    let sink = Sink::answering(|_| Reply::Late(200, Duration::from_millis(fastrand::u64(..4))));
    let bed = Bed::new("move", &webhooks(&[("hook", &sink.url("hook"))]));
    let sent = events("hook", 40, 60);
    let first = bed.start("a").await;
    bed.send("hook", &sent[..800]).await;
    let second = bed.start("b").await;
    let owned =
        |r: &crate::router_bed::Running| r.metric("sluice_router_partitions{lane=\"hook\"}");
    bed.send("hook", &sent[800..1600]).await;
    wait_until("both have partitions", || {
        owned(&first) > 0.0 && owned(&second) > 0.0
    })
    .await;
    bed.send("hook", &sent[1600..]).await;
    first.stop().await;
    wait_until("the second has them all", || {
        owned(&second) == f64::from(PARTITIONS)
    })
    .await;
    bed.drained("hook").await;
    second.stop().await;
    // In good order nothing is delivered twice: what was in flight ended and was committed before the partition went.
    assert_kept(&sent, &sink, 0);
    assert_one_at_a_time(&sink, is_success);
    assert_eq!(bed.balance()["hook delivered"], 2400);
}

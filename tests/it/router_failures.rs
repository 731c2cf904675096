//! What can never pass, what is down, and what is left after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use sluice::event::Topic;
use sluice::kafka::Message;

use crate::router_bed::{Bed, assert_kept, assert_one_at_a_time, events, wait_until, webhooks};
use crate::support::sink::{Reply, Sink};

fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    std::str::from_utf8(message.header(name).unwrap_or_default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_kept_as_it_was_and_the_user_goes_on() {
    let sink = Sink::answering(|got| {
        if got.message_id().ends_with("-00003") {
            422u16
        } else {
            200
        }
    });
    let bed = Bed::new("refused", &webhooks(&[("hook", &sink.url("hook"))]));
    let sent = events("hook", 10, 10);
    bed.send("hook", &sent).await;
    bed.send_raw("hook", "u1", b"not a record of ours").await;
    let router = bed.start("a").await;
    bed.drained("hook").await;
    router.stop().await;
    assert_one_at_a_time(&sink, |status| status > 0);
    assert_eq!(sink.count(), 100, "each was tried once");

    let originals = bed.read(&Topic::Deliver("hook".to_owned()));
    let dead = bed.dead_letters();
    assert_eq!(dead.len(), 11);
    for letter in &dead {
        let place = (
            header(letter, "__connect.errors.partition"),
            header(letter, "__connect.errors.offset"),
        );
        let original = originals
            .iter()
            .find(|m| {
                (m.partition.to_string(), m.offset.to_string()) == (place.0.into(), place.1.into())
            })
            .unwrap();
        assert_eq!(letter.key, original.key);
        assert_eq!(letter.payload, original.payload);
        assert_eq!(letter.timestamp, original.timestamp);
        if header(letter, "sluice.reason") == "undecodable" {
            continue;
        }
        assert_eq!(header(letter, "sluice.http.status"), "422");
        assert_eq!(header(letter, "sluice.destination.id"), "hook");
        assert_eq!(header(letter, "sluice.attempts"), "1");
        assert!(header(letter, "sluice.message.id").ends_with("-00003"));
        assert_eq!(
            header(letter, "__connect.errors.exception.message"),
            "HTTP 422: ok"
        );
    }
    let expected = [
        (" dead_lettered undecodable".to_owned(), 1),
        ("hook dead_lettered refused".to_owned(), 10),
        ("hook delivered".to_owned(), 90),
    ];
    assert_eq!(bed.balance(), expected.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_given_up_only_after_both_its_time_and_its_attempts() {
    let sink = Sink::answering(|got| {
        if got.message_id() == "u0-00000" {
            500u16
        } else {
            200
        }
    });
    let mut bed = Bed::new("giveup", &webhooks(&[("hook", &sink.url("hook"))]));
    bed.config.router.delivery.give_up_after_ms = 300;
    bed.config.router.delivery.give_up_attempts = 4;
    let sent = events("hook", 2, 2);
    bed.send("hook", &sent).await;
    let router = bed.start("a").await;
    bed.drained("hook").await;
    router.stop().await;
    let tries = sink.look(|got| {
        let of_it: Vec<_> = got
            .iter()
            .filter(|g| g.status == 500)
            .map(|g| g.at)
            .collect();
        (of_it.len(), of_it[of_it.len() - 1].duration_since(of_it[0]))
    });
    assert!(
        tries.0 >= 4 && tries.1 >= Duration::from_millis(290),
        "{tries:?}"
    );
    let dead = bed.dead_letters();
    assert_eq!(dead.len(), 1);
    assert_eq!(header(&dead[0], "sluice.reason"), "retries_exhausted");
    assert_eq!(header(&dead[0], "sluice.attempts"), tries.0.to_string());
    let span = |name| header(&dead[0], name).parse::<i64>().unwrap();
    assert!(span("sluice.last.failed.at") - span("sluice.first.failed.at") >= 290);
    assert_one_at_a_time(&sink, |status| status == 200 || status == 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_down_is_waited_for_and_nothing_is_given_up() {
    let is_up = Arc::new(AtomicBool::new(false));
    let sink = Sink::answering({
        let is_up = Arc::clone(&is_up);
        move |_| {
            if is_up.load(Ordering::SeqCst) {
                200u16
            } else {
                503
            }
        }
    });
    let mut bed = Bed::new("down", &webhooks(&[("hook", &sink.url("hook"))]));
    // By these every event would be given up within moments, were it judged by itself.
    bed.config.router.delivery.give_up_after_ms = 500;
    bed.config.router.delivery.give_up_attempts = 1;
    bed.config.router.breaker.probe_base_ms = 30;
    bed.config.router.breaker.probe_cap_ms = 60;
    let sent = events("hook", 50, 8);
    bed.send("hook", &sent).await;
    let router = bed.start("a").await;
    let state = "sluice_router_breaker_state{destination=\"hook\"}";
    wait_until("the breaker opens", || router.metric(state) == 1.0).await;
    let before = sink.count();
    wait_until("it is probed", || sink.count() >= before + 20).await;
    assert!(before < 100, "{before} requests at a server that is down");
    assert_eq!(bed.lag("hook"), 400, "Kafka holds the backlog");
    assert_eq!(router.metric(state), 1.0);
    let window = router.metric("sluice_router_in_flight{destination=\"hook\"}");
    assert!(window <= 1.0, "one probe at a time");

    is_up.store(true, Ordering::SeqCst);
    bed.drained("hook").await;
    assert_eq!(router.metric(state), 0.0);
    router.stop().await;
    assert_kept(&sent, &sink, 0);
    assert_one_at_a_time(&sink, |status| status == 200);
    assert_eq!(bed.dead_letters().len(), 0);
    assert_eq!(bed.balance(), [("hook delivered".to_owned(), 400)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_waited_for_even_by_a_single_user() {
    // A loopback address that no other test listens on.
    let mut bed = Bed::new("absent", &webhooks(&[("hook", "http://127.0.0.2:9/hook")]));
    bed.config.router.delivery.give_up_after_ms = 200;
    bed.config.router.delivery.give_up_attempts = 6;
    bed.send("hook", &events("hook", 1, 3)).await;
    let router = bed.start("a").await;
    let tries = "sluice_router_attempts_total{destination=\"hook\",outcome=\"unreachable\"}";
    wait_until("it is tried often", || router.metric(tries) > 15.0).await;
    assert_eq!(bed.dead_letters().len(), 0);

    // Mended settings are tried at once.
    let sink = Sink::start();
    bed.publish(&webhooks(&[("hook", &sink.url("hook"))]));
    bed.drained("hook").await;
    router.stop().await;
    assert_eq!(sink.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_credential_does_not_empty_the_backlog_into_the_dead_letters() {
    let status = Arc::new(AtomicU16::new(401));
    let sink = Sink::answering({
        let status = Arc::clone(&status);
        move |_| status.load(Ordering::SeqCst)
    });
    let bed = Bed::new("flood", &webhooks(&[("hook", &sink.url("hook"))]));
    let sent = events("hook", 60, 10);
    bed.send("hook", &sent).await;
    let router = bed.start("a").await;
    let state = "sluice_router_breaker_state{destination=\"hook\"}";
    wait_until("the breaker opens", || router.metric(state) == 2.0).await;
    let probes = sink.count();
    wait_until("it is probed", || sink.count() > probes + 5).await;
    status.store(200, Ordering::SeqCst);
    bed.drained("hook").await;
    router.stop().await;
    let dead = bed.dead_letters().len();
    assert!((1..20).contains(&dead), "{dead} dead letters of 600 events");
    let balance = bed.balance();
    assert_eq!(balance["hook dead_lettered refused"], dead as i64);
    assert_eq!(balance["hook delivered"], 600 - dead as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_hold_events_back_until_they_are_mended() {
    let sink = Sink::start();
    let bed = Bed::new("unusable", &webhooks(&[("hook", "not a url")]));
    bed.send("hook", &events("hook", 2, 2)).await;
    let router = bed.start("a").await;
    let state = "sluice_router_breaker_state{destination=\"hook\"}";
    wait_until("it is seen", || router.metric(state) == 3.0).await;
    assert_eq!(bed.lag("hook"), 4);
    bed.publish(&webhooks(&[("hook", &sink.url("hook"))]));
    bed.drained("hook").await;
    router.stop().await;
    assert_eq!(sink.count(), 4);
    assert_eq!(bed.dead_letters().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_skips_what_was_done_behind_an_event_that_fails() {
    let fails = Arc::new(AtomicBool::new(true));
    let sink = Sink::answering({
        let fails = Arc::clone(&fails);
        move |got| {
            let is_it = got.message_id() == "u0-00000" && fails.load(Ordering::SeqCst);
            if is_it { 500u16 } else { 200 }
        }
    });
    let bed = Bed::new("skip", &webhooks(&[("hook", &sink.url("hook"))]));
    let sent = events("hook", 20, 20);
    bed.send("hook", &sent).await;
    let delivered = || sink.look(|got| got.iter().filter(|g| g.status == 200).count());
    let first = bed.start("a").await;
    wait_until("all but that user's are delivered", || delivered() == 380).await;
    first.stop().await;
    let tries = sink.count();

    let second = bed.start("a").await;
    wait_until("it is tried again", || sink.count() > tries).await;
    fails.store(false, Ordering::SeqCst);
    bed.drained("hook").await;
    let skipped = second.metric("sluice_router_skipped_total{lane=\"hook\"}");
    second.stop().await;
    assert!(skipped > 0.0, "read again, and skipped");
    assert_kept(&sent, &sink, 0);
    assert_eq!(bed.balance()["hook delivered"], 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_at_shutdown_ends_and_is_not_delivered_twice() {
    let sink = Sink::answering(|_| Reply::Late(200, Duration::from_millis(700)));
    let bed = Bed::new("drain", &webhooks(&[("hook", &sink.url("hook"))]));
    let sent = events("hook", 20, 3);
    bed.send("hook", &sent).await;
    let router = bed.start("a").await;
    wait_until("requests are in flight", || sink.count() >= 20).await;
    router.stop().await;
    assert_eq!(
        bed.balance()["hook delivered"],
        20,
        "what was begun, and no more"
    );
    let router = bed.start("a").await;
    bed.drained("hook").await;
    router.stop().await;
    assert_kept(&sent, &sink, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_pauses_reading_and_loses_nothing() {
    let sink = Sink::answering(|_| Reply::Late(200, Duration::from_millis(1)));
    let mut bed = Bed::new("window", &webhooks(&[("hook", &sink.url("hook"))]));
    bed.config.router.window_records_max = 20;
    bed.config.router.poll_records_max = 10;
    bed.config.router.uncommitted_records_max = 30;
    let sent = events("hook", 50, 40);
    bed.send("hook", &sent).await;
    let router = bed.start("a").await;
    bed.drained("hook").await;
    router.stop().await;
    assert_kept(&sent, &sink, 0);
    assert_one_at_a_time(&sink, |status| status == 200);
    assert_eq!(bed.balance()["hook delivered"], 2000);
}

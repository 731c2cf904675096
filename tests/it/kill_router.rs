//! The router is killed at every named point: nothing is lost, users stay in order, and what comes twice is bounded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use sluice::dev::kafka::LocalKafka;
use sluice::event::codec::decode_ledger;

use crate::support::checker::{Arrival, Input, check_arrivals, check_rows};
use crate::support::feed::{Feeds, WRITE_KEY};
use crate::support::killed::Killed;
use crate::support::process::{Bed, Process, Role, free_address, wait_for};
use crate::support::records::{Record, Tail, read_all};
use crate::support::sink::{Got, Sink};

const PATIENCE: Duration = Duration::from_secs(120);

/// The points on a delivery's way and on its commit's, each to be died of early and later.
const POINTS: [&str; 16] = [
    "router.after_poll@150",
    "router.before_send@100",
    "router.after_response@100",
    "router.after_begin@2",
    "router.after_send@1",
    "router.before_commit@1",
    "router.after_offsets@1",
    "router.after_commit@1",
    "router.after_poll@700",
    "router.before_send@400",
    "router.after_response@400",
    "router.after_begin@5",
    "router.after_send@9",
    "router.before_commit@3",
    "router.after_offsets@3",
    "router.after_commit@3",
];

/// `router.uncommitted_records_max`: the most that one death may make the destination see twice.
const UNCOMMITTED_MAX: usize = 200;

/// What the destination does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Taken,
    /// Not at the first two tries.
    Late,
    /// Never, and says so.
    Refused,
    /// Never, and always says that it may be later.
    Hopeless,
}

/// Of 200 users some have bad events among good ones.
fn fate(key: &str, key_seq: u64) -> Fate {
    let user: u64 = key.split_once('-').unwrap().1.parse().unwrap();
    match (user, key_seq % 10) {
        (1..=4, 3) => Fate::Late,
        // So many that hardly a commit is without a dead letter.
        (5..=9, 0 | 5) => Fate::Refused,
        (10, 7) => Fate::Hopeless,
        _ => Fate::Taken,
    }
}

fn fate_of(got: &Got) -> Fate {
    let event = got.json();
    let key_seq = event["properties"]["key_seq"].as_u64().unwrap();
    fate(event["userId"].as_str().unwrap(), key_seq)
}

fn destination() -> Sink {
    let tries: Mutex<HashMap<String, u32>> = Mutex::default();
    Sink::answering(move |got| match fate_of(got) {
        Fate::Taken => 200u16,
        Fate::Refused => 422,
        Fate::Hopeless => 500,
        Fate::Late => {
            let mut tries = tries.lock().unwrap();
            let tries = tries.entry(got.message_id()).or_default();
            *tries += 1;
            if *tries > 2 { 200 } else { 503 }
        }
    })
}

fn bed(name: &str, sink: &Sink) -> Bed {
    let bed = Bed::new(LocalKafka::shared().unwrap().bootstrap(), name);
    bed.workspace(&json!({
        "sources": [{"id": "s", "write_key": WRITE_KEY}],
        "destinations": [
            {"id": "hook", "type": "WEBHOOK", "config": {"webhookUrl": sink.url("hook")}},
        ],
        "connections": [{"source": "s", "destination": "hook"}],
    }));
    bed.run(&["topics", "apply", "--yes"]);
    bed
}

/// What stands before the router.
fn upstream(bed: &Bed) -> (std::net::SocketAddr, [Process; 2]) {
    let address = free_address();
    let gateway = bed
        .role("gateway", "gateway")
        .with("gateway.listen", address.to_string())
        .start_ready(PATIENCE);
    let processor = bed.role("processor", "processor").start_ready(PATIENCE);
    (address, [gateway, processor])
}

fn router<'b>(bed: &'b Bed, instance: &str) -> Role<'b> {
    bed.role("router", instance)
        // A killed member's partitions wait for it under its name; a short session only bounds a test that fails.
        .with("kafka.consumer.session_timeout_ms", 10_000)
        .with("router.uncommitted_records_max", UNCOMMITTED_MAX)
        .with("router.commit_interval_ms", 50)
        .with("router.delivery.backoff_base_ms", 20)
        .with("router.delivery.backoff_cap_ms", 100)
        .with("router.delivery.give_up_after_ms", 200)
        // The destination is up; it is the events of some users that fail.
        .with("router.breaker.keys", 50)
        .with("router.breaker.refusals", 100)
}

fn arrivals(sink: &Sink) -> Vec<Arrival> {
    sink.look(|got| {
        let arrival = |one: &Got| Arrival {
            id: one.message_id(),
            key: one.json()["userId"].as_str().unwrap().to_owned(),
            idempotency_key: one.headers.get("idempotency-key").cloned(),
            accepted: one.status == 200,
        };
        got.iter().map(arrival).collect()
    })
}

/// Records that the router's ledger entries count.
fn ended(ledger: &[Record]) -> usize {
    let entries = ledger.iter().map(|r| decode_ledger(&r.payload).unwrap());
    let records = entries.filter(|e| e.stage == "router").map(|e| e.records);
    usize::try_from(records.sum::<i64>()).unwrap()
}

#[test]
fn a_router_killed_at_every_point_loses_nothing_and_repeats_no_more_than_it_says() {
    const EVENTS: u64 = 20_000;
    let sink = destination();
    let bed = bed("kill-router", &sink);
    let (address, upstream) = upstream(&bed);
    let mut killed = Killed::start(router(&bed, "router"), &POINTS);
    let mut feeds = Feeds::new("r", address);
    let inputs = feeds.spread(EVENTS, &mut [&mut killed]);
    let mut ledger = Tail::open(&bed.bootstrap, &bed.topic("ledger"));
    ledger.read_until("the end of every event", PATIENCE, |records| {
        ended(records) >= inputs.len()
    });
    let deaths: Vec<Instant> = killed.deaths.iter().map(|(_, at)| *at).collect();
    assert_eq!(deaths.len(), POINTS.len());
    killed.stop(Duration::from_secs(30));
    for role in upstream {
        assert!(role.stop(Duration::from_secs(30)).success());
    }

    assert_kept(&bed, &sink, &inputs, deaths.len() * UNCOMMITTED_MAX);
    assert_repeats_are_bounded(&sink, &deaths);
}

/// What the README promises of a router, with at most `repeats_max` repetitions.
fn assert_kept(bed: &Bed, sink: &Sink, inputs: &[Input], repeats_max: usize) {
    let is_dead = |input: &&Input| {
        matches!(
            fate(&input.key, input.key_seq),
            Fate::Refused | Fate::Hopeless
        )
    };
    let (dead, alive): (Vec<Input>, Vec<Input>) =
        inputs.iter().cloned().partition(|input| is_dead(&input));
    let arrivals = arrivals(sink);
    let of_alive: HashSet<&str> = alive.iter().map(|input| input.id.as_str()).collect();
    let at_alive: Vec<Arrival> = arrivals
        .iter()
        .filter(|one| of_alive.contains(one.id.as_str()))
        .cloned()
        .collect();
    let report = check_arrivals(&alive, &at_alive, repeats_max);
    println!("webhook: {report}");
    report.assert_clean("webhook");
    // A try that failed must have kept back what came after it: what was taken is in order, too.
    let taken: Vec<Arrival> = at_alive.into_iter().filter(|one| one.accepted).collect();
    check_arrivals(&alive, &taken, repeats_max).assert_clean("webhook, what it took");
    // Those that are never taken were tried in their users' order, too, and nothing that was never sent came.
    let all = check_arrivals(inputs, &arrivals, repeats_max);
    assert_eq!(all.lost.len(), dead.len());
    let wrong = [
        &all.duplicated,
        &all.reordered,
        &all.phantom,
        &all.idempotency,
    ];
    assert!(wrong.iter().all(|found| found.is_empty()), "{all}");
    assert_dead_letters(bed, &dead);
    assert_balance(bed, inputs.len(), &dead);
}

/// What a life delivered and another delivered again is at most what it may have had uncommitted.
fn assert_repeats_are_bounded(sink: &Sink, deaths: &[Instant]) {
    let mut repeated = vec![0; deaths.len() + 1];
    let mut later = HashSet::new();
    for got in sink.got().iter().rev().filter(|got| got.status == 200) {
        // A life begins only once the one before it was seen dead.
        let life = deaths.partition_point(|death| *death <= got.at);
        if !later.insert(got.message_id()) {
            repeated[life] += 1;
        }
    }
    println!("delivered again, by life: {repeated:?}");
    assert!(
        repeated.iter().all(|n| *n <= UNCOMMITTED_MAX),
        "{repeated:?}"
    );
}

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    let found = record.headers.iter().find(|(n, _)| n == name);
    std::str::from_utf8(&found.unwrap().1).unwrap()
}

/// Each event that can never pass is in `dlq.router` once, with the reason.
fn assert_dead_letters(bed: &Bed, dead: &[Input]) {
    let letters = read_all(&bed.bootstrap, &bed.topic("dlq.router"));
    let ids = letters.iter().map(|r| header(r, "sluice.message.id"));
    let report = check_rows(dead, ids);
    println!("dlq.router: {report}");
    report.assert_clean("dlq.router");
    let by_id: HashMap<&str, &Input> = dead.iter().map(|i| (i.id.as_str(), i)).collect();
    for letter in &letters {
        let input = by_id[header(letter, "sluice.message.id")];
        assert_eq!(letter.key, input.key.as_bytes());
        let reason = match fate(&input.key, input.key_seq) {
            Fate::Refused => "refused",
            _ => "retries_exhausted",
        };
        assert_eq!(header(letter, "sluice.reason"), reason);
    }
    for stage in ["dlq.processor", "dlq.warehouse"] {
        assert!(read_all(&bed.bootstrap, &bed.topic(stage)).is_empty());
    }
}

/// Forwarded = delivered + dead-lettered, and every offset of `deliver.hook` stands in exactly one entry's range.
fn assert_balance(bed: &Bed, wanted: usize, dead: &[Input]) {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    let mut reached: BTreeMap<i32, i64> = BTreeMap::new();
    let records = read_all(&bed.bootstrap, &bed.topic("ledger"));
    let mut entries: Vec<_> = records
        .iter()
        .map(|record| decode_ledger(&record.payload).unwrap())
        .collect();
    // Each writer has its own partition of the ledger, and ranges go on where another writer's ended.
    entries.sort_by_key(|entry| (entry.partition, entry.from_offset, entry.to_offset));
    for entry in &entries {
        for outcome in &entry.outcomes {
            assert_eq!(outcome.destination_id, "hook");
            let what = format!("{} {} {}", entry.stage, outcome.ending, outcome.reason);
            *counts.entry(what.trim_end().to_owned()).or_default() += outcome.count;
        }
        if entry.stage == "router" {
            let before = reached.insert(entry.partition, entry.to_offset);
            assert_eq!(entry.from_offset, before.unwrap_or(0), "{entry:?}");
        }
    }
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    for record in read_all(&bed.bootstrap, &bed.topic("deliver.hook")) {
        let end = ends.entry(record.partition).or_default();
        *end = (*end).max(record.offset + 1);
    }
    assert_eq!(reached, ends);
    let of = |wanted: Fate| {
        let found = dead.iter().filter(|i| fate(&i.key, i.key_seq) == wanted);
        i64::try_from(found.count()).unwrap()
    };
    let all = i64::try_from(wanted).unwrap();
    let (refused, hopeless) = (of(Fate::Refused), of(Fate::Hopeless));
    let expected = [
        ("processor forwarded", all),
        ("router dead_lettered refused", refused),
        ("router dead_lettered retries_exhausted", hopeless),
        ("router delivered", all - refused - hopeless),
    ];
    println!("ledger: {counts:?}");
    assert_eq!(
        counts,
        expected.map(|(what, n)| (what.to_owned(), n)).into()
    );
}

#[test]
fn a_router_that_wakes_up_in_a_transaction_after_another_took_over_commits_nothing() {
    // The offsets are in the transaction: the other one has to wait for the coordinator to give it up.
    sleep_and_wake("wake-router-commit", "router.after_offsets=stop@3");
}

#[test]
fn a_router_that_wakes_up_before_a_request_after_another_took_over_keeps_the_order() {
    sleep_and_wake("wake-router-send", "router.before_send=stop@300");
}

fn sleep_and_wake(name: &str, point: &str) {
    const EVENTS: u64 = 1_000;
    let sink = destination();
    let bed = bed(name, &sink);
    let (address, upstream) = upstream(&bed);
    let role = |instance| {
        router(&bed, instance)
            .with("kafka.consumer.session_timeout_ms", 6_000)
            .with("kafka.consumer.heartbeat_interval_ms", 1_500)
    };
    let sleeper = role("sleeper").start(point);
    let mut feeds = Feeds::new("z", address);
    let mut inputs = feeds.post(EVENTS);
    wait_for("the sleeper to fall asleep", PATIENCE, || {
        sleeper.is_stopped().then_some(())
    });
    let other = role("other").start_ready(PATIENCE);
    inputs.extend(feeds.post(EVENTS));
    let mut ledger = Tail::open(&bed.bootstrap, &bed.topic("ledger"));
    let mut wait_for_the_end = |inputs: &[Input]| {
        ledger.read_until("the end of every event", PATIENCE, |records| {
            ended(records) >= inputs.len()
        });
    };
    wait_for_the_end(&inputs);
    sleeper.signal(Signal::SIGCONT);
    wait_for("the sleeper to see that it slept", PATIENCE, || {
        sleeper.log().contains("stood still").then_some(())
    });
    inputs.extend(feeds.post(EVENTS));
    wait_for_the_end(&inputs);
    for role in [sleeper, other].into_iter().chain(upstream) {
        let name = role.name.clone();
        assert!(
            role.stop(Duration::from_secs(30)).success(),
            "{name} drained badly"
        );
    }
    assert_kept(&bed, &sink, &inputs, UNCOMMITTED_MAX);
}

/// Proves that the test above can fail: with progress committed before the delivery, a kill loses what waited, and the
/// checker says so.
#[test]
fn a_router_that_commits_before_it_delivers_is_caught_losing_events() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    // At first one user of each producer waits.
    let sink = Sink::answering(move |got| {
        let user = got.json()["userId"].as_str().unwrap().to_owned();
        let waits = user.ends_with("-1") && !mended.load(Ordering::SeqCst);
        if waits { 503u16 } else { 200 }
    });
    let bed = bed("kill-router-broken", &sink);
    let (address, _upstream) = upstream(&bed);
    let mut feeds = Feeds::new("b", address);
    let mut broken = router(&bed, "router")
        .start("router.fault.commit_before_delivery=panic,router.after_commit=kill@3");
    let mut inputs: Vec<Input> = Vec::new();
    let until = Instant::now() + PATIENCE;
    while !broken.was_killed() {
        assert!(
            Instant::now() < until,
            "it was not killed\n{}",
            broken.log()
        );
        inputs.extend(feeds.post(200));
    }
    is_mended.store(true, Ordering::SeqCst);
    let mut mended = router(&bed, "router").start_ready(PATIENCE);
    // One event of every user: once it is delivered, whatever the user had before is delivered or lost.
    let last = feeds.post(200);
    wait_for("the last event of every user", PATIENCE, || {
        let got: HashSet<String> = sink.look(|got| {
            let taken = got.iter().filter(|one| one.status == 200);
            taken.map(Got::message_id).collect()
        });
        last.iter().all(|i| got.contains(&i.id)).then_some(())
    });
    assert!(mended.ended().is_none());
    inputs.extend(last);
    let report = check_arrivals(&inputs, &arrivals(&sink), UNCOMMITTED_MAX);
    println!("as it must be: {report}");
    assert!(!report.lost.is_empty(), "the checker saw no loss: {report}");
    assert!(
        report.phantom.is_empty() && report.reordered.is_empty(),
        "{report}"
    );
}

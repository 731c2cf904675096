//! The processor is killed at every named point; its output is exactly its input all the same.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice::dev::kafka::LocalKafka;
use sluice::event::AddressedKind;
use sluice::event::codec::{decode_addressed, decode_ledger};

use crate::support::checker::{Input, Logged, check_log};
use crate::support::feed::{Feeds, WRITE_KEY};
use crate::support::killed::Killed;
use crate::support::process::{Bed, Role, free_address};
use crate::support::records::{Record, Tail, read_all};

/// The points on a transaction's way.
const POINTS: [&str; 6] = [
    "processor.after_poll",
    "processor.after_begin",
    "processor.after_send",
    "processor.before_commit",
    "processor.after_offsets",
    "processor.after_commit",
];

fn bed(name: &str) -> Bed {
    let kafka = LocalKafka::shared().unwrap();
    let bed = Bed::new(kafka.bootstrap(), name);
    bed.workspace(&json!({
        "sources": [{"id": "s", "write_key": WRITE_KEY}],
        "destinations": [
            {"id": "hook", "type": "WEBHOOK", "config": {"webhookUrl": "http://127.0.0.1:9/"}},
            {"id": "rows", "type": "SQLITE", "config": {"path": "/nowhere"}},
        ],
        "connections": [{"source": "s", "destination": "hook"}, {"source": "s", "destination": "rows"}],
    }));
    bed.run(&["topics", "apply", "--yes"]);
    bed
}

fn processor(bed: &Bed) -> Role<'_> {
    bed.role("processor", "processor")
        // A killed member's partitions wait for it under its name; a short session only bounds a test that fails.
        .with("kafka.consumer.session_timeout_ms", 10_000)
        // Smaller transactions: more of them to be killed in.
        .with("processor.transaction_records_max", 200)
        .with("processor.chunk_records_max", 100)
}

fn logged(kind: AddressedKind, records: &[Record]) -> Vec<Logged> {
    records
        .iter()
        .map(|r| {
            let addressed = decode_addressed(kind, &r.payload).unwrap();
            Logged {
                id: addressed.envelope.message_id.into_owned(),
                key: String::from_utf8(r.key.clone()).unwrap(),
                partition: r.partition,
                offset: r.offset,
            }
        })
        .collect()
}

#[test]
fn a_processor_killed_at_every_point_neither_loses_nor_doubles_nor_reorders() {
    const EVENTS: u64 = 20_000;
    let bed = bed("kill-processor");
    let gateway_address = free_address();
    let gateway = bed
        .role("gateway", "gateway")
        .with("gateway.listen", gateway_address.to_string())
        .start_ready(Duration::from_secs(60));
    let points: Vec<String> = ["1", "3"]
        .iter()
        .flat_map(|pass| POINTS.iter().map(move |p| format!("{p}@{pass}")))
        .collect();
    let mut killed = Killed::start(
        processor(&bed),
        &points.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let mut feeds = Feeds::new("p", gateway_address);
    let inputs = feeds.spread(EVENTS, &mut [&mut killed]);

    let wanted = inputs.len();
    let within = Duration::from_secs(120);
    let mut deliver = Tail::open(&bed.bootstrap, &bed.topic("deliver.hook"));
    deliver.read_until("all deliveries", within, |r| r.len() >= wanted);
    let mut rows = Tail::open(&bed.bootstrap, &bed.topic("warehouse.rows"));
    rows.read_until("all rows", within, |r| r.len() >= wanted);
    killed.stop(Duration::from_secs(30));
    gateway.stop(Duration::from_secs(30));

    // Read anew: what came after the wanted number counts too.
    for (topic, kind) in [
        ("deliver.hook", AddressedKind::Delivery),
        ("warehouse.rows", AddressedKind::WarehouseSource),
    ] {
        let records = read_all(&bed.bootstrap, &bed.topic(topic));
        let report = check_log(&inputs, &logged(kind, &records));
        println!("{topic}: {report}");
        report.assert_clean(topic);
    }
    let dead = read_all(&bed.bootstrap, &bed.topic("dlq.processor"));
    assert!(dead.is_empty(), "{} dead letters", dead.len());
    assert_ledger_covers(&bed, wanted);
}

/// Every offset of `events` stands in exactly one entry's range.
fn assert_ledger_covers(bed: &Bed, wanted: usize) {
    let entries = read_all(&bed.bootstrap, &bed.topic("ledger"));
    let mut ranges: Vec<(i32, i64, i64)> = Vec::new();
    let mut records = 0;
    for entry in &entries {
        let entry = decode_ledger(&entry.payload).unwrap();
        if entry.stage == "processor" {
            ranges.push((entry.partition, entry.from_offset, entry.to_offset));
            records += entry.records;
        }
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        let [(p, _, to), (q, from, _)] = [pair[0], pair[1]];
        assert!(p != q || to == from, "partition {p}: {to} and then {from}");
    }
    assert_eq!(usize::try_from(records).unwrap(), wanted);
}

/// Proves that the test above can fail: with offsets committed before the transaction, the same kills lose events, and the
/// checker says so.
#[test]
fn a_processor_that_commits_offsets_first_is_caught_losing_events() {
    let bed = bed("kill-broken");
    let gateway_address = free_address();
    let _gateway = bed
        .role("gateway", "gateway")
        .with("gateway.listen", gateway_address.to_string())
        .start_ready(Duration::from_secs(60));
    let mut feeds = Feeds::new("b", gateway_address);
    let mut broken = processor(&bed)
        .start("processor.fault.offsets_before_transaction=panic,processor.before_commit=kill@3");
    let mut inputs: Vec<Input> = Vec::new();
    let until = Instant::now() + Duration::from_secs(90);
    while !broken.was_killed() {
        assert!(
            Instant::now() < until,
            "it was not killed\n{}",
            broken.log()
        );
        inputs.extend(feeds.post(100));
    }
    let mut mended = processor(&bed).start_ready(Duration::from_secs(60));
    inputs.extend(feeds.post(100));
    // The last events are through: nothing that was posted before them is still on its way.
    let last: Vec<String> = inputs[inputs.len() - 100..]
        .iter()
        .map(|i| i.id.clone())
        .collect();
    let mut tail = Tail::open(&bed.bootstrap, &bed.topic("deliver.hook"));
    tail.read_until("the last events", Duration::from_secs(60), |records| {
        let seen = logged(AddressedKind::Delivery, records);
        last.iter().all(|id| seen.iter().any(|l| l.id == *id))
    });
    assert!(mended.ended().is_none());
    let report = check_log(
        &inputs,
        &logged(
            AddressedKind::Delivery,
            &read_all(&bed.bootstrap, &bed.topic("deliver.hook")),
        ),
    );
    println!("as it must be: {report}");
    assert!(!report.lost.is_empty(), "the checker saw no loss: {report}");
    assert!(
        report.phantom.is_empty() && report.reordered.is_empty(),
        "{report}"
    );
}

//! What the processor writes, on a real broker.

use sluice::event::Stage;
use sluice::event::{AddressedKind, Envelope, Topic};
use sluice::kafka::{Batch, RecordRef, deadline};

use super::processor_bed::{Bed, PATIENCE, WORKSPACE, addressed, ids, sorted, track};

#[tokio::test(flavor = "multi_thread")]
async fn events_fan_out_by_connections_types_and_the_integrations_object() {
    let bed = Bed::new("fan", WORKSPACE, 3);
    let running = bed.start("a").await;
    let event =
        |id: &'static str, source: &'static str, kind: &'static str, json: &'static str| Envelope {
            source_id: source.into(),
            event_type: kind.into(),
            event: json.as_bytes().into(),
            ..track(id, "u1")
        };
    let spaced = r#"{ "a" : 1.50, "b":"é" }"#;
    bed.send(&[
        event("all", "web", "track", spaced),
        event("page", "web", "page", "{}"),
        event(
            "only-hook",
            "web",
            "track",
            r#"{"integrations":{"All":false,"Webhook":true}}"#,
        ),
        event(
            "no-lake",
            "web",
            "track",
            r#"{"integrations":{"SQLite":false}}"#,
        ),
        event(
            "nowhere",
            "web",
            "track",
            r#"{"integrations":{"All":false}}"#,
        ),
        event("app", "app", "track", "{}"),
        event("unknown", "gone", "track", "{}"),
    ])
    .await;
    bed.wait_until_processed();
    assert_eq!(
        bed.delivered("hook"),
        ["all", "page", "only-hook", "no-lake", "app"]
    );
    assert_eq!(bed.delivered("tracks"), ["all", "no-lake"]);
    let lake = bed.read(&Topic::Warehouse("lake".into()));
    assert_eq!(ids(AddressedKind::WarehouseSource, &lake), ["all", "page"]);
    let first = addressed(AddressedKind::WarehouseSource, &lake[0]);
    assert_eq!(
        &*first.envelope.event,
        spaced.as_bytes(),
        "the customer's bytes"
    );
    assert_eq!(
        lake[0].key.as_deref(),
        Some(b"u1".as_slice()),
        "the ordering key"
    );
    assert_eq!(first.destination_id, "lake");

    let balance = bed.balance();
    let count = |destination: &str, ending: &str, reason: &str| {
        let key = (destination.to_owned(), ending.to_owned(), reason.to_owned());
        balance.get(&key).copied().unwrap_or(0)
    };
    assert_eq!(count("hook", "forwarded", ""), 5);
    assert_eq!(count("hook", "filtered", "integrations_object"), 1);
    assert_eq!(count("tracks", "forwarded", ""), 2);
    assert_eq!(count("tracks", "filtered", "unsupported_type"), 1);
    assert_eq!(count("tracks", "filtered", "integrations_object"), 2);
    assert_eq!(count("lake", "forwarded", ""), 2);
    assert_eq!(count("lake", "filtered", "integrations_object"), 3);
    assert_eq!(count("", "filtered", "source_unknown"), 1);
    assert_eq!(
        running.metric(
            r#"sluice_processor_events_total{destination="hook",ending="forwarded",reason=""}"#
        ),
        5.0
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_kept_with_its_bytes_and_the_rest_goes_on() {
    let bed = Bed::new("dlq", WORKSPACE, 1);
    let running = bed.start("a").await;
    let batch = Batch::new();
    let events = bed.names.name(&Topic::Events);
    let garbage = RecordRef {
        timestamp: Some(1_700_000_000_123),
        headers: sluice::kafka::Headers::Borrowed(&[("traceparent", b"00-abc")]),
        ..RecordRef::new(&events, b"u1", b"\x00\x01garbage")
    };
    bed.send(&[track("before", "u1")]).await;
    bed.producer.send(&batch, garbage).unwrap();
    batch.wait(deadline(PATIENCE)).await.unwrap();
    let unreadable = Envelope {
        event: br#"{"integrations":{"#.as_slice().into(),
        ..track("unreadable", "u1")
    };
    bed.send(&[unreadable, track("after", "u1")]).await;
    bed.wait_until_processed();

    assert_eq!(bed.delivered("hook"), ["before", "after"]);
    let letters = bed.read(&Topic::Dlq(Stage::Processor));
    assert_eq!(letters.len(), 2);
    let [garbage, unreadable] = &letters[..] else {
        unreachable!()
    };
    assert_eq!(
        garbage.payload.as_deref(),
        Some(b"\x00\x01garbage".as_slice())
    );
    assert_eq!(garbage.key.as_deref(), Some(b"u1".as_slice()));
    assert_eq!(garbage.timestamp, Some(1_700_000_000_123));
    assert_eq!(garbage.header("traceparent"), Some(b"00-abc".as_slice()));
    assert_eq!(
        garbage.header("sluice.reason"),
        Some(b"undecodable".as_slice())
    );
    assert_eq!(
        garbage.header("__connect.errors.topic"),
        Some(events.as_bytes())
    );
    assert_eq!(
        garbage.header("__connect.errors.partition"),
        Some(b"0".as_slice())
    );
    assert_eq!(
        garbage.header("__connect.errors.offset"),
        Some(b"1".as_slice())
    );
    assert_eq!(
        unreadable.header("sluice.reason"),
        Some(b"invalid_event".as_slice())
    );
    assert_eq!(
        unreadable.header("sluice.message.id"),
        Some(b"unreadable".as_slice())
    );
    let expected = (
        "".to_owned(),
        "dead_lettered".to_owned(),
        "undecodable".to_owned(),
    );
    assert_eq!(bed.balance()[&expected], 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_only_just_fitted_is_delivered_or_dead_lettered_but_never_stuck() {
    let mut bed = Bed::new("large", WORKSPACE, 1);
    bed.config.kafka.producer.message_bytes_max = 100_000;
    let limit = bed.config.kafka.producer.message_bytes_max;
    let running = bed.start("a").await;
    let large = |id: &'static str, bytes: usize| {
        let mut event = br#"{"a":""#.to_vec();
        event.resize(bytes - 2, b'x');
        event.extend_from_slice(br#""}"#);
        Envelope {
            event: event.into(),
            source_id: "app".into(),
            ..track(id, "u")
        }
    };
    // What the gateway's producer can take at most, and what only a foreign producer with larger limits could write.
    bed.send(&[
        large("fits", limit - 300),
        large("too-large", limit + (64 << 10) + 1),
        large("small", 100),
    ])
    .await;
    bed.wait_until_processed();
    let delivered = bed.delivered("hook");
    let letters = bed.read(&Topic::Dlq(Stage::Processor));
    assert_eq!(
        delivered,
        ["fits", "small"],
        "{} dead letters",
        letters.len()
    );
    assert_eq!(letters.len(), 1);
    assert_eq!(
        letters[0].header("sluice.reason"),
        Some(b"too_large".as_slice())
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_accounts_for_every_offset_once() {
    let bed = Bed::new("ledger", WORKSPACE, 4);
    let running = bed.start("a").await;
    for round in 0..20 {
        let named: Vec<(String, String)> = (0..25)
            .map(|n| (format!("{round}-{n}"), format!("user-{}", n % 7)))
            .collect();
        let events: Vec<Envelope<'_>> = named.iter().map(|(id, user)| track(id, user)).collect();
        bed.send(&events).await;
    }
    bed.wait_until_processed();
    running.stop().await;
    let mut entries = bed.ledger();
    entries.sort_by_key(|e| (e.partition, e.from_offset));
    for pair in entries.windows(2) {
        if pair[0].partition == pair[1].partition {
            assert_eq!(pair[0].to_offset, pair[1].from_offset, "ranges meet");
        } else {
            assert_eq!(pair[1].from_offset, 0);
        }
    }
    assert_eq!(entries.iter().map(|e| e.records).sum::<i64>(), 500);
    assert_eq!(bed.delivered("hook").len(), 500);
    let balance = bed.balance();
    for destination in ["hook", "lake", "tracks"] {
        let forwarded = (
            destination.to_owned(),
            "forwarded".to_owned(),
            String::new(),
        );
        assert_eq!(balance[&forwarded], 500, "{destination}");
    }
    assert_eq!(balance.len(), 3);
    let committed: i64 = bed.committed().values().sum();
    assert_eq!(committed, 500);
    let distinct = sorted(bed.delivered("tracks"));
    assert!(
        distinct.windows(2).all(|pair| pair[0] != pair[1]),
        "something is there twice"
    );
}

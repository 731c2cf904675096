//! The whole path: what published SDKs sent, and what is written by hand, goes in at the gateway, and comes out at a webhook and
//! as rows of two warehouses.
//!
//! The four roles are processes of the real binary. What must come out is computed from what was sent alone, by
//! RudderStack's rules, in this file and in `walk_rows`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use md5::{Digest, Md5};
use serde_json::{Value, json};
use sluice::dev::kafka::LocalKafka;
use sluice::event::Envelope;
use sluice::event::codec::decode_ledger;

use crate::support::by_hand;
use crate::support::captures::{SOURCES, bytes_of, captures, events_of, write_key_of};
use crate::support::client::Connection;
use crate::support::gateway::envelope;
use crate::support::postgres::{self, Database};
use crate::support::process::{Bed, free_address, wait_for};
use crate::support::records::{Record, Tail, read_all};
use crate::support::sink::Sink;
use crate::walk_rows::{Origin, Tables, assert_same, in_postgres, in_sqlite, load, rows_of};

const PATIENCE: Duration = Duration::from_secs(120);

/// How a source is called and what it is; the schema that follows from its name, by hand.
const NAMES: [(&str, &str, &str, &str); 5] = [
    ("js", "Browser Shop", "Javascript", "browser_shop"),
    ("node", "Node Service", "Node", "node_service"),
    ("py", "Python Service", "Python", "python_service"),
    ("rust", "RustService", "Rust", "rust_service"),
    ("segment", "segment-app", "Segment", "segment_app"),
];

/// An event as an SDK sent it.
struct Sent {
    source: &'static str,
    event: Value,
    /// `sentAt` of the batch around it.
    batch_sent_at: Value,
}

/// An event that was sent, with what the gateway made of it.
struct Accepted {
    sent: Sent,
    envelope: Envelope<'static>,
}

impl Sent {
    /// What orders it: the user, else the device.
    fn key(&self) -> String {
        let text = |name: &str| self.event[name].as_str().unwrap_or_default();
        let user = text("userId");
        if user.is_empty() {
            text("anonymousId")
        } else {
            user
        }
        .to_owned()
    }
}

impl Accepted {
    /// The event with what RudderStack's gateway and processor add to it.
    fn stamped(&self) -> Value {
        let sent = &self.sent.event;
        let mut event = sent.clone();
        let id = |name: &str| sent[name].as_str().unwrap_or_default();
        let received = self.envelope.received_at;
        let time = |value: &Value| Some(millis(value.as_str()?));
        let made_at = time(&sent["originalTimestamp"]).unwrap_or(received);
        let sent_at = time(&sent["sentAt"])
            .or_else(|| time(&self.sent.batch_sent_at))
            .unwrap_or(received);
        // The client's clock may be wrong, but what passed between two of its times is right.
        let timestamp = time(&sent["timestamp"]).unwrap_or(received - (sent_at - made_at));
        event["messageId"] = self.envelope.message_id.as_ref().into();
        event["rudderId"] = rudder_id(id("userId"), id("anonymousId")).into();
        event["request_ip"] = "127.0.0.1".into();
        for (name, at) in [
            ("receivedAt", received),
            ("originalTimestamp", made_at),
            ("sentAt", sent_at),
            ("timestamp", timestamp),
        ] {
            event[name] = text_of(at).into();
        }
        event
    }

    /// What a webhook gets: an event without an address in its context is given the request's.
    fn at_webhook(&self) -> Value {
        let mut event = self.stamped();
        if event["context"]["ip"].is_null() {
            event["context"]["ip"] = event["request_ip"].clone();
        }
        event
    }
}

fn millis(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text)
        .unwrap()
        .timestamp_millis()
}

fn text_of(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .unwrap()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// MD5 of `userId:anonymousId`, with the bits of a random UUID forced.
fn rudder_id(user: &str, anonymous: &str) -> String {
    let mut bytes: [u8; 16] = Md5::digest(format!("{user}:{anonymous}")).into();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    uuid::Uuid::from_bytes(bytes).to_string()
}

fn bed(sink: &Sink, database: &Database) -> Bed {
    let mut bed = Bed::new(LocalKafka::shared().unwrap().bootstrap(), "walk");
    let staging = bed.path("staging");
    bed.set(
        "warehouse.object_store.url",
        format!("file://{}", staging.display()),
    );
    bed.set("warehouse.batch.age_ms_max", 100);
    bed.set("warehouse.load.interval_ms", 50);
    let destinations = ["hook", "lite", "post"];
    let sources: Vec<Value> = SOURCES
        .iter()
        .zip(NAMES)
        .map(|((id, write_key), (_, name, kind, _))| {
            json!({"id": id, "name": name, "type": kind, "write_key": write_key})
        })
        .collect();
    let connections: Vec<Value> = SOURCES
        .iter()
        .flat_map(|(source, _)| destinations.map(|d| json!({"source": source, "destination": d})))
        .collect();
    bed.workspace(&json!({
        "sources": sources,
        "destinations": [
            {"id": "hook", "type": "WEBHOOK", "config": {"webhookUrl": sink.url("hook")}},
            {"id": "lite", "type": "SQLITE", "config": {"path": bed.path("lite.db")}},
            {"id": "post", "type": "POSTGRES", "config": database.config()},
        ],
        "connections": connections,
    }));
    bed.run(&["topics", "apply", "--yes"]);
    bed
}

/// Posts every request, one after the other, and returns the events in the order in which they were accepted.
async fn post_all(captures: &[(String, Value)], gateway: SocketAddr) -> Vec<Sent> {
    let mut all = Vec::new();
    for (name, capture) in captures {
        for exchange in capture["exchanges"].as_array().unwrap() {
            let request = &exchange["request"];
            if request["method"] != "POST" {
                continue;
            }
            let mut connection = Connection::open(gateway).await.unwrap();
            let bytes = bytes_of(request, gateway);
            let answer = connection.exchange(&bytes).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, "ok"), "{name}");
            let write_key = write_key_of(request);
            let source = SOURCES.iter().find(|(_, key)| *key == write_key).unwrap().0;
            let body = &request["body_json"];
            let batch_sent_at = match body["batch"].is_array() {
                true => body["sentAt"].clone(),
                false => Value::Null,
            };
            all.extend(events_of(request).into_iter().map(|event| Sent {
                source,
                event,
                batch_sent_at: batch_sent_at.clone(),
            }));
        }
    }
    all
}

/// Pairs what was sent with what lies in `events`: each event is there, as it was sent, in its user's order.
fn accepted(sent: Vec<Sent>, records: &[Record]) -> BTreeMap<String, Vec<Accepted>> {
    assert_eq!(records.len(), sent.len());
    let mut found: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let key = String::from_utf8(record.key.clone()).unwrap();
        found.entry(key).or_default().push(record);
    }
    let mut of_key: BTreeMap<String, Vec<Sent>> = BTreeMap::new();
    for one in sent {
        of_key.entry(one.key()).or_default().push(one);
    }
    let mut accepted = BTreeMap::new();
    for (key, sent) in of_key {
        let mut records = found.remove(&key).unwrap_or_default();
        records.sort_by_key(|record| (record.partition, record.offset));
        assert_eq!(records.len(), sent.len(), "{key}");
        let mut pairs = Vec::new();
        for (sent, record) in sent.into_iter().zip(records) {
            let envelope = envelope(record);
            let event: Value = serde_json::from_slice(&envelope.event).unwrap();
            assert_eq!(event, sent.event, "{key}");
            assert_eq!(envelope.source_id, sent.source, "{key}");
            match sent.event["messageId"].as_str() {
                Some(id) => assert_eq!(envelope.message_id, id),
                None => drop(uuid::Uuid::parse_str(&envelope.message_id).unwrap()),
            }
            pairs.push(Accepted { sent, envelope });
        }
        accepted.insert(key, pairs);
    }
    assert!(found.is_empty(), "{found:?}");
    accepted
}

/// SDKs that were told to try again sent some events twice; of those the first counts.
fn without_repeats(accepted: &mut BTreeMap<String, Vec<Accepted>>) {
    let mut seen = HashSet::new();
    for events in accepted.values_mut() {
        events.retain(|one| seen.insert((one.sent.source, one.envelope.message_id.to_string())));
    }
}

/// Each event came once, in its user's order, with the right body.
fn check_webhook(sink: &Sink, expected: &BTreeMap<String, Vec<Accepted>>) {
    let mut got: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for one in sink.got() {
        assert_eq!(one.target, "POST /hook");
        assert_eq!(one.headers["content-type"], "application/json");
        let body = one.json();
        let user = body["userId"].as_str().filter(|id| !id.is_empty());
        let key = user.or(body["anonymousId"].as_str()).unwrap().to_owned();
        got.entry(key).or_default().push(one);
    }
    assert_eq!(
        got.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (key, expected) in expected {
        let ids = |ids: &mut dyn Iterator<Item = String>| ids.collect::<Vec<_>>();
        assert_eq!(
            ids(&mut got[key].iter().map(|one| one.message_id())),
            ids(&mut expected
                .iter()
                .map(|one| one.envelope.message_id.to_string())),
            "in the order of {key}"
        );
        for (got, expected) in got[key].iter().zip(expected) {
            let id = &expected.envelope.message_id;
            assert_eq!(got.headers["idempotency-key"], format!("{id}:hook"));
            assert_eq!(got.json(), expected.at_webhook(), "{id}");
        }
    }
    println!("webhook: {} requests", sink.count());
}

/// The tables that a warehouse must have: by schema, or all sources in one when it has none.
fn expected_tables(
    expected: &BTreeMap<String, Vec<Accepted>>,
    destination: (&'static str, &'static str),
    has_schemas: bool,
) -> BTreeMap<String, Tables> {
    let mut tables: BTreeMap<String, Tables> = BTreeMap::new();
    for one in expected.values().flatten() {
        let (source_id, _, source_type, schema) = *NAMES
            .iter()
            .find(|(id, ..)| *id == one.sent.source)
            .unwrap();
        let schema = if has_schemas { schema } else { "" };
        let origin = Origin {
            source_id,
            source_type,
            destination_id: destination.0,
            destination_type: destination.1,
        };
        let tables = tables.entry(schema.to_owned()).or_default();
        for (table, cells) in rows_of(&one.stamped(), origin) {
            load(tables, table, cells);
        }
    }
    tables
}

/// How many events ended as rows of `destination`, by the ledger.
fn loaded(ledger: &[Record], destination: &str) -> i64 {
    let mut count = 0;
    for record in ledger {
        let entry = decode_ledger(&record.payload).unwrap();
        for outcome in entry.outcomes {
            if outcome.destination_id == destination && outcome.ending == "loaded" {
                count += outcome.count;
            }
        }
    }
    count
}

/// Every event that was accepted is counted once on each of its ways, and no other.
fn check_ledger(bed: &Bed, accepted: usize, wanted: usize) {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for record in read_all(&bed.bootstrap, &bed.topic("ledger")) {
        let entry = decode_ledger(&record.payload).unwrap();
        for outcome in &entry.outcomes {
            let words = [
                entry.stage.as_ref(),
                outcome.ending.as_ref(),
                outcome.reason.as_ref(),
                outcome.destination_id.as_str(),
            ];
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            *counts.entry(words.join(" ")).or_default() += outcome.count;
        }
    }
    println!("ledger: {counts:?}");
    let expected = [
        ("processor filtered duplicate", accepted - wanted),
        ("processor forwarded hook", wanted),
        ("processor forwarded lite", wanted),
        ("processor forwarded post", wanted),
        ("router delivered hook", wanted),
        ("warehouse loaded lite", wanted),
        ("warehouse loaded post", wanted),
    ];
    let expected = expected.map(|(what, n)| (what.to_owned(), i64::try_from(n).unwrap()));
    assert_eq!(counts, expected.into());
}

#[test]
fn every_event_that_was_sent_is_at_the_webhook_and_a_row_of_both_warehouses() {
    // Without captures the same is proved for what is written by hand.
    let captured = captures();
    let enough = if captured.is_some() { 90 } else { 11 };
    let mut captures = captured.unwrap_or_default();
    captures.push(by_hand::capture());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(database) = runtime.block_on(postgres::database()) else {
        return;
    };
    let sink = Sink::start();
    let bed = bed(&sink, &database);
    let address = free_address();
    let gateway = bed
        .role("gateway", "gateway")
        .with("gateway.listen", address.to_string());
    let roles = ["processor", "router", "warehouse"].map(|role| bed.role(role, role));
    let mut running = vec![gateway.start("")];
    running.extend(roles.iter().map(|role| role.start("")));
    for role in &mut running {
        role.wait_ready(PATIENCE);
    }

    let sent = runtime.block_on(post_all(&captures, address));
    let mut expected = accepted(sent, &read_all(&bed.bootstrap, &bed.topic("events")));
    let accepted: usize = expected.values().map(Vec::len).sum();
    without_repeats(&mut expected);
    let wanted: usize = expected.values().map(Vec::len).sum();
    let types: BTreeSet<&str> = expected
        .values()
        .flatten()
        .map(|one| one.sent.event["type"].as_str().unwrap())
        .collect();
    println!("{accepted} events, {wanted} without repeats: {types:?}");
    assert!(wanted > enough && wanted < accepted && types.len() == 6);

    wait_for("every event at the webhook", PATIENCE, || {
        (sink.count() >= wanted).then_some(())
    });
    let mut ledger = Tail::open(&bed.bootstrap, &bed.topic("ledger"));
    ledger.read_until("every event in the warehouses", PATIENCE, |records| {
        let all = i64::try_from(wanted).unwrap();
        loaded(records, "lite") >= all && loaded(records, "post") >= all
    });
    for role in running {
        let name = role.name.clone();
        assert!(role.stop(PATIENCE).success(), "{name} drained badly");
    }

    // Looked at only now: what came late or twice is in it.
    check_webhook(&sink, &expected);
    let lite = expected_tables(&expected, ("lite", "SQLITE"), false);
    assert_same("SQLite", &in_sqlite(&bed.path("lite.db")), &lite[""]);
    let post = expected_tables(&expected, ("post", "POSTGRES"), true);
    runtime.block_on(async {
        let client = database.client().await;
        for (_, _, _, schema) in NAMES {
            let found = in_postgres(&client, schema).await;
            let expected = post.get(schema);
            assert_same(schema, &found, expected.unwrap_or(&Tables::new()));
        }
    });
    check_ledger(&bed, accepted, wanted);
    for stage in ["processor", "router", "warehouse"] {
        let dead = read_all(&bed.bootstrap, &bed.topic(&format!("dlq.{stage}")));
        assert!(dead.is_empty(), "{} dead letters of {stage}", dead.len());
    }
}

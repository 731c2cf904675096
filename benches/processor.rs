//! What one event costs the processor before it is handed to Kafka: decoding, planning, dedup, and the two records of a
//! fan-out to a webhook and a warehouse.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sluice::config::DedupConfig;
use sluice::control::parse_workspace;
use sluice::event::{Envelope, Framing, TopicNames, codec};
use sluice::kafka::Message;
use sluice::processor::decode::{Event, decode_one};
use sluice::processor::dedup::{Dedup, Window};
use sluice::processor::fan_out;
use sluice::processor::plan::Plan;
use sluice::processor::routes::Routes;
use sluice::registry::Schemas;

const WORKSPACE: &str = r#"
sources: [{id: web, write_key: K}]
destinations: [{id: hook, type: WEBHOOK}, {id: lake, type: SQLITE}]
connections: [{source: web, destination: hook}, {source: web, destination: lake}]
"#;

fn message(id: u32, integrations: &str) -> Message {
    let event = format!(
        r#"{{"type":"track","event":"Order Completed","userId":"u-{id}","properties":{{"pad":"{}"}}{integrations}}}"#,
        "x".repeat(920)
    );
    let envelope = Envelope {
        message_id: format!("6a1f0b2c-0f7e-4b5e-9d64-{id:012}").into(),
        source_id: "web".into(),
        event_type: "track".into(),
        event_name: "Order Completed".into(),
        user_id: format!("u-{id}").into(),
        anonymous_id: "a-1".into(),
        received_at: 1_700_000_000_000,
        request_ip: "203.0.113.9".into(),
        sdk: "RudderLabs JavaScript SDK/3.0.0".into(),
        event: event.into_bytes().into(),
        ..Envelope::default()
    };
    let mut payload = Vec::new();
    codec::encode_envelope(&envelope, Framing::SingleObject, &mut payload)
        .expect("a valid envelope");
    Message {
        topic: "t.events".into(),
        partition: 0,
        offset: i64::from(id),
        timestamp: None,
        key: Some(format!("u-{id}").into()),
        payload: Some(payload.into()),
        headers: Vec::new(),
    }
}

fn bench(c: &mut Criterion) {
    let workspace = parse_workspace("bench", WORKSPACE, 1).expect("a valid workspace");
    let routes = Routes::new(&workspace, &TopicNames::new("t."));
    let schemas = Schemas::default();
    let mut group = c.benchmark_group("processor");
    group.throughput(Throughput::Elements(1));

    let selecting = r#","integrations":{"All":true,"Webhook":true,"Google Analytics":false}"#;
    for (name, integrations) in [("plain", ""), ("with integrations", selecting)] {
        let message = message(7, integrations);
        group.bench_function(format!("decode and plan, {name}"), |b| {
            b.iter(|| decode_one(black_box(message.payload.as_deref()), &routes, &schemas));
        });
    }

    // A window as full as an hour at 1,000 events a second makes it: most look-ups miss the caches.
    let mut dedup = Dedup::new(&DedupConfig::default());
    let mut window = Window::default();
    for key in 0..3_600_000u128 {
        let at = i64::try_from(key).unwrap_or(0);
        window.remember(at, scatter(key), 300_000);
    }
    dedup.adopt(0, window);
    dedup.begin(3_600_000);
    let mut next = 1u128 << 64;
    group.bench_function("dedup, 3.6 million ids", |b| {
        b.iter(|| {
            next += 1;
            dedup.accept(0, scatter(next))
        });
    });
    dedup.abort();

    let message = message(7, "");
    let mut buffer = Vec::new();
    group.bench_function("two records by splice", |b| {
        b.iter(|| {
            let mut bytes = 0;
            for target in routes.targets() {
                let record = fan_out::record(
                    black_box(&message),
                    target,
                    1,
                    Framing::SingleObject,
                    &mut buffer,
                );
                bytes += record.map(|r| r.size()).unwrap_or(0);
            }
            bytes
        });
    });

    group.bench_function("all of it", |b| {
        let mut id = 0;
        b.iter_batched(
            || {
                id += 1;
                self::message(id, "")
            },
            |message| whole(&message, &routes, &mut dedup, &mut buffer),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn whole(message: &Message, routes: &Routes, dedup: &mut Dedup, buffer: &mut Vec<u8>) -> usize {
    let Event::Decoded {
        key,
        plan: Plan::Fans(ways),
    } = decode_one(message.payload.as_deref(), routes, &Schemas::default())
    else {
        return 0;
    };
    if !dedup.accept(0, key) {
        return 0;
    }
    let mut bytes = 0;
    for way in ways.iter().filter(|way| way.filtered.is_none()) {
        let target = routes.target(way.target);
        let record = fan_out::record(message, target, 1, Framing::SingleObject, buffer);
        bytes += record.map_or(0, |record| record.size());
    }
    bytes
}

/// Spreads a counter over all bits, as a hash would.
fn scatter(n: u128) -> u128 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
        .rotate_right(61)
        .wrapping_mul(0xD6E8_FEB8_6659_FD93_A5A3_5643_5E71_1C2B)
}

criterion_group!(benches, bench);
criterion_main!(benches);

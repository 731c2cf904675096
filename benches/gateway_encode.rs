//! What an event costs the gateway beside HTTP and Kafka: reading, admitting and encoding bodies of 1 KB events. `serde_json`'s
//! passes over the same bodies stand beside it for scale.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use sluice::gateway::testing::Encoder;

/// A track event as RudderStack's browser SDK sends it, filled up to `bytes`.
fn event(number: usize, bytes: usize) -> Value {
    let mut event = json!({
        "type": "track",
        "event": "Order Completed",
        "messageId": format!("6a1f0b2c-0f7e-4b5e-9d64-{number:012x}"),
        "userId": format!("user-{number}"),
        "anonymousId": "b7a1a0f2-3c3e-4b52-8d9f-5d9b8a3a8c11",
        "channel": "web",
        "originalTimestamp": "2026-01-01T10:00:00.000Z",
        "sentAt": "2026-01-01T10:00:00.123Z",
        "integrations": {"All": true},
        "context": {
            "library": {"name": "RudderLabs JavaScript SDK", "version": "3.34.1"},
            "locale": "en-GB",
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36",
            "screen": {"density": 1, "width": 1920, "height": 1080},
            "page": {"path": "/cart", "url": "https://shop.example.com/cart?step=3", "title": "Your cart"},
        },
        "properties": {"order_id": number, "total": 99.5, "currency": "EUR"},
    });
    let short = event.to_string().len();
    event["properties"]["note"] = "x".repeat(bytes.saturating_sub(short + 10)).into();
    event
}

fn bench(c: &mut Criterion) {
    let encoder = Encoder::default();
    let single = event(1, 1_000).to_string();
    let mut group = c.benchmark_group("gateway");
    let mut encode = |name: &str, kind: Option<&'static str>, events: usize, body: &str| {
        group.throughput(Throughput::Elements(events as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut bytes = 0;
                encoder
                    .encode(kind, black_box(body.as_bytes()), |key, value| {
                        bytes += key.len() + value.len();
                    })
                    .expect("the body is a good one");
                bytes
            });
        });
    };
    encode("single", Some("track"), 1, &single);
    for events in [1, 10, 100] {
        let batch: Vec<Value> = (0..events).map(|n| event(n, 1_000)).collect();
        let body = json!({"batch": batch, "sentAt": "2026-01-01T10:00:00.123Z"}).to_string();
        encode(&format!("batch of {events}"), None, events, &body);
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("serde_json: one event skipped", |b| {
        b.iter(|| serde_json::from_str::<serde::de::IgnoredAny>(black_box(&single)));
    });
    group.bench_function("serde_json: one event into a Value", |b| {
        b.iter(|| serde_json::from_str::<Value>(black_box(&single)));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

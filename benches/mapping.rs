//! What one event costs the warehouse before it is written down: JSON to rows, rows to Arrow columns, columns to a file.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Map, Value, json};
use sluice::event::{Envelope, stamped_event};
use sluice::warehouse::batch::Batch;
use sluice::warehouse::columns::TableBuffer;
use sluice::warehouse::dialect;
use sluice::warehouse::files;
use sluice::warehouse::options::DestinationOptions;
use sluice::warehouse::rows::{Arrival, MapLimits, Mapper};

/// Events of a batch.
const EVENTS: u32 = 1_000;

/// An event as a browser's SDK sends it, about 1 kB; each has values of its own.
fn track(n: u32) -> Value {
    json!({
        "type": "track",
        "event": "Order Completed",
        "messageId": format!("6a1f0b2c-0f7e-4b5e-9d64-{n:012}"),
        "userId": format!("u-{n}"),
        "anonymousId": format!("a-{n}"),
        "channel": "web",
        "originalTimestamp": "2024-05-01T10:00:00.000Z",
        "sentAt": "2024-05-01T10:00:01.000Z",
        "context": {
            "app": {"name": "shop", "version": "1.2.3", "namespace": "com.example.shop"},
            "library": {"name": "RudderLabs JavaScript SDK", "version": "3.0.0"},
            "locale": "en-GB",
            "os": {"name": "Linux", "version": "6.1"},
            "page": {
                "path": "/checkout/done",
                "referrer": "https://www.example.com/checkout",
                "title": "Thank you",
                "url": "https://www.example.com/checkout/done",
            },
            "screen": {"density": 2, "height": 1080, "width": 1920},
            "traits": {"email": format!("u-{n}@example.com"), "plan": "pro"},
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        },
        "properties": {
            "orderId": format!("o-{n}"),
            "total": 12.5 + f64::from(n),
            "currency": "EUR",
            "items": n % 7,
            "isFirst": n.is_multiple_of(2),
            "paidAt": "2024-05-01T09:59:58.000Z",
            "products": [{"sku": "a-1", "quantity": 2}, {"sku": "b-2", "quantity": 1}],
        },
    })
}

fn identify(n: u32) -> Value {
    let mut event = track(n);
    event["type"] = "identify".into();
    event
}

/// As a record of the topic has it.
fn envelope(event: &Value) -> Envelope<'static> {
    Envelope {
        message_id: "6a1f0b2c-0f7e-4b5e-9d64-1f1f0c3b2a10".into(),
        source_id: "web".into(),
        event_type: "track".into(),
        received_at: 1_700_000_000_000,
        request_ip: "203.0.113.9".into(),
        event: event.to_string().into_bytes().into(),
        ..Envelope::default()
    }
}

fn arrival() -> Arrival<'static> {
    Arrival {
        source_id: "web",
        source_type: "Javascript",
        source_category: "",
        destination_id: "lake",
        received_at: 1_700_000_000_000,
        record_id: None,
    }
}

fn mapper() -> Mapper {
    Mapper::new(
        &dialect::POSTGRES,
        DestinationOptions::default(),
        MapLimits::default(),
    )
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("mapping");
    let mut mapper = mapper();

    group.throughput(Throughput::Elements(1));
    let tracks: Vec<Envelope<'_>> = (0..EVENTS).map(|n| envelope(&track(n))).collect();
    let stamped: Vec<Map<String, Value>> = tracks
        .iter()
        .map(|envelope| stamped_event(envelope).expect("a valid event"))
        .collect();
    group.bench_function("JSON to the event of a destination", |b| {
        b.iter(|| stamped_event(black_box(&tracks[0])).map(|event| event.len()));
    });
    let identify = stamped_event(&envelope(&identify(7))).expect("a valid event");
    for (name, event) in [("track", &stamped[0]), ("identify", &identify)] {
        group.bench_function(format!("{name} to rows"), |b| {
            b.iter(|| {
                mapper
                    .map(black_box(event), arrival())
                    .map(|rows| rows.len())
            });
        });
    }

    group.throughput(Throughput::Elements(u64::from(EVENTS)));
    let rows: Vec<_> = stamped
        .iter()
        .map(|event| mapper.map(event, arrival()).expect("an event with a rule"))
        .collect();
    group.bench_function("rows to columns, 1000 events", |b| {
        let namespace: Arc<str> = "web".into();
        b.iter(|| {
            let (mut batch, now) = (Batch::new(0), Instant::now());
            for (offset, rows) in (0..).zip(&rows) {
                batch.add(offset, &namespace, black_box(rows), now);
            }
            batch.bytes()
        });
    });
    let table = || {
        let mut buffer = TableBuffer::new();
        for row in rows.iter().filter_map(|rows| rows.last()) {
            buffer.append(row);
        }
        buffer
    };
    group.bench_function("columns to an Arrow batch, 1000 rows", |b| {
        b.iter_batched_ref(
            table,
            |buffer| buffer.finish().map(|batch| batch.num_rows()),
            BatchSize::SmallInput,
        );
    });
    let batch = table().finish().expect("columns of one length");
    group.bench_function("an Arrow batch to Parquet, 1000 rows", |b| {
        b.iter(|| files::encode(black_box(&batch)).map(|file| file.len()));
    });

    group.bench_function("all of it, 1000 events", |b| {
        let namespace: Arc<str> = "web".into();
        b.iter(|| whole(&tracks, &mut mapper, &namespace));
    });
    group.finish();
}

/// Envelopes to files, as the writing thread and an upload do it.
fn whole(envelopes: &[Envelope<'_>], mapper: &mut Mapper, namespace: &Arc<str>) -> usize {
    let (mut batch, now) = (Batch::new(0), Instant::now());
    for (offset, envelope) in (0..).zip(envelopes) {
        let Ok(event) = stamped_event(black_box(envelope)) else {
            continue;
        };
        if let Ok(rows) = mapper.map(&event, arrival()) {
            batch.add(offset, namespace, &rows, now);
        }
    }
    let mut bytes = 0;
    for mut buffer in batch.tables.into_values() {
        let file = buffer.finish().map(|batch| files::encode(&batch));
        bytes += file.map_or(0, |file| file.map_or(0, |file| file.len()));
    }
    bytes
}

criterion_group!(benches, bench);
criterion_main!(benches);

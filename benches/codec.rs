//! What the record codec costs: encode, decode, splice, against `apache-avro`'s `Value` path.

use std::borrow::Cow;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice::event::codec::{self, Address, SchemaName};
use sluice::event::{AddressedKind, Envelope, Framing, Origin};

fn envelope() -> Envelope<'static> {
    let event = format!(
        r#"{{"type":"track","event":"Order Completed","userId":"u-1","properties":{{"pad":"{}"}}}}"#,
        "x".repeat(920)
    );
    Envelope {
        message_id: "6a1f0b2c-0f7e-4b5e-9d64-1f1f0c3b2a10".into(),
        source_id: "source-1".into(),
        write_key_hash: 42,
        event_type: "track".into(),
        event_name: "Order Completed".into(),
        user_id: "u-1".into(),
        anonymous_id: "a-1".into(),
        received_at: 1_700_000_000_000,
        request_ip: "203.0.113.9".into(),
        sdk: "RudderLabs JavaScript SDK/3.0.0".into(),
        config_revision: 1,
        event: Cow::Owned(event.into_bytes()),
        ..Envelope::default()
    }
}

fn bench(c: &mut Criterion) {
    let envelope = envelope();
    let mut record = Vec::new();
    codec::encode_envelope(&envelope, Framing::SingleObject, &mut record)
        .expect("a valid envelope");
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(record.len() as u64));

    let mut out = Vec::with_capacity(4096);
    group.bench_function("encode envelope", |b| {
        b.iter(|| {
            out.clear();
            codec::encode_envelope(black_box(&envelope), Framing::SingleObject, &mut out)
        });
    });
    group.bench_function("decode envelope", |b| {
        b.iter(|| codec::decode_envelope(black_box(&record)).map(|e| e.message_id.len()));
    });
    let address = Address {
        destination_id: "destination-1",
        origin: Origin {
            partition: 3,
            offset: 1_000_000,
        },
        processed_revision: 1,
    };
    group.bench_function("splice delivery", |b| {
        b.iter(|| {
            out.clear();
            codec::splice_addressed(
                AddressedKind::Delivery,
                Framing::SingleObject,
                black_box(address),
                &record,
                &mut out,
            )
        });
    });
    let schema = apache_avro::Schema::parse_str(&SchemaName::Envelope.json()).expect("our schema");
    let value =
        apache_avro::from_avro_datum(&schema, &mut &record[10..], None).expect("our record");
    group.bench_function("encode envelope, apache-avro Value", |b| {
        b.iter(|| apache_avro::to_avro_datum(&schema, black_box(value.clone())));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

use std::borrow::Cow;

use apache_avro::types::Value;

use super::*;
use crate::event::{Ending, FilterReason, Origin, OutcomeCount, Stage};

fn envelope() -> Envelope<'static> {
    Envelope {
        message_id: "m-1".into(),
        source_id: "src".into(),
        write_key_hash: Envelope::hash_write_key("key"),
        event_type: "track".into(),
        event_name: "Örder ✓".into(),
        user_id: "u1".into(),
        received_at: 1_700_000_000_123,
        request_ip: "203.0.113.9".into(),
        is_bot: true,
        bot: r#"{"name":"b"}"#.into(),
        destination_id: "d".into(),
        replay_count: -1,
        config_revision: i64::MAX,
        event: Cow::Owned(br#"{"type":"track","event":"x","n":1.50}"#.to_vec()),
        ..Envelope::default()
    }
}

fn addressed() -> Addressed<'static> {
    Addressed {
        destination_id: "dest-1".into(),
        origin_partition: 7,
        origin_offset: 123_456_789_012,
        processed_revision: -3,
        envelope: envelope(),
    }
}

#[test]
fn every_schema_parses_in_both_libraries_with_one_fingerprint() {
    for name in SchemaName::ALL {
        apache_avro::Schema::parse_str(&name.json()).unwrap();
        // The canonical form knows no logical types (AVRO-1721). `apache-avro` drops the word but keeps the object around
        // the primitive, which the form's first rule forbids; Java and `serde_avro_fast` follow the rule.
        let plain = name.json().replace(
            "{\"type\": \"long\", \"logicalType\": \"timestamp-millis\"}",
            "\"long\"",
        );
        let theirs = apache_avro::Schema::parse_str(&plain).unwrap();
        let rabin = theirs.fingerprint::<apache_avro::rabin::Rabin>();
        assert_eq!(rabin.bytes, name.fingerprint(), "{name:?}");
        check_compatible(&name.json(), &name.json()).unwrap();
    }
}

#[test]
fn an_incompatible_schema_is_refused() {
    let renamed = SchemaName::Envelope
        .json()
        .replace("\"message_id\"", "\"msg\"");
    assert!(check_compatible(&SchemaName::Envelope.json(), &renamed).is_err());
}

#[test]
fn apache_avro_reads_what_the_hot_path_writes() {
    for framing in [
        Framing::SingleObject,
        Framing::Confluent {
            schema_id: 0x0102_0304,
        },
    ] {
        let mut bytes = Vec::new();
        encode_envelope(&envelope(), framing, &mut bytes).unwrap();
        let body = unframe(SchemaName::Envelope, &bytes).unwrap();
        let schema = apache_avro::Schema::parse_str(&SchemaName::Envelope.json()).unwrap();
        let value = apache_avro::from_avro_datum(&schema, &mut &body[..], None).unwrap();
        let Value::Record(fields) = &value else {
            panic!("{value:?}")
        };
        assert_eq!(fields[4].1, Value::String("Örder ✓".into()));
        assert_eq!(fields[20].1, Value::Bytes(envelope().event.into_owned()));
        assert_eq!(decode_envelope(&bytes).unwrap(), envelope());
    }
}

#[test]
fn the_hot_path_reads_what_apache_avro_writes() {
    let schema = apache_avro::Schema::parse_str(&SchemaName::Delivery.json()).unwrap();
    let mut ours = Vec::new();
    encode_addressed(
        AddressedKind::Delivery,
        Framing::SingleObject,
        &addressed(),
        &mut ours,
    )
    .unwrap();
    let body = unframe(SchemaName::Delivery, &ours).unwrap();
    let value = apache_avro::from_avro_datum(&schema, &mut &body[..], None).unwrap();
    let mut theirs = vec![0xC3, 0x01];
    theirs.extend_from_slice(&SchemaName::Delivery.fingerprint());
    theirs.extend_from_slice(&apache_avro::to_avro_datum(&schema, value).unwrap());
    assert_eq!(theirs, ours);
    assert_eq!(
        decode_addressed(AddressedKind::Delivery, &theirs).unwrap(),
        addressed()
    );
}

#[test]
fn splicing_gives_the_bytes_that_encoding_gives() {
    let mut record = Vec::new();
    encode_envelope(&envelope(), Framing::SingleObject, &mut record).unwrap();
    for kind in [AddressedKind::Delivery, AddressedKind::WarehouseSource] {
        let value = addressed();
        let address = Address {
            destination_id: "dest-1",
            origin: Origin {
                partition: 7,
                offset: 123_456_789_012,
            },
            processed_revision: -3,
        };
        let (mut spliced, mut encoded) = (Vec::new(), Vec::new());
        splice_addressed(kind, Framing::SingleObject, address, &record, &mut spliced).unwrap();
        encode_addressed(kind, Framing::SingleObject, &value, &mut encoded).unwrap();
        assert_eq!(spliced, encoded);
    }
}

#[test]
fn a_decoded_envelope_borrows_the_event() {
    let mut bytes = Vec::new();
    encode_envelope(&envelope(), Framing::SingleObject, &mut bytes).unwrap();
    let decoded = decode_envelope(&bytes).unwrap();
    assert!(matches!(decoded.event, Cow::Borrowed(_)));
    assert!(matches!(decoded.message_id, Cow::Borrowed(_)));
}

#[test]
fn a_ledger_entry_survives_the_trip() {
    let entry = LedgerEntry {
        stage: Stage::Processor.name().into(),
        topic: "sluice.events".into(),
        partition: 3,
        from_offset: 10,
        to_offset: 20,
        records: 9,
        at: 5,
        config_revision: 1,
        instance: "p-0".into(),
        outcomes: vec![
            OutcomeCount::of("d", Ending::Forwarded, 8),
            OutcomeCount::of("", Ending::Filtered(FilterReason::Duplicate), 1),
        ],
    };
    let mut bytes = Vec::new();
    encode_ledger(&entry, Framing::SingleObject, &mut bytes).unwrap();
    assert_eq!(decode_ledger(&bytes).unwrap(), entry);
}

#[test]
fn a_record_is_read_to_its_last_byte_or_not_at_all() {
    for framing in [Framing::SingleObject, Framing::Confluent { schema_id: 7 }] {
        let mut bytes = Vec::new();
        encode_envelope(&envelope(), framing, &mut bytes).unwrap();
        assert_eq!(
            schema_id(&bytes).is_some(),
            framing != Framing::SingleObject
        );
        probe(SchemaName::Envelope, &bytes).unwrap();
        bytes.push(0);
        let error = decode_envelope(&bytes).unwrap_err().to_string();
        assert!(error.contains("left over"), "{error}");
        assert!(probe(SchemaName::Envelope, &bytes).is_err());
    }
}

#[test]
fn every_schema_is_recognised_by_its_name() {
    for name in SchemaName::ALL {
        assert_eq!(SchemaName::recognise(&name.json()), Some(name));
        let parsed = apache_avro::Schema::parse_str(&name.json()).unwrap();
        assert_eq!(parsed.name().unwrap().fullname(None), name.full_name());
        // The registry keeps its ids in a table by it.
        assert_eq!(SchemaName::ALL[name as usize], name);
    }
}

#[test]
fn foreign_bytes_are_named_not_guessed() {
    assert!(matches!(
        decode_envelope(b""),
        Err(CodecError::TooShort { .. })
    ));
    assert!(matches!(
        decode_envelope(b"{}"),
        Err(CodecError::UnknownFrame { first: b'{' })
    ));
    let mut ledger = Vec::new();
    let other = SchemaName::LedgerEntry;
    frame(other, Framing::SingleObject, &mut ledger);
    assert!(matches!(
        decode_envelope(&ledger),
        Err(CodecError::OtherSchema { .. })
    ));
    assert!(matches!(
        decode_envelope(&[0, 0, 0, 0, 1, 0xff]),
        Err(CodecError::Body { .. })
    ));
}

//! With a schema registry, against a real one: what records carry, who can read them, and what happens while it is away.

use std::net::SocketAddr;
use std::time::Duration;

use apache_avro::types::Value as Avro;
use serde_json::json;
use sluice::config::{KafkaConfig, SchemaRegistryConfig};
use sluice::dev::kafka::LocalKafka;
use sluice::event::codec::{self, CodecError, decode_envelope, schema_id};
use sluice::event::{Envelope, Framing, SchemaName};
use sluice::fault::{Classify, Fault};
use sluice::kafka::{AckProducer, Batch, RecordRef, deadline};
use sluice::registry::{RegistryError, Schemas};
use sluice::shutdown::Shutdown;

use crate::support::client::{Connection, post_json};
use crate::support::process::{Bed, Process, free_address, wait_for};
use crate::support::records::{Record, Tail, read_all};
use crate::support::registry::{SchemaRegistry, url_at};
use crate::support::sink::Sink;

const PATIENCE: Duration = Duration::from_secs(120);
const URL: &str = "kafka.schema_registry.url";

fn bed(name: &str, sink: &Sink) -> Bed {
    let mut bed = Bed::new(LocalKafka::shared().unwrap().bootstrap(), name);
    let staging = format!("file://{}", bed.path("staging").display());
    bed.set("warehouse.object_store.url", staging);
    bed.set("warehouse.batch.age_ms_max", 100);
    bed.set("warehouse.load.interval_ms", 50);
    bed.workspace(&json!({
        "sources": [{"id": "web", "write_key": "K"}],
        "destinations": [
            {"id": "hook", "type": "WEBHOOK", "config": {"webhookUrl": sink.url("hook")}},
            {"id": "rows", "type": "SQLITE", "config": {"path": bed.path("rows.db")}},
        ],
        "connections": [{"source": "web", "destination": "hook"}, {"source": "web", "destination": "rows"}],
    }));
    bed.run(&["topics", "apply", "--yes"]);
    bed
}

fn post(gateway: SocketAddr, id: &str) {
    let body = json!({"userId": "ada", "event": "Seen", "messageId": id}).to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(gateway).await.unwrap();
        let request = post_json(gateway, "/v1/track", "K", body.as_bytes());
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    });
}

fn ids_at(sink: &Sink) -> Vec<String> {
    sink.got().iter().map(|got| got.message_id()).collect()
}

fn wait_for_ids(sink: &Sink, ids: &[&str]) {
    wait_for(&format!("{ids:?} at the webhook"), PATIENCE, || {
        (sink.count() >= ids.len()).then_some(())
    });
    assert_eq!(ids_at(sink), ids);
}

fn stop(process: Process) {
    let name = process.name.clone();
    assert!(process.stop(PATIENCE).success(), "{name} drained badly");
}

/// The field of an Avro record.
fn field<'a>(value: &'a Avro, name: &str) -> &'a Avro {
    let Avro::Record(fields) = value else {
        panic!("{value:?}")
    };
    let found = fields.iter().find(|(field, _)| field == name);
    &found.unwrap_or_else(|| panic!("no {name}")).1
}

/// Checks a record as a tool with a registry's client reads it: its frame names the subject's newest version, and the schema that
/// the registry has under that id reads all of its bytes.
fn read_as_a_tool(registry: &SchemaRegistry, subject: &str, record: &Record) -> Avro {
    let latest = registry.latest(subject);
    let id = u32::try_from(latest["id"].as_u64().unwrap()).unwrap();
    assert_eq!(record.payload[0], 0, "{subject}");
    assert_eq!(record.payload[1..5], id.to_be_bytes(), "{subject}");
    let schema = apache_avro::Schema::parse_str(&registry.schema(id)).unwrap();
    let mut body = &record.payload[5..];
    let value = apache_avro::from_avro_datum(&schema, &mut body, None).unwrap();
    assert!(body.is_empty(), "{subject}: {} bytes left", body.len());
    value
}

#[test]
fn every_topics_records_are_read_by_id_and_nothing_waits_for_the_registry_once_it_runs() {
    let sink = Sink::start();
    let mut bed = bed("registry", &sink);
    let address = free_address();
    bed.set(URL, url_at(address));
    bed.set("kafka.schema_registry.start_timeout_ms", 300_000);
    let gateway = free_address();
    let mut running: Vec<Process> = ["gateway", "processor", "router", "warehouse"]
        .map(|role| {
            bed.role(role, role)
                .with("gateway.listen", gateway.to_string())
                .start("")
        })
        .into();
    // Nobody is there yet.
    for role in &running {
        wait_for(
            &format!("{} waits for the registry", role.name),
            PATIENCE,
            || {
                role.log()
                    .contains("waiting for the schema registry")
                    .then_some(())
            },
        );
        assert!(!role.is_ready());
    }
    let mut registry = SchemaRegistry::launch(address);
    registry.wait_ready();
    for role in &mut running {
        role.wait_ready(PATIENCE);
    }

    post(gateway, "m-1");
    wait_for_ids(&sink, &["m-1"]);
    let envelope = |value: &Avro| {
        assert_eq!(field(value, "message_id"), &Avro::String("m-1".into()));
        assert_eq!(field(value, "source_id"), &Avro::String("web".into()));
    };
    let events = read_all(&bed.bootstrap, &bed.topic("events"));
    envelope(&read_as_a_tool(&registry, "sluice.Envelope", &events[0]));
    for (topic, subject, destination) in [
        ("deliver.hook", "sluice.Delivery", "hook"),
        ("warehouse.rows", "sluice.WarehouseSource", "rows"),
    ] {
        let records = read_all(&bed.bootstrap, &bed.topic(topic));
        assert_eq!(records.len(), 1, "{topic}");
        let value = read_as_a_tool(&registry, subject, &records[0]);
        let expected = Avro::String(destination.into());
        assert_eq!(field(&value, "destination_id"), &expected, "{topic}");
        envelope(field(&value, "envelope"));
    }
    let mut ledger = Tail::open(&bed.bootstrap, &bed.topic("ledger"));
    ledger.read_until("an entry of each stage", PATIENCE, |records| {
        ["processor", "router", "warehouse"].iter().all(|stage| {
            records
                .iter()
                .any(|r| String::from_utf8_lossy(&r.key).contains(stage))
        })
    });
    for record in &ledger.records {
        let value = read_as_a_tool(&registry, "sluice.LedgerEntry", record);
        assert!(matches!(field(&value, "records"), Avro::Long(1..)));
    }

    // From here on without it.
    drop(registry);
    post(gateway, "m-2");
    wait_for_ids(&sink, &["m-1", "m-2"]);
    for role in running {
        stop(role);
    }
    for stage in ["processor", "router", "warehouse"] {
        let dead = read_all(&bed.bootstrap, &bed.topic(&format!("dlq.{stage}")));
        assert!(dead.is_empty(), "{} dead letters of {stage}", dead.len());
    }
}

#[test]
fn a_topic_with_both_frames_is_read_with_a_registry_and_without() {
    let sink = Sink::start();
    let bed = bed("registry-mixed", &sink);
    let registry = SchemaRegistry::start();
    let gateway = free_address();
    let role = |name: &str, with_registry: bool| {
        let role = bed
            .role(name, name)
            .with("gateway.listen", gateway.to_string());
        match with_registry {
            true => role.with(URL, registry.url()),
            false => role,
        }
    };
    // Into use, and out of it again.
    for (id, with_registry) in [("m-1", false), ("m-2", true), ("m-3", false)] {
        let process = role("gateway", with_registry).start_ready(PATIENCE);
        post(gateway, id);
        stop(process);
    }
    let events = read_all(&bed.bootstrap, &bed.topic("events"));
    let first: Vec<u8> = events.iter().map(|record| record.payload[0]).collect();
    assert_eq!(first, [0xC3, 0, 0xC3]);

    let processor = role("processor", true).start_ready(PATIENCE);
    // It reads Confluent's frames, and nobody tells it what their ids mean.
    let router = role("router", false).start_ready(PATIENCE);
    wait_for_ids(&sink, &["m-1", "m-2", "m-3"]);
    stop(processor);

    let process = role("gateway", true).start_ready(PATIENCE);
    post(gateway, "m-4");
    stop(process);
    let processor = role("processor", false).start_ready(PATIENCE);
    wait_for_ids(&sink, &["m-1", "m-2", "m-3", "m-4"]);
    stop(processor);
    stop(router);
    let deliveries = read_all(&bed.bootstrap, &bed.topic("deliver.hook"));
    let first: Vec<u8> = deliveries.iter().map(|record| record.payload[0]).collect();
    assert_eq!(first, [0, 0, 0, 0xC3]);
}

fn envelope(id: &str) -> Envelope<'static> {
    Envelope {
        message_id: id.to_owned().into(),
        source_id: "web".into(),
        event_type: "track".into(),
        event_name: "Seen".into(),
        user_id: "ada".into(),
        received_at: 1_700_000_000_000,
        event: json!({"type": "track", "event": "Seen", "userId": "ada", "messageId": id})
            .to_string()
            .into_bytes()
            .into(),
        ..Envelope::default()
    }
}

fn framed(id: &str, schema_id: u32) -> Vec<u8> {
    let mut record = Vec::new();
    codec::encode_envelope(&envelope(id), Framing::Confluent { schema_id }, &mut record).unwrap();
    record
}

/// Our envelope as another version of Sluice may write it down: the same bytes, other words.
fn reworded() -> String {
    let mut schema: serde_json::Value = serde_json::from_str(&SchemaName::Envelope.json()).unwrap();
    schema["doc"] = "In other words.".into();
    schema.to_string()
}

#[test]
fn a_record_whose_id_only_the_registry_knows_waits_for_it_and_is_not_dead() {
    let sink = Sink::start();
    let mut bed = bed("registry-away", &sink);
    let registry = SchemaRegistry::start();
    bed.set(URL, registry.url());
    bed.set("kafka.schema_registry.timeout_ms", 300);
    let processor = bed.role("processor", "processor").start_ready(PATIENCE);
    let router = bed.role("router", "router").start_ready(PATIENCE);
    let newer = registry.register("sluice.Envelope", &reworded());
    registry.set_deaf(true);
    let write = |payload: Vec<u8>| {
        let producer = AckProducer::open(&KafkaConfig::at(&bed.bootstrap), "test").unwrap();
        let (batch, topic) = (Batch::new(), bed.topic("events"));
        let record = RecordRef::new(&topic, b"ada", &payload);
        producer.send(&batch, record).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(batch.wait(deadline(PATIENCE))).unwrap();
    };
    write(framed("m-1", newer));
    wait_for("the record waits", PATIENCE, || {
        processor.log().contains("records wait").then_some(())
    });
    // Rubbish that looks like a frame does not cost a question.
    let rubbish = vec![0, 0, 0, 99, 99, 7, 7, 7];
    write(rubbish.clone());
    assert!(read_all(&bed.bootstrap, &bed.topic("dlq.processor")).is_empty());
    assert_eq!(sink.count(), 0);
    registry.set_deaf(false);
    wait_for_ids(&sink, &["m-1"]);
    let mut dead = Tail::open(&bed.bootstrap, &bed.topic("dlq.processor"));
    dead.read_until("the rubbish", PATIENCE, |records| !records.is_empty());
    assert_eq!(dead.records[0].payload, rubbish);
    stop(processor);
    stop(router);
}

/// [`Schemas::open`] with `names`, on a runtime of its own that goes on.
fn open(
    runtime: &tokio::runtime::Runtime,
    registry: &SchemaRegistry,
    register: bool,
    names: &[SchemaName],
) -> Result<Schemas, RegistryError> {
    let config = SchemaRegistryConfig {
        register,
        timeout_ms: 1_000,
        ..SchemaRegistryConfig::at(registry.url())
    };
    let shutdown = Shutdown::new(Duration::from_secs(1));
    let names = names.iter().copied();
    runtime.block_on(Schemas::open(Some(&config), names, &shutdown))
}

#[test]
fn schemas_are_registered_or_looked_up_and_what_does_not_fit_is_said() {
    use SchemaName::{Delivery, Envelope, LedgerEntry};
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = SchemaRegistry::start();
    let open = |register, names: &[SchemaName]| open(&runtime, &registry, register, names);
    let id = |schemas: &Schemas, name| match schemas.framing(name) {
        Framing::Confluent { schema_id } => schema_id,
        Framing::SingleObject => panic!("no id of {name:?}"),
    };

    let error = open(false, &[Envelope]).unwrap_err();
    assert_eq!(error.code(), "schema_not_registered");
    assert_eq!(error.fault(), Fault::Fatal);
    let text = error.to_string();
    assert!(
        text.contains("sluice.Envelope") && text.contains("register: true"),
        "{text}"
    );

    let schemas = open(true, &[Envelope]).unwrap();
    let ours = id(&schemas, Envelope);
    assert_eq!(registry.latest("sluice.Envelope")["id"], ours);
    assert_eq!(id(&open(true, &[Envelope]).unwrap(), Envelope), ours);
    assert_eq!(id(&open(false, &[Envelope]).unwrap(), Envelope), ours);

    // Registered by somebody else, in other words.
    let mut schema: serde_json::Value = serde_json::from_str(&LedgerEntry.json()).unwrap();
    schema["doc"] = "In other words.".into();
    let theirs = registry.register("sluice.LedgerEntry", &schema.to_string());
    assert_eq!(
        id(&open(false, &[LedgerEntry]).unwrap(), LedgerEntry),
        theirs
    );

    // An incompatible one is there: the registry's own words are passed on.
    let other = r#"{"type": "record", "name": "Delivery", "namespace": "sluice", "fields": [{"name": "destination_id", "type": "long"}]}"#;
    registry.register("sluice.Delivery", other);
    registry.set_compatibility("sluice.Delivery", "FULL");
    let error = open(true, &[Delivery]).unwrap_err();
    assert_eq!(error.code(), "schema_incompatible", "{error}");
    assert_eq!(error.fault(), Fault::Fatal);
    assert!(error.to_string().contains("/fields/0/type"), "{error}");

    // Ids that a reader meets.
    let admit = |id| schemas.admit(Envelope, &framed("m", id));
    admit(ours).unwrap().unwrap();
    let newer = registry.register("sluice.Envelope", &reworded());
    assert_ne!(newer, ours);
    admit(newer).unwrap().unwrap();
    let foreign = Envelope.json().replace("\"Envelope\"", "\"Letter\"");
    let foreign = registry.register("other.Letter", &foreign);
    let refused = |id| match admit(id).unwrap() {
        Err(CodecError::OtherId { found, .. }) => found,
        other => panic!("{id}: {other:?}"),
    };
    assert_eq!(refused(foreign), "another schema");
    assert_eq!(refused(999_999), "no id of the registry");
    assert_eq!(refused(theirs), "sluice.LedgerEntry");

    drop(registry);
    for known in [ours, newer] {
        admit(known).unwrap().unwrap();
    }
    assert_eq!(refused(foreign), "another schema");
    let error = admit(888_888).unwrap_err();
    assert!(error.fault().is_transient(), "{error}");
    assert!(decode_envelope(&framed("m", ours)).is_ok());
    assert_eq!(schema_id(&framed("m", ours)), Some(ours));
}

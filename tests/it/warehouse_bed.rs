//! A warehouse role in this process, on topics, a folder and an SQLite file of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice::clock::SystemClock;
use sluice::config::{Config, KafkaConfig, Mode};
use sluice::control::{Control, parse_workspace};
use sluice::deps::{Deps, Role};
use sluice::dev::kafka::LocalKafka;
use sluice::event::codec;
use sluice::event::{Addressed, AddressedKind, Envelope, Framing, Stage, Topic, TopicNames};
use sluice::kafka::{
    AckProducer, Admin, Batch, Message, NewTopic, Reader, RecordRef, StartAt, deadline,
};
use sluice::registry::Schemas;
use sluice::shutdown::Shutdown;
use sluice::telemetry::{Health, Registry};

pub const PATIENCE: Duration = Duration::from_secs(60);
/// Partitions of a warehouse topic.
pub const PARTITIONS: i32 = 3;

pub struct Bed {
    pub dir: tempfile::TempDir,
    pub names: TopicNames,
    pub control: Control,
    pub kafka: KafkaConfig,
    /// Settings of the roles that are started from now on.
    pub config: Config,
    pub producer: AckProducer,
}

/// A role that runs.
pub struct Running {
    pub role: Role,
    pub shutdown: Shutdown,
    pub health: Health,
    pub metrics: Registry,
}

impl Bed {
    /// One warehouse, `lake`, in `lake.db`.
    pub fn new(name: &str) -> Self {
        let shared = LocalKafka::shared().unwrap_or_else(|error| panic!("{error}"));
        let prefix = format!("{name}-{:08x}.", fastrand::u32(..));
        let dir = tempfile::Builder::new()
            .prefix(&format!("sluice-{name}-"))
            .tempdir()
            .unwrap();
        let kafka = KafkaConfig::at(shared.bootstrap());
        let mut config = Config {
            mode: Mode::Dev,
            kafka: kafka.clone(),
            ..Config::default()
        };
        let staging = dir.path().join("staging");
        config.warehouse.object_store.url = Some(format!("file://{}", staging.display()));
        config.warehouse.batch.age_ms_max = 100;
        config.warehouse.load.interval_ms = Some(50);
        config.warehouse.load.backoff_base_ms = 50;
        // Static members keep their partitions for as long.
        config.kafka.consumer.session_timeout_ms = 6_000;
        config.kafka.consumer.heartbeat_interval_ms = 1_500;
        let lake = json!({"path": dir.path().join("lake.db")});
        let bed = Self {
            names: TopicNames::new(&prefix),
            control: Control::new(workspace(&[("lake", "SQLITE", lake)], 1)),
            producer: AckProducer::open(&kafka, "test").unwrap(),
            kafka,
            config,
            dir,
        };
        let topics = [
            Topic::Warehouse("lake".into()),
            Topic::Dlq(Stage::Warehouse),
            Topic::Ledger,
        ];
        bed.create(&topics);
        bed
    }

    pub fn create(&self, topics: &[Topic]) {
        let new: Vec<NewTopic> = topics
            .iter()
            .map(|topic| NewTopic {
                name: self.names.name(topic),
                partitions: PARTITIONS,
                replication: 1,
                settings: BTreeMap::new(),
            })
            .collect();
        self.admin().create(&new, false).unwrap();
    }

    pub fn admin(&self) -> Admin {
        Admin::open(&self.kafka).unwrap()
    }

    /// Starts a role and waits until it reads.
    pub async fn start(&self, instance: &str) -> Running {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let (health, metrics) = (Health::default(), Registry::default());
        let mut config = self.config.clone();
        config.instance = Some(instance.to_owned());
        let deps = Deps {
            config: Arc::new(config),
            control: self.control.clone(),
            clock: Arc::new(SystemClock),
            topics: self.names.clone(),
            schemas: Schemas::default(),
            health: health.clone(),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        };
        let role = sluice::warehouse::start(deps).await.unwrap();
        let running = Running {
            role,
            shutdown,
            health,
            metrics,
        };
        let until = Instant::now() + PATIENCE;
        while !running.health.missing().is_empty() {
            assert!(Instant::now() < until, "never ready");
            assert!(!running.role.done.is_finished(), "it has ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running
    }

    /// Writes events for a destination as the processor does.
    pub async fn send(&self, destination: &str, events: &[Envelope<'_>]) {
        let batch = Batch::new();
        let topic = self.names.name(&Topic::Warehouse(destination.into()));
        for envelope in events {
            let payload = payload(destination, envelope);
            let record = RecordRef::new(&topic, envelope.user_id.as_bytes(), &payload);
            self.producer.send(&batch, record).unwrap();
        }
        batch.wait(deadline(PATIENCE)).await.unwrap();
    }

    /// The first column of a query on a warehouse's file; nothing while there is no such table.
    pub fn query(&self, file: &str, sql: &str) -> Vec<String> {
        let Ok(connection) = rusqlite::Connection::open(self.path(file)) else {
            return Vec::new();
        };
        connection.busy_timeout(PATIENCE).unwrap();
        let Ok(mut query) = connection.prepare(sql) else {
            return Vec::new();
        };
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until the first column of a query is so.
    #[track_caller]
    pub fn wait_for(&self, file: &str, sql: &str, expected: &[&str]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.query(file, sql);
            if found == expected {
                return;
            }
            assert!(Instant::now() < until, "{sql}: {found:?}, not {expected:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything on a topic now.
    pub fn read(&self, topic: &Topic) -> Vec<Message> {
        let mut messages = Vec::new();
        let name = self.names.name(topic);
        Reader::open_all(&self.kafka, "test", &name, StartAt::Beginning)
            .unwrap()
            .read_to_end(PATIENCE, |message| messages.push(message))
            .unwrap();
        messages
    }

    /// Counts of all ledger entries: (destination, ending, reason) to how many.
    pub fn balance(&self) -> BTreeMap<(String, String, String), i64> {
        let mut balance = BTreeMap::new();
        for message in self.read(&Topic::Ledger) {
            let entry = codec::decode_ledger(message.payload.as_deref().unwrap()).unwrap();
            assert_eq!(message.key.as_deref().unwrap(), entry.key().as_bytes());
            for outcome in entry.outcomes {
                let ending = outcome.ending.into_owned();
                let what = (outcome.destination_id, ending, outcome.reason.into_owned());
                *balance.entry(what).or_default() += outcome.count;
            }
        }
        balance
    }

    /// Paths of staging files and manifests.
    pub fn objects(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        fn walk(folder: PathBuf, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    walk(entry.path(), found);
                } else {
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        walk(self.path("staging"), &mut found);
        found.sort();
        found
            .into_iter()
            .partition(|path| path.extension().is_some_and(|e| e == "parquet"))
    }
}

impl Running {
    /// Drains it.
    pub async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.role.done)
            .await
            .expect("it drains")
            .unwrap()
            .unwrap();
    }

    /// The sum of the metric lines that begin so.
    pub fn metric(&self, line: &str) -> f64 {
        let page = self.metrics.render();
        let values = page.lines().filter(|l| l.starts_with(line));
        values
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Destinations with a source `web` that feeds them all.
pub fn workspace(
    destinations: &[(&str, &str, Value)],
    revision: i64,
) -> sluice::control::Workspace {
    let listed: Vec<Value> = destinations
        .iter()
        .map(|(id, kind, config)| json!({"id": id, "type": kind, "config": config}))
        .collect();
    let connections: Vec<Value> = destinations
        .iter()
        .map(|(id, _, _)| json!({"source": "web", "destination": id}))
        .collect();
    let text = json!({
        "sources": [{"id": "web", "name": "Web Shop", "write_key": "K"}],
        "destinations": listed,
        "connections": connections,
    });
    parse_workspace("test", &text.to_string(), revision).unwrap()
}

/// A record of `warehouse.<destination>`.
pub fn payload(destination: &str, envelope: &Envelope<'_>) -> Vec<u8> {
    let addressed = Addressed {
        destination_id: destination.into(),
        origin_partition: 0,
        origin_offset: 0,
        processed_revision: 1,
        envelope: envelope.clone(),
    };
    let mut payload = Vec::new();
    let kind = AddressedKind::WarehouseSource;
    codec::encode_addressed(kind, Framing::SingleObject, &addressed, &mut payload).unwrap();
    payload
}

/// A track event.
pub fn track<'a>(id: &'a str, user: &'a str, json: &'a str) -> Envelope<'a> {
    Envelope {
        message_id: id.into(),
        source_id: "web".into(),
        event_type: "track".into(),
        user_id: user.into(),
        received_at: 1_700_000_000_000,
        request_ip: "203.0.113.9".into(),
        event: json.as_bytes().into(),
        ..Envelope::default()
    }
}

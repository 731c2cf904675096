//! A processor in this process, on topics of its own, with everything to feed it and to look at what it wrote.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice::clock::SystemClock;
use sluice::config::{Config, KafkaConfig, Mode};
use sluice::control::{Control, parse_workspace};
use sluice::deps::{Deps, Role};
use sluice::dev::kafka::LocalKafka;
use sluice::event::codec;
use sluice::event::{
    Addressed, AddressedKind, Envelope, Framing, LedgerEntry, Stage, Topic, TopicNames,
};
use sluice::fault::Classify;
use sluice::kafka::{
    AckProducer, Admin, Batch, KafkaError, Message, NewTopic, OffsetQuery, Reader, RecordRef,
    StartAt, TopicPartition, deadline,
};
use sluice::registry::Schemas;
use sluice::shutdown::Shutdown;
use sluice::telemetry::{Health, Registry};

/// A broker that was killed needs half a minute until it leads again, and more on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// One destination that takes everything, one warehouse, one that takes only tracks.
pub const WORKSPACE: &str = r#"
    sources: [{id: web, write_key: K1}, {id: app, write_key: K2}]
    destinations:
      - {id: hook, type: WEBHOOK}
      - {id: lake, type: SQLITE}
      - {id: tracks, type: HTTP, display_name: Tracker, supported_types: [track]}
    connections:
      - {source: web, destination: hook}
      - {source: web, destination: lake}
      - {source: web, destination: tracks}
      - {source: app, destination: hook}
"#;

pub struct Bed {
    pub kafka: KafkaConfig,
    pub names: TopicNames,
    pub control: Control,
    pub partitions: i32,
    pub producer: AckProducer,
    /// Settings of the processors that are started from now on.
    pub config: Config,
}

/// A processor that runs.
pub struct Running {
    pub role: Role,
    pub shutdown: Shutdown,
    pub health: Health,
    pub metrics: Registry,
}

impl Bed {
    /// Topics under a prefix of their own on the shared broker.
    pub fn new(name: &str, workspace: &str, partitions: i32) -> Self {
        let shared = LocalKafka::shared().unwrap_or_else(|error| panic!("{error}"));
        Self::on(shared.bootstrap(), name, workspace, partitions)
    }

    pub fn on(bootstrap: &str, name: &str, workspace: &str, partitions: i32) -> Self {
        let prefix = format!("{name}-{:08x}.", fastrand::u32(..));
        let kafka = KafkaConfig::at(bootstrap);
        let names = TopicNames::new(&prefix);
        let config = Config {
            mode: Mode::Dev,
            kafka: kafka.clone(),
            ..Config::default()
        };
        let bed = Self {
            producer: AckProducer::open(&kafka, "test").unwrap(),
            control: Control::new(parse_workspace("test", workspace, 1).unwrap()),
            kafka,
            names,
            partitions,
            config,
        };
        let snapshot = bed.control.snapshot();
        let mut topics = vec![
            Topic::Events,
            Topic::Seen,
            Topic::Ledger,
            Topic::Dlq(Stage::Processor),
        ];
        topics.extend(snapshot.destinations().map(|d| d.topic()));
        bed.create(&topics);
        bed
    }

    pub fn create(&self, topics: &[Topic]) {
        let new: Vec<NewTopic> = topics
            .iter()
            .map(|topic| NewTopic {
                name: self.names.name(topic),
                partitions: match topic {
                    Topic::Events | Topic::Seen => self.partitions,
                    _ => 2,
                },
                replication: 1,
                settings: BTreeMap::new(),
            })
            .collect();
        self.admin().create(&new, false).unwrap();
    }

    pub fn admin(&self) -> Admin {
        Admin::open(&self.kafka).unwrap()
    }

    /// Starts a processor; does not wait until it is ready.
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
        let role = sluice::processor::start(deps).await.unwrap();
        Running {
            role,
            shutdown,
            health,
            metrics,
        }
    }

    /// Writes envelopes as the gateway does, acknowledged.
    pub async fn send(&self, events: &[Envelope<'_>]) {
        let batch = Batch::new();
        let topic = self.names.name(&Topic::Events);
        let mut payload = Vec::new();
        for envelope in events {
            payload.clear();
            codec::encode_envelope(envelope, Framing::SingleObject, &mut payload).unwrap();
            let record = RecordRef::new(&topic, envelope.user_id.as_bytes(), &payload);
            self.producer.send(&batch, record).unwrap();
        }
        batch.wait(deadline(PATIENCE)).await.unwrap();
    }

    /// Everything on a topic that readers of committed records see now.
    pub fn read(&self, topic: &Topic) -> Vec<Message> {
        let topic = self.names.name(topic);
        persist(|| {
            let mut messages = Vec::new();
            Reader::open_all(&self.kafka, "test", &topic, StartAt::Beginning)?
                .read_to_end(PATIENCE, |message| messages.push(message))?;
            Ok(messages)
        })
    }

    /// Message ids on `deliver.<lane>`, in the order of each partition.
    pub fn delivered(&self, lane: &str) -> Vec<String> {
        ids(
            AddressedKind::Delivery,
            &self.read(&Topic::Deliver(lane.to_owned())),
        )
    }

    pub fn ledger(&self) -> Vec<LedgerEntry<'static>> {
        let messages = self.read(&Topic::Ledger);
        messages
            .iter()
            .map(|m| {
                let entry = codec::decode_ledger(m.payload.as_deref().unwrap()).unwrap();
                assert_eq!(m.key.as_deref().unwrap(), entry.key().as_bytes());
                LedgerEntry {
                    stage: entry.stage.into_owned().into(),
                    topic: entry.topic.into_owned().into(),
                    instance: entry.instance.into_owned().into(),
                    ..entry
                }
            })
            .collect()
    }

    /// Counts of all ledger entries: (destination, ending, reason) to how many.
    pub fn balance(&self) -> BTreeMap<(String, String, String), i64> {
        let mut balance = BTreeMap::new();
        for outcome in self.ledger().into_iter().flat_map(|entry| entry.outcomes) {
            let what = (
                outcome.destination_id,
                outcome.ending.into_owned(),
                outcome.reason.into_owned(),
            );
            *balance.entry(what).or_default() += outcome.count;
        }
        balance
    }

    /// What the group has committed, per partition of `events`.
    pub fn committed(&self) -> BTreeMap<i32, i64> {
        let group = format!("{}processor", self.names.prefix());
        let admin = self.admin();
        persist(|| admin.committed(&group, None))
            .into_iter()
            .filter_map(|c| Some((c.topic_partition.partition, c.next_offset?)))
            .collect()
    }

    /// Waits until everything on `events` has been committed by the group.
    #[track_caller]
    pub fn wait_until_processed(&self) {
        let events = self.names.name(&Topic::Events);
        let places: Vec<TopicPartition> = (0..self.partitions)
            .map(|p| TopicPartition::new(events.as_str(), p))
            .collect();
        let admin = self.admin();
        let begins = persist(|| admin.offsets(&places, OffsetQuery::Beginning));
        let ends = persist(|| admin.offsets(&places, OffsetQuery::End));
        // A log may end in control records, which nobody commits past.
        let records = self.read(&Topic::Events);
        let wanted: BTreeMap<i32, i64> = ends
            .iter()
            .filter(|(tp, end)| begins[*tp] < **end)
            .filter_map(|(tp, _)| {
                let of = records.iter().filter(|m| m.partition == tp.partition);
                Some((tp.partition, of.map(|m| m.offset + 1).max()?))
            })
            .collect();
        wait_until("everything is processed", || {
            let committed = self.committed();
            wanted
                .iter()
                .all(|(p, next)| committed.get(p).is_some_and(|c| c >= next))
        });
    }
}

impl Running {
    pub async fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.health.missing().is_empty() {
            assert!(Instant::now() < until, "never ready");
            assert!(!self.role.done.is_finished(), "it has ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Drains it.
    pub async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.role.done)
            .await
            .expect("it drains")
            .unwrap()
            .unwrap();
    }

    /// The value of a metric line that begins so.
    pub fn metric(&self, line: &str) -> f64 {
        let page = self.metrics.render();
        page.lines()
            .find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
            .unwrap_or(0.0)
    }
}

#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks again while the answer is that it may be had later: a broker that was just restarted does not know everything at once.
#[track_caller]
fn persist<T>(mut ask: impl FnMut() -> Result<T, KafkaError>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) if error.fault().is_transient() && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A track event of `user`.
pub fn track<'a>(id: &'a str, user: &'a str) -> Envelope<'a> {
    Envelope {
        message_id: id.into(),
        source_id: "web".into(),
        event_type: "track".into(),
        event_name: "Tested".into(),
        user_id: user.into(),
        received_at: 1_700_000_000_000,
        event: format!(r#"{{ "event":"Tested", "n": 1.0, "id":"{id}" }}"#)
            .into_bytes()
            .into(),
        ..Envelope::default()
    }
}

pub fn addressed(kind: AddressedKind, message: &Message) -> Addressed<'_> {
    codec::decode_addressed(kind, message.payload.as_deref().unwrap()).unwrap()
}

pub fn ids(kind: AddressedKind, messages: &[Message]) -> Vec<String> {
    let mut sorted: Vec<&Message> = messages.iter().collect();
    sorted.sort_by_key(|m| (m.partition, m.offset));
    sorted
        .into_iter()
        .map(|m| addressed(kind, m).envelope.message_id.into_owned())
        .collect()
}

pub fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

//! A router in this process, on topics of its own, with everything to feed it and to look at what it did.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice::clock::SystemClock;
use sluice::config::{Config, KafkaConfig, Mode};
use sluice::control::{Control, parse_workspace};
use sluice::deps::{Deps, Role};
use sluice::dev::kafka::LocalKafka;
use sluice::event::codec;
use sluice::event::{
    AddressedKind, Delivery, Envelope, Framing, LedgerEntry, Stage, Topic, TopicNames,
};
use sluice::kafka::{
    AckProducer, Admin, Batch, Message, NewTopic, Reader, RecordRef, StartAt, deadline,
};
use sluice::registry::Schemas;
use sluice::shutdown::Shutdown;
use sluice::telemetry::{Health, Registry};

use crate::support::checker::{Arrival, Input, check_arrivals};
use crate::support::sink::Sink;

pub const PATIENCE: Duration = Duration::from_secs(90);
pub const PARTITIONS: i32 = 4;

pub struct Bed {
    pub kafka: KafkaConfig,
    pub names: TopicNames,
    pub control: Control,
    producer: AckProducer,
    /// Settings of the routers that are started from now on. Waits are short, so that tests are.
    pub config: Config,
}

/// A router that runs.
pub struct Running {
    pub role: Role,
    pub shutdown: Shutdown,
    pub health: Health,
    pub metrics: Registry,
}

/// One event of one user.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub user: String,
    pub destination: String,
}

/// `users` times `each` events for `destination`, the users taking turns.
pub fn events(destination: &str, users: usize, each: usize) -> Vec<Event> {
    (0..each)
        .flat_map(|n| {
            (0..users).map(move |u| Event {
                id: format!("u{u}-{n:05}"),
                user: format!("u{u}"),
                destination: destination.to_owned(),
            })
        })
        .collect()
}

/// A workspace with a webhook per (id, URL).
pub fn webhooks(hooks: &[(&str, &str)]) -> String {
    let list: Vec<String> = hooks
        .iter()
        .map(|(id, url)| format!("{{id: {id}, type: WEBHOOK, config: {{webhookUrl: \"{url}\"}}}}"))
        .collect();
    format!(
        "sources: [{{id: web, write_key: K1}}]\ndestinations: [{}]",
        list.join(", ")
    )
}

impl Bed {
    /// Topics under a prefix of their own on the shared broker.
    pub fn new(name: &str, workspace: &str) -> Self {
        let shared = LocalKafka::shared().unwrap_or_else(|error| panic!("{error}"));
        let prefix = format!("{name}-{:08x}.", fastrand::u32(..));
        let mut kafka = KafkaConfig::at(shared.bootstrap());
        kafka.consumer.session_timeout_ms = 6_000;
        kafka.consumer.heartbeat_interval_ms = 500;
        // A member that left is gone at once, as a test that replaces it needs.
        kafka.consumer.static_membership = false;
        let mut config = Config {
            mode: Mode::Dev,
            kafka: kafka.clone(),
            ..Config::default()
        };
        let router = &mut config.router;
        router.commit_interval_ms = 50;
        router.lane_linger_ms = 200;
        router.delivery.timeout_ms = 3_000;
        router.delivery.backoff_base_ms = 20;
        router.delivery.backoff_cap_ms = 200;
        router.breaker.probe_base_ms = 50;
        router.breaker.probe_cap_ms = 200;
        let bed = Self {
            producer: AckProducer::open(&kafka, "test").unwrap(),
            control: Control::new(parse_workspace("test", workspace, 1).unwrap()),
            names: TopicNames::new(&prefix),
            kafka,
            config,
        };
        let mut topics = vec![Topic::Ledger, Topic::Dlq(Stage::Router)];
        topics.extend(
            bed.control
                .snapshot()
                .lanes()
                .into_iter()
                .map(Topic::Deliver),
        );
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

    /// Replaces the workspace.
    pub fn publish(&self, workspace: &str) {
        let revision = self.control.snapshot().revision + 1;
        let workspace = parse_workspace("test", workspace, revision).unwrap();
        self.control.publish(workspace);
    }

    /// Starts a router and waits until it is ready.
    pub async fn start(&self, instance: &str) -> Running {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let (health, metrics) = (Health::default(), Registry::default());
        let mut config = self.config.clone();
        config.instance = Some(instance.to_owned());
        config.validate().unwrap();
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
        let role = sluice::router::start(deps).await.unwrap();
        let running = Running {
            role,
            shutdown,
            health,
            metrics,
        };
        running.ready().await;
        running
    }

    /// Writes deliveries to `deliver.<lane>` as the processor does, acknowledged.
    pub async fn send(&self, lane: &str, events: &[Event]) {
        let batch = Batch::new();
        let topic = self.names.name(&Topic::Deliver(lane.to_owned()));
        let mut payload = Vec::new();
        for (n, event) in events.iter().enumerate() {
            payload.clear();
            let delivery = Delivery {
                destination_id: event.destination.as_str().into(),
                origin_partition: 0,
                origin_offset: n as i64,
                processed_revision: self.control.snapshot().revision,
                envelope: Envelope {
                    message_id: event.id.as_str().into(),
                    source_id: "web".into(),
                    event_type: "track".into(),
                    user_id: event.user.as_str().into(),
                    received_at: 1_700_000_000_000,
                    event: br#"{"event":"Tested"}"#.as_slice().into(),
                    ..Envelope::default()
                },
            };
            let kind = AddressedKind::Delivery;
            codec::encode_addressed(kind, Framing::SingleObject, &delivery, &mut payload).unwrap();
            let record = RecordRef::new(&topic, event.user.as_bytes(), &payload);
            self.producer.send(&batch, record).unwrap();
        }
        batch.wait(deadline(PATIENCE)).await.unwrap();
    }

    /// Writes one record as it is.
    pub async fn send_raw(&self, lane: &str, key: &str, payload: &[u8]) {
        let batch = Batch::new();
        let topic = self.names.name(&Topic::Deliver(lane.to_owned()));
        let record = RecordRef::new(&topic, key.as_bytes(), payload);
        self.producer.send(&batch, record).unwrap();
        batch.wait(deadline(PATIENCE)).await.unwrap();
    }

    /// Everything on a topic that readers of committed records see now.
    pub fn read(&self, topic: &Topic) -> Vec<Message> {
        let mut messages = Vec::new();
        let name = self.names.name(topic);
        Reader::open_all(&self.kafka, "test", &name, StartAt::Beginning)
            .unwrap()
            .read_to_end(PATIENCE, |message| messages.push(message))
            .unwrap();
        messages
    }

    pub fn dead_letters(&self) -> Vec<Message> {
        self.read(&Topic::Dlq(Stage::Router))
    }

    /// Counts of all ledger entries, `destination ending reason` to how many; checks that ranges chain.
    #[track_caller]
    pub fn balance(&self) -> BTreeMap<String, i64> {
        let mut balance = BTreeMap::new();
        let mut reached: HashMap<(String, i32), i64> = HashMap::new();
        let entry = |m: &Message| -> LedgerEntry<'static> {
            let entry = codec::decode_ledger(m.payload.as_deref().unwrap()).unwrap();
            assert_eq!(m.key.as_deref(), Some(entry.key().as_bytes()));
            LedgerEntry {
                stage: entry.stage.into_owned().into(),
                topic: entry.topic.into_owned().into(),
                instance: entry.instance.into_owned().into(),
                ..entry
            }
        };
        let mut entries: Vec<LedgerEntry<'_>> =
            self.read(&Topic::Ledger).iter().map(entry).collect();
        // Each writer has its own partition of the ledger, and ranges go on where another writer's ended.
        entries.sort_by_key(|e| (e.topic.to_string(), e.partition, e.from_offset, e.to_offset));
        for entry in entries {
            let place = (entry.topic.to_string(), entry.partition);
            if let Some(to) = reached.insert(place, entry.to_offset) {
                assert_eq!(
                    to, entry.from_offset,
                    "a gap or an overlap in {}-{}",
                    entry.topic, entry.partition
                );
            }
            let counted: i64 = entry.outcomes.iter().map(|o| o.count).sum();
            assert_eq!(counted, entry.records);
            for o in entry.outcomes {
                let what = format!("{} {} {}", o.destination_id, o.ending, o.reason);
                *balance.entry(what.trim_end().to_owned()).or_default() += o.count;
            }
        }
        balance
    }

    /// Records on `deliver.<lane>` that the group has not passed.
    pub fn lag(&self, lane: &str) -> usize {
        let topic = Topic::Deliver(lane.to_owned());
        let group = format!("{}router.{lane}", self.names.prefix());
        let committed: HashMap<i32, i64> = self
            .admin()
            .committed(&group, None)
            .unwrap()
            .into_iter()
            .filter_map(|c| Some((c.topic_partition.partition, c.next_offset?)))
            .collect();
        let behind = |m: &Message| m.offset >= *committed.get(&m.partition).unwrap_or(&0);
        self.read(&topic).into_iter().filter(behind).count()
    }

    /// Waits until the group has passed everything on `deliver.<lane>`.
    pub async fn drained(&self, lane: &str) {
        wait_until("everything is delivered", || self.lag(lane) == 0).await;
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

pub async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        if tokio::task::block_in_place(&mut holds) {
            return;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says what a sink got out of order, lost or doubled.
#[track_caller]
pub fn assert_kept(sent: &[Event], sink: &Sink, repeats_max: usize) {
    let mut of_key: HashMap<String, u64> = HashMap::new();
    let inputs: Vec<Input> = (0u64..)
        .zip(sent)
        .map(|(seq, event)| {
            let next = of_key.entry(event.user.clone()).or_default();
            *next += 1;
            Input {
                producer: 0,
                seq,
                id: event.id.clone(),
                key: event.user.clone(),
                key_seq: *next - 1,
            }
        })
        .collect();
    let arrivals: Vec<Arrival> = sink
        .got()
        .iter()
        .map(|got| Arrival {
            id: got.message_id(),
            key: got.json()["userId"].as_str().unwrap_or_default().to_owned(),
            idempotency_key: got.headers.get("idempotency-key").cloned(),
            accepted: (200..300).contains(&got.status),
        })
        .collect();
    let report = check_arrivals(&inputs, &arrivals, repeats_max);
    assert!(report.is_clean(), "{report}");
}

/// Says whether, for any user, an event was tried before the one before it had ended: `ended` says of a status whether it
/// ends an event.
#[track_caller]
pub fn assert_one_at_a_time(sink: &Sink, ended: impl Fn(u16) -> bool) {
    let mut open: HashMap<String, Option<String>> = HashMap::new();
    for got in sink.got() {
        let (id, user) = (got.message_id(), got.json()["userId"].to_string());
        let before = open.entry(user.clone()).or_default();
        if let Some(before) = before.as_ref().filter(|before| **before != id) {
            panic!("{id} of {user} was tried before {before} had ended");
        }
        *before = (!ended(got.status)).then_some(id);
    }
}

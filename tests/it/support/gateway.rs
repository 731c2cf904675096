//! A gateway in this process: on a free port, with a workspace of the test's own, on topics of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use sluice::clock::SystemClock;
use sluice::config::{Config, Mode};
use sluice::control::{Control, parse_workspace};
use sluice::deps::{Deps, Role};
use sluice::dev::kafka::LocalKafka;
use sluice::event::codec::decode_envelope;
use sluice::event::{Envelope, Topic, TopicNames};
use sluice::registry::Schemas;
use sluice::shutdown::Shutdown;
use sluice::telemetry::{Health, Registry};

use super::client::{Connection, post_json, request};
use super::records::{Record, Tail, read_all};

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway that runs in this process.
pub struct TestGateway {
    /// Where it listens.
    pub address: SocketAddr,
    /// The cluster it writes to.
    pub bootstrap: String,
    /// Full name of its `events` topic.
    pub topic: String,
    /// What the customer configured.
    pub control: Control,
    pub health: Health,
    pub metrics: Registry,
    pub shutdown: Shutdown,
    role: Role,
}

/// What a gateway answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: String,
    pub headers: Vec<(String, String)>,
}

impl Reply {
    /// A header's value; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Status and body, for comparisons.
    pub fn short(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

/// A prefix that no other test has.
pub fn prefix(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(
        "{name}-{}-{number}-{:06x}.",
        std::process::id(),
        fastrand::u32(..1 << 24)
    )
}

/// Creates a topic with one replica, and waits until it is there.
pub async fn create_topic(bootstrap: &str, name: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let created = admin.create_topics([&topic], &options).await.unwrap();
    assert_eq!(created, [Ok(name.to_owned())]);
}

/// Settings for a gateway on a free port, with a topic prefix of its own.
pub fn config(bootstrap: &str) -> Config {
    let mut config = Config {
        mode: Mode::Dev,
        ..Config::default()
    };
    config.kafka.bootstrap = bootstrap.to_owned();
    config.topics.prefix = prefix("gateway");
    config.gateway.listen = ([127, 0, 0, 1], 0).into();
    config
}

impl TestGateway {
    /// Starts one on the shared Kafka with `workspace` (YAML or JSON) and waits until it is ready.
    pub async fn start(workspace: &str) -> Self {
        Self::start_with(workspace, |_| ()).await
    }

    /// As [`TestGateway::start`], with other settings.
    pub async fn start_with(workspace: &str, change: impl FnOnce(&mut Config)) -> Self {
        let kafka = tokio::task::spawn_blocking(LocalKafka::shared)
            .await
            .unwrap();
        let bootstrap = kafka.expect("a Kafka to test with").bootstrap().to_owned();
        let gateway = Self::start_at(&bootstrap, workspace, change).await;
        gateway.wait_ready().await;
        gateway
    }

    /// Starts one on a cluster of the caller's, without waiting until it is ready.
    pub async fn start_at(
        bootstrap: &str,
        workspace: &str,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config(bootstrap);
        change(&mut config);
        let topic = TopicNames::new(&config.topics.prefix).name(&Topic::Events);
        create_topic(bootstrap, &topic, 3).await;
        Self::open(config, workspace).await
    }

    /// Starts one without creating its topic.
    pub async fn open(config: Config, workspace: &str) -> Self {
        let topics = TopicNames::new(&config.topics.prefix);
        let deps = Deps {
            control: Control::new(parse_workspace("test", workspace, 1).unwrap()),
            clock: Arc::new(SystemClock),
            health: Health::default(),
            metrics: Registry::default(),
            shutdown: Shutdown::new(Duration::from_secs(20)),
            topics: topics.clone(),
            schemas: Schemas::default(),
            config: Arc::new(config),
        };
        let role = sluice::gateway::start(deps.clone()).await.unwrap();
        Self {
            address: role.address.unwrap(),
            bootstrap: deps.config.kafka.bootstrap.clone(),
            topic: topics.name(&Topic::Events),
            control: deps.control,
            health: deps.health,
            metrics: deps.metrics,
            shutdown: deps.shutdown,
            role,
        }
    }

    /// Waits until it says that it is ready.
    pub async fn wait_ready(&self) {
        until("the gateway is ready", || self.health.missing().is_empty()).await;
    }

    /// Sends raw bytes over a connection of its own and returns the answer.
    pub async fn exchange(&self, bytes: &[u8]) -> Reply {
        let mut connection = Connection::open(self.address).await.unwrap();
        let answer = connection.exchange(bytes).await.unwrap();
        Reply {
            status: answer.status,
            body: answer.text().to_owned(),
            headers: answer
                .headers()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect(),
        }
    }

    /// Posts JSON with a write key in the header.
    pub async fn post(&self, path: &str, write_key: &str, body: impl AsRef<[u8]>) -> Reply {
        self.exchange(&post_json(self.address, path, write_key, body.as_ref()))
            .await
    }

    /// Any request.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        self.exchange(&request(method, self.address, target, headers, body))
            .await
    }

    /// The whole answer to a GET as it came over the wire, for bodies that are no text.
    pub async fn get_bytes(&self, target: &str) -> Vec<u8> {
        self.wire("GET", target).await
    }

    /// The whole answer to a request without a body as it came over the wire.
    pub async fn wire(&self, method: &str, target: &str) -> Vec<u8> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut socket = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let close = [("Connection", "close")];
        let request = request(method, self.address, target, &close, b"");
        socket.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        answer
    }

    /// Everything on the topic now, in no order across partitions.
    pub async fn records(&self) -> Vec<Record> {
        let (bootstrap, topic) = (self.bootstrap.clone(), self.topic.clone());
        tokio::task::spawn_blocking(move || read_all(&bootstrap, &topic))
            .await
            .unwrap()
    }

    /// The events on the topic now.
    pub async fn events(&self) -> Vec<Envelope<'static>> {
        self.records().await.iter().map(envelope).collect()
    }

    /// Waits until the topic holds what `enough` asks for.
    pub async fn events_until(
        &self,
        what: &'static str,
        enough: impl Fn(&[Record]) -> bool + Send + 'static,
    ) -> Vec<Envelope<'static>> {
        let (bootstrap, topic) = (self.bootstrap.clone(), self.topic.clone());
        let read = move || {
            let mut tail = Tail::open(&bootstrap, &topic);
            tail.read_until(what, PATIENCE, enough);
            tail.records
        };
        let records = tokio::task::spawn_blocking(read).await.unwrap();
        records.iter().map(envelope).collect()
    }

    /// Stops it and waits until it has drained.
    pub async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.role.done)
            .await
            .expect("the gateway drains")
            .unwrap()
            .unwrap();
    }
}

/// What an ingestion service plays in: an event with the id `id`, and what more the service knows of it.
pub fn message(id: &str, properties: Value) -> Value {
    let mut message = json!({
        "properties": {
            "requestType": "track", "routingKey": "a<<>>b<<>>u", "workspaceID": "ws", "sourceID": "web",
            "receivedAt": "2026-01-02T03:04:05.006Z", "requestIP": "203.0.113.9",
        },
        "payload": {
            "type": "track", "event": "Order", "userId": "u", "messageId": id, "receivedAt": "2026-01-02T03:04:05.006Z",
            "request_ip": "203.0.113.9", "rudderId": "e4cab80e-2f0e-4fa2-87e0-3a4af182634c",
        },
    });
    for (name, value) in properties.as_object().unwrap() {
        message["properties"][name] = value.clone();
    }
    message
}

/// The envelope in a record.
pub fn envelope(record: &Record) -> Envelope<'static> {
    decode_envelope(&record.payload).unwrap().into_owned()
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let within = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(within.is_ok(), "{what}: not within {PATIENCE:?}");
}

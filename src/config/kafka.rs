//! The cluster: how to reach it, and the limits of our producers and consumers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SchemaRegistryConfig, Secret};

/// The cluster.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Brokers to ask first, `host:port` with commas between. Default `127.0.0.1:9092`.
    pub bootstrap: String,
    /// First part of every client id and transactional id; the role and the instance follow. Default `sluice`.
    pub client_id: String,
    /// Encryption and login.
    pub security: SecurityConfig,
    /// A schema registry beside the brokers, for tools that read our topics with its clients. Default none: records carry Avro's
    /// single-object frame.
    pub schema_registry: Option<SchemaRegistryConfig>,
    /// Longest wait for the answer to one request, in milliseconds. A transaction whose commit took longer is not
    /// trusted: its producer is replaced. Default 10000.
    pub request_timeout_ms: u64,
    /// How often librdkafka reports its statistics, in milliseconds; brokers that are up and queue lengths are seen
    /// with this delay. 0 switches them off; readiness then does not see that Kafka is away. Default 5000.
    pub statistics_interval_ms: u64,
    /// Acknowledged producing.
    pub producer: ProducerConfig,
    /// Transactional producing.
    pub transaction: TransactionConfig,
    /// Consuming.
    pub consumer: ConsumerConfig,
    /// librdkafka properties for every client, set last. Those that the guarantees rest on are refused.
    pub extra: BTreeMap<String, String>,
    /// librdkafka properties for producers only, after `extra`.
    pub extra_producer: BTreeMap<String, String>,
    /// librdkafka properties for consumers only, after `extra`.
    pub extra_consumer: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap: "127.0.0.1:9092".to_owned(),
            client_id: "sluice".to_owned(),
            security: SecurityConfig::default(),
            schema_registry: None,
            request_timeout_ms: 10_000,
            statistics_interval_ms: 5_000,
            producer: ProducerConfig::default(),
            transaction: TransactionConfig::default(),
            consumer: ConsumerConfig::default(),
            extra: BTreeMap::new(),
            extra_producer: BTreeMap::new(),
            extra_consumer: BTreeMap::new(),
        }
    }
}

/// Protocol towards the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProtocol {
    /// Neither encryption nor login.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// Login without encryption.
    SaslPlaintext,
    /// Login inside TLS.
    SaslSsl,
}

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// Password as it is; only sensible inside TLS.
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    /// Challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// Encryption and login towards the brokers. TLS and SCRAM need a build with the feature `kafka-tls`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecurityConfig {
    /// Protocol towards the brokers.
    pub protocol: SecurityProtocol,
    /// How to log in, for the `sasl_*` protocols.
    pub sasl_mechanism: SaslMechanism,
    /// User, for the `sasl_*` protocols.
    pub sasl_username: Option<String>,
    /// Password, for the `sasl_*` protocols.
    pub sasl_password: Option<Secret>,
    /// PEM file with the authorities to trust; default: the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file with our certificate, when the brokers ask for one.
    pub tls_certificate_file: Option<PathBuf>,
    /// PEM file with our private key, when the brokers ask for a certificate.
    pub tls_key_file: Option<PathBuf>,
    /// Password of the private key.
    pub tls_key_password: Option<Secret>,
}

/// Compression of record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// None.
    None,
    /// Fast; about 4 to 5 times smaller for full batches of events.
    #[default]
    Lz4,
    /// About 8 times smaller for full batches of events, at somewhat more processor time.
    Zstd,
    /// Fast.
    Snappy,
    /// For old readers.
    Gzip,
}

/// Acknowledged producing: idempotent, acknowledged by all in-sync replicas.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerConfig {
    /// How long a record may wait for company, in milliseconds. Under load batches fill by themselves. Default 0.
    pub linger_ms: u64,
    /// Requests to one broker that wait for their answers (`max.in.flight.requests.per.connection`), 1 to 5; not for
    /// transactions, which always have 5. A broker serves the requests of a connection one after the other, so more of them
    /// hide only the time on the network; with 1, records that come meanwhile travel together, and nothing waits while
    /// nothing is under way. Raise it when the brokers are far away. Default 1.
    pub requests_in_flight_max: u32,
    /// Compression of record batches. Default `lz4`.
    pub compression: Compression,
    /// Longest time from sending to acknowledgement, in milliseconds; after it the record fails. At most
    /// `transaction.timeout_ms`. Default 10000.
    pub delivery_timeout_ms: u64,
    /// Bytes (keys and payloads) sent but not acknowledged, per acknowledged producer; beyond it sending fails at once.
    /// Default 128 MiB.
    pub in_flight_bytes_max: usize,
    /// Records in a producer's queue; beyond it sending fails at once (or waits, in a transaction). Default 500000.
    pub queue_records_max: usize,
    /// Bytes of one request, so also of the largest record. Keep it at or below the topics' `max.message.bytes`, so that a
    /// record that is too large is refused here, where it can be dead-lettered, and not by the broker. Default 1000000.
    pub message_bytes_max: usize,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            linger_ms: 0,
            requests_in_flight_max: 1,
            compression: Compression::default(),
            delivery_timeout_ms: 10_000,
            in_flight_bytes_max: 128 << 20,
            queue_records_max: 500_000,
            message_bytes_max: 1_000_000,
        }
    }
}

/// Transactional producing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TransactionConfig {
    /// After this the broker aborts a transaction whose owner went silent, in milliseconds; until then readers of the
    /// partitions it touched wait. Default 15000.
    pub timeout_ms: u64,
    /// Longest time to register a transactional id with its coordinator, in milliseconds. Default 30000.
    pub init_timeout_ms: u64,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            timeout_ms: 15_000,
            init_timeout_ms: 30_000,
        }
    }
}

/// Where a group begins that has committed nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FirstOffset {
    /// With the oldest record.
    #[default]
    Beginning,
    /// After the newest record.
    End,
    /// Nowhere: stop and say so.
    Error,
}

/// Consuming.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConsumerConfig {
    /// Where a group begins that has committed nothing yet. A committed offset that is not in the log any more is always
    /// an error, never a silent jump. Default `beginning`.
    pub first_offset: FirstOffset,
    /// Whether members keep their partitions over a restart that is shorter than `session_timeout_ms` (KIP-345): they
    /// join under the instance's name. Default true.
    pub static_membership: bool,
    /// After this without a heartbeat a member's partitions go to others, in milliseconds. Default 30000.
    pub session_timeout_ms: u64,
    /// Time between heartbeats, in milliseconds. Default 3000.
    pub heartbeat_interval_ms: u64,
    /// After this without a poll a member's partitions go to others, in milliseconds. Default 300000.
    pub max_poll_interval_ms: u64,
    /// Bytes fetched ahead per consumer. Default 32 MiB.
    pub queued_bytes_max: usize,
    /// Records that a consumer tries to have fetched ahead per partition. Default 20000.
    pub queued_records_min: usize,
    /// Bytes of one fetch answer. Default 50 MiB.
    pub fetch_bytes_max: usize,
    /// Bytes of one partition in a fetch answer. Default 1 MiB.
    pub fetch_partition_bytes_max: usize,
    /// How long a broker may hold a fetch that has nothing to answer, in milliseconds. Default 100.
    pub fetch_wait_max_ms: u64,
    /// Longest wait for committed offsets, positions and watermarks, in milliseconds. Default 30000.
    pub lookup_timeout_ms: u64,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            first_offset: FirstOffset::default(),
            static_membership: true,
            session_timeout_ms: 30_000,
            heartbeat_interval_ms: 3_000,
            max_poll_interval_ms: 300_000,
            queued_bytes_max: 32 << 20,
            queued_records_min: 20_000,
            fetch_bytes_max: 50 << 20,
            fetch_partition_bytes_max: 1 << 20,
            fetch_wait_max_ms: 100,
            lookup_timeout_ms: 30_000,
        }
    }
}

/// Properties that `extra` may not touch, because acknowledgement, order or exactly-once would be gone without a sign.
pub const RESERVED_PROPERTIES: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];

impl KafkaConfig {
    /// The default settings for one bootstrap address; for tests and tools.
    pub fn at(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            ..Self::default()
        }
    }

    /// Longest wait for the answer to one request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// Longest wait for committed offsets, positions and watermarks.
    pub fn lookup_timeout(&self) -> Duration {
        Duration::from_millis(self.consumer.lookup_timeout_ms)
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.bootstrap.trim().is_empty() {
            problems.push("kafka.bootstrap: empty; write host:port".to_owned());
        }
        for (section, map) in [
            ("extra", &self.extra),
            ("extra_producer", &self.extra_producer),
            ("extra_consumer", &self.extra_consumer),
        ] {
            for name in map.keys() {
                if RESERVED_PROPERTIES.contains(&name.as_str()) {
                    problems.push(format!(
                        "kafka.{section}.{name}: what Sluice promises rests on its value; remove it"
                    ));
                }
            }
        }
        // librdkafka refuses to open a transactional producer otherwise.
        for (key, value) in [
            (
                "producer.delivery_timeout_ms",
                self.producer.delivery_timeout_ms,
            ),
            ("request_timeout_ms", self.request_timeout_ms),
        ] {
            if value > self.transaction.timeout_ms {
                problems.push(format!(
                    "kafka.{key}: {value} is more than kafka.transaction.timeout_ms ({})",
                    self.transaction.timeout_ms
                ));
            }
        }
        if self.consumer.heartbeat_interval_ms * 3 > self.consumer.session_timeout_ms {
            problems.push(
                "kafka.consumer.heartbeat_interval_ms: must be at most a third of session_timeout_ms"
                    .to_owned(),
            );
        }
        if self.consumer.max_poll_interval_ms < self.consumer.session_timeout_ms {
            problems.push(
                "kafka.consumer.max_poll_interval_ms: must be at least session_timeout_ms"
                    .to_owned(),
            );
        }
        if !(1..=5).contains(&self.producer.requests_in_flight_max) {
            problems.push(
                "kafka.producer.requests_in_flight_max: must be 1 to 5; brokers remember no more of an idempotent producer"
                    .to_owned(),
            );
        }
        if self.producer.in_flight_bytes_max < self.producer.message_bytes_max {
            problems.push(
                "kafka.producer.in_flight_bytes_max: must be at least message_bytes_max".to_owned(),
            );
        }
        self.security.check(problems);
        if let Some(registry) = &self.schema_registry {
            registry.check(problems);
        }
    }
}

impl SecurityConfig {
    fn check(&self, problems: &mut Vec<String>) {
        let sasl = matches!(
            self.protocol,
            SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl
        );
        if sasl && (self.sasl_username.is_none() || self.sasl_password.is_none()) {
            problems.push(
                "kafka.security: this protocol needs sasl_username and sasl_password".to_owned(),
            );
        }
        let tls = matches!(
            self.protocol,
            SecurityProtocol::Ssl | SecurityProtocol::SaslSsl
        );
        if tls && cfg!(not(feature = "kafka-tls")) {
            problems.push(
                "kafka.security.protocol: this binary was built without TLS towards Kafka (feature kafka-tls)"
                    .to_owned(),
            );
        }
        if self.tls_certificate_file.is_some() != self.tls_key_file.is_some() {
            problems.push(
                "kafka.security: tls_certificate_file and tls_key_file belong together".to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut KafkaConfig)) -> Vec<String> {
        let mut config = KafkaConfig::default();
        change(&mut config);
        let mut problems = Vec::new();
        config.check(&mut problems);
        problems
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(problems(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn a_property_that_the_promise_rests_on_cannot_be_overridden() {
        let found = problems(|c| {
            c.extra.insert("acks".into(), "1".into());
            c.extra_consumer
                .insert("isolation.level".into(), "read_uncommitted".into());
            c.extra.insert("debug".into(), "eos".into());
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("kafka.extra.acks"));
    }

    #[test]
    fn timeouts_that_the_library_would_refuse_are_named_before_connecting() {
        let found = problems(|c| c.transaction.timeout_ms = 5_000);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn requests_in_flight_are_what_an_idempotent_producer_may_have() {
        for (wanted, refused) in [(0, 1), (1, 0), (5, 0), (6, 1)] {
            let found = problems(|c| c.producer.requests_in_flight_max = wanted);
            assert_eq!(found.len(), refused, "{found:?}");
        }
    }

    #[test]
    fn a_password_does_not_show_in_the_printed_settings() {
        let config: KafkaConfig = serde_json::from_str(
            r#"{"security":{"protocol":"sasl_plaintext","sasl_mechanism":"SCRAM-SHA-256","sasl_username":"u","sasl_password":"hunter2"}}"#,
        )
        .unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}

//! librdkafka's settings from ours, and what every client of it reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode as Code};

use crate::config::{Compression, KafkaConfig, SaslMechanism, SecurityConfig, SecurityProtocol};

use super::stats;

/// Settings that every client shares. `name` ends the client id: what a broker's logs and quotas show.
fn common(config: &KafkaConfig, name: &str) -> ClientConfig {
    let mut c = ClientConfig::new();
    c.set("bootstrap.servers", &config.bootstrap)
        .set("client.id", format!("{}.{name}", config.client_id))
        .set("socket.timeout.ms", config.request_timeout_ms.to_string())
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set(
            "statistics.interval.ms",
            config.statistics_interval_ms.to_string(),
        )
        // Brokers close idle connections; that is not worth a line.
        .set("log.connection.close", "false")
        .set("topic.metadata.refresh.interval.ms", "30000")
        // Default 30 s to 10 s at most: after a broker restart we want to be back at once.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "2000");
    security(&mut c, &config.security);
    c
}

fn security(c: &mut ClientConfig, s: &SecurityConfig) {
    c.set(
        "security.protocol",
        match s.protocol {
            SecurityProtocol::Plaintext => "plaintext",
            SecurityProtocol::Ssl => "ssl",
            SecurityProtocol::SaslPlaintext => "sasl_plaintext",
            SecurityProtocol::SaslSsl => "sasl_ssl",
        },
    );
    if matches!(
        s.protocol,
        SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl
    ) {
        c.set(
            "sasl.mechanism",
            match s.sasl_mechanism {
                SaslMechanism::Plain => "PLAIN",
                SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
                SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
            },
        );
        if let Some(user) = &s.sasl_username {
            c.set("sasl.username", user);
        }
        if let Some(password) = &s.sasl_password {
            c.set("sasl.password", password.expose());
        }
    }
    for (name, file) in [
        ("ssl.ca.location", &s.tls_ca_file),
        ("ssl.certificate.location", &s.tls_certificate_file),
        ("ssl.key.location", &s.tls_key_file),
    ] {
        if let Some(file) = file {
            c.set(name, file.to_string_lossy());
        }
    }
    if let Some(password) = &s.tls_key_password {
        c.set("ssl.key.password", password.expose());
    }
}

fn extras(
    c: &mut ClientConfig,
    config: &KafkaConfig,
    of_kind: &std::collections::BTreeMap<String, String>,
) {
    for (name, value) in config.extra.iter().chain(of_kind) {
        c.set(name, value);
        if name == "debug" {
            // rust-rdkafka sets `log_level` from its own field, and the default would hide what was asked for.
            c.set_log_level(RDKafkaLogLevel::Debug);
        }
    }
}

/// A producer that waits for all in-sync replicas and cannot write a record twice by retrying.
pub(super) fn producer(config: &KafkaConfig, name: &str) -> ClientConfig {
    producing(config, name, config.producer.requests_in_flight_max)
}

/// What an idempotent producer may have under way at most (KIP-98: the broker remembers five batches of each producer).
const IDEMPOTENT_IN_FLIGHT_MAX: u32 = 5;

fn producing(config: &KafkaConfig, name: &str, requests_in_flight: u32) -> ClientConfig {
    let p = &config.producer;
    let mut c = common(config, name);
    c.set("acks", "all")
        .set("enable.idempotence", "true")
        .set("max.in.flight", requests_in_flight.to_string())
        // What the Java clients use. librdkafka's own default is CRC32: another client's records of the same key would
        // land in another partition.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", p.linger_ms.to_string())
        .set(
            "compression.type",
            match p.compression {
                Compression::None => "none",
                Compression::Lz4 => "lz4",
                Compression::Zstd => "zstd",
                Compression::Snappy => "snappy",
                Compression::Gzip => "gzip",
            },
        )
        .set("message.timeout.ms", p.delivery_timeout_ms.to_string())
        .set("message.max.bytes", p.message_bytes_max.to_string())
        .set("batch.size", p.message_bytes_max.min(1_000_000).to_string())
        .set(
            "queue.buffering.max.messages",
            p.queue_records_max.to_string(),
        )
        // Twice the budget: the budget is what refuses, the library's limit is a net below it.
        .set(
            "queue.buffering.max.kbytes",
            (p.in_flight_bytes_max / 1024 * 2 + 1024)
                .min(2_097_151)
                .to_string(),
        )
        // A partition whose leader is away must not make the records for the others fail; and a topic that does not
        // exist must be told before the delivery timeout is used up.
        .set("topic.metadata.propagation.max.ms", "5000");
    extras(&mut c, config, &config.extra_producer);
    c
}

/// A producer of transactions under `transactional_id`.
pub(super) fn transactional(config: &KafkaConfig, transactional_id: &str) -> ClientConfig {
    // A transaction sends all it has at once, to many partitions, and waits for the last answer: company is there already.
    let mut c = producing(config, transactional_id, IDEMPOTENT_IN_FLIGHT_MAX);
    c.set("client.id", transactional_id)
        .set("transactional.id", transactional_id)
        .set(
            "transaction.timeout.ms",
            config.transaction.timeout_ms.to_string(),
        );
    c
}

/// A consumer that commits only what it is told to.
pub(super) fn consumer(config: &KafkaConfig, name: &str, group: &str) -> ClientConfig {
    let k = &config.consumer;
    let mut c = common(config, name);
    c.set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Also for inputs that nobody writes in transactions: only a read_committed consumer asks for *stable* committed
        // offsets, and that is what makes a successor wait for the commit that its predecessor has under way.
        .set("isolation.level", "read_committed")
        // A committed offset that is gone is an error; the first start is handled on assignment.
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("check.crcs", "true")
        .set(
            "queued.max.messages.kbytes",
            (k.queued_bytes_max / 1024).max(1).to_string(),
        )
        .set("queued.min.messages", k.queued_records_min.to_string())
        .set("fetch.max.bytes", k.fetch_bytes_max.to_string())
        .set(
            "receive.message.max.bytes",
            (k.fetch_bytes_max + (1 << 20)).max(100_000_000).to_string(),
        )
        .set(
            "fetch.message.max.bytes",
            k.fetch_partition_bytes_max.to_string(),
        )
        .set("fetch.wait.max.ms", k.fetch_wait_max_ms.to_string())
        // Default 1000: once the queue is full, nothing is fetched for a second, and throughput is a saw.
        .set("fetch.queue.backoff.ms", "50")
        .set("fetch.error.backoff.ms", "100");
    extras(&mut c, config, &config.extra_consumer);
    c
}

/// Membership of a group, added to [`consumer`].
pub(super) fn membership(c: &mut ClientConfig, config: &KafkaConfig, instance: Option<&str>) {
    let k = &config.consumer;
    // KIP-848's protocol stalls in this librdkafka (fixed in 2.13 to 2.15), so the classic one.
    c.set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", k.session_timeout_ms.to_string())
        .set("heartbeat.interval.ms", k.heartbeat_interval_ms.to_string())
        .set("max.poll.interval.ms", k.max_poll_interval_ms.to_string());
    if let Some(instance) = instance.filter(|_| k.static_membership) {
        c.set("group.instance.id", instance);
    }
}

/// A client for administration: no group, no statistics.
pub(super) fn admin(config: &KafkaConfig) -> ClientConfig {
    let mut c = common(config, "admin");
    c.set("statistics.interval.ms", "0");
    for (name, value) in &config.extra {
        c.set(name, value);
    }
    c
}

/// How long all brokers must be down before a consumer counts as cut off: one that is started again is back sooner.
const DOWN: Duration = Duration::from_secs(10);
/// The same for a consumer that tells nothing because its thread does not poll. One that waits for Kafka in some other call
/// does not, and neither does one that waits for requests in flight when partitions leave (`router.revoke_wait_ms`).
const SILENT: Duration = Duration::from_secs(30);

/// Since when brokers are away, as far as a client has told.
#[derive(Debug, Clone, Copy)]
struct Sight {
    /// Reports are told this often.
    interval: Duration,
    told: Instant,
    down_since: Option<Instant>,
}

impl Sight {
    fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            told: now,
            down_since: None,
        }
    }

    fn tell(&mut self, is_up: bool, now: Instant) {
        self.told = now;
        self.down_since = match self.down_since {
            _ if is_up => None,
            None => Some(now),
            since => since,
        };
    }

    fn is_clear(&self, now: Instant) -> bool {
        // Without reports nothing would ever say that brokers are back.
        let tells = !self.interval.is_zero();
        let is_down = |since| now.duration_since(since) >= DOWN.max(self.interval * 2);
        let is_silent = now.duration_since(self.told) >= SILENT.max(self.interval * 6);
        !(tells && (is_silent || self.down_since.is_some_and(is_down)))
    }
}

/// Tells from any thread whether the brokers of a [`Consumer`](super::Consumer) are there; see
/// [`Consumer::reach`](super::Consumer::reach).
#[derive(Debug, Clone)]
pub struct Reach(pub(super) Arc<Observer>);

impl Reach {
    /// False once no broker has been up for ten seconds, or once the consumer has not been polled for thirty. A consumer
    /// that has nothing to read is polled and has connections all the same.
    pub fn is_up(&self) -> bool {
        self.0.sight.lock().is_clear(Instant::now())
    }
}

/// What a client of librdkafka tells between calls. Each context owns one and forwards its callbacks to it.
#[derive(Debug)]
pub(super) struct Observer {
    name: Arc<str>,
    brokers_up: AtomicBool,
    wire_errors: AtomicU64,
    last: Mutex<Option<(Instant, String)>>,
    sight: Mutex<Sight>,
}

impl Observer {
    pub(super) fn new(name: impl Into<Arc<str>>) -> Self {
        Self::reporting(name, Duration::ZERO)
    }

    /// For a client that reports its statistics so often; see [`Reach`].
    pub(super) fn reporting(name: impl Into<Arc<str>>, interval: Duration) -> Self {
        Self {
            name: name.into(),
            sight: Mutex::new(Sight::new(interval, Instant::now())),
            brokers_up: AtomicBool::new(false),
            wire_errors: AtomicU64::new(0),
            last: Mutex::new(None),
        }
    }

    /// Whether a broker is up, as far as acknowledgements, statistics and errors have told.
    pub(super) fn is_up(&self) -> bool {
        self.brokers_up.load(Ordering::Relaxed)
    }

    /// An answer came: a broker is up.
    pub(super) fn answered(&self) {
        if !self.brokers_up.load(Ordering::Relaxed) {
            self.brokers_up.store(true, Ordering::Relaxed);
        }
    }

    /// Connections lost and requests timed out so far. A difference over a commit means that the commit was, perhaps, sent
    /// twice.
    pub(super) fn wire_errors(&self) -> u64 {
        self.wire_errors.load(Ordering::Acquire)
    }

    /// The library's last error text, if it is younger than `age`; it often names what a code does not.
    pub(super) fn recent_error(&self, age: Duration) -> Option<String> {
        self.last
            .lock()
            .as_ref()
            .filter(|(at, _)| at.elapsed() <= age)
            .map(|(_, text)| text.clone())
    }

    pub(super) fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let client = &*self.name;
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                // librdkafka logs lost connections as errors; it reconnects, so we coped.
                tracing::warn!(client, facility, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(client, facility, "librdkafka: {line}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(client, facility, "librdkafka: {line}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(client, facility, "librdkafka: {line}"),
        }
    }

    pub(super) fn error(&self, error: &LibraryError, reason: &str) {
        *self.last.lock() = Some((Instant::now(), reason.to_owned()));
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => {
                self.brokers_up.store(false, Ordering::Relaxed);
                self.sight.lock().tell(false, Instant::now());
                self.wire_errors.fetch_add(1, Ordering::AcqRel);
            }
            Some(
                Code::BrokerTransportFailure
                | Code::OperationTimedOut
                | Code::TimedOutQueue
                | Code::RequestTimedOut,
            ) => {
                self.wire_errors.fetch_add(1, Ordering::AcqRel);
            }
            _ => {}
        }
        tracing::debug!(client = &*self.name, %error, "librdkafka: {reason}");
    }

    pub(super) fn stats(&self, json: &[u8]) {
        if let Some(snapshot) = stats::read(json) {
            let is_up = snapshot.brokers_up > 0;
            self.brokers_up.store(is_up, Ordering::Relaxed);
            self.sight.lock().tell(is_up, Instant::now());
            stats::publish(&self.name, &snapshot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn brokers_are_away_once_they_have_been_down_for_long_and_back_at_once() {
        let began = Instant::now();
        let mut sight = Sight::new(SECOND * 5, began);
        sight.tell(false, began + SECOND * 5);
        sight.tell(false, began + SECOND * 10);
        assert!(sight.is_clear(began + SECOND * 14));
        assert!(!sight.is_clear(began + SECOND * 15));
        sight.tell(true, began + SECOND * 16);
        assert!(sight.is_clear(began + SECOND * 17));
        sight.tell(false, began + SECOND * 20);
        assert!(sight.is_clear(began + SECOND * 29));
    }

    #[test]
    fn a_client_with_nothing_to_do_says_that_brokers_are_there_and_one_that_says_nothing_does_not()
    {
        let began = Instant::now();
        let mut sight = Sight::new(SECOND * 5, began);
        for n in 1..100 {
            sight.tell(true, began + SECOND * 5 * n);
            assert!(sight.is_clear(began + SECOND * 5 * n));
        }
        let last = began + SECOND * 5 * 99;
        assert!(sight.is_clear(last + SECOND * 29));
        assert!(!sight.is_clear(last + SECOND * 30));
    }

    #[test]
    fn rare_reports_are_waited_for_and_without_any_nothing_is_known() {
        let began = Instant::now();
        let mut sight = Sight::new(SECOND * 60, began);
        sight.tell(false, began);
        assert!(sight.is_clear(began + SECOND * 119));
        assert!(!sight.is_clear(began + SECOND * 120));
        let mut sight = Sight::new(Duration::ZERO, began);
        sight.tell(false, began);
        assert!(sight.is_clear(began + SECOND * 1000));
    }
}

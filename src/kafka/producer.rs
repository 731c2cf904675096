//! The acknowledged producer: what [`Batch::wait`] calls written, all in-sync replicas have.
//!
//! Nothing here blocks: what cannot be sent now is an error now (rust-rdkafka's own `FutureProducer` would sleep 100 ms
//! on a full queue).

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::IntoOpaque as _;

use crate::config::KafkaConfig;

use super::batch::{Batch, InFlight};
use super::client::{self, Observer};
use super::error::KafkaError;
use super::produce_error::ProduceError;
use super::record::{Headers, RecordRef};
use super::topic_handle::TopicHandles;

/// An idempotent producer that waits for all in-sync replicas. Cheap to clone; all clones are one producer.
#[derive(Clone)]
pub struct AckProducer {
    shared: Arc<Shared>,
}

struct Shared {
    config: KafkaConfig,
    name: String,
    inner: ArcSwap<Inner>,
    replacing: AtomicBool,
    replaced: AtomicU64,
}

/// One producer of the library, with the budget of what it has in flight: a replacement starts with an empty one.
struct Inner {
    /// Before the producer, so that they are dropped before it.
    topics: TopicHandles,
    producer: ThreadedProducer<Context>,
}

impl AckProducer {
    /// Opens a producer; `name` ends its client id. Does not wait for the brokers: see [`ping`](AckProducer::ping).
    ///
    /// # Errors
    /// When the library refuses the settings.
    pub fn open(config: &KafkaConfig, name: &str) -> Result<Self, KafkaError> {
        let inner = Inner::open(config, name)?;
        let shared = Arc::new(Shared {
            config: config.clone(),
            name: name.to_owned(),
            inner: ArcSwap::from_pointee(inner),
            replacing: AtomicBool::new(false),
            replaced: AtomicU64::new(0),
        });
        shared.adopt();
        Ok(Self { shared })
    }

    /// Queues one record as part of `batch`. Never blocks and never sleeps; the library copies the bytes.
    ///
    /// # Errors
    /// When the record was not queued. The batch then fails as well, so that an ignored error cannot become a false
    /// acknowledgement.
    pub fn send(&self, batch: &Batch, record: RecordRef<'_>) -> Result<(), ProduceError> {
        let inner = self.shared.inner.load();
        let context = inner.producer.client().context();
        let bytes = record.size();
        let flight = batch.latch().enter(record.topic);
        if let Err(error) = context.budget.take(bytes) {
            flight.settle(Err(error.clone()));
            return Err(error);
        }
        let prepared = prepare(record, flight);
        inner.producer.send(prepared).map_err(|(error, returned)| {
            context.budget.give_back(bytes);
            let error = ProduceError::from_library(&error, bytes);
            returned.delivery_opaque.settle(Err(error.clone()));
            if matches!(error, ProduceError::Broken(_)) {
                self.shared.replace_if_broken();
            }
            error
        })
    }

    /// Queues `records` (key and payload) for `topic` as part of `batch`, in order: [`send`](AckProducer::send) without
    /// headers, for many at the cost of one look-up.
    ///
    /// # Errors
    /// The first reason why a record was not queued; others may be, as the batch tells. [`ProduceError::TooLarge`] also when
    /// all of them are more than may ever be in flight together.
    pub fn send_all<'r>(
        &self,
        batch: &Batch,
        topic: &str,
        records: impl Iterator<Item = (&'r [u8], &'r [u8])> + Clone,
    ) -> Result<(), ProduceError> {
        let inner = self.shared.inner.load();
        let client = inner.producer.client();
        let budget = &client.context().budget;
        let bytes = records.clone().map(|(k, p)| k.len() + p.len()).sum();
        if let Err(error) = budget.take(bytes) {
            batch.latch().enter(topic).settle(Err(error.clone()));
            return Err(error);
        }
        let mut first = None;
        let flights =
            records.map(|(key, payload)| (key, payload, batch.latch().enter(topic).into_ptr()));
        let refused = |opaque, bytes, error| {
            budget.give_back(bytes);
            let error = ProduceError::from_library(&error, bytes);
            // SAFETY: made by `into_ptr` above; the library has not taken this record, so that nobody else has it.
            unsafe { InFlight::from_ptr(opaque) }.settle(Err(error.clone()));
            first.get_or_insert(error);
        };
        let unnamed = inner
            .topics
            .produce(client.native_ptr(), topic, flights, refused);
        if let Err(error) = unnamed {
            budget.give_back(bytes);
            let error = ProduceError::from_library(&error, bytes);
            batch.latch().enter(topic).settle(Err(error.clone()));
            return Err(error);
        }
        match first {
            None => Ok(()),
            Some(error) => {
                if matches!(error, ProduceError::Broken(_)) {
                    self.shared.replace_if_broken();
                }
                Err(error)
            }
        }
    }

    /// Whether a broker is up, as far as the last acknowledgement, error or statistics report told. False until the first.
    pub fn healthy(&self) -> bool {
        self.shared.context().observer.is_up()
    }

    /// Bytes (keys and payloads) that wait for acknowledgement.
    pub fn in_flight_bytes(&self) -> usize {
        self.shared.context().budget.used.load(Ordering::Relaxed)
    }

    /// How often a broken producer was replaced.
    pub fn replaced(&self) -> u64 {
        self.shared.replaced.load(Ordering::Relaxed)
    }

    /// Waits until a broker answers. Blocks the thread.
    ///
    /// # Errors
    /// When none did within `timeout`.
    pub fn ping(&self, timeout: Duration) -> Result<(), KafkaError> {
        let inner = self.shared.inner.load_full();
        match inner.producer.client().fetch_cluster_id(timeout) {
            Some(_) => {
                inner.producer.client().context().observer.answered();
                Ok(())
            }
            None => {
                let words = inner
                    .producer
                    .client()
                    .context()
                    .observer
                    .recent_error(timeout)
                    .unwrap_or_else(|| "no broker answered".to_owned());
                Err(KafkaError::new(
                    "reach the brokers",
                    Code::BrokerTransportFailure,
                    words,
                ))
            }
        }
    }

    /// Waits until nothing is in flight. Blocks the thread; for a drain.
    ///
    /// # Errors
    /// When something still is after `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaError> {
        let inner = self.shared.inner.load_full();
        inner
            .producer
            .flush(timeout)
            .map_err(|error| KafkaError::from_library("flush the producer", &error))
    }
}

fn prepare<'a>(record: RecordRef<'a>, flight: InFlight) -> BaseRecord<'a, [u8], [u8], InFlight> {
    BaseRecord {
        topic: record.topic,
        partition: record.partition,
        payload: record.payload,
        key: record.key,
        timestamp: record.timestamp,
        headers: owned_headers(record.headers),
        delivery_opaque: flight,
    }
}

/// The library's own copy of the headers; `None` when there are none, which saves its allocation.
pub(super) fn owned_headers(headers: Headers<'_>) -> Option<rdkafka::message::OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let mut owned = rdkafka::message::OwnedHeaders::new_with_capacity(headers.len());
    for (key, value) in (0..headers.len()).filter_map(|i| headers.get(i)) {
        owned = owned.insert(rdkafka::message::Header {
            key,
            value: Some(value),
        });
    }
    Some(owned)
}

impl Inner {
    fn open(config: &KafkaConfig, name: &str) -> Result<Self, KafkaError> {
        let context = Context {
            observer: Observer::new(name),
            budget: Budget::new(config.producer.in_flight_bytes_max),
            owner: OnceLock::new(),
        };
        ThreadedProducer::from_config_and_context(&client::producer(config, name), context)
            .map(|producer| Self {
                topics: TopicHandles::default(),
                producer,
            })
            .map_err(|error| KafkaError::from_library("open a producer", &error))
    }
}

impl Shared {
    fn context(&self) -> Arc<Context> {
        Arc::clone(self.inner.load().producer.client().context())
    }

    /// Tells the current inner producer whom to call when it breaks.
    fn adopt(self: &Arc<Self>) {
        self.context().owner.get_or_init(|| Arc::downgrade(self));
    }

    /// Replaces the inner producer if the library has given it up for good.
    fn replace_if_broken(self: &Arc<Self>) {
        let fatal = self.inner.load().producer.client().fatal_error();
        if let Some((_, why)) = fatal {
            Arc::clone(self).replace(why);
        }
    }

    /// Replaces the inner producer on a thread of its own: the caller is the old producer's own polling thread, which its
    /// drop joins.
    fn replace(self: Arc<Self>, why: String) {
        if self.replacing.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(client = self.name, "producer broke, replacing it: {why}");
        let spawned = thread::Builder::new()
            .name("kafka-replace".to_owned())
            .spawn(move || {
                let fresh = loop {
                    match Inner::open(&self.config, &self.name) {
                        Ok(fresh) => break fresh,
                        Err(error) => {
                            tracing::error!(client = self.name, "{error}");
                            thread::sleep(Duration::from_secs(1));
                        }
                    }
                };
                let mut old = self.inner.swap(Arc::new(fresh));
                self.adopt();
                self.replaced.fetch_add(1, Ordering::Relaxed);
                self.replacing.store(false, Ordering::Release);
                // A sender may hold the old one for some microseconds still. The last holder's drop purges, flushes and
                // joins, which must not happen on a request's thread.
                while Arc::get_mut(&mut old).is_none() {
                    thread::sleep(Duration::from_millis(1));
                }
            });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to replace the producer");
        }
    }
}

/// Bytes in flight, bounded; taken at `send` and given back by the delivery report, whatever it says.
struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    fn new(max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            max,
        }
    }

    fn take(&self, bytes: usize) -> Result<(), ProduceError> {
        if bytes > self.max {
            return Err(ProduceError::TooLarge { bytes });
        }
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.max {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(ProduceError::QueueFull);
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

struct Context {
    observer: Observer,
    budget: Budget,
    owner: OnceLock<Weak<Shared>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.observer.log(level, facility, line);
    }

    fn stats_raw(&self, json: &[u8]) {
        self.observer.stats(json);
    }

    fn error(&self, error: LibraryError, reason: &str) {
        self.observer.error(&error, reason);
        // A fatal error comes under the code of its cause, so the code does not tell.
        if let Some(owner) = self.owner.get().and_then(Weak::upgrade) {
            owner.replace_if_broken();
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = InFlight;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: InFlight) {
        let message = match result {
            Ok(message) | Err((_, message)) => message,
        };
        let bytes = message.key_len() + message.payload_len();
        self.budget.give_back(bytes);
        flight.settle(match result {
            Ok(message) => {
                self.observer.answered();
                Ok((message.partition(), message.offset()))
            }
            Err((error, _)) => Err(ProduceError::from_library(error, bytes)),
        });
    }
}

/// The deadline `timeout` from now, for [`Batch::wait`].
pub fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_budget_is_refused_and_leaves_it_as_it_was() {
        let budget = Budget::new(10);
        budget.take(6).unwrap();
        assert!(matches!(budget.take(5), Err(ProduceError::QueueFull)));
        budget.take(4).unwrap();
        budget.give_back(6);
        budget.take(6).unwrap();
        assert!(matches!(
            budget.take(11),
            Err(ProduceError::TooLarge { bytes: 11 })
        ));
    }
}

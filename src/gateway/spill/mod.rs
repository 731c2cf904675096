//! Where events wait on this machine's disk while Kafka is away (`gateway.spill`, off by default).
//!
//! ```text
//!             ┌─ direct ──▶ Kafka ──▶ 200           no acknowledgement: behind what is on the disk
//!  request ───┤                 └───────┐
//!             └─ spilling ──▶ queue ──▶ writer ──▶ segment files ──▶ 200      one write and one fsync for many requests
//!                                                       │
//!                                                       └──▶ drain ──▶ Kafka      in order; then the segment is deleted
//! ```
//! **What a 200 means then**: all in-sync replicas have every event of the request, *or this disk has*. A disk that is lost
//! loses what was spilled and not drained.
//!
//! **Order.** While anything waits in the spill, all requests go behind it ([`flow`]), so that the events of a user that were
//! accepted here keep their order. Other gateway processes do not wait for it: between them a user's order is not kept
//! meanwhile.
//!
//! **Duplicates.** Records that were handed to Kafka and not acknowledged in time may be written all the same; spilled and
//! drained they are there twice. So are those of the oldest segment after a crash. They carry the message id that the
//! gateway gave or kept before they were encoded, by which the processor leaves the second one out, if it comes within
//! its window (`processor.dedup.window_ms`) after the first.
//!
//! **A crash** at any point loses nothing that was answered: frames carry their length and checksums ([`frame`]); at the start
//! unfinished writes, which nobody was answered for, are cut off, what is damaged is kept aside by name, and all the rest is
//! drained before anything goes to Kafka directly. After a failed write or fsync a file is not written to again.

mod drain;
mod error;
mod flow;
mod folder;
mod frame;
mod frames;
mod metrics;
mod segment;
mod shared;
mod writer;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::timeout_at;

use crate::clock::UnixMs;
use crate::config::{KafkaConfig, SpillConfig};
use crate::fault::{Classify, Fault};
use crate::kafka::{self, AckProducer, ProduceError};
use crate::shutdown::Shutdown;
use crate::telemetry::Registry;

use super::error::GatewayError;
use super::refusal::Refusal;
use drain::Drain;
use flow::{Flow, Full, Mode};
use folder::Folder;
use segment::MAGIC;
use shared::Shared;
use writer::Disk;

pub use error::SpillError;
pub(super) use frames::Frames;
pub use metrics::SpillMetrics;

/// What the spill is made with.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a SpillConfig,
    pub(super) kafka: &'a KafkaConfig,
    /// Full name of the topic.
    pub(super) topic: &'a str,
    /// Bytes of the largest request.
    pub(super) request_bytes: usize,
    /// Bytes that may wait for the disk in memory.
    pub(super) queue_bytes_max: usize,
    pub(super) metrics: &'a Registry,
    pub(super) shutdown: &'a Shutdown,
}

/// The spill of this process.
pub(super) struct Spill {
    shared: Arc<Shared>,
    /// The drain's.
    producer: AckProducer,
    topic: String,
    after: Duration,
    request_bytes: u64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Spill {
    /// Takes the folder, looks through what an earlier life left there and begins to drain it. Blocks; inside a runtime.
    ///
    /// # Errors
    /// When the folder is in use or cannot be read, or when Kafka's library refuses the settings.
    pub(super) fn open(with: &Surroundings<'_>) -> Result<Self, GatewayError> {
        let folder = Folder::take(&with.config.dir)?;
        let left = folder.survey()?;
        let metrics = SpillMetrics::register(with.metrics);
        let damaged = metrics
            .segments_damaged_total
            .with_label_values::<&str>(&[]);
        damaged.inc_by(left.damaged);
        let records = left.segments.iter().map(|s| s.records).sum();
        let bytes = left
            .segments
            .iter()
            .map(|s| s.len - MAGIC.len() as u64)
            .sum();
        if records > 0 {
            tracing::info!(
                records, bytes, dir = %folder.dir().display(),
                "{records} records wait in the spill and go to Kafka before new ones"
            );
        }
        let shared = Arc::new(Shared::new(
            folder,
            Disk::new(left.next, with.config.segment_bytes_max),
            Flow::new(records, bytes, with.config.bytes_max),
            left.segments.into(),
            with.queue_bytes_max as u64,
            metrics,
        ));
        shared.count_others();
        let mut kafka = with.kafka.clone();
        // Without an end: see `drain`.
        kafka.producer.delivery_timeout_ms = 0;
        let producer = AckProducer::open(&kafka, "gateway-spill")?;
        let drain = Drain {
            shared: Arc::clone(&shared),
            producer: producer.clone(),
            topic: with.topic.to_owned(),
            runtime: Handle::current(),
        };
        let writer = Arc::clone(&shared);
        let threads = vec![
            spawn("spill-writer", with.shutdown, move || writer::run(&writer))?,
            spawn("spill-drain", with.shutdown, move || drain.run())?,
        ];
        Ok(Self {
            shared,
            producer,
            topic: with.topic.to_owned(),
            after: Duration::from_millis(with.config.after_ms),
            request_bytes: with.request_bytes as u64,
            threads: Mutex::new(threads),
        })
    }

    /// Stores the records of one request: in Kafka, or on the disk when Kafka is away or does not acknowledge.
    ///
    /// # Errors
    /// When neither has them by `deadline`, as far as is known; or when Kafka refuses them for good.
    pub(super) async fn store(
        &self,
        kafka: &AckProducer,
        frames: Frames,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        if frames.count() == 0 {
            // All its events were dropped. The disk would have nothing to remember the request by.
            return Ok(());
        }
        let patience = deadline.min(kafka::deadline(self.after));
        if self.goes_to_kafka(kafka, patience).await {
            let Err(error) = self.send(kafka, &frames, patience).await else {
                return Ok(());
            };
            match error.fault() {
                Fault::Permanent => return Err(Refusal::from(&error)),
                Fault::Transient { .. } | Fault::Fatal => {
                    tracing::debug!(%error, "events go to the spill");
                }
            }
        }
        let durable = self
            .shared
            .enqueue(frames)
            .map_err(|Full| Refusal::Overloaded)?;
        match timeout_at(deadline.into(), durable).await {
            Ok(Ok(true)) => Ok(()),
            // A writer that is gone, a disk that failed or is slow: nobody knows, so it is no 200.
            Ok(Ok(false) | Err(_)) | Err(_) => Err(Refusal::NotAcknowledged),
        }
    }

    /// Whether events can be taken although Kafka is away.
    pub(super) fn has_room(&self) -> bool {
        self.shared.has_room(self.request_bytes)
    }

    /// Brings the gauges up to date.
    pub(super) fn observe(&self, now: UnixMs) {
        let (records, bytes, oldest) = self
            .shared
            .with(|state| (state.flow.records(), state.flow.bytes(), state.oldest));
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let metrics = &self.shared.metrics;
        let none: [&str; 0] = [];
        let set = |gauge: &crate::telemetry::metrics::IntGaugeVec, value: i64| {
            gauge.with_label_values(&none).set(value);
        };
        set(&metrics.records, count(records));
        set(&metrics.bytes, count(bytes));
        // A clock that went back makes nothing younger than it is.
        let age = oldest.map_or(0, |at| now.saturating_sub(at).max(0) / 1_000);
        set(&metrics.age_seconds, age);
        let active = *self.shared.mode.borrow() != Mode::Direct;
        set(&metrics.active, i64::from(active));
    }

    /// Ends it, writes what waits to be written, leaves the rest on the disk and says how much that is. Blocks.
    pub(super) fn stop(&self) {
        self.shared.stop();
        for thread in self.threads.lock().drain(..) {
            // Its panic was told to everybody when it happened.
            let _panicked = thread.join();
        }
        let (records, bytes) = self
            .shared
            .with(|state| (state.flow.records(), state.flow.bytes()));
        let dir = self.shared.folder.dir().display();
        if records > 0 {
            tracing::warn!(
                records, bytes, %dir,
                "{records} records ({bytes} bytes) are left in the spill; the next start with {dir} sends them to Kafka"
            );
        }
        self.shared.folder.give_up();
    }

    async fn goes_to_kafka(&self, kafka: &AckProducer, patience: Instant) -> bool {
        let mode = *self.shared.mode.borrow();
        let direct = match mode {
            Mode::Direct => true,
            Mode::Spilling => false,
            Mode::Closing => {
                let mut mode = self.shared.mode.subscribe();
                let decided = mode.wait_for(|mode| *mode != Mode::Closing);
                let decided = timeout_at(patience.into(), decided).await;
                decided.is_ok_and(|mode| mode.is_ok_and(|mode| *mode == Mode::Direct))
            }
        };
        // Either may be the first to hear that the brokers are back.
        direct && (kafka.healthy() || self.producer.healthy())
    }

    async fn send(
        &self,
        kafka: &AckProducer,
        frames: &Frames,
        patience: Instant,
    ) -> Result<(), ProduceError> {
        let batch = kafka::Batch::new();
        for record in frames.records() {
            frames::send(kafka, &batch, &self.topic, record)?;
        }
        batch.wait(patience).await
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// A thread whose panic ends the process's roles: without it requests would be taken and never answered.
fn spawn(
    name: &'static str,
    shutdown: &Shutdown,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, GatewayError> {
    struct OnPanic(Shutdown, &'static str);
    impl Drop for OnPanic {
        fn drop(&mut self) {
            if thread::panicking() {
                tracing::error!(thread = self.1, "thread panicked; stopping");
                self.0.begin();
            }
        }
    }
    let guard = OnPanic(shutdown.clone(), name);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _guard = guard;
            run();
        })
        .map_err(GatewayError::Thread)
}

//! Reading back what was accepted of a partition, when it becomes ours.
//!
//! The topic `seen` has the partitions of `events`: each transaction wrote the ids it accepted of a partition there. So what
//! a partition's last owner knew, committed and nothing else, is its last hour of `seen`. A reader takes the end of all
//! records, not of the committed ones: the markers of a transaction reach the partitions it touched one after the other, and
//! the group's offset can be committed a moment before the ids are visible. Reading waits for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::config::{DedupConfig, KafkaConfig};
use crate::fault::{Classify, Fault};
use crate::kafka::{Admin, KafkaError, OffsetQuery, Reader, StartAt, TopicPartition};
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

use super::dedup::{Window, unpack};
use super::error::ProcessorError;
use super::metrics::{ProcessorMetrics, observe};

/// How often a reading looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(200);
/// After this without reaching the end something keeps a transaction open; say so.
const PATIENCE: Duration = Duration::from_secs(20);

/// A partition whose ids are to be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    /// Partition of `seen`.
    pub partition: i32,
    /// Comes back with the answer, so that the asker can tell an old one.
    pub ticket: u64,
}

/// What was read back.
#[derive(Debug)]
pub(super) struct Answer {
    /// What was asked.
    pub request: Request,
    /// What was accepted.
    pub window: Window,
}

/// Reads back on a thread of its own, while the partitions that are known already go on.
#[derive(Debug)]
pub(super) struct Rebuilder {
    requests: Sender<Request>,
    answers: Receiver<Result<Answer, KafkaError>>,
}

/// What reading back needs.
pub(super) struct Rebuilding {
    /// The cluster.
    pub kafka: KafkaConfig,
    /// Full name of `seen`.
    pub topic: String,
    /// The window and its limits.
    pub dedup: DedupConfig,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Arc<ProcessorMetrics>,
    /// Between tries.
    pub backoff: Backoff,
    /// When to stop.
    pub shutdown: Shutdown,
}

impl Rebuilder {
    /// Starts the thread. It ends with this value.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(rebuilding: Rebuilding) -> Result<Self, ProcessorError> {
        let (requests, asked) = channel();
        let (answer, answers) = channel();
        thread::Builder::new()
            .name("processor-seen".to_owned())
            .spawn(move || rebuilding.serve(&asked, &answer))
            .map_err(ProcessorError::Thread)?;
        Ok(Self { requests, answers })
    }

    /// Asks for a partition's ids.
    pub(super) fn ask(&self, request: Request) {
        // The thread ends early only after a fatal answer, which the asker will find.
        let _ended = self.requests.send(request);
    }

    /// The next answer that is ready.
    ///
    /// # Errors
    /// When `seen` cannot be read at all.
    pub(super) fn answer(&self) -> Result<Option<Answer>, KafkaError> {
        self.answers.try_recv().ok().transpose()
    }
}

impl Rebuilding {
    fn serve(&self, asked: &Receiver<Request>, answer: &Sender<Result<Answer, KafkaError>>) {
        while let Ok(first) = asked.recv() {
            let mut requests: Vec<Request> =
                std::iter::once(first).chain(asked.try_iter()).collect();
            // A later request for a partition replaces an earlier one.
            let newest: BTreeMap<i32, Request> =
                requests.drain(..).map(|r| (r.partition, r)).collect();
            let mut failures = 0;
            let started = Instant::now();
            let windows = loop {
                match self.read_back(newest.keys().copied()) {
                    Ok(Some(windows)) => break windows,
                    Ok(None) => return,
                    Err(error) => {
                        // Retention may delete what we were about to read; asked again, it begins after that.
                        if error.fault() == Fault::Fatal && !error.is_offset_out_of_range() {
                            drop(answer.send(Err(error)));
                            return;
                        }
                        if self.shutdown.is_begun() {
                            return;
                        }
                        failures += 1;
                        tracing::warn!(
                            "accepted ids could not be read back, trying again: {error}"
                        );
                        thread::sleep(self.backoff.delay(failures));
                    }
                }
            };
            let ids: usize = windows.values().map(Window::len).sum();
            let took = started.elapsed();
            tracing::info!(
                partitions = newest.len(),
                ids,
                ?took,
                "accepted ids read back"
            );
            observe(&self.metrics.rebuild_seconds, took);
            for (partition, window) in windows {
                let request = newest[&partition];
                if answer.send(Ok(Answer { request, window })).is_err() {
                    return;
                }
            }
        }
    }

    /// What the last window's length of `seen` says was accepted of these partitions; `None` when shutdown came first.
    fn read_back(
        &self,
        partitions: impl Iterator<Item = i32>,
    ) -> Result<Option<BTreeMap<i32, Window>>, KafkaError> {
        let mut windows: BTreeMap<i32, Window> =
            partitions.map(|p| (p, Window::default())).collect();
        let window_ms = i64::try_from(self.dedup.window_ms).unwrap_or(i64::MAX);
        let from = self.clock.now_ms().saturating_sub(window_ms);
        let named: Vec<TopicPartition> = windows
            .keys()
            .map(|p| TopicPartition::new(self.topic.as_str(), *p))
            .collect();
        let starts: Vec<(i32, StartAt)> = Admin::open(&self.kafka)?
            .offsets(&named, OffsetQuery::AtOrAfter(from))?
            .into_iter()
            .map(|(tp, offset)| (tp.partition, StartAt::Offset(offset)))
            .collect();
        let mut reader = Reader::open(&self.kafka, "processor.seen", &self.topic, &starts)?;
        let mut warn_at = Instant::now() + PATIENCE;
        while !reader.is_caught_up() {
            if self.shutdown.is_begun() {
                return Ok(None);
            }
            if let Some(message) = reader.poll(SLICE)?
                && let Some(window) = windows.get_mut(&message.partition)
            {
                self.remember(
                    window,
                    message.timestamp.unwrap_or(from),
                    message.payload.as_deref(),
                );
            } else if Instant::now() > warn_at {
                warn_at = Instant::now() + PATIENCE;
                tracing::warn!(
                    at = ?reader.positions(), end = ?reader.ends(),
                    "still reading back accepted ids; is a transaction of another process open?"
                );
            }
        }
        Ok(Some(windows))
    }

    fn remember(&self, window: &mut Window, at: i64, payload: Option<&[u8]>) {
        let bucket_ms = i64::try_from(self.dedup.bucket_ms)
            .unwrap_or(i64::MAX)
            .max(1);
        match payload.and_then(unpack) {
            Some(keys) => {
                for key in keys {
                    window.remember(at, key, bucket_ms);
                }
            }
            None => tracing::warn!("a record of {} is not ours; left out", self.topic),
        }
        while window.memory_bytes() > self.dedup.memory_bytes_max && window.forget_oldest() {}
    }
}

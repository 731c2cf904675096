//! The thread that reads `events`: it polls, cuts chunks, and follows the partitions that come and go.
//!
//! A partition's way through it:
//!
//! ```text
//!   assigned ──▶ paused, its accepted ids are read back ──▶ adopted by the publisher, resumed ──▶ records flow
//!   revoked  ──▶ everything in flight ends ──▶ forgotten ──▶ given away
//! ```
//!
//! After a transaction that did not commit (a *setback*) everything that was read since is dropped wherever it is, and this
//! thread goes back to what the group has committed. Records carry the number of their run, so that the publisher can tell
//! those from before.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::Duration;

use crate::control::Control;
use crate::event::TopicNames;
use crate::failpoint;
use crate::fault::{Classify, Fault};
use crate::kafka::{
    Committed, Consumer, KafkaError, Message, OffsetCommit, Polled, TopicPartition,
};
use crate::retry::Backoff;
use crate::shutdown::Shutdown;
use crate::telemetry::health::Part;

use super::decode::Chunk;
use super::dedup::Window;
use super::error::ProcessorError;
use super::metrics::{ProcessorMetrics, set};
use super::partitions::{Owned, Partitions};
use super::pipeline::{Closed, Item};
use super::routes::Routes;
use super::seen::{Rebuilder, Request};

/// Longest wait in one poll: how late this thread may see a setback or the end.
const POLL: Duration = Duration::from_millis(100);
/// The same while ids are being read back, so that a partition does not wait for a poll when they are there.
const POLL_REBUILDING: Duration = Duration::from_millis(5);

/// A fault switch for the test of the tests: offsets are committed as soon as records were read, before the transaction
/// that carries their outcome. A process that is killed in between then loses events, and a checker that does not find
/// them missing is worth nothing.
pub(super) const FAULT_OFFSETS_FIRST: &str = "processor.fault.offsets_before_transaction";

/// A transaction did not commit: go back to what is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setback {
    /// Records that are read from now on belong to this run.
    pub run: u64,
    /// The outcome is not known: what was accepted must be read back as well.
    pub rebuild: bool,
}

/// What one chunk may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkLimits {
    /// Most records.
    pub records: usize,
    /// Keys and payloads; the record that reaches it is the last.
    pub bytes: usize,
}

/// The reading thread's state.
pub(super) struct Intake {
    /// Member of the group.
    pub consumer: Consumer,
    /// Full name of `events`.
    pub topic: Arc<str>,
    /// Partitions that are ours.
    pub partitions: Partitions,
    /// What one chunk may hold.
    pub limits: ChunkLimits,
    /// The customer's configuration.
    pub control: Control,
    /// Names of topics.
    pub topics: TopicNames,
    /// The configuration in force, arranged.
    pub routes: Arc<Routes>,
    /// From the publisher; it ends with it.
    pub setbacks: Receiver<Setback>,
    /// Reads back accepted ids; `None` when dedup is off.
    pub rebuilder: Option<Rebuilder>,
    /// An error that came after records of the same chunk.
    pub held_back: Option<KafkaError>,
    /// Number of the run.
    pub run: u64,
    /// Between tries.
    pub backoff: Backoff,
    /// When to stop.
    pub shutdown: Shutdown,
    /// Readiness: the group has told us our partitions, be it none, and all of them flow.
    pub part: Part,
    /// What `part` was told last.
    pub ready: bool,
    /// Counters.
    pub metrics: Arc<ProcessorMetrics>,
}

impl Intake {
    /// Reads until shutdown, or until the publisher ends.
    ///
    /// # Errors
    /// When the topic cannot be read any more.
    pub(super) fn run(mut self) -> Result<(), ProcessorError> {
        self.consumer.subscribe(&[&*self.topic])?;
        let mut failures = 0;
        while !self.shutdown.is_begun() {
            match self.step() {
                Ok(()) => failures = 0,
                Err(Stop::Closed) => return Ok(()),
                Err(Stop::Kafka(error)) if error.fault() == Fault::Fatal => {
                    return Err(error.into());
                }
                Err(Stop::Kafka(error)) => {
                    failures += 1;
                    tracing::warn!("could not read events, trying again: {error}");
                    thread::sleep(self.backoff.delay(failures));
                }
            }
        }
        self.leave()
    }

    fn step(&mut self) -> Result<(), Stop> {
        self.heed_setback()?;
        self.adopt_rebuilt()?;
        let messages = self.gather()?;
        self.report();
        if messages.is_empty() {
            return Ok(());
        }
        if failpoint::is_armed(FAULT_OFFSETS_FIRST) {
            self.commit_too_early(&messages)?;
        }
        self.follow_workspace();
        let chunk = Chunk {
            messages,
            routes: Arc::clone(&self.routes),
        };
        let run = self.run;
        Ok(self.partitions.feeder.put(Item::Records { run, chunk })?)
    }

    /// Waits for a first record and takes what is there beside it.
    fn gather(&mut self) -> Result<Vec<Message>, Stop> {
        self.take_over_fresh()?;
        if let Some(error) = self.held_back.take() {
            return Err(error.into());
        }
        let mut messages: Vec<Message> = Vec::new();
        let mut bytes = 0;
        let mut wait = if self.partitions.rebuilding() > 0 {
            POLL_REBUILDING
        } else {
            POLL
        };
        while messages.len() < self.limits.records && bytes < self.limits.bytes {
            match self.consumer.poll(wait, &mut self.partitions) {
                Ok(Polled::Message(message)) => {
                    wait = Duration::ZERO;
                    bytes += message.size();
                    messages.push(message);
                }
                Ok(Polled::Idle) => break,
                Ok(Polled::Rebalanced) => {
                    self.take_over_fresh()?;
                    // What was read of a partition that left is read by its next owner.
                    messages.retain(|m| self.partitions.is_flowing(m.partition));
                    break;
                }
                Err(error) if messages.is_empty() => return Err(error.into()),
                Err(error) => {
                    // The library tells most errors once.
                    self.held_back = Some(error);
                    break;
                }
            }
        }
        Ok(messages)
    }

    /// Partitions that the last poll brought: none of their records may come before their ids are known, so nothing is
    /// polled until this has succeeded.
    fn take_over_fresh(&mut self) -> Result<(), Stop> {
        let fresh = self.partitions.fresh.clone();
        self.rebuild(&fresh)?;
        self.partitions.fresh.clear();
        Ok(())
    }

    fn rebuild(&mut self, partitions: &[Committed]) -> Result<(), Stop> {
        let Some(rebuilder) = &self.rebuilder else {
            for c in partitions {
                let partition = c.topic_partition.partition;
                self.partitions.owned.insert(partition, Owned::Flowing);
                self.partitions.feeder.put(Item::Adopt {
                    partition,
                    window: Window::default(),
                    next: c.next_offset,
                })?;
            }
            return Ok(());
        };
        if partitions.is_empty() {
            return Ok(());
        }
        let names: Vec<TopicPartition> = partitions
            .iter()
            .map(|c| c.topic_partition.clone())
            .collect();
        self.consumer.pause(&names)?;
        for c in partitions {
            let partition = c.topic_partition.partition;
            let ticket = self.partitions.ticket();
            let next = c.next_offset;
            self.partitions
                .owned
                .insert(partition, Owned::Rebuilding { ticket, next });
            rebuilder.ask(Request { partition, ticket });
        }
        Ok(())
    }

    /// Partitions whose ids have been read back begin to flow.
    fn adopt_rebuilt(&mut self) -> Result<(), Stop> {
        let Some(rebuilder) = &self.rebuilder else {
            return Ok(());
        };
        while let Some(answer) = rebuilder.answer()? {
            let Request { partition, ticket } = answer.request;
            // An answer to an older question: the partition left, or everything is read back once more.
            let Some(Owned::Rebuilding {
                ticket: asked,
                next,
            }) = self.partitions.owned.get(&partition).copied()
            else {
                continue;
            };
            if asked != ticket {
                continue;
            }
            self.partitions.feeder.put(Item::Adopt {
                partition,
                window: answer.window,
                next,
            })?;
            self.partitions.owned.insert(partition, Owned::Flowing);
            let name = TopicPartition::new(Arc::clone(&self.topic), partition);
            self.consumer.resume(&[name])?;
        }
        Ok(())
    }

    /// Goes back to what is committed when a transaction did not.
    fn heed_setback(&mut self) -> Result<(), Stop> {
        let mut newest: Option<Setback> = None;
        loop {
            match self.setbacks.try_recv() {
                Ok(setback) => {
                    let rebuild = newest.is_some_and(|s| s.rebuild) || setback.rebuild;
                    newest = Some(Setback { rebuild, ..setback });
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Stop::Closed),
            }
        }
        let Some(setback) = newest else {
            return Ok(());
        };
        let committed = self.rewind()?;
        self.run = setback.run;
        if setback.rebuild {
            let owned: Vec<Committed> = committed
                .into_iter()
                .filter(|c| {
                    self.partitions
                        .owned
                        .contains_key(&c.topic_partition.partition)
                })
                .collect();
            self.rebuild(&owned)?;
        }
        Ok(())
    }

    /// Until it has succeeded nothing may be read: it would be read from the wrong place.
    fn rewind(&self) -> Result<Vec<Committed>, Stop> {
        let mut failures = 0;
        loop {
            match self.consumer.rewind_to_committed() {
                Ok(committed) => return Ok(committed),
                Err(error) if error.fault() == Fault::Fatal => return Err(error.into()),
                Err(error) if self.shutdown.is_begun() => return Err(error.into()),
                Err(error) => {
                    failures += 1;
                    tracing::warn!("could not go back to committed offsets, trying again: {error}");
                    thread::sleep(self.backoff.delay(failures));
                }
            }
        }
    }

    fn follow_workspace(&mut self) {
        let workspace = self.control.snapshot();
        if workspace.revision != self.routes.revision() {
            self.routes = Arc::new(Routes::new(&workspace, &self.topics));
        }
    }

    fn commit_too_early(&self, messages: &[Message]) -> Result<(), KafkaError> {
        let next: BTreeMap<i32, i64> = messages
            .iter()
            .map(|m| (m.partition, m.offset + 1))
            .collect();
        let offsets: Vec<OffsetCommit> = next
            .into_iter()
            .map(|(partition, next)| {
                OffsetCommit::new(
                    TopicPartition::new(Arc::clone(&self.topic), partition),
                    next,
                )
            })
            .collect();
        self.consumer.commit_sync(&offsets)
    }

    fn report(&mut self) {
        let rebuilding = self.partitions.rebuilding();
        let ready = self.partitions.told && rebuilding == 0;
        if mem::replace(&mut self.ready, ready) != ready {
            self.part.set(ready);
        }
        set(&self.metrics.partitions, self.partitions.owned.len());
        set(&self.metrics.partitions_rebuilding, rebuilding);
    }

    /// Lets everything in flight commit, then gives the partitions back.
    fn leave(mut self) -> Result<(), ProcessorError> {
        self.part.set(false);
        if self.partitions.feeder.wait_for_all().is_err() {
            return Ok(());
        }
        self.consumer
            .close(self.shutdown.drain_timeout(), &mut self.partitions)?;
        Ok(())
    }
}

/// Why a step ended the loop, perhaps.
enum Stop {
    /// The publisher has ended.
    Closed,
    /// Kafka.
    Kafka(KafkaError),
}

impl From<KafkaError> for Stop {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

impl From<Closed> for Stop {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

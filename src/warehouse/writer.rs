//! The thread that reads `warehouse.*` topics and cuts batches. Everything that waits for object storage is a task beside it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::batch::{Batch, Cut};
use super::loaders;
use super::locate::{LocateError, Locator};
use super::manifest::{Chain, Claim};
use super::metrics::WarehouseMetrics;
use super::partitions::{Partitions, Phase};
use super::records::Records;
use super::upload::{Flight, UploadError, Uploader};
use crate::config::WarehouseConfig;
use crate::control::{Control, Route, Workspace};
use crate::event::{SchemaName, Topic, TopicNames};
use crate::fault::{Classify, Fault};
use crate::kafka::{BatchLimits, Consumer, KafkaError, OffsetCommit, StartAt, TopicPartition};
use crate::registry::Schemas;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;
use crate::telemetry::health::Part;

/// Longest wait in one poll: how late this thread may see an answer or the end.
const POLL: Duration = Duration::from_millis(50);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// Of the drain, for leaving the group.
const LEAVE: Duration = Duration::from_secs(2);

/// By destination: the chain of partition 0 of its topic, while that partition is ours.
pub(super) type Owned = HashMap<Arc<str>, Chain>;

/// What a task beside the thread answers.
#[derive(Debug)]
enum Answer {
    Located {
        tp: TopicPartition,
        generation: u64,
        result: Result<(Chain, i64), LocateError>,
    },
    Landed {
        tp: TopicPartition,
        generation: u64,
        bytes: usize,
        result: Result<Claim, UploadError>,
    },
}

/// The reading thread's state.
pub(super) struct Writer {
    pub(super) consumer: Consumer,
    pub(super) records: Records,
    pub(super) schemas: Schemas,
    pub(super) locator: Locator,
    pub(super) uploader: Uploader,
    pub(super) runtime: Handle,
    pub(super) config: WarehouseConfig,
    pub(super) control: Control,
    pub(super) topics: TopicNames,
    pub(super) shutdown: Shutdown,
    pub(super) part: Part,
    pub(super) owned: watch::Sender<Owned>,
    pub(super) metrics: Arc<WarehouseMetrics>,
    pub(super) state: State,
}

/// What changes while it runs.
pub(super) struct State {
    partitions: Partitions,
    /// Topic to destination.
    subscribed: BTreeMap<Arc<str>, Arc<str>>,
    answers: mpsc::UnboundedReceiver<Answer>,
    answer: mpsc::UnboundedSender<Answer>,
    flights: usize,
    bytes_in_flight: usize,
    is_full: bool,
    is_ready: bool,
}

impl State {
    pub(super) fn new() -> Self {
        let (answer, answers) = mpsc::unbounded_channel();
        Self {
            partitions: Partitions::default(),
            subscribed: BTreeMap::new(),
            answers,
            answer,
            flights: 0,
            bytes_in_flight: 0,
            is_full: false,
            is_ready: false,
        }
    }

    fn bytes(&self) -> usize {
        self.partitions.bytes() + self.bytes_in_flight
    }
}

impl Writer {
    /// Reads until shutdown, then writes down what is in memory.
    ///
    /// # Errors
    /// When the topics cannot be read any more.
    pub(super) fn run(mut self) -> Result<(), KafkaError> {
        self.subscribe(&self.control.snapshot())?;
        let mut failures = 0;
        while !self.shutdown.is_begun() {
            match self.step() {
                Ok(()) => failures = 0,
                Err(error) if error.fault() == Fault::Fatal => return Err(error),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "could not read rows; trying again");
                    thread::sleep(BACKOFF.delay(failures));
                }
            }
        }
        self.drain()
    }

    fn step(&mut self) -> Result<(), KafkaError> {
        self.follow_workspace()?;
        // Whatever is wrong with one partition, the consumer must be polled: membership and new partitions depend on it.
        let answered = self.take_answers();
        self.mind_memory()?;
        self.read()?;
        self.cut_what_is_due();
        self.report();
        answered
    }

    /// Subscribes to the topics of the warehouses that are configured now.
    fn follow_workspace(&mut self) -> Result<(), KafkaError> {
        let workspace = self.control.snapshot();
        if workspace.revision != self.records.revision() {
            self.subscribe(&workspace)?;
            self.records.follow(workspace);
        }
        Ok(())
    }

    fn subscribe(&mut self, workspace: &Workspace) -> Result<(), KafkaError> {
        let wanted: BTreeMap<Arc<str>, Arc<str>> = workspace
            .destinations()
            .filter(|d| d.enabled && d.route() == Route::Warehouse)
            .filter(|d| {
                let is_known = loaders::kind_of(&d.kind).is_some();
                if !is_known {
                    tracing::warn!(destination.id = %d.id, kind = %d.kind, "no loader for this warehouse; its rows wait in their topic");
                }
                is_known
            })
            .map(|d| {
                let topic = self.topics.name(&Topic::Warehouse(d.id.clone()));
                (topic.into(), d.id.as_str().into())
            })
            .collect();
        if wanted != self.state.subscribed {
            let topics: Vec<&str> = wanted.keys().map(|topic| &**topic).collect();
            self.consumer.subscribe(&topics)?;
            self.state.subscribed = wanted;
        }
        Ok(())
    }

    fn take_answers(&mut self) -> Result<(), KafkaError> {
        while let Ok(answer) = self.state.answers.try_recv() {
            match answer {
                Answer::Located {
                    tp,
                    generation,
                    result,
                } => self.located(&tp, generation, result)?,
                Answer::Landed {
                    tp,
                    generation,
                    bytes,
                    result,
                } => {
                    self.state.flights -= 1;
                    self.state.bytes_in_flight -= bytes;
                    self.landed(&tp, generation, result)?;
                }
            }
        }
        for tp in self.state.partitions.retriable(Instant::now()) {
            self.locate(&tp);
        }
        Ok(())
    }

    /// Begins to read a partition where its chain ends.
    fn located(
        &mut self,
        tp: &TopicPartition,
        generation: u64,
        result: Result<(Chain, i64), LocateError>,
    ) -> Result<(), KafkaError> {
        if self.state.partitions.of(tp, generation).is_none() {
            return Ok(());
        }
        let (chain, end) = match result {
            Ok(found) => found,
            Err(error) => {
                self.stick(tp, &error);
                return Ok(());
            }
        };
        let (low, high) = match self.consumer.watermarks(tp) {
            Ok(marks) => marks,
            Err(error) => {
                self.locate(tp);
                return Err(error);
            }
        };
        if end > high {
            self.stick(tp, &LocateError::Beyond { end, high });
            return Ok(());
        }
        if end < low && end > 0 {
            let lost = (low - end).unsigned_abs();
            let destination = self.destination(tp);
            let labels = [&*destination];
            self.metrics
                .offsets_lost_total
                .with_label_values(&labels)
                .inc_by(lost);
            tracing::error!(
                partition = %tp, from = end, to = low,
                "offsets {end} to {low} left the topic before they were written down"
            );
        }
        if let Err(error) = self
            .consumer
            .seek(&[(tp.clone(), StartAt::Offset(end.max(low)))])
        {
            self.locate(tp);
            return Err(error);
        }
        tracing::info!(partition = %tp, offset = end.max(low), "reading rows");
        self.state.partitions.set_ready(tp, chain, end);
        if !self.state.is_full {
            self.consumer.resume(std::slice::from_ref(tp))?;
        }
        Ok(())
    }

    fn landed(
        &mut self,
        tp: &TopicPartition,
        generation: u64,
        result: Result<Claim, UploadError>,
    ) -> Result<(), KafkaError> {
        let Some(slot) = self.state.partitions.of(tp, generation) else {
            return Ok(());
        };
        let Phase::Ready(ready) = &mut slot.phase else {
            return Ok(());
        };
        match result {
            Ok(Claim::Won) => {
                ready.in_flight = false;
                let end = ready.batch.start;
                slot.hint = Some(end);
                // For lag metrics only; the chain is the position.
                self.consumer
                    .commit_async(&[OffsetCommit::new(tp.clone(), end)])
            }
            Ok(Claim::Lost(_)) => {
                self.consumer.pause(std::slice::from_ref(tp))?;
                self.locate(tp);
                Ok(())
            }
            Err(error) if self.shutdown.is_begun() => {
                tracing::warn!(%error, partition = %tp, "rows not written down; they are read again");
                self.state.partitions.slots.remove(tp);
                Ok(())
            }
            Err(error) => {
                self.consumer.pause(std::slice::from_ref(tp))?;
                self.stick(tp, &error);
                Ok(())
            }
        }
    }

    fn stick(&mut self, tp: &TopicPartition, error: &impl Classify) {
        tracing::error!(%error, code = error.code(), partition = %tp, "partition is stuck");
        self.state.partitions.set_stuck(tp, Instant::now());
    }

    /// Asks where a partition's chain ends; its rows in memory are dropped.
    fn locate(&mut self, tp: &TopicPartition) {
        let Some((generation, hint)) = self.state.partitions.relocate(tp) else {
            return;
        };
        let (locator, answer) = (self.locator.clone(), self.state.answer.clone());
        let (tp, destination) = (tp.clone(), self.destination(tp));
        self.runtime.spawn(async move {
            let result = locator.locate(&destination, &tp, hint).await;
            // Nobody to answer to means that the thread has ended.
            drop(answer.send(Answer::Located {
                tp,
                generation,
                result,
            }));
        });
    }

    /// Stops reading while memory is full, and cuts the largest batch.
    fn mind_memory(&mut self) -> Result<(), KafkaError> {
        let max = self.config.memory_bytes_max;
        let bytes = self.state.bytes();
        if bytes >= max {
            if self.state.flights < self.config.uploads_max
                && let Some(tp) = self.state.partitions.largest()
            {
                self.cut(&tp, Cut::Memory);
            }
            if !self.state.is_full {
                tracing::warn!(bytes, "memory for rows is full; reading waits for uploads");
                self.state.is_full = true;
                self.consumer.pause(&self.state.partitions.flowing())?;
            }
        } else if self.state.is_full && bytes < max / 4 * 3 {
            self.state.is_full = false;
            self.consumer.resume(&self.state.partitions.flowing())?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), KafkaError> {
        let limits = BatchLimits {
            records: self.config.batch.poll_records_max,
            bytes: self.config.batch.bytes_max,
            wait: POLL,
            linger: Duration::ZERO,
        };
        let messages = self.consumer.poll_batch(limits, &mut self.state.partitions);
        let fresh = self.state.partitions.take_fresh();
        if !fresh.is_empty() {
            self.consumer.pause(&fresh)?;
            for tp in &fresh {
                self.locate(tp);
            }
        }
        let now = Instant::now();
        for message in messages? {
            let Some(ready) = self.state.partitions.ready(&message.topic_partition()) else {
                continue;
            };
            // Fetched before we went to where the chain ends.
            if message.offset < ready.batch.next {
                continue;
            }
            let payload = message.payload.as_deref().unwrap_or_default();
            let admitted = match self.schemas.admit(SchemaName::WarehouseSource, payload) {
                Ok(admitted) => admitted,
                Err(error) => {
                    let tp = message.topic_partition();
                    self.consumer.pause(std::slice::from_ref(&tp))?;
                    self.stick(&tp, &error);
                    continue;
                }
            };
            if let Some(destination) = self.state.subscribed.get(&message.topic) {
                self.records
                    .take(destination, &message, admitted, &mut ready.batch, now);
            }
        }
        Ok(())
    }

    fn cut_what_is_due(&mut self) {
        let now = Instant::now();
        let slots = self.state.partitions.slots.iter();
        let due: Vec<(TopicPartition, Cut)> = slots
            .filter_map(|(tp, slot)| match &slot.phase {
                Phase::Ready(ready) if !ready.in_flight => {
                    let cut = ready.batch.cut(&self.config.batch, now)?;
                    Some((tp.clone(), cut))
                }
                Phase::Ready(_) | Phase::Locating | Phase::Stuck { .. } => None,
            })
            .collect();
        for (tp, cut) in due {
            self.cut(&tp, cut);
        }
    }

    /// Sends a partition's rows on their way into the chain; the next batch begins where this one ends, should it win.
    fn cut(&mut self, tp: &TopicPartition, cut: Cut) {
        let destination = self.destination(tp);
        let Some(slot) = self.state.partitions.slots.get_mut(tp) else {
            return;
        };
        let Phase::Ready(ready) = &mut slot.phase else {
            return;
        };
        if ready.in_flight || ready.batch.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut ready.batch, Batch::new(0));
        ready.batch = Batch::new(batch.next);
        ready.in_flight = true;
        let sweeps = std::mem::take(&mut ready.sweeps_first);
        let (generation, chain, start) = (slot.generation, ready.chain.clone(), batch.start);
        let bytes = batch.bytes();
        self.state.flights += 1;
        self.state.bytes_in_flight += bytes;
        let labels = [&*destination, cut.name()];
        self.metrics.batches_total.with_label_values(&labels).inc();
        let flight = Flight {
            chain: chain.clone(),
            destination,
            batch,
            config_revision: self.records.revision(),
        };
        let (uploader, answer, tp) = (self.uploader.clone(), self.state.answer.clone(), tp.clone());
        self.runtime.spawn(async move {
            let result = uploader.land(flight).await;
            if sweeps && result.is_ok() {
                // What a process that died before us left of the race that is now decided.
                match chain.sweep(start).await {
                    Ok(0) => {}
                    Ok(removed) => tracing::info!(partition = %tp, removed, "removed staging files of a process that died"),
                    Err(error) => tracing::debug!(%error, partition = %tp, "not swept"),
                }
            }
            drop(answer.send(Answer::Landed {
                tp,
                generation,
                bytes,
                result,
            }));
        });
    }

    /// The destination of a partition's topic; empty for one that is about to leave.
    fn destination(&self, tp: &TopicPartition) -> Arc<str> {
        let subscribed = self.state.subscribed.get(&tp.topic);
        subscribed.map_or_else(|| Arc::from(""), Arc::clone)
    }

    fn report(&mut self) {
        let state = &mut self.state;
        let bytes = i64::try_from(state.bytes()).unwrap_or(i64::MAX);
        let none: [&str; 0] = [];
        self.metrics
            .memory_bytes
            .with_label_values(&none)
            .set(bytes);
        let is_full = i64::from(state.is_full);
        self.metrics
            .memory_full
            .with_label_values(&none)
            .set(is_full);
        let is_told = state.partitions.has_been_told || state.subscribed.is_empty();
        let is_ready = is_told && state.partitions.all_flow();
        if is_ready != state.is_ready {
            state.is_ready = is_ready;
            self.part.set(is_ready);
        }
        if state.partitions.take_changed() {
            self.report_partitions();
        }
    }

    fn report_partitions(&mut self) {
        let partitions = &self.state.partitions;
        let mut stuck: HashMap<Arc<str>, i64> = HashMap::new();
        for destination in self.state.subscribed.values() {
            stuck.insert(Arc::clone(destination), 0);
        }
        for (tp, slot) in &partitions.slots {
            if matches!(slot.phase, Phase::Stuck { .. }) {
                *stuck.entry(self.destination(tp)).or_default() += 1;
            }
        }
        for (destination, count) in stuck {
            let labels = [&*destination];
            self.metrics
                .partitions_stuck
                .with_label_values(&labels)
                .set(count);
        }
        let owned = partitions.first_chains().into_iter();
        let owned: Owned = owned
            .filter_map(|(topic, chain)| {
                let destination = self.state.subscribed.get(&topic)?;
                Some((Arc::clone(destination), chain))
            })
            .collect();
        self.owned.send_replace(owned);
    }

    /// Writes down what is in memory, as far as the drain allows, and leaves the group.
    fn drain(mut self) -> Result<(), KafkaError> {
        self.part.set(false);
        let until = Instant::now() + self.shutdown.drain_timeout().saturating_sub(LEAVE);
        self.consumer.pause(&self.state.partitions.flowing())?;
        loop {
            let waiting: Vec<TopicPartition> =
                self.state.partitions.slots.keys().cloned().collect();
            for tp in waiting {
                self.cut(&tp, Cut::Shutdown);
            }
            if self.state.flights == 0 || Instant::now() >= until {
                break;
            }
            // Keeps our place in the group while uploads end.
            self.read()?;
            self.take_answers()?;
        }
        if self.state.flights > 0 {
            tracing::warn!(
                batches = self.state.flights,
                "not written down in time; they are read again"
            );
        }
        self.consumer.close(LEAVE, &mut self.state.partitions)
    }
}

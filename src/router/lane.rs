//! The thread of one lane: polls, starts deliveries, takes outcomes in, commits.
//!
//! ```text
//!        consumer ──records──▶ desk ──attempts──▶ async runtime ──▶ destination
//!           ▲                  │  ▲                    │
//!           │ pause, resume    │  └─────outcomes───────┘
//!           └──────────────────┤
//!                              └──every commit_interval_ms──▶ committer: offsets + ledger + dead letters
//! ```
//!
//! All state belongs to this thread, and rebalances happen inside its poll, so there is no lock and no race between taking
//! a partition away and finishing what is in flight of it.
//!
//! **What may be thrown away.** Everything held in memory: it is read again. What was delivered and not committed yet is
//! delivered again, under the same idempotency key; [`uncommitted_records_max`] bounds how much that can be, because
//! nothing is started beyond it.
//!
//! [`uncommitted_records_max`]: crate::config::RouterConfig::uncommitted_records_max

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::{KafkaConfig, RouterConfig};
use crate::control::Control;
use crate::fault::{Classify, Fault};
use crate::kafka::{
    BatchLimits, Committed, Consumer, KafkaError, RebalanceListener, StartAt, TopicPartition,
};
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

use super::commit::{self, Aftermath, CommitError, Committer, Job, Said};
use super::deliver::{Landed, Pulse};
use super::desk::Desk;
use super::error::RouterError;
use super::metrics::LaneMetrics;
use super::partition::Snapshot;

/// Longest sleep in a poll when nothing is under way.
const IDLE: Duration = Duration::from_millis(100);
/// Longest wait for an outcome before new records are looked for.
const BUSY_MAX: Duration = Duration::from_millis(4);
/// Shortest such wait.
const BUSY_MIN: Duration = Duration::from_micros(250);
/// Time between settings of the gauges.
const OBSERVE: Duration = Duration::from_millis(200);
/// Bytes taken from the consumer at a time.
const POLL_BYTES_MAX: usize = 4 << 20;
/// Between commits that fail.
const COMMIT_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// Between polls that fail.
const POLL_AGAIN: Duration = Duration::from_millis(500);
/// Left of the drain time for the last commit and the goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a lane's thread works with.
pub(super) struct LaneParts {
    pub(super) config: RouterConfig,
    pub(super) kafka: KafkaConfig,
    pub(super) control: Control,
    pub(super) shutdown: Shutdown,
    /// Another lane failed: end too.
    pub(super) stop: Arc<AtomicBool>,
    /// No destination of the workspace uses this lane any more.
    pub(super) is_leaving: Arc<AtomicBool>,
    pub(super) consumer: Consumer,
    pub(super) committer: Committer,
    pub(super) landed: Receiver<Landed>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) desk: Desk,
    pub(super) metrics: LaneMetrics,
    /// Called once, when the lane can work.
    pub(super) ready: Box<dyn FnOnce() + Send>,
}

/// The thread's own.
pub(super) struct Lane {
    consumer: Consumer,
    state: State,
    control: Control,
    changes: watch::Receiver<i64>,
    shutdown: Shutdown,
    stop: Arc<AtomicBool>,
    is_leaving: Arc<AtomicBool>,
    ready: Option<Box<dyn FnOnce() + Send>>,
    busy: Duration,
    last_record: Instant,
    last_wanted: Instant,
    next_observation: Instant,
}

/// What a rebalance touches.
struct State {
    config: RouterConfig,
    desk: Desk,
    landed: Receiver<Landed>,
    pulse: Arc<Pulse>,
    /// How long to send nothing after the thread stood still: until a broker has had time to say that we are out.
    suspicion: Duration,
    hold_until: Option<Instant>,
    committer: Committer,
    commit_patience: Duration,
    is_open: bool,
    is_committing: bool,
    /// Whether they were committed is not known.
    in_doubt: Vec<Snapshot>,
    next_commit: Instant,
    failed_commits: u32,
    revoke_wait: Duration,
    failure: Option<RouterError>,
    metrics: LaneMetrics,
    instance: String,
    clock: Arc<dyn crate::clock::Clock>,
}

impl Lane {
    pub(super) fn new(
        parts: LaneParts,
        instance: String,
        clock: Arc<dyn crate::clock::Clock>,
    ) -> Self {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let (transaction, consumer) = (&parts.kafka.transaction, &parts.kafka.consumer);
        Self {
            changes: parts.control.subscribe(),
            consumer: parts.consumer,
            control: parts.control,
            shutdown: parts.shutdown,
            stop: parts.stop,
            is_leaving: parts.is_leaving,
            ready: Some(parts.ready),
            busy: BUSY_MIN,
            last_record: now,
            last_wanted: now,
            next_observation: now,
            state: State {
                desk: parts.desk,
                landed: parts.landed,
                pulse: parts.pulse,
                suspicion: ms(consumer.heartbeat_interval_ms * 2),
                hold_until: None,
                committer: parts.committer,
                commit_patience: ms(transaction.timeout_ms + transaction.init_timeout_ms) + GOODBYE,
                is_open: false,
                is_committing: false,
                in_doubt: Vec::new(),
                next_commit: now,
                failed_commits: 0,
                revoke_wait: ms(parts.config.revoke_wait_ms),
                failure: None,
                metrics: parts.metrics,
                config: parts.config,
                instance,
                clock,
            },
        }
    }

    /// Runs until shutdown, until the lane is empty and not wanted any more, or until nothing can go on.
    pub(super) fn run(mut self) -> Result<(), RouterError> {
        while !self.is_over() {
            self.turn()?;
        }
        self.drain()
    }

    fn is_over(&mut self) -> bool {
        let linger = Duration::from_millis(self.state.config.lane_linger_ms);
        if !self.is_leaving.load(Ordering::Relaxed) {
            self.last_wanted = Instant::now();
        }
        let is_unwanted = self.state.desk.is_empty()
            && self.last_wanted.elapsed() >= linger
            && self.last_record.elapsed() >= linger;
        is_unwanted || self.shutdown.is_begun() || self.stop.load(Ordering::Relaxed)
    }

    fn turn(&mut self) -> Result<(), RouterError> {
        let landed = self.state.land_all();
        let is_quiet = landed == 0;
        if is_quiet && self.state.desk.in_flight() > 0 {
            // New records wait at most this long for their turn; outcomes do not wait at all.
            self.state.land_within(self.busy);
            self.busy = (self.busy * 2).min(BUSY_MAX);
        }
        let read = self.poll()?;
        if !is_quiet || read > 0 {
            self.busy = BUSY_MIN;
        }
        self.state.work(&self.consumer)?;
        self.say_ready();
        self.direct_flow()?;
        let now = Instant::now();
        if now >= self.next_observation {
            self.next_observation = now + OBSERVE;
            self.state.desk.observe();
        }
        Ok(())
    }

    /// Polls, also when there is no room: membership depends on it.
    fn poll(&mut self) -> Result<usize, RouterError> {
        self.state.beat();
        let limits = BatchLimits {
            records: self.state.config.poll_records_max,
            bytes: POLL_BYTES_MAX,
            wait: self.state.poll_wait(),
            linger: Duration::ZERO,
        };
        let polled = self.consumer.poll_batch(limits, &mut self.state);
        // After the poll: whoever changes the workspace and then sends finds the change in force.
        if self.changes.has_changed().unwrap_or(false) {
            self.changes.mark_unchanged();
            self.state.desk.refresh(self.control.snapshot());
        }
        if let Some(failure) = self.state.failure.take() {
            return Err(failure);
        }
        match polled {
            Ok(messages) => {
                let count = messages.len();
                if count > 0 {
                    self.last_record = Instant::now();
                    self.state.desk.take(messages)?;
                }
                Ok(count)
            }
            Err(error) => match error.fault() {
                Fault::Transient { .. } => {
                    tracing::warn!(lane = self.state.desk.lane(), "{error}");
                    self.state.land_within(POLL_AGAIN);
                    Ok(0)
                }
                Fault::Permanent | Fault::Fatal => Err(self.state.broken(error)),
            },
        }
    }

    fn say_ready(&mut self) {
        if self.ready.is_some() && self.state.is_open && self.consumer.group_metadata().is_ok() {
            tracing::info!(lane = self.state.desk.lane(), "lane is served");
            if let Some(ready) = self.ready.take() {
                ready();
            }
        }
    }

    fn direct_flow(&mut self) -> Result<(), RouterError> {
        let (pause, resume) = self.state.desk.flow();
        let lane = self.state.desk.lane();
        if !pause.is_empty() {
            tracing::debug!(lane, ?pause, "reading paused");
            self.consumer
                .pause(&pause)
                .map_err(|e| self.state.broken(e))?;
        }
        if !resume.is_empty() {
            tracing::debug!(lane, ?resume, "reading resumed");
            self.consumer
                .resume(&resume)
                .map_err(|e| self.state.broken(e))?;
        }
        Ok(())
    }

    /// Starts nothing more, waits for what is in flight, commits, and leaves the group.
    fn drain(mut self) -> Result<(), RouterError> {
        let until = Instant::now() + self.shutdown.drain_timeout().saturating_sub(GOODBYE);
        if let Err(error) = self.pause_all() {
            tracing::debug!("{error}");
        }
        while self.state.desk.in_flight() > 0 && Instant::now() < until {
            self.state.land_within(BUSY_MAX);
            self.state.land_all();
            self.state.beat();
            let nothing = BatchLimits {
                records: 1,
                bytes: 1,
                wait: Duration::ZERO,
                linger: Duration::ZERO,
            };
            // What is still read is forgotten: it is not done, so a successor reads it.
            if let Err(error) = self.consumer.poll_batch(nothing, &mut self.state) {
                tracing::warn!(lane = self.state.desk.lane(), "while draining: {error}");
                break;
            }
            self.state.commit_when_due(&self.consumer)?;
        }
        self.state.revoke_wait = Duration::ZERO;
        self.state.commit_patience = GOODBYE;
        let lane = self.state.desk.lane().to_owned();
        let in_flight = self.state.desk.in_flight();
        if in_flight > 0 {
            tracing::warn!(
                lane,
                in_flight,
                "requests were cut off; they are made again"
            );
        }
        if let Err(error) = self.consumer.close(GOODBYE, &mut self.state) {
            tracing::warn!(lane, "while leaving the group: {error}");
        }
        self.state.desk.observe();
        match self.state.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn pause_all(&self) -> Result<(), KafkaError> {
        self.consumer.pause(&self.consumer.assignment()?)
    }
}

impl State {
    /// Starts, commits.
    fn work(&mut self, consumer: &Consumer) -> Result<(), RouterError> {
        self.start();
        self.commit_when_due(consumer)
    }

    fn start(&mut self) {
        let now = Instant::now();
        if self.hold_until.is_some_and(|until| now < until) {
            return;
        }
        self.hold_until = None;
        self.desk.start(now);
    }

    fn beat(&mut self) {
        if !self.pulse.beat() {
            tracing::warn!(
                lane = self.desk.lane(),
                "this thread stood still for half a session; nothing is sent until the group has had time to answer"
            );
            self.hold_until = Some(Instant::now() + self.suspicion);
        }
    }

    /// How long a poll may wait for a record.
    fn poll_wait(&self) -> Duration {
        if self.desk.in_flight() > 0 {
            return Duration::ZERO;
        }
        if self.is_committing {
            return BUSY_MAX;
        }
        let now = Instant::now();
        let commit = self.desk.has_ended().then_some(self.next_commit);
        let due = [self.desk.next_due(now), self.hold_until, commit];
        let next = due.into_iter().flatten().min();
        next.map_or(IDLE, |at| {
            at.saturating_duration_since(now)
                .clamp(Duration::from_millis(1), IDLE)
        })
    }

    /// Takes in the outcomes that are there.
    fn land_all(&mut self) -> usize {
        let now = Instant::now();
        let mut count = 0;
        while let Ok(landed) = self.landed.try_recv() {
            self.desk.land(landed, now);
            count += 1;
        }
        count
    }

    /// Waits for one outcome.
    fn land_within(&mut self, wait: Duration) {
        if let Ok(landed) = self.landed.recv_timeout(wait) {
            self.desk.land(landed, Instant::now());
        }
    }

    fn commit_when_due(&mut self, consumer: &Consumer) -> Result<(), RouterError> {
        self.hear(consumer, Duration::ZERO)?;
        if self.is_committing || !self.desk.has_ended() {
            return Ok(());
        }
        let now = Instant::now();
        let is_urgent = self.failed_commits == 0
            && self
                .desk
                .is_commit_urgent(self.config.dead_letters_pending_max);
        if now < self.next_commit && !is_urgent {
            return Ok(());
        }
        if !self.resolve(consumer) {
            self.next_commit = now + COMMIT_AGAIN.delay(self.failed_commits);
            return Ok(());
        }
        self.begin_commit(|_| true)
    }

    /// Hands what ended over to the committing thread.
    fn begin_commit(&mut self, of: impl Fn(i32) -> bool) -> Result<(), RouterError> {
        let snapshots = self.desk.snapshots(of);
        if snapshots.is_empty() {
            return Ok(());
        }
        let (now_ms, revision) = (self.clock.now_ms(), self.desk.revision());
        let framing = self.desk.ledger_framing();
        let ledger = snapshots
            .iter()
            .map(|s| commit::encode(&s.ledger_entry(now_ms, revision, &self.instance), framing))
            .collect::<Result<Vec<_>, _>>()?;
        self.next_commit = Instant::now() + Duration::from_millis(self.config.commit_interval_ms);
        match self.committer.begin(Job { snapshots, ledger }) {
            Ok(()) => {
                self.is_committing = true;
                Ok(())
            }
            Err(_) => Err(self.commit_failed("its thread has ended")),
        }
    }

    /// Takes in what the committing thread says within `wait`.
    fn hear(&mut self, consumer: &Consumer, wait: Duration) -> Result<(), RouterError> {
        match self.committer.hear(wait) {
            None => Ok(()),
            Some(Said::Opened) => {
                self.is_open = true;
                Ok(())
            }
            Some(Said::Failed(error)) => Err(self.broken(error)),
            Some(Said::Ended(snapshots, outcome)) => {
                self.is_committing = false;
                self.commit_ended(consumer, snapshots, outcome)
            }
        }
    }

    fn commit_ended(
        &mut self,
        consumer: &Consumer,
        snapshots: Vec<Snapshot>,
        outcome: Result<crate::kafka::TxnReport, CommitError>,
    ) -> Result<(), RouterError> {
        let error = match outcome {
            Ok(report) => {
                self.metrics.committed("committed");
                self.metrics
                    .commit_seconds
                    .observe(report.took.as_secs_f64());
                self.failed_commits = 0;
                for snapshot in snapshots {
                    self.desk.settle(snapshot, true);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        self.metrics.committed(error.code());
        self.failed_commits += 1;
        self.next_commit = Instant::now() + COMMIT_AGAIN.delay(self.failed_commits);
        match error.aftermath() {
            Aftermath::Again => {
                tracing::warn!(lane = self.desk.lane(), "will commit again: {error}");
                for snapshot in snapshots {
                    self.desk.settle(snapshot, false);
                }
                Ok(())
            }
            Aftermath::Look => {
                tracing::warn!(
                    lane = self.desk.lane(),
                    "will look what is committed: {error}"
                );
                self.in_doubt.extend(snapshots);
                self.resolve(consumer);
                Ok(())
            }
            Aftermath::Stop => Err(self.commit_failed(&error.to_string())),
        }
    }

    /// Finds out whether commits in doubt took place, by what the group has now; false if it cannot be found out yet.
    ///
    /// The answer is final: the producer in question has been replaced, and the coordinator answers only once no
    /// transaction on these offsets is pending.
    fn resolve(&mut self, consumer: &Consumer) -> bool {
        if self.in_doubt.is_empty() {
            return true;
        }
        let partitions: Vec<TopicPartition> = self.in_doubt.iter().map(|s| s.of.clone()).collect();
        let committed = match consumer.committed(&partitions) {
            Ok(committed) => committed,
            Err(error) => {
                tracing::warn!(lane = self.desk.lane(), "{error}");
                return false;
            }
        };
        for snapshot in std::mem::take(&mut self.in_doubt) {
            let is_committed = committed.iter().any(|c| {
                c.topic_partition == snapshot.of
                    && c.next_offset == Some(snapshot.commit.next_offset)
                    && c.metadata == snapshot.commit.metadata
            });
            self.desk.settle(snapshot, is_committed);
        }
        true
    }

    /// Commits what ended of partitions that are being taken away, and waits for it.
    fn commit_last(&mut self, consumer: &Consumer, of: &[i32]) -> Result<(), RouterError> {
        let until = Instant::now() + self.commit_patience;
        self.await_commit(consumer, until)?;
        if self.resolve(consumer) {
            self.begin_commit(|partition| of.contains(&partition))?;
            self.await_commit(consumer, until)?;
        }
        Ok(())
    }

    fn await_commit(&mut self, consumer: &Consumer, until: Instant) -> Result<(), RouterError> {
        while self.is_committing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.commit_failed("its outcome did not come in time"));
            }
            self.hear(consumer, left.min(IDLE))?;
            self.beat();
        }
        Ok(())
    }

    fn broken(&self, source: KafkaError) -> RouterError {
        RouterError::Kafka {
            lane: self.desk.lane().to_owned(),
            source,
        }
    }

    fn commit_failed(&self, problem: &str) -> RouterError {
        RouterError::Commit {
            lane: self.desk.lane().to_owned(),
            problem: problem.to_owned(),
        }
    }

    /// Lets what is in flight of leaving partitions end; the others go on meanwhile.
    fn await_leaving(&mut self) {
        let until = Instant::now() + self.revoke_wait;
        while self.desk.in_flight_leaving() > 0 && Instant::now() < until {
            self.land_within(BUSY_MAX);
            self.land_all();
            self.beat();
            self.start();
        }
        let cut_off = self.desk.in_flight_leaving();
        if cut_off > 0 && !self.revoke_wait.is_zero() {
            tracing::warn!(
                lane = self.desk.lane(),
                cut_off,
                "requests outlived router.revoke_wait_ms and were cut off; the next owner makes them again"
            );
        }
    }
}

impl RebalanceListener for State {
    fn assigned(
        &mut self,
        _: &Consumer,
        partitions: &[Committed],
    ) -> Vec<(TopicPartition, StartAt)> {
        self.desk.assign(partitions);
        Vec::new()
    }

    fn revoked(
        &mut self,
        consumer: &Consumer,
        partitions: &[TopicPartition],
        lost: bool,
    ) -> Vec<TopicPartition> {
        let numbers: Vec<i32> = partitions.iter().map(|tp| tp.partition).collect();
        for number in &numbers {
            self.desk.leave(*number);
        }
        if !lost {
            self.await_leaving();
            if let Err(error) = self.commit_last(consumer, &numbers) {
                self.failure.get_or_insert(error);
            }
        }
        for number in numbers {
            self.desk.release(number);
        }
        Vec::new()
    }
}

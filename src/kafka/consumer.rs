//! A member of a consumer group, for one thread.
//!
//! ```text
//! loop {
//!     consumer.poll_batch(limits, &mut listener)   ── may call listener.assigned / listener.revoked, on this thread
//!     … work …
//!     txn.commit(offsets, &consumer.group_metadata()?)   or   consumer.commit_async(offsets)
//! }
//! ```
//!
//! * Nothing is committed but what the caller commits.
//! * A rebalance happens inside `poll`, on the polling thread, with the listener borrowed mutably: no locks, no callbacks
//!   from elsewhere. Partitions are taken over and released incrementally (cooperative-sticky), each exactly once.
//! * Where a partition begins: where the listener says; else at the group's committed offset; else, on the first start,
//!   at `kafka.consumer.first_offset`. A committed offset that is gone from the log is an error, never a jump.
//! * Keep polling at least every `max_poll_interval_ms`, also while everything is paused.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Message as _};

use crate::config::{FirstOffset, KafkaConfig};
use crate::failpoint;
use crate::fault::{Classify, Fault};

use super::admin::{self, OffsetQuery};
use super::client::{self, Observer, Reach};
use super::error::KafkaError;
use super::ffi::{self, RawGroupMetadata};
use super::list;
use super::message;
use super::rebalance::{Context, Names, Rebalance};
use super::record::{Committed, Message, OffsetCommit, StartAt, TopicPartition};

/// Told about partitions that come and go. Called by [`Consumer::poll`] on its thread.
pub trait RebalanceListener {
    /// These partitions are ours from now on, each with what the group has committed for it. The answer says where to
    /// begin for those that the listener knows better, and may add partitions outside of the subscription (they are read
    /// until they are returned by [`revoked`](RebalanceListener::revoked) or given to [`Consumer::unassign_extra`]).
    fn assigned(
        &mut self,
        consumer: &Consumer,
        partitions: &[Committed],
    ) -> Vec<(TopicPartition, StartAt)>;

    /// These partitions are taken from us when this returns: finish, commit or abort what touches them. With `lost` they
    /// already belong to others: nothing may be committed any more. The answer names partitions outside of the
    /// subscription to release as well.
    fn revoked(
        &mut self,
        consumer: &Consumer,
        partitions: &[TopicPartition],
        lost: bool,
    ) -> Vec<TopicPartition>;
}

/// For consumers that keep nothing per partition.
impl RebalanceListener for () {
    fn assigned(&mut self, _: &Consumer, _: &[Committed]) -> Vec<(TopicPartition, StartAt)> {
        Vec::new()
    }

    fn revoked(&mut self, _: &Consumer, _: &[TopicPartition], _: bool) -> Vec<TopicPartition> {
        Vec::new()
    }
}

/// Who consumes.
#[derive(Debug, Clone, Default)]
pub struct ConsumerOptions {
    /// Names failpoints and ends the client id.
    pub role: String,
    /// The group; also the unit of progress.
    pub group: String,
    /// A name that is this member's over restarts, for static membership; two live members of a group must not share it.
    pub instance: Option<String>,
}

/// Bounds of one [`Consumer::poll_batch`].
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Most records.
    pub records: usize,
    /// Keys and payloads; the record that reaches it is the last.
    pub bytes: usize,
    /// Longest wait for the first record.
    pub wait: Duration,
    /// Longest wait for more, from the first record; zero takes what has been fetched and does not wait.
    pub linger: Duration,
}

/// What one [`Consumer::poll`] brought.
#[derive(Debug)]
pub enum Polled {
    /// A record.
    Message(Message),
    /// Nothing in time.
    Idle,
    /// The listener was called.
    Rebalanced,
}

/// Our membership at one moment: generation and member id, by which a broker refuses the commit of a member that has been
/// replaced (KIP-447).
pub struct GroupMetadata(RawGroupMetadata);

impl GroupMetadata {
    pub(super) fn raw(&self) -> &RawGroupMetadata {
        &self.0
    }
}

/// Tells the membership of a [`Consumer`] from any thread; see [`Consumer::membership`].
#[derive(Clone)]
pub struct Membership(Weak<BaseConsumer<Context>>);

impl Membership {
    /// The membership now. It changes under the committing thread only in ways that the broker can tell: a new generation
    /// while our partitions stay ours, or no membership at all. Partitions are given away on the polling thread, when
    /// [`RebalanceListener::revoked`] returns; let that wait for the commits that touch them.
    ///
    /// # Errors
    /// Transient: we are no member at the moment. A commit without a generation would not be fenced (the broker checks none
    /// for the sake of old clients), so there is no metadata for one.
    pub fn now(&self) -> Result<GroupMetadata, KafkaError> {
        match self.0.upgrade() {
            Some(consumer) => membership_of(&consumer),
            None => Err(no_member()),
        }
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Membership")
    }
}

fn membership_of(consumer: &BaseConsumer<Context>) -> Result<GroupMetadata, KafkaError> {
    RawGroupMetadata::of(consumer.client().native_ptr())
        .map(GroupMetadata)
        .ok_or_else(no_member)
}

fn no_member() -> KafkaError {
    KafkaError::new(
        "name our membership",
        Code::UnknownMemberId,
        "we are no member of the group at the moment",
    )
}

impl std::fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupMetadata")
    }
}

/// A member of a group. Moves between threads, is used by one.
///
/// The library is only ever told offsets. Told "the beginning" or "the end" it looks that up by itself, and a seek that comes
/// before the answer is undone: the late answer is dropped as outdated, the look-up is repeated half a second later
/// (`rd_kafka_toppar_handle_Offset` in librdkafka 2.12), and reading jumps to where it points, over whatever lies between.
/// So [`StartAt`] is resolved here, before the library is asked for anything.
pub struct Consumer {
    inner: Arc<BaseConsumer<Context>>,
    config: KafkaConfig,
    after_poll: String,
    topics: RefCell<BTreeSet<Arc<str>>>,
    /// An error that came after records of the same batch.
    held_back: RefCell<Option<KafkaError>>,
    lost_in_batch: RefCell<BTreeSet<TopicPartition>>,
}

impl Consumer {
    /// Opens a consumer; it joins the group with [`subscribe`](Consumer::subscribe).
    ///
    /// # Errors
    /// When the library refuses the settings.
    pub fn open(config: &KafkaConfig, options: &ConsumerOptions) -> Result<Self, KafkaError> {
        let mut settings = client::consumer(config, &options.role, &options.group);
        client::membership(&mut settings, config, options.instance.as_deref());
        let context = Context {
            observer: Arc::new(Observer::reporting(
                format!("{}/{}", options.role, options.group),
                Duration::from_millis(config.statistics_interval_ms),
            )),
            pending: Mutex::new(Vec::new()),
            unattended: AtomicBool::new(false),
        };
        let inner = BaseConsumer::from_config_and_context(&settings, context)
            .map_err(|error| KafkaError::from_library("open a consumer", &error))?;
        Ok(Self {
            inner: Arc::new(inner),
            config: config.clone(),
            after_poll: format!("{}.after_poll", options.role),
            topics: RefCell::default(),
            held_back: RefCell::default(),
            lost_in_batch: RefCell::default(),
        })
    }

    /// Joins the group for `topics`, replacing an earlier subscription. Partitions arrive in later polls.
    ///
    /// # Errors
    /// When a name is not one.
    pub fn subscribe(&self, topics: &[&str]) -> Result<(), KafkaError> {
        self.inner
            .subscribe(topics)
            .map_err(|error| KafkaError::from_library("subscribe", &error))
    }

    /// Waits for the next record for at most `timeout`. Serves rebalances; calls `listener` for them.
    ///
    /// Trouble that librdkafka works around by itself (a broker is away, a leader moved) is logged and not returned.
    ///
    /// # Errors
    /// Fatal: an offset that is not in the log, rights, another member with our instance name. Transient: a subscribed
    /// topic does not exist; committed offsets could not be read for new partitions (polling tries again).
    pub fn poll(
        &self,
        timeout: Duration,
        listener: &mut dyn RebalanceListener,
    ) -> Result<Polled, KafkaError> {
        if let Some(error) = self.held_back.borrow_mut().take() {
            return Err(error);
        }
        if self.serve_rebalance(listener)? {
            return Ok(Polled::Rebalanced);
        }
        let polled = match self.inner.poll(timeout) {
            Some(Ok(message)) => Some(Ok(self.own(&message))),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        };
        match polled {
            Some(Ok(message)) => {
                failpoint::hit(&self.after_poll);
                Ok(Polled::Message(message))
            }
            Some(Err(error)) => self.judge(&error).map(|()| Polled::Idle),
            None if self.serve_rebalance(listener)? => Ok(Polled::Rebalanced),
            None => Ok(Polled::Idle),
        }
    }

    /// Waits for records within `limits`. Records of partitions that are revoked meanwhile are not in the result.
    ///
    /// # Errors
    /// As [`poll`](Consumer::poll); an error after the first record is returned by the next call.
    pub fn poll_batch(
        &self,
        limits: BatchLimits,
        listener: &mut dyn RebalanceListener,
    ) -> Result<Vec<Message>, KafkaError> {
        let mut batch: Vec<Message> = Vec::new();
        let mut bytes = 0;
        let mut until = Instant::now() + limits.wait;
        self.lost_in_batch.borrow_mut().clear();
        while batch.len() < limits.records && bytes < limits.bytes {
            let left = until.saturating_duration_since(Instant::now());
            match self.poll(left, listener) {
                Ok(Polled::Message(message)) => {
                    if batch.is_empty() {
                        until = Instant::now() + limits.linger;
                    }
                    bytes += message.size();
                    batch.push(message);
                }
                Ok(Polled::Rebalanced) => {
                    let lost = std::mem::take(&mut *self.lost_in_batch.borrow_mut());
                    if !lost.is_empty() {
                        batch.retain(|message| !lost.contains(&message.topic_partition()));
                        bytes = batch.iter().map(Message::size).sum();
                    }
                }
                Ok(Polled::Idle) if left.is_zero() => break,
                Ok(Polled::Idle) => {}
                Err(error) if batch.is_empty() => return Err(error),
                Err(error) => {
                    *self.held_back.borrow_mut() = Some(error);
                    break;
                }
            }
        }
        Ok(batch)
    }

    /// Our membership now. Take it fresh for each transaction.
    ///
    /// # Errors
    /// As [`Membership::now`].
    pub fn group_metadata(&self) -> Result<GroupMetadata, KafkaError> {
        membership_of(&self.inner)
    }

    /// Tells our membership to a thread that commits while this one polls.
    pub fn membership(&self) -> Membership {
        Membership(Arc::downgrade(&self.inner))
    }

    /// Tells whether brokers are there while this one polls, or waits for them.
    pub fn reach(&self) -> Reach {
        Reach(Arc::clone(&self.inner.context().observer))
    }

    /// Partitions that are read now, with those outside of the subscription.
    ///
    /// # Errors
    /// When the library cannot tell.
    pub fn assignment(&self) -> Result<Vec<TopicPartition>, KafkaError> {
        let list = self
            .inner
            .assignment()
            .map_err(|error| KafkaError::from_library("list our partitions", &error))?;
        Ok(list::elements(&list)
            .into_iter()
            .map(|element| element.topic_partition)
            .collect())
    }

    /// What the group has committed for `partitions`; waits for a commit that is under way in a transaction.
    ///
    /// # Errors
    /// When the coordinator does not answer in `lookup_timeout_ms`.
    pub fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Committed>, KafkaError> {
        const READ: &str = "read committed offsets";
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = self
            .inner
            .committed_offsets(list::partitions(partitions), self.config.lookup_timeout())
            .map_err(|error| KafkaError::from_library(READ, &error))?;
        list::elements(&list)
            .into_iter()
            .map(|element| {
                let element = element.ok(READ)?;
                Ok(Committed {
                    next_offset: element.real_offset(),
                    topic_partition: element.topic_partition,
                    metadata: element.metadata,
                })
            })
            .collect()
    }

    /// Commits without waiting. A failure is logged; the next commit covers it, as offsets are absolute.
    ///
    /// # Errors
    /// When the request could not be queued.
    pub fn commit_async(&self, offsets: &[OffsetCommit]) -> Result<(), KafkaError> {
        self.commit(offsets, CommitMode::Async)
    }

    /// Commits and waits for the coordinator's answer.
    ///
    /// # Errors
    /// Transient after a rebalance that we have not polled yet: the partitions may be someone else's.
    pub fn commit_sync(&self, offsets: &[OffsetCommit]) -> Result<(), KafkaError> {
        self.commit(offsets, CommitMode::Sync)
    }

    fn commit(&self, offsets: &[OffsetCommit], mode: CommitMode) -> Result<(), KafkaError> {
        const COMMIT: &str = "commit offsets";
        if offsets.is_empty() {
            return Ok(());
        }
        let list = list::commits(offsets)?;
        self.inner
            .commit(&list, mode)
            .map_err(|error| KafkaError::from_library(COMMIT, &error))?;
        list::elements(&list)
            .into_iter()
            .try_for_each(|element| element.ok(COMMIT).map(drop))
    }

    /// Goes on at the given offsets, which must be in the log; what was fetched ahead is forgotten.
    ///
    /// # Errors
    /// When a partition is not ours, or the library did not follow in `lookup_timeout_ms`.
    pub fn seek(&self, to: &[(TopicPartition, StartAt)]) -> Result<(), KafkaError> {
        const SEEK: &str = "seek";
        if to.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + self.config.lookup_timeout();
        let to = self.resolve(to)?;
        loop {
            let list = list::starts(&to)?;
            let raw = self.inner.client().native_ptr();
            let outcome = ffi::seek(raw, &list, until.saturating_duration_since(Instant::now()))
                .and_then(|()| {
                    list::elements(&list)
                        .into_iter()
                        .try_for_each(|element| element.ok(SEEK).map(drop))
                });
            match outcome {
                // A partition that was assigned a moment ago is not being fetched yet.
                Err(error) if error.library_code() == Code::State && Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => return other,
            }
        }
    }

    /// Goes back to what the group has committed, or to `first_offset` where it has not, for all partitions of the
    /// subscription and outside of it. Returns what the group has committed.
    ///
    /// # Errors
    /// As [`committed`](Consumer::committed) and [`seek`](Consumer::seek).
    pub fn rewind_to_committed(&self) -> Result<Vec<Committed>, KafkaError> {
        let committed = self.committed(&self.assignment()?)?;
        let starts = committed
            .iter()
            .map(|c| Ok((c.topic_partition.clone(), self.start_of(c)?)))
            .collect::<Result<Vec<_>, KafkaError>>()?;
        self.seek(&starts)?;
        Ok(committed)
    }

    /// Stops to return records of `partitions` and throws away what was fetched ahead of them: for stalls of seconds. For
    /// short ones, just do not poll for a moment.
    ///
    /// # Errors
    /// When a partition is not ours.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        self.inner
            .pause(&list::partitions(partitions))
            .map_err(|error| KafkaError::from_library("pause", &error))
    }

    /// Undoes [`pause`](Consumer::pause).
    ///
    /// # Errors
    /// When a partition is not ours.
    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        self.inner
            .resume(&list::partitions(partitions))
            .map_err(|error| KafkaError::from_library("resume", &error))
    }

    /// Reads partitions outside of the subscription as well. Not from within a listener: there, return them.
    ///
    /// # Errors
    /// When the library refuses, for example because a partition is ours already.
    pub fn assign_extra(&self, partitions: &[(TopicPartition, StartAt)]) -> Result<(), KafkaError> {
        self.take_over(&list::starts(&self.resolve(partitions)?)?)
    }

    /// Undoes [`assign_extra`](Consumer::assign_extra). Not from within a listener: there, return them.
    ///
    /// # Errors
    /// When a partition is not ours.
    pub fn unassign_extra(&self, partitions: &[TopicPartition]) -> Result<(), KafkaError> {
        self.forget(partitions);
        ffi::incremental_unassign(
            self.inner.client().native_ptr(),
            &list::partitions(partitions),
        )
    }

    /// The offset after the last record that was returned (or control record that was passed), per partition; `None`
    /// before the first.
    ///
    /// # Errors
    /// When the library cannot tell.
    pub fn positions(&self) -> Result<Vec<(TopicPartition, Option<i64>)>, KafkaError> {
        let list = self
            .inner
            .position()
            .map_err(|error| KafkaError::from_library("read positions", &error))?;
        Ok(list::elements(&list)
            .into_iter()
            .map(|element| (element.topic_partition.clone(), element.real_offset()))
            .collect())
    }

    /// The oldest offset and the one after the newest record that readers of committed records may see.
    ///
    /// # Errors
    /// When the leader does not answer in `lookup_timeout_ms`.
    pub fn watermarks(&self, of: &TopicPartition) -> Result<(i64, i64), KafkaError> {
        self.inner
            .fetch_watermarks(&of.topic, of.partition, self.config.lookup_timeout())
            .map_err(|error| KafkaError::from_library("read watermarks", &error))
    }

    /// Leaves: `listener` is told of every partition, then the group (a static member's partitions stay reserved for its
    /// return).
    ///
    /// # Errors
    /// When the listener's last rebalance could not be served in `timeout`; the consumer is closed nevertheless.
    pub fn close(
        self,
        timeout: Duration,
        listener: &mut dyn RebalanceListener,
    ) -> Result<(), KafkaError> {
        let until = Instant::now() + timeout;
        self.inner.unsubscribe();
        while !self.assignment()?.is_empty() && Instant::now() < until {
            self.poll(Duration::from_millis(20), listener)?;
        }
        let left = self.assignment()?;
        if !left.is_empty() {
            // Partitions outside of the subscription, or a coordinator that does not answer.
            listener.revoked(&self, &left, false);
        }
        Ok(())
    }
}

impl Consumer {
    /// Serves one waiting rebalance; true if there was one.
    fn serve_rebalance(&self, listener: &mut dyn RebalanceListener) -> Result<bool, KafkaError> {
        let context = self.inner.context();
        // Read before it is taken off the list: when the committed offsets cannot be read, the next poll tries again.
        let Some(rebalance) = context.pending.lock().first().cloned() else {
            return Ok(false);
        };
        match rebalance {
            Rebalance::Assign(partitions) => {
                // Whatever may fail comes before the listener is told, so that it is told once.
                let committed = self.committed(&partitions)?;
                let ends = self.ends_of(&partitions)?;
                let mut starts = listener.assigned(self, &committed);
                for c in &committed {
                    if !starts.iter().any(|(tp, _)| *tp == c.topic_partition) {
                        starts.push((c.topic_partition.clone(), self.start_of(c)?));
                    }
                }
                tracing::info!(partitions = %Names(&partitions), "partitions assigned");
                let begin = starts.into_iter().map(|(tp, start)| {
                    let start = ends.resolve(&tp, start);
                    (tp, start)
                });
                let begin: Vec<_> = begin.collect();
                context.pending.lock()[0] = Rebalance::Begin(begin.clone());
                self.begin(&begin)?;
            }
            Rebalance::Begin(starts) => self.begin(&starts)?,
            Rebalance::Revoke { partitions, lost } => {
                context.pending.lock().remove(0);
                tracing::info!(partitions = %Names(&partitions), lost, "partitions revoked");
                let mut released = partitions.clone();
                released.extend(listener.revoked(self, &partitions, lost));
                self.forget(&released);
                self.release(&list::partitions(&released))?;
            }
        }
        Ok(true)
    }

    /// Begins to read what was assigned, and is done with that rebalance. Looks up only what is outside of the subscription.
    fn begin(&self, starts: &[(TopicPartition, StartAt)]) -> Result<(), KafkaError> {
        let list = list::starts(&self.resolve(starts)?)?;
        self.inner.context().pending.lock().remove(0);
        self.take_over(&list)
    }

    /// The offsets that are meant.
    fn resolve(
        &self,
        starts: &[(TopicPartition, StartAt)],
    ) -> Result<Vec<(TopicPartition, i64)>, KafkaError> {
        let open = starts
            .iter()
            .filter(|(_, start)| !matches!(start, StartAt::Offset(_)));
        let open: Vec<TopicPartition> = open.map(|(tp, _)| tp.clone()).collect();
        let ends = self.ends_of(&open)?;
        let offset_of = |(tp, start): &(TopicPartition, StartAt)| match ends.resolve(tp, *start) {
            StartAt::Offset(offset) => Ok((tp.clone(), offset)),
            StartAt::Beginning | StartAt::End => Err(KafkaError::new(
                "find where to begin",
                Code::UnknownPartition,
                format!("the leader of {tp} told no offset"),
            )),
        };
        starts.iter().map(offset_of).collect()
    }

    fn ends_of(&self, partitions: &[TopicPartition]) -> Result<Ends, KafkaError> {
        let raw = self.inner.client().native_ptr();
        let timeout = self.config.lookup_timeout();
        let look_up = |query| admin::list_offsets(raw, partitions, query, timeout);
        Ok(Ends {
            begins: look_up(OffsetQuery::Beginning)?,
            ends: look_up(OffsetQuery::StableEnd)?,
        })
    }

    fn start_of(&self, committed: &Committed) -> Result<StartAt, KafkaError> {
        match (committed.next_offset, self.config.consumer.first_offset) {
            (Some(offset), _) => Ok(StartAt::Offset(offset)),
            (None, FirstOffset::Beginning) => Ok(StartAt::Beginning),
            (None, FirstOffset::End) => Ok(StartAt::End),
            (None, FirstOffset::Error) => Err(KafkaError::new(
                "find where to begin",
                Code::AutoOffsetReset,
                format!(
                    "the group has committed nothing for {} and kafka.consumer.first_offset is `error`",
                    committed.topic_partition
                ),
            )),
        }
    }

    fn take_over(&self, list: &TopicPartitionList) -> Result<(), KafkaError> {
        ffi::incremental_assign(self.inner.client().native_ptr(), list)
    }

    fn release(&self, list: &TopicPartitionList) -> Result<(), KafkaError> {
        ffi::incremental_unassign(self.inner.client().native_ptr(), list)
    }

    fn forget(&self, partitions: &[TopicPartition]) {
        self.lost_in_batch
            .borrow_mut()
            .extend(partitions.iter().cloned());
    }

    fn own(&self, message: &BorrowedMessage<'_>) -> Message {
        let topic = self.intern(message.topic());
        // SAFETY: `message` keeps the raw message alive.
        unsafe { message::own(message.ptr(), topic) }
    }

    /// One allocation per topic, shared by all its messages.
    fn intern(&self, topic: &str) -> Arc<str> {
        let mut topics = self.topics.borrow_mut();
        if let Some(known) = topics.get(topic) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(topic);
        topics.insert(Arc::clone(&name));
        name
    }

    /// Names the partitions whose next offset is not in the log; the library does not.
    fn explain_out_of_range(&self, error: &KafkaError) -> KafkaError {
        let look = || -> Result<String, KafkaError> {
            let raw = self.inner.client().native_ptr();
            let wanted = self.committed(&self.assignment()?)?;
            let reached: BTreeMap<_, _> = self.positions()?.into_iter().collect();
            let named: Vec<TopicPartition> =
                wanted.iter().map(|c| c.topic_partition.clone()).collect();
            let timeout = self.config.lookup_timeout();
            let begins = admin::list_offsets(raw, &named, OffsetQuery::Beginning, timeout)?;
            let ends = admin::list_offsets(raw, &named, OffsetQuery::End, timeout)?;
            let gone = wanted.iter().filter_map(|c| {
                let tp = &c.topic_partition;
                let next = reached.get(tp).copied().flatten().or(c.next_offset)?;
                let (begin, end) = (*begins.get(tp)?, *ends.get(tp)?);
                (!(begin..=end).contains(&next))
                    .then(|| format!("{tp} is to go on at {next} but holds {begin} to {end}"))
            });
            Ok(gone.collect::<Vec<_>>().join("; "))
        };
        let words = match look() {
            Ok(gone) if !gone.is_empty() => gone,
            Ok(_) | Err(_) => error.to_string(),
        };
        KafkaError::new("read records", error.library_code(), words)
    }

    /// Whether an error of a poll is the caller's business.
    fn judge(&self, error: &LibraryError) -> Result<(), KafkaError> {
        let code = error.rdkafka_error_code();
        if matches!(error, LibraryError::PartitionEOF(_)) || code == Some(Code::PartitionEOF) {
            return Ok(());
        }
        let words = self
            .inner
            .context()
            .observer
            .recent_error(Duration::from_secs(1))
            .unwrap_or_else(|| error.to_string());
        let is_fatal = matches!(error, LibraryError::MessageConsumptionFatal(_));
        let mut error = KafkaError::new("read records", code.unwrap_or(Code::Fail), words);
        if error.is_offset_out_of_range() {
            error = self.explain_out_of_range(&error);
        }
        if is_fatal && error.fault() != Fault::Fatal {
            return Err(KafkaError::new(
                "read records",
                Code::Fatal,
                error.to_string(),
            ));
        }
        if error.fault().is_transient() && !error.is_missing() {
            tracing::debug!("{error}");
            return Ok(());
        }
        Err(error)
    }
}

impl Drop for Consumer {
    /// Leaves without telling anyone. What waits to be served is answered, or the library would wait for it for ever.
    fn drop(&mut self) {
        let context = self.inner.context();
        context.unattended.store(true, Ordering::Release);
        let waiting = std::mem::take(&mut *context.pending.lock());
        for rebalance in waiting {
            let result = match rebalance {
                Rebalance::Assign(partitions) => self.take_over(&list::partitions(&partitions)),
                Rebalance::Begin(starts) => {
                    let partitions: Vec<_> = starts.into_iter().map(|(tp, _)| tp).collect();
                    self.take_over(&list::partitions(&partitions))
                }
                Rebalance::Revoke { partitions, .. } => {
                    self.release(&list::partitions(&partitions))
                }
            };
            if let Err(error) = result {
                tracing::debug!("{error}");
            }
        }
    }
}

/// Where partitions begin and end now.
struct Ends {
    begins: BTreeMap<TopicPartition, i64>,
    ends: BTreeMap<TopicPartition, i64>,
}

impl Ends {
    /// The offset that is meant; `start` as it is for a partition that was not looked up.
    fn resolve(&self, tp: &TopicPartition, start: StartAt) -> StartAt {
        let found = match start {
            StartAt::Beginning => self.begins.get(tp),
            StartAt::End => self.ends.get(tp),
            StartAt::Offset(_) => None,
        };
        found.map_or(start, |offset| StartAt::Offset(*offset))
    }
}

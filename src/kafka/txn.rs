//! Transactions: records to any topics and the offsets of what they were made from, all or nothing.
//!
//! ```text
//! begin ── send … send ── commit(offsets, group) ──▶ Ok         all of it is visible, the offsets moved
//!   ▲                          │
//!   │                          ├─ Aborted   none of it is visible: rewind to where it began
//!   │                          ├─ Reopened  one or the other: rewind to what the group has committed
//!   │                          ├─ Fenced    someone else took our place: back off, look, begin again
//!   └──────────────────────────┴─ Fatal     stop
//! ```
//!
//! Every call blocks: use it from one dedicated thread.
//!
//! **Delivery reports first.** rust-rdkafka's own commit costs at least 100 ms whenever a record is still unacknowledged
//! (it polls in slices of that length; measured 101 ms against 1.6 ms). So [`TxnProducer::commit`] waits for the last
//! report itself, on a condition variable, and then calls the library directly.
//!
//! **Three flags.** What an error means is read from the library's flags alone (fatal, abort required, retriable), never
//! from its code, with one exception: which fatal errors mean that somebody else uses our id.
//!
//! **Indefinite outcomes.** librdkafka has no client part of KIP-890: a request to end transaction N that is delayed past
//! its retry can end transaction N + 1. So after a timeout, after a commit slower than the request timeout, or after one
//! during which a connection broke, the producer is dropped and a new one takes the same id: the broker then raises the
//! id's epoch, and what is still under way is refused. What this does not cover: a request that the library repeats by
//! itself without reporting an error.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::config::KafkaConfig;
use crate::failpoint;

use super::client::{self, Observer};
use super::consumer::GroupMetadata;
use super::error::KafkaError;
use super::ffi::{self, Flagged};
use super::list;
use super::produce_error::ProduceError;
use super::producer::owned_headers;
use super::record::{OffsetCommit, RecordRef};
use super::txn_error::{SendError, TxnError};

/// Two fencings within this time mean two live owners of one id.
const FENCED_TWICE_WITHIN: Duration = Duration::from_secs(60);
/// Pause between tries of a call that the library says may be repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A transactional producer under one transactional id.
pub struct TxnProducer {
    config: KafkaConfig,
    id: String,
    points: Points,
    inner: Option<Inner>,
    open: Option<Open>,
    /// The outcome of the last transaction is not known, and no new producer could be registered yet.
    outcome_unknown: bool,
    fenced_at: VecDeque<Instant>,
    reopened: u64,
}

/// The transaction under way.
struct Open {
    since: Instant,
    records: u64,
}

/// What a committed transaction was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxnReport {
    /// Records written.
    pub records: u64,
    /// From the call of `commit` to its end.
    pub took: Duration,
    /// The part of `took` until the last record was acknowledged.
    pub acknowledged_after: Duration,
}

/// A producer that is being registered on a thread of its own, see [`TxnProducer::open_in_background`].
#[derive(Debug)]
pub struct OpeningTxn {
    thread: JoinHandle<Result<TxnProducer, KafkaError>>,
}

impl OpeningTxn {
    /// Waits for the registration.
    ///
    /// # Errors
    /// As [`TxnProducer::open`].
    pub fn wait(self) -> Result<TxnProducer, KafkaError> {
        self.thread.join().unwrap_or_else(|_| {
            Err(KafkaError::new(
                "register the transactional id",
                Code::Fail,
                "the opening thread panicked",
            ))
        })
    }
}

impl std::fmt::Debug for TxnProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxnProducer")
            .field("id", &self.id)
            .field("open", &self.open.is_some())
            .finish_non_exhaustive()
    }
}

impl TxnProducer {
    /// Registers `transactional_id` and ends whatever its last holder left open. Takes at least half a second for the
    /// first look-up of the coordinator. `role` names the failpoints.
    ///
    /// # Errors
    /// Transient when the brokers could not be reached in `transaction.init_timeout_ms`.
    pub fn open(
        config: &KafkaConfig,
        role: &str,
        transactional_id: &str,
    ) -> Result<Self, KafkaError> {
        let inner = Inner::open(config, transactional_id)?;
        Ok(Self {
            config: config.clone(),
            id: transactional_id.to_owned(),
            points: Points::of(role),
            inner: Some(inner),
            open: None,
            outcome_unknown: false,
            fenced_at: VecDeque::new(),
            reopened: 0,
        })
    }

    /// [`open`](TxnProducer::open) on a thread of its own, so that the consumer can join its group meanwhile.
    pub fn open_in_background(
        config: &KafkaConfig,
        role: &str,
        transactional_id: &str,
    ) -> OpeningTxn {
        let (config, role, id) = (config.clone(), role.to_owned(), transactional_id.to_owned());
        OpeningTxn {
            thread: thread::spawn(move || Self::open(&config, &role, &id)),
        }
    }

    /// The transactional id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How often the producer was replaced.
    pub fn reopened(&self) -> u64 {
        self.reopened
    }

    /// Whether a transaction is under way.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Begins a transaction. If the producer had to be dropped, registers a new one first, for at most
    /// `transaction.init_timeout_ms`.
    ///
    /// # Errors
    /// [`TxnError::Reopened`] also when no producer could be registered: rewind and begin again.
    pub fn begin(&mut self) -> Result<(), TxnError> {
        if self.open.is_some() {
            self.abort()?;
        }
        if self.inner.as_ref().is_some_and(Inner::is_shaken) {
            self.inner = None;
        }
        if self.inner.is_none() {
            self.reopen()?;
            if std::mem::take(&mut self.outcome_unknown) {
                return Err(TxnError::Reopened(KafkaError::new(
                    "begin a transaction",
                    Code::Retry,
                    "the outcome of the last transaction is only settled now",
                )));
            }
        }
        let Some(inner) = &self.inner else {
            return Err(no_transaction("begin a transaction"));
        };
        inner.reports().forget_failure();
        if let Err(flagged) = ffi::begin_transaction(inner.raw()) {
            return Err(self.resolve(flagged));
        }
        self.open = Some(Open {
            since: Instant::now(),
            records: 0,
        });
        failpoint::hit(&self.points.after_begin);
        Ok(())
    }

    /// Adds a record to the transaction; the library copies its bytes. When the queue is full, waits for room.
    ///
    /// # Errors
    /// [`SendError::Rejected`] for a record that can never be written: the transaction goes on without it. Otherwise the
    /// transaction has ended as the [`TxnError`] says.
    pub fn send(&mut self, record: RecordRef<'_>) -> Result<(), SendError> {
        let (Some(inner), Some(open)) = (&self.inner, &mut self.open) else {
            return Err(no_transaction("send a record").into());
        };
        let give_up_at = open.since + Duration::from_millis(self.config.transaction.timeout_ms);
        loop {
            match inner.send(record) {
                Ok(()) => break,
                Err(ProduceError::QueueFull) if Instant::now() < give_up_at => {
                    inner.reports().wait_for_any(Duration::from_millis(10));
                }
                Err(
                    error @ (ProduceError::TooLarge { .. }
                    | ProduceError::Refused(_)
                    | ProduceError::Denied(_)),
                ) => return Err(SendError::Rejected(error)),
                Err(
                    error @ (ProduceError::QueueFull
                    | ProduceError::Timeout
                    | ProduceError::Unavailable(_)
                    | ProduceError::Broken(_)),
                ) => {
                    return Err(self.give_up(error.into()).into());
                }
            }
        }
        open.records += 1;
        failpoint::hit(&self.points.after_send);
        Ok(())
    }

    /// Waits for every record's acknowledgement, adds `offsets` under `group` to the transaction and commits it.
    ///
    /// Take `group` fresh from the consumer for each commit: it carries the generation, by which the broker refuses the
    /// commit of a member that has been replaced.
    ///
    /// # Errors
    /// As [`TxnError`] says; the transaction has ended in each case.
    pub fn commit(
        &mut self,
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
    ) -> Result<TxnReport, TxnError> {
        self.finish(Some((offsets, group)))
    }

    /// [`commit`](TxnProducer::commit) for transactions that were not made from a group's input.
    ///
    /// # Errors
    /// As [`commit`](TxnProducer::commit).
    pub fn commit_without_offsets(&mut self) -> Result<TxnReport, TxnError> {
        self.finish(None)
    }

    /// Gives the transaction up. Without one under way, does nothing.
    ///
    /// # Errors
    /// When the producer had to be dropped over it. Nothing of the transaction will be visible in any case.
    pub fn abort(&mut self) -> Result<(), TxnError> {
        let (Some(inner), true) = (&self.inner, self.open.take().is_some()) else {
            return Ok(());
        };
        let until = Instant::now() + self.config.request_timeout();
        let result = retrying(until, |left| ffi::abort_transaction(inner.raw(), left));
        match result {
            Ok(()) if inner.reports().wait_for_last(until) => Ok(()),
            Ok(()) => Err(self.drop_producer(KafkaError::new(
                "abort the transaction",
                Code::OperationTimedOut,
                "records were still in flight after it",
            ))),
            Err(flagged) => Err(self.resolve_failed_abort(flagged)),
        }
    }

    fn end_quietly(&mut self) {
        if let Some(inner) = self.inner.as_ref().filter(|_| self.open.is_some())
            && let Err(flagged) = ffi::abort_transaction(inner.raw(), Duration::from_secs(1))
        {
            tracing::debug!(transactional_id = self.id, "{}", flagged.error);
        }
    }

    fn finish(
        &mut self,
        offsets: Option<(&[OffsetCommit], &GroupMetadata)>,
    ) -> Result<TxnReport, TxnError> {
        let (Some(inner), Some(open)) = (&self.inner, &self.open) else {
            return Err(no_transaction("commit"));
        };
        let started = Instant::now();
        let until = open.since + Duration::from_millis(self.config.transaction.timeout_ms);
        let records = open.records;

        let all_reported = inner.reports().wait_for_all(until);
        if let Some(error) = inner.reports().failure() {
            return Err(self.give_up(error.into()));
        }
        if !all_reported {
            let cause = KafkaError::new(
                "commit the transaction",
                Code::MessageTimedOut,
                "records were not acknowledged in time",
            );
            return Err(self.drop_producer(cause));
        }
        let acknowledged_after = started.elapsed();
        failpoint::hit(&self.points.before_commit);

        if let Some((offsets, group)) = offsets.filter(|(offsets, _)| !offsets.is_empty()) {
            let list = match list::commits(offsets) {
                Ok(list) => list,
                Err(error) => return Err(self.give_up(error)),
            };
            // Retriable but not resumable: the arguments of each try are the same.
            let sent = retrying(until, |left| {
                ffi::send_offsets(inner.raw(), &list, group.raw(), left)
            });
            if let Err(flagged) = sent {
                return Err(self.resolve(flagged));
            }
        }
        failpoint::hit(&self.points.after_offsets);

        let asked = Instant::now();
        if let Err(flagged) = retrying(until, |left| ffi::commit_transaction(inner.raw(), left)) {
            return Err(self.resolve(flagged));
        }
        let slow = asked.elapsed() > self.config.request_timeout();
        let shaken = inner.is_shaken();
        self.open = None;
        failpoint::hit(&self.points.after_commit);
        if slow || shaken {
            // The outcome is known, but a repeated request may still be under way and must not meet the next transaction.
            tracing::warn!(
                transactional_id = self.id,
                slow,
                shaken,
                "commit may have been sent twice; registering the transactional id anew"
            );
            self.inner = None;
        }
        Ok(TxnReport {
            records,
            took: started.elapsed(),
            acknowledged_after,
        })
    }

    /// Turns the flags of a failed call into what the caller has to do.
    fn resolve(&mut self, flagged: Flagged) -> TxnError {
        if flagged.fatal {
            self.resolve_fatal(flagged.error)
        } else if flagged.abort {
            self.give_up(flagged.error)
        } else if flagged.retriable {
            // `retrying` has used up the time.
            self.drop_producer(flagged.error)
        } else {
            // "If none of the flags is set, treat it as fatal" (librdkafka's INTRODUCTION): of the producer, at least.
            self.resolve_fatal(flagged.error)
        }
    }

    fn resolve_fatal(&mut self, error: KafkaError) -> TxnError {
        let error = self
            .inner
            .as_ref()
            .and_then(|inner| ffi::fatal_error(inner.raw()))
            .unwrap_or(error);
        match error.library_code() {
            Code::TransactionalIdAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTransactionTimeout
            | Code::UnsupportedFeature
            | Code::UnsupportedVersion
            | Code::NotConfigured => {
                self.discard();
                TxnError::Fatal(error)
            }
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
                self.resolve_fenced(error)
            }
            _ => self.drop_producer(error),
        }
    }

    /// The broker raises the epoch of an id in two cases: somebody registered it anew, or a transaction outlived
    /// `transaction.timeout.ms`. The second is our own doing.
    fn resolve_fenced(&mut self, error: KafkaError) -> TxnError {
        let timeout = Duration::from_millis(self.config.transaction.timeout_ms);
        let overdue = self
            .open
            .as_ref()
            .is_some_and(|open| open.since.elapsed() >= timeout);
        if overdue {
            return self.drop_producer(error);
        }
        self.discard();
        self.outcome_unknown = true;
        let now = Instant::now();
        self.fenced_at
            .retain(|at| now.duration_since(*at) < FENCED_TWICE_WITHIN);
        self.fenced_at.push_back(now);
        if self.fenced_at.len() < 2 {
            return TxnError::Fenced(error);
        }
        TxnError::Fatal(KafkaError::new(
            "keep the transactional id",
            error.library_code(),
            format!(
                "{:?} was taken over twice within a minute: another live process uses it; give each process its own \
                 instance name",
                self.id
            ),
        ))
    }

    /// Aborts the transaction because of `cause`.
    fn give_up(&mut self, cause: KafkaError) -> TxnError {
        let fatal = self
            .inner
            .as_ref()
            .and_then(|inner| ffi::fatal_error(inner.raw()));
        if let Some(error) = fatal {
            return self.resolve_fatal(error);
        }
        let record_failed = self
            .inner
            .as_ref()
            .is_some_and(|inner| inner.reports().failure().is_some());
        if let Err(error) = self.abort() {
            return error;
        }
        if record_failed {
            // librdkafka skips the failed record's sequence number without raising the epoch, so that the next transaction
            // to write to the same partition fails as well ("skipped sequence numbers").
            self.inner = None;
        }
        TxnError::Aborted(cause)
    }

    fn resolve_failed_abort(&mut self, flagged: Flagged) -> TxnError {
        if flagged.fatal {
            return self.resolve_fatal(flagged.error);
        }
        self.drop_producer(flagged.error)
    }

    /// Drops the producer and registers the id anew, so that nothing of the old one can take effect any more.
    fn drop_producer(&mut self, cause: KafkaError) -> TxnError {
        tracing::warn!(
            transactional_id = self.id,
            "dropping the transactional producer: {cause}"
        );
        self.discard();
        self.outcome_unknown = true;
        match self.reopen() {
            Ok(()) => {
                self.outcome_unknown = false;
                TxnError::Reopened(cause)
            }
            Err(TxnError::Fatal(error)) => TxnError::Fatal(error),
            Err(TxnError::Aborted(_) | TxnError::Reopened(_) | TxnError::Fenced(_)) => {
                TxnError::Reopened(cause)
            }
        }
    }

    fn discard(&mut self) {
        self.open = None;
        self.inner = None;
    }

    fn reopen(&mut self) -> Result<(), TxnError> {
        use crate::fault::{Classify, Fault};
        match Inner::open(&self.config, &self.id) {
            Ok(inner) => {
                self.inner = Some(inner);
                self.reopened += 1;
                Ok(())
            }
            Err(error) => Err(match error.fault() {
                Fault::Transient { .. } => TxnError::Reopened(error),
                Fault::Permanent | Fault::Fatal => TxnError::Fatal(error),
            }),
        }
    }
}

impl Drop for TxnProducer {
    /// Aborts what is under way, so that readers need not wait until the broker does.
    fn drop(&mut self) {
        self.end_quietly();
    }
}

fn no_transaction(operation: &'static str) -> TxnError {
    TxnError::Fatal(KafkaError::new(
        operation,
        Code::State,
        "no transaction was begun",
    ))
}

/// Repeats a call while the library says it may be, until `until`.
fn retrying(
    until: Instant,
    mut call: impl FnMut(Duration) -> Result<(), Flagged>,
) -> Result<(), Flagged> {
    loop {
        // At least one try with a real timeout, even when time is up: 0 would mean "do not wait" to the library.
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(100));
        match call(left) {
            Err(flagged)
                if flagged.retriable
                    && !flagged.fatal
                    && !flagged.abort
                    && Instant::now() + RETRY_PAUSE < until =>
            {
                thread::sleep(RETRY_PAUSE);
            }
            other => return other,
        }
    }
}

/// One producer of the library.
struct Inner {
    producer: ThreadedProducer<Context>,
    /// Wire errors until it was registered: those of finding the brokers do not count.
    wire_errors: u64,
}

impl Inner {
    fn open(config: &KafkaConfig, id: &str) -> Result<Self, KafkaError> {
        let context = Context {
            observer: Observer::new(id),
            reports: Reports::default(),
        };
        let producer =
            ThreadedProducer::from_config_and_context(&client::transactional(config, id), context)
                .map_err(|error| {
                    KafkaError::from_library("open a transactional producer", &error)
                })?;
        let mut inner = Self {
            producer,
            wire_errors: 0,
        };
        let until = Instant::now() + Duration::from_millis(config.transaction.init_timeout_ms);
        retrying(until, |left| ffi::init_transactions(inner.raw(), left))
            .map_err(|flagged| flagged.error)?;
        inner.wire_errors = inner.producer.client().context().observer.wire_errors();
        Ok(inner)
    }

    fn raw(&self) -> *mut rdkafka_sys::RDKafka {
        self.producer.client().native_ptr()
    }

    fn reports(&self) -> &Reports {
        &self.producer.client().context().reports
    }

    /// Whether a connection broke or a request timed out since this producer was registered.
    fn is_shaken(&self) -> bool {
        self.producer.client().context().observer.wire_errors() != self.wire_errors
    }

    fn send(&self, record: RecordRef<'_>) -> Result<(), ProduceError> {
        let bytes = record.size();
        self.reports().sent();
        let prepared = BaseRecord::<'_, [u8], [u8], ()> {
            topic: record.topic,
            partition: record.partition,
            payload: record.payload,
            key: record.key,
            timestamp: record.timestamp,
            headers: owned_headers(record.headers),
            delivery_opaque: (),
        };
        self.producer.send(prepared).map_err(|(error, _)| {
            self.reports().reported(None);
            ProduceError::from_library(&error, bytes)
        })
    }
}

/// Counts delivery reports against records sent.
#[derive(Debug, Default)]
struct Reports {
    in_flight: AtomicI64,
    failure: Mutex<Option<ProduceError>>,
    waiting: Mutex<()>,
    changed: Condvar,
}

impl Reports {
    fn sent(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    fn reported(&self, failure: Option<ProduceError>) {
        let failed = failure.is_some();
        if let Some(failure) = failure {
            self.failure.lock().get_or_insert(failure);
        }
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 || failed {
            // Taking the lock orders this wake-up after the waiter's check.
            drop(self.waiting.lock());
            self.changed.notify_all();
        }
    }

    /// Waits until nothing is in flight or a record failed; false if neither came true in time.
    fn wait_for_all(&self, until: Instant) -> bool {
        self.wait(until, || self.is_empty() || self.failure.lock().is_some())
    }

    /// Waits until nothing is in flight; false if that did not come true in time.
    fn wait_for_last(&self, until: Instant) -> bool {
        self.wait(until, || self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) <= 0
    }

    fn wait(&self, until: Instant, is_over: impl Fn() -> bool) -> bool {
        let mut guard = self.waiting.lock();
        while !is_over() {
            if self.changed.wait_until(&mut guard, until).timed_out() {
                return is_over();
            }
        }
        true
    }

    /// Waits a moment for room in the queue.
    fn wait_for_any(&self, at_most: Duration) {
        let mut guard = self.waiting.lock();
        self.changed.wait_for(&mut guard, at_most);
    }

    fn failure(&self) -> Option<ProduceError> {
        self.failure.lock().clone()
    }

    fn forget_failure(&self) {
        self.failure.lock().take();
    }
}

struct Context {
    observer: Observer,
    reports: Reports,
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
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.reports.reported(match result {
            Ok(_) => {
                self.observer.answered();
                None
            }
            Err((error, message)) => Some(ProduceError::from_library(
                error,
                message.key_len() + message.payload_len(),
            )),
        });
    }
}

/// Names of the failpoints of one role, made once.
#[derive(Debug)]
struct Points {
    after_begin: String,
    after_send: String,
    before_commit: String,
    after_offsets: String,
    after_commit: String,
}

impl Points {
    fn of(role: &str) -> Self {
        Self {
            after_begin: format!("{role}.after_begin"),
            after_send: format!("{role}.after_send"),
            before_commit: format!("{role}.before_commit"),
            after_offsets: format!("{role}.after_offsets"),
            after_commit: format!("{role}.after_commit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn waiting_ends_with_the_last_report_and_not_before() {
        let reports = Arc::new(Reports::default());
        reports.sent();
        reports.sent();
        reports.reported(None);
        assert!(!reports.wait_for_all(Instant::now() + Duration::from_millis(20)));
        let other = Arc::clone(&reports);
        let reporter = thread::spawn(move || other.reported(None));
        assert!(reports.wait_for_all(Instant::now() + Duration::from_secs(30)));
        reporter.join().unwrap();
        assert!(reports.failure().is_none());
    }

    #[test]
    fn the_first_failed_record_ends_the_wait() {
        let reports = Reports::default();
        reports.sent();
        reports.sent();
        reports.reported(Some(ProduceError::Timeout));
        assert!(reports.wait_for_all(Instant::now() + Duration::from_secs(30)));
        assert!(matches!(reports.failure(), Some(ProduceError::Timeout)));
    }
}

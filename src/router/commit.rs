//! Commits of progress, on a thread of their own: offsets, ledger entries and dead letters in one transaction.
//!
//! The lane's thread must keep polling and starting deliveries while a slow broker thinks about a commit, so the
//! transactional producer lives here. One commit is under way at a time; the next covers what ended meanwhile.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::event::{CodecError, Framing, LedgerEntry, codec};
use crate::fault::{Classify, Fault};
use crate::kafka::{
    KafkaError, Membership, OffsetCommit, ProduceError, Record, RecordRef, SendError, TxnError,
    TxnProducer, TxnReport,
};
use crate::retry::Backoff;

use super::dead_letter;
use super::partition::Snapshot;

/// Between tries to register the transactional id while the brokers are away.
const OPEN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// Between looks whether a producer that was dropped has been replaced.
const REPLACE: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));

/// What to commit.
pub(super) struct Job {
    pub(super) snapshots: Vec<Snapshot>,
    /// Encoded ledger entries, each with its key.
    pub(super) ledger: Vec<(String, Vec<u8>)>,
}

/// Why a commit did not pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommitError {
    /// The transaction ended as it says.
    #[error(transparent)]
    Txn(#[from] TxnError),
    /// We are no member of the group at the moment, or no producer is registered yet. Nothing was written.
    #[error(transparent)]
    NotNow(KafkaError),
    /// A record of our own is refused. Nothing was written.
    #[error("a record of our own cannot be written: {0}")]
    Refused(ProduceError),
}

/// What a caller does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aftermath {
    /// Nothing was written: commit again.
    Again,
    /// Ask the group what it has committed, then go on from there.
    Look,
    /// Stop.
    Stop,
}

impl CommitError {
    pub(super) fn aftermath(&self) -> Aftermath {
        match self {
            Self::NotNow(_) | Self::Txn(TxnError::Aborted(_)) => Aftermath::Again,
            Self::Txn(TxnError::Reopened(_) | TxnError::Fenced(_)) => Aftermath::Look,
            Self::Txn(TxnError::Fatal(_)) | Self::Refused(_) => Aftermath::Stop,
        }
    }
}

impl Classify for CommitError {
    fn fault(&self) -> Fault {
        match self.aftermath() {
            Aftermath::Again | Aftermath::Look => Fault::RETRY,
            Aftermath::Stop => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Txn(error) => error.code(),
            Self::Refused(error) => error.code(),
            Self::NotNow(_) => "not_a_member",
        }
    }
}

/// What the thread says.
pub(super) enum Said {
    /// The producer is registered.
    Opened,
    /// A commit has ended; the snapshots come back.
    Ended(Vec<Snapshot>, Result<TxnReport, CommitError>),
    /// No commit can ever pass.
    Failed(KafkaError),
}

/// Handle to the thread. Dropping it ends the thread after the commit under way.
pub(super) struct Committer {
    jobs: Option<Sender<Job>>,
    said: Receiver<Said>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
pub(super) struct CommitterParts {
    pub(super) kafka: KafkaConfig,
    pub(super) transactional_id: String,
    pub(super) ledger_topic: Arc<str>,
    pub(super) membership: Membership,
}

/// A dead letter is its record with a few kilobytes of headers. What could be written to `deliver.*` must fit into `dlq.*`,
/// which takes 4 MiB (`topics.yaml`).
const DEAD_LETTER_BYTES_MAX: usize = 4 << 20;

impl Committer {
    /// Starts the thread; it registers its transactional id and says so.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(mut parts: CommitterParts) -> std::io::Result<Self> {
        let producer = &mut parts.kafka.producer;
        producer.message_bytes_max = producer.message_bytes_max.max(DEAD_LETTER_BYTES_MAX);
        let (jobs, todo) = channel();
        let (say, said) = channel();
        let thread = std::thread::Builder::new()
            .name("router-commit".to_owned())
            .spawn(move || run(&parts, &todo, &say))?;
        Ok(Self {
            jobs: Some(jobs),
            said,
            thread: Some(thread),
        })
    }

    /// Hands over a commit. At most one at a time: wait for [`Said::Ended`].
    pub(super) fn begin(&self, job: Job) -> Result<(), Job> {
        match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|unsent| unsent.0),
            None => Err(job),
        }
    }

    /// What was said, if anything; waits for at most `timeout`.
    pub(super) fn hear(&self, timeout: Duration) -> Option<Said> {
        if timeout.is_zero() {
            return self.said.try_recv().ok();
        }
        self.said.recv_timeout(timeout).ok()
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the committing thread panicked");
        }
    }
}

fn run(parts: &CommitterParts, todo: &Receiver<Job>, say: &Sender<Said>) {
    let Some(mut txn) = open(parts, todo, say) else {
        return;
    };
    if say.send(Said::Opened).is_err() {
        return;
    }
    while let Ok(job) = todo.recv() {
        let mut outcome = commit(&mut txn, &job, parts);
        if outcome
            .as_ref()
            .is_err_and(|error| error.aftermath() == Aftermath::Look)
            && let Err(fatal) = replace(&mut txn)
        {
            outcome = Err(fatal.into());
        }
        if say.send(Said::Ended(job.snapshots, outcome)).is_err() {
            return;
        }
    }
}

/// Waits until the producer has really been replaced: before that, what the group has committed may still change.
fn replace(txn: &mut TxnProducer) -> Result<(), TxnError> {
    for attempt in 1.. {
        match txn.begin() {
            Ok(()) => return txn.abort(),
            Err(error @ TxnError::Fatal(_)) => return Err(error),
            Err(error @ (TxnError::Aborted(_) | TxnError::Reopened(_) | TxnError::Fenced(_))) => {
                tracing::debug!(transactional_id = txn.id(), "{error}");
                std::thread::sleep(REPLACE.delay(attempt));
            }
        }
    }
    Ok(())
}

/// Registers, for as long as it takes; `None` when nobody waits any more or it can never be.
fn open(parts: &CommitterParts, todo: &Receiver<Job>, say: &Sender<Said>) -> Option<TxnProducer> {
    let id = parts.transactional_id.as_str();
    for attempt in 1.. {
        let error = match TxnProducer::open(&parts.kafka, "router", id) {
            Ok(txn) => return Some(txn),
            Err(error) => error,
        };
        match error.fault() {
            Fault::Transient { .. } => tracing::warn!(transactional_id = id, "{error}"),
            Fault::Permanent | Fault::Fatal => {
                // Without a listener the lane has ended, and nobody waits.
                drop(say.send(Said::Failed(error)));
                return None;
            }
        }
        // A commit that is handed over meanwhile comes back undone, to be made again from what is true by then.
        match todo.recv_timeout(OPEN.delay(attempt)) {
            Ok(job) => {
                let undone = Err(CommitError::NotNow(error));
                say.send(Said::Ended(job.snapshots, undone)).ok()?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    None
}

fn commit(
    txn: &mut TxnProducer,
    job: &Job,
    parts: &CommitterParts,
) -> Result<TxnReport, CommitError> {
    txn.begin()?;
    for record in job.snapshots.iter().flat_map(Snapshot::dead_letters) {
        write_dead_letter(txn, record)?;
    }
    for (key, entry) in &job.ledger {
        let record = RecordRef::new(&parts.ledger_topic, key.as_bytes(), entry);
        write(txn, record)?;
    }
    let offsets: Vec<OffsetCommit> = job.snapshots.iter().map(|s| s.commit.clone()).collect();
    match parts.membership.now() {
        Ok(group) => Ok(txn.commit(&offsets, &group)?),
        Err(error) => {
            txn.abort()?;
            Err(CommitError::NotNow(error))
        }
    }
}

/// A dead letter that is too large with its headers goes without its value, which is still where the headers say.
fn write_dead_letter(txn: &mut TxnProducer, record: &Record) -> Result<(), CommitError> {
    match txn.send(record.as_ref()) {
        Ok(()) => Ok(()),
        Err(SendError::Txn(error)) => Err(error.into()),
        Err(SendError::Rejected(rejected)) => {
            tracing::error!("a dead letter is kept without its value: {rejected}");
            write(txn, dead_letter::without_value(record).as_ref())
        }
    }
}

/// A record that must be in the transaction: if it cannot be, there is none.
fn write(txn: &mut TxnProducer, record: RecordRef<'_>) -> Result<(), CommitError> {
    match txn.send(record) {
        Ok(()) => Ok(()),
        Err(SendError::Txn(error)) => Err(error.into()),
        Err(SendError::Rejected(rejected)) => {
            txn.abort()?;
            Err(CommitError::Refused(rejected))
        }
    }
}

/// Encodes a ledger entry, with its key.
///
/// # Errors
/// When serde refuses it, which a well-formed entry never makes it do.
pub(super) fn encode(
    entry: &LedgerEntry<'_>,
    framing: Framing,
) -> Result<(String, Vec<u8>), CodecError> {
    let mut bytes = Vec::with_capacity(256);
    codec::encode_ledger(entry, framing, &mut bytes)?;
    Ok((entry.key(), bytes))
}

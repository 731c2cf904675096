//! The thread that publishes: one Kafka transaction after the other, each with everything that a range of events leads to.
//!
//! ```text
//!   begin ── per event: duplicate? deliveries, rows, dead letters ── accepted ids, ledger ── commit with input offsets
//!     ▲  more events join while they are there, up to 5,000, 4 MiB or 250 ms                       │
//!     └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! **When a transaction closes.** Not at a fixed size: when nothing more is under way and the last one began at least
//! `transaction_pace_ms` ago. With little to do an event is committed at once; a steady trickle is gathered for the pace; and
//! under load the workers prepare the next transaction while this one commits, so that batches grow by themselves to what the
//! cluster can take.
//!
//! **When it does not commit** nothing of it is visible. Its ids are forgotten, what is in flight is dropped, and the reader
//! goes back to what the group has committed ([`Setback`]). Only if the outcome is unknown are the accepted ids of our
//! partitions read back from `seen`, since they may include this transaction's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::config::{KafkaConfig, ProcessorConfig};
use crate::event::TopicNames;
use crate::failpoint;
use crate::fault::Classify;
use crate::kafka::{Membership, OpeningTxn, TxnError, TxnProducer};
use crate::registry::Schemas;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

use super::decode::Planned;
use super::dedup::Dedup;
use super::error::ProcessorError;
use super::intake::{FAULT_OFFSETS_FIRST, Setback};
use super::metrics::ProcessorMetrics;
use super::output::{Interrupt, Output};
use super::pipeline::{Closed, Collector, Item};
use super::start::{ROLE, backoff};
use super::transaction::{Context, Transaction};

/// The publishing thread's state.
pub(super) struct Publisher {
    settings: ProcessorConfig,
    out: Output,
    membership: Membership,
    collector: Collector,
    /// Taken from the collector and not yet looked at: it came while a transaction had to end first.
    held: Option<Item<Planned>>,
    setbacks: Sender<Setback>,
    /// Records of earlier runs are dropped.
    run: u64,
    /// Where the next range of each partition begins.
    next: HashMap<i32, i64>,
    dedup: Dedup,
    begun_at: Option<Instant>,
    /// Since when we wait for our configuration to catch up with the gateway's.
    waiting_since: Option<Instant>,
    /// Up to this revision of the gateway's we wait no longer.
    waited_for: i64,
    failures: u32,
    backoff: Backoff,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    metrics: Arc<ProcessorMetrics>,
}

/// What a publisher is made of.
pub(super) struct PublisherParts {
    /// Settings.
    pub settings: ProcessorConfig,
    /// The cluster, for outputs.
    pub kafka: KafkaConfig,
    /// See [`super::output::record_bytes_max`].
    pub record_bytes_max: usize,
    /// Names of topics.
    pub topics: TopicNames,
    /// Frames of records.
    pub schemas: Schemas,
    /// Our membership in the reader's group.
    pub membership: Membership,
    /// What has been read and decoded.
    pub collector: Collector,
    /// To the reader.
    pub setbacks: Sender<Setback>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// When to stop trying.
    pub shutdown: Shutdown,
    /// Counters.
    pub metrics: Arc<ProcessorMetrics>,
}

impl Publisher {
    /// Waits until the transactional id is registered.
    ///
    /// # Errors
    /// When it can never be.
    pub(super) fn open(
        parts: PublisherParts,
        mut opening: OpeningTxn,
        transactional_id: &str,
    ) -> Result<Option<Self>, ProcessorError> {
        let backoff = backoff(&parts.settings);
        let mut failures = 0;
        let txn = loop {
            match opening.wait() {
                Ok(txn) => break txn,
                Err(error) if !error.fault().is_transient() => return Err(error.into()),
                Err(error) => {
                    failures += 1;
                    tracing::warn!("transactional id not registered, trying again: {error}");
                }
            }
            if !pause(backoff.delay(failures), &parts.shutdown) {
                return Ok(None);
            }
            opening = TxnProducer::open_in_background(&parts.kafka, ROLE, transactional_id);
        };
        let out = Output::new(
            txn,
            &parts.topics,
            parts.kafka,
            parts.record_bytes_max,
            parts.schemas,
        );
        Ok(Some(Self {
            dedup: Dedup::new(&parts.settings.dedup),
            settings: parts.settings,
            out,
            membership: parts.membership,
            collector: parts.collector,
            held: None,
            setbacks: parts.setbacks,
            run: 0,
            next: HashMap::new(),
            begun_at: None,
            waiting_since: None,
            waited_for: i64::MIN,
            failures: 0,
            backoff,
            clock: parts.clock,
            shutdown: parts.shutdown,
            metrics: parts.metrics,
        }))
    }

    /// Publishes until the reader has ended and everything it read has been published.
    ///
    /// # Errors
    /// When no transaction can pass any more.
    pub(super) fn run(mut self) -> Result<(), ProcessorError> {
        while let Ok(item) = self.next_item() {
            match item {
                Item::Records { run, .. } if run != self.run => {}
                Item::Records { chunk, .. } => match self.publish(&chunk) {
                    Ok(()) => {
                        self.failures = 0;
                        self.waiting_since = None;
                    }
                    Err(interrupt) => self.set_back(interrupt)?,
                },
                Item::Adopt {
                    partition,
                    window,
                    next,
                } => {
                    self.dedup.adopt(partition, window);
                    match next {
                        Some(next) => self.next.insert(partition, next),
                        None => self.next.remove(&partition),
                    };
                }
                Item::Forget(partition) => {
                    self.dedup.forget(partition);
                    self.next.remove(&partition);
                }
                Item::Barrier(done) => {
                    // Nobody waits any more when the reader has ended.
                    let _ended = done.send(());
                }
            }
        }
        Ok(())
    }

    fn next_item(&mut self) -> Result<Item<Planned>, Closed> {
        match self.held.take() {
            Some(item) => Ok(item),
            None => self.collector.take(None)?.ok_or(Closed),
        }
    }

    /// One transaction, with `first` and what joins it.
    fn publish(&mut self, first: &Planned) -> Result<(), Interrupt> {
        let now = self.clock.now_ms();
        let mut transaction = Transaction::begin(Arc::clone(&first.routes), now);
        let pace_ends = self
            .begun_at
            .replace(transaction.since())
            .map_or(transaction.since(), |at| {
                at + self.settings.transaction_pace()
            });
        self.dedup.begin(now);
        self.out.txn.begin()?;
        self.take_in(&mut transaction, first)?;
        while let Some(chunk) = self.join(&transaction, pace_ends) {
            self.take_in(&mut transaction, &chunk)?;
        }
        self.commit(&transaction)
    }

    fn take_in(&mut self, transaction: &mut Transaction, chunk: &Planned) -> Result<(), Interrupt> {
        let dedup = self.settings.dedup.enabled.then_some(&mut self.dedup);
        let context = Context {
            next: &self.next,
            dedup,
            waited_for: self.waited_for,
        };
        transaction.take_in(chunk, context, &mut self.out)
    }

    /// Waits for records that join `transaction`; `None` when it is to be committed.
    fn join(&mut self, transaction: &Transaction, pace_ends: Instant) -> Option<Planned> {
        loop {
            let wait = self.wait_for_more(transaction, pace_ends)?;
            match self.collector.take(Some(wait)) {
                // Look again whether to wait on: what is under way may be none of ours to wait for.
                Ok(None) => {}
                Ok(Some(Item::Records { run, .. })) if run != self.run => {}
                Ok(Some(Item::Records { run, chunk })) => {
                    if self.fits(transaction, &chunk) {
                        return Some(chunk);
                    }
                    self.held = Some(Item::Records { run, chunk });
                    return None;
                }
                Ok(Some(item @ (Item::Adopt { .. } | Item::Forget(_) | Item::Barrier(_)))) => {
                    self.held = Some(item);
                    return None;
                }
                Err(Closed) => return None,
            }
        }
    }

    /// How long to wait for more; `None` when the transaction is to be committed.
    fn wait_for_more(&self, transaction: &Transaction, pace_ends: Instant) -> Option<Duration> {
        let s = &self.settings;
        let closes = transaction.since() + s.transaction_time_max();
        let until = if self.collector.is_empty() {
            closes.min(pace_ends)
        } else {
            closes
        };
        let left = until.saturating_duration_since(Instant::now());
        let full = transaction.records() >= s.transaction_records_max
            || transaction.bytes() >= s.transaction_bytes_max;
        (!full && !left.is_zero()).then_some(left)
    }

    fn fits(&self, transaction: &Transaction, chunk: &Planned) -> bool {
        let bytes: usize = chunk.messages.iter().map(crate::kafka::Message::size).sum();
        transaction.records() + chunk.messages.len() <= self.settings.transaction_records_max
            && transaction.bytes() + bytes <= self.settings.transaction_bytes_max
            && Arc::ptr_eq(transaction.routes(), &chunk.routes)
    }

    fn commit(&mut self, transaction: &Transaction) -> Result<(), Interrupt> {
        let dedup = self.settings.dedup.enabled.then_some(&self.dedup);
        let membership = || self.membership.now();
        let with_offsets = !failpoint::is_armed(FAULT_OFFSETS_FIRST);
        let now = self.clock.now_ms();
        let report = transaction.commit(dedup, &mut self.out, membership, now, with_offsets)?;
        self.dedup.commit();
        for (partition, tally) in transaction.tallies() {
            self.next.insert(*partition, tally.to());
        }
        self.metrics
            .count(transaction, &report, &self.dedup, self.clock.now_ms());
        Ok(())
    }

    /// Undoes what a transaction that did not commit had decided, and sends the reader back.
    fn set_back(&mut self, interrupt: Interrupt) -> Result<(), ProcessorError> {
        let why = match interrupt {
            Interrupt::Ended(error) => return self.recover(error),
            Interrupt::Stop(error) => return Err(error),
            Interrupt::NotNow(why) => why,
            Interrupt::TooNew(revision) => self.wait_for_source(revision),
        };
        match self.out.txn.abort() {
            Ok(()) => {
                self.undo("aborted", &why, false);
                Ok(())
            }
            Err(error) => self.recover(error),
        }
    }

    /// What the producer says of the end of a transaction is to be done.
    fn recover(&mut self, error: TxnError) -> Result<(), ProcessorError> {
        match &error {
            TxnError::Aborted(cause) => self.undo("aborted", &cause.to_string(), false),
            TxnError::Reopened(cause) => self.undo("reopened", &cause.to_string(), true),
            TxnError::Fenced(cause) => self.undo("fenced", &cause.to_string(), true),
            TxnError::Fatal(_) => return Err(error.into()),
        }
        Ok(())
    }

    /// Our configuration should be as new as the gateway's in a moment; but not for ever.
    fn wait_for_source(&mut self, revision: i64) -> String {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.settings.source_wait() {
            return format!(
                "a source is known to the gateway (revision {revision}) and not yet here"
            );
        }
        self.waited_for = self.waited_for.max(revision);
        self.waiting_since = None;
        format!(
            "a source that the gateway knew (revision {revision}) did not become known in \
             processor.source_wait_ms; its events are filtered"
        )
    }

    fn undo(&mut self, outcome: &'static str, why: &str, rebuild: bool) {
        self.metrics
            .transactions_total
            .with_label_values(&[outcome])
            .inc();
        self.failures += 1;
        let wait = self.backoff.delay(self.failures);
        tracing::warn!(
            outcome,
            ?wait,
            "transaction not committed, trying again: {why}"
        );
        self.dedup.abort();
        self.run += 1;
        if matches!(self.held, Some(Item::Records { .. })) {
            self.held = None;
        }
        // Should the reader have ended, so will we with the next item.
        let _ended = self.setbacks.send(Setback {
            run: self.run,
            rebuild,
        });
        pause(wait, &self.shutdown);
    }
}

/// Waits, but not past shutdown; false if that has begun.
fn pause(wait: Duration, shutdown: &Shutdown) -> bool {
    let until = Instant::now() + wait;
    while !shutdown.is_begun() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
    false
}

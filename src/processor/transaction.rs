//! One transaction: everything that a range of events leads to, from the first delivery to the commit.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::clock::UnixMs;
use crate::config::KafkaConfig;
use crate::event::{
    CodecError, DeadLetterReason, Ending, FilterReason, Framing, LedgerEntry, Stage, Topic,
    TopicNames, codec,
};
use crate::kafka::{
    Admin, GroupMetadata, KafkaError, Message, OffsetCommit, ProduceError, RecordRef, SendError,
    TopicPartition, TxnError, TxnProducer, TxnReport,
};

use super::dead_letter::{Failure, dead_letter};
use super::decode::{Event, Planned};
use super::dedup::{Dedup, pack};
use super::error::ProcessorError;
use super::fan_out;
use super::ledger::Tally;
use super::plan::{Plan, Way};
use super::routes::{Routes, Target};

/// An address in front of an event must not make it too large for its destination's topic when it was just small enough
/// for `events`.
const ROOM_FOR_ADDRESS: usize = 64 << 10;
/// A dead letter is its record with a few kilobytes of headers, whatever its size: what could be written to `events` (2 MiB
/// in `topics.yaml`) must fit into `dlq.*` (4 MiB there).
const DEAD_LETTER_BYTES_MAX: usize = 4 << 20;

/// Largest record for a destination; what is larger is dead-lettered.
pub(super) fn record_bytes_max(kafka: &KafkaConfig) -> usize {
    kafka.producer.message_bytes_max + ROOM_FOR_ADDRESS
}

/// Settings of the producer, which must also take dead letters.
pub(super) fn producer_settings(kafka: &KafkaConfig) -> KafkaConfig {
    let mut kafka = kafka.clone();
    kafka.producer.message_bytes_max = record_bytes_max(&kafka).max(DEAD_LETTER_BYTES_MAX);
    kafka
}

/// Why a transaction did not come to its commit.
#[derive(Debug)]
pub(super) enum Interrupt {
    /// It has ended as the producer says.
    Ended(TxnError),
    /// It cannot go on now and must be aborted: a destination's topic does not exist, or nobody could tell.
    NotNow(String),
    /// No transaction can pass.
    Stop(ProcessorError),
}

impl From<TxnError> for Interrupt {
    fn from(error: TxnError) -> Self {
        Self::Ended(error)
    }
}

impl From<CodecError> for Interrupt {
    fn from(error: CodecError) -> Self {
        Self::Stop(error.into())
    }
}

/// Where records are written, and under which names.
pub(super) struct Output {
    /// The transactional producer.
    pub txn: TxnProducer,
    names: Names,
    framing: Framing,
    /// Topics of destinations that were there when we looked.
    known: HashSet<Arc<str>>,
    kafka: KafkaConfig,
    record_bytes_max: usize,
    buffer: Vec<u8>,
}

struct Names {
    events: Arc<str>,
    seen: String,
    ledger: String,
    dead_letters: String,
}

impl Output {
    /// Writes through `txn`.
    pub(super) fn new(
        txn: TxnProducer,
        topics: &TopicNames,
        kafka: KafkaConfig,
        record_bytes_max: usize,
    ) -> Self {
        Self {
            txn,
            names: Names {
                events: topics.name(&Topic::Events).into(),
                seen: topics.name(&Topic::Seen),
                ledger: topics.name(&Topic::Ledger),
                dead_letters: topics.name(&Topic::Dlq(Stage::Processor)),
            },
            framing: Framing::default(),
            known: HashSet::new(),
            kafka,
            record_bytes_max,
            buffer: Vec::new(),
        }
    }

    /// Writes an event to one destination, or to the dead letters if it is too large for it.
    fn forward(
        &mut self,
        message: &Message,
        target: &Target,
        revision: i64,
        now: UnixMs,
    ) -> Result<Ending, Interrupt> {
        self.expect_topic(&target.topic)?;
        let record = fan_out::record(message, target, revision, self.framing, &mut self.buffer)?;
        let bytes = record.size();
        let error = if bytes > self.record_bytes_max {
            ProduceError::TooLarge { bytes }
        } else {
            match self.txn.send(record) {
                Ok(()) => return Ok(Ending::Forwarded),
                Err(SendError::Txn(error)) => return Err(error.into()),
                Err(SendError::Rejected(error)) => error,
            }
        };
        let reason = rejection(&error)?;
        self.give_up(
            message,
            Failure {
                reason,
                message: error.to_string(),
                destination_id: &target.destination_id,
            },
            now,
        )
    }

    /// Writes a dead letter.
    fn give_up(
        &mut self,
        message: &Message,
        failure: Failure<'_>,
        now: UnixMs,
    ) -> Result<Ending, Interrupt> {
        let reason = failure.reason;
        tracing::debug!(
            position = %message.position(), reason = reason.name(), "dead letter: {}", failure.message
        );
        let instance = self.txn.id().to_owned();
        let record = dead_letter(&self.names.dead_letters, message, failure, &instance, now);
        match self.txn.send(record.as_ref()) {
            Ok(()) => Ok(Ending::DeadLettered(reason)),
            Err(SendError::Txn(error)) => Err(error.into()),
            Err(SendError::Rejected(cause)) => {
                Err(Interrupt::Stop(ProcessorError::DeadLetterRefused {
                    position: message.position(),
                    cause,
                }))
            }
        }
    }

    /// Writes a record of our own.
    fn note(&mut self, record: RecordRef<'_>) -> Result<(), Interrupt> {
        self.txn.send(record).map_err(|error| match error {
            SendError::Txn(error) => error.into(),
            SendError::Rejected(cause) => Interrupt::Stop(ProcessorError::OwnRecordRefused(cause)),
        })
    }

    /// A record for a topic that does not exist would hold the transaction up for seconds and then fail it, or, where
    /// brokers create topics by themselves, make one with the wrong number of partitions. So the first use of a topic looks.
    fn expect_topic(&mut self, topic: &Arc<str>) -> Result<(), Interrupt> {
        if self.known.contains(topic) {
            return Ok(());
        }
        let there = Admin::open(&self.kafka)
            .and_then(|admin| admin.topic(topic))
            .map_err(|error: KafkaError| Interrupt::NotNow(error.to_string()))?;
        if there.is_none() {
            return Err(Interrupt::NotNow(format!(
                "topic {topic} does not exist; nothing is lost, its events wait; create it with `sluice topics apply`"
            )));
        }
        self.known.insert(Arc::clone(topic));
        Ok(())
    }
}

/// What a refused record means.
fn rejection(error: &ProduceError) -> Result<DeadLetterReason, Interrupt> {
    match error {
        ProduceError::TooLarge { .. } => Ok(DeadLetterReason::TooLarge),
        ProduceError::Refused(_) => Ok(DeadLetterReason::Refused),
        // Not about this record: rights are missing, or (never so for a rejected record) the cluster is away.
        ProduceError::Denied(_)
        | ProduceError::QueueFull
        | ProduceError::Timeout
        | ProduceError::Unavailable(_)
        | ProduceError::Broken(_) => Err(Interrupt::Stop(ProcessorError::OwnRecordRefused(
            error.clone(),
        ))),
    }
}

/// A transaction that is being collected.
#[derive(Debug)]
pub(super) struct Transaction {
    routes: Arc<Routes>,
    tallies: BTreeMap<i32, Tally>,
    since: Instant,
    now: UnixMs,
    records: usize,
    bytes: usize,
    oldest: Option<UnixMs>,
}

impl Transaction {
    /// Begins at `now` under `routes`.
    pub(super) fn begin(routes: Arc<Routes>, now: UnixMs) -> Self {
        Self {
            routes,
            tallies: BTreeMap::new(),
            since: Instant::now(),
            now,
            records: 0,
            bytes: 0,
            oldest: None,
        }
    }

    /// Since when it collects.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Records taken in.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Their keys and payloads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest of them was written to `events`.
    pub(super) fn oldest(&self) -> Option<UnixMs> {
        self.oldest
    }

    /// What it did with each partition.
    pub(super) fn tallies(&self) -> &BTreeMap<i32, Tally> {
        &self.tallies
    }

    /// The configuration its events were planned under; a ledger entry names one only.
    pub(super) fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Decides on every event of `chunk`, in order, and writes what follows from it. `next` is where the range of each
    /// partition begins.
    ///
    /// # Errors
    /// When the transaction cannot go on.
    pub(super) fn take_in(
        &mut self,
        chunk: &Planned,
        next: &HashMap<i32, i64>,
        mut dedup: Option<&mut Dedup>,
        out: &mut Output,
    ) -> Result<(), Interrupt> {
        for (message, event) in chunk.messages.iter().zip(&chunk.events) {
            let partition = message.partition;
            self.records += 1;
            self.bytes += message.size();
            self.oldest = match (self.oldest, message.timestamp) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let is_new = |key: u128| {
                dedup
                    .as_deref_mut()
                    .is_none_or(|dedup| dedup.accept(partition, key))
            };
            let tally = self.tallies.entry(partition).or_insert_with(|| {
                Tally::starting_at(next.get(&partition).copied().unwrap_or(message.offset))
            });
            tally.read(message.offset);
            follow(message, event, is_new, &self.routes, self.now, tally, out)?;
        }
        Ok(())
    }

    /// Writes the accepted ids and the ledger, and commits all of it with the input's offsets.
    ///
    /// # Errors
    /// When the transaction did not commit.
    pub(super) fn commit(
        &self,
        dedup: Option<&Dedup>,
        out: &mut Output,
        membership: impl FnOnce() -> Result<GroupMetadata, KafkaError>,
        with_offsets: bool,
    ) -> Result<TxnReport, Interrupt> {
        let names_seen = out.names.seen.clone();
        for partition in self.tallies.keys() {
            let accepted = dedup.map_or(&[][..], |dedup| dedup.accepted(*partition));
            if !accepted.is_empty() {
                let key = partition.to_string();
                out.note(RecordRef {
                    partition: Some(*partition),
                    ..RecordRef::new(&names_seen, key.as_bytes(), &pack(accepted))
                })?;
            }
        }
        self.write_ledger(out)?;
        if !with_offsets {
            return Ok(out.txn.commit_without_offsets()?);
        }
        let offsets: Vec<OffsetCommit> = self
            .tallies
            .iter()
            .map(|(partition, tally)| {
                let place = TopicPartition::new(Arc::clone(&out.names.events), *partition);
                OffsetCommit::new(place, tally.to())
            })
            .collect();
        let group = membership().map_err(|error| Interrupt::NotNow(error.to_string()))?;
        Ok(out.txn.commit(&offsets, &group)?)
    }

    fn write_ledger(&self, out: &mut Output) -> Result<(), Interrupt> {
        let instance = out.txn.id().to_owned();
        let (events, ledger) = (Arc::clone(&out.names.events), out.names.ledger.clone());
        for (partition, tally) in &self.tallies {
            let entry = tally.entry(&events, *partition, &self.routes, &instance, self.now);
            let mut payload = Vec::with_capacity(256);
            codec::encode_ledger(&entry, out.framing, &mut payload)?;
            let key = LedgerEntry::key(Stage::Processor, &events, *partition);
            out.note(RecordRef::new(&ledger, key.as_bytes(), &payload))?;
        }
        Ok(())
    }
}

/// Follows what was decided of one event: writes, counts.
fn follow(
    message: &Message,
    event: &Event,
    is_new: impl FnOnce(u128) -> bool,
    routes: &Routes,
    now: UnixMs,
    tally: &mut Tally,
    out: &mut Output,
) -> Result<(), Interrupt> {
    let failure = |reason, text: &str| Failure {
        reason,
        message: text.to_owned(),
        destination_id: "",
    };
    match event {
        Event::Undecodable(why) => {
            let failure = failure(DeadLetterReason::Undecodable, why);
            tally.ended(None, out.give_up(message, failure, now)?);
        }
        // Its id does not count as accepted: put back after a correction, it must not pass for a duplicate.
        Event::Decoded {
            plan: Plan::Unreadable(why),
            ..
        } => {
            let failure = failure(DeadLetterReason::InvalidEvent, why);
            tally.ended(None, out.give_up(message, failure, now)?);
        }
        Event::Decoded { key, .. } if !is_new(*key) => {
            tally.ended(None, Ending::Filtered(FilterReason::Duplicate));
        }
        Event::Decoded {
            plan: Plan::Ends(reason),
            ..
        } => tally.ended(None, Ending::Filtered(*reason)),
        Event::Decoded {
            plan: Plan::Fans(ways),
            ..
        } => {
            for way in ways {
                let ending = send_on(message, way, routes, now, out)?;
                tally.ended(Some(way.target), ending);
            }
        }
    }
    Ok(())
}

fn send_on(
    message: &Message,
    way: &Way,
    routes: &Routes,
    now: UnixMs,
    out: &mut Output,
) -> Result<Ending, Interrupt> {
    match way.filtered {
        Some(reason) => Ok(Ending::Filtered(reason)),
        None => out.forward(message, routes.target(way.target), routes.revision(), now),
    }
}

//! Where a transaction writes, and what may come in its way.

use std::collections::HashSet;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::config::KafkaConfig;
use crate::event::{CodecError, DeadLetterReason, Ending, Stage, Topic, TopicNames};
use crate::kafka::{
    Admin, KafkaError, Message, ProduceError, RecordRef, SendError, TxnError, TxnProducer,
};
use crate::registry::Schemas;

use super::dead_letter::{Failure, dead_letter};
use super::error::ProcessorError;
use super::fan_out;
use super::routes::Target;

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
    /// As before: the gateway knows a source that we do not know yet, under this revision.
    TooNew(i64),
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
    /// Full names of our topics.
    pub(super) names: Names,
    /// How our records name their schemas.
    pub(super) schemas: Schemas,
    /// Topics that were there when we last looked.
    known: HashSet<Arc<str>>,
    kafka: KafkaConfig,
    record_bytes_max: usize,
    buffer: Vec<u8>,
}

/// Full names of our topics.
pub(super) struct Names {
    /// The input.
    pub(super) events: Arc<str>,
    /// Accepted ids.
    pub(super) seen: Arc<str>,
    /// What became of each range.
    pub(super) ledger: Arc<str>,
    /// What can never pass.
    pub(super) dead_letters: Arc<str>,
}

impl Output {
    /// Writes through `txn`.
    pub(super) fn new(
        txn: TxnProducer,
        topics: &TopicNames,
        kafka: KafkaConfig,
        record_bytes_max: usize,
        schemas: Schemas,
    ) -> Self {
        Self {
            txn,
            names: Names {
                events: topics.name(&Topic::Events).into(),
                seen: topics.name(&Topic::Seen).into(),
                ledger: topics.name(&Topic::Ledger).into(),
                dead_letters: topics.name(&Topic::Dlq(Stage::Processor)).into(),
            },
            schemas,
            known: HashSet::new(),
            kafka,
            record_bytes_max,
            buffer: Vec::new(),
        }
    }

    /// Writes an event to one destination, or to the dead letters if it is too large for it.
    pub(super) fn forward(
        &mut self,
        message: &Message,
        target: &Target,
        revision: i64,
        now: UnixMs,
    ) -> Result<Ending, Interrupt> {
        self.expect_topic(&target.topic)?;
        let framing = self.schemas.framing(target.kind.schema_name());
        let record = fan_out::record(message, target, revision, framing, &mut self.buffer)?;
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
    pub(super) fn give_up(
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
    pub(super) fn note(&mut self, record: RecordRef<'_>) -> Result<(), Interrupt> {
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
        // All of them with one question: a first transaction may write to hundreds.
        let there = Admin::open(&self.kafka)
            .and_then(|admin| admin.topics())
            .map_err(|error: KafkaError| Interrupt::NotNow(error.to_string()))?;
        self.known = there.into_iter().map(|t| Arc::from(t.name)).collect();
        if self.known.contains(topic) {
            return Ok(());
        }
        Err(Interrupt::NotNow(format!(
            "topic {topic} does not exist; nothing is lost, its events wait; create it with `sluice topics apply`"
        )))
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

//! Why the processor could not start or go on.

use crate::event::CodecError;
use crate::fault::{Classify, Fault};
use crate::kafka::{KafkaError, Position, ProduceError, TxnError};

/// Why the processor could not start or go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProcessorError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Transaction(#[from] TxnError),
    #[error(
        "the dead letter of {position} cannot be written ({cause}); raise kafka.producer.message_bytes_max and the \
         max.message.bytes of the dlq topic"
    )]
    DeadLetterRefused {
        position: Position,
        #[source]
        cause: ProduceError,
    },
    #[error("a record of our own cannot be written: {0}")]
    OwnRecordRefused(#[source] ProduceError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("could not start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("a thread of the processor panicked: {thread}")]
    Panicked { thread: &'static str },
    #[error("not drained within {seconds} s; what was in flight will be read again")]
    NotDrained { seconds: u64 },
}

impl Classify for ProcessorError {
    fn fault(&self) -> Fault {
        match self {
            Self::Kafka(error) => error.fault(),
            Self::Transaction(error) => error.fault(),
            Self::DeadLetterRefused { .. }
            | Self::OwnRecordRefused(_)
            | Self::Codec(_)
            | Self::Thread(_)
            | Self::Panicked { .. }
            | Self::NotDrained { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Kafka(error) => error.code(),
            Self::Transaction(error) => error.code(),
            Self::DeadLetterRefused { .. } => "dead_letter_refused",
            Self::OwnRecordRefused(_) => "own_record_refused",
            Self::Codec(error) => error.code(),
            Self::Thread(_) => "thread",
            Self::Panicked { .. } => "panicked",
            Self::NotDrained { .. } => "not_drained",
        }
    }
}

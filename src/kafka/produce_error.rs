//! Why a record was not written, or is not known to be.

use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode as Code};

use crate::fault::{Classify, Fault};

use super::error::KafkaError;

/// Why a record was not written, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProduceError {
    /// What is in flight has reached its limit; nothing of this record was sent.
    #[error("too much is waiting for acknowledgement")]
    QueueFull,
    /// No acknowledgement in time. The record may be written nevertheless.
    #[error("no acknowledgement in time")]
    Timeout,
    /// The record is larger than a request may be; it can never be written.
    #[error("a record of {bytes} bytes is larger than what may be sent")]
    TooLarge {
        /// Key and payload.
        bytes: usize,
    },
    /// The brokers could not take it now.
    #[error(transparent)]
    Unavailable(KafkaError),
    /// The brokers will never take this record.
    #[error(transparent)]
    Refused(KafkaError),
    /// The producer broke; a new one takes its place by itself. The record may be sent again.
    #[error("the producer broke and is being replaced: {0}")]
    Broken(KafkaError),
    /// The brokers take nothing from us: login or rights are missing.
    #[error(transparent)]
    Denied(KafkaError),
}

impl ProduceError {
    /// From a code of the library for a record of `bytes` bytes.
    pub(super) fn from_library(error: &LibraryError, bytes: usize) -> Self {
        let error = KafkaError::from_library("send a record", error);
        match error.library_code() {
            Code::QueueFull => Self::QueueFull,
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
                Self::TooLarge { bytes }
            }
            // What an idempotent producer cannot go on after. `InvalidTransactionalState` is a broker's word for a
            // sequence that it does not know.
            Code::Fatal
            | Code::GaplessGuarantee
            | Code::OutOfOrderSequenceNumber
            | Code::DuplicateSequenceNumber
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::InvalidTransactionalState
            | Code::UnknownProducerId
            | Code::Fenced
            | Code::ProducerFenced
            // The queue was cleared because the producer is being replaced or closed.
            | Code::PurgeQueue
            | Code::PurgeInflight => Self::Broken(error),
            _ if error.is_timeout() => Self::Timeout,
            _ => match error.fault() {
                Fault::Transient { .. } => Self::Unavailable(error),
                Fault::Permanent => Self::Refused(error),
                Fault::Fatal => Self::Denied(error),
            },
        }
    }
}

impl From<ProduceError> for KafkaError {
    fn from(error: ProduceError) -> Self {
        let words = error.to_string();
        let code = match error {
            ProduceError::QueueFull => Code::QueueFull,
            ProduceError::Timeout => Code::MessageTimedOut,
            ProduceError::TooLarge { .. } => Code::MessageSizeTooLarge,
            ProduceError::Unavailable(error)
            | ProduceError::Refused(error)
            | ProduceError::Broken(error)
            | ProduceError::Denied(error) => return error,
        };
        Self::new("send a record", code, words)
    }
}

impl Classify for ProduceError {
    fn fault(&self) -> Fault {
        match self {
            Self::QueueFull | Self::Timeout | Self::Unavailable(_) | Self::Broken(_) => {
                Fault::RETRY
            }
            Self::TooLarge { .. } | Self::Refused(_) => Fault::Permanent,
            Self::Denied(_) => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Timeout => "not_acknowledged",
            Self::TooLarge { .. } => "record_too_large",
            Self::Unavailable(error) | Self::Refused(error) | Self::Denied(error) => error.code(),
            Self::Broken(_) => "producer_replaced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(code: Code) -> ProduceError {
        ProduceError::from_library(&LibraryError::MessageProduction(code), 7)
    }

    #[test]
    fn what_a_client_may_send_again_is_told_from_what_it_may_not() {
        for again in [
            Code::QueueFull,
            Code::MessageTimedOut,
            Code::NotEnoughReplicas,
            Code::UnknownTopicOrPartition,
            Code::OutOfOrderSequenceNumber,
            Code::PurgeInflight,
        ] {
            assert_eq!(from(again).fault(), Fault::RETRY, "{again}");
        }
        assert_eq!(from(Code::MessageSizeTooLarge).code(), "record_too_large");
        assert_eq!(from(Code::InvalidRecord).fault(), Fault::Permanent);
        assert_eq!(from(Code::TopicAuthorizationFailed).fault(), Fault::Fatal);
    }
}

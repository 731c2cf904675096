//! How a transaction can end other than committed, each with the one thing that the caller must do.

use crate::fault::{Classify, Fault};

use super::error::KafkaError;
use super::produce_error::ProduceError;

/// How a transaction ended other than committed. In every case it is over: none is under way any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TxnError {
    /// It was aborted: nothing of it is visible and no offset moved. **Rewind** the input to where the transaction
    /// began, forget what was derived from it (also from its dedup state), and go on. If the cause's own fault is permanent,
    /// the brokers refused a record that [`super::TxnProducer::send`] let pass (a topic's `max.message.bytes` is below
    /// `kafka.producer.message_bytes_max`, for one), and the same records will be refused again: halve the batch to find it.
    #[error("transaction aborted: {0}")]
    Aborted(KafkaError),
    /// It was committed or aborted, we cannot know, and the producer was replaced so that nothing can change any more.
    /// **Rewind** the input to what the group has committed ([`super::Consumer::rewind_to_committed`]), and go on. `begin`
    /// returns this again until the brokers can be reached.
    #[error("transaction producer replaced: {0}")]
    Reopened(KafkaError),
    /// Somebody registered our transactional id. **Back off**, poll the consumer (if we are no member any more, it says
    /// so), rewind to what the group has committed, and begin again. The second time within a minute is `Fatal`.
    #[error("transactional id taken over: {0}")]
    Fenced(KafkaError),
    /// No transaction can pass. **Stop** and show the message.
    #[error(transparent)]
    Fatal(KafkaError),
}

impl Classify for TxnError {
    fn fault(&self) -> Fault {
        match self {
            Self::Aborted(_) | Self::Reopened(_) | Self::Fenced(_) => Fault::RETRY,
            Self::Fatal(_) => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Aborted(_) => "transaction_aborted",
            Self::Reopened(_) => "transaction_reopened",
            Self::Fenced(_) => "transaction_fenced",
            Self::Fatal(error) => error.code(),
        }
    }
}

/// Why a record did not join the transaction.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// This record can never be written; the transaction is still under way. Dead-letter the record.
    #[error(transparent)]
    Rejected(ProduceError),
    /// The transaction has ended.
    #[error(transparent)]
    Txn(#[from] TxnError),
}

impl Classify for SendError {
    fn fault(&self) -> Fault {
        match self {
            Self::Rejected(error) => error.fault(),
            Self::Txn(error) => error.fault(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Rejected(error) => error.code(),
            Self::Txn(error) => error.code(),
        }
    }
}

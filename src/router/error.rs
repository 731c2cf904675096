//! Why the router could not start or go on.

use crate::destinations::http::ClientError;
use crate::event::CodecError;
use crate::fault::{Classify, Fault};
use crate::kafka::KafkaError;
use crate::registry::RegistryError;

/// Why the router could not start or go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RouterError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("lane {lane}: {source}")]
    Kafka {
        lane: String,
        #[source]
        source: KafkaError,
    },
    #[error("lane {lane}: progress cannot be committed: {problem}")]
    Commit { lane: String, problem: String },
    #[error("ledger entry cannot be written: {0}")]
    Ledger(#[from] CodecError),
    #[error("deliveries wait: {0}")]
    Registry(#[from] RegistryError),
    #[error("could not start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("lane {lane}: its thread panicked")]
    Panicked { lane: String },
}

impl Classify for RouterError {
    fn fault(&self) -> Fault {
        match self {
            Self::Kafka { source, .. } => source.fault(),
            Self::Registry(error) => error.fault(),
            Self::Client(_)
            | Self::Commit { .. }
            | Self::Ledger(_)
            | Self::Thread(_)
            | Self::Panicked { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Client(_) => "http_client",
            Self::Kafka { source, .. } => source.code(),
            Self::Commit { .. } => "commit",
            Self::Ledger(error) => error.code(),
            Self::Registry(error) => error.code(),
            Self::Thread(_) => "thread",
            Self::Panicked { .. } => "panicked",
        }
    }
}

//! Why dev mode could not start or go on.

use super::kafka::LocalKafkaError;
use crate::app::AppError;
use crate::config::ConfigError;
use crate::control::ControlError;
use crate::fault::{Classify, Fault};
use crate::lock::LockError;

/// Why dev mode could not start or go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum DevError {
    #[error(transparent)]
    Kafka(#[from] LocalKafkaError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Workspace(#[from] ControlError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(
        "{workspace} has no source that is enabled, so that there is no write key to send with"
    )]
    NoSource { workspace: String },
    #[error("not ready after {seconds} s: waiting for {}", missing.join(", "))]
    NotReady { seconds: u64, missing: Vec<String> },
    #[error("could not {what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("interrupted")]
    Interrupted,
}

impl DevError {
    /// For `map_err`: an I/O failure while doing `what`.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl Classify for DevError {
    fn fault(&self) -> Fault {
        match self {
            Self::Kafka(error) => error.fault(),
            Self::App(error) => error.fault(),
            Self::Workspace(error) => error.fault(),
            Self::Config(error) => error.fault(),
            Self::Lock(error) => error.fault(),
            Self::NotReady { .. } => Fault::RETRY,
            Self::NoSource { .. } | Self::Io { .. } | Self::Interrupted => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Kafka(error) => error.code(),
            Self::App(error) => error.code(),
            Self::Workspace(error) => error.code(),
            Self::Config(error) => error.code(),
            Self::Lock(error) => error.code(),
            Self::NoSource { .. } => "dev_no_source",
            Self::NotReady { .. } => "dev_not_ready",
            Self::Io { .. } => "dev_io",
            Self::Interrupted => "interrupted",
        }
    }
}

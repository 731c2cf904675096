//! Why a configuration could not be had.

use std::path::PathBuf;

use crate::fault::{Classify, Fault};

/// Why a configuration could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ControlError {
    #[error("could not read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{origin}: {message}")]
    Invalid { origin: String, message: String },
    #[error("could not reach {url}")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} answered {status}")]
    Status { url: String, status: u16 },
    #[error("could not make an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("no workspace configured: set workspace.file or workspace.url")]
    Nowhere,
}

impl Classify for ControlError {
    fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Unreachable { .. } | Self::Status { .. } => Fault::RETRY,
            Self::Invalid { .. } => Fault::Permanent,
            Self::Client(_) | Self::Nowhere => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "workspace_unreadable",
            Self::Invalid { .. } => "workspace_invalid",
            Self::Unreachable { .. } => "workspace_unreachable",
            Self::Status { .. } => "workspace_status",
            Self::Client(_) => "workspace_client",
            Self::Nowhere => "workspace_nowhere",
        }
    }
}

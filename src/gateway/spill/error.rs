//! What can go wrong with the spill's folder.

use std::io;
use std::path::{Path, PathBuf};

use crate::fault::{Classify, Fault};
use crate::lock::LockError;

/// What can go wrong with the spill's folder. At the start it is a reason not to start; later the request is answered with
/// 503, or the drain tries again.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// The folder cannot be had.
    #[error("{0}; each gateway process needs a folder of its own")]
    Folder(#[from] LockError),
    /// The disk or the file system.
    #[error("could not {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, one word.
        operation: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SpillError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// What was tried: metric label.
    pub(super) fn operation(&self) -> &'static str {
        match self {
            Self::Folder(_) => "lock",
            Self::Io { operation, .. } => operation,
        }
    }

    /// Whether the file is not there at all.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Classify for SpillError {
    fn fault(&self) -> Fault {
        match self {
            Self::Folder(_) => Fault::Fatal,
            Self::Io { .. } => Fault::RETRY,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Folder(_) => "spill_folder",
            Self::Io { .. } => "spill_io",
        }
    }
}

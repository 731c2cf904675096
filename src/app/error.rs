//! Why a process could not start or go on.

use std::net::SocketAddr;

use crate::control::ControlError;
use crate::deps::RoleError;
use crate::fault::{Classify, Fault};
use crate::registry::RegistryError;
use crate::topics::{SpecError, TopicsError};

/// Why a process could not start or go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AppError {
    #[error("could not listen on {address} for health and metrics (admin.listen)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("no workspace to work with")]
    Workspace(#[from] ControlError),
    #[error("the topics file cannot be used")]
    Spec(#[from] SpecError),
    #[error("the topics could not be looked at")]
    Topics(#[from] TopicsError),
    #[error("the topics are not safe to run on:\n{}", problems.join("\n"))]
    Unsafe { problems: Vec<String> },
    #[error("no schemas to write with")]
    Registry(#[from] RegistryError),
    #[error("the {role} could not start")]
    Start {
        role: &'static str,
        #[source]
        source: RoleError,
    },
    #[error("the {role} failed")]
    Failed {
        role: &'static str,
        #[source]
        source: RoleError,
    },
    #[error("the {role} ended without being asked to")]
    EndedUnasked { role: &'static str },
    #[error("the {role} panicked")]
    RolePanicked { role: &'static str },
    #[error("a task panicked; the log names it")]
    TaskPanicked,
    #[error(
        "not drained in time (drain_ms): {roles}; what they held is taken up again after the restart"
    )]
    NotDrained { roles: String },
    #[error("could not listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("interrupted before it was running, or while it drained")]
    Interrupted,
}

impl Classify for AppError {
    fn fault(&self) -> Fault {
        match self {
            Self::Workspace(error) => error.fault(),
            Self::Spec(error) => error.fault(),
            Self::Topics(error) => error.fault(),
            Self::Registry(error) => error.fault(),
            Self::Listen { .. }
            | Self::Unsafe { .. }
            | Self::Start { .. }
            | Self::Failed { .. }
            | Self::EndedUnasked { .. }
            | Self::RolePanicked { .. }
            | Self::TaskPanicked
            | Self::NotDrained { .. }
            | Self::Signals(_)
            | Self::Interrupted => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Workspace(error) => error.code(),
            Self::Spec(error) => error.code(),
            Self::Topics(error) => error.code(),
            Self::Registry(error) => error.code(),
            Self::Unsafe { .. } => "topics_unsafe",
            Self::Listen { .. } => "admin_listen",
            Self::Start { .. } => "role_start",
            Self::Failed { .. } => "role_failed",
            Self::EndedUnasked { .. } => "role_ended",
            Self::RolePanicked { .. } => "role_panicked",
            Self::TaskPanicked => "task_panicked",
            Self::NotDrained { .. } => "not_drained",
            Self::Signals(_) => "signals",
            Self::Interrupted => "interrupted",
        }
    }
}

//! What every role is given.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::control::Control;
use crate::event::TopicNames;
use crate::registry::Schemas;
use crate::shutdown::Shutdown;
use crate::telemetry::{Health, Registry};

/// What every role is given. Made in [`crate::app`] and nowhere else; cheap to clone.
#[derive(Clone)]
pub struct Deps {
    /// Process settings, validated.
    pub config: Arc<Config>,
    /// The customer's configuration.
    pub control: Control,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Names of topics.
    pub topics: TopicNames,
    /// Frames of records: ours, and what those of others mean.
    pub schemas: Schemas,
    /// Readiness.
    pub health: Health,
    /// Metrics.
    pub metrics: Registry,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// A role that was started. It ends by itself once shutdown has begun and it has drained.
#[derive(Debug)]
pub struct Role {
    /// `gateway`, `processor`, `router` or `warehouse`.
    pub name: &'static str,
    /// Where it listens, for roles that do.
    pub address: Option<std::net::SocketAddr>,
    /// Resolves when the role has ended; an error means that it could not go on.
    pub done: tokio::task::JoinHandle<Result<(), RoleError>>,
}

/// Why a role ended early. Every role's own error is behind it.
pub type RoleError = Box<dyn std::error::Error + Send + Sync>;

//! What can go wrong in one attempt.

use std::time::Duration;

use crate::event::{CodecError, DeadLetterReason, StampError};
use crate::fault::{Classify, Fault};

use super::response;

/// Settings of a destination that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigProblem {
    /// The setting it is about.
    pub key: String,
    /// What is wrong and what is wanted. Holds no secret.
    pub problem: String,
}

impl ConfigProblem {
    /// A problem with `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
        }
    }
}

/// Why an attempt did not deliver. The text of every variant is safe to keep and to show: cut and without secrets.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The record is not a delivery.
    #[error("record cannot be read: {0}")]
    Undecodable(#[source] CodecError),
    /// The event is not a JSON object.
    #[error("{0}")]
    Event(#[source] StampError),
    /// The event asks for a request that cannot or may not be made.
    #[error("no request can be made of the event: {0}")]
    Unrequestable(String),
    /// The destination's host is, or resolves to, an address that `block_private_ips` forbids.
    #[error("address of {host} is private, and router.http.block_private_ips is on")]
    ForbiddenAddress {
        /// Host as configured.
        host: String,
    },
    /// No connection: refused, unknown host, TLS failed. The service never saw the event.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The connection broke before the answer was complete. The service may have the event.
    #[error("connection broke: {0}")]
    Interrupted(String),
    /// No complete answer in time. The service may have the event.
    #[error("no answer within {} ms", after.as_millis())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The service answered with another status than success.
    #[error("HTTP {status}{}{body}", if body.is_empty() { "" } else { ": " })]
    Status {
        /// HTTP status.
        status: u16,
        /// What it said, cut and redacted.
        body: String,
        /// `Retry-After`.
        after: Option<Duration>,
    },
    /// The attempt ended in a bug of ours. Tried again: nothing says that the event is at fault.
    #[error("delivery ended unexpectedly")]
    Panicked,
}

impl DeliveryError {
    /// The answer's status, when there was one.
    pub fn http_status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Undecodable(_)
            | Self::Event(_)
            | Self::Unrequestable(_)
            | Self::ForbiddenAddress { .. }
            | Self::Unreachable(_)
            | Self::Interrupted(_)
            | Self::TimedOut { .. }
            | Self::Panicked => None,
        }
    }

    /// Whether this says that the service is away, whatever the event: one such failure tells as much about the next event.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Undecodable(_)
            | Self::Event(_)
            | Self::Unrequestable(_)
            | Self::ForbiddenAddress { .. }
            | Self::Interrupted(_)
            | Self::TimedOut { .. }
            | Self::Status { .. }
            | Self::Panicked => false,
        }
    }

    /// Whether the service asks for patience (408, 429): RudderStack never gives these up by count.
    pub fn is_throttled(&self) -> bool {
        matches!(self.http_status(), Some(408 | 429))
    }

    /// Whether the failure is about the event alone, not about the service or its settings.
    pub fn is_about_the_event(&self) -> bool {
        match self {
            Self::Undecodable(_) | Self::Event(_) | Self::Unrequestable(_) => true,
            Self::ForbiddenAddress { .. }
            | Self::Unreachable(_)
            | Self::Interrupted(_)
            | Self::TimedOut { .. }
            | Self::Status { .. }
            | Self::Panicked => false,
        }
    }

    /// The reason to dead-letter under, should the event be given up now.
    pub fn dead_letter_reason(&self) -> DeadLetterReason {
        match self {
            Self::Undecodable(_) => DeadLetterReason::Undecodable,
            Self::Event(_) | Self::Unrequestable(_) => DeadLetterReason::InvalidEvent,
            Self::ForbiddenAddress { .. } => DeadLetterReason::DestinationMisconfigured,
            Self::Status { .. } => match self.fault() {
                Fault::Permanent | Fault::Fatal => DeadLetterReason::Refused,
                Fault::Transient { .. } => DeadLetterReason::RetriesExhausted,
            },
            Self::Unreachable(_)
            | Self::Interrupted(_)
            | Self::TimedOut { .. }
            | Self::Panicked => DeadLetterReason::RetriesExhausted,
        }
    }
}

impl Classify for DeliveryError {
    fn fault(&self) -> Fault {
        match self {
            Self::Undecodable(_)
            | Self::Event(_)
            | Self::Unrequestable(_)
            | Self::ForbiddenAddress { .. } => Fault::Permanent,
            Self::Unreachable(_)
            | Self::Interrupted(_)
            | Self::TimedOut { .. }
            | Self::Panicked => Fault::RETRY,
            Self::Status { status, after, .. } => response::fault(*status, *after),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "undecodable",
            Self::Event(error) => error.code(),
            Self::Unrequestable(_) => "unrequestable",
            Self::ForbiddenAddress { .. } => "forbidden_address",
            Self::Unreachable(_) => "unreachable",
            Self::Interrupted(_) => "interrupted",
            Self::TimedOut { .. } => "timed_out",
            Self::Status { .. } => "status",
            Self::Panicked => "panicked",
        }
    }
}

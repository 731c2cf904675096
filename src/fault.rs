//! One answer to "what now?" for every error of the crate.
//!
//! A caller never inspects an error's variants to decide whether to try again: it asks [`Classify::fault`]. Each module's
//! error enum implements [`Classify`] beside its definition with an exhaustive `match`, so a new variant cannot be added
//! without answering the question.

use std::time::Duration;

/// What a caller may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The same input may pass later.
    Transient {
        /// How long the far side asked us to wait, when it said so (`Retry-After`).
        after: Option<Duration>,
    },
    /// This input can never pass. Dead-letter it; the next one may be fine.
    Permanent,
    /// No input can pass. Stop the role and say so.
    Fatal,
}

impl Fault {
    /// A transient fault without a hint how long to wait.
    pub const RETRY: Fault = Fault::Transient { after: None };

    /// Whether the same input may pass later.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Transient { .. } => true,
            Self::Permanent | Self::Fatal => false,
        }
    }
}

/// Implemented by every error enum of the crate.
pub trait Classify: std::error::Error + Send + Sync + 'static {
    /// What the caller may do about it.
    fn fault(&self) -> Fault;
    /// Stable `lower_snake` word: metric label, dead-letter header, log field.
    fn code(&self) -> &'static str;
}

/// An error with its causes, on one line: what is on the outside often leaves out what happened.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

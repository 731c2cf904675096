//! Exit codes, and errors that know theirs.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::fault::{Classify, Fault};
use crate::topics::SpecError;

/// How a command ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Not done.
    Failed = 1,
    /// The command line is wrong, or it needs a terminal or `--yes`.
    Usage = 2,
    /// The settings, the topics file or the workspace are wrong.
    Config = 3,
    /// Kafka or another server could not be reached, or turned us away.
    Connect = 4,
    /// Done in part; the rest is named on standard error and in the JSON.
    Partial = 5,
    /// There is something to change (`--detailed-exitcode`).
    Changes = 6,
    /// Interrupted before it was done.
    Interrupted = 130,
}

/// The table that `--help` and the README show.
pub(super) const TABLE: &str = "\
Exit codes:
    0  done
    1  failed
    2  wrong command line; or it would ask, without a terminal and without --yes
    3  settings, topics file or workspace are wrong
    4  could not connect, or was turned away
    5  done in part
    6  there is something to change (with --detailed-exitcode)
  130  interrupted";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, for people; causes behind it.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }

    /// A failure that consists of what is said about it.
    pub fn say(exit: Exit, message: impl Into<String>) -> Self {
        Self::new(exit, anyhow::Error::msg(message.into()))
    }

    /// A failure of talking to a server: code 4 when it may pass later.
    pub fn of(error: impl Classify) -> Self {
        let exit = match error.fault() {
            Fault::Transient { .. } => Exit::Connect,
            Fault::Permanent | Fault::Fatal => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::new(Exit::Config, error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

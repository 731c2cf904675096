//! What can go wrong between "I want a Kafka" and "it answers", each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fault::{Classify, Fault};
use crate::lock::LockError;

/// Why there is no local Kafka. The text is meant for the person at the terminal: it names the cause and the
/// likely fix.
#[derive(Debug, thiserror::Error)]
pub enum LocalKafkaError {
    /// No usable Java runtime was found.
    #[error(
        "no Java {needed} or newer found ({found}); install one (apt-get install openjdk-17-jre-headless) or point JAVA_HOME at it"
    )]
    NoJava {
        /// Lowest major version that runs this Kafka.
        needed: u32,
        /// What was looked at, for the message.
        found: String,
    },
    /// Maven is not installed and the jars are not in the cache yet.
    #[error(
        "Maven (mvn) is needed once to fetch Apache Kafka's jars and was not found; install it (apt-get install maven), \
         or set KAFKA_HOME to an unpacked Kafka, or SLUICE_BOOTSTRAP to a running cluster"
    )]
    NoMaven,
    /// Maven ran and failed.
    #[error(
        "Maven could not fetch Apache Kafka's jars; is Maven Central (or the mirror in ~/.m2/settings.xml) reachable?\n{tail}"
    )]
    Fetch {
        /// The end of Maven's output.
        tail: String,
    },
    /// `KAFKA_HOME` does not point at a Kafka that we can run.
    #[error("KAFKA_HOME={}: {reason}", path.display())]
    BadHome {
        /// What `KAFKA_HOME` says.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster that was named (by `SLUICE_BOOTSTRAP`, say) does not answer.
    #[error(
        "no Kafka answers at {bootstrap} ({reason}); start it, or do not name it (SLUICE_BOOTSTRAP) to have one started"
    )]
    Unreachable {
        /// Its addresses.
        bootstrap: String,
        /// The last failure seen.
        reason: String,
    },
    /// Another live process owns the data directory.
    #[error(
        "{} is in use by {owner}; stop that one, or choose another data directory",
        data_dir.display()
    )]
    InUse {
        /// The directory that is held.
        data_dir: PathBuf,
        /// Who holds it, as far as known ("process 1234").
        owner: String,
    },
    /// The data directory was made for another number of brokers.
    #[error("{} holds a cluster of {was}, not {wanted} broker(s); choose another data directory or remove it", data_dir.display())]
    OtherSize {
        /// The directory.
        data_dir: PathBuf,
        /// Brokers of the cluster that is there; 0 if its file cannot be read.
        was: usize,
        /// Brokers that were asked for.
        wanted: usize,
    },
    /// The storage tool could not prepare a data directory.
    #[error("Kafka's storage tool could not format {}\n{tail}", data_dir.display())]
    Format {
        /// The directory that was to be formatted.
        data_dir: PathBuf,
        /// The end of the tool's output.
        tail: String,
    },
    /// A broker ended before it was ready, or later without being asked to.
    #[error("Kafka broker {node} ended ({status}){}; its log is {}\n{tail}", hint_text(.hint), log.display())]
    Ended {
        /// Node id of the broker.
        node: i32,
        /// Exit status as the system words it.
        status: String,
        /// What the log suggests as the fix, if it is a known case.
        hint: Option<&'static str>,
        /// The broker's log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// A broker runs but did not answer in time.
    #[error("Kafka broker {node} did not answer within {waited:?} ({reason}); its log is {}\n{tail}", log.display())]
    NotReady {
        /// Node id of the broker.
        node: i32,
        /// How long we waited.
        waited: Duration,
        /// The last failure seen by the probe.
        reason: String,
        /// The broker's log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// A process from an earlier run would not go away.
    #[error("process {pid}, left by an earlier run on {}, does not end", data_dir.display())]
    Stale {
        /// Its process id.
        pid: i32,
        /// The data directory that it works on.
        data_dir: PathBuf,
    },
    /// Asked to stop, kill or restart a broker that this process did not start.
    #[error("no broker {node} was started here")]
    NotOurs {
        /// The node id that was asked for.
        node: i32,
    },
    /// A file, socket or process operation failed.
    #[error("could not {what}")]
    Io {
        /// What was attempted, with the path or address.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl LocalKafkaError {
    /// For `map_err`: an I/O failure while doing `what` to `path`.
    pub(super) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }
}

impl From<LockError> for LocalKafkaError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::InUse { dir, owner } => Self::InUse {
                data_dir: dir,
                owner,
            },
            LockError::Io {
                operation,
                path,
                source,
            } => Self::io(operation, &path)(source),
        }
    }
}

impl Classify for LocalKafkaError {
    fn fault(&self) -> Fault {
        match self {
            // May well go by themselves: a download, a busy machine, a port, another run that is about to
            // end.
            Self::Fetch { .. }
            | Self::Unreachable { .. }
            | Self::InUse { .. }
            | Self::Ended { .. }
            | Self::NotReady { .. }
            | Self::Stale { .. } => Fault::RETRY,
            // Somebody has to do something first.
            Self::NoJava { .. }
            | Self::NoMaven
            | Self::BadHome { .. }
            | Self::OtherSize { .. }
            | Self::Format { .. }
            | Self::NotOurs { .. }
            | Self::Io { .. } => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoJava { .. } => "no_java",
            Self::NoMaven => "no_maven",
            Self::Fetch { .. } => "fetch",
            Self::BadHome { .. } => "bad_home",
            Self::Unreachable { .. } => "unreachable",
            Self::InUse { .. } => "in_use",
            Self::OtherSize { .. } => "other_size",
            Self::Format { .. } => "format",
            Self::Ended { .. } => "ended",
            Self::NotReady { .. } => "not_ready",
            Self::Stale { .. } => "stale",
            Self::NotOurs { .. } => "not_ours",
            Self::Io { .. } => "io",
        }
    }
}

fn hint_text(hint: &Option<&'static str>) -> String {
    hint.map(|hint| format!(": {hint}")).unwrap_or_default()
}

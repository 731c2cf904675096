//! A real Apache Kafka on this machine, for dev mode and for tests.
//!
//! There is no Kafka worth the name that embeds into a Rust process, so we run the real one: KRaft, one node
//! (or three), from its published jars. Nothing here uses the rest of the crate.
//!
//! ```no_run
//! use sluice::dev::kafka::{LocalKafka, LocalKafkaOptions};
//!
//! # fn main() -> Result<(), sluice::dev::kafka::LocalKafkaError> {
//! let kafka = LocalKafka::find_or_start(LocalKafkaOptions::new(".dev/kafka"))?;
//! println!("{}", kafka.bootstrap());
//! kafka.stop()
//! # }
//! ```
//!
//! Which Kafka, in this order ([`find`]): the cluster that `SLUICE_BOOTSTRAP` names; the distribution in
//! `KAFKA_HOME`; jars that Maven fetches once into the user's cache ([`fetch`]), with a class-data archive
//! beside them that makes the next starts fast ([`archive`]).
//!
//! What lies in the data directory:
//!
//! ```text
//! owner.lock         held by the one live owner ([`owner`])
//! cluster            id and number of brokers, chosen once
//! node-1/            a broker's working directory ([`node`])
//!   server.properties, log4j2.properties    written anew at every start ([`settings`])
//!   ports            of the last start; kept if they are still free ([`ports`])
//!   broker.pid       process and its start time ([`process`])
//!   formatted        the storage tool has finished
//!   data/            topics and metadata
//!   broker.log, console.log
//! ```
//!
//! Who cleans up: `stop` stops in good order; dropping kills; if we are killed, the kernel kills the brokers
//! with us, and should one live on (not on Linux), the next start on the same directory finds it by its pid
//! file and ends it first. Nothing acknowledged is lost in any of these: a killed process leaves its writes
//! in the page cache.

mod archive;
mod cluster;
mod error;
mod failure;
mod fetch;
mod find;
mod java;
mod jvm;
mod node;
mod options;
mod ports;
mod probe;
mod process;
mod settings;
mod shared;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use error::LocalKafkaError;
pub use find::Distribution;
pub use options::{ClusterSize, LocalKafkaOptions, Progress};

use cluster::Cluster;
use find::Wanted;
use jvm::Jvm;

/// A cluster named by `SLUICE_BOOTSTRAP` is somebody else's to start, perhaps at this moment.
const FOREIGN_ANSWERS_WITHIN: Duration = Duration::from_secs(15);

/// The Java runtime that a local Kafka runs on: what else tests run on one finds it so too.
///
/// # Errors
/// When there is none that is new enough.
pub fn java_runtime() -> Result<std::path::PathBuf, LocalKafkaError> {
    java::find().map(|java| java.path)
}

/// A Kafka that answers. Dropping it kills the brokers that were started for it; prefer [`LocalKafka::stop`].
#[derive(Debug)]
pub struct LocalKafka {
    bootstrap: String,
    ours: Option<(Cluster, Distribution)>,
}

impl LocalKafka {
    /// Uses the cluster in `SLUICE_BOOTSTRAP`, or starts one. Blocks until it answers: some two seconds, the
    /// first time on a machine also the download and the making of the archive. In async code use
    /// [`LocalKafka::find_or_start_async`].
    ///
    /// # Errors
    /// See [`LocalKafkaError`]; each says what to do.
    pub fn find_or_start(options: LocalKafkaOptions) -> Result<Self, LocalKafkaError> {
        match find::wanted(|name| std::env::var(name).ok()) {
            Wanted::Cluster(bootstrap) => Self::foreign(bootstrap),
            wanted @ (Wanted::Home(_) | Wanted::Jars) => Self::start_wanted(&wanted, options),
        }
    }

    /// Starts a cluster whatever `SLUICE_BOOTSTRAP` says: for tests that kill brokers or count them.
    ///
    /// # Errors
    /// See [`LocalKafkaError`].
    pub fn start(options: LocalKafkaOptions) -> Result<Self, LocalKafkaError> {
        let wanted = find::wanted(|name| {
            std::env::var(name)
                .ok()
                .filter(|_| name != "SLUICE_BOOTSTRAP")
        });
        Self::start_wanted(&wanted, options)
    }

    /// [`LocalKafka::find_or_start`] on a thread that may block.
    ///
    /// # Errors
    /// As [`LocalKafka::find_or_start`].
    pub async fn find_or_start_async(options: LocalKafkaOptions) -> Result<Self, LocalKafkaError> {
        blocking(move || Self::find_or_start(options)).await
    }

    /// A cluster that somebody else runs. Waits a moment for it to answer, as it may be starting.
    ///
    /// # Errors
    /// [`LocalKafkaError::Unreachable`].
    pub async fn at_async(bootstrap: String) -> Result<Self, LocalKafkaError> {
        blocking(move || Self::foreign(bootstrap)).await
    }

    /// The one cluster of this test process, started by the first caller. Its data is in a temporary folder
    /// that goes when the process ends, as do the brokers, also when it is killed. Tests share it: use topics
    /// of your own.
    ///
    /// # Errors
    /// The first caller's failure, for every caller.
    pub fn shared() -> Result<&'static Self, &'static LocalKafkaError> {
        shared::shared()
    }

    /// Addresses for a client's `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Whether the brokers were started here.
    pub fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// What runs, if it was started here.
    pub fn distribution(&self) -> Option<&Distribution> {
        self.ours.as_ref().map(|(_, distribution)| distribution)
    }

    /// The process id of a broker that was started here and not stopped. Nodes are numbered from 1.
    pub fn pid(&self, node: i32) -> Option<u32> {
        self.ours.as_ref()?.0.pid(node)
    }

    /// The log file of a broker that was started here.
    pub fn log(&self, node: i32) -> Option<PathBuf> {
        self.ours.as_ref()?.0.log(node)
    }

    /// Looks whether the brokers that should run do. Does not block.
    ///
    /// # Errors
    /// [`LocalKafkaError::Ended`] with the broker's last words.
    pub fn check(&self) -> Result<(), LocalKafkaError> {
        self.ours
            .as_ref()
            .map_or(Ok(()), |(cluster, _)| cluster.check())
    }

    /// Kills one broker with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// [`LocalKafkaError::NotOurs`] if it was not started here.
    pub fn kill9(&self, node: i32) -> Result<(), LocalKafkaError> {
        self.cluster(node)?.kill_node(node)
    }

    /// Stops one broker in good order (SIGTERM, and SIGKILL after the grace).
    ///
    /// # Errors
    /// [`LocalKafkaError::NotOurs`] if it was not started here.
    pub fn stop_broker(&self, node: i32) -> Result<(), LocalKafkaError> {
        self.cluster(node)?.stop_node(node)
    }

    /// Starts one broker again at its address, after stopping it in good order if it runs. Blocks until it
    /// answers.
    ///
    /// # Errors
    /// [`LocalKafkaError::NotOurs`] if it was not started here, else as a first start.
    pub fn restart(&self, node: i32) -> Result<(), LocalKafkaError> {
        self.cluster(node)?.restart_node(node)
    }

    /// Stops all brokers that were started here in good order. Blocks, at most for the grace in the options.
    ///
    /// # Errors
    /// A process that can be neither stopped nor killed.
    pub fn stop(self) -> Result<(), LocalKafkaError> {
        self.ours.map_or(Ok(()), |(cluster, _)| cluster.stop())
    }

    /// [`LocalKafka::stop`] on a thread that may block.
    ///
    /// # Errors
    /// As [`LocalKafka::stop`].
    pub async fn stop_async(self) -> Result<(), LocalKafkaError> {
        blocking(move || self.stop()).await
    }

    fn start_wanted(wanted: &Wanted, options: LocalKafkaOptions) -> Result<Self, LocalKafkaError> {
        let java = java::find()?;
        let options = LocalKafkaOptions {
            cache_dir: absolute(&options.cache_dir)?,
            ..options
        };
        let distribution = find::distribution(wanted, &options)?;
        let archive = archive::ready(&java, &distribution, &options);
        let jvm = Jvm {
            java,
            distribution: distribution.clone(),
            heap_mib: options.heap_mib,
            archive,
        };
        (options.progress)(&format!("starting Apache Kafka {}", distribution.version));
        let cluster = Cluster::start(jvm, options)?;
        Ok(Self {
            bootstrap: cluster.bootstrap(),
            ours: Some((cluster, distribution)),
        })
    }

    fn foreign(bootstrap: String) -> Result<Self, LocalKafkaError> {
        let until = Instant::now() + FOREIGN_ANSWERS_WITHIN;
        loop {
            let mut reason = "it names no address".to_owned();
            for address in bootstrap
                .split(',')
                .map(str::trim)
                .filter(|address| !address.is_empty())
            {
                match probe::metadata(address) {
                    Ok(_) => {
                        return Ok(Self {
                            bootstrap,
                            ours: None,
                        });
                    }
                    Err(error) => reason = format!("{address}: {error}"),
                }
            }
            if Instant::now() >= until {
                return Err(LocalKafkaError::Unreachable { bootstrap, reason });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn cluster(&self, node: i32) -> Result<&Cluster, LocalKafkaError> {
        self.ours
            .as_ref()
            .map(|(cluster, _)| cluster)
            .ok_or(LocalKafkaError::NotOurs { node })
    }
}

/// Class paths are given to programs that run in other folders.
fn absolute(path: &Path) -> Result<PathBuf, LocalKafkaError> {
    std::path::absolute(path).map_err(LocalKafkaError::io("resolve", path))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // The task is never cancelled, so that it can only have panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

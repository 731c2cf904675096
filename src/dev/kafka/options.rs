//! What a caller can choose about the local Kafka, and the defaults.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How many brokers to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterSize {
    /// One broker that is its own controller; every internal topic has one replica.
    One,
    /// Three brokers, each also a controller, so that any one of them can be killed. Topics default to three
    /// replicas of which two must be in sync.
    Three,
}

impl ClusterSize {
    /// The node ids, in order.
    pub fn nodes(self) -> &'static [i32] {
        match self {
            Self::One => &[1],
            Self::Three => &[1, 2, 3],
        }
    }
}

/// Receives one short line for each step that a person may have to wait for.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// What to start and where to keep it. [`LocalKafkaOptions::new`] has the defaults; change fields as needed.
#[derive(Clone)]
pub struct LocalKafkaOptions {
    /// Everything the brokers write: logs of topics, settings, log files, pid files. Survives restarts. One
    /// live owner at a time.
    pub data_dir: PathBuf,
    /// Jars and class-data archives, shared by all projects and processes of this user.
    pub cache_dir: PathBuf,
    /// One broker or three.
    pub size: ClusterSize,
    /// Java heap of each broker, in MiB. Kafka keeps its data outside of the heap; 256 carries several
    /// hundred thousand records a second.
    pub heap_mib: u32,
    /// Whether the data directory stays when the cluster is stopped or dropped.
    pub keep_data: bool,
    /// Called with progress lines.
    pub progress: Progress,
    /// How long a broker may take until it answers, on a busy machine.
    pub ready_within: Duration,
    /// How long a broker may take to stop by itself before it is killed.
    pub stop_grace: Duration,
    /// Broker settings that are added to, or replace, those of [`settings`](super::settings).
    pub broker_settings: Vec<(String, String)>,
}

impl LocalKafkaOptions {
    /// One broker with its data in `data_dir`, kept; 256 MiB of heap; silent.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cache_dir: cache_dir(|name| std::env::var_os(name)),
            size: ClusterSize::One,
            heap_mib: 256,
            keep_data: true,
            progress: Arc::new(|_| {}),
            ready_within: Duration::from_secs(90),
            stop_grace: Duration::from_secs(20),
            broker_settings: Vec::new(),
        }
    }
}

impl fmt::Debug for LocalKafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKafkaOptions")
            .field("data_dir", &self.data_dir)
            .field("cache_dir", &self.cache_dir)
            .field("size", &self.size)
            .field("heap_mib", &self.heap_mib)
            .field("keep_data", &self.keep_data)
            .field("ready_within", &self.ready_within)
            .field("stop_grace", &self.stop_grace)
            .field("broker_settings", &self.broker_settings)
            .finish_non_exhaustive()
    }
}

/// `$XDG_CACHE_HOME/sluice`, else `~/.cache/sluice`, else a folder under the system's temporary one.
fn cache_dir(env: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name| {
        env(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    // The XDG base directory specification says that relative paths are to be ignored.
    set("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("sluice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_follows_the_xdg_variable_and_ignores_a_relative_one() {
        let env = |xdg: &'static str| {
            move |name: &str| {
                (name == "XDG_CACHE_HOME")
                    .then(|| xdg.into())
                    .or_else(|| (name == "HOME").then(|| "/home/u".into()))
            }
        };
        assert_eq!(cache_dir(env("/c")), PathBuf::from("/c/sluice"));
        assert_eq!(cache_dir(env("c")), PathBuf::from("/home/u/.cache/sluice"));
        assert_eq!(cache_dir(env("")), PathBuf::from("/home/u/.cache/sluice"));
    }
}

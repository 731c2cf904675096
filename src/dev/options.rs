//! What dev mode can be told, and the settings it makes of that.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::kafka::Progress;
use crate::app::RoleName;
use crate::config::{BatchConfig, Config, Mode, TopicsConfig, WarehouseConfig};

/// The port that people expect, taken unless it is in use.
const GATEWAY_PORT: u16 = 8080;
/// How often a changed workspace file is noticed, in milliseconds: somebody is waiting for it.
const WORKSPACE_POLL_MS: u64 = 500;

/// How long the roles may take to drain, in milliseconds: somebody waits for the prompt.
const DRAIN_MS: u64 = 10_000;

/// How old a row gets before it is in a staging file, in milliseconds.
const BATCH_AGE_MS: u64 = 500;
/// Between two loads, in milliseconds.
const LOAD_INTERVAL_MS: u64 = 500;

/// What dev mode can be told.
pub struct DevOptions {
    /// Everything that is written: Kafka's data, the webhook's log, staging files, the warehouse. Kept over restarts.
    pub data_dir: PathBuf,
    /// Sources and destinations, in RudderStack's shape or ours; without it a sample.
    pub workspace: Option<PathBuf>,
    /// Port of the gateway; without it 8080, or any free one if that is taken.
    pub gateway_port: Option<u16>,
    /// Port of the built-in webhook, for a workspace of one's own that names it; without it any free one.
    pub webhook_port: Option<u16>,
    /// Brokers to use instead of starting one; wins over `SLUICE_BOOTSTRAP`.
    pub bootstrap: Option<String>,
    /// What to run.
    pub roles: Vec<RoleName>,
    /// Settings from file and environment; dev mode lays its own over them.
    pub config: Config,
    /// Called with a line for each step that takes a while.
    pub progress: Progress,
}

/// The settings of the roles: the given ones, with what dev mode decides over them. `data_dir` is the absolute path of the
/// options' folder. Pure but for a look at the port.
pub(super) fn config(
    options: &DevOptions,
    kafka: &Cluster<'_>,
    workspace: &Path,
    data_dir: &Path,
) -> Config {
    let mut config = options.config.clone();
    config.mode = Mode::Dev;
    config.kafka.bootstrap = kafka.bootstrap.to_owned();
    if kafka.shared && config.topics.prefix == TopicsConfig::default().prefix {
        config.topics.prefix = shared_prefix(kafka.host, data_dir);
    }
    // Stable, so that a restart takes over from the process before it at once.
    config.instance.get_or_insert_with(|| "dev".to_owned());
    config.drain_ms.get_or_insert(DRAIN_MS);
    config.workspace.file = Some(workspace.to_owned());
    config.workspace.poll_ms = WORKSPACE_POLL_MS;
    config.admin.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.gateway.listen =
        SocketAddr::from((Ipv4Addr::LOCALHOST, gateway_port(options.gateway_port)));
    warehouse(&mut config.warehouse, data_dir);
    config
}

/// Staging files lie beside everything else, and rows come while somebody looks.
fn warehouse(config: &mut WarehouseConfig, data_dir: &Path) {
    let staging = url::Url::from_directory_path(data_dir.join("staging")).ok();
    if config.object_store.url.is_none() {
        config.object_store.url = staging.map(String::from);
    }
    if config.batch.age_ms_max == BatchConfig::default().age_ms_max {
        config.batch.age_ms_max = BATCH_AGE_MS;
    }
    config.load.interval_ms.get_or_insert(LOAD_INTERVAL_MS);
}

/// The cluster that is used.
pub(super) struct Cluster<'a> {
    pub(super) bootstrap: &'a str,
    /// Whether others may use it too.
    pub(super) shared: bool,
    /// Name of the machine that we run on.
    pub(super) host: &'a str,
}

/// A prefix for one data directory of one machine on a cluster that serves several: two of them must not read each other's
/// topics, or fence each other's transactions.
fn shared_prefix(host: &str, data_dir: &Path) -> String {
    let place = [
        host.as_bytes(),
        b":",
        data_dir.as_os_str().as_encoded_bytes(),
    ];
    let hash = twox_hash::XxHash64::oneshot(0, &place.concat());
    format!("sluice-dev-{hash:016x}.")
}

fn gateway_port(wanted: Option<u16>) -> u16 {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    wanted.unwrap_or_else(|| Some(GATEWAY_PORT).filter(free).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn options(data_dir: &str) -> DevOptions {
        DevOptions {
            data_dir: data_dir.into(),
            workspace: None,
            gateway_port: Some(4321),
            webhook_port: None,
            bootstrap: None,
            roles: Vec::new(),
            config: Config::default(),
            progress: Arc::new(|_| {}),
        }
    }

    #[test]
    fn two_data_directories_keep_apart_on_a_shared_cluster_and_each_finds_its_topics_again() {
        // Both are called `.dev`, as most are.
        let prefix = |host, dir: &str, shared| {
            let cluster = Cluster {
                bootstrap: "k:1",
                shared,
                host,
            };
            let workspace = Path::new("w.yaml");
            config(&options(".dev"), &cluster, workspace, Path::new(dir))
                .topics
                .prefix
        };
        let one = prefix("here", "/one/.dev", true);
        assert_ne!(one, prefix("here", "/two/.dev", true));
        assert_ne!(one, prefix("there", "/one/.dev", true));
        assert_eq!(one, prefix("here", "/one/.dev", true));
        assert_eq!(prefix("here", "/one/.dev", false), "sluice.");
    }

    #[test]
    fn the_settings_are_valid_and_listen_on_the_loopback_address_only() {
        let cluster = Cluster {
            bootstrap: "k:1",
            shared: true,
            host: "here",
        };
        let config = config(
            &options("/a"),
            &cluster,
            Path::new("w.yaml"),
            Path::new("/a b"),
        );
        config.validate().unwrap();
        let staging = config.warehouse.object_store.url.as_deref();
        assert_eq!(staging, Some("file:///a%20b/staging/"));
        assert_eq!(config.gateway.listen.to_string(), "127.0.0.1:4321");
        assert!(config.admin.listen.ip().is_loopback());
        assert_eq!(config.mode, Mode::Dev);
    }
}

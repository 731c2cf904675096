//! The brokers of one data directory together.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use parking_lot::Mutex;

use super::error::LocalKafkaError;
use super::jvm::Jvm;
use super::node::Node;
use super::options::{ClusterSize, LocalKafkaOptions};
use super::ports;
use super::settings::{Peer, server_properties};
use crate::lock::FolderLock;

/// Ports are checked and then released for the broker to take; another process can be faster, hardly three
/// times.
const PORT_ATTEMPTS: u32 = 3;

/// Running brokers and the right to run them.
#[derive(Debug)]
pub(super) struct Cluster {
    nodes: Mutex<Vec<Node>>,
    peers: Vec<Peer>,
    cluster_id: String,
    jvm: Jvm,
    options: LocalKafkaOptions,
    // After the nodes: they are killed before the directory is given up.
    _owner: FolderLock,
}

impl Cluster {
    /// Takes the data directory, ends what an earlier run left there, and starts the brokers. Blocks until
    /// all of them answer.
    pub(super) fn start(jvm: Jvm, options: LocalKafkaOptions) -> Result<Self, LocalKafkaError> {
        let owner = FolderLock::take(&options.data_dir, "owner.lock")?;
        // Relative paths would mean something else to the brokers, which run in their own folders.
        let data_dir = fs::canonicalize(&options.data_dir)
            .map_err(LocalKafkaError::io("resolve", &options.data_dir))?;
        let options = LocalKafkaOptions {
            data_dir,
            ..options
        };
        for id in options.size.nodes() {
            if let Some(pid) =
                Node::end_stale(&node_dir(&options.data_dir, *id), options.stop_grace)?
            {
                (options.progress)(&format!(
                    "stopped Kafka process {pid} that an earlier run had left"
                ));
            }
        }
        let cluster_id = cluster_id(&options.data_dir, options.size)?;
        let mut attempt = 1;
        let (nodes, peers) = loop {
            match start_nodes(&jvm, &options, &cluster_id, attempt == 1) {
                Err(StartFailure {
                    lost_port: true, ..
                }) if attempt < PORT_ATTEMPTS => attempt += 1,
                Err(failure) => return Err(failure.error),
                Ok(started) => break started,
            }
        };
        Ok(Self {
            nodes: Mutex::new(nodes),
            peers,
            cluster_id,
            jvm,
            options,
            _owner: owner,
        })
    }

    pub(super) fn bootstrap(&self) -> String {
        let addresses: Vec<_> = self
            .peers
            .iter()
            .map(|peer| format!("127.0.0.1:{}", peer.client_port))
            .collect();
        addresses.join(",")
    }

    /// Asks all brokers to stop, waits for them, and kills those that do not in time.
    pub(super) fn stop(&self) -> Result<(), LocalKafkaError> {
        let until = Instant::now() + self.options.stop_grace;
        let mut nodes = self.nodes.lock();
        nodes.iter_mut().for_each(Node::ask_to_stop);
        for node in nodes.iter_mut() {
            if !node.finish(until)? {
                tracing::warn!(node = node.peer.id, grace = ?self.options.stop_grace, "kafka broker did not stop in time and was killed");
            }
        }
        Ok(())
    }

    /// Stops one broker in good order.
    pub(super) fn stop_node(&self, id: i32) -> Result<(), LocalKafkaError> {
        self.with(id, |node| {
            node.ask_to_stop();
            node.finish(Instant::now() + self.options.stop_grace)
                .map(drop)
        })
    }

    /// Kills one broker as a power cut would.
    pub(super) fn kill_node(&self, id: i32) -> Result<(), LocalKafkaError> {
        self.with(id, |node| node.finish(Instant::now()).map(drop))
    }

    /// Stops one broker if it runs, and starts it with the same ports. Blocks until it answers.
    pub(super) fn restart_node(&self, id: i32) -> Result<(), LocalKafkaError> {
        self.with(id, |node| {
            node.ask_to_stop();
            node.finish(Instant::now() + self.options.stop_grace)?;
            node.start(&self.jvm)?;
            let peer = node.peer;
            node.wait_ready(
                &[peer],
                &self.cluster_id,
                Instant::now() + self.options.ready_within,
            )
        })
    }

    /// The process id of a broker that was started and not stopped.
    pub(super) fn pid(&self, id: i32) -> Option<u32> {
        self.nodes
            .lock()
            .iter()
            .find(|node| node.peer.id == id)
            .and_then(Node::pid)
    }

    /// The log file of a broker.
    pub(super) fn log(&self, id: i32) -> Option<PathBuf> {
        self.nodes
            .lock()
            .iter()
            .find(|node| node.peer.id == id)
            .map(Node::log)
    }

    /// An error if a broker has ended that nobody asked to.
    pub(super) fn check(&self) -> Result<(), LocalKafkaError> {
        self.nodes.lock().iter_mut().try_for_each(Node::check)
    }

    fn with<T>(
        &self,
        id: i32,
        act: impl FnOnce(&mut Node) -> Result<T, LocalKafkaError>,
    ) -> Result<T, LocalKafkaError> {
        let mut nodes = self.nodes.lock();
        act(nodes
            .iter_mut()
            .find(|node| node.peer.id == id)
            .ok_or(LocalKafkaError::NotOurs { node: id })?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.get_mut().clear();
        if !self.options.keep_data
            && let Err(error) = fs::remove_dir_all(&self.options.data_dir)
        {
            tracing::warn!(%error, dir = %self.options.data_dir.display(), "could not remove the data of a local kafka");
        }
    }
}

struct StartFailure {
    error: LocalKafkaError,
    lost_port: bool,
}

impl From<LocalKafkaError> for StartFailure {
    fn from(error: LocalKafkaError) -> Self {
        Self {
            error,
            lost_port: false,
        }
    }
}

fn start_nodes(
    jvm: &Jvm,
    options: &LocalKafkaOptions,
    cluster_id: &str,
    keep_ports: bool,
) -> Result<(Vec<Node>, Vec<Peer>), StartFailure> {
    let peers = choose_ports(options, keep_ports)?;
    let mut nodes: Vec<_> = peers
        .iter()
        .map(|peer| Node::new(*peer, node_dir(&options.data_dir, peer.id)))
        .collect();
    for node in &mut nodes {
        let properties =
            server_properties(&node.peer, &peers, options.size, &options.broker_settings);
        node.prepare(&properties, jvm, cluster_id)?;
    }
    for node in &mut nodes {
        node.start(jvm)?;
    }
    let until = Instant::now() + options.ready_within;
    for node in &mut nodes {
        if let Err(error) = node.wait_ready(&peers, cluster_id, until) {
            // The broker that is not ready need not be the one at fault.
            let lost_port = nodes.iter().any(Node::lost_its_port);
            return Err(StartFailure { error, lost_port });
        }
    }
    Ok((nodes, peers))
}

fn choose_ports(options: &LocalKafkaOptions, keep: bool) -> Result<Vec<Peer>, LocalKafkaError> {
    let mut taken = Vec::new();
    let mut choose = |before: Option<u16>| -> Result<u16, LocalKafkaError> {
        let port =
            ports::free(before.filter(|_| keep), &taken).ok_or_else(|| LocalKafkaError::Io {
                what: "find a free port".into(),
                source: std::io::ErrorKind::AddrInUse.into(),
            })?;
        taken.push(port);
        Ok(port)
    };
    let peer = |id: &i32| {
        let (client, controller) = Node::last_ports(&node_dir(&options.data_dir, *id));
        Ok(Peer {
            id: *id,
            client_port: choose(client)?,
            controller_port: choose(controller)?,
        })
    };
    options.size.nodes().iter().map(peer).collect()
}

fn node_dir(data_dir: &Path, id: i32) -> PathBuf {
    data_dir.join(format!("node-{id}"))
}

/// The id of the cluster in this directory, invented the first time. Its file also says how many brokers the
/// cluster has, which cannot be changed afterwards.
fn cluster_id(data_dir: &Path, size: ClusterSize) -> Result<String, LocalKafkaError> {
    let path = data_dir.join("cluster");
    let brokers = size.nodes().len();
    if let Ok(text) = fs::read_to_string(&path)
        && let [id, was] = text.split_whitespace().collect::<Vec<_>>()[..]
    {
        return match was.parse() {
            Ok(was) if was == brokers => Ok(id.to_owned()),
            Ok(was) => Err(LocalKafkaError::OtherSize {
                data_dir: data_dir.to_owned(),
                was,
                wanted: brokers,
            }),
            Err(_) => Err(LocalKafkaError::OtherSize {
                data_dir: data_dir.to_owned(),
                was: 0,
                wanted: brokers,
            }),
        };
    }
    let id = new_cluster_id();
    let staged = data_dir.join("cluster.new");
    fs::write(&staged, format!("{id} {brokers}\n"))
        .map_err(LocalKafkaError::io("write", &staged))?;
    fs::rename(&staged, &path).map_err(LocalKafkaError::io("write", &path))?;
    Ok(id)
}

/// Kafka's form of a UUID: 22 characters of URL-safe base64. Kafka's own generator avoids a leading dash,
/// which command lines take for an option.
fn new_cluster_id() -> String {
    use base64::Engine as _;
    loop {
        let id = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(uuid::Uuid::new_v4().as_bytes());
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_keeps_its_id_and_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let id = cluster_id(dir.path(), ClusterSize::One).unwrap();
        assert_eq!(id.len(), 22);
        assert_eq!(cluster_id(dir.path(), ClusterSize::One).unwrap(), id);
        let refused = cluster_id(dir.path(), ClusterSize::Three)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("holds a cluster of 1"), "{refused}");
    }

    #[test]
    fn brokers_of_one_cluster_get_different_ports() {
        let dir = tempfile::tempdir().unwrap();
        let options = LocalKafkaOptions {
            size: ClusterSize::Three,
            ..LocalKafkaOptions::new(dir.path())
        };
        let peers = choose_ports(&options, true).unwrap();
        let mut ports: Vec<_> = peers
            .iter()
            .flat_map(|peer| [peer.client_port, peer.controller_port])
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }
}

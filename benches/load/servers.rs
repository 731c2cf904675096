//! What is measured, as child processes that end with us.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::process::{self, Bed, Process};

/// A release start with new topics takes a second or two; a first one on a busy machine much longer.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Some roles of Sluice, each a process of its own, so that what each costs can be told apart.
pub struct Sluice {
    bed: Bed,
    roles: Vec<(&'static str, Process)>,
    /// Gateway.
    pub address: SocketAddr,
    /// Full name of the `events` topic.
    pub events: String,
}

/// Write key of the only source.
pub const WRITE_KEY: &str = "load-key";

impl Sluice {
    /// Makes the topics and starts `roles`; `workspace` is in our shape.
    pub fn start(bootstrap: &str, name: &str, roles: &[&'static str], workspace: &Value) -> Self {
        let mut bed = Bed::new(bootstrap, name);
        let address = process::free_address();
        bed.set("gateway.listen", address.to_string());
        bed.set("log.level", "warn");
        let staging = format!("file://{}", bed.path("staging").display());
        bed.set("warehouse.object_store.url", staging);
        bed.workspace(workspace);
        bed.run(&["topics", "apply", "--yes"]);
        let started = roles
            .iter()
            .map(|role| (*role, bed.role(role, role).start_ready(READY_WITHIN)))
            .collect();
        Self {
            address,
            events: bed.topic("events"),
            roles: started,
            bed,
        }
    }

    /// Process ids by role.
    pub fn pids(&self) -> Vec<(&'static str, u32)> {
        self.roles
            .iter()
            .map(|(role, p)| (*role, p.pid()))
            .collect()
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bed.path(name)
    }
}

/// A source without destinations.
pub fn source_only() -> Value {
    json!({"sources": [{"id": "load", "write_key": WRITE_KEY}]})
}

/// A source with a webhook, and with a SQLite warehouse if `warehouse` is set.
pub fn with_webhook(url: &str, warehouse: Option<&Path>) -> Value {
    let mut workspace = source_only();
    workspace["destinations"] =
        json!([{"id": "hook", "type": "WEBHOOK", "config": {"webhookUrl": url}}]);
    workspace["connections"] = json!([{"source": "load", "destination": "hook"}]);
    if let Some(path) = warehouse {
        let lists = ["destinations", "connections"]
            .map(|k| workspace[k].as_array().cloned().unwrap_or_default());
        let [mut destinations, mut connections] = lists;
        destinations.push(json!({"id": "rows", "type": "SQLITE", "config": {"path": path}}));
        connections.push(json!({"source": "load", "destination": "rows"}));
        workspace["destinations"] = destinations.into();
        workspace["connections"] = connections.into();
    }
    workspace
}

/// The least gateway as a process of its own.
pub struct Least {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Least {
    /// Starts this very program in that role.
    pub fn start(bootstrap: &str, topic: &str, dir: &Path) -> Result<Self> {
        let address = process::free_address();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["least-gateway", "--bootstrap", bootstrap, "--topic", topic])
            .args(["--listen", &address.to_string()]);
        let process = Process::spawn("least-gateway", command, dir.join("least.log"));
        process::wait_for("the least gateway answers", READY_WITHIN, || {
            matches!(process::get(address, "/health"), Ok((200, _))).then_some(())
        });
        Ok(Self { process, address })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

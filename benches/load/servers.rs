//! What is measured, as child processes that end with us.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process::{self, Process};

/// A release start with new topics takes a second or two; a first one on a busy machine much longer.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A `sluice dev` under load.
pub struct Sluice {
    process: Process,
    /// Gateway.
    pub address: SocketAddr,
    /// Write key of the source.
    pub write_key: String,
    /// Full name of the `events` topic.
    pub events: String,
    /// Topic prefix, with its dot.
    pub prefix: String,
}

impl Sluice {
    /// Starts `roles` in one process; `workspace` is in our shape.
    pub fn start(
        bootstrap: &str,
        dir: &Path,
        prefix: &str,
        roles: &str,
        workspace: &Value,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join("workspace.json");
        std::fs::write(&file, workspace.to_string())?;
        let mut command = process::binary();
        command
            .args([
                "dev",
                "--output",
                "json",
                "--gateway-port",
                "0",
                "--roles",
                roles,
            ])
            .arg("--data-dir")
            .arg(dir.join("data"))
            .arg("--workspace")
            .arg(&file)
            .env("SLUICE_BOOTSTRAP", bootstrap)
            .env("SLUICE__TOPICS__PREFIX", prefix)
            .env("RUST_LOG", "warn");
        let mut process = Process::spawn("sluice", command, dir.join("sluice.log"));
        let line = process::wait_for("sluice dev says that it is ready", READY_WITHIN, || {
            let log = process.log();
            let found = log
                .lines()
                .find(|line| line.starts_with('{') && line.contains("\"gateway\""));
            if found.is_none() && process.ended().is_some() {
                panic!("sluice dev ended:\n{log}");
            }
            found.map(str::to_owned)
        });
        let ready: Value = serde_json::from_str(&line).context("the line of sluice dev")?;
        let text = |key: &str| {
            ready[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no {key} in {line}"))
        };
        let prefix = text("topic_prefix")?;
        Ok(Self {
            address: text("gateway")?
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .parse()?,
            write_key: text("write_key")?,
            events: format!("{prefix}events"),
            prefix,
            process,
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A source without destinations.
pub fn source_only() -> Value {
    json!({"sources": [{"id": "load", "write_key": "load-key"}]})
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

//! What dev mode says when it is ready: one JSON object for scripts, or a page for people.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::app::RoleName;

/// Where everything is. The JSON form is read by scripts: keys are only ever added.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// Version of this shape.
    pub version: u32,
    /// Base URL of the gateway; none if it is not one of the roles.
    pub gateway: Option<String>,
    /// A write key that the gateway accepts: the user of HTTP basic authentication.
    pub write_key: String,
    /// Kafka's `bootstrap.servers`.
    pub bootstrap: String,
    /// What every topic's name begins with.
    pub topic_prefix: String,
    /// URL of the built-in webhook.
    pub webhook: String,
    /// The file with one JSON line for each request that the built-in webhook got.
    pub webhook_log: PathBuf,
    /// The SQLite file that rows are loaded into; none if the workspace has no such destination.
    pub warehouse: Option<PathBuf>,
    /// The workspace file.
    pub workspace: PathBuf,
    /// Base URL of `/health/ready` and `/metrics`.
    pub admin: String,
    /// What runs.
    pub roles: Vec<&'static str>,
    /// Everything that is kept over restarts.
    pub data_dir: PathBuf,
    /// Process id of this process.
    pub pid: u32,
    /// Process id of the broker, if it was started here.
    pub kafka_pid: Option<u32>,
}

impl Ready {
    /// The page for people. `has` tells whether a program is installed.
    pub fn page(&self, has: impl Fn(&str) -> bool) -> String {
        let mut page = String::from("Sluice is running.\n\n");
        let mut row = |name: &str, value: &str| page.push_str(&format!("  {name:<10} {value}\n"));
        if let Some(gateway) = &self.gateway {
            row(
                "gateway",
                &format!("{gateway}   (write key {})", self.write_key),
            );
        }
        row(
            "webhook",
            &format!(
                "{}   (requests go to {})",
                self.webhook,
                shown(&self.webhook_log)
            ),
        );
        if let Some(warehouse) = &self.warehouse {
            row("warehouse", &shown(warehouse));
        }
        row("workspace", &shown(&self.workspace));
        row(
            "kafka",
            &format!("{}   (topics {}*)", self.bootstrap, self.topic_prefix),
        );
        row("metrics", &format!("{}/metrics", self.admin));
        if let Some(gateway) = &self.gateway {
            page.push_str("\nSend an event:\n");
            page.push_str(&format!(
                "  curl {gateway}/v1/track -u {}: -H 'Content-Type: application/json' \\\n    -d '{{\"userId\": \"ada\", \"event\": \"Order Completed\", \"properties\": {{\"total\": 12.5}}}}'\n",
                self.write_key
            ));
        }
        let runs = |role: RoleName| self.roles.contains(&role.name());
        if runs(RoleName::Processor) && runs(RoleName::Router) {
            page.push_str("\nSee it delivered:\n");
            page.push_str(&format!("  tail -n 1 {}\n", quoted(&self.webhook_log)));
        }
        if let Some(warehouse) = &self.warehouse
            && runs(RoleName::Processor)
            && runs(RoleName::Warehouse)
        {
            page.push_str("\nSee its row, after the next load:\n");
            page.push_str(&format!("  {}\n", query(warehouse, has)));
        }
        page.push_str("\nCtrl-C stops everything; what is in ");
        page.push_str(&format!(
            "{} stays for the next start.\n",
            shown(&self.data_dir)
        ));
        page
    }
}

/// How to look into a SQLite file with what this machine has: a fresh one has Python more often than SQLite's shell.
fn query(warehouse: &Path, has: impl Fn(&str) -> bool) -> String {
    const TABLE: &str = "order_completed";
    if !has("sqlite3") && has("python3") {
        let code = format!(
            "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(\"select * from {TABLE}\"), sep=\"\\n\")"
        );
        return format!("python3 -c '{code}' {}", quoted(warehouse));
    }
    format!(
        "sqlite3 -header {} 'select * from {TABLE}'",
        quoted(warehouse)
    )
}

/// A path as short as it can be said: relative to where the user is, if it is below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// [`shown`] as one word for a shell.
fn quoted(path: &Path) -> String {
    let path = shown(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@".contains(c);
    if path.chars().all(plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready {
            version: 1,
            gateway: Some("http://127.0.0.1:8080".into()),
            write_key: "key".into(),
            bootstrap: "127.0.0.1:20001".into(),
            topic_prefix: "sluice.".into(),
            webhook: "http://127.0.0.1:9/".into(),
            webhook_log: "/my data/webhook.jsonl".into(),
            warehouse: Some("/d/warehouse.db".into()),
            workspace: "/d/workspace.yaml".into(),
            admin: "http://127.0.0.1:8081".into(),
            roles: RoleName::ALL.map(RoleName::name).to_vec(),
            data_dir: "/d".into(),
            pid: 1,
            kafka_pid: None,
        }
    }

    #[test]
    fn the_page_has_lines_to_copy_for_sending_and_for_both_results() {
        let page = ready().page(|_| true);
        assert!(
            page.contains("curl http://127.0.0.1:8080/v1/track -u key: "),
            "{page}"
        );
        assert!(
            page.contains("tail -n 1 '/my data/webhook.jsonl'"),
            "{page}"
        );
        assert!(
            page.contains("sqlite3 -header /d/warehouse.db 'select"),
            "{page}"
        );
    }

    #[test]
    fn without_sqlites_shell_python_is_offered_and_without_a_gateway_no_curl() {
        assert!(
            ready()
                .page(|program| program == "python3")
                .contains("python3 -c 'import sqlite3")
        );
        let page = Ready {
            gateway: None,
            roles: vec!["processor"],
            ..ready()
        }
        .page(|_| true);
        assert!(!page.contains("curl") && !page.contains("See it"), "{page}");
    }

    #[test]
    fn scripts_find_the_keys_they_were_promised() {
        let json = serde_json::to_value(ready()).unwrap();
        for key in [
            "gateway",
            "write_key",
            "bootstrap",
            "topic_prefix",
            "webhook_log",
            "warehouse",
            "pid",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}

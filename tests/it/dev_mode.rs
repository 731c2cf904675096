//! `sluice dev` as a script uses it: one JSON line when ready, a data directory that outlives kills, nothing left running.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sluice::dev::kafka::LocalKafka;

use crate::support::client::{Connection, post_json};
use crate::support::gateway::envelope;
use crate::support::process::{binary, get, spawn_bound, wait_for};
use crate::support::records::read_all;

/// A broker, four roles and their first readiness on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);
const STOP_WITHIN: Duration = Duration::from_secs(60);
const EVENT: &str = "Order Completed";

struct Dev {
    child: Child,
    ready: Value,
    error: PathBuf,
}

impl Dev {
    fn start(data_dir: &Path, more: &[&str]) -> Self {
        let (out, error) = (
            data_dir.with_extension("out"),
            data_dir.with_extension("err"),
        );
        let mut command = binary();
        command
            .args([
                "dev",
                "--output",
                "json",
                "--gateway-port",
                "0",
                "--data-dir",
            ])
            .arg(data_dir)
            .args(more)
            .env_remove("SLUICE_BOOTSTRAP")
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&error).unwrap());
        let mut child = spawn_bound(command).unwrap();
        let ready = wait_for("dev mode is ready", READY_WITHIN, || {
            let said = std::fs::read_to_string(&error).unwrap();
            assert!(
                child.try_wait().unwrap().is_none(),
                "dev mode ended: {said}"
            );
            let line = std::fs::read_to_string(&out).unwrap();
            line.ends_with('\n').then(|| {
                assert_eq!(line.lines().count(), 1, "{line}");
                serde_json::from_str(&line).unwrap()
            })
        });
        Self {
            child,
            ready,
            error,
        }
    }

    fn text(&self, key: &str) -> &str {
        self.ready[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} in {}", self.ready))
    }

    fn address(&self, key: &str) -> SocketAddr {
        self.text(key)
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .unwrap()
    }

    fn broker(&self) -> u32 {
        u32::try_from(self.ready["kafka_pid"].as_u64().unwrap()).unwrap()
    }

    async fn track(&self, message_id: &str) {
        let gateway = self.address("gateway");
        let event = json!({"userId": "ada", "event": EVENT, "messageId": message_id, "properties": {"total": 12.5}});
        let body = event.to_string();
        let request = post_json(
            gateway,
            "/v1/track",
            self.text("write_key"),
            body.as_bytes(),
        );
        let mut connection = Connection::open(gateway).await.unwrap();
        let answer = connection.exchange(&request).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }

    fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
        wait_for("dev mode has ended", STOP_WITHIN, || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}",
                std::fs::read_to_string(&self.error).unwrap_or_default()
            );
        }
        // Already gone is as good.
        let _gone = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn is_alive(pid: u32) -> bool {
    // A zombie is dead; in a container nobody may collect it.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

#[tokio::test]
async fn an_accepted_event_outlives_kill_9_and_the_next_start_cleans_up_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("dev");
    let roles = ["--roles", "gateway"];

    let first = Dev::start(&data_dir, &roles);
    first.track("before-the-kill").await;
    let broker = first.broker();
    assert!(is_alive(broker));
    first.kill9();
    wait_for("the broker is gone too", STOP_WITHIN, || {
        (!is_alive(broker)).then_some(())
    });

    let second = Dev::start(&data_dir, &roles);
    let topic = format!("{}events", second.text("topic_prefix"));
    let kept = read_all(second.text("bootstrap"), &topic);
    let ids: Vec<_> = kept
        .iter()
        .map(|record| envelope(record).message_id.to_string())
        .collect();
    assert_eq!(ids, ["before-the-kill"]);

    let broker = second.broker();
    assert_eq!(second.stop(Signal::SIGINT).code(), Some(0));
    assert!(!is_alive(broker), "Kafka was left running");
}

/// Processes whose command line names `dir`.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes
        // Some are gone by now.
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(name)).collect()
}

/// The ids of the events that the webhook got.
fn at_webhook(dev: &Dev) -> BTreeSet<String> {
    let log = std::fs::read_to_string(dev.text("webhook_log")).unwrap_or_default();
    // The last line may be being written.
    let lines = log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    lines
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect(line);
            line["body"]["messageId"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// The ids of the rows of `table` in a warehouse, one for each row; none while there is no table.
fn rows(warehouse: &str, table: &str) -> Vec<String> {
    let file = rusqlite::Connection::open(warehouse).unwrap();
    let query = format!("select id from {table} order by id");
    let Ok(mut query) = file.prepare(&query) else {
        return Vec::new();
    };
    let ids = query.query_map([], |row| row.get(0)).unwrap();
    // A load may hold the lock.
    ids.collect::<Result<_, _>>().unwrap_or_default()
}

#[tokio::test]
async fn kill_9_of_all_roles_loses_nothing_and_doubles_no_row() {
    const EVENTS: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("dev");
    let sent: BTreeSet<String> = (0..EVENTS).map(|n| format!("event-{n:04}")).collect();

    let first = Dev::start(&data_dir, &[]);
    for id in &sent {
        first.track(id).await;
    }
    // Some are through, others on their way in every role.
    wait_for("the first at the webhook", READY_WITHIN, || {
        (!at_webhook(&first).is_empty()).then_some(())
    });
    println!(
        "killed with {} at the webhook and {} rows",
        at_webhook(&first).len(),
        rows(first.text("warehouse"), "tracks").len()
    );
    first.kill9();
    wait_for("the broker is gone too", STOP_WITHIN, || {
        processes_of(&data_dir).is_empty().then_some(())
    });

    let second = Dev::start(&data_dir, &[]);
    wait_for("every event at the webhook", READY_WITHIN, || {
        (at_webhook(&second) == sent).then_some(())
    });
    wait_for("every event in the table", READY_WITHIN, || {
        (rows(second.text("warehouse"), "order_completed").len() >= EVENTS).then_some(())
    });
    let warehouse = second.text("warehouse").to_owned();
    assert_eq!(second.stop(Signal::SIGINT).code(), Some(0));
    assert_eq!(processes_of(&data_dir), Vec::<String>::new());
    // Looked at only now: what came twice is in it.
    for table in ["order_completed", "tracks"] {
        let ids = rows(&warehouse, table);
        assert!(ids.iter().eq(&sent), "{table}: {ids:?}");
    }
}

#[tokio::test]
async fn an_event_arrives_at_the_webhook_and_as_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(&dir.path().join("dev"), &[]);
    dev.track("everywhere").await;
    wait_for("the webhook's line", READY_WITHIN, || {
        let log = std::fs::read_to_string(dev.text("webhook_log")).unwrap_or_default();
        let line: Value = serde_json::from_str(log.lines().next()?).unwrap();
        assert_eq!(line["body"]["messageId"], "everywhere");
        assert_eq!(line["body"]["properties"]["total"], 12.5);
        Some(())
    });
    let row = wait_for("the row", READY_WITHIN, || {
        let file = rusqlite::Connection::open(dev.text("warehouse")).unwrap();
        let query = "select id, user_id, total from order_completed";
        file.query_row(query, [], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, f64>(2)?,
            ))
        })
        .ok()
    });
    assert_eq!(row, ("everywhere".to_owned(), "ada".to_owned(), 12.5));
    assert_eq!(dev.stop(Signal::SIGINT).code(), Some(0));
}

#[test]
fn a_folder_that_is_in_use_is_refused_on_a_cluster_of_others_too() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("dev");
    let kafka = LocalKafka::shared().unwrap();
    let shared = ["--bootstrap-server", kafka.bootstrap()];
    let first = Dev::start(&data_dir, &shared);
    let second = binary()
        .args(["dev", "--gateway-port", "0", "--data-dir"])
        .arg(&data_dir)
        .args(shared)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    let owner = format!("in use by process {}", first.ready["pid"]);
    assert!(said.contains(&owner), "{said}");
    assert_eq!(first.stop(Signal::SIGINT).code(), Some(0));
}

#[tokio::test]
async fn the_built_in_webhook_has_written_the_line_before_it_answers() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(&dir.path().join("dev"), &["--roles", "gateway"]);
    let (status, _) = get(dev.address("webhook"), "/hook?a=1").unwrap();
    assert_eq!(status, 200);
    let log = std::fs::read_to_string(dev.text("webhook_log")).unwrap();
    let line: Value = serde_json::from_str(log.trim_end()).unwrap();
    assert_eq!(
        (&line["method"], &line["path"]),
        (&json!("GET"), &json!("/hook?a=1"))
    );
    assert!(line["received_at"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_workspace_without_a_usable_source_is_refused_with_the_exit_code_for_settings() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = dir.path().join("workspace.yaml");
    std::fs::write(&workspace, "sources: []").unwrap();
    let output = binary()
        .args(["dev", "--data-dir"])
        .arg(dir.path().join("dev"))
        .arg("--workspace")
        .arg(&workspace)
        .env_remove("SLUICE_BOOTSTRAP")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no source that is enabled"), "{error}");
}

//! A real PostgreSQL, one per test process, one database per test.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use super::process::{free_address, spawn_bound, wait_for};
use super::skipped;

const PATIENCE: Duration = Duration::from_secs(60);
const USER: &str = "sluice";

/// A server that the kernel kills with this process.
struct Server {
    port: u16,
    _child: Child,
}

/// A database of one test.
pub struct Database {
    port: u16,
    name: String,
}

/// A new, empty database. `None`, said aloud, where PostgreSQL is not installed.
pub async fn database() -> Option<Database> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(start))
        .await
        .unwrap();
    let Some(server) = server else {
        skipped::say_unless_ci(
            "no PostgreSQL server in /usr/lib/postgresql or on the path; ./dev/test --packages-only installs it on Debian",
        );
        return None;
    };
    let admin = Database {
        port: server.port,
        name: "postgres".into(),
    };
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let create = format!("create database {name}");
    admin.client().await.batch_execute(&create).await.unwrap();
    Some(Database {
        port: server.port,
        name,
    })
}

impl Database {
    /// The config of a RudderStack destination that loads into it.
    pub fn config(&self) -> Value {
        json!({
            "host": "127.0.0.1",
            "port": self.port.to_string(),
            "database": self.name,
            "user": USER,
            "password": "unused",
            "sslMode": "disable"
        })
    }

    /// A connection.
    pub async fn client(&self) -> Client {
        let config = format!(
            "host=127.0.0.1 port={} dbname={} user={USER}",
            self.port, self.name
        );
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

fn start() -> Option<Server> {
    let bin = programs()?;
    let folder = folder();
    let owner = owner();
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
    }
    let data = folder.join("data");
    let command = |program: &str| {
        let mut command = Command::new(bin.join(program));
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&folder).stdin(Stdio::null());
        command.env("LC_ALL", "C").env_remove("PGOPTIONS");
        command
    };
    let made = command("initdb")
        .arg("-D")
        .arg(&data)
        .args(["-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"])
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );

    let port = free_address().port();
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut postgres = command("postgres");
    postgres
        .arg("-D")
        .arg(&data)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", ""])
        .args(["-c", "fsync=off", "-c", "full_page_writes=off"])
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut child = spawn_bound(postgres).unwrap();
    wait_for("PostgreSQL to listen", PATIENCE, || {
        if let Some(status) = child.try_wait().unwrap() {
            panic!(
                "{status}: {}",
                fs::read_to_string(folder.join("log")).unwrap()
            );
        }
        let ready = command("pg_isready")
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .output()
            .unwrap();
        ready.status.success().then_some(())
    });
    Some(Server {
        port,
        _child: child,
    })
}

/// What a server needs, of one version.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_isready"];

/// The folder of the programs, as `has_postgres` in `dev/packages.sh` finds it: Debian's newest version, which is off the path;
/// else the first on the path.
pub fn programs() -> Option<PathBuf> {
    let complete = |dir: &PathBuf| PROGRAMS.iter().all(|name| dir.join(name).is_file());
    let debian = Path::new("/usr/lib/postgresql");
    let versions = fs::read_dir(debian).into_iter().flatten();
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .map(|version| (version, debian.join(version.to_string()).join("bin")))
        .filter(|(_, dir)| complete(dir))
        .max();
    let path = std::env::var_os("PATH").unwrap_or_default();
    newest
        .map(|(_, dir)| dir)
        .or_else(|| std::env::split_paths(&path).find(complete))
}

/// A folder of ours; those of processes that are gone are removed.
fn folder() -> PathBuf {
    const NAME: &str = "sluice-test-postgres-";
    let root = std::env::temp_dir();
    for entry in fs::read_dir(&root).unwrap().filter_map(Result::ok) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(NAME));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Somebody else may be at it.
            let _gone: io::Result<()> = fs::remove_dir_all(entry.path());
        }
    }
    let folder = root.join(format!("{NAME}{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    folder
}

/// Whom the server runs as: it refuses to be root.
fn owner() -> Option<(u32, u32)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let ids = ids("postgres").or_else(|| ids("nobody"));
    Some(ids.expect("a user that is not root"))
}

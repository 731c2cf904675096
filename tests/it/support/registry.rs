//! A real schema registry: Apicurio Registry, which speaks Confluent's API and is published on Maven Central. Each has its own
//! schemas, in memory; they are gone with it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sluice::dev::kafka::java_runtime;

use super::process::{Process, free_address, get, wait_for};
use super::python::{cache, run};

/// The newest whose program runs on Java 17, as the local Kafka does.
const VERSION: &str = "2.6.13.Final";
/// Where it speaks Confluent's API.
const API: &str = "/apis/ccompat/v7";
const PATIENCE: Duration = Duration::from_secs(120);

/// A registry that is killed when it is dropped.
pub struct SchemaRegistry {
    address: SocketAddr,
    process: Process,
    _folder: tempfile::TempDir,
}

impl SchemaRegistry {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let mut registry = Self::launch(free_address());
        registry.wait_ready();
        registry
    }

    /// Starts one at `address`; does not wait.
    pub fn launch(address: SocketAddr) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("sluice-test-registry-")
            .tempdir()
            .unwrap();
        let home = jars();
        let mut java = Command::new(java_runtime().unwrap());
        java.args(["-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dquarkus.http.host={}", address.ip()))
            .arg(format!("-Dquarkus.http.port={}", address.port()))
            .arg("-jar")
            .arg(home.join(format!("apicurio-registry-app-{VERSION}-runner.jar")))
            .current_dir(folder.path());
        let log = folder.path().join("log");
        Self {
            address,
            process: Process::spawn("schema registry", java, log),
            _folder: folder,
        }
    }

    /// Waits until it answers.
    pub fn wait_ready(&mut self) {
        wait_for("the schema registry answers", PATIENCE, || {
            if let Some(status) = self.process.ended() {
                panic!(
                    "the schema registry ended with {status}: {}",
                    self.process.log()
                );
            }
            let answer = get(self.address, &format!("{API}/subjects"));
            matches!(answer, Ok((200, _))).then_some(())
        });
    }

    /// `kafka.schema_registry.url`.
    pub fn url(&self) -> String {
        url_at(self.address)
    }

    /// Makes it deaf without closing a connection, or lets it hear again.
    pub fn set_deaf(&self, is_deaf: bool) {
        self.process.signal(match is_deaf {
            true => Signal::SIGSTOP,
            false => Signal::SIGCONT,
        });
    }

    /// The newest version of a subject.
    pub fn latest(&self, subject: &str) -> Value {
        self.call("GET", &format!("/subjects/{subject}/versions/latest"), None)
    }

    /// The text of a schema.
    pub fn schema(&self, id: u32) -> String {
        let found = self.call("GET", &format!("/schemas/ids/{id}"), None);
        found["schema"].as_str().unwrap().to_owned()
    }

    /// Registers a schema as anybody may, and gives its id back.
    pub fn register(&self, subject: &str, schema: &str) -> u32 {
        let body = json!({"schema": schema});
        let path = format!("/subjects/{subject}/versions");
        let registered = self.call("POST", &path, Some(&body));
        u32::try_from(registered["id"].as_u64().unwrap()).unwrap()
    }

    /// Sets how a subject may change.
    pub fn set_compatibility(&self, subject: &str, level: &str) {
        let body = json!({"compatibility": level});
        self.call("PUT", &format!("/config/{subject}"), Some(&body));
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        sluice::tls::install();
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}{path}", self.url());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (status, text) = runtime.block_on(async {
            let mut request = reqwest::Client::new().request(method, &url);
            if let Some(body) = body {
                request = request
                    .header("content-type", "application/vnd.schemaregistry.v1+json")
                    .body(body.to_string());
            }
            let answer = request.send().await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        });
        assert!(status.is_success(), "{url}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// The URL of a registry at `address`.
pub fn url_at(address: SocketAddr) -> String {
    format!("http://{address}{API}")
}

/// The folder with the registry's program, fetched on first use.
fn jars() -> PathBuf {
    let cache = cache();
    fs::create_dir_all(&cache).unwrap();
    let folder = cache.join(format!("apicurio-registry-{VERSION}"));
    // Tests run side by side, in one process and in several.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let done = folder.join("complete");
    if !done.exists() {
        fs::create_dir_all(&folder).unwrap();
        fetch(&folder);
        fs::write(done, "").unwrap();
    }
    folder
}

fn fetch(folder: &Path) {
    // The plugin and its version are those of dev/kafka/pom.xml.
    run(Command::new("mvn")
        .args(["--batch-mode", "--quiet"])
        .arg("org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy")
        .arg(format!(
            "-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
        ))
        .arg(format!("-DoutputDirectory={}", folder.display())));
    let archive = folder.join(format!("apicurio-registry-app-{VERSION}-all.tar.gz"));
    run(Command::new("tar")
        .arg("-xzf")
        .arg(&archive)
        .arg("-C")
        .arg(folder));
    fs::remove_file(archive).unwrap();
}

//! Starting everything in one process, and ending it in order.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::kafka::{LocalKafka, LocalKafkaError, LocalKafkaOptions};
use super::options::{self, Cluster, DevOptions};
use super::ready::Ready;
use super::webhook::Webhook;
use super::{DevError, sample};
use crate::app::{self, AppError, Stopper};
use crate::config::Config;
use crate::control::{ControlError, Workspace, parse_workspace};
use crate::lock::FolderLock;
use crate::shutdown::Signals;
use crate::telemetry::Health;

/// How long the roles may take until all of them are ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The file in the data directory that is locked while a process uses it.
const LOCK: &str = "dev.lock";
/// How often readiness is looked at while somebody waits for it.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the broker's life is looked at.
const BROKER_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs dev mode until a signal (SIGTERM, SIGINT), or until a part of it ends. `ready` is called once everything is.
///
/// A signal drains: the gateway closes, what was accepted goes on as far as the roles get in their time, the rest stays
/// in Kafka for the next start; then Kafka stops. A second signal ends it without waiting.
///
/// # Errors
/// What could not be started, or ended by itself.
pub async fn run(options: DevOptions, ready: impl FnOnce(&Ready)) -> Result<(), DevError> {
    let mut signals = Signals::listen().map_err(DevError::io("listen for signals"))?;
    let mut session = tokio::select! {
        session = Session::start(&options) => session?,
        // Nothing was accepted yet that would be worth draining.
        _ = signals.next() => return Err(DevError::Interrupted),
    };
    let ended = tokio::select! {
        ended = session.go(ready) => ended,
        _ = signals.next() => Ok(()),
    };
    if ended.is_ok() {
        (options.progress)("draining; a second signal ends it at once");
    }
    tokio::select! {
        stopped = session.stop() => ended.and(stopped),
        _ = signals.next() => Err(DevError::Interrupted),
    }
}

type Ended = Pin<Box<dyn Future<Output = Result<(), AppError>> + Send>>;

/// What runs.
struct Session {
    ready: Ready,
    health: Health,
    stopper: Stopper,
    /// Until it has resolved.
    roles: Option<Ended>,
    // After them, so that the roles' tasks are not left without a broker when this is dropped.
    kafka: LocalKafka,
    // Last: who comes next finds nothing of this.
    _owner: FolderLock,
}

impl Session {
    async fn start(options: &DevOptions) -> Result<Self, DevError> {
        let data_dir = prepare_dir(&options.data_dir)?;
        // On a cluster of others nothing else would keep a second process from the same topics, log and tables.
        let owner = FolderLock::take(&data_dir, LOCK)?;
        let kafka = start_kafka(options, data_dir.join("kafka")).await?;
        let log = data_dir.join("webhook.jsonl");
        let webhook = Webhook::serve(options.webhook_port, log).await?;
        let file = workspace_file(options, &data_dir, webhook.address)?;
        let workspace = read_workspace(&file)?;
        let write_key = sample::write_key(&workspace).ok_or_else(|| DevError::NoSource {
            workspace: file.display().to_string(),
        })?;

        let cluster = Cluster {
            bootstrap: kafka.bootstrap(),
            shared: !kafka.is_ours(),
            host: &Config::default().instance(),
        };
        let config = options::config(options, &cluster, &file, &data_dir);
        config.validate()?;
        let topic_prefix = config.topics.prefix.clone();
        (options.progress)("starting the roles");
        let running = app::run_roles(config, &options.roles).await?;
        let ready = Ready {
            version: 1,
            gateway: running
                .gateway_address
                .map(|address| format!("http://{address}")),
            write_key,
            bootstrap: kafka.bootstrap().to_owned(),
            topic_prefix,
            webhook: format!("http://{}/", webhook.address),
            webhook_log: webhook.log,
            warehouse: sample::sqlite_file(&workspace),
            workspace: file,
            admin: format!("http://{}", running.admin_address),
            roles: options.roles.iter().map(|role| role.name()).collect(),
            data_dir,
            pid: std::process::id(),
            kafka_pid: kafka.pid(1),
        };
        Ok(Self {
            ready,
            health: running.health.clone(),
            stopper: running.stopper(),
            roles: Some(Box::pin(running.wait())),
            kafka,
            _owner: owner,
        })
    }

    /// Says when everything is ready, and resolves when something ends that should not.
    async fn go(&mut self, ready: impl FnOnce(&Ready)) -> Result<(), DevError> {
        let mut roles = std::pin::pin!(roles_ended(&mut self.roles));
        tokio::select! {
            outcome = all_ready(&self.health) => outcome?,
            ended = &mut roles => return ended,
        }
        ready(&self.ready);
        tokio::select! {
            ended = roles => ended,
            error = broker_death(&self.kafka) => Err(error.into()),
        }
    }

    /// Drains the roles, then stops the broker.
    async fn stop(mut self) -> Result<(), DevError> {
        self.stopper.stop();
        let drained = roles_ended(&mut self.roles).await;
        let stopped = self.kafka.stop_async().await;
        drained.and(stopped.map_err(DevError::from))
    }
}

/// Resolves when the roles have ended; at once if that was said before.
async fn roles_ended(roles: &mut Option<Ended>) -> Result<(), DevError> {
    let Some(ended) = roles else { return Ok(()) };
    let result = ended.await;
    *roles = None;
    Ok(result?)
}

async fn start_kafka(
    options: &DevOptions,
    data_dir: PathBuf,
) -> Result<LocalKafka, LocalKafkaError> {
    let progress = options.progress.clone();
    match &options.bootstrap {
        Some(bootstrap) => LocalKafka::at_async(bootstrap.clone()).await,
        None => {
            LocalKafka::find_or_start_async(LocalKafkaOptions {
                progress,
                ..LocalKafkaOptions::new(data_dir)
            })
            .await
        }
    }
}

/// The folder, made if need be, as an absolute path: settings and pages must mean the same to every reader.
fn prepare_dir(data_dir: &Path) -> Result<PathBuf, DevError> {
    let prepared = fs::create_dir_all(data_dir).and_then(|()| fs::canonicalize(data_dir));
    prepared.map_err(DevError::io(format!("create {}", data_dir.display())))
}

/// The workspace to use: the given one, or the sample, which is written anew because the webhook's port may have changed.
fn workspace_file(
    options: &DevOptions,
    data_dir: &Path,
    webhook: SocketAddr,
) -> Result<PathBuf, DevError> {
    if let Some(given) = &options.workspace {
        let found = fs::canonicalize(given);
        return found.map_err(DevError::io(format!("find {}", given.display())));
    }
    let text = sample::workspace(
        &format!("http://{webhook}/"),
        &data_dir.join("warehouse.db"),
    )?;
    let file = data_dir.join("workspace.yaml");
    fs::write(&file, text).map_err(DevError::io(format!("write {}", file.display())))?;
    Ok(file)
}

fn read_workspace(file: &Path) -> Result<Workspace, DevError> {
    let text = fs::read_to_string(file).map_err(|source| ControlError::Read {
        path: file.to_owned(),
        source,
    })?;
    Ok(parse_workspace(&file.display().to_string(), &text, 1)?)
}

async fn all_ready(health: &Health) -> Result<(), DevError> {
    let until = Instant::now() + READY_WITHIN;
    loop {
        let missing = health.missing();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            let seconds = READY_WITHIN.as_secs();
            return Err(DevError::NotReady { seconds, missing });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Resolves when a broker of ours has ended by itself.
async fn broker_death(kafka: &LocalKafka) -> LocalKafkaError {
    loop {
        if let Err(error) = kafka.check() {
            return error;
        }
        tokio::time::sleep(BROKER_LOOK_EVERY).await;
    }
}

//! The composition root: settings become what the roles are given, and the roles run. Real clients are made here and
//! nowhere else.
//!
//! ```text
//! Config ─▶ admin listener ─▶ workspace ─▶ topics checked ─▶ schema ids ─▶ roles ─▶ … signal … ─▶ drain ─▶ result
//! ```
//! Health and metrics come first, so that an operator sees what a process that does not become ready is waiting for.

mod error;
mod gate;
mod role;
mod running;

use std::sync::Arc;
use std::time::Duration;

pub use error::AppError;
pub use role::RoleName;
pub use running::{Running, Stopper};

use gate::Gate;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::control::{self, Control};
use crate::deps::{Deps, Role};
use crate::event::TopicNames;
use crate::failpoint;
use crate::registry::Schemas;
use crate::shutdown::{Shutdown, Signals};
use crate::telemetry::{self, Health, Registry};

/// How long a gateway that can do without Kafka waits for it before it starts.
const KAFKA_PATIENCE: Duration = Duration::from_secs(2);

crate::metrics! {
    /// What the process tells of itself.
    pub struct AppMetrics("app") {
        /// Always 1; the version of this binary is the label.
        build_info: gauge["version"],
        /// Revision of the workspace that the roles work with, milliseconds since the epoch.
        workspace_revision: gauge[],
        /// 1 while a newer workspace is held back because its topics are missing or unsafe.
        workspace_held_back: gauge[],
    }
}

/// Runs `roles` until a signal, or until one of them ends. A second signal does not wait for the drain.
///
/// # Errors
/// When something could not be started, a role ended by itself, draining took too long, or was interrupted.
pub async fn serve(config: Config, roles: &[RoleName]) -> Result<(), AppError> {
    telemetry::init(&config.log);
    // From here on a signal is heard, not fatal.
    let mut signals = Signals::listen().map_err(AppError::Signals)?;
    let running = tokio::select! {
        running = run_roles(config, roles) => running?,
        // Nothing has been accepted yet that would be worth draining.
        _ = signals.next() => return Err(AppError::Interrupted),
    };
    let stopper = running.stopper();
    let mut ended = std::pin::pin!(running.wait());
    let signal = tokio::select! {
        result = &mut ended => return result,
        signal = signals.next() => signal,
    };
    tracing::info!(signal, "draining; a second signal ends the process at once");
    stopper.stop();
    tokio::select! {
        result = ended => result,
        _ = signals.next() => Err(AppError::Interrupted),
    }
}

/// Starts `roles` with everything around them. Logging is the caller's.
///
/// # Errors
/// When something could not be started; what was started by then has been stopped.
pub async fn run_roles(config: Config, roles: &[RoleName]) -> Result<Running, AppError> {
    for fault in failpoint::faults() {
        tracing::error!(
            fault,
            "{} makes this process break its promises on purpose; only a test may want that",
            failpoint::VARIABLE
        );
    }
    crate::tls::install();
    let shutdown = Shutdown::new(config.drain_timeout());
    let started = start(config, roles, shutdown.clone()).await;
    if started.is_err() {
        shutdown.begin();
    }
    started
}

async fn start(
    config: Config,
    roles: &[RoleName],
    shutdown: Shutdown,
) -> Result<Running, AppError> {
    let (health, metrics) = (Health::default(), Registry::for_process());
    let own = AppMetrics::register(&metrics);
    let version = env!("CARGO_PKG_VERSION");
    own.build_info.with_label_values(&[version]).set(1);
    let starting = health.part("start");
    let admin = telemetry::serve(
        config.admin.listen,
        health.clone(),
        metrics.clone(),
        &shutdown,
    )
    .await
    .map_err(|source| AppError::Listen {
        address: config.admin.listen,
        source,
    })?;
    let gate = Gate::open(&config, roles, shutdown.clone())?;
    let source = control::start(config.workspace.clone(), control::client()?, &shutdown).await?;
    let workspace = source.snapshot();
    let mut first = Box::pin(gate.clone().first(Arc::clone(&workspace)));
    let unchecked = if starts_without_kafka(&config, roles) {
        tokio::select! {
            checked = &mut first => checked.map(|()| None)?,
            () = tokio::time::sleep(KAFKA_PATIENCE) => Some(first),
        }
    } else {
        first.await?;
        None
    };
    let schemas = Schemas::open(
        config.kafka.schema_registry.as_ref(),
        RoleName::schemas_of(roles),
        &shutdown,
    )
    .await?;
    own.workspace_revision
        .with_label_values::<&str>(&[])
        .set(workspace.revision);
    // The roles' own handle: what changes at the source passes the gate first.
    let control = Control::new((*workspace).clone());
    gate.follow(source, control.clone(), own);
    let topics = TopicNames::new(&config.topics.prefix);
    let deps = Deps {
        config: Arc::new(config),
        control,
        clock: Arc::new(SystemClock),
        topics,
        schemas,
        health,
        metrics,
        shutdown: shutdown.clone(),
    };
    let mut running = Running::new(admin, deps.health.clone(), shutdown);
    for role in roles {
        match role.start(deps.clone()).await {
            Ok(started) => running.add(started),
            Err(source) => {
                running.abandon().await;
                return Err(AppError::Start {
                    role: role.name(),
                    source,
                });
            }
        }
    }
    if let Some(first) = unchecked {
        tracing::warn!("Kafka is away: events go to the spill");
        running.add(check_later(first, deps.shutdown));
    }
    starting.set(true);
    tracing::info!(%admin, roles = ?roles, "running");
    Ok(running)
}

/// Whether the roles have something useful to do while Kafka is away: a gateway with a spill has.
fn starts_without_kafka(config: &Config, roles: &[RoleName]) -> bool {
    roles == [RoleName::Gateway] && config.gateway.spill.is_some()
}

/// The check that comes before all roles otherwise. When it finds unsafe topics, it ends the process as it would have then.
fn check_later(
    first: impl Future<Output = Result<(), AppError>> + Send + 'static,
    shutdown: Shutdown,
) -> Role {
    let check = async move {
        tokio::select! {
            biased;
            () = shutdown.begun() => return Ok(()),
            checked = first => checked?,
        }
        tracing::info!("Kafka is there, and its topics are safe");
        shutdown.begun().await;
        Ok(())
    };
    Role {
        name: "topics check",
        address: None,
        done: tokio::spawn(check),
    }
}

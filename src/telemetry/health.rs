//! `/health/live`, `/health/ready` and `/metrics`.
//!
//! *Live* means that the process answers. *Ready* means that every part that registered has said so, or says so when asked;
//! each part names itself, so that the answer tells what is missing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::Registry;
use crate::shutdown::Shutdown;

/// Readiness of the parts of one process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<String, State>>>,
}

/// What is known of a part.
#[derive(Clone)]
enum State {
    Said(bool),
    Asked(Arc<dyn Fn() -> bool + Send + Sync>),
}

impl State {
    fn is_ready(&self) -> bool {
        match self {
            Self::Said(ready) => *ready,
            Self::Asked(ask) => ask(),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.is_ready().fmt(f)
    }
}

/// One part's own readiness.
#[derive(Debug, Clone)]
pub struct Part {
    name: String,
    health: Health,
}

impl Health {
    /// Registers a part, not ready yet.
    pub fn part(&self, name: impl Into<String>) -> Part {
        let part = Part {
            name: name.into(),
            health: self.clone(),
        };
        part.set(false);
        part
    }

    /// Registers a part that is asked whenever somebody wants to know: for one whose own thread may stand still. `is_ready`
    /// must answer at once.
    pub fn ask(
        &self,
        name: impl Into<String>,
        is_ready: impl Fn() -> bool + Send + Sync + 'static,
    ) {
        let asked = State::Asked(Arc::new(is_ready));
        self.parts.lock().insert(name.into(), asked);
    }

    /// The parts that are not ready; empty when the process is.
    pub fn missing(&self) -> Vec<String> {
        // A copy: whoever is asked may hold a lock of its own, under which it tells of a part.
        let parts = self.parts.lock().clone();
        let missing = parts.into_iter().filter(|(_, state)| !state.is_ready());
        missing.map(|(name, _)| name).collect()
    }
}

impl Part {
    /// Says whether this part is ready.
    pub fn set(&self, ready: bool) {
        let said = State::Said(ready);
        self.health.parts.lock().insert(self.name.clone(), said);
    }
}

/// Serves health and metrics until shutdown has ended. Returns the address it listens on.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    listen: SocketAddr,
    health: Health,
    registry: Registry,
    shutdown: &Shutdown,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let stopping = shutdown.clone();
    let routes = Router::new()
        .route("/health/live", get(|| async { "ok" }))
        .route(
            "/health/ready",
            get(move || async move {
                // A load balancer must stop sending before the listener closes.
                let missing = health.missing();
                if stopping.is_begun() {
                    (StatusCode::SERVICE_UNAVAILABLE, "draining".to_owned())
                } else if missing.is_empty() {
                    (StatusCode::OK, "ok".to_owned())
                } else {
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        format!("waiting for {}", missing.join(", ")),
                    )
                }
            }),
        )
        .route("/metrics", get(move || async move { registry.render() }));
    shutdown.spawn("admin", async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "admin listener ended");
        }
    });
    Ok(address)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_part_that_has_not_spoken_is_missing() {
        let health = Health::default();
        let kafka = health.part("kafka");
        let workspace = health.part("workspace");
        kafka.set(true);
        assert_eq!(health.missing(), ["workspace"]);
        workspace.set(true);
        assert!(health.missing().is_empty());
    }

    #[test]
    fn a_part_that_is_asked_answers_for_the_moment() {
        let health = Health::default();
        let is_up = Arc::new(AtomicBool::new(true));
        let answer = Arc::clone(&is_up);
        health.ask("kafka", move || answer.load(Ordering::Relaxed));
        assert!(health.missing().is_empty());
        is_up.store(false, Ordering::Relaxed);
        assert_eq!(health.missing(), ["kafka"]);
    }
}

//! `/health/live`, `/health/ready` and `/metrics`.
//!
//! *Live* means that the process answers. *Ready* means that every part that registered has said so; each part names
//! itself, so that the answer tells what is missing.

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
    parts: Arc<Mutex<BTreeMap<String, bool>>>,
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

    /// The parts that are not ready; empty when the process is.
    pub fn missing(&self) -> Vec<String> {
        self.parts
            .lock()
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

impl Part {
    /// Says whether this part is ready.
    pub fn set(&self, ready: bool) {
        self.health.parts.lock().insert(self.name.clone(), ready);
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
}

//! What the gateway tells of itself, in RudderStack's shapes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;

use super::Gateway;
use super::reply;
use crate::clock::rfc3339_ms;

/// Why no events can be taken.
pub(super) const AWAY: &str = "Cannot connect to Kafka";
pub(super) const DRAINING: &str = "draining";

/// `GET /health`: 200 while events can be taken, 503 while Kafka is away (and the spill, if there is one, has no room)
/// or the gateway drains.
pub(super) async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    let draining = gateway.shutdown.is_begun();
    if draining || !gateway.takes_events() {
        let reason = if draining { DRAINING } else { AWAY };
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    }
    let revision = gateway.directory.now().workspace.revision;
    let body = serde_json::json!({
        "appType": "EMBEDDED",
        "server": "UP",
        "db": "UP",
        "acceptingEvents": "TRUE",
        "routingEvents": "TRUE",
        "mode": "NORMAL",
        "backendConfigMode": "JSON",
        "lastSync": rfc3339_ms(revision),
        "lastRegulationSync": "",
    });
    reply::json(StatusCode::OK, body.to_string())
}

/// `GET /version`.
pub(super) async fn version() -> Response {
    let body = serde_json::json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Commit": option_env!("SLUICE_COMMIT").unwrap_or_default(),
        "BuildDate": option_env!("SLUICE_BUILD_DATE").unwrap_or_default(),
        "BuiltBy": "",
        "Features": {},
    });
    reply::json(StatusCode::OK, body.to_string())
}

/// `GET /robots.txt`.
pub(super) async fn robots() -> Response {
    // The blanks at the ends of the lines are RudderStack's.
    reply::text(StatusCode::OK, "User-agent: * \nDisallow: / \n")
}

/// `GET /cluster-info`: old Go clients ask it how many gateways there are, to choose one by themselves.
pub(super) async fn cluster_info() -> Response {
    reply::json(StatusCode::OK, r#"{"nodeCount":1}"#)
}

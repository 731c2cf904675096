//! What Segment's browser client needs beside the routes that take events.

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::super::connection::Connection;
use super::super::refusal::Refusal;
use super::super::{Gateway, arrival, reply};
use crate::fault::Classify;

/// `GET /v1/projects/{write key}/settings`: tells `AnalyticsBrowser.load` to send everything here.
pub(in super::super) async fn settings(
    gateway: &Gateway,
    write_key: &str,
    request: Request,
) -> Response {
    let callers = gateway.directory.now();
    let refused = match callers.by_write_key(write_key) {
        None => Some(("", Refusal::UnknownWriteKey)),
        Some(caller) if !caller.source.enabled => {
            Some((caller.source.id.as_str(), Refusal::SourceDisabled))
        }
        Some(_) => None,
    };
    if let Some((source, refusal)) = refused {
        gateway.metrics.refused(source, refusal.code());
        // Segment's client knows no difference.
        return reply::error(StatusCode::NOT_FOUND, "invalid write key\n".to_owned());
    }
    let host = arrival::text(request.headers(), header::HOST.as_str());
    let body = json!({
        "integrations": {
            "Segment.io": {
                "apiKey": write_key,
                "apiHost": format!("{host}/v1"),
                "protocol": scheme(gateway, &request),
                "unbundledIntegrations": [],
                "addBundledMetadata": true,
            },
        },
        "plan": {"track": {"__default": {"enabled": true, "integrations": {}}}},
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "metrics": {"sampleRate": 0},
        "remotePlugins": [],
    });
    let mut response = reply::json(StatusCode::OK, body.to_string());
    // For who asked only: the body depends on the host and, behind a proxy, on its word for the scheme.
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=60"),
    );
    response
}

/// How the browser reached us: a proxy that ends TLS for us says so.
fn scheme(gateway: &Gateway, request: &Request) -> &'static str {
    let connection = request.extensions().get::<std::sync::Arc<Connection>>();
    let trusted = &gateway.config.trusted_proxies;
    let forwarded = connection
        .filter(|c| trusted.contain(c.peer))
        .map(|_| arrival::text(request.headers(), "x-forwarded-proto"));
    if gateway.config.tls.is_some() || forwarded == Some("https") {
        "https"
    } else {
        "http"
    }
}

/// `POST /v1/m`: the client's metrics about itself. Taken, so that it does not repeat them, and dropped.
pub(in super::super) async fn metrics() -> Response {
    reply::json(StatusCode::OK, r#"{"success":true}"#)
}

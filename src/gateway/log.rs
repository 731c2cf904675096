//! The access log: a sample, because a line per request would cost as much as the request.

use std::time::Duration;

use http::StatusCode;

use super::accept::Exchange;
use super::arrival;
use super::routes::Route;

/// Whether this request is one of the sample.
pub(super) fn sampled(part: f64) -> bool {
    part > 0.0 && fastrand::f64() < part
}

/// One line of the access log. Neither keys nor bodies.
pub(super) fn access(exchange: &Exchange<'_>, route: Route, status: StatusCode, took: Duration) {
    let headers = &exchange.head.headers;
    let trusted = &exchange.gateway.config.trusted_proxies;
    let client = exchange
        .connection()
        .map(|c| arrival::client_ip(headers, c.peer, &c.peer_text, trusted));
    tracing::info!(
        target: "sluice::access",
        route = route.name(),
        status = status.as_u16(),
        source.id = exchange.caller.as_ref().map_or("", |c| &c.source.id),
        client = client.as_deref().unwrap_or_default(),
        bytes = exchange.bytes,
        took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        traceparent = arrival::traceparent(headers),
        "{} {}",
        route.name(),
        status.as_u16()
    );
}

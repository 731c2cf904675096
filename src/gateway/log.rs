//! The access log: a sample, because a line per request would cost as much as the request.

use std::time::Duration;

use http::StatusCode;

use super::accept::Exchange;
use super::routes::Route;

/// Whether this request is one of the sample.
pub(super) fn sampled(part: f64) -> bool {
    part > 0.0 && fastrand::f64() < part
}

/// One line of the access log. Neither keys nor bodies.
pub(super) fn access(exchange: &Exchange<'_>, route: Route, status: StatusCode, took: Duration) {
    tracing::info!(
        target: "sluice::access",
        route = route.name(),
        status = status.as_u16(),
        source.id = exchange.caller.as_ref().map_or("", |c| &c.source.id),
        peer = exchange.connection().map_or("", |c| &c.peer_text),
        bytes = exchange.bytes,
        took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        traceparent = super::arrival::traceparent(&exchange.head.headers),
        "{} {}",
        route.name(),
        status.as_u16()
    );
}

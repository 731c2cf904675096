//! What the gateway counts.

use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::metrics::{Histogram, IntCounter};
use http::StatusCode;

use crate::telemetry::Registry;

use super::routes::Route;

crate::metrics! {
    /// What the gateway counts.
    pub struct GatewayMetrics("gateway") {
        /// Events that every in-sync replica acknowledged, or that are durable in the spill, by source.
        events_accepted_total: counter["source"],
        /// Events of suppressed users, answered with 200 and dropped, by source.
        events_suppressed_total: counter["source"],
        /// Events answered with 200 and not kept, by source and reason: event_blocked, bot.
        events_dropped_total: counter["source", "reason"],
        /// Accepted events of bots, by source: the client calls itself one in its user agent, or an ingestion service
        /// says that it is one.
        events_bot_total: counter["source"],
        /// Bytes of accepted events, as the clients wrote them, by source.
        event_bytes_total: counter["source"],
        /// Events that were not taken although their request was: rejected one by one (`Sluice-Result`) or with
        /// their user in an import, by source and reason. A request refused as a whole is counted as that.
        events_rejected_total: counter["source", "reason"],
        /// Requests that were refused, by source (empty when it is not known) and reason. A pixel is answered with its
        /// image all the same.
        requests_refused_total: counter["source", "reason"],
        /// Requests answered, by route and status.
        requests_total: counter["route", "status"],
        /// Seconds from the end of a request's head to its answer, by route.
        request_seconds: histogram["route"],
        /// Batches of webhook requests sent to the source transformer, by source type and outcome: ok,
        /// unreachable, timed_out, status, too_large, overloaded, unreadable.
        source_transformer_batches_total: counter["type", "outcome"],
        /// Seconds that a batch took at the source transformer, all attempts together, by source type.
        source_transformer_seconds: histogram["type"],
        /// Open connections.
        connections: gauge[],
        /// Connections turned away at the limit.
        connections_refused_total: counter[],
        /// Connections closed because the client was too slow, by what it was slow in: handshake,
        /// silent (not one byte came), head, body, idle (no further request).
        connections_timed_out_total: counter["phase"],
        /// Connections that ended before TLS was agreed on.
        tls_handshakes_failed_total: counter[],
        /// Connections that a bug in the gateway ended; always 0.
        connections_panicked_total: counter[],
        /// Bytes of bodies being handled.
        body_bytes_in_flight: gauge[],
        /// Times a broken producer was replaced.
        producer_replaced_total: gauge[],
    }
}

/// The metrics of `registry`.
pub(super) fn register(registry: &Registry) -> Arc<GatewayMetrics> {
    GatewayMetrics::register(registry)
}

impl GatewayMetrics {
    /// Counts a refused request; `source` is empty when it is not known.
    pub(super) fn refused(&self, source: &str, reason: &str) {
        let refused = &self.requests_refused_total;
        refused.with_label_values(&[source, reason]).inc();
    }
}

/// The metrics of each route, found once.
#[derive(Debug)]
pub(super) struct RouteMetrics {
    routes: Vec<OneRoute>,
    families: Arc<GatewayMetrics>,
}

#[derive(Debug)]
struct OneRoute {
    ok: IntCounter,
    seconds: Histogram,
}

impl RouteMetrics {
    pub(super) fn of(families: &Arc<GatewayMetrics>) -> Self {
        let routes = Route::ALL
            .iter()
            .map(|route| OneRoute {
                ok: families
                    .requests_total
                    .with_label_values(&[route.name(), "200"]),
                seconds: families.request_seconds.with_label_values(&[route.name()]),
            })
            .collect();
        Self {
            routes,
            families: Arc::clone(families),
        }
    }

    /// Counts one answer.
    pub(super) fn answered(&self, route: Route, status: StatusCode, took: Duration) {
        let Some(metrics) = self.routes.get(route as usize) else {
            return;
        };
        metrics.seconds.observe(took.as_secs_f64());
        if status == StatusCode::OK {
            metrics.ok.inc();
        } else {
            let labels = [route.name(), status.as_str()];
            self.families
                .requests_total
                .with_label_values(&labels)
                .inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_counted_under_its_own_name() {
        let registry = Registry::default();
        let routes = RouteMetrics::of(&register(&registry));
        for route in Route::ALL {
            routes.answered(route, StatusCode::OK, Duration::from_millis(1));
        }
        routes.answered(Route::Batch, StatusCode::BAD_REQUEST, Duration::ZERO);
        let text = registry.render();
        for route in Route::ALL {
            let line = format!(
                "requests_total{{route=\"{}\",status=\"200\"}} 1",
                route.name()
            );
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(text.contains("requests_total{route=\"batch\",status=\"400\"} 1"));
    }
}

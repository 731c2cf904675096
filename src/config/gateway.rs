//! HTTP ingestion.

use std::net::SocketAddr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// HTTP ingestion.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address to listen on; port 0 picks a free one. Default `0.0.0.0:8080`.
    pub listen: SocketAddr,
    /// Proxies whose `X-Forwarded-For` is believed, as addresses or CIDR ranges. Default none: the client's address is the
    /// connection's.
    pub trusted_proxies: Vec<String>,
    /// Whether an event may name neither a user nor an anonymous one. Default false, as RudderStack.
    pub allow_missing_ids: bool,
    /// Bytes of one request body, as sent and as inflated. Default 4096000, as RudderStack.
    pub body_bytes_max: usize,
    /// Events of one batch. Default 10000.
    pub batch_events_max: usize,
    /// Objects and arrays inside each other, per event. At most 120: later stages read no deeper. Default 100.
    pub json_depth_max: usize,
    /// Members and elements of one event, all together. Default 50000.
    pub json_values_max: usize,
    /// Bytes of all bodies being handled, from the first byte read to the answer; beyond it 503. Default 64 MiB.
    pub in_flight_bytes_max: usize,
    /// How long Kafka may take to acknowledge a request's events before it is answered with 503, in milliseconds. Default
    /// 8000, under the 10 s after which common clients give up.
    pub ack_deadline_ms: u64,
    /// Clients of a 503 or 429 are asked to come back after 1 to this many seconds. Default 5.
    pub retry_after_s_max: u32,
    /// Open connections; more are answered with 503 and closed. Default 20000.
    pub connections_max: usize,
    /// Bytes of a request's head. Default 65536.
    pub header_bytes_max: usize,
    /// How long a client may take to send a request's head, in milliseconds. Default 10000.
    pub header_timeout_ms: u64,
    /// How long a client may take to send a request's body, in milliseconds. Default 30000.
    pub body_timeout_ms: u64,
    /// How long a connection may wait for its next request, in milliseconds. Keep it above the idle timeout of the load
    /// balancer. Default 720000, as RudderStack.
    pub idle_timeout_ms: u64,
    /// How long to go on accepting after readiness is gone, in milliseconds, so that load balancers have noticed. Default:
    /// 5000 in production, 0 in dev mode.
    pub drain_grace_ms: Option<u64>,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            trusted_proxies: Vec::new(),
            allow_missing_ids: false,
            body_bytes_max: 4_096_000,
            batch_events_max: 10_000,
            json_depth_max: 100,
            json_values_max: 50_000,
            in_flight_bytes_max: 64 << 20,
            ack_deadline_ms: 8_000,
            retry_after_s_max: 5,
            connections_max: 20_000,
            header_bytes_max: 64 << 10,
            header_timeout_ms: 10_000,
            body_timeout_ms: 30_000,
            idle_timeout_ms: 720_000,
            drain_grace_ms: None,
        }
    }
}

impl GatewayConfig {
    /// How long Kafka may take to acknowledge.
    pub fn ack_deadline(&self) -> Duration {
        Duration::from_millis(self.ack_deadline_ms)
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let mut at_least = |key: &str, value: usize, least: usize| {
            if value < least {
                problems.push(format!("gateway.{key}: {value} is less than {least}"));
            }
        };
        at_least("body_bytes_max", self.body_bytes_max, 1);
        at_least("batch_events_max", self.batch_events_max, 1);
        at_least("json_depth_max", self.json_depth_max, 4);
        at_least("json_values_max", self.json_values_max, 1);
        at_least("connections_max", self.connections_max, 1);
        at_least("header_bytes_max", self.header_bytes_max, 8 << 10);
        at_least(
            "in_flight_bytes_max",
            self.in_flight_bytes_max,
            2 * self.body_bytes_max,
        );
        if self.json_depth_max > 120 {
            problems.push(format!(
                "gateway.json_depth_max: {} is more than the 120 that later stages can read",
                self.json_depth_max
            ));
        }
        for (key, value) in [
            ("ack_deadline_ms", self.ack_deadline_ms),
            ("header_timeout_ms", self.header_timeout_ms),
            ("body_timeout_ms", self.body_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("retry_after_s_max", u64::from(self.retry_after_s_max)),
        ] {
            if value == 0 {
                problems.push(format!("gateway.{key}: must be more than 0"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_cannot_work_are_named() {
        let mut problems = Vec::new();
        GatewayConfig::default().check(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let config = GatewayConfig {
            in_flight_bytes_max: 1,
            json_depth_max: 500,
            ack_deadline_ms: 0,
            ..GatewayConfig::default()
        };
        config.check(&mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}

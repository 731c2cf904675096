//! HTTP ingestion.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use super::networks::Networks;
use super::source_transformer::SourceTransformerConfig;

/// HTTP ingestion.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address to listen on; port 0 picks a free one. Default `0.0.0.0:8080`.
    pub listen: SocketAddr,
    /// HTTPS instead of HTTP.
    pub tls: Option<TlsConfig>,
    /// Proxies whose `X-Forwarded-For` is believed, as addresses or CIDR ranges. Default none: the client's address is the
    /// connection's.
    pub trusted_proxies: Networks,
    /// Web pages that may call us, as `https://shop.example.com`. The single entry `*` lets any page call, as RudderStack
    /// does, but without credentials. Default `*`.
    pub cors_origins: Vec<String>,
    /// Whether an event may name neither a user nor an anonymous one. Default false, as RudderStack.
    pub allow_missing_ids: bool,
    /// Events of users in this file are answered with 200 and dropped: one user id a line, for one source only as
    /// `<source id><tab><user id>`. Read again when it changes.
    pub suppression_file: Option<PathBuf>,
    /// Lines of `suppression_file`; a longer file is refused. Default 1000000.
    pub suppressed_users_max: usize,
    /// RudderStack's transformer service, for webhook sources of other services.
    pub source_transformer: SourceTransformerConfig,
    /// How many events each source may send.
    pub rate_limit: RateLimitConfig,
    /// Events that requests to `/internal/v1/batch` may announce in `X-Batch-Size` in each window, all sources of a gateway process
    /// together; beyond it 429 and `Retry-After`, before the body is read. Requests that announce nothing are not counted.
    /// Default 0: no limit, as RudderStack.
    pub internal_batch_throttle_events: u64,
    /// The window of `internal_batch_throttle_events`, in milliseconds. Default 1000, as RudderStack.
    pub internal_batch_throttle_window_ms: u64,
    /// Opens `/internal/v1/*` to requests with `X-Sluice-Token: <token>`. Default: these routes are not there.
    pub internal_token: Option<Secret>,
    /// Whether `/internal/v1/retl` must name a destination in `X-Rudder-Destination-Id`. Default false, as RudderStack.
    pub retl_destination_required: bool,
    /// Part of the requests that are written to the access log (target `sluice::access`), from 0 to 1. Refused ones
    /// are sampled alike. Default 0.
    pub access_log_sample: f64,
    /// Bytes of one request body, as sent and as inflated. Default 4096000, as RudderStack.
    pub body_bytes_max: usize,
    /// Bytes of an audience list (`/v1/audiencelist`), as sent and as inflated, in place of `body_bytes_max`, which RudderStack does
    /// not hold them to. A list is one event and so one record: it is never more than `kafka.producer.message_bytes_max`, which
    /// goes up with the topics' `max.message.bytes`. A batch is held to `body_bytes_max` whatever is in it. Default 16 MiB.
    pub audience_list_bytes_max: usize,
    /// Members and elements of one audience list, all together, in place of `json_values_max`. Default 500000.
    pub audience_list_values_max: usize,
    /// Bytes of a multipart form posted to a webhook source, files and all. What is made of it must fit `body_bytes_max`.
    /// Never more than `in_flight_bytes_max`. Default 32 MiB, as RudderStack.
    pub multipart_bytes_max: usize,
    /// Events of one batch. Default 10000.
    pub batch_events_max: usize,
    /// Objects and arrays inside each other, per event. At most 120: later stages read no deeper. Default 100.
    pub json_depth_max: usize,
    /// Members and elements of one event, all together. Default 50000.
    pub json_values_max: usize,
    /// Bytes of all bodies being handled, from the first byte read to the answer; beyond it 503. Also of what waits for the
    /// disk of `spill`. Default 64 MiB.
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
    /// How long a client may take to send a request's head, in milliseconds; also the first byte on a new connection.
    /// Default 10000.
    pub header_timeout_ms: u64,
    /// How long a client may take to send a request's body, in milliseconds. Default 30000.
    pub body_timeout_ms: u64,
    /// How long a connection may wait for its next request after an answer, in milliseconds. Keep it above the idle timeout of the load
    /// balancer. Default 720000, as RudderStack.
    pub idle_timeout_ms: u64,
    /// How long to go on accepting after readiness is gone, in milliseconds, so that load balancers have noticed. Default:
    /// 5000 in production, 0 in dev mode.
    pub drain_grace_ms: Option<u64>,
    /// Where events wait while Kafka is away, instead of being refused with 503. Off unless given. It weakens what a 200
    /// promises from "all in-sync replicas have it" to "all in-sync replicas or the disk of this gateway have it": a disk
    /// that is lost loses what was spilled and not sent to Kafka yet. While one gateway process spills, the order of a user
    /// holds among the events that it took, but not across gateway processes.
    pub spill: Option<SpillConfig>,
}

/// Certificate and key of the listener. Both files are read again when one changes; open connections go on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate and its chain.
    pub certificate_file: PathBuf,
    /// PEM file with the private key.
    pub key_file: PathBuf,
}

/// Events on the disk of a gateway process while Kafka does not acknowledge them; sent to Kafka, in order, when it does. A
/// request that was under way when Kafka went away can end up in Kafka twice; so can the oldest segment after a crash. The
/// processor leaves the second out by its message id, within `processor.dedup.window_ms`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpillConfig {
    /// Folder of the segment files. One gateway process each; it must outlive the process, as the disk of a StatefulSet does.
    pub dir: PathBuf,
    /// Bytes of the folder, what is kept aside in it included; beyond it 503. Default 4 GiB.
    #[serde(default = "SpillConfig::default_bytes_max")]
    pub bytes_max: u64,
    /// Bytes of one segment file, which is deleted when Kafka has all of it; at most so much is sent again after a crash. Default
    /// 16 MiB.
    #[serde(default = "SpillConfig::default_segment_bytes_max")]
    pub segment_bytes_max: u64,
    /// How long Kafka may take to acknowledge a request's events before they are spilled, in milliseconds. Less than
    /// `ack_deadline_ms`. Default 2000.
    #[serde(default = "SpillConfig::default_after_ms")]
    pub after_ms: u64,
}

impl SpillConfig {
    /// The defaults in `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            bytes_max: Self::default_bytes_max(),
            segment_bytes_max: Self::default_segment_bytes_max(),
            after_ms: Self::default_after_ms(),
        }
    }

    fn default_bytes_max() -> u64 {
        4 << 30
    }

    fn default_segment_bytes_max() -> u64 {
        16 << 20
    }

    fn default_after_ms() -> u64 {
        2_000
    }
}

/// How many events each source may send; beyond it 429 and `Retry-After`. Requests of a job run are exempt.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitConfig {
    /// Events in each window, per source and gateway process. Default 0: no limit.
    pub events: u64,
    /// The window, in milliseconds. Default 60000, as RudderStack.
    pub window_ms: u64,
    /// Other numbers of events for single sources, by source id; 0 for no limit.
    pub sources: BTreeMap<String, u64>,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            events: 0,
            window_ms: 60_000,
            sources: BTreeMap::new(),
        }
    }
}

impl RateLimitConfig {
    /// Events that `source` may send in each window; 0 for no limit.
    pub fn events_of(&self, source: &str) -> u64 {
        self.sources.get(source).copied().unwrap_or(self.events)
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            tls: None,
            trusted_proxies: Networks::default(),
            cors_origins: vec!["*".to_owned()],
            allow_missing_ids: false,
            suppression_file: None,
            suppressed_users_max: 1_000_000,
            source_transformer: SourceTransformerConfig::default(),
            rate_limit: RateLimitConfig::default(),
            internal_batch_throttle_events: 0,
            internal_batch_throttle_window_ms: 1_000,
            internal_token: None,
            retl_destination_required: false,
            access_log_sample: 0.0,
            body_bytes_max: 4_096_000,
            audience_list_bytes_max: 16 << 20,
            audience_list_values_max: 500_000,
            multipart_bytes_max: 32 << 20,
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
            spill: None,
        }
    }
}

impl GatewayConfig {
    /// How long Kafka may take to acknowledge.
    pub fn ack_deadline(&self) -> Duration {
        Duration::from_millis(self.ack_deadline_ms)
    }

    /// Bytes that an audience list may have where a record may have `message_bytes_max`.
    pub fn audience_list_bytes(&self, message_bytes_max: usize) -> usize {
        self.audience_list_bytes_max.min(message_bytes_max)
    }

    /// `message_bytes_max` is what a record may have.
    pub(super) fn check(&self, message_bytes_max: usize, problems: &mut Vec<String>) {
        let largest = self
            .body_bytes_max
            .max(self.audience_list_bytes(message_bytes_max));
        let mut at_least = |key: &str, value: usize, least: usize| {
            if value < least {
                problems.push(format!("gateway.{key}: {value} is less than {least}"));
            }
        };
        at_least("body_bytes_max", self.body_bytes_max, 1);
        at_least("audience_list_bytes_max", self.audience_list_bytes_max, 1);
        at_least("audience_list_values_max", self.audience_list_values_max, 1);
        at_least("batch_events_max", self.batch_events_max, 1);
        at_least("json_depth_max", self.json_depth_max, 4);
        at_least("json_values_max", self.json_values_max, 1);
        at_least("connections_max", self.connections_max, 1);
        at_least("header_bytes_max", self.header_bytes_max, 8 << 10);
        at_least("in_flight_bytes_max", self.in_flight_bytes_max, 2 * largest);
        at_least("multipart_bytes_max", self.multipart_bytes_max, 1);
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
            ("rate_limit.window_ms", self.rate_limit.window_ms),
            (
                "internal_batch_throttle_window_ms",
                self.internal_batch_throttle_window_ms,
            ),
        ] {
            if value == 0 {
                problems.push(format!("gateway.{key}: must be more than 0"));
            }
        }
        if !(0.0..=1.0).contains(&self.access_log_sample) {
            problems.push("gateway.access_log_sample: must be between 0 and 1".to_owned());
        }
        self.source_transformer.check(problems);
        self.check_origins(problems);
        self.check_spill(largest, problems);
        if self
            .internal_token
            .as_ref()
            .is_some_and(|t| t.expose().len() < 16)
        {
            problems.push("gateway.internal_token: must have at least 16 characters".to_owned());
        }
    }

    fn check_spill(&self, largest: usize, problems: &mut Vec<String>) {
        let Some(spill) = &self.spill else { return };
        if spill.dir.as_os_str().is_empty() {
            problems.push("gateway.spill.dir: must name a folder".to_owned());
        }
        if spill.segment_bytes_max < 4_096 {
            problems.push(format!(
                "gateway.spill.segment_bytes_max: {} is less than 4096",
                spill.segment_bytes_max
            ));
        }
        if spill.bytes_max < spill.segment_bytes_max.max(largest as u64) {
            problems.push(format!(
                "gateway.spill.bytes_max: {} is less than gateway.spill.segment_bytes_max or than the largest request ({largest})",
                spill.bytes_max
            ));
        }
        if spill.after_ms == 0 || spill.after_ms >= self.ack_deadline_ms {
            problems.push(format!(
                "gateway.spill.after_ms: {} must be more than 0 and less than gateway.ack_deadline_ms ({}), which leaves the disk its time",
                spill.after_ms, self.ack_deadline_ms
            ));
        }
    }

    fn check_origins(&self, problems: &mut Vec<String>) {
        for origin in &self.cors_origins {
            let parsed = url::Url::parse(origin).ok();
            let exact = parsed.is_some_and(|url| url.origin().ascii_serialization() == *origin);
            if origin == "*" && self.cors_origins.len() > 1 {
                problems.push("gateway.cors_origins: `*` stands alone or not at all".to_owned());
            } else if origin != "*" && !exact {
                problems.push(format!(
                    "gateway.cors_origins: {origin:?} is no origin; write scheme, host and port only, as https://shop.example.com"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &GatewayConfig) -> Vec<String> {
        problems_with(config, 1_000_000)
    }

    fn problems_with(config: &GatewayConfig, message_bytes_max: usize) -> Vec<String> {
        let mut problems = Vec::new();
        config.check(message_bytes_max, &mut problems);
        problems
    }

    #[test]
    fn an_audience_list_is_held_to_a_limit_of_its_own_and_to_that_of_a_record() {
        let config = GatewayConfig::default();
        assert!(config.audience_list_bytes_max > config.body_bytes_max);
        assert_eq!(config.audience_list_bytes(1_000_000), 1_000_000);
        let own = config.audience_list_bytes_max;
        assert_eq!(config.audience_list_bytes(64 << 20), own);
        // One that could not be held while it is inflated, and one that the spill could never take.
        let mut config = GatewayConfig {
            in_flight_bytes_max: 2 * own - 1,
            ..GatewayConfig::default()
        };
        assert_eq!(problems_with(&config, 64 << 20).len(), 1);
        assert_eq!(problems_with(&config, 1_000_000).len(), 0);
        config.in_flight_bytes_max = 2 * own;
        config.spill = Some(SpillConfig {
            bytes_max: own as u64 - 1,
            segment_bytes_max: 4_096,
            ..SpillConfig::at("/spill")
        });
        assert_eq!(problems_with(&config, 64 << 20).len(), 1);
        assert_eq!(problems_with(&config, 1_000_000).len(), 0);
    }

    #[test]
    fn limits_that_cannot_work_are_named() {
        assert_eq!(problems(&GatewayConfig::default()), Vec::<String>::new());
        let config = GatewayConfig {
            in_flight_bytes_max: 1,
            json_depth_max: 500,
            ack_deadline_ms: 0,
            internal_batch_throttle_window_ms: 0,
            access_log_sample: 2.0,
            internal_token: Some(Secret::new("short")),
            ..GatewayConfig::default()
        };
        assert_eq!(problems(&config).len(), 6);
    }

    #[test]
    fn an_origin_that_no_browser_would_send_is_named() {
        let with = |origins: &[&str]| {
            problems(&GatewayConfig {
                cors_origins: origins.iter().map(|o| (*o).to_owned()).collect(),
                ..GatewayConfig::default()
            })
            .len()
        };
        assert_eq!(with(&["https://a.example", "http://b.example:8080"]), 0);
        assert_eq!(with(&[]), 0);
        assert_eq!(with(&["*", "https://a.example"]), 1);
        assert_eq!(
            with(&["https://a.example/", "a.example", "https://A.example"]),
            3
        );
    }

    #[test]
    fn a_spill_that_could_not_work_is_named() {
        let with = |change: fn(&mut SpillConfig)| {
            let mut spill = SpillConfig::at("/spill");
            change(&mut spill);
            problems(&GatewayConfig {
                spill: Some(spill),
                ..GatewayConfig::default()
            })
            .len()
        };
        assert_eq!(with(|_| ()), 0);
        assert_eq!(with(|spill| spill.dir = PathBuf::new()), 1);
        assert_eq!(with(|spill| spill.segment_bytes_max = 1), 1);
        assert_eq!(with(|spill| spill.bytes_max = 1), 1);
        assert_eq!(with(|spill| spill.after_ms = 8_000), 1);
    }

    #[test]
    fn a_source_may_have_a_limit_of_its_own() {
        let limit = RateLimitConfig {
            events: 100,
            sources: BTreeMap::from([("big".to_owned(), 5_000), ("free".to_owned(), 0)]),
            ..RateLimitConfig::default()
        };
        assert_eq!(
            (
                limit.events_of("big"),
                limit.events_of("free"),
                limit.events_of("x")
            ),
            (5_000, 0, 100)
        );
    }
}

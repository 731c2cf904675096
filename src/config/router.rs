//! Deliveries.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Deliveries.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouterConfig {
    /// Time between commits of progress, in milliseconds: what was delivered since the last one is delivered again after
    /// a crash. Each is one transaction with the ledger entry and the dead letters. Default 250.
    pub commit_interval_ms: u64,
    /// Deliveries that may have ended, or be in flight, without being committed, per lane: the most that is delivered
    /// again after a crash. Beyond it nothing is started until a commit passed; at half of it the commit comes at once.
    /// Default 5000.
    pub uncommitted_records_max: u64,
    /// Records held in memory per partition, waiting or in flight; beyond it the partition is paused. Default 20000.
    pub window_records_max: usize,
    /// Bytes (keys and payloads) held in memory per partition; beyond it the partition is paused. Default 32 MiB.
    pub window_bytes_max: usize,
    /// Offsets from the oldest unfinished record to the newest that was read, per partition; beyond it the partition is
    /// paused. All of them are read again (and skipped where done) after a restart. Default 2000000.
    pub window_span_max: u64,
    /// Bytes of the commit's metadata that tells which records beyond the committed offset are done; beyond it the
    /// partition is paused. The broker takes at most 4096 (`offset.metadata.max.bytes`); records that might take more are
    /// not started until older ones have ended. Default 3072.
    pub window_metadata_bytes_max: usize,
    /// Records taken from the consumer at a time. Default 1000.
    pub poll_records_max: usize,
    /// Dead letters that wait for the next commit; beyond it the commit comes at once. Default 200.
    pub dead_letters_pending_max: usize,
    /// Longest wait for requests in flight when a partition is taken away, in milliseconds. Should exceed
    /// `delivery.timeout_ms`: a request that outlives it may reach the destination after the next owner's first.
    /// Default 12000.
    pub revoke_wait_ms: u64,
    /// How long to wait for the workspace to show a destination that a newer workspace addressed a record to, in
    /// milliseconds; after that the record counts as filtered. Default 60000.
    pub unknown_destination_wait_ms: u64,
    /// How long the lane of a destination that is gone from the workspace is kept once it is empty, in milliseconds.
    /// Default 30000.
    pub lane_linger_ms: u64,
    /// Requests and patience, for every destination.
    pub delivery: DeliveryConfig,
    /// Exceptions to `delivery`, by destination type (`WEBHOOK`) or destination id; the id goes first.
    pub destinations: BTreeMap<String, DeliveryOverrides>,
    /// When a destination as a whole is left alone.
    pub breaker: BreakerConfig,
    /// The HTTP client.
    pub http: RouterHttpConfig,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            commit_interval_ms: 250,
            uncommitted_records_max: 5_000,
            window_records_max: 20_000,
            window_bytes_max: 32 << 20,
            window_span_max: 2_000_000,
            window_metadata_bytes_max: 3_072,
            poll_records_max: 1_000,
            dead_letters_pending_max: 200,
            revoke_wait_ms: 12_000,
            unknown_destination_wait_ms: 60_000,
            lane_linger_ms: 30_000,
            delivery: DeliveryConfig::default(),
            destinations: BTreeMap::new(),
            breaker: BreakerConfig::default(),
            http: RouterHttpConfig::default(),
        }
    }
}

/// Requests and patience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// Ordering keys of one destination that are served side by side, per router process. Default 256.
    pub concurrency: usize,
    /// Longest time for one request and its answer, in milliseconds. Default 10000 (RudderStack's).
    pub timeout_ms: u64,
    /// Bound of the first wait after a failure, in milliseconds; doubles with each, drawn with full jitter. Default 1000.
    pub backoff_base_ms: u64,
    /// Bound of every wait after a failure, in milliseconds. Default 300000 (RudderStack's).
    pub backoff_cap_ms: u64,
    /// Longest `Retry-After` that is honoured, in milliseconds. Default 3600000.
    pub retry_after_max_ms: u64,
    /// Give up on an event when this has passed since its first failure, in milliseconds, and `give_up_attempts` failed.
    /// The time in which the destination is down for everybody does not count. Default 10800000 (RudderStack's 180 min).
    pub give_up_after_ms: u64,
    /// Attempts that must have failed before an event is given up. Default 3 (RudderStack's).
    pub give_up_attempts: u32,
    /// Give up on an event that is only ever answered with 408 or 429 after this, in milliseconds. RudderStack keeps it
    /// for 30 days; choose less than the retention of `deliver.*`. Default 259200000 (3 days).
    pub give_up_throttled_after_ms: u64,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            concurrency: 256,
            timeout_ms: 10_000,
            backoff_base_ms: 1_000,
            backoff_cap_ms: 300_000,
            retry_after_max_ms: 3_600_000,
            give_up_after_ms: 180 * 60_000,
            give_up_attempts: 3,
            give_up_throttled_after_ms: 72 * 3_600_000,
        }
    }
}

/// Exceptions for a type of destinations or for one of them; what is not given is as for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryOverrides {
    /// As in `router.delivery`.
    pub concurrency: Option<usize>,
    /// As in `router.delivery`.
    pub timeout_ms: Option<u64>,
    /// As in `router.delivery`.
    pub backoff_base_ms: Option<u64>,
    /// As in `router.delivery`.
    pub backoff_cap_ms: Option<u64>,
    /// As in `router.delivery`.
    pub retry_after_max_ms: Option<u64>,
    /// As in `router.delivery`.
    pub give_up_after_ms: Option<u64>,
    /// As in `router.delivery`.
    pub give_up_attempts: Option<u32>,
    /// As in `router.delivery`.
    pub give_up_throttled_after_ms: Option<u64>,
}

impl DeliveryConfig {
    fn with(mut self, o: &DeliveryOverrides) -> Self {
        fn set<T: Copy>(field: &mut T, exception: Option<T>) {
            if let Some(value) = exception {
                *field = value;
            }
        }
        set(&mut self.concurrency, o.concurrency);
        set(&mut self.timeout_ms, o.timeout_ms);
        set(&mut self.backoff_base_ms, o.backoff_base_ms);
        set(&mut self.backoff_cap_ms, o.backoff_cap_ms);
        set(&mut self.retry_after_max_ms, o.retry_after_max_ms);
        set(&mut self.give_up_after_ms, o.give_up_after_ms);
        set(&mut self.give_up_attempts, o.give_up_attempts);
        set(
            &mut self.give_up_throttled_after_ms,
            o.give_up_throttled_after_ms,
        );
        self
    }

    /// Longest time for one request and its answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn check(&self, section: &str, problems: &mut Vec<String>) {
        if self.concurrency == 0 {
            problems.push(format!(
                "{section}.concurrency: 0 would deliver nothing; to stop a destination, disable it"
            ));
        }
        for (key, value) in [
            ("timeout_ms", self.timeout_ms),
            ("backoff_base_ms", self.backoff_base_ms),
        ] {
            if value == 0 {
                problems.push(format!("{section}.{key}: must be at least 1"));
            }
        }
        if self.backoff_cap_ms < self.backoff_base_ms {
            problems.push(format!(
                "{section}.backoff_cap_ms: must be at least backoff_base_ms"
            ));
        }
    }
}

/// When a destination as a whole is left alone and asked again by single probes; nothing is dead-lettered meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Retryable failures in a row that open it, if they are of at least `keys` ordering keys. Default 10.
    pub failures: u32,
    /// See `failures`. Default 3.
    pub keys: usize,
    /// Failures to connect in a row that open it, of whichever key. Default 5.
    pub unreachable: u32,
    /// Final refusals in a row that open it. Default 20.
    pub refusals: u32,
    /// Share of final refusals among the `recent` last outcomes that opens it; above 1 switches this off. Default 0.5.
    pub refusal_share: f64,
    /// How many outcomes `refusal_share` is taken of. Default 50.
    pub recent: usize,
    /// Bound of the first wait before a probe, in milliseconds; doubles with each that fails. Default 1000.
    pub probe_base_ms: u64,
    /// Bound of every wait before a probe, in milliseconds. Default 60000.
    pub probe_cap_ms: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 10,
            keys: 3,
            unreachable: 5,
            refusals: 20,
            refusal_share: 0.5,
            recent: 50,
            probe_base_ms: 1_000,
            probe_cap_ms: 60_000,
        }
    }
}

/// The HTTP client of all destinations.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouterHttpConfig {
    /// Refuse to deliver to addresses that are not on the public internet, also when a name resolves to one: for
    /// workspaces that are written by people who do not run the process. Default false.
    pub block_private_ips: bool,
    /// Longest time to connect, TLS included, in milliseconds. Default 5000.
    pub connect_timeout_ms: u64,
    /// How long an unused connection is kept, in milliseconds. Default 60000.
    pub idle_timeout_ms: u64,
}

impl Default for RouterHttpConfig {
    fn default() -> Self {
        Self {
            block_private_ips: false,
            connect_timeout_ms: 5_000,
            idle_timeout_ms: 60_000,
        }
    }
}

impl RouterConfig {
    /// Requests and patience for the destination `id` of type `kind`: what is said for the id, else for the type, else for
    /// all.
    pub fn delivery_for(&self, kind: &str, id: &str) -> DeliveryConfig {
        [kind, id]
            .iter()
            .filter_map(|name| self.destinations.get(*name))
            .fold(self.delivery.clone(), DeliveryConfig::with)
    }

    /// The most ordering keys that any destination serves side by side.
    pub fn concurrency_max(&self) -> usize {
        let exceptions = self.destinations.values().filter_map(|o| o.concurrency);
        exceptions.fold(self.delivery.concurrency, usize::max)
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        self.delivery.check("router.delivery", problems);
        for (name, exceptions) in &self.destinations {
            let section = format!("router.destinations.{name}");
            self.delivery
                .clone()
                .with(exceptions)
                .check(&section, problems);
        }
        for (key, value) in [
            ("commit_interval_ms", self.commit_interval_ms),
            ("uncommitted_records_max", self.uncommitted_records_max),
            ("window_records_max", self.window_records_max as u64),
            ("window_bytes_max", self.window_bytes_max as u64),
            ("window_span_max", self.window_span_max),
            ("poll_records_max", self.poll_records_max as u64),
            (
                "dead_letters_pending_max",
                self.dead_letters_pending_max as u64,
            ),
            ("breaker.failures", self.breaker.failures.into()),
            ("breaker.keys", self.breaker.keys as u64),
            ("breaker.unreachable", self.breaker.unreachable.into()),
            ("breaker.refusals", self.breaker.refusals.into()),
            ("breaker.recent", self.breaker.recent as u64),
            ("breaker.probe_base_ms", self.breaker.probe_base_ms),
        ] {
            if value == 0 {
                problems.push(format!("router.{key}: must be at least 1"));
            }
        }
        if !(64..=4096).contains(&self.window_metadata_bytes_max) {
            problems.push(
                "router.window_metadata_bytes_max: must be from 64 to 4096, the broker's offset.metadata.max.bytes"
                    .to_owned(),
            );
        }
        if self.breaker.refusal_share.is_nan() || self.breaker.refusal_share <= 0.0 {
            problems.push("router.breaker.refusal_share: must be above 0".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_for_one_destination_goes_before_its_type_and_all_others() {
        let config: RouterConfig = serde_yaml_ng::from_str(
            "delivery: {concurrency: 10, timeout_ms: 1}\n\
             destinations: {WEBHOOK: {concurrency: 20, timeout_ms: 2}, hook-1: {concurrency: 30}}",
        )
        .unwrap();
        let of = |kind, id| {
            let d = config.delivery_for(kind, id);
            (d.concurrency, d.timeout_ms)
        };
        assert_eq!(of("WEBHOOK", "hook-1"), (30, 2));
        assert_eq!(of("WEBHOOK", "hook-2"), (20, 2));
        assert_eq!(of("KAFKA", "k"), (10, 1));
        assert_eq!(config.concurrency_max(), 30);
    }

    #[test]
    fn settings_that_would_deliver_nothing_are_named() {
        let mut problems = Vec::new();
        RouterConfig::default().check(&mut problems);
        assert_eq!(problems, Vec::<String>::new());
        let wrong: RouterConfig = serde_yaml_ng::from_str(
            "{window_records_max: 0, destinations: {hook: {concurrency: 0}}, breaker: {refusal_share: 0.0}}",
        )
        .unwrap();
        wrong.check(&mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("router.destinations.hook.concurrency"));
    }
}

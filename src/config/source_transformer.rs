//! RudderStack's transformer service, as the gateway uses it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// RudderStack's transformer service: it makes events of what other services post to webhook sources. What a source of
/// the type `webhook` is posted needs none.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceTransformerConfig {
    /// Its address, as `http://transformer:9090`. Default none: webhook sources of types other than `webhook` are refused
    /// with 404.
    pub url: Option<String>,
    /// Longest time to connect, in milliseconds. Default 2000.
    pub connect_timeout_ms: u64,
    /// Longest time for a batch of requests and all attempts together, in milliseconds; then its clients are answered
    /// with 503. Default 10000, as RudderStack.
    pub timeout_ms: u64,
    /// Attempts for a batch, the first one included. Default 5, as RudderStack.
    pub attempts_max: u32,
    /// Bound of the first wait between attempts, in milliseconds; doubles with each, drawn with full jitter. Default 100.
    pub backoff_base_ms: u64,
    /// Bound of every wait between attempts, in milliseconds. Default 1000.
    pub backoff_cap_ms: u64,
    /// Bytes of one answer. It also counts against `in_flight_bytes_max`. Default 16 MiB.
    pub response_bytes_max: usize,
    /// Requests to sources of one type that are sent together. Default 32, as RudderStack.
    pub batch_requests_max: usize,
    /// How long the first request of a batch waits for others, in milliseconds. Default 20, as RudderStack.
    pub batch_wait_ms: u64,
    /// Batches that are with the transformer at once; others wait, within `timeout_ms`. Default 64.
    pub batches_in_flight_max: usize,
    /// Source types, in lower case, of which a GET is an event and not a look whether the address is there. Default
    /// `adjust`, as RudderStack.
    pub forward_get: Vec<String>,
}

impl Default for SourceTransformerConfig {
    fn default() -> Self {
        Self {
            url: None,
            connect_timeout_ms: 2_000,
            timeout_ms: 10_000,
            attempts_max: 5,
            backoff_base_ms: 100,
            backoff_cap_ms: 1_000,
            response_bytes_max: 16 << 20,
            batch_requests_max: 32,
            batch_wait_ms: 20,
            batches_in_flight_max: 64,
            forward_get: vec!["adjust".to_owned()],
        }
    }
}

impl SourceTransformerConfig {
    /// The address; `None` when there is none, or none that can be used.
    pub fn base_url(&self) -> Option<url::Url> {
        let url = url::Url::parse(self.url.as_deref()?).ok()?;
        matches!(url.scheme(), "http" | "https").then_some(url)
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let at = "gateway.source_transformer";
        if self.url.is_some() && self.base_url().is_none() {
            problems.push(format!(
                "{at}.url: is no address as http://transformer:9090"
            ));
        }
        for (key, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("timeout_ms", self.timeout_ms),
            ("attempts_max", u64::from(self.attempts_max)),
            ("response_bytes_max", self.response_bytes_max as u64),
            ("batch_requests_max", self.batch_requests_max as u64),
            ("batches_in_flight_max", self.batches_in_flight_max as u64),
        ] {
            if value == 0 {
                problems.push(format!("{at}.{key}: must be more than 0"));
            }
        }
        if let Some(upper) = self.forward_get.iter().find(|t| **t != t.to_lowercase()) {
            problems.push(format!("{at}.forward_get: write {upper:?} in lower case"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let mut problems = Vec::new();
        SourceTransformerConfig::default().check(&mut problems);
        assert_eq!(problems, Vec::<String>::new());
        let config = SourceTransformerConfig {
            url: Some("ftp://transformer/".to_owned()),
            attempts_max: 0,
            forward_get: vec!["Adjust".to_owned()],
            ..SourceTransformerConfig::default()
        };
        config.check(&mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}

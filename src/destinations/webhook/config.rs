//! The webhook's settings, in RudderStack's names.

use std::fmt;

use ::http::Method;
use ::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::destinations::ConfigProblem;

/// As written; other keys (`oneTrustCookieCategories`, …) are not this destination's business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    webhook_url: String,
    #[serde(default)]
    webhook_method: String,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    allow_full_path: bool,
}

#[derive(Deserialize)]
struct Pair {
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
}

/// Checked settings.
pub(super) struct WebhookConfig {
    /// Where to.
    pub(super) url: Url,
    /// POST, PUT and PATCH send the event as JSON; GET and DELETE its properties (an identify's traits) as a query.
    pub(super) method: Method,
    /// Set on every request.
    pub(super) headers: HeaderMap,
    /// Whether an event's `fullPath` may replace the whole URL, host included. RudderStack always lets it; here it has to
    /// be asked for (`allowFullPath`, not a RudderStack setting): events come from anybody who has a write key, which
    /// browsers do, and could otherwise carry the configured headers to a host of their choice.
    pub(super) allow_full_path: bool,
    /// What must not appear in kept answers.
    pub(super) secrets: Vec<String>,
}

impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig")
            .field("host", &self.url.host_str())
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl WebhookConfig {
    /// Reads and checks settings.
    pub(super) fn read(settings: &Value) -> Result<Self, ConfigProblem> {
        let raw = Raw::deserialize(settings)
            .map_err(|error| ConfigProblem::new("config", error.to_string()))?;
        let url = url(&raw.webhook_url)?;
        let method = method(&raw.webhook_method)?;
        let headers = headers(&raw.headers)?;
        Ok(Self {
            secrets: secrets(&url, &headers),
            url,
            method,
            headers,
            allow_full_path: raw.allow_full_path,
        })
    }
}

fn url(text: &str) -> Result<Url, ConfigProblem> {
    let problem = |what: &str| ConfigProblem::new("webhookUrl", what);
    let url = Url::parse(text.trim()).map_err(|error| {
        problem(&format!(
            "{error}; wanted is a full URL such as https://example.com/events"
        ))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(problem("scheme must be http or https"));
    }
    Ok(url)
}

fn method(text: &str) -> Result<Method, ConfigProblem> {
    match text.trim().to_ascii_uppercase().as_str() {
        "" | "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "PATCH" => Ok(Method::PATCH),
        "GET" => Ok(Method::GET),
        "DELETE" => Ok(Method::DELETE),
        other => Err(ConfigProblem::new(
            "webhookMethod",
            format!("{other:?} is none of POST, PUT, PATCH, GET, DELETE"),
        )),
    }
}

fn headers(pairs: &[Pair]) -> Result<HeaderMap, ConfigProblem> {
    let mut headers = HeaderMap::new();
    // RudderStack's console leaves an empty pair behind.
    for pair in pairs.iter().filter(|p| !p.from.trim().is_empty()) {
        let key = format!("headers.{}", pair.from);
        let name = HeaderName::from_bytes(pair.from.trim().as_bytes())
            .map_err(|_| ConfigProblem::new(&key, "is not a header name"))?;
        if is_reserved(&name) {
            return Err(ConfigProblem::new(&key, "is set by the connection itself"));
        }
        let value = HeaderValue::from_str(pair.to.trim())
            .map_err(|_| ConfigProblem::new(&key, "value holds characters that HTTP forbids"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Headers that belong to the connection: setting them by hand corrupts the exchange.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "upgrade"
            | "te"
            | "trailer"
    )
}

/// Values that identify us to the service. Short ones are left out: replacing every `1` helps nobody.
fn secrets(url: &Url, headers: &HeaderMap) -> Vec<String> {
    const SHORTEST: usize = 6;
    let public = [CONTENT_TYPE, ACCEPT, USER_AGENT];
    let in_headers = headers
        .iter()
        .filter(|(name, _)| !public.contains(name))
        .filter_map(|(_, value)| value.to_str().ok())
        // Of `Bearer TOKEN` also the token alone: services like to quote it.
        .flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)])
        .flatten()
        .map(str::to_owned);
    let in_query = url.query_pairs().map(|(_, value)| value.into_owned());
    let mut secrets: Vec<String> = in_headers
        .chain(in_query)
        .chain(url.password().map(str::to_owned))
        .filter(|secret| secret.len() >= SHORTEST)
        .collect();
    // Longest first: a secret that holds another must go before its part is gone.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    secrets
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(settings: Value) -> String {
        WebhookConfig::read(&settings).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert!(problem(json!({})).starts_with("webhookUrl: "));
        assert!(problem(json!({"webhookUrl": "ftp://x"})).contains("http or https"));
        let wrong = json!({"webhookUrl": "http://x", "webhookMethod": "TRACE"});
        assert!(problem(wrong).contains("TRACE"));
        let wrong = json!({"webhookUrl": "http://x", "headers": [{"from": "a b", "to": "c"}]});
        assert!(problem(wrong).starts_with("headers.a b"));
        let wrong =
            json!({"webhookUrl": "http://x", "headers": [{"from": "Content-Length", "to": "1"}]});
        assert!(problem(wrong).contains("connection"));
    }

    #[test]
    fn what_rudderstacks_console_writes_is_read() {
        let config = WebhookConfig::read(&json!({
            "webhookUrl": "https://u:passw0rd@example.com/x?key=abcdef123",
            "headers": [{"from": "Authorization", "to": "Bearer t0ken-long"}, {"from": "", "to": ""}],
            "oneTrustCookieCategories": []
        }))
        .unwrap();
        assert_eq!(config.method, Method::POST);
        assert_eq!(config.headers.len(), 1);
        assert_eq!(
            config.secrets,
            ["Bearer t0ken-long", "t0ken-long", "abcdef123", "passw0rd"]
        );
        assert!(!format!("{config:?}").contains("t0ken"));
    }
}

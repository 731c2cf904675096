//! From an event to the request that RudderStack's webhook transformation makes of it. Pure.
//!
//! The body is the stamped event, with `context.ip` filled from the request's address. Three fields of an event (usually
//! set by a user transformation) shape the request instead of being sent: `header` adds headers, `appendPath` is appended
//! to the URL, `fullPath` replaces it; the latter two are also read from `integrations.Webhook`. What an event may do is
//! bounded: it may not move the request to another host unless the destination says `allowFullPath`.

use ::http::Method;
use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use serde_json::{Map, Value};
use url::Url;

use super::config::{WebhookConfig, is_reserved};
use crate::destinations::DeliveryError;
use crate::destinations::http::HttpRequest;
use crate::event::{Envelope, stamped_event};

/// The request for one event.
///
/// # Errors
/// When the event is no JSON object, or asks for a URL or header that cannot or may not be.
pub(super) fn build(
    config: &WebhookConfig,
    envelope: &Envelope<'_>,
) -> Result<HttpRequest, DeliveryError> {
    let mut event = stamped_event(envelope).map_err(DeliveryError::Event)?;
    fill_ip(&mut event);
    let mut url = target(config, &mut event)?;
    let mut headers = HeaderMap::new();
    let in_query = config.method == Method::GET || config.method == Method::DELETE;
    if !in_query {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in &config.headers {
        headers.insert(name, value.clone());
    }
    if let Some(Value::Object(wanted)) = event.remove("header") {
        add_headers(&wanted, &mut headers);
    }
    let body = if in_query {
        add_query(&event, &mut url);
        Bytes::new()
    } else {
        Bytes::from(Value::Object(event).to_string())
    };
    Ok(HttpRequest {
        method: config.method.clone(),
        url,
        headers,
        body,
    })
}

fn fill_ip(event: &mut Map<String, Value>) {
    let Some(ip) = event.get("request_ip").filter(|ip| !ip.is_null()).cloned() else {
        return;
    };
    let context = event
        .entry("context")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(context) = context {
        let own = context.entry("ip").or_insert(Value::Null);
        if own.is_null() || own.as_str() == Some("") {
            *own = ip;
        }
    }
}

/// The URL, with what the event asks of it.
fn target(config: &WebhookConfig, event: &mut Map<String, Value>) -> Result<Url, DeliveryError> {
    let full = wish(event, "fullPath");
    let append = wish(event, "appendPath");
    if full.is_none() && append.is_none() {
        return Ok(config.url.clone());
    }
    let unfit = |field: &str, why: &str| DeliveryError::Unrequestable(format!("{field}: {why}"));
    let mut url = match full {
        None => config.url.clone(),
        Some(full) => {
            let url = Url::parse(&full).map_err(|_| unfit("fullPath", "is not a URL"))?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(unfit("fullPath", "scheme must be http or https"));
            }
            if !config.allow_full_path && url.origin() != config.url.origin() {
                return Err(unfit(
                    "fullPath",
                    "names another host, and the destination does not set allowFullPath",
                ));
            }
            url
        }
    };
    if let Some(append) = append {
        // Text is appended, as RudderStack does, so that it may hold a query; but `.evil.example` after a bare host
        // would change the host.
        let joined = Url::parse(&format!("{url}{append}"))
            .or_else(|_| Url::parse(&format!("{}{append}", url.as_str().trim_end_matches('/'))))
            .map_err(|_| unfit("appendPath", "makes no URL"))?;
        if joined.origin() != url.origin() {
            return Err(unfit("appendPath", "changes the host"));
        }
        url = without_doubled_slash(joined, &append, &url);
    }
    Ok(url)
}

/// A URL without a path is printed with a slash that was never written: `http://a` + `/b` must not become `http://a//b`.
fn without_doubled_slash(joined: Url, append: &str, base: &Url) -> Url {
    if base.path() != "/" || base.query().is_some() || !append.starts_with('/') {
        return joined;
    }
    Url::parse(&format!("{}{append}", base.as_str().trim_end_matches('/'))).unwrap_or(joined)
}

/// Takes the text `field` from the event, or else from its `integrations.Webhook`.
fn wish(event: &mut Map<String, Value>, field: &str) -> Option<String> {
    let own = match event.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    if own.is_some() {
        event.remove(field);
        return own;
    }
    let integrations = event.get("integrations")?.as_object()?;
    let (_, webhook) = integrations
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("webhook"))?;
    let text = webhook.get(field)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Adds an event's own headers. What is no header, or is the connection's, is left out: RudderStack's client drops or
/// rewrites those too, and the event is whole without them.
fn add_headers(wanted: &Map<String, Value>, headers: &mut HeaderMap) {
    for (name, value) in wanted {
        let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
            continue;
        };
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(text),
        ) else {
            continue;
        };
        if !is_reserved(&name) {
            headers.insert(name, value);
        }
    }
}

/// An identify's traits, any other event's properties, flattened (`a.b`, `a[0]`) into the query.
fn add_query(event: &Map<String, Value>, url: &mut Url) {
    let is_identify = event.get("type").and_then(Value::as_str) == Some("identify");
    let values = if is_identify {
        let traits = event.get("traits").filter(|t| !t.is_null());
        traits.or_else(|| event.get("context").and_then(|c| c.get("traits")))
    } else {
        event.get("properties")
    };
    let mut pairs = Vec::new();
    if let Some(values) = values {
        flatten(String::new(), values, &mut pairs);
    }
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
}

/// Depth is bounded by the JSON parser's own limit (128).
fn flatten(path: String, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(path, field, out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(format!("{path}[{index}]"), item, out);
            }
        }
        Value::String(text) => out.push((path, text.clone())),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => out.push((path, value.to_string())),
    }
}

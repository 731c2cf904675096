//! Requests that published SDKs sent, replayed byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::captures::{SOURCES, bytes_of, captures, events_of};
use crate::support::client::basic;
use crate::support::gateway::{Reply, TestGateway, envelope};

/// One source per write key that the captures use.
fn workspace() -> String {
    let sources =
        SOURCES.map(|(id, write_key)| serde_json::json!({"id": id, "write_key": write_key}));
    serde_json::json!({"sources": sources}).to_string()
}

/// A header of a captured request.
fn header<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    let headers = request["headers"].as_array().unwrap();
    headers
        .iter()
        .find(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(name))
        .map(|header| header[1].as_str().unwrap())
}

/// The request with another value of a header; without it for `None`.
fn with_header(request: &Value, name: &str, value: Option<&str>) -> Value {
    let mut changed = request.clone();
    let headers = changed["headers"].as_array_mut().unwrap();
    headers.retain(|header| !header[0].as_str().unwrap().eq_ignore_ascii_case(name));
    headers.extend(value.map(|value| json!([name, value])));
    changed
}

/// The request with another write key, wherever its client put it.
fn with_key(request: &Value, key: Option<&str>) -> Value {
    let basic = key.map(basic);
    let mut changed = with_header(request, "Authorization", basic.as_deref());
    if request["path"] == "/beacon/v1/batch" {
        let query = key.map(|key| format!("writeKey={key}")).unwrap_or_default();
        changed["query"] = query.into();
    }
    changed
}

/// The request with what its body says, plain and cut off before the last byte.
fn cut_short(request: &Value) -> Value {
    let mut body = request["body_json"].to_string();
    body.pop();
    let mut changed = with_header(request, "Content-Encoding", None);
    changed["body_raw_base64"] = STANDARD.encode(body).into();
    changed
}

/// Every header of an answer but its date, by name.
fn headers_of(reply: &Reply) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in &reply.headers {
        if name != "date" {
            let twice = headers.insert(name.clone(), value.clone());
            // `Vary` is a list and may be given in parts.
            if let Some(before) = twice {
                assert_eq!(name, "vary", "{name} twice");
                headers.insert(name.clone(), format!("{before}, {value}"));
            }
        }
    }
    headers
}

/// Every header that the answer to `request` is to have. `listed`: its page's origin is one of the configured ones.
fn headers_for(request: &Value, reply: &Reply, listed: bool) -> BTreeMap<String, String> {
    let path = request["path"].as_str().unwrap();
    let mut headers = BTreeMap::new();
    let mut has = |name: &str, value: &str| {
        headers.insert(name.to_owned(), value.to_owned());
    };
    let preflight = request["method"] == "OPTIONS";
    if !preflight {
        let of_config = path.starts_with("/sourceConfig") && reply.status == 200;
        has("content-length", &reply.body.len().to_string());
        has(
            "content-type",
            if of_config {
                "application/json; charset=utf-8"
            } else {
                "text/plain; charset=utf-8"
            },
        );
        if of_config {
            has("cache-control", "private, max-age=60");
            has("etag", reply.header("etag").unwrap());
            has("vary", "Authorization");
        }
        if reply.status != 200 {
            has("x-content-type-options", "nosniff");
        }
        if matches!(reply.status, 429 | 503) {
            has("retry-after", reply.header("retry-after").unwrap());
        }
    }
    if let Some(origin) = header(request, "Origin") {
        has("access-control-allow-origin", origin);
        if listed {
            has("access-control-allow-credentials", "true");
        }
        if preflight {
            has("access-control-allow-methods", "GET, POST, HEAD");
            has("access-control-max-age", "900");
            let asked = header(request, "Access-Control-Request-Headers");
            if let Some(asked) = asked {
                has("access-control-allow-headers", asked);
            }
            has(
                "vary",
                "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
            );
        } else {
            has("access-control-expose-headers", "retry-after");
            let vary = match path.starts_with("/sourceConfig") && reply.status == 200 {
                true => "Authorization, Origin",
                false => "Origin",
            };
            has("vary", vary);
        }
    }
    headers
}

/// The captures whose clients met an error, as the gateway makes it: what the recorder's file name says, and what it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_that_a_captured_client_met_has_its_words_and_headers() {
    let Some(captures) = captures() else { return };
    let origins: BTreeSet<String> = captures
        .iter()
        .flat_map(|(_, capture)| capture["exchanges"].as_array().unwrap())
        .filter_map(|exchange| header(&exchange["request"], "Origin").map(str::to_owned))
        .collect();
    assert!(!origins.is_empty());
    let origins = &origins;
    let start = async |change: fn(&mut sluice::config::GatewayConfig)| {
        TestGateway::start_with(&workspace(), |config| {
            config.gateway.cors_origins = origins.iter().cloned().collect();
            change(&mut config.gateway);
        })
        .await
    };
    let plain = start(|_| ()).await;
    let small = start(|config| config.body_bytes_max = 64).await;
    let full = start(|config| config.in_flight_bytes_max = 1).await;
    let slow = start(|config| {
        config.rate_limit.events = 1;
        config.rate_limit.window_ms = 3_600_000;
    })
    .await;
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for (name, capture) in &captures {
        for exchange in capture["exchanges"].as_array().unwrap() {
            let request = &exchange["request"];
            let answered = exchange["response"]["status"].as_u64().unwrap();
            let is_config = request["path"]
                .as_str()
                .unwrap()
                .starts_with("/sourceConfig");
            let missing = match request["path"] == "/beacon/v1/batch" {
                true => "failed to read writekey from query params\n",
                false => "failed to read writekey from header\n",
            };
            let (stranger, nobody) = (with_key(request, Some("X")), with_key(request, None));
            let cut = cut_short(request);
            let cases: Vec<(&TestGateway, &Value, u16, &str)> = match answered {
                // The key may stand in the query as well, as it does for the browser's configuration.
                401 if is_config => vec![(&plain, &stranger, 401, "invalid write key\n")],
                401 => vec![
                    (&plain, &stranger, 401, "invalid write key\n"),
                    (&plain, &nobody, 401, missing),
                ],
                400 => vec![(&plain, &cut, 400, "invalid json\n")],
                413 => vec![(&small, request, 413, "request size exceeds max limit\n")],
                503 => vec![(&full, request, 503, "service unavailable\n")],
                429 => vec![(&slow, request, 429, "max requests limit reached\n")],
                _ => continue,
            };
            for (gateway, request, status, words) in cases {
                let bytes = bytes_of(request, gateway.address);
                let mut reply = gateway.exchange(&bytes).await;
                if status == 429 && reply.status == 200 {
                    // The first took all that the source may send for long.
                    reply = gateway.exchange(&bytes).await;
                }
                assert_eq!(reply.short(), (status, words), "{name}");
                assert_eq!(
                    headers_of(&reply),
                    headers_for(request, &reply, true),
                    "{name}"
                );
                if let Some(after) = reply.header("retry-after") {
                    let seconds: u32 = after.parse().expect("whole seconds");
                    assert!((1..=3_606).contains(&seconds), "{name}: {seconds}");
                }
                *seen.entry(status).or_default() += 1;
            }
        }
    }
    let statuses: Vec<u16> = seen.keys().copied().collect();
    assert_eq!(statuses, [400, 401, 413, 429, 503], "{seen:?}");
    assert!(plain.events().await.is_empty() && small.events().await.is_empty());
    assert!(
        full.events().await.is_empty(),
        "what got a 503 was not sent"
    );
    for gateway in [plain, small, full, slow] {
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_every_captured_request_is_in_kafka_as_it_was_sent() {
    let Some(captures) = captures() else { return };
    let gateway = TestGateway::start(&workspace()).await;
    let mut expected = Vec::new();
    for (name, capture) in &captures {
        for exchange in capture["exchanges"].as_array().unwrap() {
            let request = &exchange["request"];
            let reply = gateway.exchange(&bytes_of(request, gateway.address)).await;
            if request["method"] != "POST" {
                let path = request["path"].as_str().unwrap();
                let expected = match request["method"].as_str().unwrap() {
                    "OPTIONS" => 204,
                    _ if path.starts_with("/sourceConfig") => 200,
                    _ => 404,
                };
                assert_eq!(reply.status, expected, "{name}: {path}");
                assert_eq!(
                    headers_of(&reply),
                    headers_for(request, &reply, false),
                    "{name}: {path}"
                );
                continue;
            }
            assert_eq!(reply.short(), (200, "ok"), "{name}: {}", request["path"]);
            assert_eq!(
                headers_of(&reply),
                headers_for(request, &reply, false),
                "{name}"
            );
            expected.extend(events_of(request));
        }
    }
    assert!(expected.len() > 100, "{} events", expected.len());
    let mut found: Vec<Value> = Vec::new();
    for record in gateway.records().await {
        let envelope = envelope(&record);
        let event: Value = serde_json::from_slice(&envelope.event).unwrap();
        let id = event["messageId"].as_str().unwrap_or(&envelope.message_id);
        assert_eq!(envelope.message_id, id);
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(envelope.user_id, text("userId"));
        assert_eq!(envelope.anonymous_id, text("anonymousId"));
        if event["type"].is_string() {
            assert_eq!(envelope.event_type, text("type"));
        }
        found.push(event);
    }
    let sort = |events: &mut Vec<Value>| events.sort_by_key(Value::to_string);
    sort(&mut expected);
    sort(&mut found);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    gateway.stop().await;
}

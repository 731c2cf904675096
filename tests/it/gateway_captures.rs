//! Requests that published SDKs sent, replayed byte for byte.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::gateway::{TestGateway, envelope};

/// One source per write key that the captures use.
const WORKSPACE: &str = "
sources:
  - {id: node, write_key: WRITE_KEY_NODE}
  - {id: py, write_key: WRITE_KEY_PY}
  - {id: rust, write_key: WRITE_KEY_RUST}
  - {id: js, write_key: WRITE_KEY_JS}
  - {id: segment, write_key: WRITE_KEY_SEGMENT}
";

fn captures() -> Option<Vec<(String, Value)>> {
    let root = std::env::var("SLUICE_VECTORS").unwrap_or_else(|_| "../shared/vectors".to_owned());
    let folder = PathBuf::from(root).join("sdk");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!(
            "SKIPPED: no captures in {}; set SLUICE_VECTORS",
            folder.display()
        );
        return None;
    };
    let mut captures: Vec<(String, Value)> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_some_and(|e| e == "json") && !path.ends_with("index.json")
        })
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).unwrap())
        })
        .collect();
    captures.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(captures.len() > 30, "only {} captures", captures.len());
    Some(captures)
}

/// The request as it stood on the wire, but for the host.
fn bytes_of(request: &Value, host: std::net::SocketAddr) -> Vec<u8> {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let mut target = text("path").to_owned();
    if !text("query").is_empty() {
        target.push('?');
        target.push_str(text("query"));
    }
    let mut bytes =
        format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", text("method")).into_bytes();
    for header in request["headers"].as_array().unwrap() {
        let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
        if ![
            "host",
            "connection",
            "expect",
            "transfer-encoding",
            "content-length",
        ]
        .contains(&name.to_lowercase().as_str())
        {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    let body = STANDARD.decode(text("body_raw_base64")).unwrap();
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The events that a request holds, by what the recorder decoded.
fn events_of(request: &Value) -> Vec<Value> {
    let body = &request["body_json"];
    match body["batch"].as_array() {
        Some(batch) => batch.clone(),
        None => vec![body.clone()],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_every_captured_request_is_in_kafka_as_it_was_sent() {
    let Some(captures) = captures() else { return };
    let gateway = TestGateway::start(WORKSPACE).await;
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
                assert!(
                    reply.header("access-control-allow-origin").is_some(),
                    "{name}: {path}"
                );
                continue;
            }
            assert_eq!(reply.short(), (200, "ok"), "{name}: {}", request["path"]);
            assert_eq!(
                reply.header("content-type"),
                Some("text/plain; charset=utf-8"),
                "{name}"
            );
            assert_eq!(reply.header("content-length"), Some("2"), "{name}");
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

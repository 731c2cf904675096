//! Requests that published SDKs sent, replayed byte for byte.

use serde_json::Value;

use crate::support::captures::{SOURCES, bytes_of, captures, events_of};
use crate::support::gateway::{TestGateway, envelope};

/// One source per write key that the captures use.
fn workspace() -> String {
    let sources =
        SOURCES.map(|(id, write_key)| serde_json::json!({"id": id, "write_key": write_key}));
    serde_json::json!({"sources": sources}).to_string()
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

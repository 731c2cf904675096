use ::http::Method;
use serde_json::{Value, json};

use super::config::WebhookConfig;
use super::request;
use crate::destinations::DeliveryError;
use crate::destinations::http::HttpRequest;
use crate::destinations::testing::envelope;
use crate::event::DeadLetterReason;

fn build(settings: Value, event: Value) -> Result<HttpRequest, DeliveryError> {
    let config = WebhookConfig::read(&settings).unwrap();
    request::build(&config, &envelope(&event.to_string()))
}

fn hook() -> Value {
    json!({"webhookUrl": "https://example.com/hook?a=1", "headers": [{"from": "X-Key", "to": "k"}]})
}

#[test]
fn the_stamped_event_is_the_body() {
    let request = build(hook(), json!({"event": "Buy", "context": {"app": 1}})).unwrap();
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.url.as_str(), "https://example.com/hook?a=1");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["x-key"], "k");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["event"], "Buy");
    assert_eq!(body["messageId"], "message-1");
    assert_eq!(body["context"], json!({"app": 1, "ip": "203.0.113.9"}));
    assert!(body["receivedAt"].is_string() && body["rudderId"].is_string());
}

#[test]
fn get_carries_flattened_properties_and_no_body() {
    let mut settings = hook();
    settings["webhookMethod"] = json!("GET");
    let event = json!({"properties": {"a": {"b": [1, "x y"]}, "n": null, "t": true}});
    let request = build(settings.clone(), event).unwrap();
    assert_eq!(request.method, Method::GET);
    assert!(request.body.is_empty() && !request.headers.contains_key("content-type"));
    assert_eq!(
        request.url.query().unwrap(),
        "a=1&a.b%5B0%5D=1&a.b%5B1%5D=x+y&t=true"
    );
    let config = WebhookConfig::read(&settings).unwrap();
    let mut identify = envelope(r#"{"context":{"traits":{"plan":"pro"}}}"#);
    identify.event_type = "identify".into();
    let request = request::build(&config, &identify).unwrap();
    assert_eq!(request.url.query().unwrap(), "a=1&plan=pro");
}

#[test]
fn an_event_shapes_its_request_and_the_wish_itself_is_not_sent() {
    let event = json!({
        "header": {"x-key": "other", "X-New": "n", "Content-Length": "9", "bad name": "x", "empty": ""},
        "appendPath": "/more?b=2",
    });
    let mut settings = hook();
    settings["webhookUrl"] = json!("https://example.com");
    let request = build(settings, event).unwrap();
    assert_eq!(request.url.as_str(), "https://example.com/more?b=2");
    assert_eq!(request.headers["x-key"], "other");
    assert_eq!(request.headers["x-new"], "n");
    assert!(!request.headers.contains_key("content-length"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert!(body.get("header").is_none() && body.get("appendPath").is_none());
    let event = json!({"integrations": {"Webhook": {"appendPath": "&c=3"}}});
    let request = build(hook(), event).unwrap();
    assert_eq!(request.url.as_str(), "https://example.com/hook?a=1&c=3");
}

#[test]
fn an_event_cannot_take_the_configured_headers_to_another_host() {
    for (url, event) in [
        (
            "https://example.com/hook",
            json!({"fullPath": "https://evil.example/"}),
        ),
        (
            "https://example.com",
            json!({"integrations": {"webhook": {"fullPath": "http://example.com/"}}}),
        ),
        (
            "https://example.com",
            json!({"fullPath": "file:///etc/passwd"}),
        ),
    ] {
        let error = build(json!({"webhookUrl": url}), event.clone()).unwrap_err();
        assert!(matches!(error, DeliveryError::Unrequestable(_)), "{event}");
        assert_eq!(error.dead_letter_reason(), DeadLetterReason::InvalidEvent);
    }
    for append in [".evil.example/", "@evil.example/", ":99/"] {
        let request = build(
            json!({"webhookUrl": "https://example.com"}),
            json!({"appendPath": append}),
        );
        if let Ok(request) = request {
            assert_eq!(request.url.host_str(), Some("example.com"), "{append}");
            assert_eq!(request.url.port(), None, "{append}");
        }
    }
    let allowed = json!({"webhookUrl": "https://example.com", "allowFullPath": true});
    let request = build(allowed, json!({"fullPath": "https://other.example/x"})).unwrap();
    assert_eq!(request.url.as_str(), "https://other.example/x");
}

//! Requests that are written here, in the shape of the captures: what a proof stands on where there are no captures.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::captures::SOURCES;

/// Every type of event, alone and in batches, with and without its own times and ids, and one that is sent twice.
pub fn capture() -> (String, Value) {
    let context = json!({"library": {"name": "by hand", "version": "1"}, "locale": "de-DE"});
    let order = json!({
        "type": "track", "userId": "hand-1", "messageId": "hand-order", "event": "Order Completed", "context": context,
        "originalTimestamp": "2026-11-23T17:59:59.077Z", "sentAt": "2026-11-23T18:00:00.077Z",
        "properties": {"order_id": "o-1", "revenue": 12.5, "currency": "EUR", "products": [{"id": 1}, {"id": 2}]},
    });
    let bodies = [
        (
            "identify",
            json!({"type": "identify", "userId": "hand-1", "anonymousId": "hand-a", "messageId": "hand-identify",
                "channel": "server", "context": context, "traits": {"name": "Ada Лавлейс 🚀", "plan": "pro"}}),
        ),
        ("track", order.clone()),
        // The answer was lost, say.
        ("track", order),
        (
            "track",
            json!({"type": "track", "userId": "hand-1", "messageId": "hand-passed", "event": "One", "properties": {"n": 1},
                "timestamp": "2026-11-23T19:00:00+01:00",
                "context": {"ip": "203.0.113.7", "traits": {"email": "ada@example.com"}, "sessionId": 7, "sessionStart": true}}),
        ),
        // Without a message id of its own.
        (
            "page",
            json!({"type": "page", "anonymousId": "hand-a", "name": "Home", "context": context,
                "properties": {"path": "/", "title": "Home", "url": "https://shop.example/", "name": "among the properties"}}),
        ),
        (
            "screen",
            json!({"type": "screen", "userId": "hand-2", "messageId": "hand-screen", "name": "Cart", "context": context,
                "properties": {"category": "shop"}}),
        ),
        (
            "group",
            json!({"type": "group", "userId": "hand-2", "groupId": "acme", "messageId": "hand-group", "context": context,
                "traits": {"name": "Acme", "employees": 12}}),
        ),
        (
            "alias",
            json!({"type": "alias", "userId": "hand-2", "previousId": "hand-a", "messageId": "hand-alias", "context": context}),
        ),
        (
            "batch",
            json!({"sentAt": "2026-11-23T18:00:01.000Z", "batch": [
                {"type": "identify", "userId": "hand-2", "messageId": "hand-batch-1", "context": context,
                    "originalTimestamp": "2026-11-23T18:00:00.500Z", "traits": {"email": "grace@example.com"}},
                {"type": "track", "userId": "hand-3", "messageId": "hand-batch-2", "originalTimestamp": "2026-11-23T18:00:00.600Z", "context": context,
                    "event": "Order Completed", "properties": {"revenue": 0.25, "category": ""}},
                {"type": "page", "userId": "hand-1", "messageId": "hand-batch-3", "originalTimestamp": "2026-11-23T18:00:00.700Z", "context": context, "properties": {}},
            ]}),
        ),
        (
            "batch",
            json!({"batch": [
                {"type": "track", "anonymousId": "hand-b", "messageId": "hand-batch-4", "context": context, "event": "One"},
                {"type": "identify", "userId": "hand-1", "messageId": "hand-batch-5", "context": context,
                    "traits": {"plan": "free"}},
            ]}),
        ),
    ];
    // Each source sends some; the one that is sent twice comes from one source both times.
    let exchanges: Vec<Value> = bodies
        .into_iter()
        .enumerate()
        .map(|(at, (route, body))| {
            let (_, write_key) = SOURCES[(at / 3) % SOURCES.len()];
            json!({"request": {
                "method": "POST",
                "path": format!("/v1/{route}"),
                "headers": [
                    ["Authorization", format!("Basic {}", STANDARD.encode(format!("{write_key}:")))],
                    ["Content-Type", "application/json"],
                ],
                "body_raw_base64": STANDARD.encode(body.to_string()),
                "body_json": body,
            }})
        })
        .collect();
    ("by hand".to_owned(), json!({"exchanges": exchanges}))
}

//! Webhook sources: services that post in shapes of their own.
//!
//! A source of the definition `webhook` takes any JSON: each object becomes the properties of a track event. Definitions
//! that need a translation are RudderStack's source transformations.

use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode};
use uuid::Uuid;

use super::super::accept::{Exchange, Key};
use super::super::json::{Bounds, JsonError, Scanner};
use super::super::payload::PayloadError;
use super::super::refusal::Refusal;
use super::super::repair::repair;
use super::super::routes::Route;
use super::super::select::{Policy, Receipt};
use super::super::{Gateway, reply};

/// Source definitions that take any JSON.
const GENERIC: [&str; 2] = ["webhook", "webhooksource"];

/// Name of the events that such a source makes; RudderStack's.
const EVENT: &str = "webhook_source_event";

/// `GET` and `POST /v1/webhook`.
pub(in super::super) async fn webhook(gateway: &Gateway, request: Request) -> Response {
    let began = Instant::now();
    let mut exchange = Exchange::new(gateway, request);
    let response = match take(&mut exchange).await {
        Ok(None) => reply::text(StatusCode::OK, ""),
        Ok(Some(_)) => reply::ok(),
        Err(refusal) => exchange.refuse(refusal).await,
    };
    exchange.finish(Route::Webhook, &response, began);
    response
}

/// `None` for a request that brings no event.
async fn take(exchange: &mut Exchange<'_>) -> Result<Option<Receipt>, Refusal> {
    let revision = exchange.authenticate(Key::Webhook)?;
    if exchange.head.method == Method::GET {
        // Services check that an address is there before they post to it.
        return Ok(None);
    }
    let definition = exchange.caller.as_ref().map(|c| {
        c.source
            .definition
            .to_lowercase()
            .replace([' ', '_', '-'], "")
    });
    if !definition.is_some_and(|d| d.is_empty() || GENERIC.contains(&d.as_str())) {
        return Err(Refusal::NotAWebhook);
    }
    let mut taken = exchange.gateway.budget.taker();
    let body = exchange.read(&mut taken).await?;
    let text = events(&repair(&body), exchange.gateway.bounds.event, || {
        Uuid::new_v4().to_string()
    })?;
    exchange
        .store(revision, &text, None, Policy::Whole)
        .await
        .map(Some)
}

/// A batch with an event for the posted object, or one for each object of a posted array. The objects' own text is kept.
fn events(text: &str, bounds: Bounds, mut id: impl FnMut() -> String) -> Result<String, Refusal> {
    let mut scanner = Scanner::new(text, bounds);
    let mut batch = String::with_capacity(text.len() + 256);
    batch.push_str(r#"{"batch":["#);
    let mut push = |scanner: &mut Scanner<'_>| -> Result<(), JsonError> {
        let is_object = scanner.next() == Some(b'{');
        let ((), raw) = scanner.spanned(Scanner::skip)?;
        if !batch.ends_with('[') {
            batch.push(',');
        }
        let id = id();
        // What is no object has no properties; it stands under a name of its own.
        let (open, close) = if is_object {
            ("", "")
        } else {
            (r#"{"payload":"#, "}")
        };
        batch.push_str(&format!(
            r#"{{"type":"track","event":"{EVENT}","anonymousId":"{id}","properties":{open}{raw}{close}}}"#
        ));
        Ok(())
    };
    let read = match scanner.next() {
        Some(b'[') => scanner.array(push),
        _ => push(&mut scanner),
    };
    read.and_then(|()| scanner.end())
        .map_err(|error| Refusal::from(PayloadError::Json(error)))?;
    batch.push_str("]}");
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made(text: &str) -> Result<Value, Refusal> {
        let bounds = Bounds {
            depth: 9,
            values: 99,
        };
        let batch = events(text, bounds, || "id".to_owned())?;
        Ok(serde_json::from_str::<Value>(&batch).unwrap()["batch"].clone())
    }

    #[test]
    fn any_json_becomes_the_properties_of_a_track_event() {
        let event = |properties: Value| json!({"type": "track", "event": EVENT, "anonymousId": "id", "properties": properties});
        assert_eq!(
            made(r#" {"a": [1]} "#).unwrap(),
            json!([event(json!({"a": [1]}))])
        );
        assert_eq!(
            made(r#"[{"a":1},"x"]"#).unwrap(),
            json!([event(json!({"a": 1})), event(json!({"payload": "x"}))])
        );
        assert_eq!(made("[]").unwrap(), json!([]));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "a=b", "{} {}"] {
            assert_eq!(made(text), Err(Refusal::InvalidJson), "{text}");
        }
    }
}

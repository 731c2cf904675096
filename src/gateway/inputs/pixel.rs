//! Events in the address of an image, for mails and pages without scripts.
//!
//! The answer is the image, whatever happened: there is nobody to read another one. A pixel is the one input whose 200
//! promises nothing.

use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value, json};

use super::super::Gateway;
use super::super::accept::{Exchange, Key};
use super::super::refusal::Refusal;
use super::super::routes::Route;
use super::super::select::{Policy, Receipt};
use crate::clock::{UnixMs, rfc3339_ms};

/// One transparent pixel.
const GIF: &[u8] =
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff\x21\xf9\x04\x01\x00\x00\x00\x00\
    \x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// `GET /pixel/v1/{track,page}`.
pub(in super::super) async fn pixel(gateway: &Gateway, route: Route, request: Request) -> Response {
    let began = Instant::now();
    let mut exchange = Exchange::new(gateway, request);
    // What only asks whether the image is there (scanners of mails do) has not seen it.
    let seen = exchange.head.method == Method::GET;
    if seen && let Err(refusal) = take(&mut exchange, route).await {
        exchange.count_refusal(refusal);
    }
    let mut response = Response::new(Body::from(GIF));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    exchange.finish(route, &response, began);
    response
}

async fn take(exchange: &mut Exchange<'_>, route: Route) -> Result<Receipt, Refusal> {
    let revision = exchange.authenticate(Key::Query)?;
    let query = exchange.head.uri.query().unwrap_or_default();
    let event = event(query, route.event_type(), exchange.gateway.clock.now_ms())?;
    let text = event.to_string();
    exchange.answering();
    exchange
        .store(revision, &text, Some(route.event_type()), Policy::Whole)
        .await
}

/// The event that a query spells: every parameter is a field, the write key aside.
pub(in super::super) fn event(query: &str, kind: &str, now: UnixMs) -> Result<Value, Refusal> {
    let mut event = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name != "writeKey" {
            // The first of two, as Go's `Query().Get`.
            event.entry(name).or_insert_with(|| value.into());
        }
    }
    let now = rfc3339_ms(now);
    event.insert("channel".to_owned(), "web".into());
    event.insert("integrations".to_owned(), json!({"All": true}));
    event.insert("originalTimestamp".to_owned(), now.clone().into());
    event.insert("sentAt".to_owned(), now.into());
    if kind == "page" && is_blank(&event, "name") {
        event.insert("name".to_owned(), "Unknown Page".into());
    }
    if kind == "track" && is_blank(&event, "event") {
        return Err(Refusal::NotAnEvent);
    }
    Ok(Value::Object(event))
}

fn is_blank(event: &Map<String, Value>, name: &str) -> bool {
    let text = event.get(name).and_then(Value::as_str);
    text.unwrap_or_default().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_has_the_43_bytes_that_mail_programs_know() {
        assert_eq!(GIF.len(), 43);
    }

    #[test]
    fn each_parameter_is_a_field_but_the_key() {
        let query = "writeKey=K&event=Mail%20opened&userId=u1&userId=u2&a.b=c";
        let event = event(query, "track", 0).unwrap();
        let expected = json!({
            "event": "Mail opened", "userId": "u1", "a.b": "c", "channel": "web", "integrations": {"All": true},
            "originalTimestamp": "1970-01-01T00:00:00.000Z", "sentAt": "1970-01-01T00:00:00.000Z",
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn a_page_without_a_name_has_one_and_a_track_without_an_event_is_none() {
        assert_eq!(
            event("userId=u", "page", 0).unwrap()["name"],
            "Unknown Page"
        );
        assert_eq!(
            event("userId=u&event=", "track", 0),
            Err(Refusal::NotAnEvent)
        );
    }
}

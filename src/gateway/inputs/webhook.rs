//! Webhook sources: services that post in shapes of their own.
//!
//! A source of the definition `webhook` takes any JSON: each object becomes the properties of a track event. Every other
//! definition is a service that RudderStack's transformer knows; what is posted goes there, and events come back.

use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{Method, StatusCode};
use uuid::Uuid;

use super::super::accept::{Exchange, Key};
use super::super::json::{JsonError, Scanner};
use super::super::limit::Taken;
use super::super::payload::{PayloadBounds, PayloadError};
use super::super::refusal::Refusal;
use super::super::repair::repair;
use super::super::routes::Route;
use super::super::select::Policy;
use super::super::transformer::Transformer;
use super::super::transformer::contract::{self, Outcome, SourceReply};
use super::super::{Gateway, reply};
use super::form::{self, Content};

/// Source definitions that take any JSON.
const GENERIC: [&str; 2] = ["webhook", "webhooksource"];

/// Name of the events that such a source makes; RudderStack's.
const EVENT: &str = "webhook_source_event";

/// What the client is told.
enum Told {
    /// Nothing: the request brought no event.
    Nothing,
    /// That its events are stored.
    Stored,
    /// What the transformer says, after its events were stored if there were any.
    Reply(SourceReply),
    /// That the transformer does not take it.
    Refused(u16, String),
}

/// `GET` and `POST /v1/webhook`.
pub(in super::super) async fn webhook(gateway: &Gateway, request: Request) -> Response {
    let began = Instant::now();
    let mut exchange = Exchange::new(gateway, request);
    let response = match take(&mut exchange).await {
        Ok(Told::Nothing) => reply::text(StatusCode::OK, ""),
        Ok(Told::Stored) => reply::ok(),
        Ok(Told::Reply(reply)) => reply::to_source(reply),
        Ok(Told::Refused(status, error)) => {
            exchange.count_refused("refused_by_transformer");
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            reply::error(status, error + "\n")
        }
        Err(refusal) => exchange.refuse(refusal).await,
    };
    exchange.finish(Route::Webhook, &response, began);
    response
}

async fn take(exchange: &mut Exchange<'_>) -> Result<Told, Refusal> {
    let revision = exchange.authenticate(Key::Webhook)?;
    let gateway = exchange.gateway;
    let definition = exchange.caller.as_ref().map(|c| &c.source.definition);
    let source_type = definition.map_or_else(String::new, |d| d.to_lowercase());
    let translated = translated(&source_type, gateway.transformer.as_ref());
    let takes_get =
        matches!(&translated, Ok(Some(transformer)) if transformer.takes_get(&source_type));
    if exchange.head.method != Method::POST && !(takes_get && exchange.head.method == Method::GET) {
        // Services check that an address is there before they post to it.
        return Ok(Told::Nothing);
    }
    let translated = translated?;
    let mut taken = gateway.budget.taker();
    let (text, is_form) = content(exchange, &mut taken).await?;
    match translated {
        None => {
            let id = || Uuid::new_v4().to_string();
            let events = events(&text, gateway.bounds, id)?;
            exchange
                .store(revision, &events, None, Policy::Whole)
                .await?;
            Ok(Told::Stored)
        }
        Some(transformer) => {
            let element = element(exchange, &text, is_form)?;
            drop((text, taken));
            let outcome = transformer.translate(&source_type, element).await?;
            follow(exchange, revision, outcome).await
        }
    }
}

/// The transformer that a source type needs; `None` for one that needs none.
///
/// # Errors
/// [`Refusal::NotAWebhook`] when it needs one and there is none.
fn translated<'a>(
    source_type: &str,
    transformer: Option<&'a Transformer>,
) -> Result<Option<&'a Transformer>, Refusal> {
    let plain = source_type.replace([' ', '_', '-'], "");
    if plain.is_empty() || GENERIC.contains(&plain.as_str()) {
        return Ok(None);
    }
    transformer.map(Some).ok_or(Refusal::NotAWebhook)
}

/// The body as text, and whether it was made of a form.
async fn content(
    exchange: &mut Exchange<'_>,
    taken: &mut Taken,
) -> Result<(String, bool), Refusal> {
    let config = &exchange.gateway.config;
    let content = Content::of(&exchange.head.headers);
    let body = match content {
        Content::Text | Content::UrlEncoded => exchange.read(taken).await?,
        Content::Multipart(_) => {
            // What could never be had is too large, and no matter of load.
            let cap = config.multipart_bytes_max.min(config.in_flight_bytes_max);
            exchange.read_at_most(cap, taken).await?
        }
    };
    text_of(content, body, config.body_bytes_max).await
}

/// [`content`] of a body that is read; what a form becomes has at most `most` bytes.
///
/// # Errors
/// When the form is none, or becomes too large.
pub(in super::super) async fn text_of(
    content: Content,
    body: Bytes,
    most: usize,
) -> Result<(String, bool), Refusal> {
    let form = match content {
        Content::Text => None,
        Content::UrlEncoded => form::url_encoded(&body)?,
        Content::Multipart(content_type) => {
            Some(form::multipart(&content_type, body.clone()).await?)
        }
    };
    match form {
        None => Ok((repair(&body).into_owned(), false)),
        Some(form) if form.len() > most => Err(Refusal::TooLarge),
        Some(form) => Ok((form, true)),
    }
}

fn element(exchange: &Exchange<'_>, text: &str, is_form: bool) -> Result<String, Refusal> {
    let Some(caller) = &exchange.caller else {
        return Err(Refusal::NoWriteKeyInQuery);
    };
    let callers = exchange.gateway.directory.now();
    let workspace = &callers.workspace.id;
    contract::element(&exchange.head, text, is_form, &caller.source, workspace)
}

/// Does what the transformer says.
async fn follow(
    exchange: &mut Exchange<'_>,
    revision: i64,
    outcome: Outcome,
) -> Result<Told, Refusal> {
    match outcome {
        Outcome::Refused(status, error) => Ok(Told::Refused(status, error)),
        Outcome::Reply(reply) => Ok(Told::Reply(reply)),
        Outcome::Events(batch, reply) => {
            exchange
                .store(revision, &batch, None, Policy::Whole)
                .await?;
            Ok(reply.map_or(Told::Stored, Told::Reply))
        }
    }
}

/// A batch with an event for the posted object, or one for each object of a posted array. The objects' own text is kept.
pub(in super::super) fn events(
    text: &str,
    bounds: PayloadBounds,
    mut id: impl FnMut() -> String,
) -> Result<String, Refusal> {
    let mut scanner = Scanner::new(text, bounds.event);
    let mut batch = String::with_capacity(text.len() + 256);
    batch.push_str(r#"{"batch":["#);
    let mut count = 0;
    let mut push = |scanner: &mut Scanner<'_>| -> Result<(), JsonError> {
        scanner.refill(bounds.event.values);
        let is_object = scanner.next() == Some(b'{');
        let ((), raw) = scanner.spanned(Scanner::skip)?;
        // For the comma and the next element's own count.
        scanner.refill(1);
        count += 1;
        // Two bytes of a posted array become an event of more than a hundred; the syntax of the rest is still read.
        if count > bounds.events {
            return Ok(());
        }
        if count > 1 {
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
    if count > bounds.events {
        return Err(PayloadError::TooManyEvents.into());
    }
    batch.push_str("]}");
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::json::Bounds;
    use super::*;

    const BOUNDS: PayloadBounds = PayloadBounds {
        event: Bounds {
            depth: 9,
            values: 9,
        },
        events: 3,
    };

    fn made(text: &str) -> Result<Value, Refusal> {
        let batch = events(text, BOUNDS, || "id".to_owned())?;
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
    fn bounds_hold_for_each_posted_object_and_not_for_the_sum() {
        let four = "[1,2,3,4]";
        let many = made(&format!("[{four},{four},{four}]")).unwrap();
        assert_eq!(many.as_array().unwrap().len(), 3);
        let wide = r#"{"a":[1,2,3,4,5,6,7,8,9]}"#;
        for text in [wide.to_owned(), format!("[{wide}]"), format!("[1,{wide}]")] {
            assert_eq!(made(&text), Err(Refusal::TooManyValues), "{text}");
        }
    }

    #[test]
    fn events_beyond_the_batch_are_refused_before_they_are_written_out() {
        let mut made = 0;
        let refusal = events("[1,2,3,4,5]", BOUNDS, || {
            made += 1;
            "id".to_owned()
        });
        assert_eq!((refusal, made), (Err(Refusal::TooLarge), 3));
        let cut = events("[1,2,3,4,5", BOUNDS, String::new);
        assert_eq!(cut, Err(Refusal::InvalidJson));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "a=b", "{} {}"] {
            assert_eq!(made(text), Err(Refusal::InvalidJson), "{text}");
        }
    }
}

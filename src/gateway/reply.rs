//! The answers, as RudderStack gives them: success is `ok` without a newline, an error is its text with one.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use crate::fault::Classify;

use super::refusal::Refusal;
use super::select::{Policy, Receipt};
use super::transformer::contract::SourceReply;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// 200 `ok`.
pub(super) fn ok() -> Response {
    text(StatusCode::OK, "ok")
}

/// A short text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Response {
    with(status, TEXT, Body::from(body))
}

/// A JSON text.
pub(super) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    with(status, JSON, body.into())
}

/// What a source transformer wants a third party to read.
pub(super) fn to_source(reply: SourceReply) -> Response {
    // A type that is none says nothing about the bytes.
    let content_type = HeaderValue::try_from(reply.content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    with(StatusCode::OK, content_type, Body::from(reply.body))
}

/// A page that may load nothing.
pub(super) fn html(body: impl Into<Body>) -> Response {
    let mut response = with(StatusCode::OK, HTML, body.into());
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'"),
    );
    response
}

/// A result per event, as asked for by `Sluice-Result: per-event`:
/// `{"accepted": 2, "rejected": [{"index": 1, "messageId": "…", "code": "no_identity", "message": "…"}]}`.
///
/// 200 when anything was accepted or there was nothing to reject, else 400. Rejected events can never be accepted; a client
/// must not send them again. (`code` and `message` at the top as well: RudderStack's Python client repeats a 4xx whose JSON
/// lacks them.)
pub(super) fn per_event(receipt: &Receipt) -> Response {
    let rejected: Vec<serde_json::Value> = receipt
        .rejected
        .iter()
        .map(|event| {
            serde_json::json!({
                "index": event.index,
                "messageId": event.message_id,
                "code": event.refusal.code(),
                "message": event.refusal.to_string(),
            })
        })
        .collect();
    // What is dropped for a suppressed user counts as accepted: the client is not to know.
    let accepted = receipt.accepted + receipt.suppressed;
    let failure = receipt.failure(Policy::PerEvent);
    let mut body = serde_json::json!({ "accepted": accepted, "rejected": rejected });
    if let Some(code) = failure {
        body["code"] = code.into();
        body["message"] = "no event of the request was accepted".into();
    }
    let status = if failure.is_some() {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::OK
    };
    json(status, body.to_string())
}

/// The answer to a refused request, in the shape of Go's `http.Error`. `retry_after_max` bounds the seconds that a client
/// is asked to wait; each is asked for another number, so that they do not come back together.
pub(super) fn refused(refusal: Refusal, retry_after_max: u32) -> Response {
    let mut response = error(refusal.status(), format!("{refusal}\n"));
    if let Some(least) = refusal.retry_after() {
        let seconds = least.saturating_add(fastrand::u32(1..=retry_after_max.max(1)));
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An error that has no refusal: an unknown path, a wrong method.
pub(super) fn error(status: StatusCode, body: String) -> Response {
    let mut response = with(status, TEXT, Body::from(body));
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

fn with(status: StatusCode, content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn clients_that_are_refused_together_do_not_come_back_together() {
        let asked = |refusal: Refusal| -> BTreeSet<u32> {
            (0..200)
                .map(|_| {
                    let response = refused(refusal, 5);
                    let seconds = &response.headers()[header::RETRY_AFTER];
                    seconds.to_str().unwrap().parse().unwrap()
                })
                .collect()
        };
        assert_eq!(asked(Refusal::Overloaded), (1..=5).collect());
        let limited = asked(Refusal::RateLimited { seconds: 60 });
        assert_eq!(limited, (60..=64).collect(), "and none too early");
        let never = refused(Refusal::InvalidJson, 5);
        assert!(never.headers().get(header::RETRY_AFTER).is_none());
    }
}

//! The answers, as RudderStack gives them: success is `ok` without a newline, an error is its text with one.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::refusal::Refusal;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
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
pub(super) fn json(status: StatusCode, body: String) -> Response {
    with(status, JSON, Body::from(body))
}

/// The answer to a refused request, in the shape of Go's `http.Error`. `retry_after_max` bounds the seconds that a client
/// is asked to wait; each is asked for another number, so that they do not come back together.
pub(super) fn refused(refusal: Refusal, retry_after_max: u32) -> Response {
    let mut response = error(refusal.status(), format!("{refusal}\n"));
    if refusal.is_for_later() {
        let seconds = fastrand::u32(1..=retry_after_max.max(1));
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

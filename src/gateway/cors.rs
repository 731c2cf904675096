//! Which web pages may call. Pure.
//!
//! RudderStack echoes every origin and allows credentials, so any page can call with the visitor's cookies for our host. Here
//! credentials are allowed to listed origins only; a page that is let in by `*` gets an answer, but its browser sends no
//! cookies with it. RudderStack's and Segment's browser SDKs send none either.

use std::collections::HashSet;

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};

const TRUE: HeaderValue = HeaderValue::from_static("true");
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, HEAD");
/// Seconds for which a browser need not ask again; RudderStack's.
const MAX_AGE: HeaderValue = HeaderValue::from_static("900");
const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// A page's script may read only these and a few harmless ones.
const EXPOSED: HeaderName = RETRY_AFTER;

/// Which web pages may call.
#[derive(Debug, Clone, Default)]
pub(super) struct Cors {
    any: bool,
    origins: HashSet<String>,
}

impl Cors {
    pub(super) fn new(origins: &[String]) -> Self {
        Self {
            any: origins.iter().any(|o| o == "*"),
            origins: origins.iter().cloned().collect(),
        }
    }

    /// The answer to a preflight; `None` when the request is none. Needs no write key: browsers send none.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response> {
        let headers = request.headers();
        if request.method() != Method::OPTIONS
            || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(VARY, VARY_PREFLIGHT);
        if self.allow(headers.get(ORIGIN), answer) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            // Listed one by one, because with credentials `*` is no wildcard.
            if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
            }
        }
        Some(response)
    }

    /// Adds to an answer what the page at `origin` needs to read it.
    pub(super) fn decorate(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if origin.is_some() {
            answer.append(VARY, VARY_ORIGIN);
            if self.allow(origin, answer) {
                answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.into());
            }
        }
    }

    fn allow(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) -> bool {
        let Some(origin) = origin else {
            return false;
        };
        let listed = origin.to_str().is_ok_and(|o| self.origins.contains(o));
        if listed {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if listed || self.any {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        listed || self.any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preflight(cors: &Cors, origin: &str) -> HeaderMap {
        let request = Request::builder()
            .method("OPTIONS")
            .uri("/v1/track")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST")
            .header(
                "Access-Control-Request-Headers",
                "authorization,content-type",
            )
            .body(())
            .unwrap();
        let response = cors.preflight(&request).unwrap();
        assert_eq!(response.status(), 204);
        response.headers().clone()
    }

    fn value<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    #[test]
    fn a_listed_page_may_call_with_credentials_and_the_headers_it_asked_for() {
        let cors = Cors::new(&["https://a.example".to_owned()]);
        let headers = preflight(&cors, "https://a.example");
        assert_eq!(
            value(&headers, "access-control-allow-origin"),
            "https://a.example"
        );
        assert_eq!(value(&headers, "access-control-allow-credentials"), "true");
        assert_eq!(
            value(&headers, "access-control-allow-headers"),
            "authorization,content-type"
        );
        assert_eq!(value(&headers, "access-control-max-age"), "900");
    }

    #[test]
    fn a_page_that_is_not_listed_gets_no_permission() {
        let cors = Cors::new(&["https://a.example".to_owned()]);
        let headers = preflight(&cors, "https://evil.example");
        assert_eq!(value(&headers, "access-control-allow-origin"), "");
        assert_eq!(value(&headers, "access-control-allow-headers"), "");
        let mut answer = HeaderMap::new();
        cors.decorate(Some(&"https://evil.example".parse().unwrap()), &mut answer);
        assert_eq!(value(&answer, "access-control-allow-origin"), "");
        assert_eq!(value(&answer, "vary"), "Origin");
    }

    #[test]
    fn any_page_may_call_by_default_but_never_with_credentials() {
        let cors = Cors::new(&["*".to_owned()]);
        let headers = preflight(&cors, "https://b.example");
        assert_eq!(
            value(&headers, "access-control-allow-origin"),
            "https://b.example"
        );
        assert_eq!(value(&headers, "access-control-allow-credentials"), "");
        let mut answer = HeaderMap::new();
        cors.decorate(None, &mut answer);
        assert!(answer.is_empty(), "a server's client pays nothing");
    }

    #[test]
    fn options_without_a_question_is_no_preflight() {
        let request = Request::builder().method("OPTIONS").body(()).unwrap();
        assert!(Cors::default().preflight(&request).is_none());
    }
}

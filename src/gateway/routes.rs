//! Every URL on one screen.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{get, post};
use http::{StatusCode, Uri};

use super::Gateway;
use super::accept::{self, Input, Key, Shape};
use super::reply;
use super::status;

/// The routes that take events, by the word that names them in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Route {
    Identify,
    Track,
    Page,
    Screen,
    Group,
    Alias,
    Merge,
    Batch,
    Beacon,
}

impl Route {
    /// Every route that takes events.
    pub(super) const ALL: [Route; 9] = [
        Self::Identify,
        Self::Track,
        Self::Page,
        Self::Screen,
        Self::Group,
        Self::Alias,
        Self::Merge,
        Self::Batch,
        Self::Beacon,
    ];

    /// Word in metrics and logs; for routes that take one event also its type.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Track => "track",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Group => "group",
            Self::Alias => "alias",
            Self::Merge => "merge",
            Self::Batch => "batch",
            Self::Beacon => "beacon",
        }
    }
}

/// All of them.
pub(super) fn router(gateway: Arc<Gateway>) -> Router {
    let events = |route: Route, key: Key, shape: Shape| {
        let input = Input { route, key, shape };
        post(
            move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
                accept::accept(&gateway, input, request).await
            },
        )
    };
    let one = |route: Route| events(route, Key::Header, Shape::One);
    Router::new()
        .route("/v1/identify", one(Route::Identify))
        .route("/v1/track", one(Route::Track))
        .route("/v1/page", one(Route::Page))
        .route("/v1/screen", one(Route::Screen))
        .route("/v1/group", one(Route::Group))
        .route("/v1/alias", one(Route::Alias))
        .route("/v1/merge", one(Route::Merge))
        .route("/v1/batch", events(Route::Batch, Key::Header, Shape::Batch))
        .route(
            "/beacon/v1/batch",
            events(Route::Beacon, Key::Query, Shape::Batch),
        )
        .route("/health", get(status::health))
        .route("/", get(status::health))
        .route("/version", get(status::version))
        .route("/robots.txt", get(status::robots))
        .fallback(|| async {
            reply::error(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
        })
        .with_state(gateway)
}

/// Takes doubled and trailing slashes out of the path: people configure base URLs with one too many.
pub(super) fn normalise_path<B>(request: &mut http::Request<B>) {
    let path = request.uri().path();
    if path.len() < 2 || !(path.ends_with('/') || path.contains("//")) {
        return;
    }
    let mut plain = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        plain.push('/');
        plain.push_str(part);
    }
    if plain.is_empty() {
        plain.push('/');
    }
    if let Some(query) = request.uri().query() {
        plain.push('?');
        plain.push_str(query);
    }
    // It was part of a valid URI, so it is one; if not, the request keeps its path and is not found.
    if let Ok(uri) = plain.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_too_many_is_forgiven() {
        for (given, path) in [
            ("/v1/track", "/v1/track"),
            ("/v1/track/", "/v1/track"),
            ("//v1//track//?a=//", "/v1/track?a=//"),
            ("/", "/"),
            ("//", "/"),
        ] {
            let mut request = http::Request::builder().uri(given).body(()).unwrap();
            normalise_path(&mut request);
            assert_eq!(request.uri().to_string(), path, "{given}");
        }
    }
}

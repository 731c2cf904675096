//! Every URL on one screen.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::{StatusCode, Uri};

use super::accept::{self, Answer, Input, Key, Shape};
use super::{Gateway, auth, inputs, reply, status};

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
    AudienceList,
    Batch,
    Import,
    Beacon,
    PixelTrack,
    PixelPage,
    Webhook,
    SegmentBatch,
    Extract,
    Retl,
    Replay,
}

impl Route {
    /// Every route that takes events, in the order of declaration.
    pub(super) const ALL: [Route; 18] = [
        Self::Identify,
        Self::Track,
        Self::Page,
        Self::Screen,
        Self::Group,
        Self::Alias,
        Self::Merge,
        Self::AudienceList,
        Self::Batch,
        Self::Import,
        Self::Beacon,
        Self::PixelTrack,
        Self::PixelPage,
        Self::Webhook,
        Self::SegmentBatch,
        Self::Extract,
        Self::Retl,
        Self::Replay,
    ];

    /// Word in metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Track => "track",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Group => "group",
            Self::Alias => "alias",
            Self::Merge => "merge",
            Self::AudienceList => "audiencelist",
            Self::Batch => "batch",
            Self::Import => "import",
            Self::Beacon => "beacon",
            Self::PixelTrack => "pixel_track",
            Self::PixelPage => "pixel_page",
            Self::Webhook => "webhook",
            Self::SegmentBatch => "segment_batch",
            Self::Extract => "extract",
            Self::Retl => "retl",
            Self::Replay => "replay",
        }
    }

    /// Type of the event that the route takes, for routes that take one.
    pub(super) fn event_type(self) -> &'static str {
        match self {
            Self::PixelTrack => "track",
            Self::PixelPage => "page",
            other => other.name(),
        }
    }
}

/// All of them.
pub(super) fn router(gateway: Arc<Gateway>) -> Router {
    use Answer::{Segment, Text};
    use Route as R;
    let router = Router::new()
        .route(
            "/v1/identify",
            events(R::Identify, Key::Header, Shape::One, Text),
        )
        .route("/v1/track", events(R::Track, Key::Header, Shape::One, Text))
        .route("/v1/page", events(R::Page, Key::Header, Shape::One, Text))
        .route(
            "/v1/screen",
            events(R::Screen, Key::Header, Shape::One, Text),
        )
        .route("/v1/group", events(R::Group, Key::Header, Shape::One, Text))
        .route("/v1/alias", events(R::Alias, Key::Header, Shape::One, Text))
        .route("/v1/merge", events(R::Merge, Key::Header, Shape::One, Text))
        .route(
            "/v1/audiencelist",
            events(R::AudienceList, Key::Header, Shape::One, Text),
        )
        .route(
            "/v1/batch",
            events(R::Batch, Key::Header, Shape::Batch, Text),
        )
        .route(
            "/v1/import",
            events(R::Import, Key::Header, Shape::Import, Text),
        )
        .route(
            "/beacon/v1/batch",
            events(R::Beacon, Key::Query, Shape::Batch, Text),
        )
        .route("/pixel/v1/track", pixel(R::PixelTrack))
        .route("/pixel/v1/page", pixel(R::PixelPage))
        .route("/v1/webhook", get(webhook).post(webhook))
        // Segment's browser client.
        .route(
            "/v1/i",
            events(R::Identify, Key::HeaderOrBody, Shape::One, Segment),
        )
        .route(
            "/v1/t",
            events(R::Track, Key::HeaderOrBody, Shape::One, Segment),
        )
        .route(
            "/v1/p",
            events(R::Page, Key::HeaderOrBody, Shape::One, Segment),
        )
        .route(
            "/v1/s",
            events(R::Screen, Key::HeaderOrBody, Shape::One, Segment),
        )
        .route(
            "/v1/g",
            events(R::Group, Key::HeaderOrBody, Shape::One, Segment),
        )
        .route(
            "/v1/a",
            events(R::Alias, Key::HeaderOrBody, Shape::One, Segment),
        )
        .route(
            "/v1/b",
            events(R::SegmentBatch, Key::HeaderOrBody, Shape::Batch, Segment),
        )
        .route("/v1/m", post(inputs::segment::metrics))
        .route("/v1/projects/{write_key}/settings", get(segment_settings))
        // RudderStack's browser SDK.
        .route("/sourceConfig", get(source_config))
        .route("/cluster-info", get(status::cluster_info))
        .route("/health", get(status::health))
        .route("/", get(status::health))
        .route("/version", get(status::version))
        .route("/robots.txt", get(status::robots));
    // As in RudderStack, internal routes are not there at all unless they are asked for.
    let router = match gateway.config.internal_token {
        Some(_) => router.nest("/internal/v1", internal(&gateway)),
        None => router,
    };
    router
        .fallback(|| async { not_found() })
        .with_state(gateway)
}

/// Behind the token.
fn internal(gateway: &Arc<Gateway>) -> Router<Shared> {
    use Answer::Text;
    use Route as R;
    Router::new()
        .route(
            "/extract",
            events(R::Extract, Key::Header, Shape::One, Text),
        )
        .route(
            "/audiencelist",
            events(R::AudienceList, Key::Header, Shape::One, Text),
        )
        .route("/retl", events(R::Retl, Key::SourceId, Shape::Batch, Text))
        .route(
            "/replay",
            events(R::Replay, Key::ReplaySourceId, Shape::Batch, Text),
        )
        .layer(middleware::from_fn_with_state(Arc::clone(gateway), token))
}

type Shared = Arc<Gateway>;

fn events(route: Route, key: Key, shape: Shape, answer: Answer) -> MethodRouter<Shared> {
    let input = Input {
        route,
        key,
        shape,
        answer,
    };
    post(
        move |State(gateway): State<Shared>, request: Request| async move {
            accept::accept(&gateway, input, request).await
        },
    )
}

fn pixel(route: Route) -> MethodRouter<Shared> {
    get(
        move |State(gateway): State<Shared>, request: Request| async move {
            inputs::pixel::pixel(&gateway, route, request).await
        },
    )
}

async fn webhook(State(gateway): State<Shared>, request: Request) -> Response {
    inputs::webhook::webhook(&gateway, request).await
}

async fn segment_settings(
    State(gateway): State<Shared>,
    Path(write_key): Path<String>,
    request: Request,
) -> Response {
    inputs::segment::settings(&gateway, &write_key, request).await
}

async fn source_config(State(gateway): State<Shared>, request: Request) -> Response {
    inputs::source_config::source_config(&gateway, request).await
}

async fn token(State(gateway): State<Shared>, request: Request, next: Next) -> Response {
    let token = gateway.config.internal_token.as_ref();
    if token.is_some_and(|token| auth::has_token(request.headers(), token.expose())) {
        next.run(request).await
    } else {
        // What is there is nobody's business who has no token.
        not_found()
    }
}

fn not_found() -> Response {
    reply::error(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
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

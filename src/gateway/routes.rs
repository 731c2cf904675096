//! Every URL on one screen.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::{StatusCode, Uri};

use super::accept::{self, Answer, Input, Key, Shape};
use super::openapi::{self, Part};
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
    Stream,
}

impl Route {
    /// Every route that takes events, in the order of declaration.
    pub(super) const ALL: [Route; 19] = [
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
        Self::Stream,
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
            Self::Stream => "internal_batch",
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

/// What answers at a path. [`super::openapi`] describes each.
#[derive(Debug, Clone, Copy)]
pub(super) enum Endpoint {
    /// Takes events.
    Events(Input),
    /// Takes an event in its query and answers with an image.
    Pixel(Route),
    /// Takes what services post in shapes of their own.
    Webhook,
    /// Takes what an ingestion service played in.
    Stream,
    /// Takes the metrics of Segment's browser client about itself, and drops them.
    SegmentMetrics,
    /// What Segment's browser client asks before it sends anything.
    SegmentSettings,
    /// What RudderStack's browser client asks before it sends anything.
    SourceConfig,
    ClusterInfo,
    Health,
    Version,
    Robots,
    /// The description of all paths.
    OpenApi(Part),
    /// That for people.
    Docs,
}

/// A path and what answers there.
pub(super) type Place = (&'static str, Endpoint);

/// What anybody may ask for.
pub(super) const PUBLIC: &[Place] = {
    use Answer::{Segment, Text};
    use Endpoint as E;
    use Route as R;
    &[
        (
            "/v1/identify",
            events(R::Identify, Key::Header, Shape::One, Text),
        ),
        ("/v1/track", events(R::Track, Key::Header, Shape::One, Text)),
        ("/v1/page", events(R::Page, Key::Header, Shape::One, Text)),
        (
            "/v1/screen",
            events(R::Screen, Key::Header, Shape::One, Text),
        ),
        ("/v1/group", events(R::Group, Key::Header, Shape::One, Text)),
        ("/v1/alias", events(R::Alias, Key::Header, Shape::One, Text)),
        ("/v1/merge", events(R::Merge, Key::Header, Shape::One, Text)),
        (
            "/v1/audiencelist",
            events(R::AudienceList, Key::Header, Shape::One, Text),
        ),
        (
            "/v1/batch",
            events(R::Batch, Key::Header, Shape::Batch, Text),
        ),
        (
            "/v1/import",
            events(R::Import, Key::Header, Shape::Import, Text),
        ),
        (
            "/beacon/v1/batch",
            events(R::Beacon, Key::Query, Shape::Batch, Text),
        ),
        ("/pixel/v1/track", E::Pixel(R::PixelTrack)),
        ("/pixel/v1/page", E::Pixel(R::PixelPage)),
        ("/v1/webhook", E::Webhook),
        // Segment's browser client.
        (
            "/v1/i",
            events(R::Identify, Key::HeaderOrBody, Shape::One, Segment),
        ),
        (
            "/v1/t",
            events(R::Track, Key::HeaderOrBody, Shape::One, Segment),
        ),
        (
            "/v1/p",
            events(R::Page, Key::HeaderOrBody, Shape::One, Segment),
        ),
        (
            "/v1/s",
            events(R::Screen, Key::HeaderOrBody, Shape::One, Segment),
        ),
        (
            "/v1/g",
            events(R::Group, Key::HeaderOrBody, Shape::One, Segment),
        ),
        (
            "/v1/a",
            events(R::Alias, Key::HeaderOrBody, Shape::One, Segment),
        ),
        (
            "/v1/b",
            events(R::SegmentBatch, Key::HeaderOrBody, Shape::Batch, Segment),
        ),
        ("/v1/m", E::SegmentMetrics),
        ("/v1/projects/{write_key}/settings", E::SegmentSettings),
        // RudderStack's browser SDK.
        ("/sourceConfig", E::SourceConfig),
        ("/cluster-info", E::ClusterInfo),
        ("/health", E::Health),
        ("/", E::Health),
        ("/version", E::Version),
        ("/robots.txt", E::Robots),
        ("/openapi.json", E::OpenApi(Part::Public)),
        ("/docs", E::Docs),
    ]
};

/// What is there only for those who have the token, below [`INTERNAL_ROOT`].
pub(super) const INTERNAL: &[Place] = {
    use Answer::Text;
    use Endpoint as E;
    use Route as R;
    &[
        (
            "/extract",
            events(R::Extract, Key::Header, Shape::One, Text),
        ),
        (
            "/audiencelist",
            events(R::AudienceList, Key::Header, Shape::One, Text),
        ),
        ("/retl", events(R::Retl, Key::SourceId, Shape::Batch, Text)),
        (
            "/replay",
            events(R::Replay, Key::ReplaySourceId, Shape::Batch, Text),
        ),
        ("/batch", E::Stream),
        ("/openapi.json", E::OpenApi(Part::All)),
    ]
};

/// Where [`INTERNAL`] is.
pub(super) const INTERNAL_ROOT: &str = "/internal/v1";

const fn events(route: Route, key: Key, shape: Shape, answer: Answer) -> Endpoint {
    Endpoint::Events(Input {
        route,
        key,
        shape,
        answer,
    })
}

/// All of them.
pub(super) fn router(gateway: Arc<Gateway>) -> Router {
    // As in RudderStack, internal routes are not there at all unless they are asked for.
    let router = match gateway.config.internal_token {
        Some(_) => mount(PUBLIC).nest(
            INTERNAL_ROOT,
            mount(INTERNAL).layer(middleware::from_fn_with_state(Arc::clone(&gateway), token)),
        ),
        None => mount(PUBLIC),
    };
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(gateway)
}

type Shared = Arc<Gateway>;

fn mount(places: &[Place]) -> Router<Shared> {
    places
        .iter()
        .fold(Router::new(), |router, (path, endpoint)| {
            router.route(path, endpoint.handler())
        })
}

impl Endpoint {
    fn handler(self) -> MethodRouter<Shared> {
        match self {
            Self::Events(input) => post(
                move |State(gateway): State<Shared>, request: Request| async move {
                    accept::accept(&gateway, input, request).await
                },
            ),
            Self::Pixel(route) => get(
                move |State(gateway): State<Shared>, request: Request| async move {
                    inputs::pixel::pixel(&gateway, route, request).await
                },
            ),
            Self::Webhook => get(webhook).post(webhook),
            Self::Stream => post(stream),
            Self::SegmentMetrics => post(inputs::segment::metrics),
            Self::SegmentSettings => get(segment_settings),
            Self::SourceConfig => get(source_config),
            Self::ClusterInfo => get(status::cluster_info),
            Self::Health => get(status::health),
            Self::Version => get(status::version),
            Self::Robots => get(status::robots),
            Self::OpenApi(part) => {
                get(move || async move { reply::json(StatusCode::OK, openapi::document(part)) })
            }
            Self::Docs => get(|| async { reply::html(openapi::page()) }),
        }
    }
}

async fn webhook(State(gateway): State<Shared>, request: Request) -> Response {
    inputs::webhook::webhook(&gateway, request).await
}

async fn stream(State(gateway): State<Shared>, request: Request) -> Response {
    inputs::stream::stream(&gateway, request).await
}

async fn segment_settings(
    State(gateway): State<Shared>,
    write_key: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    // What is no text is no key either.
    let write_key = write_key.map(|Path(key)| key).unwrap_or_default();
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
        gateway.metrics.refused("", "no_token");
        not_found()
    }
}

async fn unknown_path(State(gateway): State<Shared>) -> Response {
    gateway.metrics.refused("", "unknown_path");
    not_found()
}

/// The methods that there are are said by `axum`.
async fn wrong_method(State(gateway): State<Shared>) -> Response {
    gateway.metrics.refused("", "wrong_method");
    let mut response = Response::default();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
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

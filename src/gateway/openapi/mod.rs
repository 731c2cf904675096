//! `/openapi.json`: the routes as machines read them, made of the table that the router is made of.
//!
//! What a route takes and answers follows from its [`Endpoint`], which is matched without a wildcard: a new kind of endpoint
//! cannot go without a description. The texts and codes of refusals are [`super::refusal::Refusal`]'s own.

mod answers;
mod bodies;
mod operations;
mod page;

use std::sync::OnceLock;

use bytes::Bytes;
use utoipa::openapi::path::{PathItem, Paths, PathsBuilder};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder};

pub(super) use page::page;

use super::auth;
use super::routes::{Endpoint, INTERNAL, INTERNAL_ROOT, PUBLIC};

/// How much is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What anybody may ask for.
    Public,
    /// That, and what is behind the token.
    All,
}

/// Names of the ways to say who one is.
const WRITE_KEY: &str = "writeKey";
const WRITE_KEY_IN_QUERY: &str = "writeKeyInQuery";
const TOKEN: &str = "internalToken";

/// The document as JSON; made once.
pub(super) fn document(part: Part) -> Bytes {
    static PUBLIC: OnceLock<Bytes> = OnceLock::new();
    static ALL: OnceLock<Bytes> = OnceLock::new();
    let made = match part {
        Part::Public => &PUBLIC,
        Part::All => &ALL,
    };
    let make = || {
        let json = describe(part).to_json();
        Bytes::from(json.expect("it is made of strings and maps with string keys"))
    };
    made.get_or_init(make).clone()
}

fn describe(part: Part) -> OpenApi {
    let mut info = InfoBuilder::new()
        .title("Sluice gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .build();
    info.license = Some(License::new("Apache-2.0"));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths(part))
        .components(Some(
            schemes(part)
                .into_iter()
                .fold(ComponentsBuilder::new(), |components, (name, scheme)| {
                    components.security_scheme(name, scheme)
                })
                .schemas_from_iter(bodies::schemas())
                .build(),
        ))
        .build()
}

const ABOUT: &str = "Takes events of RudderStack's and Segment's clients. A 200 means that every event of the request is acknowledged \
by all in-sync replicas. Bodies are JSON whatever their `Content-Type` says, and may come with `Content-Encoding: gzip`, `deflate` or \
`zstd`; what cannot be inflated is answered with 500 and `failed to read body from request`, as by RudderStack. A trailing or doubled \
slash in a path is forgiven. An answer that asks to come back says when in `Retry-After`. Beyond the limit of connections any request \
is answered with 503.";

fn paths(part: Part) -> Paths {
    let public = PUBLIC.iter().map(|place| (String::new(), place));
    let internal = INTERNAL
        .iter()
        .map(|place| (INTERNAL_ROOT.to_owned(), place));
    let described = match part {
        Part::Public => public.collect(),
        Part::All => public.chain(internal).collect::<Vec<_>>(),
    };
    described
        .into_iter()
        .fold(PathsBuilder::new(), |paths, (root, (path, endpoint))| {
            let path = root + path;
            let item = item(&path, *endpoint);
            paths.path(path, item)
        })
        .build()
}

/// Everything about one path.
fn item(path: &str, endpoint: Endpoint) -> PathItem {
    let mut item = PathItem::default();
    for (method, operation) in operations::of(path, endpoint) {
        item.merge_operations(PathItem::new(method, operation));
    }
    item
}

fn schemes(part: Part) -> Vec<(&'static str, SecurityScheme)> {
    let basic = HttpBuilder::new()
        .scheme(HttpAuthScheme::Basic)
        .description(Some(
            "The source's write key as the user name; the password is not looked at.",
        ))
        .build();
    let query = ApiKeyValue::with_description("writeKey", "The source's write key.");
    let token = ApiKeyValue::with_description(
        auth::TOKEN,
        "`gateway.internal_token` of the settings. Without it these routes are not there (404).",
    );
    let mut schemes = vec![
        (WRITE_KEY, SecurityScheme::Http(basic)),
        (
            WRITE_KEY_IN_QUERY,
            SecurityScheme::ApiKey(ApiKey::Query(query)),
        ),
    ];
    if part == Part::All {
        schemes.push((TOKEN, SecurityScheme::ApiKey(ApiKey::Header(token))));
    }
    schemes
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn parsed(part: Part) -> Value {
        serde_json::from_slice(&document(part)).unwrap()
    }

    /// Every `$ref` in `value`.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::String(target) if name == "$ref" => found.push(target.clone()),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(elements) => elements.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let mut routes: Vec<String> = PUBLIC.iter().map(|(path, _)| (*path).to_owned()).collect();
        let paths = |part| {
            let document = parsed(part);
            let paths = document["paths"].as_object().unwrap();
            let mut paths: Vec<String> = paths.keys().cloned().collect();
            paths.sort();
            paths
        };
        routes.sort();
        assert_eq!(paths(Part::Public), routes);
        routes.extend(
            INTERNAL
                .iter()
                .map(|(path, _)| format!("{INTERNAL_ROOT}{path}")),
        );
        routes.sort();
        assert_eq!(paths(Part::All), routes);
    }

    #[test]
    fn every_operation_says_what_it_is_for_and_what_it_answers() {
        let document = parsed(Part::All);
        let mut ids = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let what = format!("{method} {path}");
                for field in ["summary", "description", "operationId"] {
                    let text = operation[field].as_str().unwrap_or_default();
                    assert!(text.len() > 5, "{what} has no {field}");
                }
                assert_eq!(operation["tags"].as_array().unwrap().len(), 1, "{what}");
                ids.push(operation["operationId"].as_str().unwrap().to_owned());
                let responses = operation["responses"].as_object().unwrap();
                assert!(responses.contains_key("200"), "{what}");
                for (status, response) in responses {
                    let refused = status.starts_with(['4', '5']);
                    let headers = response["headers"].as_object();
                    let sniff = headers.is_some_and(|h| h.contains_key("X-Content-Type-Options"));
                    assert!(sniff || !refused, "{what}: {status}");
                }
            }
        }
        assert!(ids.len() > 30);
        ids.sort();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "operations share an id");
    }

    #[test]
    fn what_is_behind_the_token_is_not_told_to_everybody() {
        let text = String::from_utf8(document(Part::Public).to_vec()).unwrap();
        assert!(!text.contains(INTERNAL_ROOT) && !text.to_lowercase().contains(auth::TOKEN));
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = parsed(Part::All);
        let mut found = Vec::new();
        references(&document, &mut found);
        for target in &found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
        for name in document["components"]["schemas"]
            .as_object()
            .unwrap()
            .keys()
        {
            assert!(
                found.contains(&format!("#/components/schemas/{name}")),
                "{name}"
            );
        }
    }
}

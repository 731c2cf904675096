//! `GET /sourceConfig`: what RudderStack's browser SDK asks the control plane before it sends anything.
//!
//! The SDK takes every destination in the answer for one that it must load into the page itself, so none is listed: all of
//! ours are served from here.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::super::callers::Caller;
use super::super::refusal::Refusal;
use super::super::{Gateway, auth, reply};
use crate::clock::{UnixMs, rfc3339_ms};
use crate::fault::Classify;

/// `GET /sourceConfig`, with the write key in the header or in the query.
pub(in super::super) async fn source_config(gateway: &Gateway, request: Request) -> Response {
    match find(gateway, request.headers(), request.uri().query()) {
        Ok(body) => answer(request.headers(), body),
        Err(refusal) => {
            gateway.metrics.refused("", refusal.code());
            reply::refused(refusal, gateway.config.retry_after_s_max)
        }
    }
}

fn find(gateway: &Gateway, headers: &HeaderMap, query: Option<&str>) -> Result<String, Refusal> {
    let callers = gateway.directory.now();
    let caller = match auth::write_key_in_header(headers) {
        Some(key) => callers.by_write_key(&key),
        None => {
            let key = auth::write_key_in_query(query).ok_or(Refusal::NoWriteKey)?;
            callers.by_write_key(&key)
        }
    };
    let caller = caller.ok_or(Refusal::UnknownWriteKey)?;
    Ok(body(
        caller,
        &callers.workspace.id,
        callers.workspace.revision,
    ))
}

fn body(caller: &Caller, workspace: &str, revision: UnixMs) -> String {
    let source = &caller.source;
    json!({
        "source": {
            "id": source.id,
            "name": source.name,
            "writeKey": source.write_key,
            "workspaceId": workspace,
            "enabled": source.enabled,
            // On, the SDK would post its own errors and metrics to `/rsaMetrics`.
            "config": {"statsCollection": {"errors": {"enabled": false}, "metrics": {"enabled": false}}},
            "connections": [],
            "destinations": [],
            "updatedAt": rfc3339_ms(revision),
        },
        "updatedAt": rfc3339_ms(revision),
    })
    .to_string()
}

/// `body` with an entity tag, or 304 when the client has it.
fn answer(headers: &HeaderMap, body: String) -> Response {
    let tag = format!(
        "\"{:016x}\"",
        twox_hash::XxHash3_64::oneshot(body.as_bytes())
    );
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|tags| {
            tags.split(',')
                .any(|t| t.trim().trim_start_matches("W/") == tag)
        });
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        reply::json(StatusCode::OK, body)
    };
    let headers = response.headers_mut();
    // Hexadecimal digits in quotes are a valid value.
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=60"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("Authorization"));
    response
}

//! The one path that all inputs share: from a request to records that every in-sync replica has.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;

use crate::control::Workspace;
use crate::fault::Classify;

use super::body;
use super::callers::Caller;
use super::connection::{Connection, Phase};
use super::log;
use super::payload::{self, Payload};
use super::refusal::Refusal;
use super::repair::repair;
use super::routes::Route;
use super::select::{Policy, Receipt};
use super::send::{self, Context};
use super::{Gateway, auth, reply};

/// What makes one input differ from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) route: Route,
    pub(super) key: Key,
    pub(super) shape: Shape,
    pub(super) answer: Answer,
}

/// How the client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// `Authorization: Basic`.
    Header,
    /// `?writeKey=`: a beacon cannot set headers.
    Query,
    /// `Authorization: Basic`, else `writeKey` in the body: Segment's clients.
    HeaderOrBody,
    /// `?writeKey=`, else `Authorization: Basic`; for webhook sources only.
    Webhook,
    /// `X-Rudder-Source-Id`, with `X-Rudder-Destination-Id` when it is for one destination only; behind the internal token.
    SourceId,
    /// `X-Rudder-Source-Id` of a replay source, behind the internal token.
    ReplaySourceId,
}

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One event of the route's type.
    One,
    /// `{"batch": [...]}`; one bad event refuses all of it.
    Batch,
    /// `{"batch": [...]}`; a bad event refuses those of the same user.
    Import,
}

/// What success looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// `ok`.
    Text,
    /// `{"success":true}`.
    Segment,
}

/// The header by which a client asks for a result per event, and its value.
const RESULT: (&str, &str) = ("sluice-result", "per-event");

/// A request and what became known of it on the way.
pub(super) struct Exchange<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) head: Parts,
    pub(super) body: Body,
    pub(super) caller: Option<Arc<Caller>>,
    /// Bytes of the body, inflated.
    pub(super) bytes: usize,
}

/// Answers a request that brings events.
pub(super) async fn accept(gateway: &Gateway, input: Input, request: Request) -> Response {
    let began = Instant::now();
    let mut exchange = Exchange::new(gateway, request);
    let per_event = exchange
        .head
        .headers
        .get(RESULT.0)
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(RESULT.1.as_bytes()));
    let policy = match (per_event, input.shape) {
        (true, _) => Policy::PerEvent,
        (false, Shape::Import) => Policy::PerUser,
        (false, Shape::One | Shape::Batch) => Policy::Whole,
    };
    let outcome = take(&mut exchange, input, policy).await;
    if let Ok(receipt) = &outcome
        && let Some(reason) = receipt.failure(policy)
    {
        exchange.count_refused(reason);
    }
    let response = match &outcome {
        Ok(receipt) if per_event => reply::per_event(receipt),
        Ok(receipt) => match import_failure(receipt) {
            None => match input.answer {
                Answer::Text => reply::ok(),
                Answer::Segment => reply::json(StatusCode::OK, r#"{"success":true}"#),
            },
            Some((status, text)) => reply::error(status, text),
        },
        Err(refusal) => exchange.refuse(*refusal).await,
    };
    exchange.finish(input.route, &response, began);
    response
}

/// The steps in RudderStack's order, but for the size of the body: that is refused before it is read, not after.
async fn take(
    exchange: &mut Exchange<'_>,
    input: Input,
    policy: Policy,
) -> Result<Receipt, Refusal> {
    let gateway = exchange.gateway;
    let revision = exchange.authenticate(input.key)?;
    let limits = gateway.limits(input.route);
    let mut taken = gateway.budget.taker();
    let body = exchange.read_at_most(limits.body_bytes, &mut taken).await?;
    let sent = {
        let text = repair(&body);
        let payload = match input.shape {
            Shape::One => payload::single(&text, limits.payload)?,
            Shape::Batch | Shape::Import => payload::batch(&text, limits.payload)?,
        };
        let kind = (input.shape == Shape::One).then(|| input.route.event_type());
        let caller = match exchange.caller.take() {
            Some(caller) => caller,
            None => by_body(gateway, &payload)?,
        };
        let caller = &*exchange.caller.insert(caller);
        let context = Context {
            gateway,
            caller,
            revision,
            head: &exchange.head,
            destination_id: match input.key {
                Key::SourceId => auth::destination_id(&exchange.head.headers).unwrap_or_default(),
                _ => "",
            },
        };
        send::send(&context, &payload, kind, policy)?
    };
    send::acknowledged(gateway, sent).await
}

fn by_body(gateway: &Gateway, payload: &Payload<'_>) -> Result<Arc<Caller>, Refusal> {
    let key = super::admit::text(payload.write_key);
    if key.is_empty() {
        return Err(Refusal::NoWriteKey);
    }
    let callers = gateway.directory.now();
    let caller = callers.by_write_key(&key).ok_or(Refusal::UnknownWriteKey)?;
    enabled(caller)?;
    Ok(Arc::clone(caller))
}

fn enabled(caller: &Caller) -> Result<(), Refusal> {
    if caller.source.enabled {
        Ok(())
    } else {
        Err(Refusal::SourceDisabled)
    }
}

/// Whether a request may be for the destination that it names.
fn destination(workspace: &Workspace, id: Option<&str>, required: bool) -> Result<(), Refusal> {
    let Some(id) = id else {
        return if required {
            Err(Refusal::NoDestinationId)
        } else {
            Ok(())
        };
    };
    match workspace.destination(id) {
        None => Err(Refusal::UnknownDestination),
        Some(destination) if !destination.enabled => Err(Refusal::DestinationDisabled),
        Some(_) => Ok(()),
    }
}

/// What an import answers when groups of it were refused. RudderStack strings their errors together, and looks the result
/// up in its table of codes: one error keeps its code, several have none and become 500.
fn import_failure(receipt: &Receipt) -> Option<(StatusCode, String)> {
    let text: String = receipt
        .groups_refused
        .iter()
        .map(Refusal::to_string)
        .collect();
    match receipt.groups_refused.as_slice() {
        [] => None,
        [only] => Some((only.status(), text + "\n")),
        _ => Some((StatusCode::INTERNAL_SERVER_ERROR, text + "\n")),
    }
}

impl<'a> Exchange<'a> {
    pub(super) fn new(gateway: &'a Gateway, request: Request) -> Self {
        let (head, body) = request.into_parts();
        Self {
            gateway,
            head,
            body,
            caller: None,
            bytes: 0,
        }
    }

    /// Finds the caller by the request's head, and returns the revision of the configuration that was asked. Leaves the
    /// caller open when only the body can tell.
    ///
    /// # Errors
    /// In RudderStack's words when there is no caller or it may not call.
    pub(super) fn authenticate(&mut self, key: Key) -> Result<i64, Refusal> {
        let headers = &self.head.headers;
        let query = self.head.uri.query();
        let callers = self.gateway.directory.now();
        let revision = callers.workspace.revision;
        let known = |key: &str| callers.by_write_key(key).ok_or(Refusal::UnknownWriteKey);
        let caller = match key {
            Key::Header => known(&auth::write_key_in_header(headers).ok_or(Refusal::NoWriteKey)?)?,
            Key::Query => {
                known(&auth::write_key_in_query(query).ok_or(Refusal::NoWriteKeyInQuery)?)?
            }
            Key::HeaderOrBody => match auth::write_key_in_header(headers) {
                Some(key) => known(&key)?,
                None => return Ok(revision),
            },
            Key::Webhook => {
                let caller = match auth::write_key_in_query(query) {
                    Some(key) => known(&key)?,
                    None => known(
                        &auth::write_key_in_header(headers).ok_or(Refusal::NoWriteKeyInQuery)?,
                    )?,
                };
                if caller.source.category != "webhook" {
                    return Err(Refusal::UnknownWriteKey);
                }
                caller
            }
            Key::SourceId | Key::ReplaySourceId => {
                let id = auth::source_id(headers).ok_or(Refusal::NoSourceId)?;
                let caller = callers.by_id(id).ok_or(Refusal::UnknownSource)?;
                if key == Key::ReplaySourceId && caller.source.original_id.is_none() {
                    return Err(Refusal::NotAReplaySource);
                }
                caller
            }
        };
        self.caller = Some(Arc::clone(caller));
        enabled(caller)?;
        if key == Key::SourceId {
            let required = self.gateway.config.retl_destination_required;
            destination(&callers.workspace, auth::destination_id(headers), required)?;
        }
        Ok(revision)
    }

    /// Sends the events of `text`, one event of type `kind` or a batch, and waits for them.
    ///
    /// # Errors
    /// As for a client's own body.
    pub(super) async fn store(
        &mut self,
        revision: i64,
        text: &str,
        kind: Option<&'static str>,
        policy: Policy,
    ) -> Result<Receipt, Refusal> {
        let Some(caller) = &self.caller else {
            return Err(Refusal::NoWriteKey);
        };
        let sent = {
            let payload = match kind {
                Some(_) => payload::single(text, self.gateway.bounds)?,
                None => payload::batch(text, self.gateway.bounds)?,
            };
            let context = Context {
                gateway: self.gateway,
                caller,
                revision,
                head: &self.head,
                destination_id: "",
            };
            send::send(&context, &payload, kind, policy)?
        };
        send::acknowledged(self.gateway, sent).await
    }

    /// Notes that all of the request is here and its client waits for us.
    pub(super) fn answering(&self) {
        if let Some(connection) = self.connection() {
            connection.enter(Phase::Answer);
        }
    }

    /// Reads the body; from here on the connection waits for us.
    pub(super) async fn read(
        &mut self,
        taken: &mut super::limit::Taken,
    ) -> Result<bytes::Bytes, Refusal> {
        self.read_at_most(self.gateway.config.body_bytes_max, taken)
            .await
    }

    /// [`Exchange::read`] with a cap of its own.
    pub(super) async fn read_at_most(
        &mut self,
        cap: usize,
        taken: &mut super::limit::Taken,
    ) -> Result<bytes::Bytes, Refusal> {
        let body = body::read(&mut self.body, &self.head.headers, cap, taken).await?;
        self.bytes = body.len();
        self.answering();
        Ok(body)
    }

    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        self.head.extensions.get()
    }

    /// Counts a refusal and answers it.
    pub(super) async fn refuse(&mut self, refusal: Refusal) -> Response {
        self.count_refusal(refusal);
        body::discard(&mut self.body, self.gateway.config.body_bytes_max).await;
        reply::refused(refusal, self.gateway.config.retry_after_s_max)
    }

    pub(super) fn count_refusal(&self, refusal: Refusal) {
        self.count_refused(refusal.code());
    }

    /// Counts a refusal by its word, for those that are no [`Refusal`].
    pub(super) fn count_refused(&self, reason: &str) {
        let source = self.caller.as_ref().map_or("", |c| &c.source.id);
        self.gateway.metrics.refused(source, reason);
    }

    /// Counts an answer and perhaps logs it.
    pub(super) fn finish(&self, route: Route, response: &Response, began: Instant) {
        let took = began.elapsed();
        self.gateway.routes.answered(route, response.status(), took);
        if log::sampled(self.gateway.config.access_log_sample) {
            log::access(self, route, response.status(), took);
        }
    }
}

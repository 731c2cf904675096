//! The one path that all inputs share: from a request to records that every in-sync replica has.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;

use crate::fault::Classify;
use crate::kafka;

use super::admit::{self, Arrival};
use super::arrival;
use super::body;
use super::callers::Caller;
use super::connection::{Connection, Phase};
use super::payload::{self, Payload};
use super::refusal::Refusal;
use super::repair::repair;
use super::routes::Route;
use super::{Gateway, auth, reply};

/// What makes one input differ from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) route: Route,
    pub(super) key: Key,
    pub(super) shape: Shape,
}

/// Where the write key is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    /// `Authorization: Basic`.
    Header,
    /// `?writeKey=`: a beacon cannot set headers.
    Query,
}

/// What the body is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// One event of the route's type.
    One,
    /// `{"batch": [...]}`.
    Batch,
}

/// Answers a request that brings events.
pub(super) async fn accept(gateway: &Gateway, input: Input, request: Request) -> Response {
    let began = Instant::now();
    let (head, mut body) = request.into_parts();
    let mut caller = None;
    let outcome = take(gateway, input, &head, &mut body, &mut caller).await;
    let response = match outcome {
        Ok(()) => reply::ok(),
        Err(refusal) => {
            let source = caller.as_ref().map_or("", |c: &Arc<Caller>| &c.source.id);
            let labels = [source, refusal.code()];
            gateway
                .metrics
                .requests_refused_total
                .with_label_values(&labels)
                .inc();
            body::discard(&mut body, gateway.config.body_bytes_max).await;
            reply::refused(refusal, gateway.config.retry_after_s_max)
        }
    };
    gateway
        .routes
        .answered(input.route, response.status(), began.elapsed());
    response
}

/// The steps in RudderStack's order, but for the size of the body: that is refused before it is read, not after.
async fn take(
    gateway: &Gateway,
    input: Input,
    head: &Parts,
    body: &mut Body,
    known: &mut Option<Arc<Caller>>,
) -> Result<(), Refusal> {
    let (caller, config_revision) = authenticate(gateway, input.key, head)?;
    let caller = &**known.insert(caller);
    if !caller.source.enabled {
        return Err(Refusal::SourceDisabled);
    }
    let connection = head.extensions.get::<Arc<Connection>>();
    let mut taken = gateway.budget.taker();
    let cap = gateway.config.body_bytes_max;
    let body = body::read(body, &head.headers, cap, &mut taken).await?;
    if let Some(connection) = connection {
        connection.enter(Phase::Answer);
    }
    let (batch, events, bytes) = {
        let arrival = arrival_of(gateway, caller, config_revision, head, connection);
        publish(gateway, input, &body, arrival)?
    };
    let deadline = kafka::deadline(gateway.config.ack_deadline());
    batch.wait(deadline).await.map_err(|error| {
        tracing::debug!(%error, source.id = caller.source.id, "events not acknowledged");
        Refusal::from(&error)
    })?;
    caller.accepted.inc_by(events);
    caller.bytes.inc_by(bytes);
    Ok(())
}

fn authenticate(gateway: &Gateway, key: Key, head: &Parts) -> Result<(Arc<Caller>, i64), Refusal> {
    let write_key = match key {
        Key::Query => auth::write_key_in_query(head.uri.query())
            .ok_or(Refusal::NoWriteKeyInQuery)?
            .into_owned(),
        Key::Header => auth::write_key_in_header(&head.headers).ok_or(Refusal::NoWriteKey)?,
    };
    let callers = gateway.directory.now();
    let caller = callers
        .by_write_key(&write_key)
        .ok_or(Refusal::UnknownWriteKey)?;
    Ok((Arc::clone(caller), callers.workspace.revision))
}

fn arrival_of<'a>(
    gateway: &Gateway,
    caller: &'a Caller,
    config_revision: i64,
    head: &'a Parts,
    connection: Option<&'a Arc<Connection>>,
) -> Arrival<'a> {
    let headers = &head.headers;
    Arrival {
        source_id: &caller.source.id,
        write_key_hash: caller.write_key_hash,
        config_revision,
        received_at: gateway.clock.now_ms(),
        request_ip: connection.map_or(Cow::Borrowed(""), |c| {
            arrival::client_ip(headers, c.peer, &c.peer_text, &gateway.trusted)
        }),
        sent_at: Cow::Borrowed(""),
        job_run_id: Cow::Borrowed(arrival::text(headers, arrival::JOB_RUN)),
        task_run_id: Cow::Borrowed(arrival::text(headers, arrival::TASK_RUN)),
        traceparent: arrival::traceparent(headers),
        anonymous_header: arrival::text(headers, arrival::ANONYMOUS_ID),
        is_bot: arrival::is_bot(headers),
    }
}

/// Reads, admits, encodes and sends; nothing is sent unless every event of the request is taken. Returns what to wait for,
/// how many events there are and how many bytes they have.
fn publish(
    gateway: &Gateway,
    input: Input,
    body: &[u8],
    arrival: Arrival<'_>,
) -> Result<(kafka::Batch, u64, u64), Refusal> {
    let text = repair(body);
    let mut arrival = arrival;
    let (payload, kind) = match input.shape {
        Shape::One => (
            payload::single(&text, gateway.bounds)?,
            Some(input.route.name()),
        ),
        Shape::Batch => (payload::batch(&text, gateway.bounds)?, None),
    };
    complete(&mut arrival, &payload);
    gateway.outbox.fill(|outgoing| {
        for event in &payload.events {
            let envelope = admit::admit(event, kind, &arrival, gateway.rules)?;
            outgoing.push(&envelope, arrival.anonymous_header)?;
        }
        if outgoing.is_empty() {
            return Err(Refusal::EmptyBatch);
        }
        let batch = kafka::Batch::new();
        outgoing.send(&gateway.producer, &batch, arrival.traceparent)?;
        Ok((batch, outgoing.len(), outgoing.event_bytes()))
    })
}

/// What the body tells of the request as a whole. As in RudderStack the first event speaks for all of them.
fn complete<'a>(arrival: &mut Arrival<'a>, payload: &Payload<'a>) {
    arrival.sent_at = admit::text(payload.sent_at);
    if let Some(first) = payload.events.first() {
        if arrival.job_run_id.is_empty() {
            arrival.job_run_id = admit::text(first.job_run_id);
        }
        if arrival.task_run_id.is_empty() {
            arrival.task_run_id = admit::text(first.task_run_id);
        }
    }
}

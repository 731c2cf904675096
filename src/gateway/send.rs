//! From what was read of a request to records in Kafka.

use std::borrow::Cow;
use std::sync::Arc;

use http::request::Parts;

use crate::kafka;

use super::Gateway;
use super::admit::{self, Arrival};
use super::arrival;
use super::callers::Caller;
use super::connection::Connection;
use super::payload::Payload;
use super::refusal::Refusal;
use super::select::{Policy, Receipt, Selection, select};
use super::spill::Frames;

/// Whose request it is, and what came with it.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) caller: &'a Arc<Caller>,
    /// Of the configuration that the caller was found in.
    pub(super) revision: i64,
    pub(super) head: &'a Parts,
    /// The one destination that the request is for; empty for all.
    pub(super) destination_id: &'a str,
}

/// Records on their way.
#[must_use = "nothing is accepted before it is acknowledged"]
pub(super) struct Sent {
    way: Way,
    caller: Arc<Caller>,
    receipt: Receipt,
    bytes: u64,
}

/// How the records of one request become safe.
enum Way {
    /// They are with Kafka's client.
    Kafka(kafka::Batch),
    /// They wait for the word which way to go, and are kept in case it has to be the other one.
    KafkaOrDisk(Frames),
}

/// Admits, encodes and sends. Nothing is sent before every event is decided on.
///
/// # Errors
/// When the request as a whole is refused; nothing was sent then, unless Kafka's client refused it midway.
pub(super) fn send<'a>(
    context: &Context<'a>,
    payload: &Payload<'a>,
    kind: Option<&'static str>,
    policy: Policy,
) -> Result<Sent, Refusal> {
    let gateway = context.gateway;
    if payload.events.is_empty() && policy != Policy::PerUser {
        return Err(Refusal::EmptyBatch);
    }
    let arrival = arrival_of(context, payload);
    let suppressed = gateway.suppression.now();
    let selection = Selection {
        policy,
        rules: gateway.rules,
        suppressed: &suppressed,
        kind,
    };
    gateway.outbox.fill(|outgoing| {
        let receipt = select(selection, payload, &arrival, |envelope| {
            outgoing.push(envelope, arrival.anonymous_header)
        })?;
        // A job run may be slowed by its own sender; cutting it short would only lose its place.
        if arrival.job_run_id.is_empty() && arrival.task_run_id.is_empty() {
            let now = gateway.started.elapsed();
            context.caller.within_limit(receipt.accepted, now)?;
        }
        let way = if gateway.spill.is_some() {
            let now = gateway.clock.now_ms();
            Way::KafkaOrDisk(Frames::of(outgoing.records(), arrival.traceparent, now))
        } else {
            let batch = kafka::Batch::new();
            outgoing.send(&gateway.producer, &batch, |_| arrival.traceparent)?;
            Way::Kafka(batch)
        };
        Ok(Sent {
            way,
            caller: Arc::clone(context.caller),
            receipt,
            bytes: outgoing.event_bytes(),
        })
    })
}

/// Waits until every in-sync replica has all of it, or the disk if there is a spill.
///
/// # Errors
/// When neither said so in time. The records may be written all the same.
pub(super) async fn acknowledged(gateway: &Gateway, sent: Sent) -> Result<Receipt, Refusal> {
    let Sent {
        way,
        caller,
        receipt,
        bytes,
    } = sent;
    match (way, &gateway.spill) {
        (Way::Kafka(batch), _) => wait(gateway, batch).await?,
        (Way::KafkaOrDisk(frames), Some(spill)) => {
            let deadline = kafka::deadline(gateway.config.ack_deadline());
            spill.store(&gateway.producer, frames, deadline).await?;
        }
        (Way::KafkaOrDisk(_), None) => return Err(Refusal::NotAcknowledged),
    }
    caller.accepted.inc_by(receipt.accepted);
    caller.bytes.inc_by(bytes);
    if receipt.suppressed > 0 {
        caller.suppressed.inc_by(receipt.suppressed);
    }
    Ok(receipt)
}

/// Waits until every in-sync replica has the records of `batch`.
///
/// # Errors
/// When Kafka did not say so in time.
pub(super) async fn wait(gateway: &Gateway, batch: kafka::Batch) -> Result<(), Refusal> {
    let deadline = kafka::deadline(gateway.config.ack_deadline());
    batch.wait(deadline).await.map_err(|error| {
        tracing::debug!(%error, "events not acknowledged");
        Refusal::from(&error)
    })
}

fn arrival_of<'a>(context: &Context<'a>, payload: &Payload<'a>) -> Arrival<'a> {
    let headers = &context.head.headers;
    let connection = context.head.extensions.get::<Arc<Connection>>();
    let trusted = &context.gateway.config.trusted_proxies;
    let first = payload.events.first();
    // As in RudderStack the first event speaks for all of them.
    let run = |header: &'a str, in_event: Option<Cow<'a, str>>| {
        if header.is_empty() {
            in_event.unwrap_or_default()
        } else {
            Cow::Borrowed(header)
        }
    };
    Arrival {
        source_id: &context.caller.source.id,
        write_key_hash: context.caller.write_key_hash,
        config_revision: context.revision,
        received_at: context.gateway.clock.now_ms(),
        request_ip: connection.map_or(Cow::Borrowed(""), |c| {
            arrival::client_ip(headers, c.peer, &c.peer_text, trusted)
        }),
        sent_at: admit::text(payload.sent_at),
        job_run_id: run(
            arrival::text(headers, arrival::JOB_RUN),
            first.map(|e| admit::text(e.job_run_id)),
        ),
        task_run_id: run(
            arrival::text(headers, arrival::TASK_RUN),
            first.map(|e| admit::text(e.task_run_id)),
        ),
        // Whether it may be named was asked when the caller was found.
        destination_id: context.destination_id,
        traceparent: arrival::traceparent(headers),
        anonymous_header: arrival::text(headers, arrival::ANONYMOUS_ID),
        is_bot: arrival::is_bot(headers),
        bot: Cow::Borrowed(""),
    }
}

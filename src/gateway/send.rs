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
use super::gcra::Spent;
use super::outbox::Outgoing;
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
    is_bot: bool,
    spent: Option<Spent>,
}

/// How the records of one request become safe.
#[must_use = "nothing is accepted before it is acknowledged"]
pub(super) enum Way {
    /// They are with Kafka's client.
    Kafka(kafka::Batch),
    /// They wait for the word which way to go, and are kept in case it has to be the other one.
    KafkaOrDisk(Frames),
}

impl Way {
    /// Sends what is encoded, or keeps it until it is known which way it goes. `traceparent` gives the trace context of each
    /// record by its number.
    ///
    /// # Errors
    /// When Kafka's client refuses it; a part may be sent then.
    pub(super) fn take<'t>(
        gateway: &Gateway,
        outgoing: &Outgoing<'_>,
        traceparent: impl Fn(usize) -> &'t str,
    ) -> Result<Self, Refusal> {
        if gateway.spill.is_some() {
            let now = gateway.clock.now_ms();
            let frames = Frames::of(outgoing.records(), traceparent, now);
            return Ok(Self::KafkaOrDisk(frames));
        }
        let batch = kafka::Batch::new();
        outgoing.send(&gateway.producer, &batch, traceparent)?;
        Ok(Self::Kafka(batch))
    }

    /// Waits until every in-sync replica has all of it, or the disk if there is a spill.
    ///
    /// # Errors
    /// When neither said so in time. The records may be written all the same.
    pub(super) async fn acknowledged(self, gateway: &Gateway) -> Result<(), Refusal> {
        let deadline = kafka::deadline(gateway.config.ack_deadline());
        match (self, &gateway.spill) {
            (Self::Kafka(batch), _) => batch.wait(deadline).await.map_err(|error| {
                tracing::debug!(%error, "events not acknowledged");
                Refusal::from(&error)
            }),
            (Self::KafkaOrDisk(frames), Some(spill)) => {
                spill.store(&gateway.producer, frames, deadline).await
            }
            (Self::KafkaOrDisk(_), None) => Err(Refusal::NotAcknowledged),
        }
    }
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
        let is_run = !(arrival.job_run_id.is_empty() && arrival.task_run_id.is_empty());
        let caller = context.caller;
        let spent = match is_run {
            true => None,
            false => caller.within_limit(receipt.accepted, gateway.started.elapsed())?,
        };
        let way = Way::take(gateway, outgoing, |_| arrival.traceparent)
            .inspect_err(|_| caller.give_back(spent, gateway.started.elapsed()))?;
        Ok(Sent {
            way,
            caller: Arc::clone(caller),
            receipt,
            bytes: outgoing.event_bytes(),
            is_bot: arrival.is_bot,
            spent,
        })
    })
}

/// [`Way::acknowledged`]; then counts it.
///
/// # Errors
/// As there.
pub(super) async fn acknowledged(gateway: &Gateway, sent: Sent) -> Result<Receipt, Refusal> {
    let Sent {
        way,
        caller,
        receipt,
        bytes,
        is_bot,
        spent,
    } = sent;
    way.acknowledged(gateway)
        .await
        .inspect_err(|_| caller.give_back(spent, gateway.started.elapsed()))?;
    caller.accepted.inc_by(receipt.accepted);
    caller.bytes.inc_by(bytes);
    if receipt.suppressed > 0 {
        caller.suppressed.inc_by(receipt.suppressed);
    }
    if is_bot && receipt.accepted > 0 {
        let bots = &gateway.metrics.events_bot_total;
        let bots = bots.with_label_values(&[caller.source.id.as_str()]);
        bots.inc_by(receipt.accepted);
    }
    for (reason, events) in &receipt.refused {
        let rejected = &gateway.metrics.events_rejected_total;
        let rejected = rejected.with_label_values(&[caller.source.id.as_str(), reason]);
        rejected.inc_by(*events);
    }
    Ok(receipt)
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

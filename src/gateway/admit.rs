//! Whether an event is taken, and what is written down of it. Pure: no clock, no metrics, no I/O.

use std::borrow::Cow;

use uuid::Uuid;

use crate::clock::UnixMs;
use crate::event::{Envelope, sanitize_id};

use super::json::Scalar;
use super::payload::Event;
use super::refusal::Refusal;

/// What is known of a request before its body was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrival<'a> {
    pub(super) source_id: &'a str,
    pub(super) write_key_hash: i64,
    pub(super) config_revision: i64,
    pub(super) received_at: UnixMs,
    pub(super) request_ip: Cow<'a, str>,
    /// `sentAt` of the batch.
    pub(super) sent_at: Cow<'a, str>,
    pub(super) job_run_id: Cow<'a, str>,
    pub(super) task_run_id: Cow<'a, str>,
    /// The one destination that the events are for; empty for all.
    pub(super) destination_id: &'a str,
    pub(super) traceparent: &'a str,
    /// The `AnonymousId` request header, the last resort of the ordering key.
    pub(super) anonymous_header: &'a str,
    pub(super) is_bot: bool,
    /// What is known of the bot, as a JSON object; else empty.
    pub(super) bot: Cow<'a, str>,
}

/// What the operator decided about events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Whether an event may name no user at all.
    pub(super) allow_anonymous: bool,
}

/// Types that name no user: rows of reverse ETL and of cloud extraction.
const WITHOUT_USER: [&str; 2] = ["extract", "record"];

/// The envelope of `event`; `kind` is the type that the path decided, for endpoints that take one event.
///
/// # Errors
/// When RudderStack would refuse it: it is no object, or names neither a user nor an anonymous one.
pub(super) fn admit<'a>(
    event: &Event<'a>,
    kind: Option<&'static str>,
    arrival: &Arrival<'a>,
    rules: Rules,
) -> Result<Envelope<'a>, Refusal> {
    if !event.is_object {
        return Err(Refusal::NotAnEvent);
    }
    let user_id = identity(event.user_id);
    let anonymous_id = identity(event.anonymous_id);
    let event_type = match kind {
        Some(kind) => Cow::Borrowed(kind),
        None => text(event.kind),
    };
    if user_id.is_empty()
        && anonymous_id.is_empty()
        && !rules.allow_anonymous
        && !WITHOUT_USER.contains(&&*event_type)
    {
        return Err(Refusal::NoIdentity);
    }
    let mut message_id = identity(event.message_id);
    if message_id.is_empty() {
        // Two equal events without an id are two events, as in RudderStack; an id made of the content would make them one.
        message_id = Cow::Owned(Uuid::new_v4().hyphenated().to_string());
    }
    let event_name = if event_type.eq_ignore_ascii_case("track") {
        text(event.name)
    } else {
        Cow::Borrowed("")
    };
    Ok(Envelope {
        message_id,
        source_id: Cow::Borrowed(arrival.source_id),
        write_key_hash: arrival.write_key_hash,
        event_type,
        event_name,
        user_id,
        anonymous_id,
        received_at: arrival.received_at,
        sent_at: arrival.sent_at.clone(),
        request_ip: arrival.request_ip.clone(),
        sdk: sdk(event),
        job_run_id: arrival.job_run_id.clone(),
        task_run_id: arrival.task_run_id.clone(),
        destination_id: Cow::Borrowed(arrival.destination_id),
        traceparent: Cow::Borrowed(arrival.traceparent),
        is_bot: arrival.is_bot,
        bot: arrival.bot.clone(),
        replay_id: Cow::Borrowed(""),
        replay_count: 0,
        config_revision: arrival.config_revision,
        event: Cow::Borrowed(event.raw.as_bytes()),
    })
}

/// A value as text: strings as they are, `null` as nothing, anything else as its JSON. As RudderStack, so that
/// `"userId": 7` is the user `7`.
pub(super) fn text(scalar: Scalar<'_>) -> Cow<'_, str> {
    match scalar {
        Scalar::Absent => Cow::Borrowed(""),
        Scalar::Text(text) => text.decode(),
        Scalar::Other(raw) => number(raw),
    }
}

/// Go writes a number as it read it, through a double: `1.50` becomes `1.5`, `1e3` becomes `1000`. Whole numbers are left as
/// they were written: through a double, two long ids could become one user.
fn number(raw: &str) -> Cow<'_, str> {
    let fractional = raw.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'))
        && raw
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if !fractional {
        return Cow::Borrowed(raw);
    }
    match raw.parse::<f64>() {
        // Outside of this range Go writes an exponent; then what the client wrote is as good.
        Ok(value) if value == 0.0 || (1e-6..1e21).contains(&value.abs()) => {
            Cow::Owned(value.to_string())
        }
        Ok(_) | Err(_) => Cow::Borrowed(raw),
    }
}

/// Text that names somebody or something: sanitised and trimmed.
pub(super) fn identity(scalar: Scalar<'_>) -> Cow<'_, str> {
    let text = text(scalar);
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| *b == b' ');
    let clean = bytes.iter().all(|b| (0x20..0x7f).contains(b))
        && !edge(bytes.first())
        && !edge(bytes.last());
    if clean {
        return text;
    }
    Cow::Owned(sanitize_id(&text))
}

/// `context.library` as `name/version`.
fn sdk<'a>(event: &Event<'a>) -> Cow<'a, str> {
    let name = text(event.library_name);
    let version = text(event.library_version);
    match (name.is_empty(), version.is_empty()) {
        (true, _) => Cow::Borrowed(""),
        (false, true) => name,
        (false, false) => Cow::Owned([&*name, "/", &*version].concat()),
    }
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;

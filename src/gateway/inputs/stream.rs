//! `POST /internal/v1/batch`: what an ingestion service took, checked and stamped before.
//!
//! Such a service keeps a log of its own in front of the gateway and plays it in here; RudderStack's hosted product has one.
//! Each message says in its `properties` what the service knows of the event's arrival, and these win over what the request
//! itself would tell: source, key, address, time, job run and trace. The event travels as it is.
//!
//! The messages of a request come from many sources. One bad message refuses all of them, as in RudderStack; one whose source
//! is not known any more does not: it would stand in the way of the others for ever. The processor counts it as filtered.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;

use super::super::accept::Exchange;
use super::super::admit::{self, Arrival, Rules};
use super::super::callers::Caller;
use super::super::gcra::Rate;
use super::super::json::{Bounds, JsonError, Scanner};
use super::super::payload::{self, Event, PayloadBounds, PayloadError};
use super::super::refusal::Refusal;
use super::super::repair::repair;
use super::super::routes::Route;
use super::super::send::Way;
use super::super::suppress::Suppressed;
use super::super::{Gateway, arrival, reply};
use crate::clock::{UnixMs, parse_rfc3339};
use crate::control::Workspace;
use crate::event::Envelope;

/// What the service knows of an event. Names and types are RudderStack's; members that nothing here asks for are passed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Properties {
    #[serde(rename = "requestType")]
    request_type: Option<String>,
    #[serde(rename = "routingKey")]
    routing_key: Option<String>,
    #[serde(rename = "workspaceID")]
    workspace_id: Option<String>,
    #[serde(rename = "sourceID")]
    source_id: Option<String>,
    #[serde(rename = "receivedAt")]
    received_at: Option<String>,
    #[serde(rename = "requestIP")]
    request_ip: Option<String>,
    #[serde(rename = "destinationID")]
    destination_id: Option<String>,
    #[serde(rename = "userID")]
    user_id: Option<String>,
    #[serde(rename = "sourceJobRunID")]
    job_run_id: Option<String>,
    #[serde(rename = "sourceTaskRunID")]
    task_run_id: Option<String>,
    #[serde(rename = "traceID")]
    trace_id: Option<String>,
    #[serde(rename = "isBot")]
    is_bot: Option<bool>,
    #[serde(rename = "botName")]
    bot_name: Option<String>,
    #[serde(rename = "botURL")]
    bot_url: Option<String>,
    #[serde(rename = "botIsInvalidBrowser")]
    bot_is_invalid_browser: Option<bool>,
    #[serde(rename = "botAction")]
    bot_action: Option<String>,
}

/// The header in which the service says how many events the body has.
pub(in super::super) const BATCH_SIZE: &str = "X-Batch-Size";

/// Requests of these types hold events of any type.
const OF_MANY_TYPES: [&str; 4] = ["batch", "replay", "retl", "import"];

/// What the gateway writes into an event, and a service in front of it must have written.
const STAMPS: [&str; 3] = ["receivedAt", "request_ip", "rudderId"];

/// Why an event is answered with 200 and not kept: the word in metrics.
const EVENT_BLOCKED: &str = "event_blocked";
const BOT: &str = "bot";

/// One element of the request.
#[derive(Debug, Default)]
struct Message<'a> {
    /// Its properties' own text; empty when it has none.
    properties: &'a str,
    payload: Option<Event<'a>>,
}

/// The service decided whom its events may name.
pub(in super::super) const RULES: Rules = Rules {
    allow_anonymous: true,
};

/// A message that may pass.
#[derive(Debug)]
pub(in super::super) struct Checked<'a> {
    properties: Properties,
    received_at: UnixMs,
    /// As it goes into the envelope.
    bot: String,
    pub(in super::super) event: Event<'a>,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Suppressed,
    Dropped(&'static str),
}

/// What became of the events of one source.
#[derive(Debug, Default)]
struct Tally {
    kept: u64,
    bytes: u64,
    suppressed: u64,
    /// Of those that are kept.
    of_bots: u64,
    dropped: BTreeMap<&'static str, u64>,
}

/// `POST /internal/v1/batch`.
pub(in super::super) async fn stream(gateway: &Gateway, request: Request) -> Response {
    let began = Instant::now();
    let mut exchange = Exchange::new(gateway, request);
    let response = match take(&mut exchange).await {
        Ok(()) => reply::ok(),
        Err(refusal) => exchange.refuse(refusal).await,
    };
    exchange.finish(Route::Stream, &response, began);
    response
}

async fn take(exchange: &mut Exchange<'_>) -> Result<(), Refusal> {
    let gateway = exchange.gateway;
    within_throttle(gateway, &exchange.head.headers)?;
    let mut taken = gateway.budget.taker();
    let body = exchange.read(&mut taken).await?;
    let (way, tallies) = {
        let text = repair(&body);
        send(gateway, &read(&text, gateway.bounds)?)?
    };
    way.acknowledged(gateway).await?;
    count(gateway, &tallies);
    Ok(())
}

/// Whether what the request announces may come now, before its body is read.
fn within_throttle(gateway: &Gateway, headers: &HeaderMap) -> Result<(), Refusal> {
    let rate = Rate {
        events: gateway.config.internal_batch_throttle_events,
        window: Duration::from_millis(gateway.config.internal_batch_throttle_window_ms),
    };
    match announced(headers) {
        Some(events) if rate.events > 0 => gateway
            .announced
            .take(events, rate, gateway.started.elapsed())
            .map(drop)
            .map_err(Refusal::rate_limited),
        _ => Ok(()),
    }
}

/// How many events the body has, as its sender says. As in RudderStack a header that says nothing sensible says nothing.
pub(in super::super) fn announced(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(BATCH_SIZE)?.to_str().ok()?;
    text.parse().ok().filter(|events| *events > 0)
}

/// The messages of a body, at least one, all of which may pass.
///
/// # Errors
/// The first refusal.
pub(in super::super) fn read(
    text: &str,
    bounds: PayloadBounds,
) -> Result<Vec<Checked<'_>>, Refusal> {
    let messages = messages(text, bounds)?;
    if messages.is_empty() {
        return Err(Refusal::NotAnEvent);
    }
    messages.into_iter().map(check).collect()
}

/// Reads `[{"properties": {…}, "payload": {…}}, …]`.
fn messages(text: &str, bounds: PayloadBounds) -> Result<Vec<Message<'_>>, PayloadError> {
    let outer = Bounds {
        // The array and the message are not part of any event.
        depth: bounds.event.depth + 2,
        values: bounds.event.values,
    };
    let mut scanner = Scanner::new(text, outer);
    let mut messages = Vec::new();
    let mut too_many = false;
    if scanner.next() == Some(b'n') {
        // Go reads `null` as an empty list, and as an empty message.
        scanner.skip()?;
    } else {
        scanner.array(|s| {
            s.refill(bounds.event.values);
            let message = match s.next() {
                Some(b'n') => s.skip().map(|()| Message::default())?,
                _ => message(s, bounds)?,
            };
            if messages.len() < bounds.events {
                messages.push(message);
            } else {
                too_many = true;
            }
            // For the comma and the next element's own count.
            s.refill(1);
            Ok(())
        })?;
    }
    scanner.end()?;
    if too_many {
        return Err(PayloadError::TooManyEvents);
    }
    Ok(messages)
}

fn message<'a>(scanner: &mut Scanner<'a>, bounds: PayloadBounds) -> Result<Message<'a>, JsonError> {
    let mut message = Message::default();
    scanner.object(|s, key| {
        match &*key.name() {
            "properties" => message.properties = s.spanned(Scanner::skip)?.1,
            "payload" => message.payload = Some(payload::event(s, None)?),
            _ => s.skip()?,
        }
        s.refill(bounds.event.values);
        Ok(())
    })?;
    Ok(message)
}

/// RudderStack's validators, in its order.
fn check(message: Message<'_>) -> Result<Checked<'_>, Refusal> {
    let properties: Properties = match message.properties {
        "" | "null" => Properties::default(),
        // A member of another type than RudderStack's makes the request as a whole unreadable there.
        text => serde_json::from_str(text).map_err(|_| Refusal::InvalidJson)?,
    };
    let received_at = match &properties.received_at {
        None => None,
        Some(time) => Some(parse_rfc3339(time).ok_or(Refusal::InvalidJson)?),
    };
    let complete = [
        &properties.request_type,
        &properties.routing_key,
        &properties.workspace_id,
        &properties.source_id,
        &properties.request_ip,
    ]
    .into_iter()
    .all(|required| !text(required).is_empty());
    let (Some(received_at), Some(event), true) = (received_at, message.payload, complete) else {
        return Err(Refusal::IncompleteMessage);
    };
    let typed = OF_MANY_TYPES.contains(&text(&properties.request_type))
        || !admit::text(event.kind).is_empty();
    let named = !admit::identity(event.message_id).is_empty();
    if !(event.is_object && named && typed && has_stamps(event.raw)) {
        return Err(Refusal::NotAnEvent);
    }
    Ok(Checked {
        received_at,
        bot: bot(&properties),
        properties,
        event,
    })
}

/// Whether an object that was read before has every one of [`STAMPS`].
fn has_stamps(raw: &str) -> bool {
    let read = Bounds {
        depth: usize::MAX,
        values: usize::MAX,
    };
    let mut missing = STAMPS.to_vec();
    let scanned = Scanner::new(raw, read).object(|s, key| {
        let name = key.name();
        missing.retain(|stamp| *stamp != name);
        s.skip()
    });
    scanned.is_ok() && missing.is_empty()
}

/// What goes to `context.bot`, as JSON text; empty when it is no bot.
fn bot(properties: &Properties) -> String {
    if properties.is_bot != Some(true) {
        return String::new();
    }
    let mut bot = serde_json::Map::new();
    for (name, value) in [("name", &properties.bot_name), ("url", &properties.bot_url)] {
        if !text(value).is_empty() {
            bot.insert(name.to_owned(), text(value).into());
        }
    }
    if properties.bot_is_invalid_browser == Some(true) {
        bot.insert("isInvalidBrowser".to_owned(), true.into());
    }
    serde_json::Value::Object(bot).to_string()
}

/// What becomes of an event, in RudderStack's order.
fn fate(
    properties: &Properties,
    envelope: &Envelope<'_>,
    workspace: &Workspace,
    suppressed: &Suppressed,
) -> Fate {
    let users = [text(&properties.user_id), &*envelope.user_id];
    if users
        .iter()
        .any(|user| suppressed.holds(&envelope.source_id, user))
    {
        Fate::Suppressed
    } else if envelope.is_bot && text(&properties.bot_action) == "drop" {
        Fate::Dropped(BOT)
    } else if workspace.blocks(&envelope.event_type, &envelope.event_name) {
        Fate::Dropped(EVENT_BLOCKED)
    } else {
        Fate::Kept
    }
}

/// Encodes and sends what is kept. Nothing is sent before every event is decided on.
fn send(
    gateway: &Gateway,
    checked: &[Checked<'_>],
) -> Result<(Way, BTreeMap<String, Tally>), Refusal> {
    let callers = gateway.directory.now();
    let suppressed = gateway.suppression.now();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut traces = Vec::with_capacity(checked.len());
    gateway.outbox.fill(|outgoing| {
        for one in checked {
            let caller = callers.by_id(text(&one.properties.source_id));
            let arrival = one.arrival(caller.map(|c| &**c), callers.workspace.revision);
            let envelope = admit::admit(&one.event, None, &arrival, RULES)?;
            let tally = tallies.entry(envelope.source_id.to_string()).or_default();
            match fate(&one.properties, &envelope, &callers.workspace, &suppressed) {
                Fate::Kept => {
                    outgoing.push_keyed(&envelope, one.routing_key())?;
                    traces.push(arrival.traceparent);
                    tally.kept += 1;
                    tally.of_bots += u64::from(envelope.is_bot);
                    tally.bytes += one.event.raw.len() as u64;
                }
                Fate::Suppressed => tally.suppressed += 1,
                Fate::Dropped(reason) => *tally.dropped.entry(reason).or_default() += 1,
            }
        }
        let way = Way::take(gateway, outgoing, |number| {
            traces.get(number).copied().unwrap_or_default()
        })?;
        Ok((way, tallies))
    })
}

impl Checked<'_> {
    /// The key that the service chose; never empty.
    pub(in super::super) fn routing_key(&self) -> &str {
        text(&self.properties.routing_key)
    }

    /// What the service knows of the event's arrival; `caller` is its source, if that is known.
    pub(in super::super) fn arrival(&self, caller: Option<&Caller>, revision: i64) -> Arrival<'_> {
        fn borrowed(value: &Option<String>) -> Cow<'_, str> {
            Cow::Borrowed(text(value))
        }
        let properties = &self.properties;
        Arrival {
            source_id: text(&properties.source_id),
            write_key_hash: caller.map_or(0, |c| c.write_key_hash),
            config_revision: revision,
            received_at: self.received_at,
            request_ip: borrowed(&properties.request_ip),
            sent_at: Cow::Borrowed(""),
            job_run_id: borrowed(&properties.job_run_id),
            task_run_id: borrowed(&properties.task_run_id),
            destination_id: text(&properties.destination_id),
            traceparent: arrival::w3c(text(&properties.trace_id)),
            anonymous_header: "",
            is_bot: properties.is_bot == Some(true),
            bot: Cow::Borrowed(&self.bot),
        }
    }
}

/// Counts what is safe now. Sources that are not known share one label: anybody could make up more.
fn count(gateway: &Gateway, tallies: &BTreeMap<String, Tally>) {
    let callers = gateway.directory.now();
    let metrics = &gateway.metrics;
    for (id, tally) in tallies {
        let source = callers.by_id(id).map_or("", |c| &c.source.id);
        for (family, number) in [
            (&metrics.events_accepted_total, tally.kept),
            (&metrics.event_bytes_total, tally.bytes),
            (&metrics.events_suppressed_total, tally.suppressed),
            (&metrics.events_bot_total, tally.of_bots),
        ] {
            if number > 0 {
                family.with_label_values(&[source]).inc_by(number);
            }
        }
        for (reason, number) in &tally.dropped {
            let dropped = &metrics.events_dropped_total;
            dropped.with_label_values(&[source, reason]).inc_by(*number);
        }
    }
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::control::parse_workspace;

    const BOUNDS: PayloadBounds = PayloadBounds {
        event: Bounds {
            depth: 4,
            values: 20,
        },
        events: 3,
    };

    fn good() -> Value {
        json!({
            "properties": {
                "requestType": "track", "routingKey": "k", "workspaceID": "ws", "sourceID": "s",
                "receivedAt": "2026-01-02T03:04:05.006Z", "requestIP": "203.0.113.9",
            },
            "payload": {
                "type": "track", "event": "Order", "messageId": "m", "receivedAt": "x", "request_ip": "y", "rudderId": "z",
            },
        })
    }

    fn checked(body: &Value) -> Result<usize, Refusal> {
        let text = body.to_string();
        let messages = messages(&text, BOUNDS)?;
        let all: Result<Vec<_>, _> = messages.into_iter().map(check).collect();
        all.map(|all| all.len())
    }

    /// A message without the member at `path`.
    fn without(path: &str) -> Value {
        let mut message = good();
        let (object, name) = path.rsplit_once('/').unwrap();
        let object = message.pointer_mut(object).unwrap();
        object.as_object_mut().unwrap().remove(name).unwrap();
        json!([message])
    }

    fn with(path: &str, value: Value) -> Value {
        let mut message = good();
        let (object, name) = path.rsplit_once('/').unwrap();
        message.pointer_mut(object).unwrap()[name] = value;
        json!([message])
    }

    #[test]
    fn each_missing_part_is_refused_in_rudderstacks_words() {
        assert_eq!(checked(&json!([good(), good()])), Ok(2));
        for path in [
            "/properties",
            "/properties/requestType",
            "/properties/routingKey",
            "/properties/workspaceID",
            "/properties/sourceID",
            "/properties/receivedAt",
            "/properties/requestIP",
            "/payload",
        ] {
            let refusal = checked(&without(path));
            assert_eq!(refusal, Err(Refusal::IncompleteMessage), "{path}");
        }
        for path in [
            "/payload/messageId",
            "/payload/type",
            "/payload/receivedAt",
            "/payload/request_ip",
            "/payload/rudderId",
        ] {
            assert_eq!(checked(&without(path)), Err(Refusal::NotAnEvent), "{path}");
        }
        assert_eq!(checked(&json!([null])), Err(Refusal::IncompleteMessage));
        assert_eq!(
            checked(&with("/properties/routingKey", json!(""))),
            Err(Refusal::IncompleteMessage)
        );
        assert_eq!(
            checked(&with("/payload", json!([]))),
            Err(Refusal::NotAnEvent)
        );
        assert_eq!(
            checked(&with("/payload/messageId", json!("\u{200b} "))),
            Err(Refusal::NotAnEvent)
        );
    }

    #[test]
    fn what_go_could_not_read_is_no_json() {
        for body in [
            json!({}),
            json!([7]),
            with("/properties/receivedAt", json!("yesterday")),
            with("/properties/sourceID", json!(7)),
            with("/properties/isBot", json!("true")),
        ] {
            assert_eq!(checked(&body), Err(Refusal::InvalidJson), "{body}");
        }
        assert_eq!(checked(&json!(null)), Ok(0));
        let four = json!([good(), good(), good(), good()]);
        assert_eq!(checked(&four), Err(Refusal::TooLarge));
    }

    #[test]
    fn a_batch_size_that_is_no_number_above_zero_says_nothing() {
        for (text, events) in [
            ("1", Some(1)),
            ("+500", Some(500)),
            ("0", None),
            ("-3", None),
            ("", None),
            ("many", None),
            ("1.5", None),
            ("99999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(BATCH_SIZE, text.parse().unwrap());
            assert_eq!(announced(&headers), events, "{text}");
        }
        assert_eq!(announced(&HeaderMap::new()), None);
    }

    #[test]
    fn only_requests_of_one_type_need_typed_events() {
        let mut body = without("/payload/type");
        body[0]["properties"]["requestType"] = json!("retl");
        assert_eq!(checked(&body), Ok(1));
    }

    #[test]
    fn an_event_is_kept_unless_its_user_is_gone_its_bot_unwanted_or_its_name_blocked() {
        let workspace = parse_workspace("t", "{sources: [], blocked_events: [Order]}", 1).unwrap();
        let suppressed = Suppressed::parse("gone", 9).unwrap();
        let fate = |properties: Properties, user: &str, name: &str| {
            let envelope = Envelope {
                event_type: "track".into(),
                event_name: name.into(),
                user_id: user.into(),
                is_bot: properties.is_bot == Some(true),
                ..Envelope::default()
            };
            super::fate(&properties, &envelope, &workspace, &suppressed)
        };
        let of = |user: &str, bot: bool, action: &str| Properties {
            user_id: Some(user.to_owned()),
            is_bot: Some(bot),
            bot_action: Some(action.to_owned()),
            ..Properties::default()
        };
        assert_eq!(fate(of("u", false, "drop"), "u", "x"), Fate::Kept);
        assert_eq!(fate(of("u", true, "flag"), "u", "x"), Fate::Kept);
        assert_eq!(fate(of("u", true, "drop"), "u", "x"), Fate::Dropped(BOT));
        assert_eq!(
            fate(of("u", false, ""), "u", "Order"),
            Fate::Dropped(EVENT_BLOCKED)
        );
        assert_eq!(fate(of("gone", true, "drop"), "u", "x"), Fate::Suppressed);
        assert_eq!(fate(of("", false, ""), "gone", "x"), Fate::Suppressed);
    }

    #[test]
    fn a_bot_is_told_of_as_it_stands_in_the_context() {
        let properties = |text: &str| serde_json::from_str::<Properties>(text).unwrap();
        assert_eq!(bot(&properties(r#"{"botName":"x"}"#)), "");
        assert_eq!(bot(&properties(r#"{"isBot":true}"#)), "{}");
        assert_eq!(
            bot(&properties(
                r#"{"isBot":true,"botName":"n","botURL":"u","botIsInvalidBrowser":true}"#
            )),
            r#"{"isInvalidBrowser":true,"name":"n","url":"u"}"#
        );
    }
}

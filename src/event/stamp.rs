//! The event as a destination sees it: the client's JSON with what the server adds.
//!
//! The client's bytes travel untouched; here, once, where a consumer needs the whole event, the fields that RudderStack's
//! gateway and processor write are merged in (`reference`: gateway field stamping and the `timestamp` rule).

use serde_json::{Map, Value};

use super::{Envelope, rudder_id};
use crate::clock::{UnixMs, parse_rfc3339, rfc3339_ms};
use crate::fault::{Classify, Fault};

/// Why an event could not be stamped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StampError {
    #[error("event is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    #[error("event is not a JSON object")]
    NotAnObject,
}

impl Classify for StampError {
    fn fault(&self) -> Fault {
        match self {
            Self::NotJson(_) | Self::NotAnObject => Fault::Permanent,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "not_json",
            Self::NotAnObject => "not_an_object",
        }
    }
}

/// Parses the event and adds `type`, `messageId`, `userId`, `anonymousId`, `rudderId`, `request_ip`, of a known bot
/// `context.isBot` and `context.bot`, and the four times, all in RudderStack's layout (UTC, three decimals):
///
/// | field | from |
/// |---|---|
/// | `receivedAt`, `originalTimestamp` | the event, else when the gateway read it |
/// | `sentAt` | the event, else its batch, else as above |
/// | `timestamp` | the event, else `receivedAt - (sentAt - originalTimestamp)` |
///
/// A time that is text but no RFC 3339 stays as it is, but for `timestamp`.
///
/// # Errors
/// When the bytes are not one JSON object.
pub fn stamped_event(envelope: &Envelope<'_>) -> Result<Map<String, Value>, StampError> {
    let value: Value = serde_json::from_slice(&envelope.event).map_err(StampError::NotJson)?;
    let Value::Object(mut event) = value else {
        return Err(StampError::NotAnObject);
    };
    let mut set = |name: &str, text: &str| {
        if !text.is_empty() {
            event.insert(name.to_owned(), Value::from(text));
        }
    };
    set("type", &envelope.event_type);
    set("messageId", &envelope.message_id);
    set("userId", &envelope.user_id);
    set("anonymousId", &envelope.anonymous_id);
    let rudder = rudder_id(&envelope.user_id, &envelope.anonymous_id);
    set("rudderId", &rudder.to_string());

    keep_or(&mut event, "request_ip", &envelope.request_ip);
    let received = rfc3339_ms(envelope.received_at);
    let timestamp = timestamp(&event, envelope);
    event.insert("timestamp".to_owned(), Value::from(timestamp));
    let sent = Some(envelope.sent_at.as_ref()).filter(|text| !text.is_empty());
    for (name, fallback) in [
        ("receivedAt", received.as_str()),
        ("originalTimestamp", &received),
        ("sentAt", sent.unwrap_or(&received)),
    ] {
        keep_or(&mut event, name, fallback);
        rewrite(&mut event, name);
    }
    flag_bot(&mut event, &envelope.bot);
    Ok(event)
}

/// A bot that only the user agent tells of is not flagged, as in RudderStack: that is a guess, counted and no more.
fn flag_bot(event: &mut Map<String, Value>, bot: &str) {
    let Ok(Value::Object(bot)) = serde_json::from_str(bot) else {
        return;
    };
    let context = event
        .entry("context")
        .or_insert_with(|| Value::Object(Map::new()));
    // A context that is something else is the client's own affair.
    if let Value::Object(context) = context {
        context.insert("isBot".to_owned(), Value::Bool(true));
        context.insert("bot".to_owned(), Value::Object(bot));
    }
}

fn keep_or(event: &mut Map<String, Value>, name: &str, fallback: &str) {
    match event.get(name) {
        Some(Value::String(text)) if !text.is_empty() => {}
        _ => {
            event.insert(name.to_owned(), Value::from(fallback));
        }
    }
}

/// Brings a time into RudderStack's layout.
fn rewrite(event: &mut Map<String, Value>, name: &str) {
    if let Some(at) = time(event.get(name)) {
        event.insert(name.to_owned(), Value::from(rfc3339_ms(at)));
    }
}

fn time(value: Option<&Value>) -> Option<UnixMs> {
    value.and_then(Value::as_str).and_then(parse_rfc3339)
}

fn timestamp(event: &Map<String, Value>, envelope: &Envelope<'_>) -> String {
    let received = envelope.received_at;
    if let Some(own) = time(event.get("timestamp")) {
        return rfc3339_ms(own);
    }
    // The client's clock may be wrong; the time between making and sending is right all the same. A time that is missing
    // counts as ours, as in rudder-server; with one of the two only that puts the event off by the difference of the clocks.
    let original = time(event.get("originalTimestamp")).unwrap_or(received);
    let sent = time(event.get("sentAt"))
        .or_else(|| parse_rfc3339(&envelope.sent_at))
        .unwrap_or(received);
    rfc3339_ms(received.saturating_sub(sent.saturating_sub(original)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(json: &str) -> Envelope<'_> {
        Envelope {
            message_id: "m".into(),
            event_type: "track".into(),
            user_id: "identified_user_id".into(),
            anonymous_id: "anonymousId_1".into(),
            received_at: 1_700_000_010_000,
            request_ip: "203.0.113.9".into(),
            event: json.as_bytes().into(),
            ..Envelope::default()
        }
    }

    #[test]
    fn the_servers_fields_are_merged_in() {
        let event = stamped_event(&envelope(r#"{"userId":7,"event":"x"}"#)).unwrap();
        assert_eq!(event["userId"], "identified_user_id");
        assert_eq!(event["rudderId"], "e4cab80e-2f0e-4fa2-87e0-3a4af182634c");
        assert_eq!(event["receivedAt"], "2023-11-14T22:13:30.000Z");
        assert_eq!(event["timestamp"], "2023-11-14T22:13:30.000Z");
        assert_eq!(event["request_ip"], "203.0.113.9");
    }

    #[test]
    fn a_wrong_client_clock_is_corrected_by_what_it_says_of_itself() {
        let json = r#"{"originalTimestamp":"2001-01-01T00:00:00.000Z","sentAt":"2001-01-01T00:00:02.000Z"}"#;
        let event = stamped_event(&envelope(json)).unwrap();
        assert_eq!(event["timestamp"], "2023-11-14T22:13:28.000Z");
        let own = r#"{"timestamp":"2020-02-02T02:02:02.123456+01:00","sentAt":"x"}"#;
        assert_eq!(
            stamped_event(&envelope(own)).unwrap()["timestamp"],
            "2020-02-02T01:02:02.123Z"
        );
    }

    #[test]
    fn all_four_times_are_there_in_one_layout() {
        let times = |json: &str, batch_sent_at: &'static str| {
            let envelope = Envelope {
                sent_at: batch_sent_at.into(),
                ..envelope(json)
            };
            let event = stamped_event(&envelope).unwrap();
            ["receivedAt", "originalTimestamp", "sentAt", "timestamp"]
                .map(|name| event[name].as_str().unwrap().to_owned())
        };
        let received = "2023-11-14T22:13:30.000Z";
        assert_eq!(times("{}", ""), [received; 4]);
        let own = r#"{"originalTimestamp":"2023-11-14T22:13:20.497836367Z","sentAt":"2023-11-15T00:13:21+02:00"}"#;
        assert_eq!(
            times(own, "2023-11-14T22:13:29Z"),
            [
                received,
                "2023-11-14T22:13:20.497Z",
                "2023-11-14T22:13:21.000Z",
                "2023-11-14T22:13:29.497Z"
            ]
        );
        let in_batch = r#"{"originalTimestamp":"2023-11-14T22:13:20Z"}"#;
        assert_eq!(
            times(in_batch, "2023-11-14T22:13:29Z")[2..],
            ["2023-11-14T22:13:29.000Z", "2023-11-14T22:13:21.000Z"]
        );
        assert_eq!(times(in_batch, "")[3], "2023-11-14T22:13:20.000Z");
        let only_sent = times("{}", "2023-11-14T22:13:29Z");
        assert_eq!(
            only_sent[1..],
            [
                received,
                "2023-11-14T22:13:29.000Z",
                "2023-11-14T22:13:31.000Z"
            ]
        );
        let odd = r#"{"originalTimestamp":"yesterday","sentAt":7}"#;
        assert_eq!(times(odd, "")[1..], ["yesterday", received, received]);
    }

    #[test]
    fn a_bot_that_was_looked_up_is_flagged_and_one_that_only_looks_like_it_is_not() {
        let found = Envelope {
            bot: r#"{"name":"Googlebot"}"#.into(),
            is_bot: true,
            ..envelope(r#"{"context":{"ip":"1.1.1.1"}}"#)
        };
        let context = &stamped_event(&found).unwrap()["context"];
        assert_eq!(
            *context,
            serde_json::json!({"ip": "1.1.1.1", "isBot": true, "bot": {"name": "Googlebot"}})
        );
        let none = Envelope {
            event: br#"{"context":7}"#.into(),
            ..found.clone()
        };
        assert_eq!(stamped_event(&none).unwrap()["context"], 7);
        let guessed = Envelope {
            bot: "".into(),
            ..found
        };
        assert!(stamped_event(&guessed).unwrap()["context"]["isBot"].is_null());
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(matches!(
            stamped_event(&envelope("[]")),
            Err(StampError::NotAnObject)
        ));
        assert!(matches!(
            stamped_event(&envelope("{")),
            Err(StampError::NotJson(_))
        ));
    }
}

//! The event as a destination sees it: the client's JSON with what the server adds.
//!
//! The client's bytes travel untouched; here, once, where a consumer needs the whole event, the fields that RudderStack's
//! gateway and processor write are merged in (`reference`: gateway field stamping and the `timestamp` rule).

use serde_json::{Map, Value};

use super::{Envelope, rudder_id};
use crate::clock::{parse_rfc3339, rfc3339_ms};
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

/// Parses the event and adds `type`, `messageId`, `userId`, `anonymousId`, `rudderId`, `receivedAt`, `request_ip`,
/// `originalTimestamp`/`sentAt` fallbacks and `timestamp`.
///
/// `timestamp` = the event's own, else `receivedAt - (sentAt - originalTimestamp)`, else `receivedAt`.
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

    let received = rfc3339_ms(envelope.received_at);
    keep_or(&mut event, "receivedAt", &received);
    keep_or(&mut event, "request_ip", &envelope.request_ip);
    if !envelope.sent_at.is_empty() {
        keep_or(&mut event, "sentAt", &envelope.sent_at);
    }
    let timestamp = timestamp(&event, envelope.received_at);
    event.insert("timestamp".to_owned(), Value::from(timestamp));
    Ok(event)
}

fn keep_or(event: &mut Map<String, Value>, name: &str, fallback: &str) {
    match event.get(name) {
        Some(Value::String(text)) if !text.is_empty() => {}
        _ => {
            event.insert(name.to_owned(), Value::from(fallback));
        }
    }
}

fn timestamp(event: &Map<String, Value>, received_at: i64) -> String {
    let time = |name: &str| {
        event
            .get(name)
            .and_then(Value::as_str)
            .and_then(parse_rfc3339)
    };
    if let Some(own) = time("timestamp") {
        return rfc3339_ms(own);
    }
    match (time("sentAt"), time("originalTimestamp")) {
        // The client's clock may be wrong; the time between making and sending is right all the same.
        (Some(sent), Some(original)) => {
            rfc3339_ms(received_at.saturating_sub(sent.saturating_sub(original)))
        }
        _ => rfc3339_ms(received_at),
    }
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

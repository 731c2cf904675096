//! A record that can never pass to its dead letter: the same key, bytes, headers and timestamp, and the failure in headers
//! beside them.

use std::borrow::Cow;

use bytes::Bytes;

use crate::clock::UnixMs;
use crate::event::headers::DeadLetter;
use crate::event::{DeadLetterReason, Stage, codec};
use crate::kafka::{Header, Message, Record};

/// Why a record cannot pass, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure<'a> {
    /// Why.
    pub reason: DeadLetterReason,
    /// In words.
    pub message: String,
    /// The destination it cannot pass to; empty when to none.
    pub destination_id: &'a str,
}

/// The dead letter of `message` on `topic`.
pub fn dead_letter(
    topic: &str,
    message: &Message,
    failure: Failure<'_>,
    instance: &str,
    now: UnixMs,
) -> Record {
    let envelope = message
        .payload
        .as_deref()
        .and_then(|payload| codec::decode_envelope(payload).ok())
        .unwrap_or_default();
    let about = DeadLetter {
        stage: Stage::Processor,
        topic: message.topic.to_string(),
        partition: message.partition,
        offset: message.offset,
        reason: failure.reason,
        message: failure.message,
        destination_id: failure.destination_id.to_owned(),
        source_id: envelope.source_id.into_owned(),
        message_id: envelope.message_id.into_owned(),
        http_status: None,
        attempts: 1,
        first_failed_at: now,
        last_failed_at: now,
        replay_count: envelope.replay_count,
        instance: instance.to_owned(),
    };
    let original = message
        .headers
        .iter()
        .map(|(name, value)| (Cow::Owned(name.clone()), value.clone()));
    let ours = about
        .to_headers()
        .into_iter()
        .map(|(name, value)| (Cow::Borrowed(name), Bytes::from(value)));
    Record {
        topic: topic.into(),
        partition: None,
        key: message.key.clone(),
        payload: message.payload.clone(),
        timestamp: message.timestamp,
        headers: original.chain(ours).collect::<Vec<Header>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_what_was_sent_and_says_what_happened() {
        let message = Message {
            topic: "t.events".into(),
            partition: 2,
            offset: 41,
            timestamp: Some(1_700_000_000_000),
            key: Some("user".into()),
            payload: Some(b"\xffnot an envelope".as_slice().into()),
            headers: vec![("traceparent".into(), "00-1".into())],
        };
        let failure = Failure {
            reason: DeadLetterReason::Undecodable,
            message: "record starts with 0xff".into(),
            destination_id: "",
        };
        let record = dead_letter("t.dlq.processor", &message, failure, "t.processor-a", 7);
        assert_eq!(record.key, message.key);
        assert_eq!(record.payload, message.payload);
        assert_eq!(record.timestamp, message.timestamp);
        let header = |name: &str| {
            let mut found = record.headers.iter().filter(|(n, _)| n == name);
            let value = found.next().map(|(_, v)| v.as_ref());
            assert!(found.next().is_none(), "{name} is there twice");
            value.unwrap_or_else(|| panic!("{name} is missing"))
        };
        assert_eq!(header("traceparent"), b"00-1");
        assert_eq!(header("sluice.failure.id"), b"t.events-2-41");
        assert_eq!(header("__connect.errors.offset"), b"41");
        assert_eq!(header("sluice.reason"), b"undecodable");
    }
}

//! From a failed delivery to its record on `dlq.router`. Pure.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::UnixMs;
use crate::event::headers::DeadLetter;
use crate::event::{AddressedKind, DeadLetterReason, Stage, codec};
use crate::kafka::{Header, Message, Record};

/// Header of a dead letter that had to leave its value behind, because value and headers together are larger than a
/// record may be. Where the value lies is in the other headers.
pub(super) const VALUE_DROPPED: &str = "sluice.value.dropped";

/// What is known of the failure.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) reason: DeadLetterReason,
    pub(super) message: String,
    pub(super) http_status: Option<u16>,
    pub(super) attempts: u32,
    pub(super) first_failed_at: UnixMs,
    pub(super) last_failed_at: UnixMs,
}

/// The dead letter: key, value, headers and timestamp of `message`, and what is known of the failure as further headers.
pub(super) fn record(
    topic: &Arc<str>,
    message: Message,
    failure: Failure,
    instance: &str,
) -> Record {
    let payload = message.payload.clone().unwrap_or_default();
    // Read again here, where it is rare, rather than kept for every record that is held.
    let delivery = codec::decode_addressed(AddressedKind::Delivery, &payload).ok();
    let envelope = delivery.as_ref().map(|d| &d.envelope);
    let known = |text: Option<&Cow<'_, str>>| text.map(|t| t.to_string()).unwrap_or_default();
    let described = DeadLetter {
        stage: Stage::Router,
        topic: message.topic.to_string(),
        partition: message.partition,
        offset: message.offset,
        reason: failure.reason,
        message: failure.message,
        destination_id: known(delivery.as_ref().map(|d| &d.destination_id)),
        source_id: known(envelope.map(|e| &e.source_id)),
        message_id: known(envelope.map(|e| &e.message_id)),
        http_status: failure.http_status,
        attempts: failure.attempts,
        first_failed_at: failure.first_failed_at,
        last_failed_at: failure.last_failed_at,
        replay_count: envelope.map_or(0, |e| e.replay_count),
        instance: instance.to_owned(),
    };
    let original = message
        .headers
        .into_iter()
        .map(|(name, value)| (Cow::Owned(name), value));
    let added = described
        .to_headers()
        .into_iter()
        .map(|(name, value)| (Cow::Borrowed(name), Bytes::from(value)));
    Record {
        topic: Arc::clone(topic),
        partition: None,
        key: message.key,
        payload: message.payload,
        timestamp: message.timestamp,
        headers: original.chain(added).collect(),
    }
}

/// The same dead letter without its value, for when it does not fit.
pub(super) fn without_value(record: &Record) -> Record {
    let note: Header = (
        Cow::Borrowed(VALUE_DROPPED),
        Bytes::from_static(b"too_large"),
    );
    let mut headers = record.headers.clone();
    headers.push(note);
    Record {
        payload: None,
        headers,
        ..record.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::codec::encode_addressed;
    use crate::event::{Delivery, Envelope, Framing};

    fn failed(payload: &[u8]) -> Record {
        let message = Message {
            topic: "sluice.deliver.hook".into(),
            partition: 3,
            offset: 42,
            timestamp: Some(1_700_000_000_000),
            key: Some(Bytes::from_static(b"user-1")),
            payload: Some(Bytes::copy_from_slice(payload)),
            headers: vec![("traceparent".to_owned(), Bytes::from_static(b"00-a-b-01"))],
        };
        let failure = Failure {
            reason: DeadLetterReason::Refused,
            message: "HTTP 422: no".to_owned(),
            http_status: Some(422),
            attempts: 2,
            first_failed_at: 1,
            last_failed_at: 2,
        };
        record(&"sluice.dlq.router".into(), message, failure, "router-1")
    }

    fn header<'a>(record: &'a Record, name: &str) -> Option<&'a [u8]> {
        let found = record.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_ref())
    }

    #[test]
    fn a_dead_letter_is_the_failed_record_with_its_story_in_headers() {
        let delivery = Delivery {
            destination_id: "hook".into(),
            origin_partition: 1,
            origin_offset: 7,
            processed_revision: 1,
            envelope: Envelope {
                message_id: "m-1".into(),
                source_id: "web".into(),
                replay_count: 2,
                event: b"{}".as_slice().into(),
                ..Envelope::default()
            },
        };
        let mut bytes = Vec::new();
        encode_addressed(
            AddressedKind::Delivery,
            Framing::default(),
            &delivery,
            &mut bytes,
        )
        .unwrap();
        let record = failed(&bytes);
        assert_eq!(record.payload.as_deref(), Some(bytes.as_slice()));
        assert_eq!(record.key.as_deref(), Some(b"user-1".as_slice()));
        assert_eq!(record.timestamp, Some(1_700_000_000_000));
        for (name, value) in [
            ("traceparent", "00-a-b-01"),
            ("sluice.destination.id", "hook"),
            ("sluice.source.id", "web"),
            ("sluice.message.id", "m-1"),
            ("sluice.http.status", "422"),
            ("sluice.attempts", "2"),
            ("sluice.replay.count", "2"),
            ("__connect.errors.topic", "sluice.deliver.hook"),
            ("__connect.errors.offset", "42"),
        ] {
            assert_eq!(header(&record, name), Some(value.as_bytes()), "{name}");
        }
        let without = without_value(&record);
        assert!(without.payload.is_none() && header(&without, VALUE_DROPPED).is_some());
    }

    #[test]
    fn what_cannot_be_read_is_kept_all_the_same() {
        let record = failed(b"garbage");
        assert_eq!(record.payload.as_deref(), Some(b"garbage".as_slice()));
        assert_eq!(header(&record, "sluice.message.id"), None);
    }
}

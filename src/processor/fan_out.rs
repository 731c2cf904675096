//! A record of `events` to the record of one destination. The customer's event is never re-encoded: the envelope's bytes
//! are appended, unread, to the address.

use crate::event::codec::{self, Address};
use crate::event::{CodecError, Framing, Origin};
use crate::kafka::{Headers, Message, RecordRef};

use super::routes::Target;

/// The record that carries `message` to `target`, built in `buffer`.
///
/// It keeps the key, so that events of one key stay in order, and takes the time of sending: the time of arrival is in the
/// envelope, and the retention of the destination's topic must count from here, however late we are.
///
/// # Errors
/// When the record has no frame of the current envelope schema, which a decoded one has.
pub fn record<'a>(
    message: &'a Message,
    target: &'a Target,
    revision: i64,
    framing: Framing,
    buffer: &'a mut Vec<u8>,
) -> Result<RecordRef<'a>, CodecError> {
    buffer.clear();
    let address = Address {
        destination_id: &target.destination_id,
        origin: Origin {
            partition: message.partition,
            offset: message.offset,
        },
        processed_revision: revision,
    };
    let payload = message.payload.as_deref().unwrap_or_default();
    codec::splice_addressed(target.kind, framing, address, payload, buffer)?;
    Ok(RecordRef {
        topic: &target.topic,
        partition: None,
        key: message.key.as_deref(),
        payload: Some(buffer),
        timestamp: None,
        headers: Headers::Borrowed(&[]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::parse_workspace;
    use crate::event::{AddressedKind, Envelope, TopicNames};
    use crate::processor::routes::Routes;

    #[test]
    fn the_customers_bytes_arrive_as_they_were_sent() {
        let workspace = parse_workspace(
            "test",
            "sources: []\ndestinations: [{id: pg, type: POSTGRES}]",
            1,
        )
        .unwrap();
        let routes = Routes::new(&workspace, &TopicNames::new("t."));
        let envelope = Envelope {
            message_id: "m".into(),
            event: br#"{ "a" : 1.0, "a":"\u0061" }"#.as_slice().into(),
            ..Envelope::default()
        };
        let mut payload = Vec::new();
        codec::encode_envelope(&envelope, Framing::SingleObject, &mut payload).unwrap();
        let message = Message {
            topic: "t.events".into(),
            partition: 3,
            offset: 99,
            timestamp: Some(5),
            key: Some("user".into()),
            payload: Some(payload.into()),
            headers: Vec::new(),
        };
        let mut buffer = b"left over".to_vec();
        let target = &routes.targets()[0];
        let record = record(&message, target, 1, Framing::SingleObject, &mut buffer).unwrap();
        assert_eq!(record.topic, "t.warehouse.pg");
        assert_eq!(record.key, Some(b"user".as_slice()));
        let addressed =
            codec::decode_addressed(AddressedKind::WarehouseSource, record.payload.unwrap())
                .unwrap();
        assert_eq!(addressed.destination_id, "pg");
        assert_eq!(
            addressed.origin(),
            Origin {
                partition: 3,
                offset: 99
            }
        );
        assert_eq!(addressed.envelope, envelope);
    }
}

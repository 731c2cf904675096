//! Records of `events` to what is to become of them, without any state: the part that runs on all cores. What the ids of a
//! schema registry mean is known, or asked for once.

use std::sync::Arc;

use crate::event::{SchemaName, codec};
use crate::kafka::Message;
use crate::registry::Schemas;

use super::dedup;
use super::plan::{Plan, plan};
use super::routes::Routes;

/// Records as they were read, in order, with the routes in force.
#[derive(Debug)]
pub struct Chunk {
    /// The records; those of one partition are in its order.
    pub messages: Vec<Message>,
    /// Where events go.
    pub routes: Arc<Routes>,
}

/// A chunk whose records are decoded and planned.
#[derive(Debug)]
pub struct Planned {
    /// The records.
    pub messages: Vec<Message>,
    /// What is to become of each.
    pub events: Vec<Event>,
    /// Where events go.
    pub routes: Arc<Routes>,
}

/// What is to become of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is an event.
    Decoded {
        /// What it is remembered by, see [`dedup::key`].
        key: u128,
        /// Where it goes.
        plan: Plan,
    },
    /// It is no event; why.
    Undecodable(String),
    /// Only the schema registry knows what it is, and did not say; why. It must wait.
    Unresolved(String),
}

/// Decodes and plans every record of `chunk`.
pub fn decode(chunk: Chunk, schemas: &Schemas) -> Planned {
    let Chunk { messages, routes } = chunk;
    let events = messages
        .iter()
        .map(|message| decode_one(message.payload.as_deref(), &routes, schemas))
        .collect();
    Planned {
        messages,
        events,
        routes,
    }
}

/// Decodes and plans one record.
pub fn decode_one(payload: Option<&[u8]>, routes: &Routes, schemas: &Schemas) -> Event {
    let Some(payload) = payload else {
        return Event::Undecodable("record has no value".to_owned());
    };
    let admitted = match schemas.admit(SchemaName::Envelope, payload) {
        Ok(admitted) => admitted,
        Err(error) => return Event::Unresolved(error.to_string()),
    };
    match admitted.and_then(|()| codec::decode_envelope(payload)) {
        Ok(envelope) => Event::Decoded {
            key: dedup::key(&envelope),
            plan: plan(&envelope, routes),
        },
        Err(error) => Event::Undecodable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Envelope, FilterReason, Framing};

    #[test]
    fn what_is_no_envelope_is_told_apart_from_what_goes_nowhere() {
        let routes = Routes::default();
        let decode_one = |payload, routes| decode_one(payload, routes, &Schemas::default());
        assert!(matches!(decode_one(None, &routes), Event::Undecodable(_)));
        assert!(matches!(
            decode_one(Some(b"{}"), &routes),
            Event::Undecodable(_)
        ));
        let envelope = Envelope {
            source_id: "s".into(),
            message_id: "m".into(),
            event: b"{}".as_slice().into(),
            ..Envelope::default()
        };
        let mut record = Vec::new();
        codec::encode_envelope(&envelope, Framing::SingleObject, &mut record).unwrap();
        let expected = Event::Decoded {
            key: crate::event::event_key("s", "m"),
            plan: Plan::Ends(FilterReason::SourceUnknown),
        };
        assert_eq!(decode_one(Some(&record), &routes), expected);
        let cut = &record[..record.len() - 3];
        assert!(matches!(
            decode_one(Some(cut), &routes),
            Event::Undecodable(_)
        ));
    }
}

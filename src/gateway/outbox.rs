//! The records of one request, encoded side by side in a buffer that the thread keeps.
//!
//! A request is sent whole or not at all, so all of it is encoded before any of it is sent. librdkafka copies what it is
//! given, so the buffer is free again when the last record is queued, and no event needs an allocation of its own.

use std::cell::Cell;
use std::ops::Range;

use smallvec::SmallVec;

use crate::event::{Envelope, Framing, codec, ordering_key};
use crate::kafka::{self, AckProducer, Headers, RecordRef};

use super::refusal::Refusal;

/// A thread keeps a buffer up to this size; a larger one was for one large request.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What every request's records have in common.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    /// Full name of the topic.
    pub(super) topic: String,
    pub(super) framing: Framing,
    /// Key and payload of one record, together.
    pub(super) record_bytes_max: usize,
}

/// The records of one request.
pub(super) struct Outgoing<'a> {
    outbox: &'a Outbox,
    buffer: Vec<u8>,
    records: SmallVec<[(Range<usize>, Range<usize>); 1]>,
    event_bytes: u64,
}

impl Outbox {
    /// Lets `work` encode and send with this thread's buffer.
    pub(super) fn fill<T>(&self, work: impl FnOnce(&mut Outgoing<'_>) -> T) -> T {
        thread_local! {
            static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut outgoing = Outgoing {
            outbox: self,
            buffer: BUFFER.take(),
            records: SmallVec::new(),
            event_bytes: 0,
        };
        let result = work(&mut outgoing);
        let mut buffer = outgoing.buffer;
        if buffer.capacity() <= KEPT_BYTES_MAX {
            buffer.clear();
            BUFFER.set(buffer);
        }
        result
    }
}

impl Outgoing<'_> {
    /// Encodes one event. `anonymous_header` is the last resort of the ordering key.
    pub(super) fn push(
        &mut self,
        envelope: &Envelope<'_>,
        anonymous_header: &str,
    ) -> Result<(), Refusal> {
        let key = ordering_key(
            &envelope.user_id,
            &envelope.anonymous_id,
            anonymous_header,
            &envelope.message_id,
        );
        self.push_keyed(envelope, key)
    }

    /// Encodes one event under a key of its sender's.
    pub(super) fn push_keyed(&mut self, envelope: &Envelope<'_>, key: &str) -> Result<(), Refusal> {
        let from = self.buffer.len();
        self.buffer.extend_from_slice(key.as_bytes());
        let middle = self.buffer.len();
        let encoded = codec::encode_envelope(envelope, self.outbox.framing, &mut self.buffer);
        let to = self.buffer.len();
        let refusal = match encoded {
            Err(_) => Some(Refusal::Unencodable),
            Ok(()) if to - from > self.outbox.record_bytes_max => Some(Refusal::TooLarge),
            Ok(()) => None,
        };
        if let Some(refusal) = refusal {
            self.buffer.truncate(from);
            return Err(refusal);
        }
        self.records.push((from..middle, middle..to));
        self.event_bytes += envelope.event.len() as u64;
        Ok(())
    }

    /// Queues every record as part of `batch`; `traceparent` gives the trace context of each by its number.
    pub(super) fn send<'t>(
        &self,
        producer: &AckProducer,
        batch: &kafka::Batch,
        traceparent: impl Fn(usize) -> &'t str,
    ) -> Result<(), Refusal> {
        if (0..self.records.len()).all(|number| traceparent(number).is_empty()) {
            return producer
                .send_all(batch, &self.outbox.topic, self.records())
                .map_err(|error| Refusal::from(&error));
        }
        for (number, (key, payload)) in self.records().enumerate() {
            let trace = traceparent(number).as_bytes();
            let header = [(crate::event::headers::TRACEPARENT, trace)];
            let headers = Headers::Borrowed(if trace.is_empty() { &[] } else { &header });
            let record = RecordRef {
                headers,
                ..RecordRef::new(&self.outbox.topic, key, payload)
            };
            producer
                .send(batch, record)
                .map_err(|error| Refusal::from(&error))?;
        }
        Ok(())
    }

    /// Key and payload of each record.
    pub(super) fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let of = |range: &Range<usize>| &self.buffer[range.clone()];
        self.records
            .iter()
            .map(move |(key, payload)| (of(key), of(payload)))
    }

    /// Bytes of the events as the client wrote them.
    pub(super) fn event_bytes(&self) -> u64 {
        self.event_bytes
    }
}

//! The records of one request, framed: what goes to the disk as it is, and to Kafka record by record.

use crate::clock::UnixMs;
use crate::event::headers;
use crate::kafka::{AckProducer, Batch, Headers, ProduceError, RecordRef};

use super::frame::{self, Next, Record};

/// The records of one request.
#[derive(Debug, Default)]
pub(in super::super) struct Frames {
    bytes: Vec<u8>,
    records: u64,
}

impl Frames {
    /// Frames keys and payloads; `traceparent` gives the trace context of each by its number.
    pub(in super::super) fn of<'a, 't>(
        records: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        traceparent: impl Fn(usize) -> &'t str,
        at: UnixMs,
    ) -> Self {
        let mut frames = Self::default();
        for (number, (key, payload)) in records.enumerate() {
            frames.push(Record {
                at,
                key,
                traceparent: traceparent(number).as_bytes(),
                payload,
            });
        }
        frames
    }

    pub(super) fn push(&mut self, record: Record<'_>) {
        frame::encode(record, &mut self.bytes);
        self.records += 1;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(super) fn count(&self) -> u64 {
        self.records
    }

    /// The records, in the order of the request.
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut left = self.bytes.as_slice();
        std::iter::from_fn(move || match frame::next(left) {
            Next::Record(record, len) => {
                left = left.get(len..).unwrap_or_default();
                Some(record)
            }
            Next::End | Next::Cut | Next::Damaged => None,
        })
    }
}

/// Queues one record for Kafka as part of `batch`.
pub(super) fn send(
    producer: &AckProducer,
    batch: &Batch,
    topic: &str,
    record: Record<'_>,
) -> Result<(), ProduceError> {
    let header = [(headers::TRACEPARENT, record.traceparent)];
    let record = RecordRef {
        headers: Headers::Borrowed(if record.traceparent.is_empty() {
            &[]
        } else {
            &header
        }),
        ..RecordRef::new(topic, record.key, record.payload)
    };
    producer.send(batch, record)
}

//! Our words for Kafka's: what is sent, what was read, and where it lies.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::UnixMs;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Full topic name.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }

    /// The place of `offset` in this partition.
    pub fn at(&self, offset: i64) -> Position {
        Position {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            offset,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Where one record lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Full topic name.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}@{}", self.topic, self.partition, self.offset)
    }
}

/// Where to begin to read a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The oldest record that is still there.
    Beginning,
    /// After the newest record.
    End,
    /// This offset; it must be in the log.
    Offset(i64),
}

/// A header to send: Kafka allows names to repeat and keeps their order.
pub type Header = (Cow<'static, str>, Bytes);

/// A record to send, owned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Full topic name.
    pub topic: Arc<str>,
    /// Partition; `None` lets the key choose (murmur2, as the Java clients).
    pub partition: Option<i32>,
    /// Key; `None` spreads the record at random and is a tombstone-proof "no key", not an empty one.
    pub key: Option<Bytes>,
    /// Payload; `None` is a tombstone in a compacted topic.
    pub payload: Option<Bytes>,
    /// Creation time; `None` takes the time of sending.
    pub timestamp: Option<UnixMs>,
    /// Headers; each costs a C call and a copy, so keep them few on hot paths.
    pub headers: Vec<Header>,
}

impl Record {
    /// A record with a key and a payload, without headers, for the partition that the key chooses.
    pub fn new(
        topic: impl Into<Arc<str>>,
        key: impl Into<Bytes>,
        payload: impl Into<Bytes>,
    ) -> Self {
        Self {
            topic: topic.into(),
            key: Some(key.into()),
            payload: Some(payload.into()),
            ..Self::default()
        }
    }

    /// This record, borrowed.
    pub fn as_ref(&self) -> RecordRef<'_> {
        RecordRef {
            topic: &self.topic,
            partition: self.partition,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            timestamp: self.timestamp,
            headers: Headers::Owned(&self.headers),
        }
    }
}

/// A record to send, borrowed: the library copies it into its queue, so that the hot path needs no copy of its own.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// Full topic name.
    pub topic: &'a str,
    /// Partition; `None` lets the key choose (murmur2, as the Java clients).
    pub partition: Option<i32>,
    /// Key; `None` spreads the record at random.
    pub key: Option<&'a [u8]>,
    /// Payload; `None` is a tombstone in a compacted topic.
    pub payload: Option<&'a [u8]>,
    /// Creation time; `None` takes the time of sending.
    pub timestamp: Option<UnixMs>,
    /// Headers.
    pub headers: Headers<'a>,
}

impl<'a> RecordRef<'a> {
    /// A record with a key and a payload, without headers, for the partition that the key chooses.
    pub fn new(topic: &'a str, key: &'a [u8], payload: &'a [u8]) -> Self {
        Self {
            topic,
            partition: None,
            key: Some(key),
            payload: Some(payload),
            timestamp: None,
            headers: Headers::Borrowed(&[]),
        }
    }

    /// What the record counts against byte limits: key and payload.
    pub fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.payload.map_or(0, <[u8]>::len)
    }
}

/// Headers of a [`RecordRef`], in either shape that callers hold them.
#[derive(Debug, Clone, Copy)]
pub enum Headers<'a> {
    /// Borrowed pairs.
    Borrowed(&'a [(&'a str, &'a [u8])]),
    /// The headers of a [`Record`].
    Owned(&'a [Header]),
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Borrowed(pairs) => pairs.len(),
            Self::Owned(pairs) => pairs.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name and value of the header at `index`.
    pub fn get(&self, index: usize) -> Option<(&'a str, &'a [u8])> {
        match self {
            Self::Borrowed(pairs) => pairs.get(index).copied(),
            Self::Owned(pairs) => pairs
                .get(index)
                .map(|(name, value)| (name.as_ref(), value.as_ref())),
        }
    }
}

/// A record that was read, owned: nothing in it points into the library's buffers, so it may outlive the consumer and
/// move between threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Full topic name; one allocation per topic, shared by all its messages.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
    /// Offset in the partition. Offsets have gaps: transaction markers and aborted or compacted records take some.
    pub offset: i64,
    /// The record's timestamp; `None` in logs of very old formats.
    pub timestamp: Option<UnixMs>,
    /// Key.
    pub key: Option<Bytes>,
    /// Payload; `None` is a tombstone.
    pub payload: Option<Bytes>,
    /// Headers in the order they were sent. Values may be null in Kafka; those read as empty.
    pub headers: Vec<(String, Bytes)>,
}

impl Message {
    /// Partition it was read from.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
        }
    }

    /// Where it lies.
    pub fn position(&self) -> Position {
        Position {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            offset: self.offset,
        }
    }

    /// What the message counts against byte limits: key and payload.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// The last value of the header `name`.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_ref())
    }
}

/// What to commit for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The first offset that is *not* done: where a successor begins.
    pub next_offset: i64,
    /// Travels with the offset and comes back on assignment; at most 4096 bytes (the broker's
    /// `offset.metadata.max.bytes`). See [`super::offsets`] for what we keep in it.
    pub metadata: String,
}

impl OffsetCommit {
    /// Commits `next_offset` without metadata.
    pub fn new(topic_partition: TopicPartition, next_offset: i64) -> Self {
        Self {
            topic_partition,
            next_offset,
            metadata: String::new(),
        }
    }
}

/// What a group has committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// Where to go on; `None` when the group never committed for it.
    pub next_offset: Option<i64>,
    /// The metadata of the commit; empty when there is none or it is not UTF-8 (a foreign tool's).
    pub metadata: String,
}

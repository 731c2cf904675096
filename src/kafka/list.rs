//! Between our partitions and the library's lists.
//!
//! A list that came from a consumer and outlives it deadlocks the consumer's drop (rust-rdkafka issue 453), so none leaves
//! this module's callers: everything is copied out at once.

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys::{RDKafkaTopicPartition, RDKafkaTopicPartitionList};

use super::error::KafkaError;
use super::ffi::text;
use super::record::{OffsetCommit, TopicPartition};

/// One element, copied out. `offset` is the library's raw one: negative values are its special ones.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) topic_partition: TopicPartition,
    pub(super) offset: i64,
    pub(super) metadata: String,
    pub(super) error: Code,
}

impl Element {
    /// The offset, when it is one.
    pub(super) fn real_offset(&self) -> Option<i64> {
        (self.offset >= 0).then_some(self.offset)
    }

    pub(super) fn ok(self, operation: &'static str) -> Result<Self, KafkaError> {
        if self.error == Code::NoError {
            return Ok(self);
        }
        let words = format!("{}: {}", self.topic_partition, self.error);
        Err(KafkaError::new(operation, self.error, words))
    }
}

pub(super) fn partitions<'a>(
    of: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for tp in of {
        list.add_partition(&tp.topic, tp.partition);
    }
    list
}

/// Where to begin. Only offsets, never "the end": see [`Consumer`](super::Consumer).
pub(super) fn starts<'a>(
    of: impl IntoIterator<Item = &'a (TopicPartition, i64)>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (tp, offset) in of {
        list.add_partition(&tp.topic, tp.partition)
            .set_offset(Offset::Offset(*offset))
            .map_err(|error| KafkaError::from_library("name an offset", &error))?;
    }
    Ok(list)
}

pub(super) fn commits(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for commit in offsets {
        let tp = &commit.topic_partition;
        let mut element = list.add_partition(&tp.topic, tp.partition);
        element
            .set_offset(Offset::Offset(commit.next_offset))
            .map_err(|error| KafkaError::from_library("name an offset", &error))?;
        if !commit.metadata.is_empty() {
            element.set_metadata(&commit.metadata);
        }
    }
    Ok(list)
}

/// Copies a list out.
pub(super) fn elements(list: &TopicPartitionList) -> Vec<Element> {
    // SAFETY: the list is alive.
    unsafe { elements_of(list.ptr()) }
}

/// Copies a raw list out; a null one is empty.
///
/// # Safety
/// `list` must be null or alive.
pub(super) unsafe fn elements_of(list: *const RDKafkaTopicPartitionList) -> Vec<Element> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: by contract; the library keeps `cnt` elements at `elems`.
    unsafe {
        let raw = &*list;
        (0..usize::try_from(raw.cnt).unwrap_or(0))
            .map(|i| element_of(&*raw.elems.add(i)))
            .collect()
    }
}

/// Copies one element out. Not by rust-rdkafka's accessors: its `metadata` panics on a foreign tool's bytes.
///
/// # Safety
/// `raw` must be an element of the library: its topic is a terminated string, and its metadata has the size it tells.
pub(super) unsafe fn element_of(raw: &RDKafkaTopicPartition) -> Element {
    // SAFETY: by contract.
    let (topic, metadata) = unsafe {
        let metadata = if raw.metadata.is_null() || raw.metadata_size == 0 {
            &[][..]
        } else {
            std::slice::from_raw_parts(raw.metadata.cast::<u8>(), raw.metadata_size)
        };
        (text(raw.topic), metadata)
    };
    Element {
        topic_partition: TopicPartition::new(topic, raw.partition),
        offset: raw.offset,
        metadata: std::str::from_utf8(metadata).unwrap_or_default().to_owned(),
        error: raw.err.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_metadata_pass_through_the_library_unchanged() {
        let given = [
            OffsetCommit {
                topic_partition: TopicPartition::new("a", 3),
                next_offset: 7,
                metadata: "map".to_owned(),
            },
            OffsetCommit::new(TopicPartition::new("b", 0), 0),
        ];
        let read = elements(&commits(&given).unwrap());
        for (given, read) in given.iter().zip(read) {
            assert_eq!(given.topic_partition, read.topic_partition);
            assert_eq!(Some(given.next_offset), read.real_offset());
            assert_eq!(given.metadata, read.metadata);
        }
        assert!(commits(&[OffsetCommit::new(TopicPartition::new("a", 0), -5)]).is_err());
    }
}

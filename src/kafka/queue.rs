//! A consumer's queue of events, read directly: rust-rdkafka's poll forgets at which offset a partition ended.

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;
use rdkafka_sys::bindings::{rd_kafka_event_t, rd_kafka_queue_t};
use rdkafka_sys::{RDKafka, RDKafkaMessage};

use super::ffi::{millis, text};
use super::list;
use super::message;
use super::record::{Message, TopicPartition};

/// What one poll brought.
#[derive(Debug)]
pub(super) enum Event {
    /// A record.
    Message(Message),
    /// The partition has nothing at or after this offset that we may see.
    End { partition: i32, offset: i64 },
    /// Something went wrong, with one partition if it is named.
    Error {
        partition: Option<TopicPartition>,
        code: Code,
        words: String,
        fatal: bool,
    },
    /// A line that the library wants to log.
    Log { facility: String, line: String },
    /// Statistics, rebalances and the like, which this kind of consumer has no use for.
    Other,
}

/// The queue; must be dropped before its client.
pub(super) struct Queue(NonNull<rd_kafka_queue_t>);

// SAFETY: the library's queues may be used from any thread.
unsafe impl Send for Queue {}

impl Queue {
    /// The queue on which `client`, a consumer, gets its records; `None` if it is no consumer.
    pub(super) fn of_consumer(client: *mut RDKafka) -> Option<Self> {
        // SAFETY: `client` is alive; the result is a reference of our own.
        NonNull::new(unsafe { sys::rd_kafka_queue_get_consumer(client) }).map(Self)
    }

    /// Waits for one event. Records get `topic` as their topic.
    pub(super) fn poll(&self, timeout: Duration, topic: &Arc<str>) -> Option<Event> {
        // SAFETY: the queue is alive; the event is ours, and destroyed below when all of it has been copied out.
        let event =
            NonNull::new(unsafe { sys::rd_kafka_queue_poll(self.0.as_ptr(), millis(timeout)) })?;
        let read = unsafe { read(event.as_ptr(), topic) };
        // SAFETY: as above.
        unsafe { sys::rd_kafka_event_destroy(event.as_ptr()) };
        Some(read)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: our reference, given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// # Safety
/// `event` must be alive.
unsafe fn read(event: *mut rd_kafka_event_t, topic: &Arc<str>) -> Event {
    // SAFETY: by contract; what the library hands out of an event lives as long as it, except for the partition, which is
    // a copy of ours to destroy.
    unsafe {
        match sys::rd_kafka_event_type(event) {
            sys::RD_KAFKA_EVENT_FETCH => {
                let raw: *mut RDKafkaMessage = sys::rd_kafka_event_message_next(event).cast_mut();
                if raw.is_null() {
                    return Event::Other;
                }
                Event::Message(message::own(raw, Arc::clone(topic)))
            }
            sys::RD_KAFKA_EVENT_ERROR => {
                let code: Code = sys::rd_kafka_event_error(event).into();
                let named = sys::rd_kafka_event_topic_partition(event);
                let element = NonNull::new(named).map(|named| {
                    let element = list::element_of(named.as_ref());
                    sys::rd_kafka_topic_partition_destroy(named.as_ptr());
                    element
                });
                match (code, element) {
                    (Code::PartitionEOF, Some(element)) => Event::End {
                        partition: element.topic_partition.partition,
                        offset: element.offset,
                    },
                    (code, element) => Event::Error {
                        partition: element.map(|element| element.topic_partition),
                        code,
                        words: text(sys::rd_kafka_event_error_string(event)),
                        fatal: sys::rd_kafka_event_error_is_fatal(event) != 0,
                    },
                }
            }
            sys::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut line) = (std::ptr::null(), std::ptr::null());
                let mut level = 0;
                sys::rd_kafka_event_log(event, &mut facility, &mut line, &mut level);
                Event::Log {
                    facility: text(facility),
                    line: text(line),
                }
            }
            _ => Event::Other,
        }
    }
}

//! Many records for one topic with one call of the library.
//!
//! rust-rdkafka sends record by record, by the topic's name: each time it copies the name, looks the topic up, and takes
//! and gives back two locks. `rd_kafka_produce_batch` does that once for all records of a request. It takes no headers.

use std::ffi::{CString, c_void};
use std::ptr;

use parking_lot::Mutex;
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode as Code};
use rdkafka_sys as sys;
use rdkafka_sys::bindings::{rd_kafka_message_t, rd_kafka_topic_t};
use rdkafka_sys::{RDKafka, RDKafkaRespErr};

/// `RD_KAFKA_PARTITION_UA`: the partitioner decides by the key.
const PARTITION_UNASSIGNED: i32 = -1;

/// The library's handle of a topic. Belongs to one client and must be dropped before it.
#[derive(Debug)]
struct TopicHandle {
    name: Box<str>,
    raw: *mut rd_kafka_topic_t,
}

// SAFETY: the library's topics are counted and locked by itself.
unsafe impl Send for TopicHandle {}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: ours, once; the client is alive, see the type.
        unsafe { sys::rd_kafka_topic_destroy(self.raw) };
    }
}

/// Handles of the topics that one client has sent to: as many as it was given names.
#[derive(Debug, Default)]
pub(super) struct TopicHandles(Mutex<Vec<TopicHandle>>);

impl TopicHandles {
    /// The handle of `name` at `client`.
    fn of(&self, client: *mut RDKafka, name: &str) -> Result<*mut rd_kafka_topic_t, LibraryError> {
        let mut handles = self.0.lock();
        if let Some(known) = handles.iter().find(|handle| *handle.name == *name) {
            return Ok(known.raw);
        }
        let terminated = CString::new(name)?;
        // SAFETY: `client` is alive; no settings means those of the client.
        let raw = unsafe { sys::rd_kafka_topic_new(client, terminated.as_ptr(), ptr::null_mut()) };
        if raw.is_null() {
            return Err(LibraryError::MessageProduction(Code::InvalidTopic));
        }
        handles.push(TopicHandle {
            name: name.into(),
            raw,
        });
        Ok(raw)
    }

    /// Queues `records` (key, payload, opaque pointer) for `topic`, in order; the library copies keys and payloads. Each
    /// record that was not queued is told to `refused` with its opaque pointer, which the library then does not hand back.
    ///
    /// # Errors
    /// When none was, since the topic has no possible name; `refused` is not called then.
    pub(super) fn produce<'r>(
        &self,
        client: *mut RDKafka,
        topic: &str,
        records: impl Iterator<Item = (&'r [u8], &'r [u8], *mut c_void)>,
        mut refused: impl FnMut(*mut c_void, usize, LibraryError),
    ) -> Result<(), LibraryError> {
        let handle = self.of(client, topic)?;
        let mut messages: Vec<rd_kafka_message_t> = records
            .map(|(key, payload, opaque)| rd_kafka_message_t {
                err: RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: handle,
                partition: PARTITION_UNASSIGNED,
                payload: payload.as_ptr().cast_mut().cast(),
                len: payload.len(),
                key: key.as_ptr().cast_mut().cast(),
                key_len: key.len(),
                offset: 0,
                _private: opaque,
            })
            .collect();
        let count = i32::try_from(messages.len()).unwrap_or(i32::MAX);
        // SAFETY: client and handle are alive; what the messages point to is borrowed for the call, and F_COPY makes the
        // library copy it.
        let queued = unsafe {
            sys::rd_kafka_produce_batch(
                handle,
                PARTITION_UNASSIGNED,
                sys::RD_KAFKA_MSG_F_COPY,
                messages.as_mut_ptr(),
                count,
            )
        };
        if queued != count {
            for message in &messages {
                let code: Code = message.err.into();
                if code != Code::NoError {
                    let bytes = message.key_len + message.len;
                    refused(
                        message._private,
                        bytes,
                        LibraryError::MessageProduction(code),
                    );
                }
            }
        }
        Ok(())
    }
}

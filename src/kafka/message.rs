//! From the library's message to ours.
//!
//! Not by rust-rdkafka's accessors: they panic on a header name that is not UTF-8, and anybody may write to a topic.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;
use rdkafka_sys as sys;
use rdkafka_sys::RDKafkaMessage;
use rdkafka_sys::bindings::{rd_kafka_resp_err_t, rd_kafka_timestamp_type_t};

use super::record::Message;

/// Copies a message out.
///
/// # Safety
/// `raw` must point to a message of the library that stays alive for the call.
pub(super) unsafe fn own(raw: *mut RDKafkaMessage, topic: Arc<str>) -> Message {
    // SAFETY: alive, by contract; the library tells the length of what key and payload point to.
    unsafe {
        let message = &*raw;
        Message {
            topic,
            partition: message.partition,
            offset: message.offset,
            timestamp: timestamp(raw),
            key: copy(message.key, message.key_len),
            payload: copy(message.payload, message.len),
            headers: headers(raw),
        }
    }
}

unsafe fn copy(data: *mut c_void, length: usize) -> Option<Bytes> {
    if data.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller vouches for the length.
    Some(Bytes::copy_from_slice(unsafe {
        std::slice::from_raw_parts(data.cast(), length)
    }))
}

unsafe fn timestamp(raw: *mut RDKafkaMessage) -> Option<i64> {
    let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: both point to something alive.
    let at = unsafe { sys::rd_kafka_message_timestamp(raw, &mut kind) };
    (at >= 0 && kind != rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(at)
}

unsafe fn headers(raw: *mut RDKafkaMessage) -> Vec<(String, Bytes)> {
    let none = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let mut list = ptr::null_mut();
    // SAFETY: `raw` is alive; on success the list belongs to the message and lives as long.
    if unsafe { sys::rd_kafka_message_headers(raw, &mut list) } != none {
        return Vec::new();
    }
    // SAFETY: as above.
    let count = unsafe { sys::rd_kafka_header_cnt(list) };
    let mut headers = Vec::with_capacity(count);
    for index in 0..count {
        let mut name: *const c_char = ptr::null();
        let mut value: *const c_void = ptr::null();
        let mut length = 0;
        // SAFETY: as above; on success name is terminated and value has that length, or is null.
        unsafe {
            if sys::rd_kafka_header_get_all(list, index, &mut name, &mut value, &mut length) != none
            {
                break;
            }
            headers.push((
                CStr::from_ptr(name).to_string_lossy().into_owned(),
                copy(value.cast_mut(), length).unwrap_or_default(),
            ));
        }
    }
    headers
}

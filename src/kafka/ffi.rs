//! The few calls that rust-rdkafka does not offer, or offers with a trap, on the raw library.
//!
//! Every `unsafe` block of the crate that calls librdkafka is in this file, in `topic_handle.rs` or in `admin/`.

use std::ffi::{CStr, c_char};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;
use rdkafka_sys::RDKafka;
use rdkafka_sys::bindings::{rd_kafka_error_t, rd_kafka_resp_err_t};

use super::error::KafkaError;

/// A library timeout: whole milliseconds, never the -1 that means "for ever".
pub(super) fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// Text that the library owns.
pub(super) fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the library's strings are terminated.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

/// An error with the flags that are the library's whole contract for transactions: nothing else may be looked at.
#[derive(Debug, Clone)]
pub(super) struct Flagged {
    pub(super) error: KafkaError,
    /// The producer is unusable.
    pub(super) fatal: bool,
    /// The transaction must be aborted.
    pub(super) abort: bool,
    /// The same call with the same arguments may be made again.
    pub(super) retriable: bool,
}

/// Takes over an error object; null is success.
fn take(operation: &'static str, error: *mut rd_kafka_error_t) -> Result<(), Flagged> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, ours to read and to destroy once.
    unsafe {
        let code: Code = sys::rd_kafka_error_code(error).into();
        let flagged = Flagged {
            error: KafkaError::new(operation, code, text(sys::rd_kafka_error_string(error))),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(flagged)
    }
}

/// A bare code; `NO_ERROR` is success.
pub(super) fn check(operation: &'static str, code: rd_kafka_resp_err_t) -> Result<(), KafkaError> {
    if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: returns a static string for every code.
    let words = text(unsafe { sys::rd_kafka_err2str(code) });
    Err(KafkaError::new(operation, code.into(), words))
}

/// Registers the transactional id and ends what its last holder left open.
pub(super) fn init_transactions(client: *mut RDKafka, timeout: Duration) -> Result<(), Flagged> {
    // SAFETY: `client` is alive for the call; the caller holds the producer.
    take("register the transactional id", unsafe {
        sys::rd_kafka_init_transactions(client, millis(timeout))
    })
}

pub(super) fn begin_transaction(client: *mut RDKafka) -> Result<(), Flagged> {
    // SAFETY: as above.
    take("begin a transaction", unsafe {
        sys::rd_kafka_begin_transaction(client)
    })
}

/// Called directly because rust-rdkafka's `commit_transaction` flushes first, in slices of 100 ms.
pub(super) fn commit_transaction(client: *mut RDKafka, timeout: Duration) -> Result<(), Flagged> {
    // SAFETY: as above.
    take("commit the transaction", unsafe {
        sys::rd_kafka_commit_transaction(client, millis(timeout))
    })
}

pub(super) fn abort_transaction(client: *mut RDKafka, timeout: Duration) -> Result<(), Flagged> {
    // SAFETY: as above.
    take("abort the transaction", unsafe {
        sys::rd_kafka_abort_transaction(client, millis(timeout))
    })
}

/// The group membership that an offset commit is fenced by.
pub(super) struct RawGroupMetadata(
    std::ptr::NonNull<sys::bindings::rd_kafka_consumer_group_metadata_t>,
);

// SAFETY: a plain copy of strings and a number that the library never changes after making it.
unsafe impl Send for RawGroupMetadata {}
// SAFETY: as above.
unsafe impl Sync for RawGroupMetadata {}

impl RawGroupMetadata {
    /// The membership of the consumer `client` at this moment; `None` if it is in no group or has no generation in it.
    ///
    /// Between losing its membership and joining again a consumer has generation -1 and no member id. With these a broker
    /// takes a transactional commit without any check (KIP-447 keeps old clients working so): a zombie would not be fenced.
    pub(super) fn of(client: *mut RDKafka) -> Option<Self> {
        // SAFETY: `client` is alive for the call; the result is a copy that is ours.
        let metadata =
            std::ptr::NonNull::new(unsafe { sys::rd_kafka_consumer_group_metadata(client) })
                .map(Self)?;
        // SAFETY: the copy is alive.
        let generation = unsafe {
            sys::bindings::rd_kafka_consumer_group_metadata_generation_id(metadata.0.as_ptr())
        };
        (generation >= 0).then_some(metadata)
    }
}

impl Drop for RawGroupMetadata {
    fn drop(&mut self) {
        // SAFETY: made by the library, destroyed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

pub(super) fn send_offsets(
    client: *mut RDKafka,
    offsets: &TopicPartitionList,
    group: &RawGroupMetadata,
    timeout: Duration,
) -> Result<(), Flagged> {
    // SAFETY: all three are alive for the call, which copies what it keeps.
    take("add offsets to the transaction", unsafe {
        sys::rd_kafka_send_offsets_to_transaction(
            client,
            offsets.ptr(),
            group.0.as_ptr(),
            millis(timeout),
        )
    })
}

pub(super) fn incremental_assign(
    client: *mut RDKafka,
    partitions: &TopicPartitionList,
) -> Result<(), KafkaError> {
    // SAFETY: both are alive for the call, which copies the list.
    take("take over partitions", unsafe {
        sys::rd_kafka_incremental_assign(client, partitions.ptr())
    })
    .map_err(|flagged| flagged.error)
}

pub(super) fn incremental_unassign(
    client: *mut RDKafka,
    partitions: &TopicPartitionList,
) -> Result<(), KafkaError> {
    // SAFETY: as above.
    take("release partitions", unsafe {
        sys::rd_kafka_incremental_unassign(client, partitions.ptr())
    })
    .map_err(|flagged| flagged.error)
}

pub(super) fn seek(
    client: *mut RDKafka,
    partitions: &TopicPartitionList,
    timeout: Duration,
) -> Result<(), KafkaError> {
    // SAFETY: as above; results are written into the list's own elements.
    take("seek", unsafe {
        sys::rd_kafka_seek_partitions(client, partitions.ptr(), millis(timeout))
    })
    .map_err(|flagged| flagged.error)
}

/// The error that made the client unusable, if one did.
pub(super) fn fatal_error(client: *mut RDKafka) -> Option<KafkaError> {
    let mut words = [0 as c_char; 512];
    // SAFETY: `client` is alive; the buffer's length is told and the library terminates what it writes.
    let code: Code =
        unsafe { sys::rd_kafka_fatal_error(client, words.as_mut_ptr(), words.len()) }.into();
    (code != Code::NoError).then(|| KafkaError::new("go on", code, text(words.as_ptr())))
}

//! Ids of topics, by the raw library.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::time::Duration;

use rdkafka_sys as sys;
use rdkafka_sys::RDKafka;
use rdkafka_sys::bindings::rd_kafka_admin_op_t as Op;

use super::super::error::KafkaError;
use super::super::ffi::text;
use super::raw::{Owned, Request, c_string, check_object};

/// Ids of topics, as 32 hexadecimal digits; a topic that was deleted and made again has another.
pub(super) fn topic_ids(
    client: *mut RDKafka,
    topics: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, String>, KafkaError> {
    const DESCRIBE: &str = "look up topic ids";
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names = topics
        .iter()
        .map(|name| c_string(DESCRIBE, name))
        .collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the names are alive; the library copies them.
    let collection = Owned::new(
        DESCRIBE,
        unsafe {
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len())
        },
        sys::rd_kafka_TopicCollection_destroy,
    )?;
    let op = Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let answer = Request::new(DESCRIBE, client, op, timeout)?
        // SAFETY: everything is alive for the call, which copies the request.
        .submit(|client, options, queue| unsafe {
            sys::rd_kafka_DescribeTopics(client, collection.pointer, options, queue);
        })?;
    let mut ids = BTreeMap::new();
    // SAFETY: the event is of this call; its results live as long as it, and the count is the library's.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(answer.event.pointer);
        let mut count = 0;
        let described = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for i in 0..count {
            let one = *described.add(i);
            let name = text(sys::rd_kafka_TopicDescription_name(one));
            check_object(DESCRIBE, &name, sys::rd_kafka_TopicDescription_error(one))?;
            let id = sys::rd_kafka_TopicDescription_topic_id(one);
            let (high, low) = (
                sys::rd_kafka_Uuid_most_significant_bits(id),
                sys::rd_kafka_Uuid_least_significant_bits(id),
            );
            // Brokers before 2.8 have no topic ids and send zero.
            if (high, low) != (0, 0) {
                ids.insert(name, format!("{high:016x}{low:016x}"));
            }
        }
    }
    Ok(ids)
}

//! Admin calls on the raw library. Each follows one shape: make the request's objects, submit, wait for the one event on a
//! queue of our own, read it, destroy everything.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::ptr;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;
use rdkafka_sys::RDKafka;
use rdkafka_sys::bindings::{
    rd_kafka_AdminOptions_t, rd_kafka_AlterConfigOpType_t as AlterOp, rd_kafka_ConfigResource_t,
    rd_kafka_ConfigSource_t as Source, rd_kafka_IsolationLevel_t as Isolation,
    rd_kafka_OffsetSpec_t as Spec, rd_kafka_ResourceType_t as Resource, rd_kafka_admin_op_t as Op,
    rd_kafka_event_t, rd_kafka_queue_t, rd_kafka_resp_err_t, rd_kafka_topic_partition_t,
    rd_kafka_topic_result_t,
};

use super::super::error::KafkaError;
use super::super::ffi::{check, millis, text};
use super::super::list;
use super::super::record::{Committed, OffsetCommit, TopicPartition};
use super::{NewTopic, OffsetQuery, TopicSetting};

/// Calls a destructor of the library when dropped.
pub(super) struct Owned<T> {
    pub(super) pointer: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes over what a constructor returned; null means that it refused its arguments.
    pub(super) fn new(
        operation: &'static str,
        pointer: *mut T,
        destroy: unsafe extern "C" fn(*mut T),
    ) -> Result<Self, KafkaError> {
        if pointer.is_null() {
            return Err(KafkaError::new(
                operation,
                Code::InvalidArgument,
                "the library refused the arguments",
            ));
        }
        Ok(Self { pointer, destroy })
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the matching constructor, not null, destroyed once.
        unsafe { (self.destroy)(self.pointer) }
    }
}

pub(super) fn c_string(operation: &'static str, value: &str) -> Result<CString, KafkaError> {
    CString::new(value).map_err(|_| {
        KafkaError::new(
            operation,
            Code::InvalidArgument,
            format!("{value:?} holds a zero byte"),
        )
    })
}

/// What an error object says; null is success. The object stays its owner's.
pub(super) fn check_object(
    operation: &'static str,
    about: &str,
    error: *const sys::bindings::rd_kafka_error_t,
) -> Result<(), KafkaError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null and alive.
    let (code, words) = unsafe {
        (
            sys::rd_kafka_error_code(error),
            text(sys::rd_kafka_error_string(error)),
        )
    };
    if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    Err(KafkaError::new(
        operation,
        code.into(),
        format!("{about}: {words}"),
    ))
}

/// A submitted request's answer; the queue outlives it.
pub(super) struct Answer {
    pub(super) event: Owned<rd_kafka_event_t>,
    _queue: Owned<rd_kafka_queue_t>,
}

pub(super) struct Request {
    operation: &'static str,
    client: *mut RDKafka,
    options: Owned<rd_kafka_AdminOptions_t>,
    queue: Owned<rd_kafka_queue_t>,
    timeout: Duration,
}

impl Request {
    pub(super) fn new(
        operation: &'static str,
        client: *mut RDKafka,
        op: Op,
        timeout: Duration,
    ) -> Result<Self, KafkaError> {
        // SAFETY: `client` is alive: the caller borrows its owner. Both results are ours.
        let (options, queue) = unsafe {
            (
                Owned::new(
                    operation,
                    sys::rd_kafka_AdminOptions_new(client, op),
                    sys::rd_kafka_AdminOptions_destroy,
                )?,
                Owned::new(
                    operation,
                    sys::rd_kafka_queue_new(client),
                    sys::rd_kafka_queue_destroy,
                )?,
            )
        };
        let mut words = [0 as c_char; 256];
        // SAFETY: the options are alive; the buffer's length is told.
        check(operation, unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.pointer,
                millis(timeout),
                words.as_mut_ptr(),
                words.len(),
            )
        })?;
        Ok(Self {
            operation,
            client,
            options,
            queue,
            timeout,
        })
    }

    fn validate_only(self, yes: bool) -> Result<Self, KafkaError> {
        let mut words = [0 as c_char; 256];
        // SAFETY: as above.
        check(self.operation, unsafe {
            sys::rd_kafka_AdminOptions_set_validate_only(
                self.options.pointer,
                i32::from(yes),
                words.as_mut_ptr(),
                words.len(),
            )
        })?;
        Ok(self)
    }

    /// Submits and waits for the answer.
    pub(super) fn submit(
        self,
        submit: impl FnOnce(*mut RDKafka, *const rd_kafka_AdminOptions_t, *mut rd_kafka_queue_t),
    ) -> Result<Answer, KafkaError> {
        submit(self.client, self.options.pointer, self.queue.pointer);
        // The library answers by itself when the time is up; the second is for that answer to arrive.
        let until = Instant::now() + self.timeout + Duration::from_secs(1);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // SAFETY: the queue is ours and alive.
            let event = unsafe { sys::rd_kafka_queue_poll(self.queue.pointer, millis(left)) };
            if event.is_null() {
                if left.is_zero() {
                    return Err(KafkaError::new(
                        self.operation,
                        Code::OperationTimedOut,
                        "no answer in time",
                    ));
                }
                continue;
            }
            let answer = Answer {
                event: Owned {
                    pointer: event,
                    destroy: sys::rd_kafka_event_destroy,
                },
                _queue: self.queue,
            };
            // SAFETY: the event is alive.
            let (code, words) = unsafe {
                (
                    sys::rd_kafka_event_error(event),
                    text(sys::rd_kafka_event_error_string(event)),
                )
            };
            if code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(KafkaError::new(self.operation, code.into(), words));
            }
            return Ok(answer);
        }
    }
}

/// Reads the results of calls that answer per topic.
///
/// # Safety
/// `results` must hold `count` results that are alive.
unsafe fn check_topics(
    operation: &'static str,
    results: *mut *const rd_kafka_topic_result_t,
    count: usize,
) -> Result<(), KafkaError> {
    for i in 0..count {
        // SAFETY: by contract.
        let (code, name, words) = unsafe {
            let one = *results.add(i);
            (
                sys::rd_kafka_topic_result_error(one),
                text(sys::rd_kafka_topic_result_name(one)),
                text(sys::rd_kafka_topic_result_error_string(one)),
            )
        };
        if code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::new(
                operation,
                code.into(),
                format!("{name}: {words}"),
            ));
        }
    }
    Ok(())
}

pub(super) fn create_topics(
    client: *mut RDKafka,
    topics: &[NewTopic],
    validate_only: bool,
    timeout: Duration,
) -> Result<(), KafkaError> {
    const CREATE: &str = "create topics";
    if topics.is_empty() {
        return Ok(());
    }
    let mut made = Vec::with_capacity(topics.len());
    for topic in topics {
        let name = c_string(CREATE, &topic.name)?;
        let mut words = [0 as c_char; 256];
        // SAFETY: name and buffer are alive; the library copies them.
        let pointer = unsafe {
            sys::rd_kafka_NewTopic_new(
                name.as_ptr(),
                topic.partitions,
                topic.replication,
                words.as_mut_ptr(),
                words.len(),
            )
        };
        if pointer.is_null() {
            return Err(KafkaError::new(
                CREATE,
                Code::InvalidArgument,
                format!("{}: {}", topic.name, text(words.as_ptr())),
            ));
        }
        let new = Owned::new(CREATE, pointer, sys::rd_kafka_NewTopic_destroy)?;
        for (key, value) in &topic.settings {
            let (key, value) = (c_string(CREATE, key)?, c_string(CREATE, value)?);
            // SAFETY: all three are alive; the library copies the strings.
            check(CREATE, unsafe {
                sys::rd_kafka_NewTopic_set_config(new.pointer, key.as_ptr(), value.as_ptr())
            })?;
        }
        made.push(new);
    }
    let mut pointers: Vec<_> = made.iter().map(|one| one.pointer).collect();
    let answer = Request::new(CREATE, client, Op::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout)?
        .validate_only(validate_only)?
        // SAFETY: everything is alive for the call, which copies the topics.
        .submit(|client, options, queue| unsafe {
            sys::rd_kafka_CreateTopics(
                client,
                pointers.as_mut_ptr(),
                pointers.len(),
                options,
                queue,
            );
        })?;
    // SAFETY: the event is of this call; its results live as long as it.
    unsafe {
        let result = sys::rd_kafka_event_CreateTopics_result(answer.event.pointer);
        let mut count = 0;
        let topics = sys::rd_kafka_CreateTopics_result_topics(result, &mut count);
        check_topics(CREATE, topics, count)
    }
}

pub(super) fn create_partitions(
    client: *mut RDKafka,
    topic: &str,
    total: usize,
    validate_only: bool,
    timeout: Duration,
) -> Result<(), KafkaError> {
    const ADD: &str = "add partitions";
    let name = c_string(ADD, topic)?;
    let mut words = [0 as c_char; 256];
    // SAFETY: name and buffer are alive; the library copies them.
    let new = Owned::new(
        ADD,
        unsafe {
            sys::rd_kafka_NewPartitions_new(name.as_ptr(), total, words.as_mut_ptr(), words.len())
        },
        sys::rd_kafka_NewPartitions_destroy,
    )?;
    let mut pointers = [new.pointer];
    let answer = Request::new(ADD, client, Op::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, timeout)?
        .validate_only(validate_only)?
        // SAFETY: everything is alive for the call, which copies the request.
        .submit(|client, options, queue| unsafe {
            sys::rd_kafka_CreatePartitions(client, pointers.as_mut_ptr(), 1, options, queue);
        })?;
    // SAFETY: the event is of this call; its results live as long as it.
    unsafe {
        let result = sys::rd_kafka_event_CreatePartitions_result(answer.event.pointer);
        let mut count = 0;
        let topics = sys::rd_kafka_CreatePartitions_result_topics(result, &mut count);
        check_topics(ADD, topics, count)
    }
}

pub(super) fn delete_topics(
    client: *mut RDKafka,
    topics: &[&str],
    timeout: Duration,
) -> Result<(), KafkaError> {
    const DELETE: &str = "delete topics";
    if topics.is_empty() {
        return Ok(());
    }
    let mut made = Vec::with_capacity(topics.len());
    for topic in topics {
        let name = c_string(DELETE, topic)?;
        // SAFETY: the name is alive; the library copies it.
        made.push(Owned::new(
            DELETE,
            unsafe { sys::rd_kafka_DeleteTopic_new(name.as_ptr()) },
            sys::rd_kafka_DeleteTopic_destroy,
        )?);
    }
    let mut pointers: Vec<_> = made.iter().map(|one| one.pointer).collect();
    let answer = Request::new(DELETE, client, Op::RD_KAFKA_ADMIN_OP_DELETETOPICS, timeout)?
        // SAFETY: everything is alive for the call, which copies the request.
        .submit(|client, options, queue| unsafe {
            sys::rd_kafka_DeleteTopics(
                client,
                pointers.as_mut_ptr(),
                pointers.len(),
                options,
                queue,
            );
        })?;
    // SAFETY: the event is of this call; its results live as long as it.
    unsafe {
        let result = sys::rd_kafka_event_DeleteTopics_result(answer.event.pointer);
        let mut count = 0;
        let topics = sys::rd_kafka_DeleteTopics_result_topics(result, &mut count);
        check_topics(DELETE, topics, count)
    }
}

fn topic_resource(
    operation: &'static str,
    topic: &str,
) -> Result<Owned<rd_kafka_ConfigResource_t>, KafkaError> {
    let name = c_string(operation, topic)?;
    // SAFETY: the name is alive; the library copies it.
    Owned::new(
        operation,
        unsafe {
            sys::rd_kafka_ConfigResource_new(Resource::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr())
        },
        sys::rd_kafka_ConfigResource_destroy,
    )
}

/// # Safety
/// `resource` must be alive.
unsafe fn check_resource(
    operation: &'static str,
    resource: *const rd_kafka_ConfigResource_t,
) -> Result<String, KafkaError> {
    // SAFETY: by contract.
    let (code, name, words) = unsafe {
        (
            sys::rd_kafka_ConfigResource_error(resource),
            text(sys::rd_kafka_ConfigResource_name(resource)),
            text(sys::rd_kafka_ConfigResource_error_string(resource)),
        )
    };
    if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        Ok(name)
    } else {
        Err(KafkaError::new(
            operation,
            code.into(),
            format!("{name}: {words}"),
        ))
    }
}

pub(super) fn describe_configs(
    client: *mut RDKafka,
    topics: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, BTreeMap<String, TopicSetting>>, KafkaError> {
    const READ: &str = "read topic settings";
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    let resources = topics
        .iter()
        .map(|topic| topic_resource(READ, topic))
        .collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<_> = resources.iter().map(|one| one.pointer).collect();
    let answer = Request::new(READ, client, Op::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout)?
        // SAFETY: everything is alive for the call, which copies the request.
        .submit(|client, options, queue| unsafe {
            sys::rd_kafka_DescribeConfigs(
                client,
                pointers.as_mut_ptr(),
                pointers.len(),
                options,
                queue,
            );
        })?;
    let mut all = BTreeMap::new();
    // SAFETY: the event is of this call; its results live as long as it, and the counts are the library's.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConfigs_result(answer.event.pointer);
        let mut count = 0;
        let described = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        for i in 0..count {
            let resource = *described.add(i);
            let name = check_resource(READ, resource)?;
            let mut entries = 0;
            let configs = sys::rd_kafka_ConfigResource_configs(resource, &mut entries);
            let mut settings = BTreeMap::new();
            for j in 0..entries {
                let entry = *configs.add(j);
                let value = sys::rd_kafka_ConfigEntry_value(entry);
                settings.insert(
                    text(sys::rd_kafka_ConfigEntry_name(entry)),
                    TopicSetting {
                        value: (!value.is_null()).then(|| text(value)),
                        is_own: sys::rd_kafka_ConfigEntry_source(entry)
                            == Source::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG,
                    },
                );
            }
            all.insert(name, settings);
        }
    }
    Ok(all)
}

pub(super) fn incremental_alter_configs(
    client: *mut RDKafka,
    topic: &str,
    set: &BTreeMap<String, String>,
    unset: &[String],
    validate_only: bool,
    timeout: Duration,
) -> Result<(), KafkaError> {
    const ALTER: &str = "change topic settings";
    if set.is_empty() && unset.is_empty() {
        return Ok(());
    }
    let resource = topic_resource(ALTER, topic)?;
    let changes = set
        .iter()
        .map(|(key, value)| (key, AlterOp::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, Some(value)))
        .chain(
            unset
                .iter()
                .map(|key| (key, AlterOp::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, None)),
        );
    for (key, op, value) in changes {
        let key = c_string(ALTER, key)?;
        let value = value.map(|value| c_string(ALTER, value)).transpose()?;
        // SAFETY: all are alive; the library copies the strings. The error, if any, is ours.
        unsafe {
            let error = sys::rd_kafka_ConfigResource_add_incremental_config(
                resource.pointer,
                key.as_ptr(),
                op,
                value.as_ref().map_or(ptr::null(), |v| v.as_ptr()),
            );
            let outcome = check_object(ALTER, topic, error);
            if !error.is_null() {
                sys::rd_kafka_error_destroy(error);
            }
            outcome?;
        }
    }
    let mut pointers = [resource.pointer];
    let answer = Request::new(
        ALTER,
        client,
        Op::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS,
        timeout,
    )?
    .validate_only(validate_only)?
    // SAFETY: everything is alive for the call, which copies the request.
    .submit(|client, options, queue| unsafe {
        sys::rd_kafka_IncrementalAlterConfigs(client, pointers.as_mut_ptr(), 1, options, queue);
    })?;
    // SAFETY: the event is of this call; its results live as long as it.
    unsafe {
        let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(answer.event.pointer);
        let mut count = 0;
        let resources = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count);
        for i in 0..count {
            check_resource(ALTER, *resources.add(i))?;
        }
    }
    Ok(())
}

pub(super) fn delete_records(
    client: *mut RDKafka,
    before: &[(TopicPartition, i64)],
    timeout: Duration,
) -> Result<(), KafkaError> {
    const DELETE: &str = "delete records";
    if before.is_empty() {
        return Ok(());
    }
    let offsets: Vec<OffsetCommit> = before
        .iter()
        .map(|(tp, offset)| OffsetCommit::new(tp.clone(), *offset))
        .collect();
    let list = list::commits(&offsets)?;
    // SAFETY: the list is alive; the library copies it.
    let request = Owned::new(
        DELETE,
        unsafe { sys::rd_kafka_DeleteRecords_new(list.ptr()) },
        sys::rd_kafka_DeleteRecords_destroy,
    )?;
    let mut pointers = [request.pointer];
    let answer = Request::new(DELETE, client, Op::RD_KAFKA_ADMIN_OP_DELETERECORDS, timeout)?
        // SAFETY: everything is alive for the call, which copies the request.
        .submit(|client, options, queue| unsafe {
            sys::rd_kafka_DeleteRecords(client, pointers.as_mut_ptr(), 1, options, queue);
        })?;
    // SAFETY: the event is of this call; the list in it lives as long as it. The call as a whole succeeds even when each
    // partition failed, so each is looked at.
    let elements = unsafe {
        let result = sys::rd_kafka_event_DeleteRecords_result(answer.event.pointer);
        list::elements_of(sys::rd_kafka_DeleteRecords_result_offsets(result))
    };
    elements
        .into_iter()
        .try_for_each(|element| element.ok(DELETE).map(drop))
}

pub(super) fn list_offsets(
    client: *mut RDKafka,
    of: &[TopicPartition],
    query: OffsetQuery,
    timeout: Duration,
) -> Result<BTreeMap<TopicPartition, i64>, KafkaError> {
    const LIST: &str = "look up offsets";
    let (spec, isolation) = match query {
        OffsetQuery::Beginning => (
            Spec::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64,
            Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        ),
        OffsetQuery::End => (
            Spec::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
            Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        ),
        OffsetQuery::StableEnd => (
            Spec::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
            Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
        ),
        OffsetQuery::AtOrAfter(time) => (
            time.max(0),
            Isolation::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        ),
    };
    let list = list::partitions(of);
    set_raw_offsets(&list, spec);
    let request = Request::new(LIST, client, Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS, timeout)?;
    // SAFETY: the options are alive. The error, if any, is ours.
    unsafe {
        let error =
            sys::rd_kafka_AdminOptions_set_isolation_level(request.options.pointer, isolation);
        let outcome = check_object(LIST, "isolation level", error);
        if !error.is_null() {
            sys::rd_kafka_error_destroy(error);
        }
        outcome?;
    }
    // SAFETY: everything is alive for the call, which copies the list.
    let answer = request.submit(|client, options, queue| unsafe {
        sys::rd_kafka_ListOffsets(client, list.ptr(), options, queue);
    })?;
    let mut found = BTreeMap::new();
    // SAFETY: the event is of this call; its results live as long as it, and the count is the library's.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(answer.event.pointer);
        let mut count = 0;
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
        for i in 0..count {
            let raw = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i));
            let element = list::element_of(&*raw.cast::<rd_kafka_topic_partition_t>()).ok(LIST)?;
            found.insert(element.topic_partition, element.offset);
        }
    }
    Ok(found)
}

/// Writes one raw value into every element: for this call a negative one is a question, which `Offset` cannot say.
fn set_raw_offsets(list: &TopicPartitionList, value: i64) {
    // SAFETY: the list is ours alone and alive; `cnt` elements lie at `elems`.
    unsafe {
        let raw = &mut *list.ptr();
        for i in 0..usize::try_from(raw.cnt).unwrap_or(0) {
            (*raw.elems.add(i)).offset = value;
        }
    }
}

pub(super) fn group_offsets(
    client: *mut RDKafka,
    group: &str,
    of: Option<&[TopicPartition]>,
    timeout: Duration,
) -> Result<Vec<Committed>, KafkaError> {
    const READ: &str = "read a group's offsets";
    let name = c_string(READ, group)?;
    let list = of.map(list::partitions);
    // SAFETY: name and list are alive; the library copies them. A null list asks for all partitions.
    let query = Owned::new(
        READ,
        unsafe {
            sys::rd_kafka_ListConsumerGroupOffsets_new(
                name.as_ptr(),
                list.as_ref()
                    .map_or(ptr::null(), |list| list.ptr().cast_const()),
            )
        },
        sys::rd_kafka_ListConsumerGroupOffsets_destroy,
    )?;
    let mut pointers = [query.pointer];
    let answer = Request::new(
        READ,
        client,
        Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS,
        timeout,
    )?
    // SAFETY: everything is alive for the call, which copies the request.
    .submit(|client, options, queue| unsafe {
        sys::rd_kafka_ListConsumerGroupOffsets(client, pointers.as_mut_ptr(), 1, options, queue);
    })?;
    // SAFETY: the event is of this call; its results live as long as it.
    let elements = unsafe {
        let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(answer.event.pointer);
        let mut count = 0;
        let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
        read_groups(READ, groups, count)?
    };
    Ok(elements
        .into_iter()
        .map(|element| Committed {
            next_offset: element.real_offset(),
            topic_partition: element.topic_partition,
            metadata: element.metadata,
        })
        .collect())
}

pub(super) fn set_group_offsets(
    client: *mut RDKafka,
    group: &str,
    offsets: &[OffsetCommit],
    timeout: Duration,
) -> Result<(), KafkaError> {
    const SET: &str = "set a group's offsets";
    if offsets.is_empty() {
        return Ok(());
    }
    let name = c_string(SET, group)?;
    let list = list::commits(offsets)?;
    // SAFETY: name and list are alive; the library copies them.
    let change = Owned::new(
        SET,
        unsafe { sys::rd_kafka_AlterConsumerGroupOffsets_new(name.as_ptr(), list.ptr()) },
        sys::rd_kafka_AlterConsumerGroupOffsets_destroy,
    )?;
    let mut pointers = [change.pointer];
    let answer = Request::new(
        SET,
        client,
        Op::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS,
        timeout,
    )?
    // SAFETY: everything is alive for the call, which copies the request.
    .submit(|client, options, queue| unsafe {
        sys::rd_kafka_AlterConsumerGroupOffsets(client, pointers.as_mut_ptr(), 1, options, queue);
    })?;
    // SAFETY: the event is of this call; its results live as long as it.
    unsafe {
        let result = sys::rd_kafka_event_AlterConsumerGroupOffsets_result(answer.event.pointer);
        let mut count = 0;
        let groups = sys::rd_kafka_AlterConsumerGroupOffsets_result_groups(result, &mut count);
        read_groups(SET, groups, count).map(drop)
    }
}

/// # Safety
/// `groups` must hold `count` results that are alive.
unsafe fn read_groups(
    operation: &'static str,
    groups: *mut *const sys::bindings::rd_kafka_group_result_t,
    count: usize,
) -> Result<Vec<list::Element>, KafkaError> {
    let mut all = Vec::new();
    for i in 0..count {
        // SAFETY: by contract.
        let partitions = unsafe {
            let one = *groups.add(i);
            check_object(
                operation,
                &text(sys::rd_kafka_group_result_name(one)),
                sys::rd_kafka_group_result_error(one),
            )?;
            list::elements_of(sys::rd_kafka_group_result_partitions(one))
        };
        for element in partitions {
            all.push(element.ok(operation)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_zero_byte_is_refused_and_not_cut() {
        let error = c_string("create topics", "a\0b").unwrap_err();
        assert!(error.to_string().contains("zero byte"));
    }

    #[test]
    fn a_question_is_written_into_every_element() {
        let list = list::partitions(&[TopicPartition::new("a", 0), TopicPartition::new("a", 1)]);
        set_raw_offsets(&list, -2);
        let offsets: Vec<_> = list::elements(&list).iter().map(|e| e.offset).collect();
        assert_eq!(offsets, [-2, -2]);
    }
}

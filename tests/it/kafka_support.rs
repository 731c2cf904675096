//! Topics, records and waiting for the tests of the Kafka layer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice::config::KafkaConfig;
use sluice::dev::kafka::LocalKafka;
use sluice::kafka::{
    AckProducer, Admin, Batch, BatchLimits, Consumer, ConsumerOptions, Message, NewTopic, Reader,
    Record, RecordRef, StartAt, TopicPartition, deadline,
};

/// How long a test waits for what must come; only a failing one waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The shared broker, with timeouts that keep failing tests short.
pub fn config() -> KafkaConfig {
    let kafka = LocalKafka::shared().unwrap_or_else(|error| panic!("{error}"));
    config_at(kafka.bootstrap())
}

pub fn config_at(bootstrap: &str) -> KafkaConfig {
    let mut config = KafkaConfig::at(bootstrap);
    config.consumer.session_timeout_ms = 6_000;
    config.consumer.heartbeat_interval_ms = 500;
    config.consumer.max_poll_interval_ms = 6_000;
    config.statistics_interval_ms = 200;
    config
}

/// A name that no other test uses.
pub fn unique(what: &str) -> String {
    format!("kt.{what}.{:08x}", fastrand::u32(..))
}

/// Makes a topic with a name of its own.
pub fn topic(config: &KafkaConfig, what: &str, partitions: i32) -> String {
    topic_with(config, what, partitions, &[])
}

pub fn topic_with(
    config: &KafkaConfig,
    what: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> String {
    let name = unique(what);
    let new = NewTopic {
        name: name.clone(),
        partitions,
        replication: 1,
        settings: settings
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    };
    Admin::open(config).unwrap().create(&[new], false).unwrap();
    name
}

pub fn options(group: &str, instance: Option<&str>) -> ConsumerOptions {
    ConsumerOptions {
        role: "test".to_owned(),
        group: group.to_owned(),
        instance: instance.map(str::to_owned),
    }
}

pub fn member(config: &KafkaConfig, group: &str, topics: &[&str]) -> Consumer {
    let consumer = Consumer::open(config, &options(group, None)).unwrap();
    consumer.subscribe(topics).unwrap();
    consumer
}

pub const QUICK: BatchLimits = BatchLimits {
    records: 500,
    bytes: 1 << 20,
    wait: Duration::from_millis(100),
    linger: Duration::ZERO,
};

/// Polls until `enough` says so of everything read.
pub fn read_until(consumer: &Consumer, enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
    let until = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    while !enough(&read) {
        assert!(
            Instant::now() < until,
            "gave up after {} records",
            read.len()
        );
        read.extend(consumer.poll_batch(QUICK, &mut ()).unwrap());
    }
    read
}

/// Writes `payloads` with one key each, acknowledged; payload `n` goes to partition `n % partitions` if given.
pub fn write(
    config: &KafkaConfig,
    topic: &str,
    partitions: Option<i32>,
    payloads: impl IntoIterator<Item = String>,
) {
    let producer = AckProducer::open(config, "test").unwrap();
    let batch = Batch::new();
    for (n, payload) in payloads.into_iter().enumerate() {
        let mut record = Record::new(topic, payload.clone(), payload);
        record.partition = partitions.map(|p| n as i32 % p);
        producer.send(&batch, record.as_ref()).unwrap();
    }
    block_on(batch.wait(deadline(PATIENCE))).unwrap();
}

/// All committed records of a topic.
pub fn read_all(config: &KafkaConfig, topic: &str) -> Vec<Message> {
    let mut reader = Reader::open_all(config, "test", topic, StartAt::Beginning).unwrap();
    let mut all = Vec::new();
    reader.read_to_end(PATIENCE, |m| all.push(m)).unwrap();
    all
}

pub fn payloads<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<String> {
    messages.into_iter().map(payload).collect()
}

pub fn payload(message: &Message) -> String {
    String::from_utf8(message.payload.as_ref().unwrap().to_vec()).unwrap()
}

pub fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("{n:06}")).collect()
}

/// The offsets after the last message of each partition.
pub fn after(messages: &[Message]) -> BTreeMap<TopicPartition, i64> {
    messages
        .iter()
        .map(|m| (m.topic_partition(), m.offset + 1))
        .collect()
}

/// The offsets of the first message of each partition.
pub fn first(messages: &[Message]) -> Vec<(TopicPartition, StartAt)> {
    let mut firsts = BTreeMap::new();
    for m in messages {
        firsts.entry(m.topic_partition()).or_insert(m.offset);
    }
    firsts
        .into_iter()
        .map(|(tp, offset)| (tp, StartAt::Offset(offset)))
        .collect()
}

pub fn plain<'a>(topic: &'a str, key: &'a str, payload: &'a str) -> RecordRef<'a> {
    RecordRef::new(topic, key.as_bytes(), payload.as_bytes())
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

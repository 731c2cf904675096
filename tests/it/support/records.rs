//! Reads topics as any Kafka consumer sees them, with nothing of the code under test in between.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// One record.
#[derive(Debug, Clone)]
pub struct Record {
    /// Where it lies.
    pub partition: i32,
    /// Where it lies.
    pub offset: i64,
    /// Key; empty when there is none.
    pub key: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Follows one topic from its beginning, read committed.
pub struct Tail {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
    /// What was read so far, in the order of arrival: ordered within a partition only.
    pub records: Vec<Record>,
}

impl Tail {
    /// Opens `topic`, waiting for it to be there.
    #[track_caller]
    pub fn open(bootstrap: &str, topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "sluice-test-reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "50")
            .create()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let partitions = loop {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10));
            if let Ok(metadata) = &metadata
                && let Some(found) = metadata.topics().first()
                && found.error().is_none()
                && !found.partitions().is_empty()
            {
                break i32::try_from(found.partitions().len()).unwrap();
            }
            assert!(Instant::now() < until, "no topic {topic}");
            std::thread::sleep(Duration::from_millis(50));
        };
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        Self {
            consumer,
            topic: topic.to_owned(),
            partitions,
            records: Vec::new(),
        }
    }

    /// Reads until every partition's end was seen. For a reader just opened: an end is told only once.
    #[track_caller]
    fn catch_up(&mut self) {
        let until = Instant::now() + Duration::from_secs(120);
        let mut ended: HashSet<i32> = HashSet::new();
        while i32::try_from(ended.len()).unwrap() < self.partitions {
            assert!(Instant::now() < until, "{}: no end of it", self.topic);
            match self.consumer.poll(Duration::from_millis(200)) {
                None => {}
                Some(Ok(m)) => {
                    ended.remove(&m.partition());
                    self.records.push(record(&m));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                }
                // The library goes on by itself; a cluster that stays away ends at the limit above.
                Some(Err(_)) => {}
            }
        }
    }

    /// Reads on until `enough` says so.
    #[track_caller]
    pub fn read_until(&mut self, what: &str, within: Duration, enough: impl Fn(&[Record]) -> bool) {
        let until = Instant::now() + within;
        while !enough(&self.records) {
            assert!(
                Instant::now() < until,
                "{}: {what}: not within {within:?}, {} records",
                self.topic,
                self.records.len()
            );
            // All that is there, before asking again: asking may cost a look at every record.
            let mut wait = Duration::from_millis(100);
            while let Some(polled) = self.consumer.poll(wait) {
                if let Ok(m) = polled {
                    self.records.push(record(&m));
                }
                wait = Duration::ZERO;
            }
        }
    }
}

/// The whole of a topic as it is now.
#[track_caller]
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Record> {
    let mut tail = Tail::open(bootstrap, topic);
    tail.catch_up();
    tail.records
}

fn record(m: &impl Message) -> Record {
    Record {
        partition: m.partition(),
        offset: m.offset(),
        key: m.key().unwrap_or_default().to_vec(),
        payload: m.payload().unwrap_or_default().to_vec(),
        headers: m
            .headers()
            .map(|headers| {
                headers
                    .iter()
                    .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec()))
                    .collect()
            })
            .unwrap_or_default(),
    }
}

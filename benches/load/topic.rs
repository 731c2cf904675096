//! What is in Kafka: counts ids against what was answered, and makes topics.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::drive::Outcome;
use crate::event;

const LOOKUP: Duration = Duration::from_secs(20);

/// Where a topic ends, by partition.
#[derive(Debug, Clone)]
pub struct Ends {
    topic: String,
    offsets: Vec<i64>,
}

/// How the topic and the answers agree.
#[derive(Debug, Clone, Copy, Default)]
pub struct Balance {
    /// Events that got 200.
    pub accepted: u64,
    /// Of these, in the topic.
    pub found: u64,
    /// In the topic more than once.
    pub doubled: u64,
    /// In the topic without a 200: answers that were lost on the way, or late ones. Not wrong.
    pub unanswered: u64,
}

impl Balance {
    /// Events that got 200 and are not in the topic.
    pub fn lost(&self) -> u64 {
        self.accepted - self.found
    }
}

fn consumer(bootstrap: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "sluice-load")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", "65536")
        .create()?)
}

impl Ends {
    /// The ends now.
    pub fn of(bootstrap: &str, topic: &str) -> Result<Self> {
        let consumer = consumer(bootstrap)?;
        let metadata = consumer.fetch_metadata(Some(topic), LOOKUP)?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(0, |t| t.partitions().len());
        if partitions == 0 {
            bail!("there is no topic {topic}");
        }
        let offsets = (0..i32::try_from(partitions)?)
            .map(|p| Ok(consumer.fetch_watermarks(topic, p, LOOKUP)?.1))
            .collect::<Result<_>>()?;
        Ok(Self {
            topic: topic.to_owned(),
            offsets,
        })
    }

    /// How many partitions.
    pub fn partitions(&self) -> i32 {
        i32::try_from(self.offsets.len()).unwrap_or(i32::MAX)
    }

    /// Records of all partitions.
    pub fn total(&self) -> i64 {
        self.offsets.iter().sum()
    }

    /// The beginning of a topic that nothing was deleted from.
    pub fn beginning(bootstrap: &str, topic: &str) -> Result<Self> {
        let mut ends = Self::of(bootstrap, topic)?;
        ends.offsets.fill(0);
        Ok(ends)
    }

    /// Calls `each` for every record that was written since, until the ends of now.
    pub fn read_since(&self, bootstrap: &str, each: impl FnMut(&[u8], &[u8])) -> Result<()> {
        self.read_some(bootstrap, usize::MAX, each)
    }

    /// [`Ends::read_since`], for at most `count_max` records.
    pub fn read_some(
        &self,
        bootstrap: &str,
        count_max: usize,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<()> {
        let consumer = consumer(bootstrap)?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(&self.offsets) {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&list)?;
        let mut ended = HashSet::new();
        let mut last = Instant::now();
        let mut count = 0;
        while ended.len() < self.offsets.len() && count < count_max {
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(m)) => {
                    last = Instant::now();
                    count += 1;
                    each(m.key().unwrap_or_default(), m.payload().unwrap_or_default());
                }
                Some(Err(KafkaError::PartitionEOF(p))) => {
                    ended.insert(p);
                }
                Some(Err(_)) | None if last.elapsed() < LOOKUP => {}
                Some(Err(error)) => return Err(error).context("reading the topic back"),
                None => bail!("the topic {} does not end", self.topic),
            }
        }
        Ok(())
    }

    /// Compares the topic with what was answered.
    pub fn balance(&self, bootstrap: &str, outcome: &Outcome) -> Result<Balance> {
        let events = outcome.events_per_request;
        let requests = outcome.accepted.iter().max().map_or(0, |m| m + 1);
        let mut accepted = vec![false; usize::try_from(requests)?];
        for index in &outcome.accepted {
            accepted[usize::try_from(*index)?] = true;
        }
        let marker = outcome.run.marker();
        let finder = memchr::memmem::Finder::new(marker.as_bytes());
        let mut seen: HashSet<u64> = HashSet::new();
        let mut balance = Balance {
            accepted: outcome.events(),
            ..Balance::default()
        };
        self.read_since(bootstrap, |_, payload| {
            // A record of ours names the id in the envelope and in the JSON that it carries.
            let mut here: Vec<u64> = event::numbers(&finder, payload).collect();
            here.sort_unstable();
            here.dedup();
            for number in here {
                let wanted = usize::try_from(number / events)
                    .ok()
                    .and_then(|index| accepted.get(index))
                    .copied()
                    .unwrap_or(false);
                match (seen.insert(number), wanted) {
                    (true, true) => balance.found += 1,
                    (true, false) => balance.unanswered += 1,
                    (false, _) => balance.doubled += 1,
                }
            }
        })?;
        Ok(balance)
    }
}

/// Makes a topic for a comparison: as many partitions as the original, one replica, the broker's defaults.
pub async fn create(bootstrap: &str, topic: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()?;
    let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for result in admin.create_topics(&[wanted], &AdminOptions::new()).await? {
        if let Err((name, code)) = result {
            bail!("could not create {name}: {code}");
        }
    }
    Ok(())
}

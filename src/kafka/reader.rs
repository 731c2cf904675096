//! Reads partitions of one topic without a group: for topics that are state (`config`, `seen`), for tools, and for tests.
//!
//! A reader takes the end of each partition when it is opened and knows when it has passed it. That is less simple than it
//! sounds, because the last offsets before an end may be transaction markers, aborted records or compacted ones, which no
//! reader ever sees: so it counts a partition as read when a record beyond the end came, *or* the library reported the end
//! of the partition at or after it. And the end is that of all records, committed or not: while a transaction is open there,
//! the reader waits for its outcome rather than miss what it commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::config::KafkaConfig;
use crate::fault::{Classify, Fault};

use super::admin::{self, OffsetQuery};
use super::client;
use super::error::KafkaError;
use super::list;
use super::plain::Plain;
use super::queue::{Event, Queue};
use super::record::{Message, StartAt, TopicPartition};

/// A reader of committed records, for one thread at a time.
pub struct Reader {
    /// Before the client: its drop waits for whoever holds a queue of it.
    queue: Queue,
    inner: BaseConsumer<Plain>,
    topic: Arc<str>,
    timeout: Duration,
    /// The next offset to come, per partition.
    next: BTreeMap<i32, i64>,
    /// The ends as they were when the reader was opened or last looked.
    ends: BTreeMap<i32, i64>,
}

impl Reader {
    /// Opens a reader of the given partitions; `name` ends the client id.
    ///
    /// # Errors
    /// When the topic or a partition does not exist, or the brokers do not answer in `lookup_timeout_ms`.
    pub fn open(
        config: &KafkaConfig,
        name: &str,
        topic: &str,
        partitions: &[(i32, StartAt)],
    ) -> Result<Self, KafkaError> {
        let inner = Self::client(config, name)?;
        Self::assign(config, inner, topic, partitions)
    }

    /// Opens a reader of all partitions of `topic`.
    ///
    /// # Errors
    /// As [`open`](Reader::open).
    pub fn open_all(
        config: &KafkaConfig,
        name: &str,
        topic: &str,
        start: StartAt,
    ) -> Result<Self, KafkaError> {
        const LIST: &str = "list partitions";
        let inner = Self::client(config, name)?;
        let metadata = inner
            .fetch_metadata(Some(topic), config.lookup_timeout())
            .map_err(|error| KafkaError::from_library(LIST, &error))?;
        let partitions: Vec<(i32, StartAt)> = metadata
            .topics()
            .iter()
            .filter(|t| t.name() == topic)
            .flat_map(|t| t.partitions().iter().map(|p| (p.id(), start)))
            .collect();
        if partitions.is_empty() {
            let words = format!("{topic} does not exist");
            return Err(KafkaError::new(LIST, Code::UnknownTopicOrPartition, words));
        }
        Self::assign(config, inner, topic, &partitions)
    }

    fn client(config: &KafkaConfig, name: &str) -> Result<BaseConsumer<Plain>, KafkaError> {
        // The library reads only in the name of a group; this one is never joined and nothing is committed to it.
        let group = format!("{}.reader", config.client_id);
        let mut settings = client::consumer(config, name, &group);
        settings
            .set("enable.partition.eof", "true")
            .set("statistics.interval.ms", "0")
            // Where the log begins may move between asking for it and reading there. An offset that the caller named
            // and that is gone is found out when it is assigned.
            .set("auto.offset.reset", "earliest");
        BaseConsumer::from_config_and_context(&settings, Plain::new(name))
            .map_err(|error| KafkaError::from_library("open a reader", &error))
    }

    fn assign(
        config: &KafkaConfig,
        inner: BaseConsumer<Plain>,
        topic: &str,
        partitions: &[(i32, StartAt)],
    ) -> Result<Self, KafkaError> {
        const ASSIGN: &str = "read partitions";
        let raw = inner.client().native_ptr();
        let queue = Queue::of_consumer(raw)
            .ok_or_else(|| KafkaError::new(ASSIGN, Code::Fail, "the library gave no queue"))?;
        let topic: Arc<str> = Arc::from(topic);
        let mut reader = Self {
            queue,
            inner,
            topic,
            timeout: config.lookup_timeout(),
            next: BTreeMap::new(),
            ends: BTreeMap::new(),
        };
        reader.seek_all(partitions)?;
        Ok(reader)
    }

    /// Reads exactly these partitions from now on, and takes their ends anew.
    ///
    /// # Errors
    /// As [`open`](Reader::open); an offset outside of the log is fatal.
    pub fn seek_all(&mut self, partitions: &[(i32, StartAt)]) -> Result<(), KafkaError> {
        let named: Vec<TopicPartition> = partitions
            .iter()
            .map(|(p, _)| TopicPartition::new(Arc::clone(&self.topic), *p))
            .collect();
        let begins = self.look_up(&named, OffsetQuery::Beginning)?;
        let ends = self.look_up(&named, OffsetQuery::End)?;
        let mut starts = Vec::with_capacity(named.len());
        for (tp, (partition, start)) in named.iter().zip(partitions) {
            let begin = begins.get(partition).copied().unwrap_or(0);
            let end = ends.get(partition).copied().unwrap_or(begin);
            let offset = match start {
                StartAt::Beginning => begin,
                StartAt::End => end,
                StartAt::Offset(offset) if (begin..=end).contains(offset) => *offset,
                StartAt::Offset(offset) => {
                    let words = format!("{tp} holds {begin} to {end}, not {offset}");
                    return Err(KafkaError::new("seek", Code::OffsetOutOfRange, words));
                }
            };
            starts.push((tp.clone(), offset));
        }
        self.inner
            .assign(&list::starts(&starts)?)
            .map_err(|error| KafkaError::from_library("read partitions", &error))?;
        self.next = starts
            .into_iter()
            .map(|(tp, offset)| (tp.partition, offset))
            .collect();
        self.ends = ends;
        Ok(())
    }

    /// Takes the ends anew, so that [`is_caught_up`](Reader::is_caught_up) speaks of what is there now.
    ///
    /// # Errors
    /// When a leader does not answer.
    pub fn look_for_ends(&mut self) -> Result<(), KafkaError> {
        let named: Vec<TopicPartition> = self
            .next
            .keys()
            .map(|p| TopicPartition::new(Arc::clone(&self.topic), *p))
            .collect();
        self.ends = self.look_up(&named, OffsetQuery::End)?;
        Ok(())
    }

    fn look_up(
        &self,
        of: &[TopicPartition],
        query: OffsetQuery,
    ) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let raw = self.inner.client().native_ptr();
        Ok(admin::list_offsets(raw, of, query, self.timeout)?
            .into_iter()
            .map(|(tp, offset)| (tp.partition, offset))
            .collect())
    }

    /// Waits for the next record for at most `timeout`.
    ///
    /// # Errors
    /// What librdkafka does not work around by itself.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<Message>, KafkaError> {
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.queue.poll(left, &self.topic) {
                None if left.is_zero() => return Ok(None),
                None | Some(Event::Other) => {}
                Some(Event::Message(message)) => {
                    self.next.insert(message.partition, message.offset + 1);
                    return Ok(Some(message));
                }
                Some(Event::End { partition, offset }) => {
                    let next = self.next.entry(partition).or_insert(offset);
                    *next = (*next).max(offset);
                    if self.is_caught_up() {
                        return Ok(None);
                    }
                }
                Some(Event::Error {
                    partition,
                    code,
                    words,
                    fatal,
                }) => self.judge(partition, code, &words, fatal)?,
                Some(Event::Log { facility, line }) => {
                    let observer = &self.inner.client().context().observer;
                    observer.log(RDKafkaLogLevel::Warning, &facility, &line);
                }
            }
        }
    }

    fn judge(
        &self,
        partition: Option<TopicPartition>,
        code: Code,
        words: &str,
        fatal: bool,
    ) -> Result<(), KafkaError> {
        let words = match partition {
            Some(tp) => format!("{tp}: {words}"),
            None => words.to_owned(),
        };
        let code = if fatal { Code::Fatal } else { code };
        let error = KafkaError::new("read records", code, words);
        match error.fault() {
            Fault::Transient { .. } if !error.is_missing() => {
                tracing::debug!("{error}");
                Ok(())
            }
            Fault::Transient { .. } | Fault::Permanent | Fault::Fatal => Err(error),
        }
    }

    /// Whether every record that was there when the reader last took the ends, and that is to be seen, has been returned.
    pub fn is_caught_up(&self) -> bool {
        self.ends
            .iter()
            .all(|(partition, end)| self.next.get(partition).is_some_and(|next| next >= end))
    }

    /// Hands each record up to the ends (and perhaps some after them) to `take`.
    ///
    /// # Errors
    /// As [`poll`](Reader::poll); transient when the ends were not reached in `timeout`.
    pub fn read_to_end(
        &mut self,
        timeout: Duration,
        mut take: impl FnMut(Message),
    ) -> Result<(), KafkaError> {
        let until = Instant::now() + timeout;
        while !self.is_caught_up() {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(message) = self.poll(left)? {
                take(message);
            } else if left.is_zero() {
                return Err(KafkaError::new(
                    "read to the end",
                    Code::OperationTimedOut,
                    format!("{}: at {:?} of {:?}", self.topic, self.next, self.ends),
                ));
            }
        }
        Ok(())
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The next offset to come, per partition.
    pub fn positions(&self) -> &BTreeMap<i32, i64> {
        &self.next
    }

    /// The ends as the reader last took them: the offset after the newest record, committed or not.
    pub fn ends(&self) -> &BTreeMap<i32, i64> {
        &self.ends
    }
}

//! Topics, their settings and offsets, as an operator sees them. Every call blocks.
//!
//! Settings change by IncrementalAlterConfigs only: the call that rust-rdkafka offers is the old one, which resets every
//! setting it does not name.

mod raw;
mod topic_ids;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer};

use crate::clock::UnixMs;
use crate::config::KafkaConfig;

use super::client;
use super::error::KafkaError;
use super::plain::Plain;
use super::record::{Committed, OffsetCommit, TopicPartition};

/// A client for administration. One call at a time.
pub struct Admin {
    /// A producer of the library is its lightest client; it produces nothing.
    client: BaseProducer<Plain>,
    /// For what groups have committed; see [`Admin::group_client`].
    groups: OnceLock<BaseConsumer<Plain>>,
    config: KafkaConfig,
    timeout: Duration,
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// What the cluster calls itself.
    pub cluster_id: Option<String>,
    /// Ids of the brokers that are up.
    pub brokers: Vec<i32>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Full name.
    pub name: String,
    /// In the order of their numbers.
    pub partitions: Vec<PartitionInfo>,
}

impl TopicInfo {
    /// The smallest replication factor of its partitions.
    pub fn replication(&self) -> usize {
        self.partitions
            .iter()
            .map(|p| p.replicas.len())
            .min()
            .unwrap_or(0)
    }

    fn is_usable(&self) -> bool {
        !self.partitions.is_empty() && self.partitions.iter().all(|p| p.leader.is_some())
    }
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Number, from 0.
    pub partition: i32,
    /// Broker that leads it, if one does.
    pub leader: Option<i32>,
    /// Brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
}

/// A setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSetting {
    /// Value; `None` when the broker does not show it (secrets).
    pub value: Option<String>,
    /// Whether it is set on the topic itself, rather than inherited from the broker.
    pub is_own: bool,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Full name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each; -1 takes the broker's default.
    pub replication: i32,
    /// Settings.
    pub settings: BTreeMap<String, String>,
}

/// Which offset to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The oldest record that is still there.
    Beginning,
    /// After the newest record, committed or not (the high watermark).
    End,
    /// After the newest record that readers of committed records see (the last stable offset).
    StableEnd,
    /// The first record at or after this time; the end when there is none.
    AtOrAfter(UnixMs),
}

impl Admin {
    /// Opens a client. Does not wait for the brokers.
    ///
    /// # Errors
    /// When the library refuses the settings.
    pub fn open(config: &KafkaConfig) -> Result<Self, KafkaError> {
        let client = BaseProducer::<Plain, NoCustomPartitioner>::from_config_and_context(
            &client::admin(config),
            Plain::new("admin"),
        )
        .map_err(|error| KafkaError::from_library("open an admin client", &error))?;
        Ok(Self {
            client,
            groups: OnceLock::new(),
            config: config.clone(),
            timeout: config.lookup_timeout(),
        })
    }

    /// The cluster's id and brokers.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn cluster(&self) -> Result<ClusterInfo, KafkaError> {
        let metadata = self.metadata(None)?;
        Ok(ClusterInfo {
            cluster_id: self.client.client().fetch_cluster_id(self.timeout),
            brokers: metadata.brokers().iter().map(|b| b.id()).collect(),
        })
    }

    /// All topics.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn topics(&self) -> Result<Vec<TopicInfo>, KafkaError> {
        Ok(self
            .metadata(None)?
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(read_topic)
            .collect())
    }

    /// One topic; `None` when it does not exist.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn topic(&self, name: &str) -> Result<Option<TopicInfo>, KafkaError> {
        // Asking for one topic by name would create it on brokers that create topics by themselves.
        Ok(self.topics()?.into_iter().find(|topic| topic.name == name))
    }

    /// Ids of topics, by name: 32 hexadecimal digits. A topic that was deleted and made again has another id; on brokers
    /// before 2.8 topics have none.
    ///
    /// # Errors
    /// When a topic does not exist or no broker answers.
    pub fn topic_ids(&self, topics: &[&str]) -> Result<BTreeMap<String, String>, KafkaError> {
        topic_ids::topic_ids(self.raw(), topics, self.timeout)
    }

    /// The settings of topics, by topic and name, inherited ones included.
    ///
    /// # Errors
    /// When a topic does not exist or no broker answers.
    pub fn settings(
        &self,
        topics: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, TopicSetting>>, KafkaError> {
        raw::describe_configs(self.raw(), topics, self.timeout)
    }

    /// Creates topics and waits until each has leaders. With `validate_only` only asks whether it could.
    ///
    /// # Errors
    /// The first refusal, with its topic; topics before and after it may have been created.
    pub fn create(&self, topics: &[NewTopic], validate_only: bool) -> Result<(), KafkaError> {
        raw::create_topics(self.raw(), topics, validate_only, self.timeout)?;
        if validate_only {
            return Ok(());
        }
        let until = Instant::now() + self.timeout;
        let mut missing: Vec<&str> = topics.iter().map(|t| t.name.as_str()).collect();
        while !missing.is_empty() {
            let known = self.topics()?;
            missing.retain(|name| !known.iter().any(|t| t.name == *name && t.is_usable()));
            if !missing.is_empty() {
                if Instant::now() > until {
                    return Err(KafkaError::new(
                        "create topics",
                        Code::OperationTimedOut,
                        format!("no leader yet for {}", missing.join(", ")),
                    ));
                }
                // Creation is asynchronous and the broker tells nobody when it is done.
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Raises the number of partitions of a topic to `total`. Keys move between partitions: the caller has asked whether
    /// that is wanted.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn add_partitions(
        &self,
        topic: &str,
        total: usize,
        validate_only: bool,
    ) -> Result<(), KafkaError> {
        raw::create_partitions(self.raw(), topic, total, validate_only, self.timeout)
    }

    /// Sets and unsets the named settings of a topic and leaves all others as they are.
    ///
    /// # Errors
    /// When the broker refuses; then none is changed.
    pub fn alter_settings(
        &self,
        topic: &str,
        set: &BTreeMap<String, String>,
        unset: &[String],
        validate_only: bool,
    ) -> Result<(), KafkaError> {
        raw::incremental_alter_configs(self.raw(), topic, set, unset, validate_only, self.timeout)
    }

    /// Deletes topics. For tests and dev mode; refuses a topic whose name does not begin with `prefix`, and an empty
    /// prefix.
    ///
    /// # Errors
    /// When a name is refused (then nothing is deleted) or the broker refuses.
    pub fn delete(&self, prefix: &str, topics: &[&str]) -> Result<(), KafkaError> {
        if let Some(foreign) = topics
            .iter()
            .find(|t| prefix.is_empty() || !t.starts_with(prefix))
        {
            return Err(KafkaError::new(
                "delete topics",
                Code::InvalidTopic,
                format!("{foreign:?} is not one of {prefix:?}"),
            ));
        }
        raw::delete_topics(self.raw(), topics, self.timeout)
    }

    /// Deletes the records before the given offsets. For tests and dev mode.
    ///
    /// # Errors
    /// When a partition refuses.
    pub fn delete_records(&self, before: &[(TopicPartition, i64)]) -> Result<(), KafkaError> {
        raw::delete_records(self.raw(), before, self.timeout)
    }

    /// Looks up one offset of each partition.
    ///
    /// # Errors
    /// When a partition does not exist or its leader does not answer.
    pub fn offsets(
        &self,
        of: &[TopicPartition],
        query: OffsetQuery,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaError> {
        list_offsets(self.raw(), of, query, self.timeout)
    }

    /// What any group has committed; for all its partitions when `of` is `None`.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub fn committed(
        &self,
        group: &str,
        of: Option<&[TopicPartition]>,
    ) -> Result<Vec<Committed>, KafkaError> {
        raw::group_offsets(self.group_client()?, group, of, self.timeout)
    }

    /// Overwrites what a group has committed. The group must have no members.
    ///
    /// # Errors
    /// When the group is in use or the coordinator does not answer.
    pub fn set_committed(&self, group: &str, offsets: &[OffsetCommit]) -> Result<(), KafkaError> {
        raw::set_group_offsets(self.group_client()?, group, offsets, self.timeout)
    }

    fn metadata(&self, topic: Option<&str>) -> Result<rdkafka::metadata::Metadata, KafkaError> {
        self.client
            .client()
            .fetch_metadata(topic, self.timeout)
            .map_err(|error| KafkaError::from_library("list topics", &error))
    }

    /// A client that belongs to a group, which it never joins. On one without, librdkafka 2.12 crashes when a coordinator
    /// answers that it is none (any more): `rd_kafka_handle_OffsetFetch` asks the client's own group to look again, and
    /// follows a null pointer. Seen each time a broker was restarted during the call.
    fn group_client(&self) -> Result<*mut rdkafka_sys::RDKafka, KafkaError> {
        if let Some(client) = self.groups.get() {
            return Ok(client.client().native_ptr());
        }
        let group = format!("{}.admin", self.config.client_id);
        let mut settings = client::consumer(&self.config, "admin", &group);
        settings.set("statistics.interval.ms", "0");
        let opened = BaseConsumer::from_config_and_context(&settings, Plain::new("admin"))
            .map_err(|error| KafkaError::from_library("open an admin client", &error))?;
        Ok(self.groups.get_or_init(|| opened).client().native_ptr())
    }

    fn raw(&self) -> *mut rdkafka_sys::RDKafka {
        // Serves what the library wants to log; nobody else polls this client.
        self.client.poll(Duration::ZERO);
        self.client.client().native_ptr()
    }
}

/// [`Admin::offsets`] through any client.
pub(super) fn list_offsets(
    client: *mut rdkafka_sys::RDKafka,
    of: &[TopicPartition],
    query: OffsetQuery,
    timeout: Duration,
) -> Result<BTreeMap<TopicPartition, i64>, KafkaError> {
    if of.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut found = raw::list_offsets(client, of, query, timeout)?;
    // A time after the last record has no offset: its place is the end.
    let late: Vec<TopicPartition> = found
        .iter()
        .filter(|(_, offset)| **offset < 0)
        .map(|(tp, _)| tp.clone())
        .collect();
    if !late.is_empty() {
        found.extend(raw::list_offsets(client, &late, OffsetQuery::End, timeout)?);
    }
    Ok(found)
}

fn read_topic(topic: &rdkafka::metadata::MetadataTopic) -> TopicInfo {
    let mut partitions: Vec<PartitionInfo> = topic
        .partitions()
        .iter()
        .map(|p| PartitionInfo {
            partition: p.id(),
            leader: (p.leader() >= 0).then(|| p.leader()),
            replicas: p.replicas().to_vec(),
            in_sync: p.isr().to_vec(),
        })
        .collect();
    partitions.sort_by_key(|p| p.partition);
    TopicInfo {
        name: topic.name().to_owned(),
        partitions,
    }
}

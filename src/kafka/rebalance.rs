//! What librdkafka tells of a group's changes, kept until the polling thread serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as LibraryError, KafkaResult};
use rdkafka::{ClientContext, TopicPartitionList};
use rdkafka_sys::RDKafkaRespErr;

use super::client::Observer;
use super::error::KafkaError;
use super::ffi;
use super::list;
use super::record::{StartAt, TopicPartition};

/// A change of the assignment that waits to be served by the next poll.
#[derive(Debug, Clone)]
pub(super) enum Rebalance {
    Assign(Vec<TopicPartition>),
    /// The listener was told of an assignment, and said where to begin.
    Begin(Vec<(TopicPartition, StartAt)>),
    Revoke {
        partitions: Vec<TopicPartition>,
        lost: bool,
    },
}

pub(super) struct Context {
    pub(super) observer: Arc<Observer>,
    /// Oldest first.
    pub(super) pending: Mutex<Vec<Rebalance>>,
    /// The consumer is being dropped: nobody polls any more.
    pub(super) unattended: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.observer.log(level, facility, line);
    }

    fn stats_raw(&self, json: &[u8]) {
        self.observer.stats(json);
    }

    fn error(&self, error: LibraryError, reason: &str) {
        self.observer.error(&error, reason);
    }
}

impl ConsumerContext for Context {
    /// Only notes what is to be done: `Consumer::poll` does it when this has returned, with the listener at hand.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        what: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assign = what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.unattended.load(Ordering::Acquire) {
            let raw = consumer.client().native_ptr();
            let result = if assign {
                ffi::incremental_assign(raw, list)
            } else {
                ffi::incremental_unassign(raw, list)
            };
            if let Err(error) = result {
                tracing::debug!("{error}");
            }
            return;
        }
        let partitions = list::elements(list)
            .into_iter()
            .map(|element| element.topic_partition)
            .collect();
        self.pending.lock().push(if assign {
            Rebalance::Assign(partitions)
        } else {
            Rebalance::Revoke {
                partitions,
                lost: consumer.assignment_lost(),
            }
        });
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            let error = KafkaError::from_library("commit offsets", &error);
            tracing::warn!("{error}; the next commit covers it");
        }
    }
}

/// Partitions in a log line.
pub(super) struct Names<'a>(pub(super) &'a [TopicPartition]);

impl std::fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, tp) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{tp}")?;
        }
        Ok(())
    }
}

//! Finding where a partition's chain ends.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;

use super::manifest::{Chain, ManifestError};
use super::patience::Patience;
use super::store::StoreError;
use crate::fault::{Classify, Fault};
use crate::kafka::{Admin, KafkaError, TopicPartition};
use crate::shutdown::Shutdown;

/// Why the end of a chain could not be found.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocateError {
    /// Kafka did not tell the topic's id.
    #[error("topic id: {0}")]
    Topic(#[from] KafkaError),
    /// The chain cannot be read.
    #[error(transparent)]
    Chain(#[from] ManifestError),
    /// The chain goes beyond the partition: the records it tells of were never in it.
    #[error(
        "the chain ends at {end} but the partition at {high}: was the topic made again under a cluster without topic ids?"
    )]
    Beyond {
        /// End of the chain.
        end: i64,
        /// End of the partition.
        high: i64,
    },
    /// There is nowhere to write to.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread ended early.
    #[error("a worker thread ended early: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Classify for LocateError {
    fn fault(&self) -> Fault {
        match self {
            Self::Topic(error) => error.fault(),
            Self::Chain(error) => error.fault(),
            Self::Store(error) => error.fault(),
            Self::Beyond { .. } | Self::Worker(_) => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Topic(_) => "topic_id",
            Self::Chain(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Beyond { .. } => "chain_beyond_partition",
            Self::Worker(_) => "worker",
        }
    }
}

/// Finds ends of chains.
#[derive(Clone)]
pub(super) struct Locator {
    pub(super) admin: Arc<Mutex<Admin>>,
    /// The store and our folder in it; none if the process was started without one, and without warehouses.
    pub(super) store: Option<(Arc<dyn ObjectStore>, Path)>,
    pub(super) shutdown: Shutdown,
}

impl Locator {
    /// The chain of a partition of `destination`'s topic, and the offset to go on at. Removes what a crash left of the
    /// chain's last race. Waits out outages, until shutdown begins.
    ///
    /// # Errors
    /// What no waiting mends, or an outage at shutdown.
    pub(super) async fn locate(
        &self,
        destination: &str,
        tp: &TopicPartition,
        hint: Option<i64>,
    ) -> Result<(Chain, i64), LocateError> {
        let mut patience = Patience::new("finding the end of a chain", &self.shutdown);
        loop {
            match self.try_locate(destination, tp, hint).await {
                Ok(found) => return Ok(found),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    async fn try_locate(
        &self,
        destination: &str,
        tp: &TopicPartition,
        hint: Option<i64>,
    ) -> Result<(Chain, i64), LocateError> {
        let (store, prefix) = self.store.as_ref().ok_or(StoreError::Missing)?;
        let admin = Arc::clone(&self.admin);
        let topic = tp.topic.to_string();
        let ids = tokio::task::spawn_blocking(move || admin.lock().topic_ids(&[&topic])).await??;
        let id = ids.get(&*tp.topic).map(String::as_str);
        let chain = Chain::new(
            Arc::clone(store),
            prefix,
            destination,
            &tp.topic,
            id,
            tp.partition,
        );
        match chain.last(hint).await? {
            None => Ok((chain, 0)),
            Some(last) => {
                let removed = chain.sweep(last.start).await?;
                if removed > 0 {
                    tracing::info!(partition = %tp, removed, "removed staging files of a lost race");
                }
                Ok((chain, last.end))
            }
        }
    }
}

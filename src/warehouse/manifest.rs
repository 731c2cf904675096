//! Manifests: which staging files exist. This is the first of the two commit points between Kafka and a table.
//!
//! # The rule
//! Rows reach a warehouse through files, and a file could be written twice: by a process that died after its upload and
//! was restarted, or by two processes that both believe they own a partition. So a file counts only if a **manifest** names
//! it, and a manifest is created with **put-if-absent** under a name that both writers must choose alike: topic, partition,
//! and the offset at which the batch starts. The first to create it wins; the object store decides, no clock and no lock.
//!
//! Each manifest says where the next one starts, so that they form a chain, and *the chain is the position*: a writer that
//! takes over a partition reads the chain's end and seeks there. What the consumer group has committed is only for lag
//! metrics and may be wrong in either direction.
//!
//! ```text
//!  log/sluice.warehouse.wh1.<topic id>/00003/
//!      00000000000000000000.json   [     0,  5 000)   tracks: a.parquet, order_completed: b.parquet
//!      00000000000000005000.json   [ 5 000, 12 345)   tracks: c.parquet
//!      00000000000000012345.json   <- the next batch, however large, must create exactly this name
//!  data/sluice.warehouse.wh1.<topic id>/00003/00000000000000005000/<schema>/tracks/<end>-<batch id>.parquet
//! ```
//!
//! # One race, worked through
//! Writer A owns partition 3 and has batched offsets 12 345 to 20 000. It stalls (a long pause of the machine) and the group
//! gives the partition to B. B finds the end 12 345, reads the same records, cuts at 18 000, uploads its files and creates
//! `…12345.json` with end 18 000. A wakes up, uploads its files, tries to create `…12345.json`, and is told that it exists.
//! A reads it: not its own batch id, so A lost. It deletes its own files, which nobody ever saw, and goes on at 18 000, if
//! the partition is still its own. Batches need not be deterministic for this: A and B cut differently and nothing doubled.
//!
//! # Lost answers
//! A PUT can succeed although its answer never came, and the retry then finds the name taken: by itself. The manifest holds
//! the id of the batch that made it, so a writer recognises its own and knows that it won.
//!
//! # What is cleaned up, and why that is safe
//! A process that dies between upload and manifest leaves files that nobody names. Whoever takes the partition over removes
//! them ([`Chain::sweep`]), but only once their race is decided: a manifest with their start offset exists and does not
//! name them. Files of an undecided race are left alone, however old: their writer may be about to win.
//!
//! # Why JSON
//! Manifests lie in object storage, not on a topic; people read them with the tools of their store, and a loader of another
//! version must too. Unknown fields are ignored, `version` is checked.
//!
//! # What the store must offer
//! `PUT` with `If-None-Match: *`, or its like. `object_store`'s local disk writes a temporary file and hard-links it to the
//! name, which is atomic and never shows half a manifest; the link is on disk before the answer because we ask for `fsync`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::columns::{self, Stored};
use super::files::{self, FileError, store_fault};
use crate::clock::UnixMs;
use crate::fault::{Classify, Fault};

/// The layout that this code writes. A loader refuses a newer one.
pub const VERSION: u32 = 1;

/// Which files exist for a range of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Layout, [`VERSION`].
    pub version: u32,
    /// The batch that made it: a writer recognises its own manifest by it.
    pub batch: Uuid,
    /// Destination the rows are for.
    pub destination: String,
    /// Topic the rows came from, with its id where the cluster tells it.
    pub chain: String,
    /// Partition of that topic.
    pub partition: i32,
    /// The end of the manifest before, which this one is named after.
    pub start: i64,
    /// First offset after the batch; the next manifest starts here.
    pub end: i64,
    /// Events read in the range. Less than its width where offsets are control records.
    pub events: u64,
    /// Of these, how many could not become rows and are in `dlq.warehouse`, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Workspace configuration that the rows were mapped under.
    pub config_revision: i64,
    /// When the batch was cut, in milliseconds since the Unix epoch.
    pub created_at: UnixMs,
    /// One entry per table.
    pub tables: Vec<StagedTable>,
}

/// The rows of one table of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedTable {
    /// Schema or dataset that the table belongs to.
    pub namespace: String,
    /// Table.
    pub table: String,
    /// Rows in the file.
    pub rows: u64,
    /// Where the file is.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Columns in the order of their first value.
    pub columns: Vec<StagedColumn>,
}

/// A column of a staging file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedColumn {
    /// Column of the warehouse.
    pub name: String,
    /// How the values are stored. A column with values of several types is listed once per type.
    pub stored: Stored,
}

impl StagedColumn {
    /// The columns of a staging file, in its order.
    pub fn of(schema: &Schema) -> Vec<Self> {
        let fields = schema.fields().iter();
        fields
            .filter_map(|field| {
                let (name, stored) = columns::warehouse_column(field)?;
                let name = name.to_owned();
                Some(Self { name, stored })
            })
            .collect()
    }
}

impl Manifest {
    /// The manifest's name in ledgers: unique over destinations, topics and partitions.
    pub fn id(&self) -> String {
        format!("{}/{:05}/{:020}", self.chain, self.partition, self.start)
    }

    /// Keys of all files it names.
    pub fn keys(&self) -> Vec<String> {
        self.tables.iter().map(|table| table.key.clone()).collect()
    }
}

/// Why the chain could not be read or extended.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The object store refused or did not answer.
    #[error("object store: {0}")]
    Store(#[from] object_store::Error),
    /// A manifest that is not one, or of a layout that this version does not know.
    #[error("manifest {key} cannot be used: {why}")]
    Unusable {
        /// The object.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A staging file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Classify for ManifestError {
    fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => store_fault(error),
            // Going on without it would load its range twice or never.
            Self::Unusable { .. } => Fault::Fatal,
            Self::File(error) => error.fault(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "object_store",
            Self::Unusable { .. } => "manifest_unusable",
            Self::File(error) => error.code(),
        }
    }
}

/// Who has the range that a writer wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Our manifest is in the chain.
    Won,
    /// Somebody else's is; ours is not, and its files are removed.
    Lost(Box<Manifest>),
}

/// The manifests of one partition.
#[derive(Debug, Clone)]
pub struct Chain {
    store: Arc<dyn ObjectStore>,
    /// Of one destination.
    root: Path,
    name: Arc<str>,
    partition: i32,
}

impl Chain {
    /// The chain of `partition` of `topic`, in the folder of its destination.
    ///
    /// `topic_id` is Kafka's: a topic that was deleted and made again starts a chain of its own. Without it, its offsets
    /// would fall into the old chain.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        prefix: &Path,
        destination: &str,
        topic: &str,
        topic_id: Option<&str>,
        partition: i32,
    ) -> Self {
        Self {
            store,
            root: prefix.clone().join(destination),
            name: chain_name(topic, topic_id).into(),
            partition,
        }
    }

    /// Topic and its id: what manifests and ledgers call the chain, together with the partition.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The last manifest. Its end is the offset to go on at, and the name of the next one; an empty chain begins at zero,
    /// whatever the oldest record's offset is, so that two writers that find it empty still choose the same name.
    ///
    /// `hint` is an offset that is probably near the end (the group's committed one); it only shortens the listing.
    ///
    /// # Errors
    /// The store does not answer, or the last manifest cannot be used.
    pub async fn last(&self, hint: Option<i64>) -> Result<Option<Manifest>, ManifestError> {
        let mut last = None;
        if let Some(hint) = hint.filter(|&hint| hint > 0) {
            last = self.last_after(Some(hint - 1)).await?;
        }
        if last.is_none() {
            last = self.last_after(None).await?;
        }
        let Some(start) = last else { return Ok(None) };
        match self.at(start).await? {
            Some(manifest) => Ok(Some(manifest)),
            None => Err(self.unusable(start, "it was listed but cannot be read")),
        }
    }

    /// The chains of all partitions of this topic that have one, by partition.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn siblings(&self) -> Result<Vec<Chain>, ManifestError> {
        let folder = self.root.clone().join("log").join(&*self.name);
        let listed = self.store.list_with_delimiter(Some(&folder)).await?;
        let mut partitions: Vec<i32> = listed
            .common_prefixes
            .iter()
            .filter_map(|path| path.filename()?.parse().ok())
            .collect();
        partitions.sort_unstable();
        let chain = |partition| Chain {
            partition,
            ..self.clone()
        };
        Ok(partitions.into_iter().map(chain).collect())
    }

    /// The manifest that starts at `start`, if the chain goes on there.
    ///
    /// # Errors
    /// The store does not answer, or the manifest cannot be used.
    pub async fn at(&self, start: i64) -> Result<Option<Manifest>, ManifestError> {
        let bytes = match self.store.get(&self.key(start)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.read(start, &bytes).map(Some)
    }

    /// Adds `manifest` to the end of the chain, if nobody else has added one there. If somebody has, its files are removed.
    ///
    /// # Errors
    /// The store does not answer; the manifest may be in the chain all the same, and claiming it again tells.
    pub async fn claim(&self, manifest: &Manifest) -> Result<Claim, ManifestError> {
        let body = serde_json::to_vec_pretty(manifest)
            .map_err(|error| self.unusable(manifest.start, &error.to_string()))?;
        let key = self.key(manifest.start);
        let put = self
            .store
            .put_opts(&key, PutPayload::from(body), PutMode::Create.into())
            .await;
        match put {
            Ok(_) => return Ok(Claim::Won),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(winner) = self.at(manifest.start).await? else {
            return Err(self.unusable(manifest.start, "it exists but cannot be read"));
        };
        if winner.batch == manifest.batch {
            return Ok(Claim::Won);
        }
        files::remove(&self.store, &manifest.keys()).await;
        Ok(Claim::Lost(Box::new(winner)))
    }

    /// Removes the files of the losers of the race for `start`, if it is decided. Returns how many.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn sweep(&self, start: i64) -> Result<usize, ManifestError> {
        let Some(winner) = self.at(start).await? else {
            return Ok(0);
        };
        let named = winner.keys();
        let listed: Vec<String> = self
            .store
            .list(Some(&self.race_folder(start)))
            .map_ok(|meta| meta.location.to_string())
            .try_collect()
            .await?;
        let unnamed: Vec<String> = listed
            .into_iter()
            .filter(|key| !named.contains(key))
            .collect();
        files::remove(&self.store, &unnamed).await;
        Ok(unnamed.len())
    }

    /// Where a staging file of this partition goes. All files of one race lie in one folder, so that its losers are found
    /// with one listing.
    pub fn file_key(
        &self,
        namespace: &str,
        table: &str,
        range: std::ops::Range<i64>,
        batch: Uuid,
    ) -> Path {
        let name = format!("{:020}-{}.parquet", range.end, batch.simple());
        self.race_folder(range.start)
            .join(namespace)
            .join(table)
            .join(name)
    }

    /// The store that files and manifests are in.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    fn race_folder(&self, start: i64) -> Path {
        self.root
            .clone()
            .join("data")
            .join(&*self.name)
            .join(format!("{:05}", self.partition))
            .join(format!("{start:020}"))
    }

    fn folder(&self) -> Path {
        self.root
            .clone()
            .join("log")
            .join(&*self.name)
            .join(format!("{:05}", self.partition))
    }

    fn key(&self, start: i64) -> Path {
        self.folder().join(format!("{start:020}.json"))
    }

    /// The start of the last manifest, of those after `after`.
    async fn last_after(&self, after: Option<i64>) -> Result<Option<i64>, ManifestError> {
        let folder = self.folder();
        let listing = match after {
            Some(after) => self.store.list_with_offset(Some(&folder), &self.key(after)),
            None => self.store.list(Some(&folder)),
        };
        let last = listing
            .try_fold(None, |last: Option<i64>, meta| async move {
                let start = meta
                    .location
                    .filename()
                    .and_then(|name| name.strip_suffix(".json"))
                    .and_then(|name| name.parse().ok());
                Ok(last.max(start))
            })
            .await?;
        Ok(last)
    }

    fn read(&self, start: i64, bytes: &Bytes) -> Result<Manifest, ManifestError> {
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| self.unusable(start, &error.to_string()))?;
        if manifest.version > VERSION {
            return Err(self.unusable(start, "it was written by a newer version"));
        }
        if manifest.start != start || manifest.end < start {
            return Err(self.unusable(start, "its range is not that of its name"));
        }
        Ok(manifest)
    }

    fn unusable(&self, start: i64, why: &str) -> ManifestError {
        ManifestError::Unusable {
            key: self.key(start).to_string(),
            why: why.to_owned(),
        }
    }
}

/// `<topic>.<topic id>`, or `<topic>` where the cluster does not tell the id.
fn chain_name(topic: &str, topic_id: Option<&str>) -> String {
    match topic_id {
        Some(id) => format!("{topic}.{id}"),
        None => topic.to_owned(),
    }
}

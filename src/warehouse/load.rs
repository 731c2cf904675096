//! Manifests become rows of tables. This is the second commit point: rows and ledger entry in one database transaction.
//!
//! ```text
//!  chain of partition 0:   [0,50) [50,80) [80,95)          ledger in the warehouse
//!  chain of partition 1:   [0,70) [70,71)                  ───────────────────────
//!       │                                                   (manifest, table) …    one per load, in its transaction
//!       ▼ per table, oldest first                           (manifest, "")         once all its tables are loaded
//!  tracks: files of [0,50) [0,70) [50,80) …  ─▶ one transaction ─▶ entries for each of them
//! ```
//!
//! A step looks at the manifests after the last one that is wholly loaded. Tables are independent: one that fails leaves its
//! own rows and the rows of no other out. Within a table manifests are loaded in the order of their chain, so that one that
//! fails is not overtaken. A process that dies anywhere in between begins again at the last manifest that is wholly loaded
//! and finds in the ledger which of its tables are done.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use super::files::{self, FileError};
use super::loaders::{LoadError, Loaded, Loader, Mark, Merge, TableLoad, TableName};
use super::manifest::{Chain, Manifest, StagedTable};
use super::plan::plan;
use crate::clock::UnixMs;
use crate::config::LoadConfig;
use crate::failpoint;

/// Files of one transaction that are fetched at the same time.
const FETCHES: usize = 4;

/// What one step did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Manifests that are wholly loaded now, oldest first.
    pub finished: Vec<Manifest>,
    /// Rows loaded.
    pub rows: u64,
    /// Values that went to `rudder_discards`.
    pub discards: u64,
    /// Manifests seen that are not wholly loaded.
    pub waiting: usize,
    /// Tables that failed, with why.
    pub failed: Vec<(TableName, LoadError)>,
    /// Whether there may be more to load right away.
    pub has_more: bool,
}

/// Loads the chains of one destination's topic into its warehouse.
pub struct Load<'l> {
    /// Any chain of the topic.
    pub chain: &'l Chain,
    /// The warehouse.
    pub loader: &'l mut dyn Loader,
    /// Limits.
    pub limits: &'l LoadConfig,
    /// `preferAppend` of the destination: rows are only added.
    pub prefers_append: bool,
    /// What `uuid_ts` says.
    pub now: UnixMs,
}

impl Load<'_> {
    /// Loads what is waiting, up to the limits.
    ///
    /// # Errors
    /// Nothing could be loaded: the warehouse or the object store cannot be reached, or a manifest cannot be read. What a
    /// single table failed with is in the result.
    pub async fn step(&mut self) -> Result<Progress, LoadError> {
        self.loader.prepare().await?;
        let waiting = self.waiting().await?;
        let ids: Vec<String> = waiting.iter().map(Manifest::id).collect();
        let mut loaded = self.loader.loaded(&ids).await?;
        let mut progress = Progress {
            has_more: waiting.len() >= self.limits.manifests_max,
            ..Progress::default()
        };
        for (table, parts) in by_table(&waiting, &loaded) {
            if let Err(error) = self.table(&table, &parts, &mut loaded, &mut progress).await {
                progress.failed.push((table, error));
            }
        }
        self.finish(waiting, &loaded, &mut progress).await?;
        progress.has_more &= !progress.finished.is_empty();
        Ok(progress)
    }

    /// The manifests that are not wholly loaded, oldest first within their chain; the chains take turns.
    async fn waiting(&mut self) -> Result<Vec<Manifest>, LoadError> {
        let watermarks = self.loader.watermarks(self.chain.name()).await?;
        let mut ends: Vec<(Chain, i64)> = Vec::new();
        for chain in self.chain.siblings().await? {
            let from = watermarks.get(&chain.partition()).copied().unwrap_or(0);
            ends.push((chain, from));
        }
        let mut waiting = Vec::new();
        while !ends.is_empty() && waiting.len() < self.limits.manifests_max {
            let mut going_on = Vec::new();
            for (chain, from) in ends {
                if let Some(manifest) = chain.at(from).await? {
                    going_on.push((chain, manifest.end));
                    waiting.push(manifest);
                }
            }
            ends = going_on;
        }
        Ok(waiting)
    }

    /// Loads a table's files, in transactions of bounded size.
    async fn table(
        &mut self,
        table: &TableName,
        parts: &[Part<'_>],
        loaded: &mut HashSet<(String, String)>,
        progress: &mut Progress,
    ) -> Result<(), LoadError> {
        for group in groups(parts, self.limits.transaction_bytes_max) {
            let files = fetch(self.chain.store(), group).await?;
            let existing = self.loader.columns(table).await?;
            let staged = group.iter().flat_map(|part| &part.staged.columns);
            let load = Arc::new(TableLoad {
                table: table.clone(),
                plan: plan(&existing, staged, self.loader.columns_max()),
                merge: merge(table, self.prefers_append),
                files,
                marks: group.iter().map(Part::mark).collect(),
                loaded_at: self.now,
            });
            if let Loaded::Rows { rows, discards } = self.loader.load(load).await? {
                progress.rows += rows;
                progress.discards += discards;
            }
            failpoint::hit("warehouse.after_load");
            loaded.extend(
                group
                    .iter()
                    .map(|part| (part.manifest.id(), table.to_string())),
            );
        }
        Ok(())
    }

    /// Enters the manifests whose tables are all loaded, up to the first of each chain that has one that is not.
    async fn finish(
        &mut self,
        waiting: Vec<Manifest>,
        loaded: &HashSet<(String, String)>,
        progress: &mut Progress,
    ) -> Result<(), LoadError> {
        let mut held_back = HashSet::new();
        for manifest in waiting {
            let id = manifest.id();
            let is_whole = manifest.tables.iter().all(|staged| {
                let target = table_name(staged).to_string();
                loaded.contains(&(id.clone(), target))
            });
            if is_whole && !held_back.contains(&manifest.partition) {
                progress.finished.push(manifest);
            } else {
                held_back.insert(manifest.partition);
                progress.waiting += 1;
            }
        }
        let marks: Vec<Mark> = progress
            .finished
            .iter()
            .map(|manifest| mark(manifest, manifest.events))
            .collect();
        if !marks.is_empty() {
            self.loader.finish(&marks, self.now).await?;
        }
        Ok(())
    }
}

async fn fetch(store: &Arc<dyn ObjectStore>, group: &[Part<'_>]) -> Result<Vec<Bytes>, FileError> {
    let keys: Vec<Path> = group
        .iter()
        .map(|part| Path::from(part.staged.key.as_str()))
        .collect();
    stream::iter(keys)
        .map(|key| async move { files::get(store, &key).await })
        .buffered(FETCHES)
        .try_collect()
        .await
}

/// One table's file of one manifest.
#[derive(Debug, Clone, Copy)]
struct Part<'m> {
    manifest: &'m Manifest,
    staged: &'m StagedTable,
}

impl Part<'_> {
    fn mark(&self) -> Mark {
        mark(self.manifest, self.staged.rows)
    }
}

fn mark(manifest: &Manifest, rows: u64) -> Mark {
    Mark {
        manifest: manifest.id(),
        chain: manifest.chain.clone(),
        partition: manifest.partition,
        from: manifest.start,
        to: manifest.end,
        rows,
    }
}

fn table_name(staged: &StagedTable) -> TableName {
    TableName {
        namespace: staged.namespace.clone(),
        table: staged.table.clone(),
    }
}

/// What is to be loaded, by table, oldest first.
fn by_table<'m>(
    waiting: &'m [Manifest],
    loaded: &HashSet<(String, String)>,
) -> BTreeMap<TableName, Vec<Part<'m>>> {
    let mut tables: BTreeMap<TableName, Vec<Part<'m>>> = BTreeMap::new();
    for manifest in waiting {
        let id = manifest.id();
        for staged in &manifest.tables {
            let name = table_name(staged);
            if !loaded.contains(&(id.clone(), name.to_string())) {
                tables
                    .entry(name)
                    .or_default()
                    .push(Part { manifest, staged });
            }
        }
    }
    tables
}

/// Cuts `parts` so that each group has at most `bytes_max` bytes of files, and at least one file.
fn groups<'p, 'm>(parts: &'p [Part<'m>], bytes_max: u64) -> Vec<&'p [Part<'m>]> {
    let mut groups = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, part) in parts.iter().enumerate() {
        if at > from && bytes + part.staged.bytes > bytes_max {
            groups.push(&parts[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += part.staged.bytes;
    }
    if from < parts.len() {
        groups.push(&parts[from..]);
    }
    groups
}

fn merge(table: &TableName, prefers_append: bool) -> Merge {
    if table.table.eq_ignore_ascii_case("users") {
        Merge::Users
    } else if prefers_append {
        Merge::Append
    } else {
        Merge::ById
    }
}

//! Warehouses that rows can be loaded into: one file each, behind one trait, checked by one suite ([`testing`]).
//!
//! # Adding a warehouse
//! An entry in [`super::dialect`] (what names and types are called), a file here that implements [`Loader`], a line in
//! [`LOADERS`], and a real server for [`testing::check`] in `tests/it/warehouse_contract.rs`, which asks for it.

mod postgres;
mod sqlite;
#[cfg(test)]
mod sqlite_tests;
#[doc(hidden)]
pub mod testing;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::dialect::{self, Dialect};
use super::files::FileError;
use super::plan::TablePlan;
use super::schema::TableSchema;
use crate::clock::UnixMs;
use crate::fault::{Classify, Fault};

pub use postgres::PostgresLoader;
pub use sqlite::SqliteLoader;

/// A table with its schema or dataset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Schema or dataset; warehouses without any ignore it.
    pub namespace: String,
    /// Table.
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.namespace, self.table)
    }
}

/// How the rows of a load meet those that are in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Every row is added.
    Append,
    /// A row replaces those with its `id`; of several in the load the newest by `received_at` stays.
    ById,
    /// One row per `id`, each column the newest value that is not null of the load's rows and the table's.
    Users,
}

/// A manifest's entry in the ledger, for one table or (with an empty target) for the whole manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// [`super::manifest::Manifest::id`].
    pub manifest: String,
    /// [`super::manifest::Chain::name`].
    pub chain: String,
    /// Partition of the chain.
    pub partition: i32,
    /// First offset of the manifest.
    pub from: i64,
    /// First offset after it.
    pub to: i64,
    /// Rows of the table in it.
    pub rows: u64,
}

/// The rows of one table of some manifests: one transaction.
#[derive(Debug)]
pub struct TableLoad {
    /// Where they go.
    pub table: TableName,
    /// Columns to add first, and what each cell becomes.
    pub plan: TablePlan,
    /// How they meet what is there.
    pub merge: Merge,
    /// Staging files, oldest first.
    pub files: Vec<Bytes>,
    /// The manifests they are from, entered into the ledger in the same transaction.
    pub marks: Vec<Mark>,
    /// What `uuid_ts` says, in milliseconds since the Unix epoch.
    pub loaded_at: UnixMs,
}

/// What a load did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// The rows are in.
    Rows {
        /// Rows of the files.
        rows: u64,
        /// Values that went to `rudder_discards`.
        discards: u64,
    },
    /// The ledger has these manifests already; nothing was done.
    Before,
}

/// A warehouse. One at a time uses it; calls that fail leave it usable.
pub trait Loader: Send {
    /// Most columns that a table can have.
    fn columns_max(&self) -> usize;

    /// Makes the ledger exist.
    fn prepare(&mut self) -> BoxFuture<'_, Result<(), LoadError>>;

    /// Per partition of `chain`, the end of the last manifest that is wholly loaded ([`Loader::finish`]).
    fn watermarks<'a>(
        &'a mut self,
        chain: &'a str,
    ) -> BoxFuture<'a, Result<HashMap<i32, i64>, LoadError>>;

    /// Which of `manifests` are loaded into which table, as (manifest, [`TableName`] as text).
    fn loaded<'a>(
        &'a mut self,
        manifests: &'a [String],
    ) -> BoxFuture<'a, Result<HashSet<(String, String)>, LoadError>>;

    /// The columns of a table; none if there is no such table.
    fn columns<'a>(
        &'a mut self,
        table: &'a TableName,
    ) -> BoxFuture<'a, Result<TableSchema, LoadError>>;

    /// Columns, rows, discards and ledger entries, in one transaction.
    fn load(&mut self, load: Arc<TableLoad>) -> BoxFuture<'_, Result<Loaded, LoadError>>;

    /// Enters manifests that are wholly loaded, and forgets table entries before them that are older than
    /// [`LEDGER_KEPT_MS`].
    fn finish<'a>(
        &'a mut self,
        marks: &'a [Mark],
        at: UnixMs,
    ) -> BoxFuture<'a, Result<(), LoadError>>;
}

/// How long the ledger keeps what was loaded table by table: for people, a watermark is enough for us.
pub const LEDGER_KEPT_MS: UnixMs = 30 * 24 * 3600 * 1000;

/// Why a load failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The destination's config cannot be used.
    #[error("destination config: {0}")]
    Config(String),
    /// The warehouse cannot be reached, or the connection broke.
    #[error("could not reach the warehouse: {0}")]
    Unreachable(String),
    /// The warehouse refused; the same load may pass later.
    #[error("warehouse: {message} ({code})")]
    Busy {
        /// SQLSTATE or result code.
        code: String,
        /// The warehouse's words.
        message: String,
    },
    /// The warehouse refused, and will again until somebody changes something.
    #[error("warehouse: {message} ({code})")]
    Refused {
        /// SQLSTATE or result code.
        code: String,
        /// The warehouse's words.
        message: String,
    },
    /// The ledger says that later offsets are loaded than those to load: somebody loaded out of order.
    #[error("{table}: offsets from {from} overlap what is loaded up to {loaded}")]
    Overlap {
        /// Table.
        table: String,
        /// First offset to load.
        from: i64,
        /// End of what is loaded.
        loaded: i64,
    },
    /// Another loader is at work on the same manifests.
    #[error("{table}: another loader took some of these manifests")]
    Contended {
        /// Table.
        table: String,
    },
    /// A staging file or a manifest could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A manifest could not be read.
    #[error(transparent)]
    Manifest(#[from] super::manifest::ManifestError),
}

impl Classify for LoadError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unreachable(_) | Self::Busy { .. } | Self::Contended { .. } => Fault::RETRY,
            Self::Config(_) | Self::Refused { .. } | Self::Overlap { .. } => Fault::Permanent,
            Self::File(error) => error.fault(),
            Self::Manifest(error) => error.fault(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Unreachable(_) => "unreachable",
            Self::Busy { .. } => "busy",
            Self::Refused { .. } => "refused",
            Self::Overlap { .. } => "overlap",
            Self::Contended { .. } => "contended",
            Self::File(error) => error.code(),
            Self::Manifest(error) => error.code(),
        }
    }
}

/// A kind of warehouse.
pub struct LoaderKind {
    /// What its names and types are called, and the destination type that it is for.
    pub dialect: &'static Dialect,
    /// What it is, in a line.
    pub summary: &'static str,
    /// A destination config that it takes.
    pub example: &'static str,
    /// Makes a loader out of a destination's config.
    pub open: fn(&Value) -> Result<Box<dyn Loader>, LoadError>,
}

impl std::fmt::Debug for LoaderKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LoaderKind")
            .field(&self.dialect.name)
            .finish()
    }
}

/// Every warehouse that rows can be loaded into.
pub static LOADERS: &[LoaderKind] = &[
    LoaderKind {
        dialect: &dialect::POSTGRES,
        summary: "PostgreSQL 12 and later",
        example: r#"{"host": "localhost", "port": "5432", "database": "analytics", "user": "rudder", "password": "secret"}"#,
        open: |config| Ok(Box::new(PostgresLoader::from_config(config)?)),
    },
    LoaderKind {
        dialect: &dialect::SQLITE,
        summary: "SQLite, embedded: one file, nothing to run",
        example: r#"{"path": "warehouse.db"}"#,
        open: |config| Ok(Box::new(SqliteLoader::from_config(config)?)),
    },
];

/// The entry for a destination type.
pub fn kind_of(destination_type: &str) -> Option<&'static LoaderKind> {
    LOADERS
        .iter()
        .find(|kind| kind.dialect.name == destination_type)
}

/// A text field of a destination config; numbers count as text, because RudderStack's forms send both.
fn config_text(config: &Value, field: &str) -> Option<String> {
    match config.get(field)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

/// Where a load begins, per chain and partition.
fn beginnings(marks: &[Mark]) -> BTreeMap<(&str, i32), i64> {
    let mut beginnings = BTreeMap::new();
    for mark in marks {
        beginnings
            .entry((mark.chain.as_str(), mark.partition))
            .and_modify(|from: &mut i64| *from = mark.from.min(*from))
            .or_insert(mark.from);
    }
    beginnings
}

/// Whether the rows of a load have values for a column.
fn has_column(load: &TableLoad, name: &str) -> bool {
    load.plan.columns.iter().any(|(column, _)| column == name)
}

/// A SQL identifier in double quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Columns as a SQL list, each with `prefix`.
fn list<'n>(prefix: &str, names: impl IntoIterator<Item = &'n String>) -> String {
    let columns: Vec<String> = names
        .into_iter()
        .map(|name| format!("{prefix}{}", quoted(name)))
        .collect();
    columns.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loader_has_a_name_of_its_own_a_summary_and_an_example_that_opens() {
        let mut names = HashSet::new();
        for kind in LOADERS {
            assert!(names.insert(kind.dialect.name));
            assert!(!kind.summary.is_empty() && !kind.summary.contains('\n'));
            let example: Value = serde_json::from_str(kind.example).unwrap();
            assert!((kind.open)(&example).is_ok(), "{}", kind.dialect.name);
            assert!((kind.open)(&Value::Null).is_err(), "{}", kind.dialect.name);
        }
    }

    #[test]
    fn an_identifier_cannot_leave_its_quotes() {
        assert_eq!(
            quoted("a\"; drop table x; --"),
            "\"a\"\"; drop table x; --\""
        );
    }
}

//! `warehouse.<destination>` to Parquet to tables, once.
//!
//! ```text
//!  [warehouse.<destination>] ─▶ records ─▶ rows ─▶ batch ── cut ──▶ upload ─▶ files, then a manifest   (commit point 1)
//!     the writing thread        names, types       Arrow columns        │
//!                                                                       ▼
//!                               tables ◀── loader ◀── plan ◀── load ◀── chain of manifests
//!                               rows and ledger entry in one transaction                               (commit point 2)
//! ```
//!
//! | file | what |
//! |---|---|
//! | `dialect`, `reserved`, `snake`, `names` | pure: what tables and columns are called |
//! | `datetime`, `cell`, `schema` | pure: types of values and columns, and what becomes of a value in another column |
//! | `json_paths`, `options`, `flatten`, `draft`, `rules`, `rows` | pure: an event becomes rows |
//! | `columns`, `batch` | rows in memory, and when they become a file |
//! | `files`, `store`, `manifest`, `upload` | object storage; why nothing is written twice is told in `manifest` |
//! | `records`, `partitions`, `locate`, `writer` | the thread that reads |
//! | `plan`, `schedule`, `load`, `loading`, `loaders` | from manifests to tables; why nothing is loaded twice is told in `load` |
//!
//! **What may be thrown away.** Everything up to the manifest: after a rebalance or a crash the records are read again from
//! the end of the chain, and files that no manifest names are removed. After it, nothing: the files are loaded.

pub mod batch;
mod cell;
pub mod columns;
mod datetime;
pub mod dialect;
mod draft;
pub mod files;
mod flatten;
mod json_paths;
pub mod load;
pub mod loaders;
mod loading;
mod locate;
pub mod manifest;
mod metrics;
pub mod names;
pub mod options;
mod partitions;
mod patience;
pub mod plan;
mod records;
mod reserved;
pub mod rows;
mod rules;
pub mod schedule;
pub mod schema;
pub mod snake;
mod start;
pub mod store;
pub mod upload;
mod writer;

pub use cell::{Cell, Misfit};
pub use metrics::WarehouseMetrics;
pub use start::{WarehouseError, start};

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod manifest_tests;

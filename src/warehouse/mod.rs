//! `warehouse.<destination>` to Parquet to tables.

mod cell;
pub mod columns;
mod datetime;
pub mod dialect;
mod draft;
pub mod files;
mod flatten;
mod json_paths;
pub mod loaders;
pub mod manifest;
pub mod names;
pub mod options;
pub mod plan;
mod reserved;
pub mod rows;
mod rules;
pub mod schema;
pub mod snake;

pub use cell::{Cell, Misfit};

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod manifest_tests;

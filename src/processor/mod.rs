//! Events to destinations.

pub mod consent;
pub mod dead_letter;
pub mod decode;
pub mod dedup;
pub mod fan_out;
pub mod ledger;
pub mod look;
pub mod metrics;
pub mod plan;
pub mod routes;

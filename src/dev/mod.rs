//! Trying Sluice on one machine: `sluice dev` runs every role in one process, with a Kafka, a webhook and a warehouse to
//! look at.
//!
//! ```text
//! find or start Kafka ─▶ serve the webhook ─▶ workspace (given, or the sample) ─▶ roles ─▶ ready ─▶ … ─▶ drain ─▶ stop Kafka
//! ```
//!
//! All that is written lies in one data directory and is used again by the next start. [`kafka`] alone is also what the
//! tests stand on.

mod error;
pub mod kafka;
mod options;
mod ready;
mod run;
mod sample;
mod webhook;

pub use error::DevError;
pub use options::DevOptions;
pub use ready::Ready;
pub use run::run;

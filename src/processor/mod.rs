//! Events to destinations, exactly once.
//!
//! ```text
//!  [events] ─▶ intake ─▶ decode, plan ─▶ publish ─▶ [deliver.*] [warehouse.*] [dlq.processor] [seen] [ledger]
//!              poll      on all cores    dedup, one Kafka transaction        + the offsets of what was read
//! ```
//!
//! | file | what |
//! |---|---|
//! | `intake`, `partitions` | the thread that reads: partitions, chunks, going back after a setback |
//! | `decode`, `plan`, `look`, `consent`, `routes` | pure: where does one event go? |
//! | `pipeline` | from the reader over the workers to the publisher, in order |
//! | `publish`, `transaction`, `output` | the thread that publishes: when a transaction closes, what is in it |
//! | `dedup`, `seen` | which events were accepted before; reading that back |
//! | `fan_out`, `dead_letter`, `ledger` | the records that are written |
//!
//! **What may be thrown away.** Everything up to the commit: after a rebalance, a crash or a refused transaction the events
//! are read again and decided on again, and nothing of the first time is visible to anybody. After the commit, nothing.
//!
//! **Latency.** An event that comes alone is committed at once; see `publish` for when a transaction closes. The
//! low-latency setting is `transaction_pace_ms: 0`, at the price of more transactions.

pub mod consent;
pub mod dead_letter;
pub mod decode;
pub mod dedup;
mod error;
pub mod fan_out;
mod intake;
pub mod ledger;
pub mod look;
mod metrics;
mod output;
mod partitions;
mod pipeline;
pub mod plan;
mod publish;
pub mod routes;
mod seen;
mod start;
mod transaction;

pub use error::ProcessorError;
pub use metrics::ProcessorMetrics;
pub use start::start;

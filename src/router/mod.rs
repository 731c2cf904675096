//! `deliver.<lane>` to destinations: in order for each user, none waiting for another.
//!
//! ```text
//!  [deliver.<lane>] ─▶ lane ─▶ desk ─▶ deliver ─▶ destination
//!                        │       │                    │
//!                        │       ◀── verdict, breaker ┘  delivered, try again, or
//!                        ▼
//!                      commit ─▶ offsets + [ledger] + [dlq.router], one transaction
//! ```
//!
//! | file | what |
//! |---|---|
//! | `lane` | the thread of a lane: polls, starts, takes outcomes in, hands over commits |
//! | `desk` | what the lane holds in memory |
//! | [`order`] | pure: which keys may go now |
//! | [`breaker`] | pure: is the destination as a whole up? |
//! | [`verdict`] | pure: what becomes of a delivery after an attempt |
//! | `partition` | progress of a partition, and what ended since the last commit |
//! | `window` | pure: how much to hold, when to read no further |
//! | `deliver` | one attempt on the async runtime |
//! | `commit` | the thread that commits |
//! | `dead_letter` | pure: the record on `dlq.router` |
//! | `target` | a destination as the workspace has it |
//!
//! **What may be thrown away.** Everything held in memory is read again. Towards the destination delivery is at least once,
//! in order per key: what was delivered since the last commit, or was in flight, is delivered again after a crash, under
//! the same `Idempotency-Key`, and nothing else: what a commit could not say to be done is not started
//! ([`OffsetMap::try_start`](crate::kafka::offsets::OffsetMap::try_start)). Towards Kafka (progress, ledger, dead letters) it is exactly once.
//!
//! **The seam for parking.** [`verdict::Verdict`] is where a key that has been blocked for long will leave the window for
//! `parked.<lane>`; `partition` counts it as one more ending, and `commit` writes it as one more record of the transaction.

pub mod breaker;
mod commit;
mod dead_letter;
mod deliver;
mod desk;
mod error;
mod lane;
mod metrics;
pub mod order;
mod partition;
mod start;
mod target;
pub mod verdict;
pub mod window;

pub use error::RouterError;
pub use metrics::RouterMetrics;
pub use start::start;

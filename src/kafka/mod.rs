//! The only door to librdkafka. No type of it leaves this module, and the traps of it that we know stay inside.
//!
//! What the rest of the crate may assume:
//!
//! * **Acknowledged means written** by all in-sync replicas ([`AckProducer`], [`Batch`]); nothing that was not is called so.
//! * **A committed transaction is whole**: records and input offsets, all or nothing, also over crashes, zombies and lost
//!   answers ([`TxnProducer`]).
//! * **Order**: records of one key and topic lie in one partition (murmur2, as the Java clients), in the order of sending.
//! * **Nothing is committed by itself**, and a committed offset that is not in the log any more is an error, never a jump
//!   ([`Consumer`]).
//! * Readers see committed records only. Offsets have gaps.
//!
//! # Acknowledged producing: one latch per request
//! ```no_run
//! # use sluice::{config::KafkaConfig, kafka::*};
//! # use std::time::Duration;
//! # async fn accept(config: &KafkaConfig) -> Result<(), Box<dyn std::error::Error>> {
//! let producer = AckProducer::open(config, "gateway")?;
//! let batch = Batch::new();
//! for event in ["one", "two"] {
//!     // Never blocks. An error here makes the batch fail too.
//!     producer.send(&batch, RecordRef::new("sluice.events", b"user-1", event.as_bytes()))?;
//! }
//! batch.wait(deadline(Duration::from_secs(8))).await?; // Ok: all of it is written
//! # Ok(()) }
//! ```
//! `ProduceError::fault` tells 503 (transient) from 413 (permanent). Dropping the last clone blocks for up to half a second:
//! drop it outside of async tasks.
//!
//! # Consume, transform, produce
//! On one dedicated thread; every call blocks.
//! ```no_run
//! # use sluice::{config::KafkaConfig, kafka::*};
//! # use std::time::Duration;
//! # fn processor(config: &KafkaConfig, limits: BatchLimits) -> Result<(), Box<dyn std::error::Error>> {
//! let opening = TxnProducer::open_in_background(config, "processor", "sluice.processor.host-1.0");
//! let consumer = Consumer::open(config, &ConsumerOptions {
//!     role: "processor".into(),
//!     group: "sluice.processor".into(),
//!     instance: Some("host-1.0".into()),
//! })?;
//! consumer.subscribe(&["sluice.events"])?;
//! let mut txn = opening.wait()?;
//! let mut listener = (); // or a RebalanceListener that keeps state per partition
//! loop {
//!     let messages = consumer.poll_batch(limits, &mut listener)?;
//!     let Some(last) = messages.last() else { continue };
//!     let run = || -> Result<TxnReport, SendError> {
//!         txn.begin()?;
//!         for message in &messages {
//!             let payload = message.payload.as_deref().unwrap_or_default();
//!             txn.send(RecordRef::new("sluice.deliver.a", b"user-1", payload))?;
//!         }
//!         // Of one partition here; a real caller commits one offset per partition.
//!         let offsets = [OffsetCommit::new(last.topic_partition(), last.offset + 1)];
//!         Ok(txn.commit(&offsets, &consumer.group_metadata().map_err(TxnError::Fatal)?)?)
//!     };
//!     # let mut run = run;
//!     match run() {
//!         Ok(_report) => {}
//!         Err(SendError::Rejected(_too_large)) => { /* dead-letter that record, go on with the others */ }
//!         Err(SendError::Txn(TxnError::Aborted(_))) => {
//!             let first = &messages[0];
//!             consumer.seek(&[(first.topic_partition(), StartAt::Offset(first.offset))])?;
//!         }
//!         Err(SendError::Txn(TxnError::Reopened(_) | TxnError::Fenced(_))) => {
//!             consumer.rewind_to_committed()?;
//!         }
//!         Err(SendError::Txn(TxnError::Fatal(error))) => return Err(error.into()),
//!     }
//! }
//! # }
//! ```

mod admin;
mod batch;
mod client;
mod consumer;
mod error;
mod ffi;
mod list;
mod message;
pub mod offsets;
mod plain;
mod produce_error;
mod producer;
mod queue;
mod reader;
mod rebalance;
mod record;
mod stats;
mod topic_handle;
mod txn;
mod txn_error;

pub use admin::{
    Admin, ClusterInfo, NewTopic, OffsetQuery, PartitionInfo, TopicInfo, TopicSetting,
};
pub use batch::Batch;
pub use client::Reach;
pub use consumer::{
    BatchLimits, Consumer, ConsumerOptions, GroupMetadata, Membership, Polled, RebalanceListener,
};
pub use error::KafkaError;
pub use produce_error::ProduceError;
pub use producer::{AckProducer, deadline};
pub use reader::Reader;
pub use record::{
    Committed, Header, Headers, Message, OffsetCommit, Position, Record, RecordRef, StartAt,
    TopicPartition,
};
pub use txn::{OpeningTxn, TxnProducer, TxnReport};
pub use txn_error::{SendError, TxnError};

//! The words of the domain. No Kafka client, no HTTP, no runtime.
//!
//! # Glossary
//! One word, one meaning, everywhere in code, docs, metrics and messages.
//!
//! | word | meaning |
//! |---|---|
//! | *source* | where events come from; has a write key |
//! | *destination* | where events go: a service (delivered by the router) or a warehouse (loaded by the warehouse role) |
//! | *connection* | a source feeding a destination |
//! | *event* | one JSON object a client sent: identify, track, page, ... |
//! | *envelope* | an event with what the gateway knows of its arrival ([`Envelope`]) |
//! | *ordering key* | Kafka key of an event; events of one key keep their order ([`ordering_key`]) |
//! | *delivery* | one event for one destination ([`Delivery`]) |
//! | *lane* | the topic and group that one or more destinations share; by default a destination is its own lane |
//! | *ending* | how an event ended at a stage for a destination ([`Ending`]) |
//! | *dead letter* | a record that can never pass, kept in `dlq.<stage>` |
//! | *parked* | a delivery moved to `parked.<lane>` because its ordering key is blocked for long |
//! | *ledger* | counts of endings per offset range, written in the transaction they describe ([`LedgerEntry`]) |
//! | *staging file* | a Parquet file of rows in object storage |
//! | *manifest* | the object that makes staging files exist, named by the offsets they cover |
//! | *upload* | one load of manifests into a warehouse |

pub mod codec;
mod delivery;
mod ending;
mod envelope;
pub mod headers;
mod identity;
mod ledger;
mod printable;
mod schema_ids;
mod stamp;
mod topic;

pub use codec::{CodecError, Framing, SchemaName};
pub use delivery::{Addressed, AddressedKind, Delivery, Origin};
pub use ending::{DeadLetterReason, Ending, FilterReason};
pub use envelope::Envelope;
pub use identity::{event_key, ordering_key, rudder_id, sanitize_id};
pub use ledger::{LedgerEntry, OutcomeCount, Stage};
pub use schema_ids::{Meaning, SchemaIds};
pub use stamp::{StampError, stamped_event};
pub use topic::{Topic, TopicNames};

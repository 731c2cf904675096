//! One event for one destination.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Envelope;

/// Where in `events` an event was read: names it for audit and for `X-Delivery-Id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Partition of `events`.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
}

/// Which of the two records that carry an event to a destination is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressedKind {
    /// `deliver.<lane>`, schema `delivery.avsc`.
    Delivery,
    /// `warehouse.<destination>`, schema `warehouse_source.avsc`.
    WarehouseSource,
}

/// An envelope addressed to one destination: the value on `deliver.<lane>` and on `warehouse.<destination>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressed<'a> {
    /// Destination this copy is for.
    #[serde(borrow)]
    pub destination_id: Cow<'a, str>,
    /// Partition of `events`.
    pub origin_partition: i32,
    /// Offset in that partition.
    pub origin_offset: i64,
    /// Workspace configuration the processor saw.
    pub processed_revision: i64,
    /// The event.
    #[serde(borrow)]
    pub envelope: Envelope<'a>,
}

/// An envelope on its way to a router.
pub type Delivery<'a> = Addressed<'a>;

impl Addressed<'_> {
    /// Where in `events` the event was read.
    pub fn origin(&self) -> Origin {
        Origin {
            partition: self.origin_partition,
            offset: self.origin_offset,
        }
    }

    /// `<messageId>:<destinationId>`: stable over retries and replays, sent as `Idempotency-Key`.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}", self.envelope.message_id, self.destination_id)
    }
}

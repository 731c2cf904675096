//! What a transaction of a stage did with a range of one input partition.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Ending;
use crate::clock::UnixMs;

/// The stages that take events off a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// `events` to destination topics.
    Processor,
    /// `deliver.<lane>` to destinations.
    Router,
    /// `warehouse.<destination>` to tables.
    Warehouse,
}

impl Stage {
    /// All stages, in the order an event meets them.
    pub const ALL: [Stage; 3] = [Stage::Processor, Stage::Router, Stage::Warehouse];

    /// Word in topic names, ledger entries and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Router => "router",
            Self::Warehouse => "warehouse",
        }
    }
}

/// One record of `ledger`; see `schemas/ledger_entry.avsc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry<'a> {
    /// [`Stage::name`].
    #[serde(borrow)]
    pub stage: Cow<'a, str>,
    /// Input topic.
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    /// Input partition.
    pub partition: i32,
    /// First offset of the range.
    pub from_offset: i64,
    /// First offset after the range.
    pub to_offset: i64,
    /// Records read in the range.
    pub records: i64,
    /// When the transaction was closed.
    pub at: UnixMs,
    /// Workspace configuration in force.
    pub config_revision: i64,
    /// Who wrote it.
    #[serde(borrow)]
    pub instance: Cow<'a, str>,
    /// Counts of endings.
    pub outcomes: Vec<OutcomeCount>,
}

/// How many events of a range ended one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCount {
    /// Empty for an ending that is not about one destination.
    pub destination_id: String,
    /// [`Ending::name`].
    pub ending: Cow<'static, str>,
    /// [`Ending::reason`].
    pub reason: Cow<'static, str>,
    /// How many events.
    pub count: i64,
}

impl OutcomeCount {
    /// A count of `ending` for `destination_id` (empty when it is about none).
    pub fn of(destination_id: impl Into<String>, ending: Ending, count: i64) -> Self {
        Self {
            destination_id: destination_id.into(),
            ending: Cow::Borrowed(ending.name()),
            reason: Cow::Borrowed(ending.reason()),
            count,
        }
    }
}

impl LedgerEntry<'_> {
    /// Kafka key of an entry: stage and writer, so that a transaction touches one partition of `ledger`, however many
    /// source partitions it accounts for. Each touched partition costs a request and a marker in every transaction. Readers
    /// order entries by the ranges they state.
    pub fn key(&self) -> String {
        format!("{}/{}", self.stage, self.instance)
    }
}

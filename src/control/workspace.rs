//! Sources, destinations and connections, indexed for the questions the roles ask.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use crate::event::Topic;

/// Where events come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Stable id.
    pub id: String,
    /// Shown to people.
    pub name: String,
    /// What clients authenticate with.
    pub write_key: String,
    /// A disabled source answers 404.
    pub enabled: bool,
    /// Definition name, e.g. `Javascript` or `HTTP`.
    pub definition: String,
    /// Definition category; `webhook` for webhook sources, else empty.
    pub category: String,
    /// The source this one replays, for replay sources.
    pub original_id: Option<String>,
    /// The source's own settings.
    pub config: Value,
    /// Ids of connected destinations, in the configuration's order.
    pub destinations: Vec<String>,
}

/// Which role brings events to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// The router, over `deliver.<lane>`.
    Deliver,
    /// The warehouse role, over `warehouse.<destination>`.
    Warehouse,
}

/// Definition names that are loaded as tables rather than delivered as requests.
pub const WAREHOUSES: &[&str] = &[
    "POSTGRES",
    "SQLITE",
    "CLICKHOUSE",
    "RS",
    "BQ",
    "SNOWFLAKE",
    "DELTALAKE",
    "MSSQL",
    "AZURE_SYNAPSE",
    "S3_DATALAKE",
    "GCS_DATALAKE",
    "AZURE_DATALAKE",
    "ICEBERG",
];

/// Where events go.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// Stable id.
    pub id: String,
    /// Shown to people.
    pub name: String,
    /// Definition name in RudderStack's spelling, e.g. `WEBHOOK`, `POSTGRES`.
    pub kind: String,
    /// Definition's display name: the key of this destination in an event's `integrations` object.
    pub display_name: String,
    /// Events for a disabled destination are not forwarded.
    pub enabled: bool,
    /// The destination's own settings. May hold secrets: never logged.
    pub config: Value,
    /// Event types it takes; empty for all.
    pub supported_types: Vec<String>,
    /// Topic and group it shares with others; its own id by default.
    pub lane: String,
}

impl Destination {
    /// Which role brings events to it.
    pub fn route(&self) -> Route {
        if WAREHOUSES.contains(&self.kind.as_str()) {
            Route::Warehouse
        } else {
            Route::Deliver
        }
    }

    /// The topic that carries its events.
    pub fn topic(&self) -> Topic {
        match self.route() {
            Route::Deliver => Topic::Deliver(self.lane.clone()),
            Route::Warehouse => Topic::Warehouse(self.id.clone()),
        }
    }
}

/// One immutable configuration.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// The workspace's id; empty when the file has none.
    pub id: String,
    /// Grows with every change; names the configuration an event was handled under. Milliseconds of the moment it was
    /// first seen.
    pub revision: i64,
    /// Track events that are dropped (`settings.eventBlocking.events.track`).
    pub blocked_events: HashSet<String>,
    by_write_key: HashMap<String, Arc<Source>>,
    sources: HashMap<String, Arc<Source>>,
    destinations: HashMap<String, Arc<Destination>>,
}

impl Workspace {
    /// Indexes what a parser found.
    pub fn new(
        id: String,
        revision: i64,
        sources: Vec<Source>,
        destinations: Vec<Destination>,
        blocked_events: HashSet<String>,
    ) -> Self {
        let sources: Vec<Arc<Source>> = sources.into_iter().map(Arc::new).collect();
        Self {
            id,
            revision,
            blocked_events,
            by_write_key: sources
                .iter()
                .map(|s| (s.write_key.clone(), Arc::clone(s)))
                .collect(),
            sources: sources.into_iter().map(|s| (s.id.clone(), s)).collect(),
            destinations: destinations
                .into_iter()
                .map(|d| (d.id.clone(), Arc::new(d)))
                .collect(),
        }
    }

    /// The source a write key belongs to.
    pub fn source_by_write_key(&self, write_key: &str) -> Option<&Arc<Source>> {
        self.by_write_key.get(write_key)
    }

    /// Whether events of this type and name are dropped.
    pub fn blocks(&self, event_type: &str, event_name: &str) -> bool {
        !self.blocked_events.is_empty()
            && event_type.eq_ignore_ascii_case("track")
            && self.blocked_events.contains(event_name)
    }

    /// A source by id.
    pub fn source(&self, id: &str) -> Option<&Arc<Source>> {
        self.sources.get(id)
    }

    /// A destination by id.
    pub fn destination(&self, id: &str) -> Option<&Arc<Destination>> {
        self.destinations.get(id)
    }

    /// All sources, in no order.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.values()
    }

    /// All destinations, in no order.
    pub fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.destinations.values()
    }

    /// Enabled destinations connected to `source`, in the configuration's order.
    pub fn connected<'a>(
        &'a self,
        source: &'a Source,
    ) -> impl Iterator<Item = &'a Arc<Destination>> {
        source
            .destinations
            .iter()
            .filter_map(|id| self.destinations.get(id))
            .filter(|d| d.enabled)
    }

    /// Distinct lanes of the enabled destinations that the router serves, sorted.
    pub fn lanes(&self) -> Vec<String> {
        let lanes: std::collections::BTreeSet<&str> = self
            .destinations
            .values()
            .filter(|d| d.route() == Route::Deliver)
            .map(|d| d.lane.as_str())
            .collect();
        lanes.into_iter().map(str::to_owned).collect()
    }

    /// Whether two configurations say the same, revisions aside.
    pub fn same_content(&self, other: &Workspace) -> bool {
        self.id == other.id
            && self.blocked_events == other.blocked_events
            && self.sources == other.sources
            && self.destinations == other.destinations
    }
}

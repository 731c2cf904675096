//! One workspace, arranged for planning: for each source the destinations it feeds, with their topics' names and their
//! rules read from the configuration once instead of once per event.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::control::{Destination, Route, Workspace};
use crate::event::{AddressedKind, TopicNames};

use super::consent::ConsentRules;

/// A destination by its place in [`Routes::targets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(u32);

/// What planning needs of one workspace. Immutable; a new workspace makes a new one.
#[derive(Debug, Default)]
pub struct Routes {
    revision: i64,
    targets: Vec<Target>,
    sources: HashMap<String, SourceRoutes>,
    blocked_events: HashSet<String>,
}

/// An enabled destination.
#[derive(Debug)]
pub struct Target {
    /// Destination id.
    pub destination_id: String,
    /// Key of this destination in an event's `integrations` object.
    pub display_name: String,
    /// Full name of the topic that carries its events.
    pub topic: Arc<str>,
    /// Which record carries them.
    pub kind: AddressedKind,
    /// Event types it takes, in lower case; empty for all.
    pub supported_types: Vec<String>,
    /// What consent its events need.
    pub consent: ConsentRules,
}

/// Where the events of one source go.
#[derive(Debug, Default)]
pub struct SourceRoutes {
    /// The enabled destinations it feeds, in the configuration's order.
    pub targets: Vec<TargetId>,
    /// Whether any of them asks for consent; if not, an event's consent is not looked at.
    pub asks_consent: bool,
}

impl Routes {
    /// Arranges `workspace`.
    pub fn new(workspace: &Workspace, topics: &TopicNames) -> Self {
        let mut destinations: Vec<&Destination> = workspace
            .destinations()
            .filter(|d| d.enabled)
            .map(Arc::as_ref)
            .collect();
        destinations.sort_by(|a, b| a.id.cmp(&b.id));
        let ids: HashMap<&str, TargetId> = destinations
            .iter()
            .zip(0u32..)
            .map(|(d, n)| (d.id.as_str(), TargetId(n)))
            .collect();
        let targets: Vec<Target> = destinations
            .iter()
            .map(|d| Target::new(d, topics))
            .collect();
        let sources = workspace
            .sources()
            .map(|source| {
                let fed: Vec<TargetId> = source
                    .destinations
                    .iter()
                    .filter_map(|id| ids.get(id.as_str()).copied())
                    .collect();
                let asks_consent = fed
                    .iter()
                    .any(|id| !targets[id.0 as usize].consent.is_empty());
                let routes = SourceRoutes {
                    targets: fed,
                    asks_consent,
                };
                (source.id.clone(), routes)
            })
            .collect();
        Self {
            revision: workspace.revision,
            targets,
            sources,
            blocked_events: workspace.blocked_events.clone(),
        }
    }

    /// Revision of the workspace.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Where events of `source_id` go; `None` when the workspace does not know it.
    pub fn source(&self, source_id: &str) -> Option<&SourceRoutes> {
        self.sources.get(source_id)
    }

    /// A destination that this workspace named.
    pub fn target(&self, id: TargetId) -> &Target {
        &self.targets[id.0 as usize]
    }

    /// All enabled destinations, by id.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether track events of this name are dropped.
    pub fn is_blocked(&self, event_name: &str) -> bool {
        !self.blocked_events.is_empty() && self.blocked_events.contains(event_name)
    }
}

impl Target {
    fn new(destination: &Destination, topics: &TopicNames) -> Self {
        Self {
            destination_id: destination.id.clone(),
            display_name: destination.display_name.clone(),
            topic: topics.name(&destination.topic()).into(),
            kind: match destination.route() {
                Route::Deliver => AddressedKind::Delivery,
                Route::Warehouse => AddressedKind::WarehouseSource,
            },
            supported_types: destination.supported_types.clone(),
            consent: ConsentRules::of(&destination.config),
        }
    }

    /// Whether it takes events of this type.
    pub fn takes(&self, event_type: &str) -> bool {
        self.supported_types.is_empty()
            || self
                .supported_types
                .iter()
                .any(|t| t.eq_ignore_ascii_case(event_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::parse_workspace;

    #[test]
    fn a_destination_that_is_off_is_not_routed_to() {
        let text = "
            sources: [{id: web, write_key: K}, {id: app, write_key: L}]
            destinations:
              - {id: hook, type: WEBHOOK, lane: shared}
              - {id: pg, type: POSTGRES}
              - {id: off, type: WEBHOOK, enabled: false}
            connections:
              - {source: web, destination: off}
              - {source: web, destination: pg}
              - {source: web, destination: hook}";
        let workspace = parse_workspace("test", text, 7).unwrap();
        let routes = Routes::new(&workspace, &TopicNames::new("p."));
        let web = routes.source("web").unwrap();
        let topics: Vec<&str> = web
            .targets
            .iter()
            .map(|id| &*routes.target(*id).topic)
            .collect();
        assert_eq!(topics, ["p.warehouse.pg", "p.deliver.shared"]);
        assert!(routes.source("app").unwrap().targets.is_empty());
        assert!(routes.source("gone").is_none());
        assert_eq!(routes.revision(), 7);
    }
}

//! Where one event goes: a pure decision over an envelope and a workspace. No clock, no metrics, no I/O.
//!
//! RudderStack's order of rules: blocked event names end an event for everybody; then, per connected destination, whether it
//! was sent for another one alone, the client's `integrations` object, the user's consent, and the event types that the
//! destination takes. Duplicates are not decided here but where the order of events is fixed, see [`super::dedup`].

use smallvec::SmallVec;

use crate::event::{Ending, Envelope, FilterReason};

use super::look::{Look, look};
use super::routes::{Routes, TargetId};

/// What is to become of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It ends here, for every destination.
    Ends(FilterReason),
    /// For each destination its source feeds: where it goes or why not.
    Fans(SmallVec<[Way; 4]>),
    /// Its source is not known here, but the gateway knew it under a configuration that is younger than ours: to be planned
    /// again when ours has caught up. Carries the gateway's revision.
    TooNew(i64),
    /// What must be read of it cannot be read.
    Unreadable(String),
}

/// What is to become of one event for one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The destination.
    pub target: TargetId,
    /// Why it does not go there; `None` when it does.
    pub filtered: Option<FilterReason>,
}

impl Way {
    /// How the event ends at this stage for the destination, once it is written.
    pub fn ending(&self) -> Ending {
        self.filtered.map_or(Ending::Forwarded, Ending::Filtered)
    }
}

/// Decides where `envelope` goes.
pub fn plan(envelope: &Envelope<'_>, routes: &Routes) -> Plan {
    let Some(source) = routes.source(&envelope.source_id) else {
        // Revisions are the times at which each process first saw a configuration. A source that was deleted is unknown
        // under a revision of ours that is younger than the event's.
        return if envelope.config_revision > routes.revision() {
            Plan::TooNew(envelope.config_revision)
        } else {
            Plan::Ends(FilterReason::SourceUnknown)
        };
    };
    if routes.is_blocked(&envelope.event_name) && envelope.event_type.eq_ignore_ascii_case("track")
    {
        return Plan::Ends(FilterReason::EventBlocked);
    }
    if source.targets.is_empty() {
        return Plan::Ends(FilterReason::NoDestination);
    }
    let look = match look(&envelope.event, source.asks_consent) {
        Ok(look) => look,
        Err(error) => return Plan::Unreadable(error.to_string()),
    };
    Plan::Fans(
        source
            .targets
            .iter()
            .map(|target| Way {
                target: *target,
                filtered: filter(envelope, &look, routes, *target),
            })
            .collect(),
    )
}

fn filter(
    envelope: &Envelope<'_>,
    look: &Look<'_>,
    routes: &Routes,
    target: TargetId,
) -> Option<FilterReason> {
    let target = routes.target(target);
    if !envelope.destination_id.is_empty() && *envelope.destination_id != *target.destination_id {
        return Some(FilterReason::OtherDestination);
    }
    if !look.selection.wants(&target.display_name) {
        return Some(FilterReason::IntegrationsObject);
    }
    if look
        .consent
        .as_ref()
        .is_some_and(|consent| !target.consent.allow(consent))
    {
        return Some(FilterReason::ConsentDenied);
    }
    (!target.takes(&envelope.event_type)).then_some(FilterReason::UnsupportedType)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::control::parse_workspace;
    use crate::event::TopicNames;

    const WORKSPACE: &str = r#"
        sources:
          - {id: web, write_key: K1}
          - {id: lonely, write_key: K2}
        destinations:
          - {id: hook, type: WEBHOOK}
          - {id: tracks, type: HTTP, display_name: Tracker, supported_types: [track]}
          - {id: strict, type: HTTP, display_name: Strict, config: {oneTrustCookieCategories: [{oneTrustCookieCategory: C1}]}}
          - {id: off, type: WEBHOOK, enabled: false}
        connections:
          - {source: web, destination: hook}
          - {source: web, destination: tracks}
          - {source: web, destination: strict}
          - {source: web, destination: off}
          - {source: lonely, destination: off}
        blocked_events: [Noise]"#;

    fn routes() -> Routes {
        let workspace = parse_workspace("test", WORKSPACE, 1).unwrap();
        Routes::new(&workspace, &TopicNames::new("t."))
    }

    fn envelope<'a>(source: &'a str, kind: &'a str, name: &'a str, event: &'a str) -> Envelope<'a> {
        Envelope {
            source_id: source.into(),
            event_type: kind.into(),
            event_name: name.into(),
            event: event.as_bytes().into(),
            ..Envelope::default()
        }
    }

    fn ways(routes: &Routes, plan: Plan) -> BTreeMap<String, &'static str> {
        let Plan::Fans(ways) = plan else {
            panic!("{plan:?}")
        };
        ways.iter()
            .map(|way| {
                let id = routes.target(way.target).destination_id.clone();
                (id, way.filtered.map_or("goes", FilterReason::name))
            })
            .collect()
    }

    #[test]
    fn an_event_goes_where_connections_integrations_consent_and_types_let_it() {
        let routes = routes();
        let denied = r#"{"context":{"consentManagement":{"deniedConsentIds":["C1"]}}}"#;
        let cases = [
            ("track", "{}", ["goes", "goes", "goes"]),
            ("Track", "{}", ["goes", "goes", "goes"]),
            ("identify", "{}", ["goes", "goes", "unsupported_type"]),
            (
                "track",
                r#"{"integrations":{"All":false,"Webhook":true}}"#,
                ["goes", "integrations_object", "integrations_object"],
            ),
            (
                "track",
                r#"{"integrations":{"Tracker":false}}"#,
                ["goes", "goes", "integrations_object"],
            ),
            ("track", denied, ["goes", "consent_denied", "goes"]),
        ];
        for (kind, event, expected) in cases {
            let found = ways(&routes, plan(&envelope("web", kind, "", event), &routes));
            let found: Vec<&str> = found.into_values().collect();
            assert_eq!(found, expected, "{kind} {event}");
        }
    }

    #[test]
    fn an_event_that_was_sent_for_one_destination_goes_to_no_other() {
        let routes = routes();
        let mut event = envelope("web", "track", "", "{}");
        event.destination_id = "hook".into();
        let found: Vec<_> = ways(&routes, plan(&event, &routes)).into_values().collect();
        assert_eq!(found, ["goes", "other_destination", "other_destination"]);
    }

    #[test]
    fn an_event_can_end_before_any_destination() {
        let routes = routes();
        let ends = |envelope: Envelope<'_>| match plan(&envelope, &routes) {
            Plan::Ends(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            ends(envelope("gone", "track", "", "{}")),
            FilterReason::SourceUnknown
        );
        assert_eq!(
            ends(envelope("lonely", "track", "", "{}")),
            FilterReason::NoDestination
        );
        assert_eq!(
            ends(envelope("web", "track", "Noise", "{}")),
            FilterReason::EventBlocked
        );
        let ahead = Envelope {
            config_revision: 2,
            ..envelope("new", "track", "", "{}")
        };
        assert_eq!(plan(&ahead, &routes), Plan::TooNew(2));
        let page = plan(&envelope("web", "page", "Noise", "{}"), &routes);
        assert!(
            matches!(page, Plan::Fans(_)),
            "only track events are blocked by name"
        );
        let broken = plan(
            &envelope("web", "track", "", r#"{"integrations":"#),
            &routes,
        );
        assert!(matches!(broken, Plan::Unreadable(_)));
    }

    proptest! {
        /// Whatever the event says, each connected and enabled destination is decided on exactly once and no other is.
        #[test]
        fn every_connected_destination_is_decided_on_once(
            all in proptest::option::of(any::<bool>()),
            hook in proptest::option::of(any::<bool>()),
            kind in "track|identify|page",
            denied in any::<bool>(),
        ) {
            let routes = routes();
            let mut integrations = serde_json::Map::new();
            if let Some(all) = all { integrations.insert("All".into(), all.into()); }
            if let Some(hook) = hook { integrations.insert("Webhook".into(), hook.into()); }
            let denied: &[&str] = if denied { &["C1"] } else { &[] };
            let event = serde_json::json!({
                "integrations": integrations,
                "context": {"consentManagement": {"deniedConsentIds": denied}},
            }).to_string();
            let found = ways(&routes, plan(&envelope("web", &kind, "", &event), &routes));
            prop_assert_eq!(found.keys().collect::<Vec<_>>(), ["hook", "strict", "tracks"]);
            let wanted = hook.unwrap_or(all.unwrap_or(true));
            prop_assert_eq!(found["hook"] == "goes", wanted);
            prop_assert!(denied.is_empty() || found["strict"] != "goes");
            prop_assert!(kind == "track" || found["tracks"] != "goes");
        }
    }
}

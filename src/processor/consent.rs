//! Whether a user's consent lets an event go to a destination.
//!
//! RudderStack's rules (`processor/consent.go`): they apply only when the event names denied consents. For a destination
//! the first of these that is configured decides: its generic entries for the event's provider, its OneTrust categories
//! (any denied one blocks), its Ketch purposes (blocked when all are denied).

use serde::Deserialize;
use serde_json::Value;

/// What consent the events of one destination need.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsentRules {
    generic: Vec<ProviderRule>,
    one_trust: Vec<String>,
    ketch: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ProviderRule {
    provider: String,
    strategy: Strategy,
    consents: Vec<String>,
}

/// How many of the configured consents must be denied to block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Strategy {
    /// Any.
    #[default]
    And,
    /// All.
    Or,
}

impl Strategy {
    fn named(name: &str) -> Self {
        if name.eq_ignore_ascii_case("or") {
            Self::Or
        } else {
            Self::And
        }
    }

    fn blocks(self, configured: &[String], denied: &[String]) -> bool {
        match self {
            Self::And => configured.iter().any(|c| denied.contains(c)),
            Self::Or => configured.iter().all(|c| denied.contains(c)),
        }
    }
}

/// `context.consentManagement` of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Consent {
    provider: String,
    resolution_strategy: String,
    /// Ids of the consents that the user denied.
    pub denied_consent_ids: Vec<String>,
}

impl ConsentRules {
    /// Reads the rules out of a destination's settings. Entries of another shape are no rules, as in RudderStack.
    pub fn of(config: &Value) -> Self {
        let generic = entries(config, "consentManagement")
            .filter_map(|entry| {
                let consents = names(entry.get("consents")?.as_array()?, "consent");
                (!consents.is_empty()).then(|| ProviderRule {
                    provider: text(entry, "provider"),
                    strategy: Strategy::named(&text(entry, "resolutionStrategy")),
                    consents,
                })
            })
            .collect();
        Self {
            generic,
            one_trust: list(config, "oneTrustCookieCategories", "oneTrustCookieCategory"),
            ketch: list(config, "ketchConsentPurposes", "purpose"),
        }
    }

    /// Whether no consent is needed.
    pub fn is_empty(&self) -> bool {
        self.generic.is_empty() && self.one_trust.is_empty() && self.ketch.is_empty()
    }

    /// Whether `consent` lets an event through.
    pub fn allow(&self, consent: &Consent) -> bool {
        let denied = &consent.denied_consent_ids;
        if denied.is_empty() {
            return true;
        }
        let of_provider = self
            .generic
            .iter()
            .find(|rule| rule.provider.eq_ignore_ascii_case(&consent.provider));
        if let Some(rule) = of_provider {
            // A provider that we know nothing of leaves its strategy to the destination.
            let strategy = if rule.provider.eq_ignore_ascii_case("custom") {
                rule.strategy
            } else {
                Strategy::named(&consent.resolution_strategy)
            };
            return !strategy.blocks(&rule.consents, denied);
        }
        if !self.one_trust.is_empty() {
            return !Strategy::And.blocks(&self.one_trust, denied);
        }
        self.ketch.is_empty() || !Strategy::Or.blocks(&self.ketch, denied)
    }
}

fn entries<'a>(config: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    config
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn list(config: &Value, key: &str, item: &str) -> Vec<String> {
    config
        .get(key)
        .and_then(Value::as_array)
        .map(|entries| names(entries, item))
        .unwrap_or_default()
}

fn names(entries: &[Value], key: &str) -> Vec<String> {
    entries
        .iter()
        .map(|entry| text(entry, key))
        .filter(|name| !name.is_empty())
        .collect()
}

fn text(entry: &Value, key: &str) -> String {
    entry
        .get(key)
        .and_then(Value::as_str)
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn consent(provider: &str, strategy: &str, denied: &[&str]) -> Consent {
        Consent {
            provider: provider.to_owned(),
            resolution_strategy: strategy.to_owned(),
            denied_consent_ids: denied.iter().map(|d| (*d).to_owned()).collect(),
        }
    }

    #[test]
    fn denied_consent_blocks_by_the_first_rule_that_is_configured() {
        let generic = |provider: &str, strategy: &str| {
            json!({"consentManagement": [{"provider": provider, "resolutionStrategy": strategy,
                "consents": [{"consent": "ads"}, {"consent": "stats"}]}]})
        };
        let one_trust = json!({"oneTrustCookieCategories": [{"oneTrustCookieCategory": "C1"}, {"oneTrustCookieCategory": "C2"}]});
        let ketch = json!({"ketchConsentPurposes": [{"purpose": "P1"}, {"purpose": "P2"}]});
        let cases = [
            (
                generic("oneTrust", ""),
                consent("oneTrust", "and", &["ads"]),
                false,
                "and: one denied blocks",
            ),
            (
                generic("oneTrust", ""),
                consent("oneTrust", "or", &["ads"]),
                true,
                "or: one denied passes",
            ),
            (
                generic("oneTrust", ""),
                consent("oneTrust", "or", &["ads", "stats"]),
                false,
                "or: all denied blocks",
            ),
            (
                generic("custom", "or"),
                consent("custom", "and", &["ads"]),
                true,
                "custom: the destination's strategy",
            ),
            (
                generic("custom", "and"),
                consent("custom", "or", &["ads"]),
                false,
                "custom: the destination's strategy",
            ),
            (
                generic("ketch", ""),
                consent("oneTrust", "and", &["ads"]),
                true,
                "another provider's rule is none",
            ),
            (
                generic("oneTrust", ""),
                consent("oneTrust", "and", &[]),
                true,
                "nothing denied",
            ),
            (
                one_trust.clone(),
                consent("", "", &["C2"]),
                false,
                "any category denied blocks",
            ),
            (
                one_trust,
                consent("", "", &["C3"]),
                true,
                "another category",
            ),
            (
                ketch.clone(),
                consent("", "", &["P1"]),
                true,
                "one purpose left",
            ),
            (
                ketch,
                consent("", "", &["P1", "P2"]),
                false,
                "no purpose left",
            ),
            (
                json!({}),
                consent("oneTrust", "and", &["ads"]),
                true,
                "no rule",
            ),
            (
                json!({"consentManagement": "x", "oneTrustCookieCategories": [7]}),
                consent("", "", &["x"]),
                true,
                "no rules",
            ),
        ];
        for (config, consent, allowed, why) in cases {
            assert_eq!(ConsentRules::of(&config).allow(&consent), allowed, "{why}");
        }
    }
}

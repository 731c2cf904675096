//! The topics, by role; the only place that spells their names.

use std::sync::Arc;

use super::Stage;

/// A topic by what it is for. Shapes are in `topics.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Accepted events.
    Events,
    /// Deliveries of one lane.
    Deliver(String),
    /// Parked deliveries of one lane.
    Parked(String),
    /// Rows to batch for one warehouse destination.
    Warehouse(String),
    /// Dead letters of one stage.
    Dlq(Stage),
    /// Counts of endings.
    Ledger,
    /// Hashes of accepted message ids.
    Seen,
    /// What the customer configured.
    Config,
}

impl Topic {
    /// The name in `topics.yaml`: without prefix, families as `deliver.*`.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Deliver(_) => "deliver.*",
            Self::Parked(_) => "parked.*",
            Self::Warehouse(_) => "warehouse.*",
            Self::Dlq(_) => "dlq.*",
            Self::Ledger => "ledger",
            Self::Seen => "seen",
            Self::Config => "config",
        }
    }
}

/// Names of topics under one prefix (default `sluice.`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicNames {
    prefix: Arc<str>,
}

impl TopicNames {
    /// Names under `prefix`, which includes its own trailing separator.
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// The prefix all names share; a topic without it is never touched.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The full name of `topic` on the cluster.
    pub fn name(&self, topic: &Topic) -> String {
        let p = &self.prefix;
        match topic {
            Topic::Events => format!("{p}events"),
            Topic::Deliver(lane) => format!("{p}deliver.{}", legal(lane)),
            Topic::Parked(lane) => format!("{p}parked.{}", legal(lane)),
            Topic::Warehouse(destination) => format!("{p}warehouse.{}", legal(destination)),
            Topic::Dlq(stage) => format!("{p}dlq.{}", stage.name()),
            Topic::Ledger => format!("{p}ledger"),
            Topic::Seen => format!("{p}seen"),
            Topic::Config => format!("{p}config"),
        }
    }
}

/// Kafka takes `[a-zA-Z0-9._-]`, up to 249 characters. Ids that hold anything else are rewritten, with a hash so that two
/// of them cannot meet.
fn legal(id: &str) -> String {
    const LONGEST: usize = 180;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if id.len() <= LONGEST && !id.is_empty() && id.chars().all(plain) {
        return id.to_owned();
    }
    let cleaned: String = id
        .chars()
        .take(LONGEST)
        .map(|c| if plain(c) { c } else { '-' })
        .collect();
    format!(
        "{cleaned}-{:016x}",
        twox_hash::XxHash3_64::oneshot(id.as_bytes())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ids_that_kafka_cannot_spell_do_not_share_a_topic() {
        let names = TopicNames::new("sluice.");
        assert_eq!(
            names.name(&Topic::Deliver("webhook-1".into())),
            "sluice.deliver.webhook-1"
        );
        let a = names.name(&Topic::Deliver("ä".into()));
        let b = names.name(&Topic::Deliver("ö".into()));
        assert_ne!(a, b);
        assert!(names.name(&Topic::Deliver("x".repeat(900))).len() < 249);
    }
}

//! Whether the topics of a role are safe to run on.

use super::plan::{Cluster, short};
use super::spec::{MIN_INSYNC, Spec};
use crate::config::Mode;
use crate::event::{Topic, TopicNames};

/// What is wrong with one topic, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Full name.
    pub topic: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {}: {}; fix: {}", self.topic, self.what, self.fix)
    }
}

const APPLY: &str = "run `sluice topics apply` with this role's settings";

/// Problems that must keep a role from starting on `topics`: one that is missing, one that shares keys with a partner but not
/// its partition count, and in production one that could lose an acknowledged event with a single machine.
pub fn check(
    spec: &Spec,
    names: &TopicNames,
    topics: &[Topic],
    cluster: &Cluster,
    mode: Mode,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for topic in topics {
        let name = names.name(topic);
        let mut problem = |what: String, fix: String| {
            problems.push(Problem {
                topic: name.clone(),
                what,
                fix,
            });
        };
        let Some(observed) = cluster.topics.get(&name) else {
            problem("missing".to_owned(), APPLY.to_owned());
            continue;
        };
        let partner = spec
            .shape(short(names, &name))
            .and_then(|shape| shape.copartition_with)
            .map(|partner| format!("{}{partner}", names.prefix()));
        if let Some(partner) = partner
            && let Some(other) = cluster.topics.get(&partner)
            && other.partitions != observed.partitions
        {
            problem(
                format!(
                    "has {} partitions and {partner} has {}, but equal keys must be in equal partitions",
                    observed.partitions, other.partitions
                ),
                "let the roles drain, then `sluice topics apply --allow-partition-increase`"
                    .to_owned(),
            );
        }
        match mode {
            Mode::Dev => {}
            Mode::Production => {
                if observed.replication < 2 {
                    problem(
                        "has one copy only; losing that broker loses events that were acknowledged".to_owned(),
                        "add replicas with kafka-reassign-partitions.sh, or set `mode: dev` if loss is acceptable"
                            .to_owned(),
                    );
                }
                let min = observed
                    .config
                    .get(MIN_INSYNC)
                    .and_then(|v| v.parse::<i16>().ok());
                if min.is_none_or(|min| min < 2) {
                    problem(
                        format!(
                            "{MIN_INSYNC} is below 2; an event may be acknowledged with one copy"
                        ),
                        APPLY.to_owned(),
                    );
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::{Observed, Spec};

    fn observed(partitions: i32, replication: i16, min: &str) -> Observed {
        Observed {
            partitions,
            replication,
            config: [(MIN_INSYNC.to_owned(), min.to_owned())].into(),
        }
    }

    fn problems(topics: &[(&str, Observed)], mode: Mode) -> Vec<String> {
        let cluster = Cluster {
            brokers: 3,
            topics: topics
                .iter()
                .map(|(name, o)| ((*name).to_owned(), o.clone()))
                .collect(),
        };
        let wanted = [Topic::Events, Topic::Seen, Topic::Deliver("hook".into())];
        let spec = Spec::load(None).unwrap();
        check(&spec, &TopicNames::new("t."), &wanted, &cluster, mode)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_safe_cluster_has_no_problems() {
        let good = observed(4, 3, "2");
        let topics = [
            ("t.events", good.clone()),
            ("t.seen", good.clone()),
            ("t.deliver.hook", good),
        ];
        assert_eq!(problems(&topics, Mode::Production), Vec::<String>::new());
    }

    #[test]
    fn a_missing_destination_topic_is_named_with_its_fix() {
        let topics = [
            ("t.events", observed(4, 3, "2")),
            ("t.seen", observed(4, 3, "2")),
        ];
        let found = problems(&topics, Mode::Dev);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("t.deliver.hook") && found[0].contains("topics apply"));
    }

    #[test]
    fn one_copy_or_one_in_sync_copy_is_refused_in_production_only() {
        let topics = [
            ("t.events", observed(4, 1, "1")),
            ("t.seen", observed(4, 3, "1")),
            ("t.deliver.hook", observed(4, 3, "2")),
        ];
        let found = problems(&topics, Mode::Production);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("t.events: has one copy"));
        assert!(found[2].contains("t.seen: min.insync.replicas"));
        assert!(problems(&topics, Mode::Dev).is_empty());
    }

    #[test]
    fn partners_with_different_partition_counts_are_refused_in_every_mode() {
        let topics = [
            ("t.events", observed(4, 3, "2")),
            ("t.seen", observed(6, 3, "2")),
            ("t.deliver.hook", observed(4, 3, "2")),
        ];
        for mode in [Mode::Dev, Mode::Production] {
            let found = problems(&topics, mode);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains("t.seen") && found[0].contains("t.events has 4"));
        }
    }
}

//! What to change on a cluster so that it has the topics it should have. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::spec::{MIN_INSYNC, Shape, Spec};
use crate::config::Mode;
use crate::event::{Topic, TopicNames};

/// One topic as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// How many partitions.
    pub partitions: i32,
    /// Copies of the partition that has the fewest.
    pub replication: i16,
    /// Settings in force, the broker's defaults included.
    pub config: BTreeMap<String, String>,
}

/// What a plan needs to know of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    /// Live brokers.
    pub brokers: usize,
    /// Topics that carry our prefix, by full name.
    pub topics: BTreeMap<String, Observed>,
}

/// Partitions of a topic for each broker in dev mode. librdkafka sends one request for each partition that a transaction
/// wrote to, and a broker serves the requests of a connection one after the other: on one broker every further partition
/// makes each transaction longer and nothing faster.
const DEV_PARTITIONS_MAX: i32 = 3;

/// What a plan may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanOptions {
    /// In [`Mode::Dev`] replication is capped at the number of brokers, the in-sync minimum is 1, and a topic has at most
    /// [`DEV_PARTITIONS_MAX`] partitions for each broker.
    pub mode: Mode,
    /// Adds partitions to keyed topics. Keys then move to other partitions: events of one user that are in flight meanwhile can
    /// be delivered out of order, and parked keys are looked for in the wrong place.
    pub allow_partition_increase: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Make a topic.
    Create {
        /// Full name.
        topic: String,
        /// How many partitions.
        partitions: i32,
        /// Copies of each.
        replication: i16,
        /// Settings.
        config: BTreeMap<String, String>,
    },
    /// Set settings; those that are not named stay.
    Alter {
        /// Full name.
        topic: String,
        /// Setting, value in force (`None` when the broker does not know it), value to set.
        changes: Vec<ConfigChange>,
    },
    /// Raise the number of partitions.
    AddPartitions {
        /// Full name.
        topic: String,
        /// How many there are.
        from: i32,
        /// How many there will be.
        to: i32,
    },
}

/// One setting to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigChange {
    /// Kafka's name of it.
    pub key: String,
    /// Value in force.
    pub from: Option<String>,
    /// Value to set.
    pub to: String,
}

/// Something that a plan does not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// Declared, but not done because it could lose order or data, or cannot be done.
    Refused {
        /// Full name.
        topic: String,
        /// What is declared and why it is not done.
        why: String,
        /// What to do about it.
        fix: String,
    },
    /// Different from the declaration and left as it is.
    Drift {
        /// Full name.
        topic: String,
        /// What differs and who can change it.
        what: String,
    },
    /// Carries our prefix, is not declared, and is left alone.
    Unmanaged {
        /// Full name.
        topic: String,
    },
}

/// What would be changed, and what would not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Plan {
    /// Changes, in the order in which they are made.
    pub actions: Vec<Action>,
    /// What is not changed, and why.
    pub notes: Vec<Note>,
}

impl Action {
    /// Whether `cluster` shows what the action was to bring about.
    pub fn is_done(&self, cluster: &Cluster) -> bool {
        match self {
            Self::Create { topic, .. } => cluster.topics.contains_key(topic),
            Self::Alter { topic, changes } => cluster.topics.get(topic).is_some_and(|observed| {
                changes
                    .iter()
                    .all(|change| observed.config.get(&change.key) == Some(&change.to))
            }),
            Self::AddPartitions { topic, to, .. } => cluster
                .topics
                .get(topic)
                .is_some_and(|observed| observed.partitions >= *to),
        }
    }
}

impl Plan {
    /// Whether the cluster is as declared, apart from notes.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// What is declared and was not done.
    pub fn refusals(&self) -> impl Iterator<Item = &Note> {
        self.notes
            .iter()
            .filter(|note| matches!(note, Note::Refused { .. }))
    }
}

/// Compares `cluster` with the shapes that `spec` declares for `wanted`.
pub fn plan(
    spec: &Spec,
    names: &TopicNames,
    wanted: &[Topic],
    cluster: &Cluster,
    options: PlanOptions,
) -> Plan {
    let mut plan = Plan::default();
    // Partition counts as they will be once the plan is carried out, by short name: partners follow them.
    let mut counts: BTreeMap<String, i32> = BTreeMap::new();
    let mut ours = BTreeSet::new();
    for topic in partners_first(spec, names, wanted) {
        let name = names.name(topic);
        let short = short(names, &name).to_owned();
        let Some(mut shape) = spec.shape(&short) else {
            continue;
        };
        if let Some(partner) = &shape.copartition_with {
            shape.partitions = counts.get(partner).copied().unwrap_or(shape.partitions);
        }
        if options.mode == Mode::Dev {
            let have = cluster
                .topics
                .get(&name)
                .map(|observed| observed.partitions);
            relax(&mut shape, cluster.brokers, have);
        }
        let count = match cluster.topics.get(&name) {
            None => create(&mut plan, &name, &shape, cluster.brokers),
            Some(observed) => adjust(&mut plan, &name, &shape, observed, options),
        };
        counts.insert(short, count);
        ours.insert(name);
    }
    plan.notes.extend(
        cluster
            .topics
            .keys()
            .filter(|name| name.starts_with(names.prefix()) && !ours.contains(*name))
            .map(|name| Note::Unmanaged {
                topic: name.clone(),
            }),
    );
    plan
}

/// The name without the prefix.
pub(super) fn short<'a>(names: &TopicNames, name: &'a str) -> &'a str {
    name.strip_prefix(names.prefix()).unwrap_or(name)
}

fn partners_first<'a>(spec: &Spec, names: &TopicNames, wanted: &'a [Topic]) -> Vec<&'a Topic> {
    let follows = |topic: &&Topic| {
        spec.shape(short(names, &names.name(topic)))
            .is_some_and(|shape| shape.copartition_with.is_some())
    };
    let mut topics: Vec<&Topic> = wanted.iter().collect();
    topics.sort_by_key(follows);
    topics
}

/// One broker cannot hold three copies, and in dev mode need not; nor many partitions. A topic that has more of them already,
/// up to what is declared, keeps them.
fn relax(shape: &mut Shape, brokers: usize, have: Option<i32>) {
    let brokers = i16::try_from(brokers.max(1)).unwrap_or(i16::MAX);
    shape.replication = shape.replication.min(brokers);
    shape.config.insert(MIN_INSYNC.to_owned(), "1".to_owned());
    if shape.copartition_with.is_some() {
        return;
    }
    let least = shape.partitions.min(DEV_PARTITIONS_MAX);
    let most = (DEV_PARTITIONS_MAX * i32::from(brokers)).min(shape.partitions);
    shape.partitions = have.map_or(most, |have| have.clamp(least, shape.partitions));
}

fn create(plan: &mut Plan, name: &str, shape: &Shape, brokers: usize) -> i32 {
    if usize::try_from(shape.replication).is_ok_and(|copies| copies > brokers) {
        plan.notes.push(Note::Refused {
            topic: name.to_owned(),
            why: format!(
                "{} copies of each partition are declared and the cluster has {brokers} broker(s)",
                shape.replication
            ),
            fix: "add brokers; to try things out on one broker set `mode: dev`".to_owned(),
        });
    } else {
        plan.actions.push(Action::Create {
            topic: name.to_owned(),
            partitions: shape.partitions,
            replication: shape.replication,
            config: shape.config.clone(),
        });
    }
    shape.partitions
}

/// Returns the partition count that the topic will have.
fn adjust(
    plan: &mut Plan,
    name: &str,
    shape: &Shape,
    observed: &Observed,
    options: PlanOptions,
) -> i32 {
    let count = partitions(plan, name, shape, observed.partitions, options);
    if observed.replication != shape.replication {
        plan.notes.push(Note::Drift {
            topic: name.to_owned(),
            what: format!(
                "replication is {}, {} is declared; replicas are moved with kafka-reassign-partitions.sh",
                observed.replication, shape.replication
            ),
        });
    }
    let changes: Vec<ConfigChange> = shape
        .config
        .iter()
        .filter(|(key, value)| observed.config.get(*key) != Some(*value))
        .map(|(key, value)| ConfigChange {
            key: key.clone(),
            from: observed.config.get(key).cloned(),
            to: value.clone(),
        })
        .collect();
    // Raising the in-sync minimum over the copies that exist would stop all writes.
    let min = shape
        .config
        .get(MIN_INSYNC)
        .and_then(|v| v.parse::<i16>().ok());
    if let Some(min) = min
        && min > observed.replication
        && changes.iter().any(|change| change.key == MIN_INSYNC)
    {
        plan.notes.push(Note::Refused {
            topic: name.to_owned(),
            why: format!(
                "{MIN_INSYNC} {min} with {} copies would stop all writes",
                observed.replication
            ),
            fix: "add replicas first (kafka-reassign-partitions.sh), then apply again".to_owned(),
        });
        let rest: Vec<ConfigChange> = changes
            .into_iter()
            .filter(|change| change.key != MIN_INSYNC)
            .collect();
        alter(plan, name, rest);
    } else {
        alter(plan, name, changes);
    }
    count
}

fn alter(plan: &mut Plan, name: &str, changes: Vec<ConfigChange>) {
    if !changes.is_empty() {
        plan.actions.push(Action::Alter {
            topic: name.to_owned(),
            changes,
        });
    }
}

fn partitions(plan: &mut Plan, name: &str, shape: &Shape, have: i32, options: PlanOptions) -> i32 {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let declared = match &shape.copartition_with {
        Some(partner) => format!("{} as {partner}", shape.partitions),
        None => shape.partitions.to_string(),
    };
    match have.cmp(&shape.partitions) {
        Equal => have,
        Greater => {
            plan.notes.push(Note::Refused {
                topic: name.to_owned(),
                why: format!(
                    "has {have} partitions, {declared} declared; Kafka cannot remove partitions"
                ),
                fix: match &shape.copartition_with {
                    Some(partner) => format!(
                        "raise the partitions of {partner}, or drain and recreate this topic"
                    ),
                    None => format!("declare {have} partitions for it in topics.yaml"),
                },
            });
            have
        }
        Less if shape.keyed && !options.allow_partition_increase => {
            plan.notes.push(Note::Refused {
                topic: name.to_owned(),
                why: format!(
                    "has {have} partitions, {declared} declared; new partitions move keys, which breaks the order of events in flight and loses sight of parked keys"
                ),
                fix: "stop the gateways, let the roles drain, then apply with --allow-partition-increase"
                    .to_owned(),
            });
            have
        }
        Less => {
            plan.actions.push(Action::AddPartitions {
                topic: name.to_owned(),
                from: have,
                to: shape.partitions,
            });
            shape.partitions
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

//! Looking at a cluster and changing it as planned. Every call blocks.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::{Action, Cluster, Observed, Plan, PlanOptions, plan};
use super::spec::Spec;
use crate::event::{Topic, TopicNames};
use crate::fault::{Classify, Fault};
use crate::kafka::{Admin, KafkaError, NewTopic, TopicInfo};

/// How long changes made by somebody else at the same time, or brokers that have not heard of ours, are waited for.
const SETTLE: Duration = Duration::from_secs(15);

/// Between two looks at a cluster that is changing.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why topics could not be brought into shape.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TopicsError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error("topic {topic}")]
    Change {
        topic: String,
        #[source]
        source: KafkaError,
    },
    #[error("the topics do not settle: still to do is {}", topics.join(", "))]
    Unsettled { topics: Vec<String> },
}

impl Classify for TopicsError {
    fn fault(&self) -> Fault {
        match self {
            Self::Kafka(source) | Self::Change { source, .. } => source.fault(),
            Self::Unsettled { .. } => Fault::RETRY,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Kafka(source) | Self::Change { source, .. } => source.code(),
            Self::Unsettled { .. } => "topics_unsettled",
        }
    }
}

/// The brokers and the topics that carry our prefix.
///
/// # Errors
/// When the cluster does not answer.
pub fn observe(admin: &Admin, names: &TopicNames) -> Result<Cluster, KafkaError> {
    let brokers = admin.cluster()?.brokers.len();
    let ours: Vec<TopicInfo> = admin
        .topics()?
        .into_iter()
        .filter(|topic| topic.name.starts_with(names.prefix()))
        .collect();
    let full: Vec<&str> = ours.iter().map(|topic| topic.name.as_str()).collect();
    let mut settings = if full.is_empty() {
        BTreeMap::new()
    } else {
        admin.settings(&full)?
    };
    let topics = ours
        .iter()
        .map(|topic| {
            let config = settings.remove(&topic.name).unwrap_or_default();
            let observed = Observed {
                partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
                replication: i16::try_from(topic.replication()).unwrap_or(i16::MAX),
                config: config
                    .into_iter()
                    .filter_map(|(key, setting)| Some((key, setting.value?)))
                    .collect(),
            };
            (topic.name.clone(), observed)
        })
        .collect();
    Ok(Cluster { brokers, topics })
}

/// Carries out the actions of a plan, tells of each as it is done, and returns once the cluster shows them; with `dry_run` the
/// brokers are only asked whether they would. A topic that somebody else made meanwhile is not an error: the next plan compares it.
///
/// # Errors
/// The actions that failed; the others were carried out.
pub fn apply(
    admin: &Admin,
    names: &TopicNames,
    plan: &Plan,
    dry_run: bool,
    mut done: impl FnMut(&Action),
) -> Result<(), Vec<TopicsError>> {
    let mut failed = Vec::new();
    // Creating waits for leaders by itself.
    let mut pending: Vec<&Action> = plan
        .actions
        .iter()
        .filter(|action| !matches!(action, Action::Create { .. }))
        .collect();
    for action in together(admin, plan, dry_run, &mut done) {
        let (Action::Create { topic, .. }
        | Action::Alter { topic, .. }
        | Action::AddPartitions { topic, .. }) = action;
        match one(admin, action, dry_run) {
            Err(source) if !source.is_already_there() => {
                pending.retain(|other| *other != action);
                failed.push(TopicsError::Change {
                    topic: topic.clone(),
                    source,
                });
            }
            Ok(()) | Err(_) => done(action),
        }
    }
    if !dry_run && let Err(error) = settle(admin, names, &pending) {
        failed.push(error);
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed)
    }
}

/// Waits until the brokers show what the controller has accepted: they hear of it a little later, and tell nobody when.
fn settle(admin: &Admin, names: &TopicNames, actions: &[&Action]) -> Result<(), TopicsError> {
    let until = Instant::now() + SETTLE;
    loop {
        if actions.is_empty() {
            return Ok(());
        }
        let cluster = observe(admin, names)?;
        let open: Vec<&&Action> = actions
            .iter()
            .filter(|action| !action.is_done(&cluster))
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(TopicsError::Unsettled {
                topics: open.iter().map(ToString::to_string).collect(),
            });
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Creates all new topics with one request, which is much faster than one by one. Returns the actions that are left: all of
/// them when the request failed, so that each can be tried, and named, by itself.
fn together<'a>(
    admin: &Admin,
    plan: &'a Plan,
    dry_run: bool,
    done: &mut impl FnMut(&Action),
) -> Vec<&'a Action> {
    let (creates, others): (Vec<&Action>, Vec<&Action>) = plan
        .actions
        .iter()
        .partition(|action| matches!(action, Action::Create { .. }));
    let topics: Vec<NewTopic> = creates
        .iter()
        .filter_map(|action| new_topic(action))
        .collect();
    if !topics.is_empty() && admin.create(&topics, dry_run).is_ok() {
        creates.into_iter().for_each(done);
        return others;
    }
    plan.actions.iter().collect()
}

fn one(admin: &Admin, action: &Action, dry_run: bool) -> Result<(), KafkaError> {
    match action {
        Action::Create { .. } => {
            let topics: Vec<NewTopic> = new_topic(action).into_iter().collect();
            admin.create(&topics, dry_run)
        }
        Action::Alter { topic, changes } => {
            let set = changes
                .iter()
                .map(|change| (change.key.clone(), change.to.clone()))
                .collect();
            admin.alter_settings(topic, &set, &[], dry_run)
        }
        Action::AddPartitions { topic, to, .. } => {
            admin.add_partitions(topic, usize::try_from(*to).unwrap_or(0), dry_run)
        }
    }
}

fn new_topic(action: &Action) -> Option<NewTopic> {
    match action {
        Action::Create {
            topic,
            partitions,
            replication,
            config,
        } => Some(NewTopic {
            name: topic.clone(),
            partitions: *partitions,
            replication: i32::from(*replication),
            settings: config.clone(),
        }),
        Action::Alter { .. } | Action::AddPartitions { .. } => None,
    }
}

/// Plans and applies until there is nothing left to do. Returns the last plan, whose notes say what was not done, and the
/// cluster as it is now.
///
/// # Errors
/// When the cluster does not answer or refuses a change.
pub fn ensure(
    admin: &Admin,
    spec: &Spec,
    names: &TopicNames,
    wanted: &[Topic],
    options: PlanOptions,
) -> Result<(Plan, Cluster), TopicsError> {
    let until = Instant::now() + SETTLE;
    loop {
        let cluster = observe(admin, names)?;
        let plan = plan(spec, names, wanted, &cluster, options);
        if plan.is_empty() {
            return Ok((plan, cluster));
        }
        if Instant::now() > until {
            return Err(TopicsError::Unsettled {
                topics: plan.actions.iter().map(ToString::to_string).collect(),
            });
        }
        let applied = apply(admin, names, &plan, false, |action| {
            tracing::info!(%action, "topic brought into shape");
        });
        if let Err(failed) = applied
            && let Some(first) = failed.into_iter().next()
        {
            return Err(first);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

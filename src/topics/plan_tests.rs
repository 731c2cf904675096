use super::*;

fn production() -> PlanOptions {
    PlanOptions::default()
}

fn dev() -> PlanOptions {
    PlanOptions {
        mode: Mode::Dev,
        ..PlanOptions::default()
    }
}

fn wanted() -> Vec<Topic> {
    // Partners after those that follow them: the plan must not depend on the order.
    vec![
        Topic::Parked("hook".into()),
        Topic::Seen,
        Topic::Deliver("hook".into()),
        Topic::Events,
    ]
}

fn run(cluster: &Cluster, options: PlanOptions) -> Plan {
    let spec = Spec::load(None).unwrap();
    plan(&spec, &TopicNames::new("t."), &wanted(), cluster, options)
}

/// The cluster after the plan was carried out.
fn carried_out(plan: &Plan, mut cluster: Cluster) -> Cluster {
    for action in plan.actions.clone() {
        match action {
            Action::Create {
                topic,
                partitions,
                replication,
                config,
            } => {
                let observed = Observed {
                    partitions,
                    replication,
                    config,
                };
                cluster.topics.insert(topic, observed);
            }
            Action::Alter { topic, changes } => {
                let topic = cluster.topics.get_mut(&topic).unwrap();
                topic
                    .config
                    .extend(changes.into_iter().map(|c| (c.key, c.to)));
            }
            Action::AddPartitions { topic, to, .. } => {
                cluster.topics.get_mut(&topic).unwrap().partitions = to;
            }
        }
    }
    cluster
}

fn applied(brokers: usize, options: PlanOptions) -> Cluster {
    let empty = Cluster {
        brokers,
        ..Cluster::default()
    };
    carried_out(&run(&empty, options), empty)
}

fn topic<'a>(cluster: &'a mut Cluster, name: &str) -> &'a mut Observed {
    cluster.topics.get_mut(name).unwrap()
}

#[test]
fn a_cluster_that_was_planned_and_changed_needs_no_further_change() {
    for (brokers, options) in [(3, production()), (1, dev())] {
        let empty = Cluster {
            brokers,
            ..Cluster::default()
        };
        let first = run(&empty, options);
        assert!(!first.actions.iter().any(|action| action.is_done(&empty)));
        let cluster = applied(brokers, options);
        assert!(first.actions.iter().all(|action| action.is_done(&cluster)));
        assert_eq!(cluster.topics.len(), 4);
        assert_eq!(run(&cluster, options), Plan::default());
    }
}

#[test]
fn dev_mode_caps_copies_at_the_brokers_and_production_refuses_instead() {
    let cluster = applied(1, dev());
    assert!(
        cluster
            .topics
            .values()
            .all(|t| t.replication == 1 && t.config[MIN_INSYNC] == "1")
    );
    let refused = run(
        &Cluster {
            brokers: 1,
            ..Cluster::default()
        },
        production(),
    );
    assert!(refused.is_empty());
    assert_eq!(refused.refusals().count(), 4);
    assert!(refused.notes[0].to_string().contains("mode: dev"));
}

#[test]
fn partitions_are_never_removed() {
    let mut cluster = applied(3, production());
    topic(&mut cluster, "t.events").partitions = 20;
    topic(&mut cluster, "t.seen").partitions = 20;
    let plan = run(
        &cluster,
        PlanOptions {
            allow_partition_increase: true,
            ..production()
        },
    );
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(
        plan.refusals().count(),
        1,
        "seen follows what events has: {plan:?}"
    );
    assert!(plan.notes[0].to_string().contains("declare 20 partitions"));
}

#[test]
fn a_keyed_topic_grows_only_when_told_to_and_its_partner_with_it() {
    let mut cluster = applied(3, production());
    topic(&mut cluster, "t.deliver.hook").partitions = 2;
    topic(&mut cluster, "t.parked.hook").partitions = 2;
    let refused = run(&cluster, production());
    assert!(refused.is_empty());
    assert_eq!(refused.refusals().count(), 1, "{refused:?}");
    assert!(
        refused.notes[0]
            .to_string()
            .contains("--allow-partition-increase")
    );
    let allowed = run(
        &cluster,
        PlanOptions {
            allow_partition_increase: true,
            ..production()
        },
    );
    assert_eq!(allowed.actions.len(), 2, "{allowed:?}");
    let after = carried_out(&allowed, cluster);
    assert_eq!(
        after.topics["t.parked.hook"].partitions,
        after.topics["t.deliver.hook"].partitions
    );
}

#[test]
fn a_new_partner_takes_the_count_that_exists_not_the_declared_one() {
    let mut cluster = applied(3, production());
    topic(&mut cluster, "t.deliver.hook").partitions = 9;
    cluster.topics.remove("t.parked.hook");
    let plan = run(&cluster, production());
    let Action::Create {
        topic, partitions, ..
    } = &plan.actions[0]
    else {
        panic!("{plan:?}");
    };
    assert_eq!((topic.as_str(), *partitions), ("t.parked.hook", 9));
}

#[test]
fn replication_drift_is_told_and_left_alone() {
    let mut cluster = applied(3, production());
    topic(&mut cluster, "t.events").replication = 2;
    let plan = run(&cluster, production());
    assert!(plan.is_empty() && plan.refusals().next().is_none());
    let Note::Drift { topic, what } = &plan.notes[0] else {
        panic!("{plan:?}");
    };
    assert!(topic == "t.events" && what.contains("replication is 2, 3 is declared"));
}

#[test]
fn only_declared_settings_are_changed_and_both_values_are_shown() {
    let mut cluster = applied(3, production());
    let events = topic(&mut cluster, "t.events");
    events
        .config
        .insert("retention.ms".into(), "3600000".into());
    events.config.insert("segment.bytes".into(), "1".into());
    let plan = run(&cluster, production());
    assert_eq!(plan.actions.len(), 1);
    assert_eq!(
        plan.actions[0].to_string(),
        "~ t.events\n    retention.ms 3600000 (1h) -> 604800000 (7d)"
    );
}

#[test]
fn an_in_sync_minimum_above_the_copies_is_refused_but_other_settings_are_set() {
    let mut cluster = applied(3, production());
    let events = topic(&mut cluster, "t.events");
    events.replication = 1;
    events.config.insert(MIN_INSYNC.into(), "1".into());
    events.config.insert("retention.ms".into(), "1".into());
    let plan = run(&cluster, production());
    assert_eq!(plan.actions.len(), 1);
    assert!(!plan.actions[0].to_string().contains(MIN_INSYNC));
    assert_eq!(plan.refusals().count(), 1);
}

#[test]
fn foreign_topics_are_not_mentioned_and_leftovers_of_ours_are_never_touched() {
    let mut cluster = applied(3, production());
    cluster.topics.insert("orders".into(), Observed::default());
    cluster
        .topics
        .insert("t.deliver.old".into(), Observed::default());
    let plan = run(&cluster, production());
    assert!(plan.is_empty());
    let left = Note::Unmanaged {
        topic: "t.deliver.old".into(),
    };
    assert_eq!(plan.notes, [left]);
}

#[test]
fn one_broker_in_dev_mode_gets_few_partitions_and_keeps_those_it_has() {
    let counts = |cluster: &Cluster| -> Vec<i32> {
        ["t.events", "t.seen", "t.deliver.hook", "t.parked.hook"]
            .map(|name| cluster.topics[name].partitions)
            .to_vec()
    };
    assert_eq!(counts(&applied(1, dev())), [3, 3, 3, 3]);
    assert_eq!(counts(&applied(3, dev())), [9, 9, 6, 6]);
    assert_eq!(counts(&applied(3, production())), [12, 12, 6, 6]);

    // As a version before this rule made them, one of them lost since.
    let mut older = applied(3, production());
    older.brokers = 1;
    older.topics.remove("t.seen");
    let plan = run(&older, dev());
    assert_eq!(plan.refusals().count(), 0, "{plan:?}");
    assert_eq!(counts(&carried_out(&plan, older)), [12, 12, 6, 6]);
}

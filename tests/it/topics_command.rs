//! `sluice topics plan|apply|check` against a real broker, as an operator runs them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice::config::KafkaConfig;
use sluice::dev::kafka::{ClusterSize, LocalKafka, LocalKafkaOptions};
use sluice::kafka::{Admin, NewTopic};

use crate::support::command::{Bench, Ran};

const WORKSPACE: &str = "
sources: [{id: web, write_key: K}]
destinations: [{id: hook, type: webhook}, {id: pg, type: postgres}]
connections: [{source: web, destination: hook}, {source: web, destination: pg}]";

/// An operator's desk: settings for the shared broker under a prefix of its own.
struct Desk {
    bench: Bench,
    prefix: String,
    admin: Admin,
}

impl Desk {
    fn new(mode: &str) -> Self {
        Self::at(LocalKafka::shared().unwrap(), mode)
    }

    fn at(kafka: &LocalKafka, mode: &str) -> Self {
        let prefix = format!("t{:08x}.", fastrand::u32(..));
        let bench = Bench::new(&format!(
            "mode: {mode}\nkafka: {{bootstrap: '{}'}}\ntopics: {{prefix: {prefix}}}\nworkspace: {{file: workspace.yaml}}\nadmin: {{listen: '127.0.0.1:0'}}",
            kafka.bootstrap()
        ));
        bench.write("workspace.yaml", WORKSPACE);
        let admin = Admin::open(&KafkaConfig::at(kafka.bootstrap())).unwrap();
        Self {
            bench,
            prefix,
            admin,
        }
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.bench.run(&[&["topics"], args].concat())
    }

    fn name(&self, short: &str) -> String {
        format!("{}{short}", self.prefix)
    }

    fn create(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.create_copies(name, partitions, 1, settings);
    }

    fn create_copies(&self, name: &str, partitions: i32, copies: i32, settings: &[(&str, &str)]) {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions,
            replication: copies,
            settings: settings
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        };
        self.admin.create(&[topic], false).unwrap();
    }

    fn partitions(&self, short: &str) -> usize {
        let topic = self.admin.topic(&self.name(short)).unwrap();
        topic.map_or(0, |topic| topic.partitions.len())
    }

    fn setting(&self, name: &str, key: &str) -> String {
        let all = self.admin.settings(&[name]).unwrap();
        all[name][key].value.clone().unwrap()
    }
}

#[test]
fn after_an_apply_there_is_nothing_left_to_plan_and_the_roles_may_start() {
    let desk = Desk::new("dev");
    let before = desk.run(&["plan", "--detailed-exitcode", "-o", "json"]);
    assert_eq!(before.code, 6, "{before:?}");
    let planned = before.json()["plan"]["actions"].as_array().unwrap().len();
    assert_eq!(
        planned, 10,
        "4 fixed, 3 dead-letter, 2 of the webhook, 1 of the warehouse"
    );
    assert_eq!(desk.partitions("events"), 0, "a plan creates nothing");

    let tried = desk.run(&["apply", "--dry-run"]);
    assert_eq!(tried.code, 0, "{tried:?}");
    assert!(
        tried.stderr.contains("10 of 10 change(s) would be made"),
        "{tried:?}"
    );
    assert_eq!(desk.partitions("events"), 0, "a dry run creates nothing");

    let applied = desk.run(&["apply", "--yes", "-o", "json"]);
    assert_eq!(applied.code, 0, "{applied:?}");
    assert_eq!(applied.json()["done"], 10);
    assert_eq!(desk.partitions("events"), desk.partitions("seen"));
    assert_eq!(
        desk.partitions("deliver.hook"),
        desk.partitions("parked.hook")
    );
    assert_eq!(
        desk.setting(&desk.name("dlq.router"), "retention.ms"),
        "2592000000"
    );

    let after = desk.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(after.code, 0, "{after:?}");
    assert_eq!(after.stdout, "The topics are as declared.\n");
    let check = desk.run(&["check"]);
    assert_eq!(
        (check.code, check.stdout.as_str()),
        (0, "10 topics are safe to run on\n"),
        "{check:?}"
    );
}

#[test]
fn nothing_is_changed_without_a_yes_when_nobody_can_be_asked() {
    let desk = Desk::new("dev");
    let ran = desk.run(&["apply"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("--yes"), "{ran:?}");
    assert_eq!(desk.partitions("events"), 0);
}

#[test]
fn partitions_are_not_removed_and_added_only_when_told_to() {
    let desk = Desk::new("dev");
    desk.create(&desk.name("events"), 14, &[]);
    desk.create(&desk.name("deliver.hook"), 2, &[]);
    let refused = desk.run(&["apply", "--yes", "-o", "json"]);
    assert_eq!(refused.code, 5, "the rest was done: {refused:?}");
    assert_eq!(refused.json()["refused"], 2);
    assert!(
        refused.stderr.contains("Kafka cannot remove partitions"),
        "{refused:?}"
    );
    assert!(
        refused.stderr.contains("--allow-partition-increase"),
        "{refused:?}"
    );
    assert_eq!(
        (desk.partitions("events"), desk.partitions("seen")),
        (14, 14)
    );
    assert_eq!(
        (
            desk.partitions("deliver.hook"),
            desk.partitions("parked.hook")
        ),
        (2, 2)
    );

    let allowed = desk.run(&["apply", "--yes", "--allow-partition-increase"]);
    assert_eq!(allowed.code, 5, "events still has too many: {allowed:?}");
    assert_eq!(desk.partitions("events"), 14);
    assert_eq!(
        (
            desk.partitions("deliver.hook"),
            desk.partitions("parked.hook")
        ),
        (3, 3),
        "what dev mode has on one broker"
    );
}

#[test]
fn topics_of_others_and_settings_of_others_are_left_as_they_are() {
    let desk = Desk::new("dev");
    let foreign = format!("other-{}", desk.prefix);
    desk.create(&foreign, 3, &[("retention.ms", "1000")]);
    let leftover = desk.name("deliver.gone");
    desk.create(&leftover, 3, &[("retention.ms", "1000")]);
    let events = desk.name("events");
    desk.create(
        &events,
        12,
        &[("retention.ms", "1000"), ("segment.bytes", "1048576")],
    );

    let plan = desk.run(&["plan"]);
    assert!(!plan.stdout.contains(&foreign), "{plan:?}");
    assert!(
        plan.stdout.contains(&format!(". {leftover}: not declared")),
        "{plan:?}"
    );
    assert!(
        plan.stdout
            .contains("retention.ms 1000 (1s) -> 604800000 (7d)"),
        "{plan:?}"
    );
    assert_eq!(desk.run(&["apply", "--yes"]).code, 0);

    assert_eq!(desk.setting(&foreign, "retention.ms"), "1000");
    assert_eq!(desk.setting(&leftover, "retention.ms"), "1000");
    assert_eq!(desk.setting(&events, "retention.ms"), "604800000");
    assert_eq!(
        desk.setting(&events, "segment.bytes"),
        "1048576",
        "set by somebody, not declared"
    );
    assert_eq!(desk.run(&["plan", "--detailed-exitcode"]).code, 0);
}

#[test]
fn copies_that_differ_are_reported_and_not_touched() {
    let desk = Desk::new("production");
    desk.create(&desk.name("events"), 12, &[]);
    let plan = desk.run(&["plan", "-o", "json"]).json();
    let notes = plan["plan"]["notes"].as_array().unwrap();
    let about = |kind: &str| -> Vec<&serde_json::Value> {
        let events = desk.name("events");
        notes
            .iter()
            .filter(|n| n["note"] == kind && n["topic"] == events.as_str())
            .collect()
    };
    assert!(
        about("drift")[0]["what"]
            .as_str()
            .unwrap()
            .contains("replication is 1, 3 is declared")
    );
    assert!(
        about("refused")[0]["why"]
            .as_str()
            .unwrap()
            .contains("would stop all writes")
    );
}

#[test]
fn in_production_one_broker_is_refused_by_plan_check_and_role() {
    let desk = Desk::new("production");
    let plan = desk.run(&["apply", "--yes"]);
    assert_eq!(plan.code, 1, "nothing could be done: {plan:?}");
    assert!(plan.stderr.contains("has 1 broker(s)"), "{plan:?}");
    for short in [
        "events",
        "seen",
        "deliver.hook",
        "parked.hook",
        "warehouse.pg",
        "ledger",
    ] {
        desk.create(&desk.name(short), 6, &[]);
    }
    let check = desk.run(&["check"]);
    assert_eq!(check.code, 1, "{check:?}");
    assert!(check.stdout.contains("has one copy only"), "{check:?}");
    assert!(check.stdout.contains("min.insync.replicas"), "{check:?}");
    let role = desk.bench.run(&["router"]);
    assert_eq!(role.code, 1, "{role:?}");
    assert!(role.stderr.contains(&desk.name("deliver.hook")), "{role:?}");
    assert!(
        role.stderr.contains("kafka-reassign-partitions.sh"),
        "{role:?}"
    );
    assert!(
        !role.stderr.contains(&desk.name("events")),
        "the router does not use it: {role:?}"
    );
}

#[test]
fn in_production_on_three_brokers_every_record_has_three_copies() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = LocalKafka::start(LocalKafkaOptions {
        size: ClusterSize::Three,
        keep_data: false,
        ..LocalKafkaOptions::new(dir.path().join("kafka"))
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let desk = Desk::at(&kafka, "production");
    // Made by somebody before us, with too few copies: told, not touched.
    desk.create_copies(&desk.name("ledger"), 6, 2, &[]);
    let applied = desk.run(&["apply", "--yes"]);
    assert_eq!(applied.code, 0, "{applied:?}");
    let copies = |short: &str| {
        desk.admin
            .topic(&desk.name(short))
            .unwrap()
            .unwrap()
            .replication()
    };
    for short in ["events", "seen", "deliver.hook", "dlq.processor", "config"] {
        assert_eq!(copies(short), 3, "{short}");
        assert_eq!(desk.setting(&desk.name(short), "min.insync.replicas"), "2");
        assert_eq!(
            desk.setting(&desk.name(short), "unclean.leader.election.enable"),
            "false"
        );
    }
    assert_eq!(copies("ledger"), 2);
    let plan = desk.run(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code, 0, "drift is no change: {plan:?}");
    assert!(
        plan.stdout.contains("replication is 2, 3 is declared"),
        "{plan:?}"
    );
    let check = desk.run(&["check"]);
    assert_eq!(check.code, 0, "{check:?}");
    kafka.stop().unwrap();
}

#[test]
fn a_missing_topic_and_unequal_partners_are_named_with_their_fix() {
    let desk = Desk::new("dev");
    assert_eq!(desk.run(&["apply", "--yes"]).code, 0);
    desk.bench.write(
        "workspace.yaml",
        &WORKSPACE.replace(
            "[{id: hook, type: webhook}",
            "[{id: crm, type: webhook}, {id: hook, type: webhook}",
        ),
    );
    desk.admin
        .add_partitions(&desk.name("parked.hook"), 9, false)
        .unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while desk.partitions("parked.hook") != 9 {
        assert!(Instant::now() < until, "the partitions never came");
        std::thread::sleep(Duration::from_millis(10));
    }
    let check = desk.run(&["check", "-o", "json"]);
    assert_eq!(check.code, 1, "{check:?}");
    let found: BTreeMap<String, String> = check.json()["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["topic"].as_str().unwrap().to_owned(), p.to_string()))
        .collect();
    let named: Vec<&String> = found.keys().collect();
    assert_eq!(
        named,
        [
            &desk.name("deliver.crm"),
            &desk.name("parked.crm"),
            &desk.name("parked.hook")
        ]
    );
    assert!(found[&desk.name("deliver.crm")].contains("sluice topics apply"));
    assert!(found[&desk.name("parked.hook")].contains("has 9 partitions"));
}

#[test]
fn two_that_apply_at_once_both_succeed() {
    let desk = Desk::new("dev");
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let kafka = LocalKafka::shared().unwrap();
                    let admin = Admin::open(&KafkaConfig::at(kafka.bootstrap())).unwrap();
                    let workspace = sluice::control::parse_workspace("test", WORKSPACE, 1).unwrap();
                    sluice::topics::ensure(
                        &admin,
                        &sluice::topics::Spec::load(None).unwrap(),
                        &sluice::event::TopicNames::new(&desk.prefix),
                        &sluice::topics::wanted(&workspace),
                        sluice::topics::PlanOptions {
                            mode: sluice::config::Mode::Dev,
                            allow_partition_increase: false,
                        },
                    )
                })
            })
            .collect();
        for run in runs {
            let (plan, cluster) = run.join().unwrap().unwrap();
            assert_eq!(plan.notes, []);
            assert_eq!(cluster.topics.len(), 10);
        }
    });
}

#[test]
fn a_cluster_that_is_away_ends_with_4() {
    let bench = Bench::new("kafka: {bootstrap: '127.0.0.1:1'}");
    let ran = bench.run(&["topics", "plan", "--timeout", "1"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    assert!(ran.stderr.contains("could not"), "{ran:?}");
}

use super::*;

fn changed(from: &str, to: &str) -> Result<Spec, String> {
    assert!(EMBEDDED.contains(from), "{from:?} is not in topics.yaml");
    Spec::parse("test", &EMBEDDED.replacen(from, to, 1)).map_err(|error| error.to_string())
}

#[test]
fn the_embedded_declaration_covers_every_family_and_no_other() {
    let spec = Spec::load(None).unwrap();
    let mut expected = families();
    expected.sort_unstable();
    assert_eq!(spec.names().collect::<Vec<_>>(), expected);
    for short in ["events", "dlq.processor", "parked.my.hook", "warehouse.pg"] {
        let shape = spec.shape(short).unwrap();
        assert_eq!(shape.config[MIN_INSYNC], "2", "{short}");
        assert_eq!(shape.config["unclean.leader.election.enable"], "false");
    }
    assert_eq!(
        spec.shape("deliver.x").unwrap().config["retention.ms"],
        "604800000"
    );
    assert_eq!(
        spec.shape("dlq.router").unwrap().config["retention.ms"],
        "2592000000"
    );
    assert_eq!(
        spec.shape("config").unwrap().config["cleanup.policy"],
        "compact"
    );
    assert!(spec.shape("nonsense").is_none());
}

#[test]
fn partners_get_their_partition_count_from_the_topic_they_name() {
    let spec = changed(
        "  deliver.*:\n    partitions: 6",
        "  deliver.big: {partitions: 24}\n  deliver.*:\n    partitions: 8",
    )
    .unwrap();
    assert_eq!(spec.shape("parked.small").unwrap().partitions, 8);
    let parked = spec.shape("parked.big").unwrap();
    assert_eq!(parked.partitions, 24);
    assert_eq!(parked.copartition_with.as_deref(), Some("deliver.big"));
    assert!(
        spec.shape("deliver.big").unwrap().keyed,
        "the member keeps its family's settings"
    );
    assert_eq!(
        spec.shape("seen").unwrap().partitions,
        spec.shape("events").unwrap().partitions
    );
}

#[test]
fn a_declaration_that_would_lose_events_or_stop_writes_is_refused_by_name() {
    let wrong = [
        (
            "min.insync.replicas: 2",
            "min.insync.replicas: 4",
            "nothing can be written",
        ),
        (
            "min.insync.replicas: 2",
            "min.insync.replicas: 0",
            MIN_INSYNC,
        ),
        (
            "cleanup.policy: delete",
            "cleanup.policy: compact",
            "topics.events.config.cleanup.policy",
        ),
        (
            "cleanup.policy: compact",
            "cleanup.policy: delete",
            "topics.config.config.cleanup.policy",
        ),
        (
            "replication: 3",
            "replication: 0",
            "replication: must be at least 1",
        ),
        (
            "partitions: 12",
            "partitions: 0",
            "topics.events.partitions",
        ),
        (
            "retention.ms: 2h",
            "retention.ms: 2 hours",
            "topics.seen.config.retention.ms",
        ),
        (
            "copartition_with: events",
            "copartition_with: evnets",
            "evnets is not declared",
        ),
        (
            "copartition_with: events",
            "{}",
            "test is not a topics file",
        ),
        (
            "copartition_with: events",
            "copartition_with: events\n    partitions: 3",
            "remove one of them",
        ),
        (
            "copartition_with: deliver.*",
            "copartition_with: events",
            "does not have one topic for each",
        ),
        ("  ledger:", "  leger:", "topics.ledger: missing"),
        (
            "  ledger:",
            "  leger:",
            "topics.leger: not a topic of Sluice",
        ),
        (
            "  dlq.*:\n",
            "  dlq.*:\n    replication: 2\n",
            "must not be below that of events",
        ),
        ("version: 1", "version: 2", "version: 2"),
    ];
    for (from, to, says) in wrong {
        let error = changed(from, to).expect_err(to);
        assert!(error.contains(says), "{to}: {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Spec::load(Some(Path::new("/nowhere/topics.yaml"))).unwrap_err();
    assert!(error.to_string().contains("/nowhere/topics.yaml"));
    assert_eq!(error.code(), "topics_unreadable");
}

//! The role on a real Kafka: rows arrive once, whatever moves, is added or goes wrong.

use std::time::Duration;

use serde_json::json;
use sluice::event::Topic;
use sluice::kafka::{OffsetCommit, RecordRef, TopicPartition};

use super::warehouse_bed::{Bed, PARTITIONS, track, workspace};

const TICK: &str = r#"{"type":"track","event":"Tick"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn events_become_files_a_manifest_and_rows_and_the_ledger_knows() {
    let bed = Bed::new("wh-rows");
    let role = bed.start("a").await;
    let order =
        r#"{"type":"track","event":"Order Completed","properties":{"total":9.5,"items":[1]}}"#;
    let hello = r#"{"type":"identify","traits":{"plan":"pro"}}"#;
    let mut identify = track("m2", "u1", hello);
    identify.event_type = "identify".into();
    let mut odd = track("m3", "u1", "{}");
    odd.event_type = "dance".into();
    bed.send("lake", &[track("m1", "u1", order), identify, odd])
        .await;

    bed.wait_for("lake.db", "select id from tracks", &["m1"]);
    bed.wait_for(
        "lake.db",
        "select total || items from order_completed",
        &["9.5[1]"],
    );
    bed.wait_for(
        "lake.db",
        "select plan from users where id = 'u1'",
        &["pro"],
    );
    bed.wait_for(
        "lake.db",
        "select received_at from identifies",
        &["2023-11-14T22:13:20.000Z"],
    );
    bed.wait_for(
        "lake.db",
        "select context_source_id || context_destination_type from tracks",
        &["webSQLITE"],
    );
    role.stop().await;

    let letters = bed.read(&Topic::Dlq(sluice::event::Stage::Warehouse));
    assert_eq!(letters.len(), 1);
    let reason = letters[0].header("sluice.reason").unwrap();
    assert_eq!(reason, b"unmappable");
    let message = letters[0]
        .header("__connect.errors.exception.message")
        .unwrap();
    assert_eq!(message, b"Unknown event type: \"dance\"");

    let key =
        |ending: &str, reason: &str| ("lake".to_owned(), ending.to_owned(), reason.to_owned());
    let expected = [
        (key("loaded", ""), 2),
        (key("dead_lettered", "unmappable"), 1),
    ];
    assert_eq!(bed.balance(), expected.into());
    let (files, manifests) = bed.objects();
    assert_eq!(files.len(), 4);
    assert!(!manifests.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_somebody_reset_bring_nothing_back() {
    let bed = Bed::new("wh-reset");
    let role = bed.start("a").await;
    bed.send("lake", &[track("m1", "u", TICK), track("m2", "u", TICK)])
        .await;
    bed.wait_for("lake.db", "select id from tick order by id", &["m1", "m2"]);
    role.stop().await;

    let topic = bed.names.name(&Topic::Warehouse("lake".into()));
    let zero: Vec<OffsetCommit> = (0..PARTITIONS)
        .map(|p| OffsetCommit::new(TopicPartition::new(topic.as_str(), p), 0))
        .collect();
    let group = format!("{}warehouse", bed.names.prefix());
    let admin = bed.admin();
    // A static member stays in its group until its session ends.
    super::support::process::wait_for("the group to be empty", Duration::from_secs(60), || {
        admin.set_committed(&group, &zero).ok()
    });
    let role = bed.start("a").await;
    bed.send("lake", &[track("m3", "u", TICK)]).await;
    bed.wait_for(
        "lake.db",
        "select id from tick order by id",
        &["m1", "m2", "m3"],
    );
    // Rows are counted once the transaction that made them visible has returned.
    let loaded = || role.metric("sluice_warehouse_rows_loaded_total");
    super::support::process::wait_for("rows to be counted", Duration::from_secs(60), || {
        (loaded() >= 2.0).then_some(())
    });
    assert_eq!(loaded(), 2.0, "only the new event's two rows were loaded");
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_the_partitions_and_a_third_takes_over_without_a_doubled_row() {
    let bed = Bed::new("wh-share");
    let (one, two) = (bed.start("a").await, bed.start("b").await);
    let ids: Vec<String> = (0..300).map(|n| format!("m{n:03}")).collect();
    let send = async |range: std::ops::Range<usize>| {
        for chunk in ids[range].chunks(10) {
            let events: Vec<_> = chunk.iter().map(|id| track(id, id, TICK)).collect();
            bed.send("lake", &events).await;
        }
    };
    send(0..100).await;
    let three = bed.start("c").await;
    send(100..200).await;
    one.stop().await;
    send(200..300).await;
    two.stop().await;
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    bed.wait_for("lake.db", "select id from tick order by id", &all);
    bed.wait_for("lake.db", "select id from tracks order by id", &all);
    three.stop().await;
    let (files, manifests) = bed.objects();
    assert_eq!(
        files.len(),
        2 * manifests.len(),
        "each manifest has two files, and no other is left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_starts_a_chain_of_its_own() {
    let bed = Bed::new("wh-again");
    let role = bed.start("a").await;
    bed.send(
        "lake",
        &[track("old1", "u", TICK), track("old2", "u", TICK)],
    )
    .await;
    bed.wait_for("lake.db", "select count(*) || '' from tick", &["2"]);
    role.stop().await;
    let topic = Topic::Warehouse("lake".into());
    let admin = bed.admin();
    admin
        .delete(bed.names.prefix(), &[&bed.names.name(&topic)])
        .unwrap();
    super::support::process::wait_for("the topic to be gone", Duration::from_secs(60), || {
        let name = bed.names.name(&topic);
        admin.topic(&name).unwrap().is_none().then_some(())
    });
    bed.create(&[topic]);
    let role = bed.start("a").await;
    bed.send("lake", &[track("new1", "u", TICK)]).await;
    bed.wait_for(
        "lake.db",
        "select id from tick order by id",
        &["new1", "old1", "old2"],
    );
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_is_added_while_it_runs_is_loaded_and_one_that_fails_stops_no_other() {
    let bed = Bed::new("wh-added");
    let role = bed.start("a").await;
    bed.create(&[
        Topic::Warehouse("second".into()),
        Topic::Warehouse("broken".into()),
    ]);
    let file = |name: &str| json!({"path": bed.path(name)});
    std::fs::write(
        bed.path("broken.db"),
        "this is no database at all, only text",
    )
    .unwrap();
    let three = [
        ("lake", "SQLITE", file("lake.db")),
        ("second", "SQLITE", file("second.db")),
        ("broken", "SQLITE", file("broken.db")),
    ];
    bed.control.publish(workspace(&three, 2));
    for destination in ["broken", "second", "lake"] {
        bed.send(destination, &[track("m", "u", TICK)]).await;
    }
    bed.wait_for("second.db", "select id from tick", &["m"]);
    bed.wait_for("lake.db", "select id from tick", &["m"]);
    super::support::process::wait_for("the failure to be counted", Duration::from_secs(60), || {
        let failures =
            "sluice_warehouse_load_failures_total{code=\"refused\",destination=\"broken\"}";
        (role.metric(failures) > 0.0).then_some(())
    });
    // Somebody repairs it: what waited is loaded.
    std::fs::remove_file(bed.path("broken.db")).unwrap();
    bed.wait_for("broken.db", "select id from tick", &["m"]);
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_hardly_any_memory_everything_still_arrives() {
    let mut bed = Bed::new("wh-memory");
    bed.config.warehouse.memory_bytes_max = 1 << 20;
    bed.config.warehouse.batch.age_ms_max = 60_000;
    let role = bed.start("a").await;
    let filler = "x".repeat(2_000);
    let event =
        format!(r#"{{"type":"track","event":"Tick","properties":{{"filler":"{filler}"}}}}"#);
    let ids: Vec<String> = (0..4_000).map(|n| format!("m{n:04}")).collect();
    let events: Vec<_> = ids.iter().map(|id| track(id, id, &event)).collect();
    bed.send("lake", &events).await;
    super::support::process::wait_for("batches cut for memory", Duration::from_secs(60), || {
        let cuts =
            role.metric("sluice_warehouse_batches_total{destination=\"lake\",reason=\"memory\"}");
        (cuts >= 5.0).then_some(())
    });
    role.stop().await;
    // What was in memory at the end was written down by the drain.
    let role = bed.start("a").await;
    bed.wait_for(
        "lake.db",
        "select count(distinct id) || ' ' || count(*) from tick",
        &["4000 4000"],
    );
    role.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_read_are_dead_letters_and_stop_nothing() {
    let bed = Bed::new("wh-odd");
    let role = bed.start("a").await;
    let topic = bed.names.name(&Topic::Warehouse("lake".into()));
    let batch = sluice::kafka::Batch::new();
    bed.producer
        .send(&batch, RecordRef::new(&topic, b"u", b"garbage"))
        .unwrap();
    batch
        .wait(sluice::kafka::deadline(Duration::from_secs(30)))
        .await
        .unwrap();
    bed.send(
        "lake",
        &[
            track("bad", "u", "[not an object"),
            track("good", "u", TICK),
        ],
    )
    .await;
    bed.wait_for("lake.db", "select id from tick", &["good"]);
    role.stop().await;
    let letters = bed.read(&Topic::Dlq(sluice::event::Stage::Warehouse));
    let mut reasons: Vec<&[u8]> = letters
        .iter()
        .map(|letter| letter.header("sluice.reason").unwrap())
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [&b"invalid_event"[..], b"undecodable"]);
    let garbage = letters
        .iter()
        .find(|l| l.payload.as_deref() == Some(b"garbage"));
    assert!(garbage.is_some(), "a dead letter keeps its bytes");
}

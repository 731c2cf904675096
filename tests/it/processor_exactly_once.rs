//! Nothing twice and nothing missing: over duplicates, restarts, rebalances, transactions that fail and zombies.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice::control::parse_workspace;
use sluice::dev::kafka::{LocalKafka, LocalKafkaOptions};
use sluice::event::codec::encode_envelope;
use sluice::event::{Envelope, Framing, Topic};
use sluice::kafka::{RecordRef, TxnProducer};

use super::processor_bed::{Bed, PATIENCE, WORKSPACE, sorted, track, wait_until};

fn many(prefix: &str, count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|n| (format!("{prefix}-{n:05}"), format!("user-{}", n % 17)))
        .collect()
}

async fn send(bed: &Bed, named: &[(String, String)]) {
    let events: Vec<Envelope<'_>> = named.iter().map(|(id, user)| track(id, user)).collect();
    bed.send(&events).await;
}

/// Every id once, and the ids of one user in the order they were sent.
#[track_caller]
fn assert_exact(delivered: &[String], sent: &[(String, String)]) {
    let mut expected: Vec<&String> = sent.iter().map(|(id, _)| id).collect();
    expected.sort();
    let mut found: Vec<&String> = delivered.iter().collect();
    found.sort();
    assert_eq!(found.len(), expected.len(), "lost or doubled");
    assert_eq!(found, expected);
    let users: BTreeMap<&str, &str> = sent
        .iter()
        .map(|(id, u)| (id.as_str(), u.as_str()))
        .collect();
    let mut of_user: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for id in delivered {
        of_user.entry(users[id.as_str()]).or_default().push(id);
    }
    for (user, ids) in of_user {
        let sent_of: Vec<&str> = sent
            .iter()
            .filter(|(_, u)| u == user)
            .map(|(id, _)| id.as_str())
            .collect();
        assert_eq!(ids, sent_of, "{user} is out of order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_are_left_out_within_a_batch_later_and_after_a_restart() {
    let bed = Bed::new("dup", WORKSPACE, 2);
    let running = bed.start("a").await;
    let first = many("m", 300);
    send(&bed, &first).await;
    // In one request, and again a moment later; the same id from another source is another event.
    send(&bed, &first[..100]).await;
    let other_source = Envelope {
        source_id: "app".into(),
        ..track("m-00000", "user-0")
    };
    bed.send(&[
        track("twin", "user-1"),
        track("twin", "user-1"),
        other_source,
    ])
    .await;
    bed.wait_until_processed();
    running.stop().await;

    // A new process of another name: what the first accepted is read back.
    let running = bed.start("b").await;
    send(&bed, &first[50..150]).await;
    let second = many("n", 100);
    send(&bed, &second).await;
    bed.wait_until_processed();
    assert_eq!(running.metric("sluice_processor_dedup_ids"), 402.0);
    assert_eq!(
        running.metric("sluice_processor_dedup_window_seconds"),
        3600.0
    );
    running.stop().await;

    let mut sent: Vec<String> = first
        .iter()
        .chain(&second)
        .map(|(id, _)| id.clone())
        .collect();
    sent.push("twin".to_owned());
    assert_eq!(sorted(bed.delivered("tracks")), sorted(sent.clone()));
    sent.push("m-00000".to_owned());
    assert_eq!(sorted(bed.delivered("hook")), sorted(sent));
    let duplicates = ("".to_owned(), "filtered".to_owned(), "duplicate".to_owned());
    assert_eq!(bed.balance()[&duplicates], 100 + 1 + 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_dedup_off_everything_passes() {
    let mut bed = Bed::new("nodup", WORKSPACE, 1);
    bed.config.processor.dedup.enabled = false;
    let running = bed.start("a").await;
    bed.send(&[track("twin", "u"), track("twin", "u")]).await;
    bed.wait_until_processed();
    assert_eq!(bed.delivered("hook"), ["twin", "twin"]);
    assert!(bed.read(&Topic::Seen).is_empty());
    running.stop().await;
}

/// The transaction is aborted again and again because one of its records has nowhere to go; each time what it had sent to
/// the other destinations must vanish, and its ids must not be remembered.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_aborts_leaves_nothing_visible_and_no_id_behind() {
    let mut bed = Bed::new("abort", WORKSPACE, 2);
    bed.config.processor.retry_ms_max = 100;
    let running = bed.start("a").await;
    let before = many("before", 20);
    send(&bed, &before).await;
    bed.wait_until_processed();

    let text = format!("{WORKSPACE}      - {{source: web, destination: late}}\n").replace(
        "      - {id: lake",
        "      - {id: late, type: WEBHOOK}\n      - {id: lake",
    );
    bed.control
        .publish(parse_workspace("test", &text, 2).unwrap());
    let after = many("after", 50);
    send(&bed, &after).await;
    wait_until("three transactions were aborted", || {
        running.metric(r#"sluice_processor_transactions_total{outcome="aborted"}"#) >= 3.0
    });
    assert_eq!(
        bed.delivered("hook").len(),
        before.len(),
        "an aborted record is visible"
    );
    assert!(!running.role.done.is_finished());

    bed.create(&[Topic::Deliver("late".into())]);
    bed.wait_until_processed();
    let all: Vec<_> = before.iter().chain(&after).cloned().collect();
    assert_exact(&bed.delivered("hook"), &all);
    assert_exact(&bed.delivered("late"), &after);
    assert!(
        !bed.balance()
            .contains_key(&("".into(), "filtered".into(), "duplicate".into()))
    );
    running.stop().await;
}

/// Another process registers the same transactional id while a transaction is being collected.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_processor_comes_back_with_nothing_lost_or_doubled() {
    let mut bed = Bed::new("fenced", WORKSPACE, 2);
    bed.config.processor.transaction_ms_max = 3_000;
    bed.config.processor.transaction_pace_ms = 3_000;
    let running = bed.start("a").await;
    let first = many("first", 10);
    send(&bed, &first).await;
    bed.wait_until_processed();
    // Less than the pace after the first: this transaction stays open for a while.
    let second = many("second", 30);
    send(&bed, &second).await;
    let id = format!("{}processor-a", bed.names.prefix());
    let kafka = bed.kafka.clone();
    tokio::task::spawn_blocking(move || drop(TxnProducer::open(&kafka, "test", &id).unwrap()))
        .await
        .unwrap();
    bed.wait_until_processed();
    assert_eq!(
        running.metric(r#"sluice_processor_transactions_total{outcome="fenced"}"#),
        1.0,
        "the second transaction was not open when the id was taken"
    );
    // What was accepted is known again after it was read back.
    send(&bed, &second).await;
    bed.wait_until_processed();
    let all: Vec<_> = first.iter().chain(&second).cloned().collect();
    assert_exact(&bed.delivered("hook"), &all);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_in_the_input_are_passed_over() {
    let bed = Bed::new("gaps", WORKSPACE, 1);
    let running = bed.start("a").await;
    let (kafka, events) = (bed.kafka.clone(), bed.names.name(&Topic::Events));
    // Records that were aborted, and the markers of both outcomes, take offsets that no reader sees.
    let sent = tokio::task::spawn_blocking(move || {
        let mut txn = TxnProducer::open(&kafka, "test", &format!("{events}.gaps")).unwrap();
        let mut sent = Vec::new();
        for round in 0..10 {
            txn.begin().unwrap();
            for (id, user) in many(&format!("round-{round}"), 5) {
                let mut payload = Vec::new();
                encode_envelope(&track(&id, &user), Framing::SingleObject, &mut payload).unwrap();
                txn.send(RecordRef::new(&events, user.as_bytes(), &payload))
                    .unwrap();
                if round % 2 == 0 {
                    sent.push((id, user));
                }
            }
            if round % 2 == 0 {
                txn.commit_without_offsets().unwrap();
            } else {
                txn.abort().unwrap();
            }
        }
        sent
    })
    .await
    .unwrap();
    bed.wait_until_processed();
    assert_exact(&bed.delivered("hook"), &sent);
    running.stop().await;

    // A successor begins in the gap.
    let running = bed.start("b").await;
    let later = many("later", 5);
    send(&bed, &later).await;
    bed.wait_until_processed();
    let all: Vec<_> = sent.iter().chain(&later).cloned().collect();
    assert_exact(&bed.delivered("hook"), &all);
    let mut entries = bed.ledger();
    entries.sort_by_key(|e| e.from_offset);
    assert!(
        entries
            .windows(2)
            .all(|pair| pair[0].to_offset == pair[1].from_offset)
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_commits_what_was_read_and_loses_nothing() {
    let mut bed = Bed::new("drain", WORKSPACE, 3);
    bed.config.processor.transaction_records_max = 200;
    bed.config.processor.chunk_records_max = 50;
    let sent = many("m", 3_000);
    send(&bed, &sent).await;
    for life in 0..4 {
        let running = bed.start("a").await;
        let seen = bed.committed().values().sum::<i64>();
        wait_until("it has begun", || {
            bed.committed().values().sum::<i64>() > seen
                || bed.committed().values().sum::<i64>() == 3_000
        });
        running.stop().await;
        // What it committed is what it wrote.
        let committed = bed.committed().values().sum::<i64>();
        assert_eq!(bed.delivered("hook").len() as i64, committed, "life {life}");
    }
    let running = bed.start("a").await;
    bed.wait_until_processed();
    running.stop().await;
    assert_exact(&bed.delivered("hook"), &sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_processors_without_loss_or_double() {
    let bed = Bed::new("move", WORKSPACE, 4);
    let first = bed.start("a").await;
    first.ready().await;
    let mut sent = Vec::new();
    let mut feed = |name: &str| {
        let named = many(name, 200);
        sent.extend_from_slice(&named);
        named
    };
    send(&bed, &feed("alone")).await;
    let second = bed.start("b").await;
    for round in 0..5 {
        send(&bed, &feed(&format!("joining-{round}"))).await;
    }
    second.ready().await;
    wait_until("both have partitions", || {
        first.metric("sluice_processor_partitions") == 2.0
            && second.metric("sluice_processor_partitions") == 2.0
    });
    send(&bed, &feed("shared")).await;
    first.stop().await;
    // A static member's place is kept for its return; here it does not come, and its partitions go to the other.
    for round in 0..5 {
        send(&bed, &feed(&format!("leaving-{round}"))).await;
    }
    // All of it once more: whoever owns a partition now knows what the other accepted.
    send(&bed, &sent.clone()).await;
    bed.wait_until_processed();
    assert_exact(&bed.delivered("hook"), &sent);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processor_without_partitions_is_ready() {
    let bed = Bed::new("idle", WORKSPACE, 1);
    let first = bed.start("a").await;
    first.ready().await;
    let second = bed.start("b").await;
    tokio::time::timeout(PATIENCE, second.ready())
        .await
        .unwrap();
    let partitions =
        first.metric("sluice_processor_partitions") + second.metric("sluice_processor_partitions");
    assert_eq!(partitions, 1.0);
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_alone_does_not_wait_for_company() {
    let bed = Bed::new("alone", WORKSPACE, 1);
    let running = bed.start("a").await;
    running.ready().await;
    let mut fastest = Duration::MAX;
    for n in 0..10 {
        let id = format!("m{n}");
        let started = std::time::Instant::now();
        bed.send(&[track(&id, "u")]).await;
        wait_until("it is committed", || {
            running.metric("sluice_processor_records_total") >= f64::from(n + 1)
        });
        fastest = fastest.min(started.elapsed());
    }
    // Far under the 250 ms for which a transaction may stay open.
    assert!(fastest < Duration::from_millis(120), "{fastest:?}");
    running.stop().await;
}

/// The gateway follows a changed workspace a moment before the processor does.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_source_that_only_the_gateway_knows_waits_but_not_for_ever() {
    let mut bed = Bed::new("ahead", WORKSPACE, 1);
    bed.config.processor.source_wait_ms = 2_000;
    bed.config.processor.retry_ms_max = 100;
    let running = bed.start("a").await;
    let of_new_source = |id: &'static str, source: &'static str, revision: i64| Envelope {
        source_id: source.into(),
        config_revision: revision,
        ..track(id, "u")
    };
    bed.send(&[of_new_source("early", "shop", 5), track("behind", "u")])
        .await;
    wait_until("it waits", || {
        running.metric(r#"sluice_processor_transactions_total{outcome="aborted"}"#) >= 1.0
    });
    let text = WORKSPACE.replace(
        "{id: app, write_key: K2}",
        "{id: app, write_key: K2}, {id: shop, write_key: K3}",
    ) + "      - {source: shop, destination: hook}\n";
    bed.control
        .publish(parse_workspace("test", &text, 6).unwrap());
    bed.wait_until_processed();
    assert_eq!(bed.delivered("hook"), ["early", "behind"]);

    bed.send(&[of_new_source("never", "mirage", 7), track("after", "u")])
        .await;
    bed.wait_until_processed();
    assert_eq!(bed.delivered("hook"), ["early", "behind", "after"]);
    let unknown = (
        "".to_owned(),
        "filtered".to_owned(),
        "source_unknown".to_owned(),
    );
    assert_eq!(bed.balance()[&unknown], 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_costs_nothing_but_time() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalKafkaOptions::new(dir.path().join("kafka"));
    let kafka = tokio::task::spawn_blocking(|| LocalKafka::start(options))
        .await
        .unwrap()
        .unwrap();
    let mut bed = Bed::on(kafka.bootstrap(), "killed", WORKSPACE, 3);
    // Small transactions, so that the broker dies in the midst of one.
    bed.config.processor.transaction_records_max = 100;
    bed.config.processor.chunk_records_max = 20;
    let sent = many("m", 20_000);
    send(&bed, &sent).await;
    let running = bed.start("a").await;
    for life in 1..=3 {
        let so_far = running.metric("sluice_processor_records_total");
        wait_until("it makes progress", || {
            running.metric("sluice_processor_records_total") >= so_far + 300.0
        });
        kafka.kill9(1).unwrap();
        kafka.restart(1).unwrap();
        assert!(!running.role.done.is_finished(), "it ended in life {life}");
    }
    bed.wait_until_processed();
    // Everything once more: what an unknown outcome may have accepted was read back.
    send(&bed, &sent[..5_000]).await;
    bed.wait_until_processed();
    assert_exact(&bed.delivered("hook"), &sent);
    assert_exact(&bed.delivered("tracks"), &sent);
    let forwarded = ("hook".to_owned(), "forwarded".to_owned(), String::new());
    assert_eq!(bed.balance()[&forwarded], 20_000);
    running.stop().await;
    kafka.stop_async().await.unwrap();
}

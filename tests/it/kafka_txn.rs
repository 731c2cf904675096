//! Transactions against a real broker.

use std::time::Instant;

use sluice::config::KafkaConfig;
use sluice::fault::{Classify, Fault};
use sluice::kafka::{
    Admin, Batch, Consumer, Message, OffsetCommit, OffsetQuery, SendError, StartAt, TopicPartition,
    TxnError, TxnProducer,
};

use crate::kafka_support::*;

fn open(config: &KafkaConfig, id: &str) -> TxnProducer {
    TxnProducer::open(config, "test", id).unwrap()
}

/// Writes the messages to `to` and commits their offsets, in one transaction.
fn copy(
    txn: &mut TxnProducer,
    consumer: &Consumer,
    messages: &[Message],
    to: &str,
) -> Result<(), TxnError> {
    txn.begin()?;
    for message in messages {
        let text = payload(message);
        match txn.send(plain(to, &text, &text)) {
            Ok(()) => {}
            Err(SendError::Txn(error)) => return Err(error),
            Err(SendError::Rejected(error)) => panic!("{error}"),
        }
    }
    let offsets: Vec<OffsetCommit> = after(messages)
        .into_iter()
        .map(|(tp, next)| OffsetCommit {
            metadata: format!("up to {next}"),
            ..OffsetCommit::new(tp, next)
        })
        .collect();
    txn.commit(&offsets, &consumer.group_metadata().unwrap())
        .map(drop)
}

#[test]
fn records_offsets_and_metadata_arrive_together() {
    let config = config();
    let (input, output) = (topic(&config, "in", 3), topic(&config, "out", 3));
    let group = unique("group");
    write(&config, &input, Some(3), numbers(0..300));
    let opening = TxnProducer::open_in_background(&config, "test", &unique("id"));
    let consumer = member(&config, &group, &[&input]);
    let mut txn = opening.wait().unwrap();
    let mut copied = 0;
    while copied < 300 {
        let messages = read_until(&consumer, |read| !read.is_empty());
        copied += messages.len();
        copy(&mut txn, &consumer, &messages, &output).unwrap();
    }
    assert_eq!(
        sorted(payloads(&read_all(&config, &output))),
        numbers(0..300)
    );
    let admin = Admin::open(&config).unwrap();
    for committed in admin.committed(&group, None).unwrap() {
        assert_eq!(committed.next_offset, Some(100));
        assert_eq!(committed.metadata, "up to 100");
    }
    assert_eq!(txn.reopened(), 0);
}

#[test]
fn a_successor_reads_nothing_again_that_was_committed() {
    let config = config();
    let (input, output) = (topic(&config, "in", 2), topic(&config, "out", 2));
    let (group, id) = (unique("group"), unique("id"));
    write(&config, &input, Some(2), numbers(0..100));
    {
        let consumer = member(&config, &group, &[&input]);
        let mut txn = open(&config, &id);
        let messages = read_until(&consumer, |read| read.len() >= 60);
        copy(&mut txn, &consumer, &messages[..60], &output).unwrap();
        // Begun and left behind, as by a crash: must neither show nor count.
        txn.begin().unwrap();
        txn.send(plain(&output, "lost", "lost")).unwrap();
        std::mem::forget(txn);
    }
    let consumer = member(&config, &group, &[&input]);
    let mut txn = open(&config, &id);
    let messages = read_until(&consumer, |read| read.len() >= 40);
    copy(&mut txn, &consumer, &messages, &output).unwrap();
    assert_eq!(
        sorted(payloads(&read_all(&config, &output))),
        numbers(0..100)
    );
}

#[test]
fn records_of_an_aborted_transaction_are_not_seen_and_do_not_stop_a_reader() {
    let config = config();
    let output = topic(&config, "out", 1);
    let mut txn = open(&config, &unique("id"));
    let tp = [TopicPartition::new(output.as_str(), 0)];
    let admin = Admin::open(&config).unwrap();
    let end = || admin.offsets(&tp, OffsetQuery::End).unwrap()[&tp[0]];
    let texts = [("a", true), ("b", false), ("c", true), ("d", false)];
    for (n, (text, keep)) in (0..).zip(texts) {
        txn.begin().unwrap();
        txn.send(plain(&output, "k", text)).unwrap();
        // Not "one more than before": the marker of the transaction before may come after the answer to its commit.
        wait_until("the record is in the log", || end() == 2 * n + 1);
        if keep {
            txn.commit_without_offsets().unwrap();
        } else {
            txn.abort().unwrap();
        }
    }
    wait_until("the last marker is in the log", || end() == 8);
    // The log ends in an aborted record and its marker; reading to the end must get past them.
    assert_eq!(payloads(&read_all(&config, &output)), ["a", "c"]);
}

#[test]
fn an_open_transaction_is_not_seen_and_a_reader_waits_for_its_outcome() {
    let config = config();
    let output = topic(&config, "out", 1);
    let mut txn = open(&config, &unique("id"));
    txn.begin().unwrap();
    txn.send(plain(&output, "k", "kept")).unwrap();
    let tp = [TopicPartition::new(output.as_str(), 0)];
    let admin = Admin::open(&config).unwrap();
    wait_until("the record is in the log", || {
        admin.offsets(&tp, OffsetQuery::End).unwrap()[&tp[0]] == 1
    });
    assert_eq!(
        admin.offsets(&tp, OffsetQuery::StableEnd).unwrap()[&tp[0]],
        0
    );
    let mut reader =
        sluice::kafka::Reader::open_all(&config, "test", &output, StartAt::Beginning).unwrap();
    let pause = std::time::Duration::from_millis(300);
    assert!(reader.read_to_end(pause, |m| panic!("{m:?}")).is_err());
    txn.commit_without_offsets().unwrap();
    let mut read = Vec::new();
    reader.read_to_end(PATIENCE, |m| read.push(m)).unwrap();
    assert_eq!(payloads(&read), ["kept"]);
}

#[test]
fn the_second_owner_of_an_id_takes_over_and_the_first_is_told() {
    let config = config();
    let (input, output) = (topic(&config, "in", 1), topic(&config, "out", 1));
    let (group, id) = (unique("group"), unique("id"));
    write(&config, &input, None, numbers(0..10));
    let consumer = member(&config, &group, &[&input]);
    let messages = read_until(&consumer, |read| read.len() == 10);
    let mut zombie = open(&config, &id);
    zombie.begin().unwrap();
    zombie.send(plain(&output, "k", "zombie")).unwrap();

    let mut owner = open(&config, &id);
    copy(&mut owner, &consumer, &messages, &output).unwrap();

    let offsets = [OffsetCommit::new(messages[0].topic_partition(), 5)];
    let error = zombie
        .commit(&offsets, &consumer.group_metadata().unwrap())
        .unwrap_err();
    assert!(matches!(error, TxnError::Fenced(_)), "{error:?}");
    assert_eq!(payloads(&read_all(&config, &output)), numbers(0..10));
    let committed = consumer
        .committed(&[messages[0].topic_partition()])
        .unwrap();
    assert_eq!(committed[0].next_offset, Some(10));
}

#[test]
fn two_live_owners_of_one_id_end_with_one_of_them_stopping() {
    let config = config();
    let output = topic(&config, "out", 1);
    let id = unique("id");
    let mut one = open(&config, &id);
    let mut two = open(&config, &id);
    let attempt = |txn: &mut TxnProducer| -> Result<(), TxnError> {
        txn.begin()?;
        match txn.send(plain(&output, "k", "v")) {
            Ok(()) => txn.commit_without_offsets().map(drop),
            Err(SendError::Txn(error)) => Err(error),
            Err(SendError::Rejected(error)) => panic!("{error}"),
        }
    };
    let mut fenced = 0;
    let last = 'fight: loop {
        for txn in [&mut one, &mut two] {
            match attempt(txn) {
                Ok(()) | Err(TxnError::Reopened(_)) => {}
                Err(TxnError::Fenced(_)) => fenced += 1,
                Err(error) => break 'fight error,
            }
        }
        assert!(fenced < 20, "they fight for ever");
    };
    assert!(matches!(last, TxnError::Fatal(_)), "{last:?}");
    assert!(
        last.to_string().contains("another live process uses it"),
        "{last}"
    );
    assert!((1..=3).contains(&fenced), "{fenced}");
}

#[test]
fn the_commit_of_a_member_that_was_replaced_is_refused() {
    let config = config();
    let (input, output) = (topic(&config, "in", 1), topic(&config, "out", 1));
    let group = unique("group");
    write(&config, &input, None, numbers(0..10));
    let old = member(&config, &group, &[&input]);
    let messages = read_until(&old, |read| read.len() == 10);
    let stale = old.group_metadata().unwrap();
    let mut txn = open(&config, &unique("id"));
    txn.begin().unwrap();
    txn.send(plain(&output, "k", "zombie")).unwrap();

    // The old one leaves; a new one makes a new generation.
    old.close(PATIENCE, &mut ()).unwrap();
    let new = member(&config, &group, &[&input]);
    let again = read_until(&new, |read| read.len() == 10);

    let offsets = [OffsetCommit::new(messages[0].topic_partition(), 10)];
    let error = txn.commit(&offsets, &stale).unwrap_err();
    assert!(matches!(error, TxnError::Aborted(_)), "{error:?}");
    assert!(read_all(&config, &output).is_empty());
    // The producer itself is sound and goes on at once.
    copy(&mut txn, &new, &again, &output).unwrap();
    assert_eq!(payloads(&read_all(&config, &output)), numbers(0..10));
    assert_eq!(txn.reopened(), 0);
}

#[test]
fn after_an_abort_the_input_is_rewound_and_copied_once() {
    let config = config();
    let (input, output) = (topic(&config, "in", 2), topic(&config, "out", 1));
    write(&config, &input, Some(2), numbers(0..50));
    let consumer = member(&config, &unique("group"), &[&input]);
    let mut txn = open(&config, &unique("id"));
    let messages = read_until(&consumer, |read| read.len() == 50);
    txn.begin().unwrap();
    for message in &messages {
        txn.send(plain(&output, "k", &payload(message))).unwrap();
    }
    txn.abort().unwrap();
    consumer.seek(&first(&messages)).unwrap();
    let again = read_until(&consumer, |read| read.len() == 50);
    assert_eq!(sorted(payloads(&again)), numbers(0..50));
    copy(&mut txn, &consumer, &again, &output).unwrap();
    assert_eq!(
        sorted(payloads(&read_all(&config, &output))),
        numbers(0..50)
    );
}

#[test]
fn a_record_that_can_never_be_written_does_not_end_the_transaction() {
    let config = config();
    let output = topic(&config, "out", 1);
    let mut txn = open(&config, &unique("id"));
    txn.begin().unwrap();
    txn.send(plain(&output, "k", "a")).unwrap();
    let large = "x".repeat(config.producer.message_bytes_max + 1);
    let error = txn.send(plain(&output, "k", &large)).unwrap_err();
    assert!(matches!(error, SendError::Rejected(_)), "{error:?}");
    txn.send(plain(&output, "k", "b")).unwrap();
    let report = txn.commit_without_offsets().unwrap();
    assert_eq!(report.records, 2);
    assert_eq!(payloads(&read_all(&config, &output)), ["a", "b"]);
}

#[test]
fn a_record_that_the_broker_refuses_aborts_the_transaction_and_the_next_one_passes() {
    let config = config();
    let output = topic_with(&config, "out", 1, &[("max.message.bytes", "2000")]);
    let mut txn = open(&config, &unique("id"));
    txn.begin().unwrap();
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(20_000)
        .collect();
    txn.send(plain(&output, "k", &noise)).unwrap();
    let error = txn.commit_without_offsets().unwrap_err();
    let TxnError::Aborted(cause) = error else {
        panic!("{error:?}");
    };
    assert_eq!(cause.fault(), Fault::Permanent, "{cause}");
    txn.begin().unwrap();
    txn.send(plain(&output, "k", "small")).unwrap();
    txn.commit_without_offsets().unwrap();
    assert_eq!(payloads(&read_all(&config, &output)), ["small"]);
}

#[test]
fn metadata_that_is_too_long_for_the_broker_aborts_with_its_words() {
    let config = config();
    let input = topic(&config, "in", 1);
    write(&config, &input, None, numbers(0..1));
    let consumer = member(&config, &unique("group"), &[&input]);
    let messages = read_until(&consumer, |read| read.len() == 1);
    let mut txn = open(&config, &unique("id"));
    for (length, passes) in [(4096, true), (4097, false)] {
        txn.begin().unwrap();
        let offsets = [OffsetCommit {
            metadata: "m".repeat(length),
            ..OffsetCommit::new(messages[0].topic_partition(), 1)
        }];
        let outcome = txn.commit(&offsets, &consumer.group_metadata().unwrap());
        match outcome {
            Ok(_) => assert!(passes),
            Err(TxnError::Aborted(error)) => {
                assert!(!passes);
                assert!(error.to_string().contains("metadata"), "{error}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[test]
fn an_empty_transaction_commits_and_calls_out_of_order_are_refused() {
    let config = config();
    let mut txn = open(&config, &unique("id"));
    assert!(matches!(
        txn.commit_without_offsets(),
        Err(TxnError::Fatal(_))
    ));
    txn.abort().unwrap();
    txn.begin().unwrap();
    txn.commit_without_offsets().unwrap();
    // An abort straight after a begin is answered INVALID_TXN_STATE by some brokers (librdkafka#4849).
    txn.begin().unwrap();
    txn.abort().unwrap();
    txn.begin().unwrap();
    txn.commit_without_offsets().unwrap();
    assert_eq!(txn.reopened(), 0);
}

#[test]
fn a_transaction_that_outlives_its_timeout_is_rolled_back_and_its_owner_goes_on() {
    let mut config = config();
    config.transaction.timeout_ms = 1_000;
    config.producer.delivery_timeout_ms = 1_000;
    config.request_timeout_ms = 1_000;
    let output = topic(&config, "out", 1);
    let mut txn = open(&config, &unique("id"));
    txn.begin().unwrap();
    txn.send(plain(&output, "k", "late")).unwrap();
    // The broker looks for overdue transactions every ten seconds; its marker in the log shows that it has.
    let tp = [TopicPartition::new(output.as_str(), 0)];
    let admin = Admin::open(&config).unwrap();
    wait_until("the broker aborted the transaction", || {
        admin.offsets(&tp, OffsetQuery::End).unwrap()[&tp[0]] == 2
    });
    let error = txn.commit_without_offsets().unwrap_err();
    assert!(matches!(error, TxnError::Reopened(_)), "{error:?}");
    txn.begin().unwrap();
    txn.send(plain(&output, "k", "next")).unwrap();
    txn.commit_without_offsets().unwrap();
    assert_eq!(payloads(&read_all(&config, &output)), ["next"]);
}

#[test]
fn commits_do_not_pay_the_flat_hundred_milliseconds() {
    let config = config();
    let output = topic(&config, "out", 1);
    let mut txn = open(&config, &unique("id"));
    let mut took = Vec::new();
    for _ in 0..40 {
        txn.begin().unwrap();
        txn.send(plain(&output, "k", "v")).unwrap();
        let began = Instant::now();
        txn.commit_without_offsets().unwrap();
        took.push(began.elapsed());
    }
    took.sort();
    // `benches/commit.rs` says what it costs on a quiet machine; here other tests run beside, so only the flaw of 100 ms a
    // commit is looked for.
    assert!(took[20].as_millis() < 80, "p50 {:?}", took[20]);
}

#[test]
fn what_is_dropped_in_the_middle_of_a_transaction_does_not_hold_readers_up() {
    let config = config();
    let output = topic(&config, "out", 1);
    let mut txn = open(&config, &unique("id"));
    txn.begin().unwrap();
    txn.send(plain(&output, "k", "gone")).unwrap();
    drop(txn);
    write(&config, &output, None, numbers(0..1));
    let began = Instant::now();
    assert_eq!(payloads(&read_all(&config, &output)), numbers(0..1));
    assert!(
        began.elapsed().as_secs() < 10,
        "readers waited for the broker's timeout"
    );
    drop(Batch::new());
}

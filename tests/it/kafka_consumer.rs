//! Group members against a real broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluice::config::FirstOffset;
use sluice::fault::{Classify, Fault};
use sluice::kafka::{
    Admin, BatchLimits, Committed, Consumer, Message, OffsetCommit, Polled, RebalanceListener,
    StartAt, TopicPartition,
};

use crate::kafka_support::*;

/// Notes what a listener is told, and says where to begin.
#[derive(Default)]
struct Notes {
    owned: BTreeSet<TopicPartition>,
    assigned: Vec<Committed>,
    revoked: Vec<(TopicPartition, bool)>,
    begin_at: BTreeMap<TopicPartition, StartAt>,
    /// Extra topic whose partitions follow those of the subscription.
    extra: Option<String>,
    /// Offsets to commit when partitions are revoked.
    progress: BTreeMap<TopicPartition, i64>,
}

impl RebalanceListener for Notes {
    fn assigned(
        &mut self,
        _: &Consumer,
        partitions: &[Committed],
    ) -> Vec<(TopicPartition, StartAt)> {
        let mut starts = Vec::new();
        for c in partitions {
            let tp = &c.topic_partition;
            assert!(self.owned.insert(tp.clone()), "{tp} assigned twice");
            if let Some(start) = self.begin_at.get(tp) {
                starts.push((tp.clone(), *start));
            }
            if let Some(extra) = &self.extra {
                let beside = TopicPartition::new(extra.as_str(), tp.partition);
                starts.push((beside, StartAt::Beginning));
            }
        }
        self.assigned.extend_from_slice(partitions);
        starts
    }

    fn revoked(
        &mut self,
        consumer: &Consumer,
        partitions: &[TopicPartition],
        lost: bool,
    ) -> Vec<TopicPartition> {
        let mut beside = Vec::new();
        let mut offsets = Vec::new();
        for tp in partitions {
            assert!(self.owned.remove(tp), "{tp} revoked but not owned");
            self.revoked.push((tp.clone(), lost));
            if let Some(next) = self.progress.remove(tp) {
                offsets.push(OffsetCommit::new(tp.clone(), next));
            }
            if let Some(extra) = &self.extra {
                beside.push(TopicPartition::new(extra.as_str(), tp.partition));
            }
        }
        if !lost {
            consumer.commit_sync(&offsets).unwrap();
        }
        beside
    }
}

fn poll_some(consumer: &Consumer, notes: &mut Notes) -> Vec<Message> {
    let messages = consumer.poll_batch(QUICK, notes).unwrap();
    for message in &messages {
        let tp = message.topic_partition();
        assert!(notes.owned.contains(&tp), "a record of {tp}, not ours");
        notes.progress.insert(tp, message.offset + 1);
    }
    messages
}

#[test]
fn a_group_without_progress_begins_with_the_oldest_record() {
    let config = config();
    let input = topic(&config, "in", 1);
    write(&config, &input, None, numbers(0..5));
    let consumer = member(&config, &unique("group"), &[&input]);
    let read = read_until(&consumer, |read| read.len() == 5);
    assert_eq!(payloads(&read), numbers(0..5));
}

#[test]
fn a_group_without_progress_may_begin_with_the_next_record() {
    let mut config = config();
    config.consumer.first_offset = FirstOffset::End;
    let input = topic(&config, "in", 1);
    write(&config, &input, None, ["old".to_owned()]);
    let consumer = member(&config, &unique("group"), &[&input]);
    let mut read = Vec::new();
    // Where the end is, is looked up some moment after the assignment: write until something comes.
    wait_until("something new is read", || {
        write(&config, &input, None, ["new".to_owned()]);
        read.extend(consumer.poll_batch(QUICK, &mut ()).unwrap());
        !read.is_empty()
    });
    assert!(payloads(&read).iter().all(|text| text == "new"));
}

#[test]
fn a_group_without_progress_may_be_told_to_stop() {
    let mut config = config();
    config.consumer.first_offset = FirstOffset::Error;
    let input = topic(&config, "in", 1);
    let consumer = member(&config, &unique("group"), &[&input]);
    let error = until_error(&consumer);
    assert_eq!(error.fault(), Fault::Fatal);
    assert!(error.to_string().contains(&input), "{error}");
}

fn until_error(consumer: &Consumer) -> sluice::kafka::KafkaError {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Err(error) = consumer.poll(Duration::from_millis(100), &mut ()) {
            return error;
        }
    }
    panic!("no error came");
}

#[test]
fn a_committed_offset_that_is_gone_is_an_error_and_never_a_jump() {
    let config = config();
    let input = topic(&config, "in", 1);
    write(&config, &input, None, numbers(0..10));
    let tp = TopicPartition::new(input.as_str(), 0);
    let admin = Admin::open(&config).unwrap();
    let group = unique("group");
    // Retention has overtaken the group; then the log is shorter than the group thinks.
    for (committed, deleted) in [(3, 7), (999, 7)] {
        admin.delete_records(&[(tp.clone(), deleted)]).unwrap();
        // A broker that has just become the group's coordinator says for a moment that it is not.
        wait_until("the offset is set", || {
            let offset = OffsetCommit::new(tp.clone(), committed);
            admin.set_committed(&group, &[offset]).is_ok()
        });
        let consumer = member(&config, &group, &[&input]);
        let error = until_error(&consumer);
        assert!(error.is_offset_out_of_range(), "{error}");
        assert_eq!(error.fault(), Fault::Fatal);
        assert!(error.to_string().contains(&input), "{error}");
        consumer.close(PATIENCE, &mut ()).unwrap();
    }
}

#[test]
fn commits_come_back_with_their_metadata() {
    let config = config();
    let input = topic(&config, "in", 2);
    let group = unique("group");
    let tps = [0, 1].map(|p| TopicPartition::new(input.as_str(), p));
    {
        let consumer = member(&config, &group, &[&input]);
        let mut notes = Notes::default();
        while notes.owned.len() < 2 {
            poll_some(&consumer, &mut notes);
        }
        assert!(notes.assigned.iter().all(|c| c.next_offset.is_none()));
        let sync = OffsetCommit {
            metadata: "slow".to_owned(),
            ..OffsetCommit::new(tps[0].clone(), 0)
        };
        consumer.commit_sync(&[sync]).unwrap();
        let fast = OffsetCommit {
            metadata: "fast".to_owned(),
            ..OffsetCommit::new(tps[1].clone(), 0)
        };
        consumer.commit_async(&[fast]).unwrap();
        wait_until("the commit is there", || {
            poll_some(&consumer, &mut notes);
            let committed = consumer.committed(&tps).unwrap();
            let found: Vec<_> = committed.iter().map(|c| c.metadata.as_str()).collect();
            found == ["slow", "fast"]
        });
    }
    let consumer = member(&config, &group, &[&input]);
    let mut notes = Notes::default();
    while notes.owned.len() < 2 {
        poll_some(&consumer, &mut notes);
    }
    let mut came: Vec<_> = notes.assigned.iter().map(|c| c.metadata.as_str()).collect();
    came.sort_unstable();
    assert_eq!(came, ["fast", "slow"]);
}

#[test]
fn a_listener_knows_better_where_to_begin() {
    let config = config();
    let input = topic(&config, "in", 1);
    write(&config, &input, None, numbers(0..10));
    let consumer = member(&config, &unique("group"), &[&input]);
    let mut notes = Notes::default();
    notes
        .begin_at
        .insert(TopicPartition::new(input.as_str(), 0), StartAt::Offset(7));
    let mut read = Vec::new();
    while read.len() < 3 {
        read.extend(poll_some(&consumer, &mut notes));
    }
    assert_eq!(payloads(&read), numbers(7..10));
}

#[test]
fn members_come_and_go_and_nothing_is_lost_or_read_twice() {
    const PARTITIONS: i32 = 6;
    let config = config();
    let input = topic(&config, "in", PARTITIONS);
    let group = unique("group");
    let count = |read: &[Message]| read.len();
    let mut all = Vec::new();

    write(&config, &input, Some(PARTITIONS), numbers(0..600));
    let (one, mut notes_one) = (member(&config, &group, &[&input]), Notes::default());
    while count(&all) < 300 {
        all.extend(poll_some(&one, &mut notes_one));
    }
    // A second member joins: the first gives up half, keeps the rest and goes on reading it.
    let (two, mut notes_two) = (member(&config, &group, &[&input]), Notes::default());
    wait_until("the partitions are shared", || {
        all.extend(poll_some(&one, &mut notes_one));
        all.extend(poll_some(&two, &mut notes_two));
        notes_one.owned.len() == 3 && notes_two.owned.len() == 3
    });
    assert_eq!(
        notes_one.revoked.len(),
        3,
        "only moved partitions are given up"
    );
    assert!(notes_one.revoked.iter().all(|(_, lost)| !lost));
    write(&config, &input, Some(PARTITIONS), numbers(600..1200));
    wait_until("all is read", || {
        all.extend(poll_some(&one, &mut notes_one));
        all.extend(poll_some(&two, &mut notes_two));
        count(&all) >= 1200
    });
    // The first leaves; the second takes over where it stopped.
    one.close(PATIENCE, &mut notes_one).unwrap();
    assert!(notes_one.owned.is_empty());
    write(&config, &input, Some(PARTITIONS), numbers(1200..1800));
    wait_until("the rest is read", || {
        all.extend(poll_some(&two, &mut notes_two));
        count(&all) >= 1800
    });
    assert_eq!(notes_two.owned.len(), PARTITIONS as usize);
    assert_eq!(sorted(payloads(&all)), numbers(0..1800));
}

#[test]
fn records_of_a_partition_that_leaves_during_a_batch_are_not_in_it() {
    let config = config();
    let input = topic(&config, "in", 2);
    let group = unique("group");
    write(&config, &input, Some(2), numbers(0..20));
    let (one, mut notes_one) = (member(&config, &group, &[&input]), Notes::default());
    while !matches!(
        one.poll(Duration::from_millis(100), &mut notes_one)
            .unwrap(),
        Polled::Rebalanced
    ) {}
    // One long batch: it holds all twenty records and waits for one more, while a second member takes a partition away.
    let limits = BatchLimits {
        records: 21,
        bytes: usize::MAX,
        wait: PATIENCE,
        linger: Duration::from_secs(5),
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (two, mut notes_two) = (member(&config, &group, &[&input]), Notes::default());
            while !stop.load(Ordering::Relaxed) {
                two.poll(Duration::from_millis(20), &mut notes_two).unwrap();
            }
        });
        let until = Instant::now() + PATIENCE;
        while notes_one.revoked.is_empty() && Instant::now() < until {
            let batch = one.poll_batch(limits, &mut notes_one).unwrap();
            for message in &batch {
                let tp = message.topic_partition();
                assert!(notes_one.owned.contains(&tp), "{tp} was revoked");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(notes_one.revoked.len(), 1);
}

#[test]
fn partitions_outside_of_the_subscription_follow_those_inside() {
    let config = config();
    let (input, parked) = (topic(&config, "in", 2), topic(&config, "parked", 2));
    let group = unique("group");
    write(&config, &input, Some(2), numbers(0..4));
    write(&config, &parked, Some(2), numbers(100..104));
    let listener = || Notes {
        extra: Some(parked.clone()),
        ..Notes::default()
    };
    let (one, mut notes_one) = (member(&config, &group, &[&input]), listener());
    let read = |consumer: &Consumer, notes: &mut Notes| consumer.poll_batch(QUICK, notes).unwrap();
    let mut all = Vec::new();
    while all.len() < 8 {
        all.extend(read(&one, &mut notes_one));
    }
    assert_eq!(
        sorted(payloads(&all)),
        [numbers(0..4), numbers(100..104)].concat()
    );
    // Committed under the same group and generation.
    let beside = TopicPartition::new(parked.as_str(), 0);
    one.commit_sync(&[OffsetCommit::new(beside.clone(), 2)])
        .unwrap();
    assert_eq!(one.committed(&[beside]).unwrap()[0].next_offset, Some(2));
    // A second member takes one of the pairs.
    let (two, mut notes_two) = (member(&config, &group, &[&input]), listener());
    wait_until("each has one pair", || {
        read(&one, &mut notes_one);
        read(&two, &mut notes_two);
        notes_one.owned.len() == 1 && notes_two.owned.len() == 1
    });
    for (consumer, notes) in [(&one, &notes_one), (&two, &notes_two)] {
        let mut expected: Vec<TopicPartition> = notes.owned.iter().cloned().collect();
        expected.push(TopicPartition::new(parked.as_str(), expected[0].partition));
        let mut assigned = consumer.assignment().unwrap();
        assigned.sort();
        expected.sort();
        assert_eq!(assigned, expected);
    }
    within("dropping members that hold extra partitions", move || {
        drop(one);
        two.close(PATIENCE, &mut notes_two).unwrap();
    });
}

/// Fails instead of hanging.
fn within(what: &str, job: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let (done, finished) = std::sync::mpsc::channel();
        scope.spawn(move || {
            job();
            // Nobody listens any more if it took too long.
            done.send(()).ok();
        });
        if finished.recv_timeout(PATIENCE).is_err() {
            eprintln!("{what} hangs");
            std::process::abort();
        }
    });
}

/// A seek overtakes a look-up of the end or the beginning that the library has under way. Its late answer is dropped, and
/// asked for again half a second later (`rd_kafka_toppar_handle_Offset`): reading then jumps to the end and leaves out what
/// came meanwhile.
#[test]
fn a_seek_right_after_the_assignment_is_never_undone() {
    const PARTITIONS: i32 = 24;
    let config = config();
    let input = topic(&config, "in", PARTITIONS);
    write(&config, &input, Some(PARTITIONS), numbers(0..48));
    let all: Vec<TopicPartition> = (0..PARTITIONS)
        .map(|p| TopicPartition::new(input.as_str(), p))
        .collect();
    let mut notes = Notes {
        begin_at: all.iter().map(|tp| (tp.clone(), StartAt::End)).collect(),
        ..Notes::default()
    };
    let consumer = member(&config, &unique("group"), &[&input]);
    wait_until("partitions are assigned", || {
        consumer.poll(Duration::ZERO, &mut notes).unwrap();
        !notes.owned.is_empty()
    });
    let zero: Vec<_> = all
        .iter()
        .map(|tp| (tp.clone(), StartAt::Offset(0)))
        .collect();
    consumer.seek(&zero).unwrap();
    let mut read = Vec::new();
    let began = Instant::now();
    let mut written = 48;
    // For longer than the library waits until it asks again.
    while began.elapsed() < Duration::from_millis(1_500) {
        let next = written + PARTITIONS as usize;
        write(&config, &input, Some(PARTITIONS), numbers(written..next));
        written = next;
        read.extend(poll_some(&consumer, &mut notes));
    }
    let last: BTreeSet<String> = numbers(written - PARTITIONS as usize..written)
        .into_iter()
        .collect();
    wait_until("the last records are read", || {
        read.extend(poll_some(&consumer, &mut notes));
        let seen: BTreeSet<String> = payloads(&read).into_iter().collect();
        last.is_subset(&seen)
    });
    let mut texts = payloads(&read);
    texts.sort();
    let mut expected = numbers(0..written);
    expected.sort();
    assert_eq!(texts, expected);
}

#[test]
fn a_consumer_is_dropped_at_any_moment_without_hanging() {
    let config = config();
    let input = topic(&config, "in", 2);
    write(&config, &input, Some(2), numbers(0..100));
    // Never polled; polled until its assignment waits to be served; in the middle of reading; after offsets were read.
    for polls in [0, 1, 3, 30] {
        let consumer = member(&config, &unique("group"), &[&input]);
        for _ in 0..polls {
            consumer.poll(Duration::from_millis(30), &mut ()).unwrap();
        }
        let tps = [0, 1].map(|p| TopicPartition::new(input.as_str(), p));
        let committed = consumer.committed(&tps).unwrap();
        within("dropping a consumer", move || drop(consumer));
        assert_eq!(committed.len(), 2);
    }
    // Nobody answers.
    let consumer = member(&config_at("127.0.0.1:1"), "g", &["t"]);
    consumer.poll(Duration::from_millis(50), &mut ()).unwrap();
    within("dropping a consumer without a broker", move || {
        drop(consumer)
    });
}

#[test]
fn a_static_member_returns_to_its_partitions_without_a_rebalance() {
    let config = config();
    let input = topic(&config, "in", 2);
    let group = unique("group");
    let open = |instance: &str| {
        let consumer = Consumer::open(&config, &options(&group, Some(instance))).unwrap();
        consumer.subscribe(&[&input]).unwrap();
        consumer
    };
    let (one, mut notes_one) = (open("one"), Notes::default());
    let (two, mut notes_two) = (open("two"), Notes::default());
    wait_until("the partitions are shared", || {
        poll_some(&one, &mut notes_one);
        poll_some(&two, &mut notes_two);
        notes_one.owned.len() == 1 && notes_two.owned.len() == 1
    });
    let (before, revoked) = (notes_two.owned.clone(), notes_one.revoked.len());
    drop(two);
    let (two, mut notes_two) = (open("two"), Notes::default());
    wait_until("the second is back", || {
        poll_some(&one, &mut notes_one);
        poll_some(&two, &mut notes_two);
        !notes_two.owned.is_empty()
    });
    assert_eq!(notes_two.owned, before);
    assert!(notes_two.revoked.is_empty());
    assert_eq!(notes_one.revoked.len(), revoked, "the first lost nothing");
    assert_eq!(notes_one.owned.len(), 1, "the first took nothing over");
}

#[test]
fn the_older_of_two_members_with_one_instance_name_is_stopped() {
    let config = config();
    let input = topic(&config, "in", 1);
    let group = unique("group");
    let open = || {
        let consumer = Consumer::open(&config, &options(&group, Some("same"))).unwrap();
        consumer.subscribe(&[&input]).unwrap();
        consumer
    };
    let (one, mut notes) = (open(), Notes::default());
    while notes.owned.is_empty() {
        poll_some(&one, &mut notes);
    }
    let two = open();
    let until = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < until, "both live on");
        two.poll(Duration::from_millis(20), &mut ()).unwrap();
        if let Err(error) = one.poll(Duration::from_millis(20), &mut ()) {
            break error;
        }
    };
    assert_eq!(error.fault(), Fault::Fatal, "{error}");
}

#[test]
fn a_member_that_did_not_poll_in_time_is_told_that_its_partitions_are_lost() {
    let config = config();
    let input = topic(&config, "in", 1);
    let group = unique("group");
    let (one, mut notes) = (member(&config, &group, &[&input]), Notes::default());
    while notes.owned.is_empty() {
        poll_some(&one, &mut notes);
    }
    // Another member gets the partition while the first is silent for longer than max_poll_interval_ms.
    let (two, mut notes_two) = (member(&config, &group, &[&input]), Notes::default());
    wait_until("the partition moved", || {
        poll_some(&two, &mut notes_two);
        !notes_two.owned.is_empty()
    });
    wait_until("the first is told", || {
        one.poll(Duration::from_millis(20), &mut notes).unwrap();
        !notes.revoked.is_empty()
    });
    assert!(notes.revoked[0].1, "lost partitions look like revoked ones");
}

#[test]
fn a_paused_partition_is_silent_and_loses_nothing() {
    let config = config();
    let input = topic(&config, "in", 2);
    write(&config, &input, Some(2), numbers(0..1000));
    let (consumer, mut notes) = (
        member(&config, &unique("group"), &[&input]),
        Notes::default(),
    );
    let mut all = Vec::new();
    while all.is_empty() || notes.owned.len() < 2 {
        all.extend(
            consumer
                .poll_batch(
                    BatchLimits {
                        records: 5,
                        ..QUICK
                    },
                    &mut notes,
                )
                .unwrap(),
        );
    }
    let paused = TopicPartition::new(input.as_str(), 0);
    consumer.pause(std::slice::from_ref(&paused)).unwrap();
    let mut while_paused = Vec::new();
    let of = |list: &[Message], p: i32| list.iter().filter(|m| m.partition == p).count();
    while of(&all, 1) + of(&while_paused, 1) < 500 {
        while_paused.extend(poll_some(&consumer, &mut notes));
    }
    assert_eq!(of(&while_paused, 0), 0);
    consumer.resume(&[paused]).unwrap();
    all.extend(while_paused);
    while all.len() < 1000 {
        all.extend(poll_some(&consumer, &mut notes));
    }
    assert_eq!(sorted(payloads(&all)), numbers(0..1000));
}

#[test]
fn a_seek_right_after_the_assignment_is_followed() {
    let config = config();
    let input = topic(&config, "in", 1);
    write(&config, &input, None, numbers(0..10));
    let consumer = member(&config, &unique("group"), &[&input]);
    while !matches!(
        consumer.poll(Duration::from_millis(100), &mut ()).unwrap(),
        Polled::Rebalanced
    ) {}
    let tp = TopicPartition::new(input.as_str(), 0);
    consumer.seek(&[(tp.clone(), StartAt::Offset(8))]).unwrap();
    let read = read_until(&consumer, |read| read.len() == 2);
    assert_eq!(payloads(&read), numbers(8..10));
    consumer.commit_sync(&[OffsetCommit::new(tp, 4)]).unwrap();
    consumer.rewind_to_committed().unwrap();
    let read = read_until(&consumer, |read| read.len() == 6);
    assert_eq!(payloads(&read), numbers(4..10));
}

#[test]
fn what_foreign_tools_write_does_not_stop_a_reader() {
    // rust-rdkafka panics on a header name that is not UTF-8.
    let config = config();
    let input = topic(&config, "in", 1);
    foreign_record(&config.bootstrap, &input, &[0xff, 0xfe]);
    let consumer = member(&config, &unique("group"), &[&input]);
    let read = read_until(&consumer, |read| read.len() == 1);
    assert_eq!(read[0].headers.len(), 1);
    assert_eq!(read_all(&config, &input)[0].headers, read[0].headers);
}

/// Writes one record whose only header has this name, through the bare library.
fn foreign_record(bootstrap: &str, topic: &str, name: &[u8]) {
    use rdkafka::producer::{BaseProducer, Producer};
    use rdkafka_sys as sys;
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let topic = std::ffi::CString::new(topic).unwrap();
    // SAFETY: all pointers are alive for the calls; the library copies header and topic and takes the headers over.
    unsafe {
        let headers = sys::rd_kafka_headers_new(1);
        let length = isize::try_from(name.len()).unwrap();
        sys::rd_kafka_header_add(
            headers,
            name.as_ptr().cast(),
            length,
            c"v".as_ptr().cast(),
            1,
        );
        let code = sys::rd_kafka_producev(
            producer.client().native_ptr(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
            headers,
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
        );
        assert_eq!(code, sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    }
    producer.flush(PATIENCE).unwrap();
}

//! The router is killed while it has done more out of order than a commit can say: nothing is delivered again but what its
//! settings allow, and the ledger counts every record once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sluice::config::KafkaConfig;
use sluice::dev::kafka::LocalKafka;
use sluice::event::codec::{decode_ledger, encode_addressed};
use sluice::event::{AddressedKind, Delivery, Envelope, Framing};
use sluice::kafka::{AckProducer, Batch, RecordRef, deadline};

use crate::support::process::{Bed, Role, wait_for};
use crate::support::records::read_all;
use crate::support::sink::{Got, Sink};

const PATIENCE: Duration = Duration::from_secs(180);
/// Users with one event each. Every second one fails, so that the bit set of what is done takes a bit of each: many more than
/// the 24 536 that a commit has room for.
const USERS: usize = 40_000;
/// `router.uncommitted_records_max`: the most that one death may make the destination see twice.
const UNCOMMITTED_MAX: usize = 200;

fn bed(sink: &Sink) -> Bed {
    let mut bed = Bed::new(LocalKafka::shared().unwrap().bootstrap(), "kill-router-map");
    let topics = include_str!("../../topics.yaml");
    let one = topics.replace(
        "deliver.*:\n    partitions: 6",
        "deliver.*:\n    partitions: 1",
    );
    assert_ne!(one, topics);
    std::fs::write(bed.path("topics.yaml"), one).unwrap();
    bed.set("topics.file", bed.path("topics.yaml").to_str().unwrap());
    bed.workspace(&json!({
        "sources": [{"id": "s", "write_key": "K"}],
        "destinations": [
            {"id": "hook", "type": "WEBHOOK", "config": {"webhookUrl": sink.url("hook")}},
        ],
        "connections": [{"source": "s", "destination": "hook"}],
    }));
    bed.run(&["topics", "apply", "--yes"]);
    bed
}

fn router(bed: &Bed) -> Role<'_> {
    bed.role("router", "router")
        .with("kafka.consumer.session_timeout_ms", 10_000)
        .with("router.uncommitted_records_max", UNCOMMITTED_MAX)
        .with("router.commit_interval_ms", 50)
        // All is read at once; what limits is the commit's metadata alone.
        .with("router.window_records_max", 2 * USERS)
        .with("router.delivery.backoff_base_ms", 600_000)
        .with("router.delivery.backoff_cap_ms", 600_000)
        // The destination is up; it is some users' events that fail.
        .with("router.breaker.failures", 10 * USERS)
}

/// Writes an event of each user to `deliver.hook`, as the processor does.
fn feed(bed: &Bed) {
    let producer = AckProducer::open(&KafkaConfig::at(&bed.bootstrap), "test").unwrap();
    let (batch, topic) = (Batch::new(), bed.topic("deliver.hook"));
    let mut payload = Vec::new();
    for n in 0..USERS {
        payload.clear();
        let (id, user) = (format!("e{n}"), format!("u{n}"));
        let delivery = Delivery {
            destination_id: "hook".into(),
            origin_partition: 0,
            origin_offset: i64::try_from(n).unwrap(),
            processed_revision: 0,
            envelope: Envelope {
                message_id: id.as_str().into(),
                source_id: "s".into(),
                event_type: "track".into(),
                user_id: user.as_str().into(),
                received_at: 1_700_000_000_000,
                event: br#"{"event":"Tested"}"#.as_slice().into(),
                ..Envelope::default()
            },
        };
        let kind = AddressedKind::Delivery;
        encode_addressed(kind, Framing::SingleObject, &delivery, &mut payload).unwrap();
        let record = RecordRef::new(&topic, user.as_bytes(), &payload);
        producer.send(&batch, record).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(batch.wait(deadline(PATIENCE))).unwrap();
}

/// What the destination took.
#[derive(Default)]
struct Taken {
    all: AtomicUsize,
    ids: Mutex<HashSet<String>>,
}

impl Taken {
    fn answer(&self, got: &Got, is_mended: bool) -> u16 {
        let id = got.message_id();
        let number: usize = id[1..].parse().unwrap();
        if number.is_multiple_of(2) && !is_mended {
            return 503;
        }
        self.all.fetch_add(1, Ordering::SeqCst);
        self.ids.lock().unwrap().insert(id);
        200
    }

    fn all(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }

    fn different(&self) -> usize {
        self.ids.lock().unwrap().len()
    }
}

fn metric(page: &str, name: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[test]
fn a_router_killed_with_more_done_out_of_order_than_a_commit_can_say_repeats_no_more_than_ever() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(Taken::default());
    let sink = Sink::answering({
        let (is_mended, taken) = (Arc::clone(&is_mended), Arc::clone(&taken));
        move |got| taken.answer(got, is_mended.load(Ordering::SeqCst))
    });
    let bed = bed(&sink);
    feed(&bed);
    let mut first = router(&bed).start_ready(PATIENCE);
    let page = wait_for(
        "the router to hold back, or to have done all",
        PATIENCE,
        || {
            let page = first.metrics();
            let holds = metric(&page, "sluice_router_held_keys{destination=\"hook\"}") > 0.0;
            (holds || taken.all() >= USERS / 2).then_some(page)
        },
    );
    first.kill9();
    let before = taken.all();

    is_mended.store(true, Ordering::SeqCst);
    let second = router(&bed).start_ready(PATIENCE);
    wait_for("every event", PATIENCE, || {
        (taken.different() == USERS).then_some(())
    });
    assert!(second.stop(Duration::from_secs(30)).success());
    let repeated = taken.all() - USERS;
    println!("delivered {before} before the death, {repeated} again after it");
    assert!(repeated <= UNCOMMITTED_MAX, "{repeated} came twice");

    let entries = read_all(&bed.bootstrap, &bed.topic("ledger"));
    let entries = entries.iter().map(|r| decode_ledger(&r.payload).unwrap());
    let counted: i64 = entries.map(|entry| entry.records).sum();
    assert_eq!(usize::try_from(counted).unwrap(), USERS, "in the ledger");

    // And it was this that was put to the test.
    assert_eq!(
        metric(&page, "sluice_router_progress_cut_total{lane=\"hook\"}"),
        0.0
    );
    assert!(before > 10_000, "a commit can say more: {before}");
    assert!(before < USERS / 2, "nothing was held back");
}

//! A 200 is a promise: what the gateway answered with 200 is in Kafka, whatever died meanwhile.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use sluice::dev::kafka::{ClusterSize, LocalKafka, LocalKafkaOptions};
use sluice::event::codec::decode_envelope;

use crate::support::checker::Input;
use crate::support::feed::Feed;
use crate::support::process::{Bed, free_address, wait_for};
use crate::support::records::read_all;

const WRITE_KEY: &str = "kill-gateway";
const CLIENTS: u32 = 8;
/// Events that must be accepted between two kills, so that each kill comes under load.
const ACCEPTED_BETWEEN: usize = 100;

/// Clients that post single events one after the other until told to stop, and keep what was answered with 200.
struct Clients {
    stop: AtomicBool,
    accepted: Mutex<Vec<Input>>,
    count: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
}

impl Clients {
    fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            accepted: Mutex::default(),
            count: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
        }
    }

    fn run(&self, mut feed: Feed) {
        let mut accepted = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let input = feed.make(1).remove(0);
            match feed.post_one(&input) {
                Some(200) => {
                    accepted.push(input);
                    self.count.fetch_add(1, Ordering::Relaxed);
                }
                Some(503) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                Some(other) => panic!("the gateway answered {other}"),
                None => {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        self.accepted.lock().unwrap().extend(accepted);
    }

    fn wait_for_more(&self, what: &str, within: Duration) {
        let wanted = self.count.load(Ordering::Relaxed) + ACCEPTED_BETWEEN;
        wait_for(what, within, || {
            (self.count.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }
}

/// Loads a gateway from all clients while `faults` runs; then every id that got 200 must be in `events`.
fn every_200_is_in_the_topic(
    bed: &Bed,
    gateway: std::net::SocketAddr,
    faults: impl FnOnce(&Clients),
) {
    let clients = Clients::new();
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let feed = Feed::new("k", n, 5, gateway, WRITE_KEY);
            let clients = &clients;
            scope.spawn(move || clients.run(feed));
        }
        // Stops the clients also when a fault's own wait gives up.
        let _stop = Stop(&clients.stop);
        faults(&clients);
    });
    let accepted = clients.accepted.into_inner().unwrap();
    let records = read_all(&bed.bootstrap, &bed.topic("events"));
    let there: HashSet<String> = records
        .iter()
        .map(|r| decode_envelope(&r.payload).unwrap().message_id.into_owned())
        .collect();
    let lost: Vec<&Input> = accepted.iter().filter(|i| !there.contains(&i.id)).collect();
    println!(
        "{} accepted, {} refused with 503, {} without an answer, {} records",
        accepted.len(),
        clients.refused.into_inner(),
        clients.broken.into_inner(),
        records.len()
    );
    assert!(
        lost.is_empty(),
        "{} lost, first {:?}",
        lost.len(),
        &lost[..lost.len().min(10)]
    );
    assert!(
        accepted.len() > 10 * ACCEPTED_BETWEEN / 2,
        "too little load to tell"
    );
}

struct Stop<'a>(&'a AtomicBool);
impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn source() -> serde_json::Value {
    json!({"sources": [{"id": "s", "write_key": WRITE_KEY}]})
}

#[test]
fn a_gateway_killed_twenty_times_under_load_loses_nothing_it_answered_with_200() {
    let kafka = LocalKafka::shared().unwrap();
    let bed = Bed::new(kafka.bootstrap(), "kill-gateway");
    bed.workspace(&source());
    bed.run(&["topics", "apply", "--yes"]);
    let address = free_address();
    let role = bed
        .role("gateway", "gateway")
        .with("gateway.listen", address.to_string());
    let mut life = role.start_ready(Duration::from_secs(60));
    every_200_is_in_the_topic(&bed, address, |clients| {
        for round in 1..=20 {
            clients.wait_for_more(
                &format!("load before kill {round}"),
                Duration::from_secs(60),
            );
            life.kill9();
            life = role.start("");
        }
        clients.wait_for_more("load after the last kill", Duration::from_secs(60));
    });
    let status = life.stop(Duration::from_secs(30));
    assert!(status.success(), "the last life drained badly: {status}");
}

#[test]
fn a_leader_killed_five_times_under_load_costs_no_event_that_got_200() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = LocalKafkaOptions::new(dir.path());
    options.size = ClusterSize::Three;
    options.keep_data = false;
    // How long the controller waits for a silent broker; the default of 9 s only makes the test longer.
    options.broker_settings = vec![
        ("broker.session.timeout.ms".into(), "2500".into()),
        ("broker.heartbeat.interval.ms".into(), "500".into()),
    ];
    let kafka = LocalKafka::start(options).unwrap();
    let mut bed = Bed::new(kafka.bootstrap(), "kill-leader");
    // Unsafe topics would be refused.
    bed.set("mode", "production");
    bed.workspace(&source());
    bed.run(&["topics", "apply", "--yes"]);
    let address = free_address();
    let gateway = bed
        .role("gateway", "gateway")
        .with("gateway.listen", address.to_string())
        .start_ready(Duration::from_secs(60));
    let topic = bed.topic("events");
    every_200_is_in_the_topic(&bed, address, |clients| {
        for round in 1..=5 {
            clients.wait_for_more(
                &format!("load before kill {round}"),
                Duration::from_secs(60),
            );
            let node = leaders::of(kafka.bootstrap(), &topic, 0);
            kafka.kill9(node).unwrap();
            let away = Instant::now();
            clients.wait_for_more(
                &format!("load without node {node}"),
                Duration::from_secs(60),
            );
            println!(
                "kill {round}: node {node}, accepted again after {:.1?}",
                away.elapsed()
            );
            kafka.restart(node).unwrap();
            wait_for("all replicas in sync", Duration::from_secs(60), || {
                leaders::all_in_sync(kafka.bootstrap(), &topic, 3).then_some(())
            });
        }
        clients.wait_for_more("load after the last kill", Duration::from_secs(60));
    });
    gateway.stop(Duration::from_secs(30));
}

/// Who leads, and who follows.
mod leaders {
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::metadata::Metadata;

    fn metadata(bootstrap: &str, topic: &str) -> Option<Metadata> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .create()
            .unwrap();
        consumer
            .fetch_metadata(Some(topic), Duration::from_secs(10))
            .ok()
    }

    pub fn of(bootstrap: &str, topic: &str, partition: usize) -> i32 {
        metadata(bootstrap, topic).unwrap().topics()[0].partitions()[partition].leader()
    }

    pub fn all_in_sync(bootstrap: &str, topic: &str, replicas: usize) -> bool {
        metadata(bootstrap, topic).is_some_and(|m| {
            m.topics().first().is_some_and(|t| {
                !t.partitions().is_empty()
                    && t.partitions().iter().all(|p| p.isr().len() == replicas)
            })
        })
    }
}

//! A 200 is a promise: what the gateway answered with 200 is in Kafka, whatever died meanwhile.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice::dev::kafka::{ClusterSize, LocalKafka, LocalKafkaOptions};
use sluice::event::codec::decode_envelope;

use crate::support::checker::Input;
use crate::support::feed::Feed;
use crate::support::load::Clients;
use crate::support::process::{Bed, free_address, wait_for};
use crate::support::records::read_all;

const WRITE_KEY: &str = "kill-gateway";
const CLIENTS: u32 = 8;
const WITHIN: Duration = Duration::from_secs(60);
/// Events that must be accepted between two kills, so that each kill comes under load.
const ACCEPTED_BETWEEN: usize = 100;

/// Loads a gateway from all clients while `faults` runs; then every id that got 200 must be in `events`.
fn every_200_is_in_the_topic(
    bed: &Bed,
    gateway: std::net::SocketAddr,
    faults: impl FnOnce(&Clients),
) {
    let feeds = (0..CLIENTS).map(|n| Feed::new("k", n, 5, gateway, WRITE_KEY));
    let answered = Clients::load(feeds, faults);
    let accepted = answered.accepted;
    let records = read_all(&bed.bootstrap, &bed.topic("events"));
    let there: HashSet<String> = records
        .iter()
        .map(|r| decode_envelope(&r.payload).unwrap().message_id.into_owned())
        .collect();
    let lost: Vec<&Input> = accepted.iter().filter(|i| !there.contains(&i.id)).collect();
    println!(
        "{} accepted, {} refused with 503, {} without an answer, {} records",
        accepted.len(),
        answered.refused,
        answered.broken,
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
    let mut life = role.start_ready(WITHIN);
    every_200_is_in_the_topic(&bed, address, |clients| {
        for round in 1..=20 {
            clients.wait_for_more(
                ACCEPTED_BETWEEN,
                &format!("load before kill {round}"),
                WITHIN,
            );
            life.kill9();
            life = role.start("");
        }
        clients.wait_for_more(ACCEPTED_BETWEEN, "load after the last kill", WITHIN);
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
        .start_ready(WITHIN);
    let topic = bed.topic("events");
    every_200_is_in_the_topic(&bed, address, |clients| {
        for round in 1..=5 {
            clients.wait_for_more(
                ACCEPTED_BETWEEN,
                &format!("load before kill {round}"),
                WITHIN,
            );
            let node = leaders::of(kafka.bootstrap(), &topic, 0);
            kafka.kill9(node).unwrap();
            let away = Instant::now();
            clients.wait_for_more(
                ACCEPTED_BETWEEN,
                &format!("load without node {node}"),
                WITHIN,
            );
            println!(
                "kill {round}: node {node}, accepted again after {:.1?}",
                away.elapsed()
            );
            kafka.restart(node).unwrap();
            wait_for("all replicas in sync", WITHIN, || {
                leaders::all_in_sync(kafka.bootstrap(), &topic, 3).then_some(())
            });
        }
        clients.wait_for_more(ACCEPTED_BETWEEN, "load after the last kill", WITHIN);
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

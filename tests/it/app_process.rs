//! A process of roles from its start to its end, as whoever supervises it sees it.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use sluice::config::KafkaConfig;
use sluice::dev::kafka::{LocalKafka, LocalKafkaOptions};
use sluice::kafka::Admin;

use crate::support::process::{Bed, Process, free_address};

const PATIENCE: Duration = Duration::from_secs(60);

fn bed(name: &str) -> Bed {
    let mut bed = Bed::new(LocalKafka::shared().unwrap().bootstrap(), name);
    bed.set("workspace.poll_ms", 100);
    bed.workspace(&workspace(&[]));
    bed
}

fn workspace(hooks: &[&str]) -> serde_json::Value {
    let destinations: Vec<_> = hooks
        .iter()
        .map(|id| json!({"id": id, "type": "webhook"}))
        .collect();
    let connections: Vec<_> = hooks
        .iter()
        .map(|id| json!({"source": "web", "destination": id}))
        .collect();
    json!({"sources": [{"id": "web", "write_key": "K"}], "destinations": destinations, "connections": connections})
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ended(process: &mut Process) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.ended() {
            return status.code().unwrap_or(-1);
        }
        assert!(Instant::now() < deadline, "did not end\n{}", process.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn in_dev_mode_topics_come_with_the_process_and_with_new_destinations() {
    let bed = bed("appdev");
    let process = bed
        .role("gateway", "g")
        .with("gateway.listen", "127.0.0.1:0")
        .start_ready(PATIENCE);
    let admin = Admin::open(&KafkaConfig::at(&bed.bootstrap)).unwrap();
    assert!(admin.topic(&bed.topic("events")).unwrap().is_some());
    let revision = |metrics: &str| -> String {
        let line = metrics
            .lines()
            .find(|l| l.starts_with("sluice_app_workspace_revision"))
            .unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let before = revision(&process.metrics());
    bed.workspace(&workspace(&["hook"]));
    until("the new workspace", || {
        revision(&process.metrics()) != before
    });
    // Its topics were there before the roles saw it.
    for topic in ["deliver.hook", "parked.hook"] {
        assert!(admin.topic(&bed.topic(topic)).unwrap().is_some(), "{topic}");
    }
    assert!(
        process
            .metrics()
            .contains("sluice_app_workspace_held_back 0")
    );
    assert_eq!(process.stop(PATIENCE).code(), Some(0));
}

#[test]
fn where_an_operator_makes_topics_a_new_destination_waits_for_them() {
    let mut bed = bed("apphold");
    bed.set("topics.ensure", false);
    bed.run(&["topics", "apply", "--yes"]);
    let process = bed.role("processor", "p").start_ready(PATIENCE);
    bed.workspace(&workspace(&["hook"]));
    until("the refusal", || {
        process.log().contains("workspace held back")
    });
    assert!(
        process.log().contains(&bed.topic("deliver.hook")),
        "names the topic"
    );
    assert!(
        process
            .metrics()
            .contains("sluice_app_workspace_held_back 1")
    );
    assert!(process.is_ready(), "the workspace in force goes on serving");
    bed.run(&["topics", "apply", "--yes"]);
    until("the new workspace", || {
        process
            .metrics()
            .contains("sluice_app_workspace_held_back 0")
    });
    assert_eq!(process.stop(PATIENCE).code(), Some(0));
}

#[test]
fn a_process_whose_kafka_is_away_waits_alive_but_not_ready() {
    let mut bed = Bed::new(&free_address().to_string(), "appaway");
    bed.set("kafka.consumer.lookup_timeout_ms", 500);
    bed.workspace(&workspace(&[]));
    let mut process = bed
        .role("gateway", "g")
        .with("gateway.listen", "127.0.0.1:0")
        .start("");
    until("a second attempt", || {
        process.log().matches("waiting for Kafka").count() > 1
    });
    assert!(process.ended().is_none() && !process.is_ready());
    assert_eq!(process.health("live"), (200, "ok".to_owned()));
    process.signal(Signal::SIGTERM);
    assert_eq!(ended(&mut process), 130, "it was interrupted before it ran");
}

#[test]
fn when_kafka_goes_away_later_every_role_says_so_and_lives_on_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let kafka = LocalKafka::start(LocalKafkaOptions::new(folder.path().join("kafka"))).unwrap();
    let mut bed = Bed::new(kafka.bootstrap(), "appgone");
    bed.set("gateway.listen", "127.0.0.1:0");
    bed.set("kafka.statistics_interval_ms", 500);
    let staging = format!("file://{}", bed.path("staging").display());
    bed.set("warehouse.object_store", json!({"url": staging}));
    let lake = json!({"path": bed.path("lake.db")});
    bed.workspace(&json!({
        "sources": [{"id": "web", "write_key": "K"}],
        "destinations": [
            {"id": "hook", "type": "WEBHOOK", "config": {"webhookUrl": "http://127.0.0.1:9/"}},
            {"id": "lake", "type": "SQLITE", "config": lake},
        ],
        "connections": [
            {"source": "web", "destination": "hook"},
            {"source": "web", "destination": "lake"},
        ],
    }));
    let mut process = bed.role("all", "a").start_ready(PATIENCE);
    kafka.kill9(1).unwrap();
    let parts = [
        "gateway",
        "processor.kafka",
        "router.kafka",
        "warehouse.kafka",
    ];
    until("all parts to miss Kafka", || {
        let (code, words) = process.health("ready");
        code == 503 && parts.iter().all(|part| words.contains(part))
    });
    assert_eq!(process.health("live"), (200, "ok".to_owned()));
    assert!(process.ended().is_none());
    kafka.restart(1).unwrap();
    process.wait_ready(PATIENCE);
    assert_eq!(process.stop(PATIENCE).code(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_the_drain() {
    let bed = bed("apptwice");
    let address = free_address();
    let mut process = bed
        .role("gateway", "g")
        .with("gateway.listen", address.to_string())
        .start_ready(PATIENCE);
    // A client in the middle of its request holds the drain up.
    let mut client = TcpStream::connect(address).unwrap();
    client
        .write_all(b"POST /v1/track HTTP/1.1\r\nHost: h\r\nAuthorization: Basic Szo=\r\nContent-Length: 100\r\n\r\n{")
        .unwrap();
    until("the connection", || {
        process.metrics().contains("sluice_gateway_connections 1")
    });
    process.signal(Signal::SIGTERM);
    until("the drain", || process.log().contains("draining"));
    assert!(!process.is_ready());
    assert!(
        process.ended().is_none(),
        "the drain ended by itself\n{}",
        process.log()
    );
    process.signal(Signal::SIGTERM);
    assert_eq!(ended(&mut process), 130, "{}", process.log());
}

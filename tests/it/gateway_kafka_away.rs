//! Kafka is away: 503 and never a false 200, and everything works again when it is back, without a restart.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice::config::Config;
use sluice::dev::kafka::{LocalKafka, LocalKafkaOptions};
use sluice::event::{Topic, TopicNames};

use crate::support::gateway::{Reply, TestGateway, config, create_topic};

const WORKSPACE: &str = "sources: [{id: web, write_key: K}]";
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of this test's own, because it is going to be hurt.
async fn own_kafka(dir: &std::path::Path) -> Arc<LocalKafka> {
    let options = LocalKafkaOptions::new(dir.join("kafka"));
    let start = move || LocalKafka::start(options).expect("a Kafka to test with");
    Arc::new(tokio::task::spawn_blocking(start).await.unwrap())
}

async fn hurt(kafka: &Arc<LocalKafka>, what: fn(&LocalKafka)) {
    let kafka = Arc::clone(kafka);
    tokio::task::spawn_blocking(move || what(&kafka))
        .await
        .unwrap();
}

fn impatient(config: &mut Config) {
    config.gateway.ack_deadline_ms = 800;
}

async fn post(gateway: &TestGateway, id: &str) -> Reply {
    let body = format!(r#"{{"userId":"u","messageId":"{id}"}}"#);
    gateway.post("/v1/track", "K", body).await
}

fn assert_come_back_later(reply: &Reply) {
    assert_eq!(reply.short(), (503, "service unavailable\n"));
    let seconds: u32 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
}

async fn until_accepted(gateway: &TestGateway, id: &str) {
    let until = Instant::now() + PATIENCE;
    while post(gateway, id).await.status != 200 {
        assert!(
            Instant::now() < until,
            "not accepted again within {PATIENCE:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_503_and_nothing_that_got_200_is_missing_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = own_kafka(dir.path()).await;
    let gateway = TestGateway::start_at(kafka.bootstrap(), WORKSPACE, impatient).await;
    until_accepted(&gateway, "before").await;
    hurt(&kafka, |kafka| kafka.kill9(1).unwrap()).await;
    let began = Instant::now();
    assert_come_back_later(&post(&gateway, "away-0").await);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "answered after {:?}",
        began.elapsed()
    );
    // What nobody acknowledges must not pile up without an end either.
    let mut refused = HashSet::from(["away-0".to_owned()]);
    for n in 1..6 {
        let id = format!("away-{n}");
        assert_come_back_later(&post(&gateway, &id).await);
        refused.insert(id);
    }
    crate::support::gateway::until("readiness is gone", || !gateway.health.missing().is_empty())
        .await;
    assert_eq!(gateway.send("GET", "/health", &[], b"").await.status, 503);
    hurt(&kafka, |kafka| kafka.restart(1).unwrap()).await;
    until_accepted(&gateway, "after").await;
    gateway.wait_ready().await;
    let found: HashSet<String> = gateway
        .events()
        .await
        .into_iter()
        .map(|e| e.message_id.into_owned())
        .collect();
    assert!(
        found.contains("before") && found.contains("after"),
        "{found:?}"
    );
    // Those that were refused may be there (the client sends them again); nothing else may.
    assert!(
        found
            .iter()
            .all(|id| ["before", "after"].contains(&id.as_str()) || refused.contains(id))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_before_kafka_takes_events_once_kafka_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = own_kafka(dir.path()).await;
    let mut config = config(kafka.bootstrap());
    impatient(&mut config);
    let topic = TopicNames::new(&config.topics.prefix).name(&Topic::Events);
    create_topic(kafka.bootstrap(), &topic, 1).await;
    hurt(&kafka, |kafka| kafka.kill9(1).unwrap()).await;
    let gateway = TestGateway::open(config, WORKSPACE).await;
    assert_come_back_later(&post(&gateway, "early").await);
    assert!(!gateway.health.missing().is_empty());
    hurt(&kafka, |kafka| kafka.restart(1).unwrap()).await;
    until_accepted(&gateway, "late").await;
    gateway.wait_ready().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_kafka_does_not_take_do_not_count_against_their_sources_limit() {
    // Nobody answers there.
    let mut config = config("127.0.0.1:1");
    config.gateway.ack_deadline_ms = 200;
    config.gateway.rate_limit.events = 1;
    config.gateway.rate_limit.window_ms = 3_600_000;
    let gateway = TestGateway::open(config, WORKSPACE).await;
    for id in ["1", "2", "3"] {
        assert_come_back_later(&post(&gateway, id).await);
    }
    gateway.stop().await;
}

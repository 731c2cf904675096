//! `gateway.spill`: while Kafka is away a 200 means that the disk has the event, and when it is back Kafka has it, in order.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use sluice::config::{Config, Secret, SpillConfig};
use sluice::dev::kafka::{LocalKafka, LocalKafkaOptions};
use sluice::event::codec::decode_envelope;

use crate::support::checker::{Input, Logged, check_log};
use crate::support::client::{Connection, post_json};
use crate::support::feed::Feed;
use crate::support::gateway::{TestGateway, config, message, until};
use crate::support::load::Clients;
use crate::support::process::{Bed, Process, Role, free_address, wait_for};
use crate::support::records::read_all;
use crate::support::skipped;

const WRITE_KEY: &str = "spill";
const WORKSPACE: &str = "sources: [{id: web, write_key: spill}]";
/// A broker that was killed is a leader again only after its old session has ended and clients have asked anew: half a minute, more
/// on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const CLIENTS: u32 = 6;
const TOKEN: &str = "correct horse battery";
/// Small, so that a short outage fills several.
const SEGMENT_BYTES: u64 = 16 << 10;
/// Nobody answers there.
const NO_KAFKA: &str = "127.0.0.1:1";

/// A cluster of a test's own, because it is going to be hurt.
fn own_kafka(dir: &Path) -> LocalKafka {
    LocalKafka::start(LocalKafkaOptions::new(dir.join("kafka"))).expect("a Kafka to test with")
}

/// A configuration with a spill.
fn bed(bootstrap: &str, name: &str) -> Bed {
    let mut bed = Bed::new(bootstrap, name);
    bed.workspace(&json!({"sources": [{"id": "web", "write_key": WRITE_KEY}]}));
    let dir = bed.path("spill");
    bed.set("gateway.spill.dir", dir.to_str().unwrap());
    bed.set("gateway.spill.segment_bytes_max", SEGMENT_BYTES);
    bed.set("gateway.spill.after_ms", 500);
    bed
}

fn gateway(bed: &Bed, address: SocketAddr) -> Role<'_> {
    let role = bed.role("gateway", "gateway");
    role.with("gateway.listen", address.to_string())
}

/// The value of a metric without labels; none while nobody serves it.
fn metric(life: &Process, name: &str) -> Option<u64> {
    let page = life.try_metrics()?;
    value(&page, name)
}

fn value(page: &str, name: &str) -> Option<u64> {
    let line = page.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(' '))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Waits until Kafka has everything.
fn wait_drained(life: &Process, dir: &Path) {
    wait_for("the spill is drained", PATIENCE, || {
        let waiting = metric(life, "sluice_gateway_spill_records")?;
        let active = metric(life, "sluice_gateway_spill_active")?;
        (waiting == 0 && active == 0).then_some(())
    });
    wait_for("the spill's folder is empty", PATIENCE, || {
        files(dir).is_empty().then_some(())
    });
}

/// The folder is beside the log.
fn life_dir(life: &Process) -> PathBuf {
    life.log_path().with_file_name("spill")
}

/// The names of the files in a spill's folder, but for the lock.
fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect();
    names.sort();
    names
}

/// What clients post.
fn feeds(address: SocketAddr) -> impl Iterator<Item = Feed> {
    (0..CLIENTS).map(move |n| Feed::new("s", n, 3, address, WRITE_KEY))
}

/// Every accepted event is in the topic, in its user's order, once the second of two with one id is left out.
fn check(bed: &Bed, accepted: &[Input]) {
    let ids: HashSet<&str> = accepted.iter().map(|input| input.id.as_str()).collect();
    let mut records = read_all(&bed.bootstrap, &bed.topic("events"));
    records.sort_by_key(|record| (record.partition, record.offset));
    let mut seen = HashSet::new();
    let mut logged = Vec::new();
    for record in &records {
        let id = decode_envelope(&record.payload)
            .unwrap()
            .message_id
            .into_owned();
        // What was sent and not answered with 200 may be there too.
        if ids.contains(id.as_str()) && seen.insert(id.clone()) {
            logged.push(Logged {
                id,
                key: String::from_utf8(record.key.clone()).unwrap(),
                partition: record.partition,
                offset: record.offset,
            });
        }
    }
    println!("{} accepted, {} records", accepted.len(), records.len());
    check_log(accepted, &logged).assert_clean("events");
}

#[test]
fn an_outage_is_bridged_without_a_refusal_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = own_kafka(dir.path());
    let bed = bed(kafka.bootstrap(), "spill-outage");
    let address = free_address();
    let life = gateway(&bed, address).start_ready(PATIENCE);
    let answered = Clients::load(feeds(address), |clients| {
        clients.wait_for_more(200, "load before the outage", PATIENCE);
        for outage in 1..=2 {
            kafka.kill9(1).unwrap();
            clients.wait_for_more(CLIENTS as usize + 1, "it goes on without Kafka", PATIENCE);
            clients.wait_for_more(400, "load without Kafka", PATIENCE);
            assert!(life.is_ready(), "not ready though the spill has room");
            wait_for("the metrics tell of it", PATIENCE, || {
                let waiting = metric(&life, "sluice_gateway_spill_records")?;
                let bytes = metric(&life, "sluice_gateway_spill_bytes")?;
                (waiting >= 400 && bytes > waiting).then_some(())
            });
            assert!(files(&life_dir(&life)).len() > 1, "one segment at most");
            kafka.restart(1).unwrap();
            // Under load: there is always something new, and it must come to an end all the same.
            wait_for("requests go to Kafka again", PATIENCE, || {
                (metric(&life, "sluice_gateway_spill_active")? == 0).then_some(())
            });
            clients.wait_for_more(200, &format!("load after outage {outage}"), PATIENCE);
        }
    });
    assert_eq!(answered.refused, 0);
    wait_drained(&life, &life_dir(&life));
    assert!(life.stop(PATIENCE).success());
    check(&bed, &answered.accepted);
}

#[test]
fn a_gateway_killed_without_kafka_and_while_it_drains_loses_nothing_it_answered_with_200() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = own_kafka(dir.path());
    let bed = bed(kafka.bootstrap(), "spill-kill");
    let address = free_address();
    let role = gateway(&bed, address);
    let mut life = role.start_ready(PATIENCE);
    let answered = Clients::load(feeds(address), |clients| {
        clients.wait_for_more(100, "load before the outage", PATIENCE);
        kafka.kill9(1).unwrap();
        for _ in 0..4 {
            clients.wait_for_more(200, "load without Kafka", PATIENCE);
            life.kill9();
            // It finds no Kafka when it starts, and starts.
            life = role.start("");
        }
        clients.wait_for_more(200, "load without Kafka", PATIENCE);
        life.kill9();
        for point in [
            "gateway.spill.after_write=kill@20",
            "gateway.spill.after_fsync=kill@20",
            // Kafka is back from here on.
            "gateway.spill.mid_drain=kill@3",
            "gateway.spill.after_drain=kill@2",
            "gateway.spill.mid_drain=kill@1",
            "gateway.spill.after_drain=kill@1",
        ] {
            if point.contains("mid_drain=kill@3") {
                kafka.restart(1).unwrap();
            }
            life = role.start(point);
            wait_for(point, PATIENCE, || life.was_killed().then_some(()));
        }
        life = role.start_ready(PATIENCE);
        clients.wait_for_more(100, "load at the end", PATIENCE);
    });
    wait_drained(&life, &life_dir(&life));
    assert!(life.stop(PATIENCE).success());
    check(&bed, &answered.accepted);
}

/// A file system of a few bytes, gone with this value.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// None where this process may not mount one, which is said aloud.
    fn mount(at: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "sluice-test"])
            .arg(&at)
            .output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self { at });
        }
        skipped::say(&format!(
            "no small disk to fill can be mounted here: {mounted:?}"
        ));
        None
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Takes what room is left but for `left` bytes.
    fn fill(&self, left: u64) {
        let mut file = fs::File::create(self.ballast()).unwrap();
        let page = [1; 4_096];
        let mut len: u64 = 0;
        while let Ok(written @ 1..) = file.write(&page) {
            len += written as u64;
        }
        file.set_len(len.saturating_sub(left)).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that fails leaves a gateway that still has files open.
        let gone = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(
            std::thread::panicking() || gone.is_ok_and(|status| status.success()),
            "{} is still mounted",
            self.at.display()
        );
    }
}

/// What a client is told on a full disk.
#[tokio::main(flavor = "current_thread")]
async fn told(address: SocketAddr) -> (u16, String, Option<u32>) {
    let mut connection = Connection::open(address).await.unwrap();
    let body = br#"{"userId":"u","event":"e"}"#;
    let request = post_json(address, "/v1/track", WRITE_KEY, body);
    let answer = connection.exchange(&request).await.unwrap();
    let later = answer.header("retry-after");
    let seconds = later.map(|seconds| seconds.parse().unwrap());
    (answer.status, answer.text().to_owned(), seconds)
}

#[test]
fn a_full_disk_is_503_and_what_was_on_it_arrives_when_there_is_room_and_when_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path().join("disk"), 4 << 20) else {
        return;
    };
    let kafka = own_kafka(dir.path());
    let mut bed = bed(kafka.bootstrap(), "spill-full");
    let spill = disk.at.join("spill");
    bed.set("gateway.spill.dir", spill.to_str().unwrap());
    let address = free_address();
    let role = gateway(&bed, address);
    let mut life = role.start_ready(PATIENCE);
    let full = |clients: &Clients, life: &Process| {
        disk.fill(64 << 10);
        clients.wait_for_refusals(200, "the disk is full", PATIENCE);
        wait_for("it says what was tried in vain", PATIENCE, || {
            let page = life.try_metrics()?;
            page.contains("sluice_gateway_spill_errors_total{operation=")
                .then_some(())
        });
        let before = files(&spill);
        clients.wait_for_refusals(200, "the disk is still full", PATIENCE);
        let after = files(&spill);
        // One may be on its way.
        assert!(
            after.len() <= before.len() + 1,
            "refused requests leave files: {} and then {}",
            before.len(),
            after.len()
        );
        wait_for("readiness is gone", PATIENCE, || {
            (!life.is_ready()).then_some(())
        });
    };
    let answered = Clients::load(feeds(address), |clients| {
        clients.wait_for_more(100, "load before the outage", PATIENCE);
        kafka.kill9(1).unwrap();
        clients.wait_for_more(200, "load without Kafka", PATIENCE);
        full(clients, &life);
        let (status, text, seconds) = told(address);
        assert_eq!((status, &*text), (503, "service unavailable\n"));
        assert!((1..=5).contains(&seconds.unwrap()), "{seconds:?}");
        // There is room again, and still no Kafka.
        disk.free();
        clients.wait_for_more(200, "load on a disk with room again", PATIENCE);
        wait_for("it is ready again", PATIENCE, || {
            life.is_ready().then_some(())
        });
        // A gateway that is killed on a full disk starts on it.
        full(clients, &life);
        life.kill9();
        disk.fill(0);
        life = role.start("");
        clients.wait_for_refusals(100, "the disk is full for the next life, too", PATIENCE);
        // Kafka makes room by itself, with nobody's help.
        kafka.restart(1).unwrap();
        clients.wait_for_more(200, "load with Kafka and a full disk", PATIENCE);
        wait_for("requests go to Kafka again", PATIENCE, || {
            (metric(&life, "sluice_gateway_spill_active")? == 0).then_some(())
        });
        clients.wait_for_more(100, "load at the end", PATIENCE);
    });
    assert!(answered.refused > 500, "{}", answered.refused);
    wait_drained(&life, &spill);
    assert_eq!(
        metric(&life, "sluice_gateway_spill_segments_damaged_total"),
        Some(0)
    );
    assert!(life.stop(PATIENCE).success());
    check(&bed, &answered.accepted);
}

#[test]
fn a_damaged_segment_is_named_and_kept_aside_and_everything_else_arrives() {
    let kafka = LocalKafka::shared().unwrap();
    let bed = bed(kafka.bootstrap(), "spill-damage");
    let address = free_address();
    let mut feed = Feed::new("s", 0, 3, address, WRITE_KEY);
    let life = gateway(&bed, address)
        .with("kafka.bootstrap", NO_KAFKA)
        .start_ready(PATIENCE);
    let inputs = feed.make(200);
    for input in &inputs {
        assert_eq!(feed.post_one(input), Some(200));
    }
    let dir = life_dir(&life);
    life.signal(nix::sys::signal::Signal::SIGTERM);
    let mut life = life;
    wait_for("it has ended", PATIENCE, || life.ended());
    let log = life.log();
    assert!(
        log.contains("200 records") && log.contains("left in the spill"),
        "{log}"
    );

    let segments = files(&dir);
    assert!(segments.len() >= 3, "{segments:?}");
    let hurt = &segments[segments.len() / 2];
    let mut bytes = fs::read(dir.join(hurt)).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    fs::write(dir.join(hurt), &bytes).unwrap();

    let life = gateway(&bed, address).start_ready(PATIENCE);
    wait_for("the rest is drained", PATIENCE, || {
        (metric(&life, "sluice_gateway_spill_records")? == 0).then_some(())
    });
    let aside = wait_for("only what was kept aside is left", PATIENCE, || {
        let mut left = files(&dir);
        (left.len() == 1).then(|| left.remove(0))
    });
    let from = aside
        .strip_prefix(&format!("{hurt}.damaged-from-"))
        .unwrap();
    let from: usize = from.parse().unwrap();
    assert!(from < at);
    assert_eq!(fs::read(dir.join(&aside)).unwrap(), bytes[from..]);
    assert_eq!(
        metric(&life, "sluice_gateway_spill_segments_damaged_total"),
        Some(1)
    );
    let log = life.log();
    assert!(log.contains(hurt) && log.contains("damaged"), "{log}");
    // New events are taken as ever, and what is kept aside counts against the limit.
    let after = feed.make(1);
    // Its connection was the first gateway's.
    feed.post_until_accepted(&after);
    let bytes_now = wait_for("the gauge is set", PATIENCE, || {
        metric(&life, "sluice_gateway_spill_bytes").filter(|bytes| *bytes > 0)
    });
    assert_eq!(bytes_now, (bytes.len() - from) as u64);
    assert!(life.stop(PATIENCE).success());

    let records = read_all(&bed.bootstrap, &bed.topic("events"));
    let there: HashSet<String> = records
        .iter()
        .map(|r| decode_envelope(&r.payload).unwrap().message_id.into_owned())
        .collect();
    // Exactly the stretch between the damage and the end of its segment is missing.
    let missing: Vec<usize> = (0..inputs.len())
        .filter(|n| !there.contains(&inputs[*n].id))
        .collect();
    let (first, last) = (missing[0], missing[missing.len() - 1]);
    assert_eq!(last - first + 1, missing.len(), "{missing:?}");
    assert!(first > 0 && last + 1 < inputs.len(), "{missing:?}");
    let rest: Vec<Input> = inputs
        .into_iter()
        .enumerate()
        .filter(|(n, _)| !missing.contains(n))
        .map(|(_, input)| input)
        .chain(after)
        .collect();
    check(&bed, &rest);
}

fn with_spill(dir: &Path, bytes_max: u64) -> impl Fn(&mut Config) + use<> {
    let dir = dir.to_owned();
    move |config| {
        // The spill is ready when the largest request would fit.
        config.gateway.body_bytes_max = 8 << 10;
        config.gateway.audience_list_bytes_max = 8 << 10;
        config.gateway.spill = Some(SpillConfig {
            bytes_max,
            segment_bytes_max: SEGMENT_BYTES,
            after_ms: 500,
            ..SpillConfig::at(&dir)
        });
    }
}

async fn post(gateway: &TestGateway, id: &str, bytes: usize) -> crate::support::gateway::Reply {
    // Nothing that compresses well.
    let text: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(bytes)
        .collect();
    let body =
        format!(r#"{{"userId":"u","messageId":"{id}","event":"e","properties":{{"x":"{text}"}}}}"#);
    gateway.post("/v1/track", WRITE_KEY, body).await
}

fn records_left(gateway: &TestGateway) -> Option<u64> {
    value(&gateway.metrics.render(), "sluice_gateway_spill_records")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_its_limit_the_spill_takes_nothing_and_readiness_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(NO_KAFKA);
    with_spill(dir.path(), 64 << 10)(&mut config);
    let gateway = TestGateway::open(config.clone(), WORKSPACE).await;
    gateway.wait_ready().await;
    let mut taken = 0;
    let refused = loop {
        let reply = post(&gateway, &format!("m{taken}"), 1_000).await;
        if reply.status != 200 {
            break reply;
        }
        taken += 1;
        assert!(taken < 64, "more than its limit");
    };
    assert!(taken > 40, "only {taken}");
    assert_eq!(refused.short(), (503, "service unavailable\n"));
    let seconds: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    until("readiness is gone", || !gateway.health.missing().is_empty()).await;
    assert_eq!(gateway.send("GET", "/health", &[], b"").await.status, 503);
    gateway.stop().await;

    // With more room it goes on where it stood.
    with_spill(dir.path(), 1 << 20)(&mut config);
    let gateway = TestGateway::open(config, WORKSPACE).await;
    gateway.wait_ready().await;
    assert_eq!(gateway.send("GET", "/health", &[], b"").await.status, 200);
    until("what it held is counted", || {
        records_left(&gateway) == Some(taken)
    })
    .await;
    assert_eq!(post(&gateway, "more", 1_000).await.status, 200);
    until("one more", || records_left(&gateway) == Some(taken + 1)).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_cannot_be_written_to_is_503_and_never_a_false_200() {
    let dir = tempfile::tempdir().unwrap();
    let spill = dir.path().join("spill");
    let mut config = config(NO_KAFKA);
    with_spill(&spill, 1 << 20)(&mut config);
    let gateway = TestGateway::open(config, WORKSPACE).await;
    gateway.wait_ready().await;
    // No segment is open yet, and none can be created without the folder.
    let away = dir.path().join("away");
    fs::rename(&spill, &away).unwrap();
    assert_eq!(post(&gateway, "a", 10).await.status, 503);
    let page = gateway.metrics.render();
    assert!(
        page.contains(r#"sluice_gateway_spill_errors_total{operation="create"} 1"#),
        "{page}"
    );
    until("readiness is gone", || !gateway.health.missing().is_empty()).await;
    fs::rename(&away, &spill).unwrap();
    assert_eq!(post(&gateway, "b", 10).await.status, 200);
    gateway.wait_ready().await;
    until("one waits", || records_left(&gateway) == Some(1)).await;
    gateway.stop().await;
}

/// Creates a gateway's topic.
async fn create_topic(bootstrap: &str, topic: &str, message_bytes_max: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1))
        .set("max.message.bytes", message_bytes_max);
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let created = admin.create_topics([&new], &options).await.unwrap();
    assert_eq!(created, [Ok(topic.to_owned())]);
}

async fn shared_kafka() -> String {
    let kafka = tokio::task::spawn_blocking(LocalKafka::shared).await;
    kafka.unwrap().unwrap().bootstrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ingestion_service_plays_in_is_spilled_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(NO_KAFKA);
    with_spill(dir.path(), 1 << 20)(&mut config);
    config.gateway.internal_token = Some(Secret::new(TOKEN));
    let gateway = TestGateway::open(config.clone(), WORKSPACE).await;
    let topic = gateway.topic.clone();
    gateway.wait_ready().await;
    let post = async |gateway: &TestGateway, body: Value| {
        let token = [("X-Sluice-Token", TOKEN)];
        let reply = gateway
            .send(
                "POST",
                "/internal/v1/batch",
                &token,
                body.to_string().as_bytes(),
            )
            .await;
        (reply.status, reply.body)
    };
    let ok = || (200, "ok".to_owned());
    let drop = json!({"isBot": true, "botAction": "drop"});
    assert_eq!(
        post(&gateway, json!([message("x", drop.clone())])).await,
        ok()
    );
    assert_eq!(files(dir.path()), Vec::<String>::new(), "nothing was kept");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let body = json!([
        message("a", json!({"traceID": trace, "routingKey": "a"})),
        message("y", drop),
        message("b", json!({"routingKey": "b"})),
    ]);
    assert_eq!(post(&gateway, body).await, ok());
    let accepted = r#"sluice_gateway_events_accepted_total{source="web"} 2"#;
    assert!(gateway.metrics.render().contains(accepted));
    until("two wait", || records_left(&gateway) == Some(2)).await;
    gateway.stop().await;

    config.kafka.bootstrap = shared_kafka().await;
    create_topic(&config.kafka.bootstrap, &topic, "1000000").await;
    let gateway = TestGateway::open(config, WORKSPACE).await;
    until("nothing waits", || records_left(&gateway) == Some(0)).await;
    assert_eq!(
        post(&gateway, json!([message("c", json!({"routingKey": "c"}))])).await,
        ok()
    );
    let records: Vec<_> = gateway
        .records()
        .await
        .into_iter()
        .map(|r| (String::from_utf8(r.key).unwrap(), r.headers))
        .collect();
    let traced = vec![("traceparent".to_owned(), trace.as_bytes().to_vec())];
    let plain = |key: &str| (key.to_owned(), Vec::new());
    assert_eq!(records, [("a".to_owned(), traced), plain("b"), plain("c")]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_refuses_for_good_is_kept_and_holds_nothing_up() {
    let bootstrap = shared_kafka().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(NO_KAFKA);
    with_spill(dir.path(), 1 << 20)(&mut config);
    let gateway = TestGateway::open(config.clone(), WORKSPACE).await;
    let topic = gateway.topic.clone();
    for (id, bytes) in [("a", 10), ("large", 5_000), ("b", 10)] {
        assert_eq!(post(&gateway, id, bytes).await.status, 200);
    }
    gateway.stop().await;

    create_topic(&bootstrap, &topic, "3000").await;
    config.kafka.bootstrap = bootstrap;
    let gateway = TestGateway::open(config, WORKSPACE).await;
    until("nothing waits", || records_left(&gateway) == Some(0)).await;
    let events = gateway.events().await;
    let ids: Vec<&str> = events.iter().map(|e| e.message_id.as_ref()).collect();
    assert_eq!(ids, ["a", "b"]);
    let page = gateway.metrics.render();
    let refused = value(&page, "sluice_gateway_spill_records_refused_total");
    assert_eq!(refused, Some(1));
    let path = dir.path().to_owned();
    until("only what was refused is left", || {
        let left = files(&path);
        left.len() == 1 && left[0].ends_with(".spill.refused")
    })
    .await;
    let kept = fs::read(path.join(&files(&path)[0])).unwrap();
    assert!(kept.windows(5).any(|bytes| bytes == b"large"));
    // The one that is kept does not keep new ones from going to Kafka.
    assert_eq!(post(&gateway, "c", 10).await.status, 200);
    assert_eq!(gateway.events().await.len(), 3);
    gateway.stop().await;
}

#[test]
fn two_gateways_do_not_share_a_folder() {
    let bed = bed(NO_KAFKA, "spill-lock");
    let first = gateway(&bed, free_address()).start_ready(PATIENCE);
    let second = bed
        .role("gateway", "second")
        .with("gateway.listen", free_address().to_string());
    let mut second = second.start("");
    let status = wait_for("the second ends", PATIENCE, || second.ended());
    assert_eq!(status.code(), Some(1));
    let expected = format!("is in use by process {}", first.pid());
    assert!(second.log().contains(&expected), "{}", second.log());
    assert!(first.stop(PATIENCE).success());
}

//! The local Kafka that dev mode and these tests stand on: it starts, keeps its data, and leaves nothing
//! behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use sluice::dev::kafka::{ClusterSize, LocalKafka, LocalKafkaError, LocalKafkaOptions};

const PATIENCE: Duration = Duration::from_secs(60);

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("log_level", "0");
    config
}

async fn create_topic(bootstrap: &str, name: &str, replicas: i32) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(replicas));
    let created = admin
        .create_topics([&topic], &AdminOptions::new())
        .await
        .unwrap();
    assert_eq!(created, [Ok(name.to_owned())]);
}

/// Produces one record and returns once all in-sync replicas have it.
fn produce(bootstrap: &str, topic: &str, value: &str) {
    let producer: ThreadedProducer<_> = client(bootstrap)
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    producer
        .send(BaseRecord::<str, str>::to(topic).key("k").payload(value))
        .unwrap();
    producer.flush(PATIENCE).unwrap();
}

fn records(bootstrap: &str, topic: &str) -> i64 {
    let consumer: BaseConsumer = client(bootstrap).create().unwrap();
    let (low, high) = consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap();
    high - low
}

fn is_alive(pid: u32) -> bool {
    // A zombie is dead; in a container nobody may collect it.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with('Z'))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn the_shared_broker_takes_records_and_is_only_one() {
    let kafka = LocalKafka::shared().unwrap_or_else(|error| panic!("{error}"));
    let again = LocalKafka::shared().unwrap();
    assert_eq!(kafka.pid(1), again.pid(1));
    let topic = format!("shared-{}", uuid::Uuid::new_v4());
    create_topic(kafka.bootstrap(), &topic, 1).await;
    produce(kafka.bootstrap(), &topic, "v");
    assert_eq!(records(kafka.bootstrap(), &topic), 1);
    kafka.check().unwrap();
}

#[tokio::test]
async fn data_survives_a_stop_a_crash_and_a_restart_of_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalKafkaOptions::new(dir.path().join("kafka"));

    let kafka = LocalKafka::start(options.clone()).unwrap_or_else(|error| panic!("{error}"));
    let first_bootstrap = kafka.bootstrap().to_owned();
    create_topic(kafka.bootstrap(), "kept", 1).await;
    produce(kafka.bootstrap(), "kept", "before the crash");
    kafka.kill9(1).unwrap();
    assert_eq!(kafka.pid(1), None);
    kafka.restart(1).unwrap();
    assert_eq!(
        records(kafka.bootstrap(), "kept"),
        1,
        "after kill -9 and restart"
    );
    produce(kafka.bootstrap(), "kept", "before the stop");
    kafka.stop().unwrap();

    // Somebody else took the port meanwhile: the address moves, the data stays.
    let _squatter = std::net::TcpListener::bind(&first_bootstrap).unwrap();
    let kafka = LocalKafka::start(options).unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(kafka.bootstrap(), first_bootstrap);
    assert_eq!(
        records(kafka.bootstrap(), "kept"),
        2,
        "after stop, start and another port"
    );
}

#[test]
fn a_broker_that_dies_by_itself_is_noticed_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let kafka = LocalKafka::start(LocalKafkaOptions::new(dir.path().join("kafka"))).unwrap();
    let pid = kafka.pid(1).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("the death is noticed", || kafka.check().is_err());
    let error = kafka.check().unwrap_err();
    assert!(
        matches!(&error, LocalKafkaError::Ended { node: 1, status, .. } if status.contains("signal: 9")),
        "{error}"
    );
}

#[test]
fn a_start_that_fails_tells_the_reason_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalKafkaOptions {
        broker_settings: vec![("num.io.threads".into(), "0".into())],
        ..LocalKafkaOptions::new(dir.path().join("kafka"))
    };
    let error = LocalKafka::start(options).unwrap_err().to_string();
    assert!(error.contains("num.io.threads"), "{error}");
}

#[test]
fn a_data_directory_has_one_owner_and_its_broker_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("kafka");

    // The owner is another process: this test binary, told to run only the test below.
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "local_kafka::owner_process",
            "--ignored",
            "--nocapture",
        ])
        .env(OWNER_DIR, &data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let broker: u32 = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().split_once(OWNER_READY)?.1.trim().parse().ok())
        .expect("the owner says its broker's process id");
    assert!(is_alive(broker));

    let refused = LocalKafka::start(LocalKafkaOptions::new(&data_dir)).unwrap_err();
    assert!(
        matches!(&refused, LocalKafkaError::InUse { owner: holder, .. } if *holder == format!("process {}", owner.id())),
        "{refused}"
    );

    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("the broker is gone", || !is_alive(broker));
    let kafka = LocalKafka::start(LocalKafkaOptions::new(&data_dir)).unwrap();
    assert!(
        kafka
            .pid(1)
            .is_some_and(|pid| pid != broker && is_alive(pid))
    );
}

#[test]
fn a_broker_that_outlived_its_owner_is_ended_before_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("kafka");
    LocalKafka::start(LocalKafkaOptions::new(&data_dir))
        .unwrap()
        .stop()
        .unwrap();

    // As if the owner had been killed on a system that does not kill its children: a live process and its
    // mark.
    let node = data_dir.canonicalize().unwrap().join("node-1");
    let mut stray = stray_broker(&node);
    let said = Arc::new(Mutex::new(Vec::new()));
    let progress = {
        let said = Arc::clone(&said);
        Arc::new(move |line: &str| said.lock().unwrap().push(line.to_owned()))
    };
    let kafka = LocalKafka::start(LocalKafkaOptions {
        progress,
        ..LocalKafkaOptions::new(&data_dir)
    })
    .unwrap();
    assert!(
        stray.try_wait().unwrap().is_some(),
        "the stray broker still runs"
    );
    let said = said.lock().unwrap().join("\n");
    assert!(
        said.contains(&format!("stopped Kafka process {}", stray.id())),
        "{said}"
    );
    drop(kafka);
}

/// A second start of the broker in `node` with the command line that we use, but bound to nobody; marked as
/// ours.
fn stray_broker(node: &Path) -> std::process::Child {
    let stray = Command::new("sleep")
        .arg("600")
        .current_dir(node)
        .spawn()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", stray.id())).unwrap();
    let born = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(19)
        .unwrap()
        .to_owned();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(
        node.join("broker.pid"),
        format!("{} {}/{born}\n", stray.id(), boot.trim()),
    )
    .unwrap();
    stray
}

#[tokio::test]
async fn three_brokers_lose_one_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let options = LocalKafkaOptions {
        size: ClusterSize::Three,
        keep_data: false,
        ..LocalKafkaOptions::new(dir.path().join("kafka"))
    };
    let kafka = LocalKafka::start(options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(kafka.bootstrap().split(',').count(), 3);
    create_topic(kafka.bootstrap(), "t", 3).await;
    produce(kafka.bootstrap(), "t", "all up");
    kafka.kill9(2).unwrap();
    produce(kafka.bootstrap(), "t", "one down");
    kafka.restart(2).unwrap();
    assert_eq!(records(kafka.bootstrap(), "t"), 2);
    drop(kafka);
    assert!(
        !dir.path().join("kafka").exists(),
        "data that was not to be kept is still there"
    );
}

const OWNER_DIR: &str = "SLUICE_TEST_OWNER_DIR";
const OWNER_READY: &str = "broker-process:";

/// Not a test: the process that the ownership test kills. Starts the broker from a thread that ends at once.
#[test]
#[ignore = "run by a_data_directory_has_one_owner_and_its_broker_goes_with_it"]
fn owner_process() {
    let Ok(data_dir) = std::env::var(OWNER_DIR) else {
        return;
    };
    let kafka = std::thread::spawn(|| LocalKafka::start(LocalKafkaOptions::new(data_dir)).unwrap())
        .join()
        .unwrap();
    println!("{OWNER_READY}{}", kafka.pid(1).unwrap());
    loop {
        std::thread::park();
    }
}

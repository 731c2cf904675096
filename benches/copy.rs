//! The processor against a real broker on this machine: how fast it copies a backlog with a fan-out of two, and how late an
//! event comes out at a steady rate.
//!
//! `cargo bench --bench copy -- --help`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use sluice::clock::{Clock, SystemClock};
use sluice::config::{Config, KafkaConfig, Mode};
use sluice::control::{Control, parse_workspace};
use sluice::deps::{Deps, Role};
use sluice::dev::kafka::LocalKafka;
use sluice::event::{AddressedKind, Envelope, Framing, Stage, Topic, TopicNames, codec};
use sluice::kafka::{AckProducer, Admin, Batch, NewTopic, Reader, RecordRef, StartAt, deadline};
use sluice::processor::ProcessorMetrics;
use sluice::registry::Schemas;
use sluice::shutdown::Shutdown;
use sluice::telemetry::{Health, Registry};

const WORKSPACE: &str = r#"
sources: [{id: web, write_key: K}]
destinations: [{id: hook, type: WEBHOOK}, {id: lake, type: SQLITE}]
connections: [{source: web, destination: hook}, {source: web, destination: lake}]
"#;

#[derive(Parser)]
#[command(about = "Copies events through the processor: a backlog, then steady rates")]
struct Options {
    /// Events of the backlog; 0 leaves it out.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Events a second of the steady runs.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    rates: Vec<u64>,
    /// Seconds of each steady run.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// `processor.transaction_pace_ms`.
    #[arg(long, default_value_t = Config::default().processor.transaction_pace_ms)]
    pace: u64,
    /// Bytes of an event.
    #[arg(long, default_value_t = 800)]
    bytes: usize,
    /// A property of librdkafka for the producers.
    #[arg(long, value_parser = property, value_name = "NAME=VALUE")]
    set: Vec<(String, String)>,
    /// How many each topic has at most; `topics.yaml` declares 12 and 6, dev mode makes 3 on one broker.
    #[arg(long, default_value_t = 3)]
    partitions: i32,
    /// Added by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// `name=value`
fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

struct Bed {
    kafka: KafkaConfig,
    names: TopicNames,
    config: Config,
    producer: AckProducer,
    broker: Option<u32>,
}

impl Bed {
    fn new(options: &Options) -> Self {
        let local = LocalKafka::shared().unwrap_or_else(|error| panic!("{error}"));
        let mut kafka = KafkaConfig::at(local.bootstrap());
        kafka.extra_producer = options.set.iter().cloned().collect();
        let names = TopicNames::new(&format!("copy-{:08x}.", fastrand::u32(..)));
        let topics = [
            (Topic::Events, 12),
            (Topic::Seen, 12),
            (Topic::Ledger, 6),
            (Topic::Dlq(Stage::Processor), 6),
            (Topic::Deliver("hook".into()), 6),
            (Topic::Warehouse("lake".into()), 6),
        ];
        let new: Vec<NewTopic> = topics
            .iter()
            .map(|(topic, partitions)| NewTopic {
                name: names.name(topic),
                partitions: options.partitions.min(*partitions),
                replication: 1,
                settings: BTreeMap::new(),
            })
            .collect();
        Admin::open(&kafka).unwrap().create(&new, false).unwrap();
        let mut config = Config {
            mode: Mode::Dev,
            kafka: kafka.clone(),
            instance: Some("bench".to_owned()),
            ..Config::default()
        };
        config.processor.transaction_pace_ms = options.pace;
        Self {
            producer: AckProducer::open(&kafka, "bench").unwrap(),
            kafka,
            names,
            config,
            broker: local.pid(1),
        }
    }

    async fn start(&self) -> (Role, Shutdown, Arc<ProcessorMetrics>) {
        let shutdown = Shutdown::new(Duration::from_secs(20));
        let registry = Registry::default();
        let metrics = ProcessorMetrics::register(&registry);
        let health = Health::default();
        let role = sluice::processor::start(Deps {
            config: Arc::new(self.config.clone()),
            control: Control::new(parse_workspace("bench", WORKSPACE, 1).unwrap()),
            clock: Arc::new(SystemClock),
            topics: self.names.clone(),
            schemas: Schemas::default(),
            health: health.clone(),
            metrics: registry,
            shutdown: shutdown.clone(),
        })
        .await
        .unwrap();
        while !health.missing().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (role, shutdown, metrics)
    }

    fn payload(&self, n: u64, bytes: usize, out: &mut Vec<u8>) -> String {
        let user = format!("user-{}", n % 10_000);
        let mut event = format!(
            r#"{{"type":"track","event":"Order Completed","userId":"{user}","messageId":"{n:036}","context":{{"library":{{"name":"RudderLabs JavaScript SDK","version":"3.0.0"}},"page":{{"path":"/p/{n}","url":"https://shop.example/p/{n}"}},"userAgent":"Mozilla/5.0 (X11; Linux x86_64)"}},"properties":{{"order_id":"{n}","total":{}.95,"currency":"EUR","products":["#,
            n % 500
        );
        while event.len() + 60 < bytes {
            event.push_str(&format!(r#"{{"sku":"{:08x}","q":1}},"#, fastrand::u32(..)));
        }
        event.push_str("{}]}}");
        let envelope = Envelope {
            message_id: format!("{n:036}").into(),
            source_id: "web".into(),
            event_type: "track".into(),
            event_name: "Order Completed".into(),
            user_id: user.as_str().into(),
            received_at: SystemClock.now_ms(),
            request_ip: "203.0.113.9".into(),
            sdk: "RudderLabs JavaScript SDK/3.0.0".into(),
            event: event.into_bytes().into(),
            ..Envelope::default()
        };
        out.clear();
        codec::encode_envelope(&envelope, Framing::SingleObject, out).unwrap();
        user
    }

    async fn feed(&self, from: u64, count: u64, bytes: usize) {
        let topic = self.names.name(&Topic::Events);
        let mut payload = Vec::new();
        for start in (from..from + count).step_by(5_000) {
            let batch = Batch::new();
            for n in start..(start + 5_000).min(from + count) {
                let user = self.payload(n, bytes, &mut payload);
                self.producer
                    .send(&batch, RecordRef::new(&topic, user.as_bytes(), &payload))
                    .unwrap();
            }
            batch.wait(deadline(Duration::from_secs(30))).await.unwrap();
        }
    }
}

/// Processor time used so far, by this process and by the broker.
fn cpu(broker: Option<u32>) -> (f64, f64) {
    let of = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        let ticks = |i: usize| {
            fields
                .get(i)
                .and_then(|t| t.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        (ticks(11) + ticks(12)) / 100.0
    };
    (of("self"), broker.map_or(0.0, |pid| of(&pid.to_string())))
}

fn main() {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        if options.events > 0 {
            backlog(&options).await;
        }
        for rate in &options.rates {
            steady(&options, *rate).await;
        }
    });
}

async fn backlog(options: &Options) {
    let bed = Bed::new(options);
    bed.feed(0, options.events, options.bytes).await;
    let (role, shutdown, metrics) = bed.start().await;
    let none: &[&str] = &[];
    let records = metrics.records_total.with_label_values(none);
    while records.get() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (begun, first, before) = (Instant::now(), records.get(), cpu(bed.broker));
    while records.get() < options.events {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (took, after) = (begun.elapsed(), cpu(bed.broker));
    let count = (records.get() - first) as f64;
    let transactions = metrics
        .transactions_total
        .with_label_values(&["committed"])
        .get();
    println!(
        "backlog: {:.0} events/s in, {:.0} records/s out; {} events of {} bytes in {took:.2?}, {transactions} transactions; \
         processor {:.1} us, broker {:.1} us of processor time an event",
        count / took.as_secs_f64(),
        2.0 * count / took.as_secs_f64(),
        options.events,
        options.bytes,
        (after.0 - before.0) / count * 1e6,
        (after.1 - before.1) / count * 1e6,
    );
    shutdown.begin();
    role.done.await.unwrap().unwrap();
}

async fn steady(options: &Options, rate: u64) {
    let bed = Bed::new(options);
    let (role, shutdown, metrics) = bed.start().await;
    let total = rate * options.seconds;
    let stop = Arc::new(AtomicBool::new(false));
    let tail = {
        let (kafka, topic) = (
            bed.kafka.clone(),
            bed.names.name(&Topic::Deliver("hook".into())),
        );
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut reader = Reader::open_all(&kafka, "tail", &topic, StartAt::Beginning).unwrap();
            let mut late: Vec<i64> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                while let Ok(Some(message)) = reader.poll(Duration::from_millis(20)) {
                    let now = SystemClock.now_ms();
                    let payload = message.payload.unwrap_or_default();
                    if let Ok(a) = codec::decode_addressed(AddressedKind::Delivery, &payload) {
                        late.push(now - a.envelope.received_at);
                    }
                }
            }
            late
        })
    };
    let before = cpu(bed.broker);
    let begun = Instant::now();
    let topic = bed.names.name(&Topic::Events);
    let mut payload = Vec::new();
    let mut sent = 0;
    while sent < total {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due.min(total) {
            let user = bed.payload(sent, options.bytes, &mut payload);
            let batch = Batch::new();
            bed.producer
                .send(&batch, RecordRef::new(&topic, user.as_bytes(), &payload))
                .unwrap();
            sent += 1;
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    let (took, after) = (begun.elapsed(), cpu(bed.broker));
    let none: &[&str] = &[];
    let records = metrics.records_total.with_label_values(none);
    while records.get() < total {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let mut late = tail.join().unwrap();
    late.sort_unstable();
    let at = |q: f64| late[((late.len() - 1) as f64 * q) as usize];
    let transactions = metrics
        .transactions_total
        .with_label_values(&["committed"])
        .get();
    println!(
        "{rate} events/s, pace {} ms: read at the destination's topic after {} ms (p50), {} ms (p99), {} ms (max), {} events; \
         {:.0} transactions/s, {:.1} ms each until acknowledged; processor time: this process {:.0} %, broker {:.0} % of a core",
        options.pace,
        at(0.5),
        at(0.99),
        at(1.0),
        late.len(),
        transactions as f64 / took.as_secs_f64(),
        {
            let waits = metrics.acknowledge_seconds.with_label_values(none);
            waits.get_sample_sum() / waits.get_sample_count() as f64 * 1e3
        },
        (after.0 - before.0) / took.as_secs_f64() * 100.0,
        (after.1 - before.1) / took.as_secs_f64() * 100.0,
    );
    shutdown.begin();
    role.done.await.unwrap().unwrap();
}

//! What a transaction costs on a real broker on this machine: from the call of `commit` to its end, by the number of
//! partitions that the transaction wrote to.
//!
//! `cargo bench --bench commit -- [--partitions 1,6,30] [--records 100] [--transactions 200] [--pace 0] [--set name=value]`
//!
//! `--pace` is the least time in milliseconds from one beginning to the next; `--set debug=eos,msg` and `RUST_LOG=debug` show
//! what librdkafka does.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice::config::KafkaConfig;
use sluice::dev::kafka::LocalKafka;
use sluice::kafka::{
    Admin, BatchLimits, Consumer, ConsumerOptions, NewTopic, OffsetCommit, RecordRef,
    TopicPartition, TxnProducer,
};

struct Options {
    partitions: Vec<i32>,
    records: usize,
    transactions: usize,
    pace: Duration,
    set: BTreeMap<String, String>,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            partitions: vec![1, 6, 30],
            records: 100,
            transactions: 200,
            pace: Duration::ZERO,
            set: BTreeMap::new(),
        };
        let args: Vec<String> = std::env::args()
            .skip(1)
            .filter(|a| a != "--bench")
            .collect();
        for pair in args.chunks(2) {
            let value = pair.get(1).map_or("", String::as_str);
            match pair[0].as_str() {
                "--partitions" => {
                    options.partitions = value.split(',').map(|n| n.parse().unwrap()).collect();
                }
                "--records" => options.records = value.parse().unwrap(),
                "--transactions" => options.transactions = value.parse().unwrap(),
                "--pace" => options.pace = Duration::from_millis(value.parse().unwrap()),
                "--set" => {
                    let (name, value) = value.split_once('=').unwrap();
                    options.set.insert(name.to_owned(), value.to_owned());
                }
                other => panic!("unknown option {other}"),
            }
        }
        options
    }
}

fn main() {
    let options = Options::read();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let local = LocalKafka::shared().unwrap_or_else(|error| panic!("{error}"));
    let mut kafka = KafkaConfig::at(local.bootstrap());
    kafka.extra_producer.clone_from(&options.set);
    println!(
        "{} transactions of {} records; commit: until all records are acknowledged + offsets and end of the transaction",
        options.transactions, options.records
    );
    println!(
        "| partitions | commit p50 / p90 / p99 ms | acknowledged p50 / p99 ms | the rest p50 / p99 ms | transactions/s |"
    );
    println!("|---|---|---|---|---|");
    for partitions in &options.partitions {
        measure(&kafka, &options, *partitions);
    }
}

fn measure(kafka: &KafkaConfig, options: &Options, partitions: i32) {
    let run = format!("commit-{:08x}", fastrand::u32(..));
    let (input, output) = (format!("{run}.in"), format!("{run}.out"));
    let topic = |name: &str, partitions| NewTopic {
        name: name.to_owned(),
        partitions,
        replication: 1,
        settings: BTreeMap::new(),
    };
    let new = [topic(&input, 12), topic(&output, partitions)];
    Admin::open(kafka).unwrap().create(&new, false).unwrap();
    let consumer = Consumer::open(
        kafka,
        &ConsumerOptions {
            role: "bench".to_owned(),
            group: run.clone(),
            ..ConsumerOptions::default()
        },
    )
    .unwrap();
    consumer.subscribe(&[&input]).unwrap();
    let limits = BatchLimits {
        records: 1,
        bytes: 1,
        wait: Duration::from_millis(50),
        linger: Duration::ZERO,
    };
    // A topic that has just been made may have no leader yet.
    let poll = |consumer: &Consumer| drop(consumer.poll_batch(limits, &mut ()));
    while consumer.assignment().unwrap().len() < 12 {
        poll(&consumer);
    }
    let mut txn = TxnProducer::open(kafka, "bench", &run).unwrap();
    let payload = vec![b'x'; 1_000];
    let (mut all, mut acknowledged, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let begun = Instant::now();
    for n in 0..options.transactions + 10 {
        let since = Instant::now();
        txn.begin().unwrap();
        for r in 0..options.records {
            let mut record = RecordRef::new(&output, b"key", &payload);
            record.partition = Some((r % partitions as usize) as i32);
            txn.send(record).unwrap();
        }
        let offsets: Vec<OffsetCommit> = (0..12)
            .map(|p| OffsetCommit::new(TopicPartition::new(input.as_str(), p), n as i64))
            .collect();
        let report = txn
            .commit(&offsets, &consumer.group_metadata().unwrap())
            .unwrap();
        // The first transactions look up leaders and the coordinator of the group.
        if n >= 10 {
            all.push(report.took);
            acknowledged.push(report.acknowledged_after);
            rest.push(report.took - report.acknowledged_after);
        }
        std::thread::sleep(options.pace.saturating_sub(since.elapsed()));
    }
    let took = begun.elapsed();
    let at = |of: &mut Vec<Duration>, q: f64| {
        of.sort_unstable();
        of[((of.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3
    };
    println!(
        "| {partitions} | {:.1} / {:.1} / {:.1} | {:.1} / {:.1} | {:.1} / {:.1} | {:.0} |",
        at(&mut all, 0.5),
        at(&mut all, 0.9),
        at(&mut all, 0.99),
        at(&mut acknowledged, 0.5),
        at(&mut acknowledged, 0.99),
        at(&mut rest, 0.5),
        at(&mut rest, 0.99),
        (options.transactions + 10) as f64 / took.as_secs_f64(),
    );
    poll(&consumer);
}

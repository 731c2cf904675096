//! What a transaction costs on a real broker on this machine: from the call of `commit` to its end, by the number of
//! partitions that the transaction wrote to.
//!
//! `cargo bench --bench commit -- --help`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use sluice::config::KafkaConfig;
use sluice::dev::kafka::LocalKafka;
use sluice::kafka::{
    Admin, BatchLimits, Consumer, ConsumerOptions, NewTopic, OffsetCommit, RecordRef,
    TopicPartition, TxnProducer,
};

#[derive(Parser)]
#[command(about = "Commits transactions of some records to some partitions")]
struct Options {
    /// Partitions that a transaction writes to.
    #[arg(long, value_delimiter = ',', default_value = "1,6,30")]
    partitions: Vec<i32>,
    /// Records of a transaction.
    #[arg(long, default_value_t = 100)]
    records: usize,
    /// Transactions that count.
    #[arg(long, default_value_t = 200)]
    transactions: usize,
    /// Least time from one beginning to the next, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pace: u64,
    /// A property of librdkafka for the producer; `debug=eos,msg` with RUST_LOG=debug shows what it does.
    #[arg(long, value_parser = property, value_name = "NAME=VALUE")]
    set: Vec<(String, String)>,
    /// Added by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// `name=value`
fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let local = LocalKafka::shared().unwrap_or_else(|error| panic!("{error}"));
    let mut kafka = KafkaConfig::at(local.bootstrap());
    kafka.extra_producer = options.set.iter().cloned().collect();
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
        std::thread::sleep(Duration::from_millis(options.pace).saturating_sub(since.elapsed()));
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

//! Measures everything on one broker in one run, and writes the tables.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use sluice::dev::kafka::{LocalKafka, LocalKafkaOptions};

use crate::drive::Plan;
use crate::event::{Run, Shape};
use crate::floor::{self, Raw};
use crate::measure::{Log, Measured, measure};
use crate::pipeline::{Delivered, Pipeline};
use crate::servers::{self, Least, Sluice};
use crate::topic::{self, Ends};

/// Records that the raw producer sends round and round.
const SAMPLE_MAX: usize = 10_000;
const EVENT_BYTES: usize = 1024;
/// Connections that are tried to find the peak.
const CONNECTIONS: [usize; 3] = [32, 128, 256];
/// Open loop: enough that none is short at the rates measured.
const OPEN_CONNECTIONS: usize = 64;
const FIXED_RATE: f64 = 1000.0;

/// A broker: the named one, or one of our own in `dir`.
pub fn kafka(bootstrap: Option<&str>, dir: &Path) -> Result<Broker> {
    if let Some(bootstrap) = bootstrap {
        return Ok(Broker {
            bootstrap: bootstrap.to_owned(),
            ours: None,
        });
    }
    let mut options = LocalKafkaOptions::new(dir.join("kafka"));
    options.keep_data = false;
    options.heap_mib = 512;
    let kafka = LocalKafka::find_or_start(options)?;
    Ok(Broker {
        bootstrap: kafka.bootstrap().to_owned(),
        ours: Some(kafka),
    })
}

/// The cluster that everything runs against.
pub struct Broker {
    bootstrap: String,
    ours: Option<LocalKafka>,
}

impl Broker {
    /// Addresses.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Its process, if it is ours.
    pub fn pid(&self) -> Option<u32> {
        self.ours.as_ref()?.pid(1)
    }

    fn version(&self) -> String {
        self.ours
            .as_ref()
            .and_then(LocalKafka::distribution)
            .map_or_else(|| "Kafka".to_owned(), |d| format!("Kafka {}", d.version))
    }
}

/// One gateway under one kind of requests.
struct Row {
    who: &'static str,
    shape: Shape,
    peak: Measured,
    connections: usize,
    half: Measured,
}

/// A table, or a few that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The gateway against librdkafka alone and against the least gateway.
    Gateway,
    /// From the gateway to a webhook and to tables.
    Pipeline,
}

/// Measures and rewrites the tables.
pub async fn report(args: &crate::Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = kafka(None, dir.path())?;
    let bootstrap = broker.bootstrap().to_owned();
    let duration = Duration::from_secs_f64(args.duration);
    let conditions = format!(
        "\n{}, one broker; broker, load and server on the same {} cores; events of {EVENT_BYTES} bytes; {duration:.0?} a run.\n",
        broker.version(),
        std::thread::available_parallelism()?,
    );
    let wanted = |part| args.part.is_none_or(|only| only == part);
    let mut tables = Vec::new();
    if wanted(Part::Gateway) {
        let (rows, fixed, raw) = gateways(&bootstrap, dir.path(), duration).await?;
        tables.push(("gateway", gateway_table(&rows, &fixed, &raw) + &conditions));
    }
    if wanted(Part::Pipeline) {
        let paths = paths(&broker, duration).await?;
        tables.push(("pipeline", path_table(&paths) + &conditions));
    }
    for (_, text) in &tables {
        println!("{text}");
    }
    if args.dry_run {
        return Ok(());
    }
    rewrite(&args.file, &tables)
}

async fn gateways(
    bootstrap: &str,
    dir: &Path,
    duration: Duration,
) -> Result<(Vec<Row>, Vec<(&'static str, Measured)>, Raw)> {
    let shape = |batch| Shape {
        batch,
        event_bytes: EVENT_BYTES,
        gzip: false,
        users: 10_000,
    };
    let (mut rows, mut fixed) = (Vec::new(), Vec::new());

    let sluice = Sluice::start(
        bootstrap,
        "load-gateway",
        &["gateway"],
        &servers::source_only(),
    );
    let log = Log {
        bootstrap: bootstrap.to_owned(),
        topic: sluice.events.clone(),
    };
    let ours = Server {
        who: "sluice",
        address: sluice.address,
        write_key: servers::WRITE_KEY.to_owned(),
        pid: sluice.pids()[0].1,
        log,
    };
    let partitions = Ends::of(bootstrap, &sluice.events)?.partitions();
    topic::create(bootstrap, "load-least", partitions).await?;
    let least = Least::start(bootstrap, "load-least", dir)?;
    let floor = Server {
        who: "least gateway",
        address: least.address,
        write_key: "none".to_owned(),
        pid: least.pid(),
        log: Log {
            bootstrap: bootstrap.to_owned(),
            topic: "load-least".to_owned(),
        },
    };
    // A broker that has just started is several times slower; whoever comes first would pay for it.
    for server in [&ours, &floor] {
        for batch in [100, 0] {
            let plan = server.plan(&shape(batch), None, duration / 2, CONNECTIONS[1]);
            measure(plan, None, None).await?;
        }
    }
    // In turns, so that both meet the same broker and the same machine.
    for server in [&ours, &floor] {
        let open = server.open(&shape(0), FIXED_RATE, duration).await?;
        fixed.push((server.who, open));
    }
    for batch in [0, 1, 10, 100] {
        for server in [&ours, &floor] {
            rows.push(server.row(shape(batch), duration).await?);
        }
    }
    rows.sort_by_key(|row| row.who != ours.who);
    let records = sample(bootstrap, &sluice.events)?;
    drop((sluice, least));

    topic::create(bootstrap, "load-raw", partitions).await?;
    let raw = floor::raw_producer(bootstrap, "load-raw", &records, duration)?;
    Ok((rows, fixed, raw))
}

struct Server {
    who: &'static str,
    address: SocketAddr,
    write_key: String,
    pid: u32,
    log: Log,
}

impl Server {
    fn plan(
        &self,
        shape: &Shape,
        rate: Option<f64>,
        duration: Duration,
        connections: usize,
    ) -> Plan {
        Plan {
            address: self.address,
            write_key: self.write_key.clone(),
            rate,
            duration,
            warm_up: duration / 8,
            connections,
            shape: shape.clone(),
        }
    }

    async fn open(&self, shape: &Shape, rate: f64, duration: Duration) -> Result<Measured> {
        let plan = self.plan(shape, Some(rate), duration, OPEN_CONNECTIONS);
        let measured = measure(plan, Some(&self.log), Some(self.pid)).await?;
        measured.print(&format!(
            "{}: {} at {rate:.0} requests/s",
            self.who,
            shape.name()
        ));
        Ok(measured)
    }

    async fn row(&self, shape: Shape, duration: Duration) -> Result<Row> {
        let who = self.who;
        let mut peak: Option<(Measured, usize)> = None;
        for connections in CONNECTIONS {
            let plan = self.plan(&shape, None, duration / 2, connections);
            let found = measure(plan, Some(&self.log), Some(self.pid)).await?;
            found.print(&format!(
                "{who}: {}, closed loop, {connections} connections",
                shape.name()
            ));
            let best = peak
                .as_ref()
                .map_or(0.0, |(p, _)| p.outcome.events_per_second());
            if found.outcome.events_per_second() > best {
                peak = Some((found, connections));
            }
        }
        let (peak, connections) = peak.with_context(|| format!("{who} accepted nothing"))?;
        let rate = peak.outcome.requests_per_second() / 2.0;
        let half = self.open(&shape, rate, duration).await?;
        Ok(Row {
            who,
            shape,
            peak,
            connections,
            half,
        })
    }
}

async fn paths(broker: &Broker, duration: Duration) -> Result<Vec<(String, Delivered)>> {
    let mut list = Vec::new();
    for warehouse in [false, true] {
        let what = if warehouse {
            "webhook and SQLite"
        } else {
            "webhook"
        };
        let pipeline = Pipeline::start(broker.bootstrap(), broker.pid(), warehouse)?;
        for rate in [Some(FIXED_RATE), None] {
            let name = match rate {
                Some(rate) => format!("{what}, {rate:.0}/s"),
                None => format!("{what}, as fast as 64 connections go"),
            };
            let delivered = pipeline
                .run(rate, duration * 2, OPEN_CONNECTIONS, EVENT_BYTES)
                .await?;
            delivered.print(&name);
            list.push((name, delivered));
        }
    }
    Ok(list)
}

fn micros(d: Option<Duration>) -> String {
    d.map_or_else(
        || "?".to_owned(),
        |d| format!("{:.1}", d.as_secs_f64() * 1e6),
    )
}

fn count(n: f64) -> String {
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn percentiles(m: &Measured) -> String {
    let o = &m.outcome;
    format!("{:.1} / {:.1} / {:.1}", o.ms(50.0), o.ms(99.0), o.ms(99.9))
}

fn lost(list: &[&Measured]) -> String {
    let counted = list.iter().filter_map(|m| m.balance.as_ref());
    let (lost, of) = counted.fold((0, 0), |(l, n), b| (l + b.lost(), n + b.accepted));
    format!("{lost} of {}", count(of as f64))
}

fn gateway_table(rows: &[Row], fixed: &[(&'static str, Measured)], raw: &Raw) -> String {
    let mut text = String::from(
        "| | events/s at peak | requests/s | of librdkafka | of least | CPU µs/event | half of peak: p50 / p99 / p99.9 ms | RSS MiB at peak | lost |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let _infallible = writeln!(
        text,
        "| librdkafka alone, the same records ({} bytes) | {} | | 100 % | | {:.1} | | | 0 |",
        raw.mean_bytes,
        count(raw.per_second),
        raw.cpu_per_record.as_secs_f64() * 1e6
    );
    for row in rows {
        let events = row.peak.outcome.events_per_second();
        let least = rows
            .iter()
            .find(|other| other.who == "least gateway" && other.shape.batch == row.shape.batch)
            .map_or_else(String::new, |other| {
                format!(
                    "{:.0} %",
                    100.0 * events / other.peak.outcome.events_per_second()
                )
            });
        let _infallible = writeln!(
            text,
            "| {}, {} ({} connections) | {} | {} | {:.0} % | {least} | {} | {} | {} | {} |",
            row.who,
            row.shape.name(),
            row.connections,
            count(events),
            count(row.peak.outcome.requests_per_second()),
            100.0 * events / raw.per_second,
            micros(row.peak.cpu_per_event),
            percentiles(&row.half),
            row.peak.rss.map_or(0, |(_, peak)| peak >> 20),
            lost(&[&row.peak, &row.half]),
        );
    }
    text.push_str("\n| 1,000 single events/s, open loop | p50 / p99 / p99.9 ms | CPU µs/event | lost |\n|---|---|---|---|\n");
    for (who, measured) in fixed {
        let _infallible = writeln!(
            text,
            "| {who} | {} | {} | {} |",
            percentiles(measured),
            micros(measured.cpu_per_event),
            lost(&[measured])
        );
    }
    text
}

fn path_table(list: &[(String, Delivered)]) -> String {
    let mut text = String::from(
        "| single events to | accepted/s | delivered/s | end to end p50 / p99 / max | last arrival after last answer | CPU µs/event, all roles | arrived |\n|---|---|---|---|---|---|---|\n",
    );
    for (name, d) in list {
        let latency = d.end_to_end.as_ref().map_or_else(String::new, |l| {
            let ms = |micros: u64| micros as f64 / 1000.0;
            format!(
                "{:.0} / {:.0} / {:.0} ms",
                ms(l.value_at_percentile(50.0)),
                ms(l.value_at_percentile(99.0)),
                ms(l.max())
            )
        });
        let _infallible = writeln!(
            text,
            "| {name} | {} | {} | {latency} | {:.1} s | {:.0} | {} of {}, {} again |",
            count(d.load.outcome.events_per_second()),
            count(d.per_second),
            d.drain.as_secs_f64(),
            d.roles.iter().map(|r| d.micros(r.cpu)).sum::<f64>(),
            count(d.arrived as f64),
            count(d.load.outcome.events() as f64),
            d.repeated
        );
    }
    // The fullest path at full speed tells most.
    if let Some((name, d)) = list.iter().rfind(|(_, d)| d.end_to_end.is_none()) {
        let _infallible = writeln!(
            text,
            "\nWhere the CPU goes ({name}):\n\n| role | µs/event | RSS MiB at most | by thread |\n|---|---|---|---|"
        );
        for cost in d.roles.iter().chain(&d.bystanders) {
            let threads: Vec<String> = cost
                .threads
                .iter()
                .take(5)
                .map(|(thread, cpu)| format!("`{thread}` {:.1}", d.micros(*cpu)))
                .collect();
            let _infallible = writeln!(
                text,
                "| {} | {:.1} | {} | {} |",
                cost.role,
                d.micros(cost.cpu),
                cost.rss_peak >> 20,
                threads.join(", ")
            );
        }
    }
    text
}

/// Puts each text between `<!-- name -->` and `<!-- /name -->`.
fn rewrite(path: &Path, tables: &[(&str, String)]) -> Result<()> {
    let mut text = std::fs::read_to_string(path)
        .with_context(|| format!("could not read {}", path.display()))?;
    for (name, table) in tables {
        let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
        let (Some(from), Some(to)) = (text.find(&open), text.find(&close)) else {
            anyhow::bail!("{} has no {open} … {close}", path.display());
        };
        text.replace_range(from + open.len()..to, &format!("\n{table}\n"));
    }
    std::fs::write(path, text)?;
    Ok(())
}

/// Records as they lie in a topic, with their keys.
pub fn sample(bootstrap: &str, topic: &str) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    Ends::beginning(bootstrap, topic)?.read_some(bootstrap, SAMPLE_MAX, |key, payload| {
        records.push((key.to_vec(), payload.to_vec()));
    })?;
    Ok(records)
}

/// Bare JSON events.
pub fn made_up_records() -> Vec<(Vec<u8>, Vec<u8>)> {
    let shape = Shape {
        batch: 0,
        event_bytes: EVENT_BYTES,
        gzip: false,
        users: 10_000,
    };
    let host = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut request = crate::event::Request::new(&shape, Run::new(), host, "none");
    (0..SAMPLE_MAX as u64)
        .map(|n| (format!("user-{n}").into_bytes(), request.body(n).to_vec()))
        .collect()
}

//! Loads the gateway over HTTP and says how fast it was and whether it lost anything, from the same run.
//!
//! `cargo bench --bench load -- --help`. The tables of `docs/performance.md` are made by `cargo bench --bench load -- report`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code
)]

mod drive;
mod event;
mod floor;
mod measure;
mod pipeline;
mod proc;
mod report;
mod servers;
mod sink;
mod soak;
mod topic;

#[path = "../../tests/it/support/client.rs"]
mod client;
#[path = "../../tests/it/support/process.rs"]
mod process;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use drive::Plan;
use event::Shape;
use measure::{Log, measure};

#[derive(Parser)]
#[command(
    name = "load",
    about = "Loads Sluice and counts what came of it",
    arg_required_else_help = true
)]
struct Cli {
    /// Threads that send.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Loads a gateway: open loop with --rate, else closed loop.
    Http(Http),
    /// Comparison: librdkafka alone, with the gateway's settings.
    Raw(Raw),
    /// Comparison: serves the least that a gateway can do.
    LeastGateway(LeastGateway),
    /// Starts a broker for experiments, prints its address, and runs until it is interrupted.
    Broker {
        /// Make this topic, with 12 partitions.
        #[arg(long)]
        topic: Option<String>,
    },
    /// The whole path: starts all roles against a webhook of its own and follows every event to it.
    Pipeline(Pipeline),
    /// Loads a gateway of its own for long and samples its memory.
    Soak(Soak),
    /// Measures everything and rewrites the tables of a Markdown file.
    Report(Report),
}

/// What every load has.
#[derive(Args)]
struct Load {
    /// Requests a second, on a schedule that waits for nobody. Without it: as many as the connections carry.
    #[arg(long)]
    rate: Option<f64>,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of an event.
    #[arg(long, default_value_t = 1024)]
    event_bytes: usize,
}

#[derive(Args)]
pub struct Soak {
    /// How long.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    #[command(flatten)]
    load: Load,
    /// Events of a request; 0 posts single events.
    #[arg(long, default_value_t = 0)]
    batch: usize,
}

#[derive(Args)]
struct Http {
    /// The gateway, e.g. http://127.0.0.1:8080.
    #[arg(long)]
    url: String,
    /// Write key of a source.
    #[arg(long)]
    write_key: String,
    #[command(flatten)]
    load: Load,
    /// Seconds.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Seconds at the beginning whose latencies are not counted.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Events of a request; 0 posts single events to /v1/track, anything else to /v1/batch.
    #[arg(long, default_value_t = 0)]
    batch: usize,
    /// Compress bodies. Costs this harness far more than the rest of its work.
    #[arg(long)]
    gzip: bool,
    /// Distinct users.
    #[arg(long, default_value_t = 10_000)]
    users: u64,
    /// Cluster, to count loss.
    #[arg(long, requires = "topic")]
    bootstrap: Option<String>,
    /// Full name of the events topic, to count loss.
    #[arg(long, requires = "bootstrap")]
    topic: Option<String>,
    /// Process id of the server, for its CPU and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// One JSON line instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Raw {
    #[arg(long)]
    bootstrap: String,
    /// An existing topic.
    #[arg(long)]
    topic: String,
    /// Take the records to send from the beginning of this topic; default: JSON events of 1 KB.
    #[arg(long)]
    like: Option<String>,
    /// Seconds.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
}

#[derive(Args)]
struct LeastGateway {
    #[arg(long)]
    bootstrap: String,
    /// An existing topic.
    #[arg(long)]
    topic: String,
    #[arg(long)]
    listen: SocketAddr,
}

#[derive(Args)]
struct Pipeline {
    /// Cluster; default: a local one is started.
    #[arg(long)]
    bootstrap: Option<String>,
    #[command(flatten)]
    load: Load,
    /// Seconds.
    #[arg(long, default_value_t = 20.0)]
    duration: f64,
    /// Also load the events into SQLite tables.
    #[arg(long)]
    warehouse: bool,
}

#[derive(Args)]
pub struct Report {
    /// The file whose tables are rewritten.
    #[arg(long, default_value = "docs/performance.md")]
    file: PathBuf,
    /// Seconds of each run.
    #[arg(long, default_value_t = 8.0)]
    duration: f64,
    /// Print only.
    #[arg(long)]
    dry_run: bool,
    /// Only this part.
    #[arg(long)]
    part: Option<report::Part>,
}

fn main() -> Result<()> {
    // `cargo bench` adds --bench; `cargo test --benches` runs us without arguments.
    let args: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    if args.len() < 2 {
        println!("nothing to do: see `cargo bench --bench load -- --help`");
        return Ok(());
    }
    let cli = Cli::parse_from(args);
    let mut builder = match cli.threads {
        // The least gateway gets what an ordinary server gets.
        _ if matches!(cli.command, Command::LeastGateway(_)) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        1 => tokio::runtime::Builder::new_current_thread(),
        n => {
            let mut many = tokio::runtime::Builder::new_multi_thread();
            many.worker_threads(n);
            many
        }
    };
    builder.enable_all().build()?.block_on(run(cli.command))
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Http(args) => http(args).await,
        Command::Raw(args) => raw(&args),
        Command::LeastGateway(args) => {
            floor::least_gateway(&args.bootstrap, args.topic, args.listen).await
        }
        Command::Broker { topic } => {
            let dir = tempfile::tempdir()?;
            let kafka = report::kafka(None, dir.path())?;
            if let Some(topic) = topic {
                topic::create(kafka.bootstrap(), &topic, 12).await?;
            }
            println!("{}", kafka.bootstrap());
            tokio::signal::ctrl_c().await?;
            Ok(())
        }
        Command::Pipeline(args) => pipeline(args).await,
        Command::Soak(args) => soak::soak(&args).await,
        Command::Report(args) => report::report(&args).await,
    }
}

async fn http(args: Http) -> Result<()> {
    let address = args
        .url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .context("--url must be http://<ip>:<port>")?;
    let plan = Plan {
        address,
        write_key: args.write_key,
        rate: args.load.rate,
        duration: Duration::from_secs_f64(args.duration),
        warm_up: Duration::from_secs_f64(args.warm_up),
        connections: args.load.connections,
        shape: Shape {
            batch: args.batch,
            event_bytes: args.load.event_bytes,
            gzip: args.gzip,
            users: args.users.max(1),
        },
    };
    let log = args
        .bootstrap
        .zip(args.topic)
        .map(|(bootstrap, topic)| Log { bootstrap, topic });
    let title = format!("{}, {} connections", plan.shape.name(), plan.connections);
    let measured = measure(plan, log.as_ref(), args.pid).await?;
    if args.json {
        println!("{}", measured.json());
    } else {
        measured.print(&title);
    }
    Ok(())
}

fn raw(args: &Raw) -> Result<()> {
    let records = match &args.like {
        Some(topic) => report::sample(&args.bootstrap, topic)?,
        None => report::made_up_records(),
    };
    let raw = floor::raw_producer(
        &args.bootstrap,
        &args.topic,
        &records,
        Duration::from_secs_f64(args.duration),
    )?;
    println!(
        "{:.0} records/s of {} bytes, {:.2} µs CPU each",
        raw.per_second,
        raw.mean_bytes,
        raw.cpu_per_record.as_secs_f64() * 1e6
    );
    Ok(())
}

async fn pipeline(args: Pipeline) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = report::kafka(args.bootstrap.as_deref(), dir.path())?;
    let pipeline = pipeline::Pipeline::start(kafka.bootstrap(), kafka.pid(), args.warehouse)?;
    let delivered = pipeline
        .run(
            args.load.rate,
            Duration::from_secs_f64(args.duration),
            args.load.connections,
            args.load.event_bytes,
        )
        .await?;
    delivered.print("whole path, single events");
    Ok(())
}

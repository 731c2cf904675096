//! Whether the gateway's memory stays flat: one load for a long time, with a sample of its resident memory now and then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::drive::Plan;
use crate::event::Shape;
use crate::measure::{Log, measure};
use crate::proc::Usage;
use crate::report;
use crate::servers::{self, Sluice};

/// Samples of a run.
const SAMPLES: u32 = 120;

/// Loads a gateway of its own for `minutes` and prints how its memory went.
pub async fn soak(args: &crate::Soak) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kafka = report::kafka(None, dir.path())?;
    let sluice = Sluice::start(
        kafka.bootstrap(),
        "soak",
        &["gateway"],
        &servers::source_only(),
    );
    let (_, pid) = sluice.pids().pop().context("the gateway runs")?;
    let duration = Duration::from_secs_f64(args.minutes * 60.0);
    let plan = Plan {
        address: sluice.address,
        write_key: servers::WRITE_KEY.to_owned(),
        rate: args.load.rate,
        duration,
        warm_up: Duration::from_secs(5),
        connections: args.load.connections,
        shape: Shape {
            batch: args.batch,
            event_bytes: args.load.event_bytes,
            gzip: false,
            users: 10_000,
        },
    };
    let log = Log {
        bootstrap: kafka.bootstrap().to_owned(),
        topic: sluice.events.clone(),
    };
    let began = Instant::now();
    let sampler = std::thread::spawn(move || sample(pid, began, duration));
    let measured = measure(plan, Some(&log), Some(pid)).await?;
    let samples = sampler.join().ok().context("the sampler ended")?;
    measured.print("soak");
    println!("{}", verdict(&samples));
    Ok(())
}

fn sample(pid: u32, began: Instant, duration: Duration) -> Vec<u64> {
    let mut samples = Vec::new();
    while began.elapsed() < duration {
        std::thread::sleep(duration / SAMPLES);
        let rss = Usage::of(pid).rss;
        samples.push(rss);
        println!(
            "  after {:>5.1} min: {:.1} MiB",
            began.elapsed().as_secs_f64() / 60.0,
            mib(rss)
        );
    }
    samples
}

/// Means of tenths: the first is the start, the second is what the rest is held against.
fn verdict(samples: &[u64]) -> String {
    let tenths: Vec<f64> = samples
        .chunks((samples.len() / 10).max(1))
        .map(|tenth| tenth.iter().map(|rss| mib(*rss)).sum::<f64>() / tenth.len() as f64)
        .collect();
    let listed: Vec<String> = tenths.iter().map(|mean| format!("{mean:.1}")).collect();
    format!(
        "  resident, MiB, mean of each tenth of the run: {}",
        listed.join(" ")
    )
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

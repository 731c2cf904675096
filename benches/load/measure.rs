//! One measured run: load, CPU, memory and loss together.

use std::time::Duration;

use anyhow::Result;

use crate::drive::{Outcome, Plan, drive};
use crate::proc::Usage;
use crate::topic::{Balance, Ends};

/// Where the events of a run are looked for.
#[derive(Debug, Clone)]
pub struct Log {
    /// Cluster.
    pub bootstrap: String,
    /// Topic.
    pub topic: String,
}

/// A run and what it cost.
#[derive(Debug)]
pub struct Measured {
    /// Answers and latencies.
    pub outcome: Outcome,
    /// Answers against the topic; `None` when no topic was named.
    pub balance: Option<Balance>,
    /// CPU time of the server per accepted event; `None` when no process was named.
    pub cpu_per_event: Option<Duration>,
    /// CPU time of the server over the run, by thread name.
    pub threads: Vec<(String, Duration)>,
    /// Resident memory of the server after the run, and its peak so far, in bytes.
    pub rss: Option<(u64, u64)>,
    /// Share of one core that this harness itself used.
    pub own_cores: f64,
}

/// Carries out `plan`.
pub async fn measure(plan: Plan, log: Option<&Log>, pid: Option<u32>) -> Result<Measured> {
    let ends = log.map(|l| Ends::of(&l.bootstrap, &l.topic)).transpose()?;
    let usage = || (pid.map(Usage::of), Usage::of(std::process::id()));
    let before = usage();
    let outcome = drive(plan).await?;
    let after = usage();
    let balance = match (&ends, log) {
        (Some(ends), Some(log)) => Some(ends.balance(&log.bootstrap, &outcome)?),
        _ => None,
    };
    let server = after.0.zip(before.0);
    Ok(Measured {
        cpu_per_event: server
            .as_ref()
            .map(|(a, b)| a.cpu_since(b).div_f64(outcome.events().max(1) as f64)),
        threads: server
            .as_ref()
            .map(|(a, b)| a.threads_since(b))
            .unwrap_or_default(),
        rss: server.map(|(a, _)| (a.rss, a.rss_peak)),
        own_cores: after.1.cpu_since(&before.1).as_secs_f64() / outcome.elapsed.as_secs_f64(),
        balance,
        outcome,
    })
}

impl Measured {
    /// For people.
    pub fn print(&self, title: &str) {
        let o = &self.outcome;
        println!("{title}");
        println!(
            "  {:.0} events/s, {:.0} requests/s; answers {:?}, {} broken",
            o.events_per_second(),
            o.requests_per_second(),
            o.statuses,
            o.broken
        );
        println!(
            "  latency ms: p50 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
            o.ms(50.0),
            o.ms(99.0),
            o.ms(99.9),
            o.latency.max() as f64 / 1000.0
        );
        match &self.balance {
            Some(b) => println!(
                "  {} accepted, {} lost, {} doubled, {} without an answer",
                b.accepted,
                b.lost(),
                b.doubled,
                b.unanswered
            ),
            None => println!("  loss not counted: no --bootstrap and --topic"),
        }
        if let (Some(cpu), Some((rss, peak))) = (self.cpu_per_event, self.rss) {
            println!(
                "  server: {:.1} µs CPU/event, {} MiB resident, {} MiB at most",
                cpu.as_secs_f64() * 1e6,
                rss >> 20,
                peak >> 20
            );
        }
        println!("  this harness: {:.2} cores", self.own_cores);
    }

    /// For scripts: one line.
    pub fn json(&self) -> serde_json::Value {
        let o = &self.outcome;
        serde_json::json!({
            "events_per_second": o.events_per_second(),
            "requests_per_second": o.requests_per_second(),
            "statuses": o.statuses,
            "broken": o.broken,
            "p50_ms": o.ms(50.0), "p99_ms": o.ms(99.0), "p999_ms": o.ms(99.9),
            "max_ms": o.latency.max() as f64 / 1000.0,
            "accepted": o.events(),
            "lost": self.balance.as_ref().map(Balance::lost),
            "doubled": self.balance.as_ref().map(|b| b.doubled),
            "cpu_us_per_event": self.cpu_per_event.map(|c| c.as_secs_f64() * 1e6),
            "rss_bytes": self.rss.map(|(rss, _)| rss),
            "rss_peak_bytes": self.rss.map(|(_, peak)| peak),
            "harness_cores": self.own_cores,
        })
    }
}

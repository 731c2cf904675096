//! The whole path: from a single event's scheduled moment to its arrival at a webhook.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::drive::{Plan, histogram};
use crate::event::Shape;
use crate::measure::{Measured, measure};
use crate::proc::Usage;
use crate::servers::{self, Sluice};
use crate::sink::Sink;

/// How long arrivals may stay away before the run is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const BROKER: &str = "Kafka's broker";
const OURSELVES: &str = "load and webhook";

/// What the webhook saw of a run.
pub struct Delivered {
    /// The gateway's side.
    pub load: Measured,
    /// Distinct events that arrived.
    pub arrived: usize,
    /// Arrivals beyond the first of an event.
    pub repeated: u64,
    /// From an event's scheduled moment to its arrival, in microseconds; open loop only.
    pub end_to_end: Option<Histogram<u64>>,
    /// Events delivered a second, from the first sending to the last arrival.
    pub per_second: f64,
    /// From the last answer to the last arrival.
    pub drain: Duration,
    /// What each role cost.
    pub roles: Vec<RoleCost>,
    /// What the machine did beside them: the broker, the load and the webhook.
    pub bystanders: Vec<RoleCost>,
}

/// What one role's process cost over a run.
#[derive(Debug)]
pub struct RoleCost {
    /// Role.
    pub role: &'static str,
    /// CPU time.
    pub cpu: Duration,
    /// Most memory that was ever resident, in bytes.
    pub rss_peak: u64,
    /// CPU time by thread name.
    pub threads: Vec<(String, Duration)>,
}

/// Gateway, processor and router, a webhook that is ours, and optionally a warehouse.
pub struct Pipeline {
    sluice: Sluice,
    broker: Option<u32>,
    sink: Sink,
    _database: tempfile::TempDir,
}

impl Pipeline {
    /// Starts it, on a broker whose process may be known.
    pub fn start(bootstrap: &str, broker: Option<u32>, warehouse: bool) -> Result<Self> {
        let sink = Sink::start()?;
        let folder = tempfile::tempdir()?;
        let database = folder.path().join("rows.sqlite");
        let workspace = servers::with_webhook(
            &format!("http://{}/", sink.address),
            warehouse.then_some(database.as_path()),
        );
        let mut roles = vec!["router", "processor", "gateway"];
        if warehouse {
            roles.insert(0, "warehouse");
        }
        Ok(Self {
            sluice: Sluice::start(bootstrap, "load-path", &roles, &workspace),
            broker,
            sink,
            _database: folder,
        })
    }

    /// Loads it and waits until all that was accepted has arrived.
    pub async fn run(
        &self,
        rate: Option<f64>,
        duration: Duration,
        connections: usize,
        event_bytes: usize,
    ) -> Result<Delivered> {
        let warm_up = Duration::from_secs(2).min(duration / 4);
        let plan = Plan {
            address: self.sluice.address,
            write_key: servers::WRITE_KEY.to_owned(),
            rate,
            duration,
            warm_up,
            connections,
            shape: Shape {
                batch: 0,
                event_bytes,
                gzip: false,
                users: 10_000,
            },
        };
        let usage = || -> Vec<(&'static str, Usage)> {
            let mut pids = self.sluice.pids();
            pids.extend(self.broker.map(|pid| (BROKER, pid)));
            pids.push((OURSELVES, std::process::id()));
            pids.into_iter()
                .map(|(role, pid)| (role, Usage::of(pid)))
                .collect()
        };
        let before = usage();
        let load = measure(plan, None, None).await?;
        let wanted = usize::try_from(load.outcome.events())?;
        let (mut count, mut moved) = (0, Instant::now());
        while count < wanted && moved.elapsed() < SILENCE_MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = self.sink.count(load.outcome.run);
            if now > count {
                (count, moved) = (now, Instant::now());
            }
        }
        let (bystanders, roles) = usage()
            .into_iter()
            .zip(before)
            .map(|((role, after), (_, before))| RoleCost {
                role,
                cpu: after.cpu_since(&before),
                rss_peak: after.rss_peak,
                threads: after.threads_since(&before),
            })
            .partition(|cost: &RoleCost| [BROKER, OURSELVES].contains(&cost.role));
        let arrivals = self.sink.take(load.outcome.run);
        let started = load.outcome.started;
        let end_to_end = rate.map(|rate| {
            let mut latency = histogram();
            for (number, at) in &arrivals.first {
                let due = started + Duration::from_secs_f64(*number as f64 / rate);
                if due >= started + warm_up {
                    let micros = at.saturating_duration_since(due).as_micros();
                    latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX).max(1));
                }
            }
            latency
        });
        let last = arrivals.last.unwrap_or(started);
        Ok(Delivered {
            arrived: arrivals.first.len(),
            repeated: arrivals.repeated,
            end_to_end,
            per_second: arrivals.first.len() as f64 / (last - started).as_secs_f64().max(0.001),
            drain: last.saturating_duration_since(started + load.outcome.elapsed),
            roles,
            bystanders,
            load,
        })
    }
}
impl Delivered {
    /// For people.
    pub fn print(&self, title: &str) {
        self.load.print(title);
        println!(
            "  webhook: {} of {} arrived, {} again; {:.0} events/s to the last arrival, {:.1} s after the last answer",
            self.arrived,
            self.load.outcome.events(),
            self.repeated,
            self.per_second,
            self.drain.as_secs_f64()
        );
        if let Some(latency) = &self.end_to_end {
            let ms = |p| latency.value_at_percentile(p) as f64 / 1000.0;
            println!(
                "  end to end ms: p50 {:.1}, p99 {:.1}, max {:.1}",
                ms(50.0),
                ms(99.0),
                latency.max() as f64 / 1000.0
            );
        }
        for cost in self.roles.iter().chain(&self.bystanders) {
            println!(
                "  {}: {:.1} µs CPU/event, {} MiB at most",
                cost.role,
                self.micros(cost.cpu),
                cost.rss_peak >> 20
            );
            for (name, cpu) in cost.threads.iter().take(6) {
                println!("    {name:<18} {:.1}", self.micros(*cpu));
            }
        }
    }

    /// Microseconds per event that arrived.
    pub fn micros(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.arrived.max(1) as f64
    }
}

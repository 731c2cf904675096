//! Sends requests, open loop or closed, and keeps what came of them.
//!
//! *Open loop*: arrivals follow a schedule that does not wait for answers, and a request's latency begins at its scheduled
//! moment even when every connection was busy then, so that a stalled server is charged for all that it kept waiting (no
//! coordinated omission). *Closed loop*: every connection sends its next request when it has the answer to the last; that
//! finds the peak, and its latencies say little.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;

use crate::client::Connection;
use crate::event::{Request, Run, Shape};

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Gateway.
    pub address: SocketAddr,
    /// Write key of the source.
    pub write_key: String,
    /// Requests a second, or as many as the connections carry.
    pub rate: Option<f64>,
    /// How long requests are begun.
    pub duration: Duration,
    /// Latencies of this first part are not counted.
    pub warm_up: Duration,
    /// Connections.
    pub connections: usize,
    /// Requests.
    pub shape: Shape,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Ids of the events.
    pub run: Run,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub broken: u64,
    /// First sending to last answer.
    pub elapsed: Duration,
    /// Answers of any status after the warm-up, in microseconds.
    pub latency: Histogram<u64>,
    /// Requests that got 200, and how many events each has.
    pub accepted: Vec<u64>,
    /// Events of a request.
    pub events_per_request: u64,
    /// When the schedule began; request `n` was due `n / rate` later.
    pub started: Instant,
}

impl Outcome {
    /// Events that were accepted.
    pub fn events(&self) -> u64 {
        self.accepted.len() as u64 * self.events_per_request
    }

    /// Accepted events a second.
    pub fn events_per_second(&self) -> f64 {
        self.events() as f64 / self.elapsed.as_secs_f64()
    }

    /// Accepted requests a second.
    pub fn requests_per_second(&self) -> f64 {
        self.accepted.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// A percentile, in milliseconds.
    pub fn ms(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1000.0
    }
}

/// A histogram of microseconds up to two minutes, three digits.
pub fn histogram() -> Histogram<u64> {
    let mut made =
        Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds are valid");
    made.auto(true);
    made
}

struct Shared {
    plan: Plan,
    run: Run,
    started: Instant,
    next: AtomicU64,
    /// One permit per request that is due; unused in a closed loop.
    due: Semaphore,
}

struct Part {
    statuses: BTreeMap<u16, u64>,
    broken: u64,
    latency: Histogram<u64>,
    accepted: Vec<u64>,
    last: Instant,
}

/// Carries out a plan on the current runtime.
pub async fn drive(plan: Plan) -> Result<Outcome> {
    let mut connections = Vec::new();
    for _ in 0..plan.connections {
        let connection = Connection::open(plan.address)
            .await
            .with_context(|| format!("could not connect to {}", plan.address))?;
        connections.push(connection);
    }
    let shared = Arc::new(Shared {
        run: Run::new(),
        started: Instant::now(),
        next: AtomicU64::new(0),
        due: Semaphore::new(0),
        plan,
    });
    let pacer = shared.plan.rate.map(|rate| {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || pace(&shared, rate))
    });
    let workers: Vec<_> = connections
        .into_iter()
        .map(|connection| tokio::spawn(work(Arc::clone(&shared), connection)))
        .collect();
    let mut outcome = Outcome {
        run: shared.run,
        statuses: BTreeMap::new(),
        broken: 0,
        elapsed: Duration::ZERO,
        latency: histogram(),
        accepted: Vec::new(),
        events_per_request: shared.plan.shape.events(),
        started: shared.started,
    };
    for worker in workers {
        let part = worker.await.context("a connection's task panicked")?;
        for (status, count) in part.statuses {
            *outcome.statuses.entry(status).or_default() += count;
        }
        outcome.broken += part.broken;
        outcome
            .latency
            .add(&part.latency)
            .context("histograms have equal bounds")?;
        outcome.accepted.extend(part.accepted);
        outcome.elapsed = outcome.elapsed.max(part.last - shared.started);
    }
    if let Some(pacer) = pacer {
        drop(pacer.join());
    }
    Ok(outcome)
}

/// Releases requests when they are due. A thread of its own because tokio's timer counts in milliseconds.
fn pace(shared: &Shared, rate: f64) {
    let total = (shared.plan.duration.as_secs_f64() * rate) as u64;
    let mut released = 0;
    while released < total {
        let due = ((shared.started.elapsed().as_secs_f64() * rate) as u64 + 1).min(total);
        if due > released {
            shared.due.add_permits((due - released) as usize);
            released = due;
        }
        let next = Duration::from_secs_f64(released as f64 / rate);
        std::thread::sleep(next.saturating_sub(shared.started.elapsed()));
    }
    // Lets every waiting connection see that there is no more.
    shared.due.close();
}

async fn work(shared: Arc<Shared>, mut connection: Connection) -> Part {
    let plan = &shared.plan;
    let mut request = Request::new(&plan.shape, shared.run, plan.address, &plan.write_key);
    let mut part = Part {
        statuses: BTreeMap::new(),
        broken: 0,
        latency: histogram(),
        accepted: Vec::new(),
        last: shared.started,
    };
    let total = plan
        .rate
        .map(|rate| (plan.duration.as_secs_f64() * rate) as u64);
    loop {
        let index = match total {
            Some(total) => {
                // Once it is closed the permits that are left cannot be taken, but the requests that they stood for can.
                if let Ok(permit) = shared.due.acquire().await {
                    permit.forget();
                }
                let index = shared.next.fetch_add(1, Ordering::Relaxed);
                if index >= total {
                    return part;
                }
                index
            }
            None => {
                if shared.started.elapsed() >= plan.duration {
                    return part;
                }
                shared.next.fetch_add(1, Ordering::Relaxed)
            }
        };
        let begun = match plan.rate {
            Some(rate) => shared.started + Duration::from_secs_f64(index as f64 / rate),
            None => Instant::now(),
        };
        let answer = connection.exchange(request.bytes(index)).await;
        let now = Instant::now();
        part.last = now;
        let again = match answer {
            Ok(answer) => {
                *part.statuses.entry(answer.status).or_default() += 1;
                if answer.status == 200 {
                    part.accepted.push(index);
                }
                if begun >= shared.started + plan.warm_up {
                    let micros = u64::try_from((now - begun).as_micros()).unwrap_or(u64::MAX);
                    part.latency.saturating_record(micros.max(1));
                }
                answer.closes()
            }
            Err(_) => {
                part.broken += 1;
                true
            }
        };
        if again {
            match Connection::open(plan.address).await {
                Ok(fresh) => connection = fresh,
                // The server is away; the next try finds out whether it came back, and the loop must not spin meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

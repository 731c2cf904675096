//! Putting the processor together: checks, threads, and their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::ProcessorConfig;
use crate::deps::{Deps, Role};
use crate::event::{Stage, Topic};
use crate::kafka::{Admin, Consumer, ConsumerOptions, TxnProducer};
use crate::retry::Backoff;
use crate::topics::Problem;

use super::error::ProcessorError;
use super::intake::{ChunkLimits, Intake, Partitions};
use super::metrics::ProcessorMetrics;
use super::pipeline;
use super::publish::{Publisher, PublisherParts};
use super::routes::Routes;
use super::seen::{Rebuilder, Rebuilding};
use super::transaction;

/// Names failpoints, client ids, the consumer group and the role.
pub(super) const ROLE: &str = "processor";

/// Starts the processor. It runs when this returns, and is ready when the group has told it its partitions and what was
/// accepted of them has been read back.
///
/// # Errors
/// When a topic it needs is missing or has the wrong shape, or Kafka cannot be reached.
pub async fn start(deps: Deps) -> Result<Role, ProcessorError> {
    let checked = deps.clone();
    let found = tokio::task::spawn_blocking(move || check_topics(&checked)).await;
    found.unwrap_or(Err(ProcessorError::Panicked { thread: "start" }))?;

    let config = &deps.config;
    let settings = &config.processor;
    let name = format!("{}{ROLE}-{}", deps.topics.prefix(), config.instance());
    // Takes half a second: while it is looked up, the consumer joins its group.
    let kafka = transaction::producer_settings(&config.kafka);
    let opening = TxnProducer::open_in_background(&kafka, ROLE, &name);
    let consumer = Consumer::open(
        &config.kafka,
        &ConsumerOptions {
            role: ROLE.to_owned(),
            group: format!("{}{ROLE}", deps.topics.prefix()),
            instance: Some(name.clone()),
        },
    )?;
    let metrics = ProcessorMetrics::register(&deps.metrics);
    let (feeder, collector) = pipeline::start(settings.worker_count())?;
    let (setbacks, setback) = mpsc::channel();
    let parts = PublisherParts {
        settings: settings.clone(),
        record_bytes_max: transaction::record_bytes_max(&config.kafka),
        kafka,
        topics: deps.topics.clone(),
        membership: consumer.membership(),
        collector,
        setbacks,
        clock: Arc::clone(&deps.clock),
        shutdown: deps.shutdown.clone(),
        metrics: Arc::clone(&metrics),
    };
    let intake = Intake {
        consumer,
        topic: deps.topics.name(&Topic::Events).into(),
        partitions: Partitions::new(feeder),
        limits: ChunkLimits {
            records: settings.chunk_records_max,
            bytes: settings.chunk_bytes_max,
        },
        routes: Arc::new(Routes::new(&deps.control.snapshot(), &deps.topics)),
        control: deps.control.clone(),
        topics: deps.topics.clone(),
        setbacks: setback,
        rebuilder: rebuilder(&deps, &metrics)?,
        run: 0,
        backoff: backoff(settings),
        shutdown: deps.shutdown.clone(),
        part: deps.health.part(ROLE),
        ready: false,
        metrics,
    };
    let publishing = spawn("processor-publish", move || {
        match Publisher::open(parts, opening, &name)? {
            Some(publisher) => publisher.run(),
            None => Ok(()),
        }
    })?;
    let reading = spawn("processor-intake", move || intake.run())?;
    let shutdown = deps.shutdown.clone();
    let done = tokio::spawn(async move {
        let both = async { (publishing.await, reading.await) };
        let late = async {
            shutdown.begun().await;
            tokio::time::sleep(shutdown.drain_timeout()).await;
        };
        let (published, read) = tokio::select! {
            both = both => both,
            () = late => {
                let seconds = shutdown.drain_timeout().as_secs();
                return Err(ProcessorError::NotDrained { seconds }.into());
            }
        };
        // The publisher's error is the cause when both have one.
        let ended = |thread| move |_| Err(ProcessorError::Panicked { thread });
        published.unwrap_or_else(ended("publish"))?;
        read.unwrap_or_else(ended("intake"))?;
        Ok(())
    });
    Ok(Role {
        name: ROLE,
        address: None,
        done,
    })
}

/// The waits between tries.
pub(super) fn backoff(settings: &ProcessorConfig) -> Backoff {
    Backoff::new(
        Duration::from_millis(50),
        Duration::from_millis(settings.retry_ms_max),
    )
}

fn rebuilder(
    deps: &Deps,
    metrics: &Arc<ProcessorMetrics>,
) -> Result<Option<Rebuilder>, ProcessorError> {
    let settings = &deps.config.processor;
    if !settings.dedup.enabled {
        return Ok(None);
    }
    Rebuilder::start(Rebuilding {
        kafka: deps.config.kafka.clone(),
        topic: deps.topics.name(&Topic::Seen),
        dedup: settings.dedup.clone(),
        clock: Arc::clone(&deps.clock),
        metrics: Arc::clone(metrics),
        backoff: backoff(settings),
        shutdown: deps.shutdown.clone(),
    })
    .map(Some)
}

/// The topics that exist from the beginning. Those of destinations come and go with the configuration; the publisher looks
/// for each when it first writes to it.
fn check_topics(deps: &Deps) -> Result<(), ProcessorError> {
    let partitions: BTreeMap<String, usize> = Admin::open(&deps.config.kafka)?
        .topics()?
        .into_iter()
        .map(|topic| (topic.name, topic.partitions.len()))
        .collect();
    let own = [
        Topic::Events,
        Topic::Seen,
        Topic::Ledger,
        Topic::Dlq(Stage::Processor),
    ]
    .map(|topic| deps.topics.name(&topic));
    let snapshot = deps.control.snapshot();
    let routes = Routes::new(&snapshot, &deps.topics);
    let of_destinations = routes
        .targets()
        .iter()
        .map(|target| target.topic.to_string());
    let mut problems: Vec<Problem> = own
        .iter()
        .cloned()
        .chain(of_destinations)
        .filter(|name| !partitions.contains_key(name))
        .map(|topic| Problem {
            topic,
            what: "missing".to_owned(),
            fix: "run `sluice topics apply` with this role's settings".to_owned(),
        })
        .collect();
    let [events, seen, ..] = &own;
    if let (Some(of_events), Some(of_seen)) = (partitions.get(events), partitions.get(seen))
        && of_events != of_seen
    {
        problems.push(Problem {
            topic: seen.clone(),
            what: format!(
                "has {of_seen} partitions and {events} has {of_events}, but they must be equal"
            ),
            fix: "let the processors drain, then `sluice topics apply --allow-partition-increase`"
                .to_owned(),
        });
    }
    if problems.is_empty() {
        Ok(())
    } else {
        problems.sort_by(|a, b| a.topic.cmp(&b.topic));
        problems.dedup();
        Err(ProcessorError::UnsafeTopics { problems })
    }
}

/// Runs `run` on a thread; what it returns is sent. A panic drops the sender, which the receiver sees.
fn spawn(
    name: &'static str,
    run: impl FnOnce() -> Result<(), ProcessorError> + Send + 'static,
) -> Result<oneshot::Receiver<Result<(), ProcessorError>>, ProcessorError> {
    let (ended, wait) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || drop(ended.send(run())))
        .map_err(ProcessorError::Thread)?;
    Ok(wait)
}

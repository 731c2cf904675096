//! Putting the processor together: checks, threads, and their end.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::config::ProcessorConfig;
use crate::deps::{Deps, Role};
use crate::event::Topic;
use crate::kafka::{Consumer, ConsumerOptions, TxnProducer};
use crate::retry::Backoff;

use super::error::ProcessorError;
use super::intake::{ChunkLimits, Intake};
use super::metrics::ProcessorMetrics;
use super::output;
use super::partitions::Partitions;
use super::pipeline;
use super::publish::{Publisher, PublisherParts};
use super::routes::Routes;
use super::seen::{Rebuilder, Rebuilding};

/// Names failpoints, client ids, the consumer group and the role.
pub(super) const ROLE: &str = "processor";

/// Starts the processor. It runs when this returns, and is ready when the group has told it its partitions and what was
/// accepted of them has been read back, and as long as Kafka is there. That the topics are there and of the right shape is
/// the caller's business.
///
/// # Errors
/// When the settings cannot be used or the system gives no thread.
pub async fn start(deps: Deps) -> Result<Role, ProcessorError> {
    let config = &deps.config;
    let settings = &config.processor;
    let name = format!("{}{ROLE}-{}", deps.topics.prefix(), config.instance());
    // Takes half a second: while it is looked up, the consumer joins its group.
    let kafka = output::producer_settings(&config.kafka);
    let opening = TxnProducer::open_in_background(&kafka, ROLE, &name);
    let consumer = Consumer::open(
        &config.kafka,
        &ConsumerOptions {
            role: ROLE.to_owned(),
            group: format!("{}{ROLE}", deps.topics.prefix()),
            instance: Some(name.clone()),
        },
    )?;
    let reach = consumer.reach();
    deps.health
        .ask(format!("{ROLE}.kafka"), move || reach.is_up());
    let metrics = ProcessorMetrics::register(&deps.metrics);
    let (feeder, collector) = pipeline::start(settings.worker_count(), &deps.schemas)?;
    let (setbacks, setback) = mpsc::channel();
    let parts = PublisherParts {
        settings: settings.clone(),
        record_bytes_max: output::record_bytes_max(&config.kafka),
        kafka,
        topics: deps.topics.clone(),
        schemas: deps.schemas.clone(),
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
        held_back: None,
        run: 0,
        backoff: backoff(settings),
        shutdown: deps.shutdown.clone(),
        part: deps.health.part(ROLE),
        ready: false,
        metrics,
    };
    let registered = deps.health.part("processor.transactions");
    let publishing = spawn("processor-publish", move || {
        match Publisher::open(parts, opening, &name)? {
            Some(publisher) => {
                registered.set(true);
                publisher.run()
            }
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

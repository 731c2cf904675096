//! Putting the role together.

use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};

use super::loading::Loading;
use super::locate::Locator;
use super::metrics::WarehouseMetrics;
use super::records::Records;
use super::rows::MapLimits;
use super::store::{self, StoreError};
use super::upload::Uploader;
use super::writer::{Owned, State, Writer};
use crate::control::Route;
use crate::deps::{Deps, Role};
use crate::event::{Stage, Topic};
use crate::fault::{Classify, Fault};
use crate::kafka::{AckProducer, Admin, Consumer, ConsumerOptions, KafkaError};

/// Names failpoints, client ids, the consumer group and the role.
const ROLE: &str = "warehouse";

/// Why the role could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// No object store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Kafka refused.
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// A thread could not be made.
    #[error("no thread for {0}")]
    Thread(std::io::Error),
    /// A part panicked.
    #[error("the {0} panicked")]
    Panicked(&'static str),
}

impl Classify for WarehouseError {
    fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::Kafka(error) => error.fault(),
            Self::Thread(_) | Self::Panicked(_) => Fault::Fatal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Kafka(_) => "kafka",
            Self::Thread(_) => "thread",
            Self::Panicked(_) => "panicked",
        }
    }
}

/// Starts the role: a thread that writes rows down, and a task per destination that loads them.
///
/// # Errors
/// The object store is not configured though there are warehouse destinations, or Kafka refuses the settings.
pub async fn start(deps: Deps) -> Result<Role, WarehouseError> {
    let config = &deps.config;
    let settings = &config.warehouse;
    let workspace = deps.control.snapshot();
    let is_idle = !workspace
        .destinations()
        .any(|destination| destination.route() == Route::Warehouse);
    let store = match store::open(&settings.object_store) {
        Ok(opened) => Some(opened),
        // A warehouse that is configured later finds its partitions stuck, with this error.
        Err(StoreError::Missing) if is_idle => None,
        Err(error) => return Err(error.into()),
    };
    let name = format!("{}{ROLE}-{}", deps.topics.prefix(), config.instance());
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
    let producer = AckProducer::open(&config.kafka, ROLE)?;
    let metrics = WarehouseMetrics::register(&deps.metrics);
    let (owned, owner) = watch::channel(Owned::new());
    let limits = MapLimits {
        columns_max: settings.event_columns_max,
        names_max: settings.names_max,
        adds_source_to_context: settings.source_info_in_context,
    };
    let writer = Writer {
        consumer,
        records: Records::new(
            workspace,
            limits,
            &deps.topics.name(&Topic::Dlq(Stage::Warehouse)),
            &name,
            Arc::clone(&deps.clock),
            Arc::clone(&metrics),
        ),
        schemas: deps.schemas.clone(),
        locator: Locator {
            admin: Arc::new(Mutex::new(Admin::open(&config.kafka)?)),
            store,
            shutdown: deps.shutdown.clone(),
        },
        uploader: Uploader {
            slots: Arc::new(Semaphore::new(settings.uploads_max)),
            producer: producer.clone(),
            clock: Arc::clone(&deps.clock),
            shutdown: deps.shutdown.clone(),
            metrics: Arc::clone(&metrics),
        },
        runtime: Handle::current(),
        config: settings.clone(),
        control: deps.control.clone(),
        topics: deps.topics.clone(),
        shutdown: deps.shutdown.clone(),
        part: deps.health.part(ROLE),
        owned,
        metrics: Arc::clone(&metrics),
        state: State::new(),
    };
    let loading = Loading {
        config: settings.load.clone(),
        control: deps.control.clone(),
        clock: Arc::clone(&deps.clock),
        producer,
        topics: deps.topics.clone(),
        schemas: deps.schemas.clone(),
        instance: name,
        shutdown: deps.shutdown.clone(),
        metrics,
    };
    let (ended, end) = oneshot::channel();
    thread::Builder::new()
        .name("warehouse-write".to_owned())
        .spawn(move || drop(ended.send(writer.run())))
        .map_err(WarehouseError::Thread)?;
    let loading = tokio::spawn(loading.run(owner));
    let done = tokio::spawn(async move {
        let written = end.await;
        let loaded = loading.await;
        written
            .map_err(|_| WarehouseError::Panicked("writing thread"))?
            .map_err(WarehouseError::Kafka)?;
        loaded.map_err(|_| WarehouseError::Panicked("loading task"))?;
        Ok(())
    });
    Ok(Role {
        name: ROLE,
        address: None,
        done,
    })
}

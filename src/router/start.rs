//! Lanes come and go with the workspace.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::deps::{Deps, Role};
use crate::destinations::{HttpClient, HttpOptions};
use crate::event::{Stage, Topic};
use crate::kafka::{Consumer, ConsumerOptions, Reach};
use crate::telemetry::health::Part;

use super::commit::{Committer, CommitterParts};
use super::deliver::{Courier, Pulse};
use super::desk::{Desk, DeskParts};
use super::error::RouterError;
use super::lane::{Lane, LaneParts};
use super::metrics::{LaneMetrics, RouterMetrics};
use super::target::{Maker, RouterConfigs};

/// Names failpoints, client ids, groups and the role.
const ROLE: &str = "router";

/// Starts the router: a thread for each lane of the workspace, now and later. It is ready when the lanes that are there now
/// have joined their groups, and as long as Kafka is there for each.
///
/// # Errors
/// When the HTTP client cannot be made.
pub async fn start(deps: Deps) -> Result<Role, RouterError> {
    let config = &deps.config.router;
    let ms = Duration::from_millis;
    let http = HttpClient::new(&HttpOptions {
        connect_timeout: ms(config.http.connect_timeout_ms),
        idle_timeout: ms(config.http.idle_timeout_ms),
        idle_per_host: config.concurrency_max(),
        block_private_ips: config.http.block_private_ips,
    })?;
    let (events, heard) = unbounded_channel();
    let reaches = Reaches::default();
    let asked = reaches.clone();
    deps.health.ask(format!("{ROLE}.kafka"), move || {
        asked.lock().values().all(Reach::is_up)
    });
    let lanes = Lanes {
        maker: Maker {
            config: Arc::new(RouterConfigs(config.clone())),
            http,
            metrics: RouterMetrics::register(&deps.metrics),
        },
        part: deps.health.part(ROLE),
        awaited: deps.control.snapshot().lanes().into_iter().collect(),
        running: HashMap::new(),
        stop: Arc::new(AtomicBool::new(false)),
        reaches,
        events,
        deps,
    };
    let done = tokio::spawn(async move { Ok(lanes.run(heard).await?) });
    Ok(Role {
        name: ROLE,
        address: None,
        done,
    })
}

/// What a lane's thread tells.
enum Event {
    Ready(String),
    Ended(String, Result<(), RouterError>),
}

/// Whether Kafka is there for the consumer of each lane.
type Reaches = Arc<Mutex<HashMap<String, Reach>>>;

struct Lanes {
    deps: Deps,
    maker: Maker,
    part: Part,
    /// Lanes that were there at the start and are not served yet.
    awaited: BTreeSet<String>,
    /// Each with its switch for "not wanted any more".
    running: HashMap<String, Arc<AtomicBool>>,
    stop: Arc<AtomicBool>,
    reaches: Reaches,
    events: UnboundedSender<Event>,
}

impl Lanes {
    async fn run(mut self, mut heard: UnboundedReceiver<Event>) -> Result<(), RouterError> {
        let mut changes = self.deps.control.subscribe();
        let mut outcome = Ok(());
        loop {
            let is_stopping = self.deps.shutdown.is_begun() || self.stop.load(Ordering::Relaxed);
            if is_stopping && self.running.is_empty() {
                return outcome;
            }
            if !is_stopping && let Err(error) = self.follow() {
                self.fail(&mut outcome, error);
                continue;
            }
            let shutdown = self.deps.shutdown.clone();
            tokio::select! {
                event = heard.recv() => match event {
                    Some(Event::Ready(lane)) => {
                        self.awaited.remove(&lane);
                    }
                    Some(Event::Ended(lane, result)) => {
                        self.running.remove(&lane);
                        self.reaches.lock().remove(&lane);
                        if let Err(error) = result {
                            self.fail(&mut outcome, error);
                        }
                    }
                    // We hold a sender.
                    None => return outcome,
                },
                // Without a publisher nothing changes any more; the other branches go on.
                Ok(()) = changes.changed(), if !is_stopping => {}
                () = shutdown.begun(), if !is_stopping => {}
            }
        }
    }

    /// The first error counts; the other lanes end in order.
    fn fail(&self, outcome: &mut Result<(), RouterError>, error: RouterError) {
        tracing::error!("{error}");
        self.part.set(false);
        self.stop.store(true, Ordering::Relaxed);
        if outcome.is_ok() {
            *outcome = Err(error);
        }
    }

    /// Starts the lanes that are wanted and not running; tells those that are not wanted.
    fn follow(&mut self) -> Result<(), RouterError> {
        let wanted: BTreeSet<String> = self.deps.control.snapshot().lanes().into_iter().collect();
        for (lane, is_leaving) in &self.running {
            is_leaving.store(!wanted.contains(lane), Ordering::Relaxed);
        }
        self.awaited.retain(|lane| wanted.contains(lane));
        for lane in wanted {
            if !self.running.contains_key(&lane) {
                let is_leaving = self.start_lane(&lane)?;
                self.running.insert(lane, is_leaving);
            }
        }
        self.part.set(self.awaited.is_empty());
        Ok(())
    }

    fn start_lane(&self, name: &str) -> Result<Arc<AtomicBool>, RouterError> {
        let is_leaving = Arc::new(AtomicBool::new(false));
        let opening = Opening {
            name: name.to_owned(),
            deps: self.deps.clone(),
            maker: self.maker.clone(),
            stop: Arc::clone(&self.stop),
            is_leaving: Arc::clone(&is_leaving),
            reaches: Arc::clone(&self.reaches),
            runtime: tokio::runtime::Handle::current(),
            events: self.events.clone(),
        };
        std::thread::Builder::new()
            .name(format!("router-{name}"))
            .spawn(move || {
                let (name, events) = (opening.name.clone(), opening.events.clone());
                let run = AssertUnwindSafe(|| opening.open()?.run());
                let result = catch_unwind(run)
                    .unwrap_or_else(|_| Err(RouterError::Panicked { lane: name.clone() }));
                // Without a listener the role has ended.
                drop(events.send(Event::Ended(name, result)));
            })
            .map_err(RouterError::Thread)?;
        Ok(is_leaving)
    }
}

/// What a lane is opened with, on its own thread.
struct Opening {
    name: String,
    deps: Deps,
    maker: Maker,
    stop: Arc<AtomicBool>,
    is_leaving: Arc<AtomicBool>,
    reaches: Reaches,
    runtime: tokio::runtime::Handle,
    events: UnboundedSender<Event>,
}

impl Opening {
    fn open(self) -> Result<Lane, RouterError> {
        let deps = self.deps;
        let (config, kafka) = (&deps.config.router, &deps.config.kafka);
        let lane: Arc<str> = self.name.as_str().into();
        let broken = |source| RouterError::Kafka {
            lane: self.name.clone(),
            source,
        };
        let prefix = deps.topics.prefix();
        let member = format!("{prefix}{ROLE}-{}", deps.config.instance());
        let consumer = Consumer::open(
            kafka,
            &ConsumerOptions {
                role: ROLE.to_owned(),
                group: format!("{prefix}{ROLE}.{lane}"),
                instance: Some(member.clone()),
            },
        )
        .map_err(broken)?;
        self.reaches
            .lock()
            .insert(self.name.clone(), consumer.reach());
        let topic = deps.topics.name(&Topic::Deliver(self.name.clone()));
        consumer.subscribe(&[&topic]).map_err(broken)?;
        let instance = format!("{member}.{lane}");
        let committer = Committer::start(CommitterParts {
            kafka: kafka.clone(),
            transactional_id: instance.clone(),
            ledger_topic: deps.topics.name(&Topic::Ledger).into(),
            membership: consumer.membership(),
        })
        .map_err(RouterError::Thread)?;
        let metrics = LaneMetrics::new(&self.maker.metrics, &lane);
        let pulse = Arc::new(Pulse::new(
            Duration::from_millis(kafka.consumer.session_timeout_ms) / 2,
        ));
        let (sender, landed) = mpsc::channel();
        let desk = Desk::new(DeskParts {
            lane,
            courier: Courier {
                runtime: self.runtime,
                landed: sender,
                pulse: Arc::clone(&pulse),
                events_topic: deps.topics.name(&Topic::Events).into(),
                clock: Arc::clone(&deps.clock),
            },
            maker: self.maker,
            workspace: deps.control.snapshot(),
            dead_letters: deps.topics.name(&Topic::Dlq(Stage::Router)).into(),
            instance: instance.clone(),
            metrics: metrics.clone(),
            schemas: deps.schemas.clone(),
            clock: Arc::clone(&deps.clock),
        });
        let (events, name) = (self.events, self.name);
        let parts = LaneParts {
            config: config.clone(),
            kafka: kafka.clone(),
            control: deps.control,
            shutdown: deps.shutdown,
            stop: self.stop,
            is_leaving: self.is_leaving,
            consumer,
            committer,
            landed,
            pulse,
            desk,
            metrics,
            ready: Box::new(move || drop(events.send(Event::Ready(name)))),
        };
        Ok(Lane::new(parts, instance, deps.clock))
    }
}

//! Loading, destination by destination: each has a task of its own, on the process that owns partition 0 of its topic.
//!
//! Another process may load the same destination for a moment when that partition moves. The ledger in the warehouse keeps
//! them apart; ownership only saves work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::load::{Load, Progress};
use super::loaders::{LoadError, Loader, kind_of};
use super::manifest::{Chain, Manifest};
use super::metrics::WarehouseMetrics;
use super::schedule::Schedule;
use super::writer::Owned;
use crate::clock::{Clock, UnixMs};
use crate::config::LoadConfig;
use crate::control::{Control, Destination};
use crate::event::{
    DeadLetterReason, Ending, LedgerEntry, OutcomeCount, SchemaName, Stage, Topic, TopicNames,
    codec,
};
use crate::fault::Classify;
use crate::kafka::{AckProducer, Batch as Latch, RecordRef, deadline};
use crate::registry::Schemas;
use crate::retry::Backoff;
use crate::shutdown::Shutdown;

/// How often the schedule is looked at, and new manifests are looked for.
const TICK: Duration = Duration::from_secs(10);
const LEDGER_TIMEOUT: Duration = Duration::from_secs(30);

/// What every destination's task is given.
#[derive(Clone)]
pub(super) struct Loading {
    pub(super) config: LoadConfig,
    pub(super) control: Control,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) producer: AckProducer,
    pub(super) topics: TopicNames,
    pub(super) schemas: Schemas,
    pub(super) instance: String,
    pub(super) shutdown: Shutdown,
    pub(super) metrics: Arc<WarehouseMetrics>,
}

/// A destination's task, and what it was started with.
struct Running {
    destination: Arc<Destination>,
    chain: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Loading {
    /// Keeps one task per destination that is ours, until shutdown; then lets loads that have begun end.
    pub(super) async fn run(self, mut owned: watch::Receiver<Owned>) {
        let mut running: HashMap<Arc<str>, Running> = HashMap::new();
        let mut changed = self.control.subscribe();
        loop {
            self.adjust(&mut running, &owned.borrow_and_update().clone());
            tokio::select! {
                () = self.shutdown.begun() => break,
                result = owned.changed() => if result.is_err() { break },
                result = changed.changed() => if result.is_err() { break },
            }
        }
        let until = Instant::now() + self.shutdown.drain_timeout();
        for (_, one) in running {
            one.stop.cancel();
            let left = until.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, one.task).await.is_err() {
                tracing::warn!(destination.id = %one.destination.id, "load not ended in time; it is rolled back");
            }
        }
    }

    fn adjust(&self, running: &mut HashMap<Arc<str>, Running>, owned: &Owned) {
        let workspace = self.control.snapshot();
        running.retain(|id, one| {
            let is_same = owned.get(id).is_some_and(|chain| chain.name() == one.chain)
                && workspace
                    .destination(id)
                    .is_some_and(|now| *now == one.destination);
            if !is_same {
                one.stop.cancel();
            }
            is_same
        });
        for (id, chain) in owned {
            let Some(destination) = workspace.destination(id) else {
                continue;
            };
            if running.contains_key(id) {
                continue;
            }
            let stop = CancellationToken::new();
            let task = Task {
                shared: self.clone(),
                destination: Arc::clone(destination),
                chain: chain.clone(),
                stop: stop.clone(),
            };
            let one = Running {
                destination: Arc::clone(destination),
                chain: chain.name().to_owned(),
                stop,
                task: tokio::spawn(task.run()),
            };
            running.insert(Arc::clone(id), one);
        }
    }
}

/// One destination's task.
struct Task {
    shared: Loading,
    destination: Arc<Destination>,
    chain: Chain,
    stop: CancellationToken,
}

impl Task {
    async fn run(self) {
        let config = &self.shared.config;
        let schedule = match config.interval_ms {
            Some(ms) => Schedule::every(ms),
            None => Schedule::from_config(&self.destination.config),
        };
        let tick = config
            .interval_ms
            .map_or(TICK, Duration::from_millis)
            .min(TICK);
        let backoff = Backoff::new(
            Duration::from_millis(config.backoff_base_ms),
            Duration::from_millis(config.backoff_cap_ms),
        );
        let mut loader: Option<Box<dyn Loader>> = None;
        let (mut last, mut failures) = (None, 0);
        loop {
            let now = self.shared.clock.now_ms();
            let mut wait = tick;
            if schedule.is_due(now, last) {
                last = Some(now);
                match self.load(&mut loader, now).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        failures += 1;
                        wait = backoff.delay(failures).max(tick);
                        self.failed(&error);
                        tracing::warn!(%error, code = error.code(), destination.id = %self.destination.id, ?wait, "load failed; trying again");
                        // Whatever the schedule says: it was this load's turn.
                        last = None;
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Loads all that is waiting. A table that fails makes the load fail, after everything else was loaded.
    async fn load(
        &self,
        loader: &mut Option<Box<dyn Loader>>,
        now: UnixMs,
    ) -> Result<(), LoadError> {
        let began = Instant::now();
        let loader = match loader {
            Some(loader) => loader,
            none => none.insert(self.open()?),
        };
        let config = &self.destination.config;
        let prefers_append = config.get("preferAppend") == Some(&Value::Bool(true));
        loop {
            let mut load = Load {
                chain: &self.chain,
                loader: &mut **loader,
                limits: &self.shared.config,
                prefers_append,
                now,
            };
            let progress = load.step().await?;
            self.count(&progress, began);
            self.enter_into_ledger(&progress.finished).await;
            let has_more = progress.has_more;
            if let Some((table, error)) = self.first_failure(progress) {
                tracing::error!(%table, %error, code = error.code(), destination.id = %self.destination.id, "table not loaded");
                return Err(error);
            }
            if !has_more || self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn open(&self) -> Result<Box<dyn Loader>, LoadError> {
        let kind = kind_of(&self.destination.kind)
            .ok_or_else(|| LoadError::Config(format!("no loader for {}", self.destination.kind)))?;
        (kind.open)(&self.destination.config)
    }

    fn first_failure(&self, progress: Progress) -> Option<(String, LoadError)> {
        for (_, error) in &progress.failed {
            self.failed(error);
        }
        let (table, error) = progress.failed.into_iter().next()?;
        Some((table.to_string(), error))
    }

    fn failed(&self, error: &LoadError) {
        let labels = [self.destination.id.as_str(), error.code()];
        let failures = &self.shared.metrics.load_failures_total;
        failures.with_label_values(&labels).inc();
    }

    fn count(&self, progress: &Progress, began: Instant) {
        let metrics = &self.shared.metrics;
        let id = [self.destination.id.as_str()];
        let manifests = progress.finished.len() as u64;
        metrics
            .manifests_loaded_total
            .with_label_values(&id)
            .inc_by(manifests);
        metrics
            .rows_loaded_total
            .with_label_values(&id)
            .inc_by(progress.rows);
        metrics
            .discards_total
            .with_label_values(&id)
            .inc_by(progress.discards);
        let waiting = i64::try_from(progress.waiting).unwrap_or(i64::MAX);
        metrics
            .manifests_waiting
            .with_label_values(&id)
            .set(waiting);
        if progress.rows > 0 {
            let seconds = began.elapsed().as_secs_f64();
            metrics.load_seconds.with_label_values(&id).observe(seconds);
            tracing::info!(
                destination.id = %self.destination.id, rows = progress.rows, manifests, discards = progress.discards,
                "loaded {} rows of {manifests} manifests", progress.rows
            );
        }
    }

    /// Tells `ledger` of manifests that are in the tables. The warehouse's own ledger is what loading goes by; this one is
    /// for the audit, and an entry that could not be written is missing there until somebody looks into the warehouse.
    async fn enter_into_ledger(&self, finished: &[Manifest]) {
        if finished.is_empty() {
            return;
        }
        let shared = &self.shared;
        let topic = shared.topics.name(&Topic::Ledger);
        let latch = Latch::new();
        for manifest in finished {
            if let Err(error) = self.send_entry(&topic, manifest, &latch) {
                tracing::warn!(%error, manifest = manifest.id(), "ledger entry not sent");
            }
        }
        if let Err(error) = latch.wait(deadline(LEDGER_TIMEOUT)).await {
            tracing::warn!(%error, "ledger entries not written");
        }
    }

    fn send_entry(
        &self,
        topic: &str,
        manifest: &Manifest,
        latch: &Latch,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let source = Topic::Warehouse(self.destination.id.clone());
        let source = self.shared.topics.name(&source);
        let entry = LedgerEntry {
            stage: Stage::Warehouse.name().into(),
            topic: source.as_str().into(),
            partition: manifest.partition,
            from_offset: manifest.start,
            to_offset: manifest.end,
            records: count(manifest.events),
            at: self.shared.clock.now_ms(),
            config_revision: manifest.config_revision,
            instance: self.shared.instance.as_str().into(),
            outcomes: outcomes(manifest),
        };
        let mut payload = Vec::new();
        let framing = self.shared.schemas.framing(SchemaName::LedgerEntry);
        codec::encode_ledger(&entry, framing, &mut payload)?;
        let key = entry.key();
        self.shared
            .producer
            .send(latch, RecordRef::new(topic, key.as_bytes(), &payload))?;
        Ok(())
    }
}

fn outcomes(manifest: &Manifest) -> Vec<OutcomeCount> {
    let rejected: u64 = manifest.rejected.values().sum();
    let loaded = manifest.events.saturating_sub(rejected);
    let mut outcomes = Vec::new();
    if loaded > 0 {
        outcomes.push(OutcomeCount::of(
            manifest.destination.clone(),
            Ending::Loaded,
            count(loaded),
        ));
    }
    for (reason, &events) in &manifest.rejected {
        let ending = Ending::DeadLettered(DeadLetterReason::Unmappable);
        outcomes.push(OutcomeCount {
            reason: reason.clone().into(),
            ..OutcomeCount::of(manifest.destination.clone(), ending, count(events))
        });
    }
    outcomes
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

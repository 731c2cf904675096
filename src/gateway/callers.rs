//! Sources by write key, with everything about a source that a request needs, found once per configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use crate::config::RateLimitConfig;
use crate::control::{Control, Source, Workspace};
use crate::event::Envelope;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::IntCounter;

use super::gcra::{Allowance, Rate, Spent};
use super::metrics::GatewayMetrics;
use super::refusal::Refusal;

/// A source, ready to be called.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) source: Arc<Source>,
    pub(super) write_key_hash: i64,
    pub(super) accepted: IntCounter,
    pub(super) suppressed: IntCounter,
    pub(super) bytes: IntCounter,
    rate: Option<Rate>,
    /// Outlives the configuration: a change of it must not fill up everybody's allowance.
    allowance: Arc<Allowance>,
}

impl Caller {
    /// Takes `events` from what the source may send; `now` is the time since the gateway started. `None` when it may send
    /// anything.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    pub(super) fn within_limit(
        &self,
        events: u64,
        now: Duration,
    ) -> Result<Option<Spent>, Refusal> {
        let taken = self.rate.map(|rate| self.allowance.take(events, rate, now));
        taken.transpose().map_err(Refusal::rate_limited)
    }

    /// Gives back what was taken for events that were then not accepted: their client sends them again.
    pub(super) fn give_back(&self, spent: Option<Spent>, now: Duration) {
        if let Some(spent) = spent {
            self.allowance.give_back(spent, now);
        }
    }
}

/// All sources of one configuration.
#[derive(Debug)]
pub(super) struct Callers {
    /// The configuration they come from.
    pub(super) workspace: Arc<Workspace>,
    by_write_key: HashMap<String, Arc<Caller>>,
    by_id: HashMap<String, Arc<Caller>>,
}

impl Callers {
    fn of(
        workspace: Arc<Workspace>,
        before: Option<&Callers>,
        limits: &RateLimitConfig,
        metrics: &GatewayMetrics,
    ) -> Self {
        let by_id: HashMap<String, Arc<Caller>> = workspace
            .sources()
            .map(|source| {
                let labels = [source.id.as_str()];
                let events = limits.events_of(&source.id);
                let known = before.and_then(|before| before.by_id.get(&source.id));
                let caller = Caller {
                    write_key_hash: Envelope::hash_write_key(&source.write_key),
                    accepted: metrics.events_accepted_total.with_label_values(&labels),
                    suppressed: metrics.events_suppressed_total.with_label_values(&labels),
                    bytes: metrics.event_bytes_total.with_label_values(&labels),
                    rate: (events > 0).then(|| Rate {
                        events,
                        window: Duration::from_millis(limits.window_ms),
                    }),
                    allowance: known.map_or_else(Arc::default, |c| Arc::clone(&c.allowance)),
                    source: Arc::clone(source),
                };
                (source.id.clone(), Arc::new(caller))
            })
            .collect();
        Self {
            workspace,
            by_write_key: by_id
                .values()
                .map(|caller| (caller.source.write_key.clone(), Arc::clone(caller)))
                .collect(),
            by_id,
        }
    }

    pub(super) fn by_write_key(&self, write_key: &str) -> Option<&Arc<Caller>> {
        self.by_write_key.get(write_key)
    }

    pub(super) fn by_id(&self, source_id: &str) -> Option<&Arc<Caller>> {
        self.by_id.get(source_id)
    }
}

/// The callers of the current configuration. Reading takes no lock.
#[derive(Debug)]
pub(super) struct Directory {
    current: ArcSwap<Callers>,
}

impl Directory {
    /// The callers of `control`'s configuration, followed until shutdown begins.
    pub(super) fn follow(
        control: &Control,
        limits: &RateLimitConfig,
        metrics: &Arc<GatewayMetrics>,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        // Subscribed before the first look, so that no change falls between the two.
        let mut changes = control.subscribe();
        let directory = Arc::new(Self {
            current: ArcSwap::from_pointee(Callers::of(control.snapshot(), None, limits, metrics)),
        });
        let (control, limits, metrics) = (control.clone(), limits.clone(), Arc::clone(metrics));
        let (following, stopping) = (Arc::clone(&directory), shutdown.clone());
        drop(shutdown.spawn("gateway-sources", async move {
            loop {
                tokio::select! {
                    () = stopping.begun() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                let before = following.now();
                let callers = Callers::of(control.snapshot(), Some(&before), &limits, &metrics);
                following.current.store(Arc::new(callers));
            }
        }));
        directory
    }

    /// The callers as they are now.
    pub(super) fn now(&self) -> Guard<Arc<Callers>> {
        self.current.load()
    }
}

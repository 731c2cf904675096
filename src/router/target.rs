//! A destination of a lane, as the router sees it: how to deliver, with how much patience, and whether at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::{BreakerConfig, DeliveryConfig, RouterConfig};
use crate::control::Workspace;
use crate::control::workspace::Destination as Configured;
use crate::destinations::{self, Destination, HttpClient};
use crate::retry::Backoff;

use super::breaker::{Breaker, Change, Rules};
use super::metrics::{RouterMetrics, TargetMetrics};
use super::verdict::Patience;

/// How deliveries to a destination are to be handled now.
#[derive(Debug, Clone)]
pub(super) enum Service {
    /// Send.
    Ready(Arc<dyn Destination>),
    /// The settings cannot be used, or the type is not one we know: nothing is sent and nothing is given up until the
    /// workspace changes, as with a destination that is down.
    Unusable(String),
    /// Not in the workspace, or disabled: what is addressed to it is filtered.
    Gone,
    /// Stands for records that name no destination because they cannot be read.
    Unreadable,
}

/// A destination of a lane.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: Arc<str>,
    pub(super) service: Service,
    pub(super) breaker: Breaker,
    pub(super) patience: Patience,
    pub(super) concurrency: usize,
    pub(super) timeout: Duration,
    pub(super) metrics: TargetMetrics,
    /// What `service` was made from.
    settings: Option<(String, Value)>,
}

/// What a target is made with.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    pub(super) config: Arc<RouterConfigs>,
    pub(super) http: HttpClient,
    pub(super) metrics: Arc<RouterMetrics>,
}

/// The part of the settings that targets need.
#[derive(Debug)]
pub(super) struct RouterConfigs(pub(super) RouterConfig);

impl Target {
    /// The target for records that cannot be read.
    pub(super) fn unreadable(maker: &Maker) -> Self {
        Self {
            service: Service::Unreadable,
            ..Self::new("".into(), maker)
        }
    }

    /// A target for the destination `id`, as the workspace has it.
    pub(super) fn of(id: Arc<str>, workspace: &Workspace, maker: &Maker) -> Self {
        let mut target = Self::new(id, maker);
        target.refresh(workspace, maker);
        target
    }

    fn new(id: Arc<str>, maker: &Maker) -> Self {
        let delivery = &maker.config.0.delivery;
        Self {
            metrics: TargetMetrics::new(&maker.metrics, &id),
            id,
            service: Service::Gone,
            breaker: Breaker::new(rules(&maker.config.0.breaker)),
            patience: patience(delivery),
            concurrency: delivery.concurrency,
            timeout: delivery.timeout(),
            settings: None,
        }
    }

    /// Takes over what the workspace says now; true if that changed anything. The breaker starts anew then: what settings
    /// are changed for is often what opened it.
    pub(super) fn refresh(&mut self, workspace: &Workspace, maker: &Maker) -> bool {
        let configured = workspace.destination(&self.id).filter(|d| d.enabled);
        let Some(configured) = configured else {
            self.service = Service::Gone;
            self.metrics.breaker_state.set(0);
            return self.settings.take().is_some();
        };
        let settings = (configured.kind.clone(), configured.config.clone());
        if self.settings.as_ref() == Some(&settings) {
            return false;
        }
        let delivery = maker.config.0.delivery_for(&configured.kind, &self.id);
        self.patience = patience(&delivery);
        self.concurrency = delivery.concurrency;
        self.timeout = delivery.timeout();
        self.breaker = self.breaker.renewed(rules(&maker.config.0.breaker));
        self.service = service(configured, maker);
        self.settings = Some(settings);
        let state = match &self.service {
            Service::Ready(_) | Service::Gone | Service::Unreadable => 0,
            Service::Unusable(problem) => {
                tracing::error!(
                    destination.id = %self.id,
                    "destination {} gets nothing until its settings are mended: {problem}",
                    self.id
                );
                3
            }
        };
        self.metrics.breaker_state.set(state);
        true
    }

    /// Tells people of a change of the breaker.
    pub(super) fn announce(&self, change: Change, now: Instant) {
        match change {
            Change::Opened(cause) => {
                tracing::warn!(
                    destination.id = %self.id,
                    cause = cause.name(),
                    "destination {} is left alone but for probes: {}",
                    self.id,
                    cause.name()
                );
                self.metrics.breaker_state.set(match cause {
                    super::breaker::Cause::Down => 1,
                    super::breaker::Cause::Flood => 2,
                });
            }
            Change::Closed => {
                tracing::info!(
                    destination.id = %self.id,
                    down_seconds = self.breaker.down_for(now).as_secs(),
                    "destination {} takes events again",
                    self.id
                );
                self.metrics.breaker_state.set(0);
            }
        }
    }
}

fn service(configured: &Configured, maker: &Maker) -> Service {
    let Some(kind) = destinations::find(&configured.kind) else {
        return Service::Unusable(format!(
            "type {:?} is not one that this build delivers to",
            configured.kind
        ));
    };
    match (kind.build)(&configured.config, &maker.http) {
        Ok(service) => Service::Ready(service),
        Err(problem) => Service::Unusable(problem.to_string()),
    }
}

fn patience(config: &DeliveryConfig) -> Patience {
    let ms = Duration::from_millis;
    Patience {
        backoff: Backoff::new(ms(config.backoff_base_ms), ms(config.backoff_cap_ms)),
        retry_after_max: ms(config.retry_after_max_ms),
        give_up_after: ms(config.give_up_after_ms),
        give_up_attempts: config.give_up_attempts,
        give_up_throttled_after: ms(config.give_up_throttled_after_ms),
    }
}

fn rules(config: &BreakerConfig) -> Rules {
    let ms = Duration::from_millis;
    Rules {
        failures: config.failures,
        keys: config.keys,
        unreachable: config.unreachable,
        refusals: config.refusals,
        refusal_share: config.refusal_share,
        recent: config.recent,
        probe: Backoff::new(ms(config.probe_base_ms), ms(config.probe_cap_ms)),
    }
}

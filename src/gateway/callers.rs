//! Sources by write key, with everything about a source that a request needs, found once per configuration.

use std::collections::HashMap;
use std::sync::Arc;

use crate::telemetry::metrics::IntCounter;
use arc_swap::{ArcSwap, Guard};

use crate::control::{Control, Source, Workspace};
use crate::event::Envelope;
use crate::shutdown::Shutdown;

use super::metrics::GatewayMetrics;

/// A source, ready to be called.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) source: Arc<Source>,
    pub(super) write_key_hash: i64,
    pub(super) accepted: IntCounter,
    pub(super) bytes: IntCounter,
}

/// All sources of one configuration.
#[derive(Debug)]
pub(super) struct Callers {
    /// The configuration they come from.
    pub(super) workspace: Arc<Workspace>,
    by_write_key: HashMap<String, Arc<Caller>>,
}

impl Callers {
    fn of(workspace: Arc<Workspace>, metrics: &GatewayMetrics) -> Self {
        let by_write_key = workspace
            .sources()
            .map(|source| {
                let labels = [source.id.as_str()];
                let caller = Caller {
                    write_key_hash: Envelope::hash_write_key(&source.write_key),
                    accepted: metrics.events_accepted_total.with_label_values(&labels),
                    bytes: metrics.event_bytes_total.with_label_values(&labels),
                    source: Arc::clone(source),
                };
                (source.write_key.clone(), Arc::new(caller))
            })
            .collect();
        Self {
            workspace,
            by_write_key,
        }
    }

    pub(super) fn by_write_key(&self, write_key: &str) -> Option<&Arc<Caller>> {
        self.by_write_key.get(write_key)
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
        metrics: &Arc<GatewayMetrics>,
        shutdown: &Shutdown,
    ) -> Arc<Self> {
        // Subscribed before the first look, so that no change falls between the two.
        let mut changes = control.subscribe();
        let directory = Arc::new(Self {
            current: ArcSwap::from_pointee(Callers::of(control.snapshot(), metrics)),
        });
        let (control, metrics) = (control.clone(), Arc::clone(metrics));
        let (following, stopping) = (Arc::clone(&directory), shutdown.clone());
        drop(shutdown.spawn("gateway-sources", async move {
            loop {
                tokio::select! {
                    () = stopping.begun() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                let callers = Callers::of(control.snapshot(), &metrics);
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

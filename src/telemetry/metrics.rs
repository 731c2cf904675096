//! Metrics as struct fields: the doc comment is the help text, the bracket the labels.
//!
//! ```
//! sluice::metrics! {
//!     /// What the gateway counts.
//!     pub struct GatewayMetrics("gateway") {
//!         /// Events accepted, by source.
//!         events_accepted_total: counter["source"],
//!         /// Requests being handled.
//!         requests_in_flight: gauge[],
//!         /// Seconds from the first byte to the answer.
//!         request_seconds: histogram["route"],
//!     }
//! }
//! let registry = sluice::telemetry::Registry::default();
//! let m = GatewayMetrics::register(&registry);
//! m.events_accepted_total.with_label_values(&["web"]).inc_by(3);
//! assert!(registry.render().contains("sluice_gateway_events_accepted_total{source=\"web\"} 3"));
//! ```
//!
//! Registering the same struct twice on one registry gives the same metrics, so that several lanes or destinations in one
//! process share them.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{Encoder, TextEncoder};

/// Counters, gauges and histograms and their families by label: what [`crate::metrics!`] makes, so that nobody else needs to
/// know the library.
pub use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// Bounds of duration histograms, in seconds: from 0.5 ms, a local acknowledgement, to a minute, a slow destination.
pub const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// The metrics of one process (or of one test).
#[derive(Clone, Default)]
pub struct Registry {
    inner: prometheus::Registry,
    structs: Arc<Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry that also tells of the process itself (CPU, memory, file descriptors).
    pub fn for_process() -> Self {
        let registry = Self::default();
        registry.add(prometheus::process_collector::ProcessCollector::for_self());
        registry
    }

    /// All metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.inner.gather(), &mut out) {
            tracing::warn!(%error, "metrics not rendered");
        }
        String::from_utf8(out).unwrap_or_default()
    }

    /// The struct `T` of this registry, made by `make` the first time.
    pub fn once<T: Send + Sync + 'static>(&self, make: impl FnOnce(&Self) -> T) -> Arc<T> {
        if let Some(known) = self.structs.lock().get(&TypeId::of::<T>())
            && let Ok(known) = Arc::clone(known).downcast::<T>()
        {
            return known;
        }
        let made = Arc::new(make(self));
        self.structs.lock().insert(
            TypeId::of::<T>(),
            Arc::clone(&made) as Arc<dyn Any + Send + Sync>,
        );
        made
    }

    /// Adds a collector; one that is there already is left as it is.
    pub fn add(&self, collector: impl prometheus::core::Collector + 'static) {
        if let Err(error) = self.inner.register(Box::new(collector)) {
            tracing::debug!(%error, "collector not added");
        }
    }

    #[doc(hidden)]
    pub fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let family = IntCounterVec::new(prometheus::Opts::new(name, help), labels)
            .expect("names and labels are literals that a test registers");
        self.add(family.clone());
        family
    }

    #[doc(hidden)]
    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let family = IntGaugeVec::new(prometheus::Opts::new(name, help), labels)
            .expect("names and labels are literals that a test registers");
        self.add(family.clone());
        family
    }

    #[doc(hidden)]
    pub fn histogram(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let opts = prometheus::HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let family = HistogramVec::new(opts, labels)
            .expect("names and labels are literals that a test registers");
        self.add(family.clone());
        family
    }
}

/// Declares a struct of metrics; see the [module](crate::telemetry::metrics).
#[macro_export]
macro_rules! metrics {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident($role:literal) {
            $( $(#[doc = $help:literal])+ $field:ident: $kind:ident[$($label:literal),*], )+
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $( $(#[doc = $help])+ pub $field: $crate::metrics!(@type $kind), )+
        }

        impl $name {
            /// The metrics of `registry`; the same ones each time.
            pub fn register(registry: &$crate::telemetry::Registry) -> std::sync::Arc<Self> {
                registry.once(|registry| Self {
                    $( $field: registry.$kind(
                        concat!("sluice_", $role, "_", stringify!($field)),
                        concat!($($help),+).trim(),
                        &[$($label),*],
                    ), )+
                })
            }
        }
    };
    (@type counter) => { $crate::telemetry::metrics::IntCounterVec };
    (@type gauge) => { $crate::telemetry::metrics::IntGaugeVec };
    (@type histogram) => { $crate::telemetry::metrics::HistogramVec };
}

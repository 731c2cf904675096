//! What the router counts.

use std::sync::Arc;

use crate::destinations::{Accepted, DeliveryError};
use crate::event::Ending;
use crate::fault::Classify;
use crate::metrics;
use crate::telemetry::metrics::{Histogram, IntCounter, IntGauge};

metrics! {
    /// What the router counts.
    pub struct RouterMetrics("router") {
        /// Attempts, by destination and what came of them: delivered, filtered, or the word of the error.
        attempts_total: counter["destination", "outcome"],
        /// Deliveries that ended, by destination, ending and reason.
        endings_total: counter["destination", "ending", "reason"],
        /// Seconds of one request and its answer.
        request_seconds: histogram["destination"],
        /// Seconds from the gateway's receipt of an event to its delivery.
        delivery_seconds: histogram["destination"],
        /// Requests under way.
        in_flight: gauge["destination"],
        /// Ordering keys that wait after a failure.
        blocked_keys: gauge["destination"],
        /// Ordering keys that wait until older records have ended, because so much is done out of order that a commit has no
        /// room to say more of it.
        held_keys: gauge["destination"],
        /// 0 closed, 1 open (the destination is down), 2 open (it refuses nearly everything), 3 settings cannot be used.
        breaker_state: gauge["destination"],
        /// Records held in memory.
        window_records: gauge["lane"],
        /// Bytes held in memory.
        window_bytes: gauge["lane"],
        /// Use of the fullest partition's tightest limit, in per cent.
        window_use_percent: gauge["lane"],
        /// Partitions that are not read at the moment.
        paused_partitions: gauge["lane"],
        /// Partitions owned.
        partitions: gauge["lane"],
        /// Records that were read again but had been finished before.
        skipped_total: counter["lane"],
        /// Commits of progress, by outcome.
        commits_total: counter["lane", "outcome"],
        /// Partitions' progress that did not fit into a commit's metadata: what ended beyond it would be delivered again after
        /// a crash, and counted again. Stays 0; anything else is an error of ours.
        progress_cut_total: counter["lane"],
        /// Seconds of one commit of progress.
        commit_seconds: histogram["lane"],
    }
}

/// The metrics of one destination, looked up once.
#[derive(Debug, Clone)]
pub(super) struct TargetMetrics {
    all: Arc<RouterMetrics>,
    id: Arc<str>,
    delivered: IntCounter,
    delivered_endings: IntCounter,
    request_seconds: Histogram,
    delivery_seconds: Histogram,
    pub(super) in_flight: IntGauge,
    pub(super) blocked_keys: IntGauge,
    pub(super) held_keys: IntGauge,
    pub(super) breaker_state: IntGauge,
}

impl TargetMetrics {
    pub(super) fn new(all: &Arc<RouterMetrics>, id: &Arc<str>) -> Self {
        let label = &[id.as_ref()];
        Self {
            delivered: all
                .attempts_total
                .with_label_values(&[id.as_ref(), "delivered"]),
            delivered_endings: all.endings_total.with_label_values(&[
                id.as_ref(),
                Ending::Delivered.name(),
                Ending::Delivered.reason(),
            ]),
            request_seconds: all.request_seconds.with_label_values(label),
            delivery_seconds: all.delivery_seconds.with_label_values(label),
            in_flight: all.in_flight.with_label_values(label),
            blocked_keys: all.blocked_keys.with_label_values(label),
            held_keys: all.held_keys.with_label_values(label),
            breaker_state: all.breaker_state.with_label_values(label),
            all: Arc::clone(all),
            id: Arc::clone(id),
        }
    }

    /// Counts an attempt that took `seconds`; `age` is the event's since its receipt.
    pub(super) fn attempted(
        &self,
        outcome: &Result<Accepted, DeliveryError>,
        seconds: f64,
        age: f64,
    ) {
        self.request_seconds.observe(seconds);
        let word = match outcome {
            Ok(Accepted::Delivered { .. }) => {
                self.delivered.inc();
                self.delivery_seconds.observe(age);
                return;
            }
            Ok(Accepted::Filtered) => "filtered".to_owned(),
            Err(error) => match error.http_status() {
                Some(status) => format!("http_{status}"),
                None => error.code().to_owned(),
            },
        };
        self.all
            .attempts_total
            .with_label_values(&[self.id.as_ref(), &word])
            .inc();
    }

    /// Counts a delivery that ended.
    pub(super) fn ended(&self, ending: Ending) {
        if ending == Ending::Delivered {
            self.delivered_endings.inc();
            return;
        }
        self.all
            .endings_total
            .with_label_values(&[self.id.as_ref(), ending.name(), ending.reason()])
            .inc();
    }
}

/// The metrics of one lane, looked up once.
#[derive(Debug, Clone)]
pub(super) struct LaneMetrics {
    all: Arc<RouterMetrics>,
    lane: Arc<str>,
    pub(super) window_records: IntGauge,
    pub(super) window_bytes: IntGauge,
    pub(super) window_use_percent: IntGauge,
    pub(super) paused_partitions: IntGauge,
    pub(super) partitions: IntGauge,
    pub(super) skipped: IntCounter,
    pub(super) progress_cut: IntCounter,
    pub(super) commit_seconds: Histogram,
}

impl LaneMetrics {
    pub(super) fn new(all: &Arc<RouterMetrics>, lane: &Arc<str>) -> Self {
        let label = &[lane.as_ref()];
        Self {
            window_records: all.window_records.with_label_values(label),
            window_bytes: all.window_bytes.with_label_values(label),
            window_use_percent: all.window_use_percent.with_label_values(label),
            paused_partitions: all.paused_partitions.with_label_values(label),
            partitions: all.partitions.with_label_values(label),
            skipped: all.skipped_total.with_label_values(label),
            progress_cut: all.progress_cut_total.with_label_values(label),
            commit_seconds: all.commit_seconds.with_label_values(label),
            all: Arc::clone(all),
            lane: Arc::clone(lane),
        }
    }

    /// Counts a commit.
    pub(super) fn committed(&self, outcome: &str) {
        self.all
            .commits_total
            .with_label_values(&[self.lane.as_ref(), outcome])
            .inc();
    }
}

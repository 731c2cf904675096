//! What the processor counts.

use std::time::Duration;

use crate::clock::UnixMs;
use crate::kafka::TxnReport;
use crate::telemetry::metrics::{HistogramVec, IntGaugeVec};

use super::dedup::Dedup;
use super::transaction::Transaction;

crate::metrics! {
    /// What the processor counts.
    pub struct ProcessorMetrics("processor") {
        /// Events by how they ended here; destination is empty for what ended for every destination.
        events_total: counter["destination", "ending", "reason"],
        /// Records read, counted when their transaction has committed.
        records_total: counter[],
        /// Bytes of records read, counted when their transaction has committed.
        bytes_total: counter[],
        /// Transactions by outcome: committed, aborted, reopened, fenced.
        transactions_total: counter["outcome"],
        /// Records in the last committed transaction.
        transaction_records: gauge[],
        /// Seconds from the first record of a transaction to its commit.
        transaction_seconds: histogram[],
        /// Seconds from the last record sent to its acknowledgement, per transaction.
        acknowledge_seconds: histogram[],
        /// Seconds from the last record sent to the end of the commit, per transaction.
        commit_seconds: histogram[],
        /// Seconds from the arrival of the oldest event of a transaction to its commit.
        age_seconds: histogram[],
        /// Partitions of events that are ours.
        partitions: gauge[],
        /// Of those, the ones whose accepted ids are being read back.
        partitions_rebuilding: gauge[],
        /// Seconds that reading back accepted ids took, per rebalance.
        rebuild_seconds: histogram[],
        /// How far back duplicates are recognised; less than configured when memory is short.
        dedup_window_seconds: gauge[],
        /// Ids remembered.
        dedup_ids: gauge[],
        /// Memory that they take.
        dedup_memory_bytes: gauge[],
    }
}

const NO_LABELS: &[&str] = &[];

impl ProcessorMetrics {
    /// A transaction has committed. Events are counted here and not when they are decided on, so that one that is decided on
    /// twice is counted once.
    pub(super) fn count(
        &self,
        transaction: &Transaction,
        report: &TxnReport,
        dedup: &Dedup,
        now: UnixMs,
    ) {
        for tally in transaction.tallies().values() {
            for (destination, ending, count) in tally.outcomes(transaction.routes()) {
                self.events_total
                    .with_label_values(&[destination, ending.name(), ending.reason()])
                    .inc_by(count.unsigned_abs());
            }
        }
        self.transactions_total
            .with_label_values(&["committed"])
            .inc();
        let (records, bytes) = (transaction.records(), transaction.bytes());
        self.records_total
            .with_label_values(NO_LABELS)
            .inc_by(records as u64);
        self.bytes_total
            .with_label_values(NO_LABELS)
            .inc_by(bytes as u64);
        set(&self.transaction_records, records);
        observe(&self.transaction_seconds, transaction.since().elapsed());
        observe(&self.acknowledge_seconds, report.acknowledged_after);
        observe(&self.commit_seconds, report.took);
        if let Some(oldest) = transaction.oldest() {
            let age = u64::try_from(now.saturating_sub(oldest)).unwrap_or(0);
            observe(&self.age_seconds, Duration::from_millis(age));
        }
        let window = usize::try_from(dedup.window_ms(now) / 1000).unwrap_or(0);
        set(&self.dedup_window_seconds, window);
        set(&self.dedup_ids, dedup.len());
        set(&self.dedup_memory_bytes, dedup.memory_bytes());
    }
}

/// Sets a gauge without labels.
pub(super) fn set(gauge: &IntGaugeVec, value: usize) {
    gauge
        .with_label_values(NO_LABELS)
        .set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Observes a duration in a histogram without labels.
pub(super) fn observe(histogram: &HistogramVec, took: Duration) {
    histogram
        .with_label_values(NO_LABELS)
        .observe(took.as_secs_f64());
}

//! What the spill counts.

crate::metrics! {
    /// What the spill counts.
    pub struct SpillMetrics("gateway_spill") {
        /// 1 while new requests go to the spill instead of to Kafka.
        active: gauge[],
        /// Seconds that the oldest record without Kafka's acknowledgement has waited in the spill; 0 when there is none.
        age_seconds: gauge[],
        /// Bytes in the spill's folder that count against its limit.
        bytes: gauge[],
        /// Records in the spill that Kafka has not acknowledged.
        records: gauge[],
        /// Records that were made durable in the spill.
        records_in_total: counter[],
        /// Records of the spill that all in-sync replicas acknowledged.
        records_out_total: counter[],
        /// Records of the spill that Kafka refused for good; they are kept in the folder in `*.refused`.
        records_refused_total: counter[],
        /// Damaged segments found; what could not be read is kept in the folder in `*.damaged-from-*`.
        segments_damaged_total: counter[],
        /// Failures of the disk, by what was tried: create, write, fsync, read, keep, delete.
        errors_total: counter["operation"],
    }
}

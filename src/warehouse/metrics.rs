//! What the role counts.

crate::metrics! {
    /// What the warehouse role counts.
    pub struct WarehouseMetrics("warehouse") {
        /// Events taken off the topic, by destination and what became of them: mapped, rejected or skipped.
        events_total: counter["destination", "outcome"],
        /// Rows made, by destination.
        rows_total: counter["destination"],
        /// Batches cut, by reason.
        batches_total: counter["destination", "reason"],
        /// Bytes of rows in memory that are in no manifest yet.
        memory_bytes: gauge[],
        /// 1 while nothing is read because memory is full.
        memory_full: gauge[],
        /// Seconds from the cut of a batch to its manifest.
        upload_seconds: histogram["destination"],
        /// Bytes of staging files written.
        upload_bytes_total: counter["destination"],
        /// Batches that another writer had written already.
        races_lost_total: counter["destination"],
        /// Offsets that were gone from the topic before they were written down.
        offsets_lost_total: counter["destination"],
        /// Partitions whose chain cannot be read or extended.
        partitions_stuck: gauge["destination"],
        /// Manifests loaded.
        manifests_loaded_total: counter["destination"],
        /// Rows loaded, by table kind: events, identifies, users, …; event tables count as one.
        rows_loaded_total: counter["destination"],
        /// Values that went to rudder_discards.
        discards_total: counter["destination"],
        /// Seconds of one load of all that is waiting.
        load_seconds: histogram["destination"],
        /// Loads of a table that failed, by the error's code.
        load_failures_total: counter["destination", "code"],
        /// Manifests that wait to be loaded, as last seen.
        manifests_waiting: gauge["destination"],
    }
}

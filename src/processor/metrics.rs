//! What the processor counts.

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

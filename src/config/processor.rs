//! Events to destinations.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Events to destinations.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessorConfig {
    /// Most events in one transaction. Default 5000.
    pub transaction_records_max: usize,
    /// Most bytes of events in one transaction. Default 4 MiB.
    pub transaction_bytes_max: usize,
    /// Longest time a transaction stays open for more events, in milliseconds; it is reached only when events keep
    /// trickling in. Default 250.
    pub transaction_ms_max: u64,
    /// Least time from the beginning of one transaction to the end of the next one's collecting, in milliseconds. A
    /// transaction costs the brokers the same whether it holds one event or a thousand, so a steady trickle is gathered for
    /// this long; an event after a pause is not held back at all. 0 commits whatever is there. Default 10.
    pub transaction_pace_ms: u64,
    /// Events that are decoded and planned together by one worker. Default 500.
    pub chunk_records_max: usize,
    /// Bytes of events that are decoded and planned together by one worker. Default 512 KiB.
    pub chunk_bytes_max: usize,
    /// Threads that decode and plan; 0 takes one per core. Default 0.
    pub workers: usize,
    /// Leaving out events that were accepted before.
    pub dedup: DedupConfig,
    /// How long events wait whose source only the gateway knows yet, in milliseconds: it follows a changed workspace earlier
    /// than this process does, or this process holds the change back because a topic is missing. After that they are
    /// filtered as of an unknown source. Default 30000.
    pub source_wait_ms: u64,
    /// Longest pause before trying again when Kafka refuses a transaction or a destination's topic does not exist, in
    /// milliseconds. Default 5000.
    pub retry_ms_max: u64,
}

/// Leaving out events whose message id was accepted from the same source before.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DedupConfig {
    /// Whether to look for duplicates at all. Default true.
    pub enabled: bool,
    /// How long an accepted id is remembered, in milliseconds. The topic `seen` must keep its records at least as long.
    /// Default 3600000.
    pub window_ms: u64,
    /// Ids are forgotten by buckets of this length, in milliseconds, so some are remembered longer by as much. Default
    /// 300000.
    pub bucket_ms: u64,
    /// Memory for remembered ids in bytes, for all partitions of this process; about 26 bytes an id. When it is reached
    /// the oldest bucket goes, and `sluice_processor_dedup_window_seconds` tells what the window really is. Default
    /// 512 MiB.
    pub memory_bytes_max: usize,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        Self {
            transaction_records_max: 5_000,
            transaction_bytes_max: 4 << 20,
            transaction_ms_max: 250,
            transaction_pace_ms: 10,
            chunk_records_max: 500,
            chunk_bytes_max: 512 << 10,
            workers: 0,
            dedup: DedupConfig::default(),
            source_wait_ms: 30_000,
            retry_ms_max: 5_000,
        }
    }
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            window_ms: 3_600_000,
            bucket_ms: 300_000,
            memory_bytes_max: 512 << 20,
        }
    }
}

impl ProcessorConfig {
    /// Longest time a transaction stays open for more events.
    pub fn transaction_time_max(&self) -> Duration {
        Duration::from_millis(self.transaction_ms_max)
    }

    /// Least time from the beginning of one transaction to the end of the next one's collecting.
    pub fn transaction_pace(&self) -> Duration {
        Duration::from_millis(self.transaction_pace_ms)
    }

    /// How long events wait whose source only the gateway knows yet.
    pub fn source_wait(&self) -> Duration {
        Duration::from_millis(self.source_wait_ms)
    }

    /// Threads that decode and plan.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let mut within = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.push(format!(
                    "processor.{key}: {value} must be from {least} to {most}"
                ));
            }
        };
        // One record of `seen` holds 16 bytes for each event of a transaction and must stay under a megabyte.
        within(
            "transaction_records_max",
            self.transaction_records_max as u64,
            1,
            50_000,
        );
        within(
            "transaction_bytes_max",
            self.transaction_bytes_max as u64,
            1,
            256 << 20,
        );
        // Well under the default transaction timeout of 15 s, after which the brokers abort.
        within("transaction_ms_max", self.transaction_ms_max, 1, 5_000);
        within(
            "transaction_pace_ms",
            self.transaction_pace_ms,
            0,
            self.transaction_ms_max,
        );
        within(
            "chunk_records_max",
            self.chunk_records_max as u64,
            1,
            self.transaction_records_max as u64,
        );
        within(
            "chunk_bytes_max",
            self.chunk_bytes_max as u64,
            1,
            self.transaction_bytes_max as u64,
        );
        within("workers", self.workers as u64, 0, 256);
        within("source_wait_ms", self.source_wait_ms, 0, 86_400_000);
        within("retry_ms_max", self.retry_ms_max, 10, 60_000);
        let dedup = &self.dedup;
        within("dedup.bucket_ms", dedup.bucket_ms, 1, dedup.window_ms);
        // More buckets than this make every look-up slow: each is asked.
        within(
            "dedup.window_ms",
            dedup.window_ms,
            1,
            dedup.bucket_ms.saturating_mul(48),
        );
        within(
            "dedup.memory_bytes_max",
            dedup.memory_bytes_max as u64,
            1 << 20,
            u64::MAX,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: &ProcessorConfig) -> Vec<String> {
        let mut problems = Vec::new();
        config.check(&mut problems);
        problems
    }

    #[test]
    fn the_defaults_are_accepted() {
        assert_eq!(problems(&ProcessorConfig::default()), Vec::<String>::new());
    }

    #[test]
    fn a_chunk_larger_than_a_transaction_is_refused() {
        let config = ProcessorConfig {
            transaction_records_max: 100,
            ..Default::default()
        };
        let found = problems(&config);
        assert!(
            found.len() == 1 && found[0].contains("chunk_records_max"),
            "{found:?}"
        );
    }
}

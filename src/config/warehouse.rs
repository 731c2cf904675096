//! Rows, staging files and loads.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;

/// Rows, staging files and loads.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarehouseConfig {
    /// Where staging files and manifests lie.
    pub object_store: ObjectStoreConfig,
    /// When a partition's rows become files.
    pub batch: BatchConfig,
    /// How files become rows of tables.
    pub load: LoadConfig,
    /// Bytes of all rows in memory that are in no file yet, over all destinations; at it nothing more is read until files
    /// are written. What the vectors keep in reserve comes on top, at most the same again. Default 512 MiB.
    pub memory_bytes_max: usize,
    /// Files that are written to object storage at the same time. Default 8.
    pub uploads_max: usize,
    /// Columns that one event may have, those filled at load time included; an event with more is dead-lettered. Default
    /// 1600 (RudderStack's).
    pub event_columns_max: usize,
    /// Column names remembered per destination. Default 100000.
    pub names_max: usize,
    /// Whether source and destination become columns (`context_source_id`, …), as with RudderStack's
    /// `WH_POPULATE_SRC_DEST_INFO_IN_CONTEXT`. Default true.
    pub source_info_in_context: bool,
}

impl Default for WarehouseConfig {
    fn default() -> Self {
        Self {
            object_store: ObjectStoreConfig::default(),
            batch: BatchConfig::default(),
            load: LoadConfig::default(),
            memory_bytes_max: 512 << 20,
            uploads_max: 8,
            event_columns_max: 1600,
            names_max: 100_000,
            source_info_in_context: true,
        }
    }
}

/// Where staging files and manifests lie.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectStoreConfig {
    /// `file:///var/lib/sluice/staging` or `s3://bucket/prefix`. All warehouse processes must see the same. No default: a
    /// process with warehouse destinations does not start without it.
    pub url: Option<String>,
    /// Endpoint of a store that speaks S3 and is not AWS, e.g. `http://minio:9000`.
    pub endpoint: Option<String>,
    /// Region. Default `us-east-1`.
    pub region: Option<String>,
    /// Access key. Without it, `AWS_ACCESS_KEY_ID` and the machine's role are tried.
    pub access_key_id: Option<String>,
    /// Secret key.
    pub secret_access_key: Option<Secret>,
    /// Whether plain HTTP is fine. Default false.
    pub allow_http: bool,
}

/// When a partition's rows become files: whichever comes first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Age of the oldest row, in milliseconds. Default 30000 (as RudderStack's staging files).
    pub age_ms_max: u64,
    /// Bytes in memory; the files are some twenty times smaller. Default 64 MiB.
    pub bytes_max: usize,
    /// Tables. Default 2000.
    pub tables_max: usize,
    /// Records taken from the consumer at a time. Default 2000.
    pub poll_records_max: usize,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            age_ms_max: 30_000,
            bytes_max: 64 << 20,
            tables_max: 2_000,
            poll_records_max: 2_000,
        }
    }
}

/// How files become rows of tables.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadConfig {
    /// Load at this interval, in milliseconds, whatever schedule a destination has (`syncFrequency`, `syncStartAt`,
    /// `excludeWindow`). Default: the destination's schedule.
    pub interval_ms: Option<u64>,
    /// Manifests that are looked at together; a table that fails holds the others back once it is this far behind. Default
    /// 960 (RudderStack's staging files per upload).
    pub manifests_max: usize,
    /// Bytes of staging files that go into one transaction; one file always does. Default 64 MiB.
    pub transaction_bytes_max: u64,
    /// Wait after a failed load, in milliseconds; doubles with each. Default 60000 (RudderStack's).
    pub backoff_base_ms: u64,
    /// Longest wait after a failed load, in milliseconds. Default 1800000 (RudderStack's).
    pub backoff_cap_ms: u64,
}

impl Default for LoadConfig {
    fn default() -> Self {
        Self {
            interval_ms: None,
            manifests_max: 960,
            transaction_bytes_max: 64 << 20,
            backoff_base_ms: 60_000,
            backoff_cap_ms: 1_800_000,
        }
    }
}

impl BatchConfig {
    /// Age of the oldest row.
    pub fn age_max(&self) -> Duration {
        Duration::from_millis(self.age_ms_max)
    }
}

impl WarehouseConfig {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let mut at_least = |name: &str, value: usize, least: usize| {
            if value < least {
                problems.push(format!(
                    "warehouse.{name} is {value}, must be at least {least}"
                ));
            }
        };
        at_least("memory_bytes_max", self.memory_bytes_max, 1 << 20);
        at_least("uploads_max", self.uploads_max, 1);
        at_least("event_columns_max", self.event_columns_max, 32);
        at_least("names_max", self.names_max, 1_000);
        at_least("batch.bytes_max", self.batch.bytes_max, 1 << 16);
        at_least("batch.tables_max", self.batch.tables_max, 1);
        at_least("batch.poll_records_max", self.batch.poll_records_max, 1);
        at_least("load.manifests_max", self.load.manifests_max, 1);
        if self.load.backoff_base_ms > self.load.backoff_cap_ms {
            problems.push(
                "warehouse.load.backoff_base_ms is more than warehouse.load.backoff_cap_ms"
                    .to_owned(),
            );
        }
        if let Some(url) = &self.object_store.url
            && !url.starts_with("file:///")
            && !url.starts_with("s3://")
        {
            problems.push(format!(
                "warehouse.object_store.url is {url:?}, must begin with file:/// or s3://"
            ));
        }
    }
}

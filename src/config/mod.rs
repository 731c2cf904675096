//! Process settings: one YAML file, overridden by environment variables, checked before anything connects.
//!
//! Three steps, three functions: [`load`] reads (defaults, then the file, then `SLUICE__SECTION__KEY` variables; unknown
//! keys are errors), [`Config::validate`] checks without I/O, and the roles use. What the *customer* configured (sources,
//! destinations, connections) is not here but in [`crate::control`].

mod admin;
mod environment;
mod gateway;
mod kafka;
mod load;
mod networks;
mod processor;
pub mod reference;
mod router;
mod schema_registry;
mod secret;
mod source_transformer;
mod topics;
mod warehouse;
mod workspace;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use admin::{AdminConfig, LogConfig, LogFormat};
pub use environment::ENV_PREFIX;
pub use gateway::{GatewayConfig, RateLimitConfig, SpillConfig, TlsConfig};
pub use kafka::{
    Compression, ConsumerConfig, FirstOffset, KafkaConfig, ProducerConfig, RESERVED_PROPERTIES,
    SaslMechanism, SecurityConfig, SecurityProtocol, TransactionConfig,
};
pub use load::{ConfigError, load, parse};
pub use networks::Networks;
pub use processor::{DedupConfig, ProcessorConfig};
pub use router::{
    BreakerConfig, DeliveryConfig, DeliveryOverrides, RouterConfig, RouterHttpConfig,
};
pub use schema_registry::SchemaRegistryConfig;
pub use secret::Secret;
pub use source_transformer::SourceTransformerConfig;
pub use topics::TopicsConfig;
pub use warehouse::{BatchConfig, LoadConfig, ObjectStoreConfig, WarehouseConfig};
pub use workspace::WorkspaceConfig;

/// How strict the process is about what could lose data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Roles refuse to start on topics with replication 1 or `min.insync.replicas` 1.
    #[default]
    Production,
    /// One broker is fine.
    Dev,
}

/// Settings of one process. Every field has a default, so that an empty file is a valid one.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How strict the process is about what could lose data.
    pub mode: Mode,
    /// Stable name of this process among its peers, part of client ids, static group membership and transactional ids.
    /// Two live processes must not share it. Default: the host name.
    pub instance: Option<String>,
    /// The cluster.
    pub kafka: KafkaConfig,
    /// Topic names and shapes.
    pub topics: TopicsConfig,
    /// Where sources, destinations and connections come from.
    pub workspace: WorkspaceConfig,
    /// Health and metrics listener.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogConfig,
    /// HTTP ingestion.
    pub gateway: GatewayConfig,
    /// Events to destinations.
    pub processor: ProcessorConfig,
    /// Deliveries.
    pub router: RouterConfig,
    /// Rows, staging files, loads.
    pub warehouse: WarehouseConfig,
    /// Longest time a role may take to drain after SIGTERM, in milliseconds. Default 25000, under the 30 s that
    /// Kubernetes grants.
    pub drain_ms: Option<u64>,
}

impl Config {
    /// The drain bound.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_ms.unwrap_or(25_000))
    }

    /// Whether roles bring topics into shape by themselves.
    pub fn ensures_topics(&self) -> bool {
        self.topics.ensure.unwrap_or(self.mode == Mode::Dev)
    }

    /// The process's stable name.
    pub fn instance(&self) -> String {
        self.instance.clone().unwrap_or_else(|| {
            nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .unwrap_or_else(|| "sluice".to_owned())
        })
    }

    /// Checks what a type cannot say, without touching network or disk.
    ///
    /// # Errors
    /// Every problem found, each with the key it is about and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        self.kafka.check(&mut problems);
        self.topics.check(&mut problems);
        self.gateway
            .check(self.kafka.producer.message_bytes_max, &mut problems);
        self.processor.check(&mut problems);
        self.router.check(&mut problems);
        self.warehouse.check(&mut problems);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Invalid { problems })
        }
    }
}

//! The cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {}

impl KafkaConfig {
    pub(super) fn check(&self, _problems: &mut Vec<String>) {}
}

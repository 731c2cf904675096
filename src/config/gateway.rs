//! HTTP ingestion.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// HTTP ingestion.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {}

impl GatewayConfig {
    pub(super) fn check(&self, _problems: &mut Vec<String>) {}
}

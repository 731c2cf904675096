//! Rows, staging files and loads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows, staging files and loads.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarehouseConfig {}

impl WarehouseConfig {
    pub(super) fn check(&self, _problems: &mut Vec<String>) {}
}

//! Deliveries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Deliveries.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouterConfig {}

impl RouterConfig {
    pub(super) fn check(&self, _problems: &mut Vec<String>) {}
}

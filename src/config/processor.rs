//! Events to destinations.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Events to destinations.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessorConfig {}

impl ProcessorConfig {
    pub(super) fn check(&self, _problems: &mut Vec<String>) {}
}

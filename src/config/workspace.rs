//! Where the customer's configuration comes from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;

/// Where sources, destinations and connections come from.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkspaceConfig {
    /// A file in RudderStack's `workspaceConfig.json` shape or in ours (YAML); read again when it changes.
    pub file: Option<PathBuf>,
    /// Base URL of a server that answers `GET /workspaceConfig` as RudderStack's control plane does.
    pub url: Option<String>,
    /// Workspace token for `url`.
    pub token: Option<Secret>,
    /// How often the file is looked at and the URL asked, in milliseconds. Default 5000, as RudderStack.
    pub poll_ms: u64,
    /// Where the last good configuration is kept, so that a role starts while its source is away.
    pub cache: Option<PathBuf>,
}

impl Default for WorkspaceConfig {
    fn default() -> Self {
        Self {
            file: None,
            url: None,
            token: None,
            poll_ms: 5_000,
            cache: None,
        }
    }
}

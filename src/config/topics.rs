//! Topic names and where their shapes are declared.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Topic names and shapes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicsConfig {
    /// What every topic's name begins with. A topic without it is never touched. Default `sluice.`.
    pub prefix: String,
    /// The declaration of shapes; default: the `topics.yaml` that is part of the binary.
    pub file: Option<PathBuf>,
    /// Whether roles create missing topics and set declared settings, when they start and when the workspace gains
    /// destinations. Default: true in dev mode; else false, and an operator runs `sluice topics apply`.
    pub ensure: Option<bool>,
}

impl Default for TopicsConfig {
    fn default() -> Self {
        Self {
            prefix: "sluice.".to_owned(),
            file: None,
            ensure: None,
        }
    }
}

impl TopicsConfig {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.prefix.is_empty() || self.prefix.len() > 40 || !self.prefix.chars().all(plain) {
            problems.push(format!(
                "topics.prefix: {:?} must be 1 to 40 characters of [a-zA-Z0-9._-], for example \"sluice.\"",
                self.prefix
            ));
        }
    }
}

//! The schema registry, for tools that read our topics with its clients.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::Secret;

/// A schema registry that speaks Confluent's HTTP API. With it, records carry Confluent's frame (`0` and the schema's id), so that
/// every tool with a registry's client reads them; without it, Avro's single-object frame. Both are always read.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaRegistryConfig {
    /// Its address, as `http://registry:8081`; with the path in front of `/subjects`, if it has one.
    pub url: String,
    /// User for Basic authentication. Default none.
    #[serde(default)]
    pub username: Option<String>,
    /// Password for Basic authentication.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Whether a process registers the schemas of its records when it starts. Otherwise they must be there already:
    /// `sluice config schemas` prints them. Default true.
    #[serde(default = "SchemaRegistryConfig::default_register")]
    pub register: bool,
    /// Longest wait for one answer, in milliseconds. Default 5000.
    #[serde(default = "SchemaRegistryConfig::default_timeout_ms")]
    pub timeout_ms: u64,
    /// How long a process that starts waits for a registry that is away, in milliseconds; then it ends with an error. Default
    /// 60000.
    #[serde(default = "SchemaRegistryConfig::default_start_timeout_ms")]
    pub start_timeout_ms: u64,
}

impl SchemaRegistryConfig {
    /// The defaults for a registry at `url`.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            username: None,
            password: None,
            register: Self::default_register(),
            timeout_ms: Self::default_timeout_ms(),
            start_timeout_ms: Self::default_start_timeout_ms(),
        }
    }

    fn default_register() -> bool {
        true
    }

    fn default_timeout_ms() -> u64 {
        5_000
    }

    fn default_start_timeout_ms() -> u64 {
        60_000
    }

    /// The address; `None` when it is none that can be used.
    pub fn base_url(&self) -> Option<Url> {
        let url = Url::parse(&self.url).ok()?;
        let has_login = !url.username().is_empty() || url.password().is_some();
        (matches!(url.scheme(), "http" | "https") && !has_login).then_some(url)
    }

    /// Longest wait for one answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long a start waits for a registry that is away.
    pub fn start_timeout(&self) -> Duration {
        Duration::from_millis(self.start_timeout_ms)
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let at = "kafka.schema_registry";
        if self.base_url().is_none() {
            // The address is not repeated: it may hold a password.
            problems.push(format!(
                "{at}.url: is no address as http://registry:8081; user and password go into username and password"
            ));
        }
        if self.password.is_some() && self.username.is_none() {
            problems.push(format!("{at}.password: needs {at}.username"));
        }
        if self.timeout_ms == 0 {
            problems.push(format!("{at}.timeout_ms: must be more than 0"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut SchemaRegistryConfig)) -> Vec<String> {
        let mut config = SchemaRegistryConfig::at("https://registry:8081/apis/ccompat/v7");
        change(&mut config);
        let mut problems = Vec::new();
        config.check(&mut problems);
        problems
    }

    #[test]
    fn what_cannot_work_is_named_and_a_password_is_not() {
        assert_eq!(problems(|_| ()), Vec::<String>::new());
        for url in [
            "registry:8081",
            "ftp://registry",
            "http://u:hunter2@registry",
            "",
        ] {
            let found = problems(|c| c.url = url.to_owned());
            assert_eq!(found.len(), 1, "{url}: {found:?}");
            assert!(!found[0].contains("hunter2"));
        }
        assert_eq!(problems(|c| c.password = Some(Secret::new("x"))).len(), 1);
        assert_eq!(problems(|c| c.timeout_ms = 0).len(), 1);
    }
}

//! Defaults, then the file, then the environment.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Config;
use super::environment::overlay;
use crate::fault::{Classify, Fault};

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("could not read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{origin} is not YAML: {message}")]
    Syntax { origin: String, message: String },
    #[error("{key}: {message}")]
    Value { key: String, message: String },
    #[error("{}", problems.join("\n"))]
    Invalid { problems: Vec<String> },
}

impl Classify for ConfigError {
    fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Syntax { .. } | Self::Value { .. } | Self::Invalid { .. } => {
                Fault::Fatal
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "config_unreadable",
            Self::Syntax { .. } => "config_syntax",
            Self::Value { .. } => "config_value",
            Self::Invalid { .. } => "config_invalid",
        }
    }
}

/// Reads the settings from `file` (defaults alone when `None`) and this process's environment, and validates them.
///
/// # Errors
/// When the file cannot be read or a value does not fit; the message names the key.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?,
        None => String::new(),
    };
    let origin = file.map_or_else(|| "defaults".to_owned(), |path| path.display().to_string());
    let config = parse(&origin, &text, std::env::vars())?;
    config.validate()?;
    Ok(config)
}

/// [`load`] without I/O and without validation.
///
/// # Errors
/// As [`load`].
pub fn parse(
    origin: &str,
    text: &str,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut root: Value = if text.trim().is_empty() {
        Value::Object(Map::new())
    } else {
        serde_yaml_ng::from_str(text).map_err(|error| ConfigError::Syntax {
            origin: origin.to_owned(),
            message: error.to_string(),
        })?
    };
    if root.is_null() {
        root = Value::Object(Map::new());
    }
    overlay(&mut root, env)?;
    serde_path_to_error::deserialize(root).map_err(|error| ConfigError::Value {
        key: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    fn env(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = parse(
            "test",
            "mode: production\ntopics: {prefix: a.}",
            env(&[
                ("SLUICE__TOPICS__PREFIX", "b."),
                ("SLUICE__MODE", "dev"),
                ("PATH", "/bin"),
            ]),
        )
        .unwrap();
        assert_eq!(config.topics.prefix, "b.");
        assert_eq!(config.mode, Mode::Dev);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = parse("test", "gateway: {prot: 1}", env(&[]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("gateway") && error.contains("prot"),
            "{error}"
        );
        let error = parse("test", "", env(&[("SLUICE__NOPE", "1")]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("nope"), "{error}");
    }

    #[test]
    fn an_empty_file_is_a_valid_one() {
        parse("test", "\n# nothing\n", env(&[]))
            .unwrap()
            .validate()
            .unwrap();
    }
}

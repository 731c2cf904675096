//! A secret reads like a string and prints as `***`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A password, token or key. Written as plain text, as `{env: NAME}` or as `{file: PATH}` in the settings.
#[derive(Clone, PartialEq, Eq, Default, JsonSchema)]
#[schemars(with = "String", extend("writeOnly" = true))]
pub struct Secret(String);

impl Secret {
    /// A secret with this value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Plain(String),
            From(From),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        enum From {
            Env(String),
            File(String),
        }
        use serde::de::Error;
        match Written::deserialize(deserializer)? {
            Written::Plain(value) => Ok(Self(value)),
            Written::From(From::Env(name)) => std::env::var(&name)
                .map(Self)
                .map_err(|_| D::Error::custom(format!("environment variable {name} is not set"))),
            Written::From(From::File(path)) => std::fs::read_to_string(&path)
                .map(|text| Self(text.trim_end_matches(['\n', '\r']).to_owned()))
                .map_err(|error| D::Error::custom(format!("secret file {path}: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = serde_json::from_str::<Secret>(r#"{"env":"SLUICE_NOT_SET"}"#).unwrap_err();
        assert!(error.to_string().contains("SLUICE_NOT_SET"));
    }
}

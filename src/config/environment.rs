//! Settings from variables: `SLUICE__GATEWAY__LISTEN=0.0.0.0:9090` sets `gateway.listen`. Pure.
//!
//! What a variable's text means is decided by the setting's type: text is taken as it stands, so that a password is never
//! read as a number or cut at a `#`; everything else is read as YAML.

use serde_json::{Map, Value};

use super::load::ConfigError;
use super::reference::{self, present, resolve};

/// Prefix of environment variables that override settings: `SLUICE__GATEWAY__PORT=9090` sets `gateway.port`.
pub const ENV_PREFIX: &str = "SLUICE__";

/// Lays the variables of `env` that are ours over the settings in `root`.
///
/// # Errors
/// When a variable names a key below one that has none.
pub(super) fn overlay(
    root: &mut Value,
    env: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    let mut overrides: Vec<(String, String)> = env
        .filter_map(|(name, value)| Some((name.strip_prefix(ENV_PREFIX)?.to_owned(), value)))
        .collect();
    if overrides.is_empty() {
        return Ok(());
    }
    overrides.sort();
    let schema = reference::schema();
    for (name, value) in overrides {
        set(root, &schema, &name, &value)?;
    }
    Ok(())
}

/// Sets the key that `name` (`GATEWAY__PORT`) spells to what `text` means there.
fn set(root: &mut Value, schema: &Value, name: &str, text: &str) -> Result<(), ConfigError> {
    let mut at = root;
    let mut place = Place::Typed(schema);
    for part in name.split("__") {
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else {
            return Err(ConfigError::Value {
                key: format!("{ENV_PREFIX}{name}"),
                message: "names a key below a value that is not a section".to_owned(),
            });
        };
        let key;
        (key, place) = place.below(schema, part);
        at = map.entry(key).or_insert(Value::Null);
    }
    *at = place.read(schema, text);
    Ok(())
}

/// Where in the settings a variable's name has led to.
#[derive(Clone, Copy)]
enum Place<'s> {
    /// At a value of this schema.
    Typed(&'s Value),
    /// Inside a secret that is somewhere else: at the name of a variable or a file.
    Elsewhere,
    /// Nowhere; what reads the settings names the key.
    Unknown,
}

impl<'s> Place<'s> {
    /// One step on: what `part` is called in the settings.
    fn below(self, root: &'s Value, part: &str) -> (String, Self) {
        let lower = part.to_lowercase();
        let Self::Typed(node) = self else {
            return (lower, Self::Unknown);
        };
        let node = present(root, resolve(root, node));
        if let Some(property) = node.get("properties").and_then(|all| all.get(&lower)) {
            return (lower, Self::Typed(property));
        }
        if is_secret(node) {
            return (lower, Self::Elsewhere);
        }
        match node.get("additionalProperties") {
            Some(values @ Value::Object(_)) => {
                // Keys that are not ours. Sections are named as the customer's things are (`WEBHOOK`, an id), in which
                // large and small letters differ; other keys are librdkafka's, which are small.
                let sections = resolve(root, values).get("properties").is_some();
                let key = if sections { part.to_owned() } else { lower };
                (key, Self::Typed(values))
            }
            _ => (lower, Self::Unknown),
        }
    }

    /// What `text` means here.
    fn read(self, root: &Value, text: &str) -> Value {
        let yaml = || serde_yaml_ng::from_str(text).unwrap_or_else(|_| Value::from(text));
        match self {
            Self::Unknown => yaml(),
            Self::Elsewhere => Value::from(text),
            Self::Typed(node) => {
                let node = resolve(root, node);
                let value = present(root, node);
                if !is_text(value) {
                    return yaml();
                }
                if text.is_empty() && is_optional(node) {
                    return Value::Null;
                }
                if is_secret(value)
                    && let Some(elsewhere) = elsewhere(text)
                {
                    return elsewhere;
                }
                Value::from(text)
            }
        }
    }
}

/// `{env: NAME}` or `{file: PATH}`, as a secret may be written in the file too.
fn elsewhere(text: &str) -> Option<Value> {
    if !text.starts_with('{') {
        return None;
    }
    let value: Value = serde_yaml_ng::from_str(text).ok()?;
    let map = value.as_object()?;
    let (key, name) = map.iter().next()?;
    (map.len() == 1 && ["env", "file"].contains(&key.as_str()) && name.is_string()).then_some(value)
}

fn is_secret(node: &Value) -> bool {
    node.get("writeOnly") == Some(&Value::Bool(true))
}

/// Whether a value is text whatever is in it: a string, or one of several words.
fn is_text(node: &Value) -> bool {
    let only_words = |choices: &Vec<Value>| {
        !choices.is_empty()
            && choices
                .iter()
                .all(|one| one.get("const").is_some_and(Value::is_string))
    };
    match node.get("type") {
        Some(Value::String(one)) => one == "string",
        Some(Value::Array(many)) => many.iter().all(|one| one == "string" || one == "null"),
        _ => node
            .get("oneOf")
            .and_then(Value::as_array)
            .is_some_and(only_words),
    }
}

/// Whether a value may be absent.
fn is_optional(node: &Value) -> bool {
    let null = |one: &Value| one == "null" || one.get("type").is_some_and(|kind| kind == "null");
    [node.get("type"), node.get("anyOf")]
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
        .any(null)
}

#[cfg(test)]
mod tests {
    use super::super::{Compression, Config, ConfigError, Mode, load::parse};

    fn with(file: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let env = pairs
            .iter()
            .map(|(name, value)| (format!("SLUICE__{name}"), (*value).to_owned()));
        parse("test", file, env)
    }

    #[test]
    fn text_is_taken_as_it_stands() {
        for text in [
            "0", "12345", "a #b", "a: b", "true", "null", "~", "1e3", "[", "{a: b}", " x ",
            "\"q\"", "-", "*", "&a",
        ] {
            let config = with(
                "",
                &[
                    ("INSTANCE", text),
                    ("KAFKA__CLIENT_ID", text),
                    ("KAFKA__SECURITY__SASL_PASSWORD", text),
                    ("KAFKA__SECURITY__TLS_CA_FILE", text),
                    ("KAFKA__EXTRA__DEBUG", text),
                ],
            )
            .unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(config.instance.as_deref(), Some(text));
            assert_eq!(config.kafka.client_id, text);
            let security = &config.kafka.security;
            assert_eq!(security.sasl_password.as_ref().unwrap().expose(), text);
            assert_eq!(security.tls_ca_file.as_ref().unwrap().to_str(), Some(text));
            assert_eq!(config.kafka.extra["debug"], text);
        }
    }

    #[test]
    fn what_is_not_text_is_read_as_yaml() {
        let config = with(
            "",
            &[
                ("MODE", "dev"),
                ("DRAIN_MS", "7"),
                ("KAFKA__PRODUCER__COMPRESSION", "none"),
                ("KAFKA__CONSUMER__STATIC_MEMBERSHIP", "false"),
                ("GATEWAY__TRUSTED_PROXIES", "[10.0.0.0/8]"),
                ("GATEWAY__SPILL", "{dir: /spill, after_ms: 5}"),
                ("ROUTER__BREAKER__REFUSAL_SHARE", "0.25"),
            ],
        )
        .unwrap();
        assert_eq!(config.mode, Mode::Dev);
        assert_eq!(config.drain_ms, Some(7));
        assert_eq!(config.kafka.producer.compression, Compression::None);
        assert!(!config.kafka.consumer.static_membership);
        assert_eq!(config.gateway.spill.unwrap().after_ms, 5);
        let wrong = with("", &[("DRAIN_MS", "a: [")]).unwrap_err().to_string();
        assert!(wrong.contains("drain_ms"), "{wrong}");
    }

    #[test]
    fn an_empty_variable_leaves_out_what_may_be_left_out() {
        let config = with("instance: a", &[("INSTANCE", ""), ("TOPICS__PREFIX", "")]).unwrap();
        assert_eq!(
            (config.instance, config.topics.prefix),
            (None, String::new())
        );
    }

    #[test]
    fn a_secret_may_be_elsewhere() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "hunter2\n").unwrap();
        let path = file.path().to_str().unwrap();
        let section = format!("{{file: {path}}}");
        for (name, value) in [
            ("WORKSPACE__TOKEN", section.as_str()),
            ("WORKSPACE__TOKEN__FILE", path),
        ] {
            let config = with("", &[(name, value)]).unwrap();
            assert_eq!(config.workspace.token.unwrap().expose(), "hunter2");
        }
    }

    #[test]
    fn names_of_the_customers_things_keep_their_letters() {
        let name = "ROUTER__DESTINATIONS__WEBHOOK__CONCURRENCY";
        for file in [
            "",
            "router: {destinations: {WEBHOOK: {timeout_ms: 9}}}",
            "router: {destinations: }",
        ] {
            let router = with(file, &[(name, "7")]).unwrap().router;
            let delivery = router.delivery_for("WEBHOOK", "2abC");
            let timeout = if file.contains('9') { 9 } else { 10_000 };
            assert_eq!(
                (delivery.concurrency, delivery.timeout_ms),
                (7, timeout),
                "{file}"
            );
        }
        let router = with("", &[("ROUTER__DESTINATIONS__2abC__CONCURRENCY", "7")]);
        let delivery = router.unwrap().router.delivery_for("WEBHOOK", "2abC");
        assert_eq!(delivery.concurrency, 7);
        let wrong = with("", &[("ROUTER__DESTINATIONS__WEBHOOK__NOPE", "7")]);
        let wrong = wrong.unwrap_err().to_string();
        assert!(
            wrong.contains("router.destinations.WEBHOOK") && wrong.contains("nope"),
            "{wrong}"
        );
    }

    #[test]
    fn a_key_below_a_value_is_refused_with_the_name_of_the_variable() {
        let wrong = with("instance: a", &[("INSTANCE__B", "1")])
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("SLUICE__INSTANCE__B"), "{wrong}");
    }
}

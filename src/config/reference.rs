//! The settings reference, made from the types' own docs.

use schemars::Schema;
use serde_json::Value;

use super::Config;

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// JSON type.
    pub kind: String,
    /// Default as JSON; `null` when there is none.
    pub default: Value,
    /// What it means.
    pub doc: String,
}

/// Every setting, in the order of the sections.
pub fn settings() -> Vec<Setting> {
    let root = schema();
    let mut out = Vec::new();
    walk(&root, &root, "", &Value::Null, &mut out);
    out
}

/// The settings' JSON schema.
pub(super) fn schema() -> Value {
    let schema: Schema = schemars::schema_for!(Config);
    schema.to_value()
}

/// The reference as a Markdown table.
pub fn markdown() -> String {
    let mut text = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    for s in settings() {
        let default = if s.default.is_null() {
            String::new()
        } else {
            format!("`{}`", s.default)
        };
        let doc = s.doc.replace('\n', " ").replace('|', "\\|");
        text.push_str(&format!(
            "| `{}` | {} | {default} | {doc} |\n",
            s.key, s.kind
        ));
    }
    text
}

/// What `node` refers to, if it only refers.
pub(super) fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    match node.get("$ref").and_then(Value::as_str) {
        Some(path) => root.pointer(path.trim_start_matches('#')).unwrap_or(node),
        None => node,
    }
}

fn walk(root: &Value, node: &Value, prefix: &str, defaults: &Value, out: &mut Vec<Setting>) {
    let Some(properties) = resolve(root, node)
        .get("properties")
        .and_then(Value::as_object)
    else {
        return;
    };
    for (name, property) in properties {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let default = property
            .get("default")
            .or_else(|| defaults.get(name))
            .cloned()
            .unwrap_or(Value::Null);
        let target = resolve(root, property);
        if target.get("properties").is_some() {
            walk(root, target, &key, &default, out);
            continue;
        }
        out.push(Setting {
            key: key.clone(),
            kind: kind(present(root, target)),
            default,
            doc: property
                .get("description")
                .or_else(|| target.get("description"))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        });
        // A section that need not be there is a setting, and so is each of its own.
        walk(root, present(root, target), &key, &Value::Null, out);
    }
}

/// What an optional setting is when it is given: schemars writes `Option<T>` as `T` or null.
pub(super) fn present<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    node.get("anyOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|one| resolve(root, one))
        .find(|one| one.get("type").and_then(Value::as_str) != Some("null"))
        .unwrap_or(node)
}

fn kind(node: &Value) -> String {
    let choices: Vec<String> = node
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|one| one.get("const").map(|c| format!("`{c}`").replace('"', "")))
        .collect();
    if !choices.is_empty() {
        return choices.join(" or ");
    }
    match node.get("type") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(many)) => many
            .iter()
            .filter_map(Value::as_str)
            .filter(|t| *t != "null")
            .collect::<Vec<_>>()
            .join(" or "),
        _ => "value".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_says_what_it_means() {
        let settings = settings();
        for key in ["topics.prefix", "gateway.spill", "gateway.spill.dir"] {
            assert!(settings.iter().any(|s| s.key == key), "{key}");
        }
        for s in &settings {
            assert_ne!(s.kind, "value", "{} has no type", s.key);
            assert!(!s.doc.is_empty(), "{} has no doc comment", s.key);
        }
    }
}

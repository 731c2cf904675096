//! Reading a workspace in either of two shapes: RudderStack's `workspaceConfig.json` and ours.
//!
//! Ours is the same idea with the names spelt as in the rest of Sluice, in YAML or JSON:
//!
//! ```yaml
//! sources:
//!   - {id: web, name: Website, write_key: WRITE_KEY, type: HTTP}
//! destinations:
//!   - {id: hook, type: WEBHOOK, config: {webhookUrl: "https://example.com/hook"}}
//! connections:
//!   - {source: web, destination: hook}
//! ```

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::ControlError;
use super::workspace::{Destination, Source, Workspace};

/// Parses `text` (JSON or YAML, either shape). `origin` names it in errors.
///
/// # Errors
/// When it is neither shape, an id or write key is missing or given twice, or a connection names what is not there.
pub fn parse_workspace(origin: &str, text: &str, revision: i64) -> Result<Workspace, ControlError> {
    let invalid = |message: String| ControlError::Invalid {
        origin: origin.to_owned(),
        message,
    };
    let value: Value = serde_yaml_ng::from_str(text).map_err(|e| invalid(e.to_string()))?;
    let rudder_shape = value.get("workspaceId").is_some()
        || value
            .get("sources")
            .and_then(Value::as_array)
            .is_some_and(|sources| sources.iter().any(|s| s.get("writeKey").is_some()));
    let (id, sources, destinations, blocked) = if rudder_shape {
        rudder(value).map_err(invalid)?
    } else {
        ours(value).map_err(invalid)?
    };
    check(&sources, &destinations).map_err(invalid)?;
    Ok(Workspace::new(id, revision, sources, destinations, blocked))
}

type Parts = (String, Vec<Source>, Vec<Destination>, HashSet<String>);

fn check(sources: &[Source], destinations: &[Destination]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for s in sources {
        if s.id.is_empty() || s.write_key.is_empty() {
            return Err(format!("source {:?} needs an id and a write key", s.name));
        }
        if !seen.insert(("source", s.id.as_str())) {
            return Err(format!("source id {:?} is given twice", s.id));
        }
        if !seen.insert(("write key", s.write_key.as_str())) {
            return Err(format!(
                "source {:?} has a write key that another source has too",
                s.id
            ));
        }
    }
    for d in destinations {
        if d.id.is_empty() || d.kind.is_empty() {
            return Err(format!("destination {:?} needs an id and a type", d.name));
        }
        if !seen.insert(("destination", d.id.as_str())) {
            return Err(format!("destination id {:?} is given twice", d.id));
        }
    }
    let known: HashSet<&str> = destinations.iter().map(|d| d.id.as_str()).collect();
    for s in sources {
        if let Some(missing) = s.destinations.iter().find(|d| !known.contains(d.as_str())) {
            return Err(format!(
                "source {:?} is connected to destination {missing:?}, which is not there",
                s.id
            ));
        }
    }
    Ok(())
}

/// RudderStack's shape; destinations hang under their sources. Only the keys we use are named: the document has many more.
fn rudder(value: Value) -> Result<Parts, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Root {
        #[serde(default)]
        workspace_id: String,
        #[serde(default)]
        sources: Vec<RudderSource>,
        #[serde(default)]
        settings: Settings,
        #[serde(default)]
        connections: HashMap<String, RudderConnection>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Settings {
        event_blocking: Option<Blocking>,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Blocking {
        events: HashMap<String, Vec<String>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RudderConnection {
        source_id: String,
        destination_id: String,
        #[serde(default = "yes")]
        enabled: bool,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RudderSource {
        #[serde(default)]
        id: String,
        #[serde(default)]
        original_id: Option<String>,
        #[serde(default)]
        name: String,
        #[serde(default)]
        write_key: String,
        #[serde(default = "yes")]
        enabled: bool,
        #[serde(default)]
        config: Value,
        #[serde(default)]
        source_definition: Definition,
        #[serde(default)]
        destinations: Vec<RudderDestination>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RudderDestination {
        #[serde(default)]
        id: String,
        #[serde(default)]
        name: String,
        #[serde(default = "yes")]
        enabled: bool,
        #[serde(default)]
        config: Value,
        #[serde(default)]
        destination_definition: Definition,
        #[serde(default)]
        lane: Option<String>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Definition {
        name: String,
        display_name: String,
        category: Option<String>,
        config: Value,
    }

    let root: Root = serde_path_to_error::deserialize(value)
        .map_err(|e| format!("{}: {}", e.path(), e.inner()))?;
    let disabled: HashSet<(String, String)> = root
        .connections
        .into_values()
        .filter(|c| !c.enabled)
        .map(|c| (c.source_id, c.destination_id))
        .collect();
    let mut destinations: Vec<Destination> = Vec::new();
    let mut known = HashSet::new();
    let mut sources = Vec::new();
    for s in root.sources {
        let connected = s
            .destinations
            .iter()
            .map(|d| d.id.clone())
            .filter(|d| !disabled.contains(&(s.id.clone(), d.clone())))
            .collect();
        for d in s.destinations {
            // A destination that several sources feed is written out under each of them.
            if known.insert(d.id.clone()) {
                let definition = d.destination_definition;
                destinations.push(Destination {
                    lane: d.lane.unwrap_or_else(|| d.id.clone()),
                    id: d.id,
                    name: d.name,
                    display_name: or(definition.display_name, &definition.name),
                    kind: definition.name.to_uppercase(),
                    enabled: d.enabled,
                    config: d.config,
                    supported_types: supported_types(&definition.config),
                });
            }
        }
        sources.push(Source {
            id: s.id,
            name: s.name,
            write_key: s.write_key,
            enabled: s.enabled,
            definition: s.source_definition.name,
            category: s.source_definition.category.unwrap_or_default(),
            original_id: s.original_id.filter(|id| !id.is_empty()),
            config: s.config,
            destinations: connected,
        });
    }
    let blocked = root
        .settings
        .event_blocking
        .and_then(|b| b.events.into_iter().find(|(kind, _)| kind == "track"))
        .map(|(_, names)| names.into_iter().collect())
        .unwrap_or_default();
    Ok((root.workspace_id, sources, destinations, blocked))
}

/// `supportedMessageTypes` is a flat list for the server, but the public definitions write a map per connection mode;
/// both are understood (RudderStack's server silently loses the filter on the second).
fn supported_types(definition: &Value) -> Vec<String> {
    let types = match definition.get("supportedMessageTypes") {
        Some(Value::Object(modes)) => modes.get("cloud"),
        other => other,
    };
    types
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_lowercase)
        .collect()
}

fn ours(value: Value) -> Result<Parts, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Root {
        #[serde(default)]
        workspace: String,
        #[serde(default)]
        sources: Vec<OurSource>,
        #[serde(default)]
        destinations: Vec<OurDestination>,
        #[serde(default)]
        connections: Vec<OurConnection>,
        #[serde(default)]
        blocked_events: HashSet<String>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OurSource {
        id: String,
        #[serde(default)]
        name: String,
        write_key: String,
        #[serde(default = "yes")]
        enabled: bool,
        #[serde(default, rename = "type")]
        definition: String,
        #[serde(default)]
        category: String,
        #[serde(default)]
        config: Value,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OurDestination {
        id: String,
        #[serde(default)]
        name: String,
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        display_name: String,
        #[serde(default = "yes")]
        enabled: bool,
        #[serde(default)]
        config: Value,
        #[serde(default)]
        supported_types: Vec<String>,
        #[serde(default)]
        lane: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OurConnection {
        source: String,
        destination: String,
        #[serde(default = "yes")]
        enabled: bool,
    }

    let root: Root = serde_path_to_error::deserialize(value)
        .map_err(|e| format!("{}: {}", e.path(), e.inner()))?;
    let mut connected: HashMap<String, Vec<String>> = HashMap::new();
    for c in root.connections.into_iter().filter(|c| c.enabled) {
        if !root.sources.iter().any(|s| s.id == c.source) {
            return Err(format!(
                "a connection names source {:?}, which is not there",
                c.source
            ));
        }
        connected.entry(c.source).or_default().push(c.destination);
    }
    let sources = root
        .sources
        .into_iter()
        .map(|s| Source {
            destinations: connected.remove(&s.id).unwrap_or_default(),
            name: or(s.name, &s.id),
            id: s.id,
            write_key: s.write_key,
            enabled: s.enabled,
            definition: s.definition,
            category: s.category,
            original_id: None,
            config: s.config,
        })
        .collect();
    let destinations = root
        .destinations
        .into_iter()
        .map(|d| Destination {
            name: or(d.name, &d.id),
            display_name: or(d.display_name, display_name(&d.kind)),
            lane: d.lane.unwrap_or_else(|| d.id.clone()),
            id: d.id,
            kind: d.kind.to_uppercase(),
            enabled: d.enabled,
            config: d.config,
            supported_types: d.supported_types.iter().map(|t| t.to_lowercase()).collect(),
        })
        .collect();
    Ok((root.workspace, sources, destinations, root.blocked_events))
}

/// RudderStack's display names of the definitions we know: the keys people write into `integrations`.
fn display_name(kind: &str) -> &str {
    match kind.to_uppercase().as_str() {
        "WEBHOOK" => "Webhook",
        "HTTP" => "HTTP Webhook",
        "POSTGRES" => "Postgres",
        "SQLITE" => "SQLite",
        "CLICKHOUSE" => "ClickHouse",
        "SNOWFLAKE" => "Snowflake",
        "BQ" => "BigQuery",
        "RS" => "Redshift",
        "KAFKA" => "Apache Kafka",
        _ => kind,
    }
}

fn or(text: String, fallback: &str) -> String {
    if text.is_empty() {
        fallback.to_owned()
    } else {
        text
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Route;

    const RUDDER: &str = r#"{"workspaceId":"w1","sources":[
      {"id":"s1","name":"web","writeKey":"k1","enabled":true,"sourceDefinition":{"name":"HTTP","category":null},
       "destinations":[
        {"id":"d1","name":"hook","enabled":true,"config":{"webhookUrl":"http://x"},
         "destinationDefinition":{"name":"WEBHOOK","displayName":"Webhook","config":{"supportedMessageTypes":{"cloud":["track","Identify"]}}}},
        {"id":"d2","name":"pg","enabled":false,"config":{},"destinationDefinition":{"name":"POSTGRES","displayName":"Postgres","config":{}}}]},
      {"id":"s2","name":"app","writeKey":"k2","enabled":false,"sourceDefinition":{"name":"Android"},
       "destinations":[{"id":"d1","name":"hook","enabled":true,"config":{},"destinationDefinition":{"name":"WEBHOOK","displayName":"Webhook"}}]}],
      "settings":{"eventBlocking":{"events":{"track":["Noise"]}}},
      "connections":{"c1":{"sourceId":"s2","destinationId":"d1","enabled":false}}}"#;

    #[test]
    fn rudderstacks_file_is_read_as_it_is() {
        let w = parse_workspace("test", RUDDER, 1).unwrap();
        let web = w.source_by_write_key("k1").unwrap();
        let ids: Vec<&str> = w.connected(web).map(|d| d.id.as_str()).collect();
        assert_eq!(ids, ["d1"], "the disabled destination is not connected");
        let hook = w.destination("d1").unwrap();
        assert_eq!(hook.route(), Route::Deliver);
        assert_eq!(hook.supported_types, ["track", "identify"]);
        assert_eq!(w.destination("d2").unwrap().route(), Route::Warehouse);
        assert!(
            w.source("s2").unwrap().destinations.is_empty(),
            "the connection is off"
        );
        assert!(w.blocked_events.contains("Noise"));
    }

    #[test]
    fn our_yaml_is_read_and_its_mistakes_are_named() {
        let text = "sources: [{id: web, write_key: K}]\ndestinations: [{id: hook, type: webhook, lane: shared}]\nconnections: [{source: web, destination: hook}]";
        let w = parse_workspace("test", text, 1).unwrap();
        assert_eq!(w.lanes(), ["shared"]);
        assert_eq!(w.destination("hook").unwrap().display_name, "Webhook");
        let wrong = text.replace("destination: hook", "destination: hok");
        let error = parse_workspace("test", &wrong, 1).unwrap_err().to_string();
        assert!(error.contains("hok"), "{error}");
        let twice = "sources: [{id: a, write_key: K}, {id: b, write_key: K}]";
        assert!(parse_workspace("test", twice, 1).is_err());
    }
}

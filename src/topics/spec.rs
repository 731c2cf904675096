//! `topics.yaml`, read and checked without a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::units::kafka_value;
use crate::event::{Stage, Topic};
use crate::fault::{Classify, Fault};

/// The declaration that is part of the binary.
pub const EMBEDDED: &str = include_str!("../../topics.yaml");

/// How many copies must have a record before it counts as acknowledged.
pub const MIN_INSYNC: &str = "min.insync.replicas";

/// What a topic should look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// How many partitions.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication: i16,
    /// Whether order within a key matters, so that adding partitions is not harmless.
    pub keyed: bool,
    /// Short name of the topic whose partition count it must have.
    pub copartition_with: Option<String>,
    /// Kafka's topic settings, in Kafka's numbers.
    pub config: BTreeMap<String, String>,
}

/// A declaration that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    defaults: Entry,
    topics: BTreeMap<String, Entry>,
}

/// Why a declaration cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SpecError {
    #[error("could not read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{origin} is not a topics file: {message}")]
    Syntax { origin: String, message: String },
    #[error("{origin}: {}", problems.join("; "))]
    Invalid {
        origin: String,
        problems: Vec<String>,
    },
    #[error("topics and settings do not fit together: {}", problems.join("; "))]
    Unfit { problems: Vec<String> },
}

impl Classify for SpecError {
    fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Syntax { .. } | Self::Invalid { .. } | Self::Unfit { .. } => {
                Fault::Fatal
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "topics_unreadable",
            Self::Syntax { .. } => "topics_syntax",
            Self::Invalid { .. } => "topics_invalid",
            Self::Unfit { .. } => "topics_unfit",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Entry {
    partitions: Option<i32>,
    replication: Option<i16>,
    keyed: Option<bool>,
    copartition_with: Option<String>,
    config: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    defaults: Entry,
    topics: BTreeMap<String, Entry>,
}

impl Spec {
    /// The declaration at `path`, or the one in the binary.
    ///
    /// # Errors
    /// When it cannot be read or is wrong; the message names what and where.
    pub fn load(path: Option<&Path>) -> Result<Self, SpecError> {
        let Some(path) = path else {
            return Self::parse("topics.yaml", EMBEDDED);
        };
        let text = std::fs::read_to_string(path).map_err(|source| SpecError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads and checks `text`; `origin` is named in errors.
    ///
    /// # Errors
    /// As [`Spec::load`].
    pub fn parse(origin: &str, text: &str) -> Result<Self, SpecError> {
        let file: File = serde_yaml_ng::from_str(text).map_err(|error| SpecError::Syntax {
            origin: origin.to_owned(),
            message: error.to_string(),
        })?;
        let mut problems = Vec::new();
        if file.version != 1 {
            problems.push(format!(
                "version: {} is not one that this binary reads (1)",
                file.version
            ));
        }
        let spec = Self {
            defaults: file.defaults,
            topics: file.topics,
        };
        spec.lint(&mut problems);
        if problems.is_empty() {
            Ok(spec)
        } else {
            Err(SpecError::Invalid {
                origin: origin.to_owned(),
                problems,
            })
        }
    }

    /// The shape of the topic with this short name (without prefix). An entry of its own lies over its family's, and that
    /// over the defaults. `None` for a name that no family covers.
    pub fn shape(&self, short: &str) -> Option<Shape> {
        let family = self.topics.get(&family_of(short));
        let own = self.topics.get(short);
        if family.is_none() && own.is_none() {
            return None;
        }
        let layers: Vec<&Entry> = [own, family].into_iter().flatten().collect();
        let partner = layers
            .iter()
            .find_map(|e| e.copartition_with.as_deref())
            .map(|with| sibling(short, with));
        let partitions = match &partner {
            Some(partner) => self.shape(partner)?.partitions,
            None => layers
                .iter()
                .find_map(|e| e.partitions)
                .or(self.defaults.partitions)?,
        };
        let mut config = BTreeMap::new();
        for layer in [Some(&self.defaults), family, own].into_iter().flatten() {
            for (key, value) in &layer.config {
                config.insert(key.clone(), kafka_value(key, &scalar(value)).ok()?);
            }
        }
        Some(Shape {
            partitions,
            replication: layers
                .iter()
                .find_map(|e| e.replication)
                .or(self.defaults.replication)?,
            keyed: layers.iter().find_map(|e| e.keyed).unwrap_or(false),
            copartition_with: partner,
            config,
        })
    }

    /// The names in the file, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    fn lint(&self, problems: &mut Vec<String>) {
        let families = families();
        for family in &families {
            if !self.topics.contains_key(*family) {
                problems.push(format!("topics.{family}: missing"));
            }
        }
        for (name, entry) in &self.topics {
            if !families.contains(&name.as_str()) && !families.contains(&family_of(name).as_str()) {
                problems.push(format!(
                    "topics.{name}: not a topic of Sluice; there are {}",
                    families.join(", ")
                ));
                continue;
            }
            let before = problems.len();
            self.lint_entry(name, entry, problems);
            if problems.len() > before {
                continue;
            }
            match self.shape(name) {
                Some(shape) => lint_shape(name, &shape, problems),
                None => problems.push(format!(
                    "topics.{name}: partitions and replication must be given here or under defaults"
                )),
            }
        }
        // A dead letter must be as safe as the record it keeps.
        let copies = |short: &str| self.shape(short).map(|shape| shape.replication);
        if copies("dlq.*") < copies("events") {
            problems.push("topics.dlq.*.replication: must not be below that of events".to_owned());
        }
    }

    fn lint_entry(&self, name: &str, entry: &Entry, problems: &mut Vec<String>) {
        if let Some(with) = &entry.copartition_with {
            if family_of(name) != name {
                problems.push(format!(
                    "topics.{name}.copartition_with: belongs to the family {}",
                    family_of(name)
                ));
            }
            if entry.partitions.is_some() {
                problems.push(format!(
                    "topics.{name}: partitions comes from copartition_with ({with}); remove one of them"
                ));
            }
            match self.topics.get(with) {
                None => problems.push(format!("topics.{name}.copartition_with: {with} is not declared")),
                Some(other) if other.copartition_with.is_some() => problems.push(format!(
                    "topics.{name}.copartition_with: {with} takes its count from another topic; name that one"
                )),
                Some(_) if with.ends_with(".*") != family_of(name).ends_with(".*") => {
                    problems.push(format!(
                        "topics.{name}.copartition_with: {with} does not have one topic for each of {name}"
                    ));
                }
                Some(_) => {}
            }
        }
        for (key, value) in self.defaults.config.iter().chain(&entry.config) {
            if value.is_object() || value.is_array() || value.is_null() {
                problems.push(format!("topics.{name}.config.{key}: must be one value"));
            } else if let Err(problem) = kafka_value(key, &scalar(value)) {
                problems.push(format!("topics.{name}.config.{key}: {problem}"));
            }
        }
    }
}

fn lint_shape(name: &str, shape: &Shape, problems: &mut Vec<String>) {
    if shape.partitions < 1 {
        problems.push(format!("topics.{name}.partitions: must be at least 1"));
    }
    if shape.replication < 1 {
        problems.push(format!("topics.{name}.replication: must be at least 1"));
    }
    if let Some(min) = shape.config.get(MIN_INSYNC)
        && !min
            .parse::<i16>()
            .is_ok_and(|min| (1..=shape.replication.max(1)).contains(&min))
    {
        problems.push(format!(
            "topics.{name}.config.{MIN_INSYNC}: {min} must be from 1 to replication ({}), or nothing can be written",
            shape.replication
        ));
    }
    // Compaction keeps the newest record of a key: right for configuration, the loss of all but one event of a user elsewhere.
    let compacted = shape
        .config
        .get("cleanup.policy")
        .is_some_and(|policy| policy.split(',').any(|p| p.trim() == "compact"));
    if compacted != (name == Topic::Config.family()) {
        problems.push(if compacted {
            format!("topics.{name}.config.cleanup.policy: compaction would drop all but the newest record of each key")
        } else {
            format!("topics.{name}.config.cleanup.policy: must be compact, or old objects are deleted by age")
        });
    }
}

/// The families of [`Topic`], as they are spelt in the file.
pub fn families() -> Vec<&'static str> {
    let any = String::new;
    [
        Topic::Events,
        Topic::Seen,
        Topic::Deliver(any()),
        Topic::Parked(any()),
        Topic::Warehouse(any()),
        Topic::Dlq(Stage::Processor),
        Topic::Ledger,
        Topic::Config,
    ]
    .map(|topic| topic.family())
    .to_vec()
}

/// `deliver.webhook-1` belongs to `deliver.*`; a name without a dot is its own family.
fn family_of(short: &str) -> String {
    short
        .split_once('.')
        .map_or_else(|| short.to_owned(), |(first, _)| format!("{first}.*"))
}

/// The topic that `with` means for `short`: `deliver.x` for `parked.x` and `deliver.*`.
fn sibling(short: &str, with: &str) -> String {
    match (with.strip_suffix('*'), short.split_once('.')) {
        (Some(stem), Some((_, member))) => format!("{stem}{member}"),
        (Some(_), None) | (None, _) => with.to_owned(),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;

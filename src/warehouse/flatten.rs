//! An object of an event as a list of key paths and values.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::cell::{Cell, json_text, text};
use super::dialect::{Dialect, JsonPaths};
use super::json_paths::PathSet;
use super::schema::ColumnType;

/// How deep an event of source category `cloud` is flattened; objects there stay JSON text.
const CLOUD_DEPTH: usize = 3;

/// What is flattened and where it stands in the event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'p> {
    /// Put before every key path: `context_`, or nothing.
    pub(super) prefix: &'p str,
    /// Where the section stands, for JSON paths: `track_properties_`.
    pub(super) location: &'p str,
    /// How many names [`Section::location`] joins.
    pub(super) location_depth: usize,
    /// Whether an object that is a spread string (`{"0":"a","1":"b"}`) is put together again.
    pub(super) joins_strings: bool,
}

/// The rules in force for one event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flatten<'p> {
    /// Warehouse facts.
    pub(super) dialect: &'static Dialect,
    /// Values that stay whole.
    pub(super) json_paths: &'p PathSet,
    /// Whether the event is a track: older JSON paths apply to nothing else.
    pub(super) is_track: bool,
    /// Whether the source is of category `cloud`.
    pub(super) is_cloud: bool,
}

/// Where a value lands: key path, type, value.
pub(super) type Leaf<'a, 's> = (&'s str, ColumnType, Cell<'a>);

impl Flatten<'_> {
    /// Calls `leaf` for every value under `object` that becomes a column, keys in byte order.
    pub(super) fn each<'a>(
        &self,
        section: Section<'_>,
        object: &'a Map<String, Value>,
        leaf: &mut impl FnMut(Leaf<'a, '_>),
    ) {
        let mut path = section.prefix.to_owned();
        self.walk(section, object, 0, &mut path, leaf);
    }

    fn walk<'a>(
        &self,
        section: Section<'_>,
        object: &'a Map<String, Value>,
        depth: usize,
        path: &mut String,
        leaf: &mut impl FnMut(Leaf<'a, '_>),
    ) {
        for (key, value) in object {
            if is_blank(value) {
                continue;
            }
            let parent = path.len();
            path.push_str(key);
            self.value(section, key, value, depth, path, leaf);
            path.truncate(parent);
        }
    }

    fn value<'a>(
        &self,
        section: Section<'_>,
        key: &str,
        value: &'a Value,
        depth: usize,
        path: &mut String,
        leaf: &mut impl FnMut(Leaf<'a, '_>),
    ) {
        if self.stays_json(section, path, depth) {
            let (kind, cell) = self.json(json_text(value));
            leaf((path, kind, cell));
            return;
        }
        match value {
            Value::Object(inner) => {
                if section.joins_strings
                    && depth == 0
                    && key == "traits"
                    && let Some(joined) = spread_string(inner)
                {
                    leaf((path, ColumnType::String, Cell::Text(joined.into())));
                } else if self.is_cloud && depth >= CLOUD_DEPTH {
                    let text = json_text(value);
                    leaf((path, self.string_kind(&text), Cell::Text(text.into())));
                } else {
                    path.push('_');
                    self.walk(section, inner, depth + 1, path, leaf);
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                if let Some((kind, cell)) = self.infer(path, value) {
                    leaf((path, kind, cell));
                }
            }
        }
    }

    /// The type and value of anything but an object.
    pub(super) fn infer<'a>(&self, path: &str, value: &'a Value) -> Option<(ColumnType, Cell<'a>)> {
        if self.dialect.violation_errors_json && path == "violationErrors" {
            return Some((ColumnType::Json, Cell::Json(json_text(value).into())));
        }
        let (kind, cell) = match value {
            Value::String(string) => text(string),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Cell::infer(value)?,
        };
        match (&kind, &cell) {
            (ColumnType::String, Cell::Text(text) | Cell::Array(text)) => {
                Some((self.string_kind(text), cell))
            }
            _ => Some((kind, cell)),
        }
    }

    fn stays_json(&self, section: Section<'_>, path: &str, depth: usize) -> bool {
        if self.json_paths.is_empty() {
            return false;
        }
        let relative = &path[section.prefix.len()..];
        let full = format!("{}{relative}", section.location);
        self.json_paths.has(&full, depth + section.location_depth)
            || (self.is_track
                && self
                    .json_paths
                    .has_legacy(path, depth + usize::from(!section.prefix.is_empty())))
    }

    fn json<'a>(&self, json: String) -> (ColumnType, Cell<'a>) {
        let json: Cow<'a, str> = json.into();
        match self.dialect.json_paths {
            JsonPaths::AsJson => (ColumnType::Json, Cell::Json(json)),
            JsonPaths::AsString | JsonPaths::Ignored => (ColumnType::String, Cell::Text(json)),
        }
    }

    fn string_kind(&self, text: &str) -> ColumnType {
        let is_text = self.dialect.text_above.is_some_and(|max| {
            // No text has more UTF-16 units than bytes.
            text.len() > max && text.encode_utf16().count() > max
        });
        if is_text {
            ColumnType::Text
        } else {
            ColumnType::String
        }
    }
}

/// RudderStack's "blank": null, "", [] and arrays of one blank that is not null. `0`, `false` and `{}` are not.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => match items.as_slice() {
            [] => true,
            [Value::Null] => false,
            [only] => is_blank(only),
            [_, _, ..] => false,
        },
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// The string that some client spread into an object: keys count up from 0 or 1, values are one character each.
pub(super) fn spread_string(object: &Map<String, Value>) -> Option<String> {
    let first = usize::from(!object.contains_key("0"));
    if object.is_empty() {
        return None;
    }
    (first..first + object.len())
        .map(|at| match object.get(&at.to_string()) {
            Some(Value::String(one)) if one.chars().count() == 1 => Some(one.as_str()),
            _ => None,
        })
        .collect()
}

//! Table and column names from event names and key paths, by RudderStack's rules.
//!
//! A name is made in three steps: *transform* (words of ASCII letters and digits in snake case, or the older "blendo" casing),
//! *safe* (case, reserved words and length of the warehouse), and for event tables *created-table escape*, so that an event
//! called `users` cannot write into `users`.

use std::collections::HashMap;
use std::sync::Arc;

use super::dialect::Dialect;
use super::snake::{Digits, snake_case};

/// How names are made for one event: from the destination's config and the event's `integrations` options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Casing {
    /// `useBlendoCasing`: lower case and underscores only, words are not split.
    pub blendo: bool,
    /// `underscoreDivideNumbers` of the destination.
    pub digits: Digits,
    /// `skipReservedKeywordsEscaping`: reserved words and RudderStack's own table names stay as they are.
    pub keep_reserved: bool,
}

impl Default for Casing {
    fn default() -> Self {
        Self {
            blendo: false,
            digits: Digits::Cling,
            keep_reserved: false,
        }
    }
}

/// The column for a key path joined with `_`; `None` when nothing is left of it and the value is skipped.
pub fn column(dialect: &Dialect, casing: Casing, path: &str) -> Option<String> {
    non_empty(transform_column(dialect, casing, path)).map(|name| safe(dialect, casing, &name))
}

/// The table for a track event's name; `None` when nothing is left of it and the event gets no table of its own.
pub fn table(dialect: &Dialect, casing: Casing, event: &str) -> Option<String> {
    let name = non_empty(transform_column(
        dialect,
        casing,
        &transform_table(casing, event),
    ))?;
    let name = safe(dialect, casing, &name);
    Some(escape_created(casing, name))
}

/// What a track event's `event` column says: the name before [`safe`] and the escapes.
pub fn event(casing: Casing, event: &str) -> String {
    transform_table(casing, event)
}

/// One of the tables that RudderStack itself names (`tracks`, `users`, …), as the warehouse spells it.
pub fn own_table(dialect: &Dialect, casing: Casing, name: &str) -> String {
    safe(dialect, casing, name)
}

/// The first step for event names.
pub fn transform_table(casing: Casing, name: &str) -> String {
    if casing.blendo {
        return name.trim().to_lowercase();
    }
    transform(casing.digits, name)
}

/// The first step for key paths.
pub fn transform_column(dialect: &Dialect, casing: Casing, name: &str) -> String {
    let name = if casing.blendo {
        blendo(name)
    } else {
        transform(casing.digits, name)
    };
    cut(name, dialect.name_max)
}

/// Case, reserved words and length of the warehouse.
pub fn safe(dialect: &Dialect, casing: Casing, name: &str) -> String {
    let name = cut(name.to_owned(), dialect.name_max);
    let mut name = if dialect.upper {
        name.to_uppercase()
    } else {
        name.to_lowercase()
    };
    if !casing.keep_reserved && dialect.is_reserved(&name) {
        name.insert(0, '_');
    }
    cut(name, dialect.identifier_max)
}

/// The schema or dataset for a configured namespace or a source's name. Digits are words of their own here, in every
/// warehouse but BigQuery.
pub fn namespace(dialect: &Dialect, name: &str) -> String {
    let digits = if dialect.name == "BQ" {
        Digits::Cling
    } else {
        Digits::Divide
    };
    let mut namespace = transform(digits, name.trim_start_matches('_'));
    if namespace.is_empty() {
        return "stringempty".to_owned();
    }
    if dialect.is_reserved(&namespace) {
        namespace.insert(0, '_');
    }
    if dialect.upper {
        namespace.make_ascii_uppercase();
    }
    cut(namespace, dialect.name_max.or(Some(127)))
}

/// Tables that belong to us even when reserved words are kept: a row of a customer's event must never land in them.
const ALWAYS_OURS: [&str; 4] = ["users", "identifies", "rudder_discards", "sluice_loads"];
/// Tables that hold one event type each.
const OURS: [&str; 6] = [
    "tracks", "pages", "screens", "aliases", "groups", "accounts",
];

/// RudderStack lets an event called `rudder_discards` write into the discards table; here it is escaped as `users` is.
fn escape_created(casing: Casing, mut name: String) -> String {
    let is = |known: &&str| name.eq_ignore_ascii_case(known);
    let ours = ALWAYS_OURS.iter().any(is) || (!casing.keep_reserved && OURS.iter().any(is));
    if ours {
        name.insert(0, '_');
    }
    name
}

fn transform(digits: Digits, name: &str) -> String {
    let rest = name.trim_start_matches('_');
    let underscores = name.len() - rest.len();
    let joined = rest
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|run| !run.is_empty())
        .fold(String::with_capacity(rest.len()), |mut joined, run| {
            if !joined.is_empty() {
                joined.push('_');
            }
            joined.push_str(run);
            joined
        });
    let mut transformed = "_".repeat(underscores);
    transformed.push_str(&snake_case(&joined, digits));
    if transformed.starts_with(|c: char| c.is_ascii_digit()) {
        transformed.insert(0, '_');
    }
    transformed
}

fn blendo(name: &str) -> String {
    let mut cased: String = name
        .chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
            '\\' | '$' | '_' => c,
            _ => '_',
        })
        .collect();
    if !cased.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        cased.insert(0, '_');
    }
    cased
}

/// The first `max` UTF-16 units, never half a character.
fn cut(mut name: String, max: Option<usize>) -> String {
    let Some(max) = max.filter(|&max| name.len() > max) else {
        return name;
    };
    let mut units = 0;
    let end = name
        .char_indices()
        .find(|(_, c)| {
            units += c.len_utf16();
            units > max
        })
        .map_or(name.len(), |(at, _)| at);
    name.truncate(end);
    name
}

fn non_empty(name: String) -> Option<String> {
    (!name.is_empty()).then_some(name)
}

/// Column names by key path, so that a name is made once and not once per event.
///
/// Customers send a few hundred different paths; whoever sends unbounded ones (ids as keys) empties the cache and pays the
/// price of making names, not of memory.
#[derive(Debug)]
pub struct NameCache {
    dialect: &'static Dialect,
    entries_max: usize,
    by_casing: HashMap<Casing, Names>,
    entries: usize,
}

type Names = HashMap<Box<str>, Option<Arc<str>>>;

impl NameCache {
    /// An empty cache of at most `entries_max` names.
    pub fn new(dialect: &'static Dialect, entries_max: usize) -> Self {
        Self {
            dialect,
            entries_max,
            by_casing: HashMap::new(),
            entries: 0,
        }
    }

    /// The dialect names are made for.
    pub fn dialect(&self) -> &'static Dialect {
        self.dialect
    }

    /// See [`column`].
    pub fn column(&mut self, casing: Casing, path: &str) -> Option<Arc<str>> {
        if let Some(known) = self
            .by_casing
            .get(&casing)
            .and_then(|names| names.get(path))
        {
            return known.clone();
        }
        if self.entries >= self.entries_max {
            self.by_casing.clear();
            self.entries = 0;
        }
        let name: Option<Arc<str>> = column(self.dialect, casing, path).map(Arc::from);
        self.by_casing
            .entry(casing)
            .or_default()
            .insert(path.into(), name.clone());
        self.entries += 1;
        name
    }
}

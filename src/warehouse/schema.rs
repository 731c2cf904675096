//! Column types, the columns of a table, and how a table's columns grow.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// RudderStack's column types. What a warehouse calls them is its loader's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// 64-bit integer.
    Int,
    /// Double-precision number.
    Float,
    /// Text.
    String,
    /// Text beyond Redshift's old 512 bytes; elsewhere the same as string.
    Text,
    /// Boolean.
    Boolean,
    /// Instant in UTC.
    Datetime,
    /// JSON.
    Json,
}

impl ColumnType {
    /// Every type.
    pub const ALL: [ColumnType; 7] = [
        Self::Int,
        Self::Float,
        Self::String,
        Self::Text,
        Self::Boolean,
        Self::Datetime,
        Self::Json,
    ];

    /// RudderStack's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Float => "float",
            Self::String => "string",
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Datetime => "datetime",
            Self::Json => "json",
        }
    }

    /// The type that a column has once values of `later` follow values of `self`.
    ///
    /// The first type wins and later values are converted or discarded; only `text` replaces `string`.
    pub fn widen(self, later: ColumnType) -> ColumnType {
        match (self, later) {
            (Self::String, Self::Text) => Self::Text,
            (first, _) => first,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The columns of one table, by name.
pub type TableSchema = BTreeMap<String, ColumnType>;

/// What a table lacks to take rows of another schema.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SchemaDiff {
    /// Columns to add, by name.
    pub add: TableSchema,
    /// String columns that must become text.
    pub widen: Vec<String>,
    /// Columns that cannot be added because the table is full; their values are discarded.
    pub refused: Vec<String>,
}

impl SchemaDiff {
    /// Whether the table takes the rows as it is.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.widen.is_empty()
    }
}

/// What `existing` lacks to take rows of `incoming`, if it may have at most `columns_max` columns.
///
/// Columns are only ever added; an existing type stays, whatever the rows say.
pub fn diff(existing: &TableSchema, incoming: &TableSchema, columns_max: usize) -> SchemaDiff {
    let mut diff = SchemaDiff::default();
    for (name, &kind) in incoming {
        match existing.get(name) {
            Some(&known) if known.widen(kind) != known => diff.widen.push(name.clone()),
            Some(_) => {}
            None if existing.len() + diff.add.len() < columns_max => {
                diff.add.insert(name.clone(), kind);
            }
            None => diff.refused.push(name.clone()),
        }
    }
    diff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(columns: &[(&str, ColumnType)]) -> TableSchema {
        columns
            .iter()
            .map(|&(name, kind)| (name.to_owned(), kind))
            .collect()
    }

    #[test]
    fn only_missing_columns_are_added_and_an_existing_type_stays() {
        let existing = schema(&[("id", ColumnType::String), ("age", ColumnType::Int)]);
        let incoming = schema(&[("age", ColumnType::String), ("plan", ColumnType::String)]);
        let diff = diff(&existing, &incoming, 10);
        assert_eq!(diff.add, schema(&[("plan", ColumnType::String)]));
        assert!(diff.widen.is_empty() && diff.refused.is_empty());
    }

    #[test]
    fn a_full_table_refuses_columns_instead_of_failing() {
        let existing = schema(&[("id", ColumnType::String)]);
        let incoming = schema(&[("a", ColumnType::Int), ("b", ColumnType::Int)]);
        let diff = diff(&existing, &incoming, 2);
        assert_eq!(diff.add, schema(&[("a", ColumnType::Int)]));
        assert_eq!(diff.refused, ["b"]);
    }

    #[test]
    fn the_first_type_wins_and_only_text_replaces_string() {
        for first in ColumnType::ALL {
            for later in ColumnType::ALL {
                let expected = match (first, later) {
                    (ColumnType::String, ColumnType::Text) => ColumnType::Text,
                    _ => first,
                };
                assert_eq!(first.widen(later), expected);
            }
        }
    }
}

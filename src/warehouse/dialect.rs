//! What differs between warehouses when an event becomes rows: one entry per warehouse, data only.
//!
//! How rows get into a warehouse is a loader's business (see [`super::loaders`]); this is only what their tables, columns
//! and types are called. The facts are RudderStack's, for its destination types.

use super::reserved;
use super::schema::ColumnType;

/// What happens to a value that a configured JSON path points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonPaths {
    /// The warehouse has a JSON type: the value becomes one column of it.
    AsJson,
    /// The value becomes one column of JSON text.
    AsString,
    /// The paths are ignored; objects are flattened as everywhere.
    Ignored,
}

/// Naming and typing facts of one destination type.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// RudderStack's destination type, also the key under an event's `integrations`.
    pub name: &'static str,
    /// Whether identifiers are upper case.
    pub upper: bool,
    /// Longest name in UTF-16 units that is kept while a name is made (PostgreSQL cuts at 63 itself, silently).
    pub name_max: Option<usize>,
    /// Longest identifier after escaping; lakes have no limit.
    pub identifier_max: Option<usize>,
    /// Words to escape, upper case, sorted.
    pub reserved: &'static [&'static str],
    /// Meaning of `jsonPaths`.
    pub json_paths: JsonPaths,
    /// Whether the bare key `violationErrors` is a JSON column.
    pub violation_errors_json: bool,
    /// Type of `rudder_event`, the whole event kept beside its columns.
    pub full_event: ColumnType,
    /// Strings longer than this many UTF-16 units are typed `text` (Redshift, whose old tables have varchar(512)).
    pub text_above: Option<usize>,
    /// Whether the Parquet files are the result: no `users` times, no limit on names and columns.
    pub lake: bool,
    /// Whether rows are streamed in: no `users` table.
    pub streaming: bool,
    /// Whether a `loaded_at` column is declared beside `uuid_ts`.
    pub loaded_at: bool,
}

/// What most warehouses share.
const PLAIN: Dialect = Dialect {
    name: "",
    upper: false,
    name_max: None,
    identifier_max: Some(127),
    reserved: &[],
    json_paths: JsonPaths::Ignored,
    violation_errors_json: false,
    full_event: ColumnType::String,
    text_above: None,
    lake: false,
    streaming: false,
    loaded_at: false,
};

/// PostgreSQL.
pub static POSTGRES: Dialect = Dialect {
    name: "POSTGRES",
    name_max: Some(63),
    reserved: reserved::POSTGRES,
    json_paths: JsonPaths::AsJson,
    violation_errors_json: true,
    full_event: ColumnType::Json,
    ..PLAIN
};

/// SQLite, ours: named and typed as PostgreSQL, so that moving from the embedded warehouse to a server renames nothing.
pub static SQLITE: Dialect = Dialect {
    name: "SQLITE",
    name_max: Some(63),
    reserved: reserved::POSTGRES,
    json_paths: JsonPaths::AsJson,
    violation_errors_json: true,
    full_event: ColumnType::Json,
    ..PLAIN
};

/// Amazon Redshift.
pub static REDSHIFT: Dialect = Dialect {
    name: "RS",
    reserved: reserved::REDSHIFT,
    json_paths: JsonPaths::AsJson,
    full_event: ColumnType::Text,
    text_above: Some(512),
    ..PLAIN
};

/// Snowflake.
pub static SNOWFLAKE: Dialect = Dialect {
    name: "SNOWFLAKE",
    upper: true,
    reserved: reserved::SNOWFLAKE,
    json_paths: JsonPaths::AsJson,
    violation_errors_json: true,
    full_event: ColumnType::Json,
    ..PLAIN
};

/// BigQuery.
pub static BIGQUERY: Dialect = Dialect {
    name: "BQ",
    reserved: reserved::BIGQUERY,
    json_paths: JsonPaths::AsString,
    loaded_at: true,
    ..PLAIN
};

/// ClickHouse.
pub static CLICKHOUSE: Dialect = Dialect {
    name: "CLICKHOUSE",
    ..PLAIN
};

/// Parquet on S3.
pub static S3_LAKE: Dialect = Dialect {
    name: "S3_DATALAKE",
    identifier_max: None,
    reserved: reserved::S3_LAKE,
    lake: true,
    ..PLAIN
};

/// Parquet on Google Cloud Storage.
pub static GCS_LAKE: Dialect = Dialect {
    name: "GCS_DATALAKE",
    identifier_max: None,
    reserved: reserved::BIGQUERY,
    lake: true,
    ..PLAIN
};

/// Every destination type that can be mapped.
pub static DIALECTS: &[&Dialect] = &[
    &POSTGRES,
    &SQLITE,
    &REDSHIFT,
    &SNOWFLAKE,
    &BIGQUERY,
    &CLICKHOUSE,
    &S3_LAKE,
    &GCS_LAKE,
];

impl Dialect {
    /// The entry of a destination type, `None` if rows cannot be mapped for it.
    pub fn of(destination_type: &str) -> Option<&'static Dialect> {
        DIALECTS
            .iter()
            .copied()
            .find(|dialect| dialect.name.eq_ignore_ascii_case(destination_type))
    }

    /// Whether `name` must be escaped, in any case.
    pub fn is_reserved(&self, name: &str) -> bool {
        self.reserved
            .binary_search_by(|word| {
                word.bytes()
                    .cmp(name.bytes().map(|byte| byte.to_ascii_uppercase()))
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_word_of_every_warehouse_is_found() {
        for dialect in DIALECTS {
            assert!(dialect.reserved.is_sorted(), "{}", dialect.name);
            for word in dialect.reserved {
                assert!(dialect.is_reserved(&word.to_lowercase()), "{word}");
            }
            assert!(!dialect.is_reserved("order_completed"));
        }
    }

    #[test]
    fn a_destination_type_is_found_in_any_case_once() {
        for dialect in DIALECTS {
            assert_eq!(Dialect::of(&dialect.name.to_lowercase()), Some(*dialect));
        }
        assert_eq!(Dialect::of("MARKETO"), None);
    }
}

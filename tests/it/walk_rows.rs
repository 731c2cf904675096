//! What rows a captured event must become, derived by hand from RudderStack's rules, and what rows are in a warehouse.
//!
//! Nothing of the mapping under test is used: each path that occurs in the captures has its column and type in a list here,
//! and a path that is in no list fails the test, to be derived by hand too.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use serde_json::Value;
use tokio_postgres::Client;

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Float,
    Bool,
    Text,
    Time,
}
use Kind::{Bool, Float, Int, Text, Time};

/// The columns of a row that are not null, with their types and their values as text.
pub type Cells = BTreeMap<String, (Kind, String)>;

/// A table: its columns, and its rows by `id`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub columns: BTreeMap<String, Kind>,
    pub rows: BTreeMap<String, BTreeMap<String, String>>,
}

/// Tables by name.
pub type Tables = BTreeMap<String, Table>;

/// A source as the rows name it.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub source_id: &'static str,
    pub source_type: &'static str,
    pub destination_id: &'static str,
    pub destination_type: &'static str,
}

type Name = (&'static str, &'static str, Kind);

/// Below `context`: prefixed, keys joined by `_`, camel case split.
const CONTEXT: [Name; 34] = [
    ("app.installType", "context_app_install_type", Text),
    ("app.name", "context_app_name", Text),
    ("app.namespace", "context_app_namespace", Text),
    ("app.version", "context_app_version", Text),
    ("campaign.name", "context_campaign_name", Text),
    ("campaign.source", "context_campaign_source", Text),
    ("ip", "context_ip", Text),
    ("library.name", "context_library_name", Text),
    ("library.variant", "context_library_variant", Text),
    ("library.version", "context_library_version", Text),
    ("locale", "context_locale", Text),
    ("os.name", "context_os_name", Text),
    ("os.version", "context_os_version", Text),
    (
        "page.initial_referrer",
        "context_page_initial_referrer",
        Text,
    ),
    (
        "page.initial_referring_domain",
        "context_page_initial_referring_domain",
        Text,
    ),
    ("page.path", "context_page_path", Text),
    ("page.referrer", "context_page_referrer", Text),
    (
        "page.referring_domain",
        "context_page_referring_domain",
        Text,
    ),
    ("page.search", "context_page_search", Text),
    ("page.tab_url", "context_page_tab_url", Text),
    ("page.title", "context_page_title", Text),
    ("page.url", "context_page_url", Text),
    ("screen.density", "context_screen_density", Int),
    ("screen.height", "context_screen_height", Int),
    ("screen.innerHeight", "context_screen_inner_height", Int),
    ("screen.innerWidth", "context_screen_inner_width", Int),
    ("screen.width", "context_screen_width", Int),
    ("sessionId", "context_session_id", Int),
    ("sessionStart", "context_session_start", Bool),
    ("timezone", "context_timezone", Text),
    ("traits.email", "context_traits_email", Text),
    ("traits.name", "context_traits_name", Text),
    ("traits.plan", "context_traits_plan", Text),
    ("userAgent", "context_user_agent", Text),
];

/// Below `properties`: no prefix. An array is one text of JSON.
const PROPERTIES: [Name; 17] = [
    ("a", "a", Int),
    ("category", "category", Text),
    ("currency", "currency", Text),
    ("initial_referrer", "initial_referrer", Text),
    ("initial_referring_domain", "initial_referring_domain", Text),
    ("n", "n", Int),
    ("name", "name", Text),
    ("order_id", "order_id", Text),
    ("path", "path", Text),
    ("products", "products", Text),
    ("referrer", "referrer", Text),
    ("referring_domain", "referring_domain", Text),
    ("revenue", "revenue", Float),
    ("search", "search", Text),
    ("tab_url", "tab_url", Text),
    ("title", "title", Text),
    ("url", "url", Text),
];

/// Below `traits`: no prefix.
const TRAITS: [Name; 4] = [
    ("email", "email", Text),
    ("employees", "employees", Int),
    ("name", "name", Text),
    ("plan", "plan", Text),
];

/// The table of a track event's name.
fn event_table(name: &str) -> &'static str {
    match name {
        "Order Completed" => "order_completed",
        "One" => "one",
        "Numeric user" => "numeric_user",
        other => panic!("derive the table of {other:?} by hand"),
    }
}

/// The rows of an event that was stamped by gateway and processor, each with its table.
pub fn rows_of(event: &Value, origin: Origin) -> Vec<(&'static str, Cells)> {
    let mut context = Cells::new();
    flatten(&mut context, &CONTEXT, &event["context"], "");
    for (column, value) in [
        ("context_source_id", origin.source_id),
        ("context_source_type", origin.source_type),
        ("context_destination_id", origin.destination_id),
        ("context_destination_type", origin.destination_type),
    ] {
        context.insert(column.to_owned(), (Text, value.to_owned()));
    }
    addresses(&mut context, event);
    let with = |section: &str, names: &[Name]| {
        let mut cells = Cells::new();
        flatten(&mut cells, names, &event[section], "");
        cells.extend(context.clone());
        cells
    };
    let row = |section: &str, names: &[Name]| {
        let mut cells = with(section, names);
        defaults(&mut cells, event);
        cells
    };
    let put = |cells: &mut Cells, column: &str, value: &Value| set(cells, column, Text, value);
    match event["type"].as_str().unwrap() {
        "track" => {
            let table = event_table(event["event"].as_str().unwrap());
            let name = |mut cells: Cells| {
                put(&mut cells, "event_text", &event["event"]);
                put(&mut cells, "event", &table.into());
                cells
            };
            // No properties in `tracks`.
            let tracks = name(row("", &[]));
            vec![
                ("tracks", tracks),
                (table, name(row("properties", &PROPERTIES))),
            ]
        }
        "identify" => {
            let mut users = with("traits", &TRAITS);
            times(&mut users, event);
            put(&mut users, "id", &event["userId"]);
            vec![("identifies", row("traits", &TRAITS)), ("users", users)]
        }
        kind @ ("page" | "screen") => {
            let mut cells = row("properties", &PROPERTIES);
            // The event's own name, else the one among its properties.
            put(&mut cells, "name", &event["name"]);
            vec![(if kind == "page" { "pages" } else { "screens" }, cells)]
        }
        "group" => {
            let mut cells = row("traits", &TRAITS);
            put(&mut cells, "group_id", &event["groupId"]);
            vec![("groups", cells)]
        }
        "alias" => {
            let mut cells = row("traits", &TRAITS);
            put(&mut cells, "previous_id", &event["previousId"]);
            vec![("aliases", cells)]
        }
        other => panic!("derive the rows of {other:?} by hand"),
    }
}

/// The columns that every table but `users` has.
fn defaults(cells: &mut Cells, event: &Value) {
    for (column, field) in [
        ("id", "messageId"),
        ("anonymous_id", "anonymousId"),
        ("user_id", "userId"),
        ("channel", "channel"),
    ] {
        set(cells, column, Text, &event[field]);
    }
    times(cells, event);
}

fn times(cells: &mut Cells, event: &Value) {
    for (column, field) in [
        ("sent_at", "sentAt"),
        ("original_timestamp", "originalTimestamp"),
        ("timestamp", "timestamp"),
        ("received_at", "receivedAt"),
    ] {
        set(cells, column, Time, &event[field]);
    }
}

/// `context_ip` is what the client passed, else where the request came from.
fn addresses(cells: &mut Cells, event: &Value) {
    let passed = &event["context"]["ip"];
    set(cells, "context_ip", Text, &event["request_ip"]);
    set(cells, "context_ip", Text, passed);
    set(cells, "context_passed_ip", Text, passed);
    set(cells, "context_request_ip", Text, &event["request_ip"]);
}

/// Sets a column, unless the value is null or empty.
fn set(cells: &mut Cells, column: &str, kind: Kind, value: &Value) {
    let text = match value {
        Value::Null => return,
        Value::String(text) if text.is_empty() => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    cells.insert(column.to_owned(), (kind, text));
}

fn flatten(cells: &mut Cells, names: &[Name], value: &Value, path: &str) {
    if let Value::Object(fields) = value {
        for (name, field) in fields {
            let dot = if path.is_empty() { "" } else { "." };
            flatten(cells, names, field, &format!("{path}{dot}{name}"));
        }
        return;
    }
    if value.is_null() {
        return;
    }
    let known = names.iter().find(|(known, ..)| *known == path);
    let Some((_, column, kind)) = known else {
        panic!("derive the column of {path:?} by hand");
    };
    let fits = match value {
        Value::Bool(_) => *kind == Bool,
        Value::Number(n) => *kind == if n.is_f64() { Float } else { Int },
        _ => *kind == Text,
    };
    assert!(fits, "derive the type of {path:?} by hand: {value}");
    set(cells, column, *kind, value);
}

/// Adds a row as a load does: in `users` each column keeps its newest value that is not null.
pub fn load(tables: &mut Tables, table: &str, cells: Cells) {
    let known = tables.entry(table.to_owned()).or_default();
    let id = cells["id"].1.clone();
    let row = known.rows.entry(id.clone()).or_default();
    assert!(row.is_empty() || table == "users", "{table} {id} twice");
    for (column, (kind, value)) in cells {
        let before = known.columns.insert(column.clone(), kind);
        assert!(before.is_none_or(|before| before == kind), "{column}");
        row.insert(column, value);
    }
    known.columns.insert("uuid_ts".to_owned(), Time);
}

/// Says what differs.
///
/// # Panics
/// When anything does.
pub fn assert_same(warehouse: &str, found: &Tables, expected: &Tables) {
    let names = |tables: &Tables| tables.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{warehouse}: tables");
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!(found.columns, expected.columns, "{warehouse}: {name}");
        let ids = |table: &Table| table.rows.keys().cloned().collect::<Vec<_>>();
        assert_eq!(ids(found), ids(expected), "{warehouse}: rows of {name}");
        for (id, expected) in &expected.rows {
            assert_eq!(&found.rows[id], expected, "{warehouse}: {name} {id}");
        }
        println!("{warehouse} {name}: {} rows", found.rows.len());
    }
}

impl Table {
    fn add(&mut self, name: &str, mut row: BTreeMap<String, String>) {
        let loaded_at = row.remove("uuid_ts");
        assert!(loaded_at.is_some(), "{name}: a row without uuid_ts");
        let before = self.rows.insert(row["id"].clone(), row);
        assert!(before.is_none(), "{name}: two rows of one id");
    }
}

/// Everything in an SQLite file but what is the loader's own.
pub fn in_sqlite(path: &std::path::Path) -> Tables {
    let connection = rusqlite::Connection::open(path).unwrap();
    let mut names = connection
        .prepare("select name from sqlite_master where type = 'table' and name not like 'sluice%'")
        .unwrap();
    let names: Vec<String> = names
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut tables = Tables::new();
    for name in names {
        let table = tables.entry(name.clone()).or_default();
        let mut declared = connection
            .prepare("select name, type from pragma_table_info(?1) order by cid")
            .unwrap();
        let declared = declared.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)));
        let declared: Vec<(String, String)> = declared.unwrap().map(Result::unwrap).collect();
        for (column, kind) in &declared {
            let kind = match kind.as_str() {
                "BIGINT" => Int,
                "REAL" => Float,
                "BOOLEAN" => Bool,
                "TEXT" => Text,
                "DATETIME" => Time,
                other => panic!("{name}.{column}: {other}"),
            };
            table.columns.insert(column.clone(), kind);
        }
        let mut query = connection
            .prepare(&format!("select * from \"{name}\""))
            .unwrap();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let mut cells = BTreeMap::new();
            for (at, (column, _)) in declared.iter().enumerate() {
                let kind = table.columns[column];
                let text = match (kind, row.get_ref(at).unwrap()) {
                    (_, ValueRef::Null) => continue,
                    (Int, ValueRef::Integer(n)) => n.to_string(),
                    (Bool, ValueRef::Integer(n)) => (n == 1).to_string(),
                    (Float, ValueRef::Real(n)) => n.to_string(),
                    (Text | Time, ValueRef::Text(text)) => {
                        canonical(std::str::from_utf8(text).unwrap())
                    }
                    (kind, other) => panic!("{name}.{column}: {other:?} in a {kind:?}"),
                };
                cells.insert(column.clone(), text);
            }
            table.add(&name, cells);
        }
    }
    tables
}

/// Everything in one schema of a PostgreSQL database.
pub async fn in_postgres(client: &Client, schema: &str) -> Tables {
    let sql = "select table_name::text, column_name::text, data_type::text
                 from information_schema.columns where table_schema = $1";
    let mut tables = Tables::new();
    for row in client.query(sql, &[&schema]).await.unwrap() {
        let (table, column, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let kind = match kind.as_str() {
            "bigint" => Int,
            "numeric" => Float,
            "boolean" => Bool,
            "text" => Text,
            "timestamp with time zone" => Time,
            other => panic!("{table}.{column}: {other}"),
        };
        tables
            .entry(table)
            .or_default()
            .columns
            .insert(column, kind);
    }
    for (name, table) in &mut tables {
        let shown: Vec<String> = table
            .columns
            .iter()
            .map(|(column, kind)| match kind {
                Time => format!(
                    "to_char(\"{column}\" at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
                ),
                _ => format!("\"{column}\"::text"),
            })
            .collect();
        let sql = format!("select {} from \"{schema}\".\"{name}\"", shown.join(", "));
        for row in client.query(&sql, &[]).await.unwrap() {
            let mut cells = BTreeMap::new();
            for (at, column) in table.columns.keys().enumerate() {
                let text: Option<String> = row.get(at);
                cells.extend(text.map(|text| (column.clone(), canonical(&text))));
            }
            table.add(name, cells);
        }
    }
    tables
}

/// The same JSON array is the same text.
fn canonical(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(array @ Value::Array(_)) => array.to_string(),
        _ => text.to_owned(),
    }
}

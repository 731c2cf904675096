//! RudderStack's own cases, run against the mapping.
//!
//! The vectors are third-party test data and not part of this repository: they are read from `SLUICE_VECTORS`, or from
//! `../shared/vectors` beside the checkout, and without them these tests say `SKIPPED` and prove nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::cell::Cell;
use super::dialect::Dialect;
use super::names::{self, Casing};
use super::options::DestinationOptions;
use super::rows::{Arrival, MapLimits, Mapper, Row};
use super::schema::ColumnType;
use super::snake::{Digits, snake_case, words};
use super::{datetime, flatten};

fn vectors(file: &str) -> Option<Value> {
    let root = std::env::var_os("SLUICE_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"),
        PathBuf::from,
    );
    let path = root.join("warehouse").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).expect("vectors are JSON")),
        Err(error) => {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or_default();
            // Not with `eprintln!`, which is shown only when a test fails; `dev/test` counts these lines.
            let said = format!("SKIPPED: {test}: {} ({error})\n", path.display());
            std::io::stderr()
                .write_all(said.as_bytes())
                .expect("stderr");
            None
        }
    }
}

fn cases<'v>(file: &'v Value, table: &str) -> &'v [Value] {
    let all = match table {
        "" => &file["cases"],
        _ => &file["tables"][table],
    };
    all.as_array().expect("a list of cases")
}

fn text<'v>(case: &'v Value, field: &str) -> &'v str {
    case[field].as_str().unwrap_or("")
}

fn flag(case: &Value, field: &str) -> bool {
    case[field].as_bool().unwrap_or(false)
}

/// Counts passes, prints them with the failures, and fails if there is a failure.
struct Tally {
    of: String,
    passed: usize,
    failed: Vec<String>,
}

impl Tally {
    fn new(of: impl Into<String>) -> Self {
        Self {
            of: of.into(),
            passed: 0,
            failed: Vec::new(),
        }
    }

    fn check(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => self.failed.push(format!("{name}: {why}")),
        }
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, got: T, expected: T) {
        let result = if got == expected {
            Ok(())
        } else {
            Err(format!("got {got:?}, expected {expected:?}"))
        };
        self.check(name, result);
    }

    fn report(&self) {
        let total = self.passed + self.failed.len();
        eprintln!("{}: {} of {total} pass", self.of, self.passed);
        for failure in &self.failed {
            eprintln!("  {failure}");
        }
        assert!(total > 0, "{}: no case was run", self.of);
    }

    fn finish(self) {
        self.report();
        assert!(self.failed.is_empty(), "{}", self.of);
    }
}

fn finish_all(tallies: BTreeMap<&str, Tally>) {
    let failed: Vec<String> = tallies
        .into_values()
        .inspect(Tally::report)
        .filter(|tally| !tally.failed.is_empty())
        .map(|tally| tally.of)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn words_are_split_as_rudderstack_splits_them() {
    let Some(file) = vectors("go_snakecase.json") else {
        return;
    };
    let mut tally = Tally::new("go_snakecase");
    for case in cases(&file, "") {
        let input = text(case, "in");
        let got = match text(case, "fn") {
            "extractWords" => json!(words(input, Digits::Divide)),
            "extractWordsWithNumbers" => json!(words(input, Digits::Cling)),
            "ToSnakeCase" => json!(snake_case(input, Digits::Divide)),
            "ToSnakeCaseWithNumbers" => json!(snake_case(input, Digits::Cling)),
            other => panic!("unknown function {other}"),
        };
        tally.equal(input, got, case["expected"].clone());
    }
    tally.finish();
}

fn casing(case: &Value) -> Casing {
    Casing {
        blendo: flag(&case["intrOpts"], "useBlendoCasing"),
        digits: if flag(&case["destOpts"], "underscoreDivideNumbers") {
            Digits::Divide
        } else {
            Digits::Cling
        },
        keep_reserved: flag(&case["options"], "skipReservedKeywordsEscaping"),
    }
}

#[test]
fn names_are_made_as_rudderstack_makes_them() {
    let Some(file) = vectors("go_units.json") else {
        return;
    };
    let mut tally = Tally::new("go_units names");
    for case in cases(&file, "safe:TestTransformColumnName") {
        let dialect = Dialect::of(text(case, "destType")).expect("a known type");
        let got = names::transform_column(dialect, casing(case), text(case, "tableName"));
        tally.equal(text(case, "name"), got.as_str(), text(case, "expected"));
    }
    for case in cases(&file, "safe:TestTransformTableName") {
        let got = names::transform_table(casing(case), text(case, "tableName"));
        tally.equal(text(case, "name"), got.as_str(), text(case, "expected"));
    }
    for case in cases(&file, "safe:TestSafeNamespace") {
        let dialect = Dialect::of(text(case, "destType")).expect("a known type");
        let got = names::namespace(dialect, text(case, "namespace"));
        tally.equal(
            text(case, "namespace"),
            got.as_str(),
            text(case, "expected"),
        );
    }
    for (table, field) in [
        ("safe:TestSafeColumnName", "columnName"),
        ("safe:TestSafeTableName", "tableName"),
    ] {
        for case in cases(&file, table) {
            let dialect = Dialect::of(text(case, "destType")).expect("a known type");
            // The caller skips empty names; RudderStack makes them an error.
            let got = names::safe(dialect, casing(case), text(case, field));
            tally.equal(text(case, "name"), got.as_str(), text(case, "expected"));
        }
    }
    tally.finish();
}

#[test]
fn blank_spread_and_timestamp_values_are_told_apart_as_rudderstack_does() {
    let Some(file) = vectors("go_units.json") else {
        return;
    };
    let mut tally = Tally::new("go_units values");
    for case in cases(&file, "utils:TestIsBlank") {
        let expected = flag(case, "expected");
        tally.equal(
            text(case, "name"),
            flatten::is_blank(&case["input"]),
            expected,
        );
    }
    for case in cases(&file, "stringlikeobject:TestIsStringLikeObject") {
        let object = case["input"].as_object().expect("an object");
        let got = flatten::spread_string(object).is_some();
        tally.equal(text(case, "name"), got, flag(case, "expected"));
    }
    for case in cases(&file, "stringlikeobject:TestStringLikeObjectToString") {
        let object = case["input"].as_object().expect("an object");
        let got = flatten::spread_string(object).unwrap_or_default();
        tally.equal(text(case, "name"), got.as_str(), text(case, "expected"));
    }
    for case in cases(&file, "utils:TestValidTimestamp") {
        let got = datetime::parse(text(case, "timestamp")).is_some();
        tally.equal(text(case, "name"), got, flag(case, "expected"));
    }
    for case in cases(&file, "utils:TestToTimestamp") {
        let got = datetime::parse(text(case, "timestamp")).map(datetime::format);
        let expected = text(case, "expected").to_owned();
        tally.equal(text(case, "name"), got, Some(expected));
    }
    tally.finish();
}

#[test]
fn values_are_typed_as_rudderstack_types_them() {
    let Some(file) = vectors("go_units.json") else {
        return;
    };
    let mut tally = Tally::new("go_units types");
    for case in cases(&file, "datatype:TestDataType") {
        let Some(dialect) = Dialect::of(text(case, "destType")) else {
            continue;
        };
        let key = text(case, "key");
        let paths = if flag(case, "isJSONKey") {
            vec![key.to_owned()]
        } else {
            Vec::new()
        };
        let options = DestinationOptions {
            json_paths: paths,
            ..DestinationOptions::default()
        };
        // An object never reaches typing but as JSON text, and a null is never a column.
        let value = match &case["val"] {
            Value::Object(_) => Value::from(case["val"].to_string()),
            other => other.clone(),
        };
        if flatten::is_blank(&value) {
            continue;
        }
        let event =
            json!({"type": "track", "event": "e", "messageId": "m", "properties": {key: value}});
        let mut mapper = Mapper::new(dialect, options, MapLimits::default());
        let event = event.as_object().expect("an object");
        let rows = mapper.map(event, Arrival::default()).expect("maps");
        let kind = rows[1]
            .columns
            .iter()
            .find(|column| {
                let name = names::column(dialect, Casing::default(), key);
                Some(&*column.name) == name.as_deref()
            })
            .map(|column| column.kind.as_str());
        tally.equal(text(case, "name"), kind, Some(text(case, "expected")));
    }
    tally.finish();
}

/// A row as the vectors write it.
fn as_record(dialect: &Dialect, row: &Row<'_>) -> Value {
    let cased = |name: &str| {
        if dialect.upper {
            name.to_uppercase()
        } else {
            name.to_owned()
        }
    };
    let mut kinds = BTreeMap::new();
    let mut values = BTreeMap::new();
    for column in &row.columns {
        let value = match &column.cell {
            Cell::Int(int) => json!(int),
            Cell::Float(float) => json!(float),
            Cell::Bool(b) => json!(b),
            Cell::Text(text) => json!(text),
            Cell::Datetime(ms) => json!(datetime::format(*ms)),
            Cell::Json(text) => json!(text),
            Cell::Array(text) => serde_json::from_str(text).expect("an array"),
        };
        values.insert(column.name.to_string(), value);
        kinds.insert(column.name.to_string(), column.kind.as_str());
    }
    kinds.insert(cased("uuid_ts"), "datetime");
    if dialect.loaded_at {
        kinds.insert(cased("loaded_at"), "datetime");
    }
    json!({"table": &*row.table, "columns": kinds, "row": values})
}

/// Numbers by value, `rudder_event` by meaning, generated ids by shape.
fn same(key: &str, got: &Value, expected: &Value) -> bool {
    match (got, expected) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        // JSON text: Node writes keys in the order of the event, Go and this in byte order.
        (Value::String(a), Value::String(b)) if a.starts_with('{') && b.starts_with('{') => {
            match (serde_json::from_str(a), serde_json::from_str(b)) {
                (Ok(a), Ok(b)) => same(key, &a, &b),
                _ => a == b,
            }
        }
        // Taken from the clock of the recording.
        (Value::String(a), Value::String(b))
            if key.eq_ignore_ascii_case("received_at") && b.starts_with("2026-11-23") =>
        {
            datetime::parse(a).is_some()
        }
        (Value::String(a), Value::String(b)) if key.eq_ignore_ascii_case("id") => {
            a == b || (a.starts_with("auto-") && b.starts_with("auto-"))
        }
        (Value::String(a), Value::Array(_) | Value::Object(_)) => {
            serde_json::from_str::<Value>(a).ok().as_ref() == Some(expected)
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && b.iter()
                    .all(|(k, v)| a.get(k).is_some_and(|w| same(k, w, v)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(key, x, y))
        }
        _ => got == expected,
    }
}

fn difference(got: &[Value], expected: &[Value]) -> Option<String> {
    if got.len() != expected.len() {
        let tables = |records: &[Value]| -> Vec<String> {
            records.iter().map(|r| r["table"].to_string()).collect()
        };
        return Some(format!(
            "tables {:?}, expected {:?}",
            tables(got),
            tables(expected)
        ));
    }
    for (got, expected) in got.iter().zip(expected) {
        if got["table"] != expected["table"] {
            return Some(format!(
                "table {}, expected {}",
                got["table"], expected["table"]
            ));
        }
        for part in ["columns", "row"] {
            let (g, e) = (&got[part], &expected[part]);
            let (Some(g), Some(e)) = (g.as_object(), e.as_object()) else {
                return Some(format!("{part} missing"));
            };
            let mut keys: Vec<&String> = g.keys().chain(e.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let (a, b) = (g.get(key), e.get(key));
                let equal = match (a, b) {
                    (Some(a), Some(b)) => same(key, a, b),
                    _ => false,
                };
                if !equal {
                    return Some(format!(
                        "{} {part}.{key}: got {a:?}, expected {b:?}",
                        got["table"]
                    ));
                }
            }
        }
    }
    None
}

#[test]
fn values_are_converted_or_discarded_as_rudderstack_does() {
    let Some(file) = vectors("go_warehouse_units.json") else {
        return;
    };
    let kind = |word: &str| {
        ColumnType::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
    };
    let mut tally = Tally::new("go_warehouse_units coercion");
    for case in cases(&file, "slave/worker:TestHandleSchemaChange") {
        let column = kind(text(case, "existingDatatype")).expect("a type");
        let declared = text(case, "currentDataType");
        let value = &case["value"];
        let (inferred, mut cell) = Cell::infer(value).expect("not null");
        if declared == "json" {
            cell = Cell::Json(value.as_str().expect("JSON text").into());
        } else if declared != "array" && Some(inferred) != kind(declared) {
            eprintln!(
                "  not applicable, a cell's type is its value's: {}",
                text(case, "name")
            );
            continue;
        }
        let got = match cell.coerce(column) {
            Ok(Cell::Int(int)) => json!(int),
            Ok(Cell::Float(float)) => json!(float),
            Ok(cell) => json!(cell.into_text()),
            Err(misfit) => json!({"error": misfit.to_string()}),
        };
        let expected = match &case["expectedColumnVal"] {
            Value::Null => &case["expectedError"],
            value => value,
        };
        let result = same("", &got, expected)
            .then_some(())
            .ok_or_else(|| format!("got {got}, expected {expected}"));
        tally.check(text(case, "name"), result);
    }
    tally.finish();
}

struct Setup<'v> {
    dialect: &'static Dialect,
    message: &'v Map<String, Value>,
    metadata: &'v Value,
    config: &'v Value,
    limits: MapLimits,
}

fn run(setup: &Setup<'_>) -> Result<Vec<Value>, String> {
    let options = DestinationOptions::from_config(setup.config);
    let mut mapper = Mapper::new(setup.dialect, options, setup.limits);
    let meta = |upper: &str, lower: &str| match text(setup.metadata, upper) {
        "" => text(setup.metadata, lower).to_owned(),
        text => text.to_owned(),
    };
    let (source_id, source_type) = (
        meta("SourceID", "sourceId"),
        meta("SourceType", "sourceType"),
    );
    let destination_id = meta("DestinationID", "destinationId");
    let category = meta("SourceCategory", "sourceCategory");
    let arrival = Arrival {
        source_id: &source_id,
        source_type: &source_type,
        source_category: &category,
        destination_id: &destination_id,
        received_at: datetime::parse(&meta("ReceivedAt", "receivedAt")).unwrap_or_default(),
        record_id: setup
            .metadata
            .get("RecordID")
            .or_else(|| setup.message.get("recordId")),
    };
    let rows = mapper
        .map(setup.message, arrival)
        .map_err(|error| error.to_string())?;
    Ok(rows
        .iter()
        .map(|row| as_record(setup.dialect, row))
        .collect())
}

#[test]
fn events_become_the_rows_that_rudderstack_makes_of_them() {
    let Some(file) = vectors("go_events.json") else {
        return;
    };
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for case in cases(&file, "") {
        let name = text(case, "name");
        let dialect = Dialect::of(text(case, "destination_type")).expect("a known type");
        let has_merge_rule = case["expected"].as_array().is_some_and(|records| {
            records
                .iter()
                .any(|record| flag(&record["meta"], "isMergeRule"))
        });
        let is_identity = flag(&case["config"], "Warehouse.enableIDResolution");
        let is_asserted_elsewhere = case["suite"] == "TestEvents/Mandatory fields";
        if has_merge_rule || is_identity || is_asserted_elsewhere {
            continue;
        }
        let adds = case["config"]
            .get("WH_POPULATE_SRC_DEST_INFO_IN_CONTEXT")
            .and_then(Value::as_bool)
            .unwrap_or(true);
        let result = run(&Setup {
            dialect,
            message: case["message"].as_object().expect("an object"),
            metadata: &case["metadata"],
            config: &case["destination_config"],
            limits: MapLimits {
                adds_source_to_context: adds,
                ..MapLimits::default()
            },
        });
        let expected = case["expected"].as_array().cloned().unwrap_or_default();
        let failure = case["expected_failures"].get(0).map(|f| text(f, "error"));
        let verdict = match (result, failure) {
            (Err(error), Some(expected)) if error == expected => Ok(()),
            (Err(error), _) => Err(format!("failed with {error:?}, expected {failure:?}")),
            (Ok(_), Some(expected)) => Err(format!("did not fail with {expected:?}")),
            (Ok(rows), None) => difference(&rows, &expected).map_or(Ok(()), Err),
        };
        tallies
            .entry(dialect.name)
            .or_insert_with(|| Tally::new(format!("go_events {}", dialect.name)))
            .check(name, verdict);
    }
    finish_all(tallies);
}

/// Compares with recordings of the Node implementation, for the destination types that have an entry here.
fn compare_recorded(file_name: &str, columns_max: usize) {
    let Some(file) = vectors(file_name) else {
        return;
    };
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for case in cases(&file, "") {
        for output in case["outputs"].as_array().expect("outputs") {
            let types = output["destination_types"].as_array().expect("types");
            for kind in types.iter().filter_map(Value::as_str) {
                let Some(dialect) = Dialect::of(kind) else {
                    continue;
                };
                let input = &case["input"];
                let result = run(&Setup {
                    dialect,
                    message: input["message"].as_object().expect("an object"),
                    metadata: &input["metadata"],
                    config: &input["destination_config"],
                    limits: MapLimits {
                        columns_max,
                        adds_source_to_context: input["metadata"].get("sourceId").is_some(),
                        ..MapLimits::default()
                    },
                });
                let error = output["error"].as_str();
                let verdict = match (result, error) {
                    (Err(got), Some(expected)) if got == expected => Ok(()),
                    (Err(got), _) => Err(format!("failed with {got:?}, expected {error:?}")),
                    (Ok(_), Some(expected)) => Err(format!("did not fail with {expected:?}")),
                    (Ok(rows), None) => {
                        let expected = output["records"].as_array().expect("records");
                        difference(&rows, expected).map_or(Ok(()), Err)
                    }
                };
                let name = format!("{} {}", text(case, "id"), case["tests"]);
                tallies
                    .entry(dialect.name)
                    .or_insert_with(|| Tally::new(format!("{file_name} {}", dialect.name)))
                    .check(&name, verdict);
            }
        }
    }
    finish_all(tallies);
}

#[test]
fn events_become_the_rows_that_the_node_implementation_makes_of_them() {
    compare_recorded("js_suite_recorded.json", 200);
}

#[test]
fn our_own_events_become_the_rows_that_the_node_implementation_makes_of_them() {
    compare_recorded("own_inputs_oracle.json", 1600);
}

//! The contract of [`Loader`]: what every warehouse must do alike. Run it against a real one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{LoadError, Loaded, Loader, Mark, Merge, TableLoad, TableName};
use crate::warehouse::Cell;
use crate::warehouse::columns::TableBuffer;
use crate::warehouse::files;
use crate::warehouse::manifest::StagedColumn;
use crate::warehouse::plan::plan;
use crate::warehouse::rows::{Column, Row};
use crate::warehouse::schema::ColumnType;

/// Reads tables back, past the loader.
pub trait Probe: Sync {
    /// The columns of all rows as text, in the order of the first column: numbers in decimal, booleans as `true` and
    /// `false`, times in RudderStack's layout, JSON without spaces. `None` for null; no rows for no table.
    fn rows<'a>(
        &'a self,
        table: &'a TableName,
        columns: &'a [(&'a str, ColumnType)],
    ) -> BoxFuture<'a, Vec<Vec<Option<String>>>>;
}

type Open<'o> = &'o (dyn Fn() -> Box<dyn Loader> + Sync);
type Fields<'f> = &'f [(&'f str, Cell<'static>)];

/// Runs every case. `open` makes a new loader for the same, empty warehouse each time.
pub async fn check(open: Open<'_>, probe: &dyn Probe) {
    values_arrive_as_they_were_sent(open, probe).await;
    a_manifest_is_loaded_once(open, probe).await;
    a_table_grows_by_columns(open, probe).await;
    what_does_not_fit_is_discarded_and_its_row_stays(open, probe).await;
    of_rows_with_one_id_the_newest_stays(open, probe).await;
    rows_are_only_added_when_appending(open, probe).await;
    users_keep_the_newest_value_of_each_column(open, probe).await;
    out_of_order_and_half_known_loads_are_refused(open, probe).await;
    a_load_that_fails_leaves_nothing(open, probe).await;
    of_two_loaders_at_once_one_loads(open, probe).await;
    a_new_loader_finds_what_is_loaded(open).await;
}

fn table(name: &str) -> TableName {
    TableName {
        namespace: "contract".to_owned(),
        table: name.to_owned(),
    }
}

fn text(value: &str) -> Cell<'static> {
    Cell::Text(value.to_owned().into())
}

fn kind(cell: &Cell<'_>) -> ColumnType {
    cell.kind()
}

fn file(rows: &[Fields<'_>]) -> (Bytes, Vec<StagedColumn>) {
    let mut buffer = TableBuffer::new();
    for row in rows {
        let columns = row.iter().map(|(name, cell)| Column {
            name: (*name).into(),
            kind: kind(cell),
            cell: cell.clone(),
        });
        buffer.append(&Row {
            table: "".into(),
            columns: columns.collect(),
        });
    }
    let batch = buffer.finish().unwrap();
    let staged = StagedColumn::of(&batch.schema());
    (files::encode(&batch).unwrap(), staged)
}

fn mark(table: &TableName, range: &Range<i64>, rows: usize) -> Mark {
    Mark {
        manifest: format!("{}/{}", table.table, range.start),
        chain: format!("topic.{}", table.table),
        partition: 0,
        from: range.start,
        to: range.end,
        rows: rows as u64,
    }
}

async fn try_load(
    loader: &mut dyn Loader,
    table: &TableName,
    range: Range<i64>,
    merge: Merge,
    rows: &[Fields<'_>],
) -> Result<Loaded, LoadError> {
    let load = make_load(loader, table, range, merge, rows).await;
    loader.load(Arc::new(load)).await
}

async fn make_load(
    loader: &mut dyn Loader,
    table: &TableName,
    range: Range<i64>,
    merge: Merge,
    rows: &[Fields<'_>],
) -> TableLoad {
    loader.prepare().await.unwrap();
    let existing = loader.columns(table).await.unwrap();
    let (bytes, staged) = file(rows);
    TableLoad {
        table: table.clone(),
        plan: plan(&existing, &staged, loader.columns_max()),
        merge,
        files: vec![bytes],
        marks: vec![mark(table, &range, rows.len())],
        loaded_at: 1_700_000_000_000,
    }
}

async fn load(
    loader: &mut dyn Loader,
    table: &TableName,
    range: Range<i64>,
    merge: Merge,
    rows: &[Fields<'_>],
) -> Loaded {
    try_load(loader, table, range, merge, rows).await.unwrap()
}

async fn read(
    probe: &dyn Probe,
    table: &TableName,
    columns: &[(&str, ColumnType)],
) -> Vec<Vec<String>> {
    let rows = probe.rows(table, columns).await;
    rows.into_iter()
        .map(|row| {
            let shown = row
                .into_iter()
                .map(|v| v.unwrap_or_else(|| "null".to_owned()));
            shown.collect()
        })
        .collect()
}

const ID: (&str, ColumnType) = ("id", ColumnType::String);

fn at(ms: i64) -> (&'static str, Cell<'static>) {
    ("received_at", Cell::Datetime(ms))
}

fn id(id: &str) -> (&'static str, Cell<'static>) {
    ("id", text(id))
}

async fn values_arrive_as_they_were_sent(open: Open<'_>, probe: &dyn Probe) {
    let table = table("values \"quoted\"");
    let hostile = "tab\tnewline\nreturn\rbackslash\\quote'\"\\N ü 😀";
    let rows: [Fields<'_>; 3] = [
        &[
            id("1"),
            at(1_600_000_000_123),
            ("whole", Cell::Int(i64::MAX)),
            ("part", Cell::Float(0.1)),
            ("flag", Cell::Bool(true)),
            ("json", Cell::Json("{\"a\":[1,null,\"x\\ny\"]}".into())),
            ("list", Cell::Array("[1,\"b\"]".into())),
            ("Odd; name", text(hostile)),
        ],
        &[
            id("2"),
            at(-62_135_596_800_000),
            ("whole", Cell::Int(i64::MIN)),
            ("part", Cell::Float(123_456_789.125)),
            ("flag", Cell::Bool(false)),
            ("Odd; name", text("")),
        ],
        &[id("3"), at(253_402_300_799_999)],
    ];
    let mut loader = open();
    let loaded = load(&mut *loader, &table, 0..10, Merge::ById, &rows).await;
    assert_eq!(
        loaded,
        Loaded::Rows {
            rows: 3,
            discards: 0
        }
    );
    let columns = [
        ID,
        ("received_at", ColumnType::Datetime),
        ("whole", ColumnType::Int),
        ("part", ColumnType::Float),
        ("flag", ColumnType::Boolean),
        ("json", ColumnType::Json),
        ("list", ColumnType::String),
        ("Odd; name", ColumnType::String),
        ("uuid_ts", ColumnType::Datetime),
    ];
    let now = "2023-11-14T22:13:20.000Z";
    let expected = [
        [
            "1",
            "2020-09-13T12:26:40.123Z",
            "9223372036854775807",
            "0.1",
            "true",
            "{\"a\":[1,null,\"x\\ny\"]}",
            "[1,\"b\"]",
            hostile,
            now,
        ],
        [
            "2",
            "0001-01-01T00:00:00.000Z",
            "-9223372036854775808",
            "123456789.125",
            "false",
            "null",
            "null",
            "",
            now,
        ],
        [
            "3",
            "9999-12-31T23:59:59.999Z",
            "null",
            "null",
            "null",
            "null",
            "null",
            "null",
            now,
        ],
    ];
    assert_eq!(read(probe, &table, &columns).await, expected);
    let found = loader.columns(&table).await.unwrap();
    for (name, kind) in columns {
        assert_eq!(found.get(name), Some(&kind), "{name}");
    }
}

async fn a_manifest_is_loaded_once(open: Open<'_>, probe: &dyn Probe) {
    let table = table("once");
    let rows: [Fields<'_>; 2] = [&[id("a"), at(1)], &[id("b"), at(2)]];
    let mut loader = open();
    let first = load(&mut *loader, &table, 0..10, Merge::Append, &rows).await;
    assert_eq!(
        first,
        Loaded::Rows {
            rows: 2,
            discards: 0
        }
    );
    let again = load(&mut *loader, &table, 0..10, Merge::Append, &rows).await;
    assert_eq!(again, Loaded::Before);
    let other = load(&mut *open(), &table, 0..10, Merge::Append, &rows).await;
    assert_eq!(other, Loaded::Before);
    assert_eq!(read(probe, &table, &[ID]).await, [["a"], ["b"]]);
}

async fn a_table_grows_by_columns(open: Open<'_>, probe: &dyn Probe) {
    let table = table("grows");
    let mut loader = open();
    load(
        &mut *loader,
        &table,
        0..1,
        Merge::ById,
        &[&[id("1"), at(1)]],
    )
    .await;
    let later: Fields<'_> = &[
        id("2"),
        at(2),
        ("plan", text("pro")),
        ("seats", Cell::Int(3)),
    ];
    load(&mut *loader, &table, 1..2, Merge::ById, &[later]).await;
    let columns = [ID, ("plan", ColumnType::String), ("seats", ColumnType::Int)];
    let expected = [["1", "null", "null"], ["2", "pro", "3"]];
    assert_eq!(read(probe, &table, &columns).await, expected);
}

async fn what_does_not_fit_is_discarded_and_its_row_stays(open: Open<'_>, probe: &dyn Probe) {
    let events = table("misfits");
    let mut loader = open();
    load(
        &mut *loader,
        &events,
        0..1,
        Merge::ById,
        &[&[id("1"), at(1), ("seats", Cell::Int(3))]],
    )
    .await;
    let later: Fields<'_> = &[id("2"), at(2), ("seats", text("many"))];
    let loaded = load(&mut *loader, &events, 1..2, Merge::ById, &[later]).await;
    assert_eq!(
        loaded,
        Loaded::Rows {
            rows: 1,
            discards: 1
        }
    );
    let columns = [ID, ("seats", ColumnType::Int)];
    assert_eq!(
        read(probe, &events, &columns).await,
        [["1", "3"], ["2", "null"]]
    );
    let discards = [
        ("row_id", ColumnType::String),
        ("table_name", ColumnType::String),
        ("column_name", ColumnType::String),
        ("column_value", ColumnType::String),
        ("received_at", ColumnType::Datetime),
        ("reason", ColumnType::String),
    ];
    let reason = "incompatible schema conversion from int to string";
    let expected = [[
        "2",
        "misfits",
        "seats",
        "many",
        "1970-01-01T00:00:00.002Z",
        reason,
    ]];
    assert_eq!(
        read(probe, &table("rudder_discards"), &discards).await,
        expected
    );
}

async fn of_rows_with_one_id_the_newest_stays(open: Open<'_>, probe: &dyn Probe) {
    let table = table("newest");
    let n = |n: &str| ("n", text(n));
    let mut loader = open();
    let first: [Fields<'_>; 3] = [
        &[id("x"), at(20), n("new")],
        &[id("x"), at(10), n("old")],
        &[id("y"), at(1), n("y")],
    ];
    load(&mut *loader, &table, 0..3, Merge::ById, &first).await;
    let columns = [ID, ("n", ColumnType::String)];
    assert_eq!(
        read(probe, &table, &columns).await,
        [["x", "new"], ["y", "y"]]
    );
    let later: [Fields<'_>; 2] = [
        &[id("x"), at(30), n("newer")],
        &[id("x"), at(30), n("newest")],
    ];
    load(&mut *loader, &table, 3..5, Merge::ById, &later).await;
    assert_eq!(
        read(probe, &table, &columns).await,
        [["x", "newest"], ["y", "y"]]
    );
}

async fn rows_are_only_added_when_appending(open: Open<'_>, probe: &dyn Probe) {
    let table = table("appends");
    let mut loader = open();
    load(
        &mut *loader,
        &table,
        0..1,
        Merge::Append,
        &[&[id("x"), at(1)]],
    )
    .await;
    load(
        &mut *loader,
        &table,
        1..2,
        Merge::Append,
        &[&[id("x"), at(2)]],
    )
    .await;
    assert_eq!(read(probe, &table, &[ID]).await, [["x"], ["x"]]);
}

async fn users_keep_the_newest_value_of_each_column(open: Open<'_>, probe: &dyn Probe) {
    let table = table("users");
    let mut loader = open();
    let first: [Fields<'_>; 2] = [
        &[
            id("u"),
            at(10),
            ("name", text("Ann")),
            ("plan", text("free")),
        ],
        &[id("v"), at(10), ("name", text("Bob"))],
    ];
    load(&mut *loader, &table, 0..2, Merge::Users, &first).await;
    // One that came later with an earlier time, and one without a name.
    let later: [Fields<'_>; 2] = [
        &[id("u"), at(20), ("plan", text("pro"))],
        &[
            id("u"),
            at(5),
            ("plan", text("trial")),
            ("city", text("Oslo")),
        ],
    ];
    load(&mut *loader, &table, 2..4, Merge::Users, &later).await;
    let columns = [
        ID,
        ("name", ColumnType::String),
        ("plan", ColumnType::String),
        ("city", ColumnType::String),
        ("received_at", ColumnType::Datetime),
    ];
    let expected = [
        ["u", "Ann", "pro", "Oslo", "1970-01-01T00:00:00.020Z"],
        ["v", "Bob", "null", "null", "1970-01-01T00:00:00.010Z"],
    ];
    assert_eq!(read(probe, &table, &columns).await, expected);
}

async fn out_of_order_and_half_known_loads_are_refused(open: Open<'_>, probe: &dyn Probe) {
    let table = table("order");
    let mut loader = open();
    load(
        &mut *loader,
        &table,
        10..20,
        Merge::Append,
        &[&[id("late"), at(1)]],
    )
    .await;
    let early = try_load(
        &mut *loader,
        &table,
        0..10,
        Merge::Append,
        &[&[id("early"), at(1)]],
    )
    .await;
    assert!(
        matches!(
            early,
            Err(LoadError::Overlap {
                from: 0,
                loaded: 20,
                ..
            })
        ),
        "{early:?}"
    );

    let row: Fields<'_> = &[id("both"), at(1)];
    let mut half = make_load(&mut *loader, &table, 20..30, Merge::Append, &[row]).await;
    half.marks.insert(0, mark(&table, &(10..20), 1));
    let half = loader.load(Arc::new(half)).await;
    assert!(matches!(half, Err(LoadError::Contended { .. })), "{half:?}");

    assert_eq!(read(probe, &table, &[ID]).await, [["late"]]);
    load(
        &mut *loader,
        &table,
        20..30,
        Merge::Append,
        &[&[id("next"), at(1)]],
    )
    .await;
    assert_eq!(read(probe, &table, &[ID]).await, [["late"], ["next"]]);
}

async fn a_load_that_fails_leaves_nothing(open: Open<'_>, probe: &dyn Probe) {
    let table = table("fails");
    let mut loader = open();
    load(
        &mut *loader,
        &table,
        0..1,
        Merge::ById,
        &[&[id("a"), at(1)]],
    )
    .await;
    let row: Fields<'_> = &[id("b"), at(2), ("extra", Cell::Int(1))];
    let good = make_load(&mut *loader, &table, 1..2, Merge::ById, &[row]).await;
    let bad = TableLoad {
        table: good.table.clone(),
        plan: good.plan.clone(),
        merge: good.merge,
        files: vec![good.files[0].clone(), Bytes::from_static(b"not a file")],
        marks: good.marks.clone(),
        loaded_at: good.loaded_at,
    };
    assert!(loader.load(Arc::new(bad)).await.is_err());
    assert_eq!(read(probe, &table, &[ID]).await, [["a"]]);
    assert!(!loader.columns(&table).await.unwrap().contains_key("extra"));

    let loaded = loader.load(Arc::new(good)).await.unwrap();
    assert_eq!(
        loaded,
        Loaded::Rows {
            rows: 1,
            discards: 0
        }
    );
    assert_eq!(read(probe, &table, &[ID]).await, [["a"], ["b"]]);
}

async fn of_two_loaders_at_once_one_loads(open: Open<'_>, probe: &dyn Probe) {
    let table = table("race");
    let ids: Vec<String> = (0..500).map(|n| format!("{n:04}")).collect();
    let fields: Vec<Vec<(&str, Cell<'static>)>> = ids.iter().map(|n| vec![id(n), at(1)]).collect();
    let rows: Vec<Fields<'_>> = fields.iter().map(Vec::as_slice).collect();
    let (mut one, mut two) = (open(), open());
    // The table is there before, so that the race is about the rows.
    load(
        &mut *one,
        &table,
        0..1,
        Merge::Append,
        &[&[id("first"), at(1)]],
    )
    .await;
    let (a, b) = tokio::join!(
        try_load(&mut *one, &table, 1..600, Merge::Append, &rows),
        try_load(&mut *two, &table, 1..600, Merge::Append, &rows),
    );
    let loads = [&a, &b]
        .iter()
        .filter(|result| matches!(result, Ok(Loaded::Rows { .. })))
        .count();
    assert_eq!(loads, 1, "{a:?} {b:?}");
    assert_eq!(read(probe, &table, &[ID]).await.len(), 501);
}

async fn a_new_loader_finds_what_is_loaded(open: Open<'_>) {
    let table = table("found");
    let mut loader = open();
    load(
        &mut *loader,
        &table,
        0..5,
        Merge::Append,
        &[&[id("a"), at(1)]],
    )
    .await;
    let chain = mark(&table, &(0..5), 1).chain;
    assert!(loader.watermarks(&chain).await.unwrap().is_empty());
    let marks = [mark(&table, &(0..5), 1), mark(&table, &(5..9), 0)];
    loader.finish(&marks, 1_700_000_000_000).await.unwrap();
    loader.finish(&marks, 1_700_000_000_000).await.unwrap();

    let mut new = open();
    new.prepare().await.unwrap();
    assert_eq!(new.watermarks(&chain).await.unwrap(), [(0, 9)].into());
    let asked = [
        marks[0].manifest.clone(),
        marks[1].manifest.clone(),
        "other".to_owned(),
    ];
    let found = new.loaded(&asked).await.unwrap();
    assert_eq!(found, [(asked[0].clone(), table.to_string())].into());
}

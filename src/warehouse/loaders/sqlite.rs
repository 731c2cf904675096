//! SQLite: the embedded warehouse. Tables and columns are named as in PostgreSQL; there are no schemas.
//!
//! Booleans are 0 and 1, times are text in RudderStack's layout (they sort as they should and SQLite's date functions read
//! them), JSON is text. The declared column types keep the difference, so that a reader sees a `DATETIME`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, Transaction, TransactionBehavior, params};
use serde_json::Value;

use super::{
    LEDGER_KEPT_MS, LoadError, Loaded, Loader, Mark, Merge, TableLoad, TableName, beginnings,
    config_text, has_column, list, quoted,
};
use crate::clock::UnixMs;
use crate::failpoint;
use crate::warehouse::cell::Cell;
use crate::warehouse::datetime;
use crate::warehouse::plan::{Discard, UUID_TS, pieces};
use crate::warehouse::schema::{ColumnType, TableSchema};

/// SQLite's own limit is 2,000 columns; PostgreSQL's is kept so that a table can move there.
const COLUMNS_MAX: usize = 1598;
/// How long a load waits for somebody who reads or writes the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const ORDINAL: &str = "sluice_ordinal";
const STAGING: &str = "temp.sluice_staging";

/// A database file.
#[derive(Debug)]
pub struct SqliteLoader {
    path: PathBuf,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl SqliteLoader {
    /// A loader for the file at `path`, which is made if it is not there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            connection: Arc::default(),
        }
    }

    /// Reads `path` out of a destination's config.
    ///
    /// # Errors
    /// There is no path.
    pub fn from_config(config: &Value) -> Result<Self, LoadError> {
        config_text(config, "path")
            .map(Self::new)
            .ok_or_else(|| LoadError::Config("`path` of the database file is missing".to_owned()))
    }

    /// Runs `work` on the connection, on a thread that may block.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, LoadError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, LoadError>> {
        let path = self.path.clone();
        let shared = Arc::clone(&self.connection);
        Box::pin(async move {
            let task = tokio::task::spawn_blocking(move || {
                let mut slot = shared.lock();
                let connection = match &mut *slot {
                    Some(connection) => connection,
                    empty => empty.insert(open(&path)?),
                };
                let result = work(connection);
                if matches!(result, Err(LoadError::Unreachable(_))) {
                    *slot = None;
                }
                result
            });
            match task.await {
                Ok(result) => result,
                Err(error) => Err(LoadError::File(error.into())),
            }
        })
    }
}

impl Loader for SqliteLoader {
    fn columns_max(&self) -> usize {
        COLUMNS_MAX
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<(), LoadError>> {
        self.run(|connection| {
            connection.execute_batch(
                "create table if not exists sluice_loads (
                    manifest text not null, target text not null,
                    chain text not null, partition integer not null,
                    from_offset integer not null, to_offset integer not null,
                    row_count integer not null, loaded_at datetime not null,
                    primary key (manifest, target)) without rowid;
                 create index if not exists sluice_loads_position
                    on sluice_loads (chain, partition, target, to_offset);",
            )?;
            Ok(())
        })
    }

    fn watermarks<'a>(
        &'a mut self,
        chain: &'a str,
    ) -> BoxFuture<'a, Result<HashMap<i32, i64>, LoadError>> {
        let chain = chain.to_owned();
        self.run(move |connection| {
            let mut query = connection.prepare(
                "select partition, max(to_offset) from sluice_loads
                 where chain = ?1 and target = '' group by partition",
            )?;
            let rows = query.query_map([chain], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn loaded<'a>(
        &'a mut self,
        manifests: &'a [String],
    ) -> BoxFuture<'a, Result<HashSet<(String, String)>, LoadError>> {
        let manifests = manifests.to_vec();
        self.run(move |connection| {
            let mut query = connection
                .prepare("select target from sluice_loads where manifest = ?1 and target <> ''")?;
            let mut found = HashSet::new();
            for manifest in manifests {
                let targets = query.query_map([&manifest], |row| row.get::<_, String>(0))?;
                for target in targets {
                    found.insert((manifest.clone(), target?));
                }
            }
            Ok(found)
        })
    }

    fn columns<'a>(
        &'a mut self,
        table: &'a TableName,
    ) -> BoxFuture<'a, Result<TableSchema, LoadError>> {
        let table = table.table.clone();
        self.run(move |connection| columns_of(connection, &table))
    }

    fn load(&mut self, load: Arc<TableLoad>) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        self.run(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let loaded = load_table(&transaction, &load)?;
            failpoint::hit("warehouse.inside_load");
            if loaded != Loaded::Before {
                transaction.commit()?;
            }
            Ok(loaded)
        })
    }

    fn finish<'a>(
        &'a mut self,
        marks: &'a [Mark],
        at: UnixMs,
    ) -> BoxFuture<'a, Result<(), LoadError>> {
        let marks = marks.to_vec();
        self.run(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for mark in &marks {
                enter(&transaction, mark, "", at)?;
                transaction.execute(
                    "delete from sluice_loads
                     where chain = ?1 and partition = ?2 and to_offset < ?3 and loaded_at < ?4",
                    params![
                        mark.chain,
                        mark.partition,
                        mark.from,
                        datetime::format(at - LEDGER_KEPT_MS)
                    ],
                )?;
            }
            transaction.commit()?;
            Ok(())
        })
    }
}

fn open(path: &PathBuf) -> Result<Connection, LoadError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // A log beside the file: readers do not wait for a load. It survives the death of the process; a power cut may take
    // the last loads back, rows and ledger alike, and they are loaded again.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

fn load_table(transaction: &Transaction<'_>, load: &TableLoad) -> Result<Loaded, LoadError> {
    let target = load.table.to_string();
    let overlap = overlap(transaction, load, &target)?;
    let mut entered = 0;
    for mark in &load.marks {
        entered += usize::from(enter(transaction, mark, &target, load.loaded_at)?);
    }
    if entered == 0 {
        return Ok(Loaded::Before);
    }
    if entered < load.marks.len() {
        return Err(LoadError::Contended { table: target });
    }
    if let Some(overlap) = overlap {
        return Err(overlap);
    }
    add_columns(transaction, &load.table.table, &load.plan.add)?;
    let (rows, discards) = stage(transaction, load)?;
    match load.merge {
        Merge::Users if has_column(load, "id") => merge_users(transaction, load)?,
        Merge::ById if has_column(load, "id") => merge_by_id(transaction, load)?,
        Merge::Append | Merge::ById | Merge::Users => append(transaction, load)?,
    }
    transaction.execute_batch(&format!("drop table {STAGING}"))?;
    if !discards.is_empty()
        && let Err(error) = keep_discards(transaction, load, &discards)
    {
        // As in RudderStack: what could not be kept of a row must not keep the row out.
        tracing::warn!(table = %load.table, %error, "discarded values not kept");
    }
    Ok(Loaded::Rows {
        rows,
        discards: discards.len() as u64,
    })
}

/// Enters a manifest for a target; false if it is there already.
fn enter(
    transaction: &Transaction<'_>,
    mark: &Mark,
    target: &str,
    at: UnixMs,
) -> Result<bool, LoadError> {
    let entered = transaction.execute(
        "insert into sluice_loads values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) on conflict do nothing",
        params![
            mark.manifest,
            target,
            mark.chain,
            mark.partition,
            mark.from,
            mark.to,
            mark.rows.cast_signed(),
            datetime::format(at)
        ],
    )?;
    Ok(entered == 1)
}

/// What is loaded of the same partitions beyond where this load begins.
fn overlap(
    transaction: &Transaction<'_>,
    load: &TableLoad,
    target: &str,
) -> Result<Option<LoadError>, LoadError> {
    for ((chain, partition), from) in beginnings(&load.marks) {
        let loaded: Option<i64> = transaction.query_row(
            "select max(to_offset) from sluice_loads
             where chain = ?1 and partition = ?2 and target = ?3",
            params![chain, partition, target],
            |row| row.get(0),
        )?;
        if let Some(loaded) = loaded.filter(|&loaded| loaded > from) {
            let table = target.to_owned();
            return Ok(Some(LoadError::Overlap {
                table,
                from,
                loaded,
            }));
        }
    }
    Ok(None)
}

fn add_columns(
    transaction: &Transaction<'_>,
    table: &str,
    add: &TableSchema,
) -> Result<(), LoadError> {
    if add.is_empty() {
        return Ok(());
    }
    let known = columns_of(transaction, table)?;
    let missing = add.iter().filter(|(name, _)| !known.contains_key(*name));
    let declared: Vec<String> = missing
        .map(|(name, &kind)| format!("{} {}", quoted(name), declared_type(kind)))
        .collect();
    let table_name = quoted(table);
    if known.is_empty() {
        transaction.execute_batch(&format!(
            "create table {table_name} ({})",
            declared.join(", ")
        ))?;
        if add.contains_key("id") {
            let index = quoted(&format!("sluice_{table}_id"));
            transaction.execute_batch(&format!("create index {index} on {table_name} (\"id\")"))?;
        }
        return Ok(());
    }
    for column in declared {
        transaction.execute_batch(&format!("alter table {table_name} add column {column}"))?;
    }
    Ok(())
}

/// Puts the rows beside the table, with an ordinal that tells which of two came later.
fn stage(
    transaction: &Transaction<'_>,
    load: &TableLoad,
) -> Result<(u64, Vec<Discard>), LoadError> {
    let columns = columns_of(transaction, &load.table.table)?;
    let declared: Vec<String> = columns
        .iter()
        .map(|(name, &kind)| format!("{} {}", quoted(name), declared_type(kind)))
        .collect();
    transaction.execute_batch(&format!(
        "drop table if exists {STAGING};
         create table {STAGING} ({ORDINAL} integer primary key, {})",
        declared.join(", ")
    ))?;
    let names: Vec<&String> = load.plan.columns.iter().map(|(name, _)| name).collect();
    let places: Vec<String> = (1..=names.len() + 1).map(|at| format!("?{at}")).collect();
    let mut insert = transaction.prepare(&format!(
        "insert into {STAGING} ({ORDINAL}, {}) values ({})",
        list("", names),
        places.join(", ")
    ))?;
    let mut ordinal: u64 = 0;
    let mut discards = Vec::new();
    for file in &load.files {
        for piece in pieces(file.clone(), &load.plan)? {
            let piece = piece?;
            for row in 0..piece.rows() {
                ordinal += 1;
                insert.raw_bind_parameter(1, ordinal.cast_signed())?;
                let cells = piece.row(row, &mut discards);
                for (at, cell) in cells.iter().enumerate() {
                    insert.raw_bind_parameter(at + 2, cell.as_ref().map(Bound))?;
                }
                insert.raw_execute()?;
            }
        }
    }
    Ok((ordinal, discards))
}

fn append(transaction: &Transaction<'_>, load: &TableLoad) -> Result<(), LoadError> {
    insert_from(transaction, load, STAGING)
}

fn merge_by_id(transaction: &Transaction<'_>, load: &TableLoad) -> Result<(), LoadError> {
    delete_staged_ids(transaction, load)?;
    let newest = if has_column(load, "received_at") {
        format!("\"received_at\" desc, {ORDINAL} desc")
    } else {
        format!("{ORDINAL} desc")
    };
    let source = format!(
        "(select *, row_number() over (partition by \"id\" order by {newest}) as sluice_rank from {STAGING})
         where sluice_rank = 1 or \"id\" is null"
    );
    insert_from(transaction, load, &source)
}

/// The users that the load is about are staged too, older than all of its rows; then the newest value of each column that
/// is not null makes the new row.
fn merge_users(transaction: &Transaction<'_>, load: &TableLoad) -> Result<(), LoadError> {
    let table = quoted(&load.table.table);
    let columns = columns_of(transaction, &load.table.table)?;
    let others: Vec<&String> = columns
        .keys()
        .filter(|name| *name != "id" && *name != UUID_TS)
        .collect();
    let all = list("", columns.keys());
    transaction.execute_batch(&format!(
        "insert into {STAGING} ({ORDINAL}, {all})
             select -rowid, {all} from {table} where \"id\" in (select \"id\" from {STAGING});
         create index temp.sluice_staging_id on sluice_staging (\"id\", \"received_at\")"
    ))?;
    delete_staged_ids(transaction, load)?;
    let newest: String = others
        .iter()
        .map(|name| {
            let column = quoted(name);
            format!(
                ", (select s.{column} from {STAGING} s where s.\"id\" = i.\"id\" and s.{column} is not null
                    order by s.\"received_at\" desc, s.{ORDINAL} desc limit 1)"
            )
        })
        .collect();
    let others: String = others
        .iter()
        .map(|name| format!(", {}", quoted(name)))
        .collect();
    let sql = format!(
        "insert into {table} (\"id\"{others}, {UUID_TS})
         select i.\"id\"{newest}, ?1 from (select distinct \"id\" from {STAGING} where \"id\" is not null) i"
    );
    transaction.execute(&sql, [datetime::format(load.loaded_at)])?;
    Ok(())
}

fn delete_staged_ids(transaction: &Transaction<'_>, load: &TableLoad) -> Result<(), LoadError> {
    let table = quoted(&load.table.table);
    transaction.execute_batch(&format!(
        "delete from {table} where \"id\" in (select \"id\" from {STAGING})"
    ))?;
    Ok(())
}

/// Inserts the planned columns of `source` and the load's time.
fn insert_from(
    transaction: &Transaction<'_>,
    load: &TableLoad,
    source: &str,
) -> Result<(), LoadError> {
    let table = quoted(&load.table.table);
    let columns = list("", load.plan.columns.iter().map(|(name, _)| name));
    let sql =
        format!("insert into {table} ({columns}, {UUID_TS}) select {columns}, ?1 from {source}");
    transaction.execute(&sql, [datetime::format(load.loaded_at)])?;
    Ok(())
}

/// Each value once per row, column and table.
fn keep_discards(
    transaction: &Transaction<'_>,
    load: &TableLoad,
    discards: &[Discard],
) -> Result<(), LoadError> {
    transaction.execute_batch("savepoint sluice_discards")?;
    let result = write_discards(transaction, load, discards);
    transaction.execute_batch(match result {
        Ok(()) => "release sluice_discards",
        Err(_) => "rollback to sluice_discards; release sluice_discards",
    })?;
    result
}

fn write_discards(
    transaction: &Transaction<'_>,
    load: &TableLoad,
    discards: &[Discard],
) -> Result<(), LoadError> {
    transaction.execute_batch(
        "create table if not exists rudder_discards (
            table_name text, row_id text, column_name text, column_value text,
            received_at datetime, uuid_ts datetime, reason text);
         create index if not exists sluice_rudder_discards_row
            on rudder_discards (row_id, column_name, table_name)",
    )?;
    let mut delete = transaction.prepare(
        "delete from rudder_discards where row_id = ?1 and column_name = ?2 and table_name = ?3",
    )?;
    let mut insert = transaction.prepare(
        "insert into rudder_discards (table_name, row_id, column_name, column_value, received_at, uuid_ts, reason)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let table = &load.table.table;
    for discard in discards {
        delete.execute(params![discard.row_id, discard.column, table])?;
        insert.execute(params![
            table,
            discard.row_id,
            discard.column,
            discard.value,
            datetime::format(discard.received_at),
            datetime::format(load.loaded_at),
            discard.reason
        ])?;
    }
    Ok(())
}

fn columns_of(connection: &Connection, table: &str) -> Result<TableSchema, LoadError> {
    let mut query = connection.prepare("select name, type from pragma_table_info(?1)")?;
    let rows = query.query_map([table], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.map(|row| {
        let (name, declared) = row?;
        Ok((name, column_type(&declared)))
    })
    .collect()
}

fn declared_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Int => "BIGINT",
        ColumnType::Float => "REAL",
        ColumnType::String | ColumnType::Text => "TEXT",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Datetime => "DATETIME",
        // With TEXT in its name, or SQLite would store "1" as a number.
        ColumnType::Json => "JSON TEXT",
    }
}

/// What a declared type holds; tables that somebody else made may say anything.
fn column_type(declared: &str) -> ColumnType {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("JSON") {
        ColumnType::Json
    } else if has("INT") {
        ColumnType::Int
    } else if has("BOOL") {
        ColumnType::Boolean
    } else if has("DATE") || has("TIME") {
        ColumnType::Datetime
    } else if has("REAL") || has("FLOA") || has("DOUB") || has("NUM") || has("DEC") {
        ColumnType::Float
    } else {
        ColumnType::String
    }
}

/// A cell as SQLite stores it.
struct Bound<'c, 'a>(&'c Cell<'a>);

impl ToSql for Bound<'_, '_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Cell::Int(int) => (*int).into(),
            Cell::Float(float) => (*float).into(),
            Cell::Bool(flag) => i64::from(*flag).into(),
            Cell::Datetime(ms) => datetime::format(*ms).into(),
            Cell::Text(text) | Cell::Json(text) | Cell::Array(text) => {
                ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
            }
        })
    }
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error_code() else {
            return Self::Refused {
                code: "sqlite".to_owned(),
                message: error.to_string(),
            };
        };
        let message = error.to_string();
        match code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory => Self::Busy {
                code: format!("{code:?}"),
                message,
            },
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen => Self::Unreachable(message),
            _ => Self::Refused {
                code: format!("{code:?}"),
                message,
            },
        }
    }
}

//! SQLite: the embedded warehouse. Tables and columns are named as in PostgreSQL; there are no schemas.
//!
//! Booleans are 0 and 1, times are text in RudderStack's layout (they sort as they should and SQLite's date functions read
//! them), JSON is text. The declared column types keep the difference, so that a reader sees a `DATETIME`.

mod work;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, TransactionBehavior, params};
use serde_json::Value;

use super::{LEDGER_KEPT_MS, LoadError, Loaded, Loader, Mark, TableLoad, TableName, config_text};
use crate::clock::UnixMs;
use crate::failpoint;
use crate::warehouse::cell::Cell;
use crate::warehouse::datetime;
use crate::warehouse::schema::{ColumnType, TableSchema};
use work::{enter, load_table};

/// SQLite's own limit is 2,000 columns; PostgreSQL's is kept so that a table can move there.
const COLUMNS_MAX: usize = 1598;
/// How long a load waits for somebody who reads or writes the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

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

//! PostgreSQL, by COPY into a temporary table and from there into the table, in one transaction with the ledger.
//!
//! COPY's text format rather than the binary one: `numeric` and `jsonb` have no simple binary form, and it keeps the
//! difference between an empty string and null that RudderStack's CSV loses. Floats travel as their shortest decimal that
//! reads back, so a `numeric` column holds what the client sent.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio_postgres::{Client, Config, NoTls, Transaction};

use super::{
    LEDGER_KEPT_MS, LoadError, Loaded, Loader, Mark, Merge, TableLoad, TableName, beginnings,
    config_text, has_column, list, quoted,
};
use crate::clock::UnixMs;
use crate::failpoint;
use crate::warehouse::cell::Cell;
use crate::warehouse::dialect::POSTGRES;
use crate::warehouse::plan::{Discard, UUID_TS, pieces};
use crate::warehouse::schema::{ColumnType, TableSchema};
use crate::warehouse::{datetime, names};

/// PostgreSQL's limit is 1,600; two are kept free for the staging table's own.
const COLUMNS_MAX: usize = 1598;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows are sent in pieces of about this many bytes.
const COPY_BYTES: usize = 64 * 1024;
const ORDINAL: &str = "sluice_ordinal";
const STAGING: &str = "sluice_staging";
/// Schema of the ledger when the destination has no namespace of its own.
const LEDGER_SCHEMA: &str = "sluice";

/// A database.
pub struct PostgresLoader {
    config: Config,
    ledger: String,
    client: Option<Client>,
    schemas: HashSet<String>,
}

impl std::fmt::Debug for PostgresLoader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresLoader")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

impl PostgresLoader {
    /// Reads RudderStack's `host`, `port`, `database`, `user`, `password`, `sslMode` and `namespace`.
    ///
    /// # Errors
    /// One of the first, third or fourth is missing, the port is none, or TLS is asked for.
    pub fn from_config(config: &Value) -> Result<Self, LoadError> {
        let needed = |field: &str| {
            config_text(config, field)
                .ok_or_else(|| LoadError::Config(format!("`{field}` is missing")))
        };
        let ssl = config_text(config, "sslMode").unwrap_or_else(|| "disable".to_owned());
        if ssl != "disable" {
            return Err(LoadError::Config(format!(
                "`sslMode` {ssl} is not supported yet, only `disable`"
            )));
        }
        let port = config_text(config, "port").unwrap_or_else(|| "5432".to_owned());
        let port = port
            .parse()
            .map_err(|_| LoadError::Config(format!("`port` {port} is not a port")))?;
        let mut postgres = Config::new();
        postgres
            .host(needed("host")?)
            .port(port)
            .dbname(needed("database")?)
            .user(needed("user")?)
            .application_name("sluice")
            .connect_timeout(CONNECT_TIMEOUT);
        if let Some(password) = config_text(config, "password") {
            postgres.password(password);
        }
        let ledger = config_text(config, "namespace").map_or_else(
            || LEDGER_SCHEMA.to_owned(),
            |n| names::namespace(&POSTGRES, &n),
        );
        Ok(Self {
            config: postgres,
            ledger,
            client: None,
            schemas: HashSet::new(),
        })
    }

    async fn client(&mut self) -> Result<&mut Client, LoadError> {
        let open = self.client.take().filter(|client| !client.is_closed());
        let client = match open {
            Some(client) => client,
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                // Ends by itself when the client is dropped or the server goes away.
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "connection to the warehouse ended");
                    }
                });
                client
            }
        };
        Ok(self.client.insert(client))
    }

    fn ledger_table(&self) -> String {
        format!("{}.sluice_loads", quoted(&self.ledger))
    }

    async fn ensure_schema(&mut self, schema: &str) -> Result<(), LoadError> {
        if self.schemas.contains(schema) {
            return Ok(());
        }
        let client = self.client().await?;
        // `create schema if not exists` asks for the right to create even when it exists.
        let exists = client
            .query_opt("select 1 from pg_namespace where nspname = $1", &[&schema])
            .await?;
        if exists.is_none() {
            let create = format!("create schema if not exists {}", quoted(schema));
            client.batch_execute(&create).await?;
        }
        self.schemas.insert(schema.to_owned());
        Ok(())
    }
}

impl Loader for PostgresLoader {
    fn columns_max(&self) -> usize {
        COLUMNS_MAX
    }

    fn prepare(&mut self) -> BoxFuture<'_, Result<(), LoadError>> {
        Box::pin(async move {
            let schema = self.ledger.clone();
            self.ensure_schema(&schema).await?;
            let ledger = self.ledger_table();
            let sql = format!(
                "create table if not exists {ledger} (
                    manifest text not null, target text not null,
                    chain text not null, partition integer not null,
                    from_offset bigint not null, to_offset bigint not null,
                    row_count bigint not null, loaded_at timestamptz not null,
                    primary key (manifest, target));
                 create index if not exists sluice_loads_position
                    on {ledger} (chain, partition, target, to_offset)"
            );
            Ok(self.client().await?.batch_execute(&sql).await?)
        })
    }

    fn watermarks<'a>(
        &'a mut self,
        chain: &'a str,
    ) -> BoxFuture<'a, Result<HashMap<i32, i64>, LoadError>> {
        Box::pin(async move {
            let sql = format!(
                "select partition, max(to_offset) from {}
                 where chain = $1 and target = '' group by partition",
                self.ledger_table()
            );
            let rows = self.client().await?.query(&sql, &[&chain]).await?;
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect()
        })
    }

    fn loaded<'a>(
        &'a mut self,
        manifests: &'a [String],
    ) -> BoxFuture<'a, Result<HashSet<(String, String)>, LoadError>> {
        Box::pin(async move {
            let sql = format!(
                "select manifest, target from {} where manifest = any($1) and target <> ''",
                self.ledger_table()
            );
            let rows = self.client().await?.query(&sql, &[&manifests]).await?;
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect()
        })
    }

    fn columns<'a>(
        &'a mut self,
        table: &'a TableName,
    ) -> BoxFuture<'a, Result<TableSchema, LoadError>> {
        Box::pin(async move {
            let sql = "select column_name::text, data_type::text from information_schema.columns
                       where table_schema = $1 and table_name = $2";
            let client = self.client().await?;
            let rows = client.query(sql, &[&table.namespace, &table.table]).await?;
            rows.iter()
                .map(|row| {
                    let declared: String = row.try_get(1)?;
                    Ok((row.try_get(0)?, column_type(&declared)))
                })
                .collect()
        })
    }

    fn load(&mut self, load: Arc<TableLoad>) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        Box::pin(async move {
            self.ensure_schema(&load.table.namespace).await?;
            let ledger = self.ledger_table();
            let transaction = self.client().await?.transaction().await?;
            let mut work = Work {
                transaction,
                ledger,
                load: &load,
            };
            let loaded = work.load().await?;
            failpoint::hit("warehouse.inside_load");
            match loaded {
                Loaded::Before => work.transaction.rollback().await?,
                Loaded::Rows { .. } => work.transaction.commit().await?,
            }
            Ok(loaded)
        })
    }

    fn finish<'a>(
        &'a mut self,
        marks: &'a [Mark],
        at: UnixMs,
    ) -> BoxFuture<'a, Result<(), LoadError>> {
        Box::pin(async move {
            let ledger = self.ledger_table();
            let transaction = self.client().await?.transaction().await?;
            let forget = format!(
                "delete from {ledger} where chain = $1 and partition = $2 and to_offset < $3
                 and loaded_at < {}",
                time(at - LEDGER_KEPT_MS)
            );
            for mark in marks {
                enter(&transaction, &ledger, mark, "", at).await?;
                transaction
                    .execute(&forget, &[&mark.chain, &mark.partition, &mark.from])
                    .await?;
            }
            Ok(transaction.commit().await?)
        })
    }
}

/// One load, inside its transaction.
struct Work<'t> {
    transaction: Transaction<'t>,
    ledger: String,
    load: &'t TableLoad,
}

impl Work<'_> {
    async fn load(&mut self) -> Result<Loaded, LoadError> {
        let target = self.load.table.to_string();
        self.run("set local lock_timeout = '30s'").await?;
        let overlap = self.overlap(&target).await?;
        let mut entered = 0;
        for mark in &self.load.marks {
            let (transaction, at) = (&self.transaction, self.load.loaded_at);
            entered += usize::from(enter(transaction, &self.ledger, mark, &target, at).await?);
        }
        if entered == 0 {
            return Ok(Loaded::Before);
        }
        if entered < self.load.marks.len() {
            return Err(LoadError::Contended { table: target });
        }
        if let Some(overlap) = overlap {
            return Err(overlap);
        }
        self.add_columns().await?;
        let table = self.table();
        // Readers go on; two loads that look for the same ids do not cross.
        self.run(&format!("lock table {table} in share row exclusive mode"))
            .await?;
        let (rows, discards) = self.stage().await?;
        match self.load.merge {
            Merge::Users if has_column(self.load, "id") => self.merge_users().await?,
            Merge::ById if has_column(self.load, "id") => self.merge_by_id().await?,
            Merge::Append | Merge::ById | Merge::Users => self.insert_from(STAGING).await?,
        }
        if !discards.is_empty()
            && let Err(error) = self.keep_discards(&discards).await
        {
            // As in RudderStack: what could not be kept of a row must not keep the row out.
            tracing::warn!(table = %self.load.table, %error, "discarded values not kept");
        }
        Ok(Loaded::Rows {
            rows,
            discards: discards.len() as u64,
        })
    }

    /// What is loaded of the same partitions beyond where this load begins.
    async fn overlap(&self, target: &str) -> Result<Option<LoadError>, LoadError> {
        let sql = format!(
            "select max(to_offset) from {} where chain = $1 and partition = $2 and target = $3",
            self.ledger
        );
        for ((chain, partition), from) in beginnings(&self.load.marks) {
            let row = self
                .transaction
                .query_one(&sql, &[&chain, &partition, &target])
                .await?;
            let loaded: Option<i64> = row.try_get(0)?;
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

    async fn add_columns(&self) -> Result<(), LoadError> {
        let add = &self.load.plan.add;
        let table = self.table();
        let declared = |(name, &kind): (&String, &ColumnType)| {
            format!("{} {}", quoted(name), declared_type(kind))
        };
        if !self.exists().await? {
            let columns: Vec<String> = add.iter().map(declared).collect();
            let create = format!(
                "create table if not exists {table} ({})",
                columns.join(", ")
            );
            self.run(&create).await?;
            if add.contains_key("id") {
                // Each load asks which of its ids are there.
                self.run(&format!("create index on {table} (\"id\")"))
                    .await?;
            }
            return Ok(());
        }
        let columns: Vec<String> = add
            .iter()
            .map(|column| format!("add column if not exists {}", declared(column)))
            .collect();
        if columns.is_empty() {
            return Ok(());
        }
        self.run(&format!("alter table {table} {}", columns.join(", ")))
            .await
    }

    async fn exists(&self) -> Result<bool, LoadError> {
        let found = self
            .transaction
            .query_opt("select to_regclass($1) is not null", &[&self.table()])
            .await?;
        match found {
            Some(row) => Ok(row.try_get(0)?),
            None => Ok(false),
        }
    }

    /// Puts the rows beside the table, with an ordinal that tells which of two came later.
    async fn stage(&self) -> Result<(u64, Vec<Discard>), LoadError> {
        let table = self.table();
        let names: Vec<&String> = self
            .load
            .plan
            .columns
            .iter()
            .map(|(name, _)| name)
            .collect();
        let columns = list("", names);
        self.run(&format!(
            "create temporary table {STAGING} on commit drop as
                 select *, 0::bigint as {ORDINAL} from {table} with no data"
        ))
        .await?;
        let copy = format!("copy {STAGING} ({columns}, {ORDINAL}) from stdin");
        let sink = self.transaction.copy_in::<_, Bytes>(&copy).await?;
        futures_util::pin_mut!(sink);
        let mut buffer = BytesMut::with_capacity(COPY_BYTES * 2);
        let mut ordinal: u64 = 0;
        let mut discards = Vec::new();
        for file in &self.load.files {
            for piece in pieces(file.clone(), &self.load.plan)? {
                let piece = piece?;
                for row in 0..piece.rows() {
                    ordinal += 1;
                    for cell in piece.row(row, &mut discards) {
                        copy_cell(&mut buffer, cell.as_ref());
                        buffer.put_u8(b'\t');
                    }
                    buffer.extend_from_slice(ordinal.to_string().as_bytes());
                    buffer.put_u8(b'\n');
                    if buffer.len() >= COPY_BYTES {
                        sink.send(buffer.split().freeze()).await?;
                    }
                }
            }
        }
        sink.send(buffer.freeze()).await?;
        sink.finish().await?;
        self.run(&format!("analyze {STAGING}")).await?;
        Ok((ordinal, discards))
    }

    async fn merge_by_id(&self) -> Result<(), LoadError> {
        self.delete_staged_ids().await?;
        let newest = if has_column(self.load, "received_at") {
            format!("\"received_at\" desc nulls last, {ORDINAL} desc")
        } else {
            format!("{ORDINAL} desc")
        };
        self.insert_from(&format!(
            "(select *, row_number() over (partition by \"id\" order by {newest}) as sluice_rank
                from {STAGING}) staged
             where sluice_rank = 1 or \"id\" is null"
        ))
        .await
    }

    /// The newest value of each column that is not null, of the load's rows and of the rows that are there.
    async fn merge_users(&self) -> Result<(), LoadError> {
        let table = self.table();
        let columns = self.columns().await?;
        let others: Vec<&String> = columns
            .iter()
            .filter(|name| *name != "id" && *name != UUID_TS)
            .collect();
        let all = list("", &columns);
        let newest: String = others
            .iter()
            .map(|name| {
                let column = quoted(name);
                format!(
                    ", (array_agg({column} order by \"received_at\" desc nulls last, {ORDINAL} desc)
                        filter (where {column} is not null))[1] as {column}"
                )
            })
            .collect();
        self.run(&format!(
            "create temporary table sluice_users on commit drop as
                 select \"id\"{newest} from (
                     select {all}, {ORDINAL} from {STAGING}
                     union all
                     select {all}, 0 from {table} where \"id\" in (select \"id\" from {STAGING})
                 ) every where \"id\" is not null group by \"id\""
        ))
        .await?;
        self.delete_staged_ids().await?;
        let others: String = others
            .iter()
            .map(|name| format!(", {}", quoted(name)))
            .collect();
        let at = time(self.load.loaded_at);
        self.run(&format!(
            "insert into {table} (\"id\"{others}, {UUID_TS})
                 select \"id\"{others}, {at} from sluice_users"
        ))
        .await
    }

    async fn delete_staged_ids(&self) -> Result<(), LoadError> {
        let table = self.table();
        self.run(&format!(
            "delete from {table} t using {STAGING} s where t.\"id\" = s.\"id\""
        ))
        .await
    }

    /// Inserts the planned columns of `source` and the load's time.
    async fn insert_from(&self, source: &str) -> Result<(), LoadError> {
        let table = self.table();
        let columns = list("", self.load.plan.columns.iter().map(|(name, _)| name));
        let at = time(self.load.loaded_at);
        self.run(&format!(
            "insert into {table} ({columns}, {UUID_TS}) select {columns}, {at} from {source}"
        ))
        .await
    }

    /// Each value once per row, column and table.
    async fn keep_discards(&mut self, discards: &[Discard]) -> Result<(), LoadError> {
        let savepoint = self.transaction.transaction().await?;
        let table = format!("{}.rudder_discards", quoted(&self.load.table.namespace));
        let create = format!(
            "create table if not exists {table} (
                table_name text, row_id text, column_name text, column_value text,
                received_at timestamptz, uuid_ts timestamptz, reason text)"
        );
        savepoint.batch_execute(&create).await?;
        let of_table = &self.load.table.table;
        let delete = savepoint
            .prepare(&format!(
                "delete from {table} where row_id = $1 and column_name = $2 and table_name = $3"
            ))
            .await?;
        let insert = savepoint
            .prepare(&format!(
                "insert into {table} (table_name, row_id, column_name, column_value, reason, received_at, uuid_ts)
                 values ($1, $2, $3, $4, $5, $6::text::timestamptz, $7::text::timestamptz)"
            ))
            .await?;
        let at = datetime::format(self.load.loaded_at);
        for discard in discards {
            savepoint
                .execute(&delete, &[&discard.row_id, &discard.column, of_table])
                .await?;
            let received_at = datetime::format(discard.received_at);
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
                of_table,
                &discard.row_id,
                &discard.column,
                &discard.value,
                &discard.reason,
                &received_at,
                &at,
            ];
            savepoint.execute(&insert, &values).await?;
        }
        Ok(savepoint.commit().await?)
    }

    /// The table's columns as they are in this transaction.
    async fn columns(&self) -> Result<Vec<String>, LoadError> {
        let sql = "select column_name::text from information_schema.columns
                   where table_schema = $1 and table_name = $2 order by column_name";
        let name = &self.load.table;
        let rows = self
            .transaction
            .query(sql, &[&name.namespace, &name.table])
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    fn table(&self) -> String {
        let name = &self.load.table;
        format!("{}.{}", quoted(&name.namespace), quoted(&name.table))
    }

    async fn run(&self, sql: &str) -> Result<(), LoadError> {
        Ok(self.transaction.batch_execute(sql).await?)
    }
}

/// Enters a manifest for a target; false if it is there already, after waiting for whoever is entering it.
async fn enter(
    transaction: &Transaction<'_>,
    ledger: &str,
    mark: &Mark,
    target: &str,
    at: UnixMs,
) -> Result<bool, LoadError> {
    let sql = format!(
        "insert into {ledger} values ($1, $2, $3, $4, $5, $6, $7, {}) on conflict do nothing",
        time(at)
    );
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &mark.manifest,
        &target,
        &mark.chain,
        &mark.partition,
        &mark.from,
        &mark.to,
        &mark.rows.cast_signed(),
    ];
    Ok(transaction.execute(&sql, &values).await? == 1)
}

fn time(ms: UnixMs) -> String {
    format!("'{}'::timestamptz", datetime::format(ms))
}

/// A cell in COPY's text format.
fn copy_cell(out: &mut BytesMut, cell: Option<&Cell<'_>>) {
    match cell {
        None => out.extend_from_slice(b"\\N"),
        Some(Cell::Int(int)) => push(out, format_args!("{int}")),
        // With an exponent where the digits would be many; both `numeric` and `double precision` read it.
        Some(Cell::Float(float)) => push(out, format_args!("{float:?}")),
        Some(Cell::Bool(flag)) => out.extend_from_slice(if *flag { b"t" } else { b"f" }),
        Some(Cell::Datetime(ms)) => out.extend_from_slice(datetime::format(*ms).as_bytes()),
        Some(Cell::Text(text) | Cell::Array(text)) => escape(out, text),
        Some(Cell::Json(text)) => escape(out, &without_null_escapes(text)),
    }
}

fn push(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("a BytesMut takes as much as memory holds");
}

/// PostgreSQL takes no NUL in text; RudderStack drops it too.
fn escape(out: &mut BytesMut, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0 => {}
            byte => out.put_u8(byte),
        }
    }
}

/// JSON text without `\u0000`, which `jsonb` refuses. A backslash that is itself escaped does not begin one.
fn without_null_escapes(json: &str) -> std::borrow::Cow<'_, str> {
    const NULL: &str = "\\u0000";
    if !json.contains(NULL) {
        return json.into();
    }
    let mut kept = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(NULL) {
            rest = after;
            continue;
        }
        // The escape and the character that it escapes.
        let taken = rest.chars().take(2).map(char::len_utf8).sum();
        kept.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    kept.push_str(rest);
    kept.into()
}

fn declared_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Int => "bigint",
        ColumnType::Float => "numeric",
        ColumnType::String | ColumnType::Text => "text",
        ColumnType::Boolean => "boolean",
        ColumnType::Datetime => "timestamptz",
        ColumnType::Json => "jsonb",
    }
}

/// What a type of `information_schema` holds. One that we do not know gets text, and PostgreSQL reads it as it can.
fn column_type(declared: &str) -> ColumnType {
    match declared {
        "bigint" | "integer" | "smallint" => ColumnType::Int,
        "numeric" | "double precision" | "real" => ColumnType::Float,
        "boolean" => ColumnType::Boolean,
        "timestamp with time zone" | "timestamp without time zone" | "date" => ColumnType::Datetime,
        "jsonb" | "json" => ColumnType::Json,
        _ => ColumnType::String,
    }
}

impl From<tokio_postgres::Error> for LoadError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(database) = error.as_db_error() else {
            return Self::Unreachable(error.to_string());
        };
        let code = database.code().code().to_owned();
        let message = database.message().to_owned();
        // Serialisation, deadlock, lock timeout, shutdown, resources, connection: all pass with time.
        let passes = ["40", "53", "57P", "58", "08", "55"]
            .iter()
            .any(|class| code.starts_with(class));
        if passes {
            Self::Busy { code, message }
        } else {
            Self::Refused { code, message }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(cell: Cell<'_>) -> String {
        let mut out = BytesMut::new();
        copy_cell(&mut out, Some(&cell));
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn text_cannot_leave_its_field() {
        assert_eq!(
            copied(Cell::Text("a\tb\nc\\N\r\0".into())),
            "a\\tb\\nc\\\\N\\r"
        );
    }

    #[test]
    fn a_null_character_leaves_json_without_breaking_it() {
        assert_eq!(without_null_escapes(r#"{"a":"x\u0000y"}"#), r#"{"a":"xy"}"#);
        assert_eq!(
            without_null_escapes(r#"{"a":"\\u0000"}"#),
            r#"{"a":"\\u0000"}"#
        );
        assert_eq!(
            without_null_escapes(r#"{"a":"\\\u0000\n"}"#),
            r#"{"a":"\\\n"}"#
        );
    }

    #[test]
    fn floats_keep_their_digits() {
        assert_eq!(copied(Cell::Float(0.1)), "0.1");
        assert_eq!(copied(Cell::Float(1e300)), "1e300");
    }

    #[test]
    fn an_error_never_shows_the_password() {
        let config =
            serde_json::json!({"host": "h", "database": "d", "user": "u", "password": "hunter2"});
        let loader = PostgresLoader::from_config(&config).unwrap();
        assert!(!format!("{loader:?}").contains("hunter2"));
        let tls =
            serde_json::json!({"host": "h", "database": "d", "user": "u", "sslMode": "require"});
        assert!(PostgresLoader::from_config(&tls).is_err());
    }
}

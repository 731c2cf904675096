//! One load, inside its transaction.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::Transaction;

use super::super::{
    LoadError, Loaded, Mark, Merge, TableLoad, beginnings, has_column, list, quoted,
};
use super::copy::copy_cell;
use super::{declared_type, time};
use crate::clock::UnixMs;
use crate::warehouse::datetime;
use crate::warehouse::plan::{Discard, UUID_TS, pieces};
use crate::warehouse::schema::ColumnType;

/// Rows are sent in pieces of about this many bytes.
const COPY_BYTES: usize = 64 * 1024;
const ORDINAL: &str = "sluice_ordinal";
const STAGING: &str = "sluice_staging";

/// One load, inside its transaction.
pub(super) struct Work<'t> {
    pub(super) transaction: Transaction<'t>,
    pub(super) ledger: String,
    pub(super) load: &'t TableLoad,
}

impl Work<'_> {
    pub(super) async fn load(&mut self) -> Result<Loaded, LoadError> {
        let target = self.load.table.to_string();
        // A loader that sleeps in the middle must not lock out the one that takes over.
        self.run("set local lock_timeout = '30s'; set local idle_in_transaction_session_timeout = '5min'")
            .await?;
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
pub(super) async fn enter(
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

//! One load, inside its transaction.

use rusqlite::{Transaction, params};

use super::super::{
    LoadError, Loaded, Mark, Merge, TableLoad, beginnings, has_column, list, quoted,
};
use super::{Bound, columns_of, declared_type};
use crate::clock::UnixMs;
use crate::warehouse::datetime;
use crate::warehouse::plan::{Discard, UUID_TS, pieces};
use crate::warehouse::schema::TableSchema;

const ORDINAL: &str = "sluice_ordinal";
const STAGING: &str = "temp.sluice_staging";

pub(super) fn load_table(
    transaction: &Transaction<'_>,
    load: &TableLoad,
) -> Result<Loaded, LoadError> {
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
pub(super) fn enter(
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

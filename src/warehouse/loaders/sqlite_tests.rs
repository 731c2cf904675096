//! The contract, and what is SQLite's own.

use futures_util::future::BoxFuture;
use rusqlite::types::Value;

use super::testing::{Probe, check};
use super::{Loader, SqliteLoader, TableName};
use crate::warehouse::schema::ColumnType;

struct File(std::path::PathBuf);

impl Probe for File {
    fn rows<'a>(
        &'a self,
        table: &'a TableName,
        columns: &'a [(&'a str, ColumnType)],
    ) -> BoxFuture<'a, Vec<Vec<Option<String>>>> {
        let connection = rusqlite::Connection::open(&self.0).unwrap();
        let names = columns.iter().map(|(name, _)| format!("\"{name}\""));
        let table = table.table.replace('"', "\"\"");
        let sql = format!(
            "select {} from \"{table}\" order by 1",
            names.collect::<Vec<_>>().join(", ")
        );
        let mut query = connection.prepare(&sql).unwrap();
        let rows = query
            .query_map([], |row| {
                (0..columns.len())
                    .map(|at| row.get(at).map(|value| shown(value, columns[at].1)))
                    .collect::<Result<Vec<_>, _>>()
            })
            .unwrap();
        let rows: Vec<_> = rows.map(Result::unwrap).collect();
        Box::pin(async move { rows })
    }
}

fn shown(value: Value, kind: ColumnType) -> Option<String> {
    match (value, kind) {
        (Value::Null, _) => None,
        (Value::Integer(flag), ColumnType::Boolean) => Some((flag == 1).to_string()),
        (Value::Integer(int), _) => Some(int.to_string()),
        (Value::Real(real), _) => Some(real.to_string()),
        (Value::Text(text), _) => Some(text),
        (Value::Blob(_), _) => panic!("a blob"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract_of_loaders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    let open = || Box::new(SqliteLoader::new(&path)) as Box<dyn Loader>;
    check(&open, &File(path.clone())).await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warehouse.db");
    std::fs::write(
        &path,
        "a text file that somebody put here, long enough to be read",
    )
    .unwrap();
    let error = SqliteLoader::new(&path).prepare().await.unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
}

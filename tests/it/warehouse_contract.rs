//! Every loader of the registry keeps the contract of loaders, against the real warehouse.

use futures_util::future::BoxFuture;
use rusqlite::types::Value;
use serde_json::json;
use sluice::warehouse::loaders::testing::{Probe, check};
use sluice::warehouse::loaders::{LOADERS, LoaderKind, TableName};
use sluice::warehouse::schema::ColumnType;
use tokio_postgres::Client;

use super::support::postgres;

#[tokio::test(flavor = "multi_thread")]
async fn every_loader_keeps_the_contract_of_loaders() {
    for kind in LOADERS {
        match kind.dialect.name {
            "SQLITE" => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("warehouse.db");
                run(kind, &json!({"path": path}), &File(path.clone())).await;
            }
            "POSTGRES" => {
                if let Some(database) = postgres::database().await {
                    let tables = Tables(database.client().await);
                    run(kind, &database.config(), &tables).await;
                }
            }
            other => panic!("say here against which server the suite runs on {other}"),
        }
    }
}

async fn run(kind: &LoaderKind, config: &serde_json::Value, probe: &dyn Probe) {
    check(&|| (kind.open)(config).unwrap(), probe).await;
}

struct Tables(Client);

impl Probe for Tables {
    fn rows<'a>(
        &'a self,
        table: &'a TableName,
        columns: &'a [(&'a str, ColumnType)],
    ) -> BoxFuture<'a, Vec<Vec<Option<String>>>> {
        let shown = columns.iter().map(|(name, kind)| match kind {
            ColumnType::Datetime => format!(
                "to_char(\"{name}\" at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
            ),
            _ => format!("\"{name}\"::text"),
        });
        let sql = format!(
            "select {} from \"{}\".\"{}\" order by 1",
            shown.collect::<Vec<_>>().join(", "),
            table.namespace,
            table.table.replace('"', "\"\"")
        );
        Box::pin(async move {
            let rows = self.0.query(&sql, &[]).await.unwrap();
            let cell = |row: &tokio_postgres::Row, at: usize| {
                let text: Option<String> = row.get(at);
                match columns[at].1 {
                    ColumnType::Json => text.map(|json| {
                        serde_json::from_str::<serde_json::Value>(&json)
                            .unwrap()
                            .to_string()
                    }),
                    _ => text,
                }
            };
            rows.iter()
                .map(|row| (0..columns.len()).map(|at| cell(row, at)).collect())
                .collect()
        })
    }
}

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

//! The loader of PostgreSQL against a real server.

use futures_util::future::BoxFuture;
use sluice::fault::{Classify, Fault};
use sluice::warehouse::loaders::testing::{Probe, check};
use sluice::warehouse::loaders::{Loader, PostgresLoader, TableName};
use sluice::warehouse::schema::ColumnType;
use tokio_postgres::Client;

use super::support::postgres;

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

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_contract_of_loaders() {
    let Some(database) = postgres::database().await else {
        return;
    };
    let config = database.config();
    let open = || Box::new(PostgresLoader::from_config(&config).unwrap()) as Box<dyn Loader>;
    check(&open, &Tables(database.client().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_transient_and_the_next_call_connects_again() {
    let Some(database) = postgres::database().await else {
        return;
    };
    let mut loader = PostgresLoader::from_config(&database.config()).unwrap();
    loader.prepare().await.unwrap();
    let kill =
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sluice'
                and datname = current_database()";
    database.client().await.batch_execute(kill).await.unwrap();
    // The server ends the connection when it gets to it: calls before that pass, one notices, the next connects again.
    let mut noticed = 0;
    for _ in 0..1_000 {
        match loader.prepare().await {
            Ok(()) if noticed > 0 => return,
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => {
                assert_eq!(error.fault(), Fault::RETRY, "{error}");
                noticed += 1;
                assert!(noticed < 10, "{error}");
            }
        }
    }
    // Never noticed: the client saw the end before it was asked again, and connected anew by itself.
    assert_eq!(noticed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_lies_in_the_namespace_that_the_destination_names() {
    let Some(database) = postgres::database().await else {
        return;
    };
    let mut config = database.config();
    config["namespace"] = "Web Shop".into();
    let mut loader = PostgresLoader::from_config(&config).unwrap();
    loader.prepare().await.unwrap();
    loader.prepare().await.unwrap();
    let client = database.client().await;
    let found = client
        .query_one(
            "select to_regclass('web_shop.sluice_loads') is not null",
            &[],
        )
        .await
        .unwrap();
    assert!(found.get::<_, bool>(0));
}

#[tokio::test]
async fn a_server_that_is_away_is_transient() {
    let config = serde_json::json!({
        "host": "127.0.0.1", "port": "1", "database": "d", "user": "u"
    });
    let mut loader = PostgresLoader::from_config(&config).unwrap();
    let error = loader.prepare().await.unwrap_err();
    assert_eq!(error.fault(), Fault::RETRY, "{error}");
}

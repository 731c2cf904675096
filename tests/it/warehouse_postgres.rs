//! What is PostgreSQL's own, against a real server; the contract is checked in `warehouse_contract`.

use sluice::fault::{Classify, Fault};
use sluice::warehouse::loaders::{Loader, PostgresLoader};

use super::support::postgres;

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

//! PostgreSQL, by COPY into a temporary table and from there into the table, in one transaction with the ledger.

mod copy;
mod work;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio_postgres::{Client, Config, NoTls};

use super::{
    LEDGER_KEPT_MS, LoadError, Loaded, Loader, Mark, TableLoad, TableName, config_text, quoted,
};
use crate::clock::UnixMs;
use crate::failpoint;
use crate::warehouse::dialect::POSTGRES;
use crate::warehouse::schema::{ColumnType, TableSchema};
use crate::warehouse::{datetime, names};
use work::{Work, enter};

/// PostgreSQL's limit is 1,600; two are kept free for the staging table's own.
const COLUMNS_MAX: usize = 1598;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
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

fn time(ms: UnixMs) -> String {
    format!("'{}'::timestamptz", datetime::format(ms))
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

//! From the chain into SQLite: what is loaded once stays loaded once, whatever fails and whoever dies.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use uuid::Uuid;

use super::columns::TableBuffer;
use super::files;
use super::load::{Load, Progress};
use super::loaders::{Loader, SqliteLoader};
use super::manifest::{Chain, Claim, Manifest, StagedColumn, StagedTable, VERSION};
use super::rows::{Column, Row};
use super::{Cell, schema::ColumnType};
use crate::config::LoadConfig;

struct Bench {
    folder: tempfile::TempDir,
    store: Arc<dyn ObjectStore>,
    limits: LoadConfig,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        Self {
            folder,
            store: Arc::new(store),
            limits: LoadConfig::default(),
        }
    }

    fn chain(&self, partition: i32) -> Chain {
        let prefix = Path::default();
        Chain::new(self.store.clone(), &prefix, "d", "t", None, partition)
    }

    /// Adds a manifest with one row per id to each of `tables`.
    async fn stage(&self, partition: i32, range: std::ops::Range<i64>, tables: &[(&str, &[&str])]) {
        let chain = self.chain(partition);
        let batch = Uuid::new_v4();
        let mut staged = Vec::new();
        for (table, ids) in tables {
            let mut buffer = TableBuffer::new();
            for id in *ids {
                buffer.append(&row(id));
            }
            let rows = buffer.finish().unwrap();
            let columns = StagedColumn::of(&rows.schema());
            let file = files::encode(&rows).unwrap();
            let key = chain.file_key("ns", table, range.clone(), batch);
            let bytes = file.len() as u64;
            files::put(&self.store, &key, file).await.unwrap();
            staged.push(StagedTable {
                namespace: "ns".into(),
                table: (*table).into(),
                rows: ids.len() as u64,
                key: key.to_string(),
                bytes,
                columns,
            });
        }
        let manifest = Manifest {
            version: VERSION,
            batch,
            destination: "d".into(),
            chain: chain.name().into(),
            partition,
            start: range.start,
            end: range.end,
            events: 1,
            rejected: Default::default(),
            config_revision: 0,
            created_at: 0,
            tables: staged,
        };
        assert_eq!(chain.claim(&manifest).await.unwrap(), Claim::Won);
    }

    /// A step of a process that was just started.
    async fn step(&self) -> Progress {
        let mut loader = SqliteLoader::new(self.folder.path().join("w.db"));
        self.step_with(&mut loader).await
    }

    async fn step_with(&self, loader: &mut dyn Loader) -> Progress {
        let chain = self.chain(0);
        let mut load = Load {
            chain: &chain,
            loader,
            limits: &self.limits,
            prefers_append: false,
            now: 0,
        };
        load.step().await.unwrap()
    }

    fn sql(&self, sql: &str) -> Vec<String> {
        let connection = rusqlite::Connection::open(self.folder.path().join("w.db")).unwrap();
        let mut query = connection.prepare(sql).unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn execute(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.folder.path().join("w.db")).unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

fn row(id: &str) -> Row<'_> {
    let column = |name: &str, kind, cell| Column {
        name: name.into(),
        kind,
        cell,
    };
    Row {
        table: "".into(),
        columns: vec![
            column("id", ColumnType::String, Cell::Text(id.into())),
            column("received_at", ColumnType::Datetime, Cell::Datetime(0)),
        ],
    }
}

#[tokio::test]
async fn manifests_of_all_partitions_are_loaded_once_over_restarts() {
    let bench = Bench::new();
    bench
        .stage(0, 0..10, &[("tracks", &["a", "b"]), ("clicked", &["a"])])
        .await;
    bench.stage(1, 0..3, &[("tracks", &["c"])]).await;
    bench.stage(0, 10..12, &[]).await;
    let progress = bench.step().await;
    assert_eq!(
        (progress.finished.len(), progress.rows, progress.waiting),
        (3, 4, 0)
    );
    bench.stage(0, 12..20, &[("tracks", &["d"])]).await;
    let progress = bench.step().await;
    assert_eq!((progress.finished.len(), progress.rows), (1, 1));
    assert_eq!(bench.step().await.finished.len(), 0);
    assert_eq!(
        bench.sql("select id from tracks order by id"),
        ["a", "b", "c", "d"]
    );
    assert_eq!(bench.sql("select id from clicked"), ["a"]);
}

#[tokio::test]
async fn a_table_that_fails_stops_neither_the_others_nor_later_manifests_of_theirs() {
    let bench = Bench::new();
    bench
        .stage(0, 0..1, &[("good", &["a"]), ("bad", &["a"])])
        .await;
    // A view of that name: rows cannot go in.
    bench.execute("create view bad as select 1 as id");
    let first = bench.step().await;
    assert_eq!(first.failed.len(), 1);
    assert_eq!((first.finished.len(), first.waiting), (0, 1));
    bench.stage(0, 1..2, &[("good", &["b"])]).await;
    bench.stage(0, 2..3, &[("bad", &["c"])]).await;
    let second = bench.step().await;
    assert_eq!(
        (second.finished.len(), second.waiting, second.rows),
        (0, 3, 1)
    );
    assert_eq!(bench.sql("select id from good order by id"), ["a", "b"]);

    bench.execute("drop view bad");
    let third = bench.step().await;
    assert_eq!(
        (third.finished.len(), third.rows, third.failed.len()),
        (3, 2, 0)
    );
    assert_eq!(bench.sql("select id from bad order by id"), ["a", "c"]);
    assert_eq!(bench.sql("select id from good order by id"), ["a", "b"]);
}

#[tokio::test]
async fn a_load_in_many_small_transactions_gives_the_same_rows() {
    let mut bench = Bench::new();
    bench.limits.transaction_bytes_max = 1;
    bench.limits.manifests_max = 2;
    for n in 0..5 {
        let id = format!("{n}");
        bench
            .stage(0, n..n + 1, &[("tracks", &[id.as_str()])])
            .await;
    }
    let mut loader = SqliteLoader::new(bench.folder.path().join("w.db"));
    let mut steps = 1;
    while bench.step_with(&mut loader).await.has_more {
        steps += 1;
    }
    assert_eq!(steps, 3);
    assert_eq!(bench.sql("select id from tracks order by id").len(), 5);
}

#[tokio::test]
async fn a_file_that_is_gone_fails_its_table_and_says_so() {
    let bench = Bench::new();
    bench.stage(0, 0..1, &[("tracks", &["a"])]).await;
    let manifest = bench.chain(0).at(0).await.unwrap().unwrap();
    files::remove(&bench.store, &manifest.keys()).await;
    let progress = bench.step().await;
    assert_eq!((progress.failed.len(), progress.waiting), (1, 1));
    let key = Path::from(manifest.tables[0].key.as_str());
    files::put(&bench.store, &key, Bytes::from_static(b"rubbish"))
        .await
        .unwrap();
    assert_eq!(bench.step().await.failed.len(), 1);
}

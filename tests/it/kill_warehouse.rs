//! The warehouse role is killed at every named point, or stopped and woken again; each event is one row all the same.
//!
//! Rows are appended (`preferAppend`): a merge by id would hide a file that is written or loaded twice. All of it on a local
//! folder and on a real S3 server, since each creates a manifest only once in its own way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use sluice::config::KafkaConfig;
use sluice::dev::kafka::LocalKafka;
use sluice::event::Envelope;
use sluice::kafka::{AckProducer, Batch, RecordRef, deadline};
use sluice::warehouse::manifest::Manifest;

use crate::support::checker::{Input, check_rows};
use crate::support::feed::{Feed, event};
use crate::support::killed::Killed;
use crate::support::postgres::{self, Database};
use crate::support::process::{Bed, free_address, wait_for};
use crate::support::s3::{self, Bucket};
use crate::warehouse_bed::payload;

const PATIENCE: Duration = Duration::from_secs(120);
const DESTINATIONS: [&str; 2] = ["lite", "post"];

/// The points on a row's way, each to be died of early and later.
const POINTS: [&str; 10] = [
    "warehouse.after_poll@100",
    "warehouse.after_upload@1",
    "warehouse.after_manifest@1",
    "warehouse.inside_load@1",
    "warehouse.after_load@1",
    "warehouse.after_poll@700",
    "warehouse.after_upload@4",
    "warehouse.after_manifest@4",
    "warehouse.inside_load@6",
    "warehouse.after_load@6",
];

/// Where staging files and manifests lie.
enum Store {
    Folder,
    S3(Bucket),
}

fn bed(name: &str, database: &Database, store: &Store) -> Bed {
    let bootstrap = LocalKafka::shared().unwrap().bootstrap();
    let mut bed = Bed::new(bootstrap, name);
    let settings = match store {
        Store::Folder => json!({"url": format!("file://{}", bed.path("staging").display())}),
        Store::S3(bucket) => bucket.settings(),
    };
    bed.set("warehouse.object_store", settings);
    bed.set("warehouse.batch.age_ms_max", 50);
    bed.set("warehouse.load.interval_ms", 50);
    bed.set("warehouse.load.backoff_base_ms", 50);
    bed.set("kafka.consumer.session_timeout_ms", 6_000);
    bed.set("kafka.consumer.heartbeat_interval_ms", 1_500);
    let mut post = database.config();
    post["preferAppend"] = true.into();
    let lite = json!({"path": bed.path("lite.db"), "preferAppend": true});
    bed.workspace(&json!({
        "sources": [{"id": "web", "name": "Web", "write_key": "K"}],
        "destinations": [
            {"id": "lite", "type": "SQLITE", "config": lite},
            {"id": "post", "type": "POSTGRES", "config": post},
        ],
        "connections": DESTINATIONS.map(|id| json!({"source": "web", "destination": id})),
    }));
    bed.run(&["topics", "apply", "--yes"]);
    bed
}

/// Writes numbered events to the topics of both warehouses, as the processor does.
struct Source<'b> {
    bed: &'b Bed,
    producer: AckProducer,
    feed: Feed,
    inputs: Vec<Input>,
    runtime: tokio::runtime::Runtime,
}

impl<'b> Source<'b> {
    fn new(bed: &'b Bed) -> Self {
        Self {
            bed,
            producer: AckProducer::open(&KafkaConfig::at(&bed.bootstrap), "test").unwrap(),
            feed: Feed::new("w", 0, 200, free_address(), "K"),
            inputs: Vec::new(),
            runtime: tokio::runtime::Runtime::new().unwrap(),
        }
    }

    fn send(&mut self, count: u64) {
        let inputs = self.feed.make(count);
        let latch = Batch::new();
        for input in &inputs {
            let json = event(input).to_string();
            let envelope = Envelope {
                message_id: input.id.as_str().into(),
                source_id: "web".into(),
                event_type: "track".into(),
                user_id: input.key.as_str().into(),
                received_at: 1_700_000_000_000,
                event: json.as_bytes().into(),
                ..Envelope::default()
            };
            for destination in DESTINATIONS {
                let topic = self.bed.topic(&format!("warehouse.{destination}"));
                let payload = payload(destination, &envelope);
                let record = RecordRef::new(&topic, input.key.as_bytes(), &payload);
                self.producer.send(&latch, record).unwrap();
            }
        }
        let acknowledged = latch.wait(deadline(PATIENCE));
        self.runtime.block_on(acknowledged).unwrap();
        self.inputs.extend(inputs);
    }
}

/// The tables of both warehouses.
struct Tables<'b> {
    bed: &'b Bed,
    store: &'b Store,
    database: &'b Database,
    runtime: &'b tokio::runtime::Runtime,
}

impl Tables<'_> {
    fn lite(&self, table: &str) -> Vec<String> {
        let Ok(connection) = rusqlite::Connection::open(self.bed.path("lite.db")) else {
            return Vec::new();
        };
        connection.busy_timeout(PATIENCE).unwrap();
        let Ok(mut query) = connection.prepare(&format!("select id from {table}")) else {
            return Vec::new();
        };
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn post(&self, table: &str) -> Vec<String> {
        self.runtime.block_on(async {
            let client = self.database.client().await;
            let sql = format!("select id from web.{table}");
            // No such table yet.
            let rows = client.query(&sql, &[]).await.unwrap_or_default();
            rows.iter().map(|row| row.get(0)).collect()
        })
    }

    /// Waits until every event has a row everywhere.
    fn wait_for_rows(&self, inputs: &[Input]) {
        let all = |ids: Vec<String>| ids.iter().collect::<BTreeSet<_>>().len() >= inputs.len();
        for table in ["tick", "tracks"] {
            wait_for("a row for every event", PATIENCE, || {
                (all(self.lite(table)) && all(self.post(table))).then_some(())
            });
        }
    }

    fn assert_exactly_once(&self, inputs: &[Input]) {
        for table in ["tick", "tracks"] {
            for (warehouse, ids) in [
                ("SQLite", self.lite(table)),
                ("PostgreSQL", self.post(table)),
            ] {
                let report = check_rows(inputs, ids.iter().map(String::as_str));
                println!("{warehouse} {table}: {report}");
                report.assert_clean(&format!("{warehouse} {table}"));
            }
        }
    }

    /// Every staging file is named by a manifest, and every file that is named is there.
    fn assert_no_orphans(&self) {
        let objects = match self.store {
            Store::Folder => {
                let mut objects = BTreeMap::new();
                let staging = self.bed.path("staging");
                walk(&staging, &staging, &mut objects);
                objects
            }
            Store::S3(bucket) => self.runtime.block_on(bucket.objects()),
        };
        let keys_that_end = |end: &str| -> BTreeSet<&str> {
            let keys = objects.keys().map(String::as_str);
            keys.filter(|key| key.ends_with(end)).collect()
        };
        let files: BTreeSet<String> = keys_that_end(".parquet")
            .into_iter()
            .map(str::to_owned)
            .collect();
        let named: BTreeSet<String> = keys_that_end(".json")
            .into_iter()
            .flat_map(|key| {
                serde_json::from_slice::<Manifest>(&objects[key])
                    .unwrap()
                    .keys()
            })
            .collect();
        let orphans: Vec<_> = files.difference(&named).collect();
        let missing: Vec<_> = named.difference(&files).collect();
        assert!(
            orphans.is_empty() && missing.is_empty() && !named.is_empty(),
            "{orphans:?} {missing:?}"
        );
    }
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(root, &path, found);
        } else {
            let key = path.strip_prefix(root).unwrap().to_str().unwrap();
            found.insert(key.to_owned(), std::fs::read(&path).unwrap());
        }
    }
}

fn database(runtime: &tokio::runtime::Runtime) -> Option<Database> {
    runtime.block_on(postgres::database())
}

#[test]
fn a_warehouse_killed_at_every_point_makes_one_row_of_each_event() {
    killed_at_every_point("kill-warehouse", &Store::Folder);
}

#[test]
fn a_warehouse_on_s3_killed_at_every_point_makes_one_row_of_each_event() {
    killed_at_every_point("kill-warehouse-s3", &Store::S3(s3::bucket("kill")));
}

fn killed_at_every_point(name: &str, store: &Store) {
    const EVENTS: u64 = 20_000;
    const CHUNK: u64 = 100;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(database) = database(&runtime) else {
        return;
    };
    let bed = bed(name, &database, store);
    let mut source = Source::new(&bed);
    let mut killed = Killed::start(bed.role("warehouse", "warehouse"), &POINTS);
    let until = Instant::now() + PATIENCE * 2;
    let mut sent = 0;
    while sent < EVENTS || killed.ahead() > 0 {
        killed.tend();
        if sent < EVENTS {
            source.send(CHUNK);
            sent += CHUNK;
        } else {
            // A trickle for the points that are still ahead.
            source.send(1);
        }
        let pace = if killed.ahead() > 0 { 60 } else { 0 };
        std::thread::sleep(Duration::from_millis(pace));
        assert!(
            Instant::now() < until,
            "still alive at {}",
            killed.waits_for()
        );
    }
    let tables = Tables {
        bed: &bed,
        store,
        database: &database,
        runtime: &runtime,
    };
    tables.wait_for_rows(&source.inputs);
    killed.stop(Duration::from_secs(30));
    tables.assert_exactly_once(&source.inputs);
    tables.assert_no_orphans();
}

#[test]
fn a_writer_that_wakes_up_after_another_took_over_loses_its_race_and_cleans_up() {
    wakes_up_too_late("wake-warehouse", &Store::Folder);
}

#[test]
fn a_writer_on_s3_that_wakes_up_after_another_took_over_loses_its_race_and_cleans_up() {
    wakes_up_too_late("wake-warehouse-s3", &Store::S3(s3::bucket("wake")));
}

fn wakes_up_too_late(name: &str, store: &Store) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(database) = database(&runtime) else {
        return;
    };
    let bed = bed(name, &database, store);
    let mut source = Source::new(&bed);
    // Stops with its files uploaded and no manifest. It looks for something to load at its start and then for long not again:
    // SQLite's lock would sleep with it.
    let mut sleeper = bed
        .role("warehouse", "sleeper")
        .with("warehouse.load.interval_ms", 3_600_000)
        .start("warehouse.after_upload=stop@1");
    sleeper.wait_ready(PATIENCE);
    wait_for("the sleeper's only load", PATIENCE, || {
        let page = sleeper.metrics();
        let has_looked = |id: &&str| {
            page.contains(&format!(
                "sluice_warehouse_manifests_waiting{{destination=\"{id}\"}}"
            ))
        };
        DESTINATIONS.iter().all(has_looked).then_some(())
    });
    source.send(500);
    let tables = Tables {
        bed: &bed,
        store,
        database: &database,
        runtime: &runtime,
    };
    wait_for("the sleeper to fall asleep", PATIENCE, || {
        sleeper.is_stopped().then_some(())
    });
    let other = bed.role("warehouse", "other").start_ready(PATIENCE);
    source.send(500);
    tables.wait_for_rows(&source.inputs);
    sleeper.signal(Signal::SIGCONT);
    source.send(500);
    wait_for("the sleeper to see that it lost", PATIENCE, || {
        let log = sleeper.log();
        log.contains("another writer wrote offsets").then_some(())
    });
    // It may have partitions again, and loads nothing: the other one does.
    assert!(sleeper.stop(Duration::from_secs(30)).success());
    tables.wait_for_rows(&source.inputs);
    assert!(other.stop(Duration::from_secs(30)).success());
    tables.assert_exactly_once(&source.inputs);
    tables.assert_no_orphans();
}

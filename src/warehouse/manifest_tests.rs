//! The chain on a real local disk: races, lost answers, crashes between upload and manifest.

use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use uuid::Uuid;

use super::files;
use super::manifest::{Chain, Claim, Manifest, ManifestError, StagedTable, VERSION};

struct Disk {
    _folder: tempfile::TempDir,
    store: Arc<dyn ObjectStore>,
}

fn disk() -> Disk {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    Disk {
        _folder: folder,
        store: Arc::new(store),
    }
}

fn chain(disk: &Disk, partition: i32) -> Chain {
    let prefix = Path::from("sluice/wh");
    Chain::new(
        disk.store.clone(),
        &prefix,
        "dest 1",
        "t",
        Some("id1"),
        partition,
    )
}

async fn end(chain: &Chain, hint: Option<i64>) -> Result<i64, ManifestError> {
    Ok(chain.last(hint).await?.map_or(0, |manifest| manifest.end))
}

/// A manifest over one uploaded file.
async fn batch(chain: &Chain, range: std::ops::Range<i64>) -> Manifest {
    let batch = Uuid::new_v4();
    let key = chain.file_key("ns", "tracks", range.clone(), batch);
    files::put(chain.store(), &key, Bytes::from_static(b"rows"))
        .await
        .unwrap();
    Manifest {
        version: VERSION,
        batch,
        destination: "dest 1".into(),
        chain: chain.name().into(),
        partition: chain.partition(),
        start: range.start,
        end: range.end,
        events: 1,
        rejected: Default::default(),
        config_revision: 0,
        created_at: 0,
        tables: vec![StagedTable {
            namespace: "ns".into(),
            table: "tracks".into(),
            rows: 1,
            key: key.to_string(),
            bytes: 4,
            columns: vec![],
        }],
    }
}

async fn exists(chain: &Chain, manifest: &Manifest) -> bool {
    let key = Path::from(manifest.tables[0].key.as_str());
    chain.store().head(&key).await.is_ok()
}

#[tokio::test]
async fn a_writer_goes_on_where_the_chain_ends_whatever_the_group_committed() {
    let disk = disk();
    let chain = chain(&disk, 3);
    assert_eq!(end(&chain, None).await.unwrap(), 0);
    for range in [0..50, 50..51, 51..4000] {
        let manifest = batch(&chain, range).await;
        assert_eq!(chain.claim(&manifest).await.unwrap(), Claim::Won);
    }
    for hint in [None, Some(0), Some(50), Some(51), Some(4000), Some(999_999)] {
        assert_eq!(end(&chain, hint).await.unwrap(), 4000, "{hint:?}");
    }
    let next = chain.at(50).await.unwrap().unwrap();
    assert_eq!((next.start, next.end), (50, 51));
    assert_eq!(chain.at(4000).await.unwrap(), None);
}

#[tokio::test]
async fn of_two_writers_of_one_range_one_wins_and_the_loser_leaves_nothing_behind() {
    let disk = disk();
    let chain = chain(&disk, 0);
    let (mine, theirs) = (batch(&chain, 0..80).await, batch(&chain, 0..100).await);
    assert_eq!(chain.claim(&theirs).await.unwrap(), Claim::Won);
    let Claim::Lost(winner) = chain.claim(&mine).await.unwrap() else {
        panic!("both won");
    };
    assert_eq!(*winner, theirs);
    assert!(!exists(&chain, &mine).await && exists(&chain, &theirs).await);
    assert_eq!(end(&chain, None).await.unwrap(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_at_once_make_one_chain_without_gap_or_overlap() {
    let disk = disk();
    let chain = chain(&disk, 0);
    let writers: Vec<_> = (1..=8)
        .map(|step| {
            let chain = chain.clone();
            tokio::spawn(async move {
                let mut wins = Vec::new();
                while let Ok(end) = end(&chain, None).await {
                    if end >= 200 {
                        break;
                    }
                    let manifest = batch(&chain, end..end + step).await;
                    if chain.claim(&manifest).await.unwrap() == Claim::Won {
                        wins.push(manifest.id());
                    }
                }
                wins
            })
        })
        .collect();
    let mut won = Vec::new();
    for writer in writers {
        won.extend(writer.await.unwrap());
    }
    let (mut at, mut walked) = (0, Vec::new());
    while let Some(manifest) = chain.at(at).await.unwrap() {
        assert!(exists(&chain, &manifest).await);
        walked.push(manifest.id());
        at = manifest.end;
    }
    won.sort();
    assert_eq!(walked, won);
    assert!(at >= 200);
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_recognised_as_our_own() {
    let disk = disk();
    let chain = chain(&disk, 0);
    let mine = batch(&chain, 0..10).await;
    assert_eq!(chain.claim(&mine).await.unwrap(), Claim::Won);
    assert_eq!(chain.claim(&mine).await.unwrap(), Claim::Won);
    assert!(exists(&chain, &mine).await);
}

#[tokio::test]
async fn only_files_of_decided_races_are_swept() {
    let disk = disk();
    let chain = chain(&disk, 0);
    let crashed = batch(&chain, 0..70).await;
    assert_eq!(chain.sweep(0).await.unwrap(), 0);
    let winner = batch(&chain, 0..90).await;
    chain.claim(&winner).await.unwrap();
    let undecided = batch(&chain, 90..95).await;
    assert_eq!(chain.sweep(0).await.unwrap(), 1);
    assert_eq!(chain.sweep(90).await.unwrap(), 0);
    assert!(!exists(&chain, &crashed).await);
    assert!(exists(&chain, &winner).await && exists(&chain, &undecided).await);
}

#[tokio::test]
async fn chains_of_other_partitions_and_of_a_topic_made_again_are_apart() {
    let disk = disk();
    let old = chain(&disk, 0);
    old.claim(&batch(&old, 0..10).await).await.unwrap();
    assert_eq!(end(&chain(&disk, 1), None).await.unwrap(), 0);
    let prefix = Path::from("sluice/wh");
    let again = Chain::new(disk.store.clone(), &prefix, "dest 1", "t", Some("id2"), 0);
    assert_eq!(end(&again, None).await.unwrap(), 0);
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_stops_the_partition_instead_of_being_skipped() {
    let disk = disk();
    let chain = chain(&disk, 0);
    let key = Path::from("sluice/wh/dest 1/log/t.id1/00000/00000000000000000000.json");
    chain
        .store()
        .put(&key, "{\"version\":".into())
        .await
        .unwrap();
    assert!(matches!(
        end(&chain, None).await,
        Err(ManifestError::Unusable { .. })
    ));
    let newer = Manifest {
        version: VERSION + 1,
        ..batch(&chain, 0..5).await
    };
    let body = serde_json::to_vec(&newer).unwrap();
    chain.store().put(&key, body.into()).await.unwrap();
    let error = chain.at(0).await.unwrap_err().to_string();
    assert!(error.contains("newer version"), "{error}");
}

//! What is SQLite's own; the contract is checked with that of the other warehouses, in `tests/it/warehouse_contract.rs`.

use super::{Loader, SqliteLoader};

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

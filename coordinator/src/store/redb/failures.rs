//! Tests: what the store says and holds after its disk failed at any point.

use futures_util::StreamExt;
use model::store::{Key, LeaseId, Operation, StoreRevision, Transaction};
use tempfile::TempDir;

use super::*;
use crate::store::Compacted;

#[tokio::test]
async fn write_that_fails_anywhere_is_done_or_undone_as_answered() {
    for writes in 0.. {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        put(&store, "before", 10).await.unwrap();
        store.shared.file.faults().fill_disk_after(writes);
        let answer = put(&store, "during", 200_000).await;
        let met = store.shared.file.faults().heal();
        // Anything that is written now opens the file again if that was not possible.
        put(&store, "after", 10).await.unwrap();
        check_answer(&answer, &paths(&store).await);
        if !met {
            assert!(answer.is_ok() && writes > 5, "{writes}: {answer:?}");
            return;
        }
    }
}

#[tokio::test]
async fn full_disk_says_so_and_needs_no_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    store.shared.file.faults().fill_disk_after(0);
    let error = put(&store, "during", 200_000).await.unwrap_err();
    assert!(error.to_string().contains("make room"), "{error}");
    store.shared.file.faults().heal();
    assert_eq!(put(&store, "after", 10).await, Ok(StoreRevision(1)));
}

#[tokio::test]
async fn lease_that_could_not_be_stored_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    store.shared.file.faults().fill_disk_after(0);
    assert!(store.lease_grant(Duration::from_secs(1)).await.is_err());
    store.shared.file.faults().heal();
    put(&store, "after", 10).await.unwrap();
    let unknown = store.lease_keep_alive(LeaseId(1)).await;
    assert_eq!(unknown, Err(StoreError::UnknownLease(LeaseId(1))));
}

#[tokio::test]
async fn failed_flush_closes_the_store_until_it_is_opened_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    put(&store, "before", 10).await.unwrap();
    store.shared.file.faults().fail_flushes();
    let error = put(&store, "during", 10).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::OutcomeUnknown { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("restart the coordinator"),
        "{error}"
    );
    store.shared.file.faults().heal();

    let refused = put(&store, "after", 10).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotStored { .. }), "{refused}");
    assert!(matches!(
        store.range("").await,
        Err(StoreError::Unreadable { .. })
    ));
    drop(store);

    let store = open(&directory);
    assert!(paths(&store).await.contains(&"before".to_owned()));
    put(&store, "after", 10).await.unwrap();
}

#[tokio::test]
async fn watch_starts_over_when_the_file_had_to_be_opened_again_later() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    put(&store, "before", 10).await.unwrap();
    let mut watch = store.watch(StoreRevision::ZERO).await.unwrap();
    // As after a failure from which the file could not be opened at once.
    *store.shared.database.write().unwrap() = None;
    put(&store, "after", 10).await.unwrap();
    let first = watch.next().await.unwrap();
    assert_eq!(
        first,
        Err(Compacted {
            through: StoreRevision(1)
        })
    );
    assert_eq!(paths(&store).await, ["after", "before"]);
}

fn open(directory: &TempDir) -> RedbStore {
    RedbStore::open(&directory.path().join("store")).unwrap()
}

async fn put(store: &RedbStore, path: &str, bytes: usize) -> Result<StoreRevision, StoreError> {
    let operations = vec![Operation::put(Key::new(path).unwrap(), vec![7; bytes])];
    let transaction = Transaction {
        compare: Vec::new(),
        operations,
    };
    let committed = store.transaction(transaction).await?;
    Ok(committed.expect("nothing was compared").revision)
}

async fn paths(store: &RedbStore) -> Vec<String> {
    let listing = store.range("").await.unwrap();
    listing
        .entries
        .into_iter()
        .map(|entry| entry.key.into())
        .collect()
}

fn check_answer(answer: &Result<StoreRevision, StoreError>, paths: &[String]) {
    match answer {
        Ok(_) => assert_eq!(paths, ["after", "before", "during"]),
        Err(StoreError::NotStored { .. }) => assert_eq!(paths, ["after", "before"]),
        Err(StoreError::OutcomeUnknown { .. }) => assert!(paths.len() >= 2),
        Err(other) => panic!("no failing disk causes {other}"),
    }
}

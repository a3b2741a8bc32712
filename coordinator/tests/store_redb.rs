//! The redb store as a thing on disk: what a restart finds, and what is refused without being
//! touched.

// A failure anywhere in here is a failed test.
#![allow(clippy::unwrap_used)]

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coordinator::store::{Compacted, OpenError, RedbStore, Store, StoreError};
use futures_util::{FutureExt, StreamExt};
use model::store::{Committed, Key, LeaseId, Operation, StoreRevision, Transaction};
use model::time::Instant;
use tempfile::TempDir;

#[tokio::test]
async fn reopened_store_keeps_keys_and_revision() {
    let place = Place::new();
    let store = place.open().unwrap();
    for path in ["a", "b", "c"] {
        put(&store, path, None).await;
    }
    // The last revision shows in no key.
    transact(&store, Operation::delete(key("c"))).await.unwrap();
    let before = store.range("").await.unwrap();
    drop(store);

    let store = place.open().unwrap();
    assert_eq!(store.range("").await.unwrap(), before);
    assert_eq!(put(&store, "d", None).await, StoreRevision(5));
}

#[tokio::test]
async fn watch_from_before_a_restart_starts_over() {
    let place = Place::new();
    let store = place.open().unwrap();
    put(&store, "a", None).await;
    put(&store, "b", None).await;
    drop(store);

    let store = place.open().unwrap();
    let mut behind = store.watch(StoreRevision(1)).await.unwrap();
    assert_eq!(
        behind.next().await,
        Some(Err(Compacted {
            through: StoreRevision(2)
        }))
    );
    let mut current = store.watch(StoreRevision(2)).await.unwrap();
    put(&store, "c", None).await;
    assert_eq!(
        current.next().await.unwrap().unwrap().revision,
        StoreRevision(3)
    );
}

#[tokio::test]
async fn leases_survive_a_restart_and_are_counted_anew() {
    let place = Place::new();
    let store = place.open().unwrap();
    let lease = store.lease_grant(Duration::from_secs(10)).await.unwrap();
    put(&store, "leased", Some(lease)).await;
    store.expire_leases(at(0)).await.unwrap();
    store.expire_leases(at(9)).await.unwrap();
    drop(store);

    let store = place.open().unwrap();
    // The clock of the new process may start anywhere.
    assert_eq!(store.expire_leases(at(1000)).await, Ok(vec![]));
    assert_eq!(store.expire_leases(at(1010)).await, Ok(vec![lease]));
    assert_eq!(store.range("").await.unwrap().entries, []);
    let next = store.lease_grant(Duration::from_secs(10)).await.unwrap();
    assert!(next > lease, "{next:?} was used before");
}

#[tokio::test]
async fn ended_lease_stays_ended_after_a_restart() {
    let place = Place::new();
    let store = place.open().unwrap();
    let lease = store.lease_grant(Duration::from_secs(10)).await.unwrap();
    store.lease_revoke(lease).await.unwrap();
    drop(store);

    let store = place.open().unwrap();
    assert_eq!(
        store.lease_keep_alive(lease).await,
        Err(StoreError::UnknownLease(lease))
    );
}

#[tokio::test]
async fn second_open_is_refused_while_the_first_lasts() {
    let place = Place::new();
    let store = place.open().unwrap();
    let error = place.open().unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
    put(&store, "a", None).await;
    drop(store);
    place.open().unwrap();
}

#[tokio::test]
async fn directory_and_file_are_private() {
    let place = Place::new();
    drop(place.open().unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.directory()), 0o700);
    assert_eq!(mode(&place.file()), 0o600);
}

#[tokio::test]
async fn directory_that_others_may_read_is_refused_and_left_as_it_is() {
    let place = Place::new();
    fs::create_dir(place.directory()).unwrap();
    fs::set_permissions(place.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let error = place.open().unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
    assert_eq!(fs::read_dir(place.directory()).unwrap().count(), 0);
}

#[tokio::test]
async fn newer_format_is_refused_untouched() {
    let place = Place::new();
    drop(place.open().unwrap());
    place.overwrite(8, &2u32.to_le_bytes());
    let before = fs::read(place.file()).unwrap();
    let error = place.open().unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::NewerFormat {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        fs::read(place.file()).unwrap() == before,
        "the file was touched"
    );
}

#[tokio::test]
async fn file_of_something_else_is_refused_untouched() {
    let place = Place::new();
    DirBuilder::new()
        .mode(0o700)
        .create(place.directory())
        .unwrap();
    for content in ["", "SQLite format 3\0 and so on"] {
        fs::write(place.file(), content).unwrap();
        let error = place.open().unwrap_err();
        assert!(matches!(error, OpenError::NotAStore(_)), "{error}");
        assert_eq!(fs::read_to_string(place.file()).unwrap(), content);
    }
}

#[tokio::test]
async fn file_that_was_cut_off_is_damaged_and_not_an_empty_store() {
    let place = Place::new();
    let store = place.open().unwrap();
    put(&store, "a", None).await;
    drop(store);
    let whole = fs::read(place.file()).unwrap();
    for bytes in [4096, 4097, 4096 + 64, whole.len() / 2] {
        fs::write(place.file(), &whole[..bytes]).unwrap();
        let error = place.open().unwrap_err();
        assert!(
            matches!(error, OpenError::Damaged { .. }),
            "{bytes} bytes: {error}"
        );
        assert!(error.to_string().contains("restore a backup"), "{error}");
    }
}

#[tokio::test]
async fn damaged_row_is_never_handed_out() {
    let place = Place::new();
    let store = place.open().unwrap();
    let marker = b"a value that is easy to find in the file";
    transact(&store, Operation::put(key("a"), marker.as_slice()))
        .await
        .unwrap();
    drop(store);
    let whole = fs::read(place.file()).unwrap();
    let found = whole
        .windows(marker.len())
        .enumerate()
        .filter(|(_, bytes)| bytes == marker);
    for (offset, _) in found {
        place.overwrite(offset as u64, b"X");
    }
    let error = place.open().unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn leftover_of_an_interrupted_first_start_is_replaced() {
    let place = Place::new();
    DirBuilder::new()
        .mode(0o700)
        .create(place.directory())
        .unwrap();
    let unfinished = place.directory().join("fleet.store.new");
    fs::write(&unfinished, "MESHSTOR and nothing else").unwrap();
    let store = place.open().unwrap();
    assert_eq!(put(&store, "a", None).await, StoreRevision(1));
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn transaction_whose_caller_went_away_happens_all_the_same() {
    let place = Place::new();
    let store = place.open().unwrap();
    // Polled once, which hands it over, and dropped.
    drop(transact(&store, Operation::put(key("a"), "value")).now_or_never());
    assert_eq!(put(&store, "b", None).await, StoreRevision(2));
}

/// A directory for a store, inside a directory for the test.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn file(&self) -> PathBuf {
        self.directory().join("fleet.store")
    }

    fn open(&self) -> Result<RedbStore, OpenError> {
        RedbStore::open(&self.directory())
    }

    fn overwrite(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.file()).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

async fn transact(store: &RedbStore, operation: Operation) -> Result<Committed, StoreError> {
    let transaction = Transaction {
        compare: Vec::new(),
        operations: vec![operation],
    };
    Ok(store
        .transaction(transaction)
        .await?
        .expect("nothing was compared"))
}

async fn put(store: &RedbStore, path: &str, lease: Option<LeaseId>) -> StoreRevision {
    let operation = Operation::Put {
        key: key(path),
        value: b"value".to_vec(),
        lease,
    };
    transact(store, operation).await.unwrap().revision
}

fn at(secs: u64) -> Instant {
    Instant::from_start(Duration::from_secs(secs))
}

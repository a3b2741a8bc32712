//! Watches: every change once and in order, or a word that they are no longer known.

use coordinator::store::{Compacted, WatchStream};
use futures_util::{FutureExt, StreamExt};
use tokio::task::JoinSet;

use super::*;

pub(super) async fn watch_replays_changes_in_order_from_a_revision(store: Arc<dyn Store>) {
    for number in 1..=5 {
        write(&*store, [put("a", &number.to_string())])
            .await
            .unwrap();
    }
    let mut watch = store.watch(StoreRevision(2)).await.unwrap();
    assert_eq!(revisions(&mut watch, 3).await, [3, 4, 5]);
    assert!(
        watch.next().now_or_never().is_none(),
        "nothing else happened"
    );
}

pub(super) async fn watch_delivers_what_transactions_were_answered(store: Arc<dyn Store>) {
    let mut watch = store.watch(StoreRevision::ZERO).await.unwrap();
    let first = write(&*store, [put("a", "1"), put("b", "1")])
        .await
        .unwrap();
    let second = write(&*store, [delete("a"), put("b", "2")]).await.unwrap();
    assert_eq!(watch.next().await, Some(Ok(first)));
    assert_eq!(watch.next().await, Some(Ok(second)));
}

pub(super) async fn watch_misses_nothing_while_others_write(store: Arc<dyn Store>) {
    const WRITERS: u64 = 4;
    const CHANGES: u64 = 50;
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for number in 0..CHANGES {
                let path = format!("key/{writer}/{}", number % 3);
                write(&*store, [put(&path, &number.to_string())])
                    .await
                    .unwrap();
            }
        });
    }
    // Each starts at another moment of the writing.
    for _ in 0..4 {
        let from = list(&*store).await.revision;
        let mut watch = store.watch(from).await.unwrap();
        tasks.spawn(async move {
            let left = WRITERS * CHANGES - from.0;
            let seen = revisions(&mut watch, left).await;
            assert_eq!(seen, (from.0 + 1..=WRITERS * CHANGES).collect::<Vec<_>>());
        });
    }
    tasks.join_all().await;
}

pub(super) async fn watch_waits_for_a_revision_to_come(store: Arc<dyn Store>) {
    let mut watch = store.watch(StoreRevision(2)).await.unwrap();
    for _ in 0..2 {
        write(&*store, [put("a", "value")]).await.unwrap();
        assert!(watch.next().now_or_never().is_none());
    }
    write(&*store, [put("a", "value")]).await.unwrap();
    assert_eq!(revisions(&mut watch, 1).await, [3]);
}

pub(super) async fn compacted_watch_says_so_and_a_listing_resumes_it(store: Arc<dyn Store>) {
    for _ in 0..10 {
        write(&*store, [put("a", "value")]).await.unwrap();
    }
    let mut behind = store.watch(StoreRevision(2)).await.unwrap();
    assert_eq!(revisions(&mut behind, 1).await, [3]);
    store.compact(StoreRevision(8)).await.unwrap();

    let compacted = Compacted {
        through: StoreRevision(8),
    };
    assert_eq!(behind.next().await, Some(Err(compacted)));
    assert_eq!(behind.next().await, None);
    let mut late = store.watch(StoreRevision(2)).await.unwrap();
    assert_eq!(late.next().await, Some(Err(compacted)));

    let listed = list(&*store).await.revision;
    let mut resumed = store.watch(listed).await.unwrap();
    write(&*store, [put("a", "value")]).await.unwrap();
    assert_eq!(revisions(&mut resumed, 1).await, [11]);
}

pub(super) async fn compaction_keeps_keys_and_later_changes(store: Arc<dyn Store>) {
    for path in ["a", "b", "c"] {
        write(&*store, [put(path, "value")]).await.unwrap();
    }
    let before = list(&*store).await;
    store.compact(StoreRevision(2)).await.unwrap();
    assert_eq!(list(&*store).await, before);
    let mut watch = store.watch(StoreRevision(2)).await.unwrap();
    assert_eq!(revisions(&mut watch, 1).await, [3]);
    // Beyond the last revision there is nothing to forget yet.
    store.compact(StoreRevision(100)).await.unwrap();
    write(&*store, [put("d", "value")]).await.unwrap();
    assert_eq!(revisions(&mut watch, 1).await, [4]);
}

pub(super) async fn watch_ends_with_its_store(store: Arc<dyn Store>) {
    let mut watch = store.watch(StoreRevision::ZERO).await.unwrap();
    write(&*store, [put("a", "value")]).await.unwrap();
    drop(store);
    assert_eq!(revisions(&mut watch, 1).await, [1]);
    assert_eq!(watch.next().await, None);
}

/// Takes the next `count` changes and returns their revisions.
async fn revisions(watch: &mut WatchStream, count: u64) -> Vec<u64> {
    let mut revisions = Vec::new();
    for _ in 0..count {
        let committed = watch
            .next()
            .await
            .expect("the store is open")
            .expect("not compacted");
        assert!(
            committed
                .events
                .iter()
                .all(|event| event.revision() == committed.revision)
        );
        revisions.push(committed.revision.0);
    }
    revisions
}

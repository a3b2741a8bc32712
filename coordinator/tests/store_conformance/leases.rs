//! Leases: what lives by one goes with it.

use std::time::Duration;

use coordinator::store::StoreLimits;
use futures_util::StreamExt;
use model::store::Event;
use model::time::Instant;

use super::*;

const TTL: Duration = Duration::from_secs(10);

pub(super) async fn revoked_lease_takes_its_keys_along_in_one_revision(store: Arc<dyn Store>) {
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_leased("b", lease), put("c", "stays")])
        .await
        .unwrap();
    write(&*store, [put_leased("a", lease)]).await.unwrap();
    let mut watch = store.watch(StoreRevision(2)).await.unwrap();
    store.lease_revoke(lease).await.unwrap();

    let mod_revision = StoreRevision(3);
    let events = ["a", "b"].map(|path| Event::Delete {
        key: key(path),
        mod_revision,
    });
    let ended = Committed {
        revision: mod_revision,
        events: events.into(),
    };
    assert_eq!(watch.next().await, Some(Ok(ended)));
    assert_eq!(paths(&*store).await, ["c"]);
    assert_eq!(
        store.lease_revoke(lease).await,
        Err(StoreError::UnknownLease(lease))
    );
}

pub(super) async fn lease_ends_when_it_is_not_kept_alive(store: Arc<dyn Store>) {
    store.expire_leases(at(0)).await.unwrap();
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_leased("a", lease)]).await.unwrap();
    // Counted from the first time that the store is told after the grant.
    assert_eq!(store.expire_leases(at(5)).await, Ok(vec![]));
    assert_eq!(store.expire_leases(at(14)).await, Ok(vec![]));
    assert_eq!(paths(&*store).await, ["a"]);
    assert_eq!(store.expire_leases(at(15)).await, Ok(vec![lease]));
    assert_eq!(paths(&*store).await, [""; 0]);
    assert_eq!(
        store.lease_keep_alive(lease).await,
        Err(StoreError::UnknownLease(lease))
    );
    assert_eq!(store.expire_leases(at(100)).await, Ok(vec![]));
}

pub(super) async fn lease_that_is_kept_alive_stays(store: Arc<dyn Store>) {
    let kept = store.lease_grant(TTL).await.unwrap();
    let lost = store.lease_grant(TTL).await.unwrap();
    write(
        &*store,
        [put_leased("kept", kept), put_leased("lost", lost)],
    )
    .await
    .unwrap();
    store.expire_leases(at(0)).await.unwrap();
    store.lease_keep_alive(kept).await.unwrap();
    assert_eq!(store.expire_leases(at(9)).await, Ok(vec![]));
    assert_eq!(store.expire_leases(at(18)).await, Ok(vec![lost]));
    assert_eq!(paths(&*store).await, ["kept"]);
    assert_eq!(store.expire_leases(at(19)).await, Ok(vec![kept]));
}

pub(super) async fn key_put_without_a_lease_outlives_it(store: Arc<dyn Store>) {
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_leased("a", lease)]).await.unwrap();
    write(&*store, [put("a", "for good")]).await.unwrap();
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(paths(&*store).await, ["a"]);
}

pub(super) async fn key_moves_from_one_lease_to_another(store: Arc<dyn Store>) {
    let first = store.lease_grant(TTL).await.unwrap();
    let second = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_leased("a", first)]).await.unwrap();
    write(&*store, [put_leased("a", second)]).await.unwrap();
    store.lease_revoke(first).await.unwrap();
    assert_eq!(paths(&*store).await, ["a"]);
    store.lease_revoke(second).await.unwrap();
    assert_eq!(paths(&*store).await, [""; 0]);
}

pub(super) async fn deleted_key_leaves_its_lease(store: Arc<dyn Store>) {
    let lease = store.lease_grant(TTL).await.unwrap();
    write(&*store, [put_leased("a", lease)]).await.unwrap();
    write(&*store, [delete("a")]).await.unwrap();
    write(&*store, [put("a", "another one")]).await.unwrap();
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(paths(&*store).await, ["a"]);
}

pub(super) async fn unknown_lease_is_refused_and_nothing_happens(store: Arc<dyn Store>) {
    let lease = LeaseId(4711);
    let unknown = StoreError::UnknownLease(lease);
    let refused = write(&*store, [put("a", "value"), put_leased("b", lease)]).await;
    assert_eq!(refused, Err(unknown.clone()));
    assert_eq!(store.lease_keep_alive(lease).await, Err(unknown.clone()));
    assert_eq!(store.lease_revoke(lease).await, Err(unknown));
    assert_eq!(
        list(&*store).await,
        Listing {
            revision: StoreRevision::ZERO,
            entries: vec![]
        }
    );
}

pub(super) async fn keys_of_one_lease_are_bounded(store: Arc<dyn Store>) {
    let lease = store.lease_grant(TTL).await.unwrap();
    let numbers: Vec<usize> = (0..StoreLimits::LEASE_KEYS_MAX).collect();
    for chunk in numbers.chunks(128) {
        let leased = |number: &usize| put_leased(&format!("key/{number}"), lease);
        write(&*store, chunk.iter().map(leased).collect::<Vec<_>>())
            .await
            .unwrap();
    }
    let refused = write(&*store, [put_leased("one-more", lease)]).await;
    assert!(
        matches!(refused, Err(StoreError::Full { .. })),
        "{refused:?}"
    );
    // What the lease has already can be put again.
    write(&*store, [put_leased("key/0", lease)]).await.unwrap();
}

pub(super) async fn lease_ids_are_not_used_again(store: Arc<dyn Store>) {
    let first = store.lease_grant(TTL).await.unwrap();
    store.lease_revoke(first).await.unwrap();
    assert_ne!(store.lease_grant(TTL).await.unwrap(), first);
}

fn at(secs: u64) -> Instant {
    Instant::from_start(Duration::from_secs(secs))
}

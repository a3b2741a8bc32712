//! What every store promises, checked on each implementation. A new one adds a module below, and
//! a line in `agreement`.

// A failure anywhere in here is a failed test.
#![allow(clippy::unwrap_used)]

mod agreement;
mod leases;
mod listings;
mod transactions;
mod watches;

use std::sync::Arc;

use coordinator::store::{Listing, MemoryStore, RedbStore, Store, StoreError};
use model::store::{
    Committed, Compare, Conflict, Expect, Key, LeaseId, Operation, StoreRevision, Transaction,
};

/// Makes each check a test of each implementation, on an empty store.
macro_rules! conformance {
    ($($module:ident: $($check:ident)*;)*) => {
        mod memory {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    crate::$module::$check(crate::memory_store()).await;
                }
            )*)*
        }

        mod redb {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    let directory = tempfile::tempdir().unwrap();
                    crate::$module::$check(crate::redb_store(&directory)).await;
                }
            )*)*
        }
    };
}

conformance! {
    transactions:
        contended_compare_and_swap_loses_no_update
        absent_key_is_created_once
        mod_revision_must_match_exactly
        present_requires_the_key
        conflict_names_the_key_and_nothing_happens
        all_operations_share_one_revision
        create_revision_lasts_until_the_key_is_deleted
        revisions_increase_by_one_for_each_change
        transaction_that_changes_nothing_makes_no_revision
        largest_value_fits_and_a_larger_one_is_refused
        misshapen_transaction_changes_nothing;
    listings:
        range_is_sorted_and_only_the_prefix
        listing_shows_one_moment
        listing_shows_every_answered_change;
    watches:
        watch_replays_changes_in_order_from_a_revision
        watch_delivers_what_transactions_were_answered
        watch_misses_nothing_while_others_write
        watch_waits_for_a_revision_to_come
        compacted_watch_says_so_and_a_listing_resumes_it
        compaction_keeps_keys_and_later_changes
        watch_ends_with_its_store;
    leases:
        revoked_lease_takes_its_keys_along_in_one_revision
        lease_ends_when_it_is_not_kept_alive
        lease_that_is_kept_alive_stays
        key_put_without_a_lease_outlives_it
        key_moves_from_one_lease_to_another
        deleted_key_leaves_its_lease
        unknown_lease_is_refused_and_nothing_happens
        keys_of_one_lease_are_bounded
        lease_ids_are_not_used_again;
}

fn memory_store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn redb_store(directory: &tempfile::TempDir) -> Arc<dyn Store> {
    Arc::new(RedbStore::open(&directory.path().join("store")).unwrap())
}

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

fn put(path: &str, value: &str) -> Operation {
    Operation::put(key(path), value)
}

fn put_leased(path: &str, lease: LeaseId) -> Operation {
    Operation::Put {
        key: key(path),
        value: b"leased".to_vec(),
        lease: Some(lease),
    }
}

fn delete(path: &str) -> Operation {
    Operation::delete(key(path))
}

fn expect(path: &str, expect: Expect) -> Compare {
    Compare {
        key: key(path),
        expect,
    }
}

/// Does `operations` without conditions.
async fn write(
    store: &dyn Store,
    operations: impl Into<Vec<Operation>>,
) -> Result<Committed, StoreError> {
    let transaction = Transaction {
        compare: Vec::new(),
        operations: operations.into(),
    };
    Ok(store
        .transaction(transaction)
        .await?
        .expect("nothing was compared"))
}

/// Puts one key when `compare` holds.
async fn put_if(store: &dyn Store, compare: Compare) -> Result<StoreRevision, Conflict> {
    let operations = vec![Operation::put(compare.key.clone(), "new")];
    let transaction = Transaction {
        compare: vec![compare],
        operations,
    };
    store
        .transaction(transaction)
        .await
        .unwrap()
        .map(|committed| committed.revision)
}

async fn list(store: &dyn Store) -> Listing {
    store.range("").await.unwrap()
}

async fn paths(store: &dyn Store) -> Vec<String> {
    list(store)
        .await
        .entries
        .into_iter()
        .map(|entry| entry.key.into())
        .collect()
}

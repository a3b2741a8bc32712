//! Transactions: compare and swap, all or nothing, revisions, limits.

use model::store::{Event, KeyValue, TransactionError, TransactionLimits};
use tokio::task::JoinSet;

use super::*;

pub(super) async fn contended_compare_and_swap_loses_no_update(store: Arc<dyn Store>) {
    const TASKS: usize = 8;
    const UPDATES: usize = 50;
    write(&*store, [put("counter", "0")]).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for _ in 0..UPDATES {
                while !try_increment(&*store).await {}
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(list(&*store).await.entries[0].value, b"400");
    assert_eq!(list(&*store).await.revision, StoreRevision(401));
}

async fn try_increment(store: &dyn Store) -> bool {
    let counter = store.range("counter").await.unwrap().entries.remove(0);
    let count: u32 = String::from_utf8(counter.value).unwrap().parse().unwrap();
    let transaction = Transaction {
        compare: vec![Compare {
            key: counter.key,
            expect: Expect::ModRevision(counter.mod_revision),
        }],
        operations: vec![put("counter", &(count + 1).to_string())],
    };
    store.transaction(transaction).await.unwrap().is_ok()
}

pub(super) async fn absent_key_is_created_once(store: Arc<dyn Store>) {
    assert_eq!(
        put_if(&*store, expect("a", Expect::Absent)).await,
        Ok(StoreRevision(1))
    );
    let conflict = put_if(&*store, expect("a", Expect::Absent)).await;
    assert_eq!(conflict, Err(Conflict { key: key("a") }));
    write(&*store, [delete("a")]).await.unwrap();
    assert_eq!(
        put_if(&*store, expect("a", Expect::Absent)).await,
        Ok(StoreRevision(3))
    );
}

pub(super) async fn mod_revision_must_match_exactly(store: Arc<dyn Store>) {
    let at = |revision| expect("a", Expect::ModRevision(StoreRevision(revision)));
    assert!(
        put_if(&*store, at(0)).await.is_err(),
        "the key does not exist"
    );
    write(&*store, [put("a", "old")]).await.unwrap();
    assert!(put_if(&*store, at(0)).await.is_err(), "too old");
    assert!(put_if(&*store, at(2)).await.is_err(), "not yet");
    assert_eq!(put_if(&*store, at(1)).await, Ok(StoreRevision(2)));
    assert!(put_if(&*store, at(1)).await.is_err(), "changed since");
}

pub(super) async fn present_requires_the_key(store: Arc<dyn Store>) {
    assert!(put_if(&*store, expect("a", Expect::Present)).await.is_err());
    write(&*store, [put("a", "old")]).await.unwrap();
    assert_eq!(
        put_if(&*store, expect("a", Expect::Present)).await,
        Ok(StoreRevision(2))
    );
}

pub(super) async fn conflict_names_the_key_and_nothing_happens(store: Arc<dyn Store>) {
    write(&*store, [put("a", "old"), put("c", "old")])
        .await
        .unwrap();
    let before = list(&*store).await;
    let transaction = Transaction {
        compare: vec![
            expect("a", Expect::Present),
            expect("b", Expect::Present),
            expect("c", Expect::Absent),
        ],
        operations: vec![put("a", "new"), delete("c"), put("d", "new")],
    };
    let conflict = store.transaction(transaction).await.unwrap();
    assert_eq!(conflict, Err(Conflict { key: key("b") }));
    assert_eq!(list(&*store).await, before);
}

pub(super) async fn all_operations_share_one_revision(store: Arc<dyn Store>) {
    write(&*store, [put("b", "old")]).await.unwrap();
    let committed = write(&*store, [put("c", "new"), delete("b"), put("a", "new")])
        .await
        .unwrap();
    let revision = StoreRevision(2);
    let stored = |path| KeyValue {
        key: key(path),
        value: b"new".to_vec(),
        create_revision: revision,
        mod_revision: revision,
    };
    let events = vec![
        Event::Put(stored("c")),
        Event::Delete {
            key: key("b"),
            mod_revision: revision,
        },
        Event::Put(stored("a")),
    ];
    assert_eq!(committed, Committed { revision, events });
    let listing = Listing {
        revision,
        entries: vec![stored("a"), stored("c")],
    };
    assert_eq!(list(&*store).await, listing);
}

pub(super) async fn create_revision_lasts_until_the_key_is_deleted(store: Arc<dyn Store>) {
    let created = async || list(&*store).await.entries[0].create_revision;
    write(&*store, [put("a", "1")]).await.unwrap();
    write(&*store, [put("a", "2")]).await.unwrap();
    assert_eq!(created().await, StoreRevision(1));
    write(&*store, [delete("a")]).await.unwrap();
    write(&*store, [put("a", "4")]).await.unwrap();
    assert_eq!(created().await, StoreRevision(4));
}

pub(super) async fn revisions_increase_by_one_for_each_change(store: Arc<dyn Store>) {
    let mut tasks = JoinSet::new();
    for number in 0..64 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let path = format!("key/{}", number % 8);
            write(&*store, [put(&path, "value")])
                .await
                .unwrap()
                .revision
        });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort();
    assert_eq!(revisions, (1..=64).map(StoreRevision).collect::<Vec<_>>());
}

pub(super) async fn transaction_that_changes_nothing_makes_no_revision(store: Arc<dyn Store>) {
    write(&*store, [put("a", "value")]).await.unwrap();
    let nothing = Committed {
        revision: StoreRevision(1),
        events: Vec::new(),
    };
    assert_eq!(write(&*store, []).await, Ok(nothing.clone()));
    assert_eq!(write(&*store, [delete("b")]).await, Ok(nothing.clone()));
    let compare = vec![expect("a", Expect::Present)];
    let look = Transaction {
        compare,
        operations: Vec::new(),
    };
    assert_eq!(store.transaction(look).await, Ok(Ok(nothing)));
    assert_eq!(
        write(&*store, [delete("a")]).await.unwrap().revision,
        StoreRevision(2)
    );
}

pub(super) async fn largest_value_fits_and_a_larger_one_is_refused(store: Arc<dyn Store>) {
    let bytes = TransactionLimits::VALUE_BYTES_MAX;
    let of = |bytes| [Operation::put(key("a"), vec![7; bytes])];
    write(&*store, of(bytes)).await.unwrap();
    let refused = TransactionError::ValueTooLarge {
        key: key("a"),
        bytes: bytes + 1,
    };
    assert_eq!(
        write(&*store, of(bytes + 1)).await,
        Err(StoreError::Invalid(refused))
    );
    assert_eq!(list(&*store).await.entries[0].value, vec![7; bytes]);
}

pub(super) async fn misshapen_transaction_changes_nothing(store: Arc<dyn Store>) {
    let twice = write(&*store, [put("a", "1"), put("b", "1"), put("a", "2")]).await;
    assert_eq!(
        twice,
        Err(StoreError::Invalid(TransactionError::WrittenTwice {
            key: key("a")
        }))
    );
    let many: Vec<_> = (0..=TransactionLimits::OPERATIONS_MAX)
        .map(|number| put(&format!("key/{number}"), "value"))
        .collect();
    assert!(matches!(
        write(&*store, many).await,
        Err(StoreError::Invalid(_))
    ));
    assert_eq!(
        list(&*store).await,
        Listing {
            revision: StoreRevision::ZERO,
            entries: vec![]
        }
    );
}

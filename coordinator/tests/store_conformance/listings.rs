//! Listings: what a range contains, and that it shows one moment.

use tokio::task::JoinSet;

use super::*;

pub(super) async fn range_is_sorted_and_only_the_prefix(store: Arc<dyn Store>) {
    let all = [
        "hosts/b",
        "hosts/a/x",
        "host",
        "hosts-old/a",
        "hosts/a",
        "tokens/a",
        "hosts/é",
    ];
    write(&*store, all.map(|path| put(path, "value")))
        .await
        .unwrap();
    let under = async |prefix| {
        let listing = store.range(prefix).await.unwrap();
        listing
            .entries
            .into_iter()
            .map(|entry| entry.key.into())
            .collect::<Vec<String>>()
    };
    assert_eq!(
        under("hosts/").await,
        ["hosts/a", "hosts/a/x", "hosts/b", "hosts/é"]
    );
    assert_eq!(under("hosts").await.len(), 5);
    assert_eq!(under("tokens/a").await, ["tokens/a"]);
    assert_eq!(under("z").await, [""; 0]);
    assert_eq!(under("").await.len(), all.len());
}

pub(super) async fn listing_shows_one_moment(store: Arc<dyn Store>) {
    let writer = Arc::clone(&store);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for number in 1..=100 {
            let value = number.to_string();
            write(&*writer, [put("left", &value), put("right", &value)])
                .await
                .unwrap();
        }
    });
    loop {
        let Listing { revision, entries } = list(&*store).await;
        let [left, right] = entries.as_slice() else {
            continue;
        };
        assert_eq!(
            (&left.value, left.mod_revision),
            (&right.value, right.mod_revision)
        );
        assert_eq!(revision, left.mod_revision);
        if revision == StoreRevision(100) {
            break;
        }
    }
    tasks.join_all().await;
}

pub(super) async fn listing_shows_every_answered_change(store: Arc<dyn Store>) {
    for number in 0..50 {
        let path = format!("key/{number}");
        let revision = write(&*store, [put(&path, "value")])
            .await
            .unwrap()
            .revision;
        let listing = store.range(&path).await.unwrap();
        assert_eq!(listing.revision, revision);
        assert_eq!(listing.entries[0].mod_revision, revision);
    }
}

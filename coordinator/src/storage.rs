//! The task between the brain and the store: hands transactions over in the brain's order, many at
//! one time, and brings back what became of them.

use std::sync::Arc;
use std::time::Instant;

use fleet::{CommitError, CommitId, FleetLimits};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use model::store::{Committed, Conflict, Transaction};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::metrics::Tally;
use crate::store::{Listing, Store, StoreError};

/// Orders that may wait: all commits that a fleet may have under way, and some listings.
const ORDERS_MAX: usize = FleetLimits::REQUESTS_MAX + 1024;
/// News that may wait for the brain.
const NEWS_MAX: usize = 1024;

/// What the store is to do.
pub(crate) enum Order {
    /// Carry out a transaction.
    Commit(CommitId, Transaction),
    /// Read everything.
    List,
}

/// What the store did.
pub(crate) enum News {
    /// What became of a transaction.
    Committed(CommitId, Result<Committed, CommitError>),
    /// Everything.
    Listed(Listing),
    /// Nobody can say what became of a transaction; only a new start can, by what the disk holds.
    /// Whoever waits for it must be told neither that it was done nor that it was not.
    Lost(String),
}

/// The brain's end.
pub(crate) struct Storage {
    orders: mpsc::Sender<Order>,
    pub(crate) news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Storage {
    /// Starts the task; it holds the store until it is closed.
    pub(crate) fn start(store: Arc<dyn Store>, tally: Arc<Tally>) -> Self {
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let (tell, news) = mpsc::channel(NEWS_MAX);
        let task = tokio::spawn(work(store, tally, queue, tell));
        Self { orders, news, task }
    }

    /// Gives an order. Never waits.
    pub(crate) fn order(&self, order: Order) {
        // The fleet bounds its commits under way, and asks for a listing every two seconds at most.
        let full = self.orders.try_send(order).is_err();
        assert!(
            !full,
            "there is room for all that a fleet may have under way"
        );
    }

    /// Lets what is on its way to the disk arrive; afterwards the store is let go.
    pub(crate) async fn close(self) {
        let Self {
            orders,
            mut news,
            task,
        } = self;
        drop(orders);
        while news.recv().await.is_some() {}
        if let Err(error) = task.await {
            tracing::error!(%error, "the task of the store failed");
        }
    }
}

async fn work(
    store: Arc<dyn Store>,
    tally: Arc<Tally>,
    mut orders: mpsc::Receiver<Order>,
    news: mpsc::Sender<News>,
) {
    let mut under_way: FuturesUnordered<BoxFuture<'_, News>> = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        tokio::select! {
            order = orders.recv(), if is_open => match order {
                Some(order) => under_way.push(carry_out(&*store, &tally, order)),
                None => is_open = false,
            },
            Some(done) = under_way.next(), if !under_way.is_empty() => {
                // Without a brain nobody is left to tell; what is under way still ends in order.
                let _ = news.send(done).await;
            }
        }
    }
}

fn carry_out<'a>(store: &'a dyn Store, tally: &'a Tally, order: Order) -> BoxFuture<'a, News> {
    match order {
        Order::Commit(id, transaction) => {
            // Made here, polled in this order: the store takes them as the brain gave them.
            let (bytes, began) = (transaction.bytes(), Instant::now());
            let answer = store.transaction(transaction);
            Box::pin(async move {
                let news = outcome(id, answer.await);
                if let News::Committed(_, outcome) = &news {
                    tally.committed(outcome, bytes, began.elapsed());
                }
                news
            })
        }
        Order::List => Box::pin(async move {
            match store.range("").await {
                Ok(listing) => News::Listed(listing),
                Err(error) => News::Lost(error.to_string()),
            }
        }),
    }
}

fn outcome(id: CommitId, answer: Result<Result<Committed, Conflict>, StoreError>) -> News {
    match answer {
        Ok(Ok(committed)) => News::Committed(id, Ok(committed)),
        Ok(Err(Conflict { .. })) => News::Committed(id, Err(CommitError::Conflict)),
        Err(error @ StoreError::OutcomeUnknown { .. }) => News::Lost(error.to_string()),
        Err(error) => News::Committed(id, Err(CommitError::Failed(error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use model::store::{Compare, Expect, Key, Operation};

    #[tokio::test]
    async fn commits_are_answered_each_with_its_own_outcome() {
        let mut storage = Storage::start(Arc::new(MemoryStore::default()), Arc::default());
        let key = Key::new("names/a").unwrap();
        let claim = |value: &str| Transaction {
            compare: vec![Compare {
                key: key.clone(),
                expect: Expect::Absent,
            }],
            operations: vec![Operation::put(key.clone(), value)],
        };
        storage.order(Order::Commit(CommitId(1), claim("first")));
        storage.order(Order::Commit(CommitId(2), claim("second")));
        let mut outcomes = Vec::new();
        for _ in 0..2 {
            let Some(News::Committed(id, outcome)) = storage.news.recv().await else {
                panic!()
            };
            outcomes.push((id, outcome.map(|committed| committed.revision.0)));
        }
        outcomes.sort_by_key(|(id, _)| *id);
        assert_eq!(
            outcomes,
            [
                (CommitId(1), Ok(1)),
                (CommitId(2), Err(CommitError::Conflict))
            ]
        );
    }

    #[test]
    fn an_unknown_outcome_is_neither_done_nor_failed() {
        let unknown = StoreError::OutcomeUnknown {
            reason: "the disk is gone".into(),
        };
        let News::Lost(reason) = outcome(CommitId(1), Err(unknown)) else {
            panic!()
        };
        assert!(reason.contains("unknown whether it was stored"), "{reason}");
    }
}

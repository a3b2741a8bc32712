//! A store that lives as long as its handles, for tests and simulations. Its futures are ready at
//! once and need no runtime; only a watch waits.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::ready;
use std::ops::Bound::{Included, Unbounded};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use model::store::{Committed, Conflict, Key, KeyValue, LeaseId, StoreRevision, Transaction};
use model::time::Instant;

use super::change::{Answer, Change, Found, Tables};
use super::history::History;
use super::leases::LeaseClock;
use super::{Listing, Store, StoreError, StoreFuture, WatchStream};

/// The store in memory. Clones are handles to one store.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    tables: MemoryTables,
    revision: StoreRevision,
    history: History,
    clock: LeaseClock,
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        let state = State {
            tables: MemoryTables::default(),
            revision: StoreRevision::ZERO,
            history: History::new(StoreRevision::ZERO),
            clock: LeaseClock::new([], LeaseId(0)),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the state")
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn change(&mut self, change: &Change) -> Answer {
        let Ok(answer) = change.apply(&mut self.tables, self.revision);
        if let Ok(Ok(committed)) = &answer {
            self.revision = committed.revision;
            self.history.push(committed);
        }
        answer
    }

    fn transaction(
        &mut self,
        transaction: Transaction,
    ) -> Result<Result<Committed, Conflict>, StoreError> {
        transaction.check()?;
        self.change(&Change::Transaction(transaction))
    }

    fn range(&self, prefix: &str) -> Listing {
        let from = self
            .tables
            .keys
            .range::<str, _>((Included(prefix), Unbounded));
        let under = from.take_while(|(key, _)| key.as_str().starts_with(prefix));
        let entries = under.map(|(_, row)| row.stored.clone()).collect();
        Listing {
            revision: self.revision,
            entries,
        }
    }

    fn grant(&mut self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let lease = self.clock.next_id()?;
        self.change(&Change::GrantLease { lease, ttl })?.ok();
        self.clock.add(lease, ttl);
        Ok(lease)
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        self.change(&Change::EndLease { lease })?.ok();
        self.clock.remove(lease);
        Ok(())
    }

    fn expire(&mut self, now: Instant) -> Result<Vec<LeaseId>, StoreError> {
        let over = self.clock.expire(now);
        for lease in &over {
            self.end_lease(*lease)?;
        }
        Ok(over)
    }
}

impl Store for MemoryStore {
    fn transaction(
        &self,
        transaction: Transaction,
    ) -> StoreFuture<'_, Result<Committed, Conflict>> {
        Box::pin(ready(self.state().transaction(transaction)))
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
        Box::pin(ready(Ok(self.state().range(prefix))))
    }

    fn watch(&self, after: StoreRevision) -> StoreFuture<'_, WatchStream> {
        Box::pin(ready(self.state().history.watch(after)))
    }

    fn compact(&self, through: StoreRevision) -> StoreFuture<'_, ()> {
        self.state().history.compact(through);
        Box::pin(ready(Ok(())))
    }

    fn lease_grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
        Box::pin(ready(self.state().grant(ttl)))
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(ready(self.state().clock.keep_alive(lease)))
    }

    fn lease_revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(ready(self.state().end_lease(lease)))
    }

    fn expire_leases(&self, now: Instant) -> StoreFuture<'_, Vec<LeaseId>> {
        Box::pin(ready(self.state().expire(now)))
    }
}

#[derive(Debug, Default)]
struct MemoryTables {
    keys: BTreeMap<Key, Row>,
    leases: BTreeMap<LeaseId, BTreeSet<Key>>,
}

#[derive(Debug)]
struct Row {
    stored: KeyValue,
    lease: Option<LeaseId>,
}

impl Tables for MemoryTables {
    type Failure = Infallible;

    fn find(&self, key: &Key) -> Result<Option<Found>, Infallible> {
        Ok(self.keys.get(key).map(|row| Found {
            create_revision: row.stored.create_revision,
            mod_revision: row.stored.mod_revision,
            lease: row.lease,
        }))
    }

    fn put(&mut self, stored: &KeyValue, lease: Option<LeaseId>) -> Result<(), Infallible> {
        self.keys.insert(
            stored.key.clone(),
            Row {
                stored: stored.clone(),
                lease,
            },
        );
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> Result<(), Infallible> {
        self.keys.remove(key);
        Ok(())
    }

    fn has_lease(&self, lease: LeaseId) -> Result<bool, Infallible> {
        Ok(self.leases.contains_key(&lease))
    }

    fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Key>, Infallible> {
        let keys = self.leases.get(&lease).into_iter().flatten();
        Ok(keys.cloned().collect())
    }

    fn add_lease(&mut self, lease: LeaseId, _ttl: Duration) -> Result<(), Infallible> {
        self.leases.insert(lease, BTreeSet::new());
        Ok(())
    }

    fn remove_lease(&mut self, lease: LeaseId) -> Result<(), Infallible> {
        self.leases.remove(&lease);
        Ok(())
    }

    fn attach(&mut self, lease: LeaseId, key: &Key) -> Result<(), Infallible> {
        self.leases.entry(lease).or_default().insert(key.clone());
        Ok(())
    }

    fn detach(&mut self, lease: LeaseId, key: &Key) -> Result<(), Infallible> {
        if let Some(keys) = self.leases.get_mut(&lease) {
            keys.remove(key);
        }
        Ok(())
    }
}

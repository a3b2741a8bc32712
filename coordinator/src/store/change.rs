//! What one change does to the tables of a store: the semantics that the implementations share.
//! How tables are kept and made durable is theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use model::store::{
    Committed, Compare, Conflict, Event, Key, KeyValue, LeaseId, Operation, StoreRevision,
    Transaction,
};

use super::{StoreError, StoreLimits};

/// The state of a store, as a change sees it, with the changes before it already in.
pub(super) trait Tables {
    /// Why a table could not be read or written.
    type Failure;

    /// Looks a key up.
    fn find(&self, key: &Key) -> Result<Option<Found>, Self::Failure>;
    /// Sets a key, its value, revisions and lease.
    fn put(&mut self, stored: &KeyValue, lease: Option<LeaseId>) -> Result<(), Self::Failure>;
    /// Removes a key.
    fn remove(&mut self, key: &Key) -> Result<(), Self::Failure>;
    /// Returns whether a lease exists.
    fn has_lease(&self, lease: LeaseId) -> Result<bool, Self::Failure>;
    /// Returns the keys of a lease, sorted.
    fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Key>, Self::Failure>;
    /// Adds a lease.
    fn add_lease(&mut self, lease: LeaseId, ttl: Duration) -> Result<(), Self::Failure>;
    /// Removes a lease that has no keys any more.
    fn remove_lease(&mut self, lease: LeaseId) -> Result<(), Self::Failure>;
    /// Notes that a key lives by a lease.
    fn attach(&mut self, lease: LeaseId, key: &Key) -> Result<(), Self::Failure>;
    /// Notes that a key no longer lives by a lease.
    fn detach(&mut self, lease: LeaseId, key: &Key) -> Result<(), Self::Failure>;
}

/// What a table knows about a key besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) create_revision: StoreRevision,
    pub(super) mod_revision: StoreRevision,
    pub(super) lease: Option<LeaseId>,
}

/// One thing that a store is asked to change.
#[derive(Debug)]
pub(super) enum Change {
    /// A transaction that passed its own check.
    Transaction(Transaction),
    /// Add a lease.
    GrantLease { lease: LeaseId, ttl: Duration },
    /// Remove a lease and its keys.
    EndLease { lease: LeaseId },
}

/// What a caller is told about its change.
pub(super) type Answer = Result<Result<Committed, Conflict>, StoreError>;

impl Change {
    /// Does this change after revision `last`, all of it or nothing.
    ///
    /// The outer error means that the tables failed on the way and must be put back; every
    /// refusal is an answer, given before anything was written.
    pub(super) fn apply<T: Tables>(
        &self,
        tables: &mut T,
        last: StoreRevision,
    ) -> Result<Answer, T::Failure> {
        match self {
            Self::Transaction(transaction) => transact(transaction, tables, last),
            Self::GrantLease { lease, ttl } => {
                tables.add_lease(*lease, *ttl)?;
                Ok(unchanged(last))
            }
            Self::EndLease { lease } => end_lease(*lease, tables, last),
        }
    }

    /// Returns the bytes of keys and values.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Transaction(transaction) => transaction.bytes(),
            Self::GrantLease { .. } | Self::EndLease { .. } => 0,
        }
    }
}

fn unchanged(last: StoreRevision) -> Answer {
    Ok(Ok(Committed {
        revision: last,
        events: Vec::new(),
    }))
}

fn transact<T: Tables>(
    transaction: &Transaction,
    tables: &mut T,
    last: StoreRevision,
) -> Result<Answer, T::Failure> {
    if let Some(conflict) = first_conflict(&transaction.compare, tables)? {
        return Ok(Ok(Err(conflict)));
    }
    if let Some(refusal) = lease_refusal(&transaction.operations, tables)? {
        return Ok(Err(refusal));
    }
    let revision = last.next();
    let mut events = Vec::with_capacity(transaction.operations.len());
    for operation in &transaction.operations {
        events.extend(operate(operation, tables, revision)?);
    }
    Ok(committed(events, revision, last))
}

fn committed(events: Vec<Event>, revision: StoreRevision, last: StoreRevision) -> Answer {
    match events.is_empty() {
        true => unchanged(last),
        false => Ok(Ok(Committed { revision, events })),
    }
}

fn first_conflict<T: Tables>(
    compares: &[Compare],
    tables: &T,
) -> Result<Option<Conflict>, T::Failure> {
    for Compare { key, expect } in compares {
        let found = tables.find(key)?;
        if !expect.holds(found.map(|found| found.mod_revision)) {
            return Ok(Some(Conflict { key: key.clone() }));
        }
    }
    Ok(None)
}

/// Returns why the leases that `operations` name cannot take their new keys.
fn lease_refusal<T: Tables>(
    operations: &[Operation],
    tables: &T,
) -> Result<Option<StoreError>, T::Failure> {
    let mut added: BTreeMap<LeaseId, usize> = BTreeMap::new();
    for operation in operations {
        let Operation::Put {
            key,
            lease: Some(lease),
            ..
        } = operation
        else {
            continue;
        };
        let has_it = tables
            .find(key)?
            .is_some_and(|found| found.lease == Some(*lease));
        *added.entry(*lease).or_default() += usize::from(!has_it);
    }
    for (lease, count) in added {
        if !tables.has_lease(lease)? {
            return Ok(Some(StoreError::UnknownLease(lease)));
        }
        if tables.lease_keys(lease)?.len() + count > StoreLimits::LEASE_KEYS_MAX {
            let max = StoreLimits::LEASE_KEYS_MAX;
            return Ok(Some(StoreError::Full {
                what: "keys of one lease",
                max,
            }));
        }
    }
    Ok(None)
}

fn operate<T: Tables>(
    operation: &Operation,
    tables: &mut T,
    revision: StoreRevision,
) -> Result<Option<Event>, T::Failure> {
    match operation {
        Operation::Put { key, value, lease } => {
            let before = tables.find(key)?;
            let stored = KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision: before.map_or(revision, |found| found.create_revision),
                mod_revision: revision,
            };
            tables.put(&stored, *lease)?;
            move_lease(key, before.and_then(|found| found.lease), *lease, tables)?;
            Ok(Some(Event::Put(stored)))
        }
        Operation::Delete { key } => delete(key, tables, revision),
    }
}

fn move_lease<T: Tables>(
    key: &Key,
    from: Option<LeaseId>,
    to: Option<LeaseId>,
    tables: &mut T,
) -> Result<(), T::Failure> {
    if from == to {
        return Ok(());
    }
    if let Some(lease) = from {
        tables.detach(lease, key)?;
    }
    if let Some(lease) = to {
        tables.attach(lease, key)?;
    }
    Ok(())
}

fn delete<T: Tables>(
    key: &Key,
    tables: &mut T,
    revision: StoreRevision,
) -> Result<Option<Event>, T::Failure> {
    let Some(before) = tables.find(key)? else {
        return Ok(None);
    };
    tables.remove(key)?;
    move_lease(key, before.lease, None, tables)?;
    Ok(Some(Event::Delete {
        key: key.clone(),
        mod_revision: revision,
    }))
}

fn end_lease<T: Tables>(
    lease: LeaseId,
    tables: &mut T,
    last: StoreRevision,
) -> Result<Answer, T::Failure> {
    if !tables.has_lease(lease)? {
        return Ok(Err(StoreError::UnknownLease(lease)));
    }
    let revision = last.next();
    let mut events = Vec::new();
    for key in tables.lease_keys(lease)? {
        events.extend(delete(&key, tables, revision)?);
    }
    tables.remove_lease(lease)?;
    Ok(committed(events, revision, last))
}

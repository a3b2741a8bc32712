//! A store in memory: what a real one promises, and nothing that a disk may do.

use std::collections::BTreeMap;

use fleet::CommitError;
use model::store::{Committed, Event, Key, KeyValue, Operation, StoreRevision, Transaction};

/// Keys and values under revisions, as a real store keeps them.
#[derive(Clone, Default)]
pub(crate) struct ToyStore {
    pub(crate) revision: StoreRevision,
    pub(crate) keys: BTreeMap<Key, KeyValue>,
}

impl ToyStore {
    pub(crate) fn transact(&mut self, transaction: &Transaction) -> Result<Committed, CommitError> {
        transaction
            .check()
            .expect("the fleet asks only for what a store takes");
        let holds = transaction.compare.iter().all(|compare| {
            compare
                .expect
                .holds(self.keys.get(&compare.key).map(|it| it.mod_revision))
        });
        if !holds {
            return Err(CommitError::Conflict);
        }
        let revision = self.revision.next();
        let events: Vec<_> = transaction
            .operations
            .iter()
            .filter_map(|operation| self.carry_out(operation, revision))
            .collect();
        if !events.is_empty() {
            self.revision = revision;
        }
        Ok(Committed {
            revision: self.revision,
            events,
        })
    }

    fn carry_out(&mut self, operation: &Operation, revision: StoreRevision) -> Option<Event> {
        match operation {
            Operation::Put { key, value, .. } => {
                let create_revision = self
                    .keys
                    .get(key)
                    .map_or(revision, |known| known.create_revision);
                let stored = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision,
                    mod_revision: revision,
                };
                self.keys.insert(key.clone(), stored.clone());
                Some(Event::Put(stored))
            }
            Operation::Delete { key } => self.keys.remove(key).map(|_| Event::Delete {
                key: key.clone(),
                mod_revision: revision,
            }),
        }
    }

    pub(crate) fn listing(&self) -> Vec<KeyValue> {
        self.keys.values().cloned().collect()
    }
}

//! The coordinator's store: transactions see each other at once, are durable when they are flushed
//! together a little later, and are answered after that. A crash keeps what was flushed, and of the
//! rest a beginning that chance decides.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{CommitError, CommitId};
use model::store::{Committed, Event, Key, KeyValue, Operation, StoreRevision, Transaction};

use crate::dice::Dice;
use crate::disk::write_time;

/// The answer to one transaction.
pub(crate) type Outcome = (CommitId, Result<Committed, CommitError>);

/// The coordinator's store.
#[derive(Default)]
pub(crate) struct CoordinatorStore {
    durable: Tables,
    /// The durable state with everything that waits on top.
    latest: Tables,
    waiting: Vec<Outcome>,
    /// It is full: nothing is taken.
    pub(crate) is_full: bool,
    /// A flush takes seconds.
    pub(crate) is_slow: bool,
}

/// A copy of a store.
#[derive(Clone)]
pub(crate) struct Backup(Tables);

#[derive(Clone, Default)]
struct Tables {
    keys: BTreeMap<Key, KeyValue>,
    revision: StoreRevision,
}

impl CoordinatorStore {
    /// Takes a transaction. Returns whether it is the first that waits for the next flush.
    pub(crate) fn begin(&mut self, id: CommitId, transaction: &Transaction) -> bool {
        let outcome = if self.is_full {
            Err(CommitError::Failed("no space left on device".to_owned()))
        } else {
            self.latest.transact(transaction)
        };
        self.waiting.push((id, outcome));
        self.waiting.len() == 1
    }

    /// Makes durable what waits, and returns the answers, in an order that chance decides: a
    /// brain must not depend on it.
    pub(crate) fn flush(&mut self, dice: &mut Dice) -> Vec<Outcome> {
        let mut answers = std::mem::take(&mut self.waiting);
        self.durable = self.latest.clone();
        dice.shuffle(&mut answers);
        answers
    }

    /// The machine or the program stops.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        let kept = dice.below(self.waiting.len() + 1);
        for (_, outcome) in std::mem::take(&mut self.waiting).into_iter().take(kept) {
            if let Ok(committed) = outcome {
                self.durable.replay(&committed);
            }
        }
        self.latest = self.durable.clone();
    }

    /// There is room, and it is fast.
    pub(crate) fn recover(&mut self) {
        (self.is_full, self.is_slow) = (false, false);
    }

    /// Returns how long a flush takes.
    pub(crate) fn flush_time(&self, dice: &mut Dice) -> Duration {
        write_time(self.is_slow, dice)
    }

    /// Returns a copy of what is durable: a backup.
    pub(crate) fn backup(&self) -> Backup {
        Backup(self.durable.clone())
    }

    /// Becomes what it was when a backup was made.
    pub(crate) fn restore(&mut self, backup: &Backup) {
        *self = Self {
            durable: backup.0.clone(),
            latest: backup.0.clone(),
            ..Self::default()
        };
    }

    /// A store that holds what another listed.
    #[cfg(test)]
    pub(crate) fn from_listing(keys: Vec<KeyValue>, revision: StoreRevision) -> Self {
        let keys = keys.into_iter().map(|it| (it.key.clone(), it)).collect();
        let tables = Tables { keys, revision };
        Self {
            durable: tables.clone(),
            latest: tables,
            ..Self::default()
        }
    }

    /// Returns everything that is durable.
    pub(crate) fn listing(&self) -> (Vec<KeyValue>, StoreRevision) {
        let keys = self.durable.keys.values().cloned().collect();
        (keys, self.durable.revision)
    }

    /// Returns whether nothing was ever stored.
    pub(crate) fn is_empty(&self) -> bool {
        self.durable.keys.is_empty()
    }
}

impl Tables {
    fn transact(&mut self, transaction: &Transaction) -> Result<Committed, CommitError> {
        for compare in &transaction.compare {
            let found = self.keys.get(&compare.key).map(|it| it.mod_revision);
            if !compare.expect.holds(found) {
                return Err(CommitError::Conflict);
            }
        }
        let revision = self.revision.next();
        let events: Vec<Event> = transaction
            .operations
            .iter()
            .filter_map(|operation| self.operate(operation, revision))
            .collect();
        if !events.is_empty() {
            self.revision = revision;
        }
        Ok(Committed {
            revision: self.revision,
            events,
        })
    }

    fn operate(&mut self, operation: &Operation, revision: StoreRevision) -> Option<Event> {
        match operation {
            Operation::Put { key, value, .. } => {
                let before = self.keys.get(key).map(|it| it.create_revision);
                let stored = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: before.unwrap_or(revision),
                    mod_revision: revision,
                };
                self.keys.insert(key.clone(), stored.clone());
                Some(Event::Put(stored))
            }
            Operation::Delete { key } => {
                self.keys.remove(key)?;
                Some(Event::Delete {
                    key: key.clone(),
                    mod_revision: revision,
                })
            }
        }
    }

    fn replay(&mut self, committed: &Committed) {
        for event in &committed.events {
            match event {
                Event::Put(stored) => {
                    self.keys.insert(stored.key.clone(), stored.clone());
                }
                Event::Delete { key, .. } => {
                    self.keys.remove(key);
                }
            }
        }
        self.revision = committed.revision;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::store::{Compare, Expect};

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    fn put(name: &str, expect: Expect) -> Transaction {
        Transaction {
            compare: vec![Compare {
                key: key(name),
                expect,
            }],
            operations: vec![Operation::put(key(name), "x")],
        }
    }

    #[test]
    fn transactions_see_those_before_them_also_when_these_are_not_flushed() {
        let (mut store, mut dice) = (CoordinatorStore::default(), Dice::new(1, ""));
        assert!(store.begin(CommitId(1), &put("a", Expect::Absent)));
        assert!(!store.begin(CommitId(2), &put("a", Expect::Absent)));
        let mut answers = store.flush(&mut dice);
        answers.sort_by_key(|(id, _)| *id);
        assert!(answers[0].1.is_ok());
        assert_eq!(answers[1].1, Err(CommitError::Conflict));
    }

    #[test]
    fn a_crash_keeps_what_was_flushed_and_a_beginning_of_the_rest() {
        let mut dice = Dice::new(2, "");
        let mut survivors = Vec::new();
        for _ in 0..50 {
            let mut store = CoordinatorStore::default();
            store.begin(CommitId(1), &put("a", Expect::Absent));
            store.flush(&mut dice);
            for (id, name) in [(2, "b"), (3, "c")] {
                store.begin(CommitId(id), &put(name, Expect::Absent));
            }
            store.crash(&mut dice);
            let (keys, revision) = store.listing();
            assert_eq!(revision.0, keys.len() as u64);
            let names: Vec<String> = keys.iter().map(|it| it.key.to_string()).collect();
            assert!(
                ["a", "b", "c"].starts_with(&names.iter().map(String::as_str).collect::<Vec<_>>())
            );
            survivors.push(names.len());
        }
        for count in 1..=3 {
            assert!(survivors.contains(&count), "{count}");
        }
    }
}

//! Random histories: a store and a naive model of it answer alike, step by step.

use std::time::Duration;

use futures_util::StreamExt;
use model::store::{Event, KeyValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

#[test]
fn memory_store_agrees_with_the_naive_model() {
    agree(256, |_| memory_store());
}

#[test]
fn redb_store_agrees_with_the_naive_model() {
    agree(48, redb_store);
}

fn agree(cases: u32, open: impl Fn(&tempfile::TempDir) -> Arc<dyn Store>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let played = TestRunner::new(config).run(&vec(step(), 1..40), |steps| {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(play(&*open(&directory), &steps));
        Ok(())
    });
    played.unwrap_or_else(|failure| panic!("{failure}"));
}

/// What happens next; keys and leases are numbers below three, taken from what there is.
#[derive(Clone, Debug)]
enum Step {
    Transact {
        compare: Vec<(usize, Guess)>,
        operations: Vec<(usize, Write)>,
    },
    Grant,
    Revoke(usize),
}

#[derive(Clone, Copy, Debug)]
enum Guess {
    Absent,
    Present,
    Current,
    Revision(u64),
}

#[derive(Clone, Copy, Debug)]
enum Write {
    Put(u8),
    PutLeased(u8, usize),
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    let guess = prop_oneof![
        1 => Just(Guess::Absent),
        1 => Just(Guess::Present),
        3 => Just(Guess::Current),
        1 => (0..20u64).prop_map(Guess::Revision),
    ];
    let write = prop_oneof![
        3 => any::<u8>().prop_map(Write::Put),
        2 => (any::<u8>(), 0..3usize).prop_map(|(value, lease)| Write::PutLeased(value, lease)),
        2 => Just(Write::Delete),
    ];
    let transact = (vec((0..4usize, guess), 0..3), vec((0..4usize, write), 0..4));
    prop_oneof![
        8 => transact.prop_map(|(compare, operations)| Step::Transact { compare, operations }),
        1 => Just(Step::Grant),
        1 => (0..3usize).prop_map(Step::Revoke),
    ]
}

async fn play(store: &dyn Store, steps: &[Step]) {
    let mut naive = Naive::default();
    let mut changes = Vec::new();
    for step in steps {
        match step {
            Step::Transact {
                compare,
                operations,
            } => {
                let transaction = naive.transaction(compare, operations);
                let answer = store.transaction(transaction.clone()).await;
                assert_eq!(answer, naive.transact(&transaction), "{transaction:?}");
                changes.extend(answer.into_iter().flatten());
            }
            Step::Grant => naive
                .leases
                .push(store.lease_grant(Duration::MAX).await.unwrap()),
            Step::Revoke(lease) => {
                let lease = naive.lease(*lease);
                let answer = store.lease_revoke(lease).await;
                let expected = naive.revoke(lease);
                assert_eq!(answer, expected.clone().map(|_| ()), "{lease:?}");
                changes.extend(expected);
            }
        }
        let listing = Listing {
            revision: naive.revision,
            entries: naive.entries(),
        };
        assert_eq!(list(store).await, listing);
    }
    changes.retain(|committed| !committed.events.is_empty());
    let watch = store.watch(StoreRevision::ZERO).await.unwrap();
    let seen: Vec<_> = watch
        .take(changes.len())
        .map(Result::unwrap)
        .collect()
        .await;
    assert_eq!(seen, changes);
}

/// The promises of `Store`, written down as plainly as possible.
#[derive(Default)]
struct Naive {
    revision: StoreRevision,
    rows: Vec<(KeyValue, Option<LeaseId>)>,
    leases: Vec<LeaseId>,
}

impl Naive {
    fn entries(&self) -> Vec<KeyValue> {
        let mut entries: Vec<_> = self.rows.iter().map(|(stored, _)| stored.clone()).collect();
        entries.sort_by(|left, right| left.key.cmp(&right.key));
        entries
    }

    fn find(&self, key: &Key) -> Option<&KeyValue> {
        self.rows
            .iter()
            .map(|(stored, _)| stored)
            .find(|stored| stored.key == *key)
    }

    /// Returns an existing lease, or one that does not exist.
    fn lease(&self, number: usize) -> LeaseId {
        self.leases.get(number).copied().unwrap_or(LeaseId(1 << 40))
    }

    fn transaction(&self, compare: &[(usize, Guess)], writes: &[(usize, Write)]) -> Transaction {
        let key = |number: &usize| key(["a", "a/b", "b", "c"][*number]);
        let expectation = |key: &Key, guess: &Guess| match guess {
            Guess::Absent => Expect::Absent,
            Guess::Present => Expect::Present,
            Guess::Revision(revision) => Expect::ModRevision(StoreRevision(*revision)),
            Guess::Current => match self.find(key) {
                Some(stored) => Expect::ModRevision(stored.mod_revision),
                None => Expect::Absent,
            },
        };
        let compare = compare.iter().map(|(number, guess)| {
            let key = key(number);
            Compare {
                expect: expectation(&key, guess),
                key,
            }
        });
        let operations = writes.iter().map(|(number, write)| match write {
            Write::Put(value) => Operation::put(key(number), [*value]),
            Write::PutLeased(value, lease) => {
                let lease = Some(self.lease(*lease));
                Operation::Put {
                    key: key(number),
                    value: vec![*value],
                    lease,
                }
            }
            Write::Delete => Operation::delete(key(number)),
        });
        Transaction {
            compare: compare.collect(),
            operations: operations.collect(),
        }
    }

    fn transact(
        &mut self,
        transaction: &Transaction,
    ) -> Result<Result<Committed, Conflict>, StoreError> {
        transaction.check()?;
        for Compare { key, expect } in &transaction.compare {
            if !expect.holds(self.find(key).map(|stored| stored.mod_revision)) {
                return Ok(Err(Conflict { key: key.clone() }));
            }
        }
        let unknown = transaction
            .operations
            .iter()
            .find_map(|operation| match operation {
                Operation::Put {
                    lease: Some(lease), ..
                } if !self.leases.contains(lease) => Some(*lease),
                _ => None,
            });
        if let Some(lease) = unknown {
            return Err(StoreError::UnknownLease(lease));
        }
        let next = StoreRevision(self.revision.0 + 1);
        let operations = transaction.operations.iter();
        let events = operations
            .filter_map(|operation| self.operate(operation, next))
            .collect();
        Ok(Ok(self.committed(events)))
    }

    fn operate(&mut self, operation: &Operation, next: StoreRevision) -> Option<Event> {
        let before = self.find(operation.key()).cloned();
        self.rows
            .retain(|(stored, _)| stored.key != *operation.key());
        match operation {
            Operation::Put { key, value, lease } => {
                let stored = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: before.map_or(next, |before| before.create_revision),
                    mod_revision: next,
                };
                self.rows.push((stored.clone(), *lease));
                Some(Event::Put(stored))
            }
            Operation::Delete { key } => before.map(|_| Event::Delete {
                key: key.clone(),
                mod_revision: next,
            }),
        }
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<Committed, StoreError> {
        if !self.leases.contains(&lease) {
            return Err(StoreError::UnknownLease(lease));
        }
        self.leases.retain(|known| *known != lease);
        let of_lease = self.rows.iter().filter(|(_, by)| *by == Some(lease));
        let mut keys: Vec<_> = of_lease.map(|(stored, _)| stored.key.clone()).collect();
        keys.sort();
        let next = StoreRevision(self.revision.0 + 1);
        let delete = |key| self.operate(&Operation::Delete { key }, next);
        let events = keys.into_iter().filter_map(delete).collect();
        Ok(self.committed(events))
    }

    fn committed(&mut self, events: Vec<Event>) -> Committed {
        if !events.is_empty() {
            self.revision = StoreRevision(self.revision.0 + 1);
        }
        Committed {
            revision: self.revision,
            events,
        }
    }
}

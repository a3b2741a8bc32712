//! How an entry gets into a transaction.
//!
//! Commits are under way together, so an entry is appended to the last that was *planned*: its tip is
//! what the transaction requires to be stored. When a commit fails, those that were planned on it meet
//! a conflict, and are planned anew on what is stored.

use model::admin::AuditEntry;
use model::ids::Digest;
use model::store::{Compare, Expect, Key, Operation, Transaction};
use model::time::UnixTime;
use trust::audit::{BEFORE_THE_FIRST, audit_hash};

use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::stored::{StoredTip, encode};

use super::Deed;
use super::chain::Tip;
use super::describe::changes;

/// See `FleetLimits::AUDIT_ENTRIES_MAX`.
pub(super) const ENTRIES_KEPT: u64 = FleetLimits::AUDIT_ENTRIES_MAX as u64;

/// Where the next entry goes, while commits are under way.
#[derive(Debug, Default)]
pub(crate) struct Appender {
    planned: Option<Tip>,
    /// Rises when what was planned turned out not to happen.
    generation: u64,
    /// Why a commit of a generation failed, for those that were planned on it.
    failure: Option<(u64, String)>,
}

impl Appender {
    /// A commit that was planned in this generation did not happen.
    pub(crate) fn break_off(&mut self, generation: u64) {
        if generation == self.generation {
            self.generation += 1;
            self.planned = None;
        }
    }

    /// A commit that was planned in this generation could not be stored.
    pub(crate) fn fail(&mut self, generation: u64, reason: &str) {
        self.failure = Some((generation, reason.to_owned()));
        self.break_off(generation);
    }

    /// Returns why the store failed under a commit of this generation.
    pub(crate) fn failure_of(&self, generation: u64) -> Option<&str> {
        let (failed, reason) = self.failure.as_ref()?;
        (*failed == generation).then_some(reason.as_str())
    }
}

impl Fleet {
    /// Appends what a transaction does to the log, in the same transaction. Returns what to tell the
    /// `Appender` when it does not happen.
    pub(crate) fn append_to_log(
        &mut self,
        deed: Deed,
        transaction: &mut Transaction,
        at: UnixTime,
    ) -> u64 {
        let stored = self.state.audit.tip();
        let planned = self.appender.planned;
        let tip = planned
            .filter(|it| it.number > stored.number)
            .unwrap_or(stored);
        let changes = changes(&self.state, transaction);
        let entry = entry(deed, changes, &tip, at);
        append(&entry, &tip, transaction);
        let outgrown = entry.number.checked_sub(ENTRIES_KEPT);
        if let Some(oldest) = outgrown.filter(|it| self.state.audit.entry(*it).is_some()) {
            let key = Place::AuditEntry(oldest).key();
            transaction.operations.push(Operation::delete(key));
        }
        self.appender.planned = Some(Tip {
            number: entry.number,
            hash: entry.hash,
            is_stored: true,
        });
        self.appender.generation
    }
}

/// Begins the log of a new fleet with what its first transaction does.
pub(crate) fn first_entry(deed: Deed, transaction: &mut Transaction, at: UnixTime) {
    let tip = Tip {
        number: 0,
        hash: BEFORE_THE_FIRST,
        is_stored: false,
    };
    append(&entry(deed, Vec::new(), &tip, at), &tip, transaction);
}

fn entry(
    deed: Deed,
    changes: Vec<model::admin::AuditChange>,
    tip: &Tip,
    at: UnixTime,
) -> AuditEntry {
    let mut entry = AuditEntry {
        number: tip.number + 1,
        at_secs: at.as_secs(),
        who: deed.who,
        from: deed.from,
        action: deed.action,
        outcome: deed.outcome,
        reason: deed.reason,
        changes,
        previous: tip.hash,
        hash: Digest::from_bytes([0; Digest::LEN]),
    };
    entry.hash = audit_hash(&entry);
    entry
}

fn append(entry: &AuditEntry, tip: &Tip, transaction: &mut Transaction) {
    let compare = &mut transaction.compare;
    let operations = &mut transaction.operations;
    let expect = |key: &Key, expect| Compare {
        key: key.clone(),
        expect,
    };
    if tip.is_stored {
        let old = Place::AuditTip(tip.hash).key();
        compare.push(expect(&old, Expect::Present));
        operations.push(Operation::delete(old));
    }
    let key = Place::AuditEntry(entry.number).key();
    compare.push(expect(&key, Expect::Absent));
    operations.push(Operation::put(key, encode(entry)));
    let number = entry.number;
    let tip = Place::AuditTip(entry.hash).key();
    operations.push(Operation::put(tip, encode(&StoredTip { number })));
}

//! The log as it is stored: entries under their numbers, and one *tip*, whose key is the hash of the
//! last entry. A transaction that appends takes the tip away and puts the next one in its place. So
//! two coordinators cannot append to one entry, and several commits of one coordinator may be under
//! way, each on the tip of the one before.

use std::collections::BTreeMap;

use model::admin::AuditEntry;
use model::ids::Digest;
use trust::audit::{AuditBreak, AuditChain, BEFORE_THE_FIRST};

use crate::stored::{StoredTip, decode};

/// The end of the log, or of what is to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    /// Of the last entry; 0: there is none.
    pub(crate) number: u64,
    /// Of the last entry.
    pub(crate) hash: Digest,
    /// Its key is in the store. Not before the first entry, and not when somebody took it away.
    pub(crate) is_stored: bool,
}

/// The log as it is stored. What cannot be read is kept as a gap: a damaged log stops nobody from
/// working, it is told of.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    entries: BTreeMap<u64, AuditEntry>,
    tips: BTreeMap<Digest, u64>,
}

impl Chain {
    pub(crate) fn put_entry(&mut self, number: u64, value: &[u8]) {
        match decode::<AuditEntry>(value) {
            Ok(entry) if entry.number == number => {
                self.entries.insert(number, entry);
            }
            _ => {
                self.entries.remove(&number);
            }
        }
    }

    pub(crate) fn remove_entry(&mut self, number: u64) {
        self.entries.remove(&number);
    }

    pub(crate) fn put_tip(&mut self, hash: Digest, value: &[u8]) {
        if let Ok(tip) = decode::<StoredTip>(value) {
            self.tips.insert(hash, tip.number);
        }
    }

    pub(crate) fn remove_tip(&mut self, hash: &Digest) {
        self.tips.remove(hash);
    }

    pub(crate) fn entry(&self, number: u64) -> Option<&AuditEntry> {
        self.entries.get(&number)
    }

    pub(crate) fn entries(&self) -> &BTreeMap<u64, AuditEntry> {
        &self.entries
    }

    /// Returns where the next entry goes.
    pub(crate) fn tip(&self) -> Tip {
        let stored = self.tips.iter().max_by_key(|(_, number)| **number);
        let last = self.entries.last_key_value();
        let (number, hash) = match (stored, last) {
            (Some((hash, number)), _) => (*number, *hash),
            (None, Some((number, entry))) => (*number, entry.hash),
            (None, None) => (0, BEFORE_THE_FIRST),
        };
        Tip {
            number,
            hash,
            is_stored: stored.is_some(),
        }
    }

    /// Follows the whole chain.
    ///
    /// # Errors
    /// Where it breaks first.
    pub(crate) fn check(&self) -> Result<(), AuditBreak> {
        let tip = self.tip();
        let oldest = tip.number.saturating_sub(super::append::ENTRIES_KEPT - 1);
        let mut chain = AuditChain::from(oldest.max(1));
        for entry in self.entries.values() {
            chain.follow(entry)?;
        }
        chain.end(tip.number, tip.hash)
    }
}

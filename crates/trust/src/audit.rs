//! The chain of the audit log: what the hash of an entry is over, and whether entries that somebody
//! shows are the chain that they claim to be. The coordinator makes it, and whoever reads it checks it
//! for themselves.
//!
//! A chain shows what was altered, left out or put between. It cannot show that its end was cut off or
//! that all of it was written anew: for that, keep the number and hash of an entry somewhere else.

use model::admin::{AuditEntry, AuditOutcome};
use model::ids::Digest;
use thiserror::Error;

use crate::digest;

const CONTEXT: &[u8] = b"mesh audit entry v1";

/// What stands before the first entry.
pub const BEFORE_THE_FIRST: Digest = Digest::from_bytes([0; Digest::LEN]);

/// Returns the hash of an entry, over everything in it but the hash itself.
///
/// Numbers are 8 bytes, big-endian; texts and lists have their length before them, so that no two
/// entries have the same bytes.
pub fn audit_hash(entry: &AuditEntry) -> Digest {
    let mut bytes = Vec::with_capacity(256);
    number(&mut bytes, entry.number);
    number(&mut bytes, entry.at_secs);
    for part in [&entry.who, &entry.from, &entry.action, &entry.reason] {
        text(&mut bytes, part);
    }
    bytes.push(match entry.outcome {
        AuditOutcome::Done => 0,
        AuditOutcome::Refused => 1,
    });
    number(&mut bytes, entry.changes.len() as u64);
    for change in &entry.changes {
        text(&mut bytes, &change.subject);
        text(&mut bytes, &change.field);
        optional(&mut bytes, change.before.as_deref());
        optional(&mut bytes, change.after.as_deref());
    }
    bytes.extend_from_slice(entry.previous.as_bytes());
    digest(CONTEXT, &bytes)
}

fn number(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn optional(bytes: &mut Vec<u8>, value: Option<&str>) {
    bytes.push(u8::from(value.is_some()));
    text(bytes, value.unwrap_or(""));
}

/// Where a chain is not what it claims to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuditBreak {
    /// The content does not have the hash that stands beside it.
    #[error("entry {number} was altered: its content does not have the hash that it shows")]
    Altered {
        /// Which.
        number: u64,
    },
    /// It does not name the entry before it.
    #[error("entry {number} does not follow entry {}: one of the two was put in its place", number - 1)]
    Unlinked {
        /// Which.
        number: u64,
    },
    /// Entries are gone.
    #[error("entries {first} to {last} are missing")]
    Missing {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// It is not the entry that somebody kept the hash of.
    #[error("entry {number} is not the one that was kept: the log was written anew")]
    NotAsKept {
        /// Which.
        number: u64,
    },
}

/// Follows a chain, entry by entry, in their order.
#[derive(Clone, Debug)]
pub struct AuditChain {
    at: u64,
    hash: Option<Digest>,
    kept: Option<(u64, Digest)>,
}

impl AuditChain {
    /// Follows the chain from the entry `first`, 1 or the oldest that there still is. What came before
    /// that one is taken on trust.
    pub fn from(first: u64) -> Self {
        Self {
            at: first.saturating_sub(1),
            hash: (first <= 1).then_some(BEFORE_THE_FIRST),
            kept: None,
        }
    }

    /// Holds the chain against the number and hash of an entry that were kept elsewhere.
    #[must_use]
    pub fn with_kept(self, number: u64, hash: Digest) -> Self {
        Self {
            kept: Some((number, hash)),
            ..self
        }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// The chain breaks here. It goes on from this entry, so that later breaks are found too.
    pub fn follow(&mut self, entry: &AuditEntry) -> Result<(), AuditBreak> {
        let (expected, hash) = (self.at.saturating_add(1), self.hash);
        let number = entry.number;
        self.at = number;
        self.hash = Some(entry.hash);
        if number > expected {
            let last = number - 1;
            let first = expected;
            return Err(AuditBreak::Missing { first, last });
        }
        if number < expected || hash.is_some_and(|hash| hash != entry.previous) {
            return Err(AuditBreak::Unlinked { number });
        }
        if audit_hash(entry) != entry.hash {
            return Err(AuditBreak::Altered { number });
        }
        match self.kept {
            Some((kept, hash)) if kept == number && hash != entry.hash => {
                Err(AuditBreak::NotAsKept { number })
            }
            _ => Ok(()),
        }
    }

    /// Ends where the log says that it ends.
    ///
    /// # Errors
    /// Entries before that end are gone, or the last is another.
    pub fn end(&self, last: u64, hash: Digest) -> Result<(), AuditBreak> {
        let kept = self.kept.map_or(0, |(number, _)| number);
        let last = last.max(kept);
        if self.at < last {
            let first = self.at + 1;
            return Err(AuditBreak::Missing { first, last });
        }
        if last > 0 && self.hash.is_some_and(|it| it != hash) {
            return Err(AuditBreak::Unlinked { number: last });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::admin::AuditChange;

    fn chain(count: u64) -> Vec<AuditEntry> {
        let mut previous = BEFORE_THE_FIRST;
        let make = |number| {
            let mut entry = AuditEntry {
                number,
                at_secs: 1000 + number,
                who: "ops".into(),
                from: "192.0.2.1".into(),
                action: "host.labels".into(),
                outcome: AuditOutcome::Done,
                reason: String::new(),
                changes: vec![AuditChange {
                    subject: "host a".into(),
                    field: "labels.role".into(),
                    before: None,
                    after: Some("web".into()),
                }],
                previous,
                hash: BEFORE_THE_FIRST,
            };
            entry.hash = audit_hash(&entry);
            previous = entry.hash;
            entry
        };
        (1..=count).map(make).collect()
    }

    fn first_break(entries: &[AuditEntry], last: &AuditEntry) -> Option<AuditBreak> {
        let mut chain = AuditChain::from(1);
        for entry in entries {
            if let Err(broken) = chain.follow(entry) {
                return Some(broken);
            }
        }
        chain.end(last.number, last.hash).err()
    }

    #[test]
    fn an_untouched_chain_holds() {
        let entries = chain(5);
        assert_eq!(first_break(&entries, &entries[4]), None);
        let mut later = AuditChain::from(3);
        for entry in &entries[2..] {
            later.follow(entry).unwrap();
        }
    }

    #[test]
    fn every_altered_part_of_an_entry_is_found() {
        let alterations: [fn(&mut AuditEntry); 9] = [
            |entry| entry.at_secs += 1,
            |entry| entry.who.push('x'),
            |entry| entry.from = String::new(),
            |entry| entry.action = "host.remove".into(),
            |entry| entry.outcome = AuditOutcome::Refused,
            |entry| entry.reason = "because".into(),
            |entry| entry.changes.clear(),
            |entry| entry.changes[0].before = Some(String::new()),
            |entry| entry.changes[0].after = None,
        ];
        for alter in alterations {
            let mut entries = chain(5);
            let last = entries[4].clone();
            alter(&mut entries[2]);
            let altered = AuditBreak::Altered { number: 3 };
            assert_eq!(first_break(&entries, &last), Some(altered));
            // With a hash that fits, the entry after it no longer does.
            entries[2].hash = audit_hash(&entries[2]);
            let unlinked = AuditBreak::Unlinked { number: 4 };
            assert_eq!(first_break(&entries, &last), Some(unlinked));
        }
    }

    #[test]
    fn what_is_left_out_is_missed() {
        let entries = chain(5);
        let without_two = [&entries[..1], &entries[2..]].concat();
        let missing = |first, last| Some(AuditBreak::Missing { first, last });
        assert_eq!(first_break(&without_two, &entries[4]), missing(2, 2));
        assert_eq!(first_break(&entries[..3], &entries[4]), missing(4, 5));
    }

    #[test]
    fn a_chain_that_was_written_anew_is_not_the_one_that_was_kept() {
        let entries = chain(5);
        let mut anew = chain(2);
        anew[1].who = "somebody else".into();
        anew[1].hash = audit_hash(&anew[1]);
        let mut chain = AuditChain::from(1).with_kept(2, entries[1].hash);
        chain.follow(&anew[0]).unwrap();
        let found = chain.follow(&anew[1]);
        assert_eq!(found, Err(AuditBreak::NotAsKept { number: 2 }));
        let shorter = AuditChain::from(1).with_kept(9, entries[1].hash);
        assert!(shorter.end(0, BEFORE_THE_FIRST).is_err());
    }
}

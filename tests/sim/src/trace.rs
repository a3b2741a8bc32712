//! What happened, as a running hash over everything and as the last lines for people. Two runs of
//! one seed have the same hash, or something in them depends on more than the seed.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use model::time::Instant;

use crate::event::Note;

/// Lines that are kept, and how many of them people are shown.
const LINES_KEPT: usize = 20_000;
const LINES_SHOWN: usize = 120;

/// The record of a run.
pub(crate) struct Trace {
    hash: Fnv,
    notes: u64,
    last: VecDeque<(Instant, Note)>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self {
            hash: Fnv::default(),
            notes: 0,
            last: VecDeque::new(),
        }
    }

    /// Notes what happened; `Note::is_telling` says what people want to read.
    pub(crate) fn note(&mut self, at: Instant, note: Note) {
        at.hash(&mut self.hash);
        note.hash(&mut self.hash);
        self.notes += 1;
        if note.is_telling() {
            if self.last.len() == LINES_KEPT {
                self.last.pop_front();
            }
            self.last.push_back((at, note));
        }
    }

    /// Returns the hash over everything until now.
    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// Returns how much was noted.
    pub(crate) const fn notes(&self) -> u64 {
        self.notes
    }
}

impl Trace {
    /// Returns the last lines, of hosts only those that `what` names, if it names any.
    pub(crate) fn last_lines(&self, what: &str) -> String {
        let words = what.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with("vm-")).collect();
        let is_about = |note: &Note| {
            let host = note.host().map(|host| host.to_string());
            host.is_none_or(|host| named.is_empty() || named.contains(host.as_str()))
        };
        let mut lines: Vec<_> = self
            .last
            .iter()
            .rev()
            .filter(|(_, note)| is_about(note))
            .take(LINES_SHOWN)
            .map(|(at, note)| format!("  {at:?} {note}\n"))
            .collect();
        lines.reverse();
        lines.concat()
    }
}

/// Digests bytes for the trace.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(bytes);
    hasher.finish()
}

/// FNV-1a of 64 bits: the same in every process, unlike the hashers of `std`.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // draft-eastlake-fnv, appendix C: "foobar".
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8);
    }
}

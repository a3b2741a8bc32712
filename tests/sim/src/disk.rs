//! The state directory of one host: a write is durable when it is acknowledged, after a while; a
//! crash decides of each write under way whether it happened.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::{PersistId, StateFile, StoredFiles};

use crate::dice::Dice;

/// One host's state directory.
#[derive(Default)]
pub(crate) struct HostDisk {
    durable: BTreeMap<StateFile, Vec<u8>>,
    under_way: Vec<(PersistId, Work)>,
    /// It is full: writes fail.
    pub(crate) is_full: bool,
    /// Writes take seconds.
    pub(crate) is_slow: bool,
}

enum Work {
    Write(StateFile, Vec<u8>),
    Erase,
}

/// Returns how long it takes until a write is flushed: milliseconds, or seconds on a disk that is
/// worn out or shared with others.
pub(crate) fn write_time(is_slow: bool, dice: &mut Dice) -> Duration {
    match is_slow {
        true => dice.secs(1, 6),
        false => dice.between(Duration::from_micros(100), Duration::from_millis(20)),
    }
}

impl HostDisk {
    /// Starts a write.
    ///
    /// # Errors
    /// A write of the same file is under way; the brain promises that none is.
    pub(crate) fn write(
        &mut self,
        id: PersistId,
        file: StateFile,
        contents: Vec<u8>,
    ) -> Result<(), String> {
        let is_same =
            |(_, work): &(PersistId, Work)| matches!(work, Work::Write(other, _) if *other == file);
        if self.under_way.iter().any(is_same) {
            return Err(format!("a second write of {file:?} before the first ended"));
        }
        self.under_way.push((id, Work::Write(file, contents)));
        Ok(())
    }

    /// Returns a disk with a copy of what is durable on this one.
    pub(crate) fn copy(&self) -> Self {
        Self {
            durable: self.durable.clone(),
            ..Self::default()
        }
    }

    /// There is room, and it is fast.
    pub(crate) fn recover(&mut self) {
        (self.is_full, self.is_slow) = (false, false);
    }

    /// Returns how long a write takes.
    pub(crate) fn write_time(&self, dice: &mut Dice) -> Duration {
        write_time(self.is_slow, dice)
    }

    /// Starts to remove everything.
    pub(crate) fn erase(&mut self, id: PersistId) {
        self.under_way.push((id, Work::Erase));
    }

    /// Ends a write that was started.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) fn finish(&mut self, id: PersistId) -> Option<Result<(), String>> {
        let position = self.under_way.iter().position(|(it, _)| *it == id)?;
        let (_, work) = self.under_way.remove(position);
        if self.is_full && matches!(work, Work::Write(..)) {
            return Some(Err("no space left on device".to_owned()));
        }
        self.apply(work);
        Some(Ok(()))
    }

    /// The machine or the daemon stops: what is under way happens or does not; files that are
    /// being removed go one by one, in the order of `StateFile::ALL`.
    pub(crate) fn crash(&mut self, dice: &mut Dice) {
        for (_, work) in std::mem::take(&mut self.under_way) {
            match work {
                Work::Erase => {
                    let removed = dice.below(StateFile::ALL.len() + 1);
                    for file in StateFile::ALL.iter().take(removed) {
                        self.durable.remove(file);
                    }
                }
                work if dice.chance(500) => self.apply(work),
                Work::Write(..) => {}
            }
        }
    }

    /// Returns what a daemon finds when it starts.
    pub(crate) fn stored(&self) -> StoredFiles {
        let file = |file| self.durable.get(&file).cloned();
        StoredFiles {
            identity: file(StateFile::Identity),
            map: file(StateFile::Map),
            high_water: file(StateFile::HighWater),
        }
    }

    pub(crate) fn map(&self) -> Option<&[u8]> {
        self.durable.get(&StateFile::Map).map(Vec::as_slice)
    }

    fn apply(&mut self, work: Work) {
        match work {
            Work::Write(file, contents) => {
                self.durable.insert(file, contents);
            }
            Work::Erase => self.durable.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: StateFile = StateFile::Map;

    #[test]
    fn what_was_acknowledged_survives_every_crash() {
        let (mut disk, mut dice) = (HostDisk::default(), Dice::new(1, ""));
        disk.write(PersistId(1), FILE, vec![1]).unwrap();
        assert_eq!(disk.finish(PersistId(1)), Some(Ok(())));
        let mut survived = 0;
        for round in 2..100 {
            disk.write(PersistId(round), FILE, vec![2]).unwrap();
            disk.crash(&mut dice);
            survived += u32::from(disk.stored().map == Some(vec![2]));
            disk.apply(Work::Write(FILE, vec![1]));
        }
        assert!(
            (10..90).contains(&survived),
            "either is possible: {survived}"
        );
        assert_eq!(disk.stored().map, Some(vec![1]));
    }

    #[test]
    fn a_full_disk_keeps_what_it_had() {
        let mut disk = HostDisk::default();
        disk.write(PersistId(1), FILE, vec![1]).unwrap();
        disk.finish(PersistId(1));
        disk.is_full = true;
        disk.write(PersistId(2), FILE, vec![2]).unwrap();
        assert!(matches!(disk.finish(PersistId(2)), Some(Err(_))));
        assert_eq!(disk.map(), Some(&[1][..]));
    }

    #[test]
    fn two_writes_of_one_file_at_once_are_a_broken_promise() {
        let mut disk = HostDisk::default();
        disk.write(PersistId(1), FILE, vec![]).unwrap();
        assert!(disk.write(PersistId(2), FILE, vec![]).is_err());
    }
}

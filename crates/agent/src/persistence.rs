//! What goes to disk when: one write per file at a time, the newest contents next, a failed write
//! tried again until it holds. Who needs something durable asks for its version.

use std::time::Duration;

use model::key::SecretBytes;
use model::time::Instant;

use crate::backoff::Backoff;
use crate::dice::Dice;
use crate::output::{Output, Outputs, PersistId, StateFile};
use crate::timer::{Timeout, earliest, is_due};

/// Counts what was put into one file; a later one holds everything that an earlier one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Version(u64);

/// What an answer of the program means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DiskEvent {
    /// Something is durable that was not before.
    Durable(StateFile),
    /// A write failed; it is tried again.
    Failed(StateFile, String),
    /// The state directory is empty, or could not be emptied.
    Erased(Result<(), String>),
}

/// The state directory, as far as the brain is concerned.
#[derive(Debug)]
pub(crate) struct Disk {
    next_id: u64,
    identity: Slot,
    map: Slot,
    high_water: Slot,
    erasing: Option<PersistId>,
}

/// One file.
#[derive(Debug)]
struct Slot {
    file: StateFile,
    put: Version,
    durable: Version,
    /// What is to be written next.
    wanted: Option<(Version, SecretBytes)>,
    under_way: Option<UnderWay>,
    retry_at: Option<Instant>,
    backoff: Backoff,
}

#[derive(Debug)]
struct UnderWay {
    id: PersistId,
    version: Version,
    contents: SecretBytes,
}

const RETRY_BASE: Duration = Duration::from_secs(1);
const RETRY_CAP: Duration = Duration::from_secs(30);

impl Disk {
    pub(crate) fn new() -> Self {
        Self {
            next_id: 0,
            identity: Slot::new(StateFile::Identity),
            map: Slot::new(StateFile::Map),
            high_water: Slot::new(StateFile::HighWater),
            erasing: None,
        }
    }

    /// Asks for new contents of a file; returns the version to wait for.
    pub(crate) fn put(
        &mut self,
        file: StateFile,
        contents: SecretBytes,
        out: &mut Outputs,
    ) -> Version {
        let slot = self.slot(file);
        slot.put.0 += 1;
        slot.wanted = Some((slot.put, contents));
        slot.retry_at = None;
        let version = slot.put;
        self.write_next(file, out);
        version
    }

    pub(crate) fn is_durable(&self, file: StateFile, version: Version) -> bool {
        self.slots()[file as usize].durable >= version
    }

    /// Gives up what was not written yet of a file.
    pub(crate) fn abandon(&mut self, file: StateFile) {
        let slot = self.slot(file);
        slot.wanted = None;
        slot.retry_at = None;
    }

    /// Empties the state directory and forgets what was still to be written.
    pub(crate) fn erase(&mut self, out: &mut Outputs) {
        for file in StateFile::ALL {
            let slot = self.slot(file);
            let put = slot.put;
            *slot = Slot {
                put,
                durable: put,
                ..Slot::new(file)
            };
        }
        let id = self.new_id();
        self.erasing = Some(id);
        out.push(Output::Erase { id });
    }

    /// Takes the program's answer; answers to what was given up mean nothing.
    pub(crate) fn handle_persisted(
        &mut self,
        id: PersistId,
        result: Result<(), String>,
        now: Instant,
        dice: &mut Dice,
        out: &mut Outputs,
    ) -> Option<DiskEvent> {
        if self.erasing == Some(id) {
            self.erasing = None;
            return Some(DiskEvent::Erased(result));
        }
        let file = self.slots().into_iter().find(|slot| slot.writes(id))?.file;
        let event = self.slot(file).finish(result, now, dice);
        self.write_next(file, out);
        Some(event)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut Outputs) {
        for file in StateFile::ALL {
            let slot = self.slot(file);
            if slot.retry_at.is_some_and(|at| is_due(at, now)) {
                slot.retry_at = None;
                self.write_next(file, out);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Timeout {
        earliest(
            self.slots()
                .map(|slot| slot.retry_at.map(|at| (at, "write to disk again"))),
        )
    }

    fn write_next(&mut self, file: StateFile, out: &mut Outputs) {
        let slot = self.slot(file);
        if slot.under_way.is_some() || slot.retry_at.is_some() {
            return;
        }
        let Some((version, contents)) = slot.wanted.take() else {
            return;
        };
        let id = self.new_id();
        out.push(Output::Persist {
            id,
            file,
            contents: contents.clone(),
        });
        self.slot(file).under_way = Some(UnderWay {
            id,
            version,
            contents,
        });
    }

    fn new_id(&mut self) -> PersistId {
        self.next_id += 1;
        PersistId(self.next_id)
    }

    fn slots(&self) -> [&Slot; 3] {
        [&self.identity, &self.map, &self.high_water]
    }

    fn slot(&mut self, file: StateFile) -> &mut Slot {
        match file {
            StateFile::Identity => &mut self.identity,
            StateFile::Map => &mut self.map,
            StateFile::HighWater => &mut self.high_water,
        }
    }
}

impl Slot {
    fn new(file: StateFile) -> Self {
        Self {
            file,
            put: Version::default(),
            durable: Version::default(),
            wanted: None,
            under_way: None,
            retry_at: None,
            backoff: Backoff::new(RETRY_BASE, RETRY_CAP),
        }
    }

    fn writes(&self, id: PersistId) -> bool {
        self.under_way.as_ref().is_some_and(|write| write.id == id)
    }

    fn finish(&mut self, result: Result<(), String>, now: Instant, dice: &mut Dice) -> DiskEvent {
        let write = self
            .under_way
            .take()
            .expect("the caller found the write under way");
        match result {
            Ok(()) => {
                self.durable = write.version;
                self.backoff.reset();
                DiskEvent::Durable(self.file)
            }
            Err(why) => {
                self.wanted.get_or_insert((write.version, write.contents));
                self.retry_at = Some(now + self.backoff.next_wait(dice));
                DiskEvent::Failed(self.file, why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        disk: Disk,
        dice: Dice,
        out: Outputs,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                disk: Disk::new(),
                dice: Dice::from_seed([5; 32]),
                out: Outputs::default(),
                now: Instant::START,
            }
        }

        fn put(&mut self, byte: u8) -> Version {
            self.disk
                .put(StateFile::Map, SecretBytes::new(vec![byte]), &mut self.out)
        }

        fn write(&mut self) -> Option<(PersistId, u8)> {
            match self.out.pop()? {
                Output::Persist { id, contents, .. } => Some((id, contents.expose()[0])),
                other => panic!("unexpected {other:?}"),
            }
        }

        fn answer(&mut self, id: PersistId, result: Result<(), &str>) -> Option<DiskEvent> {
            let result = result.map_err(str::to_owned);
            self.disk
                .handle_persisted(id, result, self.now, &mut self.dice, &mut self.out)
        }
    }

    #[test]
    fn one_write_at_a_time_and_the_newest_next() {
        let mut bench = Bench::new();
        let first = bench.put(1);
        let (id, _) = bench.write().unwrap();
        bench.put(2);
        let third = bench.put(3);
        assert!(bench.write().is_none(), "the first is still under way");
        assert_eq!(
            bench.answer(id, Ok(())),
            Some(DiskEvent::Durable(StateFile::Map))
        );
        assert!(bench.disk.is_durable(StateFile::Map, first));
        assert!(!bench.disk.is_durable(StateFile::Map, third));
        let (id, byte) = bench.write().unwrap();
        assert_eq!(byte, 3, "what was overtaken is never written");
        bench.answer(id, Ok(()));
        assert!(bench.disk.is_durable(StateFile::Map, third));
    }

    #[test]
    fn a_failed_write_is_tried_again_with_the_newest_contents() {
        let mut bench = Bench::new();
        let first = bench.put(1);
        let (id, _) = bench.write().unwrap();
        let failed = bench.answer(id, Err("no space left on device"));
        assert!(matches!(failed, Some(DiskEvent::Failed(StateFile::Map, _))));
        assert!(bench.write().is_none());
        bench.now = bench.disk.poll_timeout().unwrap().0;
        bench.disk.handle_timeout(bench.now, &mut bench.out);
        let (id, byte) = bench.write().unwrap();
        assert_eq!(byte, 1);
        assert!(!bench.disk.is_durable(StateFile::Map, first));
        bench.answer(id, Ok(()));
        assert!(bench.disk.is_durable(StateFile::Map, first));
        assert_eq!(bench.disk.poll_timeout(), None);
    }

    #[test]
    fn after_an_erase_old_answers_mean_nothing() {
        let mut bench = Bench::new();
        bench.put(1);
        let (id, _) = bench.write().unwrap();
        bench.disk.erase(&mut bench.out);
        let Some(Output::Erase { id: erase }) = bench.out.pop() else {
            panic!("no erase")
        };
        assert_eq!(bench.answer(id, Err("late")), None);
        assert_eq!(bench.answer(erase, Ok(())), Some(DiskEvent::Erased(Ok(()))));
        assert_eq!(bench.disk.poll_timeout(), None);
    }
}

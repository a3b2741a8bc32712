//! The one thread that writes. Changes that wait share one durable commit; each is decided on the
//! state with the earlier ones already in, and answered only after the flush.
//!
//! redb gives up a database after a failed write, so it is opened again, and what it then holds
//! says whether the group happened. After a failed flush nothing can say that any more.

use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};

use model::store::StoreRevision;
use redb::{Database, Error, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::super::change::{Answer, Change};
use super::super::leases::LeaseClock;
use super::super::{StoreError, StoreLimits};
use super::Shared;
use super::tables::{self, RedbTables, Start};

/// A change and who waits for it.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) change: Change,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The state of the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    revision: StoreRevision,
    /// Tells a group that happened from one that did not, also when it made no revision.
    commits: u64,
}

/// How far a group came.
enum Attempt {
    /// All of it is durable, or nothing was to be written.
    Done(Outcome),
    /// It failed before anything was committed.
    Failed(Error),
    /// The commit itself failed; it may have happened.
    Uncertain(Error, Outcome),
}

/// What a group comes to when it is durable.
struct Outcome {
    answers: Vec<Answer>,
    revision: StoreRevision,
    commits: u64,
}

impl Writer {
    /// Goes on after what `start` says.
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        start: &Start,
    ) -> Self {
        Self {
            shared,
            commands,
            revision: start.revision,
            commits: start.commits,
        }
    }

    /// Writes until no handle of the store is left.
    pub(super) fn run(mut self) {
        while let Some(first) = self.commands.blocking_recv() {
            let group = self.collect(first);
            self.handle(group);
        }
        // Closing writes what makes the next start quick; a crash would do without.
        if let Some(database) = self.database_slot().take() {
            database.close().ok();
        }
    }

    /// Takes what waits already, within the limits of a group.
    fn collect(&mut self, first: Command) -> Vec<Command> {
        let mut bytes = first.change.bytes();
        let mut group = vec![first];
        while group.len() < StoreLimits::GROUP_MAX && bytes < StoreLimits::GROUP_BYTES_MAX {
            let Ok(command) = self.commands.try_recv() else {
                break;
            };
            bytes += command.change.bytes();
            group.push(command);
        }
        group
    }

    fn handle(&mut self, group: Vec<Command>) {
        match self.commit(&group) {
            Ok(outcome) => self.settle(group, outcome),
            // One that is too large for the disk must not fail its neighbours.
            Err(StoreError::NotStored { .. }) if group.len() > 1 => {
                group
                    .into_iter()
                    .for_each(|command| self.handle(vec![command]));
            }
            Err(error) => {
                for command in group {
                    command.answer.send(Err(error.clone())).ok();
                }
            }
        }
    }

    /// Lets everybody know what is durable now: watches first, then those who asked.
    fn settle(&mut self, group: Vec<Command>, outcome: Outcome) {
        (self.revision, self.commits) = (outcome.revision, outcome.commits);
        for (command, answer) in group.into_iter().zip(outcome.answers) {
            match &command.change {
                Change::Transaction(_) => {}
                Change::GrantLease { lease, ttl } => self.shared.clock().add(*lease, *ttl),
                Change::EndLease { lease } => self.shared.clock().remove(*lease),
            }
            if let Ok(Ok(committed)) = &answer {
                self.shared.history.push(committed);
            }
            // Whoever no longer waits will find it in the store.
            command.answer.send(answer).ok();
        }
    }

    fn commit(&mut self, group: &[Command]) -> Result<Outcome, StoreError> {
        self.ensure_open()
            .map_err(|reason| StoreError::NotStored { reason })?;
        let attempt = {
            let slot = self.database();
            let database = slot.as_ref().expect("it was just made sure");
            write(database, group, (self.revision, self.commits))
        };
        match attempt {
            Attempt::Done(outcome) => Ok(outcome),
            Attempt::Failed(error) => {
                self.reopen().ok();
                Err(StoreError::NotStored {
                    reason: self.reason(&error),
                })
            }
            Attempt::Uncertain(error, outcome) => match self.reopen() {
                Ok(found) if found.commits == outcome.commits => Ok(outcome),
                Ok(_) => Err(StoreError::NotStored {
                    reason: self.reason(&error),
                }),
                Err(_) => Err(StoreError::OutcomeUnknown {
                    reason: self.reason(&error),
                }),
            },
        }
    }

    /// Opens the database if an earlier failure left it closed. What happened in between is only
    /// in the file: watches start over from there, leases are counted anew.
    fn ensure_open(&mut self) -> Result<(), String> {
        // Who reads is not waited for, and waits for nothing.
        let is_open = self.database().is_some();
        if is_open {
            return Ok(());
        }
        let start = self.reopen()?;
        (self.revision, self.commits) = (start.revision, start.commits);
        self.shared.history.restart(start.revision);
        *self.shared.clock() = LeaseClock::new(start.leases, start.last_lease);
        Ok(())
    }

    /// Opens the database again and returns what it holds.
    fn reopen(&self) -> Result<Start, String> {
        let mut slot = self.database_slot();
        *slot = None;
        if self.shared.file.flush_failed() {
            return Err(self.flush_failed());
        }
        let open = || {
            let database = tables::open_database(&self.shared.file)?;
            let start = tables::load(&database)?;
            Ok((database, start))
        };
        let (database, start) = open().map_err(|error| self.reason(&error))?;
        if self.shared.file.flush_failed() {
            return Err(self.flush_failed());
        }
        *slot = Some(database);
        Ok(start)
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.shared
            .database
            .read()
            .expect("only this thread writes the slot")
    }

    fn database_slot(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.shared
            .database
            .write()
            .expect("readers do not panic while they hold the database")
    }

    /// Says what failed and what to try.
    fn reason(&self, error: &Error) -> String {
        if self.shared.file.flush_failed() {
            return self.flush_failed();
        }
        let path = self.shared.file.path().display();
        match error {
            Error::Io(source) if is_disk_full(source) => {
                format!("no room for {path} ({source}); make room, the store goes on by itself")
            }
            other => format!("cannot write {path} ({other}); check the disk"),
        }
    }

    fn flush_failed(&self) -> String {
        let path = self.shared.file.path().display();
        format!("the disk failed to flush {path}; check the disk, then restart the coordinator")
    }
}

fn is_disk_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn write(database: &Database, group: &[Command], last: (StoreRevision, u64)) -> Attempt {
    let (outcome, transaction) = match prepare(database, group, last) {
        Ok(prepared) => prepared,
        Err(error) => return Attempt::Failed(error),
    };
    match transaction.map_or(Ok(()), WriteTransaction::commit) {
        Ok(()) => Attempt::Done(outcome),
        Err(error) => Attempt::Uncertain(error.into(), outcome),
    }
}

/// Applies a group; without a transaction there is nothing to commit.
fn prepare(
    database: &Database,
    group: &[Command],
    last: (StoreRevision, u64),
) -> Result<(Outcome, Option<WriteTransaction>), Error> {
    let transaction = database.begin_write()?;
    let (outcome, written) = apply(&transaction, group, last)?;
    if written {
        return Ok((outcome, Some(transaction)));
    }
    transaction.abort()?;
    Ok((outcome, None))
}

fn apply(
    transaction: &WriteTransaction,
    group: &[Command],
    (mut revision, mut commits): (StoreRevision, u64),
) -> Result<(Outcome, bool), Error> {
    let mut tables = RedbTables::open(transaction)?;
    let mut answers = Vec::with_capacity(group.len());
    for command in group {
        let answer = command.change.apply(&mut tables, revision)?;
        if let Ok(Ok(committed)) = &answer {
            revision = committed.revision;
        }
        answers.push(answer);
    }
    if tables.written() {
        commits += 1;
        tables.set_counters(revision, commits)?;
    }
    Ok((
        Outcome {
            answers,
            revision,
            commits,
        },
        tables.written(),
    ))
}

#[cfg(test)]
mod tests {
    use model::store::{Key, Operation, Transaction};

    use super::super::super::Store;
    use super::super::RedbStore;
    use super::*;

    #[tokio::test]
    #[allow(clippy::await_holding_lock)] // the writer has a thread of its own
    async fn a_change_does_not_wait_for_who_reads() {
        let root = tempfile::tempdir().unwrap();
        let store = RedbStore::open(&root.path().join("store")).unwrap();
        let shared = Arc::clone(&store.shared);
        let reading = shared.database.read().unwrap();
        let put = Transaction {
            operations: vec![Operation::put(Key::new("a").unwrap(), vec![1])],
            ..Transaction::default()
        };
        let patience = std::time::Duration::from_secs(60);
        let written = tokio::time::timeout(patience, store.transaction(put)).await;
        drop(reading);
        assert!(written.expect("it is written meanwhile").unwrap().is_ok());
    }
}

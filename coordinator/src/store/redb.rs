//! The store of a single coordinator: one redb file, written by one thread that lets waiting
//! transactions share a flush, read by everybody else.

mod directory;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod faults;
mod file;
mod tables;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use model::store::{Committed, Conflict, LeaseId, StoreRevision, Transaction};
use model::time::Instant;
use redb::Database;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

pub use self::directory::OpenError;
use self::file::StoreFile;
use self::writer::{Command, Writer};
use super::change::{Answer, Change};
use super::history::History;
use super::leases::LeaseClock;
use super::{Listing, Store, StoreError, StoreFuture, StoreLimits, WatchStream};

/// The store in a directory of its own. Only one process at a time has it open. Its futures need
/// a tokio runtime.
#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
    /// `None` once it is being dropped, which ends the writer.
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and the readers have in common.
#[derive(Debug)]
struct Shared {
    file: StoreFile,
    /// `None` while the file could not be opened again after a failure.
    database: RwLock<Option<Database>>,
    history: History,
    clock: Mutex<LeaseClock>,
}

impl RedbStore {
    /// Returns where its file is.
    pub fn path(&self) -> &Path {
        self.shared.file.path()
    }

    /// Opens the store in `directory`, which is made when it does not exist. The whole file is
    /// checked first. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`]; the file of something else, or of a later version, is left as it was.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let file = directory::open(directory)?;
        let database = tables::open_database(&file)
            .map_err(|error| OpenError::from_database(file.path(), error))?;
        let start = tables::load(&database)
            .map_err(|error| OpenError::from_database(file.path(), error))?;
        let (commands, waiting) = mpsc::channel(StoreLimits::QUEUE_MAX);
        let shared = Arc::new(Shared {
            file,
            database: RwLock::new(Some(database)),
            history: History::new(start.revision),
            clock: Mutex::new(LeaseClock::new(start.leases.clone(), start.last_lease)),
        });
        let writer = Writer::new(Arc::clone(&shared), waiting, &start);
        let writer = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io {
                path: directory.into(),
                source,
            })?;
        Ok(Self {
            shared,
            commands: Some(commands),
            writer: Some(writer),
        })
    }

    /// Makes a store of what another held, with its revisions, and opens it. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`]; there is a store in `directory` already, or it cannot be written.
    pub fn create_from(directory: &Path, listing: &Listing) -> Result<Self, OpenError> {
        directory::create_from(directory, listing)?;
        Self::open(directory)
    }

    /// Hands a change to the writer and waits until it is durable.
    async fn submit(&self, change: Change) -> Answer {
        let (answer, answered) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(StoreError::Closed)?;
        let sent = commands.send(Command { change, answer }).await;
        sent.map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or_else(|_| {
            let reason = "the writer of the store stopped; restart the coordinator".into();
            Err(StoreError::OutcomeUnknown { reason })
        })
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let lease = self.shared.clock().next_id()?;
        self.submit(Change::GrantLease { lease, ttl }).await?.ok();
        Ok(lease)
    }

    async fn expire(&self, now: Instant) -> Result<Vec<LeaseId>, StoreError> {
        let over = self.shared.clock().expire(now);
        for lease in &over {
            match self.submit(Change::EndLease { lease: *lease }).await {
                // Somebody revoked it at the same time.
                Ok(_) | Err(StoreError::UnknownLease(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(over)
    }
}

/// Waits for the change that is being flushed, so that the directory is free afterwards.
impl Drop for RedbStore {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // It has nobody left to tell that it panicked.
            writer.join().ok();
        }
    }
}

impl Shared {
    fn clock(&self) -> MutexGuard<'_, LeaseClock> {
        self.clock
            .lock()
            .expect("nothing panics while it holds the clock")
    }

    fn range(&self, prefix: &str) -> Result<Listing, StoreError> {
        let database = self
            .database
            .read()
            .expect("nothing panics while it opens the file");
        let Some(database) = database.as_ref() else {
            let path = self.file.path().display();
            let reason = format!("{path} could not be opened again after a failed write");
            return Err(StoreError::Unreadable { reason });
        };
        tables::range(database, prefix).map_err(|error| {
            let reason = format!("{}: {error}", self.file.path().display());
            StoreError::Unreadable { reason }
        })
    }
}

impl Store for RedbStore {
    fn transaction(
        &self,
        transaction: Transaction,
    ) -> StoreFuture<'_, Result<Committed, Conflict>> {
        Box::pin(async move {
            transaction.check()?;
            self.submit(Change::Transaction(transaction)).await
        })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing> {
        let (shared, prefix) = (Arc::clone(&self.shared), prefix.to_owned());
        Box::pin(async move {
            let listed = spawn_blocking(move || shared.range(&prefix)).await;
            listed.unwrap_or_else(|error| {
                let reason = format!("the reader stopped ({error})");
                Err(StoreError::Unreadable { reason })
            })
        })
    }

    fn watch(&self, after: StoreRevision) -> StoreFuture<'_, WatchStream> {
        Box::pin(async move { self.shared.history.watch(after) })
    }

    fn compact(&self, through: StoreRevision) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.shared.history.compact(through);
            Ok(())
        })
    }

    fn lease_grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
        Box::pin(self.grant(ttl))
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.shared.clock().keep_alive(lease) })
    }

    fn lease_revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.submit(Change::EndLease { lease }).await?.ok();
            Ok(())
        })
    }

    fn expire_leases(&self, now: Instant) -> StoreFuture<'_, Vec<LeaseId>> {
        Box::pin(self.expire(now))
    }
}

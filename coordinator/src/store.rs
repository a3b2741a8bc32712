//! Where the fleet's state lives: a small key-value store in the manner of etcd. Transactions that
//! compare before they write, one revision for each change, watches that replay changes in order,
//! leases. What the keys mean is `fleet`'s business.
//!
//! [`RedbStore`] keeps one coordinator's state in a file, [`MemoryStore`] keeps it nowhere; both
//! pass the same conformance suite (`tests/store_conformance`).

mod change;
mod history;
mod leases;
mod memory;
mod redb;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use model::store::{
    Committed, Conflict, KeyValue, LeaseId, StoreRevision, Transaction, TransactionError,
};
use model::time::Instant;
use thiserror::Error;

pub use self::memory::MemoryStore;
pub use self::redb::{OpenError, RedbStore};

/// What every call of a store returns: its answer, later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The changes after a revision: each one once, in order, never two revisions in one item. Ends
/// when the store is closed, and after [`Compacted`].
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Committed, Compacted>> + Send>>;

/// Keys and values under revisions. Every implementation promises the same.
///
/// A call whose future is dropped may still take effect.
pub trait Store: Send + Sync + 'static {
    /// Does all operations of `transaction` when all its compares hold, else nothing, and answers
    /// when that is durable. A transaction that changes something makes exactly one revision, the
    /// next one, also across restarts; one that changes nothing makes none.
    ///
    /// # Errors
    /// See [`StoreError`], which says for each error whether something may have changed.
    fn transaction(&self, transaction: Transaction)
    -> StoreFuture<'_, Result<Committed, Conflict>>;

    /// Returns all keys that start with `prefix`, sorted, as they were at one revision. The empty
    /// prefix means everything; a prefix that names a folder ends in `/`.
    ///
    /// # Errors
    /// When the state cannot be read now.
    fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Listing>;

    /// Delivers every change after revision `after`, which is usually that of a [`Listing`].
    ///
    /// The stream yields [`Compacted`] when the changes since `after` are no longer known: after a
    /// restart, after [`Store::compact`], or because the reader fell too far behind. The reader
    /// then starts over with [`Store::range`].
    ///
    /// # Errors
    /// When [`StoreLimits::WATCHERS_MAX`] streams exist.
    fn watch(&self, after: StoreRevision) -> StoreFuture<'_, WatchStream>;

    /// Forgets the changes up to and including revision `through`; keys and values stay. Only
    /// readers that watch from before it notice.
    ///
    /// # Errors
    /// When the store is closed.
    fn compact(&self, through: StoreRevision) -> StoreFuture<'_, ()>;

    /// Makes a lease that ends when it is not kept alive for `ttl`. It is counted from the first
    /// [`Store::expire_leases`] after this call, and anew after a restart: never too short.
    ///
    /// # Errors
    /// When [`StoreLimits::LEASES_MAX`] leases exist, or it cannot be stored.
    fn lease_grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId>;

    /// Starts the time of a lease anew, counted from the next [`Store::expire_leases`].
    ///
    /// # Errors
    /// [`StoreError::UnknownLease`] when the lease has ended.
    fn lease_keep_alive(&self, lease: LeaseId) -> StoreFuture<'_, ()>;

    /// Ends a lease and deletes its keys, as one revision.
    ///
    /// # Errors
    /// [`StoreError::UnknownLease`] when the lease has ended, or when it cannot be stored.
    fn lease_revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()>;

    /// Tells the store the time, and ends the leases that are over as [`Store::lease_revoke`] does.
    /// Returns them. A store with its own clock does nothing here.
    ///
    /// # Errors
    /// When an end cannot be stored; it is tried again at the next call.
    fn expire_leases(&self, now: Instant) -> StoreFuture<'_, Vec<LeaseId>>;
}

/// Bounds of a store. Those of one transaction are [`model::store::TransactionLimits`].
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits;

impl StoreLimits {
    /// Watch streams at one time; one more is refused.
    pub const WATCHERS_MAX: usize = 1024;
    /// Events remembered for watches; beyond it the oldest are forgotten, and readers that did not
    /// have them get [`Compacted`].
    pub const HISTORY_EVENTS_MAX: usize = 65_536;
    /// Bytes of keys and values of remembered events; beyond it as with the events.
    pub const HISTORY_BYTES_MAX: usize = 64 * 1024 * 1024;
    /// Leases at one time; one more is refused.
    pub const LEASES_MAX: usize = 16_384;
    /// Keys of one lease; one more is refused.
    pub const LEASE_KEYS_MAX: usize = 1024;
    /// Transactions that wait for the disk; one more waits outside.
    pub const QUEUE_MAX: usize = 1024;
    /// Transactions that share one flush.
    pub const GROUP_MAX: usize = 256;
    /// Bytes of keys and values that share one flush, one transaction more or less.
    pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
}

/// All keys under a prefix at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The revision; a watch after it misses nothing.
    pub revision: StoreRevision,
    /// The keys with their values, sorted by key.
    pub entries: Vec<KeyValue>,
}

/// The changes that a watch asks for are no longer known up to `through`: list again, then watch
/// after the listing's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("changes up to revision {through} are no longer remembered; list the keys again")]
pub struct Compacted {
    /// The last revision that is no longer known.
    pub through: StoreRevision,
}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The transaction breaks a limit. Nothing changed, and the same will be refused again.
    #[error("transaction refused: {0}")]
    Invalid(#[from] TransactionError),
    /// There is no such lease, or no longer. Nothing changed.
    #[error("{0:?} does not exist or has ended; grant a new one")]
    UnknownLease(LeaseId),
    /// One of [`StoreLimits`] is reached. Nothing changed.
    #[error("the store holds its limit of {max} {what}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The change could not be stored. Nothing changed; it may be tried again.
    #[error("nothing was stored: {reason}")]
    NotStored {
        /// What failed, and what to try.
        reason: String,
    },
    /// The change was under way when the disk failed, and may or may not have happened. List the
    /// keys before trying again.
    #[error("unknown whether it was stored: {reason}")]
    OutcomeUnknown {
        /// What failed, and what to try.
        reason: String,
    },
    /// The state cannot be read now.
    #[error("cannot read the store: {reason}")]
    Unreadable {
        /// What failed, and what to try.
        reason: String,
    },
    /// The store is closed. Nothing changed.
    #[error("the store is closed")]
    Closed,
}

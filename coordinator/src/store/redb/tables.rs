//! What is in the redb file: its tables, how a row is encoded, and how a change writes them.
//!
//! ```text
//! table       key              value, little endian
//! keys        path             8 create revision, 8 mod revision, 8 lease or 0, then the value
//! leases      lease            time to live in milliseconds
//! lease_keys  (lease, path)    nothing
//! counters    "revision"       the last revision
//!             "lease"          the last lease ever granted
//!             "commits"        how many groups were committed
//! ```

use std::time::Duration;

use model::store::{Key, KeyValue, LeaseId, StoreRevision};
use redb::{
    Database, Error, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use super::super::Listing;
use super::super::change::{Found, Tables};
use super::file::StoreFile;

const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const LEASE_KEYS: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("lease_keys");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");

const REVISION: &str = "revision";
const LAST_LEASE: &str = "lease";
const COMMITS: &str = "commits";

/// Pages that are kept in memory. A fleet's whole state is smaller, or nearly.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Opens the database in `file` and checks all of it, which repairs what a crash left.
pub(super) fn open_database(file: &StoreFile) -> Result<Database, Error> {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(file.clone())?)
}

/// Makes a database in `file` that holds what is listed.
pub(super) fn create(file: &StoreFile, listing: &Listing) -> Result<(), Error> {
    let database = open_database(file)?;
    let transaction = database.begin_write()?;
    let mut tables = RedbTables::open(&transaction)?;
    for stored in &listing.entries {
        tables.put(stored, None)?;
    }
    tables.set_counters(listing.revision, 0)?;
    drop(tables);
    transaction.commit()?;
    Ok(database.close()?)
}

/// What a store starts from.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) revision: StoreRevision,
    pub(super) commits: u64,
    pub(super) leases: Vec<(LeaseId, Duration)>,
    pub(super) last_lease: LeaseId,
}

/// Reads what a store starts from.
pub(super) fn load(database: &Database) -> Result<Start, Error> {
    let transaction = database.begin_read()?;
    let counters = transaction.open_table(COUNTERS)?;
    let counter = |name| Ok::<_, Error>(counters.get(name)?.map(|count| count.value()));
    let revision = counter(REVISION)?.ok_or_else(|| damaged("it has no revision"))?;
    let commits = counter(COMMITS)?.ok_or_else(|| damaged("it has no count of commits"))?;
    let leases = transaction.open_table(LEASES)?;
    let stored = leases.iter()?.map(|row| {
        let (lease, ttl_millis) = row?;
        Ok((
            LeaseId(lease.value()),
            Duration::from_millis(ttl_millis.value()),
        ))
    });
    Ok(Start {
        revision: StoreRevision(revision),
        commits,
        leases: stored.collect::<Result<_, Error>>()?,
        last_lease: LeaseId(counter(LAST_LEASE)?.unwrap_or(0)),
    })
}

/// Lists the keys that start with `prefix`, at the last revision that is durable.
pub(super) fn range(database: &Database, prefix: &str) -> Result<Listing, Error> {
    let transaction = database.begin_read()?;
    let counters = transaction.open_table(COUNTERS)?;
    let revision = counters
        .get(REVISION)?
        .ok_or_else(|| damaged("it has no revision"))?
        .value();
    let keys = transaction.open_table(KEYS)?;
    let mut entries = Vec::new();
    for row in keys.range(prefix..)? {
        let (path, row) = row?;
        if !path.value().starts_with(prefix) {
            break;
        }
        entries.push(key_value(path.value(), row.value())?);
    }
    Ok(Listing {
        revision: StoreRevision(revision),
        entries,
    })
}

/// The tables inside one write transaction.
pub(super) struct RedbTables<'t> {
    keys: Table<'t, &'static str, &'static [u8]>,
    leases: Table<'t, u64, u64>,
    lease_keys: Table<'t, (u64, &'static str), ()>,
    counters: Table<'t, &'static str, u64>,
    written: bool,
}

impl<'t> RedbTables<'t> {
    /// Opens all tables.
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            keys: transaction.open_table(KEYS)?,
            leases: transaction.open_table(LEASES)?,
            lease_keys: transaction.open_table(LEASE_KEYS)?,
            counters: transaction.open_table(COUNTERS)?,
            written: false,
        })
    }

    /// Sets the last revision and the number of commits, this one included.
    pub(super) fn set_counters(
        &mut self,
        revision: StoreRevision,
        commits: u64,
    ) -> Result<(), Error> {
        self.counters.insert(REVISION, revision.0)?;
        self.counters.insert(COMMITS, commits)?;
        Ok(())
    }

    /// Returns whether a change wrote anything.
    pub(super) fn written(&self) -> bool {
        self.written
    }
}

impl Tables for RedbTables<'_> {
    type Failure = Error;

    fn find(&self, key: &Key) -> Result<Option<Found>, Error> {
        let row = self.keys.get(key.as_str())?;
        row.map(|row| Ok(Row::decode(row.value())?.found))
            .transpose()
    }

    fn put(&mut self, stored: &KeyValue, lease: Option<LeaseId>) -> Result<(), Error> {
        self.written = true;
        self.keys
            .insert(stored.key.as_str(), encode(stored, lease).as_slice())?;
        Ok(())
    }

    fn remove(&mut self, key: &Key) -> Result<(), Error> {
        self.written = true;
        self.keys.remove(key.as_str())?;
        Ok(())
    }

    fn has_lease(&self, lease: LeaseId) -> Result<bool, Error> {
        Ok(self.leases.get(lease.0)?.is_some())
    }

    fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Key>, Error> {
        let mut keys = Vec::new();
        for row in self.lease_keys.range((lease.0, "")..)? {
            let (attached, ()) = row.map(|(attached, unit)| (attached, unit.value()))?;
            let (owner, path) = attached.value();
            if owner != lease.0 {
                break;
            }
            keys.push(key(path)?);
        }
        Ok(keys)
    }

    fn add_lease(&mut self, lease: LeaseId, ttl: Duration) -> Result<(), Error> {
        self.written = true;
        let ttl_millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.leases.insert(lease.0, ttl_millis)?;
        // Grants may arrive in another order than their ids were picked.
        let last = self
            .counters
            .get(LAST_LEASE)?
            .map_or(0, |last| last.value());
        self.counters.insert(LAST_LEASE, last.max(lease.0))?;
        Ok(())
    }

    fn remove_lease(&mut self, lease: LeaseId) -> Result<(), Error> {
        self.written = true;
        self.leases.remove(lease.0)?;
        Ok(())
    }

    fn attach(&mut self, lease: LeaseId, key: &Key) -> Result<(), Error> {
        self.lease_keys.insert((lease.0, key.as_str()), ())?;
        Ok(())
    }

    fn detach(&mut self, lease: LeaseId, key: &Key) -> Result<(), Error> {
        self.lease_keys.remove((lease.0, key.as_str()))?;
        Ok(())
    }
}

/// A row of `keys`, taken apart.
struct Row<'r> {
    found: Found,
    value: &'r [u8],
}

impl<'r> Row<'r> {
    fn decode(row: &'r [u8]) -> Result<Self, Error> {
        let short = || damaged("a row is too short");
        let (create, rest) = row.split_first_chunk().ok_or_else(short)?;
        let (modified, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (lease, value) = rest.split_first_chunk().ok_or_else(short)?;
        let found = Found {
            create_revision: StoreRevision(u64::from_le_bytes(*create)),
            mod_revision: StoreRevision(u64::from_le_bytes(*modified)),
            lease: Some(LeaseId(u64::from_le_bytes(*lease))).filter(|lease| lease.0 != 0),
        };
        Ok(Self { found, value })
    }
}

fn encode(stored: &KeyValue, lease: Option<LeaseId>) -> Vec<u8> {
    let mut row = Vec::with_capacity(24 + stored.value.len());
    row.extend_from_slice(&stored.create_revision.0.to_le_bytes());
    row.extend_from_slice(&stored.mod_revision.0.to_le_bytes());
    row.extend_from_slice(&lease.map_or(0, |lease| lease.0).to_le_bytes());
    row.extend_from_slice(&stored.value);
    row
}

fn key_value(path: &str, row: &[u8]) -> Result<KeyValue, Error> {
    let Row { found, value } = Row::decode(row)?;
    Ok(KeyValue {
        key: key(path)?,
        value: value.to_vec(),
        create_revision: found.create_revision,
        mod_revision: found.mod_revision,
    })
}

fn key(path: &str) -> Result<Key, Error> {
    Key::new(path).map_err(|error| damaged(&error.to_string()))
}

fn damaged(reason: &str) -> Error {
    Error::Corrupted(reason.to_owned())
}

//! The words of the coordinator's storage: keys, compares, operations, revisions, events.
//!
//! `fleet` asks for transactions in these types and the programs carry them out; how and where
//! anything is stored is not said here. The limits are those that a default etcd accepts, so that
//! whatever passes [`Transaction::check`] can be stored by every implementation.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bounds of a single transaction. All are inclusive.
#[derive(Clone, Copy, Debug)]
pub struct TransactionLimits;

impl TransactionLimits {
    /// Longest key, in bytes of UTF-8.
    pub const KEY_BYTES_MAX: usize = 512;
    /// Largest value, in bytes.
    pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
    /// Most operations in one transaction; etcd's default `--max-txn-ops`.
    pub const OPERATIONS_MAX: usize = 128;
    /// Most compares in one transaction; etcd's default `--max-txn-ops`.
    pub const COMPARES_MAX: usize = 128;
    /// Most bytes of keys and values together. etcd's default `--max-request-bytes` is 1.5 MiB;
    /// the rest is left to its framing.
    pub const BYTES_MAX: usize = 1280 * 1024;
}

/// A path such as `hosts/7f3a`: UTF-8, 1 to [`TransactionLimits::KEY_BYTES_MAX`] bytes, segments
/// parted by `/`, none of them empty, no control characters. Keys order by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl schemars::JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StoreKey".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A path such as `hosts/7f3a`",
        })
    }
}

impl Key {
    /// Checks a path and makes it a key.
    ///
    /// # Errors
    /// When the path breaks one of the rules of [`Key`].
    pub fn new(path: impl Into<String>) -> Result<Self, KeyError> {
        let path = path.into();
        if path.len() > TransactionLimits::KEY_BYTES_MAX {
            return Err(KeyError::TooLong { bytes: path.len() });
        }
        if path.split('/').any(str::is_empty) {
            return Err(KeyError::EmptySegment { path });
        }
        if path.chars().any(char::is_control) {
            return Err(KeyError::ControlCharacter { path });
        }
        Ok(Self(path))
    }

    /// Returns the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A key orders, hashes and compares as its path does.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(path: &str) -> Result<Self, KeyError> {
        Self::new(path)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(path: String) -> Result<Self, KeyError> {
        Self::new(path)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// Why a path is no [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Longer than a key may be.
    #[error(
        "key of {bytes} bytes is longer than {} bytes",
        TransactionLimits::KEY_BYTES_MAX
    )]
    TooLong {
        /// Length of the path.
        bytes: usize,
    },
    /// Empty, or with a `/` at an end or beside another `/`.
    #[error("key {path:?} has an empty segment")]
    EmptySegment {
        /// The path.
        path: String,
    },
    /// Contains a control character.
    #[error("key {path:?} has a control character")]
    ControlCharacter {
        /// The path.
        path: String,
    },
}

/// Counts the changes of a store: every transaction that changes something makes the next one.
/// Zero is the empty store before its first change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreRevision(pub u64);

impl StoreRevision {
    /// The empty store before its first change.
    pub const ZERO: Self = Self(0);

    /// Returns the revision that the next change makes.
    ///
    /// # Panics
    /// After 2^64 changes.
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("2^64 changes outlast every fleet"),
        )
    }
}

impl fmt::Display for StoreRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for StoreRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// Names a lease. A key that was put with a lease goes when the lease ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {self}")
    }
}

/// What a transaction requires of one key, else nothing of it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key that is looked at.
    pub key: Key,
    /// What must hold for it.
    pub expect: Expect,
}

/// What must hold for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last changed at exactly this revision.
    ModRevision(StoreRevision),
    /// The key exists.
    Present,
}

impl Expect {
    /// Returns whether a key that was last changed at `found`, or does not exist, is as expected.
    pub fn holds(self, found: Option<StoreRevision>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::ModRevision(revision) => found == Some(revision),
            Self::Present => found.is_some(),
        }
    }
}

/// One change that a transaction makes.
#[derive(Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key, whether it exists or not.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Vec<u8>,
        /// The lease it lives by from now on; `None` frees it from an earlier one.
        lease: Option<LeaseId>,
    },
    /// Removes a key. One that does not exist is no error, and no change.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Operation {
    /// Sets `key` for good, without a lease.
    pub fn put(key: Key, value: impl Into<Vec<u8>>) -> Self {
        Self::Put {
            key,
            value: value.into(),
            lease: None,
        }
    }

    /// Removes `key`.
    pub fn delete(key: Key) -> Self {
        Self::Delete { key }
    }

    /// Returns the key that is changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.0.len() + value.len(),
            Self::Delete { key } => key.0.len(),
        }
    }
}

/// Values may be long and secret: only their length is shown.
impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put {
                key,
                value,
                lease: None,
            } => {
                write!(f, "Put({key:?}, {} bytes)", value.len())
            }
            Self::Put {
                key,
                value,
                lease: Some(lease),
            } => {
                write!(f, "Put({key:?}, {} bytes, {lease:?})", value.len())
            }
            Self::Delete { key } => write!(f, "Delete({key:?})"),
        }
    }
}

/// All of `operations` when all of `compare` holds, else nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub compare: Vec<Compare>,
    /// What is done then, each key at most once.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// Checks the transaction against [`TransactionLimits`].
    ///
    /// # Errors
    /// Names the first limit that is broken. A transaction that passes is never refused for its
    /// shape by a store.
    pub fn check(&self) -> Result<(), TransactionError> {
        use TransactionLimits as Limits;
        if self.operations.len() > Limits::OPERATIONS_MAX {
            return Err(TransactionError::TooManyOperations {
                count: self.operations.len(),
            });
        }
        if self.compare.len() > Limits::COMPARES_MAX {
            return Err(TransactionError::TooManyCompares {
                count: self.compare.len(),
            });
        }
        for operation in &self.operations {
            check_value(operation)?;
        }
        if self.bytes() > Limits::BYTES_MAX {
            return Err(TransactionError::TooLarge {
                bytes: self.bytes(),
            });
        }
        self.check_written_once()
    }

    /// Returns the bytes of keys and values together.
    pub fn bytes(&self) -> usize {
        let compared: usize = self.compare.iter().map(|compare| compare.key.0.len()).sum();
        compared + self.operations.iter().map(Operation::bytes).sum::<usize>()
    }

    fn check_written_once(&self) -> Result<(), TransactionError> {
        let mut keys: Vec<&Key> = self.operations.iter().map(Operation::key).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(TransactionError::WrittenTwice {
                key: pair[0].clone(),
            }),
            None => Ok(()),
        }
    }
}

fn check_value(operation: &Operation) -> Result<(), TransactionError> {
    match operation {
        Operation::Put { key, value, .. } if value.len() > TransactionLimits::VALUE_BYTES_MAX => {
            Err(TransactionError::ValueTooLarge {
                key: key.clone(),
                bytes: value.len(),
            })
        }
        _ => Ok(()),
    }
}

/// Why no store would take a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// A value is too large.
    #[error(
        "value of {key} has {bytes} bytes, more than {}",
        TransactionLimits::VALUE_BYTES_MAX
    )]
    ValueTooLarge {
        /// The key of the value.
        key: Key,
        /// Size of the value.
        bytes: usize,
    },
    /// Too many operations.
    #[error(
        "{count} operations in one transaction, more than {}",
        TransactionLimits::OPERATIONS_MAX
    )]
    TooManyOperations {
        /// Number of operations.
        count: usize,
    },
    /// Too many compares.
    #[error(
        "{count} compares in one transaction, more than {}",
        TransactionLimits::COMPARES_MAX
    )]
    TooManyCompares {
        /// Number of compares.
        count: usize,
    },
    /// All keys and values together are too large.
    #[error(
        "transaction of {bytes} bytes, more than {}",
        TransactionLimits::BYTES_MAX
    )]
    TooLarge {
        /// Bytes of all keys and values.
        bytes: usize,
    },
    /// One key is changed more than once.
    #[error("{key} is changed twice in one transaction")]
    WrittenTwice {
        /// The key.
        key: Key,
    },
}

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision at which the key came into being, the last time it did.
    pub create_revision: StoreRevision,
    /// The revision at which the value was last put.
    pub mod_revision: StoreRevision,
}

/// Values may be long and secret: only their length is shown.
impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            value,
            create_revision,
            mod_revision,
        } = self;
        write!(
            f,
            "{key:?}: {} bytes, {create_revision:?}..{mod_revision:?}",
            value.len()
        )
    }
}

/// One change that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was put.
    Put(KeyValue),
    /// A key was removed, by a transaction or because its lease ended.
    Delete {
        /// The key.
        key: Key,
        /// The revision that removed it.
        mod_revision: StoreRevision,
    },
}

impl Event {
    /// Returns the key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(stored) => &stored.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// Returns the revision of the change.
    pub fn revision(&self) -> StoreRevision {
        match self {
            Self::Put(stored) => stored.mod_revision,
            Self::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}

/// One revision and all that it changed: the answer to a transaction, and what a watch delivers.
///
/// `events` follow the order of the transaction's operations. They are empty when a transaction
/// changed nothing (it only compared, or deleted what is not there); `revision` is then the last one
/// that there was before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision.
    pub revision: StoreRevision,
    /// What changed at this revision.
    pub events: Vec<Event>,
}

/// A compare did not hold: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key} is not as expected: somebody else changed it first")]
pub struct Conflict {
    /// The key of the first compare that did not hold.
    pub key: Key,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        Key::new(path).unwrap()
    }

    #[test]
    fn keys_are_paths_without_empty_segments() {
        assert_eq!(key("hosts/7f3a").as_str(), "hosts/7f3a");
        assert!(Key::new("hosts/größe").is_ok());
        for path in ["", "/", "/hosts", "hosts/", "hosts//7f3a"] {
            assert_eq!(
                Key::new(path),
                Err(KeyError::EmptySegment { path: path.into() })
            );
        }
        assert!(matches!(
            Key::new("hosts/\u{0}"),
            Err(KeyError::ControlCharacter { .. })
        ));
    }

    #[test]
    fn keys_are_bounded() {
        let longest = "k".repeat(TransactionLimits::KEY_BYTES_MAX);
        assert!(Key::new(longest.clone()).is_ok());
        assert_eq!(
            Key::new(longest + "k"),
            Err(KeyError::TooLong { bytes: 513 })
        );
    }

    #[test]
    fn keys_are_checked_when_deserialised() {
        assert_eq!(serde_json::from_str::<Key>("\"a/b\"").unwrap(), key("a/b"));
        assert!(serde_json::from_str::<Key>("\"a/\"").is_err());
    }

    #[test]
    fn expectations_hold_for_what_was_found() {
        let (third, fourth) = (StoreRevision(3), StoreRevision(4));
        assert!(Expect::Absent.holds(None) && !Expect::Absent.holds(Some(third)));
        assert!(Expect::Present.holds(Some(third)) && !Expect::Present.holds(None));
        assert!(Expect::ModRevision(third).holds(Some(third)));
        assert!(!Expect::ModRevision(third).holds(Some(fourth)));
        assert!(!Expect::ModRevision(third).holds(None));
    }

    #[test]
    fn largest_value_passes_and_one_byte_more_does_not() {
        let put = |bytes| Transaction {
            operations: vec![Operation::put(key("a"), vec![0; bytes])],
            ..Transaction::default()
        };
        assert_eq!(put(TransactionLimits::VALUE_BYTES_MAX).check(), Ok(()));
        assert!(matches!(
            put(TransactionLimits::VALUE_BYTES_MAX + 1).check(),
            Err(TransactionError::ValueTooLarge { .. })
        ));
    }

    #[test]
    fn values_together_are_bounded() {
        let half = TransactionLimits::BYTES_MAX / 2;
        let transaction = Transaction {
            operations: vec![
                Operation::put(key("a"), vec![0; half]),
                Operation::put(key("b"), vec![0; half]),
            ],
            ..Transaction::default()
        };
        assert!(matches!(
            transaction.check(),
            Err(TransactionError::TooLarge { .. })
        ));
    }

    #[test]
    fn operations_and_compares_are_bounded() {
        let keys = || (0..129).map(|number| key(&format!("k/{number}")));
        let operations = keys().map(Operation::delete).collect();
        let compare = keys()
            .map(|key| Compare {
                key,
                expect: Expect::Absent,
            })
            .collect();
        assert_eq!(
            Transaction {
                operations,
                ..Transaction::default()
            }
            .check(),
            Err(TransactionError::TooManyOperations { count: 129 })
        );
        assert_eq!(
            Transaction {
                compare,
                ..Transaction::default()
            }
            .check(),
            Err(TransactionError::TooManyCompares { count: 129 })
        );
    }

    #[test]
    fn a_key_is_changed_once_per_transaction() {
        let transaction = Transaction {
            operations: vec![
                Operation::put(key("a"), "1"),
                Operation::delete(key("b")),
                Operation::delete(key("a")),
            ],
            ..Transaction::default()
        };
        assert_eq!(
            transaction.check(),
            Err(TransactionError::WrittenTwice { key: key("a") })
        );
    }

    #[test]
    fn values_stay_out_of_debug_output() {
        let shown = format!("{:?}", Operation::put(key("tokens/1"), "secret"));
        assert_eq!(shown, "Put(\"tokens/1\", 6 bytes)");
    }
}

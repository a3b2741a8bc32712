//! A backup of a coordinator: its store at one revision, and the keys of its authority. Secret.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Digest;
use crate::name::Name;
use crate::store::Key;

/// `GET /v1/backup`, answered on the coordinator's own machine only; what a backup file holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Of this type: `Backup::FORMAT`.
    pub format: u32,
    /// The fleet's name.
    pub fleet: Name,
    /// Of the coordinator that made it.
    pub software_version: String,
    /// Unix seconds.
    pub taken_secs: u64,
    /// The store's revision; everything is as it was at this one.
    pub revision: u64,
    /// The authority's file, base64. Whoever has it can make hosts believe anything.
    pub authority: String,
    /// Everything in the store, by key.
    pub entries: Vec<BackupEntry>,
    /// SHA-256 of `Backup::sealed_bytes`.
    pub digest: Digest,
}

/// One key of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupEntry {
    /// Where it lies.
    pub key: Key,
    /// Base64.
    pub value: String,
    /// The revision that made it.
    pub created: u64,
    /// The revision that changed it last.
    pub changed: u64,
}

impl Backup {
    /// The format that this version writes, and the highest that it reads.
    pub const FORMAT: u32 = 1;

    /// Returns what the digest is of: everything but the digest, each text after its length.
    pub fn sealed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let number = |bytes: &mut Vec<u8>, number: u64| bytes.extend(number.to_be_bytes());
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        };
        number(&mut bytes, self.format.into());
        text(&mut bytes, self.fleet.as_str());
        text(&mut bytes, &self.software_version);
        number(&mut bytes, self.taken_secs);
        number(&mut bytes, self.revision);
        text(&mut bytes, &self.authority);
        for entry in &self.entries {
            text(&mut bytes, entry.key.as_str());
            text(&mut bytes, &entry.value);
            number(&mut bytes, entry.created);
            number(&mut bytes, entry.changed);
        }
        bytes
    }
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("fleet", &self.fleet)
            .field("revision", &self.revision)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

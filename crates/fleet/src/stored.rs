//! What the values in the store look like: JSON in an envelope that says its version, so that a
//! later coordinator can read what an earlier one wrote. Signed bytes stand in it as base64.

use data_encoding::BASE64;
use model::address::OverlayPrefixes;
use model::admin::{PolicyFile, Role};
use model::ids::{Digest, HostId, KeyId, PolicyVersion, Revision, TokenId};
use model::key::WireguardKey;
use model::name::{Labels, Name};
use model::record::{Signature, Signed};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::audit::Stamp;

mod compressed;

pub(crate) use compressed::Compressed;

/// The version of the values that this code writes, and the highest that it reads.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct EnvelopeOut<'a, T> {
    v: u32,
    d: &'a T,
}

#[derive(Deserialize)]
struct EnvelopeVersion {
    v: u32,
}

#[derive(Deserialize)]
struct EnvelopeIn<T> {
    d: T,
}

/// Writes a value for the store.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(&EnvelopeOut {
        v: VERSION,
        d: value,
    })
    .expect("stored values have text keys and no failing serialisers")
}

/// Reads a value from the store.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let envelope: EnvelopeVersion =
        serde_json::from_slice(bytes).map_err(|error| format!("it is damaged ({error})"))?;
    if envelope.v > VERSION {
        return Err(format!(
            "it was written in format {} by a later version, this one reads up to {VERSION}; \
             start the later version again",
            envelope.v
        ));
    }
    let value: EnvelopeIn<T> =
        serde_json::from_slice(bytes).map_err(|error| format!("it is damaged ({error})"))?;
    Ok(value.d)
}

/// `meta/fleet`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredFleet {
    pub(crate) trust: StoredSigned,
    pub(crate) overlay: OverlayPrefixes,
    pub(crate) created: Stamp,
}

/// `statements/EPOCH-SERIAL`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredStatement {
    pub(crate) trust: StoredSigned,
}

/// `believers/HOST`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredBeliever {
    pub(crate) epoch: u64,
    pub(crate) serial: u64,
}

/// `meta/pruned`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredPruned {
    /// Tombstones that were stored at this store revision or before may be missing.
    pub(crate) through: u64,
    /// The highest revision that a missing one said of itself; absent before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signed: Option<Revision>,
}

/// `meta/recovery`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredRecovery {
    /// For people.
    pub(crate) why: String,
    pub(crate) began: Stamp,
    /// The last trust statement that hosts told, when it is later than the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) statement: Option<StoredSigned>,
}

/// `meta/epoch`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredEpoch {
    pub(crate) epoch: u64,
    pub(crate) began: Stamp,
}

/// `hosts/HOST`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredHost {
    /// Name, labels, keys, addresses are read from it: what is signed is what holds.
    pub(crate) record: StoredSigned,
    /// In the overlay's plan.
    pub(crate) address_index: u32,
    /// The token it joined with.
    pub(crate) token: TokenId,
    /// As it said; empty: it has none.
    pub(crate) machine_id: String,
    pub(crate) joined: Stamp,
    /// The last change of the record.
    pub(crate) changed: Stamp,
}

/// `names/NAME`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredName {
    pub(crate) host: HostId,
    /// The host is gone, and nobody else may have the name before this time, in Unix seconds.
    pub(crate) reserved_until_secs: Option<u64>,
    /// Of the host that is gone: the same machine may have its name back at once.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) machine_id: String,
}

/// `wireguard-keys/HEX`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredKeyOwner {
    pub(crate) host: HostId,
}

/// `addresses/INDEX`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredAddress {
    pub(crate) host: HostId,
    /// The host is gone, and nobody else gets the address before this time, in Unix seconds.
    pub(crate) resting_until_secs: Option<u64>,
}

/// `tombstones/HOST`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredTombstone {
    pub(crate) tombstone: StoredSigned,
    /// By which the host is told that it was removed when it comes back.
    pub(crate) tls_key_hash: Digest,
    pub(crate) removed: Stamp,
    /// By which it is known who has to learn of the tombstone; absent before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) former: Option<StoredFormer>,
    /// The host was revoked: neither this key nor the TLS key is let in again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_key: Option<WireguardKey>,
}

/// What a host was before it was removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredFormer {
    pub(crate) labels: Labels,
    /// The store's revision of its first record.
    pub(crate) created: u64,
    /// The store's revision of its last record.
    pub(crate) changed: u64,
}

/// `tokens/TOKEN`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredToken {
    pub(crate) secret_hash: Digest,
    pub(crate) labels: Labels,
    pub(crate) uses: Option<u32>,
    pub(crate) expires_secs: u64,
    pub(crate) names: Vec<String>,
    pub(crate) comment: String,
    pub(crate) created: Stamp,
    pub(crate) revoked: Option<Stamp>,
}

/// `uses/TOKEN/SLOT`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredUse {
    pub(crate) host: HostId,
    pub(crate) used_secs: u64,
}

/// `policy/current`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredCurrentPolicy {
    pub(crate) version: PolicyVersion,
}

/// `policy/versions/NUMBER`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredPolicy {
    pub(crate) head: StoredSigned,
    /// The encoded leaves as they were signed, base64: names in them were resolved against the
    /// hosts of that moment.
    pub(crate) leaves: Compressed<Vec<String>>,
    /// The directory as it was applied.
    pub(crate) files: Compressed<Vec<PolicyFile>>,
    pub(crate) message: String,
    pub(crate) applied: Stamp,
}

/// `audit/tip/HASH`; `audit/entries/NUMBER` is an `AuditEntry`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredTip {
    /// Of the entry that has this hash.
    pub(crate) number: u64,
}

/// `admins/NAME`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredAdmin {
    pub(crate) name: Name,
    pub(crate) role: Role,
    pub(crate) secret_hash: Digest,
    pub(crate) created: Stamp,
    /// From then on it opens nothing; absent: it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_secs: Option<u64>,
}

/// `Signed`, as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredSigned {
    payload: String,
    signatures: Vec<StoredSignature>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredSignature {
    key_id: KeyId,
    value: String,
}

impl From<&Signed> for StoredSigned {
    fn from(signed: &Signed) -> Self {
        let signatures = signed.signatures.iter().map(|signature| StoredSignature {
            key_id: signature.key_id,
            value: BASE64.encode(&signature.value),
        });
        Self {
            payload: BASE64.encode(&signed.payload),
            signatures: signatures.collect(),
        }
    }
}

impl TryFrom<&StoredSigned> for Signed {
    type Error = String;

    fn try_from(stored: &StoredSigned) -> Result<Self, String> {
        let signatures = stored.signatures.iter().map(|signature| {
            let value = from_base64(&signature.value)?;
            let value = value
                .try_into()
                .map_err(|_| "a signature has not 64 bytes")?;
            Ok::<_, String>(Signature {
                key_id: signature.key_id,
                value,
            })
        });
        Ok(Self {
            payload: from_base64(&stored.payload)?,
            signatures: signatures.collect::<Result<_, _>>()?,
        })
    }
}

/// Reads base64 of the store.
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| format!("it is damaged ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_envelope() {
        let stored = encode(&StoredPruned {
            through: 7,
            signed: None,
        });
        assert_eq!(
            std::str::from_utf8(&stored),
            Ok(r#"{"v":1,"d":{"through":7}}"#)
        );
        assert_eq!(decode::<StoredPruned>(&stored).unwrap().through, 7);
    }

    #[test]
    fn a_value_of_a_later_version_says_so() {
        let error = decode::<StoredPruned>(br#"{"v":2,"d":{"through":7}}"#).unwrap_err();
        assert!(error.contains("format 2"), "{error}");
    }

    #[test]
    fn signed_bytes_survive() {
        let signature = Signature {
            key_id: KeyId::from_bytes([3; 16]),
            value: [4; 64],
        };
        let signed = Signed {
            payload: vec![1, 2],
            signatures: vec![signature],
        };
        assert_eq!(Signed::try_from(&StoredSigned::from(&signed)), Ok(signed));
    }
}

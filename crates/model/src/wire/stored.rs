//! What a host keeps on its disk: its identity, the last map, and the marks that never go back.
//!
//! The bytes are protobuf with a format number first. Whoever writes them to a file does so
//! atomically; whoever reads a map verifies its signatures again.

use std::fmt;

use prost::Message;
use zeroize::Zeroize;

use super::{WireError, decode_message, field, generated};
use crate::ids::{Digest, HostId, PolicyVersion, Revision};
use crate::key::{Secret, SecretBytes};
use crate::limits::Limits;
use crate::map::MapDelta;
use crate::name::Name;
use crate::record::Signed;
use crate::time::UnixTime;

/// The format of all three files; another one is refused.
pub const FORMAT: u32 = 1;

/// A host's keys and what it is member of. Made on the host, never leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredIdentity {
    /// X25519.
    pub wireguard_private_key: Secret,
    /// Ed25519 seed.
    pub tls_private_key: Secret,
    /// When the WireGuard key was made, in whole seconds.
    pub wireguard_key_made: UnixTime,
    /// The WireGuard key that comes next, or was before, while it changes.
    pub spare_key: Option<SpareKey>,
    /// `None`: not enrolled.
    pub membership: Option<Membership>,
    /// Where coordinators are, `host:port`.
    pub coordinators: Vec<String>,
}

/// Another WireGuard key of a host, while its key changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareKey {
    /// X25519.
    pub private_key: Secret,
    /// It was the key before, and is good until then, in whole seconds from 1; `None`: it is to be
    /// the next one, and not in the host's record yet.
    pub former_until: Option<UnixTime>,
}

/// What a host is member of, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The host's id.
    pub host: HostId,
    /// Its name when this was written; its record has the current one.
    pub name: Name,
    /// SHA-256 of the root certificate that the token named.
    pub root_pin: Digest,
    /// DER, leaf first.
    pub certificate_chain: Vec<Vec<u8>>,
}

/// The last map that was applied, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMap {
    /// A `TrustStatement`.
    pub trust: Signed,
    /// A whole map.
    pub map: MapDelta,
    /// Peers that were forgotten since.
    pub former: Vec<FormerPeer>,
    /// Trust statements that lead from the pinned root to `trust`, the oldest first; mostly none.
    pub earlier: Vec<Signed>,
}

/// A peer that a host was told to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormerPeer {
    /// Which host.
    pub host: HostId,
    /// How far its record had come: an older one must not come back.
    pub record: Revision,
}

/// The highest that was ever in force on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StoredHighWater {
    /// Of the map.
    pub revision: Revision,
    /// Of the bundle head.
    pub policy_epoch: u64,
    /// Of the bundle head.
    pub policy: PolicyVersion,
    /// SHA-256 of the bundle head's payload; `None`: unknown.
    pub policy_digest: Option<Digest>,
    /// Of the trust statement.
    pub trust_epoch: u64,
    /// Of the trust statement.
    pub trust_serial: u64,
    /// No handshake of this host carries an earlier timestamp. Nanoseconds are kept.
    pub handshake: UnixTime,
    /// Starts of the daemon.
    pub boot_counter: u64,
}

/// Encodes an identity.
pub fn encode_identity(identity: &StoredIdentity) -> SecretBytes {
    let mut message = generated::StoredIdentity {
        format: FORMAT,
        wireguard_private_key: identity.wireguard_private_key.expose().to_vec(),
        tls_private_key: identity.tls_private_key.expose().to_vec(),
        wireguard_key_made_secs: identity.wireguard_key_made.as_secs(),
        spare_private_key: identity
            .spare_key
            .as_ref()
            .map_or_else(Vec::new, |spare| spare.private_key.expose().to_vec()),
        former_until_secs: identity
            .spare_key
            .as_ref()
            .and_then(|spare| spare.former_until)
            .map_or(0, UnixTime::as_secs),
        membership: identity.membership.clone().map(Into::into),
        coordinators: identity.coordinators.clone(),
    };
    let bytes = SecretBytes::new(message.encode_to_vec());
    wipe(&mut message);
    bytes
}

/// Decodes an identity.
///
/// # Errors
/// Names the field that is missing, malformed or out of bounds; never a secret.
pub fn decode_identity(bytes: &[u8]) -> Result<StoredIdentity, WireError> {
    let mut message: generated::StoredIdentity =
        decode_message("StoredIdentity", bytes, Limits::REPORT_BYTES)?;
    let identity = identity_from(&message);
    wipe(&mut message);
    identity
}

/// Private keys are not shown.
impl fmt::Debug for generated::StoredIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredIdentity")
            .field("format", &self.format)
            .field("membership", &self.membership)
            .field("coordinators", &self.coordinators)
            .finish_non_exhaustive()
    }
}

fn wipe(message: &mut generated::StoredIdentity) {
    message.wireguard_private_key.zeroize();
    message.tls_private_key.zeroize();
    message.spare_private_key.zeroize();
}

fn identity_from(message: &generated::StoredIdentity) -> Result<StoredIdentity, WireError> {
    check_format("StoredIdentity.format", message.format)?;
    let secret = |field, bytes: &[u8]| field::array(field, bytes).map(Secret::from_bytes);
    Ok(StoredIdentity {
        wireguard_private_key: secret(
            "StoredIdentity.wireguard_private_key",
            &message.wireguard_private_key,
        )?,
        tls_private_key: secret("StoredIdentity.tls_private_key", &message.tls_private_key)?,
        wireguard_key_made: UnixTime::from_secs(message.wireguard_key_made_secs),
        spare_key: match message.spare_private_key.as_slice() {
            [] => None,
            bytes => Some(SpareKey {
                private_key: secret("StoredIdentity.spare_private_key", bytes)?,
                former_until: (message.former_until_secs > 0)
                    .then(|| UnixTime::from_secs(message.former_until_secs)),
            }),
        },
        membership: message
            .membership
            .clone()
            .map(TryInto::try_into)
            .transpose()?,
        coordinators: field::list(
            "StoredIdentity.coordinators",
            message.coordinators.clone(),
            Limits::COORDINATOR_ADDRESSES,
            |address| field::host_port("StoredIdentity.coordinators", address),
        )?,
    })
}

impl From<Membership> for generated::Membership {
    fn from(membership: Membership) -> Self {
        Self {
            host: membership.host.as_bytes().to_vec(),
            name: membership.name.into(),
            root_pin: membership.root_pin.as_bytes().to_vec(),
            certificate_chain: membership.certificate_chain,
        }
    }
}

impl TryFrom<generated::Membership> for Membership {
    type Error = WireError;

    fn try_from(message: generated::Membership) -> Result<Self, WireError> {
        Ok(Self {
            host: field::id("Membership.host", &message.host)?,
            name: field::parsed("Membership.name", &message.name)?,
            root_pin: field::id("Membership.root_pin", &message.root_pin)?,
            certificate_chain: field::chain(
                "Membership.certificate_chain",
                message.certificate_chain,
            )?,
        })
    }
}

/// Encodes a map.
pub fn encode_map(stored: &StoredMap) -> Vec<u8> {
    generated::StoredMap {
        format: FORMAT,
        trust: Some(stored.trust.clone().into()),
        map: Some(stored.map.clone().into()),
        former: stored.former.iter().copied().map(Into::into).collect(),
        earlier: stored.earlier.iter().cloned().map(Into::into).collect(),
    }
    .encode_to_vec()
}

/// Decodes a map, however many bytes it has: changes add up to more than one message may hold, and
/// these bytes are the host's own. How many peers, tombstones and leaves it has is bounded.
///
/// # Errors
/// Names the field that is missing, malformed or out of bounds.
pub fn decode_map(bytes: &[u8]) -> Result<StoredMap, WireError> {
    let message: generated::StoredMap = decode_message("StoredMap", bytes, usize::MAX)?;
    check_format("StoredMap.format", message.format)?;
    let map: MapDelta = field::required("StoredMap.map", message.map)?.try_into()?;
    if map.base.is_some() {
        return Err(WireError::new(
            "StoredMap.map",
            "it is a change, not a whole map",
        ));
    }
    Ok(StoredMap {
        trust: field::required("StoredMap.trust", message.trust)?.try_into()?,
        map,
        former: field::list(
            "StoredMap.former",
            message.former,
            Limits::FORMER_PEERS,
            TryInto::try_into,
        )?,
        earlier: field::list(
            "StoredMap.earlier",
            message.earlier,
            Limits::STATEMENTS,
            TryInto::try_into,
        )?,
    })
}

impl From<FormerPeer> for generated::FormerPeer {
    fn from(former: FormerPeer) -> Self {
        Self {
            host: former.host.as_bytes().to_vec(),
            record: Some(former.record.into()),
        }
    }
}

impl TryFrom<generated::FormerPeer> for FormerPeer {
    type Error = WireError;

    fn try_from(message: generated::FormerPeer) -> Result<Self, WireError> {
        Ok(Self {
            host: field::id("FormerPeer.host", &message.host)?,
            record: field::required("FormerPeer.record", message.record)?.into(),
        })
    }
}

/// Encodes the marks that never go back.
pub fn encode_high_water(marks: &StoredHighWater) -> Vec<u8> {
    generated::StoredHighWater {
        format: FORMAT,
        revision: Some(marks.revision.into()),
        policy_epoch: marks.policy_epoch,
        policy_version: marks.policy.0,
        policy_hash: marks
            .policy_digest
            .map_or_else(Vec::new, |hash| hash.as_bytes().to_vec()),
        trust_epoch: marks.trust_epoch,
        trust_serial: marks.trust_serial,
        handshake_unix_nanos: marks.handshake.as_nanos(),
        boot_counter: marks.boot_counter,
    }
    .encode_to_vec()
}

/// Decodes the marks that never go back.
///
/// # Errors
/// Names the field that is missing or malformed.
pub fn decode_high_water(bytes: &[u8]) -> Result<StoredHighWater, WireError> {
    let message: generated::StoredHighWater =
        decode_message("StoredHighWater", bytes, Limits::REPORT_BYTES)?;
    check_format("StoredHighWater.format", message.format)?;
    Ok(StoredHighWater {
        revision: field::required("StoredHighWater.revision", message.revision)?.into(),
        policy_epoch: message.policy_epoch,
        policy: PolicyVersion(message.policy_version),
        policy_digest: field::optional_id("StoredHighWater.policy_hash", &message.policy_hash)?,
        trust_epoch: message.trust_epoch,
        trust_serial: message.trust_serial,
        handshake: UnixTime::from_duration(std::time::Duration::from_nanos(
            message.handshake_unix_nanos,
        )),
        boot_counter: message.boot_counter,
    })
}

fn check_format(field: &'static str, format: u32) -> Result<(), WireError> {
    match format {
        FORMAT => Ok(()),
        0 => Err(WireError::new(
            field,
            "it is missing; the file is damaged or not ours",
        )),
        other => Err(WireError::new(
            field,
            format!("{other}, this version reads {FORMAT}; was this program downgraded?"),
        )),
    }
}

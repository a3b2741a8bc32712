//! What is signed: trust statements, host records, tombstones, bundle heads. `trust` makes and
//! checks the signatures; here are the nouns.

use crate::address::{HostAddresses, OverlayPrefixes};
use crate::ids::{Digest, FleetId, HostId, KeyId, PolicyVersion, Revision};
use crate::key::WireguardKey;
use crate::name::{Labels, Name};
use crate::time::UnixTime;

/// Bytes with the signatures over them, not yet verified. What is inside is decoded only by
/// `trust`, after the signatures hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Signed {
    /// The very bytes that were signed.
    pub payload: Vec<u8>,
    /// At least one, each by another key.
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Which key made it.
    pub key_id: KeyId,
    /// Ed25519 over the context, a zero byte and the payload.
    pub value: [u8; 64],
}

/// Which keys a fleet trusts, and what holds for all of it. Signed by a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustStatement {
    /// The fleet.
    pub fleet: FleetId,
    /// Raised by a restore from backup.
    pub epoch: u64,
    /// Raised with every statement.
    pub serial: u64,
    /// The SPIFFE trust domain.
    pub fleet_name: Name,
    /// X.509 roots, DER, at least one.
    pub root_certificates: Vec<Vec<u8>>,
    /// Ed25519 public keys that may sign records and bundles, at least one.
    pub record_keys: Vec<[u8; 32]>,
    /// X25519 public key that enrolling hosts prove their WireGuard key to.
    pub enrolment_key: [u8; 32],
    /// What follows a host's name in DNS, without dots at the ends.
    pub dns_suffix: String,
    /// The overlay's prefixes.
    pub overlay: OverlayPrefixes,
    /// Digest of the previous statement's payload.
    pub previous: Option<Digest>,
}

/// What the fleet says of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRecord {
    /// The fleet.
    pub fleet: FleetId,
    /// The host.
    pub host: HostId,
    /// Its name now.
    pub name: Name,
    /// Its labels, set by operators.
    pub labels: Labels,
    /// Its WireGuard key.
    pub wireguard_key: WireguardKey,
    /// SHA-256 of the SubjectPublicKeyInfo of its TLS key.
    pub tls_key_hash: Digest,
    /// Its overlay addresses.
    pub addresses: HostAddresses,
    /// It takes and makes sessions whose packets are sealed with AES-256-GCM, not only with
    /// WireGuard's ChaCha20-Poly1305.
    pub offers_aes_256_gcm: bool,
    /// When the record was made; of two records of a host the later holds.
    pub revision: Revision,
}

/// A host that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The fleet.
    pub fleet: FleetId,
    /// The host that was.
    pub host: HostId,
    /// Its last name.
    pub name: Name,
    /// Beats every record of the host with a lower revision.
    pub revision: Revision,
    /// Why, for people.
    pub reason: String,
}

/// A revision that the fleet has reached. It is signed because a host never goes back behind one: a
/// number that anybody could say would keep it from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapHead {
    /// The fleet.
    pub fleet: FleetId,
    /// The revision.
    pub revision: Revision,
}

/// One version of the policy, as the root of the tree of its leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleHead {
    /// The fleet.
    pub fleet: FleetId,
    /// Raised by a restore from backup.
    pub epoch: u64,
    /// The version.
    pub version: PolicyVersion,
    /// Root of the Merkle tree over the encoded leaves.
    pub tree_root: Digest,
    /// How many leaves the tree has, at least one: leaf 0 holds all denies.
    pub leaf_count: u32,
    /// Digest of the previous head's payload.
    pub previous: Option<Digest>,
    /// When it was signed.
    pub signed_at: UnixTime,
}

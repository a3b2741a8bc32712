//! What a host believes: the keys of one fleet, taken from a trust statement, and with them
//! everything that is signed.
//!
//! Every check is in the same order: the signature over the exact bytes, then the bytes, then the
//! fleet. Freshness beyond that (revisions, versions) is the caller's, who knows what it has seen.

use std::collections::BTreeMap;

use model::ids::{Digest, FleetId, KeyId};
use model::map::{PolicySlice, ProvenLeaf};
use model::name::Name;
use model::record::{BundleHead, HostRecord, MapHead, Signed, Tombstone, TrustStatement};
use model::rule::{Bundle, Leaf};
use model::wire::{self, WireError};

use crate::bundle::{SliceError, verify_leaf, verify_leaves};
use crate::certificate;
use crate::context::{BUNDLE_HEAD, Context, HOST_RECORD, MAP_HEAD, TOMBSTONE, TRUST_STATEMENT};
use crate::digest::sha256;
use crate::signing::{first_half, key_id, verifies};

/// Why something signed is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No listed root has the pin.
    #[error(
        "the fleet's authority is not the one that the token names (SHA-256 {pin}); is this the right coordinator?"
    )]
    WrongPin {
        /// What was expected.
        pin: Digest,
    },
    /// No signature by a key that may sign this.
    #[error("it is not signed by a key that this host trusts")]
    UnknownSigner,
    /// A trusted key's signature does not hold.
    #[error("its signature does not hold; it was changed after it was signed")]
    BadSignature,
    /// Signed well, and malformed nevertheless.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// It is about another fleet.
    #[error("it belongs to fleet {found}, this host to fleet {expected}")]
    OtherFleet {
        /// This host's fleet.
        expected: FleetId,
        /// What it says.
        found: FleetId,
    },
    /// A root certificate that cannot be used.
    #[error("a root certificate of the trust statement cannot be used: {0}")]
    BadRoot(String),
    /// The statement is older than what is known.
    #[error(
        "the trust statement has serial {found_epoch}.{found_serial}, this host has seen {seen_epoch}.{seen_serial}; was the coordinator restored from a backup without a new epoch?"
    )]
    Stale {
        /// The epoch that this host has seen.
        seen_epoch: u64,
        /// The serial that this host has seen.
        seen_serial: u64,
        /// The epoch of the statement.
        found_epoch: u64,
        /// The serial of the statement.
        found_serial: u64,
    },
    /// Two statements with one serial, or one that does not follow what is known.
    #[error(
        "the trust statement contradicts the one that this host has; two coordinators may be signing with copies of one authority"
    )]
    Forked,
    /// The leaves of a policy are refused.
    #[error(transparent)]
    Slice(#[from] SliceError),
}

/// The keys of a fleet that a host believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchors {
    statement: TrustStatement,
    payload_digest: Digest,
    root_keys: BTreeMap<KeyId, [u8; 32]>,
    record_keys: BTreeMap<KeyId, [u8; 32]>,
}

impl TrustAnchors {
    /// Takes the first trust statement: the root that has the pin must be listed and have signed
    /// it. This is the one payload that is decoded before its signature is checked, since the key
    /// that signed it is inside.
    ///
    /// # Errors
    /// No listed root has the pin, its signature does not hold, or the statement is malformed.
    pub fn from_statement(
        signed: &Signed,
        pin: &Digest,
    ) -> Result<(Self, TrustStatement), TrustError> {
        let statement = wire::decode_trust_statement(&signed.payload)?;
        let pinned = statement
            .root_certificates
            .iter()
            .find(|der| sha256(der) == *pin)
            .ok_or(TrustError::WrongPin { pin: *pin })?;
        let root = root_key(pinned)?;
        check_signed(
            signed,
            TRUST_STATEMENT,
            &BTreeMap::from([(key_id(&root), root)]),
        )?;
        // A fleet keeps the id that its first root gave it, also under other roots.
        if statement.previous.is_none() {
            let root = &statement.root_certificates[0];
            check_fleet(
                FleetId::from_bytes(first_half(sha256(root))),
                statement.fleet,
            )?;
        }
        let anchors = Self::new(statement.clone(), sha256(&signed.payload))?;
        Ok((anchors, statement))
    }

    /// As `from_statement`, for one who may know only a root that is no longer listed: `earlier`
    /// leads from a statement that lists the pinned root to the last, the oldest first. Returns also
    /// the statements that were needed.
    ///
    /// # Errors
    /// As `from_statement`, and as `update` about the last.
    pub fn from_statements<'s>(
        earlier: &'s [Signed],
        last: &Signed,
        pin: &Digest,
    ) -> Result<(Self, Vec<&'s Signed>), TrustError> {
        let refused = match Self::from_statement(last, pin) {
            Ok((anchors, _)) => return Ok((anchors, Vec::new())),
            Err(refused @ TrustError::WrongPin { .. }) => refused,
            Err(other) => return Err(other),
        };
        for (index, signed) in earlier.iter().enumerate().rev() {
            let Ok((first, _)) = Self::from_statement(signed, pin) else {
                continue;
            };
            let (newest, mut steps) = first
                .follow(&earlier[index + 1..], last)?
                .ok_or(TrustError::Forked)?;
            steps.insert(0, signed);
            return Ok((newest, steps));
        }
        Err(refused)
    }

    fn new(statement: TrustStatement, payload_digest: Digest) -> Result<Self, TrustError> {
        let mut root_keys = BTreeMap::new();
        for der in &statement.root_certificates {
            let key = root_key(der)?;
            root_keys.insert(key_id(&key), key);
        }
        let record_keys = statement
            .record_keys
            .iter()
            .map(|key| (key_id(key), *key))
            .collect();
        Ok(Self {
            statement,
            payload_digest,
            root_keys,
            record_keys,
        })
    }

    /// Returns the fleet.
    pub fn fleet(&self) -> FleetId {
        self.statement.fleet
    }

    /// Returns the fleet's name, its SPIFFE trust domain.
    pub fn fleet_name(&self) -> &Name {
        &self.statement.fleet_name
    }

    /// Returns the X.509 roots, DER, for `certificate::verify_chain`.
    pub fn root_certificates(&self) -> &[Vec<u8>] {
        &self.statement.root_certificates
    }

    /// Returns the statement that these anchors come from.
    pub fn statement(&self) -> &TrustStatement {
        &self.statement
    }

    /// Takes a trust statement that a coordinator sends later. It has to be signed by a root that
    /// is trusted already, of the same fleet, and not older than what is known. Returns the anchors
    /// that replace these; `None` when the statement is the one that they come from.
    ///
    /// # Errors
    /// It is signed by nobody trusted, of another fleet, older, or contradicts what is known.
    pub fn update(&self, signed: &Signed) -> Result<Option<Self>, TrustError> {
        check_signed(signed, TRUST_STATEMENT, &self.root_keys)?;
        let payload_digest = sha256(&signed.payload);
        if payload_digest == self.payload_digest {
            return Ok(None);
        }
        let statement = wire::decode_trust_statement(&signed.payload)?;
        check_fleet(self.fleet(), statement.fleet)?;
        self.check_newer(&statement)?;
        Self::new(statement, payload_digest).map(Some)
    }

    /// Takes the statements that a coordinator sends of which this one may lack several, the oldest
    /// first: each is believed by the keys of those before. What is known already, or is signed by
    /// nobody known, is passed over, except the last. Returns the anchors that replace these and
    /// those of the statements that led to them; `None` when the last is the one that they come from.
    ///
    /// # Errors
    /// As `update`, about the last.
    pub fn follow<'s>(
        &self,
        earlier: &'s [Signed],
        last: &Signed,
    ) -> Result<Option<(Self, Vec<&'s Signed>)>, TrustError> {
        let (mut anchors, mut steps) = (self.clone(), Vec::new());
        for signed in earlier {
            if let Ok(Some(next)) = anchors.update(signed) {
                anchors = next;
                steps.push(signed);
            }
        }
        let newest = match anchors.update(last)? {
            Some(newest) => newest,
            None if steps.is_empty() => return Ok(None),
            None => {
                steps.pop();
                anchors
            }
        };
        Ok(Some((newest, steps)))
    }

    /// Returns whether these anchors believe everything that others do.
    pub fn covers(&self, others: &Self) -> bool {
        let mut keys = others.record_keys.keys();
        keys.all(|key| self.record_keys.contains_key(key))
    }

    /// Returns the SHA-256 of the newest root: the one that issues certificates now.
    pub fn newest_root(&self) -> Digest {
        let roots = &self.statement.root_certificates;
        sha256(roots.last().expect("a statement lists a root"))
    }

    /// Returns whether a root with this SHA-256 is believed.
    pub fn believes_root(&self, pin: &Digest) -> bool {
        let mut roots = self.statement.root_certificates.iter();
        roots.any(|der| sha256(der) == *pin)
    }

    fn check_newer(&self, found: &TrustStatement) -> Result<(), TrustError> {
        let seen = &self.statement;
        let (seen_order, found_order) = ((seen.epoch, seen.serial), (found.epoch, found.serial));
        if found_order < seen_order {
            return Err(TrustError::Stale {
                seen_epoch: seen.epoch,
                seen_serial: seen.serial,
                found_epoch: found.epoch,
                found_serial: found.serial,
            });
        }
        let follows = found.epoch == seen.epoch && seen.serial.checked_add(1) == Some(found.serial);
        let breaks_chain = follows && found.previous != Some(self.payload_digest);
        if found_order == seen_order || breaks_chain {
            return Err(TrustError::Forked);
        }
        Ok(())
    }

    /// Verifies and decodes a host's record.
    ///
    /// # Errors
    /// It is not signed by a record key, malformed, or of another fleet.
    pub fn verify_record(&self, signed: &Signed) -> Result<HostRecord, TrustError> {
        check_signed(signed, HOST_RECORD, &self.record_keys)?;
        let record = wire::decode_host_record(&signed.payload)?;
        check_fleet(self.fleet(), record.fleet)?;
        Ok(record)
    }

    /// Verifies and decodes a host's tombstone.
    ///
    /// # Errors
    /// It is not signed by a record key, malformed, or of another fleet.
    pub fn verify_tombstone(&self, signed: &Signed) -> Result<Tombstone, TrustError> {
        check_signed(signed, TOMBSTONE, &self.record_keys)?;
        let tombstone = wire::decode_tombstone(&signed.payload)?;
        check_fleet(self.fleet(), tombstone.fleet)?;
        Ok(tombstone)
    }

    /// Verifies and decodes a revision that the fleet has reached.
    ///
    /// # Errors
    /// It is not signed by a record key, malformed, or of another fleet.
    pub fn verify_map_head(&self, signed: &Signed) -> Result<MapHead, TrustError> {
        check_signed(signed, MAP_HEAD, &self.record_keys)?;
        let head = wire::decode_map_head(&signed.payload)?;
        check_fleet(self.fleet(), head.fleet)?;
        Ok(head)
    }

    /// Verifies and decodes the head of a policy version.
    ///
    /// # Errors
    /// It is not signed by a record key, malformed, or of another fleet.
    pub fn verify_head(&self, signed: &Signed) -> Result<BundleHead, TrustError> {
        check_signed(signed, BUNDLE_HEAD, &self.record_keys)?;
        let head = wire::decode_bundle_head(&signed.payload)?;
        check_fleet(self.fleet(), head.fleet)?;
        Ok(head)
    }

    /// Verifies and decodes one leaf of a policy version whose head holds.
    ///
    /// # Errors
    /// It is not in the tree, malformed, or holds denies elsewhere than leaf 0.
    pub fn verify_leaf(&self, head: &BundleHead, proven: &ProvenLeaf) -> Result<Leaf, TrustError> {
        Ok(verify_leaf(head, proven)?)
    }

    /// Verifies the leaves of a policy version that came to this host: the head is signed, every
    /// leaf is in its tree, the denies are there.
    ///
    /// # Errors
    /// The head is not believed, or a leaf is missing, foreign, out of order or malformed.
    pub fn verify_slice(&self, slice: &PolicySlice) -> Result<(BundleHead, Bundle), TrustError> {
        let head = self.verify_head(&slice.head)?;
        let bundle = verify_leaves(&head, &slice.leaves)?;
        Ok((head, bundle))
    }
}

/// At least one signature is by a key that may sign this, and all such signatures hold. Signatures
/// by other keys say nothing, so that keys can be added before every host knows them.
fn check_signed(
    signed: &Signed,
    context: Context,
    keys: &BTreeMap<KeyId, [u8; 32]>,
) -> Result<(), TrustError> {
    let mut held = false;
    for signature in &signed.signatures {
        let Some(public) = keys.get(&signature.key_id) else {
            continue;
        };
        if !verifies(public, context, &signed.payload, &signature.value) {
            return Err(TrustError::BadSignature);
        }
        held = true;
    }
    if held {
        Ok(())
    } else {
        Err(TrustError::UnknownSigner)
    }
}

fn check_fleet(expected: FleetId, found: FleetId) -> Result<(), TrustError> {
    if expected == found {
        Ok(())
    } else {
        Err(TrustError::OtherFleet { expected, found })
    }
}

fn root_key(der: &[u8]) -> Result<[u8; 32], TrustError> {
    certificate::root_public_key(der).map_err(|error| TrustError::BadRoot(error.to_string()))
}

#[cfg(test)]
mod tests;

//! A fleet's authority: the keys that make hosts believe something. Only a coordinator has one.
//!
//! The root key signs certificates and trust statements, the record key signs records, tombstones
//! and bundle heads, and the enrolment key is what joining hosts prove their WireGuard keys to. The
//! three are one generation. While a fleet changes its keys the authority has two: both sign, the
//! newer one issues certificates, and either is proven to.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use model::identity::SpiffeId;
use model::ids::{Digest, FleetId};
use model::key::Secret;
use model::name::Name;
use model::record::{BundleHead, HostRecord, MapHead, Signed, Tombstone, TrustStatement};
use model::time::UnixTime;
use model::wire;

use crate::certificate;
use crate::context::{BUNDLE_HEAD, Context, HOST_RECORD, MAP_HEAD, TOMBSTONE, TRUST_STATEMENT};
use crate::digest::sha256;
use crate::enrolment::{
    self, InvalidProof, InvalidRequest, TlsKey, Transcript, check_certificate_request,
};
use crate::issue;
use crate::key_change::{self, KeyChange};
use crate::signing::{SigningKey, first_half};

/// How long a host's certificate is valid; it is renewed at half of it.
pub const HOST_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a coordinator's certificate is valid.
pub const COORDINATOR_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The secrets that an authority is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthoritySeeds {
    /// Ed25519: certificates and trust statements.
    pub root: Secret,
    /// Ed25519: records, tombstones, bundle heads.
    pub records: Secret,
    /// X25519: what enrolling hosts prove their WireGuard keys to.
    pub enrolment: Secret,
}

/// Whom a host's certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// The fleet's name, its trust domain.
    pub fleet_name: Name,
    /// The host's name.
    pub host_name: Name,
}

/// Whom a coordinator's certificate is for, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorIdentity {
    /// The fleet's name, its trust domain.
    pub fleet_name: Name,
    /// The coordinator's name.
    pub coordinator_name: Name,
    /// DNS names that browsers and other clients may use.
    pub dns_names: Vec<String>,
    /// Addresses that browsers and other clients may use.
    pub addresses: Vec<IpAddr>,
}

/// Why an authority cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is none, or not one of an Ed25519 authority.
    #[error("the authority's root certificate cannot be used: {0}")]
    Certificate(String),
    /// The certificate is for another key.
    #[error(
        "the authority's root certificate does not belong to its key; were files of two fleets mixed?"
    )]
    OtherKey,
    /// There is none, or more than a fleet may have at one time.
    #[error(
        "the authority has {count} generations of keys, and 1 to {} fit",
        Authority::GENERATIONS_MAX
    )]
    Generations {
        /// How many there are.
        count: usize,
    },
}

/// Why a certificate is not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The request proves nothing.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// A name cannot stand in a certificate.
    #[error("the certificate cannot be made: {0}")]
    Encoding(String),
}

/// What a generation is kept as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityKeys {
    /// Its secrets.
    pub seeds: AuthoritySeeds,
    /// Its root certificate, DER.
    pub root_certificate: Vec<u8>,
}

/// The keys of a fleet's authority and its root certificates.
pub struct Authority {
    /// The oldest first; at least one, at most `Authority::GENERATIONS_MAX`.
    generations: Vec<Generation>,
}

struct Generation {
    seeds: AuthoritySeeds,
    root: SigningKey,
    records: SigningKey,
    certificate: Vec<u8>,
    pin: Digest,
}

impl Generation {
    fn load(keys: AuthorityKeys) -> Result<Self, AuthorityError> {
        let root = SigningKey::from_seed(keys.seeds.root.clone());
        let public = certificate::root_public_key(&keys.root_certificate)
            .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        if public != root.public() {
            return Err(AuthorityError::OtherKey);
        }
        Ok(Self {
            root,
            records: SigningKey::from_seed(keys.seeds.records.clone()),
            pin: sha256(&keys.root_certificate),
            seeds: keys.seeds,
            certificate: keys.root_certificate,
        })
    }

    fn keys(&self) -> AuthorityKeys {
        AuthorityKeys {
            seeds: self.seeds.clone(),
            root_certificate: self.certificate.clone(),
        }
    }
}

impl Authority {
    /// Generations at one time: the chain of a member's certificate has room for no more.
    pub const GENERATIONS_MAX: usize = 2;

    /// Makes the authority of a new fleet, with a self-signed root valid for 20 years.
    pub fn create(fleet_name: &Name, seeds: AuthoritySeeds, now: UnixTime) -> Self {
        let root = SigningKey::from_seed(seeds.root.clone());
        let certificate = issue::root(&root, fleet_name, now);
        Self::load(seeds, certificate).expect("a root certificate made from its key belongs to it")
    }

    /// Takes an authority of one generation up again.
    ///
    /// # Errors
    /// The certificate is not one of an authority, or not of this key.
    pub fn load(seeds: AuthoritySeeds, root_certificate: Vec<u8>) -> Result<Self, AuthorityError> {
        Self::load_all(vec![AuthorityKeys {
            seeds,
            root_certificate,
        }])
    }

    /// Takes an authority up again, the oldest generation first.
    ///
    /// # Errors
    /// There is none, there are too many, or a certificate is not that of its key.
    pub fn load_all(keys: Vec<AuthorityKeys>) -> Result<Self, AuthorityError> {
        let count = keys.len();
        if count == 0 || count > Self::GENERATIONS_MAX {
            return Err(AuthorityError::Generations { count });
        }
        let generations = keys.into_iter().map(Generation::load);
        Ok(Self {
            generations: generations.collect::<Result<_, _>>()?,
        })
    }

    /// Returns what all generations are kept as, the oldest first.
    pub fn keys(&self) -> Vec<AuthorityKeys> {
        self.generations.iter().map(Generation::keys).collect()
    }

    /// Adds a generation, with a self-signed root valid for 20 years. `number` tells it from the
    /// others in the eyes of people.
    ///
    /// # Errors
    /// There are too many already.
    pub fn with_next(
        &self,
        fleet_name: &Name,
        number: u64,
        seeds: AuthoritySeeds,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let root = SigningKey::from_seed(seeds.root.clone());
        let root_certificate = issue::next_root(&root, fleet_name, number, now);
        let mut keys = self.keys();
        keys.push(AuthorityKeys {
            seeds,
            root_certificate,
        });
        Self::load_all(keys)
    }

    /// Returns the part of this authority whose roots are among some; `None`: none is.
    pub fn limited_to(&self, roots: &[Vec<u8>]) -> Option<Self> {
        let kept = self.keys().into_iter();
        let kept: Vec<_> = kept
            .filter(|keys| roots.contains(&keys.root_certificate))
            .collect();
        Self::load_all(kept).ok()
    }

    /// Returns the newest root certificate, DER: the one that issues.
    pub fn root_certificate(&self) -> &[u8] {
        &self.newest().certificate
    }

    /// Returns all root certificates, DER, the oldest first.
    pub fn root_certificates(&self) -> Vec<Vec<u8>> {
        let generations = self.generations.iter();
        generations.map(|it| it.certificate.clone()).collect()
    }

    /// Returns the SHA-256 of the newest root certificate: what join tokens pin.
    pub fn root_pin(&self) -> Digest {
        self.newest().pin
    }

    /// Returns the SHA-256 of each root certificate, the oldest first.
    pub fn root_pins(&self) -> Vec<Digest> {
        self.generations.iter().map(|it| it.pin).collect()
    }

    /// Returns the id of a fleet that is founded with this authority.
    pub fn fleet_id(&self) -> FleetId {
        FleetId::from_bytes(first_half(self.generations[0].pin))
    }

    /// Returns the newest Ed25519 public key that signs records.
    pub fn record_key(&self) -> [u8; 32] {
        self.newest().records.public()
    }

    /// Returns all Ed25519 public keys that sign records, for the trust statement.
    pub fn record_keys(&self) -> Vec<[u8; 32]> {
        let generations = self.generations.iter();
        generations.map(|it| it.records.public()).collect()
    }

    /// Returns the newest X25519 public key that hosts enrol with, for the trust statement.
    pub fn enrolment_key(&self) -> [u8; 32] {
        *enrolment::wireguard_public(&self.newest().seeds.enrolment).as_bytes()
    }

    /// Signs a trust statement with the root keys.
    pub fn sign_trust(&self, statement: &TrustStatement) -> Signed {
        let payload = wire::encode_trust_statement(statement);
        signed(
            self.generations.iter().map(|it| &it.root),
            TRUST_STATEMENT,
            payload,
        )
    }

    /// Signs a host's record.
    pub fn sign_record(&self, record: &HostRecord) -> Signed {
        self.by_records(HOST_RECORD, wire::encode_host_record(record))
    }

    /// Signs a host's tombstone.
    pub fn sign_tombstone(&self, tombstone: &Tombstone) -> Signed {
        self.by_records(TOMBSTONE, wire::encode_tombstone(tombstone))
    }

    /// Signs a revision that the fleet has reached.
    pub fn sign_map_head(&self, head: &MapHead) -> Signed {
        self.by_records(MAP_HEAD, wire::encode_map_head(head))
    }

    /// Signs the head of a policy version.
    pub fn sign_head(&self, head: &BundleHead) -> Signed {
        self.by_records(BUNDLE_HEAD, wire::encode_bundle_head(head))
    }

    /// Signs the very bytes of a host's record again, with all keys that there are now.
    pub fn record_again(&self, signed: &Signed) -> Signed {
        self.by_records(HOST_RECORD, signed.payload.clone())
    }

    /// Signs the very bytes of a tombstone again, with all keys that there are now.
    pub fn tombstone_again(&self, signed: &Signed) -> Signed {
        self.by_records(TOMBSTONE, signed.payload.clone())
    }

    /// Signs the very bytes of a policy's head again, with all keys that there are now.
    pub fn head_again(&self, signed: &Signed) -> Signed {
        self.by_records(BUNDLE_HEAD, signed.payload.clone())
    }

    /// Returns whether every record key has signed something: the newest is enough to believe it.
    pub fn has_signed(&self, signed: &Signed) -> bool {
        let mut keys = self.generations.iter().map(|it| it.records.key_id());
        keys.all(|key| signed.signatures.iter().any(|it| it.key_id == key))
    }

    fn by_records(&self, context: Context, payload: Vec<u8>) -> Signed {
        let keys = self.generations.iter().map(|it| &it.records);
        signed(keys, context, payload)
    }

    fn newest(&self) -> &Generation {
        self.generations
            .last()
            .expect("an authority has a generation")
    }

    /// Calls for each generation, the newest first, until one agrees.
    fn any_verifies(
        &self,
        verify: impl Fn(&Secret) -> Result<(), InvalidProof>,
    ) -> Result<(), InvalidProof> {
        let mut secrets = self.generations.iter().rev().map(|it| &it.seeds.enrolment);
        match secrets.any(|secret| verify(secret).is_ok()) {
            true => Ok(()),
            false => Err(InvalidProof),
        }
    }

    /// Verifies that a joining host has the WireGuard private key that it names.
    ///
    /// # Errors
    /// It does not, or something in the transcript was changed on the way.
    pub fn verify_wireguard_proof(
        &self,
        transcript: &Transcript<'_>,
        proof: &[u8; 32],
    ) -> Result<(), InvalidProof> {
        self.any_verifies(|secret| enrolment::verify_wireguard_proof(secret, transcript, proof))
    }

    /// Verifies that a member has the WireGuard private key that it wants to change to.
    ///
    /// # Errors
    /// It does not, or something of the change was changed on the way.
    pub fn verify_key_change(
        &self,
        change: &KeyChange,
        proof: &[u8; 32],
    ) -> Result<(), InvalidProof> {
        self.any_verifies(|secret| key_change::verify_key_change(secret, change, proof))
    }

    /// Issues a host's certificate for the key of a certificate request; nothing else of the
    /// request is used. Valid from an hour before `now` until `now + lifetime`. Returns the chain,
    /// DER: the certificate, what leads to older roots, the roots, the newest first. `serial` is
    /// random, made by the caller.
    ///
    /// # Errors
    /// The request is malformed, not by an Ed25519 key, or not signed by it.
    pub fn issue_host(
        &self,
        identity: &HostIdentity,
        certificate_request: &[u8],
        now: UnixTime,
        lifetime: Duration,
        serial: [u8; 16],
    ) -> Result<Vec<Vec<u8>>, IssueError> {
        let request = check_certificate_request(certificate_request)?;
        let spiffe = SpiffeId::Host {
            fleet: identity.fleet_name.clone(),
            host: identity.host_name.clone(),
        };
        self.issue(&issue::Leaf {
            identity: &spiffe,
            public: &request.public_key,
            dns_names: &[],
            addresses: &[],
            now,
            lifetime,
            serial,
        })
    }

    /// Issues a coordinator's certificate, valid for `COORDINATOR_CERTIFICATE_LIFETIME`. Returns
    /// the chain as `issue_host` does. `serial` is random, made by the caller.
    ///
    /// # Errors
    /// A DNS name cannot stand in a certificate.
    pub fn issue_coordinator(
        &self,
        identity: &CoordinatorIdentity,
        key: &TlsKey,
        now: UnixTime,
        serial: [u8; 16],
    ) -> Result<Vec<Vec<u8>>, IssueError> {
        let spiffe = SpiffeId::Coordinator {
            fleet: identity.fleet_name.clone(),
            coordinator: identity.coordinator_name.clone(),
        };
        self.issue(&issue::Leaf {
            identity: &spiffe,
            public: &key.public(),
            dns_names: &identity.dns_names,
            addresses: &identity.addresses,
            now,
            lifetime: COORDINATOR_CERTIFICATE_LIFETIME,
            serial,
        })
    }

    fn issue(&self, leaf: &issue::Leaf<'_>) -> Result<Vec<Vec<u8>>, IssueError> {
        let encoding = |error: rcgen::Error| IssueError::Encoding(error.to_string());
        let newest = self.newest();
        let mut chain =
            vec![issue::leaf(&newest.root, &newest.certificate, leaf).map_err(encoding)?];
        let (_, older) = self
            .generations
            .split_last()
            .expect("an authority has a generation");
        for old in older {
            let cross = issue::cross(&old.root, &old.certificate, &newest.certificate);
            chain.push(cross.map_err(encoding)?);
        }
        let roots = self.generations.iter().rev();
        chain.extend(roots.map(|it| it.certificate.clone()));
        Ok(chain)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority").field(&self.root_pins()).finish()
    }
}

fn signed<'k>(
    keys: impl Iterator<Item = &'k SigningKey>,
    context: Context,
    payload: Vec<u8>,
) -> Signed {
    let signatures = keys.map(|key| key.sign(context, &payload)).collect();
    Signed {
        payload,
        signatures,
    }
}

#[cfg(test)]
mod tests;

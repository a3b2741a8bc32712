//! A fleet's authority: the keys that make hosts believe something. Only a coordinator has one.
//!
//! The root key signs certificates and trust statements, the record key signs records, tombstones
//! and bundle heads, and the enrolment key is what joining hosts prove their WireGuard keys to.

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

/// The keys of a fleet's authority and its root certificate.
pub struct Authority {
    root: SigningKey,
    records: SigningKey,
    enrolment: Secret,
    root_certificate: Vec<u8>,
    root_pin: Digest,
}

impl Authority {
    /// Makes the authority of a new fleet, with a self-signed root valid for 20 years.
    pub fn create(fleet_name: &Name, seeds: AuthoritySeeds, now: UnixTime) -> Self {
        let root = SigningKey::from_seed(seeds.root.clone());
        let certificate = issue::root(&root, fleet_name, now);
        Self::load(seeds, certificate).expect("a root certificate made from its key belongs to it")
    }

    /// Takes an authority up again.
    ///
    /// # Errors
    /// The certificate is not one of an authority, or not of this key.
    pub fn load(seeds: AuthoritySeeds, root_certificate: Vec<u8>) -> Result<Self, AuthorityError> {
        let root = SigningKey::from_seed(seeds.root.clone());
        let public = certificate::root_public_key(&root_certificate)
            .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        if public != root.public() {
            return Err(AuthorityError::OtherKey);
        }
        Ok(Self {
            root,
            records: SigningKey::from_seed(seeds.records.clone()),
            enrolment: seeds.enrolment.clone(),
            root_pin: sha256(&root_certificate),
            root_certificate,
        })
    }

    /// Returns the root certificate, DER.
    pub fn root_certificate(&self) -> &[u8] {
        &self.root_certificate
    }

    /// Returns the SHA-256 of the root certificate: what join tokens pin.
    pub fn root_pin(&self) -> Digest {
        self.root_pin
    }

    /// Returns the id of the fleet whose first root this is.
    pub fn fleet_id(&self) -> FleetId {
        FleetId::from_bytes(first_half(self.root_pin))
    }

    /// Returns the Ed25519 public key that signs records, for the trust statement.
    pub fn record_key(&self) -> [u8; 32] {
        self.records.public()
    }

    /// Returns the X25519 public key that hosts enrol with, for the trust statement.
    pub fn enrolment_key(&self) -> [u8; 32] {
        *enrolment::wireguard_public(&self.enrolment).as_bytes()
    }

    /// Signs a trust statement with the root key.
    pub fn sign_trust(&self, statement: &TrustStatement) -> Signed {
        signed(
            &self.root,
            TRUST_STATEMENT,
            wire::encode_trust_statement(statement),
        )
    }

    /// Signs a host's record.
    pub fn sign_record(&self, record: &HostRecord) -> Signed {
        signed(&self.records, HOST_RECORD, wire::encode_host_record(record))
    }

    /// Signs a host's tombstone.
    pub fn sign_tombstone(&self, tombstone: &Tombstone) -> Signed {
        signed(&self.records, TOMBSTONE, wire::encode_tombstone(tombstone))
    }

    /// Signs a revision that the fleet has reached.
    pub fn sign_map_head(&self, head: &MapHead) -> Signed {
        signed(&self.records, MAP_HEAD, wire::encode_map_head(head))
    }

    /// Signs the head of a policy version.
    pub fn sign_head(&self, head: &BundleHead) -> Signed {
        signed(&self.records, BUNDLE_HEAD, wire::encode_bundle_head(head))
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
        enrolment::verify_wireguard_proof(&self.enrolment, transcript, proof)
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
        key_change::verify_key_change(&self.enrolment, change, proof)
    }

    /// Issues a host's certificate for the key of a certificate request; nothing else of the
    /// request is used. Valid from an hour before `now` until `now + lifetime`. Returns the chain,
    /// DER, the root last. `serial` is random, made by the caller.
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
    /// the chain, DER, the root last. `serial` is random, made by the caller.
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
        let certificate = issue::leaf(&self.root, &self.root_certificate, leaf)
            .map_err(|error| IssueError::Encoding(error.to_string()))?;
        Ok(vec![certificate, self.root_certificate.clone()])
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.root_pin)
    }
}

fn signed(key: &SigningKey, context: Context, payload: Vec<u8>) -> Signed {
    let signatures = vec![key.sign(context, &payload)];
    Signed {
        payload,
        signatures,
    }
}

//! X.509 certificates of members: what they say, and whether they are believed.
//!
//! A member's certificate has exactly one SPIFFE id, is no authority, may sign TLS handshakes as
//! client and server, and leads to a root of the fleet. A chain that holds admits nobody by itself:
//! whether the key is still the one of the host's record is `fleet`'s and `agent`'s question.

use std::fmt;

use model::identity::SpiffeId;
use model::ids::Digest;
use model::limits::Limits;
use model::name::Name;
use model::time::UnixTime;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::digest::sha256;
use crate::signing::{public_from_spki, verifies_bytes};

/// What a member's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Who it is for.
    pub spiffe: SpiffeId,
    /// Valid from this second on.
    pub not_before: UnixTime,
    /// Valid to the end of this second.
    pub not_after: UnixTime,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub tls_key_hash: Digest,
}

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Good otherwise, and too old.
    #[error(
        "the certificate expired on {}, and this machine's clock says {}; if the clock is wrong, set it (`timedatectl set-ntp true`), else the certificate has to be renewed",
        Date(*.not_after), Date(*.now)
    )]
    Expired {
        /// When it expired.
        not_after: UnixTime,
        /// What the clock says.
        now: UnixTime,
    },
    /// Good otherwise, and not valid yet: mostly a wrong clock.
    #[error(
        "the certificate is valid from {}, but this machine's clock says {}; set the clock (`timedatectl set-ntp true`) and try again",
        Date(*.not_before), Date(*.now)
    )]
    NotYetValid {
        /// From when on it is valid.
        not_before: UnixTime,
        /// What the clock says.
        now: UnixTime,
    },
    /// It does not lead to a root that is trusted.
    #[error(
        "the certificate is not issued by an authority of this fleet that is believed here ({why})"
    )]
    Untrusted {
        /// Which step failed.
        why: String,
    },
    /// The chain ends in another authority than the one that is pinned.
    #[error(
        "the coordinator belongs to another authority than the join token names (expected SHA-256 {expected}, found {found}); is the address right, and is the token for this fleet? After the fleet's authority was rotated, tokens and credentials from before are good no more: make new ones"
    )]
    WrongPin {
        /// What the token says.
        expected: Digest,
        /// The last certificate of the chain.
        found: Digest,
    },
    /// Believed, and for somebody else.
    #[error("the certificate is for {found}, but {expected} was expected")]
    WrongIdentity {
        /// Who was expected.
        expected: String,
        /// Who it is for.
        found: SpiffeId,
    },
    /// Not a certificate of a member.
    #[error("the certificate is not one of a mesh member: {why}")]
    Malformed {
        /// What is wrong with it.
        why: String,
    },
}

impl CertificateFacts {
    /// Checks that this is a coordinator of the fleet.
    ///
    /// # Errors
    /// It is for a host, or for another fleet.
    pub fn check_coordinator(&self, fleet_name: &Name) -> Result<(), CertificateError> {
        match &self.spiffe {
            SpiffeId::Coordinator { fleet, .. } if fleet == fleet_name => Ok(()),
            found => Err(CertificateError::WrongIdentity {
                expected: format!("a coordinator of fleet {fleet_name}"),
                found: found.clone(),
            }),
        }
    }

    /// Checks that this is a host of the fleet, and returns its name.
    ///
    /// # Errors
    /// It is for a coordinator, or for another fleet.
    pub fn check_host(&self, fleet_name: &Name) -> Result<&Name, CertificateError> {
        match &self.spiffe {
            SpiffeId::Host { fleet, host } if fleet == fleet_name => Ok(host),
            found => Err(CertificateError::WrongIdentity {
                expected: format!("a host of fleet {fleet_name}"),
                found: found.clone(),
            }),
        }
    }
}

/// Verifies a chain (DER, leaf first) against roots (DER). Whether it is a host or a coordinator
/// is for the caller to check, by `check_host` and `check_coordinator`.
///
/// # Errors
/// `Expired` and `NotYetValid` only when everything else is good.
pub fn verify_chain(
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    now: UnixTime,
) -> Result<CertificateFacts, CertificateError> {
    let facts = verify_chain_of_any_age(chain, roots, now)?;
    check_validity(&facts, now)?;
    Ok(facts)
}

/// Verifies a chain (DER, leaf first) against roots (DER) as if now were a time at which its first
/// certificate is valid. For those who renew, and for those whose key a signed record names: records
/// do not expire, and a coordinator that is away is no reason for hosts to part.
///
/// # Errors
/// As `verify_chain`, but neither `Expired` nor `NotYetValid`.
pub fn verify_chain_of_any_age(
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    now: UnixTime,
) -> Result<CertificateFacts, CertificateError> {
    let (leaf, intermediates) = split(chain)?;
    let facts = facts(leaf)?;
    verify_path(
        leaf,
        intermediates,
        roots,
        now.clamp(facts.not_before, facts.not_after),
    )?;
    Ok(facts)
}

/// Verifies the chain of a coordinator for one who joins: knows the SHA-256 of its root
/// certificate and nothing else. The chain has to bring the root along.
///
/// # Errors
/// As `verify_chain`; `WrongPin` when the root is not in the chain, and `WrongIdentity` when the
/// certificate is not a coordinator's.
pub fn verify_pinned_chain(
    chain: &[Vec<u8>],
    pin: &Digest,
    now: UnixTime,
) -> Result<CertificateFacts, CertificateError> {
    let (leaf, rest) = split(chain)?;
    let Some(root) = rest.iter().find(|der| sha256(der) == *pin) else {
        let found = sha256(rest.last().unwrap_or(leaf));
        return Err(CertificateError::WrongPin {
            expected: *pin,
            found,
        });
    };
    let facts = verify_chain(chain, std::slice::from_ref(root), now)?;
    match &facts.spiffe {
        SpiffeId::Coordinator { .. } => Ok(facts),
        found @ SpiffeId::Host { .. } => Err(CertificateError::WrongIdentity {
            expected: "a coordinator".to_owned(),
            found: found.clone(),
        }),
    }
}

fn split(chain: &[Vec<u8>]) -> Result<(&Vec<u8>, &[Vec<u8>]), CertificateError> {
    if chain.len() > Limits::CHAIN_LENGTH {
        return Err(malformed("its chain is too long"));
    }
    if chain
        .iter()
        .any(|der| der.len() > Limits::CERTIFICATE_BYTES)
    {
        return Err(malformed("a certificate of its chain is too large"));
    }
    chain
        .split_first()
        .ok_or_else(|| malformed("there is none"))
}

fn verify_path(
    leaf: &[u8],
    intermediates: &[Vec<u8>],
    roots: &[Vec<u8>],
    time: UnixTime,
) -> Result<(), CertificateError> {
    let untrusted = |error: webpki::Error| CertificateError::Untrusted {
        why: error.to_string(),
    };
    let leaf = CertificateDer::from(leaf);
    let intermediates: Vec<_> = intermediates
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let roots: Vec<_> = roots
        .iter()
        .map(|der| CertificateDer::from(der.as_slice()))
        .collect();
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .map(anchor_from_trusted_cert)
        .collect::<Result<_, _>>()
        .map_err(untrusted)?;
    EndEntityCert::try_from(&leaf)
        .map_err(untrusted)?
        .verify_for_usage(
            &[webpki::aws_lc_rs::ED25519],
            &anchors,
            &intermediates,
            rustls_pki_types::UnixTime::since_unix_epoch(time.since_epoch()),
            KeyUsage::server_auth(),
            None,
            None,
        )
        .map(|_| ())
        .map_err(untrusted)
}

fn check_validity(facts: &CertificateFacts, now: UnixTime) -> Result<(), CertificateError> {
    if now.as_secs() > facts.not_after.as_secs() {
        return Err(CertificateError::Expired {
            not_after: facts.not_after,
            now,
        });
    }
    if now < facts.not_before {
        return Err(CertificateError::NotYetValid {
            not_before: facts.not_before,
            now,
        });
    }
    Ok(())
}

/// Reads a member's certificate without verifying who issued it: for one's own.
///
/// # Errors
/// It is not a certificate of a member.
pub fn facts(der: &[u8]) -> Result<CertificateFacts, CertificateError> {
    let certificate = parse(der)?;
    check_purpose(&certificate)?;
    let validity = certificate.validity();
    let (not_before, not_after) = (unix(validity.not_before), unix(validity.not_after));
    if not_before > not_after {
        return Err(malformed("it ends before it begins"));
    }
    Ok(CertificateFacts {
        spiffe: spiffe_id(&certificate)?,
        not_before,
        not_after,
        tls_key_hash: sha256(certificate.public_key().raw),
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok((&[], certificate)) => Ok(certificate),
        Ok(_) => Err(malformed("bytes follow it")),
        Err(_) => Err(malformed("it is not X.509 in DER")),
    }
}

/// A member signs handshakes, as client and as server, and no certificates.
fn check_purpose(certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
    let duplicate = |_| malformed("an extension is there twice");
    if certificate.is_ca() {
        return Err(malformed("it is an authority's"));
    }
    let usage = certificate.key_usage().map_err(duplicate)?;
    let usage = usage.ok_or_else(|| malformed("it has no key usage"))?.value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(malformed("its key usage is not that of a member"));
    }
    let extended = certificate.extended_key_usage().map_err(duplicate)?;
    match extended {
        Some(extended) if extended.value.client_auth && extended.value.server_auth => Ok(()),
        _ => Err(malformed("it is not for TLS clients and servers")),
    }
}

/// Exactly one URI, and it is one of ours; DNS names and addresses may stand beside it.
fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, CertificateError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| malformed("an extension is there twice"))?
        .ok_or_else(|| malformed("it names no identity"))?;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri
            .parse()
            .map_err(|error: model::identity::InvalidSpiffeId| malformed(error.to_string())),
        (None, _) => Err(malformed("it names no identity")),
        (Some(_), Some(_)) => Err(malformed("it names more than one identity")),
    }
}

/// Returns the Ed25519 key of a root certificate: an authority's, signed by itself.
pub(crate) fn root_public_key(der: &[u8]) -> Result<[u8; 32], CertificateError> {
    let certificate = parse(der)?;
    if !certificate.is_ca() {
        return Err(malformed("it is not an authority's"));
    }
    let public = public_from_spki(certificate.public_key().raw)
        .ok_or_else(|| malformed("its key is not Ed25519"))?;
    let signed = certificate.tbs_certificate.as_ref();
    if !verifies_bytes(&public, signed, &certificate.signature_value.data) {
        return Err(malformed("it is not signed by its own key"));
    }
    Ok(public)
}

/// What a root certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFacts {
    /// Its name, for people.
    pub common_name: String,
    /// Valid from this second on.
    pub not_before: UnixTime,
    /// Valid to the end of this second.
    pub not_after: UnixTime,
}

/// Reads a root certificate; `None`: it is none.
pub fn root_facts(der: &[u8]) -> Option<RootFacts> {
    let certificate = parse(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let common_name = names.next()?.as_str().ok()?.to_owned();
    let validity = certificate.validity();
    Some(RootFacts {
        common_name,
        not_before: unix(validity.not_before),
        not_after: unix(validity.not_after),
    })
}

fn malformed(why: impl Into<String>) -> CertificateError {
    CertificateError::Malformed { why: why.into() }
}

/// Times before 1970 count as 1970.
fn unix(time: ASN1Time) -> UnixTime {
    UnixTime::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// A time as people read it.
struct Date(UnixTime);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        let date = i64::try_from(secs)
            .ok()
            .and_then(|secs| ASN1Time::from_timestamp(secs).ok());
        match date.and_then(|date| date.to_rfc2822().ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "second {secs} after 1970"),
        }
    }
}

#[cfg(test)]
mod tests;

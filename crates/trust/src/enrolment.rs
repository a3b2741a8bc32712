//! How a joining host proves that it has both of its private keys: the TLS key signs a certificate
//! request, the WireGuard key, which cannot sign, makes a MAC that only it and the authority can make.

use std::fmt;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hmac;
use model::ids::{Digest, FleetId, TokenId};
use model::key::{Secret, SecretBytes, WireguardKey};
use model::limits::Limits;
use model::name::Name;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::digest::sha256;
use crate::issue;
use crate::signing::{SigningKey, public_from_spki, subject_public_key_info, verifies_bytes};

/// A member's Ed25519 key for TLS.
pub struct TlsKey {
    seed: Secret,
    key: SigningKey,
}

/// DER before the 32 bytes of an Ed25519 seed in a PKCS#8 structure of version 1 (RFC 8410 7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

impl TlsKey {
    /// Derives the key pair of a seed.
    pub fn from_seed(seed: Secret) -> Self {
        let key = SigningKey::from_seed(seed.clone());
        Self { seed, key }
    }

    /// Returns the public key.
    pub fn public(&self) -> [u8; 32] {
        self.key.public()
    }

    /// Returns the private key as TLS libraries take it: PKCS#8, DER.
    pub fn pkcs8_der(&self) -> SecretBytes {
        // Allocated at once: a vector that grows leaves secrets behind.
        let mut der = Vec::with_capacity(PKCS8_PREFIX.len() + self.seed.expose().len());
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(self.seed.expose());
        SecretBytes::new(der)
    }

    /// Returns the SHA-256 of the SubjectPublicKeyInfo, which a host's record names.
    pub fn public_key_hash(&self) -> Digest {
        sha256(&subject_public_key_info(&self.public()))
    }

    /// Makes a certificate request signed by this key: PKCS#10, DER. The name is for people; the
    /// certificate carries the one that the coordinator decides.
    pub fn certificate_request(&self, name: &Name) -> Vec<u8> {
        issue::request(&self.key, name)
    }
}

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsKey({})", self.public_key_hash())
    }
}

/// What a certificate request proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrFacts {
    /// The Ed25519 key that signed it.
    pub public_key: [u8; 32],
    /// Its SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// SHA-256 of `spki`.
    pub tls_key_hash: Digest,
}

/// Why a certificate request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// Not PKCS#10 in DER, or longer than a request is.
    #[error("the certificate request is malformed")]
    Malformed,
    /// Another algorithm.
    #[error("the certificate request is for a key of another kind; only Ed25519 is accepted")]
    NotEd25519,
    /// The signature does not hold.
    #[error(
        "the certificate request is not signed by the key that it names; was it changed on the way?"
    )]
    BadSignature,
}

/// Checks a certificate request: one Ed25519 key, and a signature by it.
///
/// # Errors
/// It is malformed, of another algorithm, or not signed by its key.
pub fn check_certificate_request(der: &[u8]) -> Result<CsrFacts, InvalidRequest> {
    if der.len() > Limits::CERTIFICATE_REQUEST_BYTES {
        return Err(InvalidRequest::Malformed);
    }
    let Ok((&[], request)) = X509CertificationRequest::from_der(der) else {
        return Err(InvalidRequest::Malformed);
    };
    let info = &request.certification_request_info;
    let public_key = public_from_spki(info.subject_pki.raw).ok_or(InvalidRequest::NotEd25519)?;
    let signature = signature_of(der, info.raw).ok_or(InvalidRequest::Malformed)?;
    if !verifies_bytes(&public_key, info.raw, signature) {
        return Err(InvalidRequest::BadSignature);
    }
    let spki = subject_public_key_info(&public_key);
    let tls_key_hash = sha256(&spki);
    Ok(CsrFacts {
        public_key,
        spki,
        tls_key_hash,
    })
}

/// DER before the 64 bytes of an Ed25519 signature: its algorithm (RFC 8410 3), then a bit string.
const SIGNATURE_PREFIX: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];

/// Returns the signature that follows what is signed. There is one way to write it; the parser
/// lets others pass.
fn signature_of<'a>(der: &'a [u8], signed: &[u8]) -> Option<&'a [u8; 64]> {
    let content = signed.len() + SIGNATURE_PREFIX.len() + 64;
    der.strip_prefix(sequence_header(content).as_slice())?
        .strip_prefix(signed)?
        .strip_prefix(&SIGNATURE_PREFIX)?
        .try_into()
        .ok()
}

/// DER before the content of a SEQUENCE: its tag, and the length in as few bytes as it needs (X.690
/// 10.1). A request is shorter than 64 KiB.
fn sequence_header(length: usize) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    let [.., high, low] = length.to_be_bytes();
    match length {
        0..0x80 => vec![SEQUENCE, low],
        0x80..0x100 => vec![SEQUENCE, 0x81, low],
        _ => vec![SEQUENCE, 0x82, high, low],
    }
}

/// Everything that an enrolment binds together.
#[derive(Clone, Copy, Debug)]
pub struct Transcript<'a> {
    /// The fleet that is joined.
    pub fleet: FleetId,
    /// The token that is used.
    pub token: TokenId,
    /// The name that is asked for.
    pub name: &'a Name,
    /// The host's WireGuard key.
    pub wireguard_key: WireguardKey,
    /// The host's certificate request, DER.
    pub certificate_request: &'a [u8],
}

/// An X25519 public key with which no secret can be shared: a point of low order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the X25519 public key is a point of low order; no secret can be shared with it")]
pub struct LowOrderKey;

/// Why a proof of a WireGuard key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host does not prove that it has the private key of its WireGuard key")]
pub struct InvalidProof;

/// Returns the public key of a WireGuard private key.
pub fn wireguard_public(private: &Secret) -> WireguardKey {
    let public = x25519(private)
        .compute_public_key()
        .expect("an X25519 key has a public key");
    let bytes = public
        .as_ref()
        .try_into()
        .expect("an X25519 public key has 32 bytes");
    WireguardKey::from_bytes(bytes)
}

/// Proves to the owner of `enrolment_key`, and to nobody else, that this host has the WireGuard
/// private key: HMAC-SHA256 over the transcript, keyed by the X25519 secret that both share.
///
/// # Errors
/// No secret can be shared with the enrolment key.
pub fn wireguard_proof(
    wireguard_private: &Secret,
    enrolment_key: &[u8; 32],
    transcript: &Transcript<'_>,
) -> Result<[u8; 32], LowOrderKey> {
    let key = proof_key(wireguard_private, enrolment_key)?;
    let tag = hmac::sign(&key, &proof_message(enrolment_key, transcript));
    Ok(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
}

/// Verifies a proof with the private half of the enrolment key, in constant time.
///
/// # Errors
/// The host does not have the private key, or something in the transcript was changed.
pub fn verify_wireguard_proof(
    enrolment_secret: &Secret,
    transcript: &Transcript<'_>,
    proof: &[u8; 32],
) -> Result<(), InvalidProof> {
    let key = proof_key(enrolment_secret, transcript.wireguard_key.as_bytes())
        .map_err(|LowOrderKey| InvalidProof)?;
    let enrolment_key = wireguard_public(enrolment_secret);
    hmac::verify(
        &key,
        &proof_message(enrolment_key.as_bytes(), transcript),
        proof,
    )
    .map_err(|_| InvalidProof)
}

pub(crate) fn proof_key(private: &Secret, public: &[u8; 32]) -> Result<hmac::Key, LowOrderKey> {
    // The library refuses an all-zero shared secret, which is what low order gives (RFC 7748 6.1).
    agree(
        &x25519(private),
        UnparsedPublicKey::new(&X25519, public),
        LowOrderKey,
        |shared| Ok(hmac::Key::new(hmac::HMAC_SHA256, shared)),
    )
}

fn x25519(private: &Secret) -> PrivateKey {
    PrivateKey::from_private_key(&X25519, private.expose())
        .expect("any 32 bytes are an X25519 private key")
}

/// The context and a zero byte; then fleet, token, enrolment key, WireGuard key, which have fixed
/// lengths; then name and request, each after its length as 4 bytes, big endian.
fn proof_message(enrolment_key: &[u8; 32], transcript: &Transcript<'_>) -> Vec<u8> {
    let mut message = b"mesh.v1.wireguard-proof\0".to_vec();
    message.extend_from_slice(transcript.fleet.as_bytes());
    message.extend_from_slice(transcript.token.as_bytes());
    message.extend_from_slice(enrolment_key);
    message.extend_from_slice(transcript.wireguard_key.as_bytes());
    for part in [
        transcript.name.as_str().as_bytes(),
        transcript.certificate_request,
    ] {
        let length = u32::try_from(part.len()).expect("names and requests are bounded");
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(part);
    }
    message
}

#[cfg(test)]
mod tests;

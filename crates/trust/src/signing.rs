//! Ed25519 keys: signing with a context, verifying, and the forms that other formats need.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use model::ids::{Digest, KeyId};
use model::key::Secret;
use model::record::Signature;

use crate::context::Context;
use crate::digest::sha256;

/// An Ed25519 private key. The same seed and message always give the same signature (RFC 8032 5.1).
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl SigningKey {
    /// Derives the key pair of a seed.
    pub fn from_seed(seed: Secret) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .expect("any 32 bytes are an Ed25519 seed");
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .expect("an Ed25519 public key has 32 bytes");
        Self { pair, public }
    }

    /// Returns the public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Returns the public key where it lies.
    pub(crate) fn public_bytes(&self) -> &[u8; 32] {
        &self.public
    }

    /// Returns the id that signatures of this key carry.
    pub fn key_id(&self) -> KeyId {
        key_id(&self.public)
    }

    /// Signs a payload of the kind that `context` names.
    pub fn sign(&self, context: Context, payload: &[u8]) -> Signature {
        Signature {
            key_id: self.key_id(),
            value: self.sign_bytes(&context.to_be_signed(payload)),
        }
    }

    /// Signs bytes as they are, for formats that bring their own context.
    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.pair
            .sign(bytes)
            .as_ref()
            .try_into()
            .expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.key_id())
    }
}

/// Returns the id of a public key: the first 16 bytes of its SHA-256.
pub fn key_id(public: &[u8; 32]) -> KeyId {
    KeyId::from_bytes(first_half(sha256(public)))
}

/// Returns the first 16 bytes of a digest.
pub(crate) fn first_half(digest: Digest) -> [u8; 16] {
    let (half, _) = digest
        .as_bytes()
        .split_first_chunk()
        .expect("a digest has 32 bytes");
    *half
}

/// Returns whether `value` is the signature of `public` over a payload of this context.
pub(crate) fn verifies(
    public: &[u8; 32],
    context: Context,
    payload: &[u8],
    value: &[u8; 64],
) -> bool {
    verifies_bytes(public, &context.to_be_signed(payload), value)
}

/// Returns whether `value` is the signature of `public` over the bytes as they are.
pub(crate) fn verifies_bytes(public: &[u8; 32], bytes: &[u8], value: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public)
        .verify(bytes, value)
        .is_ok()
}

/// DER before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410 4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Returns the SubjectPublicKeyInfo of a public key, DER; there is only one.
pub(crate) fn subject_public_key_info(public: &[u8; 32]) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), public].concat()
}

/// Returns the Ed25519 key in a SubjectPublicKeyInfo; `None` when it holds anything else.
pub(crate) fn public_from_spki(der: &[u8]) -> Option<[u8; 32]> {
    der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{HOST_RECORD, TOMBSTONE};

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_seed(Secret::from_bytes([byte; 32]))
    }

    #[test]
    fn a_seed_gives_the_key_of_rfc_8032() {
        // RFC 8032 7.1, test 1.
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let key = SigningKey::from_seed(Secret::from_bytes(seed.try_into().unwrap()));
        assert_eq!(
            key.public().to_vec(),
            hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        );
    }

    #[test]
    fn a_signature_holds_for_its_context_key_and_payload_only() {
        let signature = key(1).sign(HOST_RECORD, b"payload").value;
        assert!(verifies(
            &key(1).public(),
            HOST_RECORD,
            b"payload",
            &signature
        ));
        assert!(!verifies(
            &key(1).public(),
            TOMBSTONE,
            b"payload",
            &signature
        ));
        assert!(!verifies(
            &key(2).public(),
            HOST_RECORD,
            b"payload",
            &signature
        ));
        assert!(!verifies(
            &key(1).public(),
            HOST_RECORD,
            b"payloae",
            &signature
        ));
    }

    #[test]
    fn signing_twice_gives_the_same_bytes() {
        assert_eq!(
            key(1).sign(HOST_RECORD, b"x"),
            key(1).sign(HOST_RECORD, b"x")
        );
    }

    #[test]
    fn a_key_prints_its_id_only() {
        assert_eq!(
            format!("{:?}", key(1)),
            format!("SigningKey({})", key(1).key_id())
        );
    }
}

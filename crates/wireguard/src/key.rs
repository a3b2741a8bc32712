//! Key types: X25519 key pairs, public keys and preshared keys.
//!
//! Secrets are wiped when dropped, and `Debug` never shows them. Where private keys come from
//! and where they are stored is the caller's.

use std::fmt;

use aws_lc_rs::agreement::{self, UnparsedPublicKey, X25519};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::symmetric::hash;

/// A shared secret of two X25519 keys, wiped when dropped.
pub(crate) type SharedSecret = Zeroizing<[u8; 32]>;

/// An X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps the 32 bytes of a public key; any value is accepted, low order points fail when used.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes as they are on the wire.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", Fingerprint(&self.0))
    }
}

/// A symmetric key that both peers know beforehand, mixed into the handshake.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// Wraps the 32 bytes of a preshared key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// No preshared key is the key of all zeros (section 5.2).
impl Default for PresharedKey {
    fn default() -> Self {
        Self([0; 32])
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = hash(&[b"preshared key fingerprint", &self.0]);
        write!(formatter, "PresharedKey({})", Fingerprint(&digest))
    }
}

/// The 32 secret bytes of an X25519 key, not yet computed with.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// Wraps 32 secret bytes, of which the caller wipes its copy; any value is a valid key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = hash(&[b"private key fingerprint", &self.0]);
        write!(formatter, "PrivateKey({})", Fingerprint(&digest))
    }
}

/// An X25519 private key with its public half; static and ephemeral keys are both of this type.
pub struct KeyPair {
    private: agreement::PrivateKey,
    public: PublicKey,
}

impl KeyPair {
    /// Computes the public half of a private key.
    pub fn new(private: &PrivateKey) -> Self {
        let private = agreement::PrivateKey::from_private_key(&X25519, &private.0)
            .expect("any 32 bytes are an X25519 private key");
        let computed = private
            .compute_public_key()
            .expect("an X25519 private key has a public half");
        let mut public = [0; 32];
        public.copy_from_slice(computed.as_ref());
        Self {
            private,
            public: PublicKey(public),
        }
    }

    /// Returns the public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the shared secret, or `None` when `other` is a low order point, which would make
    /// the secret all zeros whatever our key is.
    pub(crate) fn agree(&self, other: &PublicKey) -> Option<SharedSecret> {
        let other = UnparsedPublicKey::new(&X25519, other.as_bytes());
        agreement::agree(&self.private, other, (), |secret| {
            let mut shared = SharedSecret::default();
            shared.copy_from_slice(secret);
            Ok(shared)
        })
        .ok()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeyPair({})", Fingerprint(&self.public.0))
    }
}

/// The first four bytes in hexadecimal: enough to tell two keys apart in a log.
struct Fingerprint<'a>(&'a [u8; 32]);

impl fmt::Display for Fingerprint<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(formatter, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).unwrap();
            *byte = u8::from_str_radix(pair, 16).unwrap();
        }
        out
    }

    /// The points of small order on Curve25519, as listed at <https://cr.yp.to/ecdh.html>.
    const LOW_ORDER_POINTS: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];

    #[test]
    fn low_order_points_are_refused() {
        let ours = KeyPair::new(&PrivateKey([7; 32]));
        for point in LOW_ORDER_POINTS {
            let point = PublicKey::from_bytes(bytes(point));
            assert!(ours.agree(&point).is_none(), "{point:?}");
        }
    }

    #[test]
    fn debug_shows_a_fingerprint_and_no_secret() {
        let pair = KeyPair::new(&PrivateKey([7; 32]));
        let (private, preshared) = (PrivateKey([7; 32]), PresharedKey([7; 32]));
        let text = format!("{pair:?} {:?} {private:?} {preshared:?}", pair.public());
        assert!(
            !text.contains("07070707") && !text.contains("7, 7"),
            "{text}"
        );
        assert!(text.starts_with("KeyPair(") && text.len() < 100, "{text}");
    }
}

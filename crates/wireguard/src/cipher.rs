//! The cipher of transport data, and the construction name that binds a handshake to it.
//!
//! A second cipher is a new variant with its own construction name: two peers that disagree
//! share no transcript, so one can never be mistaken for the other.

use aws_lc_rs::aead::{Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;

/// The cipher of a session's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataCipher {
    /// What every WireGuard implementation speaks.
    #[default]
    ChaCha20Poly1305,
}

impl DataCipher {
    /// Returns the name that starts the handshake's transcript (section 5.4).
    pub const fn construction(self) -> &'static [u8] {
        match self {
            Self::ChaCha20Poly1305 => b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

/// One direction's key of a session.
pub(crate) struct DataKey(LessSafeKey);

impl DataKey {
    pub(crate) fn new(cipher: DataCipher, key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(cipher.algorithm(), key).expect("data ciphers have 32-byte keys");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts in place and returns the tag.
    #[inline]
    pub(crate) fn seal(&self, counter: u64, in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), in_out)
            .expect("a datagram is far shorter than the cipher's limit");
        let mut bytes = [0; TAG_LEN];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Decrypts in place; false when the tag does not match, and then `in_out` is spoilt.
    #[inline]
    pub(crate) fn open(&self, counter: u64, tag: &[u8], in_out: &mut [u8]) -> bool {
        self.0
            .open_in_place_separate_tag(nonce(counter), Aad::empty(), tag, in_out)
            .is_ok()
    }
}

/// Four zero bytes, then the counter in little endian (section 5.4.6).
#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

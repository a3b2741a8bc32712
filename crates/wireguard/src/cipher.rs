//! The cipher of transport data, and the construction name that binds a handshake to it.
//!
//! Each cipher has its own construction name: two peers that disagree share no transcript, so that
//! one can never be mistaken for the other, and nobody between them can turn one into the other.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;

/// The cipher of a session's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataCipher {
    /// What every WireGuard implementation speaks.
    #[default]
    ChaCha20Poly1305,
    /// Several times as fast where the processor has instructions for it; between two hosts of ours
    /// only.
    Aes256Gcm,
}

impl DataCipher {
    /// All of them, the likeliest first.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// Returns after how many packets under one key a new session is wanted.
    ///
    /// ChaCha20-Poly1305: section 6.1. AES-256-GCM: half of what is allowed.
    pub const fn rekey_after_messages(self) -> u64 {
        match self {
            Self::ChaCha20Poly1305 => 1 << 60,
            Self::Aes256Gcm => self.reject_after_messages() / 2,
        }
    }

    /// Returns after how many packets a key must not be used any more.
    ///
    /// ChaCha20-Poly1305: 2^64 - 2^13 - 1 (section 6.1). AES-256-GCM: 2^25, with which packets of up
    /// to 2^14 bytes stay within the 2^35 blocks up to which an attacker tells them from noise with a
    /// probability of 2^-57 at most: 2 (packets * blocks)^2 / 2^128, RFC 9001, appendix B.1.1.
    pub const fn reject_after_messages(self) -> u64 {
        match self {
            Self::ChaCha20Poly1305 => u64::MAX - (1 << 13),
            Self::Aes256Gcm => 1 << 25,
        }
    }

    /// Returns the name that starts the handshake's transcript (section 5.4).
    pub const fn construction(self) -> &'static [u8] {
        match self {
            Self::ChaCha20Poly1305 => b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
            // No WireGuard: its fields are sealed as there, its packets otherwise.
            Self::Aes256Gcm => b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s mesh-data-AES256GCM",
        }
    }

    /// Returns its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Self::Aes256Gcm => &AES_256_GCM,
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

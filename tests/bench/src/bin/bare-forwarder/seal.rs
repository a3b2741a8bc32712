//! The form of WireGuard's data messages under a key that is no secret, so that the same bytes move and the
//! same work is done as in a tunnel.

use std::ops::Range;

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

/// Type, receiver index, counter: as WireGuard's data messages (whitepaper 5.4.6).
pub(crate) const HEADER_LEN: usize = 16;
/// Also there, but empty, where nothing is sealed: every cipher moves as many bytes.
pub(crate) const TAG_LEN: usize = 16;

/// What packets are sealed with.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum CipherName {
    /// Nothing.
    None,
    /// As in WireGuard.
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// As two of ours may agree on.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
}

impl CipherName {
    fn algorithm(self) -> Option<&'static Algorithm> {
        match self {
            Self::None => None,
            Self::ChaCha20Poly1305 => Some(&CHACHA20_POLY1305),
            Self::Aes256Gcm => Some(&AES_256_GCM),
        }
    }
}

/// Both directions.
pub(crate) struct Keys {
    /// To seal with, to open with.
    pair: Option<(LessSafeKey, LessSafeKey)>,
    counter: u64,
}

impl Keys {
    pub(crate) fn new(cipher: CipherName, side: u8) -> Self {
        let key = |algorithm, of: u8| {
            let key = UnboundKey::new(algorithm, &[of + 1; 32]);
            LessSafeKey::new(key.expect("both ciphers have keys of 32 bytes"))
        };
        let pair = |algorithm| (key(algorithm, side & 1), key(algorithm, (side & 1) ^ 1));
        Self {
            pair: cipher.algorithm().map(pair),
            counter: 0,
        }
    }

    /// Makes a datagram of its plaintext, which lies between the room for header and tag.
    #[inline]
    pub(crate) fn seal(&mut self, datagram: &mut [u8]) {
        let (header, rest) = datagram.split_at_mut(HEADER_LEN);
        header[..8].copy_from_slice(&[4, 0, 0, 0, 1, 0, 0, 0]);
        header[8..].copy_from_slice(&self.counter.to_le_bytes());
        if let Some((key, _)) = &self.pair {
            let (plaintext, room) = rest.split_at_mut(rest.len() - TAG_LEN);
            let tag = key
                .seal_in_place_separate_tag(nonce(self.counter), Aad::empty(), plaintext)
                .expect("a datagram is far shorter than the cipher's limit");
            room.copy_from_slice(tag.as_ref());
        }
        self.counter += 1;
    }

    /// Opens a datagram in place and returns where its plaintext lies.
    #[inline]
    pub(crate) fn open(&self, datagram: &mut [u8]) -> Option<Range<usize>> {
        let end = datagram.len().checked_sub(TAG_LEN)?;
        let (header, rest) = datagram.split_first_chunk_mut::<HEADER_LEN>()?;
        if end < HEADER_LEN || header[0] != 4 {
            return None;
        }
        if let Some((_, key)) = &self.pair {
            let counter = u64::from_le_bytes(*header.last_chunk().expect("16 bytes have 8"));
            let (ciphertext, tag) = rest.split_at_mut(end - HEADER_LEN);
            key.open_in_place_separate_tag(nonce(counter), Aad::empty(), tag, ciphertext)
                .ok()?;
        }
        Some(HEADER_LEN..end)
    }
}

#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_seals_the_other_opens() {
        for cipher in [
            CipherName::None,
            CipherName::ChaCha20Poly1305,
            CipherName::Aes256Gcm,
        ] {
            let (mut left, right) = (Keys::new(cipher, 0), Keys::new(cipher, 1));
            let mut datagram = [7; HEADER_LEN + 40 + TAG_LEN];
            left.seal(&mut datagram);
            left.seal(&mut datagram.clone());
            let packet = right.open(&mut datagram).unwrap();
            assert_eq!(datagram[packet], [7; 40]);
        }
    }

    #[test]
    fn what_is_damaged_or_short_is_not_opened() {
        let (mut left, right) = (
            Keys::new(CipherName::Aes256Gcm, 0),
            Keys::new(CipherName::Aes256Gcm, 1),
        );
        let mut datagram = [7; HEADER_LEN + 40 + TAG_LEN];
        left.seal(&mut datagram);
        datagram[20] ^= 1;
        assert_eq!(right.open(&mut datagram), None);
        assert_eq!(right.open(&mut [4; HEADER_LEN + TAG_LEN - 1]), None);
    }
}

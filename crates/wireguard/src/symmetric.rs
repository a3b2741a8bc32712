//! The symmetric half of Noise as WireGuard uses it: BLAKE2s, HMAC, KDF and the handshake
//! transcript (section 5.4). It knows no message and no key agreement.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::cipher::{DataCipher, TAG_LEN};
use crate::key::PublicKey;

const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com"; // section 5.4

/// `HASH`: BLAKE2s-256 of the parts one after the other.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::default();
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

/// `MAC`: keyed BLAKE2s with 16 bytes of output. The key has 16 or 32 bytes.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut state = <Blake2sMac<U16> as KeyInit>::new_from_slice(key)
        .expect("keys have at most 32 bytes, the limit of BLAKE2s");
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

/// `HMAC` (RFC 2104) over BLAKE2s, not to be confused with the keyed hash above.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    const BLOCK_LEN: usize = 64; // of BLAKE2s
    let mut pad = Zeroizing::new([0x36; BLOCK_LEN]);
    for (byte, key) in pad.iter_mut().zip(key) {
        *byte ^= key;
    }
    let mut inner = Blake2s256::default();
    Update::update(&mut inner, &*pad);
    for part in parts {
        Update::update(&mut inner, part);
    }
    for byte in pad.iter_mut() {
        *byte ^= 0x36 ^ 0x5c;
    }
    let inner: [u8; 32] = inner.finalize_fixed().into();
    hash(&[&*pad, &inner])
}

/// `KDFn`: derives `N` keys, at most 255, of `key` and `input`.
pub(crate) fn kdf<const N: usize>(key: &[u8; 32], input: &[u8]) -> Zeroizing<[[u8; 32]; N]> {
    let secret = Zeroizing::new(hmac(key, &[input]));
    let mut keys = Zeroizing::new([[0; 32]; N]);
    for index in 0..N {
        let (before, rest) = keys.split_at_mut(index);
        let previous: &[u8] = before.last().map_or(&[], |key| key);
        rest[0] = hmac(&secret, &[previous, &[index as u8 + 1]]);
    }
    keys
}

/// A handshake's chaining key and hash, which both sides keep in step.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Transcript {
    chaining_key: [u8; 32],
    hash: [u8; 32],
}

impl Transcript {
    /// Starts a handshake towards the given responder.
    pub(crate) fn new(cipher: DataCipher, responder: &PublicKey) -> Self {
        let chaining_key = hash(&[cipher.construction()]);
        let identified = hash(&[&chaining_key, IDENTIFIER]);
        Self {
            chaining_key,
            hash: hash(&[&identified, responder.as_bytes()]),
        }
    }

    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// `KDF1`: mixes `input` into the chaining key.
    pub(crate) fn mix_key(&mut self, input: &[u8]) {
        let keys = kdf::<1>(&self.chaining_key, input);
        self.chaining_key = keys[0];
    }

    /// An ephemeral public key goes into both the hash and the chaining key.
    pub(crate) fn mix_ephemeral(&mut self, ephemeral: &PublicKey) {
        self.mix_hash(ephemeral.as_bytes());
        self.mix_key(ephemeral.as_bytes());
    }

    /// `KDF2`: mixes `input` into the chaining key and returns the key of the next field.
    pub(crate) fn mix_key_and_derive(&mut self, input: &[u8]) -> FieldKey {
        let keys = kdf::<2>(&self.chaining_key, input);
        self.chaining_key = keys[0];
        FieldKey::new(&keys[1])
    }

    /// `KDF3`: mixes the preshared key into chaining key and hash and returns the key of the next
    /// field.
    pub(crate) fn mix_preshared_key(&mut self, preshared_key: &[u8; 32]) -> FieldKey {
        let keys = kdf::<3>(&self.chaining_key, preshared_key);
        self.chaining_key = keys[0];
        self.mix_hash(&keys[1]);
        FieldKey::new(&keys[2])
    }

    /// Encrypts a field of `N - 16` bytes and mixes the result into the hash.
    pub(crate) fn seal_field<const N: usize>(
        &mut self,
        key: &FieldKey,
        plaintext: &[u8],
    ) -> [u8; N] {
        assert_eq!(
            plaintext.len() + TAG_LEN,
            N,
            "a field is its plaintext and a tag"
        );
        let mut field = [0; N];
        let (ciphertext, tag) = field.split_at_mut(plaintext.len());
        ciphertext.copy_from_slice(plaintext);
        let sealed = key
            .0
            .seal_in_place_separate_tag(zero_nonce(), Aad::from(&self.hash), ciphertext)
            .expect("a field is far shorter than the cipher's limit");
        tag.copy_from_slice(sealed.as_ref());
        self.mix_hash(&field);
        field
    }

    /// Decrypts a field into its plaintext of `N` bytes and mixes the field into the hash; `None`
    /// when it is forged.
    pub(crate) fn open_field<const N: usize>(
        &mut self,
        key: &FieldKey,
        field: &[u8],
    ) -> Option<[u8; N]> {
        let (ciphertext, tag) = field.split_at_checked(N)?;
        let mut plaintext = [0; N];
        plaintext.copy_from_slice(ciphertext);
        key.0
            .open_in_place_separate_tag(zero_nonce(), Aad::from(&self.hash), tag, &mut plaintext)
            .ok()?;
        self.mix_hash(field);
        Some(plaintext)
    }

    /// Ends the handshake: the initiator's sending key, then the responder's.
    pub(crate) fn split(self) -> Zeroizing<[[u8; 32]; 2]> {
        kdf(&self.chaining_key, &[])
    }
}

/// The key of one handshake field, used once.
pub(crate) struct FieldKey(LessSafeKey);

impl FieldKey {
    fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes");
        Self(LessSafeKey::new(key))
    }
}

/// Every field has its own key, so that each uses counter zero (section 5.4).
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_matches_rfc_7693_appendix_b() {
        let expected = [
            0x50, 0x8c, 0x5e, 0x8c, 0x32, 0x7c, 0x14, 0xe2, 0xe1, 0xa7, 0x2b, 0xa3, 0x4e, 0xeb,
            0x45, 0x2f, 0x37, 0x45, 0x8b, 0x20, 0x9e, 0xd6, 0x3a, 0x29, 0x4d, 0x99, 0x9b, 0x4c,
            0x86, 0x67, 0x59, 0x82,
        ];
        assert_eq!(hash(&[b"a", b"bc"]), expected);
    }

    #[test]
    fn a_new_transcript_has_the_published_chaining_key() {
        // HASH(CONSTRUCTION), as other implementations carry it as a constant.
        let expected = [
            96, 226, 109, 174, 243, 39, 239, 192, 46, 195, 53, 226, 160, 37, 210, 208, 22, 235, 66,
            6, 248, 114, 119, 245, 45, 56, 209, 152, 139, 120, 205, 54,
        ];
        let responder = PublicKey::from_bytes([1; 32]);
        let transcript = Transcript::new(DataCipher::ChaCha20Poly1305, &responder);
        assert_eq!(transcript.chaining_key, expected);
    }

    #[test]
    fn kdf_chains_the_hmac_as_the_whitepaper_says() {
        let (key, input) = ([3; 32], b"input");
        let secret = hmac(&key, &[input]);
        let first = hmac(&secret, &[&[1]]);
        let second = hmac(&secret, &[&first, &[2]]);
        let third = hmac(&secret, &[&second, &[3]]);
        assert_eq!(*kdf::<3>(&key, input), [first, second, third]);
        assert_eq!(*kdf::<1>(&key, input), [first]);
    }

    #[test]
    fn a_forged_field_does_not_open() {
        let responder = PublicKey::from_bytes([1; 32]);
        let start = Transcript::new(DataCipher::ChaCha20Poly1305, &responder);
        let (mut sender, mut receiver) = (start.clone(), start);
        let key = sender.mix_key_and_derive(b"shared");
        let mut field: [u8; 28] = sender.seal_field(&key, &[9; 12]);
        field[0] ^= 1;
        let key = receiver.mix_key_and_derive(b"shared");
        assert!(receiver.open_field::<12>(&key, &field).is_none());
        field[0] ^= 1;
        assert_eq!(receiver.open_field(&key, &field), Some([9; 12]));
        assert_eq!(sender.hash, receiver.hash);
    }
}

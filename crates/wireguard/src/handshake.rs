//! Noise_IKpsk2 (section 5.4): one piece of work per message and side.
//!
//! Each does public-key work, owns what it needs and touches no tunnel, so that the owner of a
//! tunnel can run it on another thread. Whom to answer, replays and MACs are decided by others: [`crate::tunnel`]
//! and [`crate::cookie`].

use std::fmt;
use std::sync::Arc;

use crate::cipher::DataCipher;
use crate::key::{KeyPair, PresharedKey, PrivateKey, PublicKey, SharedSecret};
use crate::message::{Initiation, Response};
use crate::session::{Role, TransportKeys};
use crate::symmetric::Transcript;
use crate::timestamp::Timestamp;

/// Why a handshake message is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A public key is a point of low order, with which no secret can be shared.
    #[error("a public key of the handshake is a low order point")]
    LowOrderPoint,
    /// A field does not decrypt: not meant for these keys, corrupted, or forged.
    #[error(
        "a field of the handshake message does not decrypt; do both sides have the right keys?"
    )]
    Forged,
}

/// An initiation to be sent, and what is needed to understand the response.
#[derive(Debug)]
pub struct CreatedInitiation {
    pub(crate) message: Initiation,
    pub(crate) state: InitiatorState,
}

/// What an initiator remembers until the response arrives. Clones share the ephemeral key, which
/// is wiped with the last of them.
#[derive(Clone)]
pub struct InitiatorState {
    local_index: u32,
    cipher: DataCipher,
    transcript: Transcript,
    ephemeral: Arc<KeyPair>,
}

impl InitiatorState {
    /// Returns the index by which the response addresses us.
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }
}

impl fmt::Debug for InitiatorState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("InitiatorState")
            .field("local_index", &self.local_index)
            .finish_non_exhaustive()
    }
}

/// The work of making an initiation, from [`crate::Tunnel::begin_initiation`].
#[derive(Debug)]
pub struct InitiationJob {
    pub(crate) peer: PublicKey,
    pub(crate) cipher: DataCipher,
    pub(crate) ephemeral: PrivateKey,
    pub(crate) local_index: u32,
    pub(crate) timestamp: Timestamp,
}

impl InitiationJob {
    /// Returns the index by which the response will address us.
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Makes the initiation; `local` is our static key.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::LowOrderPoint`] when the peer's public key cannot be one.
    pub fn run(self, local: &KeyPair) -> Result<CreatedInitiation, HandshakeError> {
        let ephemeral = KeyPair::new(&self.ephemeral);
        let mut transcript = Transcript::new(self.cipher, &self.peer);
        transcript.mix_ephemeral(ephemeral.public());
        let key = transcript.mix_key_and_derive(&*agree(&ephemeral, &self.peer)?);
        let encrypted_static = transcript.seal_field(&key, local.public().as_bytes());
        let key = transcript.mix_key_and_derive(&*agree(local, &self.peer)?);
        let encrypted_timestamp = transcript.seal_field(&key, self.timestamp.as_bytes());
        let message = Initiation {
            sender_index: self.local_index,
            ephemeral: *ephemeral.public(),
            encrypted_static,
            encrypted_timestamp,
        };
        let state = InitiatorState {
            local_index: self.local_index,
            cipher: self.cipher,
            transcript,
            ephemeral: Arc::new(ephemeral),
        };
        Ok(CreatedInitiation { message, state })
    }
}

/// An authentic initiation: the sender holds the private half of `peer`, but the message may be a
/// replay until [`crate::Tunnel::accept_initiation`] says otherwise.
pub struct ConsumedInitiation {
    peer: PublicKey,
    timestamp: Timestamp,
    remote_index: u32,
    peer_ephemeral: PublicKey,
    cipher: DataCipher,
    transcript: Transcript,
}

impl ConsumedInitiation {
    /// Returns the static public key of the initiator, by which its tunnel is found.
    pub const fn peer(&self) -> &PublicKey {
        &self.peer
    }

    /// Returns the cipher that the initiator wants for its packets and the peer's.
    pub const fn cipher(&self) -> DataCipher {
        self.cipher
    }

    /// Returns the time that the initiator claims.
    pub const fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}

impl fmt::Debug for ConsumedInitiation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConsumedInitiation")
            .field("peer", &self.peer)
            .field("remote_index", &self.remote_index)
            .finish_non_exhaustive()
    }
}

/// Decrypts an initiation that was sent to `local`, for the first of the ciphers that it is made for.
/// A cipher more costs a few hashes, no key agreement.
///
/// # Errors
///
/// [`HandshakeError`] when the message is not from the owner of the key that it carries, or for none
/// of these ciphers.
pub fn consume_initiation(
    local: &KeyPair,
    message: &Initiation,
    ciphers: &[DataCipher],
) -> Result<ConsumedInitiation, HandshakeError> {
    let shared = agree(local, &message.ephemeral)?;
    let (cipher, mut transcript, peer) = ciphers
        .iter()
        .find_map(|&cipher| {
            let mut transcript = Transcript::new(cipher, local.public());
            transcript.mix_ephemeral(&message.ephemeral);
            let key = transcript.mix_key_and_derive(&*shared);
            let peer = transcript.open_field(&key, &message.encrypted_static)?;
            Some((cipher, transcript, PublicKey::from_bytes(peer)))
        })
        .ok_or(HandshakeError::Forged)?;
    let key = transcript.mix_key_and_derive(&*agree(local, &peer)?);
    let timestamp = transcript
        .open_field(&key, &message.encrypted_timestamp)
        .map(Timestamp::from_bytes)
        .ok_or(HandshakeError::Forged)?;
    Ok(ConsumedInitiation {
        peer,
        timestamp,
        remote_index: message.sender_index,
        peer_ephemeral: message.ephemeral,
        cipher,
        transcript,
    })
}

/// The work of answering an initiation, from [`crate::Tunnel::accept_initiation`].
#[derive(Debug)]
pub struct ResponseJob {
    pub(crate) consumed: ConsumedInitiation,
    pub(crate) preshared_key: PresharedKey,
    pub(crate) ephemeral: PrivateKey,
    pub(crate) local_index: u32,
}

/// A response to be sent, and the keys that it brings into being.
#[derive(Debug)]
pub struct CreatedResponse {
    pub(crate) message: Response,
    pub(crate) keys: TransportKeys,
}

impl ResponseJob {
    /// Returns the index by which the peer will address the session.
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Makes the response.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::LowOrderPoint`] when a key of the initiator cannot be one.
    pub fn run(self) -> Result<CreatedResponse, HandshakeError> {
        let ephemeral = KeyPair::new(&self.ephemeral);
        let mut transcript = self.consumed.transcript;
        transcript.mix_ephemeral(ephemeral.public());
        transcript.mix_key(&*agree(&ephemeral, &self.consumed.peer_ephemeral)?);
        transcript.mix_key(&*agree(&ephemeral, &self.consumed.peer)?);
        let key = transcript.mix_preshared_key(self.preshared_key.as_bytes());
        let message = Response {
            sender_index: self.local_index,
            receiver_index: self.consumed.remote_index,
            ephemeral: *ephemeral.public(),
            encrypted_nothing: transcript.seal_field(&key, &[]),
        };
        let keys = TransportKeys::new(
            Role::Responder,
            self.consumed.cipher,
            self.local_index,
            self.consumed.remote_index,
            transcript.split(),
        );
        Ok(CreatedResponse { message, keys })
    }
}

/// The work of understanding a response, from [`crate::Tunnel::begin_completion`].
#[derive(Debug)]
pub struct CompletionJob {
    pub(crate) state: InitiatorState,
    pub(crate) preshared_key: PresharedKey,
    pub(crate) message: Response,
}

impl CompletionJob {
    /// Finds the keys of the session; `local` is our static key.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] when the message is not from the peer that was asked.
    pub fn run(self, local: &KeyPair) -> Result<TransportKeys, HandshakeError> {
        let Self { state, message, .. } = self;
        let mut transcript = state.transcript;
        transcript.mix_ephemeral(&message.ephemeral);
        transcript.mix_key(&*agree(&state.ephemeral, &message.ephemeral)?);
        transcript.mix_key(&*agree(local, &message.ephemeral)?);
        let key = transcript.mix_preshared_key(self.preshared_key.as_bytes());
        transcript
            .open_field::<0>(&key, &message.encrypted_nothing)
            .ok_or(HandshakeError::Forged)?;
        Ok(TransportKeys::new(
            Role::Initiator,
            state.cipher,
            state.local_index,
            message.sender_index,
            transcript.split(),
        ))
    }
}

fn agree(ours: &KeyPair, theirs: &PublicKey) -> Result<SharedSecret, HandshakeError> {
    ours.agree(theirs).ok_or(HandshakeError::LowOrderPoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIPHER: DataCipher = DataCipher::ChaCha20Poly1305;

    fn private(byte: u8) -> PrivateKey {
        PrivateKey::from_bytes([byte; 32])
    }

    fn pair(byte: u8) -> KeyPair {
        KeyPair::new(&private(byte))
    }

    fn psk(byte: u8) -> PresharedKey {
        PresharedKey::from_bytes([byte; 32])
    }

    fn initiation(peer: &KeyPair) -> CreatedInitiation {
        let job = InitiationJob {
            peer: *peer.public(),
            cipher: CIPHER,
            ephemeral: private(3),
            local_index: 100,
            timestamp: Timestamp::default(),
        };
        job.run(&pair(1)).unwrap()
    }

    fn response(consumed: ConsumedInitiation) -> CreatedResponse {
        let job = ResponseJob {
            consumed,
            preshared_key: psk(9),
            ephemeral: private(4),
            local_index: 200,
        };
        job.run().unwrap()
    }

    fn complete(
        created: &CreatedInitiation,
        preshared_key: PresharedKey,
        message: Response,
    ) -> Result<TransportKeys, HandshakeError> {
        let state = created.state.clone();
        CompletionJob {
            state,
            preshared_key,
            message,
        }
        .run(&pair(1))
    }

    #[test]
    fn the_cipher_is_the_initiators_wish_and_nobody_between_can_change_it() {
        let bob = pair(2);
        let job_of = |cipher| InitiationJob {
            peer: *bob.public(),
            cipher,
            ephemeral: private(3),
            local_index: 100,
            timestamp: Timestamp::default(),
        };
        for cipher in DataCipher::ALL {
            let created = job_of(cipher).run(&pair(1)).unwrap();
            let consumed = consume_initiation(&bob, &created.message, &DataCipher::ALL).unwrap();
            assert_eq!(consumed.cipher(), cipher);
            let response = response(consumed);
            let keys = complete(&created, psk(9), response.message).unwrap();
            assert!(keys.mirrors(&response.keys));
            let others: Vec<_> = DataCipher::ALL
                .into_iter()
                .filter(|it| *it != cipher)
                .collect();
            let result = consume_initiation(&bob, &created.message, &others);
            assert_eq!(result.unwrap_err(), HandshakeError::Forged);
        }
        // Two that differ in nothing else share nothing: an answer to one does not end the other.
        let [aes, standard] = DataCipher::ALL.map(|cipher| job_of(cipher).run(&pair(1)).unwrap());
        let answered = consume_initiation(&bob, &standard.message, &DataCipher::ALL).unwrap();
        let result = complete(&aes, psk(9), response(answered).message);
        assert_eq!(result.unwrap_err(), HandshakeError::Forged);
    }

    #[test]
    fn responder_learns_the_initiator_and_both_derive_mirrored_keys() {
        let bob = pair(2);
        let created = initiation(&bob);
        let consumed = consume_initiation(&bob, &created.message, &[CIPHER]).unwrap();
        assert_eq!(consumed.peer(), pair(1).public());
        let response = response(consumed);
        let keys = complete(&created, psk(9), response.message).unwrap();
        assert!(keys.mirrors(&response.keys));
    }

    #[test]
    fn a_different_preshared_key_is_forged() {
        let bob = pair(2);
        let created = initiation(&bob);
        let response = response(consume_initiation(&bob, &created.message, &[CIPHER]).unwrap());
        let result = complete(&created, PresharedKey::default(), response.message);
        assert_eq!(result.unwrap_err(), HandshakeError::Forged);
    }

    #[test]
    fn an_initiation_for_another_host_is_forged() {
        let created = initiation(&pair(2));
        let result = consume_initiation(&pair(5), &created.message, &[CIPHER]);
        assert_eq!(result.unwrap_err(), HandshakeError::Forged);
    }

    #[test]
    fn low_order_ephemerals_are_refused_on_both_sides() {
        let bob = pair(2);
        let created = initiation(&bob);
        let mut message = created.message.clone();
        message.ephemeral = PublicKey::from_bytes([0; 32]);
        let result = consume_initiation(&bob, &message, &[CIPHER]);
        assert_eq!(result.unwrap_err(), HandshakeError::LowOrderPoint);

        let consumed = consume_initiation(&bob, &created.message, &[CIPHER]).unwrap();
        let mut message = response(consumed).message;
        message.ephemeral = PublicKey::from_bytes([0; 32]);
        let result = complete(&created, psk(9), message);
        assert_eq!(result.unwrap_err(), HandshakeError::LowOrderPoint);
    }
}

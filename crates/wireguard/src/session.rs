//! One session: the transport keys of a finished handshake, its counters and its replay window.
//!
//! Sealing and opening work in the caller's memory. Which session is used when, and keepalives,
//! belong to [`crate::tunnel`].

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::cipher::{DataCipher, DataKey, TAG_LEN};
use crate::message::DataHeader;
use crate::replay::ReplayWindow;
use crate::timers::REJECT_AFTER_TIME;

/// Plaintext is padded to a multiple of this.
const PADDING: usize = 16; // section 5.4.6

/// Which side of the handshake we were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We sent the initiation; only we renew the session by time.
    Initiator,
    /// We answered it; we wait for the first packet before we use the session.
    Responder,
}

/// Why a packet was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no session that may be used; the tunnel has asked for a handshake.
    #[error("no usable session with the peer; a handshake was asked for")]
    NeedsHandshake,
    /// The caller's buffer is too short.
    #[error("the buffer is too short for a sealed packet of {needed} bytes")]
    BufferTooShort {
        /// Bytes that the sealed packet takes.
        needed: usize,
    },
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is no data message.
    #[error("not a data message")]
    Malformed,
    /// It names a session that this tunnel does not have.
    #[error("no session with this receiver index")]
    UnknownIndex,
    /// Its session is too old or has seen too many packets.
    #[error("the session of the packet has expired")]
    Expired,
    /// Its counter was seen before, or is too old to tell.
    #[error("the counter of the packet was seen before or is too old")]
    Replayed,
    /// Its tag does not match.
    #[error("the packet is not authentic")]
    Forged,
}

/// Returns the bytes that a plaintext takes when sealed, see [`Session::seal_into`].
#[inline]
pub const fn sealed_len(plaintext_len: usize, plaintext_max: usize) -> usize {
    DataHeader::LEN + padded_len(plaintext_len, plaintext_max) + TAG_LEN
}

#[inline]
const fn padded_len(plaintext_len: usize, plaintext_max: usize) -> usize {
    let padded = plaintext_len.next_multiple_of(PADDING);
    if padded <= plaintext_max {
        padded
    } else if plaintext_len <= plaintext_max {
        plaintext_max
    } else {
        plaintext_len
    }
}

/// The keys that a handshake ends with, wiped when dropped.
pub struct TransportKeys {
    role: Role,
    cipher: DataCipher,
    local_index: u32,
    remote_index: u32,
    send: Zeroizing<[u8; 32]>,
    receive: Zeroizing<[u8; 32]>,
}

impl TransportKeys {
    /// Assigns the handshake's two keys, the initiator's sending key first.
    pub(crate) fn new(
        role: Role,
        cipher: DataCipher,
        local_index: u32,
        remote_index: u32,
        keys: Zeroizing<[[u8; 32]; 2]>,
    ) -> Self {
        let (send, receive) = match role {
            Role::Initiator => (0, 1),
            Role::Responder => (1, 0),
        };
        Self {
            role,
            cipher,
            local_index,
            remote_index,
            send: Zeroizing::new(keys[send]),
            receive: Zeroizing::new(keys[receive]),
        }
    }

    /// Returns which side of the handshake we were.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Returns the index by which the peer addresses the session.
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }

    #[cfg(test)]
    pub(crate) fn mirrors(&self, other: &Self) -> bool {
        *self.send == *other.receive
            && *self.receive == *other.send
            && self.local_index == other.remote_index
            && self.remote_index == other.local_index
            && self.role != other.role
    }
}

impl fmt::Debug for TransportKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TransportKeys")
            .field("role", &self.role)
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .finish_non_exhaustive()
    }
}

/// A pair of keys in use.
pub struct Session {
    role: Role,
    cipher: DataCipher,
    local_index: u32,
    remote_index: u32,
    born_at: Duration,
    confirmed: bool,
    send_key: DataKey,
    send_counter: u64,
    receive_key: DataKey,
    received: ReplayWindow,
}

impl Session {
    /// Starts a session at `now`, with counters at zero.
    pub fn new(keys: &TransportKeys, now: Duration) -> Self {
        Self {
            role: keys.role,
            cipher: keys.cipher,
            local_index: keys.local_index,
            remote_index: keys.remote_index,
            born_at: now,
            confirmed: keys.role == Role::Initiator,
            send_key: DataKey::new(keys.cipher, &keys.send),
            send_counter: 0,
            receive_key: DataKey::new(keys.cipher, &keys.receive),
            received: ReplayWindow::default(),
        }
    }

    /// Returns which side of the handshake we were.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Returns what its packets are sealed with.
    pub const fn cipher(&self) -> DataCipher {
        self.cipher
    }

    /// Returns the index by which the peer addresses the session.
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Tells whether the peer is known to have the keys: it answered with them, or used them.
    pub const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    pub(crate) const fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// Returns when the session began.
    pub const fn born_at(&self) -> Duration {
        self.born_at
    }

    /// Returns how old the session is.
    pub const fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.born_at)
    }

    /// Returns when the session's keys must not be used any more.
    pub const fn expires_at(&self) -> Duration {
        self.born_at.saturating_add(REJECT_AFTER_TIME)
    }

    /// Tells whether so many packets were sent that a new session is due.
    pub const fn is_worn(&self) -> bool {
        self.send_counter >= self.cipher.rekey_after_messages()
    }

    /// Tells whether the session may still send.
    pub fn can_send(&self, now: Duration) -> bool {
        now < self.expires_at() && self.send_counter < self.cipher.reject_after_messages()
    }

    /// Seals the concatenated `pieces` into `out` as a whole data message and returns its length.
    ///
    /// The plaintext is padded with zeros to 16 bytes, but not beyond `plaintext_max`, which is
    /// the path's MTU without the tunnel's overhead.
    ///
    /// # Errors
    ///
    /// [`SealError`] when the session has ended or `out` is too short; nothing was sent then.
    #[inline]
    pub fn seal_into(
        &mut self,
        pieces: &[&[u8]],
        plaintext_max: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Result<usize, SealError> {
        if !self.can_send(now) {
            return Err(SealError::NeedsHandshake);
        }
        let plaintext_len = pieces.iter().map(|piece| piece.len()).sum();
        let needed = sealed_len(plaintext_len, plaintext_max);
        let out = out
            .get_mut(..needed)
            .ok_or(SealError::BufferTooShort { needed })?;
        let (header, rest) = out.split_at_mut(DataHeader::LEN);
        let (plaintext, tag) = rest.split_at_mut(needed - DataHeader::LEN - TAG_LEN);
        let counter = self.send_counter;
        self.send_counter += 1;
        header.copy_from_slice(&self.header(counter).encode());
        gather(pieces, plaintext);
        tag.copy_from_slice(&self.send_key.seal(counter, plaintext));
        Ok(needed)
    }

    /// Opens a data message in place and returns where its plaintext is, padding included.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; only an authentic and fresh packet changes the session. After
    /// [`OpenError::Forged`] the datagram's content is spoilt.
    #[inline]
    pub fn open_in_place(
        &mut self,
        datagram: &mut [u8],
        now: Duration,
    ) -> Result<Range<usize>, OpenError> {
        let header = DataHeader::parse(datagram).ok_or(OpenError::Malformed)?;
        if header.receiver_index != self.local_index {
            return Err(OpenError::UnknownIndex);
        }
        if now >= self.expires_at() || header.counter >= self.cipher.reject_after_messages() {
            return Err(OpenError::Expired);
        }
        if !self.received.is_fresh(header.counter) {
            return Err(OpenError::Replayed);
        }
        let end = datagram.len() - TAG_LEN;
        let (rest, tag) = datagram.split_at_mut(end);
        let ciphertext = &mut rest[DataHeader::LEN..];
        if !self.receive_key.open(header.counter, tag, ciphertext) {
            return Err(OpenError::Forged);
        }
        self.received.mark(header.counter);
        Ok(DataHeader::LEN..end)
    }

    /// Lets the session look as if it had sent so many packets.
    #[cfg(test)]
    pub(crate) const fn skip_to(&mut self, send_counter: u64) {
        self.send_counter = send_counter;
    }

    fn header(&self, counter: u64) -> DataHeader {
        DataHeader {
            receiver_index: self.remote_index,
            counter,
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("role", &self.role)
            .field("cipher", &self.cipher)
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .field("born_at", &self.born_at)
            .field("send_counter", &self.send_counter)
            .finish_non_exhaustive()
    }
}

/// Copies the pieces one after the other and fills the rest with zeros.
#[inline]
fn gather(pieces: &[&[u8]], plaintext: &mut [u8]) {
    let mut filled = 0;
    for piece in pieces {
        plaintext[filled..filled + piece.len()].copy_from_slice(piece);
        filled += piece.len();
    }
    plaintext[filled..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);
    const MAX: usize = 1420;

    fn sessions() -> (Session, Session) {
        sessions_with(DataCipher::ChaCha20Poly1305)
    }

    fn sessions_with(cipher: DataCipher) -> (Session, Session) {
        let keys = || Zeroizing::new([[1; 32], [2; 32]]);
        let ours = TransportKeys::new(Role::Initiator, cipher, 10, 20, keys());
        let theirs = TransportKeys::new(Role::Responder, cipher, 20, 10, keys());
        (Session::new(&ours, NOW), Session::new(&theirs, NOW))
    }

    fn sealed(session: &mut Session, plaintext: &[u8]) -> Vec<u8> {
        let mut out = vec![0xff; 2000];
        let length = session.seal_into(&[plaintext], MAX, &mut out, NOW).unwrap();
        out.truncate(length);
        out
    }

    #[test]
    fn pieces_arrive_joined_and_padded_with_zeros() {
        let (mut ours, mut theirs) = sessions();
        let mut out = [0xff; 100];
        let length = ours
            .seal_into(&[b"hello ", b"", b"peer"], MAX, &mut out, NOW)
            .unwrap();
        assert_eq!(length, sealed_len(10, MAX));
        let range = theirs.open_in_place(&mut out[..length], NOW).unwrap();
        assert_eq!(&out[range], b"hello peer\0\0\0\0\0\0");
    }

    #[test]
    fn padding_stops_at_the_path_mtu() {
        assert_eq!(padded_len(0, MAX), 0);
        assert_eq!(padded_len(1, MAX), 16);
        assert_eq!(padded_len(1408, MAX), 1408);
        assert_eq!(padded_len(1409, MAX), 1420);
        assert_eq!(padded_len(1420, MAX), 1420);
        assert_eq!(
            padded_len(1421, MAX),
            1421,
            "too big for the path, not for us to cut"
        );
    }

    #[test]
    fn the_buffer_may_not_be_shorter_than_the_message() {
        let (mut ours, _) = sessions();
        let mut out = [0; 47];
        let error = ours.seal_into(&[b"x"], MAX, &mut out, NOW).unwrap_err();
        assert_eq!(error, SealError::BufferTooShort { needed: 48 });
        assert_eq!(ours.send_counter, 0, "no counter is spent");
    }

    #[test]
    fn a_packet_opens_once() {
        let (mut ours, mut theirs) = sessions();
        let datagram = sealed(&mut ours, b"once");
        assert!(theirs.open_in_place(&mut datagram.clone(), NOW).is_ok());
        let again = theirs.open_in_place(&mut datagram.clone(), NOW);
        assert_eq!(again, Err(OpenError::Replayed));
    }

    #[test]
    fn a_forged_packet_does_not_move_the_window() {
        let (mut ours, mut theirs) = sessions();
        let datagram = sealed(&mut ours, b"real");
        let mut forged = datagram.clone();
        forged[9] = 0xff;
        assert_eq!(
            theirs.open_in_place(&mut forged, NOW),
            Err(OpenError::Forged)
        );
        assert!(theirs.open_in_place(&mut datagram.clone(), NOW).is_ok());
    }

    #[test]
    fn an_expired_session_neither_seals_nor_opens() {
        let (mut ours, mut theirs) = sessions();
        let mut datagram = sealed(&mut ours, b"late");
        let late = NOW + REJECT_AFTER_TIME;
        assert_eq!(
            theirs.open_in_place(&mut datagram, late),
            Err(OpenError::Expired)
        );
        let sealed = ours.seal_into(&[b"late"], MAX, &mut [0; 100], late);
        assert_eq!(sealed, Err(SealError::NeedsHandshake));
    }

    #[test]
    fn a_session_ends_after_its_last_message() {
        let limits = DataCipher::ALL.map(DataCipher::reject_after_messages);
        assert_eq!(limits, [1 << 25, 0xffff_ffff_ffff_dfff]);
        for (cipher, limit) in DataCipher::ALL.into_iter().zip(limits) {
            let (mut ours, mut theirs) = sessions_with(cipher);
            ours.skip_to(limit - 1);
            assert!(ours.is_worn());
            let mut last = sealed(&mut ours, b"last");
            assert!(theirs.open_in_place(&mut last, NOW).is_ok());
            let sealed = ours.seal_into(&[b"more"], MAX, &mut [0; 100], NOW);
            assert_eq!(sealed, Err(SealError::NeedsHandshake));

            let header = DataHeader {
                receiver_index: 20,
                counter: limit,
            };
            let mut beyond = [0; 64];
            beyond[..DataHeader::LEN].copy_from_slice(&header.encode());
            let opened = theirs.open_in_place(&mut beyond, NOW);
            assert_eq!(opened, Err(OpenError::Expired));
        }
    }
}

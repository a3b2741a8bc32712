//! One peer: its sessions, handshakes in both roles, timers and cookie (section 6).
//!
//! [`Tunnel`] decides; its owner has the endpoint, the queue of packets that wait for a session,
//! the table of receiver indices, the dice, and the threads for [`crate::handshake`]'s jobs.

use std::ops::Range;
use std::time::Duration;

use crate::cipher::DataCipher;
use crate::cookie::{CookieJar, CookieRejected};
use crate::handshake::{
    CompletionJob, ConsumedInitiation, CreatedInitiation, CreatedResponse, InitiationJob,
    InitiatorState, ResponseJob,
};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::keyring::Keyring;
use crate::message::{CookieReply, DataHeader, Initiation, Response};
use crate::session::{OpenError, Role, SealError, Session, TransportKeys, sealed_len};
use crate::timers::{
    Due, INITIATION_INTERVAL, REKEY_AFTER_TIME, REKEY_ON_RECEIVE_TIME, Start, Timers,
};
use crate::timestamp::Timestamp;

/// What a tunnel has to know of its peer.
#[derive(Debug)]
pub struct TunnelConfig {
    /// The peer's static public key.
    pub peer: PublicKey,
    /// The preshared key; all zeros when there is none.
    pub preshared_key: PresharedKey,
    /// Whether and how often a packet is sent to keep a NAT's mapping; at least a second.
    pub persistent_keepalive: Option<Duration>,
    /// The cipher of the sessions that we begin with this peer; those that it begins have the one that
    /// it chose.
    pub cipher: DataCipher,
    /// Any number; different at the two ends of a tunnel, so that they do not retry in step.
    pub jitter_seed: u64,
}

/// What the owner of a tunnel has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forget a receiver index; the tunnel does not know it any more.
    IndexRemoved(u32),
    /// Seal and send the packets that wait for a session.
    SessionReady,
    /// Run [`Tunnel::begin_initiation`] to [`Tunnel::install_initiation`] and send the result.
    SendInitiation,
    /// Seal nothing and send it: `seal_into(&[], ..)`. Asked for after [`Action::SessionReady`],
    /// and withdrawn when a packet is sealed before it is polled.
    SendKeepalive,
    /// The peer did not answer for 90 seconds after the last packet that asked for a session:
    /// drop the packets that wait for one. It is quiet now until there is another.
    Expired,
}

/// Why an authentic initiation is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitiationRefused {
    /// It comes from the owner of another key.
    #[error("the initiation is from another peer")]
    WrongPeer,
    /// Its timestamp is not later than the last: a replay, or the peer's clock was set back.
    #[error("the initiation is a replay, or the peer's clock was set back")]
    Replayed,
    /// The last one from this peer is less than 50 ms old.
    #[error("the peer sends initiations too fast")]
    TooSoon,
}

/// A job's result came after the tunnel had moved on; its index is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handshake was overtaken by another or given up")]
pub struct Superseded;

/// One peer's protocol state machine.
///
/// After every call with `&mut self`, or every batch of packets, drain [`Tunnel::poll_action`];
/// call [`Tunnel::handle_timeout`] when [`Tunnel::poll_timeout`] says so.
#[derive(Debug)]
pub struct Tunnel {
    peer: PublicKey,
    preshared_key: PresharedKey,
    cipher: DataCipher,
    keyring: Keyring,
    initiator: Option<InitiatorState>,
    cookie_jar: CookieJar,
    timers: Timers,
    pending: Pending,
    last_sent_timestamp: Timestamp,
    last_accepted: Option<Accepted>,
    last_handshake_at: Option<Duration>,
}

/// The last initiation of the peer that we answered.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    timestamp: Timestamp,
    at: Duration,
}

/// Actions that were not polled yet.
#[derive(Debug, Default)]
struct Pending {
    removed: Vec<u32>,
    session_ready: bool,
    send_initiation: bool,
    send_keepalive: bool,
    expired: bool,
}

impl Pending {
    #[inline]
    const fn is_empty(&self) -> bool {
        let Self {
            removed,
            session_ready,
            send_initiation,
            send_keepalive,
            expired,
        } = self;
        removed.is_empty() && !(*session_ready || *send_initiation || *send_keepalive || *expired)
    }
}

/// Packets.
impl Tunnel {
    /// Makes a tunnel without a session; nothing is sent before there is a reason. A persistent
    /// keepalive is a reason at once.
    pub fn new(config: TunnelConfig, now: Duration) -> Self {
        let mut timers = Timers::new(config.jitter_seed);
        timers.set_persistent(config.persistent_keepalive, now);
        Self {
            cookie_jar: CookieJar::new(&config.peer),
            peer: config.peer,
            preshared_key: config.preshared_key,
            cipher: config.cipher,
            keyring: Keyring::default(),
            initiator: None,
            timers,
            pending: Pending::default(),
            last_sent_timestamp: Timestamp::default(),
            last_accepted: None,
            last_handshake_at: None,
        }
    }

    /// Seals the concatenated `pieces` into `out` and returns the datagram's length, see
    /// [`Session::seal_into`] and [`sealed_len`]. No pieces make a keepalive.
    ///
    /// # Errors
    ///
    /// [`SealError::NeedsHandshake`] when there is no usable session: keep the packet until
    /// [`Action::SessionReady`] or [`Action::Expired`], or drop it.
    #[inline]
    pub fn seal_into(
        &mut self,
        pieces: &[&[u8]],
        plaintext_max: usize,
        out: &mut [u8],
        now: Duration,
    ) -> Result<usize, SealError> {
        let sealed = match self.keyring.current_mut() {
            Some(session) => session.seal_into(pieces, plaintext_max, out, now),
            None => Err(SealError::NeedsHandshake),
        };
        match sealed {
            Ok(length) => self.packet_sealed(length, now),
            Err(SealError::NeedsHandshake) => self.request_handshake(now),
            Err(SealError::BufferTooShort { .. }) => {}
        }
        sealed
    }

    /// Opens a data message in place and returns where its plaintext is, padding included; an
    /// empty range is a keepalive. `Ok` means that the peer is at the datagram's source.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the tunnel is unchanged then.
    #[inline]
    pub fn open_in_place(
        &mut self,
        datagram: &mut [u8],
        now: Duration,
    ) -> Result<Range<usize>, OpenError> {
        let header = DataHeader::parse(datagram).ok_or(OpenError::Malformed)?;
        let index = header.receiver_index;
        let session = self
            .keyring
            .find_mut(index)
            .ok_or(OpenError::UnknownIndex)?;
        let plaintext = session.open_in_place(datagram, now)?;
        if !session.is_confirmed() {
            self.session_confirmed(index, now);
        }
        self.timers.any_received(now);
        if !plaintext.is_empty() {
            self.timers.data_received(now);
        }
        if self.is_renewal_due(now, REKEY_ON_RECEIVE_TIME) {
            self.start_handshake(now);
        }
        Ok(plaintext)
    }

    #[inline]
    fn packet_sealed(&mut self, length: usize, now: Duration) {
        self.pending.send_keepalive = false;
        self.timers.any_sent(now);
        if length > sealed_len(0, 0) {
            self.timers.data_sent(now);
        }
        if self.is_worn() || self.is_renewal_due(now, REKEY_AFTER_TIME) {
            self.request_handshake(now);
        }
    }

    /// Only who initiated a session renews it by time, else both ends would.
    #[inline]
    fn is_renewal_due(&self, now: Duration, age: Duration) -> bool {
        self.keyring
            .current()
            .is_some_and(|session| session.role() == Role::Initiator && session.age(now) >= age)
    }

    /// The first packet of a session that we answered: the peer has its keys.
    fn session_confirmed(&mut self, local_index: u32, now: Duration) {
        if self.keyring.confirm(local_index, &mut self.pending.removed) {
            self.drop_initiator();
            self.session_ready(now);
        }
    }

    fn session_ready(&mut self, now: Duration) {
        self.timers.handshake_complete();
        self.pending.send_initiation = false;
        self.pending.session_ready = true;
        self.last_handshake_at = Some(now);
    }
}

/// Handshakes that we initiate.
impl Tunnel {
    /// Asks for a handshake as if a packet waited for it: at once, or as soon as the last
    /// initiation is five seconds old.
    pub fn request_handshake(&mut self, now: Duration) {
        if self.timers.want_handshake(now) == Start::Now {
            self.pending.send_initiation = true;
        }
    }

    /// Begins the initiation that [`Action::SendInitiation`] asks for. `ephemeral` is random,
    /// `local_index` random and free at this host, `clock` the present time; the tunnel sees to
    /// it that timestamps grow even when the clock was set back.
    pub fn begin_initiation(
        &mut self,
        ephemeral: PrivateKey,
        local_index: u32,
        clock: Timestamp,
    ) -> InitiationJob {
        self.last_sent_timestamp = clock.later_than(self.last_sent_timestamp);
        InitiationJob {
            peer: self.peer,
            cipher: self.cipher,
            ephemeral,
            local_index,
            timestamp: self.last_sent_timestamp,
        }
    }

    /// Takes the result of the job and returns the datagram to send. From now on the index that
    /// it was begun with is live; the index of an earlier initiation is removed.
    ///
    /// # Errors
    ///
    /// [`Superseded`] when no handshake is wanted any more; send nothing.
    pub fn install_initiation(
        &mut self,
        created: CreatedInitiation,
        now: Duration,
    ) -> Result<[u8; Initiation::LEN], Superseded> {
        if !self.timers.is_trying() {
            return Err(Superseded);
        }
        self.drop_initiator();
        let mut datagram = created.message.encode();
        self.cookie_jar.sign(&mut datagram, now);
        self.initiator = Some(created.state);
        self.timers.handshake_sent(now);
        Ok(datagram)
    }

    /// Begins to understand a response; `None` when none is awaited under its index. The tunnel
    /// keeps waiting until [`Tunnel::install_session`], so that a forged response spoils nothing.
    pub fn begin_completion(&self, message: Response) -> Option<CompletionJob> {
        let state = self.initiator.as_ref()?;
        (state.local_index() == message.receiver_index).then(|| CompletionJob {
            state: state.clone(),
            preshared_key: self.preshared_key.clone(),
            message,
        })
    }

    /// Takes the keys that the job found. `Ok` means that the peer is at the response's source.
    ///
    /// # Errors
    ///
    /// [`Superseded`] when the response was already taken or another initiation was sent since.
    pub fn install_session(
        &mut self,
        keys: TransportKeys,
        now: Duration,
    ) -> Result<(), Superseded> {
        self.initiator
            .take_if(|state| state.local_index() == keys.local_index())
            .ok_or(Superseded)?;
        self.keyring
            .install_initiated(Session::new(&keys, now), &mut self.pending.removed);
        self.timers.session_begun();
        self.timers.any_received(now);
        self.session_ready(now);
        self.pending.send_keepalive = true;
        Ok(())
    }

    /// Takes a cookie reply. It does not say where the peer is, and nothing is sent because of
    /// it: the cookie goes into the next initiation or response.
    ///
    /// # Errors
    ///
    /// [`CookieRejected`] when it is not the first authentic reply to the last message.
    pub fn handle_cookie_reply(
        &mut self,
        reply: &CookieReply,
        now: Duration,
    ) -> Result<(), CookieRejected> {
        self.cookie_jar.consume(reply, now)
    }

    /// Asks for a handshake for which no packet waits.
    fn start_handshake(&mut self, now: Duration) {
        if !self.timers.is_trying() {
            self.request_handshake(now);
        }
    }

    fn drop_initiator(&mut self) {
        let state = self.initiator.take();
        self.pending
            .removed
            .extend(state.map(|state| state.local_index()));
    }
}

/// Handshakes that the peer initiates.
impl Tunnel {
    /// Decides whether an authentic initiation of this peer is answered. `ephemeral` is random,
    /// `local_index` random and free at this host. `Ok` means that the peer is at the datagram's
    /// source.
    ///
    /// # Errors
    ///
    /// [`InitiationRefused`]; the tunnel is unchanged then.
    pub fn accept_initiation(
        &mut self,
        consumed: ConsumedInitiation,
        ephemeral: PrivateKey,
        local_index: u32,
        now: Duration,
    ) -> Result<ResponseJob, InitiationRefused> {
        if *consumed.peer() != self.peer {
            return Err(InitiationRefused::WrongPeer);
        }
        if let Some(last) = self.last_accepted {
            if consumed.timestamp() <= last.timestamp {
                return Err(InitiationRefused::Replayed);
            }
            if now.saturating_sub(last.at) < INITIATION_INTERVAL {
                return Err(InitiationRefused::TooSoon);
            }
        }
        self.last_accepted = Some(Accepted {
            timestamp: consumed.timestamp(),
            at: now,
        });
        self.timers.any_received(now);
        Ok(ResponseJob {
            consumed,
            preshared_key: self.preshared_key.clone(),
            ephemeral,
            local_index,
        })
    }

    /// Takes the result of the job and returns the datagram to send. From now on the index that
    /// it was begun with is live. The session is used when its first packet has arrived.
    pub fn install_response(
        &mut self,
        created: CreatedResponse,
        now: Duration,
    ) -> [u8; Response::LEN] {
        let mut datagram = created.message.encode();
        self.cookie_jar.sign(&mut datagram, now);
        self.keyring
            .install_responded(Session::new(&created.keys, now), &mut self.pending.removed);
        self.timers.session_begun();
        self.timers.handshake_sent(now);
        datagram
    }
}

/// Time, actions and state.
impl Tunnel {
    /// Tells whether there is nothing new for the owner since [`Tunnel::mark_settled`]: no action to
    /// poll, and no timeout earlier than it was. So it is after nearly every packet.
    #[inline]
    pub const fn is_settled(&self) -> bool {
        self.pending.is_empty() && !self.timers.is_armed_anew()
    }

    /// The owner has polled all actions and the timeout.
    #[inline]
    pub const fn mark_settled(&mut self) {
        self.timers.forget_armed();
    }

    /// Returns when this tunnel next needs the clock, and why.
    pub fn poll_timeout(&self) -> Option<(Duration, &'static str)> {
        let expiry = self.keyring.next_expiry().map(|at| (at, "session expiry"));
        [self.timers.next(), expiry].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.keyring.expire(now, &mut self.pending.removed);
        while let Some(due) = self.timers.take_due(now) {
            match due {
                Due::Retry => self.pending.send_initiation = true,
                Due::GiveUp => self.give_up(),
                Due::NoReply => self.start_handshake(now),
                Due::Keepalive => self.pending.send_keepalive = self.has_session(now),
                Due::PersistentKeepalive if self.has_session(now) => {
                    self.pending.send_keepalive = true;
                }
                Due::PersistentKeepalive => self.start_handshake(now),
            }
        }
    }

    /// Returns the next thing that the owner has to do.
    #[inline]
    pub fn poll_action(&mut self) -> Option<Action> {
        let pending = &mut self.pending;
        if let Some(index) = pending.removed.pop() {
            return Some(Action::IndexRemoved(index));
        }
        [
            (&mut pending.session_ready, Action::SessionReady),
            (&mut pending.send_initiation, Action::SendInitiation),
            (&mut pending.send_keepalive, Action::SendKeepalive),
            (&mut pending.expired, Action::Expired),
        ]
        .into_iter()
        .find_map(|(wanted, action)| std::mem::take(wanted).then_some(action))
    }

    /// Returns the peer's static public key.
    pub const fn peer(&self) -> &PublicKey {
        &self.peer
    }

    /// Tells whether a packet could be sealed now.
    pub fn has_session(&self, now: Duration) -> bool {
        self.keyring
            .current()
            .is_some_and(|session| session.can_send(now))
    }

    /// Tells whether another session is due because of how much the present one has sealed, however
    /// young it is.
    pub fn is_worn(&self) -> bool {
        self.keyring.current().is_some_and(Session::is_worn)
    }

    /// Tells whether a handshake is tried that we initiate.
    pub const fn is_trying(&self) -> bool {
        self.timers.is_trying()
    }

    /// Returns when a session was last agreed on with the peer.
    pub const fn last_handshake_at(&self) -> Option<Duration> {
        self.last_handshake_at
    }

    /// Returns what packets to the peer are sealed with now.
    pub fn cipher(&self) -> Option<DataCipher> {
        self.keyring.current().map(Session::cipher)
    }

    /// Returns every receiver index by which the peer may address this tunnel.
    pub fn live_indices(&self) -> impl Iterator<Item = u32> {
        let waiting = self.initiator.as_ref().map(InitiatorState::local_index);
        self.keyring.indices().chain(waiting)
    }

    /// Changes the persistent keepalive; a new one is due at once.
    pub fn set_persistent_keepalive(&mut self, interval: Option<Duration>, now: Duration) {
        self.timers.set_persistent(interval, now);
    }

    /// Changes the preshared key; sessions that exist live on until they are renewed.
    pub fn set_preshared_key(&mut self, preshared_key: PresharedKey) {
        self.preshared_key = preshared_key;
    }

    /// Changes the cipher of the handshakes that we begin from now on; sessions that exist live on until
    /// they are renewed.
    pub fn set_cipher(&mut self, cipher: DataCipher) {
        self.cipher = cipher;
    }

    /// Changes the peer's static key: the next handshake is with it; sessions that exist, and a
    /// handshake that is under way, live on.
    pub fn set_peer(&mut self, peer: PublicKey) {
        self.cookie_jar = CookieJar::new(&peer);
        self.peer = peer;
        // Timestamps are compared between handshakes of one key only.
        self.last_accepted = None;
    }

    /// Returns the date of the peer's last initiation that was answered.
    pub fn last_initiation(&self) -> Option<Timestamp> {
        self.last_accepted.map(|last| last.timestamp)
    }

    /// Refuses initiations that are not later than this one, which another tunnel answered.
    pub fn refuse_initiations_until(&mut self, timestamp: Timestamp) {
        let is_later = self
            .last_accepted
            .is_none_or(|last| last.timestamp < timestamp);
        if is_later {
            let at = self.last_accepted.map_or(Duration::ZERO, |last| last.at);
            self.last_accepted = Some(Accepted { timestamp, at });
        }
    }

    fn give_up(&mut self) {
        self.drop_initiator();
        self.pending.expired = true;
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn tunnel_with_session(role: Role, cipher: DataCipher, send_counter: u64) -> Tunnel {
        let config = TunnelConfig {
            peer: PublicKey::from_bytes([9; 32]),
            preshared_key: PresharedKey::default(),
            persistent_keepalive: None,
            cipher,
            jitter_seed: 1,
        };
        let mut tunnel = Tunnel::new(config, NOW);
        let keys = Zeroizing::new([[1; 32], [2; 32]]);
        let keys = TransportKeys::new(role, tunnel.cipher, 1, 2, keys);
        let mut session = Session::new(&keys, NOW);
        session.skip_to(send_counter);
        tunnel.keyring.install_initiated(session, &mut Vec::new());
        tunnel
    }

    #[test]
    fn both_roles_renew_a_session_after_very_many_messages() {
        let sides = [Role::Initiator, Role::Responder];
        let all = sides.map(|role| DataCipher::ALL.map(|cipher| (role, cipher)));
        for (role, cipher) in all.into_iter().flatten() {
            let worn = cipher.rekey_after_messages();
            let mut tunnel = tunnel_with_session(role, cipher, worn - 2);
            let mut send = || {
                let sealed = tunnel.seal_into(&[b"x"], 1420, &mut [0; 100], NOW);
                assert_eq!(sealed, Ok(48));
                tunnel.poll_action()
            };
            assert_eq!(send(), None);
            assert_eq!(send(), Some(Action::SendInitiation), "{role:?}");
            assert_eq!(send(), None, "one is under way");
            assert!(tunnel.is_worn());
            let fresh = tunnel_with_session(role, cipher, worn - 1);
            assert!(!fresh.is_worn());
        }
    }
}

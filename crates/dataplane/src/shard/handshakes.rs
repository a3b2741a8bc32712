//! Handshake messages and the jobs that they become: who may have one, and what its result does.

use std::sync::Arc;

use model::key::WireguardKey;
use model::map::PeerIndex;
use model::time::Now;
use rand_chacha::rand_core::Rng;
use wireguard::cookie;
use wireguard::{
    ConsumedInitiation, CreatedInitiation, CreatedResponse, Initiation, InitiationRefused, KeyPair,
    MacVerdict, Response, Timestamp, TransportKeys,
};

use super::inbound::Fate;
use super::{Shard, send_message, tunnel_time};
use crate::drops::DropReason;
use crate::event::Event;
use crate::handshake_job::{Done, HandshakeDone, HandshakeJob, Ticket, Work};
use crate::identity::Identity;
use crate::outbox::{Outbox, Path};

/// Who sends a handshake message, as far as it tells before any work is done on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// It answers a handshake of ours, and nobody did before.
    Awaited,
    /// Anybody else.
    Stranger,
}

/// Messages of others.
impl Shard {
    pub(super) fn handle_initiation(
        &mut self,
        from: Path,
        datagram: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let local = self.check_sender(Sender::Stranger, from, datagram, now, out)?;
        let message = Initiation::parse(datagram).ok_or(DropReason::NotWireguard)?;
        let ticket = self.ticket(None, None, Some(from));
        self.dispatch(
            ticket,
            Work::Consume {
                local,
                message: Box::new(message),
            },
        )
    }

    pub(super) fn handle_response(
        &mut self,
        from: Path,
        datagram: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let index = self.find_receiver(datagram)?;
        let message = Response::parse(datagram).ok_or(DropReason::NotWireguard)?;
        let handshake = Some(message.receiver_index);
        let peer = self.peers.get(index).expect("indices lead to peers");
        let incarnation = peer.incarnation;
        let job = peer
            .tunnel
            .begin_completion(message)
            .ok_or(DropReason::HandshakeUnexpected)?;
        // One for each handshake that we began is no flood; more of them may be.
        let sender = match peer.answered == handshake {
            true => Sender::Stranger,
            false => Sender::Awaited,
        };
        let local = self.check_sender(sender, from, datagram, now, out)?;
        let ticket = self.ticket(Some((index, incarnation)), None, Some(from));
        let fate = self.dispatch(ticket, Work::Complete { local, job })?;
        let peer = self.peers.get_mut(index).expect("indices lead to peers");
        peer.answered = handshake;
        Ok(fate)
    }

    /// Lets a message through whose sender knows our key and, under load, is awaited or has proven
    /// its address. Returns the key that it is for.
    fn check_sender(
        &mut self,
        sender: Sender,
        from: Path,
        datagram: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Arc<KeyPair>, DropReason> {
        let identity = self.identity.as_mut().ok_or(DropReason::NoIdentity)?;
        identity.rotate_cookies(tunnel_time(now), &self.cookie_secrets);
        let key = identity
            .addressed(datagram, from.remote)
            .ok_or(DropReason::HandshakeBadMac)?;
        if sender == Sender::Awaited || !self.load.is_heavy(now.monotonic) {
            return Ok(key.pair.clone());
        }
        if key
            .cookies
            .check(datagram, from.remote, cookie::Load::Heavy)
            == MacVerdict::Accept
        {
            let may = self.load.may_source(from.remote.ip(), now.monotonic);
            let pair = key.pair.clone();
            return may.then_some(pair).ok_or(DropReason::HandshakeOverload);
        }
        let mut nonce = [0; 24];
        self.dice.fill_bytes(&mut nonce);
        if let Some(reply) = key.cookies.reply(datagram, from.remote, nonce) {
            send_message(&reply, from, out);
        }
        Err(DropReason::HandshakeNeedsCookie)
    }

    fn dispatch(&mut self, ticket: Ticket, work: Work) -> Result<Fate, DropReason> {
        let reserved = match work {
            Work::Consume { .. } => self.config.limits.handshake_jobs_reserved,
            _ => 0,
        };
        if !self.has_room_for_job(reserved) {
            return Err(DropReason::HandshakeOverload);
        }
        self.send_job(ticket, work);
        Ok(Fate::Queued)
    }
}

/// Our own handshakes.
impl Shard {
    /// Begins a handshake, as the peer's tunnel asks.
    pub(super) fn begin_initiation(&mut self, index: PeerIndex, now: Now) {
        self.complain_of_path(index);
        let Some(identity) = &self.identity else {
            return;
        };
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        // Who does not answer may know the other key of this host.
        let was_unanswered = peer.is_unanswered;
        peer.tries_spare = identity.has_spare() && (peer.tries_spare != was_unanswered);
        let local = identity.initiator(peer.tries_spare);
        // Without room it is like a lost datagram: the tunnel asks again in five seconds.
        if !self.has_room_for_job(0) {
            return;
        }
        let ephemeral = self.random_key();
        let local_index = self.indices.take(index, &mut self.dice);
        let stamp = self.stamps.next(now.unix);
        if let Some(until) = stamp.reserved_until {
            self.emit(Event::TimestampUsed(until));
        }
        let date = Timestamp::from_unix(stamp.date.since_epoch());
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        let date = match &peer.lane {
            Some(end) => end.mark.date(end.number, date),
            None => date,
        };
        // The one before is given up: sent to a path that comes meanwhile, it would use up the
        // peer's patience for the new one.
        peer.initiation = None;
        let job = peer.tunnel.begin_initiation(ephemeral, local_index, date);
        let named = Some((index, peer.incarnation));
        let ticket = self.ticket(named, Some(local_index), None);
        self.counters.add_handshake_started();
        if was_unanswered {
            self.counters.add_handshake_unanswered();
        }
        self.send_job(ticket, Work::Initiate { local, job });
    }

    /// Tells that a path is unanswered: when this host has two keys, only after both were tried on
    /// it, else a peer of two paths might hear of each key on the other path alone.
    fn complain_of_path(&mut self, index: PeerIndex) {
        let has_spare = self.identity.as_ref().is_some_and(Identity::has_spare);
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        let path = peer.path;
        let is_given_up = peer.is_unanswered && (peer.tries_spare || !has_spare);
        if peer.lane.is_none() && (is_given_up || path.is_none()) {
            peer.is_path_proven = false;
            self.emit(Event::PathUnanswered { peer: index, path });
        }
    }
}

/// Jobs and their results.
impl Shard {
    fn ticket(
        &self,
        peer: Option<(PeerIndex, u64)>,
        local_index: Option<u32>,
        from: Option<Path>,
    ) -> Ticket {
        let identity = self
            .identity
            .as_ref()
            .map_or(0, |identity| identity.incarnation);
        Ticket {
            identity,
            peer,
            local_index,
            from,
        }
    }

    /// Returns whether more of our own work would make others prove their address.
    pub(super) fn is_busy(&self) -> bool {
        self.load.is_busy() || !self.has_room_for_job(0)
    }

    /// Returns how many handshake jobs are out.
    pub fn handshake_jobs(&self) -> usize {
        self.load.jobs()
    }

    fn has_room_for_job(&self, reserved: usize) -> bool {
        // A lost job would never come back.
        self.load.has_room(reserved) && self.events.len() < self.config.limits.events
    }

    fn send_job(&mut self, ticket: Ticket, work: Work) {
        self.load.job_left();
        self.events.push_back(Event::Handshake(HandshakeJob {
            ticket,
            work: Box::new(work),
        }));
    }

    /// Takes the result of a [`HandshakeJob`]. What has changed in the meantime is respected: a
    /// result for a peer or identity that is gone does nothing.
    pub fn handle_handshake(&mut self, done: HandshakeDone, now: Now, out: &mut impl Outbox) {
        self.load.job_returned();
        let HandshakeDone { ticket, result } = done;
        let peer = self.known_peer(&ticket);
        match result {
            Done::Initiated(created) => {
                if let Some(index) = peer {
                    self.initiated(index, &ticket, created.ok(), now, out);
                    self.settle(index, now, out);
                }
            }
            Done::Responded(created) => {
                if let Some(index) = peer {
                    self.responded(
                        index,
                        &ticket,
                        created.ok().map(|created| *created),
                        now,
                        out,
                    );
                    self.settle(index, now, out);
                }
            }
            Done::Consumed(Ok(consumed)) => {
                let fate = self.consumed(&ticket, *consumed, now, out);
                self.end_wait(fate);
            }
            Done::Completed(Ok(keys)) => {
                let fate = self.completed(peer, &ticket, keys, now, out);
                self.end_wait(fate);
            }
            Done::Consumed(Err(_)) | Done::Completed(Err(_)) => {
                self.end_wait(Err(DropReason::HandshakeForged));
            }
        }
        self.begin_inherited(now, out);
    }

    /// A message that waited for its job has done its work or is dropped.
    fn end_wait(&mut self, fate: Result<(), DropReason>) {
        self.counters.remove_queued();
        match fate {
            Ok(()) => self.counters.add_consumed(),
            Err(reason) => self.counters.add_drop(reason),
        }
    }

    fn known_peer(&self, ticket: &Ticket) -> Option<PeerIndex> {
        let (index, incarnation) = ticket.peer?;
        let peer = self.peers.get(index)?;
        (peer.incarnation == incarnation).then_some(index)
    }

    fn initiated(
        &mut self,
        index: PeerIndex,
        ticket: &Ticket,
        created: Option<CreatedInitiation>,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        let datagram = created.and_then(|created| {
            peer.tunnel
                .install_initiation(created, tunnel_time(now))
                .ok()
        });
        let Some(datagram) = datagram else {
            return self.release(ticket);
        };
        peer.initiation = Some(datagram);
        self.send_initiation(index, out);
    }

    /// Sends the initiation that waits for its answer, where there is a path.
    pub(super) fn send_initiation(&mut self, index: PeerIndex, out: &mut impl Outbox) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        if let (Some(datagram), Some(path)) = (&peer.initiation, peer.path) {
            send_message(datagram, path, out);
            peer.sent_bytes += datagram.len() as u64;
            peer.is_unanswered = true;
        }
    }

    /// Someone proved to own a key: answers when it is a peer's and the message is new.
    fn consumed(
        &mut self,
        ticket: &Ticket,
        consumed: ConsumedInitiation,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let identity = self
            .identity
            .as_ref()
            .map_or(0, |identity| identity.incarnation);
        if identity != ticket.identity {
            return Err(DropReason::HandshakeUnexpected);
        }
        let key = WireguardKey::from_bytes(*consumed.peer().as_bytes());
        let index = *self.keys.get(&key).ok_or(DropReason::HandshakeUnknownKey)?;
        if !self.config.place.has(index) {
            return self.introduce(index, ticket.from, consumed, out);
        }
        self.answer_by_lane(index, ticket.from, consumed, now, out)
    }

    /// Answers an initiation of a peer of this shard, when it is new.
    pub(super) fn answer(
        &mut self,
        index: PeerIndex,
        from: Option<Path>,
        consumed: ConsumedInitiation,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        if !self.has_room_for_job(0) {
            return Err(DropReason::HandshakeOverload);
        }
        let ephemeral = self.random_key();
        let local_index = self.indices.take(index, &mut self.dice);
        let peer = self.peers.get_mut(index).expect("keys lead to peers");
        let accepted =
            peer.tunnel
                .accept_initiation(consumed, ephemeral, local_index, tunnel_time(now));
        let incarnation = peer.incarnation;
        let job = accepted.map_err(|refused| {
            self.indices.release(local_index);
            refusal_reason(refused)
        })?;
        // It moves nobody: one that was seen before a restart of ours could be replayed from
        // anywhere. The peer's first packet in the new session tells where it is.
        peer.received_bytes += Initiation::LEN as u64;
        let ticket = self.ticket(Some((index, incarnation)), Some(local_index), from);
        self.send_job(ticket, Work::Respond { job });
        self.settle(index, now, out);
        Ok(())
    }

    fn responded(
        &mut self,
        index: PeerIndex,
        ticket: &Ticket,
        created: Option<CreatedResponse>,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let (Some(created), Some(from)) = (created, ticket.from) else {
            return self.release(ticket);
        };
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        let datagram = peer.tunnel.install_response(created, tunnel_time(now));
        peer.sent_bytes += datagram.len() as u64;
        send_message(&datagram, from, out);
    }

    fn completed(
        &mut self,
        peer: Option<PeerIndex>,
        ticket: &Ticket,
        keys: TransportKeys,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let index = peer.ok_or(DropReason::PeerRemoved)?;
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        peer.tunnel
            .install_session(keys, tunnel_time(now))
            .map_err(|_| DropReason::HandshakeUnexpected)?;
        if let Some(from) = ticket.from {
            self.heard(index, from, Response::LEN);
        }
        self.settle(index, now, out);
        Ok(())
    }

    fn release(&mut self, ticket: &Ticket) {
        if let Some(index) = ticket.local_index {
            self.indices.release(index);
        }
    }
}

fn refusal_reason(refused: InitiationRefused) -> DropReason {
    match refused {
        InitiationRefused::WrongPeer => DropReason::HandshakeUnknownKey,
        InitiationRefused::Replayed => DropReason::HandshakeReplayed,
        InitiationRefused::TooSoon => DropReason::HandshakeTooFrequent,
    }
}

//! Datagrams from the network: what each is, opening it, and whether what is in it may in.

use std::time::Duration;

use model::address::is_one_host;
use model::map::PeerIndex;
use model::rule::Direction;
use model::time::Now;
use wireguard::{CookieReply, Kind, OpenError, classify, receiver_index};

use super::spreading::hand_opened_over;
use super::verdicts::{Admitted, Barred};
use super::{Shard, tunnel_time};
use crate::command::PeerKind;
use crate::drops::DropReason;
use crate::ecn;
use crate::event::Event;
use crate::outbox::{Misdirected, Outbox, Path};
use crate::packet::Headers;
use crate::rejection::is_control;

/// How long nobody is reached back to again: no session lives longer (WireGuard whitepaper 6.1,
/// REJECT_AFTER_TIME), so that what comes later was not sealed by the peer.
const REACH_BACK_INTERVAL: Duration = Duration::from_secs(180);

/// What became of a datagram that was not dropped.
pub(super) enum Fate {
    /// Its packet was delivered, and counted.
    Delivered,
    /// It did its work here.
    Consumed,
    /// It waits for a handshake job.
    Queued,
    /// Another shard goes on with it, and counts it.
    HandedOver,
}

impl Shard {
    /// Takes a datagram that came from `from`, where `source` is the address that it was sent to,
    /// with the ECN bits of its outer header. Its bytes are spoilt.
    pub fn handle_datagram(
        &mut self,
        from: Path,
        ecn: u8,
        datagram: &mut [u8],
        now: Now,
        out: &mut impl Outbox,
    ) {
        if let Some(owner) = self.owner_of_datagram(datagram) {
            return self.hand_datagram_over(owner, from, ecn, datagram, out);
        }
        let fate = match classify(datagram) {
            _ if self.identity.is_none() => Err(DropReason::NoIdentity),
            // An answer could not reach it, and as a path it would be told on to others.
            _ if !is_one_host(from.remote) => Err(DropReason::ImpossibleSource),
            None => Err(DropReason::NotWireguard),
            Some(Kind::Data) => self.handle_data(from, ecn, datagram, now, out),
            Some(Kind::Initiation) => self.handle_initiation(from, datagram, now, out),
            Some(Kind::Response) => self.handle_response(from, datagram, now, out),
            Some(Kind::CookieReply) => self.handle_cookie_reply(datagram, now, out),
        };
        self.count_datagram(datagram.len(), fate);
    }

    /// Counts a datagram that is none of the tunnels': whoever it is for has taken it, or has not.
    pub fn count_stranger(&self, bytes: usize, outcome: Result<(), DropReason>) {
        self.count_datagram(bytes, outcome.map(|()| Fate::Consumed));
    }

    pub(super) fn count_datagram(&self, bytes: usize, fate: Result<Fate, DropReason>) {
        if matches!(fate, Ok(Fate::HandedOver)) {
            return;
        }
        self.counters.add_datagram_received(bytes);
        match fate {
            Ok(Fate::Delivered | Fate::HandedOver) => {}
            Ok(Fate::Consumed) => self.counters.add_consumed(),
            Ok(Fate::Queued) => self.counters.add_queued(),
            Err(reason) => self.counters.add_drop(reason),
        }
    }

    fn handle_data(
        &mut self,
        from: Path,
        ecn: u8,
        datagram: &mut [u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let index = match self.find_receiver(datagram) {
            Ok(index) => index,
            Err(reason) => {
                self.reach_back(from, now, out);
                return Err(reason);
            }
        };
        let peer = self.peers.get_mut(index).expect("indices lead to peers");
        let plaintext = peer
            .tunnel
            .open_in_place(datagram, tunnel_time(now))
            .map_err(open_reason)?;
        let is_mesh = peer.kind == PeerKind::Mesh;
        let datagram_bytes = datagram.len();
        self.heard(index, from, datagram_bytes);
        let plaintext = &mut datagram[plaintext];
        let fate = if plaintext.is_empty() {
            Ok(Fate::Consumed)
        } else if is_mesh && is_control(plaintext) {
            self.handle_control(index, datagram_bytes, plaintext, now, out)
        } else if let Some(owner) = self.owner_of_opened(index, plaintext, now, out) {
            let opened = Misdirected::Opened {
                peer: index,
                ecn,
                datagram_bytes,
                bytes: plaintext,
            };
            hand_opened_over(owner, opened, out)
        } else {
            self.accept(index, ecn, plaintext, now, out)
        };
        // Also when the packet was bad: the tunnel has heard from its peer and may want to act.
        self.settle_after_packet(index, now, out);
        fate
    }

    /// Delivers an opened packet when it is the peer's own, for this host, and allowed.
    pub(super) fn accept(
        &mut self,
        index: PeerIndex,
        outer_ecn: u8,
        packet: &mut [u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let headers = Headers::parse(packet)?;
        let packet = &mut packet[..headers.length];
        let peer = self.peers.get(index).expect("the caller found the peer");
        if !peer.addresses.contains(headers.source) {
            return Err(DropReason::SpoofedSource);
        }
        let identity = self.identity.as_ref().expect("datagrams need an identity");
        if !identity.addresses.contains(headers.destination) {
            return Err(DropReason::NotOurAddress);
        }
        let ecn = ecn::combine(headers.ecn, outer_ecn & 0b11)?;
        match self.admit(&headers, packet, Direction::Inbound, index, now.monotonic) {
            Ok(Admitted::ByRules) => {}
            Ok(Admitted::BySender(key)) => self.tell_claim(&key, now, out),
            Err(barred) => {
                match barred {
                    Barred::Denied(denied) => {
                        self.reject(index, &headers, packet, denied, now, out);
                    }
                    Barred::Unclaimed(flow) if flow.opened == Direction::Inbound => {
                        self.miss(flow, now, out);
                    }
                    _ => {}
                }
                return Err(barred.reason());
            }
        }
        if ecn != headers.ecn {
            ecn::set(packet, ecn);
        }
        if !out.deliver(packet) {
            return Err(DropReason::OutboxFull);
        }
        self.counters.add_delivered(packet.len());
        Ok(Fate::Delivered)
    }

    fn handle_cookie_reply(
        &mut self,
        datagram: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let index = self.find_receiver(datagram)?;
        let reply = CookieReply::parse(datagram).ok_or(DropReason::NotWireguard)?;
        let peer = self.peers.get_mut(index).expect("indices lead to peers");
        peer.tunnel
            .handle_cookie_reply(&reply, tunnel_time(now))
            .map_err(|_| DropReason::CookieRejected)?;
        self.settle(index, now, out);
        Ok(Fate::Consumed)
    }

    /// Begins a handshake with the peer whose path leads to `from` and who has no session with us:
    /// it still seals under one that ended with our restart, and would notice only after 15 s
    /// (WireGuard whitepaper 6.5). Whoever forges such datagrams gets one attempt at a handshake in
    /// three minutes sent to where the peer is anyway.
    fn reach_back(&mut self, from: Path, now: Now, out: &mut impl Outbox) {
        if !self.reaches_back.take(now.monotonic) {
            return;
        }
        let time = tunnel_time(now);
        let without_session = self.peers.iter_mut().find(|(_, peer)| {
            let is_there = peer.path.is_some_and(|path| path.remote == from.remote);
            let is_rare = peer
                .reached_back_at
                .is_none_or(|at| now.monotonic - at >= REACH_BACK_INTERVAL);
            is_there && is_rare && peer.lane.is_none() && !peer.tunnel.has_session(time)
        });
        if let Some((index, peer)) = without_session {
            peer.reached_back_at = Some(now.monotonic);
            peer.tunnel.request_handshake(time);
            self.settle(index, now, out);
        }
    }

    /// Returns whether a datagram names a session of a peer, whoever sent it.
    pub fn names_session(&self, datagram: &[u8]) -> bool {
        classify(datagram) == Some(Kind::Data) && self.find_receiver(datagram).is_ok()
    }

    /// Returns the receiver indices of all sessions, also those that are not agreed on yet.
    pub fn receiver_indices(&self) -> impl Iterator<Item = u32> {
        self.indices.all()
    }

    pub(super) fn find_receiver(&self, datagram: &[u8]) -> Result<PeerIndex, DropReason> {
        let index = receiver_index(datagram).ok_or(DropReason::NotWireguard)?;
        self.indices.find(index).ok_or(DropReason::UnknownReceiver)
    }

    /// The peer is at `from`: an authenticated packet came from there.
    pub(super) fn heard(&mut self, index: PeerIndex, from: Path, bytes: usize) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        peer.received_bytes += bytes as u64;
        let is_moved = peer.path.map(|path| path.remote) != Some(from.remote);
        // Through the tunnel to itself, each packet would be sealed again and again.
        if is_moved && self.routes.find(from.remote.ip()).is_some() {
            return;
        }
        peer.is_path_proven = true;
        peer.is_unanswered = false;
        // Another address of ours is the same path to the peer.
        peer.set_path(from);
        if is_moved {
            self.note_move(index, from);
        }
    }

    /// Tells who is to know: a lane its home shard, that one the lanes, and the agent.
    #[cold]
    fn note_move(&mut self, index: PeerIndex, path: Path) {
        let peer = self
            .peers
            .get_mut(index)
            .expect("the caller found the peer");
        let is_lane = peer.lane.is_some();
        if let Some(end) = &mut peer.lane {
            end.has_moved = true;
            self.wake_at(index, Duration::ZERO);
        } else if let Some(lanes) = &mut peer.lanes {
            lanes.has_moved = true;
            self.wake_at(index, Duration::ZERO);
        }
        if !is_lane {
            self.emit(Event::PeerMoved { peer: index, path });
        }
    }
}

fn open_reason(error: OpenError) -> DropReason {
    match error {
        OpenError::Malformed => DropReason::NotWireguard,
        OpenError::UnknownIndex => DropReason::UnknownReceiver,
        OpenError::Expired => DropReason::SessionExpired,
        OpenError::Replayed => DropReason::Replayed,
        OpenError::Forged => DropReason::Forged,
    }
}

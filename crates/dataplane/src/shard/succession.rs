//! Handing over to another daemon on this host, and taking over from one: the successor agrees on
//! sessions of its own with the peers that matter, and takes the flows that were let through. Its
//! own rules decide each of them again at its next packet.

use std::collections::VecDeque;
use std::time::Duration;

use model::map::PeerIndex;
use model::time::Now;
use wireguard::timers::INITIATION_INTERVAL;

use super::{Shard, tunnel_time};
use crate::bequest::{Bequest, Extent, PeerBequest};
use crate::drops::DropReason;
use crate::event::Event;
use crate::flows::{Flow, FlowKey, SWEEP_INTERVAL};
use crate::offload::VirtioHeader;
use crate::outbox::{Outbox, Path};

/// How long a shard must have begun no handshake before a successor begins its own: a peer passes over
/// one that comes too soon after another, and the next try is five seconds later. Twice what a peer
/// asks for, since the network may bring the two closer together.
pub const HANDSHAKES_APART: Duration = INITIATION_INTERVAL.saturating_mul(2);
/// Younger than this, a session may not have reached a peer yet that still seals under another.
const SESSION_SETTLES: Duration = Duration::from_secs(1);

/// The peers that the daemon before had sessions with, or wanted to.
#[derive(Default)]
pub(super) struct Heirs {
    /// Handshakes with these are yet to be begun.
    waiting: VecDeque<PeerIndex>,
    /// Handshakes that were begun.
    begun: usize,
}

/// The one that goes.
impl Shard {
    /// Keeps every flow in the shard that has it, until [`Shard::reclaim_dates`]: one under way to
    /// another shard would be in no bequest. What others gave to this shard before they were told is
    /// to be handled before the last [`Shard::bequeath`].
    pub const fn hold_lanes(&mut self) {
        self.holds_lanes = true;
    }

    /// Returns what the successor should know. Nothing changes here. Whoever asks for it begins no
    /// handshake from then on, and lets [`HANDSHAKES_APART`] pass before the successor begins one.
    pub fn bequeath(&self, extent: Extent, now: Now) -> Bequest {
        let (last_date, reserved_until) = self.stamps.used();
        let mut bequest = Bequest {
            own: self.identity.as_ref().map(|identity| identity.addresses),
            last_date,
            reserved_until,
            peers: Vec::new(),
        };
        let time = tunnel_time(now);
        let mut places = Vec::new();
        for (index, peer) in self.peers.iter() {
            places.resize(index.0 as usize + 1, usize::MAX);
            places[index.0 as usize] = bequest.peers.len();
            // A lane leaves its flows: the successor makes its own when there is need.
            let is_main = peer.lane.is_none();
            let last_initiation = peer.tunnel.last_initiation().filter(|_| is_main);
            bequest.peers.push(PeerBequest {
                key: peer.key,
                addresses: peer.addresses,
                path: peer.path.filter(|_| is_main),
                wants_session: is_main
                    && (peer.tunnel.has_session(time)
                        || peer.tunnel.is_trying()
                        || peer.pending.len() > 0),
                last_initiation: last_initiation.map(|date| *date.as_bytes()),
                received_bytes: peer.received_bytes,
                sent_bytes: peer.sent_bytes,
                flows: Vec::new(),
            });
        }
        for (index, known) in (0..).zip(&self.elsewhere) {
            let Some(known) = known else { continue };
            let Some(past) = &known.past else { continue };
            if places.len() <= index {
                places.resize(index + 1, usize::MAX);
            }
            places[index] = bequest.peers.len();
            bequest
                .peers
                .push(past.bequeath(known.key, known.addresses));
        }
        if extent == Extent::PeersAndFlows {
            let alive = self.flows.iter().filter(|it| !it.is_idle(now.monotonic));
            for flow in alive {
                let place = places.get(flow.key.peer as usize).copied();
                if let Some(peer) = place.and_then(|place| bequest.peers.get_mut(place)) {
                    peer.flows.push(flow.bequeath(now.monotonic));
                }
            }
        }
        bequest
    }

    /// Drops the packets that wait for sessions: whoever takes over agrees on its own, and what is sent
    /// again passes there.
    pub fn abandon_pending(&mut self) {
        for index in self.peers.indices() {
            self.drop_pending(index, DropReason::HandedOver);
        }
        self.drop_all_held(DropReason::HandedOver);
    }

    /// Drops a packet of this host that another shard gave to this one after it had left.
    pub fn abandon_overlay_packet(&mut self, offload: VirtioHeader, packet: &[u8]) {
        self.drop_unjudged_packet(offload, packet, DropReason::HandedOver);
    }

    /// Goes on after a successor has failed that was told of the peers: it may have begun handshakes
    /// with a later date than this shard's last.
    pub fn reclaim_dates(&mut self, now: Now) {
        self.holds_lanes = false;
        self.stamps.leap(now.unix);
    }

    /// Goes on after a successor has failed that had taken over: peers may have agreed with it on
    /// sessions that nobody has any more.
    pub fn reclaim(&mut self, now: Now, out: &mut impl Outbox) {
        self.reclaim_dates(now);
        let time = tunnel_time(now);
        for index in self.peers.indices() {
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            if peer.lane.is_none() && peer.tunnel.has_session(time) {
                peer.tunnel.request_handshake(time);
                self.settle(index, now, out);
            }
        }
    }
}

/// The one that comes.
impl Shard {
    /// Takes up where the peers are, and begins handshakes with those that have sessions with the
    /// one before, or wait for one: with some at once, with others as these become datagrams, see
    /// [`Shard::inherited_begun`]. To be told who the peers are first, by commands.
    pub fn inherit_peers(&mut self, bequest: &Bequest, now: Now, out: &mut impl Outbox) {
        if bequest.own.is_some() {
            self.stamps
                .resume(bequest.last_date, bequest.reserved_until);
        }
        for left in &bequest.peers {
            let Some(index) = self.heir(left) else {
                continue;
            };
            let peer = self.peers.get_mut(index).expect("keys lead to peers");
            if let Some(date) = left.last_initiation {
                peer.tunnel
                    .refuse_initiations_until(wireguard::Timestamp::from_bytes(date));
            }
            peer.received_bytes = left.received_bytes;
            peer.sent_bytes = left.sent_bytes;
            let is_new = left.path.is_some() && peer.path != left.path;
            if let Some(path) = left.path {
                peer.set_path(path);
            }
            if left.wants_session && peer.path.is_some() {
                self.heirs.waiting.push_back(index);
            }
            if let Some(path) = left.path.filter(|_| is_new) {
                self.emit(Event::PeerMoved { peer: index, path });
            }
        }
        self.begin_inherited(now, out);
    }

    /// Begins handshakes with peers that the one before came to want sessions with after it was asked
    /// for the first time.
    pub fn inherit_wishes(&mut self, bequest: &Bequest, now: Now, out: &mut impl Outbox) {
        for left in bequest.peers.iter().filter(|left| left.wants_session) {
            let Some(index) = self.heir(left) else {
                continue;
            };
            let peer = self.peers.get_mut(index).expect("keys lead to peers");
            if let Some(path) = left.path.filter(|_| peer.path.is_none()) {
                peer.set_path(path);
            }
            let is_begun = peer.tunnel.is_trying() || peer.tunnel.has_session(tunnel_time(now));
            if peer.path.is_some() && !is_begun {
                self.heirs.waiting.push_back(index);
            }
        }
        self.begin_inherited(now, out);
    }

    /// Returns with how many peers handshakes were begun because of what was inherited.
    pub const fn inherited_begun(&self) -> usize {
        self.heirs.begun
    }

    /// Begins as many of the handshakes that wait as are no load; the next ones when jobs return.
    pub(super) fn begin_inherited(&mut self, now: Now, out: &mut impl Outbox) {
        while !self.heirs.waiting.is_empty() && !self.is_busy() {
            let index = self.heirs.waiting.pop_front().expect("it is not empty");
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            let before = self.counters.handshakes_started();
            peer.tunnel.request_handshake(tunnel_time(now));
            self.settle(index, now, out);
            let begun = self.counters.handshakes_started() - before;
            self.heirs.begun += begun as usize;
        }
    }

    /// Takes the flows of peers that have the same addresses as they had. Returns how many.
    pub fn inherit_flows(&mut self, bequest: &Bequest, now: Now) -> usize {
        let own = self.identity.as_ref().map(|identity| identity.addresses);
        if own.is_none() || own != bequest.own {
            return 0;
        }
        let mut taken = 0;
        for left in &bequest.peers {
            let Some(index) = self.heir(left) else {
                continue;
            };
            for flow in &left.flows {
                let key = FlowKey {
                    peer: index.0,
                    local_port: flow.local_port,
                    remote_port: flow.remote_port,
                    ip_protocol: flow.ip_protocol,
                    is_ipv6: flow.is_ipv6,
                };
                let flow = Flow::inherited(key, flow, now.monotonic);
                taken += usize::from(self.flows.insert(flow, now.monotonic));
            }
        }
        self.counters.set_flows(&self.flows);
        if taken > 0 {
            self.next_sweep
                .get_or_insert(now.monotonic + SWEEP_INTERVAL);
        }
        taken
    }

    /// A datagram came from `from` under a session of the daemon before, whom it was passed to. A
    /// peer that does not know of a session with this one must be told of one before that daemon
    /// ends. Whoever forges such a datagram gets one initiation sent to where the peer is anyway.
    pub fn handle_former(&mut self, from: Path, now: Now, out: &mut impl Outbox) {
        if !self.reaches_back.take(now.monotonic) {
            return;
        }
        let time = tunnel_time(now);
        let stale = self.peers.iter_mut().find(|(_, peer)| {
            let is_there = peer.path.is_some_and(|path| path.remote == from.remote);
            let agreed_at = peer.tunnel.last_handshake_at();
            let is_settling = agreed_at.is_some_and(|at| time.saturating_sub(at) < SESSION_SETTLES);
            is_there && peer.lane.is_none() && !(is_settling && peer.tunnel.has_session(time))
        });
        if let Some((index, peer)) = stale {
            peer.tunnel.request_handshake(time);
            self.settle(index, now, out);
        }
    }

    /// Returns the peer of this shard that has the same key, or, when its key has changed since, the
    /// same addresses.
    fn heir(&self, left: &PeerBequest) -> Option<PeerIndex> {
        let by_key = self.keys.get(&left.key).copied();
        let index = by_key.or_else(|| self.routes.find(left.addresses.v4.into()))?;
        let peer = self.peers.get(index)?;
        (peer.addresses == left.addresses).then_some(index)
    }
}

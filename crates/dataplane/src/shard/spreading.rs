//! Which of this host's shards a packet of a peer is for: that of its flow's lane while it is open,
//! else the peer's home shard. Whoever has it comes to the same answer, or will soon.

use model::map::PeerIndex;
use model::rule::Direction;
use model::time::Now;

use super::inbound::Fate;
use super::{Shard, tunnel_time};
use crate::drops::DropReason;
use crate::fragments::FragmentKey;
use crate::lanes::View;
use crate::outbox::{Misdirected, Outbox};
use crate::packet::destination;
use crate::rejection::is_control;
use crate::spread::{Spread, lane_of};

impl Shard {
    /// Returns the other shard that a packet of this host is for.
    #[inline]
    pub(super) fn owner_of_packet(
        &mut self,
        packet: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Option<u16> {
        let place = self.config.place;
        if place.is_alone() {
            return None;
        }
        let peer = self.routes.find(destination(packet)?)?;
        let owner = self.owner(peer, packet, Direction::Outbound, now, out);
        let owner = owner.unwrap_or(place.of_peer(peer));
        (owner != place.number()).then_some(owner)
    }

    /// Returns the other shard that a packet is for that came from a peer.
    #[inline]
    pub(super) fn owner_of_opened(
        &mut self,
        peer: PeerIndex,
        packet: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Option<u16> {
        let place = self.config.place;
        if place.is_alone() {
            return None;
        }
        let owner = self.owner(peer, packet, Direction::Inbound, now, out)?;
        (owner != place.number()).then_some(owner)
    }

    /// Returns the other shard that has the flow of a packet of this host that a peer denies.
    pub(super) fn owner_of_rejected(
        &mut self,
        peer: PeerIndex,
        packet: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Option<u16> {
        let place = self.config.place;
        if place.is_alone() {
            return None;
        }
        let owner = self.owner(peer, packet, Direction::Outbound, now, out)?;
        (owner != place.number()).then_some(owner)
    }

    /// Returns the shard that has the packet's flow; `None`: the packet is of no flow.
    fn owner(
        &mut self,
        peer: PeerIndex,
        packet: &[u8],
        direction: Direction,
        now: Now,
        out: &mut impl Outbox,
    ) -> Option<u16> {
        let home = self.config.place.of_peer(peer);
        let view = self.view_of(peer);
        if view.count == 1 {
            return Some(home);
        }
        match Spread::of(packet, direction, peer)? {
            Spread::Flow(hash) => Some(self.owner_of_lane(peer, view, hash, now, out)),
            Spread::FirstFragment(hash, key) => {
                let owner = self.owner_of_lane(peer, view, hash, now, out);
                self.fragment_ways
                    .remember(key, u64::from(owner), now.monotonic);
                Some(owner)
            }
            Spread::LaterFragment(key) => Some(self.way_of_fragment(&key, now).unwrap_or(home)),
        }
    }

    fn way_of_fragment(&self, key: &FragmentKey, now: Now) -> Option<u16> {
        let owner = self.fragment_ways.find(key, now.monotonic)?;
        u16::try_from(owner).ok()
    }

    #[inline]
    fn view_of(&self, peer: PeerIndex) -> View {
        match self.config.place.has(peer) {
            true => {
                let lanes = self.peers.get(peer).and_then(|peer| peer.lanes.as_ref());
                lanes.map(|lanes| lanes.view)
            }
            false => self.elsewhere(peer).map(|known| known.view),
        }
        .unwrap_or_default()
    }

    fn owner_of_lane(
        &mut self,
        peer: PeerIndex,
        view: View,
        hash: u32,
        now: Now,
        out: &mut impl Outbox,
    ) -> u16 {
        let place = self.config.place;
        let home = place.of_peer(peer);
        let lane = lane_of(hash, view.count);
        if lane == 0 {
            return home;
        }
        let shard = place.of_lane(peer, lane);
        if shard != place.number() && view.is_open(lane) {
            return shard;
        }
        if home == place.number() {
            self.want_lane(peer, lane, now, out);
            return home;
        }
        if shard == place.number() && self.is_lane_usable(peer, now, out) {
            return shard;
        }
        if shard == place.number() && view.is_open(lane) {
            self.repeat_closed(peer, lane, out);
        }
        home
    }

    /// Returns whether this shard's lane to a peer is open, and closes one that has lost its session.
    fn is_lane_usable(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) -> bool {
        let Some(peer) = self.peers.get(index) else {
            return false;
        };
        if !peer.lane.as_ref().is_some_and(|end| end.is_open) {
            return false;
        }
        peer.tunnel.has_session(tunnel_time(now)) || !self.close_lane_end(index, now, out)
    }
}

/// What was opened in one shard and is of another's flow.
impl Shard {
    /// Takes a packet or a rejection that another shard opened, with the ECN bits and the bytes of its
    /// datagram.
    pub fn handle_opened(
        &mut self,
        peer: PeerIndex,
        ecn: u8,
        datagram_bytes: usize,
        bytes: &mut [u8],
        now: Now,
        out: &mut impl Outbox,
    ) {
        if is_control(bytes) {
            let fate = self.handle_handed_control(peer, bytes, now, out);
            self.settle(peer, now, out);
            return self.count_datagram(datagram_bytes, fate);
        }
        let fate = match self.owner_of_opened(peer, bytes, now, out) {
            Some(to) => {
                let opened = Misdirected::Opened {
                    peer,
                    ecn,
                    datagram_bytes,
                    bytes,
                };
                hand_opened_over(to, opened, out)
            }
            None if self.identity.is_none() => Err(DropReason::NoIdentity),
            None if self.peers.get(peer).is_none() => Err(DropReason::PeerRemoved),
            None => {
                let fate = self.accept(peer, ecn, bytes, now, out);
                self.settle(peer, now, out);
                fate
            }
        };
        self.count_datagram(datagram_bytes, fate);
    }
}

/// Hands a packet over that was opened here, to the shard of its flow.
pub(super) fn hand_opened_over(
    to: u16,
    opened: Misdirected<'_>,
    out: &mut impl Outbox,
) -> Result<Fate, DropReason> {
    out.hand_over(to, opened)
        .then_some(Fate::HandedOver)
        .ok_or(DropReason::HandOverFull)
}

//! What comes to one shard and is another's: told from few bytes, before it is counted, and handed
//! over. It is counted by the shard that it ends at, so that the sum over all shards is right.

use model::address::HostAddresses;
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::time::Now;
use wireguard::{ConsumedInitiation, Kind, classify, receiver_index};

use super::Shard;
use crate::drops::DropReason;
use crate::lanes::{Past, View};
use crate::offload::VirtioHeader;
use crate::outbox::{Misdirected, Outbox, Path};
use crate::place::FRONT_DESK;
use crate::segments;

/// A peer that began a handshake, and whose shard another one is than the one that found out.
#[derive(Debug)]
pub struct Introduction {
    pub(super) peer: PeerIndex,
    pub(super) from: Option<Path>,
    pub(super) consumed: Box<ConsumedInitiation>,
}

impl Introduction {
    pub(super) fn new(peer: PeerIndex, from: Option<Path>, consumed: ConsumedInitiation) -> Self {
        let consumed = Box::new(consumed);
        Self {
            peer,
            from,
            consumed,
        }
    }
}

/// A peer of another shard, as far as every shard must know it.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) key: WireguardKey,
    pub(super) addresses: HostAddresses,
    /// Which lanes to it are open, as its home shard said last.
    pub(super) view: View,
    /// How often the lane of this shard was opened.
    pub(super) epoch: u32,
    /// This shard had a lane to it.
    pub(super) past: Option<Box<Past>>,
}

impl Shard {
    /// Returns the other shard that a datagram is for.
    pub(super) fn owner_of_datagram(&self, datagram: &[u8]) -> Option<u16> {
        let place = self.config.place;
        if place.is_alone() {
            return None;
        }
        let owner = match classify(datagram)? {
            Kind::Initiation => FRONT_DESK,
            Kind::Data | Kind::Response | Kind::CookieReply => {
                place.of_receiver(receiver_index(datagram)?)
            }
        };
        (owner != place.number()).then_some(owner)
    }

    pub(super) fn hand_datagram_over(
        &mut self,
        to: u16,
        from: Path,
        ecn: u8,
        bytes: &[u8],
        out: &mut impl Outbox,
    ) {
        if !out.hand_over(to, Misdirected::Datagram { from, ecn, bytes }) {
            self.counters.add_datagram_received(bytes.len());
            self.counters.add_drop(DropReason::HandOverFull);
        }
    }

    pub(super) fn hand_packet_over(
        &mut self,
        to: u16,
        offload: VirtioHeader,
        bytes: &[u8],
        out: &mut impl Outbox,
    ) {
        if !out.hand_over(to, Misdirected::OverlayPacket { offload, bytes }) {
            self.drop_unjudged_packet(offload, bytes, DropReason::HandOverFull);
        }
    }

    /// Drops a packet of this host that is more than its peer's share of what can be sent.
    pub fn shed_overlay_packet(&mut self, offload: VirtioHeader, packet: &[u8]) {
        self.drop_unjudged_packet(offload, packet, DropReason::OverlayAboveShare);
    }

    /// Drops a packet as the kernel gave it, counted as all those that it stands for.
    pub(super) fn drop_unjudged_packet(
        &mut self,
        offload: VirtioHeader,
        bytes: &[u8],
        reason: DropReason,
    ) {
        let (packets, total_bytes) = segments::stands_for(offload, bytes);
        self.counters.add_overlay_received(packets, total_bytes);
        self.counters.add_drops(packets, reason);
    }

    /// Hands an initiation over that turned out to be from another shard's peer.
    pub(super) fn introduce(
        &mut self,
        peer: PeerIndex,
        from: Option<Path>,
        consumed: ConsumedInitiation,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let introduction = Introduction::new(peer, from, consumed);
        let to = self.config.place.of_peer(peer);
        out.hand_over(to, Misdirected::Introduction(introduction))
            .then_some(())
            .ok_or(DropReason::HandOverFull)
    }

    /// Takes a peer of this shard that began a handshake, from the shard that found out who it is.
    pub fn handle_introduction(
        &mut self,
        introduction: Introduction,
        now: Now,
        out: &mut impl Outbox,
    ) {
        // The shard that found out counted the message, and that it did its work there.
        let Introduction {
            peer,
            from,
            consumed,
        } = introduction;
        let fate = match (&self.identity, self.peers.get(peer)) {
            (Some(_), Some(_)) => self.answer_by_lane(peer, from, *consumed, now, out),
            _ => Err(DropReason::HandshakeUnexpected),
        };
        if let Err(reason) = fate {
            self.count_refused_introduction(reason);
        }
    }

    pub(super) fn set_peer_elsewhere(
        &mut self,
        index: PeerIndex,
        key: WireguardKey,
        addresses: HostAddresses,
    ) {
        let before = self.remove_peer_elsewhere(index);
        // Those of a lane that is gone may be here for want of room at home.
        if before.as_ref().is_some_and(|it| it.addresses != addresses) {
            self.flows.remove_peer(index.0);
        }
        self.keys.insert(key, index);
        self.routes.insert(addresses, index);
        let place = index.0 as usize;
        if place >= self.elsewhere.len() {
            self.elsewhere.resize_with(place + 1, || None);
        }
        let (view, epoch, past) = before
            .map(|before| (before.view, before.epoch, before.past))
            .unwrap_or_default();
        self.elsewhere[place] = Some(Elsewhere {
            key,
            addresses,
            view,
            epoch,
            past,
        });
    }

    /// Returns what was known of such a peer.
    pub(super) fn remove_peer_elsewhere(&mut self, index: PeerIndex) -> Option<Elsewhere> {
        let known = self.elsewhere.get_mut(index.0 as usize)?.take()?;
        if self.keys.get(&known.key) == Some(&index) {
            self.keys.remove(&known.key);
        }
        self.routes.remove(known.addresses, index);
        Some(known)
    }

    #[inline]
    pub(super) fn elsewhere(&self, index: PeerIndex) -> Option<&Elsewhere> {
        self.elsewhere.get(index.0 as usize)?.as_ref()
    }

    pub(super) fn elsewhere_mut(&mut self, index: PeerIndex) -> Option<&mut Elsewhere> {
        self.elsewhere.get_mut(index.0 as usize)?.as_mut()
    }
}

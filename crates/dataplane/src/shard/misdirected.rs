//! What comes to one shard and is another's: told from few bytes, before it is counted, and handed
//! over. It is counted by the shard that it ends at, so that the sum over all shards is right.

use std::net::IpAddr;

use model::address::HostAddresses;
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::time::Now;
use wireguard::{ConsumedInitiation, Initiation, Kind, classify, receiver_index};

use super::Shard;
use crate::drops::DropReason;
use crate::outbox::{Misdirected, Outbox, Path};
use crate::packet::destination;
use crate::place::FRONT_DESK;

/// A peer that began a handshake, and whose shard another one is than the one that found out.
#[derive(Debug)]
pub struct Introduction {
    peer: PeerIndex,
    from: Option<Path>,
    consumed: Box<ConsumedInitiation>,
}

/// A peer of another shard, as far as every shard must know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elsewhere {
    key: WireguardKey,
    addresses: HostAddresses,
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

    /// Returns the other shard that a packet of this host is for.
    pub(super) fn owner_of_packet(&self, packet: &[u8]) -> Option<u16> {
        let place = self.config.place;
        if place.is_alone() {
            return None;
        }
        let destination: IpAddr = destination(packet)?;
        let owner = place.of_peer(self.routes.find(destination)?);
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

    pub(super) fn hand_packet_over(&mut self, to: u16, bytes: &[u8], out: &mut impl Outbox) {
        if !out.hand_over(to, Misdirected::OverlayPacket(bytes)) {
            self.counters.add_overlay_received(1, bytes.len());
            self.counters.add_drop(DropReason::HandOverFull);
        }
    }

    /// Hands an initiation over that turned out to be from another shard's peer.
    pub(super) fn introduce(
        &mut self,
        peer: PeerIndex,
        from: Option<Path>,
        consumed: ConsumedInitiation,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let introduction = Introduction {
            peer,
            from,
            consumed: Box::new(consumed),
        };
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
            (Some(_), Some(_)) => self.answer(peer, from, *consumed, now, out),
            _ => Err(DropReason::HandshakeUnexpected),
        };
        if let Err(reason) = fate {
            self.counters.add_datagram_received(Initiation::LEN);
            self.counters.add_drop(reason);
        }
    }

    pub(super) fn set_peer_elsewhere(
        &mut self,
        index: PeerIndex,
        key: WireguardKey,
        addresses: HostAddresses,
    ) {
        self.remove_peer_elsewhere(index);
        self.keys.insert(key, index);
        self.routes.insert(addresses, index);
        let place = index.0 as usize;
        if place >= self.elsewhere.len() {
            self.elsewhere.resize(place + 1, None);
        }
        self.elsewhere[place] = Some(Elsewhere { key, addresses });
    }

    /// Returns whether there was such a peer.
    pub(super) fn remove_peer_elsewhere(&mut self, index: PeerIndex) -> bool {
        let place = self.elsewhere.get_mut(index.0 as usize);
        let Some(Elsewhere { key, addresses }) = place.and_then(Option::take) else {
            return false;
        };
        if self.keys.get(&key) == Some(&index) {
            self.keys.remove(&key);
        }
        self.routes.remove(addresses, index);
        true
    }
}

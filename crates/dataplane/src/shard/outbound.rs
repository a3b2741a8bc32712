//! Packets of this host: where they go, whether they may, and sealing them.

use std::net::IpAddr;

use model::address::HostAddresses;
use model::map::PeerIndex;
use model::rule::Direction;
use model::time::Now;
use wireguard::sealed_len;

use super::verdicts::Barred;
use super::{Shard, tunnel_time};
use crate::drops::DropReason;
use crate::outbox::{DatagramMeta, Outbox, OverlayMeta};
use crate::packet::{Headers, Upper};
use crate::pending::PendingLimits;
use crate::refusal::Refusal;

impl Shard {
    /// Takes a packet of this host for the overlay. It leaves sealed, waits for a session, or is
    /// dropped and counted; then the host is told where that helps.
    pub fn handle_overlay_packet(
        &mut self,
        meta: OverlayMeta,
        packet: &mut [u8],
        now: Now,
        out: &mut impl Outbox,
    ) {
        if let Some(owner) = self.owner_of_packet(packet) {
            return self.hand_packet_over(owner, packet, out);
        }
        self.counters.add_overlay_received(packet.len());
        if meta.offload.is_some() {
            return self.counters.add_drop(DropReason::OffloadUnsupported);
        }
        match self.forward(packet, now, out) {
            Ok(peer) => self.settle(peer, now, out),
            Err(reason) => self.counters.add_drop(reason),
        }
    }

    /// Seals or queues a packet and counts it, and returns the peer whose tunnel is to be
    /// settled.
    pub(super) fn forward(
        &mut self,
        packet: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<PeerIndex, DropReason> {
        let identity = self.identity.as_ref().ok_or(DropReason::NoIdentity)?;
        let headers = Headers::parse(packet)?;
        let packet = &packet[..headers.length];
        check_addresses(&headers, packet, identity.addresses)?;
        let peer = self.routes.find(headers.destination);
        // Not this shard's: it waited while its address went to a peer of another one.
        let Some(peer) = peer.filter(|peer| self.config.place.has(*peer)) else {
            self.refuse(Refusal::Unreachable, &headers, packet, now, out);
            return Err(DropReason::UnknownDestination);
        };
        if headers.length > usize::from(self.config.mtu) {
            let mtu = self.config.mtu;
            if headers.dont_fragment {
                self.refuse(Refusal::TooBig { mtu }, &headers, packet, now, out);
            }
            return Err(DropReason::TooBig);
        }
        if let Err(barred) = self.admit(&headers, packet, Direction::Outbound, peer, now.monotonic)
        {
            if let Barred::Denied(_) = barred {
                self.refuse(Refusal::Prohibited, &headers, packet, now, out);
            }
            return Err(barred.reason());
        }
        self.seal_or_queue(peer, packet, headers.ecn, now, out)?;
        Ok(peer)
    }

    fn seal_or_queue(
        &mut self,
        index: PeerIndex,
        packet: &[u8],
        ecn: u8,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let time = tunnel_time(now);
        let plaintext_max = usize::from(self.config.mtu);
        let peer = self.peers.get_mut(index).expect("routes lead to peers");
        let path = match peer.path {
            Some(path) if peer.tunnel.has_session(time) => path,
            _ => {
                peer.tunnel.request_handshake(time);
                return self.queue(index, packet);
            }
        };
        let meta = DatagramMeta {
            ecn,
            segment_size: None,
            source: path.source,
        };
        let mut sealed = None;
        out.datagram(
            path,
            meta,
            sealed_len(packet.len(), plaintext_max),
            |room| {
                sealed = peer
                    .tunnel
                    .seal_into(&[packet], plaintext_max, room, time)
                    .ok();
                sealed.unwrap_or(0)
            },
        );
        let length = sealed.ok_or(DropReason::OutboxFull)?;
        peer.sent_bytes += length as u64;
        self.counters.add_sent(packet.len());
        Ok(())
    }

    /// Keeps a packet until there is a session.
    fn queue(&mut self, index: PeerIndex, packet: &[u8]) -> Result<(), DropReason> {
        let limits = &self.config.limits;
        if self.pending_bytes + packet.len() > limits.pending_bytes {
            return Err(DropReason::PendingOverflow);
        }
        let of_peer = PendingLimits {
            packets: limits.pending_packets_per_peer,
            bytes: limits.pending_bytes_per_peer,
        };
        let peer = self.peers.get_mut(index).expect("routes lead to peers");
        let before = peer.pending.bytes();
        let gone = peer
            .pending
            .push(packet, of_peer)
            .ok_or(DropReason::PendingOverflow)?;
        self.pending_bytes = self.pending_bytes - before + peer.pending.bytes();
        for _ in 0..gone {
            self.counters.remove_queued();
            self.counters.add_drop(DropReason::PendingOverflow);
        }
        self.counters.add_queued();
        Ok(())
    }

    /// Tells the local host that its packet goes nowhere.
    pub(super) fn refuse(
        &mut self,
        refusal: Refusal,
        headers: &Headers,
        packet: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) {
        if !refusal.may_answer(headers) || !self.refusals.take(now.monotonic) {
            return;
        }
        let length = refusal.length(headers);
        out.overlay_packet(OverlayMeta::default(), length, |room| {
            refusal.write(headers, packet, &mut room[..length]);
            length
        });
        self.counters.add_refusal();
    }
}

/// Checks that a packet goes from this host to what may be another.
fn check_addresses(headers: &Headers, packet: &[u8], own: HostAddresses) -> Result<(), DropReason> {
    check_destination(headers, packet)?;
    if is_link_local(headers.source) {
        return Err(DropReason::LinkLocal);
    }
    if own.contains(headers.destination) {
        return Err(DropReason::OwnAddress);
    }
    if !own.contains(headers.source) {
        return Err(DropReason::ForeignSource);
    }
    Ok(())
}

fn check_destination(headers: &Headers, packet: &[u8]) -> Result<(), DropReason> {
    const ROUTER_SOLICITATION: u8 = 133; // RFC 4861 4.1
    let destination = headers.destination;
    if headers.upper == Upper::IcmpForbidden
        && headers.source.is_ipv6()
        && packet[headers.upper_start] == ROUTER_SOLICITATION
    {
        return Err(DropReason::RouterSolicitation);
    }
    if destination.is_multicast() {
        return Err(DropReason::Multicast);
    }
    if is_link_local(destination) {
        return Err(DropReason::LinkLocal);
    }
    if matches!(destination, IpAddr::V4(v4) if v4.is_broadcast()) {
        return Err(DropReason::Broadcast);
    }
    if destination.is_unspecified() || destination.is_loopback() {
        return Err(DropReason::NotUnicast);
    }
    Ok(())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

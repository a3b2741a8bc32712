//! Packets of this host: where they go, whether they may, and sealing them.

use std::net::IpAddr;

use model::address::HostAddresses;
use model::map::PeerIndex;
use model::rule::Direction;
use model::time::Now;
use wireguard::sealed_len;

use super::probing::Fit;
use super::verdicts::{Admitted, Barred};
use super::{Shard, tunnel_time};
use crate::drops::DropReason;
use crate::flows::FlowKey;
use crate::offload::{Segmentation, VirtioHeader};
use crate::outbox::{Outbox, Path};
use crate::packet::{Headers, Upper};
use crate::pending::PendingLimits;
use crate::refusal::Refusal;
use crate::segments::Segments;

/// Why a packet of this host does not leave now.
#[derive(Clone, Copy, Debug)]
enum Stopped {
    Dropped(DropReason),
    /// It is to be held until it is known who sends its flow.
    Waits(FlowKey),
}

impl From<DropReason> for Stopped {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

impl Shard {
    /// Takes a packet of this host for the overlay. It leaves sealed, waits for a session, or is
    /// dropped and counted; then the host is told where that helps. A super-packet of the kernel's
    /// offload is judged once and leaves as the packets that it stands for.
    pub fn handle_overlay_packet(
        &mut self,
        offload: VirtioHeader,
        packet: &mut [u8],
        now: Now,
        out: &mut impl Outbox,
    ) {
        if let Some(owner) = self.owner_of_packet(packet, now, out) {
            return self.hand_packet_over(owner, offload, packet, out);
        }
        match offload.segmentation() {
            Ok(Some(segmentation)) => {
                self.handle_super_packet(offload, segmentation, packet, now, out);
            }
            Ok(None) => match offload.complete_checksum(packet) {
                Ok(()) => self.handle_plain_packet(packet, now, out),
                Err(reason) => self.drop_overlay_packet(packet.len(), reason),
            },
            Err(reason) => self.drop_overlay_packet(packet.len(), reason),
        }
    }

    fn drop_overlay_packet(&mut self, bytes: usize, reason: DropReason) {
        self.counters.add_overlay_received(1, bytes);
        self.counters.add_drops(1, reason);
    }

    fn handle_plain_packet(&mut self, packet: &[u8], now: Now, out: &mut impl Outbox) {
        self.counters.add_overlay_received(1, packet.len());
        match self.forward(packet, now, out) {
            Ok(peer) => self.settle_after_packet(peer, now, out),
            Err(reason) => self.counters.add_drop(reason),
        }
    }

    fn handle_super_packet(
        &mut self,
        offload: VirtioHeader,
        segmentation: Segmentation,
        packet: &[u8],
        now: Now,
        out: &mut impl Outbox,
    ) {
        let segments = Headers::parse(packet).and_then(|headers| {
            let segments = Segments::new(offload, segmentation, &headers, packet)?;
            Ok((headers, segments))
        });
        let (headers, mut segments) = match segments {
            Ok(parts) => parts,
            Err(reason) => return self.drop_overlay_packet(packet.len(), reason),
        };
        let packet = &packet[..headers.length];
        let routed = self.route(&headers, packet, segments.longest(), now, out);
        if let Ok((_, Fit::Cut(bytes_max))) = routed {
            segments.shorten(bytes_max);
            self.counters.add_packet_cut();
        }
        let count = segments.count();
        self.counters
            .add_overlay_received(count, segments.total_bytes());
        match routed {
            Ok((peer, _)) => {
                self.seal_or_queue_segments(peer, &mut segments, headers.ecn, now, out);
                self.settle_after_packet(peer, now, out);
            }
            Err(Stopped::Dropped(reason)) => self.counters.add_drops(count, reason),
            Err(Stopped::Waits(key)) => self.hold_segments(key, &mut segments, now),
        }
    }

    fn hold_segments(&mut self, key: FlowKey, segments: &mut Segments<'_>, now: Now) {
        while let Some((headers, payload)) = segments.next() {
            let packet = [headers, payload].concat();
            if let Err(reason) = self.hold(key, &packet, now.monotonic) {
                self.counters.add_drop(reason);
            }
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
        let headers = Headers::parse(packet)?;
        let packet = &packet[..headers.length];
        let (peer, fit) = match self.route(&headers, packet, headers.length, now, out) {
            Ok(routed) => routed,
            Err(Stopped::Dropped(reason)) => return Err(reason),
            Err(Stopped::Waits(key)) => {
                self.hold(key, packet, now.monotonic)?;
                return Ok(key.peer());
            }
        };
        match (self.ready_path(peer, now), fit) {
            (Some(path), Fit::Whole) => {
                self.seal(peer, path, &[packet], headers.ecn, now, out)?;
            }
            (Some(path), Fit::Cut(bytes_max)) => {
                let packet = (&headers, packet);
                self.seal_cut(peer, path, packet, bytes_max, now, out)?;
            }
            (None, _) => self.queue(peer, packet)?,
        }
        Ok(peer)
    }

    /// Returns the peer that a packet goes to, if it may, and how it leaves. `longest` are the bytes
    /// that must pass at once.
    fn route(
        &mut self,
        headers: &Headers,
        packet: &[u8],
        longest: usize,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<(PeerIndex, Fit), Stopped> {
        let identity = self.identity.as_ref().ok_or(DropReason::NoIdentity)?;
        check_addresses(headers, packet, identity.addresses)?;
        let peer = self.routes.find(headers.destination);
        // Not this shard's: it waited while its address went to a peer of another one.
        let Some(peer) = peer.filter(|peer| self.peers.get(*peer).is_some()) else {
            self.refuse(Refusal::Unreachable, headers, packet, now, out);
            return Err(DropReason::UnknownDestination.into());
        };
        let fit = self.fit(peer, headers, packet, longest, now, out)?;
        match self.admit(headers, packet, Direction::Outbound, peer, now.monotonic) {
            Ok(Admitted::ByRules) => Ok((peer, fit)),
            Ok(Admitted::BySender(key)) => {
                self.tell_claim(&key, now, out);
                Ok((peer, fit))
            }
            Err(Barred::Unclaimed(flow)) if flow.opened == Direction::Outbound => {
                Err(Stopped::Waits(flow.key))
            }
            Err(barred) => {
                match barred {
                    Barred::Denied(_) => {
                        self.refuse(Refusal::Prohibited, headers, packet, now, out);
                    }
                    // The peer opened it, and this daemon took it over from another.
                    Barred::Unclaimed(flow) => self.miss(flow, now, out),
                    Barred::Dropped(_) => {}
                }
                Err(barred.reason().into())
            }
        }
    }

    /// Returns where packets to a peer go now; without, a handshake is asked for.
    fn ready_path(&mut self, index: PeerIndex, now: Now) -> Option<Path> {
        let time = tunnel_time(now);
        let peer = self.peers.get_mut(index).expect("routes lead to peers");
        let path = peer.path.filter(|_| peer.tunnel.has_session(time));
        if path.is_none() {
            peer.tunnel.request_handshake(time);
        }
        path
    }

    fn seal_or_queue_segments(
        &mut self,
        index: PeerIndex,
        segments: &mut Segments<'_>,
        ecn: u8,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let path = self.ready_path(index, now);
        while let Some((headers, payload)) = segments.next() {
            let done = match path {
                Some(path) => self.seal(index, path, &[headers, payload], ecn, now, out),
                None => self.queue(index, &[headers, payload].concat()),
            };
            if let Err(reason) = done {
                self.counters.add_drop(reason);
            }
        }
    }

    /// Seals a packet that lies in pieces.
    pub(super) fn seal(
        &mut self,
        index: PeerIndex,
        path: Path,
        pieces: &[&[u8]],
        ecn: u8,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(index).expect("routes lead to peers");
        let plaintext_max = peer.path_mtu.limit(false);
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut sealed = None;
        out.datagram(path, ecn, sealed_len(length, plaintext_max), |room| {
            sealed = peer
                .tunnel
                .seal_into(pieces, plaintext_max, room, tunnel_time(now))
                .ok();
            sealed.unwrap_or(0)
        });
        let sealed = sealed.ok_or(DropReason::OutboxFull)?;
        peer.sent_bytes += sealed as u64;
        peer.path_mtu.note_sent(length, tunnel_time(now));
        self.counters.add_sent(length);
        Ok(())
    }

    /// Seals what this daemon itself says to a peer's, empty for a keepalive. Returns whether it left: there
    /// was a path and a session.
    pub(super) fn send_message(
        &mut self,
        index: PeerIndex,
        message: &[u8],
        plaintext_max: usize,
        now: Now,
        out: &mut impl Outbox,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(index) else {
            return false;
        };
        let Some(path) = peer.path else { return false };
        let mut sealed = 0;
        out.datagram(path, 0, sealed_len(message.len(), plaintext_max), |room| {
            sealed = peer
                .tunnel
                .seal_into(&[message], plaintext_max, room, tunnel_time(now))
                .unwrap_or(0);
            sealed
        });
        peer.sent_bytes += sealed as u64;
        sealed > 0
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
        let mut is_written = false;
        out.overlay_packet(length, |room| {
            refusal.write(headers, packet, &mut room[..length]);
            is_written = true;
            length
        });
        if is_written {
            self.counters.add_refusal();
        }
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

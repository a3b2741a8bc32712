//! Probes of a peer's path: sending those that are due, answering the peer's, and what follows for
//! the packets to it: which leave as they are, which are cut, and whose sender is told.

use model::map::PeerIndex;
use model::rule::ip_protocol::TCP;
use model::time::Now;
use wireguard::sealed_len;

use super::inbound::Fate;
use super::{Shard, tunnel_time};
use crate::drops::DropReason;
use crate::outbox::{Outbox, Path, ProbeFate};
use crate::packet::{Fragment, Headers, Upper};
use crate::pieces::Pieces;
use crate::probe::ProbeMessage;
use crate::refusal::Refusal;
use crate::segments::Segments;

/// The rest of a probe. Larger ones than the interface's largest MTU are never sent.
static PADDING: [u8; u16::MAX as usize] = [0; u16::MAX as usize];

/// How a packet that may go to a peer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// As it is.
    Whole,
    /// As several, of at most so many bytes.
    Cut(usize),
}

/// What packets to a peer become.
impl Shard {
    /// Returns how a packet leaves of which so many bytes must pass at once, if it does; its sender
    /// is told where that helps.
    #[inline]
    pub(super) fn fit(
        &mut self,
        index: PeerIndex,
        headers: &Headers,
        packet: &[u8],
        longest: usize,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fit, DropReason> {
        let peer = self.peers.get(index).expect("routes lead to peers");
        let limit = peer.path_mtu.limit(headers.source.is_ipv6());
        if longest <= limit {
            return Ok(Fit::Whole);
        }
        self.fit_large(index, headers, packet, (longest, limit), now, out)
    }

    #[cold]
    fn fit_large(
        &mut self,
        index: PeerIndex,
        headers: &Headers,
        packet: &[u8],
        (longest, limit): (usize, usize),
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fit, DropReason> {
        let peer = self.peers.get_mut(index).expect("routes lead to peers");
        let told = Refusal::TooBig {
            mtu: u16::try_from(limit).expect("limits are of 16 bits"),
        };
        if is_tcp_data(headers, packet) {
            // What fits from the start costs less than what is cut here.
            if peer.path_mtu.may_tell(now.monotonic) {
                self.refuse(told, headers, packet, now, out);
            }
            return Ok(Fit::Cut(limit));
        }
        let is_certain = peer.path_mtu.is_certain();
        let fits_interface = longest <= usize::from(self.config.mtu);
        match headers.dont_fragment {
            // In fragments of the datagram, if need be, until it is known what passes.
            _ if fits_interface && !is_certain => Ok(Fit::Whole),
            false if longest == headers.length => Ok(Fit::Cut(limit)),
            _ => {
                self.refuse(told, headers, packet, now, out);
                Err(DropReason::TooBig)
            }
        }
    }
}

/// Packets that leave as several.
impl Shard {
    /// Seals a packet as several of at most so many bytes. The first is the one that was counted
    /// when it came; the others are counted here.
    #[cold]
    pub(super) fn seal_cut(
        &mut self,
        index: PeerIndex,
        path: Path,
        (headers, packet): (&Headers, &[u8]),
        bytes_max: usize,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<(), DropReason> {
        self.counters.add_packet_cut();
        let mut outcome = None;
        let mut seal = |pieces: &[&[u8]]| {
            let sealed = self.seal(index, path, pieces, headers.ecn, now, out);
            if outcome.is_none() {
                outcome = Some(sealed);
                return;
            }
            self.counters.add_overlay_received(1, 0);
            if let Err(reason) = sealed {
                self.counters.add_drop(reason);
            }
        };
        if is_tcp_data(headers, packet) {
            let mut segments = Segments::of_segment(headers, packet, bytes_max)?;
            while let Some((headers, payload)) = segments.next() {
                seal(&[headers, payload]);
            }
        } else {
            let mut pieces = Pieces::new(packet, bytes_max);
            while let Some((header, payload)) = pieces.next() {
                seal(&[header, payload]);
            }
        }
        outcome.expect("a packet that is too large has at least one piece")
    }
}

/// Returns whether the segment may be cut into several (RFC 9293 3.1): none that opens or kills a
/// connection, nor one whose urgent pointer counts from its own start.
fn is_tcp_data(headers: &Headers, packet: &[u8]) -> bool {
    const URG: u8 = 0x20;
    match headers.upper {
        Upper::Tcp { flags, .. } => {
            headers.fragment == Fragment::Whole
                && headers.ip_protocol == TCP
                && !flags.syn()
                && !flags.rst()
                && packet[headers.upper_start + 13] & URG == 0
        }
        _ => false,
    }
}

/// Asking, and answering.
impl Shard {
    /// Sends the probes of a peer's path that are due.
    pub(super) fn probe(&mut self, index: PeerIndex, now: Now, out: &mut impl Outbox) {
        let time = tunnel_time(now);
        while let Some(peer) = self.peers.get_mut(index) {
            let Some(volley) = peer.path_mtu.poll_volley(time) else {
                return;
            };
            let path = peer.path.filter(|_| peer.tunnel.has_session(time));
            let Some(path) = path else {
                return peer.path_mtu.handle_no_session(time);
            };
            for size in volley.sizes() {
                if self.send_probe(index, path, volley.id, *size, now, out) == ProbeFate::TooBig {
                    let peer = self.peers.get_mut(index).expect("it was there before");
                    peer.path_mtu.handle_refused(*size, time);
                }
            }
        }
    }

    fn send_probe(
        &mut self,
        index: PeerIndex,
        path: Path,
        id: u32,
        size: u16,
        now: Now,
        out: &mut impl Outbox,
    ) -> ProbeFate {
        let message = ProbeMessage::Probe { id, size }.encode();
        let plaintext_max = usize::from(size);
        let padding = &PADDING[..plaintext_max - message.len()];
        let peer = self.peers.get_mut(index).expect("the caller found it");
        let mut sealed = 0;
        let fate = out.probe(path, sealed_len(plaintext_max, plaintext_max), |room| {
            sealed = peer
                .tunnel
                .seal_into(&[&message, padding], plaintext_max, room, tunnel_time(now))
                .unwrap_or(0);
            sealed
        });
        peer.sent_bytes += sealed as u64;
        self.counters.add_path_probe();
        fate
    }

    /// Answers a peer's probe.
    pub(super) fn handle_probe(
        &mut self,
        index: PeerIndex,
        id: u32,
        size: u16,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let message = ProbeMessage::Answer { id, size }.encode();
        self.send_message(index, &message, usize::MAX, now, out);
        Ok(Fate::Consumed)
    }

    /// Takes a peer's answer to a probe.
    pub(super) fn handle_probe_answer(
        &mut self,
        index: PeerIndex,
        id: u32,
        size: u16,
        now: Now,
        out: &mut impl Outbox,
    ) -> Result<Fate, DropReason> {
        let peer = self.peers.get_mut(index).expect("the caller found it");
        peer.path_mtu.handle_answer(id, size, tunnel_time(now));
        self.probe(index, now, out);
        Ok(Fate::Consumed)
    }

    /// Takes that the kernel refused datagrams to `remote` for their size, or had to cut them: what
    /// is proven of that path is asked for again at once.
    pub fn handle_datagrams_too_big(
        &mut self,
        remote: std::net::SocketAddr,
        now: Now,
        out: &mut impl Outbox,
    ) {
        let there = self.peers.iter_mut();
        let there = there.filter(|(_, peer)| peer.path.is_some_and(|path| path.remote == remote));
        let asked: Vec<PeerIndex> = there
            .map(|(index, peer)| {
                peer.path_mtu.handle_refused_datagrams(tunnel_time(now));
                index
            })
            .collect();
        for index in asked {
            self.probe(index, now, out);
            self.settle(index, now, out);
        }
    }
}

//! The shard's way out: memory lent for packets, which leave together when a burst has been handled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::{Coalescer, Joins, Misdirected, Outbox, Path, ProbeFate};

use super::datagram_batch::{DatagramBatch, Outcome};
use super::hand_over::HandOver;
use super::loan::Loan;
use super::tun_queue::TunWriter;
use super::udp_sender::UdpSender;
use crate::linux::send_runs::Run;

/// Room for packets to this host: a few of the kernel's largest.
const OVERLAY_BYTES: usize = 512 << 10;
/// What the kernel's largest packet may become, cut and sealed: as much again is room for the headers
/// and tags of all pieces, unless these are of a few dozen bytes.
const SUPER_PACKET_BYTES: usize = 128 << 10;

/// How long datagrams wait for a socket whose buffer is full: what is older is worth nothing to who
/// waits for it, and what else waits must get on.
const STALLED_MAX: Duration = Duration::from_millis(50);

/// Packets that the kernel did not take.
#[derive(Debug, Default)]
pub struct SendFailures {
    datagrams: AtomicU64,
    overlay_packets: AtomicU64,
    crossings: AtomicU64,
    joins_refused: AtomicU64,
    runs_refused: AtomicU64,
}

impl SendFailures {
    /// Returns all of them, each under the name of its reason.
    pub fn by_reason(&self) -> [(&'static str, u64); 3] {
        [
            ("underlay_send_failed", self.datagrams()),
            ("overlay_write_failed", self.overlay_packets()),
            ("hand_over_missed", self.crossings()),
        ]
    }

    /// Returns the datagrams that no socket took: no route, no buffer, too big for the path.
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Ordering::Relaxed)
    }

    /// Returns the packets that the TUN device did not take.
    pub fn overlay_packets(&self) -> u64 {
        self.overlay_packets.load(Ordering::Relaxed)
    }

    /// Returns how often the TUN device refused packets joined in a way that it had offered to take.
    pub fn joins_refused(&self) -> u64 {
        self.joins_refused.load(Ordering::Relaxed)
    }

    /// Returns how often a socket refused datagrams as a run.
    pub fn runs_refused(&self) -> u64 {
        self.runs_refused.load(Ordering::Relaxed)
    }

    /// Returns the datagrams that this daemon's predecessor or successor did not take in time.
    pub fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::Relaxed)
    }
}

/// Gathers packets until [`BatchOutbox::flush`], or until its memory is full.
pub(super) struct BatchOutbox {
    sender: UdpSender,
    datagrams: DatagramBatch,
    overlay: Option<Overlay>,
    failures: Arc<SendFailures>,
    /// The ways to all shards, by number.
    others: Vec<HandOver>,
    stall: Option<Stall>,
    /// Another daemon speaks for this host now.
    is_silent: bool,
    /// Where the datagrams lie that are handled now.
    loan: Loan,
}

/// More is under way than a socket's buffer may hold. Nothing is read from this host meanwhile, so
/// that its programs' packets wait where the kernel's own rules for queues hold.
#[derive(Clone, Copy, Debug)]
struct Stall {
    /// By family, IPv4 first.
    sockets: [bool; 2],
    until: Instant,
}

/// The way to this host.
struct Overlay {
    writer: TunWriter,
    packets: Coalescer,
}

impl BatchOutbox {
    pub(super) fn new(
        sender: UdpSender,
        failures: Arc<SendFailures>,
        others: Vec<HandOver>,
    ) -> Self {
        Self {
            sender,
            datagrams: DatagramBatch::new(),
            overlay: None,
            failures,
            others,
            stall: None,
            is_silent: false,
            loan: Loan::default(),
        }
    }

    /// From now on, nothing is sent; or it is again.
    pub(super) fn set_silent(&mut self, is_silent: bool) {
        self.is_silent = is_silent;
        self.give_up();
    }

    /// Counts a datagram that did not get across to the other daemon on this host.
    pub(super) fn count_not_crossed(&self) {
        self.failures.crossings.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes another queue of a TUN device, or none.
    pub(super) fn set_device(&mut self, device: Option<(TunWriter, Joins)>) {
        self.overlay = device.map(|(writer, joins)| Overlay {
            writer,
            packets: Coalescer::new(joins, OVERLAY_BYTES),
        });
    }

    /// Returns how many datagrams wait.
    pub(super) fn datagrams_waiting(&self) -> usize {
        self.datagrams.len()
    }

    /// Returns whether a packet from this host will find room, whatever its size: otherwise it is to
    /// wait where it is.
    pub(super) fn takes_super_packet(&self) -> bool {
        self.stall.is_none() && self.datagrams.has_room(SUPER_PACKET_BYTES)
    }

    /// Returns where datagrams have become too large for, as it seems, since it was asked last.
    pub(super) fn take_too_big(&mut self) -> Option<SocketAddr> {
        self.sender.take_too_big()
    }

    /// Gives the kernel everything that waits.
    pub(super) fn flush(&mut self) {
        self.flush_datagrams();
        self.flush_overlay();
    }

    /// Gives the kernel everything that waits, and waits for sockets whose buffers are full, as long
    /// as datagrams may: nothing will be sent after.
    pub(super) fn flush_for_good(&mut self) {
        self.flush();
        let Some(Stall { until, .. }) = self.stall else {
            return;
        };
        while let Some(Stall { sockets, .. }) = self.stall {
            let left = until.saturating_duration_since(Instant::now());
            let room = self.sender.wait_for_room(sockets, left);
            if room == [false; 2] {
                return;
            }
            self.handle_room(room);
            self.flush_datagrams();
        }
    }

    /// Returns the sockets, by family, whose buffers are full, and how long that is waited for.
    pub(super) fn stall(&self) -> Option<([bool; 2], Duration)> {
        let stall = self.stall?;
        let left = stall.until.saturating_duration_since(Instant::now());
        Some((stall.sockets, left))
    }

    /// Takes that these sockets have room again.
    pub(super) fn handle_room(&mut self, sockets: [bool; 2]) {
        if let Some(stall) = &mut self.stall {
            for (is_stalled, has_room) in stall.sockets.iter_mut().zip(sockets) {
                *is_stalled &= !has_room;
            }
        }
    }

    fn flush_datagrams(&mut self) {
        self.give_up_when_late();
        let held = self.stall.map_or([false; 2], |stall| stall.sockets);
        let Outcome { failed, stalled } = self.datagrams.send(&mut self.sender, held);
        self.count_failed(failed);
        let refusals = self.sender.take_refusals();
        if refusals > 0 {
            let counted = &self.failures.runs_refused;
            counted.fetch_add(refusals, Ordering::Relaxed);
        }
        self.stall = match (stalled, self.stall) {
            ([false, false], _) => None,
            (sockets, Some(stall)) if sockets == held => Some(stall),
            (sockets, _) => Some(Stall {
                sockets,
                until: Instant::now() + STALLED_MAX,
            }),
        };
    }

    fn give_up_when_late(&mut self) {
        if self
            .stall
            .is_some_and(|stall| stall.until <= Instant::now())
        {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        if self.stall.take().is_some() {
            let given_up = self.datagrams.clear();
            self.count_failed(given_up);
        }
    }

    fn count_failed(&self, datagrams: usize) {
        if datagrams > 0 {
            let failed = datagrams as u64;
            self.failures.datagrams.fetch_add(failed, Ordering::Relaxed);
        }
    }

    /// From now on, packets that lie in this memory stay there, until it is given back.
    pub(super) fn borrow(&mut self, memory: &[u8]) {
        self.loan = Loan::of(memory);
    }

    /// Gives the kernel the packets of this host, also those that lie in the memory.
    pub(super) fn give_back(&mut self, memory: &mut [u8]) {
        self.loan = Loan::default();
        self.flush_overlay_from(memory);
    }

    fn flush_overlay(&mut self) {
        self.flush_overlay_from(&mut []);
    }

    fn flush_overlay_from(&mut self, lent: &mut [u8]) {
        let Some(Overlay { writer, packets }) = &mut self.overlay else {
            return;
        };
        let failures = &self.failures;
        let mut refused = false;
        packets.take_all_lent(lent, |header, parts| {
            let written = writer.send(header, parts);
            let failed = written.failed as u64;
            if failed > 0 {
                failures
                    .overlay_packets
                    .fetch_add(failed, Ordering::Relaxed);
            }
            refused |= written.refused;
        });
        if refused {
            failures.joins_refused.fetch_add(1, Ordering::Relaxed);
            packets.set_joins(writer.joins());
        }
    }
}

impl BatchOutbox {
    fn has_lent(&self) -> bool {
        let has_lent = |overlay: &Overlay| overlay.packets.has_lent();
        self.overlay.as_ref().is_some_and(has_lent)
    }
}

impl Outbox for BatchOutbox {
    fn datagram(
        &mut self,
        via: Path,
        ecn: u8,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        if self.is_silent {
            return;
        }
        if !self.datagrams.has_room(room) {
            self.flush_datagrams();
        }
        if !self.datagrams.has_room(room) {
            // A socket's buffer is full, and so is this one: the shard sees that, and counts a packet.
            return;
        }
        self.datagrams.add(via, ecn, room, write);
    }

    fn probe(
        &mut self,
        via: Path,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> ProbeFate {
        if self.is_silent {
            return ProbeFate::Sent;
        }
        // Probes are rare: memory of its own costs less than a flush.
        let mut bytes = vec![0; room];
        let length = write(&mut bytes);
        if length == 0 {
            return ProbeFate::Sent;
        }
        let run = Run {
            to: via.remote,
            source: via.source,
            ecn: 0,
            segment_size: None,
            bytes: &bytes[..length],
        };
        match self.sender.send_unfragmented(run) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => ProbeFate::TooBig,
            // Whatever else is wrong, the next packets show it.
            Ok(()) | Err(_) => ProbeFate::Sent,
        }
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let is_full = |overlay: &Overlay| !overlay.packets.has_room(room);
        if self.overlay.as_ref().is_some_and(is_full) {
            // What is lent cannot be written yet, and nothing may overtake it.
            if self.has_lent() {
                return;
            }
            self.flush_overlay();
        }
        // Without a device nothing is written: the shard counts that itself.
        if let Some(overlay) = &mut self.overlay {
            overlay.packets.add(room, write);
        }
    }

    fn deliver(&mut self, packet: &[u8]) -> bool {
        let Some(overlay) = &mut self.overlay else {
            return false;
        };
        if let Some(start) = self.loan.place_of(packet) {
            return overlay.packets.add_lent(start, packet);
        }
        let mut is_taken = false;
        self.overlay_packet(packet.len(), |room| {
            room[..packet.len()].copy_from_slice(packet);
            is_taken = true;
            packet.len()
        });
        is_taken
    }

    fn hand_over(&mut self, to: u16, what: Misdirected<'_>) -> bool {
        let way = self.others.get(usize::from(to));
        way.is_some_and(|way| way.give(what))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::datagram_batch::tests::{narrow, open_way, via};
    use super::*;
    use crate::linux::interface::tests::is_in_namespace;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn outbox(sender: UdpSender) -> BatchOutbox {
        BatchOutbox::new(sender, Arc::default(), Vec::new())
    }

    /// Returns whether a datagram of so many bytes found room.
    fn is_taken(outbox: &mut BatchOutbox, bytes: usize) -> bool {
        let mut is_taken = false;
        outbox.datagram(via(2), 0, bytes, |room| {
            is_taken = true;
            room.len()
        });
        is_taken
    }

    /// One whose socket has taken a run, and has no room for the next. It is not in a hurry.
    fn stalled() -> BatchOutbox {
        let mut outbox = outbox(narrow());
        for _ in 0..100 {
            assert!(is_taken(&mut outbox, 900));
        }
        outbox.flush();
        let stall = outbox.stall.as_mut().expect("the buffer is full");
        stall.until += PATIENCE;
        outbox
    }

    #[test]
    fn a_super_packet_of_large_datagrams_that_is_taken_waits_whole() {
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut outbox = outbox(UdpSender::new(v4, None));
        let mut added = 0;
        while outbox.takes_super_packet() && added < 256 {
            for _ in 0..8 {
                assert!(is_taken(&mut outbox, 9000));
                added += 1;
            }
            // Had one found no room, those before it would have been sent in the middle.
            assert_eq!(outbox.datagrams_waiting(), added);
        }
        assert!(added >= 40, "{added} are far fewer than there is room for");
    }

    #[test]
    fn what_finds_no_room_is_counted_once_and_packets_wait_where_they_are() {
        if !is_in_namespace(
            "packets::outbox::tests::what_finds_no_room_is_counted_once_and_packets_wait_where_they_are",
        ) {
            return;
        }
        let mut outbox = stalled();
        assert!(outbox.datagrams.has_room(SUPER_PACKET_BYTES));
        assert!(!outbox.takes_super_packet(), "room alone is not enough");
        while is_taken(&mut outbox, 9000) {}
        let waiting = outbox.datagrams_waiting() as u64;
        assert!(waiting > 0);
        assert_eq!(outbox.failures.datagrams(), 0, "the shard counts it");
        outbox.set_silent(true);
        assert_eq!(outbox.failures.datagrams(), waiting);
        assert!(outbox.takes_super_packet());
    }

    #[test]
    fn what_waits_for_room_is_sent_before_silence() {
        if !is_in_namespace("packets::outbox::tests::what_waits_for_room_is_sent_before_silence") {
            return;
        }
        let mut outbox = stalled();
        assert!(outbox.datagrams_waiting() > 0);
        let opening = std::thread::spawn(open_way);
        outbox.flush_for_good();
        opening.join().unwrap();
        assert_eq!(outbox.datagrams_waiting(), 0);
        outbox.set_silent(true);
        assert_eq!(outbox.failures.datagrams(), 0);
    }
}

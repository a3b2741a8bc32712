//! What a shard counts. Read by anyone at any time, written by its shard alone, so that a count
//! costs a load and a store and no locked instruction.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::drops::DropReason;
use crate::flows::Flows;

/// One number that only its shard changes.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Count {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, amount: u64) {
        self.0
            .store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    fn subtract(&self, amount: u64) {
        self.0
            .store(self.get().wrapping_sub(amount), Ordering::Relaxed);
    }
}

/// The counters of one shard; each shard has its own.
#[derive(Debug)]
pub struct Counters {
    drops: [Count; DropReason::COUNT],
    overlay_packets: Count,
    overlay_bytes: Count,
    datagrams: Count,
    datagram_bytes: Count,
    sent_packets: Count,
    sent_bytes: Count,
    delivered_packets: Count,
    delivered_bytes: Count,
    consumed: Count,
    queued: Count,
    handshakes_started: Count,
    handshakes_completed: Count,
    handshakes_unanswered: Count,
    refusals: Count,
    rejections: Count,
    path_probes: Count,
    packets_cut: Count,
    denied_by_peer: Count,
    lost_events: Count,
    flows: Count,
    flows_evicted: Count,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            drops: std::array::from_fn(|_| Count::default()),
            overlay_packets: Count::default(),
            overlay_bytes: Count::default(),
            datagrams: Count::default(),
            datagram_bytes: Count::default(),
            sent_packets: Count::default(),
            sent_bytes: Count::default(),
            delivered_packets: Count::default(),
            delivered_bytes: Count::default(),
            consumed: Count::default(),
            queued: Count::default(),
            handshakes_started: Count::default(),
            handshakes_completed: Count::default(),
            handshakes_unanswered: Count::default(),
            refusals: Count::default(),
            rejections: Count::default(),
            path_probes: Count::default(),
            packets_cut: Count::default(),
            denied_by_peer: Count::default(),
            lost_events: Count::default(),
            flows: Count::default(),
            flows_evicted: Count::default(),
        }
    }
}

/// Where everything that came in went. See [`Counters::balance`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Overlay packets and datagrams that came in.
    pub received: u64,
    /// Sealed towards a peer, or delivered to this host.
    pub delivered: u64,
    /// Handshake messages and keepalives that did their work, and datagrams that are not the tunnels'.
    pub consumed: u64,
    /// Packets that wait for a session, handshake messages that wait for their job.
    pub queued: u64,
    /// Dropped, for all reasons.
    pub dropped: u64,
}

impl Balance {
    /// Returns whether nothing was lost silently.
    pub const fn holds(&self) -> bool {
        self.received == self.delivered + self.consumed + self.queued + self.dropped
    }
}

impl Counters {
    /// Returns how many were dropped for the reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.position()].get()
    }

    /// Returns where everything went. It holds whenever the shard is at rest.
    pub fn balance(&self) -> Balance {
        Balance {
            received: self.overlay_packets.get() + self.datagrams.get(),
            delivered: self.sent_packets.get() + self.delivered_packets.get(),
            consumed: self.consumed.get(),
            queued: self.queued.get(),
            dropped: self.drops.iter().map(Count::get).sum(),
        }
    }

    /// Returns the packets that this host gave, and their bytes.
    pub fn overlay_received(&self) -> (u64, u64) {
        (self.overlay_packets.get(), self.overlay_bytes.get())
    }

    /// Returns the datagrams that came from the network, and their bytes.
    pub fn datagrams_received(&self) -> (u64, u64) {
        (self.datagrams.get(), self.datagram_bytes.get())
    }

    /// Returns the overlay packets that were sealed towards peers, and their bytes.
    pub fn sent(&self) -> (u64, u64) {
        (self.sent_packets.get(), self.sent_bytes.get())
    }

    /// Returns the overlay packets that were delivered to this host, and their bytes.
    pub fn delivered(&self) -> (u64, u64) {
        (self.delivered_packets.get(), self.delivered_bytes.get())
    }

    /// Returns the packets and handshake messages that wait.
    pub fn queued(&self) -> u64 {
        self.queued.get()
    }

    /// Returns the handshakes that this host began.
    pub fn handshakes_started(&self) -> u64 {
        self.handshakes_started.get()
    }

    /// Returns the handshakes that ended in a session, in both roles.
    pub fn handshakes_completed(&self) -> u64 {
        self.handshakes_completed.get()
    }

    /// Returns the handshakes that this host began and that nothing was heard of before the next.
    pub fn handshakes_unanswered(&self) -> u64 {
        self.handshakes_unanswered.get()
    }

    /// Returns the TCP resets and ICMP errors that told the local host of a drop.
    pub fn refusals(&self) -> u64 {
        self.refusals.get()
    }

    /// Returns the answers that told a peer of a denial here.
    pub fn rejections(&self) -> u64 {
        self.rejections.get()
    }

    /// Returns the probes that were sent to find how large a datagram may be.
    pub fn path_probes(&self) -> u64 {
        self.path_probes.get()
    }

    /// Returns the packets and super-packets of this host that were cut smaller than the kernel had
    /// them, since the way to their peer takes less than the interface.
    pub fn packets_cut(&self) -> u64 {
        self.packets_cut.get()
    }

    /// Returns the flows of this host that a peer's rules denied, as it said.
    pub fn denied_by_peer(&self) -> u64 {
        self.denied_by_peer.get()
    }

    /// Returns the events that nobody polled in time.
    pub fn lost_events(&self) -> u64 {
        self.lost_events.get()
    }

    /// Returns the flows that are remembered now.
    pub fn flows(&self) -> u64 {
        self.flows.get()
    }

    /// Returns the flows that were forgotten before their time, to make room for others.
    pub fn flows_evicted(&self) -> u64 {
        self.flows_evicted.get()
    }

    pub(crate) fn add_drop(&self, reason: DropReason) {
        self.add_drops(1, reason);
    }

    pub(crate) fn add_drops(&self, packets: usize, reason: DropReason) {
        self.drops[reason.position()].add(packets as u64);
    }

    pub(crate) fn add_overlay_received(&self, packets: usize, bytes: usize) {
        self.overlay_packets.add(packets as u64);
        self.overlay_bytes.add(bytes as u64);
    }

    pub(crate) fn add_datagram_received(&self, bytes: usize) {
        self.datagrams.add(1);
        self.datagram_bytes.add(bytes as u64);
    }

    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent_packets.add(1);
        self.sent_bytes.add(bytes as u64);
    }

    pub(crate) fn add_delivered(&self, bytes: usize) {
        self.delivered_packets.add(1);
        self.delivered_bytes.add(bytes as u64);
    }

    pub(crate) fn add_consumed(&self) {
        self.consumed.add(1);
    }

    pub(crate) fn add_queued(&self) {
        self.queued.add(1);
    }

    pub(crate) fn remove_queued(&self) {
        self.queued.subtract(1);
    }

    pub(crate) fn add_handshake_started(&self) {
        self.handshakes_started.add(1);
    }

    pub(crate) fn add_handshake_completed(&self) {
        self.handshakes_completed.add(1);
    }

    pub(crate) fn add_handshake_unanswered(&self) {
        self.handshakes_unanswered.add(1);
    }

    pub(crate) fn add_refusal(&self) {
        self.refusals.add(1);
    }

    pub(crate) fn add_rejection(&self) {
        self.rejections.add(1);
    }

    pub(crate) fn add_path_probe(&self) {
        self.path_probes.add(1);
    }

    pub(crate) fn add_packet_cut(&self) {
        self.packets_cut.add(1);
    }

    pub(crate) fn add_denied_by_peer(&self) {
        self.denied_by_peer.add(1);
    }

    pub(crate) fn add_lost_event(&self) {
        self.lost_events.add(1);
    }

    pub(crate) fn set_flows(&self, flows: &Flows) {
        let (now, evicted) = (flows.len() as u64, flows.evicted());
        self.flows.0.store(now, Ordering::Relaxed);
        self.flows_evicted.0.store(evicted, Ordering::Relaxed);
    }
}

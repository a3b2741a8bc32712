//! What a shard is made with: its bounds and the overlay's MTU.

use crate::place::Place;
use crate::shift::Shift;

/// The configuration of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// How much of anything.
    pub limits: Limits,
    /// Which of the host's shards it is.
    pub place: Place,
    /// Other than that of the daemon that hands over to this one.
    pub shift: Shift,
    /// Bytes of the largest overlay packet, as its interface has it; larger ones are answered with
    /// ICMP.
    pub mtu: u16,
    /// Bytes of the largest packet to a peer of whose path nothing is proven; see `path_mtu`.
    pub assumed_mtu: u16,
}

impl Default for ShardConfig {
    /// 1420: an Ethernet frame less IPv6, UDP and WireGuard headers.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            place: Place::default(),
            shift: Shift::default(),
            mtu: 1420,
            assumed_mtu: 1420,
        }
    }
}

/// The bounds of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Peers; an index at or above it is refused.
    pub peers: usize,
    /// Flows in all; see `flows` for who is evicted.
    pub flows: usize,
    /// Flows of one peer.
    pub flows_per_peer: usize,
    /// Fragmented packets whose first fragment was let through.
    pub fragments: usize,
    /// Packets that wait for a session with one peer; the oldest goes first.
    pub pending_packets_per_peer: usize,
    /// Their bytes.
    pub pending_bytes_per_peer: usize,
    /// Bytes that wait for sessions with all peers; above it nothing more is taken.
    pub pending_bytes: usize,
    /// Bytes a second of one peer's main session, both ways, from which on lanes are wanted.
    pub lane_bytes_per_sec: u64,
    /// Bytes that a lane's session must have carried, both ways, for another to follow it.
    pub lane_bytes_kept: u64,
    /// Handshake jobs that are out; above it handshakes are dropped.
    pub handshake_jobs: usize,
    /// Of these, kept for handshakes that this host began: strangers cannot take them.
    pub handshake_jobs_reserved: usize,
    /// Handshake jobs that are out from which on strangers must prove their address by a cookie.
    pub handshake_jobs_loaded: usize,
    /// Handshakes of others a second from which on strangers must prove their address.
    pub handshakes_per_sec_loaded: u32,
    /// Events that were not polled; above it news are lost and counted.
    pub events: usize,
    /// Denials told a second; all are counted.
    pub denials_per_sec: u32,
    /// ICMP errors and TCP resets to the local host a second (RFC 1812 4.3.2.8, RFC 4443 2.4 f).
    pub refusals_per_sec: u32,
    /// Peers told a second that their packet was denied, in all.
    pub rejections_per_sec: u32,
    /// The same for each peer, so that no peer's flood keeps others from being told.
    pub rejections_per_peer_per_sec: u32,
    /// Flows of UDP that wait to be told who sends them.
    pub senders_asked: usize,
    /// Flows of UDP whose sender is known, of this host and of peers each.
    pub claims: usize,
    /// Of these, one peer's.
    pub claims_per_peer: usize,
    /// Claims a second that each peer is told to be missed, and told again as it misses them.
    pub misses_per_peer_per_sec: u32,
    /// Times a second that a peer is heard that tells how many shards it has.
    pub greetings_per_peer_per_sec: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers: model::limits::Limits::HOSTS,
            flows: 1 << 17,
            flows_per_peer: 1 << 15,
            fragments: 1024,
            pending_packets_per_peer: 128,
            pending_bytes_per_peer: 128 << 10,
            pending_bytes: 16 << 20,
            lane_bytes_per_sec: 4 << 20,
            lane_bytes_kept: 1 << 20,
            handshake_jobs: 512,
            handshake_jobs_reserved: 64,
            handshake_jobs_loaded: 64,
            handshakes_per_sec_loaded: 200,
            events: 1 << 14,
            denials_per_sec: 20,
            refusals_per_sec: 1000,
            rejections_per_sec: 1000,
            rejections_per_peer_per_sec: 20,
            senders_asked: 1024,
            claims: 1 << 15,
            claims_per_peer: 1 << 13,
            misses_per_peer_per_sec: 1000,
            greetings_per_peer_per_sec: 20,
        }
    }
}

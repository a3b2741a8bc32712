//! What a shard leaves to the daemon that takes over from it: where its peers are, which flows were
//! let through, how its handshakes were dated. Never a key: the successor agrees on keys of its own.

use std::time::Duration;

use model::address::HostAddresses;
use model::key::WireguardKey;
use model::rule::Direction;
use model::time::UnixTime;

use crate::outbox::Path;

pub use crate::flows::Phase as FlowPhase;

mod encoding;

pub use encoding::{BEQUEST_FORMAT, BequestError};

/// Whether flows are left too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What the successor needs to agree on sessions, while packets still pass here.
    Peers,
    /// All; no packet should pass here any more.
    PeersAndFlows,
}

/// What one shard leaves, or several of one host together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bequest {
    /// The host's own overlay addresses; `None`: it had none, and so neither peers nor flows.
    pub own: Option<HostAddresses>,
    /// The date of the last handshake that was begun.
    pub last_date: UnixTime,
    /// Dates up to here were promised to be stored: no later one was used.
    pub reserved_until: UnixTime,
    /// In no order.
    pub peers: Vec<PeerBequest>,
}

/// What is left of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerBequest {
    /// Its X25519 public key.
    pub key: WireguardKey,
    /// Its overlay addresses; the flows are of these.
    pub addresses: HostAddresses,
    /// Where it is.
    pub path: Option<Path>,
    /// Packets could be sealed for it, or wait for that: the successor should agree on a session at
    /// once.
    pub wants_session: bool,
    /// The date of its last initiation that was answered (TAI64N): older ones are replays.
    pub last_initiation: Option<[u8; 12]>,
    /// Datagram bytes that were authenticated as from it.
    pub received_bytes: u64,
    /// Datagram bytes sent to it.
    pub sent_bytes: u64,
    /// Flows with it that were let through.
    pub flows: Vec<FlowBequest>,
}

/// A flow that was let through. The successor asks its own rules about it, the way it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowBequest {
    /// On this host; see `FlowKey` for flows without ports.
    pub local_port: u16,
    /// On the peer.
    pub remote_port: u16,
    /// IANA number.
    pub ip_protocol: u8,
    /// The addresses are those of IPv6.
    pub is_ipv6: bool,
    /// Which way it was opened.
    pub opened: Direction,
    /// Which way its first packet went that was seen.
    pub first_seen: Direction,
    /// How it stands.
    pub phase: FlowPhase,
    /// Time since its last packet, in whole milliseconds.
    pub idle: Duration,
}

impl Bequest {
    /// Adds what another shard of the same host leaves.
    pub fn merge(&mut self, other: Self) {
        self.own = self.own.or(other.own);
        self.last_date = self.last_date.max(other.last_date);
        self.reserved_until = self.reserved_until.max(other.reserved_until);
        self.peers.extend(other.peers);
    }

    /// Returns how many flows are left.
    pub fn flow_count(&self) -> usize {
        self.peers.iter().map(|peer| peer.flows.len()).sum()
    }
}

//! What a shard leaves to the daemon that takes over from it: where its peers are, which flows were
//! let through, how its handshakes were dated. Never a key: the successor agrees on keys of its own.

use std::collections::BTreeMap;
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
    /// Adds what another shard of the same host leaves: other peers, or lanes to the same.
    pub fn merge(&mut self, other: Self) {
        self.own = self.own.or(other.own);
        self.last_date = self.last_date.max(other.last_date);
        self.reserved_until = self.reserved_until.max(other.reserved_until);
        let known: BTreeMap<_, _> = (0..)
            .zip(&self.peers)
            .map(|(place, peer): (usize, _)| (*peer.key.as_bytes(), place))
            .collect();
        for peer in other.peers {
            match known.get(peer.key.as_bytes()) {
                Some(place) => self.peers[*place].merge(peer),
                None => self.peers.push(peer),
            }
        }
    }

    /// Returns how many flows are left.
    pub fn flow_count(&self) -> usize {
        self.peers.iter().map(|peer| peer.flows.len()).sum()
    }
}

impl PeerBequest {
    /// Adds what another shard leaves of the same peer: one of the two has the main session with it,
    /// and says where it is.
    fn merge(&mut self, other: Self) {
        self.path = self.path.or(other.path);
        self.wants_session |= other.wants_session;
        self.last_initiation = self.last_initiation.or(other.last_initiation);
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.flows.extend(other.flows);
    }
}

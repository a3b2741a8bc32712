//! The peers by index: each one's tunnel, path and waiting packets.

use std::time::Duration;

use model::address::HostAddresses;
use model::key::{Secret, WireguardKey};
use model::map::PeerIndex;
use model::time::Instant;
use wireguard::{DataCipher, Initiation, PresharedKey, PublicKey, Tunnel, TunnelConfig};

use crate::command::PeerKind;
use crate::lanes::{LaneEnd, Lanes};
use crate::outbox::Path;
use crate::path_mtu::PathMtu;
use crate::pending::Pending;
use crate::rate::Rate;

/// One peer.
pub(crate) struct Peer {
    /// Tells this peer from others that had its index before.
    pub(crate) incarnation: u64,
    pub(crate) kind: PeerKind,
    pub(crate) key: WireguardKey,
    pub(crate) addresses: HostAddresses,
    pub(crate) preshared: Option<Secret>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) cipher: DataCipher,
    pub(crate) tunnel: Tunnel,
    pub(crate) path: Option<Path>,
    pub(crate) path_mtu: PathMtu,
    /// An authenticated packet came over `path`, and no handshake stayed unanswered since.
    pub(crate) is_path_proven: bool,
    /// An initiation was sent, and nothing was heard since.
    pub(crate) is_unanswered: bool,
    /// It was initiated to last with this host's spare key.
    pub(crate) tries_spare: bool,
    /// The initiation that waits for its answer, to be sent again over another path.
    pub(crate) initiation: Option<[u8; Initiation::LEN]>,
    /// The index of our handshake whose first answer was let through whatever the load.
    pub(crate) answered: Option<u32>,
    /// When it was last reached back to, for what came under a session of before.
    pub(crate) reached_back_at: Option<Instant>,
    pub(crate) pending: Pending,
    /// Answers that tell it of denials.
    pub(crate) rejections: Rate,
    /// Claims that either side misses.
    pub(crate) misses: Rate,
    /// Times that it tells of its shards.
    pub(crate) greetings: Rate,
    /// The earliest entry in the heap of timers.
    pub(crate) scheduled: Option<Duration>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// The lanes to it, where this is its home shard, once they can be.
    pub(crate) lanes: Option<Box<Lanes>>,
    /// Of a peer of another shard: it has this lane here.
    pub(crate) lane: Option<Box<LaneEnd>>,
}

/// What a peer is made of.
pub(crate) struct PeerParts {
    pub(crate) incarnation: u64,
    pub(crate) kind: PeerKind,
    pub(crate) key: WireguardKey,
    pub(crate) addresses: HostAddresses,
    pub(crate) preshared: Option<Secret>,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) cipher: DataCipher,
    pub(crate) path_mtu: PathMtu,
    pub(crate) rejections_per_sec: u32,
    pub(crate) misses_per_sec: u32,
    pub(crate) greetings_per_sec: u32,
    pub(crate) jitter_seed: u64,
}

impl Peer {
    pub(crate) fn new(parts: PeerParts, now: Duration) -> Self {
        let tunnel = tunnel(
            parts.key,
            parts.preshared.as_ref(),
            parts.keepalive,
            parts.cipher,
            parts.jitter_seed,
            now,
        );
        Self {
            incarnation: parts.incarnation,
            kind: parts.kind,
            key: parts.key,
            addresses: parts.addresses,
            preshared: parts.preshared,
            keepalive: parts.keepalive,
            cipher: parts.cipher,
            tunnel,
            path: None,
            path_mtu: parts.path_mtu,
            is_path_proven: false,
            is_unanswered: false,
            tries_spare: false,
            initiation: None,
            answered: None,
            reached_back_at: None,
            pending: Pending::default(),
            rejections: Rate::per_sec(parts.rejections_per_sec),
            misses: Rate::per_sec(parts.misses_per_sec),
            greetings: Rate::per_sec(parts.greetings_per_sec),
            scheduled: None,
            received_bytes: 0,
            sent_bytes: 0,
            lanes: None,
            lane: None,
        }
    }

    /// Packets to it go another way from now on.
    pub(crate) fn set_path(&mut self, path: Path) {
        if self.path.map(|before| before.remote) != Some(path.remote) {
            self.path_mtu.follow(path.remote.is_ipv6());
        }
        self.path = Some(path);
    }

    /// Forgets every session; what is configured stays.
    pub(crate) fn reset_tunnel(&mut self, incarnation: u64, jitter_seed: u64, now: Duration) {
        self.incarnation = incarnation;
        self.tunnel = tunnel(
            self.key,
            self.preshared.as_ref(),
            self.keepalive,
            self.cipher,
            jitter_seed,
            now,
        );
        self.is_path_proven = false;
        self.is_unanswered = false;
        self.initiation = None;
    }
}

fn tunnel(
    key: WireguardKey,
    preshared: Option<&Secret>,
    keepalive: Option<Duration>,
    cipher: DataCipher,
    jitter_seed: u64,
    now: Duration,
) -> Tunnel {
    let config = TunnelConfig {
        peer: PublicKey::from_bytes(*key.as_bytes()),
        preshared_key: preshared_key(preshared),
        persistent_keepalive: keepalive,
        cipher,
        jitter_seed,
    };
    Tunnel::new(config, now)
}

pub(crate) fn preshared_key(secret: Option<&Secret>) -> PresharedKey {
    secret
        .map(|secret| PresharedKey::from_bytes(*secret.expose()))
        .unwrap_or_default()
}

/// The peers; an index is a place in a vector.
#[derive(Default)]
pub(crate) struct Peers {
    places: Vec<Option<Box<Peer>>>,
}

impl Peers {
    #[inline]
    pub(crate) fn get(&self, index: PeerIndex) -> Option<&Peer> {
        self.places.get(index.0 as usize)?.as_deref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.places.get_mut(index.0 as usize)?.as_deref_mut()
    }

    pub(crate) fn insert(&mut self, index: PeerIndex, peer: Peer) {
        let place = index.0 as usize;
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(Box::new(peer));
    }

    pub(crate) fn remove(&mut self, index: PeerIndex) -> Option<Box<Peer>> {
        self.places.get_mut(index.0 as usize)?.take()
    }

    /// Returns the peers in ascending order of index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        self.places
            .iter()
            .enumerate()
            .filter_map(|(place, peer)| Some((PeerIndex(place as u32), peer.as_deref()?)))
    }

    /// Returns the peers in ascending order of index.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerIndex, &mut Peer)> {
        self.places
            .iter_mut()
            .enumerate()
            .filter_map(|(place, peer)| Some((PeerIndex(place as u32), peer.as_deref_mut()?)))
    }

    pub(crate) fn indices(&self) -> Vec<PeerIndex> {
        self.iter().map(|(index, _)| index).collect()
    }
}

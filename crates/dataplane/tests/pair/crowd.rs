//! A host that takes over from one that had sessions with many peers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Bequest, Command, Counters, Event, Path, PeerBequest, PeerKind, Shard, ShardConfig, Shift,
};
use model::address::HostAddresses;
use model::key::Secret;
use model::map::PeerIndex;
use model::time::{Instant, Now, UnixTime};
use wireguard::{
    DataCipher, Initiation, KeyPair, PresharedKey, PrivateKey, PublicKey, Tunnel, TunnelConfig,
    consume_initiation,
};

use super::{Wire, public};

const OWN_KEY: [u8; 32] = [9; 32];
/// Peers are told apart by the last bytes of their addresses, and of their keys.
const NETWORK: u32 = 0x0b00_0000;

/// The successor, and what its peers have.
pub(crate) struct Crowd {
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    pub(crate) wire: Wire,
    now: Now,
    bequest: Bequest,
}

impl Crowd {
    /// The successor knows so many peers, of which all had sessions with the daemon before.
    pub(crate) fn new(peers: usize) -> Self {
        let now = Now {
            monotonic: Instant::from_start(Duration::from_millis(300)),
            unix: UnixTime::from_secs(super::UNIX_START),
        };
        let counters = Arc::<Counters>::default();
        let config = ShardConfig {
            shift: Shift::Second,
            ..ShardConfig::default()
        };
        let mut shard = Shard::new(config, [1; 32], now, counters.clone());
        let mut wire = Wire::default();
        let peers = 1..=u32::try_from(peers).expect("some hundred");
        let own = addresses(0);
        let identity = Command::SetIdentity {
            private_key: Secret::from_bytes(OWN_KEY),
            addresses: own,
            timestamp_floor: UnixTime::default(),
        };
        let known = peers.clone().map(|number| Command::SetPeer {
            index: PeerIndex(number - 1),
            kind: PeerKind::Mesh,
            key: public(private(number)),
            addresses: addresses(number),
            preshared: None,
            keepalive: None,
            cipher: DataCipher::default(),
        });
        let commands = std::iter::once(identity).chain(known).collect();
        shard.handle_commands(commands, now, &mut wire);
        Self {
            shard,
            counters,
            wire,
            now,
            bequest: Bequest {
                own: Some(own),
                last_date: UnixTime::from_secs(super::UNIX_START - 100),
                reserved_until: UnixTime::from_secs(super::UNIX_START + 3500),
                peers: peers.map(left).collect(),
            },
        }
    }

    /// Takes up the peers; returns how many jobs were out at once at most.
    pub(crate) fn inherit(&mut self) -> usize {
        self.shard
            .inherit_peers(&self.bequest, self.now, &mut self.wire);
        self.run_jobs()
    }

    pub(crate) fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let (mut bytes, from) = (datagram.to_vec(), path(from));
        self.shard
            .handle_datagram(from, 0, &mut bytes, self.now, &mut self.wire);
    }

    /// Runs all jobs; returns how many were out at once at most.
    pub(crate) fn run_jobs(&mut self) -> usize {
        let mut most = 0;
        while let Some(event) = self.shard.poll_event() {
            most = most.max(self.shard.handshake_jobs());
            if let Event::Handshake(job) = event {
                self.shard
                    .handle_handshake(job.run(), self.now, &mut self.wire);
            }
        }
        most
    }
}

impl Wire {
    /// Returns what was sent, and where to.
    pub(crate) fn take_datagrams(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let sent = self.datagrams.drain(..);
        sent.map(|(via, _, bytes)| (via.remote, bytes)).collect()
    }
}

/// What the peer that an initiation was sent to answers.
pub(crate) fn answer(crowd: &mut Crowd, sent: &(SocketAddr, Vec<u8>)) -> (SocketAddr, Vec<u8>) {
    let (to, datagram) = sent;
    let SocketAddr::V4(v4) = to else {
        panic!("all peers have IPv4");
    };
    let number = u32::from(*v4.ip()) - NETWORK;
    let keys = KeyPair::new(&PrivateKey::from_bytes(private(number)));
    let config = TunnelConfig {
        peer: PublicKey::from_bytes(*public(OWN_KEY).as_bytes()),
        preshared_key: PresharedKey::default(),
        persistent_keepalive: None,
        cipher: DataCipher::default(),
        jitter_seed: 0,
    };
    let time = crowd.now.monotonic.since_start();
    let mut tunnel = Tunnel::new(config, time);
    let message = Initiation::parse(datagram).expect("an initiation");
    let consumed =
        consume_initiation(&keys, &message, &[DataCipher::default()]).expect("it is for this peer");
    let ephemeral = PrivateKey::from_bytes([7; 32]);
    let job = tunnel
        .accept_initiation(consumed, ephemeral, number, time)
        .expect("it is the first");
    let created = job.run().expect("the keys are real");
    (*to, tunnel.install_response(created, time).to_vec())
}

fn left(number: u32) -> PeerBequest {
    PeerBequest {
        key: public(private(number)),
        addresses: addresses(number),
        path: Some(path((Ipv4Addr::from(NETWORK + number), 51820).into())),
        wants_session: true,
        last_initiation: None,
        received_bytes: 0,
        sent_bytes: 0,
        flows: Vec::new(),
    }
}

fn path(remote: SocketAddr) -> Path {
    Path {
        remote,
        source: None,
    }
}

fn private(number: u32) -> [u8; 32] {
    let mut private = [0x55; 32];
    private[8..12].copy_from_slice(&number.to_be_bytes());
    private
}

fn addresses(number: u32) -> HostAddresses {
    HostAddresses {
        v4: Ipv4Addr::from(0x6440_0001 + number),
        v6: Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number + 1)),
    }
}

//! A host's shard with a live session, and the peer at its other end, who keeps to no rule: it has
//! its keys, and seals whatever it is given.
//!
//! After every step must hold: each packet that came in was delivered, consumed, queued or dropped
//! for one reason; what the host's kernel or the peer got is what the rules allow; and the shard,
//! once it did what was due, waits for a later moment.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::packet::{Headers, Upper};
use dataplane::{
    Command, Counters, DataCipher, Event, Outbox, Path, PeerKind, Shard, ShardConfig, VirtioHeader,
};
use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::{Secret, WireguardKey};
use model::map::PeerIndex;
use model::record::HostRecord;
use model::rule::Bundle;
use model::time::{Instant, Now, UnixTime};
use policy::{Table, reference};
use wireguard::{KeyPair, PrivateKey};

mod peer;
mod rules;

pub(crate) use peer::Peer;
pub(crate) use rules::Rules;

pub(crate) const OWN_ADDRESSES: HostAddresses = addresses(1);
pub(crate) const PEER_ADDRESSES: HostAddresses = addresses(2);

const OWN_KEY: [u8; 32] = [1; 32];
const PEER_KEY: [u8; 32] = [2; 32];
const PEER: PeerIndex = PeerIndex(0);
const START: Duration = Duration::from_secs(1000);
const UNIX_START: u64 = 1_800_000_000;

/// Begins what a daemon says to another inside the tunnel, which is no IP packet.
const CONTROL: u8 = 0xf1;
/// The most that it says: what was denied, by which rule, and the start of the packet, padded.
const CONTROL_BYTES_MAX: usize = 256;
/// More outputs than one input can have.
const EXCHANGES_MAX: usize = 1000;
/// More timers than one peer has.
const TIMEOUTS_AT_ONCE_MAX: usize = 32;

/// The host under test and its peer.
pub(crate) struct Live {
    pub(crate) now: Now,
    pub(crate) peer: Peer,
    shard: Shard,
    counters: Arc<Counters>,
    out: Written,
    bundle: Bundle,
    generation: u64,
    hosts: [HostRecord; 2],
    /// What the host's kernel got since the last look.
    delivered: Vec<Vec<u8>>,
    /// Datagrams on their way to the peer.
    sent: VecDeque<Vec<u8>>,
    /// Packets that the peer opened.
    arrived: Vec<Vec<u8>>,
}

/// What the shard wrote.
#[derive(Default)]
struct Written {
    datagrams: Vec<Vec<u8>>,
    packets: Vec<Vec<u8>>,
}

impl Outbox for Written {
    fn datagram(&mut self, _: Path, _: u8, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let written = lend(room, write);
        if !written.is_empty() {
            self.datagrams.push(written);
        }
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        self.packets.push(lend(room, write));
    }
}

fn lend(room: usize, write: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    let mut bytes = vec![0xee; room];
    let length = write(&mut bytes);
    assert!(length <= room, "{length} bytes written into {room}");
    bytes.truncate(length);
    bytes
}

impl Peer {
    /// The peer that the host knows.
    pub(crate) fn of_live(now: Now) -> Self {
        Self::new(PEER_KEY, public(OWN_KEY), now)
    }

    /// Somebody who knows the host's key, and is not known.
    pub(crate) fn stranger(now: Now) -> Self {
        Self::new([3; 32], public(OWN_KEY), now)
    }
}

impl Live {
    /// Both know each other; no word was exchanged yet.
    pub(crate) fn strangers() -> Self {
        let now = Now {
            monotonic: Instant::from_start(START),
            unix: UnixTime::from_secs(UNIX_START),
        };
        let mut config = ShardConfig::default();
        // Small, so that making a shard costs nothing and its tables do fill.
        config.limits.flows = 64;
        config.limits.flows_per_peer = 48;
        config.limits.fragments = 8;
        let counters = Arc::new(Counters::default());
        let mut live = Self {
            now,
            peer: Peer::of_live(now),
            shard: Shard::new(config, [9; 32], now, counters.clone()),
            counters,
            out: Written::default(),
            bundle: Bundle::default(),
            generation: 0,
            hosts: [
                record("a", OWN_KEY, OWN_ADDRESSES),
                record("b", PEER_KEY, PEER_ADDRESSES),
            ],
            delivered: Vec::new(),
            sent: VecDeque::new(),
            arrived: Vec::new(),
        };
        live.introduce();
        live.set_rules(Rules::Some);
        live
    }

    /// Both shook hands at the peer's wish, and the host confirmed it.
    pub(crate) fn new() -> Self {
        let mut live = Self::strangers();
        let initiation = live.peer.initiation(live.now);
        live.receive(&initiation);
        live.carry();
        assert!(live.peer.has_session(live.now), "the shard answers");
        live
    }

    /// Tells the host who it is and who the peer is.
    pub(crate) fn introduce(&mut self) {
        let path = Path {
            remote: underlay(2),
            source: None,
        };
        self.command(vec![
            Command::SetIdentity {
                private_key: Secret::from_bytes(OWN_KEY),
                addresses: OWN_ADDRESSES,
                timestamp_floor: UnixTime::default(),
            },
            Command::SetPeer {
                index: PEER,
                kind: PeerKind::Mesh,
                key: WireguardKey::from_bytes(public(PEER_KEY)),
                addresses: PEER_ADDRESSES,
                preshared: None,
                keepalive: None,
                cipher: DataCipher::default(),
            },
            Command::SetPath { index: PEER, path },
        ]);
    }

    /// The peer is no longer in the host's map.
    pub(crate) fn remove_peer(&mut self) {
        self.command(vec![Command::RemovePeer { index: PEER }]);
    }

    /// Asks how the peers are.
    pub(crate) fn report(&mut self) {
        self.command(vec![Command::Report]);
    }

    /// Puts other rules in force.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.bundle = rules.bundle();
        self.generation += 1;
        let [own, peer] = &self.hosts;
        let version = PolicyVersion(self.generation);
        let peers = [(PEER, peer)];
        let table = Table::compile(own, &peers, &self.bundle, version, self.generation);
        self.command(vec![Command::SetTable(Arc::new(table))]);
    }

    fn command(&mut self, commands: Vec<Command>) {
        self.shard
            .handle_commands(commands, self.now, &mut self.out);
        self.settle();
    }

    /// The host's kernel gives a packet.
    pub(crate) fn send(&mut self, packet: &[u8]) {
        self.send_offloaded(VirtioHeader::default(), packet);
    }

    /// The host's kernel gives a packet, and leaves work on it to us.
    pub(crate) fn send_offloaded(&mut self, offload: VirtioHeader, packet: &[u8]) {
        let mut packet = packet.to_vec();
        self.shard
            .handle_overlay_packet(offload, &mut packet, self.now, &mut self.out);
        for answer in &self.out.packets {
            let headers = Headers::parse(answer).expect("a refusal is a packet");
            assert!(OWN_ADDRESSES.contains(headers.destination), "{headers:?}");
            assert_eq!(headers.length, answer.len(), "a refusal has no padding");
        }
        // A refusal comes from the host itself.
        self.out.packets.clear();
        self.settle();
    }

    /// The network gives a datagram, from the peer's address.
    pub(crate) fn receive(&mut self, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        let from = Path {
            remote: underlay(2),
            source: Some(underlay(1).ip()),
        };
        self.shard
            .handle_datagram(from, 0, &mut datagram, self.now, &mut self.out);
        self.settle();
    }

    /// The peer seals bytes that need not be a packet, and they arrive.
    pub(crate) fn receive_sealed(&mut self, plaintext: &[u8]) {
        if let Some(datagram) = self.peer.seal(plaintext, self.now) {
            self.receive(&datagram);
        }
    }

    /// Lets time pass, with every timer in between.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        let mut timeouts_at_once = 0;
        loop {
            self.carry();
            let Some((at, why)) = self.shard.poll_timeout().filter(|(at, _)| *at <= end) else {
                break;
            };
            timeouts_at_once = if at > self.now.monotonic {
                0
            } else {
                timeouts_at_once + 1
            };
            assert!(timeouts_at_once < TIMEOUTS_AT_ONCE_MAX, "it spins: {why}");
            self.move_clock(at.max(self.now.monotonic));
            self.shard.handle_timeout(self.now, &mut self.out);
            self.settle();
        }
        self.move_clock(end);
        for datagram in self.peer.handle_timeout(self.now) {
            self.receive(&datagram);
        }
    }

    fn move_clock(&mut self, monotonic: Instant) {
        let passed = monotonic - self.now.monotonic;
        self.now = Now {
            monotonic,
            unix: self.now.unix + passed,
        };
    }

    /// Carries datagrams between the two until all is quiet.
    pub(crate) fn carry(&mut self) {
        for _ in 0..EXCHANGES_MAX {
            let Some(datagram) = self.sent.pop_front() else {
                return;
            };
            for answer in self.peer.receive(&datagram, self.now) {
                self.receive(&answer);
            }
            for packet in self.peer.opened() {
                if packet.first() == Some(&CONTROL) {
                    assert!(packet.len() <= CONTROL_BYTES_MAX, "{packet:?}");
                    continue;
                }
                self.check_outbound(&packet);
                self.arrived.push(packet);
            }
        }
        panic!("the two never come to rest");
    }

    /// Returns the datagrams that wait for `carry`.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &[u8]> {
        self.sent.iter().map(Vec::as_slice)
    }

    /// Returns how many packets the peer got.
    pub(crate) fn arrived(&self) -> usize {
        self.arrived.len()
    }

    /// Takes what the peer got since the last call.
    pub(crate) fn take_arrived(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.arrived)
    }

    /// Takes what was delivered to the host's kernel since the last call.
    pub(crate) fn delivered(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.delivered)
    }

    /// Runs the jobs of the shard, collects what it wrote, and checks both.
    fn settle(&mut self) {
        while let Some(event) = self.shard.poll_event() {
            if let Event::Handshake(job) = event {
                let done = job.run();
                self.shard.handle_handshake(done, self.now, &mut self.out);
            }
        }
        self.sent.extend(self.out.datagrams.drain(..));
        for packet in std::mem::take(&mut self.out.packets) {
            self.check_inbound(&packet);
            self.delivered.push(packet);
        }
        let balance = self.counters.balance();
        assert!(balance.holds(), "{balance:?}");
    }

    fn check_inbound(&self, packet: &[u8]) {
        let headers = Headers::parse(packet).expect("only packets are delivered");
        assert_eq!(headers.length, packet.len(), "padding is not delivered");
        assert!(PEER_ADDRESSES.contains(headers.source), "{headers:?}");
        assert!(OWN_ADDRESSES.contains(headers.destination), "{headers:?}");
        let [own, peer] = &self.hosts;
        assert!(self.may_pass(&headers, peer, own), "{headers:?}");
    }

    fn check_outbound(&self, plaintext: &[u8]) {
        let headers = Headers::parse(plaintext).expect("only packets are sealed");
        assert!(OWN_ADDRESSES.contains(headers.source), "{headers:?}");
        assert!(PEER_ADDRESSES.contains(headers.destination), "{headers:?}");
        let [own, peer] = &self.hosts;
        assert!(self.may_pass(&headers, own, peer), "{headers:?}");
    }

    /// Whether the rules let the packet open a flow, or be an answer in one. What only a whole
    /// history can tell, for errors and later fragments, is taken as it is.
    fn may_pass(&self, headers: &Headers, from: &HostRecord, to: &HostRecord) -> bool {
        let (source_port, destination_port) = headers.ports();
        let protocol = headers.ip_protocol;
        let decide =
            |from, to, port| reference::decide(&self.bundle, from, to, protocol, port).allowed;
        match headers.upper {
            Upper::IcmpForbidden => false,
            Upper::IcmpError => true,
            Upper::Opaque if headers.fragment != dataplane::packet::Fragment::Whole => true,
            Upper::Tcp { flags, .. } if flags.opens() => decide(from, to, destination_port),
            _ => decide(from, to, destination_port) || decide(to, from, source_port),
        }
    }
}

const fn addresses(number: u8) -> HostAddresses {
    HostAddresses {
        v4: Ipv4Addr::new(100, 64, 0, number),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number as u16),
    }
}

pub(crate) fn underlay(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)), 51820)
}

fn public(private: [u8; 32]) -> [u8; 32] {
    *KeyPair::new(&PrivateKey::from_bytes(private))
        .public()
        .as_bytes()
}

fn record(name: &str, private: [u8; 32], addresses: HostAddresses) -> HostRecord {
    HostRecord {
        fleet: FleetId::from_bytes([7; 16]),
        host: HostId::from_bytes([private[0]; 16]),
        name: name.parse().expect("a good name"),
        labels: Default::default(),
        wireguard_key: WireguardKey::from_bytes(public(private)),
        tls_key_hash: Digest::from_bytes([0; 32]),
        addresses,
        offers_aes_256_gcm: false,
        revision: Revision::new(1, 1),
    }
}

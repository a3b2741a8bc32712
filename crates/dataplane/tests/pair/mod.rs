//! Two shards wired to each other through memory, in virtual time. After every step each host's
//! balance must hold: what came in was delivered, consumed, queued or dropped for one reason.
#![allow(dead_code)] // Every test file uses its own part.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Command, Counters, DataCipher, Denial, DropReason, Event, Outbox, Path, PeerKind, Shard,
    ShardConfig, VirtioHeader,
};
use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::{Secret, WireguardKey};
use model::map::PeerIndex;
use model::record::HostRecord;
use model::rule::{Bundle, PortRange, Rule, Selector, Source, Traffic};
use model::time::{Instant, Now, UnixTime};
use policy::Table;
use wireguard::{KeyPair, PrivateKey};

pub(crate) mod crowd;
pub(crate) mod packets;
pub(crate) mod rogue;
pub(crate) mod stranger;
pub(crate) mod team;

/// The other host, at both hosts.
pub(crate) const PEER: PeerIndex = PeerIndex(0);
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// A datagram on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) ecn: u8,
    pub(crate) bytes: Vec<u8>,
}

/// Where a shard writes to.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) datagrams: Vec<(Path, u8, Vec<u8>)>,
    pub(crate) packets: Vec<Vec<u8>>,
    pub(crate) is_full: bool,
}

impl Outbox for Wire {
    fn datagram(
        &mut self,
        via: Path,
        ecn: u8,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        if self.is_full {
            return;
        }
        let mut bytes = vec![0xee; room];
        let length = write(&mut bytes);
        if length > 0 {
            bytes.truncate(length);
            self.datagrams.push((via, ecn, bytes));
        }
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        if self.is_full {
            return;
        }
        let mut bytes = vec![0xee; room];
        let length = write(&mut bytes);
        bytes.truncate(length);
        self.packets.push(bytes);
    }
}

/// One host of the pair.
pub(crate) struct Host {
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    pub(crate) private: [u8; 32],
    pub(crate) overlay: HostAddresses,
    pub(crate) underlay: SocketAddr,
    /// Packets that reached the host's kernel.
    pub(crate) delivered: Vec<Vec<u8>>,
    pub(crate) events: Vec<Event>,
    pub(crate) wire: Wire,
    /// When its daemon, and the clock of that, started: the pair's time counts from earlier.
    pub(crate) started: Duration,
}

/// Two hosts and the network between them.
pub(crate) struct Pair {
    pub(crate) now: Now,
    pub(crate) hosts: [Host; 2],
    pub(crate) network: VecDeque<Datagram>,
    /// Bytes of the largest datagram that passes, without IP and UDP headers.
    pub(crate) datagram_max: usize,
    /// Datagrams that were taken from the network are copied here.
    pub(crate) seen: Vec<Datagram>,
    generation: u64,
}

pub(crate) const UNIX_START: u64 = 1_800_000_000;

impl Pair {
    /// Both know each other and allow everything.
    pub(crate) fn new() -> Self {
        Self::with_bundle(&bundle(vec![rule("all", Traffic::All)], Vec::new()))
    }

    pub(crate) fn with_bundle(bundle: &Bundle) -> Self {
        let mut pair = Self::strangers(ShardConfig::default());
        for host in [A, B] {
            pair.introduce(host);
            pair.set_path(host, pair.hosts[1 - host].underlay);
        }
        pair.set_bundle(bundle);
        pair
    }

    /// Both are up and know nobody and nothing.
    pub(crate) fn strangers(config: ShardConfig) -> Self {
        let now = Now {
            monotonic: Instant::from_start(Duration::from_secs(1000)),
            unix: UnixTime::from_secs(UNIX_START),
        };
        Self {
            now,
            hosts: [host(1, config, now), host(2, config, now)],
            network: VecDeque::new(),
            datagram_max: usize::MAX,
            seen: Vec::new(),
            generation: 0,
        }
    }

    /// Tells a host who it is and who the other one is.
    pub(crate) fn introduce(&mut self, host: usize) {
        let commands = vec![self.identity(host, UnixTime::default()), self.peer(host)];
        self.command(host, commands);
    }

    pub(crate) fn identity(&self, host: usize, timestamp_floor: UnixTime) -> Command {
        Command::SetIdentity {
            private_key: Secret::from_bytes(self.hosts[host].private),
            addresses: self.hosts[host].overlay,
            timestamp_floor,
        }
    }

    /// Introduces the other host.
    pub(crate) fn peer(&self, host: usize) -> Command {
        let other = &self.hosts[1 - host];
        Command::SetPeer {
            index: PEER,
            kind: PeerKind::Mesh,
            key: public(other.private),
            addresses: other.overlay,
            preshared: None,
            keepalive: None,
            cipher: DataCipher::default(),
        }
    }

    pub(crate) fn set_path(&mut self, host: usize, remote: SocketAddr) {
        let path = Path {
            remote,
            source: None,
        };
        self.command(host, vec![Command::SetPath { index: PEER, path }]);
    }

    /// Gives both hosts their tables.
    pub(crate) fn set_bundle(&mut self, bundle: &Bundle) {
        for host in [A, B] {
            self.set_bundle_at(host, bundle);
        }
    }

    pub(crate) fn set_bundle_at(&mut self, host: usize, bundle: &Bundle) {
        self.generation += 1;
        let table = self.table(host, bundle);
        self.command(host, vec![Command::SetTable(table)]);
    }

    fn table(&self, host: usize, bundle: &Bundle) -> Arc<Table> {
        let me = record(&self.hosts[host]);
        let other = record(&self.hosts[1 - host]);
        let version = PolicyVersion(self.generation);
        Arc::new(Table::compile(
            &me,
            &[(PEER, &other)],
            bundle,
            version,
            self.generation,
        ))
    }

    /// A fresh shard in the place of the old one, as after a restart of the daemon.
    pub(crate) fn restart(&mut self, host: usize, bundle: &Bundle, timestamp_floor: UnixTime) {
        self.hosts[host].shard = Shard::new(
            ShardConfig::default(),
            [host as u8 + 77; 32],
            self.now,
            self.hosts[host].counters.clone(),
        );
        let remote = self.hosts[1 - host].underlay;
        let path = Command::SetPath {
            index: PEER,
            path: Path {
                remote,
                source: None,
            },
        };
        let commands = vec![self.identity(host, timestamp_floor), self.peer(host), path];
        self.command(host, commands);
        self.set_bundle_at(host, bundle);
    }

    pub(crate) fn command(&mut self, host: usize, commands: Vec<Command>) {
        let now = self.now_at(host);
        self.hosts[host].with(|shard, wire| shard.handle_commands(commands, now, wire));
        self.collect(host);
    }

    /// The time as a host's daemon has it.
    pub(crate) fn now_at(&self, host: usize) -> Now {
        let since = self.now.monotonic.since_start();
        Now {
            monotonic: Instant::from_start(since - self.hosts[host].started),
            ..self.now
        }
    }

    /// The host's kernel gives a packet; the network stands still.
    pub(crate) fn offer(&mut self, host: usize, packet: &[u8]) {
        self.offer_with(host, VirtioHeader::default(), &mut packet.to_vec());
    }

    /// The same with what a kernel with offloads leaves to the device.
    pub(crate) fn offer_with(&mut self, host: usize, header: VirtioHeader, packet: &mut [u8]) {
        let now = self.now_at(host);
        self.hosts[host].with(|shard, wire| {
            shard.handle_overlay_packet(header, packet, now, wire);
        });
        self.collect(host);
    }

    /// The host's kernel gives a packet, and the network carries what follows from it.
    pub(crate) fn send(&mut self, host: usize, packet: &[u8]) {
        self.offer(host, packet);
        self.run();
    }

    /// The host gets a datagram; the network stands still.
    pub(crate) fn receive(&mut self, host: usize, from: SocketAddr, ecn: u8, bytes: &[u8]) {
        let (now, mut bytes) = (self.now_at(host), bytes.to_vec());
        let path = Path {
            remote: from,
            source: Some(self.hosts[host].underlay.ip()),
        };
        self.hosts[host].with(|shard, wire| {
            shard.handle_datagram(path, ecn, &mut bytes, now, wire);
        });
        self.collect(host);
    }

    /// Carries datagrams until all is quiet.
    pub(crate) fn run(&mut self) {
        while let Some(datagram) = self.network.pop_front() {
            if datagram.bytes.len() > self.datagram_max {
                continue;
            }
            self.seen.push(datagram.clone());
            let to = self
                .hosts
                .iter()
                .position(|host| host.underlay == datagram.to);
            if let Some(to) = to {
                self.receive(to, datagram.from, datagram.ecn, &datagram.bytes);
            }
        }
    }

    /// Lets time pass, with every timer in between.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        loop {
            self.run();
            let timeouts = self.hosts.iter().filter_map(|host| {
                let (at, _) = host.shard.poll_timeout()?;
                Some(at + host.started)
            });
            let Some(at) = timeouts.min().filter(|at| *at <= end) else {
                break;
            };
            self.move_clock(at.max(self.now.monotonic));
            for host in [A, B] {
                let now = self.now_at(host);
                self.hosts[host].with(|shard, wire| shard.handle_timeout(now, wire));
                self.collect(host);
            }
        }
        self.move_clock(end);
    }

    fn move_clock(&mut self, monotonic: Instant) {
        let passed = monotonic - self.now.monotonic;
        self.now = Now {
            monotonic,
            unix: self.now.unix + passed,
        };
    }

    /// Runs jobs and puts what a host wrote where it belongs.
    fn collect(&mut self, index: usize) {
        let now = self.now_at(index);
        let host = &mut self.hosts[index];
        while let Some(event) = host.shard.poll_event() {
            match event {
                Event::Handshake(job) => {
                    let done = job.run();
                    host.with(|shard, wire| shard.handle_handshake(done, now, wire));
                }
                event => host.events.push(event),
            }
        }
        for (via, ecn, bytes) in host.wire.datagrams.drain(..) {
            let (from, to) = (host.underlay, via.remote);
            self.network.push_back(Datagram {
                from,
                to,
                ecn,
                bytes,
            });
        }
        host.delivered.append(&mut host.wire.packets);
        let balance = host.counters.balance();
        assert!(balance.holds(), "host {index}: {balance:?}");
    }

    /// Returns what was delivered to a host since the last call.
    pub(crate) fn delivered(&mut self, host: usize) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.hosts[host].delivered)
    }

    pub(crate) fn events(&mut self, host: usize) -> Vec<Event> {
        std::mem::take(&mut self.hosts[host].events)
    }

    pub(crate) fn denials(&mut self, host: usize) -> Vec<Denial> {
        let denial = |event| match event {
            Event::Denied(denial) => Some(denial),
            _ => None,
        };
        self.events(host).into_iter().filter_map(denial).collect()
    }

    /// Returns what peers said that they denied.
    pub(crate) fn rejections(&mut self, host: usize) -> Vec<Denial> {
        let rejection = |event| match event {
            Event::Rejected(denial) => Some(denial),
            _ => None,
        };
        self.events(host)
            .into_iter()
            .filter_map(rejection)
            .collect()
    }

    pub(crate) fn dropped(&self, host: usize, reason: DropReason) -> u64 {
        self.hosts[host].counters.dropped(reason)
    }

    /// A UDP packet from one host to the other.
    pub(crate) fn udp(&self, from: usize, source_port: u16, destination_port: u16) -> Vec<u8> {
        let (source, destination) = self.v4(from);
        packets::udp(source, destination, source_port, destination_port, b"hello")
    }

    pub(crate) fn tcp(
        &self,
        from: usize,
        source_port: u16,
        destination_port: u16,
        flags: u8,
    ) -> Vec<u8> {
        let (source, destination) = self.v4(from);
        packets::tcp(source, destination, source_port, destination_port, flags)
    }

    /// The IPv4 addresses of `from` and of the other host.
    pub(crate) fn v4(&self, from: usize) -> (IpAddr, IpAddr) {
        (
            self.hosts[from].overlay.v4.into(),
            self.hosts[1 - from].overlay.v4.into(),
        )
    }

    pub(crate) fn v6(&self, from: usize) -> (IpAddr, IpAddr) {
        (
            self.hosts[from].overlay.v6.into(),
            self.hosts[1 - from].overlay.v6.into(),
        )
    }
}

impl Host {
    pub(crate) fn with(&mut self, call: impl FnOnce(&mut Shard, &mut Wire)) {
        call(&mut self.shard, &mut self.wire);
    }
}

fn host(number: u8, config: ShardConfig, now: Now) -> Host {
    let counters = Arc::new(Counters::default());
    Host {
        shard: Shard::new(config, [number; 32], now, counters.clone()),
        counters,
        private: [number; 32],
        overlay: HostAddresses {
            v4: Ipv4Addr::new(100, 64, 0, number),
            v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()),
        },
        underlay: SocketAddr::new(Ipv4Addr::new(192, 0, 2, number).into(), 51820),
        delivered: Vec::new(),
        events: Vec::new(),
        wire: Wire::default(),
        started: Duration::ZERO,
    }
}

pub(crate) fn public(private: [u8; 32]) -> WireguardKey {
    let keys = KeyPair::new(&PrivateKey::from_bytes(private));
    WireguardKey::from_bytes(*keys.public().as_bytes())
}

pub(crate) fn record(host: &Host) -> HostRecord {
    HostRecord {
        fleet: FleetId::from_bytes([7; 16]),
        host: HostId::from_bytes([host.private[0]; 16]),
        name: name(host),
        labels: Default::default(),
        wireguard_key: public(host.private),
        tls_key_hash: Digest::from_bytes([0; 32]),
        addresses: host.overlay,
        offers_aes_256_gcm: false,
        revision: Revision::new(1, 1),
    }
}

fn name(host: &Host) -> model::name::Name {
    ["a", "b"][usize::from(host.private[0]) - 1]
        .parse()
        .expect("a valid name")
}

/// From any to any.
pub(crate) fn rule(id: &str, traffic: Traffic) -> Rule {
    Rule {
        id: id.parse().expect("a valid name"),
        from: vec![Selector::Any],
        to: vec![Selector::Any],
        traffic,
        http: Vec::new(),
        when: None,
        source: Source::default(),
    }
}

/// Of one host, by name.
pub(crate) fn only(host: usize) -> Vec<Selector> {
    let name = ["a", "b"][host].parse().expect("a valid name");
    vec![Selector::Host { name, id: None }]
}

pub(crate) fn tcp_port(port: u16) -> Traffic {
    Traffic::Ports {
        tcp: vec![PortRange::single(port)],
        udp: Vec::new(),
        icmp: false,
    }
}

pub(crate) fn udp_port(port: u16) -> Traffic {
    Traffic::Ports {
        tcp: Vec::new(),
        udp: vec![PortRange::single(port)],
        icmp: false,
    }
}

pub(crate) fn icmp() -> Traffic {
    Traffic::Ports {
        tcp: Vec::new(),
        udp: Vec::new(),
        icmp: true,
    }
}

pub(crate) fn bundle(allow: Vec<Rule>, deny: Vec<Rule>) -> Bundle {
    Bundle {
        allow,
        deny,
        ..Bundle::default()
    }
}

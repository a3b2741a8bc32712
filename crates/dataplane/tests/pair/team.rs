//! Hosts with several shards, wired to each other through memory. Datagrams and packets come to
//! whichever shard the world likes; after every step each shard's balance must hold.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Command, Counters, DataCipher, DropReason, Event, Introduction, LaneMessage, Limits,
    Misdirected, Outbox, Path, PeerKind, PeerReport, Place, Shard, ShardConfig, VirtioHeader,
};
use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::Secret;
use model::map::PeerIndex;
use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, Traffic};
use model::time::{Instant, Now, UnixTime};
use policy::Table;

use super::{Datagram, UNIX_START, bundle, public, rule};

/// What one shard gave to another.
enum Handed {
    Datagram(Path, u8, Vec<u8>),
    OverlayPacket(VirtioHeader, Vec<u8>),
    Introduction(Introduction),
    Lane(LaneMessage),
    Opened(PeerIndex, u8, usize, Vec<u8>),
}

/// Where a shard writes to.
struct Way {
    datagrams: Vec<(Path, Vec<u8>)>,
    packets: Vec<Vec<u8>>,
    handed: VecDeque<(u16, Handed)>,
    /// Whether other shards take what is theirs.
    is_open: bool,
    /// What of lanes finds no room, by how it begins.
    refused_words: Vec<&'static str>,
}

impl Outbox for Way {
    fn datagram(&mut self, via: Path, _: u8, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut bytes = vec![0; room];
        let length = write(&mut bytes);
        bytes.truncate(length);
        if length > 0 {
            self.datagrams.push((via, bytes));
        }
    }

    fn overlay_packet(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut bytes = vec![0; room];
        let length = write(&mut bytes);
        bytes.truncate(length);
        self.packets.push(bytes);
    }

    fn hand_over(&mut self, to: u16, what: Misdirected<'_>) -> bool {
        if !self.is_open {
            return false;
        }
        let what = match what {
            Misdirected::Datagram { from, ecn, bytes } => {
                Handed::Datagram(from, ecn, bytes.to_vec())
            }
            Misdirected::OverlayPacket { offload, bytes } => {
                Handed::OverlayPacket(offload, bytes.to_vec())
            }
            Misdirected::Introduction(introduction) => Handed::Introduction(introduction),
            Misdirected::Lane(message) => {
                let told = format!("{message:?}");
                let is_word = |word: &&str| told.contains(&format!("word: {word}"));
                if self.refused_words.iter().any(is_word) {
                    return false;
                }
                Handed::Lane(message)
            }
            Misdirected::Opened {
                peer,
                ecn,
                datagram_bytes,
                bytes,
            } => Handed::Opened(peer, ecn, datagram_bytes, bytes.to_vec()),
        };
        self.handed.push_back((to, what));
        true
    }
}

/// One host.
pub(crate) struct Team {
    pub(crate) shards: Vec<(Shard, Arc<Counters>)>,
    pub(crate) delivered: Vec<Vec<u8>>,
    pub(crate) events: Vec<Event>,
    /// How often a shard gave something to another.
    pub(crate) hand_overs: usize,
    /// Who sends its flows, as its kernel says.
    pub(crate) sender: Option<Name>,
    number: u8,
    /// Where it is, when it has moved.
    moved: Option<SocketAddr>,
    way: Way,
}

/// Which shard a datagram comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// One after the other.
    InTurn,
    /// As the kernel's program steers it.
    Steered,
}

/// All hosts, which know each other and allow everything.
pub(crate) struct Teams {
    pub(crate) now: Now,
    pub(crate) hosts: Vec<Team>,
    pub(crate) arrival: Arrival,
    /// Datagrams that were taken from the network are copied here.
    pub(crate) seen: Vec<Datagram>,
    network: VecDeque<Datagram>,
    turn: usize,
    runs: u8,
    limits: Limits,
    traffic: Traffic,
}

impl Teams {
    /// Makes one host for each count of shards.
    pub(crate) fn new(counts: &[u16]) -> Self {
        Self::with(counts, Limits::default(), Traffic::All)
    }

    /// A host's rules are these from now on; the generation is another one every time.
    pub(crate) fn set_bundle(&mut self, host: usize, bundle: &Bundle, generation: u64) {
        let table = self.table_of(host, bundle, generation);
        self.command(host, &[Command::SetTable(Arc::new(table))]);
    }

    /// The same, with other bounds, and rules that allow only this.
    pub(crate) fn with(counts: &[u16], limits: Limits, traffic: Traffic) -> Self {
        let now = Now {
            monotonic: Instant::from_start(Duration::from_secs(1000)),
            unix: UnixTime::from_secs(UNIX_START),
        };
        let hosts = (0..).zip(counts);
        let mut teams = Self {
            now,
            hosts: hosts
                .map(|(number, count)| team(number, *count, limits, 0, now))
                .collect(),
            arrival: Arrival::InTurn,
            seen: Vec::new(),
            network: VecDeque::new(),
            turn: 0,
            runs: 0,
            limits,
            traffic,
        };
        for host in 0..counts.len() {
            let commands = teams.introductions(host);
            teams.command(host, &commands);
        }
        teams
    }

    /// A host is somewhere else from now on.
    pub(crate) fn move_host(&mut self, host: usize, to: SocketAddr) {
        self.hosts[host].moved = Some(to);
    }

    /// A host's rules allow only this from now on; the generation is another one every time.
    pub(crate) fn set_traffic(&mut self, host: usize, traffic: Traffic, generation: u64) {
        let table = self.table(host, traffic, generation);
        self.command(host, &[Command::SetTable(Arc::new(table))]);
    }

    fn introductions(&self, host: usize) -> Vec<Command> {
        let own = &self.hosts[host];
        let mut commands = vec![Command::SetIdentity {
            private_key: Secret::from_bytes(own.private()),
            addresses: own.overlay(),
            timestamp_floor: UnixTime::default(),
        }];
        for (index, other) in self.peers_of(host) {
            commands.push(self.introduction(index, other));
            commands.push(self.path_to(index, other));
        }
        let table = self.table(host, self.traffic.clone(), 1);
        commands.push(Command::SetTable(Arc::new(table)));
        commands
    }

    fn table(&self, host: usize, traffic: Traffic, generation: u64) -> Table {
        let all = bundle(vec![rule("all", traffic)], Vec::new());
        self.table_of(host, &all, generation)
    }

    fn table_of(&self, host: usize, bundle: &Bundle, generation: u64) -> Table {
        let peers: Vec<_> = self
            .peers_of(host)
            .map(|(index, other)| (index, self.hosts[other].record()))
            .collect();
        let peers: Vec<_> = peers
            .iter()
            .map(|(index, record)| (*index, record))
            .collect();
        let own = self.hosts[host].record();
        let version = PolicyVersion(generation);
        Table::compile(&own, &peers, bundle, version, generation)
    }

    fn peers_of(&self, host: usize) -> impl Iterator<Item = (PeerIndex, usize)> + use<> {
        let others = (0..self.hosts.len()).filter(move |other| *other != host);
        (0..).map(PeerIndex).zip(others)
    }

    /// The index that `host` has for `peer`.
    pub(crate) fn index(&self, host: usize, peer: usize) -> PeerIndex {
        let found = self.peers_of(host).find(|(_, other)| *other == peer);
        found.expect("all know each other").0
    }

    pub(crate) fn introduction(&self, index: PeerIndex, peer: usize) -> Command {
        let peer = &self.hosts[peer];
        Command::SetPeer {
            index,
            kind: PeerKind::Mesh,
            key: public(peer.private()),
            addresses: peer.overlay(),
            preshared: None,
            keepalive: None,
            cipher: DataCipher::default(),
        }
    }

    pub(crate) fn path_to(&self, index: PeerIndex, peer: usize) -> Command {
        let path = Path {
            remote: self.hosts[peer].underlay(),
            source: None,
        };
        Command::SetPath { index, path }
    }

    /// Tells every shard of a host.
    pub(crate) fn command(&mut self, host: usize, commands: &[Command]) {
        for number in 0..self.hosts[host].shards.len() {
            let now = self.now;
            self.at(host, number, |shard, way| {
                shard.handle_commands(commands.to_vec(), now, way);
            });
        }
        self.run();
    }

    /// The host's kernel gives a packet to the shard whose turn it is.
    pub(crate) fn send(&mut self, host: usize, packet: &[u8]) {
        let number = self.in_turn(host);
        self.send_by(host, number, packet);
    }

    /// The host's kernel gives a packet to that shard.
    pub(crate) fn send_by(&mut self, host: usize, number: usize, packet: &[u8]) {
        let (now, mut packet) = (self.now, packet.to_vec());
        self.at(host, number, |shard, way| {
            shard.handle_overlay_packet(VirtioHeader::default(), &mut packet, now, way);
        });
        self.run();
    }

    /// Other shards of the host take nothing any more.
    pub(crate) fn close_hand_overs(&mut self, host: usize) {
        self.hosts[host].way.is_open = false;
    }

    /// Other shards take nothing of lanes that begins so.
    pub(crate) fn refuse_words(&mut self, host: usize, words: &[&'static str]) {
        self.hosts[host].way.refused_words = words.to_vec();
    }

    /// They do again.
    pub(crate) fn open_hand_overs(&mut self, host: usize) {
        self.hosts[host].way.is_open = true;
    }

    /// A host's daemon is killed and started anew, with another number of shards.
    pub(crate) fn restart(&mut self, host: usize, count: u16) {
        let Team { number, .. } = self.hosts[host];
        self.runs += 1;
        self.hosts[host] = team(number, count, self.limits, self.runs, self.now);
        let commands = self.introductions(host);
        self.command(host, &commands);
    }

    /// Lets time pass, with every timer in between.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        loop {
            self.run();
            let shards = self.hosts.iter().flat_map(|host| &host.shards);
            let timeouts = shards.filter_map(|(shard, _)| shard.poll_timeout());
            let Some(at) = timeouts.map(|(at, _)| at).min().filter(|at| *at <= end) else {
                break;
            };
            self.move_clock(at.max(self.now.monotonic));
            let now = self.now;
            for host in 0..self.hosts.len() {
                for number in 0..self.hosts[host].shards.len() {
                    self.at(host, number, |shard, way| shard.handle_timeout(now, way));
                }
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

    /// How all sessions with a peer are, of all shards: the main one and the lanes.
    pub(crate) fn sessions(&mut self, host: usize, peer: usize) -> Vec<PeerReport> {
        let index = self.index(host, peer);
        let mut all = Vec::new();
        for number in 0..self.hosts[host].shards.len() {
            let report = self.report(host, number);
            all.extend(report.into_iter().filter(|it| it.peer == index));
        }
        all.sort_by_key(|report| report.lane);
        all
    }

    /// Does something with one shard of a host, and what follows from it.
    pub(crate) fn with_shard<T>(
        &mut self,
        host: usize,
        number: usize,
        act: impl FnOnce(&mut Shard, Now) -> T,
    ) -> T {
        let now = self.now;
        act(&mut self.hosts[host].shards[number].0, now)
    }

    fn in_turn(&mut self, host: usize) -> usize {
        self.turn += 1;
        self.turn % self.hosts[host].shards.len()
    }

    fn run(&mut self) {
        while let Some(datagram) = self.network.pop_front() {
            self.receive(&datagram);
        }
    }

    /// A datagram comes to the host that it is for.
    pub(crate) fn receive(&mut self, datagram: &Datagram) {
        self.seen.push(datagram.clone());
        let found = self
            .hosts
            .iter()
            .position(|it| it.underlay() == datagram.to);
        // Who has moved or restarted is not where it was.
        let Some(host) = found else { return };
        let number = match self.arrival {
            Arrival::InTurn => self.in_turn(host),
            Arrival::Steered => steered(&datagram.bytes, self.hosts[host].shards.len()),
        };
        let from = Path {
            remote: datagram.from,
            source: None,
        };
        let (now, mut bytes) = (self.now, datagram.bytes.clone());
        self.at(host, number, |shard, way| {
            shard.handle_datagram(from, 0, &mut bytes, now, way);
        });
        self.run();
    }

    /// Lets a shard do something, and all shards what follows from it.
    fn at(&mut self, host: usize, number: usize, act: impl FnOnce(&mut Shard, &mut Way)) {
        let now = self.now;
        let team = &mut self.hosts[host];
        act(&mut team.shards[number].0, &mut team.way);
        team.settle(number, now);
        while let Some((to, handed)) = team.way.handed.pop_front() {
            team.hand_overs += 1;
            let (shard, way) = (&mut team.shards[usize::from(to)].0, &mut team.way);
            match handed {
                Handed::Datagram(from, ecn, mut bytes) => {
                    shard.handle_datagram(from, ecn, &mut bytes, now, way);
                }
                Handed::OverlayPacket(offload, mut bytes) => {
                    shard.handle_overlay_packet(offload, &mut bytes, now, way);
                }
                Handed::Introduction(introduction) => {
                    shard.handle_introduction(introduction, now, way);
                }
                Handed::Lane(message) => shard.handle_lane(message, now, way),
                Handed::Opened(peer, ecn, datagram_bytes, mut bytes) => {
                    shard.handle_opened(peer, ecn, datagram_bytes, &mut bytes, now, way);
                }
            }
            team.settle(usize::from(to), now);
        }
        let from = team.underlay();
        for (via, bytes) in team.way.datagrams.drain(..) {
            self.network.push_back(Datagram {
                from,
                to: via.remote,
                ecn: 0,
                bytes,
            });
        }
        team.delivered.append(&mut team.way.packets);
    }

    /// How the peers of one shard are.
    pub(crate) fn report(&mut self, host: usize, number: usize) -> Vec<PeerReport> {
        let now = self.now;
        self.at(host, number, |shard, way| {
            shard.handle_commands(vec![Command::Report], now, way);
        });
        let report = |event| match event {
            Event::Report(report) => Some(report.peers),
            _ => None,
        };
        self.hosts[host]
            .events
            .drain(..)
            .find_map(report)
            .expect("a report was asked for")
    }

    /// A UDP packet from one host to another.
    pub(crate) fn udp(&self, from: usize, to: usize, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let [source, destination]: [IpAddr; 2] =
            [from, to].map(|host| self.hosts[host].overlay().v4.into());
        super::packets::udp(source, destination, ports.0, ports.1, data)
    }
}

/// What the program in `meshd/src/linux/steering.rs` does.
fn steered(datagram: &[u8], count: usize) -> usize {
    let index = match datagram[0] {
        3 | 4 => datagram[4],
        2 => datagram[8],
        _ => 0,
    };
    usize::from(index) % count
}

impl Team {
    fn settle(&mut self, number: usize, now: Now) {
        let (shard, counters) = &mut self.shards[number];
        while let Some(event) = shard.poll_event() {
            match event {
                Event::Handshake(job) => shard.handle_handshake(job.run(), now, &mut self.way),
                Event::WhoSends(of) => {
                    let workload = self.sender.clone();
                    let answer = vec![Command::Sender { of, workload }];
                    shard.handle_commands(answer, now, &mut self.way);
                }
                event => self.events.push(event),
            }
        }
        let balance = counters.balance();
        assert!(balance.holds(), "shard {number}: {balance:?}");
    }

    /// Dropped by all shards for the reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.shards.iter().map(|(_, it)| it.dropped(reason)).sum()
    }

    pub(crate) fn dropped_at_all(&self) -> u64 {
        DropReason::ALL.iter().map(|it| self.dropped(*it)).sum()
    }

    pub(crate) fn take_delivered(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.delivered)
    }

    fn private(&self) -> [u8; 32] {
        [self.number + 1; 32]
    }

    pub(crate) fn overlay(&self) -> HostAddresses {
        HostAddresses {
            v4: Ipv4Addr::new(100, 64, 0, self.number + 1),
            v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(self.number) + 1),
        }
    }

    pub(crate) fn underlay(&self) -> SocketAddr {
        let home = SocketAddr::new(Ipv4Addr::new(192, 0, 2, self.number + 1).into(), 51820);
        self.moved.unwrap_or(home)
    }

    fn record(&self) -> HostRecord {
        HostRecord {
            fleet: FleetId::from_bytes([7; 16]),
            host: HostId::from_bytes([self.number + 1; 16]),
            name: format!("host-{}", self.number).parse().expect("a name"),
            labels: Default::default(),
            wireguard_key: public(self.private()),
            tls_key_hash: Digest::from_bytes([0; 32]),
            addresses: self.overlay(),
            offers_aes_256_gcm: false,
            revision: Revision::new(1, 1),
        }
    }
}

fn team(number: u8, count: u16, limits: Limits, run: u8, now: Now) -> Team {
    let shard = |place: u16| {
        let counters = Arc::new(Counters::default());
        let config = ShardConfig {
            place: Place::new(place, count),
            limits,
            ..ShardConfig::default()
        };
        let mut seed = [number.wrapping_mul(64).wrapping_add(place as u8); 32];
        seed[0] = run;
        (Shard::new(config, seed, now, counters.clone()), counters)
    };
    Team {
        shards: (0..count).map(shard).collect(),
        delivered: Vec::new(),
        events: Vec::new(),
        hand_overs: 0,
        sender: None,
        number,
        moved: None,
        way: Way {
            datagrams: Vec::new(),
            packets: Vec::new(),
            handed: VecDeque::new(),
            is_open: true,
            refused_words: Vec::new(),
        },
    }
}

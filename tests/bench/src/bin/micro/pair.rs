//! Two hosts of one shard each, in memory, with a session and rules.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Command, Counters, DataCipher, Event, Joins, Limits, Path, PeerKind, Shard, ShardConfig,
    VirtioHeader,
};
use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::{Secret, WireguardKey};
use model::map::PeerIndex;
use model::record::HostRecord;
use model::rule::{Bundle, Rule, Selector, Source, Traffic};
use model::time::{Instant, Now, UnixTime};
use policy::Table;
use wireguard::{KeyPair, PrivateKey};

use crate::burst::Burst;
use crate::packets::{self, ACK};

/// The other host, at both.
const PEER: PeerIndex = PeerIndex(0);
/// Room for all flows of the largest measurement.
const FLOWS_MAX: usize = 1 << 17;

/// One host.
pub(crate) struct Host {
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    pub(crate) burst: Burst,
    number: u8,
}

/// Both, at one moment that does not pass.
pub(crate) struct Pair {
    pub(crate) hosts: [Host; 2],
    pub(crate) now: Now,
}

impl Pair {
    /// Both have rules that allow everything and a session with that cipher.
    pub(crate) fn new(cipher: DataCipher) -> Self {
        Self::with_rules(cipher, &all())
    }

    pub(crate) fn with_rules(cipher: DataCipher, bundle: &Bundle) -> Self {
        let now = now();
        let mut pair = Self {
            hosts: [Host::new(1, now), Host::new(2, now)],
            now,
        };
        for host in 0..2 {
            let commands = pair.introductions(host, cipher);
            let Host { shard, burst, .. } = &mut pair.hosts[host];
            shard.handle_commands(commands, now, burst);
        }
        for host in 0..2 {
            pair.set_rules(host, &all());
        }
        pair.greet();
        pair.set_rules(0, bundle);
        pair
    }

    pub(crate) fn addresses(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.hosts[0].overlay().v4, self.hosts[1].overlay().v4)
    }

    /// Returns how the first host's datagrams look to the second.
    pub(crate) fn path_of_first(&self) -> Path {
        Path {
            remote: self.hosts[0].underlay(),
            source: Some(self.hosts[1].underlay().ip()),
        }
    }

    fn introductions(&self, host: usize, cipher: DataCipher) -> Vec<Command> {
        let (own, other) = (&self.hosts[host], &self.hosts[1 - host]);
        let path = Path {
            remote: other.underlay(),
            source: None,
        };
        vec![
            own.identity(),
            Command::SetPeer {
                index: PEER,
                kind: PeerKind::Mesh,
                key: public(other.private()),
                addresses: other.overlay(),
                preshared: None,
                keepalive: None,
                cipher,
            },
            Command::SetPath { index: PEER, path },
        ]
    }

    fn set_rules(&mut self, host: usize, bundle: &Bundle) {
        let (me, other) = (self.hosts[host].record(), self.hosts[1 - host].record());
        let version = PolicyVersion(bundle.allow.len() as u64);
        let table = Table::compile(&me, &[(PEER, &other)], bundle, version, version.0);
        let Host { shard, burst, .. } = &mut self.hosts[host];
        shard.handle_commands(vec![Command::SetTable(Arc::new(table))], self.now, burst);
    }

    /// The first host's packet brings about a session; what comes back confirms it.
    fn greet(&mut self) {
        let (there, back) = self.addresses();
        for (from, addresses) in [(0, (there, back)), (1, (back, there))] {
            let mut packet = packets::segment(addresses, (1, 1), ACK, 1, 64);
            let (now, Host { shard, burst, .. }) = (self.now, &mut self.hosts[from]);
            shard.handle_overlay_packet(VirtioHeader::default(), &mut packet, now, burst);
            while (0..2).any(|host| self.carry(host)) {}
        }
        for host in &mut self.hosts {
            assert_eq!(host.burst.delivered(), 1, "there is a session");
        }
    }

    /// Brings a host's datagrams to the other; returns whether there were any.
    fn carry(&mut self, host: usize) -> bool {
        let now = self.now;
        let sender = &mut self.hosts[host];
        sender.run_jobs(now);
        let from = Path {
            remote: sender.underlay(),
            source: None,
        };
        let spans = std::mem::take(&mut sender.burst.datagrams);
        let datagrams: Vec<Vec<u8>> = spans
            .into_iter()
            .map(|span| sender.burst.memory[span].to_vec())
            .collect();
        sender.burst.sent();
        let Host { shard, burst, .. } = &mut self.hosts[1 - host];
        for mut datagram in datagrams.clone() {
            shard.handle_datagram(from, 0, &mut datagram, now, burst);
        }
        self.hosts[1 - host].run_jobs(now);
        !datagrams.is_empty()
    }
}

impl Host {
    pub(crate) fn new(number: u8, now: Now) -> Self {
        let counters = Arc::<Counters>::default();
        let config = ShardConfig {
            limits: Limits {
                flows: FLOWS_MAX,
                flows_per_peer: FLOWS_MAX,
                ..Limits::default()
            },
            ..ShardConfig::default()
        };
        let joins = Joins {
            tcp: true,
            udp: true,
        };
        Self {
            shard: Shard::new(config, [number; 32], now, Arc::clone(&counters)),
            counters,
            burst: Burst::new(joins),
            number,
        }
    }

    pub(crate) fn identity(&self) -> Command {
        Command::SetIdentity {
            private_key: Secret::from_bytes(self.private()),
            addresses: self.overlay(),
            timestamp_floor: UnixTime::default(),
        }
    }

    pub(crate) fn run_jobs(&mut self, now: Now) {
        while let Some(event) = self.shard.poll_event() {
            if let Event::Handshake(job) = event {
                self.shard.handle_handshake(job.run(), now, &mut self.burst);
            }
        }
    }

    pub(crate) fn private(&self) -> [u8; 32] {
        [self.number; 32]
    }

    fn overlay(&self) -> HostAddresses {
        HostAddresses {
            v4: Ipv4Addr::new(100, 64, 0, self.number),
            v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.number.into()),
        }
    }

    fn underlay(&self) -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, self.number), 51820).into()
    }

    fn record(&self) -> HostRecord {
        HostRecord {
            fleet: FleetId::from_bytes([7; 16]),
            host: HostId::from_bytes([self.number; 16]),
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

pub(crate) fn now() -> Now {
    Now {
        monotonic: Instant::from_start(Duration::from_secs(1000)),
        unix: UnixTime::from_secs(1_800_000_000),
    }
}

pub(crate) fn public(private: [u8; 32]) -> WireguardKey {
    let keys = KeyPair::new(&PrivateKey::from_bytes(private));
    WireguardKey::from_bytes(*keys.public().as_bytes())
}

/// From any to any.
pub(crate) fn rule(id: &str, traffic: Traffic) -> Rule {
    Rule {
        id: id.parse().expect("a name"),
        from: vec![Selector::Any],
        to: vec![Selector::Any],
        traffic,
        http: Vec::new(),
        when: None,
        source: Source::default(),
    }
}

pub(crate) fn bundle(allow: Vec<Rule>) -> Bundle {
    Bundle {
        allow,
        ..Bundle::default()
    }
}

fn all() -> Bundle {
    bundle(vec![rule("all", Traffic::All)])
}

//! Hosts that somebody took over. They have their keys and their place in the fleet, and keep to no
//! rule: they send what their own policy forbids, speak as others, throw garbage and old captures
//! at everybody, and lie to the coordinator about where hosts are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::{Command, Path};
use model::address::HostAddresses;
use model::control::{EndpointReport, FromHost};
use model::ids::PolicyVersion;
use model::map::{Endpoint, EndpointKind, PeerIndex};
use model::record::HostRecord;
use model::rule::{Bundle, Rule, Selector, Source, Traffic};
use policy::Table;

use super::World;
use super::flows::one_family;
use crate::courier::Sent;
use crate::event::{Event, HostIndex, Run, Who};
use crate::host::LISTEN_PORT;
use crate::network::STRANGER;
use crate::traffic::{Reason, Speech, Wish};

/// WireGuard's messages by type and length, and what is none.
const LENGTHS: [(u8, usize); 6] = [(1, 148), (2, 92), (3, 64), (4, 32), (4, 200), (9, 40)];
/// Pings in one go: more than the coordinator bears.
const FLOOD: u64 = 400;

impl World {
    /// A member is taken over for a while.
    pub(super) fn turn_rogue(&mut self) {
        let index = self.any_host();
        let host = self.host(index);
        if !host.is_member(self.now) || host.is_clone || host.is_rogue {
            return;
        }
        self.say(Who::Fault, format!("{index} turns against the fleet"));
        self.crash_host(index, false);
        self.host_mut(index).is_rogue = true;
        self.start_host(index);
        let ends = self.fate.secs(20, 120);
        self.push_in(ends, Event::RogueEnds(index));
        let run = self.host(index).last_run;
        self.push_in(
            Duration::from_secs(1),
            Event::RogueActs { host: index, run },
        );
    }

    /// Whoever took it over is thrown out.
    pub(crate) fn put_rogue_right(&mut self, index: HostIndex) {
        if !self.host(index).is_rogue {
            return;
        }
        if self.host(index).running.is_some() {
            self.crash_host(index, false);
        }
        self.host_mut(index).is_rogue = false;
        self.say(Who::Fault, format!("{index} is itself again"));
        self.start_host(index);
    }

    pub(crate) fn rogue_acts(&mut self, index: HostIndex, run: Run) {
        if !self.is_running(index, run) || !self.host(index).is_rogue {
            return;
        }
        let pause = self
            .fate
            .between(Duration::from_millis(50), Duration::from_secs(2));
        self.push_in(pause, Event::RogueActs { host: index, run });
        match self.fate.below(16) {
            0..4 => self.throw_garbage(index),
            4..8 => self.replay(index),
            8..10 => self.lie_about_itself(index),
            10..12 => self.lie_about_a_peer(index),
            12 => self.flood_coordinator(index),
            _ => self.speak_as_another(index),
        }
        self.drive_host(index);
    }

    /// Returns what a host's shard is told: what its agent wants, or what a rogue makes of it.
    pub(super) fn obeyed(&mut self, index: HostIndex, commands: Vec<Command>) -> Vec<Command> {
        let running = self.running_mut(index);
        for command in &commands {
            match command {
                Command::SetPeer {
                    index, addresses, ..
                } => {
                    running.peers.insert(*index, *addresses);
                }
                Command::RemovePeer { index } => {
                    running.peers.remove(index);
                }
                _ => {}
            }
        }
        if !self.host(index).is_rogue {
            return commands;
        }
        let twist = |command| match command {
            Command::SetTable(table) if table.version() > PolicyVersion(0) => {
                Command::SetTable(self.open_table(index, &table))
            }
            Command::SetIdentity {
                private_key,
                timestamp_floor,
                addresses,
            } => Command::SetIdentity {
                private_key,
                timestamp_floor,
                addresses: self.forged_addresses(index).unwrap_or(addresses),
            },
            other => other,
        };
        commands.into_iter().map(twist).collect()
    }

    /// Now and then it takes the addresses of a peer.
    fn forged_addresses(&mut self, index: HostIndex) -> Option<HostAddresses> {
        let peers: Vec<HostAddresses> = self.running_mut(index).peers.values().copied().collect();
        let forged = self.fate.pick_any(&peers).filter(|_| self.fate.chance(500));
        self.running_mut(index).forged = forged;
        forged
    }

    /// Everything to everybody, instead of what the policy says.
    fn open_table(&self, index: HostIndex, table: &Table) -> Arc<Table> {
        let host = self.host(index);
        let (Some(running), Some(map)) = (&host.running, &host.in_force) else {
            return Arc::new(Table::closed(table.generation()));
        };
        let record = |addresses: &HostAddresses| {
            let mut peers = map.peers.values();
            peers.find(|peer| peer.addresses == *addresses)
        };
        let peers: Vec<(PeerIndex, &HostRecord)> = running
            .peers
            .iter()
            .filter_map(|(index, addresses)| Some((*index, record(addresses)?)))
            .collect();
        let version = table.version();
        let bundle = everything();
        Arc::new(Table::compile(
            &map.me,
            &peers,
            &bundle,
            version,
            table.generation(),
        ))
    }

    fn some_home(&mut self) -> SocketAddr {
        let index = self.any_host();
        SocketAddr::new(self.host(index).home, LISTEN_PORT)
    }

    fn throw(&mut self, index: HostIndex, remote: SocketAddr, bytes: &[u8]) {
        let source = Some(self.host(index).home);
        let sent = Sent {
            via: Path { remote, source },
            ecn: 0,
            bytes: bytes.to_vec(),
            is_whole: false,
        };
        self.send_datagram(index, &sent);
    }

    fn throw_garbage(&mut self, index: HostIndex) {
        let (kind, length) = *self.fate.pick(&LENGTHS);
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        while bytes.len() < length {
            bytes.extend(self.fate.secret());
        }
        bytes.truncate(length);
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        let target = self.some_home();
        self.throw(index, target, &bytes);
    }

    /// Sends again what a stranger on the way heard, from its own address.
    fn replay(&mut self, index: HostIndex) {
        if let Some((target, bytes)) = self.network.capture(&mut self.fate) {
            self.throw(index, target, &bytes);
        }
    }

    fn lie(&mut self, index: HostIndex) -> SocketAddr {
        let overlay = self.host(index).in_force.as_ref();
        let overlay = overlay.map(|map| SocketAddr::new(map.me.addresses.v4.into(), LISTEN_PORT));
        let home = self.some_home();
        let lies = [home, STRANGER, overlay.unwrap_or(home)];
        *self.fate.pick(&lies)
    }

    fn lie_about_itself(&mut self, index: HostIndex) {
        let endpoints = (0..4).map(|_| Endpoint {
            address: self.lie(index),
            kind: EndpointKind::Interface,
        });
        let report = EndpointReport {
            endpoints: endpoints.collect(),
            listen_port: LISTEN_PORT,
            stream_port: None,
        };
        self.send_up(index, &FromHost::Endpoints(report));
    }

    fn lie_about_a_peer(&mut self, index: HostIndex) {
        let map = self.host(index).in_force.as_ref();
        let peers: Vec<_> = map.map_or_else(Vec::new, |map| map.peers.keys().copied().collect());
        if let Some(peer) = self.fate.pick_any(&peers) {
            let address = self.lie(index);
            self.send_up(index, &FromHost::Observation { peer, address });
        }
    }

    fn flood_coordinator(&mut self, index: HostIndex) {
        for number in 0..FLOOD {
            self.send_up(index, &FromHost::Ping(number));
        }
    }

    /// Opens a flow from the address that it took.
    fn speak_as_another(&mut self, index: HostIndex) {
        let running = self.running_mut(index);
        let Some(forged) = running.forged else {
            return self.throw_garbage(index);
        };
        let targets: Vec<HostAddresses> = running.peers.values().copied().collect();
        let Some(target) = self.fate.pick_any(&targets).filter(|it| *it != forged) else {
            return;
        };
        let speech = *self.fate.pick(&Speech::every());
        let (source, destination) = one_family(forged, target, self.fate.chance(500));
        self.open_flow(Wish {
            opener: index,
            source,
            destination,
            speech,
            reason: Reason::Forgery,
        });
    }
}

fn everything() -> Bundle {
    let rule = Rule {
        id: "everything".parse().expect("a valid id"),
        from: vec![Selector::Any],
        to: vec![Selector::Any],
        traffic: Traffic::All,
        http: Vec::new(),
        when: None,
        source: Source::default(),
    };
    Bundle {
        allow: vec![rule],
        ..Bundle::default()
    }
}

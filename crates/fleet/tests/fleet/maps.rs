//! Maps and deltas: whatever happens in whatever order, a host that applied what it was sent knows
//! what a host that starts anew is told.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{FleetLimits, SessionId};
use model::control::{EndpointReport, FromHost, ToHost};
use model::ids::{Digest, HostId, Revision};
use model::map::{Endpoint, EndpointKind, MapDelta};
use model::record::Tombstone;
use model::store::{Key, Operation, Transaction};
use proptest::prelude::*;

use crate::machine::Machine;
use crate::model_host::ModelHost;
use crate::world::{World, authority, name};

#[derive(Clone, Debug)]
enum Step {
    Join(u8),
    Remove(u8),
    Label(u8, u8),
    Report(u8, u8),
    Policy(u8),
    Token,
    Wait,
    /// The watching host's stream breaks and it comes back with what it has.
    Reconnect,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..6).prop_map(Step::Join),
        1 => (0u8..6).prop_map(Step::Remove),
        3 => (0u8..7, 0u8..3).prop_map(|(host, value)| Step::Label(host, value)),
        3 => (0u8..6, 0u8..4).prop_map(|(host, port)| Step::Report(host, port)),
        1 => (0u8..3).prop_map(Step::Policy),
        1 => Just(Step::Token),
        3 => Just(Step::Wait),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Crash),
    ]
}

struct Run {
    world: World,
    machine: Machine,
    session: SessionId,
    host: ModelHost,
    streams: BTreeMap<u8, SessionId>,
    next_machine: u16,
    members: BTreeMap<u8, Machine>,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        let (machine, _) = world.join("watcher", 1000);
        let session = world.open(&machine, "watcher");
        world.hello(session, None);
        Self {
            world,
            machine,
            session,
            host: ModelHost::default(),
            streams: BTreeMap::new(),
            next_machine: 0,
            members: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Join(host) if !self.members.contains_key(&host) => {
                self.next_machine += 1;
                let keys = Machine::new(self.next_machine);
                let machine = keys.cloned_to(&format!("machine of {host}"));
                let token = self.world.token(None);
                let request = machine.request(&self.world, &token, &format!("h{host}"));
                self.world.enrol(request).unwrap();
                self.members.insert(host, machine);
            }
            Step::Remove(host) if self.members.remove(&host).is_some() => {
                self.streams.remove(&host);
                self.world.remove_host(&format!("h{host}"));
            }
            Step::Label(host, value) => {
                let is_watcher = host == 6;
                if is_watcher || self.members.contains_key(&host) {
                    let host = if is_watcher {
                        "watcher".into()
                    } else {
                        format!("h{host}")
                    };
                    self.world
                        .set_labels(&host, &[("role", &format!("v{value}"))]);
                }
            }
            Step::Report(host, port) => self.report(host, port),
            Step::Policy(value) => {
                let port = u16::from(value) + 1;
                let yaml = format!(
                    "fleet: prod\nallow:\n  - {{ id: x, from: any, to: any, tcp: [{port}] }}\n"
                );
                self.world.apply_policy(&yaml).unwrap();
            }
            Step::Token => {
                self.world.token(None);
            }
            Step::Wait => self.world.advance(Duration::from_millis(200)),
            Step::Reconnect => self.reconnect(),
            Step::Crash => {
                self.receive();
                self.world.crash();
                self.streams.clear();
                self.session = self.world.open(&self.machine, "watcher");
                self.world.hello(self.session, self.host.revision);
            }
            Step::Join(_) | Step::Remove(_) => {}
        }
        self.receive();
    }

    fn report(&mut self, host: u8, port: u8) {
        let Some(machine) = self.members.get(&host) else {
            return;
        };
        let world = &mut self.world;
        let session = *self.streams.entry(host).or_insert_with(|| {
            let session = world.open(machine, &format!("h{host}"));
            world.hello(session, None);
            session
        });
        let address = format!("192.0.2.{host}:{}", 1000 + u16::from(port))
            .parse()
            .unwrap();
        let endpoints = vec![Endpoint {
            address,
            kind: EndpointKind::Interface,
        }];
        self.world.say(
            session,
            FromHost::Endpoints(EndpointReport {
                endpoints,
                listen_port: 1,
                stream_port: None,
            }),
        );
        self.world.say(session, FromHost::Ping(1));
    }

    /// The stream breaks without a word.
    fn reconnect(&mut self) {
        self.world.sent.remove(&self.session); // lost on the way
        self.world
            .fleet
            .handle_session_closed(self.session, self.world.now);
        self.session = self.world.open(&self.machine, "watcher");
        self.world.hello(self.session, self.host.revision);
    }

    fn receive(&mut self) {
        let messages = self.world.taken(self.session);
        self.host.apply_all(&self.world, &messages);
    }

    /// Lets time pass until nobody has asked for too much lately.
    fn rest(&mut self) {
        for _ in 0..4 {
            self.world.advance(Duration::from_secs(10));
            for session in self.streams.values().chain([&self.session]) {
                self.world.say(*session, FromHost::Ping(0));
            }
            self.receive();
        }
    }

    /// After everything was told, the host knows what one that starts anew is told.
    fn check(&mut self) {
        self.rest();
        let session = self.world.open(&self.machine, "watcher");
        self.world.hello(session, None);
        let messages = self.world.taken(session);
        let mut anew = ModelHost::default();
        assert_eq!(anew.apply_all(&self.world, &messages), 1);
        let without_forgotten_hints = |mut host: ModelHost| {
            // After a crash the coordinator does not know endpoints that hosts still remember.
            host.peers
                .values_mut()
                .for_each(|peer| peer.endpoints.clear());
            host
        };
        assert_eq!(
            without_forgotten_hints(self.host.knowledge()),
            without_forgotten_hints(anew.knowledge())
        );
        for (id, peer) in anew.peers {
            if !peer.endpoints.is_empty() {
                assert_eq!(self.host.peers[&id].endpoints, peer.endpoints);
            }
        }
        // The watcher goes on from what it had, on a stream of its own.
        self.session = self.world.open(&self.machine, "watcher");
        self.world.hello(self.session, self.host.revision);
        self.receive();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn applied_deltas_equal_the_whole_map(steps in prop::collection::vec(step(), 1..40)) {
        let mut run = Run::new();
        run.receive();
        for step in &steps {
            run.take(step);
            run.check();
        }
    }

    #[test]
    fn applied_deltas_equal_the_whole_map_when_they_are_gathered(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new();
        run.receive();
        for step in &steps {
            run.take(step);
        }
        run.check();
    }
}

/// Makes a watcher that is up to date, and another host.
fn watcher() -> (World, Machine, SessionId, ModelHost) {
    let mut world = World::new();
    let (machine, _) = world.join("watcher", 1);
    world.join("other", 2);
    world.advance(Duration::from_secs(1));
    let session = world.open(&machine, "watcher");
    world.hello(session, None);
    let mut host = ModelHost::default();
    let messages = world.taken(session);
    host.apply_all(&world, &messages);
    (world, machine, session, host)
}

fn only_map(messages: Vec<ToHost>) -> MapDelta {
    let mut maps: Vec<_> = messages
        .into_iter()
        .filter_map(|message| match message {
            ToHost::Map(delta) => Some(delta),
            _ => None,
        })
        .collect();
    assert_eq!(maps.len(), 1);
    maps.remove(0)
}

#[test]
fn what_concerns_no_host_is_told_to_none() {
    let (mut world, _, session, _) = watcher();
    world.token(None);
    world.advance(Duration::from_secs(1));
    assert!(world.taken(session).is_empty());
}

#[test]
fn a_changed_peer_is_told_alone() {
    let (mut world, _, session, host) = watcher();
    world.join("third", 3);
    world.set_labels("other", &[("role", "db")]);
    world.advance(Duration::from_millis(20));
    let delta = only_map(world.taken(session));
    assert_eq!(
        (delta.base, delta.revision),
        (host.revision, world.status().revision)
    );
    assert_eq!(delta.peers.len(), 2, "changes close together go together");
    assert!(delta.policy.is_none() && delta.policy_step.is_none());
    assert!(delta.record.is_none() && delta.tombstones.is_empty());
}

#[test]
fn a_new_policy_and_a_removal_are_told_at_once() {
    let (mut world, _, session, _) = watcher();
    let yaml = "fleet: prod\nallow:\n  - { id: x, from: any, to: any, tcp: [22] }\n";
    world.apply_policy(yaml).unwrap();
    let delta = only_map(world.taken(session));
    assert!(delta.policy_step.is_some() && delta.peers.is_empty());
    world.remove_host("other");
    assert_eq!(only_map(world.taken(session)).tombstones.len(), 1);
}

#[test]
fn a_host_is_told_its_own_new_record() {
    let (mut world, _, session, _) = watcher();
    world.set_labels("watcher", &[("role", "web")]);
    world.advance(Duration::from_millis(20));
    let delta = only_map(world.taken(session));
    let record = world
        .anchors()
        .0
        .verify_record(&delta.record.unwrap())
        .unwrap();
    assert_eq!(record.name, name("watcher"));
    assert!(delta.peers.is_empty());
}

#[test]
fn endpoints_change_without_a_revision() {
    let (mut world, _, session, host) = watcher();
    let (third, _) = world.join("third", 3);
    world.advance(Duration::from_secs(1));
    let mut host = host;
    let messages = world.taken(session);
    host.apply_all(&world, &messages);
    let stream = world.open_from(&third, "third", Some("192.0.2.3".parse().unwrap()));
    world.hello(stream, None);
    let report = EndpointReport {
        endpoints: Vec::new(),
        listen_port: 51820,
        stream_port: None,
    };
    world.say(stream, FromHost::Endpoints(report));
    world.advance(Duration::from_millis(200));
    let delta = only_map(world.taken(session));
    assert_eq!(
        (delta.base, Some(delta.revision)),
        (host.revision, host.revision)
    );
    assert_eq!(delta.peers[0].endpoints.len(), 1);
}

#[test]
fn endpoints_that_were_told_are_not_told_again() {
    let (mut world, machine, ..) = watcher();
    let (third, _) = world.join("third", 3);
    let stream = world.open_from(&third, "third", Some("192.0.2.3".parse().unwrap()));
    world.hello(stream, None);
    let report = |listen_port| {
        FromHost::Endpoints(EndpointReport {
            endpoints: Vec::new(),
            listen_port,
            stream_port: None,
        })
    };
    world.say(stream, report(51820));
    let session = world.open(&machine, "watcher");
    world.hello(session, None); // told in the whole map
    world.taken(session);
    world.set_labels("other", &[("role", "db")]);
    world.advance(Duration::from_secs(1));
    assert_eq!(only_map(world.taken(session)).peers.len(), 1);
    world.say(stream, report(51821));
    world.advance(Duration::from_secs(1)); // told in a delta
    assert_eq!(only_map(world.taken(session)).peers.len(), 1);
    world.set_labels("other", &[("role", "web")]);
    world.advance(Duration::from_secs(1));
    assert_eq!(only_map(world.taken(session)).peers.len(), 1);
}

#[test]
fn a_host_that_comes_back_up_to_date_is_told_nothing() {
    let (mut world, machine, _, host) = watcher();
    world.crash();
    let session = world.open(&machine, "watcher");
    world.hello(session, host.revision);
    assert!(matches!(&world.taken(session)[..], [ToHost::Welcome(_)]));
}

#[test]
fn a_revision_that_is_not_known_here_is_answered_with_a_whole_map() {
    let (mut world, machine, _, host) = watcher();
    let have = host.revision.unwrap();
    for unknown in [
        Revision::new(have.epoch + 1, have.counter),
        Revision::new(have.epoch, have.counter + 1000),
        Revision::new(0, 1),
    ] {
        let session = world.open(&machine, "watcher");
        world.hello(session, Some(unknown));
        assert_eq!(only_map(world.taken(session)).base, None, "{unknown}");
    }
}

#[test]
fn tombstones_are_bounded_and_who_may_have_missed_one_gets_a_whole_map() {
    let (mut world, machine, _, host) = watcher();
    let old = host.revision.unwrap();
    for number in 0..FleetLimits::TOMBSTONES_MAX {
        world.bury(number as u32);
    }
    world.crash();
    let buried = world.store.revision;
    world.remove_host("other");
    let tombstones = world
        .store
        .keys
        .keys()
        .filter(|key| key.as_str().starts_with("tombstones/"));
    assert_eq!(tombstones.count(), FleetLimits::TOMBSTONES_MAX);
    let later = Revision::new(old.epoch, buried.0);
    for (have, base) in [(old, None), (later, Some(later))] {
        let session = world.open(&machine, "watcher");
        world.hello(session, Some(have));
        assert_eq!(only_map(world.taken(session)).base, base);
    }
}

impl World {
    /// Puts the tombstone of a host that nobody remembers in the store.
    fn bury(&mut self, number: u32) {
        let mut id = [0xdd; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let tombstone = Tombstone {
            fleet: self.status().fleet,
            host: HostId::from_bytes(id),
            name: name(&format!("gone-{number}")),
            revision: Revision::new(1, self.store.revision.0 + 1),
            reason: "test".into(),
        };
        let signed = authority().sign_tombstone(&tombstone);
        let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        let signature = &signed.signatures[0];
        let value = serde_json::json!({ "v": 1, "d": {
            "tombstone": {
                "payload": base64(&signed.payload),
                "signatures": [{ "key_id": signature.key_id, "value": base64(&signature.value) }],
            },
            "tls_key_hash": Digest::from_bytes([0; 32]),
            "removed": { "by": "test", "at_secs": 0 },
        }});
        let key = Key::new(format!("tombstones/{}", tombstone.host)).unwrap();
        let operations = vec![Operation::put(key, value.to_string())];
        self.store
            .transact(&Transaction {
                operations,
                ..Transaction::default()
            })
            .unwrap();
    }
}

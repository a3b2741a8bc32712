//! Hosts that keep what they were told, as it was signed, and a story of which a backup knows half.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{AdminRequest, Reply, SessionId};
use model::admin::RecoveryStatus;
use model::control::{FromHost, Goodbye, Hello, ToHost};
use model::ids::{HostId, Revision};
use model::map::{MapDelta, PolicySlice};
use model::memory::Memory;
use model::record::Signed;

use crate::machine::Machine;
use crate::toy_store::ToyStore;
use crate::world::{World, name};

/// A host that keeps what it was told, as it was signed.
pub(crate) struct Rememberer {
    pub(crate) machine: Machine,
    pub(crate) called: &'static str,
    pub(crate) trust: Signed,
    pub(crate) revision: Option<Revision>,
    pub(crate) record: Signed,
    pub(crate) peers: BTreeMap<HostId, Signed>,
    pub(crate) tombstones: Vec<Signed>,
    pub(crate) policy: Option<PolicySlice>,
    pub(crate) session: SessionId,
}

impl Rememberer {
    pub(crate) fn join(world: &mut World, called: &'static str, seed: u16) -> Self {
        let (machine, enrolled) = world.join(called, seed);
        let mut host = Self {
            machine,
            called,
            trust: world.fleet.describe(world.now).trust,
            revision: None,
            record: enrolled.record,
            peers: BTreeMap::new(),
            tombstones: Vec::new(),
            policy: None,
            session: SessionId(0),
        };
        host.session = host.connect(world);
        host.receive(world, host.session);
        host
    }

    pub(crate) fn connect(&self, world: &mut World) -> SessionId {
        let session = world.open(&self.machine, self.called);
        let hello = Hello {
            trust: None,
            have: self.revision,
            software_version: "1.2.3".into(),
            features: ["allow", "deny", "recall"].map(str::to_owned).into(),
            boot_counter: 1,
        };
        world.say(session, FromHost::Hello(hello));
        session
    }

    /// Believes what it is told; answers when it is asked. Returns how the stream ended.
    pub(crate) fn receive(&mut self, world: &mut World, session: SessionId) -> Option<Goodbye> {
        let mut end = None;
        loop {
            let messages = world.taken(session);
            if messages.is_empty() {
                return end;
            }
            for message in messages {
                match message {
                    ToHost::Welcome(welcome) => self.trust = welcome.trust,
                    ToHost::Map(delta) => self.apply(world, &delta),
                    ToHost::Goodbye(goodbye) => end = Some(goodbye),
                    ToHost::Recall => {
                        let memory = FromHost::Memory(Box::new(self.memory()));
                        world.say(session, memory);
                        world.settle();
                    }
                    _ => {}
                }
            }
        }
    }

    /// Comes back, tells what it is asked, and comes back again until it is welcome.
    pub(crate) fn come_back(&mut self, world: &mut World) -> Option<Goodbye> {
        for _ in 0..3 {
            let session = self.connect(world);
            let end = self.receive(world, session);
            world.settle();
            world.advance(Duration::from_secs(1));
            if end.is_none() || end.as_ref().is_some_and(|it| it.tombstone.is_some()) {
                return end;
            }
        }
        Some(Goodbye {
            reason: "it was never welcome".into(),
            retry_after: Duration::ZERO,
            tombstone: None,
        })
    }

    pub(crate) fn apply(&mut self, world: &World, delta: &MapDelta) {
        let (anchors, _) = world.anchors();
        assert!(
            self.revision <= Some(delta.revision),
            "revisions never go back"
        );
        assert!(delta.base.is_none() || delta.base == self.revision);
        let of = |signed: &Signed| anchors.verify_record(signed).unwrap();
        if delta.base.is_none() {
            let known = delta.peers.iter().map(|entry| of(&entry.record).host);
            let known: Vec<HostId> = known.collect();
            self.peers.retain(|host, _| known.contains(host));
        }
        for entry in &delta.peers {
            let record = of(&entry.record);
            if let Some(before) = self.peers.insert(record.host, entry.record.clone()) {
                assert!(
                    of(&before).revision <= record.revision,
                    "records never go back"
                );
            }
        }
        for signed in &delta.tombstones {
            let gone = anchors.verify_tombstone(signed).unwrap();
            self.peers.remove(&gone.host);
            self.tombstones.push(signed.clone());
        }
        for host in &delta.forgotten {
            self.peers.remove(host);
        }
        if let Some(trust) = delta.trust.last() {
            self.trust = trust.clone();
        }
        if let Some(record) = &delta.record {
            assert!(of(&self.record).revision <= of(record).revision);
            self.record = record.clone();
        }
        if let Some(slice) = &delta.policy {
            let order = |slice: &PolicySlice| {
                let head = anchors.verify_head(&slice.head).unwrap();
                (head.epoch, head.version)
            };
            anchors.verify_slice(slice).unwrap();
            let before = self.policy.as_ref().map(order);
            assert!(before <= Some(order(slice)), "policies never go back");
            self.policy = Some(slice.clone());
        }
        self.revision = Some(delta.revision);
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory {
            trust: self.trust.clone(),
            record: self.record.clone(),
            records: self.peers.values().cloned().collect(),
            tombstones: self.tombstones.clone(),
            policy: self.policy.clone(),
            last: true,
        }
    }

    pub(crate) fn knows(&self, world: &World) -> Vec<String> {
        let (anchors, _) = world.anchors();
        let records = self.peers.values();
        let mut names: Vec<String> = records
            .map(|signed| anchors.verify_record(signed).unwrap().name.to_string())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn restore(world: &mut World, backup: ToyStore) {
    world.store = backup;
    let mark = fleet::restored("the store was restored from a backup", world.now);
    world.store.transact(&mark).unwrap();
    world.crash();
}

pub(crate) fn recovery(world: &mut World) -> RecoveryStatus {
    match world.admin(AdminRequest::ShowRecovery).unwrap() {
        Reply::Recovery(status) => status,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn finish(world: &mut World) {
    world
        .admin(AdminRequest::FinishRecovery { force: true })
        .unwrap();
}

const BEFORE: &str = "fleet: prod\nallow:\n  - { id: ping, from: any, to: any, icmp: true }\n";
const AFTER: &str = "fleet: prod\nallow:\n  - { id: ping, from: any, to: any, icmp: true }\n  \
                     - { id: ssh, from: any, to: any, tcp: [22] }\ndeny:\n  \
                     - { id: no-b, from: b, to: any }\n";

/// Three hosts, a backup, and what happened after it: a join, a removal, a rename, a policy.
pub(crate) fn story() -> (World, ToyStore, Vec<Rememberer>, Rememberer) {
    let mut world = World::new();
    world.apply_policy(BEFORE).unwrap();
    let mut hosts: Vec<_> = [("a", 1), ("b", 2), ("c", 3)]
        .map(|(called, seed)| Rememberer::join(&mut world, called, seed))
        .into();
    let backup = world.store.clone();
    hosts.push(Rememberer::join(&mut world, "d", 4));
    world.apply_policy(AFTER).unwrap();
    world.remove_host("c");
    let rename = AdminRequest::RenameHost {
        host: name("b"),
        name: name("b-2"),
    };
    world.admin(rename).unwrap();
    world.advance(Duration::from_secs(1));
    for host in &mut hosts {
        host.receive(&mut world, host.session);
    }
    let removed = hosts.remove(2);
    (world, backup, hosts, removed)
}

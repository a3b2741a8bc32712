//! What changes cost those whom they concern, and those whom they do not: by example.

use std::time::Duration;

use fleet::SessionId;
use model::admin::CreateToken;
use model::control::{EndpointReport, FromHost, ToHost};
use model::map::{Endpoint, EndpointKind};
use model::wire::encode_to_host;

use crate::machine::Machine;
use crate::model_host::ModelHost;
use crate::world::{World, hour_token, labels, name};

/// A host at its stream, up to date.
struct Online {
    machine: Machine,
    session: SessionId,
    knows: ModelHost,
}

fn join(world: &mut World, called: &str, seed: u16, role: &str) -> Online {
    let token = world.token_with(CreateToken {
        labels: labels(&[("role", role)]),
        ..hour_token()
    });
    let machine = Machine::new(seed);
    world.enrol(machine.request(world, &token, called)).unwrap();
    let session = world.open(&machine, called);
    world.hello(session, None);
    let mut online = Online {
        machine,
        session,
        knows: ModelHost::default(),
    };
    online.receive(world);
    online
}

impl Online {
    /// Returns the bytes of what was sent since this was asked last.
    fn receive(&mut self, world: &mut World) -> usize {
        let messages = world.taken(self.session);
        self.knows.apply_all(world, &messages);
        messages
            .iter()
            .map(|message| encode_to_host(message).len())
            .sum()
    }

    fn knows_of(&self, world: &World) -> Vec<String> {
        let (anchors, _) = world.anchors();
        let records = self
            .knows
            .peers
            .values()
            .map(|it| anchors.verify_record(&it.record).unwrap());
        let mut names: Vec<_> = records.map(|record| record.name.to_string()).collect();
        names.sort();
        names
    }
}

const WEB_TO_DB: &str =
    "fleet: prod\nallow:\n  - { id: sql, from: \"role=web\", to: \"role=db\", tcp: [5432] }\n";

fn fleet_of_three() -> (World, [Online; 3]) {
    let mut world = World::new();
    world.apply_policy(WEB_TO_DB).unwrap();
    let mut hosts = [("web", 1), ("db", 2), ("batch", 3)]
        .map(|(role, seed)| join(&mut world, role, seed, role));
    world.advance(Duration::from_secs(1));
    for host in &mut hosts {
        host.receive(&mut world);
    }
    (world, hosts)
}

#[test]
fn changes_cost_hosts_that_they_do_not_concern_no_byte() {
    let (mut world, [mut web, mut db, mut batch]) = fleet_of_three();
    let mut costs = |world: &mut World| {
        world.advance(Duration::from_secs(1));
        [&mut web, &mut db, &mut batch].map(|host| host.receive(world) > 0)
    };

    let newcomer = join(&mut world, "web-2", 4, "web");
    assert_eq!(costs(&mut world), [false, true, false], "a join");
    let endpoints = vec![Endpoint {
        address: "192.0.2.4:51820".parse().unwrap(),
        kind: EndpointKind::Interface,
    }];
    let report = EndpointReport {
        endpoints,
        listen_port: 51820,
        stream_port: None,
    };
    world.say(newcomer.session, FromHost::Endpoints(report));
    assert_eq!(costs(&mut world), [false, true, false], "endpoints");
    world.set_labels("web-2", &[("role", "db")]);
    assert_eq!(
        costs(&mut world),
        [true, true, false],
        "a label that changes sides"
    );
    world.set_labels("web-2", &[("role", "db"), ("rack", "7")]);
    assert_eq!(
        costs(&mut world),
        [true, false, false],
        "a label that no rule names"
    );
    world.set_labels("web-2", &[("role", "nothing")]);
    assert_eq!(costs(&mut world), [true, false, false], "a label lost");
    world.set_labels("web-2", &[("role", "nothing-else")]);
    assert_eq!(
        costs(&mut world),
        [false, false, false],
        "a stranger's label"
    );
    world.remove_host("web-2");
    assert_eq!(
        costs(&mut world),
        [false, false, false],
        "a stranger's removal"
    );
    world.remove_host("web");
    assert_eq!(
        costs(&mut world),
        [true, true, false],
        "a removal: a farewell and a tombstone"
    );
}

#[test]
fn a_label_makes_and_ends_acquaintances_at_both_ends() {
    let (mut world, [mut web, mut db, mut batch]) = fleet_of_three();
    world.set_labels("batch", &[("role", "web")]);
    world.set_labels("web", &[("role", "batch")]);
    world.advance(Duration::from_secs(1));
    for host in [&mut web, &mut db, &mut batch] {
        host.receive(&mut world);
    }
    assert_eq!(web.knows_of(&world), [""; 0]);
    assert_eq!(db.knows_of(&world), ["batch"]);
    assert_eq!(batch.knows_of(&world), ["db"]);
}

#[test]
fn a_host_gets_the_leaves_that_concern_it_and_others_when_its_labels_change() {
    let (mut world, [mut web, _, mut batch]) = fleet_of_three();
    let leaves = |host: &Online| host.knows.policy.as_ref().unwrap().leaves.len();
    assert_eq!(
        (leaves(&web), leaves(&batch)),
        (2, 1),
        "the denies, and the rule"
    );
    world.set_labels("batch", &[("role", "db")]);
    world.set_labels("web", &[("role", "web"), ("rack", "7")]);
    world.advance(Duration::from_millis(20));
    let maps = world.taken(web.session);
    let [ToHost::Map(map)] = &maps[..] else {
        panic!("{maps:?}")
    };
    let tells_policy = map.policy.is_some() || map.policy_step.is_some();
    assert!(!tells_policy, "its leaves are the same");
    web.knows.apply_all(&world, &maps);
    batch.receive(&mut world);
    assert_eq!(leaves(&batch), 2);
}

#[test]
fn a_removal_is_told_by_tombstone_to_those_who_knew_the_host() {
    let (mut world, [web, ..]) = fleet_of_three();
    world.remove_host("db");
    let [ToHost::Map(map)] = &world.taken(web.session)[..] else {
        panic!("one map")
    };
    assert_eq!((map.tombstones.len(), map.forgotten.len()), (1, 0));
}

#[test]
fn what_was_missed_is_told_in_a_delta_where_it_can_be() {
    let (mut world, [web, _, batch]) = fleet_of_three();
    let have = web.knows.revision;
    join(&mut world, "db-2", 5, "db");
    join(&mut world, "batch-2", 6, "batch");
    world.remove_host("db");
    world.remove_host("batch");
    drop(batch);
    world.crash();
    let session = world.open(&web.machine, "web");
    world.hello(session, have);
    let messages = world.taken(session);
    let [ToHost::Welcome(_), ToHost::Map(map)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(map.base, have);
    let counts = (map.peers.len(), map.tombstones.len(), map.forgotten.len());
    assert_eq!(counts, (1, 1, 0));
}

#[test]
fn hints_about_strangers_are_not_believed() {
    let (mut world, [web, mut db, batch]) = fleet_of_three();
    let address = "198.51.100.66:1".parse().unwrap();
    let host = |online: &Online| {
        let signed = online.knows.record.as_ref().unwrap();
        world.anchors().0.verify_record(signed).unwrap().host
    };
    let (of_web, of_batch) = (host(&web), host(&batch));
    for (by, peer) in [(batch.session, of_web), (db.session, of_batch)] {
        world.say(by, FromHost::Observation { peer, address });
    }
    world.advance(Duration::from_secs(1));
    assert_eq!(db.receive(&mut world), 0);
    assert!(world.hosts().iter().all(|host| host.endpoints.is_empty()));
    world.say(
        db.session,
        FromHost::Observation {
            peer: of_web,
            address,
        },
    );
    assert_eq!(world.hosts()[2].name, name("web"));
    assert_eq!(world.hosts()[2].endpoints, [address]);
}

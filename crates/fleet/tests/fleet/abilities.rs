//! Daemons that are older than a policy: named, and not given what they cannot enforce.

use fleet::SessionId;
use model::admin::CreateToken;
use model::control::{FromHost, Hello, RefusalCode};
use model::wire::decode_from_host;

use crate::machine::Machine;
use crate::policies::services;
use crate::world::{World, hour_token, labels};

/// The hello of a daemon from before services, as it went over the wire: version 0.0.9, features
/// `allow` and `deny`, third start.
const HELLO_0_0_9: [u8; 24] = [
    0x0a, 0x16, 0x12, 0x05, b'0', b'.', b'0', b'.', b'9', 0x1a, 0x05, b'a', b'l', b'l', b'o', b'w',
    0x1a, 0x04, b'd', b'e', b'n', b'y', 0x20, 0x03,
];

const SERVICE: &str = "fleet: prod
services:
  time: { port: 123, protocol: udp, endpoints: [\"role=clock\"] }
allow:
  - { id: ntp, from: \"role=vm\", to: time }
";

fn old_host(world: &mut World, called: &str, seed: u16, role: &str) -> SessionId {
    let token = world.token_with(CreateToken {
        labels: labels(&[("role", role)]),
        ..hour_token()
    });
    let machine = Machine::new(seed);
    world.enrol(machine.request(world, &token, called)).unwrap();
    let session = world.open(&machine, called);
    let hello = decode_from_host(&HELLO_0_0_9).unwrap();
    assert!(matches!(&hello, FromHost::Hello(hello) if hello.software_version == "0.0.9"));
    world.say(session, hello);
    session
}

#[test]
fn a_policy_that_a_connected_daemon_is_too_old_for_is_refused_by_its_name() {
    let mut world = World::new();
    old_host(&mut world, "vm-1", 1, "vm");
    let refused = world.apply_policy(SERVICE).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict);
    assert_eq!(
        refused.to_string(),
        "vm-1 (meshd 0.0.9 lacks services.udp) is too old to enforce this policy; upgrade meshd \
         there, or take out what it lacks"
    );
    assert_eq!(world.status().policy.0, 1);
}

#[test]
fn a_daemon_that_the_new_rules_do_not_concern_stops_nobody() {
    let mut world = World::new();
    old_host(&mut world, "other-1", 1, "other");
    assert!(world.apply_policy(SERVICE).unwrap().changed);
}

#[test]
fn a_demand_for_a_cipher_is_refused_while_a_daemon_would_not_know_it() {
    let mut world = World::new();
    let session = old_host(&mut world, "other-1", 1, "other");
    let text =
        "fleet: prod\ncipher: standard\nallow: [{ id: ping, from: any, to: any, icmp: true }]\n";
    let refused = world.apply_policy(text).unwrap_err().to_string();
    let lacks = "other-1 (meshd 0.0.9 lacks cipher.standard) is too old";
    assert!(refused.starts_with(lacks), "{refused}");
    // One that knows it takes it.
    world.hello(session, None);
    assert!(world.apply_policy(text).unwrap().changed);
}

#[test]
fn a_service_gets_addresses_when_every_daemon_that_it_concerns_can_carry_it() {
    let text = "fleet: prod\nservices:\n  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }\n\
                allow:\n  - { id: vm-db, from: \"role=vm\", to: db }\n";
    let mut world = World::new();
    old_host(&mut world, "vm-1", 1, "vm");
    let knows_no_addresses = |world: &mut World| {
        let FromHost::Hello(hello) = decode_from_host(&HELLO_0_0_9).unwrap() else {
            panic!("no hello")
        };
        let features = ["allow", "deny", "services.tcp"].map(str::to_owned);
        let session = world.open(&Machine::new(1), "vm-1");
        let hello = Hello {
            features: features.into(),
            ..hello
        };
        world.say(session, FromHost::Hello(hello));
    };
    knows_no_addresses(&mut world);
    let applied = world.apply_policy(text).unwrap();
    let warning = &applied.diagnostics[0].message;
    assert!(
        warning.ends_with("no addresses of their own yet: vm-1 (meshd 0.0.9)"),
        "{warning}"
    );
    assert_eq!(services(&mut world, 2)[0].addresses, None);

    let session = world.open(&Machine::new(1), "vm-1");
    world.hello(session, None);
    let applied = world.apply_policy(text).unwrap();
    assert!(applied.changed && applied.diagnostics.is_empty());
    let given = services(&mut world, 3)[0].addresses;
    assert!(given.is_some());
    assert!(!world.apply_policy(text).unwrap().changed, "it is in force");

    // What has addresses keeps them: whoever is too old now is too old for the policy.
    knows_no_addresses(&mut world);
    let more = text.replace("5432", "5433");
    let refused = world.apply_policy(&more).unwrap_err().to_string();
    assert!(
        refused.contains("vm-1 (meshd 0.0.9 lacks services.addresses)"),
        "{refused}"
    );
}

#[test]
fn a_daemon_that_is_away_is_warned_of_and_named_when_it_comes_back() {
    let mut world = World::new();
    let session = old_host(&mut world, "vm-1", 1, "vm");
    world.fleet.handle_session_closed(session, world.now);
    let applied = world.apply_policy(SERVICE).unwrap();
    let warning = &applied.diagnostics[0].message;
    assert!(
        warning.contains("vm-1") && warning.contains("when last seen"),
        "{warning}"
    );
    let session = world.open(&Machine::new(1), "vm-1");
    world.say(session, decode_from_host(&HELLO_0_0_9).unwrap());
    let notice = world.notices.last().unwrap();
    assert!(
        notice.contains("vm-1 is too old to enforce policy version 2"),
        "{notice}"
    );
}

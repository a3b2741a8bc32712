//! What a host offers to seal packets with: its record says it, its peers learn it, whatever happens
//! meanwhile, and neither one host nor all of them together make too much of it.

use std::time::Duration;

use fleet::SessionId;
use model::control::{AES_256_GCM, FromHost, Hello, ToHost};
use model::record::HostRecord;
use model::store::{Operation, Transaction};

use crate::machine::Machine;
use crate::world::World;

/// A host comes and says what it offers.
fn says(world: &mut World, machine: &Machine, called: &str, offers: bool) -> SessionId {
    let session = world.open(machine, called);
    let hello = Hello {
        trust: None,
        have: Some(world.status().revision),
        software_version: "1.2.3".into(),
        features: offers.then(|| AES_256_GCM.to_owned()).into_iter().collect(),
        boot_counter: 1,
    };
    world.say(session, FromHost::Hello(hello));
    session
}

/// alpha comes and says what it offers, and its record is written, with `peer` online.
fn greet(world: &mut World, machine: &Machine, offers: bool, peer: SessionId) {
    let session = says(world, machine, "alpha", offers);
    world.work(&[session, peer]);
}

/// Two hosts; the second one is told of the first.
fn alpha_and_its_peer() -> (World, Machine, SessionId) {
    let mut world = World::new();
    let (alpha, _) = world.join("alpha", 1);
    let (beta, _) = world.join("beta", 2);
    let peer = world.open(&beta, "beta");
    world.hello(peer, None);
    world.taken(peer);
    (world, alpha, peer)
}

fn offered(world: &mut World, peer: SessionId) -> Vec<bool> {
    let records = told(world, peer);
    records.iter().map(|it| it.offers_aes_256_gcm).collect()
}

/// The records of others that a host was told.
fn told(world: &mut World, session: SessionId) -> Vec<HostRecord> {
    let (anchors, _) = world.anchors();
    let messages = world.taken(session);
    let peers = messages.into_iter().flat_map(|message| match message {
        ToHost::Map(delta) => delta.peers,
        _ => Vec::new(),
    });
    peers
        .map(|peer| anchors.verify_record(&peer.record).unwrap())
        .collect()
}

#[test]
fn a_host_that_offers_another_cipher_at_its_hello_gets_a_record_that_says_so() {
    let (mut world, alpha, peer) = alpha_and_its_peer();
    for offers in [true, false] {
        greet(&mut world, &alpha, offers, peer);
        assert_eq!(offered(&mut world, peer), [offers]);
        // The same again is no change.
        let before = world.status().revision;
        greet(&mut world, &alpha, offers, peer);
        assert_eq!(world.status().revision, before);
    }
    let entries = world.audited.iter();
    let mut changes = entries.filter(|it| it.action == "host.ciphers");
    let change = &changes.next().unwrap().changes[0];
    assert_eq!(
        (change.subject.as_str(), change.after.as_deref()),
        ("host alpha", Some("offered"))
    );
}

#[test]
fn a_host_that_offers_it_when_it_joins_needs_no_second_record() {
    let mut world = World::new();
    let token = world.token(None);
    let machine = Machine::new(1);
    let mut request = machine.request(&world, &token, "alpha");
    request.features = vec![AES_256_GCM.to_owned()];
    let enrolled = world.enrol(request).unwrap();
    assert!(world.record(&enrolled).offers_aes_256_gcm);
    let before = world.status().revision;
    let session = says(&mut world, &machine, "alpha", true);
    world.work(&[session]);
    assert_eq!(world.status().revision, before);
}

#[test]
fn one_that_changes_its_offer_all_the_time_is_heard_in_the_end_and_always_without_aes() {
    let (mut world, alpha, peer) = alpha_and_its_peer();
    for round in 0..20 {
        greet(&mut world, &alpha, round % 2 == 0, peer);
    }
    let [on, off] = [true, false];
    assert_eq!(
        offered(&mut world, peer),
        [on, off, on, off, on, off, on, off]
    );
    // It says it once more, and has to wait for its turn.
    let session = says(&mut world, &alpha, "alpha", true);
    world.work(&[session, peer]);
    assert!(offered(&mut world, peer).is_empty());
    for _ in 0..15 {
        world.work(&[session, peer]);
    }
    assert_eq!(offered(&mut world, peer), [on], "without another hello");
}

#[test]
fn an_offer_that_cannot_be_stored_is_stored_later_and_uses_up_nothing() {
    let (mut world, alpha, peer) = alpha_and_its_peer();
    let session = says(&mut world, &alpha, "alpha", true);
    let tries = 10;
    for _ in 0..tries {
        world.advance(Duration::from_secs(6));
        assert_eq!(world.asked.len(), 1, "it is tried again");
        world.fail(0);
        for session in [session, peer] {
            world.say(session, FromHost::Ping(1));
        }
    }
    world.work(&[session, peer]);
    assert_eq!(offered(&mut world, peer), [true]);
    // It may change its mind as often as if all had gone well.
    for offers in [false, true, false, true] {
        greet(&mut world, &alpha, offers, peer);
        assert_eq!(offered(&mut world, peer), [offers]);
    }
}

#[test]
fn what_a_host_says_while_the_opposite_is_being_stored_holds() {
    let (mut world, alpha, peer) = alpha_and_its_peer();
    says(&mut world, &alpha, "alpha", true);
    world.advance(Duration::from_secs(1));
    world.carry_out(0);
    let session = says_while_it_is_stored(&mut world, &alpha);
    world.report(0);
    world.work(&[session, peer]);
    assert_eq!(offered(&mut world, peer).last(), Some(&false));
}

/// alpha comes back without it; nothing is settled meanwhile.
fn says_while_it_is_stored(world: &mut World, alpha: &Machine) -> SessionId {
    let session = world.open(alpha, "alpha");
    world.hello(session, None);
    session
}

#[test]
fn a_fleet_that_is_upgraded_at_once_is_written_a_portion_at_a_time() {
    const HOSTS: u16 = 2000;
    let mut world = World::new();
    // Nobody is told of anybody, or this takes long.
    world.apply_policy("fleet: prod\n").unwrap();
    let called = |host: u16| format!("vm-{host}");
    let machines: Vec<Machine> = (0..HOSTS).map(|it| world.join(&called(it), it).0).collect();
    let start = world.store.revision.0;
    for (host, machine) in (0..HOSTS).zip(&machines) {
        says(&mut world, machine, &called(host), true);
    }
    let mut written = 0;
    let mut commits = 0;
    while written < usize::from(HOSTS) {
        world.advance(Duration::from_secs(3));
        world.sent.clear();
        world.closed.clear();
        assert!(world.asked.len() <= 1, "one portion in three seconds");
        let operations = world.asked.front().map_or(0, |(_, it)| records_of(it));
        assert!(operations <= 32, "{operations} records in one portion");
        written += operations;
        commits += world.asked.len();
        assert!(commits <= 63, "{written} records in {commits} commits");
        world.settle();
    }
    assert_eq!(world.store.revision.0 - start, 63, "and nothing else");
    world.work(&[]);
    assert!(world.asked.is_empty());
}

fn records_of(transaction: &Transaction) -> usize {
    let keys = transaction.operations.iter().map(Operation::key);
    keys.filter(|key| key.to_string().starts_with("hosts/"))
        .count()
}

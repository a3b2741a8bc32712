//! What a host offers to seal packets with: its record says it, its peers learn it, and a host that
//! changes its mind all the time is not listened to.

use std::time::Duration;

use fleet::SessionId;
use model::control::{AES_256_GCM, FromHost, Hello, ToHost};
use model::record::HostRecord;

use crate::machine::Machine;
use crate::world::World;

fn greet(world: &mut World, machine: &Machine, offers: bool) -> SessionId {
    let session = world.open(machine, "alpha");
    let features = if offers { vec![AES_256_GCM] } else { vec![] };
    let hello = Hello {
        trust: None,
        have: Some(world.status().revision),
        software_version: "1.2.3".into(),
        features: features.into_iter().map(str::to_owned).collect(),
        boot_counter: 1,
    };
    world.say(session, FromHost::Hello(hello));
    world.settle();
    world.advance(Duration::from_secs(1));
    session
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
    let mut world = World::new();
    let (alpha, _) = world.join("alpha", 1);
    let (beta, _) = world.join("beta", 2);
    let peer = world.open(&beta, "beta");
    world.hello(peer, None);
    world.taken(peer);
    for offers in [true, false] {
        greet(&mut world, &alpha, offers);
        let records = told(&mut world, peer);
        let offered: Vec<bool> = records.iter().map(|it| it.offers_aes_256_gcm).collect();
        assert_eq!(offered, [offers]);
        // The same again is no change.
        let before = world.status().revision;
        greet(&mut world, &alpha, offers);
        assert_eq!(world.status().revision, before);
    }
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
    greet(&mut world, &machine, true);
    assert_eq!(world.status().revision, before);
}

#[test]
fn a_host_that_changes_its_offer_all_the_time_is_not_told_of_each_time() {
    let mut world = World::new();
    let (alpha, _) = world.join("alpha", 1);
    let (beta, _) = world.join("beta", 2);
    let peer = world.open(&beta, "beta");
    world.hello(peer, None);
    world.taken(peer);
    for round in 0..20 {
        greet(&mut world, &alpha, round % 2 == 0);
    }
    assert_eq!(told(&mut world, peer).len(), 4);
    world.advance(Duration::from_secs(600));
    greet(&mut world, &alpha, true);
    let peer = world.open(&beta, "beta");
    world.hello(peer, None);
    assert!(told(&mut world, peer).pop().unwrap().offers_aes_256_gcm);
}

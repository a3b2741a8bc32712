//! A member's WireGuard key changes: who proves the new one gets the record, its peers learn it, and
//! nobody takes another's.

use std::time::Duration;

use fleet::{AdminRequest, Reply, SessionId};
use model::control::{FromHost, NewKey, RefusalCode, ToHost};
use model::ids::HostId;
use model::key::{Secret, WireguardKey};
use model::map::MapDelta;
use model::store::{Key, Operation, Transaction};
use trust::enrolment::wireguard_public;
use trust::key_change::{KeyChange, prove_key_change};

use crate::machine::Machine;
use crate::world::{World, name};

const NEXT: Secret = Secret::from_bytes([0x77; 32]);

fn offer(world: &World, host: HostId, private: &Secret) -> NewKey {
    let (_, statement) = world.anchors();
    let wireguard_key = wireguard_public(private);
    let change = KeyChange {
        fleet: statement.fleet,
        host,
        wireguard_key,
    };
    let proof = prove_key_change(private, &statement.enrolment_key, &change).unwrap();
    NewKey {
        wireguard_key,
        proof,
    }
}

fn last_map(messages: Vec<ToHost>) -> MapDelta {
    let mut maps = messages.into_iter().filter_map(|message| match message {
        ToHost::Map(delta) => Some(delta),
        _ => None,
    });
    maps.next_back().expect("it is told")
}

fn refused(messages: &[ToHost]) -> &str {
    match messages {
        [ToHost::KeyRefused(why)] => why,
        other => panic!("{other:?}"),
    }
}

fn key_of(world: &mut World, host: &str) -> WireguardKey {
    match world.admin(AdminRequest::ShowHost(name(host))).unwrap() {
        Reply::Host(view) => view.wireguard_key,
        other => panic!("{other:?}"),
    }
}

/// Two members at their streams, with nothing left to tell.
struct Two {
    world: World,
    alpha: Machine,
    id: HostId,
    sessions: [SessionId; 2],
}

fn two() -> Two {
    let mut world = World::new();
    let (alpha, enrolled) = world.join("alpha", 1);
    let (beta, _) = world.join("beta", 2);
    let sessions = [(&alpha, "alpha"), (&beta, "beta")].map(|(machine, host)| {
        let session = world.open(machine, host);
        world.hello(session, None);
        world.taken(session);
        session
    });
    Two {
        world,
        alpha,
        id: enrolled.host,
        sessions,
    }
}

#[test]
fn a_proven_key_is_in_the_record_that_host_and_peers_get() {
    let mut two = two();
    let [alpha, beta] = two.sessions;
    let before = two.world.status().revision;
    let new = offer(&two.world, two.id, &NEXT);
    two.world.say(alpha, FromHost::NewKey(new));
    two.world.settle();
    two.world.advance(Duration::from_secs(1));
    let (anchors, _) = two.world.anchors();
    let own = last_map(two.world.taken(alpha)).record.unwrap();
    let own = anchors.verify_record(&own).unwrap();
    assert_eq!(own.wireguard_key, new.wireguard_key);
    assert!(own.revision > before);
    let peer = last_map(two.world.taken(beta)).peers.remove(0);
    assert_eq!(anchors.verify_record(&peer.record).unwrap(), own);
    // The same again, as after a lost answer, changes nothing.
    let after = two.world.status().revision;
    two.world.say(alpha, FromHost::NewKey(new));
    two.world.settle();
    assert_eq!(two.world.status().revision, after);
    assert!(two.world.taken(alpha).is_empty());
    two.world.crash();
    assert_eq!(key_of(&mut two.world, "alpha"), new.wireguard_key);
}

#[test]
fn a_key_that_is_not_proven_or_another_host_s_is_refused() {
    let mut two = two();
    let [alpha, _] = two.sessions;
    let mut forged = offer(&two.world, two.id, &NEXT);
    forged.proof[0] ^= 1;
    let of_another = offer(&two.world, HostId::from_bytes([9; 16]), &NEXT);
    for new in [forged, of_another] {
        two.world.say(alpha, FromHost::NewKey(new));
        let messages = two.world.taken(alpha);
        assert!(
            refused(&messages).contains("does not prove"),
            "{messages:?}"
        );
    }
    let of_beta = offer(&two.world, two.id, Machine::new(2).wireguard());
    two.world.say(alpha, FromHost::NewKey(of_beta));
    let messages = two.world.taken(alpha);
    assert!(refused(&messages).contains("another host"), "{messages:?}");
}

#[test]
fn the_former_key_admits_nobody_and_the_new_one_is_nobody_else_s() {
    let mut two = two();
    let [alpha, _] = two.sessions;
    two.world
        .say(alpha, FromHost::NewKey(offer(&two.world, two.id, &NEXT)));
    two.world.settle();
    let token = two.world.token(None);
    let clone = two.alpha.with_wireguard(NEXT);
    let request = clone
        .cloned_to("other")
        .request(&two.world, &token, "gamma");
    let why = two.world.refused_enrolment(request);
    assert!(why.contains("belong to host alpha"), "{why}");
    // The removal forgets the key that it has now.
    two.world.remove_host("alpha");
    let fresh = Machine::new(7).with_wireguard(NEXT);
    let request = fresh.request(&two.world, &token, "gamma");
    two.world.enrol(request).unwrap();
}

#[test]
fn keys_do_not_change_faster_than_peers_can_be_told() {
    let mut two = two();
    let [alpha, _] = two.sessions;
    let other = Secret::from_bytes([0x78; 32]);
    let offers = [&NEXT, &other].map(|key| offer(&two.world, two.id, key));
    two.world.say(alpha, FromHost::NewKey(offers[0]));
    two.world.settle();
    two.world.taken(alpha);
    two.world.say(alpha, FromHost::NewKey(offers[1]));
    two.world.settle();
    assert!(refused(&two.world.taken(alpha)).contains("a moment ago"));
    for _ in 0..2 {
        two.world.advance(Duration::from_secs(15));
        two.world.say(alpha, FromHost::Ping(1));
    }
    two.world.say(alpha, FromHost::NewKey(offers[1]));
    two.world.settle();
    assert_eq!(key_of(&mut two.world, "alpha"), offers[1].wireguard_key);
}

#[test]
fn a_change_that_cannot_be_stored_is_refused_and_can_be_asked_for_again() {
    let mut two = two();
    let [alpha, _] = two.sessions;
    let new = offer(&two.world, two.id, &NEXT);
    two.world.say(alpha, FromHost::NewKey(new));
    two.world.fail(0);
    assert!(refused(&two.world.taken(alpha)).contains("no space left"));
    assert_eq!(
        key_of(&mut two.world, "alpha"),
        wireguard_public(two.alpha.wireguard())
    );
}

#[test]
fn a_change_that_meets_another_is_tried_again_and_does_not_refuse_itself() {
    let mut two = two();
    let [alpha, _] = two.sessions;
    let new = offer(&two.world, two.id, &NEXT);
    two.world.say(alpha, FromHost::NewKey(new));
    // Somebody else writes the host's record meanwhile.
    let key = Key::new(format!("hosts/{}", two.id)).unwrap();
    let value = two.world.store.keys[&key].value.clone();
    let rewrite = Transaction {
        operations: vec![Operation::put(key, value)],
        ..Transaction::default()
    };
    let committed = two.world.store.transact(&rewrite).unwrap();
    two.world.carry_out(0);
    two.world.report(0);
    two.world.fleet.handle_watch(committed, two.world.now);
    two.world.advance(Duration::from_secs(1));
    two.world.settle();
    let messages = two.world.taken(alpha);
    let is_refused = |message: &ToHost| matches!(message, ToHost::KeyRefused(_));
    assert!(!messages.iter().any(is_refused), "{messages:?}");
    assert_eq!(key_of(&mut two.world, "alpha"), new.wireguard_key);
}

#[test]
fn an_operator_asks_a_host_that_is_there() {
    let mut two = two();
    let [alpha, _] = two.sessions;
    let request = AdminRequest::RotateHostKey(name("alpha"));
    two.world.admin(request).unwrap();
    assert_eq!(two.world.taken(alpha), [ToHost::RotateKey]);
    two.world.join("gamma", 3);
    let request = AdminRequest::RotateHostKey(name("gamma"));
    let rejection = two.world.admin(request).unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Unavailable);
    assert!(rejection.to_string().contains("not connected"));
}

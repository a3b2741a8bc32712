//! What a restored coordinator believes of what its hosts tell, and what it may cost.

use std::time::Duration;

use fleet::AdminRequest;
use model::control::{FromHost, ToHost};
use model::ids::HostId;
use model::memory::Memory;
use model::store::{Key, Operation, Transaction};

use crate::rememberer::{Rememberer, finish, recovery, restore, story};
use crate::world::{World, name};

const SECOND: Duration = Duration::from_secs(1);

fn names(world: &mut World) -> Vec<String> {
    let hosts = world.hosts();
    hosts.iter().map(|host| host.name.to_string()).collect()
}

fn is_asked(messages: &[ToHost]) -> bool {
    messages
        .iter()
        .any(|message| matches!(message, ToHost::Recall))
}

fn id_of(world: &World, host: &Rememberer) -> HostId {
    world.anchors().0.verify_record(&host.record).unwrap().host
}

#[test]
fn a_removal_holds_against_a_record_that_was_signed_later() {
    let (mut world, backup, mut hosts, mut removed) = story();
    restore(&mut world, backup);
    finish(&mut world);
    // Nobody has told yet that c was removed: in the new epoch it gets a later record.
    let rename = AdminRequest::RenameHost {
        host: name("c"),
        name: name("c-2"),
    };
    world.admin(rename).unwrap();
    assert_eq!(hosts[0].come_back(&mut world), None);
    assert!(!names(&mut world).contains(&"c-2".to_owned()));
    // Nor does its later record come back, when another coordinator of the epoch had told it that.
    let end = removed.come_back(&mut world).unwrap();
    assert!(end.tombstone.is_some(), "{end:?}");
}

#[test]
fn who_was_removed_and_forgotten_does_not_tell_itself_back() {
    for knows_what_was_signed in [true, false] {
        let mut world = World::new();
        let mut gone = Rememberer::join(&mut world, "gone", 1);
        let id = id_of(&world, &gone);
        world.remove_host("gone");
        forget_tombstone(&mut world, id, knows_what_was_signed);
        let backup = world.store.clone();
        let mut late = Rememberer::join(&mut world, "late", 2);
        restore(&mut world, backup);
        for host in [&mut gone, &mut late] {
            let session = host.connect(&mut world);
            host.receive(&mut world, session);
            world.settle();
        }
        assert_eq!(names(&mut world), ["late"]);
        let status = recovery(&mut world);
        assert!(!status.under_way, "all members have told: {status:?}");
        let session = gone.connect(&mut world);
        let end = gone.receive(&mut world, session).unwrap();
        assert!(end.reason.contains("join anew"), "{end:?}");
        assert_eq!(names(&mut world), ["late"]);
    }
}

/// Leaves the store as after so many removals that this one is not kept any more.
fn forget_tombstone(world: &mut World, id: HostId, knows_what_was_signed: bool) {
    let through = world.store.revision.0;
    let mut pruned = serde_json::json!({ "v": 1, "d": { "through": through } });
    if knows_what_was_signed {
        pruned["d"]["signed"] = serde_json::json!({ "epoch": 1, "counter": through });
    }
    let key = |path: &str| Key::new(path).unwrap();
    let operations = vec![
        Operation::put(key("meta/pruned"), pruned.to_string()),
        Operation::delete(key(&format!("tombstones/{id}"))),
        Operation::delete(key("names/gone")),
    ];
    let transaction = Transaction {
        operations,
        ..Transaction::default()
    };
    world.store.transact(&transaction).unwrap();
    world.crash();
}

#[test]
fn a_host_has_a_minute_to_tell() {
    let (mut world, backup, hosts, _) = story();
    restore(&mut world, backup);
    let slow = &hosts[0];
    let session = slow.connect(&mut world);
    assert!(is_asked(&world.taken(session)));
    for nonce in 0..5 {
        world.advance(11 * SECOND);
        world.say(session, FromHost::Ping(nonce));
    }
    world.say(session, FromHost::Memory(Box::new(slow.memory())));
    world.settle();
    assert_eq!(recovery(&mut world).heard, 1);
}

#[test]
fn nothing_is_built_on_what_is_asked_for_before_all_is_told() {
    let (mut world, backup, hosts, _) = story();
    restore(&mut world, backup);
    let session = hosts[0].connect(&mut world);
    world.taken(session);
    world.say(session, FromHost::Leave);
    world.settle();
    assert!(world.taken(session).is_empty());
    assert_eq!(names(&mut world), ["a", "b", "c"], "nobody has left");
}

#[test]
fn a_host_that_cannot_have_anything_to_tell_holds_nobody_up() {
    let (mut world, backup, mut hosts, _) = story();
    restore(&mut world, backup);
    // It says that it could tell, and never does.
    hosts[0].revision = None;
    let session = hosts[0].connect(&mut world);
    assert!(is_asked(&world.taken(session)));
    world.advance(61 * SECOND);
    let status = recovery(&mut world);
    assert_eq!((status.heard, status.under_way), (1, true), "{status:?}");
    assert!(!status.missing.contains(&name("a")));
}

#[test]
fn a_stranger_who_tells_nothing_new_is_asked_a_few_times_only() {
    let (mut world, backup, mut hosts, _) = story();
    restore(&mut world, backup);
    finish(&mut world);
    // Its place was given to another one, who keeps it.
    Rememberer::join(&mut world, "d", 9);
    let mut stranger = hosts.remove(2);
    let mut asked = 0;
    for _ in 0..20 {
        let session = stranger.connect(&mut world);
        asked += usize::from(world.sent.get(&session).is_some_and(|it| is_asked(it)));
        stranger.receive(&mut world, session);
        world.settle();
    }
    assert_eq!(asked, 4);
    world.advance(60 * SECOND);
    let session = stranger.connect(&mut world);
    assert!(is_asked(&world.taken(session)), "and again after a while");
}

#[test]
fn nobody_remembers_more_than_a_fleet_can_have() {
    let (mut world, backup, hosts, _) = story();
    restore(&mut world, backup);
    let session = hosts[0].connect(&mut world);
    world.taken(session);
    let endless = Memory {
        last: false,
        ..hosts[0].memory()
    };
    let parts = (0..)
        .take_while(|_| {
            world.say(session, FromHost::Memory(Box::new(endless.clone())));
            !world.closed.contains(&session)
        })
        .count();
    assert_eq!(parts, 4096);
}

#[test]
fn only_what_would_be_new_has_to_be_verified() {
    let (mut world, backup, hosts, _) = story();
    restore(&mut world, backup);
    let signatures = |world: &mut World, host: &Rememberer| {
        let session = host.connect(world);
        let part = host.memory();
        let hearsay = world.fleet.handle_memory(session, part, world.now).unwrap();
        let signatures = hearsay.signatures();
        let told = hearsay.verify();
        world.fleet.handle_testimony(session, told, world.now);
        world.settle();
        signatures
    };
    // Who tells, c's tombstone, b under its new name, d, and the policy.
    assert_eq!(signatures(&mut world, &hosts[0]), 5);
    assert_eq!(
        signatures(&mut world, &hosts[1]),
        2,
        "who tells, and the policy again"
    );
}

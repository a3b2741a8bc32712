//! A coordinator that is restored from an old backup: what its hosts remember comes back, and
//! nothing that they have seen goes back.

use std::time::Duration;

use fleet::AdminRequest;
use model::control::{FromHost, RefusalCode, ToHost};
use model::ids::Revision;

use crate::machine::Machine;
use crate::rememberer::{Rememberer, finish, recovery, restore, story};
use crate::world::{World, name};

#[test]
fn what_happened_after_the_backup_comes_back_with_the_hosts() {
    let (mut world, backup, mut hosts, mut removed) = story();
    let before: Vec<_> = world
        .hosts()
        .iter()
        .map(|it| (it.id, it.name.clone(), it.addresses))
        .collect();
    restore(&mut world, backup);
    assert!(recovery(&mut world).under_way);
    for host in &mut hosts {
        let session = host.connect(&mut world);
        assert!(
            host.receive(&mut world, session).is_some(),
            "nobody is welcome yet"
        );
        world.settle();
    }
    let status = recovery(&mut world);
    assert_eq!((status.under_way, status.epoch), (false, 2), "{status:?}");
    let after: Vec<_> = world
        .hosts()
        .iter()
        .map(|it| (it.id, it.name.clone(), it.addresses))
        .collect();
    assert_eq!(after, before);
    for host in &mut hosts {
        assert_eq!(host.come_back(&mut world), None);
        assert_eq!(host.revision.unwrap().epoch, 2);
    }
    assert_eq!(hosts[0].knows(&world), ["b-2", "d"]);
    let end = removed.come_back(&mut world).unwrap();
    assert!(
        end.tombstone.is_some(),
        "a removed host stays removed: {end:?}"
    );
    let (anchors, _) = world.anchors();
    let (head, bundle) = anchors
        .verify_slice(hosts[0].policy.as_ref().unwrap())
        .unwrap();
    assert_eq!(head.version.0, 4, "above version 3, which hosts have seen");
    assert_eq!((bundle.allow.len(), bundle.deny.len()), (2, 1));
    // What comes next clashes with nothing, and what was restored can be restarted.
    world.crash();
    Rememberer::join(&mut world, "e", 5);
    let addresses: std::collections::BTreeSet<_> =
        world.hosts().iter().map(|host| host.addresses).collect();
    assert_eq!(addresses.len(), 4);
}

#[test]
fn nothing_is_changed_while_hosts_are_asked() {
    let (mut world, backup, _, _) = story();
    let token = world.token(None);
    restore(&mut world, backup);
    let error = world
        .admin(AdminRequest::RemoveHost(name("a")))
        .unwrap_err();
    assert_eq!(error.refusal.code, RefusalCode::Unavailable);
    assert!(
        error.to_string().contains("meshctl recovery finish"),
        "{error}"
    );
    let refused = world.refused_enrolment(Machine::new(9).request(&world, &token, "x"));
    assert!(
        refused.contains("takes up what its hosts remember"),
        "{refused}"
    );
    let status = recovery(&mut world);
    assert_eq!(status.missing, ["a", "b", "c"].map(name));
}

#[test]
fn a_recovery_that_has_heard_nobody_is_ended_only_by_force() {
    let (mut world, backup, mut hosts, _) = story();
    restore(&mut world, backup);
    world.fleet.handle_disbelief(3);
    let end = |force| AdminRequest::FinishRecovery { force };
    let refused = world.admin(end(false)).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict);
    let said = refused.to_string();
    assert!(said.contains("none of 3 hosts has told"), "{said}");
    assert!(
        said.contains("3 machines say that they do not believe"),
        "{said}"
    );
    assert!(said.contains("finish --force"), "{said}");
    assert_eq!(recovery(&mut world).disbelieving, 3);
    assert_eq!(world.status().disbelieving, 3);
    let counted = |world: &World| {
        let figures = world.fleet.figures();
        (figures.is_recovering, figures.recovery_missing)
    };
    assert_eq!(counted(&world), (true, 3));
    // One that told is enough to go on without the others.
    let session = hosts[0].connect(&mut world);
    hosts[0].receive(&mut world, session);
    world.settle();
    assert_eq!(counted(&world), (true, recovery(&mut world).missing.len()));
    world.admin(end(false)).unwrap();
    assert_eq!(recovery(&mut world).epoch, 2);
    assert_eq!(counted(&world), (false, 0));
}

#[test]
fn join_tokens_from_before_the_restore_are_good_no_more() {
    let mut world = World::new();
    let token = world.token(Some(1));
    let mut host = Rememberer::join(&mut world, "a", 1);
    let backup = world.store.clone();
    restore(&mut world, backup);
    host.come_back(&mut world);
    let refused = world.refused_enrolment(Machine::new(9).request(&world, &token, "x"));
    assert!(
        refused.contains("before the coordinator was restored"),
        "{refused}"
    );
    Rememberer::join(&mut world, "b", 2);
}

#[test]
fn a_store_that_was_put_back_by_hand_is_found_out_by_the_first_host() {
    let (mut world, backup, mut hosts, _) = story();
    world.store = backup;
    world.crash();
    assert!(!recovery(&mut world).under_way);
    let session = hosts[0].connect(&mut world);
    assert!(hosts[0].receive(&mut world, session).is_some());
    world.settle();
    let status = recovery(&mut world);
    assert!(status.under_way, "{status:?}");
    assert!(status.why.unwrap().contains("a remembers"));
    for host in &mut hosts {
        host.come_back(&mut world);
    }
    assert_eq!(recovery(&mut world).epoch, 2);
}

#[test]
fn a_host_that_only_says_so_begins_no_recovery() {
    let mut world = World::new();
    let mut host = Rememberer::join(&mut world, "a", 1);
    host.revision = Some(Revision::new(1, 1_000_000));
    let session = host.connect(&mut world);
    let messages = world.taken(session);
    assert!(matches!(messages[..], [ToHost::Recall]));
    world.say(session, FromHost::Memory(Box::new(host.memory())));
    world.settle();
    assert!(!recovery(&mut world).under_way);
}

#[test]
fn what_the_fleet_did_not_sign_is_not_taken_up() {
    let (mut world, backup, mut hosts, _) = story();
    restore(&mut world, backup);
    let host = &mut hosts[0];
    for signed in host.peers.values_mut() {
        let last = signed.payload.len() - 1;
        signed.payload[last] ^= 1;
    }
    host.tombstones.clear();
    host.policy = None;
    let session = host.connect(&mut world);
    host.receive(&mut world, session);
    assert_eq!(recovery(&mut world).stored, 0);
    assert_eq!(world.hosts().len(), 3);
}

#[test]
fn a_host_cannot_tell_what_another_remembers() {
    let (mut world, backup, hosts, _) = story();
    restore(&mut world, backup);
    let session = hosts[0].connect(&mut world);
    world.taken(session);
    world.say(session, FromHost::Memory(Box::new(hosts[1].memory())));
    let messages = world.taken(session);
    assert!(
        matches!(&messages[..], [ToHost::Goodbye(goodbye)] if goodbye.reason.contains("another host"))
    );
}

#[test]
fn who_comes_after_the_epoch_is_asked_once_and_adds_what_only_it_remembers() {
    let (mut world, backup, mut hosts, _) = story();
    restore(&mut world, backup);
    finish(&mut world);
    assert_eq!(recovery(&mut world).epoch, 2);
    assert_eq!(
        world.hosts().len(),
        3,
        "nobody told of the fourth, or of the removal"
    );
    // `d` is a stranger to this store: it joined after the backup.
    let mut late = hosts.remove(2);
    assert_eq!(late.come_back(&mut world), None);
    let names: Vec<_> = world.hosts().iter().map(|it| it.name.to_string()).collect();
    assert_eq!(
        names,
        ["a", "b-2", "d"],
        "the removal and the rename came with it"
    );
    for host in &mut hosts {
        assert_eq!(host.come_back(&mut world), None);
    }
    let session = late.connect(&mut world);
    assert!(
        !world
            .taken(session)
            .iter()
            .any(|it| matches!(it, ToHost::Recall))
    );
}

#[test]
fn a_place_that_was_given_away_is_not_given_back() {
    let (mut world, backup, mut hosts, _) = story();
    restore(&mut world, backup);
    finish(&mut world);
    let newcomer = Rememberer::join(&mut world, "d", 9);
    let mut late = hosts.remove(2);
    let end = late.come_back(&mut world).unwrap();
    assert!(end.tombstone.is_none(), "{end:?}");
    let with_name: Vec<_> = world
        .hosts()
        .into_iter()
        .filter(|it| it.name == name("d"))
        .collect();
    let id = world
        .anchors()
        .0
        .verify_record(&newcomer.record)
        .unwrap()
        .host;
    assert_eq!(with_name.len(), 1);
    assert_eq!(with_name[0].id, id);
}

#[test]
fn what_could_not_be_stored_is_stored_later() {
    let (mut world, backup, mut hosts, _) = story();
    restore(&mut world, backup);
    let session = hosts[0].connect(&mut world);
    world.taken(session);
    world.say(session, FromHost::Memory(Box::new(hosts[0].memory())));
    world.fail(0);
    assert_eq!(recovery(&mut world).stored, 0);
    world.advance(Duration::from_secs(10));
    world.settle();
    assert!(recovery(&mut world).stored >= 3);
    for host in &mut hosts {
        host.come_back(&mut world);
    }
    assert_eq!(recovery(&mut world).epoch, 2);
}

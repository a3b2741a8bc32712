//! Roots that are retired stay so, and what is signed comes from keys that are believed: through a
//! restore, a restart in the middle of it, and with another coordinator on the same store.

use std::time::Duration;

use fleet::{AdminRequest, Fleet, Output, Rejection, RequestId, SessionId};
use model::control::{FromHost, RefusalCode};
use model::memory::Memory;
use trust::AuthorityKeys;

use crate::authority::two;
use crate::rememberer::{Rememberer, recovery, restore};
use crate::toy_store::ToyStore;
use crate::world::{World, name, operator};

/// Two hosts that remember, in the overlap, and a backup of that with its keys.
fn overlap() -> (World, Vec<Rememberer>, (ToyStore, Vec<AuthorityKeys>)) {
    let mut world = World::new();
    let before = (world.store.clone(), world.keys.clone());
    let mut hosts = vec![
        Rememberer::join(&mut world, "a", 1),
        Rememberer::join(&mut world, "b", 2),
    ];
    world.rotate();
    let sessions: Vec<SessionId> = hosts.iter().map(|host| host.session).collect();
    world.work(&sessions);
    for host in &mut hosts {
        let session = host.session;
        host.receive(&mut world, session);
        world.moves(session);
    }
    world.work(&sessions);
    assert_eq!((world.show().moved, world.show().to_sign), (2, 0));
    (world, hosts, before)
}

/// The old root is retired, and all hosts hear of it.
fn retire_and_tell(world: &mut World, hosts: &mut [Rememberer]) {
    world.retire(false).unwrap();
    let sessions: Vec<SessionId> = hosts.iter().map(|host| host.session).collect();
    world.work(&sessions);
    for host in hosts {
        let session = host.session;
        host.receive(world, session);
    }
}

/// A store is put back and the hosts come; returns why the recovery cannot be finished by force.
fn refused_after_restoring(
    world: &mut World,
    hosts: &mut [Rememberer],
    store: ToyStore,
) -> Rejection {
    restore(world, store);
    for host in hosts {
        let session = host.connect(world);
        host.receive(world, session);
        world.settle();
    }
    let finish = AdminRequest::FinishRecovery { force: true };
    let refused = world.admin(finish).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict);
    refused
}

/// The hosts come back to a restored coordinator and tell; it signs its epoch by itself.
fn recover(world: &mut World, hosts: &mut [Rememberer]) {
    for _ in 0..10 {
        for host in hosts.iter_mut() {
            host.come_back(world);
        }
        world.work(&[]);
        if !recovery(world).under_way {
            break;
        }
    }
    assert!(!recovery(world).under_way);
    for host in hosts {
        assert!(
            host.come_back(world).is_none(),
            "{} is welcome",
            host.called
        );
    }
}

#[test]
fn what_was_retired_after_a_backup_stays_retired() {
    let (mut world, mut hosts, _) = overlap();
    let backup = (world.store.clone(), world.keys.clone());
    retire_and_tell(&mut world, &mut hosts);
    world.keys = backup.1;
    restore(&mut world, backup.0);
    assert_eq!(world.show().roots.len(), 2);
    recover(&mut world, &mut hosts);
    world.settle();
    let view = world.show();
    assert_eq!((view.roots.len(), view.to_erase), (1, 0), "{view:?}");
    assert_eq!(world.keys.len(), 1);
    world.load().unwrap();
}

#[test]
fn a_backup_from_before_a_rotation_is_taken_up_while_the_old_root_is_believed() {
    let (mut world, mut hosts, before) = overlap();
    world.keys = before.1;
    restore(&mut world, before.0);
    recover(&mut world, &mut hosts);
    let view = world.show();
    assert_eq!((view.epoch, view.roots.len(), view.hosts), (2, 1, 2));
    // And the next rotation is like any other.
    assert_eq!(world.rotate().roots.len(), 2);
}

/// The story up to a restored coordinator that believes two roots, of which its hosts know that one is
/// retired.
fn restored_behind_a_retirement() -> (World, Vec<Rememberer>) {
    let (mut world, mut hosts, _) = overlap();
    let backup = (world.store.clone(), world.keys.clone());
    retire_and_tell(&mut world, &mut hosts);
    world.keys = backup.1;
    restore(&mut world, backup.0);
    assert_eq!(world.show().roots.len(), 2);
    (world, hosts)
}

#[test]
fn what_one_host_told_of_a_retirement_outlives_a_restart_and_a_forced_end() {
    let (mut world, mut hosts) = restored_behind_a_retirement();
    let session = hosts[0].connect(&mut world);
    hosts[0].receive(&mut world, session);
    world.settle();
    assert!(recovery(&mut world).under_way, "the other one is missing");
    world.crash();
    world
        .admin(AdminRequest::FinishRecovery { force: true })
        .unwrap();
    world.settle();
    let view = world.show();
    assert_eq!((view.epoch, view.roots.len()), (2, 1), "{view:?}");
    assert_eq!(view.roots[0].pin, world.held().certified_by);
    assert_eq!(world.keys.len(), 1, "its keys are erased again");
    for host in &mut hosts {
        assert_eq!(
            host.come_back(&mut world),
            None,
            "{} is welcome",
            host.called
        );
    }
    world.load().unwrap();
}

#[test]
fn a_later_statement_is_verified_once_and_not_with_each_part_that_shows_it() {
    let (mut world, hosts) = restored_behind_a_retirement();
    let host = &hosts[0];
    let session = host.connect(&mut world);
    let tell = |world: &mut World, session: SessionId, last: bool| {
        let part = Memory {
            records: Vec::new(),
            last,
            ..host.memory()
        };
        let hearsay = world.fleet.handle_memory(session, part, world.now).unwrap();
        let signatures = hearsay.signatures();
        let told = hearsay.verify();
        world.fleet.handle_testimony(session, told, world.now);
        signatures
    };
    let with_statement = tell(&mut world, session, false);
    let while_it_waits = tell(&mut world, session, false);
    assert_eq!(while_it_waits, with_statement - 1);
    tell(&mut world, session, true);
    world.settle();
    // So it is when it is stored, and when that is read again.
    world.crash();
    let session = host.connect(&mut world);
    assert_eq!(tell(&mut world, session, false), while_it_waits);
    world
        .admin(AdminRequest::FinishRecovery { force: true })
        .unwrap();
    assert_eq!(world.show().roots.len(), 1, "what it says is kept to");
}

#[test]
fn a_store_that_was_put_back_behind_a_retirement_is_found_out_and_keeps_it() {
    let (mut world, mut hosts, _) = overlap();
    let backup = (world.store.clone(), world.keys.clone());
    retire_and_tell(&mut world, &mut hosts);
    (world.store, world.keys) = backup;
    world.crash();
    let session = hosts[0].connect(&mut world);
    hosts[0].receive(&mut world, session);
    world.settle();
    assert!(recovery(&mut world).under_way);
    world.crash();
    world
        .admin(AdminRequest::FinishRecovery { force: true })
        .unwrap();
    assert_eq!(world.show().roots.len(), 1);
}

#[test]
fn no_epoch_is_signed_by_keys_that_the_hosts_know_to_be_retired() {
    let (mut world, mut hosts, before) = overlap();
    retire_and_tell(&mut world, &mut hosts);
    // From before the rotation: the root of that backup is believed by nobody.
    world.keys = before.1;
    let refused = refused_after_restoring(&mut world, &mut hosts, before.0);
    assert!(
        refused.to_string().contains("restore a backup"),
        "{refused}"
    );
    let status = recovery(&mut world);
    assert_eq!((status.under_way, status.epoch), (true, 1));
}

#[test]
fn a_store_from_before_a_rotation_with_the_key_file_from_after_it_is_told_so() {
    let (mut world, mut hosts, before) = overlap();
    let keys = world.keys.clone();
    retire_and_tell(&mut world, &mut hosts);
    // The old keys were not erased yet when the store was put back.
    world.keys = keys;
    let refused = refused_after_restoring(&mut world, &mut hosts, before.0);
    assert!(
        refused.to_string().contains("older than the key file"),
        "{refused}"
    );
}

#[test]
fn what_was_told_before_its_signer_was_retired_is_not_stored_after() {
    let mut world = World::new();
    Rememberer::join(&mut world, "a", 1);
    let backup = world.store.clone();
    // A member that the store does not know, by a record that the old keys alone have signed.
    let late = Rememberer::join(&mut world, "late", 2);
    restore(&mut world, backup);
    world
        .admin(AdminRequest::FinishRecovery { force: true })
        .unwrap();
    world.rotate();
    world.work(&[]);
    assert_eq!(world.show().to_sign, 0);
    let session = late.connect(&mut world);
    world.taken(session);
    world.say(session, FromHost::Memory(Box::new(late.memory())));
    assert_eq!(world.asked.len(), 1, "it is about to be stored");
    // Nothing is retired while that waits.
    let id = world.ask(AdminRequest::RetireAuthority { force: true });
    let refused = world.replies.remove(&id).unwrap().unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Unavailable);
    assert!(
        refused.to_string().contains("still being stored"),
        "{refused}"
    );
    // It could not be stored at once, and the keys are gone when it is tried again.
    world.fail(0);
    retire_elsewhere(&mut world);
    world.work(&[]);
    assert!(
        world
            .hosts()
            .iter()
            .all(|host| host.name.as_str() != "late")
    );
    world.load().expect("what is stored can be read again");
}

/// Another coordinator on the same store retires the old root, and this one hears of it.
fn retire_elsewhere(world: &mut World) {
    let mut other = world.load().unwrap();
    order(
        world,
        &mut other,
        AdminRequest::RetireAuthority { force: true },
    );
    world.settle();
}

/// Has another coordinator on the same store do something; this one hears of every change.
fn order(world: &mut World, other: &mut Fleet, request: AdminRequest) {
    other.handle_admin(RequestId(1), operator(), request, world.now);
    let replies = carry_out_elsewhere(world, other);
    assert_eq!(replies, 1);
}

/// Does what another coordinator wants done; returns how many requests it has granted.
fn carry_out_elsewhere(world: &mut World, other: &mut Fleet) -> usize {
    let mut granted = 0;
    while let Some(output) = other.poll_output() {
        match output {
            Output::KeepAuthority { id, .. } => other.handle_authority_kept(id, Ok(()), world.now),
            Output::Commit { id, transaction } => {
                let committed = world.store.transact(&transaction).unwrap();
                world.fleet.handle_watch(committed.clone(), world.now);
                other.handle_commit(id, Ok(committed), world.now);
            }
            Output::Reply { result, .. } => {
                result.unwrap();
                granted += 1;
            }
            _ => {}
        }
    }
    world.drain();
    granted
}

#[test]
fn a_coordinator_whose_keys_another_one_retired_says_so_and_signs_nothing_more() {
    let mut world = two().world;
    let mut other = world.load().unwrap();
    order(&mut world, &mut other, AdminRequest::RotateAuthority);
    assert!(
        world.notices.iter().any(|it| it.contains("`authority`")),
        "{:?}",
        world.notices
    );
    for _ in 0..20 {
        world.now.monotonic += Duration::from_secs(1);
        other.handle_timeout(world.now);
        carry_out_elsewhere(&mut world, &mut other);
    }
    order(
        &mut world,
        &mut other,
        AdminRequest::RetireAuthority { force: true },
    );
    // Looking goes on, and nothing is signed that nobody believes.
    assert_eq!(world.show().roots.len(), 1);
    let refused = world
        .admin(AdminRequest::RemoveHost(name("alpha")))
        .unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Unavailable);
    assert!(
        refused.to_string().contains("start this one anew"),
        "{refused}"
    );
    assert!(world.keeps.is_empty(), "its own file is left as it is");
}

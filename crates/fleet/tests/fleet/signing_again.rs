//! While the authority is rotated everything is signed again: its bytes stay, and so does what is said
//! of when it happened and by whom.

use std::time::Duration;

use fleet::{AdminRequest, Reply, SessionId};
use model::admin::RemovedHost;
use model::control::{Applied, FromHost};
use model::ids::{HostId, PolicyVersion};
use serde_json::Value;

use crate::authority::{Two, two};
use crate::world::World;

fn removal(world: &mut World, host: HostId) -> RemovedHost {
    match world.admin(AdminRequest::ShowRemoved(host)).unwrap() {
        Reply::RemovedHost(told) => told,
        other => panic!("{other:?}"),
    }
}

fn removed(world: &mut World) -> Vec<HostId> {
    match world.admin(AdminRequest::ListRemoved).unwrap() {
        Reply::RemovedHosts(views) => views.iter().map(|view| view.id).collect(),
        other => panic!("{other:?}"),
    }
}

fn applies(world: &mut World, session: SessionId) {
    let applied = Applied {
        trust: None,
        revision: world.status().revision,
        policy: PolicyVersion(1),
        error: None,
        trouble: None,
    };
    world.say(session, FromHost::Applied(applied));
}

fn stored(world: &World, key: &str) -> Value {
    let listing = world.store.listing();
    let entry = listing.iter().find(|it| it.key.to_string() == key);
    serde_json::from_slice(&entry.unwrap().value).unwrap()
}

#[test]
fn a_removal_that_has_arrived_is_not_pending_again_and_keeps_its_place() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    let gone = ["x", "y", "z"].map(|host| {
        let seed = u16::from(host.as_bytes()[0]);
        let (_, enrolled) = world.join(host, seed);
        world.record(&enrolled).host
    });
    for host in ["y", "z", "x"] {
        world.remove_host(host);
    }
    world.advance(Duration::from_secs(1));
    for session in sessions {
        applies(&mut world, session);
    }
    assert_eq!(removal(&mut world, gone[1]).arrived, 2);
    let order = removed(&mut world);
    assert_eq!(order, [gone[0], gone[2], gone[1]], "the last to go first");
    world.rotate();
    world.work(&sessions);
    assert_eq!(world.show().to_sign, 0);
    for host in gone {
        let told = removal(&mut world, host);
        assert_eq!((told.arrived, told.pending.len()), (2, 0), "{told:?}");
    }
    assert_eq!(removed(&mut world), order);
    // So it is when it is read from the store.
    world.crash();
    assert_eq!(removed(&mut world), order);
}

#[test]
fn who_changed_a_host_last_is_still_said_when_its_record_is_signed_again() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    let alpha = world.set_labels("alpha", &[("role", "web")]).id;
    let key = format!("hosts/{alpha}");
    let before = stored(&world, &key)["d"]["changed"].clone();
    world.rotate();
    world.work(&sessions);
    let after = stored(&world, &key);
    let signatures = after["d"]["record"]["signatures"].as_array().unwrap();
    assert_eq!(signatures.len(), 2, "it was signed again");
    assert_eq!(after["d"]["changed"], before);
}

#[test]
fn a_policy_is_not_read_anew_because_hosts_were_signed_again() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    world.rotate();
    world.workshop = Some(Vec::new());
    let yaml = "fleet: prod\nallow:\n  - { id: ping, from: any, to: any, icmp: true }\n  \
                - { id: ssh, from: any, to: any, tcp: [22] }\n";
    let id = world.ask(AdminRequest::ApplyPolicy(crate::world::apply(yaml)));
    let (work, files) = world.workshop.as_mut().unwrap().pop().unwrap();
    world.work(&sessions);
    assert_eq!(world.show().to_sign, 0);
    let done = files.run(&|| false);
    world.fleet.handle_policy_done(work, done, world.now);
    world.settle();
    assert!(
        world.workshop.as_ref().unwrap().is_empty(),
        "once is enough"
    );
    world.replies.remove(&id).unwrap().unwrap();
}

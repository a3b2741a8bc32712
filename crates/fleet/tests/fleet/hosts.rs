//! Renames, revocations and what is kept of those that are gone.

use std::time::Duration;

use fleet::{AdminRequest, Caller, Rejection, Reply};
use model::admin::{HostView, RemovedHost, RemovedHostView};
use model::control::{Applied, FromHost, RefusalCode, ToHost};
use model::identity::SpiffeId;
use model::ids::{HostId, PolicyVersion};
use trust::certificate;

use crate::machine::Machine;
use crate::model_host::ModelHost;
use crate::world::{World, labels, name, operator};

fn rename(world: &mut World, old: &str, new: &str) -> Result<HostView, Rejection> {
    let request = AdminRequest::RenameHost {
        host: name(old),
        name: name(new),
    };
    world.admin(request).map(|reply| match reply {
        Reply::Host(view) => view,
        other => panic!("{other:?}"),
    })
}

fn revoke(world: &mut World, host: &str) {
    let caller = Caller {
        reason: "stolen".into(),
        ..operator()
    };
    let id = world.ask_as(caller, AdminRequest::RevokeHost(name(host)));
    world.settle();
    let answer = world.replies.remove(&id).unwrap();
    assert!(matches!(answer, Ok(Reply::HostRemoved(_))));
}

fn removed(world: &mut World, id: HostId) -> RemovedHost {
    match world.admin(AdminRequest::ShowRemoved(id)).unwrap() {
        Reply::RemovedHost(told) => told,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_renamed_host_keeps_everything_but_its_name() {
    let mut world = World::new();
    let (_, enrolled) = world.join("web", 1);
    world.set_labels("web", &[("role", "edge")]);
    let before = world.record(&enrolled);
    let after = rename(&mut world, "web", "edge-1").unwrap();
    assert_eq!(after.id, enrolled.host);
    assert_eq!(after.name, name("edge-1"));
    assert_eq!(after.addresses, before.addresses);
    assert_eq!(after.wireguard_key, before.wireguard_key);
    assert_eq!(after.labels.len(), 1);
    world.crash();
    assert_eq!(
        world.hosts(),
        [HostView {
            software_version: None,
            ..after
        }]
    );
}

#[test]
fn rules_stay_bound_to_a_host_that_is_renamed() {
    let mut world = World::new();
    let (web, _) = world.join("web", 1);
    let (db, _) = world.join("db", 2);
    world
        .apply_policy("fleet: prod\nallow:\n  - { id: sql, from: web, to: db, tcp: [5432] }\n")
        .unwrap();
    let mut known = Vec::new();
    for (machine, host) in [(&web, "web"), (&db, "db")] {
        let session = world.open(machine, host);
        world.hello(session, None);
        let mut host = ModelHost::default();
        let messages = world.taken(session);
        host.apply_all(&world, &messages);
        known.push((session, host));
    }
    rename(&mut world, "db", "sql-1").unwrap();
    world.advance(Duration::from_secs(1));
    for (session, host) in &mut known {
        let messages = world.taken(*session);
        assert_eq!(host.apply_all(&world, &messages), 1);
        let told_policy = messages.iter().any(|message| match message {
            ToHost::Map(delta) => delta.policy.is_some() || delta.policy_step.is_some(),
            _ => false,
        });
        assert!(!told_policy, "no rule changed");
    }
    let peer = known[0].1.peers.values().next().unwrap();
    let record = world.anchors().0.verify_record(&peer.record).unwrap();
    assert_eq!(record.name, name("sql-1"));
}

#[test]
fn a_rename_tells_only_those_who_know_the_host() {
    let mut world = World::new();
    for (host, seed) in [("web", 1), ("db", 2), ("lone", 3)] {
        world.join(host, seed);
    }
    world
        .apply_policy("fleet: prod\nallow:\n  - { id: sql, from: web, to: db, tcp: [5432] }\n")
        .unwrap();
    let stranger = world.open(&Machine::new(3), "lone");
    world.hello(stranger, None);
    world.taken(stranger);
    rename(&mut world, "db", "sql-1").unwrap();
    world.advance(Duration::from_secs(1));
    assert!(world.taken(stranger).is_empty());
}

#[test]
fn a_renamed_host_comes_back_with_its_old_certificate_and_gets_a_new_one() {
    let mut world = World::new();
    let (machine, _) = world.join("web", 1);
    rename(&mut world, "web", "edge-1").unwrap();
    world.advance(Duration::from_secs(3 * 24 * 3600));
    let session = world.open(&machine, "web");
    world.hello(session, None);
    world.taken(session);
    world.say(
        session,
        FromHost::Renew(machine.certificate_request("edge-1")),
    );
    let chain = world.taken(session).into_iter().find_map(|it| match it {
        ToHost::Certificate(answer) => Some(answer.unwrap()),
        _ => None,
    });
    let facts = certificate::facts(&chain.unwrap()[0]).unwrap();
    let expected = SpiffeId::Host {
        fleet: name("prod"),
        host: name("edge-1"),
    };
    assert_eq!(facts.spiffe, expected);
}

#[test]
fn a_name_that_somebody_else_has_is_refused_by_name() {
    let mut world = World::new();
    world.join("web", 1);
    let (_, other) = world.join("db", 2);
    let error = rename(&mut world, "web", "db").unwrap_err();
    assert_eq!(error.refusal.code, RefusalCode::Conflict);
    assert!(
        error.to_string().contains(&other.host.to_string()),
        "{error}"
    );
    let services =
        "fleet: prod\nservices:\n  orders: { port: 80, protocol: tcp, endpoints: [db] }\n";
    world.apply_policy(services).unwrap();
    let error = rename(&mut world, "web", "orders").unwrap_err();
    assert!(error.to_string().contains("name of a service"), "{error}");
}

#[test]
fn a_former_name_is_kept_from_others_for_a_day_and_its_host_may_have_it_back() {
    let mut world = World::new();
    world.join("web", 1);
    world.join("db", 2);
    rename(&mut world, "web", "edge-1").unwrap();
    let error = rename(&mut world, "db", "web").unwrap_err();
    assert!(
        error.to_string().contains("which is called edge-1 now"),
        "{error}"
    );
    let error = world
        .admin(AdminRequest::ShowHost(name("web")))
        .unwrap_err();
    assert!(
        error.to_string().contains("it is called edge-1 now"),
        "{error}"
    );
    rename(&mut world, "edge-1", "web").unwrap();
    rename(&mut world, "web", "edge-1").unwrap();
    world.advance(Duration::from_secs(24 * 3600));
    rename(&mut world, "db", "web").unwrap();
}

#[test]
fn one_host_cannot_keep_names_without_end() {
    let mut world = World::new();
    world.join("h-0", 1);
    let refused = (1..100)
        .find_map(|number| {
            rename(
                &mut world,
                &format!("h-{}", number - 1),
                &format!("h-{number}"),
            )
            .err()
        })
        .unwrap();
    assert_eq!(refused.refusal.code, RefusalCode::Exhausted);
    world.advance(Duration::from_secs(24 * 3600));
    let current = world.hosts()[0].name.clone();
    rename(&mut world, current.as_str(), "again").unwrap();
    let kept = world.store.keys.keys();
    let kept = kept.filter(|key| key.as_str().starts_with("names/"));
    assert_eq!(kept.count(), 2, "the current and the former name");
}

#[test]
fn labels_are_set_in_the_place_of_those_that_were_seen() {
    let mut world = World::new();
    world.join("a", 1);
    let seen = world.hosts()[0].labels.clone();
    world.set_labels("a", &[("role", "web")]);
    let mut set = |base| {
        world.admin(AdminRequest::SetLabels {
            host: name("a"),
            set: model::admin::SetLabels {
                labels: labels(&[("zone", "b")]),
                base,
            },
        })
    };
    let refused = set(Some(seen)).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict);
    set(Some(labels(&[("role", "web")]))).unwrap();
}

#[test]
fn a_service_does_not_take_the_name_of_a_host_that_just_left() {
    let mut world = World::new();
    world.join("db", 1);
    world.remove_host("db");
    let services =
        "fleet: prod\nservices:\n  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }\n";
    let refused = world.apply_policy(services).unwrap_err();
    assert!(refused.to_string().contains("it is kept for"), "{refused}");
    world.advance(Duration::from_secs(15 * 60));
    world.apply_policy(services).unwrap();
}

#[test]
fn two_renames_to_one_name_are_decided_in_order() {
    let mut world = World::new();
    world.join("a", 1);
    world.join("b", 2);
    let asked = ["a", "b"].map(|host| {
        world.ask(AdminRequest::RenameHost {
            host: name(host),
            name: name("c"),
        })
    });
    world.settle();
    let answers = asked.map(|id| world.replies.remove(&id).unwrap());
    assert!(matches!(answers[0], Ok(Reply::Host(_))));
    assert!(answers[1].is_err());
}

#[test]
fn a_revoked_host_is_never_let_in_again_with_its_keys() {
    let mut world = World::new();
    let (machine, enrolled) = world.join("web", 1);
    revoke(&mut world, "web");
    world.crash();
    let token = world.token(None);
    let text = world.refused_enrolment(machine.request(&world, &token, "other"));
    assert!(text.contains("revoked by ops: stolen"), "{text}");
    let tls_only = Machine::new(5).with_tls_key_of(&machine);
    let text = world.refused_enrolment(tls_only.request(&world, &token, "other"));
    assert!(text.contains("not let in again"), "{text}");
    let fresh = machine.with_fresh_keys(6);
    let text = world.refused_enrolment(fresh.request(&world, &token, "web"));
    assert!(text.contains("it is kept from other machines"), "{text}");
    world.enrol(fresh.request(&world, &token, "web-2")).unwrap();
    assert!(removed(&mut world, enrolled.host).view.revoked);
}

#[test]
fn a_removed_host_may_join_anew_with_its_keys() {
    let mut world = World::new();
    let (machine, _) = world.join("web", 1);
    world.remove_host("web");
    let token = world.token(None);
    world.enrol(machine.request(&world, &token, "web")).unwrap();
}

#[test]
fn it_is_told_where_a_revocation_has_arrived() {
    let mut world = World::new();
    let (_, gone) = world.join("gone", 1);
    let sessions = [("near", 2), ("slow", 3), ("far", 4)].map(|(host, seed)| {
        let (machine, _) = world.join(host, seed);
        let session = world.open(&machine, host);
        world.hello(session, None);
        session
    });
    world.fleet.handle_session_closed(sessions[2], world.now);
    revoke(&mut world, "gone");
    let told = removed(&mut world, gone.host);
    assert_eq!((told.concerned, told.arrived), (3, 0));
    let revision = world.status().revision;
    let applied = Applied {
        revision,
        policy: PolicyVersion(1),
        ..Applied::default()
    };
    world.say(sessions[0], FromHost::Applied(applied));
    let told = removed(&mut world, gone.host);
    assert_eq!(told.arrived, 1);
    assert_eq!(
        (told.pending, told.offline),
        (vec![name("slow")], vec![name("far")])
    );
    let Reply::RemovedHosts(all) = world.admin(AdminRequest::ListRemoved).unwrap() else {
        panic!()
    };
    let names: Vec<&RemovedHostView> = all.iter().collect();
    assert_eq!(names[0].name, name("gone"));
    assert_eq!(names[0].reason, "revoked by ops: stolen");
}

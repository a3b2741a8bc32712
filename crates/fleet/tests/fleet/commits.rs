//! Many commits at once, in every order, with failures, conflicts and crashes.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::{
    AdminRequest, CommitError, CommitId, Fleet, FleetConfig, FleetLimits, LoadError, Output,
    Rejection, Reply, RequestId,
};
use model::address::HostAddresses;
use model::admin::CreateToken;
use model::control::RefusalCode;
use model::store::{Key, Operation, StoreRevision, Transaction};

use crate::machine::Machine;
use crate::world::{World, hour_token, labels, name, operator};

#[test]
fn a_thousand_pipelined_enrolments_get_a_thousand_addresses() {
    let mut world = World::new();
    let token = world.token(Some(1000));
    let ids: Vec<_> = (0..1000)
        .map(|seed| {
            let request = Machine::new(seed).request(&world, &token, &format!("h{seed}"));
            world.start_enrolment(request)
        })
        .collect();
    assert_eq!(world.asked.len(), 1000, "none waits for another");
    while !world.asked.is_empty() {
        // Carried out as they were asked for, reported backwards.
        world.carry_out(0);
    }
    while !world.done.is_empty() {
        world.report(world.done.len() - 1);
    }
    let mut addresses = BTreeSet::new();
    for id in ids {
        let enrolled = world.taken_enrolment(id).unwrap().unwrap();
        addresses.insert(world.record(&enrolled).addresses);
    }
    assert_eq!(addresses.len(), 1000);
    assert_eq!(world.hosts().len(), 1000);
    let token = Machine::new(2000).request(&world, &token, "late");
    assert_eq!(
        world.enrol(token).unwrap_err().refusal.code,
        RefusalCode::Denied,
        "its token is used up"
    );
}

#[test]
fn of_two_hosts_with_one_name_the_first_has_it() {
    let mut world = World::new();
    let token = world.token(None);
    let first = world.start_enrolment(Machine::new(1).request(&world, &token, "a"));
    let second = world.start_enrolment(Machine::new(2).request(&world, &token, "a"));
    assert_eq!(world.asked.len(), 1, "the second waits for the first");
    world.settle();
    let winner = world.taken_enrolment(first).unwrap().unwrap();
    let rejection = world.taken_enrolment(second).unwrap().unwrap_err();
    assert!(
        rejection.to_string().contains(&winner.host.to_string()),
        "{rejection}"
    );
}

#[test]
fn of_two_hosts_with_one_tls_key_the_first_has_it() {
    let mut world = World::new();
    let token = world.token(None);
    let machine = Machine::new(1);
    let first = world.start_enrolment(machine.request(&world, &token, "a"));
    let twin = Machine::new(2).with_tls_key_of(&machine);
    let second = world.start_enrolment(twin.request(&world, &token, "b"));
    world.settle();
    assert!(world.taken_enrolment(first).unwrap().is_ok());
    let rejection = world.taken_enrolment(second).unwrap().unwrap_err();
    assert!(
        rejection
            .to_string()
            .contains("these keys belong to host a"),
        "{rejection}"
    );
    // Once the first is gone the key is free.
    world.remove_host("a");
    world.enrol(twin.request(&world, &token, "b")).unwrap();
}

#[test]
fn the_second_gets_the_name_when_the_first_cannot_be_stored() {
    let mut world = World::new();
    let token = world.token(Some(1));
    let first = world.start_enrolment(Machine::new(1).request(&world, &token, "a"));
    let second = world.start_enrolment(Machine::new(2).request(&world, &token, "a"));
    world.fail(0);
    world.settle();
    let rejection = world.taken_enrolment(first).unwrap().unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Unavailable);
    assert!(
        rejection.to_string().contains("no space left on device"),
        "{rejection}"
    );
    assert!(world.taken_enrolment(second).unwrap().is_ok());
}

#[test]
fn the_same_request_twice_at_once_makes_one_host() {
    let mut world = World::new();
    let token = world.token(Some(1));
    let request = Machine::new(1).request(&world, &token, "a");
    let first = world.start_enrolment(request.clone());
    let second = world.start_enrolment(request);
    world.settle();
    let hosts = [first, second].map(|id| world.taken_enrolment(id).unwrap().unwrap().host);
    assert_eq!(hosts[0], hosts[1]);
}

#[test]
fn a_full_disk_changes_nothing_in_memory() {
    let mut world = World::new();
    world.join("a", 1);
    let (before, status) = (world.hosts(), world.status());
    for request in [
        AdminRequest::RemoveHost(name("a")),
        AdminRequest::SetLabels {
            host: name("a"),
            set: model::admin::SetLabels {
                labels: labels(&[("role", "web")]),
                base: None,
            },
        },
        AdminRequest::CreateToken(hour_token()),
        AdminRequest::ApplyPolicy(crate::world::apply("fleet: prod\n")),
    ] {
        let id = world.ask(request);
        world.fail(0);
        let rejection = world.replies.remove(&id).unwrap().unwrap_err();
        assert_eq!(rejection.refusal.code, RefusalCode::Unavailable);
    }
    assert_eq!((world.hosts(), world.status()), (before, status));
}

#[test]
fn a_crash_between_commit_and_answer_loses_nothing() {
    let mut world = World::new();
    let token = world.token(Some(1));
    let machine = Machine::new(1);
    let id = world.start_enrolment(machine.request(&world, &token, "a"));
    world.carry_out(0);
    world.crash();
    assert!(world.taken_enrolment(id).is_none());
    assert_eq!(world.hosts().len(), 1);
    let again = world.enrol(machine.request(&world, &token, "a")).unwrap();
    assert_eq!(again.host, world.hosts()[0].id);
}

#[test]
fn what_is_loaded_equals_what_was_committed() {
    let mut world = World::new();
    world.join("a", 1);
    world.join("b", 2);
    world.set_labels("b", &[("role", "db")]);
    world.join("c", 3);
    world.remove_host("a");
    world
        .apply_policy("fleet: prod\nallow:\n  - { id: x, from: any, to: b, tcp: [22] }\n")
        .unwrap();
    let everything = |world: &mut World| {
        let requests = [
            AdminRequest::Status,
            AdminRequest::ListHosts,
            AdminRequest::ListTokens,
            AdminRequest::ListPolicyVersions,
            AdminRequest::ShowPolicy(None),
            AdminRequest::ListAdmins,
        ];
        requests.map(|request| world.admin(request).unwrap())
    };
    let before = everything(&mut world);
    world.crash();
    assert_eq!(everything(&mut world), before);
}

#[test]
fn a_conflict_with_another_writer_is_tried_again_on_what_it_wrote() {
    let mut world = World::new();
    let (_, enrolled) = world.join("a", 1);
    let set = model::admin::SetLabels {
        labels: labels(&[("role", "web")]),
        base: None,
    };
    let id = world.ask(AdminRequest::SetLabels {
        host: name("a"),
        set,
    });
    // Another coordinator writes the host once more, as it is.
    let key = Key::new(format!("hosts/{}", enrolled.host)).unwrap();
    let value = world.store.keys[&key].value.clone();
    let foreign = Transaction {
        operations: vec![Operation::put(key, value)],
        ..Default::default()
    };
    let committed = world.store.transact(&foreign).unwrap();
    world.carry_out(0);
    world.report(0);
    assert!(!world.replies.contains_key(&id), "it is not given up yet");
    world.fleet.handle_watch(committed, world.now);
    world.advance(Duration::from_millis(10));
    world.settle();
    let Reply::Host(host) = world.replies.remove(&id).unwrap().unwrap() else {
        panic!()
    };
    assert_eq!(host.labels, labels(&[("role", "web")]));
}

#[test]
fn conflicts_without_end_are_given_up() {
    let mut world = World::new();
    let id = world.ask(AdminRequest::CreateToken(hour_token()));
    for _ in 0..FleetLimits::ATTEMPTS_MAX {
        assert!(!world.replies.contains_key(&id));
        let (commit, _) = world.asked.pop_front().unwrap();
        world
            .fleet
            .handle_commit(commit, Err(CommitError::Conflict), world.now);
        world.drain();
        world.advance(Duration::from_secs(1));
    }
    let rejection = world.replies.remove(&id).unwrap().unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Unavailable);
}

#[test]
fn a_revision_that_nobody_reports_makes_the_fleet_list_the_store() {
    let mut world = World::new();
    let foreign = Transaction {
        operations: vec![Operation::put(Key::new("locks/leader").unwrap(), "x")],
        ..Default::default()
    };
    world.store.transact(&foreign).unwrap(); // and no watch tells of it
    let id = world.ask(AdminRequest::CreateToken(hour_token()));
    world.carry_out(0);
    world.report(0);
    assert!(
        !world.replies.contains_key(&id),
        "what came before is not known"
    );
    world.advance(Duration::from_secs(2));
    assert_eq!(world.lists, 1);
    let (listing, revision) = (world.store.listing(), world.store.revision);
    world.fleet.handle_listing(listing, revision, world.now);
    world.drain();
    assert!(world.replies.remove(&id).unwrap().is_ok());
}

#[test]
fn what_the_watch_tells_first_is_not_taken_over_twice() {
    let mut world = World::new();
    let id = world.ask(AdminRequest::CreateToken(hour_token()));
    world.carry_out(0);
    let committed = world.done[0].1.clone().unwrap();
    world.fleet.handle_watch(committed, world.now);
    world.drain();
    assert!(
        !world.replies.contains_key(&id),
        "the answer waits for the commit's own outcome"
    );
    world.report(0);
    assert!(world.replies.remove(&id).unwrap().is_ok());
}

#[test]
fn a_token_revoked_while_a_host_joins_lets_nobody_in() {
    let mut world = World::new();
    let token = world.token(None);
    let joining = world.start_enrolment(Machine::new(1).request(&world, &token, "a"));
    let mut second = world.load().unwrap();
    let revocation = AdminRequest::RevokeToken(token.id);
    second.handle_admin(RequestId(1), operator(), revocation, world.now);
    let (commits, _) = outputs(&mut second);
    // The revocation of another coordinator reaches the store first.
    let revoked = world.store.transact(&commits[0].1).unwrap();
    world.fleet.handle_watch(revoked, world.now);
    world.settle();
    world.advance(Duration::from_secs(1));
    world.settle();
    let rejection = world.taken_enrolment(joining).unwrap().unwrap_err();
    assert!(rejection.to_string().contains("revoked"), "{rejection}");
}

#[test]
fn a_store_of_another_authority_or_none_is_refused() {
    let world = World::new();
    let seeds = trust::AuthoritySeeds {
        root: model::key::Secret::from_bytes([91; 32]),
        records: model::key::Secret::from_bytes([92; 32]),
        enrolment: model::key::Secret::from_bytes([93; 32]),
    };
    let other = || trust::Authority::create(&name("prod"), seeds.clone(), world.now.unix);
    let config = FleetConfig::new("1", vec!["c:1".into()]);
    let load = |loaded, revision| {
        Fleet::new(
            config.clone(),
            other(),
            loaded,
            revision,
            [0; 32],
            world.now,
        )
        .unwrap_err()
    };
    let error = load(world.store.listing(), world.store.revision);
    assert!(matches!(error, LoadError::OtherAuthority { .. }), "{error}");
    assert_eq!(load(Vec::new(), StoreRevision::ZERO), LoadError::Empty);
}

#[test]
fn a_record_that_was_changed_in_the_store_is_refused() {
    let mut world = World::new();
    let (_, enrolled) = world.join("a", 1);
    let key = Key::new(format!("hosts/{}", enrolled.host)).unwrap();
    let stored = world.store.keys.get_mut(&key).unwrap();
    let text = String::from_utf8(stored.value.clone()).unwrap();
    let at = text.find("payload\":\"").unwrap() + 20;
    let flipped = if &text[at..=at] == "A" { "B" } else { "A" };
    stored.value = format!("{}{flipped}{}", &text[..at], &text[at + 1..]).into_bytes();
    let error = world.load().unwrap_err();
    assert!(matches!(error, LoadError::Value { key: wrong, .. } if wrong == key));
}

#[test]
fn too_many_requests_at_once_are_refused() {
    let mut world = World::new();
    let create = || {
        AdminRequest::CreateToken(CreateToken {
            uses: Some(1),
            ..hour_token()
        })
    };
    for _ in 0..FleetLimits::REQUESTS_MAX {
        world.ask(create());
    }
    assert_eq!(world.asked.len(), FleetLimits::REQUESTS_MAX);
    let id = world.ask(create());
    let rejection = world.replies.remove(&id).unwrap().unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Unavailable);
}

type Commits = Vec<(CommitId, Transaction)>;
type Answers = Vec<Result<Reply, Rejection>>;

/// Returns the commits and answers that a second coordinator asks for.
fn outputs(fleet: &mut Fleet) -> (Commits, Answers) {
    let (mut commits, mut replies) = (Vec::new(), Vec::new());
    while let Some(output) = fleet.poll_output() {
        match output {
            Output::Commit { id, transaction } => commits.push((id, transaction)),
            Output::Reply { result, .. } => replies.push(result),
            Output::Audited(_) => {}
            other => panic!("{other:?}"),
        }
    }
    (commits, replies)
}

/// Two coordinators over one store let a host in at the same moment; the second comes too late.
/// Returns the address of the first and the answer to the second.
fn join_at_two_coordinators(uses: Option<u32>) -> (World, HostAddresses, Result<Reply, Rejection>) {
    let mut world = World::new();
    let token = world.token(uses);
    let mut second = world.load().unwrap();
    let first_id = world.start_enrolment(Machine::new(1).request(&world, &token, "a"));
    let request = Machine::new(2).request(&world, &token, "b");
    second.handle_enrol(RequestId(1), request, crate::world::from_ip(), world.now);
    let (commits, _) = outputs(&mut second);
    world.carry_out(0);
    let committed = world.done[0].1.clone().unwrap();
    world.report(0);
    let outcome = world.store.transact(&commits[0].1);
    assert_eq!(outcome, Err(CommitError::Conflict));
    second.handle_commit(commits[0].0, outcome, world.now);
    second.handle_watch(committed, world.now);
    world.advance(Duration::from_secs(1));
    second.handle_timeout(world.now);
    let (commits, mut replies) = outputs(&mut second);
    for (id, transaction) in commits {
        let outcome = world.store.transact(&transaction);
        second.handle_commit(id, outcome, world.now);
        replies.extend(outputs(&mut second).1);
    }
    let first = world.taken_enrolment(first_id).unwrap().unwrap();
    let address = world.record(&first).addresses;
    (world, address, replies.remove(0))
}

#[test]
fn two_coordinators_never_give_one_address_twice() {
    let (world, first, second) = join_at_two_coordinators(None);
    let Reply::Enrolled(enrolled) = second.unwrap() else {
        panic!()
    };
    assert_ne!(world.record(&enrolled).addresses, first);
}

#[test]
fn two_coordinators_use_a_token_as_often_as_it_says() {
    let (_, _, second) = join_at_two_coordinators(Some(1));
    assert!(second.unwrap_err().to_string().contains("used up"));
}

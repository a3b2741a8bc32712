//! Versions of the policy: applied on what was seen, rolled back forward, signed in a chain.

use std::collections::BTreeMap;

use fleet::{AdminRequest, Caller, Reply};
use model::address::HostAddresses;
use model::admin::{
    ApplyPolicy, CreateToken, PlanRequest, PolicyContent, PolicyVersionView, Role, RollbackPolicy,
};
use model::control::{Applied, FromHost, RefusalCode, ToHost};
use model::map::PolicySlice;
use model::rule::Service;
use trust::sha256;

use crate::machine::Machine;
use crate::world::{World, apply, hour_token, labels, name, version};

const SSH: &str = "fleet: prod\nallow:\n  - { id: ssh, from: any, to: any, tcp: [22] }\n";
const WEB: &str = "fleet: prod\nallow:\n  - { id: web, from: any, to: any, tcp: [80] }\n";

fn history(world: &mut World) -> Vec<PolicyVersionView> {
    match world.admin(AdminRequest::ListPolicyVersions).unwrap() {
        Reply::PolicyVersions(versions) => versions,
        other => panic!("{other:?}"),
    }
}

fn content(world: &mut World, number: Option<u64>) -> PolicyContent {
    match world
        .admin(AdminRequest::ShowPolicy(number.map(version)))
        .unwrap()
    {
        Reply::Policy(content) => content,
        other => panic!("{other:?}"),
    }
}

/// Returns the slice that a new host gets.
fn slice(world: &mut World, seed: u16) -> PolicySlice {
    let host = format!("slice-{seed}");
    let (machine, _) = world.join(&host, seed);
    let session = world.open(&machine, &host);
    world.hello(session, None);
    let mut maps = world
        .taken(session)
        .into_iter()
        .filter_map(|message| match message {
            ToHost::Map(delta) => delta.policy,
            _ => None,
        });
    maps.next().unwrap()
}

/// Returns the services that a new host with the role `vm` is told of.
pub(crate) fn services(world: &mut World, seed: u16) -> Vec<Service> {
    let host = format!("vm-{seed}");
    let token = world.token_with(CreateToken {
        labels: labels(&[("role", "vm")]),
        ..hour_token()
    });
    let machine = Machine::new(seed);
    world.enrol(machine.request(world, &token, &host)).unwrap();
    let session = world.open(&machine, &host);
    world.hello(session, None);
    let mut maps = world
        .taken(session)
        .into_iter()
        .filter_map(|message| match message {
            ToHost::Map(delta) => delta.policy,
            _ => None,
        });
    let slice = maps.next().unwrap();
    world.anchors().0.verify_slice(&slice).unwrap().1.services
}

/// Services at hosts with the role `app`, that hosts with the role `vm` may call.
fn with_services(names: &[&str]) -> String {
    let mut text = "fleet: prod\nservices:\n".to_owned();
    for name in names {
        text += &format!("  {name}: {{ port: 80, protocol: tcp, endpoints: [\"role=app\"] }}\n");
    }
    text + "allow:\n  - { id: all, from: \"role=vm\", to: any, tcp: any }\n"
}

#[test]
fn addresses_stay_with_the_names_of_services_over_versions_rollbacks_and_restarts() {
    let mut world = World::new();
    let addresses = |world: &mut World, seed| -> BTreeMap<String, HostAddresses> {
        let services = services(world, seed).into_iter();
        services
            .map(|it| (it.name.to_string(), it.addresses.unwrap()))
            .collect()
    };
    world
        .apply_policy(&with_services(&["orders", "db"]))
        .unwrap();
    let first = addresses(&mut world, 1);
    let plan = world.anchors().1.overlay.services();
    assert!(first.values().all(|it| plan.index_of(*it).is_some()));
    assert_ne!(first["db"], first["orders"]);

    world
        .apply_policy(&with_services(&["aaa", "orders", "zzz"]))
        .unwrap();
    let second = addresses(&mut world, 2);
    assert_eq!(second["orders"], first["orders"]);

    let back = RollbackPolicy {
        to: version(2),
        base: None,
        message: String::new(),
        dry_run: false,
    };
    world.admin(AdminRequest::RollbackPolicy(back)).unwrap();
    assert_eq!(addresses(&mut world, 3), first);
    world.crash();
    assert_eq!(addresses(&mut world, 4), first);
}

#[test]
fn more_services_than_addresses_are_refused_and_a_plan_says_so() {
    let mut world = World::with_v4("10.0.0.0/26");
    let (fits, exceeds) = (
        with_services(&["a", "b", "c"]),
        with_services(&["a", "b", "c", "d"]),
    );
    assert!(world.apply_policy(&fits).unwrap().changed);
    let refused = world.apply_policy(&exceeds).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Exhausted);
    assert_eq!(
        refused.to_string(),
        "4 services of this policy need addresses of their own, and 10.0.0.60/30 has room for 3; \
         take some out, or allow ports of hosts in place of some"
    );
    let plan = PlanRequest {
        files: apply(&exceeds).files,
        version: None,
    };
    let Reply::PolicyPlanned(planned) = world.admin(AdminRequest::PlanPolicy(plan)).unwrap() else {
        panic!()
    };
    let said = &planned.diagnostics[0];
    assert_eq!(
        (said.severity.as_str(), &said.message),
        ("error", &refused.to_string())
    );
}

#[test]
fn a_plan_does_not_tell_of_addresses_that_nobody_wrote() {
    let mut world = World::new();
    let text = with_services(&["orders"]);
    world.apply_policy(&text).unwrap();
    let plan = PlanRequest {
        files: apply(&text).files,
        version: None,
    };
    let Reply::PolicyPlanned(planned) = world.admin(AdminRequest::PlanPolicy(plan)).unwrap() else {
        panic!()
    };
    assert_eq!(
        (planned.plan.settings.len(), planned.diagnostics.len()),
        (0, 0)
    );
}

#[test]
fn a_new_fleet_pings_and_shows_why() {
    let mut world = World::new();
    let first = content(&mut world, None);
    assert_eq!((first.view.version, first.view.current), (version(1), true));
    assert!(
        first.files[0].text.contains("icmp: true"),
        "{:?}",
        first.files
    );
    let slice = slice(&mut world, 1);
    let (head, bundle) = world.anchors().0.verify_slice(&slice).unwrap();
    assert_eq!((head.version, head.previous), (version(1), None));
    assert_eq!(bundle, policy::first_policy());
}

#[test]
fn the_first_policy_is_applied_again_as_its_text_says() {
    let mut world = World::new();
    let files = content(&mut world, None).files;
    let apply = ApplyPolicy {
        files,
        base: None,
        message: String::new(),
        dry_run: true,
    };
    let Reply::PolicyApplied(applied) = world.admin(AdminRequest::ApplyPolicy(apply)).unwrap()
    else {
        panic!()
    };
    assert_eq!(applied.tests_passed, 2);
}

#[test]
fn versions_are_signed_in_a_chain() {
    let mut world = World::new();
    let first = slice(&mut world, 1);
    assert_eq!(world.apply_policy(SSH).unwrap().version, version(2));
    let second = slice(&mut world, 2);
    let (head, bundle) = world.anchors().0.verify_slice(&second).unwrap();
    assert_eq!(head.version, version(2));
    assert_eq!(head.previous, Some(sha256(&first.head.payload)));
    assert_eq!(bundle.allow[0].id.as_str(), "ssh");
}

#[test]
fn the_history_says_who_what_and_when() {
    let mut world = World::new();
    world.apply_policy(SSH).unwrap();
    let newest = &history(&mut world)[0];
    assert_eq!(
        (newest.author.as_str(), newest.message.as_str()),
        ("ops", "because")
    );
    assert_eq!(newest.created_secs, crate::world::START_SECS);
    assert!(newest.current);
}

#[test]
fn a_change_on_an_old_version_is_refused_and_says_who_was_faster() {
    let mut world = World::new();
    world.apply_policy(SSH).unwrap();
    let stale = ApplyPolicy {
        base: Some(version(1)),
        ..apply(WEB)
    };
    let rejection = world.admin(AdminRequest::ApplyPolicy(stale)).unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Conflict);
    assert!(
        rejection
            .to_string()
            .contains("version 2 is in force (by ops at"),
        "{rejection}"
    );
    let fresh = ApplyPolicy {
        base: Some(version(2)),
        ..apply(WEB)
    };
    assert!(world.admin(AdminRequest::ApplyPolicy(fresh)).is_ok());
}

#[test]
fn of_two_changes_on_one_version_the_first_is_made() {
    let mut world = World::new();
    let on_first = |yaml| ApplyPolicy {
        base: Some(version(1)),
        ..apply(yaml)
    };
    let ids = [SSH, WEB].map(|yaml| world.ask(AdminRequest::ApplyPolicy(on_first(yaml))));
    world.settle();
    assert!(world.replies.remove(&ids[0]).unwrap().is_ok());
    let rejection = world.replies.remove(&ids[1]).unwrap().unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Conflict);
    assert_eq!(history(&mut world).len(), 2);
}

#[test]
fn the_same_content_makes_no_new_version() {
    let mut world = World::new();
    world.apply_policy(SSH).unwrap();
    let revision = world.store.revision;
    let again = world.apply_policy(SSH).unwrap();
    assert_eq!((again.version, again.changed), (version(2), false));
    assert_eq!(world.store.revision, revision);
}

#[test]
fn the_same_text_that_means_another_host_makes_a_new_version() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let yaml = "fleet: prod\nallow:\n  - { id: x, from: any, to: a, tcp: [22] }\n";
    world.apply_policy(yaml).unwrap();
    world.remove_host("a");
    let token = world.token(None);
    let again = machine.with_fresh_keys(2);
    world.enrol(again.request(&world, &token, "a")).unwrap();
    let applied = world.apply_policy(yaml).unwrap();
    assert_eq!((applied.version, applied.changed), (version(3), true));
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = World::new();
    let dry = ApplyPolicy {
        dry_run: true,
        ..apply(SSH)
    };
    let viewer = Caller::new("eve", Role::Viewer);
    let id = world.ask_as(viewer, AdminRequest::ApplyPolicy(dry.clone()));
    let refused = world.replies.remove(&id).unwrap().unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Denied, "it is work");
    let editor = Caller::new("eve", Role::PolicyEditor);
    let id = world.ask_as(editor, AdminRequest::ApplyPolicy(dry));
    let Reply::PolicyApplied(applied) = world.replies.remove(&id).unwrap().unwrap() else {
        panic!()
    };
    assert_eq!((applied.version, applied.changed), (version(1), false));
    assert_eq!(history(&mut world).len(), 1);
}

#[test]
fn a_rollback_makes_a_new_version_with_the_old_content() {
    let mut world = World::new();
    world.apply_policy(SSH).unwrap();
    world.apply_policy(WEB).unwrap();
    let back = RollbackPolicy {
        to: version(2),
        base: Some(version(3)),
        message: String::new(),
        dry_run: false,
    };
    let Reply::PolicyApplied(applied) = world.admin(AdminRequest::RollbackPolicy(back)).unwrap()
    else {
        panic!()
    };
    assert_eq!((applied.version, applied.changed), (version(4), true));
    let (old, new) = (content(&mut world, Some(2)), content(&mut world, None));
    assert_eq!(
        (old.files, old.view.content_digest),
        (new.files, new.view.content_digest)
    );
    assert_eq!(new.view.message, "back to version 2");
    let unknown = RollbackPolicy {
        to: version(9),
        base: None,
        message: String::new(),
        dry_run: false,
    };
    let rejection = world
        .admin(AdminRequest::RollbackPolicy(unknown))
        .unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::NotFound);
}

#[test]
fn wrong_policies_are_refused_with_their_lines() {
    let mut world = World::new();
    for (yaml, line) in [
        (
            "fleet: prod\nallow:\n  - { id: x, from: any, to: nobody, tcp: [22] }\n",
            3,
        ),
        ("fleet: prod\nallows: []\n", 2),
        ("fleet: prod\ntests:\n  - { allow: \"any -> any:22\" }\n", 3),
    ] {
        let rejection = world.apply_policy(yaml).unwrap_err();
        assert_eq!(rejection.refusal.code, RefusalCode::Invalid);
        let lines: Vec<_> = rejection.diagnostics.iter().map(|it| it.line).collect();
        assert!(
            lines.contains(&line),
            "{rejection}: {:?}",
            rejection.diagnostics
        );
    }
    let rejection = world.apply_policy("fleet: staging\n").unwrap_err();
    assert!(
        rejection
            .to_string()
            .contains("fleet staging, and this is prod"),
        "{rejection}"
    );
    assert_eq!(history(&mut world).len(), 1);
}

#[test]
fn a_service_cannot_take_the_name_of_a_host_that_is_joining() {
    let mut world = World::new();
    let token = world.token(None);
    let request = Machine::new(1).request(&world, &token, "db");
    let joining = world.start_enrolment(request);
    let yaml =
        "fleet: prod\nservices:\n  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }\n";
    let applying = world.ask(AdminRequest::ApplyPolicy(apply(yaml)));
    world.settle();
    assert!(world.taken_enrolment(joining).unwrap().is_ok());
    let rejection = world.replies.remove(&applying).unwrap().unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Invalid);
}

#[test]
fn too_much_policy_is_refused_and_not_cut() {
    let mut world = World::new();
    // The store's copy is compressed, so the filler must not repeat itself.
    let mut state = 1_u64;
    let filler = (0..200_000).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("# {:016x}\n", state ^ (state >> 32))
    });
    let huge = format!("fleet: prod\n{}", filler.collect::<String>());
    let rejection = world.apply_policy(&huge).unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Exhausted);
    assert_eq!(history(&mut world).len(), 1);
}

#[test]
fn the_rollout_counts_what_hosts_say() {
    let mut world = World::new();
    let mut sessions = Vec::new();
    for (seed, host) in ["a", "b", "c"].into_iter().enumerate() {
        let (machine, _) = world.join(host, seed as u16);
        sessions.push((machine, host));
    }
    world.apply_policy(SSH).unwrap();
    let open: Vec<_> = sessions[..2]
        .iter()
        .map(|(machine, host)| world.open(machine, host))
        .collect();
    for session in &open {
        world.hello(*session, None);
    }
    let revision = world.status().revision;
    let said = |error: Option<&str>, number| {
        FromHost::Applied(Applied {
            revision,
            policy: version(number),
            error: error.map(str::to_owned),
            ..Applied::default()
        })
    };
    world.say(open[0], said(None, 2));
    world.say(open[1], said(Some("no room"), 1));
    let Reply::Rollout(rollout) = world.admin(AdminRequest::ShowRollout).unwrap() else {
        panic!()
    };
    assert_eq!(
        (rollout.version, rollout.hosts, rollout.in_force),
        (version(2), 3, 1)
    );
    assert_eq!(rollout.offline, [name("c")]);
    assert_eq!(rollout.failed[0].error, "no room");
    assert!(rollout.pending.is_empty());
}

#[test]
fn a_host_cannot_take_the_name_of_a_service_that_is_coming() {
    let mut world = World::new();
    let token = world.token(None);
    let yaml =
        "fleet: prod\nservices:\n  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }\n";
    world.ask(AdminRequest::ApplyPolicy(apply(yaml)));
    let request = Machine::new(1).request(&world, &token, "db");
    let joining = world.start_enrolment(request);
    world.settle();
    let rejection = world.taken_enrolment(joining).unwrap().unwrap_err();
    assert!(
        rejection.to_string().contains("the name of a service"),
        "{rejection}"
    );
}

#[test]
fn a_policy_of_ten_thousand_rules_fits_the_store() {
    use std::fmt::Write as _;

    let mut text = "fleet: prod\nallow:\n".to_owned();
    for number in 0..10_000 {
        let _ = writeln!(
            text,
            "  - {{ id: rule-{number}, from: \"role=client-{number}\", to: \"role=server-{number},env=prod\", tcp: [{}] }}",
            number + 1
        );
    }
    let mut world = World::new();
    assert_eq!(world.apply_policy(&text).unwrap().version, version(2));
    assert_eq!(content(&mut world, None).files[0].text, text);
}

/// A comment that does not get smaller.
fn noise(characters: usize) -> String {
    let mut state = 1u64;
    let mut next = || {
        // Knuth, TAOCP 3.3.4: MMIX.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        b"abcdefghijklmnopqrstuvwxyz012345"[(state >> 59) as usize] as char
    };
    (0..characters).map(|_| next()).collect()
}

#[test]
fn what_cannot_be_kept_is_refused_alike_by_a_dry_run_and_in_earnest() {
    let mut world = World::new();
    let yaml = format!("{SSH}# {}\n", noise(1_500_000));
    let refusals = [true, false].map(|dry_run| {
        let request = ApplyPolicy {
            dry_run,
            ..apply(&yaml)
        };
        let refused = world.admin(AdminRequest::ApplyPolicy(request)).unwrap_err();
        (refused.refusal.code, refused.refusal.message)
    });
    assert_eq!(refusals[0], refusals[1]);
    let (code, said) = &refusals[0];
    assert_eq!(*code, RefusalCode::Exhausted);
    assert!(said.contains("at most 1024 KiB"), "{said}");
}

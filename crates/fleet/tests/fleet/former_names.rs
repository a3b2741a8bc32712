//! Policies that call hosts by names that these no longer have, or that others have now.

use fleet::{AdminRequest, Rejection, Reply};
use model::admin::{AppliedPolicy, RollbackPolicy};
use model::control::ToHost;
use model::ids::HostId;
use model::rule::{Bundle, Selector};
use trust::authority::HOST_CERTIFICATE_LIFETIME;

use crate::machine::Machine;
use crate::world::{World, name, version};

const OLD: &str = "fleet: prod
allow:
  - { id: web-db, from: host:web, to: host:db, tcp: [5432] }
tests:
  - { allow: \"web -> db:5432\" }
";
const OTHER: &str = "fleet: prod\nallow:\n  - { id: ping, from: any, to: any, icmp: true }\n";

/// A fleet in which version 2 names hosts, and version 3 does not.
fn world() -> World {
    let mut world = World::new();
    world.join("web", 1);
    world.join("db", 2);
    world.apply_policy(OLD).unwrap();
    world.apply_policy(OTHER).unwrap();
    world
}

fn rename(world: &mut World, old: &str, new: &str) {
    let request = AdminRequest::RenameHost {
        host: name(old),
        name: name(new),
    };
    world.admin(request).unwrap();
}

fn back(world: &mut World) -> Result<AppliedPolicy, Rejection> {
    let request = RollbackPolicy {
        to: version(2),
        base: None,
        message: String::new(),
        dry_run: false,
    };
    let answer = world.admin(AdminRequest::RollbackPolicy(request));
    answer.map(|reply| match reply {
        Reply::PolicyApplied(applied) => applied,
        other => panic!("{other:?}"),
    })
}

/// The rules that a host gets.
fn bundle_of(world: &mut World, machine: &Machine, called: &str) -> Bundle {
    let session = world.open(machine, called);
    world.hello(session, None);
    let mut told = world.taken(session).into_iter();
    let slice = told.find_map(|message| match message {
        ToHost::Map(delta) => delta.policy,
        _ => None,
    });
    world.anchors().0.verify_slice(&slice.unwrap()).unwrap().1
}

#[test]
fn an_old_version_comes_back_after_a_rename_and_means_the_same_hosts() {
    let mut world = World::new();
    let (machine, web) = world.join("web", 1);
    world.join("db", 2);
    world.apply_policy(OLD).unwrap();
    world.apply_policy(OTHER).unwrap();
    rename(&mut world, "web", "edge");
    let applied = back(&mut world).unwrap();
    assert_eq!((applied.version, applied.changed), (version(4), true));
    let [warning] = &applied.diagnostics[..] else {
        panic!("{:?}", applied.diagnostics)
    };
    assert_eq!((warning.severity.as_str(), warning.line), ("warning", 3));
    assert!(
        warning.message.contains("`web` is called `edge` now"),
        "{warning:?}"
    );
    assert_eq!(applied.tests_passed, 1, "tests call it so, too");
    let bundle = bundle_of(&mut world, &machine, "web");
    let meant = |selector: &Selector| match selector {
        Selector::Host { id, .. } => *id,
        _ => None,
    };
    assert_eq!(meant(&bundle.allow[0].from[0]), Some(web.host));
}

#[test]
fn an_old_version_does_not_let_in_who_took_a_name_since() {
    let mut world = World::new();
    let (machine, old) = world.join("web", 1);
    world.join("db", 2);
    world.apply_policy(OLD).unwrap();
    world.apply_policy(OTHER).unwrap();
    rename(&mut world, "web", "web-old");
    // Its former name is kept from others for as long as its certificate of that name is good.
    world.advance(2 * HOST_CERTIFICATE_LIFETIME);
    let (_, taker) = world.join("web", 3);
    let applied = back(&mut world).unwrap();
    let [warning] = &applied.diagnostics[..] else {
        panic!("{:?}", applied.diagnostics)
    };
    assert_eq!((warning.severity.as_str(), warning.line), ("warning", 3));
    assert!(
        warning.message.contains("`web` is another host now")
            && warning.message.contains("`web-old`"),
        "{warning:?}"
    );
    assert_eq!(applied.tests_passed, 1, "tests mean the old one, too");
    let bundle = bundle_of(&mut world, &machine, "web-old");
    let meant = |host: HostId| {
        let is_it = |selector: &Selector| matches!(selector, Selector::Host { id, .. } if *id == Some(host));
        bundle.allow[0].from.iter().any(is_it)
    };
    assert!(meant(old.host));
    assert!(!meant(taker.host));
}

#[test]
fn an_old_version_comes_back_although_a_host_is_gone() {
    let mut world = world();
    world.remove_host("db");
    let applied = back(&mut world).unwrap();
    let said: Vec<_> = applied
        .diagnostics
        .iter()
        .map(|it| it.message.as_str())
        .collect();
    assert!(
        said.iter()
            .any(|it| it.contains("`db` is no host of the fleet any more")),
        "{said:?}"
    );
    assert!(said.iter().any(|it| it.contains("test failed")), "{said:?}");
    assert_eq!(applied.tests_passed, 0);
}

#[test]
fn files_that_call_a_host_by_its_former_name_are_refused_with_the_new_one() {
    let mut world = world();
    rename(&mut world, "web", "edge");
    let refused = world.apply_policy(OLD).unwrap_err();
    let [wrong] = &refused.diagnostics[..] else {
        panic!("{:?}", refused.diagnostics)
    };
    assert_eq!((wrong.severity.as_str(), wrong.line), ("error", 3));
    assert_eq!(wrong.message, "`web` is called `edge` now");
    assert!(wrong.help.as_ref().unwrap().contains("`edge`"));
}

//! Policies are looked at beside the brain, which answers others meanwhile, and come into force only if
//! they still may.

use fleet::{AdminRequest, FleetLimits, PolicyDone, Rejection, Reply, RequestId};
use model::admin::{AppliedPolicy, ApplyPolicy, PlanRequest};
use model::control::RefusalCode;
use model::ids::PolicyVersion;

use crate::world::{World, apply};

/// A policy of many rules.
fn large(rules: usize) -> String {
    let rule = |it: usize| {
        format!("  - {{ id: rule-{it}, from: \"role=a{it}\", to: \"role=b{it}\", tcp: [22] }}\n")
    };
    format!(
        "fleet: prod\nallow:\n{}",
        (0..rules).map(rule).collect::<String>()
    )
}

fn order(world: &mut World, apply: ApplyPolicy) -> RequestId {
    world.ask(AdminRequest::ApplyPolicy(apply))
}

/// Does the work that waits.
fn work(world: &mut World) {
    for (id, work) in world.workshop.replace(Vec::new()).unwrap() {
        world
            .fleet
            .handle_policy_done(id, work.run(&|| false), world.now);
    }
    world.drain();
}

fn applied(world: &mut World, id: RequestId) -> Option<Result<AppliedPolicy, Rejection>> {
    world.settle();
    Some(world.replies.remove(&id)?.map(|reply| match reply {
        Reply::PolicyApplied(applied) => applied,
        other => panic!("{other:?}"),
    }))
}

fn world_with_a_workshop() -> World {
    let mut world = World::new();
    world.workshop = Some(Vec::new());
    world
}

#[test]
fn others_are_answered_while_a_policy_of_10_000_rules_is_looked_at() {
    let mut world = world_with_a_workshop();
    let asked = order(&mut world, apply(&large(10_000)));
    assert_eq!(world.status().policy, PolicyVersion(1));
    world.join("a", 1);
    assert!(applied(&mut world, asked).is_none());
    work(&mut world);
    // A host came meanwhile, so that names may mean another: it is read once more.
    assert!(applied(&mut world, asked).is_none());
    work(&mut world);
    let done = applied(&mut world, asked).unwrap().unwrap();
    assert_eq!((done.version, done.changed), (PolicyVersion(2), true));
}

#[test]
fn hosts_that_join_all_the_time_do_not_keep_a_policy_from_being_applied() {
    let mut world = world_with_a_workshop();
    let asked = order(&mut world, apply(&large(2)));
    for (seed, host) in [(1, "a"), (2, "b"), (3, "c")] {
        assert!(applied(&mut world, asked).is_none());
        world.join(host, seed);
        work(&mut world);
    }
    assert!(applied(&mut world, asked).unwrap().is_ok());
}

#[test]
fn of_two_changes_of_one_version_looked_at_at_once_one_is_refused() {
    let mut world = world_with_a_workshop();
    let on_first = |text: &str| ApplyPolicy {
        base: Some(PolicyVersion(1)),
        ..apply(text)
    };
    let asked = [3, 4].map(|rules| order(&mut world, on_first(&large(rules))));
    work(&mut world);
    let first = applied(&mut world, asked[0]).unwrap();
    assert_eq!(first.unwrap().version, PolicyVersion(2));
    // It waited for the first, and is looked at again.
    work(&mut world);
    let second = applied(&mut world, asked[1]).unwrap().unwrap_err();
    assert_eq!(second.refusal.code, RefusalCode::Conflict, "{second}");
}

#[test]
fn one_policy_more_than_may_wait_is_told_when_to_come_back() {
    let mut world = world_with_a_workshop();
    for rules in 0..FleetLimits::POLICY_WORKS_MAX {
        order(&mut world, apply(&large(rules + 1)));
    }
    let plan = PlanRequest {
        files: apply(&large(1)).files,
        version: None,
    };
    let asked = world.ask(AdminRequest::PlanPolicy(plan));
    let refused = world.replies.remove(&asked).unwrap().unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Unavailable);
    assert!(refused.retry_after.is_some());
}

#[test]
fn work_that_is_late_or_breaks_is_told_and_changes_nothing() {
    let mut world = world_with_a_workshop();
    for given_up in [PolicyDone::late(), PolicyDone::given_up("a thread broke")] {
        let asked = order(&mut world, apply(&large(1)));
        let (id, _) = world.workshop.as_mut().unwrap().remove(0);
        world.fleet.handle_policy_done(id, given_up, world.now);
        world.drain();
        assert!(applied(&mut world, asked).unwrap().is_err());
    }
    let asked = order(&mut world, apply(&large(1)));
    let (id, work) = world.workshop.as_mut().unwrap().remove(0);
    let done = work.run(&|| true);
    world.fleet.handle_policy_done(id, done, world.now);
    world.drain();
    let late = applied(&mut world, asked).unwrap().unwrap_err();
    assert!(late.to_string().contains("takes too long"), "{late}");
    assert_eq!(world.status().policy, PolicyVersion(1));
}

//! Changes of the policy: operators write another or bring an old version back, and know afterwards
//! what they have agreed on.

use fleet::{AdminRequest, Reply};
use model::admin::{AppliedPolicy, ApplyPolicy, PolicyFile, RollbackPolicy};
use model::ids::PolicyVersion;
use model::rule::Bundle;

use crate::event::Who;
use crate::operator::Order;
use crate::truth;
use crate::world::World;

/// A change of the policy that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    message: String,
    content: Content,
}

/// Which hosts the names in it mean.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// Those that have them: what was written, and what it meant when it was asked for.
    Written(Vec<PolicyFile>, Option<Bundle>),
    /// Those that they meant in this version, whatever became of them since.
    Version(PolicyVersion),
}

impl World {
    /// Asks that what was written come into force.
    pub(crate) fn apply_policy(&mut self, message: String, files: Vec<PolicyFile>) {
        let meaning = self.meaning_now(&files);
        let apply = ApplyPolicy {
            files: files.clone(),
            base: None,
            message: message.clone(),
            dry_run: false,
        };
        let content = Content::Written(files, meaning);
        let change = Change { message, content };
        self.order(Order::Policy(change), AdminRequest::ApplyPolicy(apply));
    }

    /// Asks that an old version come into force again.
    pub(crate) fn roll_policy_back(&mut self, to: PolicyVersion) {
        let back = RollbackPolicy {
            to,
            base: None,
            message: String::new(),
            dry_run: false,
        };
        let change = Change {
            message: format!("back to version {to}"),
            content: Content::Version(to),
        };
        self.order(Order::Policy(change), AdminRequest::RollbackPolicy(back));
    }

    /// A change is in force.
    pub(crate) fn policy_applied(&mut self, change: Change, applied: &AppliedPolicy) {
        let Change { message, content } = change;
        let version = applied.version;
        self.say(Who::Operator, format!("{message}: version {version}"));
        if !applied.changed {
            return;
        }
        let meaning = match content {
            Content::Written(files, before) => self
                .meaning_now(&files)
                .filter(|now| before.as_ref() == Some(now)),
            Content::Version(to) => self.operator.policies.brought_back(to),
        };
        self.operator.policies.applied(version, meaning);
        self.ledger.policy_applied(version, message);
    }

    /// Compiles a policy for the members that there are now.
    fn meaning_now(&mut self, files: &[PolicyFile]) -> Option<Bundle> {
        match self.ask(AdminRequest::ListHosts) {
            Some(Reply::Hosts(hosts)) => truth::compile(files, &hosts),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::admin::HostView;

    use super::*;
    use crate::event::HostIndex;
    use crate::operator::Errand;
    use crate::scenario::Scenario;
    use crate::truth::Truth;

    const NAMED: HostIndex = HostIndex(1);

    #[test]
    fn a_version_that_comes_back_means_the_hosts_that_it_meant() {
        let mut world = all_joined();
        let once = apply(
            &mut world,
            "  - { id: r1, from: any, to: vm-1, tcp: any }\n",
        );
        let host = world.host(NAMED).identity();
        world.run_errand(Errand::JoinAnew(NAMED));
        step_until(&mut world, "it joined anew", |world| {
            let now = world.host(NAMED).identity();
            now.is_some() && now != host
        });
        apply(&mut world, "");
        world.roll_policy_back(once);
        settle(&mut world);
        let policies = &world.operator.policies;
        assert_eq!(policies.newest(), PolicyVersion(once.0 + 2));
        assert_eq!(policies.bundle(policies.newest()), policies.bundle(once));
    }

    #[test]
    fn the_first_version_comes_back_as_its_files_say() {
        let mut world = all_joined();
        apply(&mut world, "");
        world.roll_policy_back(PolicyVersion(1));
        settle(&mut world);
        assert_eq!(world.operator.policies.newest(), PolicyVersion(3));
    }

    /// Four hosts that are members.
    fn all_joined() -> World {
        let scenario = Scenario {
            hosts: 4,
            natted_per_mille: 0,
            joining: Duration::from_secs(120),
            ..Scenario::quiet()
        };
        let mut world = World::new(scenario, 1);
        step_until(&mut world, "all are members", |world| {
            world.hosts.iter().all(|host| host.identity().is_some())
        });
        world
    }

    /// Applies a policy in which everybody may ping, and with another rule; waits until it is in force.
    fn apply(world: &mut World, rule: &str) -> PolicyVersion {
        let head = "fleet: sim\nallow:\n  - { id: ping, from: any, to: any, icmp: true }\n";
        let file = PolicyFile {
            path: "policy.yaml".to_owned(),
            text: format!("{head}{rule}"),
        };
        let message = format!("after version {}", world.operator.policies.newest());
        world.apply_policy(message, vec![file]);
        settle(world);
        world.operator.policies.newest()
    }

    /// Waits until every host enforces what operators know to have agreed on.
    fn settle(world: &mut World) {
        step_while(world, World::unfinished_errand);
        let policy = world.operator.policies.newest();
        let bundle = world.operator.policies.bundle(policy).cloned();
        let truth = Truth::new(&members(world), bundle);
        assert!(truth.is_certain());
        step_while(world, |world| world.what_is_not_settled(&truth, policy));
    }

    fn members(world: &mut World) -> Vec<HostView> {
        match world.ask(AdminRequest::ListHosts) {
            Some(Reply::Hosts(hosts)) => hosts,
            other => panic!("{other:?}"),
        }
    }

    fn step_until(world: &mut World, what: &str, is_there: impl Fn(&World) -> bool) {
        step_while(world, |world| {
            (!is_there(world)).then(|| format!("never: {what}"))
        });
    }

    /// Lets time pass while something is missing, which is told if it stays so for a minute.
    fn step_while(world: &mut World, missing: impl Fn(&World) -> Option<String>) {
        let until = world.now + Duration::from_secs(60);
        while let Some(what) = missing(world) {
            let goes_on = world.now < until && world.step();
            assert!(goes_on, "{what} ({:?})", world.violation);
        }
    }
}

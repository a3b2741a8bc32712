//! What a new policy would do to the hosts of a fleet, before it is applied: who gains what, who
//! loses what, by which rules, and what deserves a look.
//!
//! Hosts that the same selectors select are one class, so that the work grows with the roles of
//! a fleet and not with its pairs of hosts; where it would be too much, it stops and says so.

use model::admin::PolicyPlan;
use model::record::HostRecord;
use model::rule::Bundle;

mod classes;
mod groups;
mod host_set;
mod parts;
mod search;
mod warnings;

use parts::Parts;
use search::search;

use crate::diff::diff_beside_packets;

/// Compares what two bundles allow between the hosts. Hosts that a bundle names without an id are
/// found by name.
pub fn plan(old: &Bundle, new: &Bundle, hosts: &[HostRecord]) -> PolicyPlan {
    plan_within(Steps { left: STEPS_MAX }, old, new, hosts)
}

fn plan_within(mut steps: Steps, old: &Bundle, new: &Bundle, hosts: &[HostRecord]) -> PolicyPlan {
    let parts = Parts::of(old, new, hosts);
    let groups = search(&parts, hosts.len(), &mut steps);
    let (warnings, warnings_left_out) = warnings::find(&parts, &groups, hosts, &mut steps);
    let complete = steps.left > 0;
    let mut plan = groups.into_plan(&parts, hosts);
    plan.settings = diff_beside_packets(old, new);
    plan.warnings = warnings;
    plan.warnings_left_out = warnings_left_out;
    plan.complete = complete;
    plan
}

/// How much is looked at: about ten seconds' worth in a debug build.
const STEPS_MAX: usize = 20_000_000;

/// Counts what is looked at, so that no fleet and no bundle makes a plan take for ever.
struct Steps {
    left: usize,
}

impl Steps {
    /// Returns whether there is time for that many more.
    fn take(&mut self, steps: usize) -> bool {
        self.left = self.left.saturating_sub(steps);
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use model::admin::ChangeKind;
    use model::ids::HostId;
    use model::name::Labels;
    use model::rule::CipherDemand;

    use super::*;
    use crate::bundle_tests::hypothetical;
    use crate::first_policy;

    #[test]
    fn a_cipher_that_is_demanded_is_told_though_no_pair_gains_or_loses() {
        let demanding = Bundle {
            cipher: CipherDemand::Standard,
            ..first_policy()
        };
        let plan = plan(&first_policy(), &demanding, &[]);
        assert_eq!((plan.pairs_gaining, plan.pairs_losing), (0, 0));
        let said: Vec<_> = plan
            .settings
            .iter()
            .map(|it| (&*it.name, it.change))
            .collect();
        assert_eq!(said, [("cipher: standard", ChangeKind::Added)]);
    }

    #[test]
    fn a_plan_that_is_too_much_says_that_it_is_not_whole() {
        let hosts = [1, 2, 3].map(|number| HostRecord {
            host: HostId::from_bytes([number; 16]),
            ..hypothetical(format!("vm-{number}").parse().unwrap(), Labels::new())
        });
        let plan = |left| plan_within(Steps { left }, &Bundle::default(), &first_policy(), &hosts);
        let (whole, part) = (plan(STEPS_MAX), plan(1));
        assert_eq!((whole.complete, whole.pairs_gaining), (true, 6));
        assert_eq!((part.complete, part.pairs_gaining), (false, 0));
    }
}

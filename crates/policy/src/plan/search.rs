//! Goes through the pairs of classes that a change may be about, and compares what the old and
//! the new bundle say of them.

use std::collections::{BTreeMap, BTreeSet};

use model::admin::PlanChange;

use super::Steps;
use super::classes::ClassId;
use super::groups::{Groups, Outcome, cause};
use super::host_set::SetId;
use super::parts::{Mentions, PartId, Parts};
use super::warnings::SSH;
use crate::reference::Effect;
use crate::traffic_set::TrafficSet;

/// Compares the bundles for all pairs that a change is about.
pub(super) fn search(parts: &Parts<'_>, host_count: usize, steps: &mut Steps) -> Groups {
    let mut search = Search {
        parts,
        groups: Groups::new(parts, host_count),
        outcomes: BTreeMap::new(),
    };
    search.run(steps);
    search.groups
}

struct Search<'p, 'b> {
    parts: &'p Parts<'b>,
    groups: Groups,
    outcomes: BTreeMap<Vec<PartId>, Outcome>,
}

impl Search<'_, '_> {
    fn run(&mut self, steps: &mut Steps) {
        let mut by_from: BTreeMap<SetId, Vec<PartId>> = BTreeMap::new();
        for (id, part, _) in self.parts.iter() {
            by_from.entry(part.from).or_default().push(id);
        }
        let shared = self.groups.sources.shared(&self.groups.targets);
        for source in self.groups.sources.ids() {
            let mut by_to: BTreeMap<SetId, Vec<PartId>> = BTreeMap::new();
            let mut changed = BTreeSet::new();
            for set in self.groups.sources.sets(source) {
                for id in &by_from[set] {
                    let (part, mentions) = self.parts.get(*id);
                    by_to.entry(part.to).or_default().push(*id);
                    if mentions.is_change() {
                        changed.insert(part.to);
                    }
                }
            }
            let touched: BTreeSet<ClassId> = changed
                .iter()
                .flat_map(|set| self.groups.targets.of_set(*set))
                .copied()
                .collect();
            let looked_at: usize = by_to.values().map(Vec::len).sum();
            if !steps.take(looked_at + touched.len()) {
                return;
            }
            for target in touched {
                let mut matching: Vec<PartId> = Vec::new();
                for set in self.groups.targets.sets(target) {
                    matching.extend(by_to.get(set).into_iter().flatten());
                }
                matching.sort_unstable();
                if !steps.take(self.groups.targets.sets(target).len() + matching.len()) {
                    return;
                }
                let from = self.groups.sources.hosts(source).len() as u64;
                let to = self.groups.targets.hosts(target).len() as u64;
                let pairs = from * to - shared.get(&(source, target)).copied().unwrap_or(0);
                if pairs > 0 {
                    let outcome = self.outcome(matching);
                    self.groups.add(source, target, pairs, outcome);
                }
            }
        }
    }

    /// Compares what the parts allow in the old and in the new bundle.
    fn outcome(&mut self, matching: Vec<PartId>) -> Outcome {
        if let Some(known) = self.outcomes.get(&matching) {
            return *known;
        }
        let old = Access::of(self.parts, &matching, |mentions| mentions.old.is_some());
        let new = Access::of(self.parts, &matching, |mentions| mentions.new.is_some());
        let lost = old.beyond(&new);
        let outcome = Outcome {
            loses_ssh: lost.contains_tcp(SSH),
            gain: self.group(PlanChange::Gain, new.beyond(&old), &old, &matching),
            loss: self.group(PlanChange::Lose, lost, &new, &matching),
        };
        self.outcomes.insert(matching, outcome);
        outcome
    }

    fn group(
        &mut self,
        change: PlanChange,
        traffic: TrafficSet,
        without_it: &Access,
        matching: &[PartId],
    ) -> Option<usize> {
        if traffic.is_empty() {
            return None;
        }
        // What both allow makes no difference by being allowed in other words.
        let not_allowed = traffic.without(&without_it.allowed);
        let makes_it = |id: &PartId| {
            let (part, mentions) = self.parts.get(*id);
            let decisive = match part.effect {
                Effect::Allow => &not_allowed,
                Effect::Deny => &traffic,
            };
            mentions.is_change()
                && cause(change, self.parts, *id).is_some()
                && part.traffic.intersects(decisive)
        };
        let causes: Vec<PartId> = matching.iter().copied().filter(makes_it).collect();
        Some(self.groups.position((change, traffic, causes)))
    }
}

/// What one of the bundles says of some pairs.
struct Access {
    /// By some allow, whatever is denied.
    allowed: TrafficSet,
    open: TrafficSet,
}

impl Access {
    fn of(parts: &Parts<'_>, matching: &[PartId], is_said: fn(&Mentions<'_>) -> bool) -> Self {
        let of_effect = |effect: Effect| {
            let parts = matching.iter().map(|id| parts.get(*id));
            let said = parts.filter(move |(part, it)| part.effect == effect && is_said(it));
            TrafficSet::union(said.map(|(part, _)| &part.traffic))
        };
        let allowed = of_effect(Effect::Allow);
        Self {
            open: allowed.without(&of_effect(Effect::Deny)),
            allowed,
        }
    }

    /// Returns what is open here and not in the other one.
    fn beyond(&self, other: &Self) -> TrafficSet {
        self.open.without(&other.open)
    }
}

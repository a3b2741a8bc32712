//! Pairs of hosts that gain or lose something, grouped by what it is and by the rules that do it.

use std::collections::{BTreeMap, BTreeSet};

use model::admin::{CauseEffect, PlanCause, PlanChange, PlanGroup, PlanPair, PolicyPlan};
use model::record::HostRecord;
use model::rule::Selector;

use super::classes::{ClassId, Classes};
use super::host_set::SetId;
use super::parts::{Mention, PartId, Parts};
use crate::reference::Effect;
use crate::traffic_set::TrafficSet;

/// Groups that a plan shows.
const GROUPS_MAX: usize = 100;

/// Words and pairs that a group shows.
const SHOWN_MAX: usize = 8;
const EXAMPLES_MAX: usize = 3;

/// All that changes.
pub(super) struct Groups {
    groups: Vec<Group>,
    known: BTreeMap<GroupKey, usize>,
    host_count: usize,
    pairs_gaining: u64,
    pairs_losing: u64,
    /// Hosts as those who open flows.
    pub(super) sources: Classes,
    /// Hosts as those who are reached.
    pub(super) targets: Classes,
    /// Classes of hosts that some host can no longer reach by SSH.
    losing_ssh: BTreeSet<ClassId>,
}

/// Pairs that gain or lose the same by the same parts.
struct Group {
    key: GroupKey,
    pairs: u64,
    from: Hosts,
    to: Hosts,
    examples: Vec<(u32, u32)>,
}

/// Hosts as classes, each whole or without one host, which is alone at the other end.
#[derive(Default)]
struct Hosts(BTreeMap<ClassId, Option<u32>>);

impl Hosts {
    /// Adds the hosts of a class that another class is paired with.
    fn add(&mut self, class: ClassId, members: &[u32], others: &[u32]) {
        let alone = match others {
            [other] if members.binary_search(other).is_ok() => Some(*other),
            _ => None,
        };
        let without = self.0.entry(class).or_insert(alone);
        if *without != alone {
            *without = None;
        }
    }

    fn count(&self, classes: &Classes) -> usize {
        let sizes = self.0.iter();
        sizes
            .map(|(class, without)| classes.hosts(*class).len() - usize::from(without.is_some()))
            .sum()
    }
}

/// What changes, and the parts that make it.
pub(super) type GroupKey = (PlanChange, TrafficSet, Vec<PartId>);

/// What becomes of pairs that the same parts match: groups by position.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) gain: Option<usize>,
    pub(super) loss: Option<usize>,
    pub(super) loses_ssh: bool,
}

impl Groups {
    /// Starts without groups.
    pub(super) fn new(parts: &Parts<'_>, host_count: usize) -> Self {
        let from: BTreeSet<SetId> = parts.iter().map(|(_, part, _)| part.from).collect();
        let to: BTreeSet<SetId> = parts.iter().map(|(_, part, _)| part.to).collect();
        Self {
            groups: Vec::new(),
            known: BTreeMap::new(),
            host_count,
            pairs_gaining: 0,
            pairs_losing: 0,
            sources: Classes::by(&from, &parts.sets),
            targets: Classes::by(&to, &parts.sets),
            losing_ssh: BTreeSet::new(),
        }
    }

    /// Returns the position of the group of a key, which may be new.
    pub(super) fn position(&mut self, key: GroupKey) -> usize {
        let groups = &mut self.groups;
        *self.known.entry(key.clone()).or_insert_with(|| {
            groups.push(Group {
                key,
                pairs: 0,
                from: Hosts::default(),
                to: Hosts::default(),
                examples: Vec::new(),
            });
            groups.len() - 1
        })
    }

    /// Adds pairs of two classes, of which `pairs` are two hosts.
    pub(super) fn add(&mut self, source: ClassId, target: ClassId, pairs: u64, outcome: Outcome) {
        if outcome.loses_ssh {
            self.losing_ssh.insert(target);
        }
        self.pairs_gaining += outcome.gain.map_or(0, |_| pairs);
        self.pairs_losing += outcome.loss.map_or(0, |_| pairs);
        let (from, to) = (self.sources.hosts(source), self.targets.hosts(target));
        for position in [outcome.gain, outcome.loss].into_iter().flatten() {
            let group = &mut self.groups[position];
            group.pairs += pairs;
            group.from.add(source, from, to);
            group.to.add(target, to, from);
            let room = EXAMPLES_MAX - group.examples.len();
            group.examples.extend(some_pairs(from, to).take(room));
        }
    }

    /// Returns the hosts that some host can no longer reach by SSH, by class.
    pub(super) fn losing_ssh(&self) -> impl Iterator<Item = (&[u32], &[SetId])> {
        let classes = self.losing_ssh.iter();
        classes.map(|class| (self.targets.hosts(*class), self.targets.sets(*class)))
    }

    /// Returns the plan, without warnings.
    pub(super) fn into_plan(mut self, parts: &Parts<'_>, hosts: &[HostRecord]) -> PolicyPlan {
        // The order in which groups were found breaks ties, and depends on nothing hidden.
        self.groups
            .sort_by_key(|group| std::cmp::Reverse(group.pairs));
        let groups_left_out = self.groups.len().saturating_sub(GROUPS_MAX);
        let shown = self.groups.iter().take(GROUPS_MAX);
        PolicyPlan {
            hosts: self.host_count,
            pairs_gaining: self.pairs_gaining,
            pairs_losing: self.pairs_losing,
            groups: shown.map(|group| self.view(group, parts, hosts)).collect(),
            groups_left_out,
            ..PolicyPlan::default()
        }
    }

    fn view(&self, group: &Group, parts: &Parts<'_>, hosts: &[HostRecord]) -> PlanGroup {
        let (change, traffic, causes) = &group.key;
        let causes: Vec<(Mention<'_>, CauseEffect)> = causes
            .iter()
            .filter_map(|id| cause(*change, parts, *id))
            .collect();
        let name = |host: u32| hosts[host as usize].name.clone();
        let example = |(from, to): &(u32, u32)| PlanPair {
            from: name(*from),
            to: name(*to),
        };
        PlanGroup {
            change: *change,
            traffic: traffic.parts(),
            from: words(causes.iter().flat_map(|(it, _)| &it.rule.from)),
            to: words(causes.iter().flat_map(|(it, _)| match it.service {
                Some(service) => std::slice::from_ref(service),
                None => &it.rule.to,
            })),
            causes: causes
                .iter()
                .map(|(mention, effect)| PlanCause {
                    rule: mention.rule.id.to_string(),
                    source: mention.rule.source.to_string(),
                    effect: *effect,
                })
                .collect::<BTreeSet<_>>()
                .into_iter()
                .take(SHOWN_MAX)
                .collect(),
            pairs: group.pairs,
            from_hosts: group.from.count(&self.sources),
            to_hosts: group.to.count(&self.targets),
            examples: group.examples.iter().map(example).collect(),
        }
    }
}

fn some_pairs<'h>(from: &'h [u32], to: &'h [u32]) -> impl Iterator<Item = (u32, u32)> {
    let all = from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (*from, *to)));
    all.filter(|(from, to)| from != to)
}

fn words<'s>(selectors: impl Iterator<Item = &'s Selector>) -> Vec<String> {
    let words: BTreeSet<String> = selectors.map(Selector::to_string).collect();
    words.into_iter().take(SHOWN_MAX).collect()
}

/// Returns the rule that a part of a group comes from, `None` when it cannot make such a change.
pub(super) fn cause<'p>(
    change: PlanChange,
    parts: &'p Parts<'_>,
    id: PartId,
) -> Option<(Mention<'p>, CauseEffect)> {
    let (part, mentions) = parts.get(id);
    let (mention, effect) = match (change, part.effect) {
        (PlanChange::Gain, Effect::Allow) => (mentions.new, CauseEffect::Allows),
        (PlanChange::Gain, Effect::Deny) => (mentions.old, CauseEffect::DeniesNoLonger),
        (PlanChange::Lose, Effect::Allow) => (mentions.old, CauseEffect::AllowsNoLonger),
        (PlanChange::Lose, Effect::Deny) => (mentions.new, CauseEffect::Denies),
    };
    Some((mention?, effect))
}

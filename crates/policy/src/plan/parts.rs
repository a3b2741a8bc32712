//! Both bundles as parts that mean something to this fleet: from these hosts, to those hosts,
//! this traffic. What both bundles say in whatever words is one part that is in both.

use std::collections::BTreeMap;

use model::record::HostRecord;
use model::rule::{Bundle, Rule, Selector, Traffic};

use super::host_set::{HostSets, NamedIn, SetId};
use crate::reference::Effect;
use crate::traffic_set::TrafficSet;

/// Names a part in [`Parts`].
pub(super) type PartId = usize;

/// What a rule, or its part about one service, means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) effect: Effect,
    pub(super) from: SetId,
    pub(super) to: SetId,
    pub(super) traffic: TrafficSet,
}

/// A rule that says a part, and the one of its `to` that does, if it is about services.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mention<'b> {
    pub(super) rule: &'b Rule,
    pub(super) service: Option<&'b Selector>,
}

/// Who says a part; at least one bundle does.
#[derive(Debug, Default)]
pub(super) struct Mentions<'b> {
    pub(super) old: Option<Mention<'b>>,
    pub(super) new: Option<Mention<'b>>,
}

impl Mentions<'_> {
    /// Returns whether only one of the bundles says it.
    pub(super) const fn is_change(&self) -> bool {
        self.old.is_none() || self.new.is_none()
    }
}

/// A rule of the new bundle and the hosts at its ends.
pub(super) struct Ends<'b> {
    pub(super) rule: &'b Rule,
    pub(super) has_from: bool,
    pub(super) has_to: bool,
}

/// All parts of both bundles that select some hosts at both ends.
pub(super) struct Parts<'b> {
    pub(super) sets: HostSets<'b>,
    parts: Vec<(Part, Mentions<'b>)>,
    /// The rules of the new bundle.
    pub(super) ends: Vec<Ends<'b>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Old,
    New,
}

impl<'b> Parts<'b> {
    /// Reads both bundles.
    pub(super) fn of(old: &'b Bundle, new: &'b Bundle, hosts: &'b [HostRecord]) -> Self {
        let mut reader = Reader {
            sets: HostSets::new(hosts),
            known: BTreeMap::new(),
            parts: Vec::new(),
            ends: Vec::new(),
        };
        reader.bundle(old, Side::Old);
        reader.bundle(new, Side::New);
        Self {
            sets: reader.sets,
            parts: reader.parts,
            ends: reader.ends,
        }
    }

    pub(super) fn get(&self, id: PartId) -> (&Part, &Mentions<'b>) {
        let (part, mentions) = &self.parts[id];
        (part, mentions)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PartId, &Part, &Mentions<'b>)> {
        let numbered = self.parts.iter().enumerate();
        numbered.map(|(id, (part, mentions))| (id, part, mentions))
    }
}

struct Reader<'b> {
    sets: HostSets<'b>,
    known: BTreeMap<Part, PartId>,
    parts: Vec<(Part, Mentions<'b>)>,
    ends: Vec<Ends<'b>>,
}

/// Sets by the selectors of one bundle: many rules have the same list.
type SetsBySelectors<'b> = BTreeMap<(Effect, &'b [Selector]), SetId>;

impl<'b> Reader<'b> {
    fn bundle(&mut self, bundle: &'b Bundle, side: Side) {
        let named = NamedIn::of(bundle);
        let mut lists = SetsBySelectors::new();
        let denies = bundle.deny.iter().map(|rule| (Effect::Deny, rule));
        let allows = bundle.allow.iter().map(|rule| (Effect::Allow, rule));
        for (effect, rule) in denies.chain(allows) {
            let mut select = |selectors: &'b [Selector], sets: &mut HostSets<'b>| {
                *lists
                    .entry((effect, selectors))
                    .or_insert_with(|| sets.select(selectors, effect, &named))
            };
            let from = select(&rule.from, &mut self.sets);
            let mut reached = Vec::new();
            match &rule.traffic {
                Traffic::Service => self.service_parts(rule, effect, &named, &mut reached),
                traffic => {
                    let to = select(&rule.to, &mut self.sets);
                    reached.push((to, TrafficSet::of_rule(traffic), None));
                }
            }
            self.add_rule(rule, effect, side, from, reached);
        }
    }

    fn service_parts(
        &mut self,
        rule: &'b Rule,
        effect: Effect,
        named: &NamedIn<'b>,
        reached: &mut Vec<(SetId, TrafficSet, Option<&'b Selector>)>,
    ) {
        for to in &rule.to {
            let described = match to {
                Selector::Service(name) => named.services.get(name),
                _ => None,
            };
            if described.is_none() && effect == Effect::Deny {
                // As in `reference`: what is not described closes.
                reached.push((self.sets.everyone(), TrafficSet::everything(), Some(to)));
            }
            for service in described.into_iter().flatten() {
                let endpoints =
                    self.sets
                        .select(&service.endpoints, Effect::Allow, &NamedIn::default());
                let traffic = TrafficSet::of_port(service.protocol, service.port);
                reached.push((endpoints, traffic, Some(to)));
            }
        }
    }

    fn add_rule(
        &mut self,
        rule: &'b Rule,
        effect: Effect,
        side: Side,
        from: SetId,
        reached: Vec<(SetId, TrafficSet, Option<&'b Selector>)>,
    ) {
        let is_empty = |set: SetId, sets: &HostSets<'_>| sets.members(set).is_empty();
        let has_from = !is_empty(from, &self.sets);
        let has_to = reached.iter().any(|(to, ..)| !is_empty(*to, &self.sets));
        if side == Side::New {
            self.ends.push(Ends {
                rule,
                // What may run a workload is no part of packets.
                has_from: has_from || rule.names_workload(),
                has_to,
            });
        }
        let matches_packets = effect == Effect::Deny || rule.http.is_empty() && rule.when.is_none();
        for (to, traffic, service) in reached.into_iter().filter(|_| matches_packets) {
            if !has_from || is_empty(to, &self.sets) || traffic.is_empty() {
                continue;
            }
            let part = Part {
                effect,
                from,
                to,
                traffic,
            };
            let id = *self.known.entry(part.clone()).or_insert_with(|| {
                self.parts.push((part, Mentions::default()));
                self.parts.len() - 1
            });
            let mentions = &mut self.parts[id].1;
            let mention = match side {
                Side::Old => &mut mentions.old,
                Side::New => &mut mentions.new,
            };
            mention.get_or_insert(Mention { rule, service });
        }
    }
}

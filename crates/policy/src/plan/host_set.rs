//! Sets of hosts, each made once, however many rules select the same hosts.

use std::collections::BTreeMap;
use std::rc::Rc;

use model::ids::HostId;
use model::name::{LabelKey, LabelValue, Name};
use model::record::HostRecord;
use model::rule::{Bundle, Selector, Service, Workload};

use crate::reference::Effect;

/// Names a set in [`HostSets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetId(u32);

impl SetId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Positions of hosts, ascending.
type Members = Rc<[u32]>;

/// All sets.
pub(super) struct HostSets<'h> {
    by_id: BTreeMap<HostId, u32>,
    by_name: BTreeMap<&'h Name, u32>,
    by_label: BTreeMap<(&'h LabelKey, &'h LabelValue), Vec<u32>>,
    everyone: SetId,
    sets: Vec<Members>,
    known: BTreeMap<Members, SetId>,
}

/// What selectors name in a bundle.
#[derive(Default)]
pub(super) struct NamedIn<'b> {
    pub(super) services: BTreeMap<&'b Name, Vec<&'b Service>>,
    pub(super) workloads: BTreeMap<&'b Name, Vec<&'b Workload>>,
}

impl<'b> NamedIn<'b> {
    /// Indexes the services and workloads of a bundle.
    pub(super) fn of(bundle: &'b Bundle) -> Self {
        let mut named = Self::default();
        for service in &bundle.services {
            named
                .services
                .entry(&service.name)
                .or_default()
                .push(service);
        }
        for workload in &bundle.workloads {
            named
                .workloads
                .entry(&workload.name)
                .or_default()
                .push(workload);
        }
        named
    }
}

impl<'h> HostSets<'h> {
    /// Indexes the hosts.
    pub(super) fn new(hosts: &'h [HostRecord]) -> Self {
        let mut sets = Self {
            by_id: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_label: BTreeMap::new(),
            everyone: SetId(0),
            sets: Vec::new(),
            known: BTreeMap::new(),
        };
        for (position, host) in (0u32..).zip(hosts) {
            sets.by_id.insert(host.host, position);
            sets.by_name.insert(&host.name, position);
            for label in &host.labels {
                sets.by_label.entry(label).or_default().push(position);
            }
        }
        let everyone = (0u32..).zip(hosts).map(|(position, _)| position).collect();
        sets.everyone = sets.share(everyone);
        sets
    }

    /// Returns the set of all hosts.
    pub(super) const fn everyone(&self) -> SetId {
        self.everyone
    }

    /// Returns the positions of the hosts in a set, ascending.
    pub(super) fn members(&self, set: SetId) -> &[u32] {
        &self.sets[set.index()]
    }

    /// Returns the hosts that any of the selectors selects in a rule of that effect.
    pub(super) fn select(
        &mut self,
        selectors: &[Selector],
        effect: Effect,
        named: &NamedIn<'_>,
    ) -> SetId {
        let mut members = Vec::new();
        for selector in selectors {
            // As in `reference`: what is not described closes, and packets tell of no workload.
            match selector {
                Selector::Service(name) => match named.services.get(name) {
                    None if effect == Effect::Deny => return self.everyone,
                    described => described
                        .into_iter()
                        .flatten()
                        .flat_map(|service| &service.endpoints)
                        .for_each(|endpoint| self.add(endpoint, &mut members)),
                },
                Selector::Workload(_) if effect == Effect::Allow => {}
                Selector::Workload(name) => match named.workloads.get(name) {
                    None => return self.everyone,
                    Some(described) => described
                        .iter()
                        .flat_map(|workload| &workload.hosts)
                        .for_each(|hosts| self.add(hosts, &mut members)),
                },
                selector => self.add(selector, &mut members),
            }
        }
        self.share(members)
    }

    /// Adds what a selector selects that is not a service; an endpoint that is one is nobody.
    fn add(&self, selector: &Selector, members: &mut Vec<u32>) {
        match selector {
            Selector::Any => members.extend(self.members(self.everyone)),
            Selector::Host { id: Some(id), .. } => members.extend(self.by_id.get(id)),
            Selector::Host { name, id: None } => members.extend(self.by_name.get(name)),
            Selector::Labels(labels) => {
                let mut having = labels
                    .iter()
                    .map(|label| self.by_label.get(&(&label.key, &label.value)));
                let Some(Some(first)) = having.next() else {
                    return;
                };
                let Some(others) = having.collect::<Option<Vec<_>>>() else {
                    return;
                };
                let matches = |host: &&u32| others.iter().all(|it| it.binary_search(host).is_ok());
                members.extend(first.iter().filter(matches));
            }
            Selector::Service(_) | Selector::Workload(_) => {}
        }
    }

    fn share(&mut self, mut members: Vec<u32>) -> SetId {
        members.sort_unstable();
        members.dedup();
        let members: Members = members.into();
        if let Some(known) = self.known.get(&members) {
            return *known;
        }
        let set = SetId(u32::try_from(self.sets.len()).expect("bounded by Limits::RULES"));
        self.sets.push(Rc::clone(&members));
        self.known.insert(members, set);
        set
    }
}

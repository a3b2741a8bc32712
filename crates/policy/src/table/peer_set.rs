//! Sets of peers as bits: made once per distinct list of selectors, shared by all rules that
//! mean the same peers.

use std::collections::BTreeMap;

use model::ids::HostId;
use model::map::PeerIndex;
use model::name::{Label, Name};
use model::record::HostRecord;
use model::rule::{Bundle, Selector, Service, Workload};

use crate::reference::Effect;

/// Names a set in [`PeerSets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetId(u32);

/// All sets of one table, each of the same number of words, one after the other.
#[derive(Debug, Default)]
pub(crate) struct PeerSets {
    words_per_set: usize,
    words: Box<[u64]>,
}

impl PeerSets {
    /// Returns whether the set holds the peer; a peer unknown at compile time is in no set.
    pub(crate) fn contains(&self, set: SetId, peer: PeerIndex) -> bool {
        let peer = peer.0 as usize;
        let word = peer / 64;
        word < self.words_per_set
            && self.words[set.0 as usize * self.words_per_set + word] >> (peer % 64) & 1 == 1
    }

    /// Returns the bits of a set.
    pub(crate) fn words(&self, set: SetId) -> &[u64] {
        let start = set.0 as usize * self.words_per_set;
        &self.words[start..start + self.words_per_set]
    }

    /// Returns the peers of a set, ascending.
    pub(crate) fn members(&self, set: SetId) -> impl Iterator<Item = PeerIndex> {
        let words = self.words(set).iter().zip(0u32..);
        words.flat_map(|(word, position)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| PeerIndex(64 * position + bit))
        })
    }

    /// Returns whether two sets have a peer in common.
    pub(crate) fn intersect(&self, one: SetId, other: SetId) -> bool {
        let mut words = self.words(one).iter().zip(self.words(other));
        words.any(|(one, other)| one & other != 0)
    }

    /// Returns whether all peers of the other set are in the one.
    pub(crate) fn covers(&self, one: SetId, other: SetId) -> bool {
        let mut words = self.words(one).iter().zip(self.words(other));
        words.all(|(one, other)| other & !one == 0)
    }

    /// Returns an upper bound of the indices in all sets.
    pub(crate) fn peer_bound(&self) -> usize {
        self.words_per_set * 64
    }
}

/// What a list of selectors is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ListKind {
    /// An end of rules of an effect, as far as packets tell.
    End(Effect),
    /// Who a rule of an effect names, apart from workloads.
    Callers(Effect),
    Endpoints,
}

type ListKey<'b> = (ListKind, &'b [Selector]);

/// Makes the sets of one table.
pub(crate) struct SetBuilder<'b> {
    services: BTreeMap<&'b Name, Vec<&'b Service>>,
    workloads: BTreeMap<&'b Name, Vec<&'b Workload>>,
    everyone: Vec<u64>,
    by_host: BTreeMap<HostId, PeerIndex>,
    by_name: BTreeMap<&'b Name, PeerIndex>,
    by_label: BTreeMap<Label, Vec<u64>>,
    known_lists: BTreeMap<ListKey<'b>, Option<SetId>>,
    known_sets: BTreeMap<Vec<u64>, SetId>,
}

impl<'b> SetBuilder<'b> {
    /// Indexes the peers by id, name and label.
    pub(crate) fn new(peers: &[(PeerIndex, &'b HostRecord)], bundle: &'b Bundle) -> Self {
        let peer_bound = peers
            .iter()
            .map(|(index, _)| index.0 as usize + 1)
            .max()
            .unwrap_or(0);
        let empty = vec![0; peer_bound.div_ceil(64)];
        let mut builder = Self {
            services: BTreeMap::new(),
            workloads: BTreeMap::new(),
            everyone: empty.clone(),
            by_host: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_label: BTreeMap::new(),
            known_lists: BTreeMap::new(),
            known_sets: BTreeMap::new(),
        };
        for service in &bundle.services {
            builder
                .services
                .entry(&service.name)
                .or_default()
                .push(service);
        }
        for workload in &bundle.workloads {
            builder
                .workloads
                .entry(&workload.name)
                .or_default()
                .push(workload);
        }
        for (index, record) in peers {
            set_bit(&mut builder.everyone, *index);
            builder.by_host.insert(record.host, *index);
            builder.by_name.insert(&record.name, *index);
            for (key, value) in &record.labels {
                let label = Label {
                    key: key.clone(),
                    value: value.clone(),
                };
                set_bit(
                    builder
                        .by_label
                        .entry(label)
                        .or_insert_with(|| empty.clone()),
                    *index,
                );
            }
        }
        builder
    }

    /// Returns the services of a name.
    pub(crate) fn services_named(&self, name: &Name) -> &[&'b Service] {
        self.services.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the workloads of a name.
    pub(crate) fn workloads_named(&self, name: &Name) -> &[&'b Workload] {
        self.workloads.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the set of the peers that any of the selectors selects, `None` when there are none.
    pub(crate) fn set_of(&mut self, selectors: &'b [Selector], effect: Effect) -> Option<SetId> {
        self.remembered((ListKind::End(effect), selectors), |builder, bits| {
            selectors
                .iter()
                .for_each(|selector| builder.add(selector, effect, bits));
        })
    }

    /// Returns the set of the peers that any of the selectors selects whoever on them calls, `None` when
    /// there are none.
    pub(crate) fn set_of_callers(
        &mut self,
        selectors: &'b [Selector],
        effect: Effect,
    ) -> Option<SetId> {
        self.remembered((ListKind::Callers(effect), selectors), |builder, bits| {
            selectors
                .iter()
                .filter(|selector| !matches!(selector, Selector::Workload(_)))
                .for_each(|selector| builder.add(selector, effect, bits));
        })
    }

    /// Returns the set of the peers that are one of the endpoints, `None` when there are none.
    pub(crate) fn set_of_endpoints(&mut self, endpoints: &'b [Selector]) -> Option<SetId> {
        self.remembered((ListKind::Endpoints, endpoints), |builder, bits| {
            endpoints
                .iter()
                .for_each(|endpoint| builder.add_endpoint(endpoint, bits));
        })
    }

    /// Returns the set of the peers that any of the selectors selects by itself, `None` when there are
    /// none.
    pub(crate) fn set_of_hosts<'s>(
        &mut self,
        hosts: impl Iterator<Item = &'s Selector>,
    ) -> Option<SetId> {
        let mut bits = vec![0; self.everyone.len()];
        hosts.for_each(|selector| self.add_endpoint(selector, &mut bits));
        self.share(bits)
    }

    /// Returns the set of all peers, `None` when there are none.
    pub(crate) fn everyone(&mut self) -> Option<SetId> {
        self.share(self.everyone.clone())
    }

    /// Lays the sets out for lookups.
    pub(crate) fn finish(self) -> PeerSets {
        let words_per_set = self.everyone.len();
        let mut words = vec![0; self.known_sets.len() * words_per_set];
        for (bits, set) in &self.known_sets {
            let start = set.0 as usize * words_per_set;
            words[start..start + words_per_set].copy_from_slice(bits);
        }
        PeerSets {
            words_per_set,
            words: words.into(),
        }
    }

    fn remembered(
        &mut self,
        list: ListKey<'b>,
        fill: impl FnOnce(&Self, &mut [u64]),
    ) -> Option<SetId> {
        if let Some(known) = self.known_lists.get(&list) {
            return *known;
        }
        let mut bits = vec![0; self.everyone.len()];
        fill(self, &mut bits);
        let set = self.share(bits);
        self.known_lists.insert(list, set);
        set
    }

    fn add(&self, selector: &Selector, effect: Effect, bits: &mut [u64]) {
        match selector {
            Selector::Service(name) => match self.services_named(name) {
                [] if effect == Effect::Deny => unite(bits, &self.everyone),
                services => services
                    .iter()
                    .flat_map(|service| &service.endpoints)
                    .for_each(|endpoint| self.add_endpoint(endpoint, bits)),
            },
            Selector::Workload(_) if effect == Effect::Allow => {}
            Selector::Workload(name) => match self.workloads_named(name) {
                [] => unite(bits, &self.everyone),
                workloads => workloads
                    .iter()
                    .flat_map(|workload| &workload.hosts)
                    .for_each(|hosts| self.add_endpoint(hosts, bits)),
            },
            selector => self.add_endpoint(selector, bits),
        }
    }

    fn add_endpoint(&self, selector: &Selector, bits: &mut [u64]) {
        match selector {
            Selector::Any => unite(bits, &self.everyone),
            Selector::Host { name, id } => {
                let peer = match id {
                    Some(id) => self.by_host.get(id),
                    None => self.by_name.get(name),
                };
                if let Some(peer) = peer {
                    set_bit(bits, *peer);
                }
            }
            Selector::Labels(labels) => {
                let mut matching = self.everyone.clone();
                for label in labels {
                    match self.by_label.get(label) {
                        Some(having) => intersect(&mut matching, having),
                        None => return,
                    }
                }
                unite(bits, &matching);
            }
            Selector::Service(_) | Selector::Workload(_) => {}
        }
    }

    fn share(&mut self, bits: Vec<u64>) -> Option<SetId> {
        if bits.iter().all(|word| *word == 0) {
            return None;
        }
        let next = SetId(u32::try_from(self.known_sets.len()).expect("bounded by Limits::RULES"));
        Some(*self.known_sets.entry(bits).or_insert(next))
    }
}

fn set_bit(bits: &mut [u64], peer: PeerIndex) {
    bits[peer.0 as usize / 64] |= 1 << (peer.0 % 64);
}

fn unite(bits: &mut [u64], more: &[u64]) {
    bits.iter_mut()
        .zip(more)
        .for_each(|(word, more)| *word |= more);
}

fn intersect(bits: &mut [u64], other: &[u64]) {
    bits.iter_mut()
        .zip(other)
        .for_each(|(word, other)| *word &= other);
}

//! From a host to the selectors that select it, without looking at those that do not. Equal
//! selectors are one.

use std::collections::BTreeMap;

use model::ids::HostId;
use model::name::{Label, Labels, Name};
use model::record::HostRecord;
use model::rule::Selector;

/// Names a selector that selects hosts by themselves: anything but a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SelectorId(u32);

impl SelectorId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What selectors look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits<'a> {
    pub(crate) host: HostId,
    pub(crate) name: &'a Name,
    pub(crate) labels: &'a Labels,
}

impl<'a> Traits<'a> {
    pub(crate) fn of(record: &'a HostRecord) -> Self {
        Self {
            host: record.host,
            name: &record.name,
            labels: &record.labels,
        }
    }
}

/// A selector, so that equal ones are found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    Any,
    Host(HostId),
    /// Of a bundle that was never resolved.
    Named(Name),
    /// In order, each once, at least one.
    Labels(Vec<Label>),
}

impl Meaning {
    /// Returns what a selector means; `None`: a service.
    fn of(selector: &Selector) -> Option<Self> {
        Some(match selector {
            Selector::Any => Self::Any,
            Selector::Host { id: Some(id), .. } => Self::Host(*id),
            Selector::Host { name, id: None } => Self::Named(name.clone()),
            Selector::Labels(labels) if labels.is_empty() => Self::Any,
            Selector::Labels(labels) => {
                let mut labels = labels.clone();
                labels.sort_unstable();
                labels.dedup();
                Self::Labels(labels)
            }
            Selector::Service(_) | Selector::Workload(_) => return None,
        })
    }
}

/// Gives selectors their ids.
#[derive(Debug, Default)]
pub(super) struct SelectorInterner {
    known: BTreeMap<Meaning, SelectorId>,
}

impl SelectorInterner {
    /// Returns the id of a selector; `None`: it is a service.
    pub(super) fn intern(&mut self, selector: &Selector) -> Option<SelectorId> {
        let meaning = Meaning::of(selector)?;
        let next = u32::try_from(self.known.len()).expect("a bundle's files are bounded");
        Some(*self.known.entry(meaning).or_insert(SelectorId(next)))
    }

    /// Returns the selector of every host, if there is one.
    pub(super) fn any(&self) -> Option<SelectorId> {
        self.known.get(&Meaning::Any).copied()
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// Makes the index of all selectors.
    pub(super) fn finish(self) -> SelectorIndex {
        let mut uses: BTreeMap<&Label, usize> = BTreeMap::new();
        for meaning in self.known.keys() {
            if let Meaning::Labels(labels) = meaning {
                for label in labels {
                    *uses.entry(label).or_default() += 1;
                }
            }
        }
        let mut index = SelectorIndex::default();
        for (meaning, &id) in &self.known {
            match meaning {
                Meaning::Any => index.any = Some(id),
                Meaning::Host(host) => {
                    index.by_host.insert(*host, id);
                }
                Meaning::Named(name) => {
                    index.by_name.insert(name.clone(), id);
                }
                Meaning::Labels(labels) => {
                    // Found by the label that fewest others name: `env=prod` may be in all.
                    let rarest = labels.iter().min_by_key(|label| uses[label]);
                    let rarest = rarest.expect("a selector without labels means any").clone();
                    let others = labels.iter().filter(|label| **label != rarest).cloned();
                    let entry = (id, others.collect());
                    index.by_label.entry(rarest).or_default().push(entry);
                }
            }
        }
        index
    }
}

/// All selectors of a bundle.
#[derive(Debug, Default)]
pub(super) struct SelectorIndex {
    any: Option<SelectorId>,
    by_host: BTreeMap<HostId, SelectorId>,
    by_name: BTreeMap<Name, SelectorId>,
    /// Under one of its labels, with the others that a host must have too.
    by_label: BTreeMap<Label, Vec<(SelectorId, Vec<Label>)>>,
}

impl SelectorIndex {
    /// Returns the selectors that select a host, each once.
    pub(super) fn selecting(&self, traits: &Traits<'_>) -> Vec<SelectorId> {
        let by_itself = [
            self.any,
            self.by_host.get(&traits.host).copied(),
            self.by_name.get(traits.name).copied(),
        ];
        let mut found: Vec<_> = by_itself.into_iter().flatten().collect();
        let has = |label: &Label| traits.labels.get(&label.key) == Some(&label.value);
        for (key, value) in traits.labels {
            let label = Label {
                key: key.clone(),
                value: value.clone(),
            };
            let candidates = self.by_label.get(&label).into_iter().flatten();
            let selecting = candidates.filter(|(_, others)| others.iter().all(has));
            found.extend(selecting.map(|(id, _)| *id));
        }
        found
    }
}

//! Hosts that the same sets hold are the same to the rules, and looked at once.

use std::collections::{BTreeMap, BTreeSet};

use super::host_set::{HostSets, SetId};

/// Names a class in [`Classes`].
pub(super) type ClassId = usize;

/// The hosts of a fleet, as one end of its rules tells them apart.
pub(super) struct Classes {
    hosts: Vec<Vec<u32>>,
    sets: Vec<Vec<SetId>>,
    of_set: BTreeMap<SetId, Vec<ClassId>>,
    of_host: Vec<Option<ClassId>>,
}

impl Classes {
    /// Tells hosts apart by the sets that hold them; a host in none of them is in no class.
    pub(super) fn by(used: &BTreeSet<SetId>, sets: &HostSets<'_>) -> Self {
        let host_count = sets.members(sets.everyone()).len();
        let mut held_by = vec![Vec::new(); host_count];
        for set in used {
            for host in sets.members(*set) {
                held_by[*host as usize].push(*set);
            }
        }
        let mut classes = Self {
            hosts: Vec::new(),
            sets: Vec::new(),
            of_set: BTreeMap::new(),
            of_host: vec![None; host_count],
        };
        let mut known: BTreeMap<Vec<SetId>, ClassId> = BTreeMap::new();
        for (host, held_by) in (0u32..).zip(held_by) {
            if held_by.is_empty() {
                continue;
            }
            let class = *known.entry(held_by).or_insert_with(|| {
                classes.hosts.push(Vec::new());
                classes.hosts.len() - 1
            });
            classes.hosts[class].push(host);
            classes.of_host[host as usize] = Some(class);
        }
        classes.sets = vec![Vec::new(); classes.hosts.len()];
        for (held_by, class) in known {
            for set in &held_by {
                classes.of_set.entry(*set).or_default().push(class);
            }
            classes.sets[class] = held_by;
        }
        classes
    }

    pub(super) fn ids(&self) -> std::ops::Range<ClassId> {
        0..self.hosts.len()
    }

    /// Returns the hosts of a class, at least one.
    pub(super) fn hosts(&self, class: ClassId) -> &[u32] {
        &self.hosts[class]
    }

    /// Returns the sets that hold the hosts of a class.
    pub(super) fn sets(&self, class: ClassId) -> &[SetId] {
        &self.sets[class]
    }

    /// Returns the classes whose hosts a set holds.
    pub(super) fn of_set(&self, set: SetId) -> &[ClassId] {
        self.of_set.get(&set).map_or(&[], Vec::as_slice)
    }

    /// Returns how many hosts are in both of two classes, one of each end.
    pub(super) fn shared(&self, other: &Self) -> BTreeMap<(ClassId, ClassId), u64> {
        let mut shared = BTreeMap::new();
        for classes in self.of_host.iter().zip(&other.of_host) {
            if let (Some(class), Some(other)) = classes {
                *shared.entry((*class, *other)).or_default() += 1;
            }
        }
        shared
    }
}

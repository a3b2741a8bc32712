//! What this host keeps of hosts that are no peers any more, so that no old record of them comes
//! back: tombstones, and how far the records of forgotten peers had come. Both are bounded; what is
//! of the lowest revisions goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::ids::{HostId, Revision};
use model::limits::Limits;
use model::record::{HostRecord, Signed, Tombstone};
use model::wire::stored::FormerPeer;

use crate::map::Dead;

/// Tombstones that a host keeps; each stops a replayed record of a host that is gone.
pub(crate) const TOMBSTONES_MAX: usize = 65_536;

/// The hosts that were removed from the fleet. A copy costs nothing until it is changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tombstones(Arc<BTreeMap<HostId, Dead>>);

impl Tombstones {
    /// Takes a tombstone that holds; of one host the latest is kept.
    pub(crate) fn bury(&mut self, signed: &Signed, tombstone: &Tombstone) {
        let Tombstone { host, revision, .. } = *tombstone;
        if self
            .0
            .get(&host)
            .is_none_or(|dead| dead.revision < revision)
        {
            let signed = signed.clone();
            Arc::make_mut(&mut self.0).insert(host, Dead { signed, revision });
        }
    }

    /// Returns whether the host was removed. Ids are random and never given twice: no record of it
    /// holds any more, however late it was signed.
    pub(crate) fn has(&self, host: HostId) -> bool {
        self.0.contains_key(&host)
    }

    /// Keeps those that satisfy a condition.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&Signed) -> bool) {
        if !self.0.values().all(|dead| is_kept(&dead.signed)) {
            Arc::make_mut(&mut self.0).retain(|_, dead| is_kept(&dead.signed));
        }
    }

    /// Forgets those of the lowest revisions when there are too many.
    pub(crate) fn limit(&mut self) {
        if self.0.len() > TOMBSTONES_MAX {
            let revision = |dead: &Dead| dead.revision;
            keep_newest(Arc::make_mut(&mut self.0), TOMBSTONES_MAX, revision);
        }
    }

    /// Returns them as they came, in the order of the hosts' ids.
    pub(crate) fn signed(&self) -> impl Iterator<Item = &Signed> {
        self.0.values().map(|dead| &dead.signed)
    }
}

/// The hosts whose records this host was told to forget. A copy costs nothing until it is changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct FormerPeers(Arc<BTreeMap<HostId, Revision>>);

impl FormerPeers {
    /// Takes them as they were written down.
    pub(crate) fn of(stored: &[FormerPeer]) -> Self {
        let peers = stored.iter().map(|former| (former.host, former.record));
        Self(Arc::new(peers.collect()))
    }

    /// Returns them as they are written down.
    pub(crate) fn to_stored(&self) -> Vec<FormerPeer> {
        let peers = self.0.iter();
        peers
            .map(|(&host, &record)| FormerPeer { host, record })
            .collect()
    }

    /// Returns whether a later record of the host than this one was forgotten.
    pub(crate) fn is_newer_than(&self, record: &HostRecord) -> bool {
        let former = self.0.get(&record.host);
        former.is_some_and(|former| *former > record.revision)
    }

    /// Takes in a peer that is forgotten now.
    pub(crate) fn insert(&mut self, record: &HostRecord) {
        Arc::make_mut(&mut self.0).insert(record.host, record.revision);
    }

    /// Takes out a host that is a peer again.
    pub(crate) fn remove(&mut self, host: HostId) {
        if self.0.contains_key(&host) {
            Arc::make_mut(&mut self.0).remove(&host);
        }
    }

    /// Forgets those of the lowest revisions when there are too many.
    pub(crate) fn limit(&mut self) {
        if self.0.len() > Limits::FORMER_PEERS {
            let revision = |record: &Revision| *record;
            keep_newest(Arc::make_mut(&mut self.0), Limits::FORMER_PEERS, revision);
        }
    }
}

/// Leaves the `max` entries of the highest revisions.
fn keep_newest<V>(
    entries: &mut BTreeMap<HostId, V>,
    max: usize,
    revision: impl Fn(&V) -> Revision,
) {
    let Some(surplus) = entries.len().checked_sub(max).filter(|&it| it > 0) else {
        return;
    };
    let mut order: Vec<(Revision, HostId)> = entries
        .iter()
        .map(|(host, entry)| (revision(entry), *host))
        .collect();
    order.sort_unstable();
    for (_, host) in &order[..surplus] {
        entries.remove(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::FleetId;

    fn host(number: u64) -> HostId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        HostId::from_bytes(id)
    }

    fn bury(tombstones: &mut Tombstones, number: u64, counter: u64) {
        let tombstone = Tombstone {
            fleet: FleetId::from_bytes([1; 16]),
            host: host(number),
            name: "gone".parse().unwrap(),
            revision: Revision::new(1, counter),
            reason: String::new(),
        };
        let signed = Signed {
            payload: Vec::new(),
            signatures: Vec::new(),
        };
        tombstones.bury(&signed, &tombstone);
    }

    fn has(tombstones: &Tombstones, number: u64) -> bool {
        tombstones.0.contains_key(&host(number))
    }

    #[test]
    fn twice_as_many_tombstones_as_are_kept_lose_the_older_half() {
        let mut tombstones = Tombstones::default();
        let max = TOMBSTONES_MAX as u64;
        // The older a host, the higher its id: neither order is that of the other.
        for number in 0..2 * max {
            bury(&mut tombstones, number, 2 * max - number);
        }
        tombstones.limit();
        assert_eq!(tombstones.0.len(), TOMBSTONES_MAX);
        assert!(has(&tombstones, 0) && has(&tombstones, max - 1));
        assert!(!has(&tombstones, max) && !has(&tombstones, 2 * max - 1));
    }

    #[test]
    fn a_copy_that_is_not_changed_is_the_same_memory() {
        let mut tombstones = Tombstones::default();
        bury(&mut tombstones, 1, 5);
        let mut copy = tombstones.clone();
        bury(&mut copy, 1, 5);
        bury(&mut copy, 1, 4);
        copy.limit();
        assert!(Arc::ptr_eq(&copy.0, &tombstones.0));
        bury(&mut copy, 2, 6);
        assert!(has(&copy, 2) && !has(&tombstones, 2));
    }

    #[test]
    fn former_peers_come_back_from_the_disk_and_the_newest_stay() {
        let stored: Vec<FormerPeer> = (0..Limits::FORMER_PEERS as u64 + 1)
            .map(|number| FormerPeer {
                host: host(number),
                record: Revision::new(1, number),
            })
            .collect();
        let mut former = FormerPeers::of(&stored);
        assert_eq!(former.to_stored(), stored);
        former.limit();
        assert_eq!(former.to_stored(), stored[1..]);
    }
}

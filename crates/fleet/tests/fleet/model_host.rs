//! What a host makes of its maps: it believes nothing unverified.

use std::collections::BTreeMap;

use model::control::ToHost;
use model::ids::{HostId, Revision};
use model::map::{MapDelta, PeerEntry, PolicySlice};
use model::record::{HostRecord, Signed};

use trust::bundle::carry_over;

use crate::world::World;

/// A host that believes nothing unverified.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ModelHost {
    pub(crate) revision: Option<Revision>,
    pub(crate) record: Option<Signed>,
    pub(crate) peers: BTreeMap<HostId, PeerEntry>,
    pub(crate) policy: Option<PolicySlice>,
}

impl ModelHost {
    pub(crate) fn apply(&mut self, world: &World, delta: &MapDelta) {
        let (anchors, _) = world.anchors();
        match delta.base {
            None => *self = Self::default(),
            Some(base) => assert_eq!(Some(base), self.revision, "a delta on what the host has"),
        }
        assert!(
            self.revision <= Some(delta.revision),
            "revisions never go back"
        );
        match (&delta.head, delta.base == Some(delta.revision)) {
            (Some(head), false) => {
                let head = anchors.verify_map_head(head).unwrap();
                assert_eq!(head.revision, delta.revision);
            }
            (None, true) => {}
            (head, _) => panic!("{head:?} for {:?} on {:?}", delta.revision, delta.base),
        }
        self.revision = Some(delta.revision);
        for signed in &delta.tombstones {
            let gone = anchors.verify_tombstone(signed).unwrap();
            self.peers.remove(&gone.host);
        }
        for host in &delta.forgotten {
            let knew = self.peers.remove(host).is_some();
            assert!(knew, "nobody is told to forget a stranger");
        }
        if let Some(signed) = &delta.record {
            anchors.verify_record(signed).unwrap();
            self.record = Some(signed.clone());
        }
        for entry in &delta.peers {
            let record = anchors.verify_record(&entry.record).unwrap();
            assert!(
                record.revision <= delta.revision,
                "no record is later than its map"
            );
            let is_hint = delta.base == Some(delta.revision);
            let known = self.peers.get(&record.host);
            assert!(!is_hint || known.is_some_and(|it| it.record == entry.record));
            if let Some(known) = known {
                let known: HostRecord = anchors.verify_record(&known.record).unwrap();
                assert!(known.revision <= record.revision, "records never go back");
            }
            self.peers.insert(record.host, entry.clone());
        }
        if let Some(slice) = &delta.policy {
            anchors.verify_slice(slice).unwrap();
            self.policy = Some(slice.clone());
        }
        if let Some(step) = &delta.policy_step {
            let before = self
                .policy
                .as_ref()
                .expect("a step leads on from something");
            let count = |head| anchors.verify_head(head).unwrap().leaf_count;
            let (had, has) = (count(&before.head), count(&step.head));
            let slice = carry_over(before, had, step, has).unwrap();
            anchors.verify_slice(&slice).unwrap();
            self.policy = Some(slice);
        }
    }

    pub(crate) fn apply_all(&mut self, world: &World, messages: &[ToHost]) -> usize {
        let deltas = messages.iter().filter_map(|message| match message {
            ToHost::Map(delta) => Some(delta),
            _ => None,
        });
        deltas.inspect(|delta| self.apply(world, delta)).count()
    }

    /// What a host knows, without the revision: it may stay behind when nothing concerns the host.
    pub(crate) fn knowledge(&self) -> Self {
        Self {
            revision: None,
            ..self.clone()
        }
    }
}

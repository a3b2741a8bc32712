//! The policy that hosts remember: a version that is newer than the stored one, put together from
//! the leaves that each of them has. Every host has all denies; an allow that nobody remembers
//! concerned nobody who told, so that what is put together never allows more than the version did.

use std::collections::BTreeMap;

use model::ids::PolicyVersion;
use model::map::PolicySlice;
use model::record::BundleHead;
use model::rule::{Bundle, Leaf};
use trust::{TrustAnchors, TrustError};

/// The newest version that hosts remember.
#[derive(Debug, Default)]
pub(super) struct RecalledPolicy {
    head: Option<BundleHead>,
    leaves: BTreeMap<u32, Leaf>,
}

/// Leaves that a host tells, with the head that they are proven by.
#[derive(Clone, Debug)]
pub(super) struct ToldPolicy {
    head: BundleHead,
    leaves: BTreeMap<u32, Leaf>,
}

impl ToldPolicy {
    /// Believes nothing that is not proven.
    pub(super) fn verified(
        slice: &PolicySlice,
        anchors: &TrustAnchors,
    ) -> Result<Self, TrustError> {
        let head = anchors.verify_head(&slice.head)?;
        let mut leaves = BTreeMap::new();
        for proven in &slice.leaves {
            leaves.insert(proven.index, anchors.verify_leaf(&head, proven)?);
        }
        Ok(Self { head, leaves })
    }
}

impl RecalledPolicy {
    /// Returns the version; `None`: nobody remembers a newer one than is stored.
    pub(super) fn version(&self) -> Option<PolicyVersion> {
        self.head.as_ref().map(|head| head.version)
    }

    /// Takes leaves up that hold, unless they are of an older version than `stored` or than what is
    /// known. Returns whether they are of a newer one than `stored`.
    pub(super) fn note(&mut self, told: ToldPolicy, stored: (u64, PolicyVersion)) -> bool {
        let order = (told.head.epoch, told.head.version);
        if order <= stored {
            return false;
        }
        let known = self.head.as_ref().map(|it| (it.epoch, it.version));
        if known.is_some_and(|known| order < known) {
            return true;
        }
        if known != Some(order) {
            self.leaves.clear();
        }
        self.leaves.extend(told.leaves);
        self.head = Some(told.head);
        true
    }

    /// Returns the policy as far as it is remembered, and whether that is all of it. Without its
    /// denies nothing of it may be allowed.
    pub(super) fn bundle(&self) -> Option<(Bundle, bool)> {
        let head = self.head.as_ref()?;
        let is_whole = self.leaves.len() == head.leaf_count as usize;
        let bundle = match self.leaves.contains_key(&0) {
            true => Bundle::from_leaves(self.leaves.values().cloned()),
            false => Bundle::default(),
        };
        Some((bundle, is_whole))
    }
}

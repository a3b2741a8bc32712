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

impl RecalledPolicy {
    /// Returns the version; `None`: nobody remembers a newer one than is stored.
    pub(super) fn version(&self) -> Option<PolicyVersion> {
        self.head.as_ref().map(|head| head.version)
    }

    /// Takes leaves up, unless they are of an older version than `stored` or than what is known.
    /// Returns whether they are of a newer one than `stored`.
    pub(super) fn note(
        &mut self,
        slice: &PolicySlice,
        stored: (u64, PolicyVersion),
        anchors: &TrustAnchors,
    ) -> Result<bool, TrustError> {
        let head = anchors.verify_head(&slice.head)?;
        let order = (head.epoch, head.version);
        if order <= stored {
            return Ok(false);
        }
        let known = self.head.as_ref().map(|it| (it.epoch, it.version));
        if known.is_some_and(|known| order < known) {
            return Ok(true);
        }
        if known != Some(order) {
            self.leaves.clear();
        }
        for proven in &slice.leaves {
            let leaf = anchors.verify_leaf(&head, proven)?;
            self.leaves.insert(proven.index, leaf);
        }
        self.head = Some(head);
        Ok(true)
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

//! A policy bundle as a Merkle tree (RFC 6962 2.1), so that a host gets only the leaves that
//! concern it and still knows that they are of the signed version.
//!
//! Leaf 0 holds all denies and goes to every host: leaving out any other leaf can only make a host
//! allow less. The tree's root is in the signed `BundleHead`.

use std::collections::{BTreeMap, VecDeque};

use model::ids::Digest;
use model::map::ProvenLeaf;
use model::record::BundleHead;
use model::rule::{Bundle, Leaf};
use model::wire::{self, WireError};

use crate::digest::sha256;

/// Hashed before a leaf, so that no leaf can pass for an inner node (RFC 6962 2.1).
const LEAF_PREFIX: u8 = 0;
/// Hashed before two nodes.
const NODE_PREFIX: u8 = 1;

/// The tree of a bundle.
#[derive(Clone, Debug, Default)]
pub struct BundleTree {
    leaves: Vec<Vec<u8>>,
    /// Hashes from the leaves up; the last level is the root alone.
    levels: Vec<Vec<Digest>>,
}

impl BundleTree {
    /// Encodes and hashes every leaf of the bundle.
    pub fn new(bundle: &Bundle) -> Self {
        Self::from_leaves(encoded(bundle))
    }

    /// As `new`, with each leaf that stands in an earlier tree at its place there: so that only what
    /// changed has another way to the root. The order of leaves means nothing, except that denies are
    /// first.
    pub fn following(earlier: &Self, bundle: &Bundle) -> Self {
        Self::from_leaves(step::kept_in_place(&earlier.leaves, encoded(bundle)))
    }

    /// Builds the tree over encoded leaves, at least one.
    ///
    /// # Panics
    /// When there is none.
    pub fn from_leaves(leaves: Vec<Vec<u8>>) -> Self {
        assert!(!leaves.is_empty(), "denies are always there");
        let mut levels = vec![
            leaves
                .iter()
                .map(|leaf| leaf_hash(leaf))
                .collect::<Vec<_>>(),
        ];
        while let Some(last) = levels.last().filter(|level| level.len() > 1) {
            // A node without a sibling moves up as it is: this gives the trees of RFC 6962.
            let next = last
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node_hash(left, right),
                    _ => pair[0],
                })
                .collect();
            levels.push(next);
        }
        Self { leaves, levels }
    }

    /// Returns the root hash.
    pub fn root(&self) -> Digest {
        let top = self.levels.last().expect("a tree has a level of leaves");
        top[0]
    }

    /// Returns the encoded leaves.
    pub fn leaves(&self) -> &[Vec<u8>] {
        &self.leaves
    }

    /// Returns where each leaf of the bundle that these leaves make up stands, in the bundle's order.
    pub fn positions(&self, bundle: &Bundle) -> Vec<u32> {
        let mut places: BTreeMap<&[u8], VecDeque<u32>> = BTreeMap::new();
        for (place, leaf) in (0..).zip(&self.leaves) {
            places.entry(leaf).or_default().push_back(place);
        }
        let leaves = encoded(bundle);
        let place = |leaf: &Vec<u8>| places.get_mut(&leaf[..]).and_then(VecDeque::pop_front);
        leaves.iter().filter_map(place).collect()
    }

    /// Returns how many leaves there are, at least one.
    pub fn leaf_count(&self) -> u32 {
        u32::try_from(self.leaves.len()).expect("Limits::LEAVES is below 2^32")
    }

    /// Returns the leaf at `index` with its way to the root.
    ///
    /// # Panics
    /// When `index` is not below `leaf_count()`.
    pub fn prove(&self, index: u32) -> ProvenLeaf {
        let mut position = index as usize;
        let leaf = self.leaves[position].clone();
        let mut path = Vec::new();
        for level in &self.levels {
            path.extend(level.get(position ^ 1));
            position /= 2;
        }
        ProvenLeaf { index, leaf, path }
    }

    /// Returns every leaf with its way to the root.
    pub fn prove_all(&self) -> Vec<ProvenLeaf> {
        (0..self.leaf_count())
            .map(|index| self.prove(index))
            .collect()
    }
}

fn encoded(bundle: &Bundle) -> Vec<Vec<u8>> {
    bundle.leaves().iter().map(wire::encode_leaf).collect()
}

fn leaf_hash(leaf: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(1 + leaf.len());
    bytes.push(LEAF_PREFIX);
    bytes.extend_from_slice(leaf);
    sha256(&bytes)
}

fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [NODE_PREFIX; 1 + 2 * Digest::LEN];
    bytes[1..=Digest::LEN].copy_from_slice(left.as_bytes());
    bytes[1 + Digest::LEN..].copy_from_slice(right.as_bytes());
    sha256(&bytes)
}

/// Why the leaves of a bundle are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// Leaf 0 is not the first.
    #[error("the policy came without its denies (leaf 0)")]
    WithoutDenies,
    /// Leaf 0 is something else.
    #[error("leaf 0 of the policy does not hold the denies")]
    FirstIsNotDenies,
    /// There are more denies than those of leaf 0.
    #[error("leaf {0} of the policy holds denies; only leaf 0 may")]
    DeniesElsewhere(u32),
    /// A leaf is there twice, or out of order.
    #[error("the leaves of the policy are out of order at {0}")]
    OutOfOrder(u32),
    /// The proof does not lead to the signed root.
    #[error("leaf {0} is not part of the signed policy")]
    NotInTree(u32),
    /// A change of the policy does not fit what the host has, or leaves out a hash.
    #[error("the change of the policy does not lead on from what is in force, at leaf {0}")]
    NoStep(u32),
    /// The leaf cannot be understood.
    #[error("leaf {index} of the policy: {error}")]
    Malformed {
        /// Which leaf.
        index: u32,
        /// What is wrong with it.
        error: WireError,
    },
}

/// Verifies leaves against a head whose signature holds, and puts them together.
///
/// # Errors
/// Leaf 0 is missing, or a leaf is not in the tree, not in order, or malformed.
pub(crate) fn verify_leaves(
    head: &BundleHead,
    leaves: &[ProvenLeaf],
) -> Result<Bundle, SliceError> {
    if leaves.first().is_none_or(|first| first.index != 0) {
        return Err(SliceError::WithoutDenies);
    }
    let mut previous = None;
    let mut decoded = Vec::with_capacity(leaves.len());
    for proven in leaves {
        if previous.is_some_and(|previous| previous >= proven.index) {
            return Err(SliceError::OutOfOrder(proven.index));
        }
        previous = Some(proven.index);
        decoded.push(verify_leaf(head, proven)?);
    }
    Ok(Bundle::from_leaves(decoded))
}

pub(crate) fn verify_leaf(head: &BundleHead, proven: &ProvenLeaf) -> Result<Leaf, SliceError> {
    let index = proven.index;
    if !is_in_tree(proven, head.leaf_count, &head.tree_root) {
        return Err(SliceError::NotInTree(index));
    }
    let leaf =
        wire::decode_leaf(&proven.leaf).map_err(|error| SliceError::Malformed { index, error })?;
    match (index, &leaf) {
        (0, Leaf::Denies(_)) => Ok(leaf),
        (0, _) => Err(SliceError::FirstIsNotDenies),
        (_, Leaf::Denies(_)) => Err(SliceError::DeniesElsewhere(index)),
        _ => Ok(leaf),
    }
}

/// Follows the path from a leaf to the root (RFC 9162 2.1.3.2).
fn is_in_tree(proven: &ProvenLeaf, leaf_count: u32, root: &Digest) -> bool {
    if proven.index >= leaf_count {
        return false;
    }
    let mut position = proven.index;
    let mut last = leaf_count - 1;
    let mut hash = leaf_hash(&proven.leaf);
    for sibling in &proven.path {
        if last == 0 {
            return false;
        }
        if position % 2 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            // Levels where the node has no sibling are skipped.
            while position.is_multiple_of(2) && position != 0 {
                position /= 2;
                last /= 2;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position /= 2;
        last /= 2;
    }
    last == 0 && hash == *root
}

mod step;

pub use step::{carry_over, step_between};

#[cfg(test)]
mod tests;

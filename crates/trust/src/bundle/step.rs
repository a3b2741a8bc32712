//! From the leaves that a host has to those of another version, without sending again what stays: a
//! leaf that is where it was needs only the hashes that are new on its way to the root.
//!
//! A step is a shorter way to write a slice, and nothing is believed because of it: the host makes the
//! whole slice of it, and verifies that as any other.

use std::collections::{BTreeMap, BTreeSet};

use model::ids::Digest;
use model::map::{PolicySlice, PolicyStep, ProvenLeaf, TreeNode};
use model::record::Signed;

use super::{BundleTree, SliceError};

/// Puts the leaves of `wanted` where they stand in `earlier`, others in places that became free or at
/// the end. The first stays the first.
pub(super) fn kept_in_place(earlier: &[Vec<u8>], wanted: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut wanted = wanted.into_iter();
    let denies = wanted.next();
    let wanted: Vec<Vec<u8>> = wanted.collect();
    let mut missing: BTreeMap<&[u8], usize> = BTreeMap::new();
    for leaf in &wanted {
        *missing.entry(leaf).or_default() += 1;
    }
    let mut take = |leaf: &Vec<u8>| {
        let count = missing.get_mut(&leaf[..]).filter(|count| **count > 0);
        count.map(|count| *count -= 1).is_some()
    };
    let mut places: Vec<Option<Vec<u8>>> = earlier
        .iter()
        .skip(1)
        .map(|leaf| take(leaf).then(|| leaf.clone()))
        .collect();
    let mut added = wanted.iter().filter(|leaf| take(leaf)).cloned();
    for place in places.iter_mut().filter(|place| place.is_none()) {
        *place = added.next();
    }
    places.extend(added.map(Some));
    let mut leaves: Vec<Vec<u8>> = denies.into_iter().collect();
    // The last ones move to where nothing is left.
    let mut next = 0;
    while next < places.len() {
        match places[next].take().or_else(|| last(&mut places, next)) {
            Some(leaf) => leaves.push(leaf),
            None => break,
        }
        next += 1;
    }
    leaves
}

/// Takes the last leaf that is behind a place.
fn last(places: &mut Vec<Option<Vec<u8>>>, place: usize) -> Option<Vec<u8>> {
    while places.len() > place + 1 {
        if let Some(Some(leaf)) = places.pop() {
            return Some(leaf);
        }
    }
    None
}

/// Returns what a host needs that has the leaves `had` of one tree, to have the leaves `needs` of
/// another, whose head this is. Both are ascending.
///
/// # Panics
/// When an index is not in its tree.
pub fn step_between(
    (before, had): (&BundleTree, &[u32]),
    (after, needs): (&BundleTree, &[u32]),
    head: Signed,
) -> PolicyStep {
    let had: BTreeSet<u32> = had.iter().copied().collect();
    let needs: BTreeSet<u32> = needs.iter().copied().collect();
    let stays = |index: &&u32| {
        let place = **index as usize;
        had.contains(index) && before.leaves[place] == after.leaves[place]
    };
    let kept: BTreeSet<u32> = needs.iter().filter(stays).copied().collect();
    let new = needs.difference(&kept);
    let mut nodes = BTreeMap::new();
    for &index in &kept {
        for (level, sibling) in siblings(index, after.leaf_count()) {
            let hash = after.levels[level as usize][sibling as usize];
            let levels = before.levels.get(level as usize);
            if levels.and_then(|it| it.get(sibling as usize)) != Some(&hash) {
                nodes.insert((level, sibling), hash);
            }
        }
    }
    PolicyStep {
        head,
        dropped: had.difference(&needs).copied().collect(),
        leaves: new.map(|index| after.prove(*index)).collect(),
        nodes: nodes
            .into_iter()
            .map(|((level, index), hash)| TreeNode { level, index, hash })
            .collect(),
    }
}

/// Makes the slice that a step leads to, from the one that a host has. `before` and `after` are how
/// many leaves the two trees have.
///
/// # Errors
/// The step does not fit the slice. That it holds is for whoever verifies the slice to say.
pub fn carry_over(
    slice: &PolicySlice,
    before: u32,
    step: &PolicyStep,
    after: u32,
) -> Result<PolicySlice, SliceError> {
    let mut known: BTreeMap<(u32, u32), Digest> = BTreeMap::new();
    for leaf in &slice.leaves {
        known.extend(siblings(leaf.index, before).zip(leaf.path.iter().copied()));
    }
    let nodes = step.nodes.iter();
    known.extend(nodes.map(|node| ((node.level, node.index), node.hash)));
    let mut leaves: BTreeMap<u32, ProvenLeaf> = BTreeMap::new();
    for leaf in &slice.leaves {
        if step.dropped.binary_search(&leaf.index).is_err() && leaf.index < after {
            leaves.insert(leaf.index, leaf.clone());
        }
    }
    for leaf in &step.leaves {
        leaves.insert(leaf.index, leaf.clone());
    }
    let new: BTreeSet<u32> = step.leaves.iter().map(|leaf| leaf.index).collect();
    for (index, leaf) in leaves.iter_mut().filter(|(index, _)| !new.contains(index)) {
        let path = siblings(*index, after).map(|place| known.get(&place).copied());
        let path: Option<Vec<Digest>> = path.collect();
        leaf.path = path.ok_or(SliceError::NoStep(*index))?;
    }
    Ok(PolicySlice {
        head: step.head.clone(),
        leaves: leaves.into_values().collect(),
    })
}

/// Returns the nodes, each by its level and its place there, that prove a leaf in a tree of so many.
fn siblings(index: u32, leaf_count: u32) -> impl Iterator<Item = (u32, u32)> {
    let levels = std::iter::successors(Some((0, index, leaf_count)), |&(level, place, count)| {
        (count > 1).then(|| (level + 1, place / 2, count.div_ceil(2)))
    });
    levels.filter_map(|(level, place, count)| {
        let sibling = place ^ 1;
        (sibling < count).then_some((level, sibling))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(number: u32) -> Vec<u8> {
        format!("rule {number}").into_bytes()
    }

    fn tree(numbers: &[u32]) -> BundleTree {
        BundleTree::from_leaves(numbers.iter().map(|number| leaf(*number)).collect())
    }

    fn in_place(earlier: &[u32], wanted: &[u32]) -> Vec<u32> {
        let leaves = |numbers: &[u32]| numbers.iter().map(|it| leaf(*it)).collect::<Vec<_>>();
        let kept = kept_in_place(&leaves(earlier), leaves(wanted));
        let number = |leaf: &Vec<u8>| {
            let text = std::str::from_utf8(leaf).unwrap();
            text.strip_prefix("rule ").unwrap().parse().unwrap()
        };
        kept.iter().map(number).collect()
    }

    #[test]
    fn leaves_stay_where_they_are() {
        assert_eq!(in_place(&[0, 1, 2, 3], &[0, 3, 1, 2]), [0, 1, 2, 3]);
        assert_eq!(in_place(&[0, 1, 2, 3], &[0, 1, 9, 3]), [0, 1, 9, 3]);
        assert_eq!(in_place(&[0, 1, 2, 3], &[9, 1, 2, 3, 4]), [9, 1, 2, 3, 4]);
        assert_eq!(in_place(&[0, 1, 2, 3, 4], &[0, 2, 3, 4]), [0, 4, 2, 3]);
        assert_eq!(in_place(&[0, 1, 2, 3, 4], &[0, 3]), [0, 3]);
        assert_eq!(in_place(&[0, 1, 2, 3], &[0]), [0]);
        assert_eq!(in_place(&[0], &[0, 5, 5]), [0, 5, 5]);
        assert_eq!(in_place(&[0, 5, 5], &[0, 5]), [0, 5]);
    }

    /// Returns the slice that a host has with some leaves of a tree.
    fn slice(tree: &BundleTree, indices: &[u32]) -> PolicySlice {
        PolicySlice {
            leaves: indices.iter().map(|index| tree.prove(*index)).collect(),
            ..PolicySlice::default()
        }
    }

    proptest::proptest! {
        #[test]
        fn a_step_leads_to_the_slice_that_would_have_been_sent(
            earlier in proptest::collection::vec(1u32..40, 0..40),
            wanted in proptest::collection::vec(1u32..40, 0..40),
            had in proptest::collection::btree_set(1u32..40, 0..10),
            needs in proptest::collection::btree_set(1u32..40, 0..10),
        ) {
            let with_denies = |numbers: &[u32]| [&[0][..], numbers].concat();
            let before = tree(&with_denies(&earlier));
            let after = tree(&in_place(&with_denies(&earlier), &with_denies(&wanted)));
            let within = |indices: BTreeSet<u32>, tree: &BundleTree| -> Vec<u32> {
                let rest = indices.into_iter().filter(|index| *index < tree.leaf_count());
                std::iter::once(0).chain(rest).collect()
            };
            let (had, needs) = (within(had, &before), within(needs, &after));
            let step = step_between((&before, &had), (&after, &needs), Signed::default());
            let counts = (before.leaf_count(), after.leaf_count());
            let made = carry_over(&slice(&before, &had), counts.0, &step, counts.1);
            proptest::prop_assert_eq!(made, Ok(slice(&after, &needs)));
        }
    }

    #[test]
    fn a_rule_that_changes_among_many_is_a_few_hashes_to_those_who_keep_theirs() {
        let numbers: Vec<u32> = (0..10_000).collect();
        let before = tree(&numbers);
        let mut changed = numbers;
        changed[5000] = 77_777;
        let after = tree(&changed);
        let had: Vec<u32> = (0..100).map(|it| it * 97).collect();
        let step = step_between((&before, &had), (&after, &had), Signed::default());
        assert!(step.leaves.is_empty() && step.dropped.is_empty());
        assert!(step.nodes.len() <= 14, "{}", step.nodes.len());
    }

    #[test]
    fn a_step_that_leaves_out_a_hash_leads_nowhere() {
        let (before, after) = (tree(&[0, 1, 2, 3]), tree(&[0, 1, 2, 9]));
        let mut step = step_between((&before, &[0, 1]), (&after, &[0, 1]), Signed::default());
        assert_eq!(step.nodes.len(), 1);
        let node = step.nodes.remove(0);
        // It is known from before as something else: the slice does not verify.
        let made = carry_over(&slice(&before, &[0, 1]), 4, &step, 4).unwrap();
        assert_ne!(made, slice(&after, &[0, 1]));
        // In a larger tree nothing is known of it.
        let made = carry_over(&slice(&before, &[0, 1]), 4, &step, 5);
        assert_eq!(made, Err(SliceError::NoStep(0)));
        step.nodes.push(node);
        let made = carry_over(&slice(&before, &[0, 1]), 4, &step, 4).unwrap();
        assert_eq!(made, slice(&after, &[0, 1]));
    }
}

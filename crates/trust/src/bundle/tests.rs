//! Trees are those of RFC 6962; a slice proves itself, and nothing can be swapped, moved or, of the
//! denies, left out.

use model::map::PolicySlice;
use model::rule::Denies;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::fixture::{anchors, authority, bundle, head};
use crate::{Authority, TrustError};

/// The leaves and roots of the reference implementation's tests
/// (google/certificate-transparency, merkletree/merkle_tree_test.cc).
const REFERENCE: [(&str, &str); 8] = [
    (
        "",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    ),
    (
        "00",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    ),
    (
        "10",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    ),
    (
        "2021",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (
        "3031",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    ),
    (
        "40414243",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    ),
    (
        "5051525354555657",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    ),
    (
        "606162636465666768696a6b6c6d6e6f",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ),
];

#[test]
fn roots_are_those_of_rfc_6962() {
    let mut leaves = Vec::new();
    for (leaf, root) in REFERENCE {
        leaves.push(data_encoding::HEXLOWER.decode(leaf.as_bytes()).unwrap());
        assert_eq!(
            BundleTree::from_leaves(leaves.clone()).root().to_string(),
            root
        );
    }
}

#[test]
fn a_leaf_cannot_pass_for_an_inner_node() {
    let tree = BundleTree::from_leaves(vec![b"left".to_vec(), b"right".to_vec()]);
    let hashes = [leaf_hash(b"left"), leaf_hash(b"right")];
    let joined = [hashes[0].as_bytes().as_slice(), hashes[1].as_bytes()].concat();
    assert_ne!(BundleTree::from_leaves(vec![joined]).root(), tree.root());
}

fn leaves() -> impl Strategy<Value = Vec<Vec<u8>>> {
    // Distinct leaves: the same leaf may well be proven at two places.
    (1usize..70).prop_map(|count| (0..count).map(|n| n.to_le_bytes().to_vec()).collect())
}

proptest! {
    #[test]
    fn every_leaf_is_proven(leaves in leaves()) {
        let tree = BundleTree::from_leaves(leaves);
        for proven in tree.prove_all() {
            prop_assert!(is_in_tree(&proven, tree.leaf_count(), &tree.root()));
        }
    }

    #[test]
    fn a_proof_holds_for_its_own_leaf_and_index_only(
        leaves in leaves(), index: Index, other in 0u32..80, byte: u8,
    ) {
        let tree = BundleTree::from_leaves(leaves);
        let proven = tree.prove(index.index(tree.leaf_count() as usize) as u32);
        let holds = |proven: &ProvenLeaf| is_in_tree(proven, tree.leaf_count(), &tree.root());

        let moved = ProvenLeaf { index: other, ..proven.clone() };
        prop_assert_eq!(holds(&moved), other == proven.index);
        let mut changed = proven.clone();
        changed.leaf.push(byte);
        prop_assert!(!holds(&changed));
    }

    #[test]
    fn a_damaged_path_leads_elsewhere(
        leaves in leaves(), index: Index, position: Index, extra: [u8; 32],
    ) {
        let tree = BundleTree::from_leaves(leaves);
        let proven = tree.prove(index.index(tree.leaf_count() as usize) as u32);
        let holds = |proven: &ProvenLeaf| is_in_tree(proven, tree.leaf_count(), &tree.root());

        let mut longer = proven.clone();
        longer.path.push(Digest::from_bytes(extra));
        prop_assert!(!holds(&longer));
        if !proven.path.is_empty() {
            let position = position.index(proven.path.len());
            let mut wrong_sibling = proven.clone();
            wrong_sibling.path[position] = Digest::from_bytes(extra);
            prop_assert!(!holds(&wrong_sibling));
            let mut shorter = proven.clone();
            shorter.path.remove(position);
            prop_assert!(!holds(&shorter));
        }
    }

    #[test]
    fn arbitrary_proofs_never_panic(
        index: u32, leaf_count: u32, leaf in vec(any::<u8>(), 0..8),
        path in vec(any::<[u8; 32]>(), 0..40), root: [u8; 32],
    ) {
        let path = path.into_iter().map(Digest::from_bytes).collect();
        let proven = ProvenLeaf { index, leaf, path };
        prop_assert!(!is_in_tree(&proven, leaf_count, &Digest::from_bytes(root)));
    }
}

fn slice(authority: &Authority, tree: &BundleTree, indices: &[u32]) -> PolicySlice {
    PolicySlice {
        head: authority.sign_head(&head(authority, tree)),
        leaves: indices.iter().map(|index| tree.prove(*index)).collect(),
    }
}

/// What a host says of a slice.
fn refusal(authority: &Authority, slice: &PolicySlice) -> SliceError {
    match anchors(authority).verify_slice(slice) {
        Err(TrustError::Slice(error)) => error,
        other => panic!("the leaves are the problem, not {other:?}"),
    }
}

#[test]
fn a_slice_gives_the_denies_and_the_allows_that_came() {
    let authority = authority(1);
    let tree = BundleTree::new(&bundle());
    let (verified, slice_bundle) = anchors(&authority)
        .verify_slice(&slice(&authority, &tree, &[0, 2, 4]))
        .unwrap();
    assert_eq!(verified, head(&authority, &tree));
    assert_eq!(slice_bundle.deny, bundle().deny);
    let allowed: Vec<_> = slice_bundle
        .allow
        .iter()
        .map(|rule| rule.id.as_str())
        .collect();
    assert_eq!(allowed, ["b", "d"]);
}

#[test]
fn a_whole_bundle_survives() {
    let authority = authority(1);
    let tree = BundleTree::new(&bundle());
    let (_, whole) = anchors(&authority)
        .verify_slice(&slice(&authority, &tree, &[0, 1, 2, 3, 4]))
        .unwrap();
    assert_eq!(whole, bundle());
}

#[test]
fn denies_cannot_be_withheld() {
    let authority = authority(1);
    let tree = BundleTree::new(&bundle());
    for indices in [&[][..], &[1], &[1, 2, 3, 4], &[1, 0]] {
        let refused = refusal(&authority, &slice(&authority, &tree, indices));
        assert_eq!(refused, SliceError::WithoutDenies);
    }
}

#[test]
fn an_allow_cannot_pose_as_the_denies() {
    let authority = authority(1);
    let tree = BundleTree::new(&bundle());
    let mut posing = slice(&authority, &tree, &[1]);
    posing.leaves[0].index = 0;
    assert_eq!(refusal(&authority, &posing), SliceError::NotInTree(0));

    let leaf = wire::encode_leaf(&Leaf::Allow(bundle().allow[0].clone()));
    let without = BundleTree::from_leaves(vec![leaf]);
    let refused = refusal(&authority, &slice(&authority, &without, &[0]));
    assert_eq!(refused, SliceError::FirstIsNotDenies);
}

#[test]
fn denies_stand_in_leaf_0_only() {
    let authority = authority(1);
    let denies = wire::encode_leaf(&bundle().leaves()[0]);
    let tree = BundleTree::from_leaves(vec![denies.clone(), denies]);
    let refused = refusal(&authority, &slice(&authority, &tree, &[0, 1]));
    assert_eq!(refused, SliceError::DeniesElsewhere(1));
}

#[test]
fn leaves_come_once_and_in_order() {
    let authority = authority(1);
    let tree = BundleTree::new(&bundle());
    let refused = refusal(&authority, &slice(&authority, &tree, &[0, 2, 1]));
    assert_eq!(refused, SliceError::OutOfOrder(1));
    let refused = refusal(&authority, &slice(&authority, &tree, &[0, 2, 2]));
    assert_eq!(refused, SliceError::OutOfOrder(2));
}

#[test]
fn a_leaf_of_another_version_is_refused() {
    let authority = authority(1);
    let (tree, mut wider) = (BundleTree::new(&bundle()), bundle());
    wider.allow[0].id = "wider".parse().unwrap();
    let mut mixed = slice(&authority, &tree, &[0, 1]);
    mixed.leaves[1] = BundleTree::new(&wider).prove(1);
    assert_eq!(refusal(&authority, &mixed), SliceError::NotInTree(1));
}

#[test]
fn a_leaf_that_is_not_understood_is_refused() {
    let authority = authority(1);
    let denies = wire::encode_leaf(&Leaf::Denies(Denies::default()));
    let tree = BundleTree::from_leaves(vec![denies, b"\xff\xff".to_vec()]);
    let refused = refusal(&authority, &slice(&authority, &tree, &[0, 1]));
    assert!(
        matches!(refused, SliceError::Malformed { index: 1, .. }),
        "{refused}"
    );
}

#[test]
fn a_head_by_somebody_else_is_refused() {
    let (ours, theirs) = (authority(1), authority(2));
    let tree = BundleTree::new(&bundle());
    let mut slice = slice(&ours, &tree, &[0]);
    slice.head = theirs.sign_head(&head(&ours, &tree));
    let refused = anchors(&ours).verify_slice(&slice).unwrap_err();
    assert_eq!(refused, TrustError::UnknownSigner);
}

#[test]
fn the_same_bundle_gives_the_same_tree() {
    assert_eq!(
        BundleTree::new(&bundle()).root(),
        BundleTree::new(&bundle()).root()
    );
}

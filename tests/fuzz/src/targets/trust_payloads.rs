//! Payloads that are signed by the right keys and hold anything: what a coordinator that somebody
//! took over can make hosts read. What is believed belongs to the fleet, a slice keeps to the shape
//! of its tree, and a trust statement never takes a host back.

use std::sync::LazyLock;

use model::ids::PolicyVersion;
use model::map::{PolicySlice, ProvenLeaf};
use model::record::{BundleHead, Signed};
use model::rule::{Bundle, Leaf};
use model::wire;
use trust::context::{self, Context};
use trust::{AuthoritySeeds, BundleTree, SigningKey, TrustAnchors};

use crate::Seed;
use crate::small_fleet::{SmallFleet, seeds as authority_seeds};

/// The fleet, what its hosts believe, and its keys.
struct Signers {
    fleet: SmallFleet,
    anchors: TrustAnchors,
    root: SigningKey,
    records: SigningKey,
}

static SIGNERS: LazyLock<Signers> = LazyLock::new(|| {
    let fleet = SmallFleet::new();
    let AuthoritySeeds { root, records, .. } = authority_seeds();
    Signers {
        anchors: fleet.anchors(),
        fleet,
        root: SigningKey::from_seed(root),
        records: SigningKey::from_seed(records),
    }
});

/// Signs bytes as every kind of payload, and has a host read it.
pub fn target(bytes: &[u8]) {
    a_statement(bytes);
    a_record(bytes);
    a_tombstone(bytes);
    a_head(bytes);
    a_leaf(bytes);
}

fn signed(key: &SigningKey, context: Context, payload: &[u8]) -> Signed {
    Signed {
        payload: payload.to_vec(),
        signatures: vec![key.sign(context, payload)],
    }
}

fn a_statement(payload: &[u8]) {
    let Signers {
        fleet,
        anchors,
        root,
        ..
    } = &*SIGNERS;
    let signed = signed(root, context::TRUST_STATEMENT, payload);
    if let Ok(Some(updated)) = anchors.update(&signed) {
        let (before, after) = (anchors.statement(), updated.statement());
        assert_eq!(after.fleet, before.fleet);
        assert!((after.epoch, after.serial) > (before.epoch, before.serial));
        assert!(
            updated.update(&fleet.trust()).is_err(),
            "there is no way back"
        );
    }
    let joined = TrustAnchors::from_statement(&signed, &fleet.authority.root_pin());
    if let Ok((anchors, statement)) = joined {
        assert_eq!(anchors.statement(), &statement);
    }
    let as_a_record = signed_as_a_record(payload);
    assert!(
        anchors.update(&as_a_record).is_err(),
        "a record key is no root"
    );
}

fn signed_as_a_record(payload: &[u8]) -> Signed {
    signed(&SIGNERS.records, context::HOST_RECORD, payload)
}

fn a_record(payload: &[u8]) {
    let Signers {
        anchors, records, ..
    } = &*SIGNERS;
    if let Ok(record) = anchors.verify_record(&signed_as_a_record(payload)) {
        assert_eq!(record.fleet, anchors.fleet());
    }
    let as_a_tombstone = signed(records, context::TOMBSTONE, payload);
    assert!(
        anchors.verify_record(&as_a_tombstone).is_err(),
        "a signature for one kind is none for another"
    );
}

fn a_tombstone(payload: &[u8]) {
    let Signers {
        anchors, records, ..
    } = &*SIGNERS;
    let signed = signed(records, context::TOMBSTONE, payload);
    if let Ok(tombstone) = anchors.verify_tombstone(&signed) {
        assert_eq!(tombstone.fleet, anchors.fleet());
    }
}

fn a_head(payload: &[u8]) {
    let Signers {
        fleet,
        anchors,
        records,
        ..
    } = &*SIGNERS;
    let head = signed(records, context::BUNDLE_HEAD, payload);
    let slice = PolicySlice {
        head,
        ..fleet.slice()
    };
    if let Ok((head, _)) = anchors.verify_slice(&slice) {
        let tree = BundleTree::new(&fleet.bundle);
        assert_eq!(head.tree_root, tree.root(), "the leaves are of this tree");
        assert_eq!(head.fleet, anchors.fleet());
    }
}

/// The bytes stand once for all denies and once for one allow more, rightly hashed and signed.
fn a_leaf(bytes: &[u8]) {
    let empty = BundleTree::new(&Bundle::default()).prove(0).leaf;
    for leaves in [vec![bytes], vec![&empty, bytes]] {
        let Ok((_, bundle)) = SIGNERS.anchors.verify_slice(&slice_of(&leaves)) else {
            continue;
        };
        let read: Vec<Leaf> = leaves
            .iter()
            .map(|leaf| wire::decode_leaf(leaf).expect("what is believed can be read"))
            .collect();
        assert!(matches!(read[0], Leaf::Denies(_)), "the denies come first");
        let others = &read[1..];
        assert!(!others.iter().any(|leaf| matches!(leaf, Leaf::Denies(_))));
        assert_eq!(bundle, Bundle::from_leaves(read));
    }
}

/// Up to two leaves in a tree as RFC 6962 2.1 describes it, under a head that is signed.
fn slice_of(leaves: &[&[u8]]) -> PolicySlice {
    let Signers { fleet, records, .. } = &*SIGNERS;
    let hashes: Vec<_> = leaves
        .iter()
        .map(|leaf| trust::sha256(&[&[0], *leaf].concat()))
        .collect();
    let (tree_root, paths) = match hashes[..] {
        [one] => (one, vec![vec![]]),
        [one, other] => {
            let both = [&[1], &one.as_bytes()[..], &other.as_bytes()[..]].concat();
            (trust::sha256(&both), vec![vec![other], vec![one]])
        }
        _ => unreachable!("one leaf or two"),
    };
    let head = BundleHead {
        tree_root,
        leaf_count: leaves.len() as u32,
        version: PolicyVersion(4),
        ..fleet.head()
    };
    let head = wire::encode_bundle_head(&head);
    let proven = leaves.iter().zip(paths).zip(0..);
    PolicySlice {
        head: signed(records, context::BUNDLE_HEAD, &head),
        leaves: proven
            .map(|((leaf, path), index)| ProvenLeaf {
                index,
                leaf: leaf.to_vec(),
                path,
            })
            .collect(),
    }
}

/// Good payloads of every kind, and a statement that follows the one in force.
pub(crate) fn seeds() -> Vec<Seed> {
    let Signers { fleet, anchors, .. } = &*SIGNERS;
    let tombstone = anchors
        .verify_tombstone(&fleet.tombstone())
        .expect("signed by us");
    let mut next = fleet.statement.clone();
    next.serial += 1;
    next.previous = Some(trust::sha256(&fleet.trust().payload));
    let mut seeds = vec![
        Seed::new("statement", fleet.trust().payload),
        Seed::new("next-statement", wire::encode_trust_statement(&next)),
        Seed::new("record", wire::encode_host_record(&fleet.hosts[0])),
        Seed::new("tombstone", wire::encode_tombstone(&tombstone)),
        Seed::new("head", wire::encode_bundle_head(&fleet.head())),
    ];
    for (number, leaf) in fleet.bundle.leaves().iter().enumerate() {
        seeds.push(Seed::new(format!("leaf-{number}"), wire::encode_leaf(leaf)));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_believed() {
        let seed = |name: &str| {
            let seeds = seeds();
            let found = seeds.into_iter().find(|seed| seed.name == name);
            found.expect("it is among them").bytes
        };
        let Signers { anchors, root, .. } = &*SIGNERS;
        let next = signed(root, context::TRUST_STATEMENT, &seed("next-statement"));
        assert!(anchors.update(&next).unwrap().is_some());
        assert!(
            anchors
                .verify_record(&signed_as_a_record(&seed("record")))
                .is_ok()
        );
        let (denies, allow) = (seed("leaf-0"), seed("leaf-1"));
        assert!(anchors.verify_slice(&slice_of(&[&denies, &allow])).is_ok());
        assert!(anchors.verify_slice(&slice_of(&[&allow])).is_err());
    }
}

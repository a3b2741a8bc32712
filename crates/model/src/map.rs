//! What one host needs to know: its peers and rules, at a revision; and changes of it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::ids::{Digest, HostId, Revision};
use crate::record::Signed;

/// A change of what one host needs to know, applied whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MapDelta {
    /// The revision that the host must have; `None`: this is a whole map.
    pub base: Option<Revision>,
    /// The revision that the host has afterwards.
    pub revision: Revision,
    /// A `MapHead` of `revision`; absent when that is the base's, and on the host's own disk.
    pub head: Option<Signed>,
    /// New `TrustStatement`s, the oldest first: by the last of them the map is believed.
    pub trust: Vec<Signed>,
    /// The host's own record; always in a whole map.
    pub record: Option<Signed>,
    /// New and changed peers.
    pub peers: Vec<PeerEntry>,
    /// Peers that are gone for all.
    pub tombstones: Vec<Signed>,
    /// Peers that no longer concern this host.
    pub forgotten: Vec<HostId>,
    /// The rules; always in a whole map.
    pub policy: Option<PolicySlice>,
    /// Instead of `policy`, what changes of the rules that the host has; never in a whole map. Many
    /// hosts are told the same.
    pub policy_step: Option<Arc<PolicyStep>>,
}

/// A peer: what is signed of it, and hints where it may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// A `HostRecord`.
    pub record: Signed,
    /// Best first. Hints only: a wrong one costs a handshake attempt and nothing else.
    pub endpoints: Vec<Endpoint>,
    /// The TCP port that it takes the streams of services at, a hint too; `None`: nobody knows.
    pub stream_port: Option<u16>,
}

/// An underlay address where a host may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// IP and UDP port.
    pub address: SocketAddr,
    /// Who says so.
    pub kind: EndpointKind,
}

/// Who says that a host may be reached somewhere; the order is the order of trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointKind {
    /// The host's operator.
    Configured,
    /// One of the host's own interfaces.
    Interface,
    /// A peer that saw authenticated packets come from there.
    Peer,
    /// The coordinator, which saw the control connection come from there.
    Coordinator,
}

/// The leaves of a policy version that concern one host, with proofs.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PolicySlice {
    /// A `BundleHead`.
    pub head: Signed,
    /// Leaf 0 first, always.
    pub leaves: Vec<ProvenLeaf>,
}

/// A leaf and the way from it to the root of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenLeaf {
    /// From 0.
    pub index: u32,
    /// An encoded `Leaf`.
    pub leaf: Vec<u8>,
    /// Sibling hashes from the leaf up.
    pub path: Vec<Digest>,
}

/// From the leaves that a host has to those that concern it now, which may be of another version.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PolicyStep {
    /// A `BundleHead`.
    pub head: Signed,
    /// Leaves that no longer concern the host, ascending.
    pub dropped: Vec<u32>,
    /// New and changed leaves, ascending.
    pub leaves: Vec<ProvenLeaf>,
    /// What is new on the ways of all other leaves to the root.
    pub nodes: Vec<TreeNode>,
}

/// A hash in the tree of a policy version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TreeNode {
    /// From 0, the leaves.
    pub level: u32,
    /// From 0, in its level.
    pub index: u32,
    /// Its value.
    pub hash: Digest,
}

/// Names a peer inside one host: dense, from 0, used again after the peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u32);

//! Which rule is the first to match a port and a peer.

use model::map::PeerIndex;
use model::rule::PortRange;

use super::RuleIndex;
use super::peer_set::{PeerSets, SetId};
use crate::port_tree::PortTree;

/// A rule for a range of ports and a set of peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) ports: PortRange,
    pub(super) rule: RuleIndex,
    pub(super) peers: SetId,
}

/// Finds the first rule for a port and a peer.
#[derive(Debug, Default)]
pub(super) struct PortIndex {
    tree: PortTree,
    nodes: Box<[Node]>,
}

#[derive(Debug)]
enum Node {
    /// Few rules: test one after the other.
    Scan(Box<[(RuleIndex, SetId)]>),
    /// Many rules: the first one by peer.
    ByPeer(Box<[Option<RuleIndex>]>),
}

impl PortIndex {
    /// Builds the index; `entries` are ascending by rule.
    pub(super) fn build(entries: &[Entry], sets: &PeerSets) -> Self {
        let tree = PortTree::of(entries.iter().map(|entry| entry.ports));
        let mut lists = vec![Vec::new(); tree.node_count()];
        for entry in entries {
            for node in tree.covering(entry.ports) {
                lists[node].push((entry.rule, entry.peers));
            }
        }
        let nodes = lists
            .into_iter()
            .map(|list| Node::build(list, sets))
            .collect();
        Self { tree, nodes }
    }

    /// Returns the first rule that covers the port for the peer.
    pub(super) fn first(&self, port: u16, peer: PeerIndex, sets: &PeerSets) -> Option<RuleIndex> {
        let nodes = self.tree.holding(port);
        nodes.fold(None, |first, node| {
            earlier(first, self.nodes[node].first(peer, sets))
        })
    }
}

impl Node {
    /// Leaves out the rules whose peers all have an earlier rule in this node.
    fn build(rules: Vec<(RuleIndex, SetId)>, sets: &PeerSets) -> Self {
        let mut decided = vec![0; sets.peer_bound() / 64];
        let mut kept = rules;
        kept.retain(|(_, set)| {
            let mut adds = false;
            for (decided, word) in decided.iter_mut().zip(sets.words(*set)) {
                adds |= word & !*decided != 0;
                *decided |= word;
            }
            adds
        });
        if kept.len() <= scan_length_max(sets) {
            return Self::Scan(kept.into());
        }
        let mut by_peer = vec![None; sets.peer_bound()];
        for (rule, set) in kept.into_iter().rev() {
            for_each_peer(sets.words(set), |peer| by_peer[peer] = Some(rule));
        }
        Self::ByPeer(by_peer.into())
    }

    fn first(&self, peer: PeerIndex, sets: &PeerSets) -> Option<RuleIndex> {
        match self {
            Self::Scan(rules) => rules
                .iter()
                .find(|(_, set)| sets.contains(*set, peer))
                .map(|(rule, _)| *rule),
            Self::ByPeer(by_peer) => by_peer.get(peer.0 as usize).copied().flatten(),
        }
    }
}

/// A node by peer costs 8 bytes a peer; with this bound never more than 32 times its rules.
fn scan_length_max(sets: &PeerSets) -> usize {
    (sets.peer_bound() / 32).max(32)
}

fn for_each_peer(words: &[u64], mut act: impl FnMut(usize)) {
    for (position, word) in words.iter().enumerate() {
        let mut left = *word;
        while left != 0 {
            act(position * 64 + left.trailing_zeros() as usize);
            left &= left - 1;
        }
    }
}

/// Returns the rule that stands first.
pub(super) fn earlier(a: Option<RuleIndex>, b: Option<RuleIndex>) -> Option<RuleIndex> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

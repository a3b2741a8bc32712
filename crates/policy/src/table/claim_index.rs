//! Which rule that names workloads is the first to match a port and a peer. Who sends is asked of each
//! rule in turn, so that none stands for another.

use model::map::PeerIndex;

use super::RuleIndex;
use super::peer_set::{PeerSets, SetId};
use super::port_index::{Entry, earlier};
use crate::port_tree::PortTree;

/// Finds the first rule for a port, a peer and a sender.
#[derive(Debug, Default)]
pub(super) struct ClaimIndex {
    tree: PortTree,
    /// By node of the tree.
    nodes: Box<[Rules]>,
}

/// Ascending.
type Rules = Box<[(RuleIndex, SetId)]>;

impl ClaimIndex {
    /// Builds the index; `entries` are ascending by rule.
    pub(super) fn build(entries: &[Entry]) -> Self {
        let tree = PortTree::of(entries.iter().map(|entry| entry.ports));
        let mut lists = vec![Vec::new(); tree.node_count()];
        for entry in entries {
            for node in tree.covering(entry.ports) {
                lists[node].push((entry.rule, entry.peers));
            }
        }
        let nodes = lists.into_iter().map(Vec::into_boxed_slice).collect();
        Self { tree, nodes }
    }

    /// Returns the first rule that covers the port for the peer and is about who sends.
    pub(super) fn first(
        &self,
        port: u16,
        peer: PeerIndex,
        sets: &PeerSets,
        is_about: impl Fn(RuleIndex) -> bool,
    ) -> Option<RuleIndex> {
        if self.nodes.is_empty() {
            return None;
        }
        let nodes = self.tree.holding(port);
        nodes.fold(None, |first, node| {
            let matches = |(rule, peers): &&(RuleIndex, SetId)| {
                sets.contains(*peers, peer) && is_about(*rule)
            };
            let found = self.nodes[node].iter().find(matches);
            earlier(first, found.map(|(rule, _)| *rule))
        })
    }
}

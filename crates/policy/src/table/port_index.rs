//! Which rule is the first to match a port and a peer: a segment tree over the ports at which
//! rules begin and end.
//!
//! A rule's port range is cut into at most `2 log2(segments)` nodes, and a port is covered by the
//! nodes on the way from its segment to the root, so that neither thousands of overlapping ranges
//! nor thousands of single ports make the index large or a lookup slow.

use model::map::PeerIndex;
use model::rule::PortRange;

use super::RuleIndex;
use super::peer_set::{PeerSets, SetId};

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
    /// The first port of each segment, ascending, from 0. Empty when there are no rules.
    starts: Box<[u16]>,
    /// The tree as a heap: node 1 is the root, the children of `n` are `2n` and `2n + 1`, segment
    /// `s` is node `starts.len() + s`.
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
        if entries.is_empty() {
            return Self::default();
        }
        let starts = segment_starts(entries);
        let mut lists = vec![Vec::new(); 2 * starts.len()];
        for entry in entries {
            for node in covering_nodes(&starts, entry.ports) {
                lists[node].push((entry.rule, entry.peers));
            }
        }
        let nodes = lists
            .into_iter()
            .map(|list| Node::build(list, sets))
            .collect();
        Self {
            starts: starts.into(),
            nodes,
        }
    }

    /// Returns the first rule that covers the port for the peer.
    pub(super) fn first(&self, port: u16, peer: PeerIndex, sets: &PeerSets) -> Option<RuleIndex> {
        let segment = self
            .starts
            .partition_point(|start| *start <= port)
            .checked_sub(1)?;
        let mut node = self.starts.len() + segment;
        let mut first = None;
        while node > 0 {
            first = earlier(first, self.nodes[node].first(peer, sets));
            node /= 2;
        }
        first
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

fn segment_starts(entries: &[Entry]) -> Vec<u16> {
    let mut starts = vec![0];
    for entry in entries {
        starts.push(entry.ports.first);
        starts.extend(entry.ports.last.checked_add(1));
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// Returns the nodes that together cover exactly the range.
fn covering_nodes(starts: &[u16], ports: PortRange) -> Vec<usize> {
    let mut low = starts.len() + starts.partition_point(|start| *start < ports.first);
    let mut high = starts.len() + starts.partition_point(|start| *start <= ports.last);
    let mut nodes = Vec::new();
    while low < high {
        if low % 2 == 1 {
            nodes.push(low);
            low += 1;
        }
        if high % 2 == 1 {
            high -= 1;
            nodes.push(high);
        }
        low /= 2;
        high /= 2;
    }
    nodes
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

fn earlier(a: Option<RuleIndex>, b: Option<RuleIndex>) -> Option<RuleIndex> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

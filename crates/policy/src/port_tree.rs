//! A segment tree over the ports at which rules begin and end.
//!
//! A rule's port range is cut into at most `2 log2(segments)` nodes, and a port is covered by the
//! nodes on the way from its segment to the root, so that neither thousands of overlapping ranges
//! nor thousands of single ports make an index large or a lookup slow.

use model::rule::PortRange;

/// The shape of the tree; what its nodes hold is up to who builds it.
#[derive(Debug, Default)]
pub(crate) struct PortTree {
    /// The first port of each segment, ascending, from 0. Empty when there are no ranges.
    starts: Box<[u16]>,
}

impl PortTree {
    /// Builds a tree in which each of the ranges is some nodes.
    pub(crate) fn of(ranges: impl Iterator<Item = PortRange>) -> Self {
        let mut starts = vec![0];
        for range in ranges {
            starts.push(range.first);
            starts.extend(range.last.checked_add(1));
        }
        if starts.len() == 1 {
            return Self::default();
        }
        starts.sort_unstable();
        starts.dedup();
        Self {
            starts: starts.into(),
        }
    }

    /// Returns how many nodes there are. It is a heap: node 1 is the root, the children of `n` are
    /// `2n` and `2n + 1`, segment `s` is node `starts.len() + s`; node 0 is none.
    pub(crate) fn node_count(&self) -> usize {
        2 * self.starts.len()
    }

    /// Returns the nodes that together cover exactly a range of those that the tree was built of.
    pub(crate) fn covering(&self, ports: PortRange) -> Vec<usize> {
        let starts = &self.starts;
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

    /// Returns the nodes whose ranges hold a port.
    pub(crate) fn holding(&self, port: u16) -> impl Iterator<Item = usize> {
        let segment = self.starts.partition_point(|start| *start <= port);
        // Without any range there is no segment either.
        let mut node = match segment {
            0 => 0,
            segment => self.starts.len() + segment - 1,
        };
        std::iter::from_fn(move || {
            let this = node;
            node /= 2;
            (this > 0).then_some(this)
        })
    }
}

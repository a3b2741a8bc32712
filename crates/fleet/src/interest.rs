//! Who is concerned by what: which hosts an allow rule connects, and which leaves of the policy a
//! host needs. Kept up to date by edges, rule → set → hosts, so that a host that comes, changes or
//! goes touches only the sets that it is in; all hosts are looked at only when the policy changes.
//!
//! A host learns only of those that some allow connects it with, in either direction. A deny hides
//! nobody: it takes away flows between hosts that an allow connects, and says so at both ends.

mod edges;
mod selectors;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use model::ids::HostId;
use model::record::HostRecord;
use model::rule::Bundle;

pub(crate) use edges::{Seat, Targets};
pub(crate) use selectors::Traits;

use edges::{Edges, SetId};

/// All hosts in the sets of the policy in force.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    edges: Edges,
    seats: BTreeMap<HostId, Seat>,
    /// By `SetId`.
    members: Vec<BTreeSet<HostId>>,
}

/// A host that came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) host: HostId,
    /// Empty: it was not there, or no rule named it.
    pub(crate) before: Seat,
    /// Empty: it is gone, or no rule names it.
    pub(crate) after: Seat,
}

impl Interest {
    /// Puts all hosts in the sets of a bundle.
    pub(crate) fn new<'a>(
        bundle: &Bundle,
        hosts: impl IntoIterator<Item = &'a HostRecord>,
    ) -> Self {
        let edges = Edges::compile(bundle);
        let members = vec![BTreeSet::new(); edges.set_count()];
        let mut interest = Self {
            edges,
            seats: BTreeMap::new(),
            members,
        };
        for record in hosts {
            interest.place(record);
        }
        interest
    }

    /// Takes over a host's new record.
    pub(crate) fn place(&mut self, record: &HostRecord) -> Move {
        let host = record.host;
        let after = self.edges.seat(&Traits::of(record));
        let before = self.seats.insert(host, after.clone()).unwrap_or_default();
        self.leave_sets(host, &before);
        for set in after.sets() {
            self.members[set.index()].insert(host);
        }
        Move {
            host,
            before,
            after,
        }
    }

    /// Takes a host away.
    pub(crate) fn remove(&mut self, host: HostId) -> Move {
        let before = self.seats.remove(&host).unwrap_or_default();
        self.leave_sets(host, &before);
        Move {
            host,
            before,
            after: Seat::default(),
        }
    }

    fn leave_sets(&mut self, host: HostId, seat: &Seat) {
        for set in seat.sets() {
            self.members[set.index()].remove(&host);
        }
    }

    /// Returns where a member sits.
    pub(crate) fn seat(&self, host: HostId) -> Option<&Seat> {
        self.seats.get(&host)
    }

    /// Returns where a host with these traits would sit.
    pub(crate) fn seat_for(&self, traits: &Traits<'_>) -> Seat {
        self.edges.seat(traits)
    }

    /// Returns whether two members have to know each other.
    pub(crate) fn connects(&self, one: HostId, other: HostId) -> bool {
        match (self.seats.get(&one), self.seats.get(&other)) {
            (Some(a), Some(b)) => one != other && self.edges.connects(a, b),
            _ => false,
        }
    }

    /// Returns whether whoever sits in these two seats has to know the other.
    pub(crate) fn connects_seats(&self, one: &Seat, other: &Seat) -> bool {
        self.edges.connects(one, other)
    }

    /// Returns the members that a member has to know.
    pub(crate) fn peers_of(&self, host: HostId) -> BTreeSet<HostId> {
        let seat = self.seats.get(&host);
        let mut peers = seat.map_or_else(BTreeSet::new, |seat| self.reached_from(seat));
        peers.remove(&host);
        peers
    }

    /// Returns a bound of how many members a member has to know.
    pub(crate) fn peers_at_most(&self, host: HostId) -> usize {
        let targets = self.seats.get(&host).map(|seat| self.edges.targets(seat));
        let sets = targets.iter().flat_map(Targets::sets);
        sets.map(|set| self.members[set.index()].len()).sum()
    }

    /// Returns the members that whoever sits there has to know; it may be among them itself.
    pub(crate) fn reached_from(&self, seat: &Seat) -> BTreeSet<HostId> {
        self.members_of(&self.targets_of(seat))
    }

    /// Returns the sets that a seat is connected with; equal ones have equal members.
    pub(crate) fn targets_of(&self, seat: &Seat) -> Targets {
        self.edges.targets(seat)
    }

    /// Returns everybody in the sets.
    pub(crate) fn members_of(&self, targets: &Targets) -> BTreeSet<HostId> {
        let mut sets = targets
            .sets()
            .iter()
            .map(|set: &SetId| &self.members[set.index()]);
        let mut all = sets.next().cloned().unwrap_or_default();
        for set in sets {
            all.extend(set);
        }
        all
    }

    /// Returns the leaves of the bundle that concern whoever sits there, ascending: what
    /// `policy::leaves_concerning` says.
    pub(crate) fn leaves_for(&self, seat: &Seat) -> Vec<u32> {
        self.edges.leaves(seat)
    }
}

//! Which overlay addresses a joining host gets: the next free ones after those given last, so that
//! an address that became free is given again as late as possible.
//!
//! An address is claimed by a key of its own in the store, compared before it is put: whatever two
//! coordinators think, one of them gets it. Requests under way at this coordinator pass over what
//! the others among them have claimed.

use model::time::UnixTime;

use crate::commits::Commits;
use crate::keys::Place;
use crate::output::CommitId;
use crate::state::State;
use crate::stored::StoredAddress;

/// What became of the search for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// This index of the plan is free.
    Found(u32),
    /// All are taken, some of them by this commit that may yet fail.
    Wait(CommitId),
    /// All are taken; the first that rests may be given again at this time, in Unix seconds.
    Full { next_free_secs: Option<u64> },
}

/// Finds the addresses for a new host, from index `start` on and round to it again.
pub(crate) fn find(state: &State, commits: &Commits, start: u32, now: UnixTime) -> Search {
    let capacity = state.statement.overlay.capacity();
    let start = start % capacity;
    let mut under_way = None;
    for index in (start..capacity).chain(0..start) {
        if state
            .addresses
            .get(&index)
            .is_some_and(|address| is_taken(address, now))
        {
            continue;
        }
        match commits.writer(&Place::Address(index).key()) {
            None => return Search::Found(index),
            Some(commit) => under_way = under_way.or(Some(commit)),
        }
    }
    match under_way {
        Some(commit) => Search::Wait(commit),
        None => Search::Full {
            next_free_secs: next_free(state),
        },
    }
}

fn is_taken(address: &StoredAddress, now: UnixTime) -> bool {
    address
        .resting_until_secs
        .is_none_or(|until_secs| until_secs > now.as_secs())
}

fn next_free(state: &State) -> Option<u64> {
    state
        .addresses
        .values()
        .filter_map(|address| address.resting_until_secs)
        .min()
}

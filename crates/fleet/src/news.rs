//! What each host at its stream does not know yet. A change is noted for those whom it concerns and
//! for nobody else, so it costs what it touches; `maps` makes messages of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::ids::HostId;
use model::map::PolicyStep;
use model::store::StoreRevision;
use model::time::Now;
use trust::bundle::step_between;

use crate::fleet::Fleet;
use crate::interest::{Move, Seat, Targets};
use crate::state::{Former, Host, State};

/// How soon after a change of hosts the others are told; changes within this time go together.
const TELL_CHANGES_AFTER: Duration = Duration::from_millis(20);

/// What one host does not know yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Its own record changed.
    pub(crate) record: bool,
    /// Its leaves of the policy changed, or the policy's version.
    pub(crate) policy: PolicyNews,
    /// There is another trust statement.
    pub(crate) trust: bool,
    /// Peers that may be reached elsewhere.
    pub(crate) hints: BTreeSet<HostId>,
    /// Hosts that changed, came or went after the last of `stages`, and whether it knew them before.
    peers: BTreeMap<HostId, bool>,
    stages: Vec<Stage>,
}

/// What a host does not know yet of the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum PolicyNews {
    #[default]
    None,
    /// It gets what changed of the leaves that it was told last; hosts that have and need the same
    /// share it.
    Step(Arc<PolicyStep>),
    /// It gets all leaves that concern it: what it has is not known any more.
    Whole,
}

impl PolicyNews {
    /// Notes a change of what the host has, once all that was noted before is told.
    fn note(&mut self, step: Arc<PolicyStep>) {
        *self = match self {
            Self::None => Self::Step(step),
            Self::Step(_) | Self::Whole => Self::Whole,
        };
    }
}

/// What happened before all peers were arranged anew, and that.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stage {
    peers: BTreeMap<HostId, bool>,
    shift: Arc<Shift>,
}

/// Whom a host comes to know, and whom it no longer has to, itself perhaps among them. Shared by
/// all hosts that sit alike: when a policy parts ten thousand hosts, what each has to forget is
/// written down for each only when it is told.
#[derive(Debug, PartialEq, Eq)]
struct Shift {
    gained: Vec<HostId>,
    lost: Vec<HostId>,
}

impl News {
    fn note(&mut self, peer: HostId, knows: bool) {
        self.peers.entry(peer).or_insert(knows);
    }

    fn arrange(&mut self, shift: &Arc<Shift>) {
        if shift.gained.is_empty() && shift.lost.is_empty() {
            return;
        }
        self.stages.push(Stage {
            peers: std::mem::take(&mut self.peers),
            shift: shift.clone(),
        });
    }

    /// Returns the hosts that changed, came or went, and whether `me` knows them as they were. One
    /// that is not in here it knows if, and only if, a rule connects the two; and then as it is.
    pub(crate) fn peers(&self, me: HostId) -> BTreeMap<HostId, bool> {
        let mut all = BTreeMap::new();
        // What it knew before the first of several changes is what it knows.
        let mut note = |peer: HostId, knows: bool| {
            all.entry(peer).or_insert(knows);
        };
        for Stage { peers, shift } in &self.stages {
            peers.iter().for_each(|(peer, knows)| note(*peer, *knows));
            shift.gained.iter().for_each(|peer| note(*peer, false));
            shift.lost.iter().for_each(|peer| note(*peer, true));
        }
        self.peers
            .iter()
            .for_each(|(peer, knows)| note(*peer, *knows));
        all.remove(&me);
        all
    }
}

impl Fleet {
    /// Notes for everybody concerned that a host came, changed or went.
    pub(crate) fn note_move(&mut self, moved: &Move) {
        let interest = &self.state.interest;
        let before = interest.reached_from(&moved.before);
        let changed_seat = moved.before != moved.after;
        let after = changed_seat.then(|| interest.reached_from(&moved.after));
        let after = after.as_ref().unwrap_or(&before);
        let host = moved.host;
        for &peer in before.union(after).filter(|peer| **peer != host) {
            if let Some(news) = self.sessions.news_for(peer) {
                news.note(host, before.contains(&peer));
            }
        }
        let Some(news) = self.sessions.news_for(host) else {
            return;
        };
        news.record = true;
        if changed_seat {
            let policy = &self.state.policy;
            let had = policy.leaves_for(interest, &moved.before);
            let needs = policy.leaves_for(interest, &moved.after);
            if had != needs {
                let head = policy.slice.head.clone();
                let step = step_between((&policy.tree, &had), (&policy.tree, &needs), head);
                news.policy.note(Arc::new(step));
            }
            for &peer in before.symmetric_difference(after) {
                if peer != host {
                    news.note(peer, before.contains(&peer));
                }
            }
        }
    }

    /// Notes for everybody at a stream what another policy, or a new reading of the store, means:
    /// `former` is what was in force and who was concerned by what, `changed` who has a new record
    /// since.
    pub(crate) fn note_rearranged(
        &mut self,
        former: &Former,
        changed: &[HostId],
        is_other_policy: bool,
    ) {
        let before = &former.interest;
        let mut steps = Steps::new(former, &self.state);
        let mut shifts: BTreeMap<(Targets, Targets), Arc<Shift>> = BTreeMap::new();
        let interest = &self.state.interest;
        for host in self.sessions.followers() {
            let (Some(old), Some(new)) = (before.seat(host), interest.seat(host)) else {
                continue;
            };
            // Hosts that sit alike are connected alike: the difference is made once for all.
            let key = (before.targets_of(old), interest.targets_of(new));
            let shift = shifts.entry(key).or_insert_with_key(|(old, new)| {
                let (old, new) = (before.members_of(old), interest.members_of(new));
                Arc::new(Shift {
                    gained: new.difference(&old).copied().collect(),
                    lost: old.difference(&new).copied().collect(),
                })
            });
            if let Some(news) = self.sessions.news_for(host) {
                if is_other_policy {
                    news.policy.note(steps.between(old, new));
                }
                news.arrange(shift);
            }
        }
        for &host in changed {
            for peer in interest.peers_of(host) {
                if let Some(news) = self.sessions.news_for(peer) {
                    news.note(host, true);
                }
            }
            if let Some(news) = self.sessions.news_for(host) {
                (news.record, news.policy) = (true, PolicyNews::Whole);
            }
        }
    }

    /// Tells everybody soon that hosts changed.
    pub(crate) fn publish_changes_soon(&mut self, now: Now) {
        if self.sessions.have_news() {
            self.publish_within(TELL_CHANGES_AFTER, now);
        }
    }

    pub(crate) fn publish_within(&mut self, pause: Duration, now: Now) {
        let due = now.monotonic + pause;
        self.publish_at = Some(self.publish_at.map_or(due, |earlier| earlier.min(due)));
    }

    /// Returns what is new to a host that knows everything up to a revision; `None`: that cannot be
    /// told from what is kept here, and it needs a whole map. Where its peers may be reached it is
    /// told anew: that has no revision.
    pub(crate) fn news_since(&self, have: StoreRevision, me: &Host) -> Option<News> {
        let (state, id) = (&self.state, me.record.host);
        if self.had_other_peers(have, me) {
            return None;
        }
        let reachable = self.presences.reachable();
        let is_reachable = |peer: &HostId| reachable.contains(peer);
        let mut news = News {
            trust: state.trust_changed > have,
            hints: self.peers_among(id, reachable.iter().copied(), is_reachable),
            ..News::default()
        };
        let changed = state.hosts_by_revision.range(later_than(have)..);
        let is_changed = |peer: &HostId| state.hosts.get(peer).is_some_and(|it| it.revision > have);
        for peer in self.peers_among(id, changed.map(|(_, host)| *host), is_changed) {
            news.note(peer, true);
        }
        for (_, peer) in state.rewritten_hosts.range(later_than(have)..) {
            let is_older = state.hosts.get(peer).is_some_and(|it| it.created <= have);
            if is_older && *peer != id && !state.interest.connects(id, *peer) {
                return None; // it may have known this one under its former labels
            }
        }
        for (_, gone) in state.tombstones_by_revision.range(later_than(have)..) {
            if self.misses_tombstone(id, *gone, have)? {
                news.note(*gone, true);
            }
        }
        Some(news)
    }

    /// Returns those of some hosts that a rule connects a host with, looking at each of these or at
    /// each of its peers, whichever are fewer.
    fn peers_among(
        &self,
        me: HostId,
        hosts: impl Iterator<Item = HostId> + Clone,
        is_among: impl Fn(&HostId) -> bool,
    ) -> BTreeSet<HostId> {
        let interest = &self.state.interest;
        let are_fewer = hosts.clone().nth(interest.peers_at_most(me)).is_none();
        if are_fewer {
            return hosts.filter(|host| interest.connects(me, *host)).collect();
        }
        let mut peers = interest.peers_of(me);
        peers.retain(is_among);
        peers
    }

    /// Returns whether a host had other rules or labels at a revision, and so perhaps other peers.
    pub(crate) fn had_other_peers(&self, have: StoreRevision, me: &Host) -> bool {
        self.state.policy.revision > have || me.revision > have
    }

    /// Returns whether a host that knows everything up to a revision has to be told that one is gone
    /// that was removed since: it knew it, or would have, had it listened. `None`: it may have known
    /// it under former labels.
    fn misses_tombstone(&self, me: HostId, gone: HostId, have: StoreRevision) -> Option<bool> {
        let former = self.state.tombstones.get(&gone)?.former.as_ref()?;
        if former.created > have.0 {
            return Some(false);
        }
        if self.connected_to_the_last(me, gone) {
            return Some(true);
        }
        (former.changed <= have.0).then_some(false)
    }

    /// Returns whether a rule would connect a host with one that is gone, had it stayed.
    pub(crate) fn connected_to_the_last(&self, me: HostId, gone: HostId) -> bool {
        let interest = &self.state.interest;
        match (interest.seat(me), self.state.last_seat(gone)) {
            (Some(mine), Some(last)) => interest.connects_seats(mine, &last),
            _ => false,
        }
    }
}

/// What changes of the leaves that hosts have when another policy comes into force, made once for all
/// hosts that sat and sit alike.
struct Steps<'a> {
    former: &'a Former,
    state: &'a State,
    made: BTreeMap<(Seat, Seat), Arc<PolicyStep>>,
}

impl<'a> Steps<'a> {
    fn new(former: &'a Former, state: &'a State) -> Self {
        Self {
            former,
            state,
            made: BTreeMap::new(),
        }
    }

    fn between(&mut self, old: &Seat, new: &Seat) -> Arc<PolicyStep> {
        let (former, state) = (self.former, self.state);
        let step = self.made.entry((old.clone(), new.clone()));
        let make = |(old, new): &(Seat, Seat)| {
            let had = former.policy.leaves_for(&former.interest, old);
            let needs = state.policy.leaves_for(&state.interest, new);
            let head = state.policy.slice.head.clone();
            let (before, after) = (&former.policy.tree, &state.policy.tree);
            Arc::new(step_between((before, &had), (after, &needs), head))
        };
        step.or_insert_with_key(make).clone()
    }
}

/// The lower bound of what was changed after a revision.
pub(crate) fn later_than(revision: StoreRevision) -> (StoreRevision, HostId) {
    (revision.next(), HostId::from_bytes([0; 16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn host(number: u8) -> HostId {
        HostId::from_bytes([number; 16])
    }

    fn shift(gained: &[u8], lost: &[u8]) -> Arc<Shift> {
        let hosts = |numbers: &[u8]| numbers.iter().map(|number| host(*number)).collect();
        Arc::new(Shift {
            gained: hosts(gained),
            lost: hosts(lost),
        })
    }

    #[test]
    fn what_a_host_knew_before_the_first_change_is_what_it_knows() {
        let mut news = News::default();
        news.note(host(1), true); // changes, is lost, changes as a stranger
        news.note(host(2), false); // comes, is lost
        news.arrange(&shift(&[3], &[1, 2, 4, 9]));
        news.note(host(1), false);
        news.note(host(3), true); // gained, changes as a peer
        news.arrange(&shift(&[4], &[3]));
        news.note(host(5), true);
        let expected = [(1, true), (2, false), (3, false), (4, true), (5, true)];
        let expected = expected.map(|(number, knows)| (host(number), knows));
        assert_eq!(news.peers(host(9)), BTreeMap::from(expected));
    }

    #[test]
    fn an_arrangement_that_changes_nothing_leaves_nothing_behind() {
        let mut news = News::default();
        news.arrange(&shift(&[], &[]));
        assert_eq!(news, News::default());
    }
}

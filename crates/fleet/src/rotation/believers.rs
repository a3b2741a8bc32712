//! Which hosts have moved to the newest root: told by each host, and stored, so that one which is
//! off for weeks counts after a restart of the coordinator. So is that one has been set back since.

use std::time::Duration;

use model::control::HeldTrust;
use model::ids::{Digest, HostId};
use model::time::Now;

use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::Reply;
use crate::stored::StoredBeliever;
use crate::work::{Answer, Draft, Origin, Plan, Work};

/// What hosts tell within this time is stored together.
const STORED_WITHIN: Duration = Duration::from_secs(1);
/// When what could not be stored is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Hosts in one transaction.
const STORED_AT_ONCE: usize = 100;

impl Fleet {
    /// Takes what a host has of the authority on its disk.
    pub(crate) fn note_held(&mut self, host: HostId, held: Option<HeldTrust>, now: Now) {
        let Some(held) = held else {
            return;
        };
        self.presences.entry(host).held_trust = Some(held);
        if self.differs_from_stored(host) {
            self.rotation.moved.insert(host);
            self.rotation.storing_moved.ask(STORED_WITHIN, now);
        } else {
            self.rotation.moved.remove(&host);
        }
    }

    /// Returns whether a member has told another thing than what is stored of it: that it has moved,
    /// or, of a machine that was set back, that it has not.
    fn differs_from_stored(&self, host: HostId) -> bool {
        let told = self.presences.of(host).and_then(|it| it.held_trust);
        let is_member = self.state.hosts.contains_key(&host);
        let differs = |told| self.is_newest(told) != self.is_stored_as_moved(host);
        self.is_rotating() && is_member && told.is_some_and(differs)
    }

    fn is_stored_as_moved(&self, host: HostId) -> bool {
        self.state.believers.get(&host) == Some(&self.statement_number())
    }

    /// Returns whether it is stored that a host has moved, and it has told nothing else since: a
    /// machine that was set back to what it was earlier has not.
    pub(super) fn has_moved(&self, host: HostId) -> bool {
        let told = self.presences.of(host).and_then(|it| it.held_trust);
        self.is_stored_as_moved(host) && told.is_none_or(|told| self.is_newest(told))
    }

    pub(crate) fn moved_count(&self) -> usize {
        let hosts = self.state.hosts.keys();
        hosts.filter(|host| self.has_moved(**host)).count()
    }

    fn statement_number(&self) -> (u64, u64) {
        (self.state.statement.epoch, self.state.statement.serial)
    }

    fn is_newest(&self, held: HeldTrust) -> bool {
        let newest: Digest = self.state.anchors.newest_root();
        (held.epoch, held.serial) == self.statement_number() && held.certified_by == newest
    }

    pub(super) fn store_moved(&mut self, now: Now) {
        let moved = std::mem::take(&mut self.rotation.moved);
        let mut moved = moved.into_iter();
        let hosts: Vec<HostId> = moved.by_ref().take(STORED_AT_ONCE).collect();
        self.rotation.moved = moved.collect();
        if !hosts.is_empty() {
            self.rotation.storing_moved.begin();
            self.accept(Origin::Nobody, Work::StoreMoved(hosts), now);
        }
    }

    pub(super) fn after_storing_moved(&mut self, hosts: &[HostId], has_failed: bool, now: Now) {
        // Also when it was stored: one may have told another thing meanwhile.
        let differing = hosts.iter().filter(|host| self.differs_from_stored(**host));
        let differing: Vec<HostId> = differing.copied().collect();
        self.rotation.moved.extend(differing);
        let pause = if has_failed {
            AGAIN_AFTER
        } else {
            STORED_WITHIN
        };
        self.rotation.storing_moved.end(pause, now);
        if !self.rotation.moved.is_empty() {
            self.rotation.storing_moved.ask(pause, now);
        }
    }

    /// Plans to store that hosts have moved, or have not any more.
    pub(crate) fn plan_moved(&self, hosts: &[HostId]) -> Plan {
        let (epoch, serial) = self.statement_number();
        let mut draft = Draft::new(&self.state);
        let differing = hosts.iter().filter(|host| self.differs_from_stored(**host));
        let differing: Vec<HostId> = differing.copied().collect();
        if differing.is_empty() {
            return Plan::Answer(Reply::Noted);
        }
        for host in differing {
            let place = Place::Believer(host).key();
            match self.is_stored_as_moved(host) {
                true => draft.delete(place),
                false => draft.put(place, &StoredBeliever { epoch, serial }),
            }
        }
        Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Noted,
        }
    }
}

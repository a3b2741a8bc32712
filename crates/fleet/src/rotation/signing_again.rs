//! What the old keys alone have signed is signed again by all keys, a portion at a time: the bytes
//! stay, their signatures are others. Whoever has such a record or the policy is told it anew, so that
//! nobody has one by the old keys alone when they are retired.
//!
//! A tombstone stays at the revision of its removal, and only those who lack it are told it. A host
//! that has it by the old keys alone drops it when they are retired, which is safe: the removal was
//! before the rotation, so every record of that host is signed by the old keys alone too, and nobody
//! believes one any more. A host that was removed later has a tombstone by all keys from the start.

use std::time::Duration;

use model::ids::HostId;
use model::time::Now;

use crate::fleet::Fleet;
use crate::keys::Place;
use crate::state::{Gone, Host};
use crate::stored::{StoredHost, StoredPolicy, StoredSigned, StoredTombstone};
use crate::work::{Answer, Draft, Origin, Plan, Work};

/// Records and tombstones in one transaction: each record is told to all who know its host.
const PORTION: usize = 32;
/// Between two portions: 2,000 hosts that all know each other are told 32 records of some 400 bytes
/// each, 8 MB a second.
const PAUSE: Duration = Duration::from_secs(3);
/// Before the first portion, so that hosts have heard of the keys before.
const FIRST_AFTER: Duration = Duration::from_secs(1);

impl Fleet {
    pub(crate) fn sign_again_soon(&mut self, now: Now) {
        self.rotation.signing.ask(FIRST_AFTER, now);
    }

    pub(super) fn sign_some_again(&mut self, now: Now) {
        if self.unsigned_count() > 0 {
            self.rotation.signing.begin();
            self.accept(Origin::Nobody, Work::SignAgain, now);
        }
    }

    pub(super) fn after_signing_again(&mut self, now: Now) {
        self.rotation.signing.end(PAUSE, now);
        self.rotation.signing.ask(PAUSE, now);
    }

    /// Returns how much is not signed by all keys.
    pub(crate) fn unsigned_count(&self) -> usize {
        let hosts = self.state.hosts.values().filter(|it| self.is_unsigned(it));
        let gone = self.state.tombstones.values();
        let gone = gone.filter(|it| !self.authority.has_signed(&it.signed));
        hosts.count() + gone.count() + usize::from(self.is_policy_unsigned())
    }

    fn is_unsigned(&self, host: &Host) -> bool {
        !self.authority.has_signed(&host.signed)
    }

    fn is_policy_unsigned(&self) -> bool {
        let policy = &self.state.policy;
        policy.head.is_some() && !self.authority.has_signed(&policy.slice.head)
    }

    /// Plans the next portion: the policy, then hosts, then those that are gone.
    pub(crate) fn plan_signing_again(&self) -> Plan {
        let mut draft = Draft::new(&self.state);
        if self.is_policy_unsigned() {
            self.sign_policy_again(&mut draft);
        }
        let hosts = self.state.hosts.values().filter(|it| self.is_unsigned(it));
        let mut left = PORTION;
        for host in hosts.take(PORTION) {
            self.sign_host_again(&mut draft, host);
            left -= 1;
        }
        let oldest_first = self.state.tombstones_by_revision.iter();
        let gone = oldest_first.map(|(_, id)| (*id, &self.state.tombstones[id]));
        let gone = gone.filter(|(_, it)| !self.authority.has_signed(&it.signed));
        for (id, gone) in gone.take(left) {
            self.sign_tombstone_again(&mut draft, id, gone);
        }
        Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Noted,
        }
    }

    fn sign_policy_again(&self, draft: &mut Draft<'_>) {
        let policy = &self.state.policy;
        let Some(kept) = self.state.policies.get(&policy.version) else {
            return;
        };
        let again = StoredPolicy {
            head: StoredSigned::from(&self.authority.head_again(&policy.slice.head)),
            ..kept.stored.clone()
        };
        draft.put(Place::PolicyVersion(policy.version).key(), &again);
    }

    fn sign_host_again(&self, draft: &mut Draft<'_>, host: &Host) {
        let again = StoredHost {
            record: StoredSigned::from(&self.authority.record_again(&host.signed)),
            address_index: host.address_index,
            token: host.token,
            machine_id: host.machine_id.clone(),
            joined: host.joined.clone(),
            changed: host.changed.clone(),
        };
        draft.put(Place::Host(host.record.host).key(), &again);
    }

    fn sign_tombstone_again(&self, draft: &mut Draft<'_>, id: HostId, gone: &Gone) {
        let again = StoredTombstone {
            tombstone: StoredSigned::from(&self.authority.tombstone_again(&gone.signed)),
            tls_key_hash: gone.tls_key_hash,
            removed: gone.removed.clone(),
            former: gone.former.clone(),
            revoked_key: gone.revoked_key,
        };
        draft.put(Place::Tombstone(id).key(), &again);
    }
}

//! The end of a membership: a host that is removed, revoked or leaves. What stays is a tombstone,
//! its name and addresses kept from others for a while, and where the news of it has arrived.
//!
//! A removal is housekeeping: the machine may join anew. A revocation is a suspicion: its keys are
//! never let in again while the tombstone is kept, and neither is the machine under its old name
//! before the certificates of that name have expired.

use std::collections::BTreeSet;
use std::time::Duration;

use model::admin::{RemovedHost, RemovedHostView};
use model::control::RefusalCode;
use model::ids::HostId;
use model::name::Name;
use model::record::Tombstone;
use model::time::Now;
use trust::authority::HOST_CERTIFICATE_LIFETIME;

use crate::audit::Stamp;
use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{Rejection, Reply};
use crate::request::Caller;
use crate::state::{Gone, Host};
use crate::stored::{
    StoredAddress, StoredFormer, StoredName, StoredPruned, StoredSigned, StoredTombstone,
};
use crate::work::{Answer, Draft, Plan};

/// How long the name of a removed host is kept from others, so that whoever still looks for the old
/// one does not find somebody else. The same machine may have it back at once.
const NAME_RESERVED_FOR: Duration = Duration::from_secs(15 * 60);

/// How long the addresses of a removed host are kept from others: longer than anybody remembers
/// where a name pointed to.
pub(crate) const ADDRESS_RESTS_FOR: Duration = Duration::from_secs(24 * 3600);

/// Why a membership ends.
enum End {
    Removed,
    Revoked,
}

impl Fleet {
    pub(crate) fn plan_removal(
        &mut self,
        caller: &Caller,
        name: &Name,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let host = self.state.known_host(name)?.clone();
        let reason = format!("removed by {}", caller.name);
        let stamp = Stamp::new(&caller.name, now.unix);
        Ok(self.plan_end_of(&host, End::Removed, reason, stamp, now))
    }

    pub(crate) fn plan_revocation(
        &mut self,
        caller: &Caller,
        name: &Name,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let host = self.state.known_host(name)?.clone();
        let because = match caller.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let reason = format!("revoked by {}{because}", caller.name);
        let stamp = Stamp::new(&caller.name, now.unix);
        Ok(self.plan_end_of(&host, End::Revoked, reason, stamp, now))
    }

    pub(crate) fn plan_leave(&mut self, host: HostId, now: Now) -> Result<Plan, Rejection> {
        let host = self.state.hosts.get(&host).cloned().ok_or_else(|| {
            Rejection::new(
                RefusalCode::NotFound,
                "this host is no longer a member of the fleet",
            )
        })?;
        let stamp = Stamp::new(format!("host {}", host.record.name), now.unix);
        Ok(self.plan_end_of(&host, End::Removed, "left by itself".to_owned(), stamp, now))
    }

    /// Plans a removal: a tombstone in place of the record; name and addresses kept from others for
    /// a while.
    fn plan_end_of(&self, host: &Host, end: End, reason: String, removed: Stamp, now: Now) -> Plan {
        let record = &host.record;
        let tombstone = Tombstone {
            fleet: record.fleet,
            host: record.host,
            name: record.name.clone(),
            revision: self.state.next_revision(),
            reason,
        };
        let (reserved_for, machine_id, revoked_key) = match end {
            End::Removed => (NAME_RESERVED_FOR, host.machine_id.clone(), None),
            // Nobody has the name while a certificate of that name is good for somebody.
            End::Revoked => (
                HOST_CERTIFICATE_LIFETIME,
                String::new(),
                Some(record.wireguard_key),
            ),
        };
        let name = StoredName {
            host: record.host,
            reserved_until_secs: Some((now.unix + reserved_for).as_secs()),
            machine_id,
        };
        let address = StoredAddress {
            host: record.host,
            resting_until_secs: Some((now.unix + ADDRESS_RESTS_FOR).as_secs()),
        };
        let stored = StoredTombstone {
            tombstone: StoredSigned::from(&self.authority.sign_tombstone(&tombstone)),
            tls_key_hash: record.tls_key_hash,
            removed,
            former: Some(StoredFormer {
                labels: record.labels.clone(),
                created: host.created.0,
                changed: host.revision.0,
            }),
            revoked_key,
        };
        let mut draft = Draft::new(&self.state);
        draft.delete(Place::Host(record.host).key());
        draft.put(Place::Tombstone(record.host).key(), &stored);
        draft.put(Place::Name(record.name.clone()).key(), &name);
        draft.put(Place::Address(host.address_index).key(), &address);
        draft.delete(Place::WireguardKey(record.wireguard_key).key());
        draft.delete(Place::TlsKey(record.tls_key_hash).key());
        if self.state.believers.contains_key(&record.host) {
            draft.delete(Place::Believer(record.host).key());
        }
        self.prune_tombstones(&mut draft);
        let answer = Answer::Removed(Box::new(self.host_view(host)));
        Plan::Commit {
            transaction: draft.finish(),
            answer,
        }
    }

    /// Makes room for one more tombstone: the oldest goes, with the names that it kept.
    fn prune_tombstones(&self, draft: &mut Draft<'_>) {
        if self.state.tombstones.len() < FleetLimits::TOMBSTONES_MAX {
            return;
        }
        let Some(&(revision, oldest)) = self.state.tombstones_by_revision.first() else {
            return;
        };
        draft.delete(Place::Tombstone(oldest).key());
        let signed = self.state.tombstones[&oldest].tombstone_revision;
        let pruned = StoredPruned {
            through: revision.0,
            signed: self.state.pruned.max(Some(signed)),
        };
        draft.put(Place::Pruned.key(), &pruned);
        let kept = self.state.names.iter();
        for (name, _) in kept.filter(|(_, owner)| owner.host == oldest) {
            draft.delete(Place::Name(name.clone()).key());
        }
    }

    /// Returns the hosts that are no more, the last to go first.
    pub(crate) fn removed_views(&self) -> Vec<RemovedHostView> {
        let newest_first = self.state.tombstones_by_revision.iter().rev();
        newest_first
            .map(|(_, id)| removed_view(*id, &self.state.tombstones[id]))
            .collect()
    }

    /// Tells of one that is no more, and which of those who have to know of it do.
    pub(crate) fn removed_host(&self, id: HostId) -> Result<Reply, Rejection> {
        let gone = self.state.tombstones.get(&id).ok_or_else(|| {
            let text =
                format!("no host {id} was removed; `meshctl hosts removed` shows which were");
            Rejection::new(RefusalCode::NotFound, text)
        })?;
        let seat = self.state.last_seat(id);
        let concerned = seat.map_or_else(BTreeSet::new, |seat| {
            self.state.interest.reached_from(&seat)
        });
        let mut told = RemovedHost {
            view: removed_view(id, gone),
            concerned: concerned.len(),
            arrived: 0,
            pending: Vec::new(),
            offline: Vec::new(),
        };
        let arrival = self.state.map_revision(gone.revision);
        for host in concerned {
            let Some(member) = self.state.hosts.get(&host) else {
                continue;
            };
            let applied = self.presences.of(host).and_then(|it| it.applied.as_ref());
            if applied.is_some_and(|applied| applied.revision >= arrival) {
                told.arrived += 1;
            } else if self.sessions.is_online(host) {
                told.pending.push(member.record.name.clone());
            } else {
                told.offline.push(member.record.name.clone());
            }
        }
        told.pending.sort();
        told.offline.sort();
        Ok(Reply::RemovedHost(told))
    }
}

fn removed_view(id: HostId, gone: &Gone) -> RemovedHostView {
    RemovedHostView {
        id,
        name: gone.name.clone(),
        reason: gone.reason.clone(),
        removed_by: gone.removed.by.clone(),
        removed_secs: gone.removed.at_secs,
        revoked: gone.revoked_key.is_some(),
    }
}

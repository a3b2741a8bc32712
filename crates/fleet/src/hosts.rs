//! Hosts as operators see and change them: views, labels, removal.

use std::time::Duration;

use model::admin::{CoordinatorStatus, HostView};
use model::control::RefusalCode;
use model::ids::HostId;
use model::limits::Limits;
use model::name::{Labels, Name};
use model::record::{HostRecord, Tombstone};
use model::time::Now;

use crate::audit::Stamp;
use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{Rejection, Reply};
use crate::request::Caller;
use crate::state::Host;
use crate::stored::{
    StoredAddress, StoredFormer, StoredHost, StoredName, StoredPruned, StoredSigned,
    StoredTombstone,
};
use crate::work::{Answer, Draft, Plan};

/// How long the name of a removed host is kept from others, so that whoever still looks for the old
/// one does not find somebody else. The same machine may have it back at once.
pub(crate) const NAME_RESERVED_FOR: Duration = Duration::from_secs(15 * 60);

/// How long the addresses of a removed host are kept from others: longer than anybody remembers
/// where a name pointed to.
pub(crate) const ADDRESS_RESTS_FOR: Duration = Duration::from_secs(24 * 3600);

impl Fleet {
    pub(crate) fn status(&self) -> CoordinatorStatus {
        let statement = &self.state.statement;
        CoordinatorStatus {
            version: self.config.software_version.clone(),
            fleet: statement.fleet,
            fleet_name: statement.fleet_name.clone(),
            dns_suffix: statement.dns_suffix.clone(),
            overlay_v4: statement.overlay.v4,
            overlay_v6: statement.overlay.v6,
            root_pin: self.authority.root_pin().to_string(),
            revision: self.state.map_revision(self.state.revision),
            hosts: self.state.hosts.len(),
            hosts_online: self.sessions.online(),
            policy: self.state.policy.version,
        }
    }

    /// Returns all hosts, in the order of their names.
    pub(crate) fn host_views(&self) -> Vec<HostView> {
        let mut views: Vec<_> = self
            .state
            .hosts
            .values()
            .map(|it| self.host_view(it))
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    pub(crate) fn host_view(&self, host: &Host) -> HostView {
        let presence = self.presences.of(host.record.host);
        let applied = presence.and_then(|it| it.applied.as_ref());
        HostView {
            id: host.record.host,
            name: host.record.name.clone(),
            labels: host.record.labels.clone(),
            addresses: host.record.addresses,
            wireguard_key: host.record.wireguard_key,
            online: self.sessions.is_online(host.record.host),
            joined_secs: host.joined.at_secs,
            last_seen_secs: presence
                .and_then(|it| it.last_seen)
                .map(|time| time.as_secs()),
            software_version: presence.and_then(|it| it.software_version.clone()),
            endpoints: presence
                .map(|it| {
                    it.endpoints()
                        .iter()
                        .map(|endpoint| endpoint.address)
                        .collect()
                })
                .unwrap_or_default(),
            applied_policy: applied.map(|it| it.policy),
            apply_error: applied.and_then(|it| it.error.clone()),
        }
    }

    pub(crate) fn plan_labels(
        &mut self,
        caller: &Caller,
        name: &Name,
        labels: &Labels,
        now: Now,
    ) -> Result<Plan, Rejection> {
        check_label_count(labels)?;
        let host = self.state.known_host(name)?;
        if host.record.labels == *labels {
            return Ok(Plan::Answer(Reply::Host(self.host_view(host))));
        }
        let record = HostRecord {
            labels: labels.clone(),
            revision: self.state.next_revision(),
            ..host.record.clone()
        };
        let id = record.host;
        let stored = StoredHost {
            record: StoredSigned::from(&self.authority.sign_record(&record)),
            address_index: host.address_index,
            token: host.token,
            machine_id: host.machine_id.clone(),
            joined: host.joined.clone(),
            changed: Stamp::new(&caller.name, now.unix),
        };
        let mut draft = Draft::new(&self.state);
        draft.put(Place::Host(id).key(), &stored);
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::Labelled(id),
        })
    }

    pub(crate) fn plan_removal(
        &mut self,
        caller: &Caller,
        name: &Name,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let host = self.state.known_host(name)?.clone();
        let reason = format!("removed by {}", caller.name);
        Ok(self.plan_end_of(&host, reason, Stamp::new(&caller.name, now.unix), now))
    }

    pub(crate) fn plan_leave(&mut self, host: HostId, now: Now) -> Result<Plan, Rejection> {
        let host = self.state.hosts.get(&host).cloned().ok_or_else(|| {
            Rejection::new(
                RefusalCode::NotFound,
                "this host is no longer a member of the fleet",
            )
        })?;
        let stamp = Stamp::new(format!("host {}", host.record.name), now.unix);
        Ok(self.plan_end_of(&host, "left by itself".to_owned(), stamp, now))
    }

    /// Plans a removal: a tombstone in place of the record; name and addresses kept from others for
    /// a while.
    fn plan_end_of(&self, host: &Host, reason: String, removed: Stamp, now: Now) -> Plan {
        let record = &host.record;
        let tombstone = Tombstone {
            fleet: record.fleet,
            host: record.host,
            name: record.name.clone(),
            revision: self.state.next_revision(),
            reason,
        };
        let name = StoredName {
            host: record.host,
            reserved_until_secs: Some((now.unix + NAME_RESERVED_FOR).as_secs()),
            machine_id: host.machine_id.clone(),
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
        };
        let mut draft = Draft::new(&self.state);
        draft.delete(Place::Host(record.host).key());
        draft.put(Place::Tombstone(record.host).key(), &stored);
        draft.put(Place::Name(record.name.clone()).key(), &name);
        draft.put(Place::Address(host.address_index).key(), &address);
        draft.delete(Place::WireguardKey(record.wireguard_key).key());
        self.prune_tombstones(&mut draft);
        let answer = Answer::Removed(Box::new(self.host_view(host)));
        Plan::Commit {
            transaction: draft.finish(),
            answer,
        }
    }

    /// Makes room for one more tombstone: the oldest goes, with the name that it kept.
    fn prune_tombstones(&self, draft: &mut Draft<'_>) {
        if self.state.tombstones.len() < FleetLimits::TOMBSTONES_MAX {
            return;
        }
        let Some(&(revision, oldest)) = self.state.tombstones_by_revision.first() else {
            return;
        };
        draft.delete(Place::Tombstone(oldest).key());
        draft.put(
            Place::Pruned.key(),
            &StoredPruned {
                through: revision.0,
            },
        );
        let name = &self.state.tombstones[&oldest].name;
        if self
            .state
            .names
            .get(name)
            .is_some_and(|owner| owner.host == oldest)
        {
            draft.delete(Place::Name(name.clone()).key());
        }
    }
}

pub(crate) fn check_label_count(labels: &Labels) -> Result<(), Rejection> {
    let (count, max) = (labels.len(), Limits::LABELS_PER_HOST);
    if count <= max {
        return Ok(());
    }
    let text = format!("{count} labels; a host has at most {max}");
    Err(Rejection::new(RefusalCode::Invalid, text))
}

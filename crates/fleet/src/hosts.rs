//! Hosts as operators see them, and their labels. Names are `renaming`'s, ends `removal`'s.

use model::admin::{CoordinatorStatus, HostView, SetLabels};
use model::control::RefusalCode;
use model::limits::Limits;
use model::name::{Labels, Name};
use model::record::HostRecord;
use model::time::Now;

use crate::audit::Stamp;
use crate::fleet::Fleet;
use crate::keys::Place;
use crate::output::{Rejection, Reply};
use crate::request::Caller;
use crate::state::Host;
use crate::stored::{StoredHost, StoredSigned};
use crate::work::{Answer, Draft, Plan};

impl Fleet {
    pub(crate) fn status(&self) -> CoordinatorStatus {
        let statement = &self.state.statement;
        CoordinatorStatus {
            addresses: self.config.advertise.clone(),
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
            disbelieving: self.disbelieving,
            alarms: self.alarms.clone(),
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
            trouble: applied.and_then(|it| it.trouble.clone()),
        }
    }

    pub(crate) fn plan_labels(
        &mut self,
        caller: &Caller,
        name: &Name,
        set: &SetLabels,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let labels = &set.labels;
        check_label_count(labels)?;
        let host = self.state.known_host(name)?;
        let is_overtaken = |base: &Labels| *base != host.record.labels;
        if set.base.as_ref().is_some_and(is_overtaken) {
            let text = format!(
                "the labels of {name} were changed meanwhile; look at them (`meshctl hosts show \
                 {name}`), and try again"
            );
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        if host.record.labels == *labels {
            return Ok(Plan::Answer(Reply::Host(self.host_view(host))));
        }
        let record = HostRecord {
            labels: labels.clone(),
            revision: self.state.next_revision(),
            ..host.record.clone()
        };
        let mut draft = Draft::new(&self.state);
        self.put_record(
            &mut draft,
            host,
            &record,
            Stamp::new(&caller.name, now.unix),
        );
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer: Answer::HostChanged(record.host),
        })
    }

    /// Puts a new record in the place of a host's last one.
    pub(crate) fn put_record(
        &self,
        draft: &mut Draft<'_>,
        host: &Host,
        record: &HostRecord,
        changed: Stamp,
    ) {
        let stored = StoredHost {
            record: StoredSigned::from(&self.authority.sign_record(record)),
            address_index: host.address_index,
            token: host.token,
            machine_id: host.machine_id.clone(),
            joined: host.joined.clone(),
            changed,
        };
        draft.put(Place::Host(record.host).key(), &stored);
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

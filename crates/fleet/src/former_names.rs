//! Names in a policy that their hosts no longer have: what they meant when a version came into force,
//! so that it can come back whatever hosts are called since, and whoever took a name does not inherit
//! its rules; and what their hosts are called, for messages.

use std::collections::BTreeMap;

use model::ids::{HostId, PolicyVersion};
use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, Selector};
use policy::{FormerName, FormerNames};

use crate::apply::decode_bundle;
use crate::fleet::Fleet;

impl Fleet {
    /// Returns what names meant in a version that nobody has now, or another host. Nothing, when it
    /// cannot be read: then its names mean what they mean now, or are told to be unknown.
    pub(crate) fn names_of_version(&self, version: PolicyVersion) -> FormerNames {
        let kept = self.state.policies.get(&version);
        let bundle = kept.and_then(|kept| decode_bundle(&kept.stored).ok());
        let current = self.current_names();
        let meant = bundle.iter().flat_map(meant_by);
        let former = meant.filter(|(name, host)| current.get(name) != Some(host));
        FormerNames {
            names: former
                .map(|(name, host)| (name.clone(), self.former(host)))
                .collect(),
            are_bound: true,
        }
    }

    /// Returns the names that are kept for hosts that had them a while ago.
    pub(crate) fn names_of_late(&self) -> FormerNames {
        let late = self.state.names.iter();
        let late = late.filter(|(_, owner)| owner.reserved_until_secs.is_some());
        FormerNames {
            names: late
                .map(|(name, owner)| (name.clone(), self.former(owner.host)))
                .collect(),
            are_bound: false,
        }
    }

    fn former(&self, host: HostId) -> FormerName {
        let member = self.state.hosts.get(&host);
        FormerName {
            host,
            now: member.map(|it| it.record.name.clone()),
        }
    }

    fn current_names(&self) -> BTreeMap<&Name, HostId> {
        let hosts = self.state.hosts.values().map(|it| &it.record);
        hosts.map(|record| (&record.name, record.host)).collect()
    }
}

/// Each host that a bundle names, as it was bound.
fn meant_by(bundle: &Bundle) -> impl Iterator<Item = (&Name, HostId)> {
    let services = bundle.services.iter();
    let endpoints = services.flat_map(|service| &service.endpoints);
    let rules = bundle.allow.iter().chain(&bundle.deny);
    let ends = rules.flat_map(|rule| rule.from.iter().chain(&rule.to));
    let workloads = bundle.workloads.iter().flat_map(|workload| &workload.hosts);
    endpoints
        .chain(workloads)
        .chain(ends)
        .filter_map(|selector| match selector {
            Selector::Host { name, id } => Some((name, (*id)?)),
            _ => None,
        })
}

/// Returns the hosts that tests may speak of: those of the fleet, and once more those that a policy
/// calls by a former name, under it. Who has that name now cannot be spoken of.
pub(crate) fn also_by_former_names(
    hosts: &[HostRecord],
    former: &FormerNames,
) -> Option<Vec<HostRecord>> {
    if !former.are_bound || former.names.is_empty() {
        return None;
    }
    let by_id: BTreeMap<HostId, &HostRecord> = hosts.iter().map(|it| (it.host, it)).collect();
    let again = former.names.iter().filter_map(|(name, once)| {
        Some(HostRecord {
            name: name.clone(),
            ..(*by_id.get(&once.host)?).clone()
        })
    });
    let others = hosts
        .iter()
        .filter(|it| !former.names.contains_key(&it.name));
    Some(others.cloned().chain(again).collect())
}

//! When everything is right again: every machine is what its operators want, and knows and enforces
//! what the fleet has agreed on.

use std::collections::{BTreeMap, BTreeSet};

use fleet::{AdminRequest, Reply};
use model::admin::HostView;
use model::ids::{HostId, PolicyVersion};
use model::local::HostState;
use model::time::Instant;

use super::World;
use super::phases::{Phase, Round};
use super::services::wrong_catalogue;
use crate::event::Who;
use crate::host::Host;
use crate::operator::Errand;
use crate::truth::Truth;

impl World {
    pub(super) fn look_whether_settled(&mut self, since: Instant, round: Round) {
        let hosts = self.ask(AdminRequest::ListHosts);
        let status = self.ask(AdminRequest::Status);
        let (Some(Reply::Hosts(views)), Some(Reply::Status(status))) = (hosts, status) else {
            return;
        };
        self.remove_ghosts(&views);
        let bundle = self.operator.policies.bundle(status.policy).cloned();
        if bundle.is_none() {
            // Nobody outside knows what it means: another is applied.
            self.run_errand(Errand::Apply);
        }
        let truth = Truth::new(&views, bundle);
        let is_asking = self.is_recovering && self.tend_recovery();
        let what = match is_asking {
            true => Some("the coordinator still asks its hosts what they remember".to_owned()),
            false => self.what_is_not_settled(&truth, status.policy),
        };
        let what = what.or_else(|| self.end_rotation());
        match what {
            None if let Round::AfterChange { changed } = round => {
                self.check_unconcerned(changed, &truth);
                self.phase = Phase::Over;
            }
            None => {
                self.is_recovering = false;
                self.listen();
                let after = self.now - since;
                self.say(Who::World, format!("everything is right after {after:?}"));
                self.phase = Phase::Probing {
                    since: self.now,
                    round,
                };
                self.probe_everybody(&truth);
                self.truth = truth.into();
            }
            Some(what) if self.now - since > round.settles_within() => {
                self.violate("everything becomes right in time", what);
            }
            Some(_) => {}
        }
    }

    /// Operators remove members that no machine is any more.
    fn remove_ghosts(&mut self, views: &[HostView]) {
        let alive: BTreeSet<HostId> = self.member_ids().collect();
        for ghost in views.iter().filter(|view| !alive.contains(&view.id)) {
            let is_joining = |host: &Host| {
                host.name == ghost.name && host.state(self.now) == Some(HostState::Joining)
            };
            if !self.hosts.iter().any(is_joining) {
                self.run_errand(Errand::Remove(ghost.name.clone()));
            }
        }
    }

    fn member_ids(&self) -> impl Iterator<Item = HostId> {
        self.hosts.iter().filter_map(|host| {
            let running = host.running.as_ref()?;
            let status = running.agent.status(host.now(self.now));
            let is_member = matches!(status.state, HostState::Online | HostState::Autonomous);
            status.detail.filter(|_| is_member).map(|detail| detail.id)
        })
    }

    /// Says what is not yet as it has to be.
    pub(crate) fn what_is_not_settled(
        &self,
        truth: &Truth,
        policy: PolicyVersion,
    ) -> Option<String> {
        if !truth.is_certain() {
            return Some(format!("nobody outside knows what policy {policy} means"));
        }
        if let Some(unfinished) = self.unfinished_errand() {
            return Some(unfinished);
        }
        let is_listed = |host: &Host| truth.hosts.values().any(|member| member.name == host.name);
        if let Some(wrong) = self
            .hosts
            .iter()
            .find(|host| host.is_wanted != is_listed(host))
        {
            let (name, is_wanted) = (&wrong.name, wrong.is_wanted);
            let state = wrong.state(self.now);
            return Some(format!(
                "{name} is {state:?}, wanted as a member: {is_wanted}"
            ));
        }
        self.hosts.iter().find_map(|host| {
            let why = self.what_is_wrong_with(host, truth, policy)?;
            Some(format!("{}: {why}", host.name))
        })
    }

    fn what_is_wrong_with(
        &self,
        host: &Host,
        truth: &Truth,
        policy: PolicyVersion,
    ) -> Option<String> {
        let Some(running) = &host.running else {
            return Some("it does not run".to_owned());
        };
        let status = running.agent.status(host.now(self.now));
        if !host.is_wanted {
            let is_out = status.state == HostState::Unenrolled && running.interface.is_none();
            return (!is_out).then(|| format!("it should be out, and is {:?}", status.state));
        }
        let Some(detail) = status.detail.filter(|_| status.state == HostState::Online) else {
            return Some(format!("it should be online, and is {:?}", status.state));
        };
        if detail.policy != Some(policy) {
            return Some(format!(
                "it enforces policy {:?} instead of {policy}",
                detail.policy
            ));
        }
        if !detail.alarms.is_empty() {
            return Some(format!("alarms stand: {:?}", detail.alarms));
        }
        if running.agent.next_key().is_some() {
            return Some("it is about to change its key".to_owned());
        }
        let Some(map) = &host.in_force else {
            return Some("it enforces nothing".to_owned());
        };
        truth
            .objection(map)
            .or_else(|| wrong_name(host, truth))
            .or_else(|| wrong_catalogue(host))
    }
}

/// Says which name does not resolve as it should: by the host's own map, and to every endpoint of a
/// service that the host may reach.
fn wrong_name(host: &Host, truth: &Truth) -> Option<String> {
    let (running, map) = (host.running.as_ref()?, host.in_force.as_ref()?);
    let found: BTreeMap<_, _> = running
        .names
        .iter()
        .map(|(name, entry)| (name.clone(), entry.addresses.clone()))
        .collect();
    let expected = map.names();
    if found != expected {
        return Some(format!("names are {found:?} instead of {expected:?}"));
    }
    truth
        .reachable_services(map.me.host)
        .into_iter()
        .find_map(|(service, endpoints)| {
            let addresses = found.get(service);
            let leads_to = |to: &&&model::record::HostRecord| {
                !addresses.is_some_and(|it| it.contains(&to.addresses))
            };
            let missing = endpoints.iter().find(leads_to)?;
            Some(format!("{service} does not lead to {}", missing.name))
        })
}

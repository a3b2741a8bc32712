//! The course of a run: the fleet forms, things go wrong, everything has to be right again; then it
//! has to live without its coordinator, and be right once more.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::{AdminRequest, Reply};
use model::admin::HostView;
use model::ids::HostId;
use model::local::HostState;
use model::time::Instant;

use super::World;
use super::flows::{one_family, some_speech};
use crate::event::{Event, HostIndex, Who};
use crate::network::Weather;
use crate::operator::Errand;
use crate::traffic::{Reason, Wish};

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Hosts start and join.
    Joining,
    /// Things go wrong.
    Faults,
    /// Nothing goes wrong any more; everything has to become right.
    Settling { since: Instant, round: Round },
    /// Pairs are tried.
    Probing { since: Instant, round: Round },
    /// The coordinator is gone and some hosts were restarted.
    Alone { since: Instant },
    /// All is done.
    Over,
}

/// What the fleet has gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    AfterFaults,
    WithoutCoordinator,
    AfterReunion,
}

/// How often the course is looked at.
const TICK: Duration = Duration::from_secs(5);
/// Within what everything has to be right after the last fault. The longest wait that a brain may
/// be in is a minute: a coordinator may send a host away for that long.
const SETTLE_WITHIN: Duration = Duration::from_secs(300);
/// How long the fleet is alone before it is tried.
const ALONE_FOR: Duration = Duration::from_secs(150);
/// Probes begin within this time.
const PROBES_WITHIN: Duration = Duration::from_secs(20);
/// Hosts that stay out at the end.
const STAY_OUT: usize = 2;
/// Hosts that are restarted while the coordinator is gone.
const RESTARTED: usize = 6;

impl World {
    pub(crate) fn begin(&mut self) {
        self.start_coordinator();
        for position in 0..self.hosts.len() {
            let index = self.hosts[position].index;
            let starts = self.fate.between(Duration::ZERO, self.scenario.joining / 3);
            self.hosts[position].is_wanted = self.fate.chance(self.scenario.early_per_mille);
            let since = self.hosts[position].last_run;
            self.push_in(starts, Event::HostStarts { host: index, since });
        }
        self.push_in(TICK, Event::Tick);
        self.push_in(self.scenario.joining / 2, Event::FlowOpens);
    }

    pub(crate) fn tick(&mut self) {
        self.push_in(TICK, Event::Tick);
        self.check_acknowledged();
        self.tend_members();
        let elapsed = self.now.since_start();
        match self.phase {
            Phase::Joining if elapsed >= self.scenario.joining => self.let_things_go_wrong(),
            Phase::Faults if elapsed >= self.scenario.joining + self.scenario.faults => {
                self.put_right();
            }
            Phase::Settling { since, round } => self.look_whether_settled(since, round),
            Phase::Probing { since, round } => self.look_whether_probed(since, round),
            Phase::Alone { since } if self.now - since >= ALONE_FOR => self.probe_alone(),
            _ => {}
        }
    }

    /// Operators make members of the machines that should be, and the reverse.
    fn tend_members(&mut self) {
        if self.coordinator.running.is_none() {
            return;
        }
        for position in 0..self.hosts.len() {
            let host = &self.hosts[position];
            let (index, is_wanted) = (host.index, host.is_wanted);
            match host.state(self.now) {
                Some(HostState::Unenrolled | HostState::Removed) if is_wanted => {
                    self.push_errand(Errand::Join(index), 4);
                }
                Some(HostState::Unenrolled) | None => {}
                Some(_) if !is_wanted => self.leave(index),
                Some(_) => {}
            }
        }
    }

    fn let_things_go_wrong(&mut self) {
        if self.scenario.faults.is_zero() {
            self.run_errand(Errand::Apply);
            return self.put_right();
        }
        self.phase = Phase::Faults;
        self.network.weather = Weather::USUAL;
        self.queue.push(self.now, Event::FaultStrikes);
    }

    /// Every fault ends: what is left must become right by itself.
    fn put_right(&mut self) {
        self.say(Who::World, "every fault is over".to_owned());
        self.network.calm();
        self.coordinator.store.is_full = false;
        self.start_coordinator();
        let mut out: Vec<usize> = (0..self.hosts.len()).collect();
        self.fate.shuffle(&mut out);
        out.truncate(STAY_OUT);
        for position in 0..self.hosts.len() {
            let host = &mut self.hosts[position];
            host.clock_error = 0;
            host.disk.is_full = false;
            host.is_wanted = !out.contains(&position);
            let index = host.index;
            self.start_host(index);
        }
        self.phase = Phase::Settling {
            since: self.now,
            round: Round::AfterFaults,
        };
    }
}

/// Settling.
impl World {
    fn look_whether_settled(&mut self, since: Instant, round: Round) {
        let Some(Reply::Hosts(views)) = self.ask(AdminRequest::ListHosts) else {
            return;
        };
        self.remove_ghosts(&views);
        match self.what_is_not_settled(&views) {
            None => {
                let after = self.now - since;
                self.say(Who::World, format!("everything is right after {after:?}"));
                self.phase = Phase::Probing {
                    since: self.now,
                    round,
                };
                self.probe_everybody();
            }
            Some(what) if self.now - since > SETTLE_WITHIN => {
                self.violate("everything becomes right in time", what);
            }
            Some(_) => {}
        }
    }

    /// Operators remove members that no machine is any more.
    fn remove_ghosts(&mut self, views: &[HostView]) {
        let alive: BTreeSet<HostId> = self.member_ids().collect();
        for ghost in views.iter().filter(|view| !alive.contains(&view.id)) {
            let is_joining = |host: &&crate::host::Host| {
                host.name == ghost.name && host.state(self.now) == Some(HostState::Joining)
            };
            if !self.hosts.iter().any(|host| is_joining(&host)) {
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
    fn what_is_not_settled(&mut self, views: &[HostView]) -> Option<String> {
        let Some(Reply::Status(status)) = self.ask(AdminRequest::Status) else {
            return Some("the coordinator does not answer".to_owned());
        };
        let wanted = self.hosts.iter().filter(|host| host.is_wanted).count();
        if views.len() != wanted {
            let names: Vec<String> = views.iter().map(|view| view.name.to_string()).collect();
            let missing: Vec<String> = self
                .hosts
                .iter()
                .filter(|host| host.is_wanted != names.contains(&host.name.to_string()))
                .map(|host| format!("{} ({:?})", host.name, host.state(self.now)))
                .collect();
            return Some(format!(
                "{} members instead of {wanted}: {missing:?}",
                views.len()
            ));
        }
        self.hosts.iter().find_map(|host| {
            let why = self.what_is_wrong_with(host, views, status.policy)?;
            Some(format!("{}: {why}", host.name))
        })
    }

    fn what_is_wrong_with(
        &self,
        host: &crate::host::Host,
        views: &[HostView],
        policy: model::ids::PolicyVersion,
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
        let Some(map) = &host.in_force else {
            return Some("it enforces nothing".to_owned());
        };
        let knows = |view: &HostView| {
            map.hosts().any(|known| {
                known.host == view.id
                    && known.name == view.name
                    && known.labels == view.labels
                    && known.addresses == view.addresses
                    && known.wireguard_key == view.wireguard_key
            })
        };
        if let Some(unknown) = views.iter().find(|view| !knows(view)) {
            return Some(format!("it does not know {}", unknown.name));
        }
        if map.hosts().count() != views.len() {
            return Some("it knows hosts that are gone".to_owned());
        }
        self.wrong_name(host)
    }

    /// Returns a name that does not resolve as the map says.
    fn wrong_name(&self, host: &crate::host::Host) -> Option<String> {
        let (running, map) = (host.running.as_ref()?, host.in_force.as_ref()?);
        let found: std::collections::BTreeMap<_, _> = running
            .names
            .iter()
            .map(|(name, entry)| (name.clone(), entry.addresses.clone()))
            .collect();
        let expected = map.names();
        (found != expected).then(|| format!("names are {found:?} instead of {expected:?}"))
    }
}

/// Probing.
impl World {
    /// Every host tries every other.
    fn probe_everybody(&mut self) {
        let members: Vec<HostIndex> = self
            .hosts
            .iter()
            .filter(|host| host.is_wanted)
            .map(|host| host.index)
            .collect();
        for opener in &members {
            for target in &members {
                self.probe(*opener, *target);
            }
        }
    }

    fn probe(&mut self, opener: HostIndex, target: HostIndex) {
        if opener == target {
            return;
        }
        let (Some(here), Some(there)) = (
            self.host(opener).in_force.clone(),
            self.host(target).in_force.clone(),
        ) else {
            return self.violate("members enforce something", format!("{opener} or {target}"));
        };
        let speech = some_speech(&mut self.traffic.dice, &here, &there.me, 500);
        let is_v4 = self.traffic.dice.chance(500);
        let (ip_protocol, port) = (speech.ip_protocol(), speech.port());
        let is_allowed = here.allows(&here.me, &there.me, ip_protocol, port);
        if is_allowed != there.allows(&here.me, &there.me, ip_protocol, port) {
            let what = format!("{opener} -> {target} {speech:?}: {is_allowed} at its own end");
            return self.violate("both ends decide alike", what);
        }
        let resolved = self.host(opener).running.as_ref().and_then(|running| {
            running
                .names
                .lookup(self.host(target).name.as_str())
                .map(|it| it.addresses.clone())
        });
        let Some([address]) = resolved.as_deref() else {
            return self.violate(
                "names resolve",
                format!("{target} on {opener}: {resolved:?}"),
            );
        };
        if *address != there.me.addresses {
            return self.violate(
                "names resolve",
                format!("{target} on {opener}: {address:?}"),
            );
        }
        let (source, destination) = one_family(here.me.addresses, *address, is_v4);
        let reason = Reason::Probe { is_allowed };
        let wish = Wish {
            opener,
            source,
            destination,
            speech,
            reason,
        };
        let id = self.traffic.open(wish);
        let starts = self.traffic.dice.between(Duration::ZERO, PROBES_WITHIN);
        self.push_in(starts, Event::FlowContinues(id));
    }

    fn look_whether_probed(&mut self, since: Instant, round: Round) {
        if self.now - since < PROBES_WITHIN || self.traffic.open_probes().next().is_some() {
            return;
        }
        self.say(Who::World, format!("every pair was tried: {round:?}"));
        match round {
            Round::AfterFaults => self.leave_alone(),
            Round::WithoutCoordinator => {
                self.start_coordinator();
                let round = Round::AfterReunion;
                self.phase = Phase::Settling {
                    since: self.now,
                    round,
                };
            }
            Round::AfterReunion => self.phase = Phase::Over,
        }
    }

    /// The coordinator goes, and some hosts restart without it.
    fn leave_alone(&mut self) {
        let is_dark = self.fate.chance(500);
        self.crash_coordinator(is_dark);
        for index in self.some_members() {
            let is_dark = self.fate.chance(500);
            self.crash_host(index, is_dark);
            let down = self.fate.secs(0, 30);
            let since = self.host(index).last_run;
            self.push_in(down, Event::HostStarts { host: index, since });
        }
        self.phase = Phase::Alone { since: self.now };
    }

    fn some_members(&mut self) -> Vec<HostIndex> {
        let mut members: Vec<HostIndex> = self
            .hosts
            .iter()
            .filter(|host| host.is_wanted)
            .map(|host| host.index)
            .collect();
        self.fate.shuffle(&mut members);
        members.truncate(RESTARTED);
        members
    }

    fn probe_alone(&mut self) {
        for host in &self.hosts {
            let state = host.state(self.now);
            if host.is_wanted && state != Some(HostState::Autonomous) {
                let what = format!("{} is {state:?}", host.name);
                return self.violate("hosts work without a coordinator", what);
            }
        }
        self.phase = Phase::Probing {
            since: self.now,
            round: Round::WithoutCoordinator,
        };
        self.probe_everybody();
    }
}

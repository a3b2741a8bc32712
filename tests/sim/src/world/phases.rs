//! The course of a run: the fleet forms, things go wrong, everything has to be right again; then it
//! has to live without its coordinator, and be right once more.

use std::time::Duration;

use model::ids::HostId;
use model::local::HostState;
use model::time::Instant;

use super::World;
use crate::event::{Event, HostIndex, Who};
use crate::network::Weather;
use crate::operator::Errand;

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
    /// The coordinator was restored from an old backup.
    AfterRestore,
    /// One host got other labels, when all was well.
    AfterChange {
        changed: HostId,
    },
}

impl Round {
    /// Returns within what everything has to be right.
    pub(super) const fn settles_within(self) -> Duration {
        match self {
            // The longest wait that a brain may be in is a minute: a coordinator may send a host
            // away for that long.
            Self::AfterFaults
            | Self::WithoutCoordinator
            | Self::AfterReunion
            | Self::AfterRestore => Duration::from_secs(300),
            Self::AfterChange { .. } => Duration::from_secs(10),
        }
    }
}

/// How often the course is looked at.
const TICK: Duration = Duration::from_secs(5);
/// How long the fleet is alone before it is tried.
const ALONE_FOR: Duration = Duration::from_secs(150);
/// Probes begin within this time.
pub(super) const PROBES_WITHIN: Duration = Duration::from_secs(20);
/// Hosts that stay out at the end.
const STAY_OUT: usize = 2;
/// Hosts that are restarted while the coordinator is gone.
const RESTARTED: usize = 6;

impl World {
    pub(crate) fn begin(&mut self) {
        self.start_coordinator();
        if self.scenario.sites > 1 {
            // The first policy, which lets everybody ping everybody, makes everybody known to all.
            self.run_errand(Errand::Apply);
        }
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
        self.back_up();
        self.begin_rotation();
        // A store that was put back knows little before its hosts have noticed and told.
        if !self.is_recovering {
            self.check_acknowledged();
        }
        self.check_strangers();
        self.look_at_paths();
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

    /// Who is no member has no part in the overlay.
    fn check_strangers(&mut self) {
        let is_stranger = |state| {
            matches!(
                state,
                HostState::Unenrolled | HostState::Joining | HostState::Removed
            )
        };
        let intruder = self.hosts.iter().find_map(|host| {
            let (running, state) = (host.running.as_ref()?, host.state(self.now)?);
            let takes_part =
                host.in_force.is_some() || running.interface.is_some() || !running.names.is_empty();
            (is_stranger(state) && takes_part).then(|| format!("{} is {state:?}", host.name))
        });
        self.object("who is no member enforces and resolves nothing", intruder);
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
                // To leave from a clone would remove the host that it is a clone of.
                Some(_) if self.hosts[position].is_clone => {}
                Some(_) if !is_wanted || self.has_wrong_name(index) => {
                    self.leave(index);
                }
                Some(_) => {}
            }
        }
    }

    /// Returns whether the machine joined under the name of another.
    fn has_wrong_name(&self, index: HostIndex) -> bool {
        let host = self.host(index);
        let status = host
            .running
            .as_ref()
            .map(|it| it.agent.status(host.now(self.now)));
        let detail = status.and_then(|status| status.detail);
        detail.is_some_and(|detail| detail.name != host.name)
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
        self.coordinator.store.recover();
        self.coordinator.clock_error = 0;
        self.start_coordinator();
        let mut out: Vec<usize> = (0..self.hosts.len()).collect();
        self.fate.shuffle(&mut out);
        out.truncate(STAY_OUT);
        for position in 0..self.hosts.len() {
            let host = &mut self.hosts[position];
            host.clock_error = 0;
            host.disk.recover();
            host.is_wanted = !out.contains(&position);
            let index = host.index;
            self.put_rogue_right(index);
            self.wipe_clone(index);
            self.start_host(index);
        }
        self.phase = Phase::Settling {
            since: self.now,
            round: Round::AfterFaults,
        };
    }
}

/// What follows what.
impl World {
    fn look_whether_probed(&mut self, since: Instant, round: Round) {
        if self.now - since < PROBES_WITHIN || self.traffic.open_probes().next().is_some() {
            return;
        }
        self.say(Who::World, format!("every pair was tried: {round:?}"));
        self.check_quiet();
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
            Round::AfterReunion if self.scenario.is_restored => self.restore_backup(),
            Round::AfterReunion | Round::AfterRestore => self.change_one_thing(),
            Round::AfterChange { .. } => {}
        }
    }

    /// Every host must hear of a change at once, without another that brings it along.
    fn change_one_thing(&mut self) {
        let changed = self.some_members()[0];
        let Some(id) = self.host(changed).identity() else {
            return self.violate("members enforce something", changed.to_string());
        };
        self.listen();
        self.run_errand(Errand::Relabel(changed));
        let round = Round::AfterChange { changed: id };
        self.phase = Phase::Settling {
            since: self.now,
            round,
        };
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
        self.listen();
        self.phase = Phase::Probing {
            since: self.now,
            round: Round::WithoutCoordinator,
        };
        let truth = self.truth.clone();
        self.probe_everybody(&truth);
    }
}

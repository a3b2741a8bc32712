//! What goes wrong, how often, and for how long.

use std::time::Duration;

use model::local::HostState;

use super::World;
use super::phases::Phase;
use crate::event::{Event, HostIndex, Who};
use crate::network::{Place, Weather};
use crate::operator::Errand;

/// One kind of thing that goes wrong, or that people do at a bad moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    HostCrashes,
    CoordinatorCrashes,
    NetworkParts,
    HostIsCutOff,
    Storm,
    HostMoves,
    ClockJumps,
    DiskFills,
    StoreFills,
    PolicyChanges,
    PolicyRollsBack,
    LabelsChange,
    KeyIsRotated,
    HostIsRemoved,
    HostLeaves,
    HostJoinsLate,
    TokenIsRevoked,
    DiskSlowsDown,
    StoreSlowsDown,
    NatRebinds,
    CoordinatorClockJumps,
    HostTurnsRogue,
    DiskIsCloned,
}

/// Kinds and their shares.
const FAULTS: [(Fault, usize); 23] = [
    (Fault::HostCrashes, 16),
    (Fault::CoordinatorCrashes, 8),
    (Fault::NetworkParts, 6),
    (Fault::HostIsCutOff, 8),
    (Fault::Storm, 6),
    (Fault::HostMoves, 8),
    (Fault::ClockJumps, 5),
    (Fault::DiskFills, 4),
    (Fault::StoreFills, 3),
    (Fault::PolicyChanges, 14),
    (Fault::PolicyRollsBack, 3),
    (Fault::KeyIsRotated, 4),
    (Fault::LabelsChange, 10),
    (Fault::HostIsRemoved, 4),
    (Fault::HostLeaves, 4),
    (Fault::HostJoinsLate, 12),
    (Fault::TokenIsRevoked, 2),
    (Fault::DiskSlowsDown, 4),
    (Fault::StoreSlowsDown, 3),
    (Fault::NatRebinds, 4),
    (Fault::CoordinatorClockJumps, 2),
    (Fault::HostTurnsRogue, 5),
    (Fault::DiskIsCloned, 3),
];

const HOUR_SECS: i64 = 3600;
const YEAR_SECS: i64 = 365 * 24 * HOUR_SECS;

impl World {
    /// Something goes wrong, and something will again.
    pub(crate) fn fault_strikes(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let next = self
            .fate
            .between(Duration::ZERO, 2 * self.scenario.fault_every);
        self.push_in(next, Event::FaultStrikes);
        match self.pick_fault() {
            Fault::HostCrashes => self.strike_host(),
            Fault::CoordinatorCrashes => self.strike_coordinator(),
            Fault::NetworkParts => {
                let mut places: Vec<Place> =
                    self.hosts.iter().map(|it| Place::Host(it.index)).collect();
                places.push(Place::Coordinator);
                self.fate.shuffle(&mut places);
                places.truncate(1 + self.fate.below(places.len() / 2));
                self.part(places);
            }
            Fault::HostIsCutOff => {
                let index = self.any_host();
                self.part(vec![Place::Host(index)]);
            }
            Fault::Storm => {
                self.network.weather = Weather::storm(&mut self.fate);
                self.say(Who::Fault, format!("storm: {:?}", self.network.weather));
                let ends = self.fate.secs(5, 40);
                self.push_in(ends, Event::StormEnds);
            }
            Fault::HostMoves => {
                let index = self.any_host();
                self.move_host(index);
            }
            Fault::ClockJumps => self.strike_clock(),
            Fault::DiskFills => {
                let index = self.any_host();
                self.say(Who::Fault, format!("the disk of {index} is full"));
                self.host_mut(index).disk.is_full = true;
                let ends = self.fate.secs(5, 60);
                self.push_in(ends, Event::DiskRecovers(index));
            }
            Fault::DiskSlowsDown => {
                let index = self.any_host();
                self.say(Who::Fault, format!("the disk of {index} is slow"));
                self.host_mut(index).disk.is_slow = true;
                let ends = self.fate.secs(5, 90);
                self.push_in(ends, Event::DiskRecovers(index));
            }
            Fault::StoreFills => {
                self.say(Who::Fault, "the coordinator's disk is full".to_owned());
                self.coordinator.store.is_full = true;
                let ends = self.fate.secs(2, 30);
                self.push_in(ends, Event::StoreRecovers);
            }
            Fault::StoreSlowsDown => {
                self.say(Who::Fault, "the coordinator's disk is slow".to_owned());
                self.coordinator.store.is_slow = true;
                let ends = self.fate.secs(2, 60);
                self.push_in(ends, Event::StoreRecovers);
            }
            Fault::NatRebinds => {
                if let Some(which) = self.network.rebind(&mut self.fate) {
                    self.say(Who::Fault, format!("NAT box {} restarts", which.0));
                }
            }
            Fault::CoordinatorClockJumps => self.strike_coordinator_clock(),
            Fault::HostTurnsRogue => self.turn_rogue(),
            Fault::DiskIsCloned => self.clone_a_disk(),
            Fault::PolicyChanges => self.run_errand(Errand::Apply),
            Fault::PolicyRollsBack => self.run_errand(Errand::RollBack),
            Fault::LabelsChange => {
                let index = self.any_host();
                self.run_errand(Errand::Relabel(index));
            }
            Fault::KeyIsRotated => {
                let index = self.any_host();
                self.run_errand(Errand::RotateKey(index));
            }
            Fault::HostIsRemoved => {
                let index = self.any_host();
                let name = self.host(index).name.clone();
                self.run_errand(Errand::Remove(name));
            }
            Fault::HostLeaves => self.one_leaves(),
            Fault::HostJoinsLate => {
                let waiting = self
                    .hosts
                    .iter()
                    .find(|host| !host.is_wanted)
                    .map(|host| host.index);
                if let Some(index) = waiting {
                    self.run_errand(Errand::WantBack(index));
                }
            }
            Fault::TokenIsRevoked => self.run_errand(Errand::RevokeToken),
        }
    }

    fn pick_fault(&mut self) -> Fault {
        let all: usize = FAULTS.iter().map(|(_, share)| share).sum();
        let mut rolled = self.fate.below(all);
        for (fault, share) in FAULTS {
            if rolled < share {
                return fault;
            }
            rolled -= share;
        }
        unreachable!("the shares add up")
    }

    pub(super) fn any_host(&mut self) -> HostIndex {
        let count = self.hosts.len();
        HostIndex(u32::try_from(self.fate.below(count)).expect("few hosts"))
    }

    fn strike_host(&mut self) {
        let index = self.any_host();
        if self.host(index).running.is_none() {
            return;
        }
        let is_dark = self.fate.chance(400);
        self.crash_host(index, is_dark);
        let down = if self.fate.chance(500) {
            self.fate.secs(0, 2)
        } else {
            self.fate.secs(2, 120)
        };
        let since = self.host(index).last_run;
        self.push_in(down, Event::HostStarts { host: index, since });
    }

    fn strike_coordinator(&mut self) {
        if self.coordinator.running.is_none() {
            return;
        }
        let is_dark = self.fate.chance(400);
        self.crash_coordinator(is_dark);
        let down = if self.fate.chance(500) {
            self.fate.secs(0, 3)
        } else {
            self.fate.secs(3, 150)
        };
        let since = self.coordinator.last_run;
        self.push_in(down, Event::CoordinatorStarts { since });
    }

    fn part(&mut self, group: Vec<Place>) {
        let text = format!(
            "{} machines are cut off from the others: {:?}",
            group.len(),
            group.first()
        );
        let partition = self.network.part(group);
        self.say(Who::Fault, format!("partition {}: {text}", partition.0));
        let heals = self.fate.secs(1, 120);
        self.push_in(heals, Event::PartitionHeals(partition));
    }

    pub(crate) fn storm_ends(&mut self) {
        self.network.weather = match self.phase {
            Phase::Faults => Weather::USUAL,
            _ => Weather::FAIR,
        };
        self.say(Who::Fault, "the storm is over".to_owned());
    }

    fn strike_clock(&mut self) {
        let index = self.any_host();
        let error = *self.fate.pick(&[
            30,
            -30,
            HOUR_SECS,
            -HOUR_SECS,
            30 * HOUR_SECS,
            YEAR_SECS,
            -YEAR_SECS,
        ]);
        self.host_mut(index).clock_error = error;
        self.say(
            Who::Fault,
            format!("the clock of {index} is {error} s ahead"),
        );
        let ends = self.fate.secs(5, 120);
        self.push_in(ends, Event::ClockIsSet(index));
    }

    fn strike_coordinator_clock(&mut self) {
        // Hosts learn the coordinator's clock when they open a stream, and blame their own for more
        // than five minutes' difference until they open another.
        let error = *self.fate.pick(&[30, -30, 240, -240]);
        self.coordinator.clock_error = error;
        self.say(
            Who::Fault,
            format!("the coordinator's clock is {error} s ahead"),
        );
        let ends = self.fate.secs(5, 60);
        self.push_in(ends, Event::CoordinatorClockIsSet);
    }

    fn one_leaves(&mut self) {
        let index = self.any_host();
        let state = self.host(index).state(self.now);
        if self.host(index).is_clone {
            return; // to leave from here would remove the host that it is a clone of
        }
        if !self.host(index).is_wanted || state == Some(HostState::Unenrolled) {
            return;
        }
        self.host_mut(index).is_wanted = false;
        self.leave(index);
        self.push_errand(Errand::WantBack(index), 120);
    }
}

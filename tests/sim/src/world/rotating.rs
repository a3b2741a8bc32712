//! The fleet's authority changes its keys in the middle of everything: the coordinator dies around the
//! writing of its key file, hosts sleep through the beginning, and when all have moved the old root is
//! retired and the fleet has to live without it.

use fleet::{AdminRequest, KeepId, Reply};
use trust::{Authority, AuthorityKeys};

use super::World;
use super::phases::Phase;
use crate::event::{Event, Who};
use crate::operator::{Errand, Order};

/// How often of a thousand times the coordinator dies when its key file is written, before or after.
const DEATHS_PER_MILLE: u32 = 500;

impl World {
    /// Begins the rotation once, when a third of the faults is over.
    pub(super) fn begin_rotation(&mut self) {
        let is_time = self.phase == Phase::Faults
            && self.now.since_start() >= self.scenario.joining + self.scenario.faults / 3;
        if self.scenario.is_rotated && is_time && self.coordinator.roots.len() == 1 {
            self.run_errand(Errand::RotateAuthority);
        }
    }

    /// Retires the old root, when everything else is right. Returns what is not right about that.
    pub(super) fn end_rotation(&mut self) -> Option<String> {
        if !self.scenario.is_rotated || self.is_rotated {
            return None;
        }
        let Some(Reply::Authority(view)) = self.ask(AdminRequest::ShowAuthority) else {
            return Some("the coordinator does not show its authority".to_owned());
        };
        if !view.rotating {
            self.run_errand(Errand::RotateAuthority);
            return Some("the authority was not rotated yet".to_owned());
        }
        if view.missing.is_empty() && view.to_sign == 0 {
            let request = AdminRequest::RetireAuthority { force: false };
            self.order(Order::Retirement, request);
        }
        Some(format!("the authority is being rotated: {view:?}"))
    }

    /// The old root is retired: tokens that name it are good for nothing.
    pub(crate) fn retired(&mut self) {
        self.say(Who::Operator, "the old root is retired".to_owned());
        self.is_rotated = true;
        self.operator.forget_tokens();
    }

    pub(super) fn keep_authority(&mut self, id: KeepId, keys: Vec<AuthorityKeys>) {
        let dies = self.phase == Phase::Faults && self.fate.chance(DEATHS_PER_MILLE);
        let is_written = !dies || self.fate.chance(500);
        if is_written {
            self.coordinator.keys = keys;
        }
        if dies {
            self.say(
                Who::Fault,
                format!("the coordinator dies at its key file, written: {is_written}"),
            );
            self.crash_coordinator(false);
            let since = self.coordinator.last_run;
            let down = self.fate.secs(0, 20);
            return self.push_in(down, Event::CoordinatorStarts { since });
        }
        let now = self.coordinator.now(self.now);
        if let Some(steward) = &mut self.coordinator.running {
            steward.fleet.handle_authority_kept(id, Ok(()), now);
        }
    }

    pub(super) fn show_authority(&mut self, keys: Vec<AuthorityKeys>) {
        match Authority::load_all(keys) {
            Ok(authority) => self.coordinator.show(&authority, self.now),
            Err(error) => self.violate("an authority can be shown", error.to_string()),
        }
    }
}

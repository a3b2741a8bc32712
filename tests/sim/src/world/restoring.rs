//! The coordinator's machine is lost, and another starts from an old backup: made when few had
//! joined, so that most members, changes and removals came after it. Its hosts have to bring it up
//! to date, and never go back themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::{AdminRequest, CommitId, Reply, restored};

use super::World;
use super::phases::{Phase, Round};
use crate::event::Who;

/// When operators no longer wait for hosts that say nothing.
const FINISH_AFTER: Duration = Duration::from_secs(100);

impl World {
    /// Makes the backup, once, as soon as somebody has joined.
    pub(super) fn back_up(&mut self) {
        let is_time =
            self.phase == Phase::Joining && self.now.since_start() >= self.scenario.joining / 2;
        if self.scenario.is_restored && self.backup.is_none() && is_time {
            self.backup = Some(self.coordinator.store.backup());
            self.say(Who::Operator, "a backup is made".to_owned());
        }
    }

    /// The backup is put back: by the book, or as a mere copy, so that the hosts have to notice.
    pub(super) fn restore_backup(&mut self) {
        let Some(backup) = self.backup.take() else {
            return self.violate("there is a backup", "none was made".to_owned());
        };
        self.crash_coordinator(true);
        self.coordinator.store.restore(&backup);
        let is_by_the_book = self.fate.chance(500);
        self.say(
            Who::Fault,
            format!("the coordinator is restored, by the book: {is_by_the_book}"),
        );
        if is_by_the_book {
            let now = self.coordinator.now(self.now);
            let transaction = restored("its machine was lost", now);
            self.coordinator.store.begin(CommitId(0), &transaction);
            self.coordinator.store.flush(&mut self.fate);
        }
        let alive: BTreeSet<_> = self.hosts.iter().filter_map(|it| it.identity()).collect();
        self.ledger.restored(&alive);
        self.operator.restored();
        self.is_recovering = true;
        self.start_coordinator();
        self.phase = Phase::Settling {
            since: self.now,
            round: Round::AfterRestore,
        };
    }

    /// Looks whether the coordinator still asks its hosts, and stops it after a while from waiting
    /// for those that nobody has any more. Returns whether it asks.
    pub(super) fn tend_recovery(&mut self) -> bool {
        let Phase::Settling { since, .. } = self.phase else {
            return false;
        };
        let Some(Reply::Recovery(status)) = self.ask(AdminRequest::ShowRecovery) else {
            return true;
        };
        if status.under_way && self.now - since > FINISH_AFTER {
            self.say(Who::Operator, format!("waits no more: {status:?}"));
            self.ask(AdminRequest::FinishRecovery { force: true });
        }
        status.under_way
    }
}

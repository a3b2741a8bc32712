//! The coordinator's machine is lost, and another starts from an old backup: made when few had
//! joined, so that most members, changes and removals came after it. Its hosts have to bring it up
//! to date, and never go back themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::{AdminRequest, CommitId, Reply, restored};
use model::admin::RecoveryStatus;
use model::control::RefusalCode;

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
            self.finish_recovery();
        }
        status.under_way
    }

    /// Without force first, and with it only when that is refused because nobody has told anything.
    /// Returns whether it took force.
    fn finish_recovery(&mut self) -> bool {
        let asked = self.ask_or_refused(AdminRequest::FinishRecovery { force: false });
        let Some(Err(refused)) = asked else {
            return false;
        };
        let Some(Reply::Recovery(status)) = self.ask(AdminRequest::ShowRecovery) else {
            return false;
        };
        // What is still being stored is waited for; and it may have ended meanwhile.
        if refused.refusal.code != RefusalCode::Conflict || !status.under_way {
            return false;
        }
        self.say(
            Who::Operator,
            format!("is refused: {}", refused.refusal.message),
        );
        self.object(
            "a recovery that hosts have helped ends without force",
            unjust_refusal(&status),
        );
        self.ask(AdminRequest::FinishRecovery { force: true });
        true
    }
}

/// Says why the end of a recovery may not be refused, if it may not.
fn unjust_refusal(status: &RecoveryStatus) -> Option<String> {
    (status.heard > 0).then(|| format!("{} of {} hosts were heard", status.heard, status.hosts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::tests::settled;

    fn status(world: &mut World) -> RecoveryStatus {
        match world.ask(AdminRequest::ShowRecovery) {
            Some(Reply::Recovery(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn force_is_used_where_nobody_has_told_anything_and_is_no_violation_there() {
        // Every other world is restored by the book, and asks at once.
        let mut worlds = (1..20).map(|seed| {
            let mut world = settled(seed);
            world.backup = Some(world.coordinator.store.backup());
            world.restore_backup();
            world
        });
        let is_asking = |world: &mut World| status(world).under_way;
        let mut world = worlds.find_map(|mut it| is_asking(&mut it).then_some(it));
        let world = world.as_mut().unwrap();
        assert_eq!(status(world).heard, 0);
        assert!(world.finish_recovery());
        assert!(world.violation.is_none());
        assert_eq!(unjust_refusal(&status(world)), None);
    }

    #[test]
    fn a_refusal_is_unjust_where_a_host_was_heard() {
        let mut world = settled(1);
        let told = RecoveryStatus {
            heard: 1,
            ..status(&mut world)
        };
        assert!(unjust_refusal(&told).is_some());
    }
}

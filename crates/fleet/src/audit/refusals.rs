//! Refusals that an operator should be able to find: somebody shows a credential or a token that is
//! nobody's, or asks for what their role does not allow. Strangers can cause any number of them, so
//! each kind has a budget; what is over it is counted in the next entry that is within.

use std::time::Duration;

use model::admin::AuditOutcome;
use model::time::{Instant, Now};

use crate::fleet::Fleet;
use crate::work::{Origin, Work};

use super::Deed;

/// Refusals of one kind that may be noted at once.
const BURST: u32 = 10;
/// How often one more may be.
const REGAINED_EVERY: Duration = Duration::from_secs(30);

/// Which kind of refusal it is; each has a budget of its own, so that a stranger who floods one does
/// not hide the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suspicion {
    /// A credential that is nobody's.
    Credential,
    /// A join token that is not good.
    Token,
    /// A role that does not allow it.
    Role,
}

/// The budgets.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    credential: Budget,
    token: Budget,
    role: Budget,
}

#[derive(Debug, Default)]
struct Budget {
    /// Unused since the start: full.
    spent: u32,
    since: Option<Instant>,
    unnoted: u64,
}

impl Budget {
    /// Returns how many went unnoted before this one, when this one may be noted.
    fn spend(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let periods = now.saturating_since(since).as_secs() / REGAINED_EVERY.as_secs();
        if periods > 0 {
            let regained = u32::try_from(periods).unwrap_or(u32::MAX);
            self.spent = self.spent.saturating_sub(regained);
            self.since = Some(now);
        }
        if self.spent >= BURST {
            self.unnoted += 1;
            return None;
        }
        self.spent += 1;
        Some(std::mem::take(&mut self.unnoted))
    }
}

impl Refusals {
    fn budget(&mut self, suspicion: Suspicion) -> &mut Budget {
        match suspicion {
            Suspicion::Credential => &mut self.credential,
            Suspicion::Token => &mut self.token,
            Suspicion::Role => &mut self.role,
        }
    }
}

impl Fleet {
    /// Somebody at `from` showed a credential that is nobody's.
    pub fn handle_unknown_credential(&mut self, credential: &str, from: &str, now: Now) {
        let claimed = crate::admins::claimed_name(credential);
        let deed = Deed {
            who: claimed.map_or_else(|| "unknown".to_owned(), |it| format!("unknown as {it}")),
            from: from.to_owned(),
            action: "authenticate".to_owned(),
            outcome: AuditOutcome::Refused,
            reason: "this credential is nobody's".to_owned(),
        };
        self.note_refused(Suspicion::Credential, deed, now);
    }

    /// Puts a refusal in the log, when there is budget for it.
    pub(crate) fn note_refused(&mut self, suspicion: Suspicion, mut deed: Deed, now: Now) {
        let budget = self.refusals.budget(suspicion);
        let Some(unnoted) = budget.spend(now.monotonic) else {
            return;
        };
        if unnoted > 0 {
            deed.reason += &format!("; {unnoted} more of this kind before it have no entry");
        }
        self.accept(Origin::Nobody, Work::Note(Box::new(deed)), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_start(Duration::from_secs(secs))
    }

    #[test]
    fn a_flood_is_counted_and_not_written_down() {
        let mut budget = Budget::default();
        let noted = (0..1000).filter(|_| budget.spend(at(0)).is_some()).count();
        assert_eq!(noted, BURST as usize);
        assert_eq!(budget.spend(at(29)), None);
        assert_eq!(budget.spend(at(30)), Some(1000 - u64::from(BURST) + 1));
        assert_eq!(budget.spend(at(31)), None);
    }

    #[test]
    fn a_long_peace_fills_the_budget_and_no_more() {
        let mut budget = Budget::default();
        assert_eq!(budget.spend(at(0)), Some(0));
        let noted = (0..100)
            .filter(|_| budget.spend(at(90_000)).is_some())
            .count();
        assert_eq!(noted, BURST as usize);
    }
}

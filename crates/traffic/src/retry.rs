//! Whether a call that failed is sent once more: only where that cannot do it twice, to somebody
//! else, after a while, and within the budget.

use std::time::Duration;

use model::time::Instant;

use crate::budget::RetryBudget;
use crate::dice::Dice;
use crate::outcome::Failure;
use crate::settings::RetrySettings;

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The answer is the caller's.
    PassOn,
    /// Wait so long, and send it once more.
    Retry {
        /// The back-off.
        after: Duration,
    },
    /// The failure is the caller's: what was answered, or an answer of the mesh.
    GiveUp(GiveUp),
}

/// Why a call that failed is not sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// It was sent as often as may be.
    Attempts,
    /// The endpoint may have done it, and doing it twice is not doing it once.
    NotIdempotent,
    /// Its body is gone.
    NotReplayable,
    /// The endpoint, overloaded, asked not to.
    ToldNotTo,
    /// The endpoint failed, and would again.
    Definite,
    /// There is nobody else to ask.
    NobodyElse,
    /// The service's retries are used up.
    Budget,
    /// There is no time left.
    Deadline,
}

impl GiveUp {
    /// Returns the name in logs and explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attempts => "attempts_used",
            Self::NotIdempotent => "not_idempotent",
            Self::NotReplayable => "not_replayable",
            Self::ToldNotTo => "told_not_to",
            Self::Definite => "definite",
            Self::NobodyElse => "nobody_else",
            Self::Budget => "budget_used",
            Self::Deadline => "deadline",
        }
    }
}

/// Whether the whole request can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It was kept, or nothing of its body was taken yet.
    Possible,
    /// Part of its body is gone.
    Impossible,
}

/// All that the decision on one failed attempt depends on.
#[derive(Clone, Copy, Debug)]
pub struct RetryPlan {
    /// How it failed.
    pub failure: Failure,
    /// Whether it could be sent again.
    pub replay: Replay,
    /// Whether its method says that it may be.
    pub idempotent: bool,
    /// How often it was sent.
    pub attempts: u8,
    /// Whether somebody is ready who has not had it.
    pub somebody_else: bool,
    /// How much time it has left.
    pub left: Duration,
}

impl RetryPlan {
    /// Decides; a retry is promised by the budget.
    pub fn decide(
        &self,
        settings: &RetrySettings,
        budget: &mut RetryBudget,
        dice: &mut Dice,
        now: Instant,
    ) -> Next {
        if let Some(why) = self.forbidden(settings) {
            return Next::GiveUp(why);
        }
        let after = dice.up_to(back_off(settings, self.attempts));
        if after >= self.left {
            return Next::GiveUp(GiveUp::Deadline);
        }
        if !budget.promise(&settings.budget, now) {
            return Next::GiveUp(GiveUp::Budget);
        }
        Next::Retry { after }
    }

    fn forbidden(&self, settings: &RetrySettings) -> Option<GiveUp> {
        let untouched = self.failure.untouched();
        let idempotent = self.idempotent || settings.idempotent;
        if self.failure == Failure::Shed {
            Some(GiveUp::ToldNotTo)
        } else if self.failure == Failure::Error {
            Some(GiveUp::Definite)
        } else if self.attempts >= settings.attempts.min(RetrySettings::ATTEMPTS_MAX) {
            Some(GiveUp::Attempts)
        } else if !untouched && !idempotent {
            Some(GiveUp::NotIdempotent)
        } else if self.replay == Replay::Impossible {
            Some(GiveUp::NotReplayable)
        } else if (!untouched || self.failure.is_of_health()) && !self.somebody_else {
            Some(GiveUp::NobodyElse)
        } else {
            None
        }
    }
}

/// Returns the longest wait before the retry that follows so many attempts.
fn back_off(settings: &RetrySettings, attempts: u8) -> Duration {
    let doublings = u32::from(attempts.saturating_sub(1)).min(16);
    settings
        .backoff_base
        .saturating_mul(1 << doublings)
        .min(settings.backoff_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRYABLE: RetryPlan = RetryPlan {
        failure: Failure::Unavailable,
        replay: Replay::Possible,
        idempotent: true,
        attempts: 1,
        somebody_else: true,
        left: Duration::from_secs(10),
    };

    fn decide(plan: RetryPlan) -> Next {
        let mut dice = Dice::from_seed([0; 32]);
        let settings = RetrySettings::default();
        plan.decide(
            &settings,
            &mut RetryBudget::default(),
            &mut dice,
            Instant::START,
        )
    }

    #[test]
    fn what_is_tried_again_and_what_is_not() {
        let with = |change: fn(&mut RetryPlan)| {
            let mut plan = RETRYABLE;
            change(&mut plan);
            plan
        };
        #[rustfmt::skip]
        let table = [
            ("a GET that was answered 503", RETRYABLE, None),
            ("a POST that was answered 503", with(|p| p.idempotent = false), Some(GiveUp::NotIdempotent)),
            ("a POST that reached nobody", with(|p| (p.idempotent, p.failure) = (false, Failure::Connect)), None),
            ("a POST whose stream was refused", with(|p| (p.idempotent, p.failure) = (false, Failure::Refused)), None),
            ("a POST that broke", with(|p| (p.idempotent, p.failure) = (false, Failure::Broken)), Some(GiveUp::NotIdempotent)),
            ("a GET that broke", with(|p| p.failure = Failure::Broken), None),
            ("a GET that took too long", with(|p| p.failure = Failure::Timeout), None),
            ("a GET that was answered 500", with(|p| p.failure = Failure::Error), Some(GiveUp::Definite)),
            ("a GET that was shed", with(|p| p.failure = Failure::Shed), Some(GiveUp::ToldNotTo)),
            ("a second attempt", with(|p| p.attempts = 2), Some(GiveUp::Attempts)),
            ("a body that is gone", with(|p| p.replay = Replay::Impossible), Some(GiveUp::NotReplayable)),
            ("one endpoint, answered 503", with(|p| p.somebody_else = false), Some(GiveUp::NobodyElse)),
            ("one endpoint, refused", with(|p| (p.somebody_else, p.failure) = (false, Failure::Refused)), None),
            ("a POST to one that is down", with(|p| (p.idempotent, p.failure) = (false, Failure::Unhealthy)), None),
            ("one endpoint, down", with(|p| (p.somebody_else, p.failure) = (false, Failure::Unhealthy)), Some(GiveUp::NobodyElse)),
            ("no time left", with(|p| p.left = Duration::ZERO), Some(GiveUp::Deadline)),
        ];
        for (what, plan, expected) in table {
            match (decide(plan), expected) {
                (Next::Retry { .. }, None) => {}
                (Next::GiveUp(why), Some(expected)) if why == expected => {}
                (next, _) => panic!("{what}: {next:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_service_marked_idempotent_is_tried_again_whatever_the_method() {
        let settings = RetrySettings {
            idempotent: true,
            ..RetrySettings::default()
        };
        let plan = RetryPlan {
            idempotent: false,
            ..RETRYABLE
        };
        let mut dice = Dice::from_seed([0; 32]);
        let next = plan.decide(
            &settings,
            &mut RetryBudget::default(),
            &mut dice,
            Instant::START,
        );
        assert!(matches!(next, Next::Retry { .. }), "{next:?}");
    }

    #[test]
    fn back_off_doubles_from_25_ms_to_250() {
        let settings = RetrySettings::default();
        let longest = [1, 2, 3, 4, 5, 200].map(|attempts| back_off(&settings, attempts));
        let expected = [25, 50, 100, 200, 250, 250].map(Duration::from_millis);
        assert_eq!(longest, expected);
    }
}

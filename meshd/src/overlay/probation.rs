//! The minute after a change of ours: when the host's default route or its name resolution goes
//! away in it, the change is taken back. When they do not come back with that, the change was not
//! to blame, and is made again.

use std::time::Duration;

use tokio::time::Instant;

/// How long a change is watched.
const WATCH: Duration = Duration::from_secs(60);
/// How long a change stays away to see whether that helps.
const WAIT: Duration = Duration::from_secs(60);
/// How long a change that was to blame stays away: a coincidence must not keep a host out for ever.
const BLAME: Duration = Duration::from_secs(10 * 60);
/// Looks in a row that must find the same loss: one lost datagram is none.
const LOOKS: u32 = 2;

/// What the host can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// It has a default route, of either family.
    pub(super) has_default_route: bool,
    /// One of its servers answers a question about the root.
    pub(super) resolves_names: bool,
}

/// What went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Of the default route.
    DefaultRoute,
    /// Of name resolution.
    Resolution,
}

impl Loss {
    fn words(self) -> &'static str {
        match self {
            Self::DefaultRoute => "the default route of this host went away",
            Self::Resolution => "this host could not resolve names any more",
        }
    }
}

impl Health {
    fn lost_since(self, before: Self) -> Option<Loss> {
        if before.has_default_route && !self.has_default_route {
            return Some(Loss::DefaultRoute);
        }
        (before.resolves_names && !self.resolves_names).then_some(Loss::Resolution)
    }

    fn is_whole_again(self, loss: Loss) -> bool {
        match loss {
            Loss::DefaultRoute => self.has_default_route,
            Loss::Resolution => self.resolves_names,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Wait,
    /// The change is taken back.
    Revert(Loss),
    /// It is made again.
    Restore,
}

/// Watches one change at a time.
#[derive(Debug, Default)]
pub(super) struct Probation(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Watching {
        before: Health,
        until: Instant,
        losses: u32,
    },
    /// Taken back, to see whether that helps.
    Away { loss: Loss, until: Instant },
    /// Taken back, and it helped.
    Blamed { loss: Loss, until: Instant },
}

impl Probation {
    /// Takes that a change is made on a host in this health. A watch under way begins anew, with
    /// the better of both healths.
    pub(super) fn begin(&mut self, health: Health, now: Instant) {
        let earlier = match self.0 {
            State::Watching { before, .. } => before,
            _ => health,
        };
        let before = Health {
            has_default_route: health.has_default_route || earlier.has_default_route,
            resolves_names: health.resolves_names || earlier.resolves_names,
        };
        self.0 = State::Watching {
            before,
            until: now + WATCH,
            losses: 0,
        };
    }

    /// Forgets the change, as when an operator wants another.
    pub(super) fn end(&mut self) {
        self.0 = State::Idle;
    }

    /// Returns whether the host is to be looked at.
    pub(super) fn is_curious(&self) -> bool {
        matches!(self.0, State::Watching { .. } | State::Away { .. })
    }

    /// Takes a look at the host.
    pub(super) fn handle_health(&mut self, health: Health, now: Instant) -> Step {
        match &mut self.0 {
            State::Idle | State::Blamed { .. } => Step::Wait,
            State::Watching {
                before,
                until,
                losses,
            } => match health.lost_since(*before) {
                Some(loss) => {
                    *losses += 1;
                    if *losses < LOOKS {
                        return Step::Wait;
                    }
                    let until = now + WAIT;
                    self.0 = State::Away { loss, until };
                    Step::Revert(loss)
                }
                None if *until <= now => {
                    self.0 = State::Idle;
                    Step::Wait
                }
                None => {
                    *losses = 0;
                    Step::Wait
                }
            },
            State::Away { loss, .. } if health.is_whole_again(*loss) => {
                let until = now + BLAME;
                self.0 = State::Blamed { loss: *loss, until };
                Step::Wait
            }
            State::Away { .. } => Step::Wait,
        }
    }

    /// Takes that time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Step {
        match self.0 {
            State::Away { until, .. } | State::Blamed { until, .. } if until <= now => {
                self.0 = State::Idle;
                Step::Restore
            }
            _ => Step::Wait,
        }
    }

    /// Returns what an operator should look at.
    pub(super) fn alarm(&self) -> Option<String> {
        match self.0 {
            State::Idle | State::Watching { .. } => None,
            State::Away { loss, .. } => Some(format!(
                "{} within a minute of a change by meshd: the change is taken back to see whether that helps",
                loss.words()
            )),
            State::Blamed { loss, .. } => Some(format!(
                "{} within a minute of a change by meshd, and it helped to take the change back: it stays so for ten minutes, or until meshd is reloaded (`meshd --plan` tells what meshd changes)",
                loss.words()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Health = Health {
        has_default_route: true,
        resolves_names: true,
    };
    const NAMELESS: Health = Health {
        has_default_route: true,
        resolves_names: false,
    };
    const CUT_OFF: Health = Health {
        has_default_route: false,
        resolves_names: false,
    };

    fn changed(health: Health) -> (Probation, Instant) {
        let (mut probation, now) = (Probation::default(), Instant::now());
        probation.begin(health, now);
        (probation, now)
    }

    #[tokio::test]
    async fn what_breaks_the_host_is_taken_back_and_stays_away_when_that_helps() {
        for (broken, loss) in [(NAMELESS, Loss::Resolution), (CUT_OFF, Loss::DefaultRoute)] {
            let (mut probation, now) = changed(WELL);
            assert_eq!(probation.handle_health(broken, now), Step::Wait);
            assert_eq!(probation.handle_health(broken, now), Step::Revert(loss));
            assert!(probation.alarm().is_some());
            assert_eq!(probation.handle_health(WELL, now), Step::Wait);
            assert_eq!(probation.handle_timeout(now + WAIT), Step::Wait);
            assert!(probation.alarm().unwrap().contains("it helped"));
            assert_eq!(probation.handle_timeout(now + BLAME), Step::Restore);
            assert_eq!(probation.alarm(), None);
        }
    }

    #[tokio::test]
    async fn what_is_not_to_blame_is_made_again() {
        let (mut probation, now) = changed(WELL);
        probation.handle_health(NAMELESS, now);
        probation.handle_health(NAMELESS, now);
        assert_eq!(probation.handle_health(NAMELESS, now), Step::Wait);
        assert_eq!(probation.handle_timeout(now + WAIT), Step::Restore);
    }

    #[tokio::test]
    async fn one_bad_look_is_none() {
        let (mut probation, now) = changed(WELL);
        for _ in 0..5 {
            assert_eq!(probation.handle_health(NAMELESS, now), Step::Wait);
            assert_eq!(probation.handle_health(WELL, now), Step::Wait);
        }
    }

    #[tokio::test]
    async fn what_was_broken_before_or_breaks_later_is_not_ours() {
        let (mut probation, now) = changed(CUT_OFF);
        for _ in 0..5 {
            assert_eq!(probation.handle_health(CUT_OFF, now), Step::Wait);
        }
        let (mut probation, now) = changed(WELL);
        let later = now + WATCH;
        assert_eq!(probation.handle_health(WELL, later), Step::Wait);
        assert!(!probation.is_curious());
        for _ in 0..5 {
            assert_eq!(probation.handle_health(CUT_OFF, later), Step::Wait);
        }
    }

    #[tokio::test]
    async fn a_second_change_does_not_hide_what_the_first_one_broke() {
        let (mut probation, now) = changed(WELL);
        probation.begin(NAMELESS, now);
        probation.handle_health(NAMELESS, now);
        let step = probation.handle_health(NAMELESS, now);
        assert_eq!(step, Step::Revert(Loss::Resolution));
    }
}

//! When to renew this host's certificate: at half its life, give or take a tenth, so that a fleet
//! that joined together does not renew together.
//!
//! The wall clock may jump: what is due by it is checked often, a mark on the monotonic clock
//! catches a clock that went back, and a least distance between requests keeps a clock that runs
//! far ahead from asking without end. Expiry stops nothing here: the coordinator lets a host renew
//! with the certificate that expired.

use std::time::Duration;

use model::time::{Instant, Now, UnixTime};

use crate::backoff::Backoff;
use crate::dice::Dice;
use crate::timer::{Timeout, earliest, is_due};

/// When the certificate is valid, by the coordinator's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
}

/// The certificate's life, and where its renewal stands.
#[derive(Debug)]
pub(crate) struct Renewal {
    validity: Validity,
    /// By the wall clock.
    renew_at: UnixTime,
    /// By the monotonic clock, whatever the wall clock says.
    renew_by: Instant,
    request: Request,
    backoff: Backoff,
    /// When to look at the wall clock again.
    look_at: Instant,
    /// It was due when the clocks were last looked at.
    was_due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// None before this.
    NotBefore(Instant),
    /// Sent; no answer after this is a failure.
    UnderWay { until: Instant },
}

/// How often the wall clock is looked at, as it may jump while nobody looks.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How long the coordinator may take to sign.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
const RETRY_BASE: Duration = Duration::from_secs(60);
const RETRY_CAP: Duration = Duration::from_secs(1800);
/// No two requests are closer, whatever the clock says of the new certificate.
const REQUEST_DISTANCE: Duration = Duration::from_secs(60);
/// Half the life, give or take a tenth of the life.
const RENEW_PERCENT: (u32, u32) = (40, 60);
/// With less than this part of its life left, a certificate is an alarm.
const ALARM_FRACTION: u32 = 4;

impl Validity {
    fn life(&self) -> Duration {
        self.not_after
            .since_epoch()
            .saturating_sub(self.not_before.since_epoch())
    }

    fn left(&self, now: UnixTime) -> Duration {
        self.not_after
            .since_epoch()
            .saturating_sub(now.since_epoch())
    }
}

impl Renewal {
    /// Starts with a certificate from the disk or from an enrolment.
    pub(crate) fn new(validity: Validity, now: Now, dice: &mut Dice) -> Self {
        let mut renewal = Self {
            validity,
            renew_at: UnixTime::default(),
            renew_by: now.monotonic,
            request: Request::NotBefore(now.monotonic),
            backoff: Backoff::new(RETRY_BASE, RETRY_CAP),
            look_at: now.monotonic,
            was_due: false,
        };
        renewal.plan(validity, now, dice);
        renewal
    }

    /// Takes a new certificate.
    pub(crate) fn handle_renewed(&mut self, validity: Validity, now: Now, dice: &mut Dice) {
        self.plan(validity, now, dice);
        if self.is_due(now) {
            // Due again at once: it is this machine's clock that is wrong, not the certificate.
            self.back_off(now, dice);
        } else {
            self.backoff.reset();
            self.request = Request::NotBefore(now.monotonic + REQUEST_DISTANCE);
        }
    }

    /// Wants another certificate now: this one is of a name that the host had before.
    pub(crate) const fn want_now(&mut self, now: Now) {
        self.renew_at = UnixTime::from_secs(0);
        self.renew_by = now.monotonic;
        self.was_due = true;
    }

    /// Wants another certificate within a while, at a moment that chance decides.
    pub(crate) fn want_within(&mut self, span: Duration, now: Now, dice: &mut Dice) {
        let by = now.monotonic + dice.up_to(span);
        self.renew_by = self.renew_by.min(by);
        self.look_at = self.look_at.min(by);
    }

    /// Takes the coordinator's clock, by which the certificate is valid or not: a host whose own
    /// clock is behind would not know that it has to renew, nor one whose certificate was issued
    /// while the coordinator's ran ahead.
    pub(crate) fn handle_coordinator_clock(&mut self, clock: UnixTime, now: Now) {
        let is_valid = (self.validity.not_before..=self.validity.not_after).contains(&clock);
        if !is_valid {
            self.renew_by = now.monotonic;
            self.was_due = true;
        }
    }

    /// Takes a refusal, or that no answer will come.
    pub(crate) fn handle_failure(&mut self, now: Now, dice: &mut Dice) {
        if matches!(self.request, Request::UnderWay { .. }) {
            self.back_off(now, dice);
        }
    }

    /// Returns whether to send a request now.
    pub(crate) fn handle_timeout(&mut self, now: Now, is_online: bool, dice: &mut Dice) -> bool {
        self.was_due = self.is_due(now);
        if is_due(self.look_at, now.monotonic) {
            self.look_at = self.next_look(now);
        }
        match self.request {
            Request::UnderWay { until } if is_due(until, now.monotonic) => self.back_off(now, dice),
            Request::NotBefore(at) if is_due(at, now.monotonic) => {
                if is_online && self.was_due {
                    let until = now.monotonic + ANSWER_PATIENCE;
                    self.request = Request::UnderWay { until };
                    return true;
                }
            }
            Request::UnderWay { .. } | Request::NotBefore(_) => {}
        }
        false
    }

    pub(crate) fn poll_timeout(&self, is_online: bool) -> Timeout {
        let request = match self.request {
            Request::UnderWay { until } => Some((until, "the certificate was not renewed in time")),
            Request::NotBefore(at) => {
                (is_online && self.was_due).then_some((at, "renew the certificate"))
            }
        };
        earliest([
            request,
            Some((self.look_at, "look at the certificate's age")),
        ])
    }

    /// Returns whether the certificate should be renewed.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        self.renew_at <= now.unix || is_due(self.renew_by, now.monotonic)
    }

    /// Returns what an operator should know about the certificate, if anything.
    pub(crate) fn alarm(&self, now: UnixTime) -> Option<String> {
        let left = self.validity.left(now);
        if left > self.validity.life() / ALARM_FRACTION {
            return None;
        }
        Some(if left.is_zero() {
            "this host's certificate has expired; it keeps its peers and renews as soon as a \
             coordinator can be reached. If one can, is this machine's clock right?"
                .to_owned()
        } else {
            format!(
                "this host's certificate expires in {} minutes and could not be renewed; can a \
                 coordinator be reached?",
                left.as_secs() / 60
            )
        })
    }

    fn plan(&mut self, validity: Validity, now: Now, dice: &mut Dice) {
        let (low, high) = RENEW_PERCENT;
        let after = validity.life() * dice.between(low, high) / 100;
        self.validity = validity;
        self.renew_at = validity.not_before + after;
        // A clock that is behind would wait too long: a certificate that is here is at least as
        // old as now, so it never has more than `after` to wait.
        let wait = self
            .renew_at
            .since_epoch()
            .saturating_sub(now.unix.since_epoch());
        self.renew_by = now.monotonic + wait.min(after);
        self.look_at = self.next_look(now);
        self.was_due = self.is_due(now);
    }

    fn next_look(&self, now: Now) -> Instant {
        let wait = self
            .renew_at
            .since_epoch()
            .saturating_sub(now.unix.since_epoch());
        let by = self.renew_by.saturating_since(now.monotonic);
        let wait = wait.min(by);
        now.monotonic
            + if wait.is_zero() {
                LOOK_EVERY
            } else {
                wait.min(LOOK_EVERY)
            }
    }

    fn back_off(&mut self, now: Now, dice: &mut Dice) {
        let wait = self.backoff.next_wait(dice).max(REQUEST_DISTANCE);
        self.request = Request::NotBefore(now.monotonic + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    const ISSUED: UnixTime = UnixTime::from_secs(1_800_000_000);

    /// A host and a coordinator that signs what it is asked, for a day, by its own right clock.
    struct Bench {
        renewal: Renewal,
        dice: Dice,
        right: UnixTime,
        elapsed: Duration,
        skew: Skew,
        requests: Vec<Duration>,
    }

    #[derive(Clone, Copy)]
    enum Skew {
        None,
        Ahead(Duration),
        Behind(Duration),
    }

    fn issued_at(unix: UnixTime) -> Validity {
        Validity {
            not_before: unix,
            not_after: unix + DAY,
        }
    }

    impl Bench {
        fn new(seed: u8) -> Self {
            let mut dice = Dice::from_seed([seed; 32]);
            let now = Now {
                monotonic: Instant::START,
                unix: ISSUED,
            };
            let renewal = Renewal::new(issued_at(ISSUED), now, &mut dice);
            Self {
                renewal,
                dice,
                right: ISSUED,
                elapsed: Duration::ZERO,
                skew: Skew::None,
                requests: Vec::new(),
            }
        }

        fn now(&self) -> Now {
            let unix = match self.skew {
                Skew::None => self.right,
                Skew::Ahead(by) => self.right + by,
                Skew::Behind(by) => {
                    UnixTime::from_duration(self.right.since_epoch().saturating_sub(by))
                }
            };
            Now {
                monotonic: Instant::from_start(self.elapsed),
                unix,
            }
        }

        /// Runs for a while, waking up when asked to.
        fn run(&mut self, time: Duration) {
            let end = self.elapsed + time;
            while self.elapsed < end {
                let now = self.now();
                if self.renewal.handle_timeout(now, true, &mut self.dice) {
                    self.requests.push(self.elapsed);
                    self.renewal
                        .handle_renewed(issued_at(self.right), now, &mut self.dice);
                }
                let (at, _) = self.renewal.poll_timeout(true).unwrap();
                let step = (at - now.monotonic).max(Duration::from_millis(1));
                self.elapsed += step;
                self.right = self.right + step;
            }
        }
    }

    #[test]
    fn renews_at_half_life_give_or_take_a_tenth() {
        for seed in 0..20 {
            let mut bench = Bench::new(seed);
            bench.run(DAY);
            let first = bench.requests[0];
            assert!(
                first >= DAY * 40 / 100 && first <= DAY * 60 / 100,
                "{first:?}"
            );
            assert!(bench.requests.len() <= 2);
        }
    }

    #[test]
    fn a_clock_a_year_ahead_renews_soon_and_makes_no_storm() {
        let mut bench = Bench::new(1);
        bench.run(Duration::from_secs(3600));
        bench.skew = Skew::Ahead(YEAR);
        bench.run(DAY);
        let first = bench.requests[0];
        assert!(first <= Duration::from_secs(3600) + LOOK_EVERY, "{first:?}");
        assert!(
            bench.requests.len() < 150,
            "{} requests in a day",
            bench.requests.len()
        );
        assert!(
            bench
                .renewal
                .alarm(bench.now().unix)
                .unwrap()
                .contains("clock")
        );
    }

    #[test]
    fn what_the_coordinator_holds_for_invalid_is_renewed_at_once() {
        for coordinator in [ISSUED + 2 * DAY, UnixTime::from_secs(ISSUED.as_secs() - 1)] {
            let mut bench = Bench::new(5);
            let now = bench.now();
            bench
                .renewal
                .handle_coordinator_clock(ISSUED + DAY / 3, now);
            assert!(!bench.renewal.handle_timeout(now, true, &mut bench.dice));
            bench.renewal.handle_coordinator_clock(coordinator, now);
            assert!(bench.renewal.handle_timeout(now, true, &mut bench.dice));
        }
    }

    #[test]
    fn a_clock_a_year_behind_misses_no_renewal() {
        let mut bench = Bench::new(2);
        bench.run(Duration::from_secs(3600));
        bench.skew = Skew::Behind(YEAR);
        bench.run(DAY * 10);
        let mut last = Duration::ZERO;
        for &request in &bench.requests {
            assert!(request - last <= DAY * 61 / 100, "{:?}", bench.requests);
            last = request;
        }
        assert!(bench.requests.len() >= 15 && bench.requests.len() <= 30);
    }

    #[test]
    fn refusals_and_silence_are_tried_again_ever_more_slowly() {
        let mut bench = Bench::new(3);
        bench.elapsed = DAY;
        bench.right = ISSUED + DAY;
        let mut requests = 0;
        for minute in 0..600u64 {
            let mut now = bench.now();
            now.monotonic += Duration::from_secs(60 * minute);
            if bench.renewal.handle_timeout(now, true, &mut bench.dice) {
                requests += 1;
                if requests % 2 == 0 {
                    bench.renewal.handle_failure(now, &mut bench.dice);
                }
            }
        }
        assert!((10..120).contains(&requests), "{requests} in ten hours");
    }

    #[test]
    fn offline_it_waits_and_alarms_at_a_quarter() {
        let mut bench = Bench::new(4);
        bench.right = ISSUED + DAY * 74 / 100;
        assert_eq!(bench.renewal.alarm(bench.right), None);
        assert!(
            !bench
                .renewal
                .handle_timeout(bench.now(), false, &mut bench.dice)
        );
        bench.right = ISSUED + DAY * 76 / 100;
        assert!(
            bench
                .renewal
                .alarm(bench.right)
                .unwrap()
                .contains("expires in")
        );
        assert!(
            bench
                .renewal
                .handle_timeout(bench.now(), true, &mut bench.dice)
        );
    }
}

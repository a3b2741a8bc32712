//! One service as one proxy thread calls it: the parts put together along the steps of a call.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use model::ids::HostId;
use model::time::Instant;

use crate::balancer::{Attempt, Balancer, Choice, May, NoneReady, Wish};
use crate::budget::RetryBudget;
use crate::call::{Call, CallShape, Stage};
use crate::change::Change;
use crate::endpoint::{EndpointView, Health};
use crate::in_flight::{Admission, Gauge, InFlight, Place};
use crate::outcome::{Ending, Failure, Outcome};
use crate::quantile::Quantiles;
use crate::retry::{GiveUp, Next, Replay, RetryPlan};
use crate::settings::{PerTry, Settings};

/// The least that `per_try: auto` waits.
const PER_TRY_MIN: Duration = Duration::from_millis(50);
/// How many times the p99 it waits.
const PER_TRY_P99S: u32 = 3;
/// It waits for no longer than such a share of the request's time: what is cut short leaves the most
/// of it to the next try. TRAFFIC.md says a half, and cuts what takes longer; then a call that needs
/// two thirds of its time never succeeds.
const PER_TRY_SHARE: u32 = 4;

/// One service as one proxy thread calls it.
#[derive(Debug)]
pub struct Upstream {
    settings: Settings,
    balancer: Balancer,
    budget: RetryBudget,
    in_flight: InFlight,
    latencies: Quantiles,
    /// Attempts under way whose time counts on a retry.
    cut_short: u32,
    /// Since when no endpoint is ready, as far as calls noticed.
    none_ready_since: Option<Instant>,
    /// Calls that wait for one; at most as many as may be under way.
    waiting_for_endpoint: Vec<Waker>,
}

/// Who gets a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// This endpoint.
    Chosen(Choice),
    /// None, and it is not worth waiting.
    NoneReady(NoneReady),
}

impl Upstream {
    /// Makes one without endpoints. `gauge` is shared by the threads that call the service, the
    /// seed is not.
    pub fn new(settings: Settings, gauge: Arc<Gauge>, seed: [u8; 32], now: Instant) -> Self {
        Self {
            balancer: Balancer::new(settings.balance.clone(), settings.breaker.clone(), seed),
            budget: RetryBudget::default(),
            in_flight: InFlight::new(gauge),
            latencies: Quantiles::new(now),
            cut_short: 0,
            none_ready_since: None,
            waiting_for_endpoint: Vec::new(),
            settings,
        }
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the calls under way and in line, of all threads.
    pub fn gauge(&self) -> &Gauge {
        self.in_flight.gauge()
    }

    /// Replaces the settings; calls under way keep their deadlines.
    pub fn set_settings(&mut self, settings: Settings, now: Instant) {
        if self.settings != settings {
            self.balancer
                .set_settings(settings.balance.clone(), settings.breaker.clone(), now);
            self.settings = settings;
            self.wake_if_ready();
        }
    }

    /// Replaces the endpoints; those that stay keep their record.
    pub fn set_endpoints(&mut self, endpoints: &[HostId], now: Instant) {
        self.balancer.set_endpoints(endpoints, now);
        self.wake_if_ready();
    }

    /// Takes in with which endpoints' hosts sessions come about, as somebody found out beside calls.
    pub fn set_reachable(&mut self, is_reachable: impl Fn(HostId) -> bool, now: Instant) {
        self.balancer.set_reachable(is_reachable, now);
        self.wake_if_ready();
    }

    /// Takes in what active checks say of an endpoint.
    pub fn set_health(&mut self, endpoint: HostId, health: Health, now: Instant) {
        self.balancer.set_health(endpoint, health, now);
        self.wake_if_ready();
    }

    /// Begins a call: its deadline runs.
    pub fn begin(&mut self, shape: CallShape, now: Instant) -> Call {
        self.budget.call(now);
        Call::new(shape, self.settings.timeouts.request, now)
    }

    /// Lets a call go on, or wait in line until `waker` is woken or [`Call::poll_again_at`].
    pub fn poll_admission(
        &mut self,
        call: &mut Call,
        waker: &Waker,
        now: Instant,
    ) -> Poll<Admission> {
        let limits = &self.settings.limits;
        let admission =
            self.in_flight
                .poll_enter(&mut call.place, limits, call.deadline, waker, now);
        if let Place::InLine(ticket) = call.place {
            call.poll_again_at = InFlight::look_again_at(ticket, now);
        }
        admission
    }

    /// Chooses who gets the call now, first or once more. While there is no endpoint it waits, as
    /// long as the service has not been so for long; where all are known to be down it says so at
    /// once.
    pub fn poll_pick(&mut self, call: &mut Call, waker: &Waker, now: Instant) -> Poll<Pick> {
        self.poll_pick_among(call, None, waker, now)
    }

    /// As [`Upstream::poll_pick`], among those that may have the call. Where none of them is ready and
    /// others are, it says so at once.
    pub fn poll_pick_among(
        &mut self,
        call: &mut Call,
        may: Option<May<'_>>,
        waker: &Waker,
        now: Instant,
    ) -> Poll<Pick> {
        debug_assert!(
            matches!(call.stage, Stage::New | Stage::BackOff),
            "one attempt is over before the next begins"
        );
        let wish = Wish {
            key: call.shape.key,
            tried: call.tried.hosts(),
            again: call.untouched,
            expendable: self.may_try_again(call),
            may,
        };
        let (choice, attempt) = match self.balancer.choose(wish, now) {
            Ok(chosen) => chosen,
            Err(why @ NoneReady::NoEndpoints) => {
                return self.wait_for_endpoint(why, call, waker, now);
            }
            Err(why) => return Poll::Ready(Pick::NoneReady(why)),
        };
        if matches!(call.stage, Stage::BackOff) {
            self.budget.sent(now);
        }
        call.tried.push(choice.endpoint);
        call.somebody_else = may.map(|_| {
            let others = Wish {
                tried: call.tried.hosts(),
                may,
                ..Wish::default()
            };
            self.balancer.has_another(others)
        });
        call.stage = Stage::Sent(attempt);
        call.try_until = self.try_until(call, now);
        Poll::Ready(Pick::Chosen(choice))
    }

    /// Takes in what came of the attempt, at the head of its answer or when there will be none.
    /// For good answers it returns [`Next::PassOn`].
    pub fn finished(
        &mut self,
        call: &mut Call,
        outcome: Outcome,
        replay: Replay,
        now: Instant,
    ) -> Next {
        let Stage::Sent(attempt) = call.stage else {
            debug_assert!(false, "an attempt is sent before it is finished");
            return Next::GiveUp(GiveUp::Attempts);
        };
        self.cut_no_more(call);
        self.balancer.judge(attempt, outcome, now);
        self.measure(attempt, outcome, now);
        let judged = outcome != Outcome::Begun;
        call.stage = Stage::Answered { attempt, judged };
        match outcome {
            Outcome::Failed(failure) => self.after_failure(call, attempt, failure, replay, now),
            Outcome::Succeeded | Outcome::Begun | Outcome::NotJudged => Next::PassOn,
        }
    }

    /// Returns until when an attempt whose time is up may go on: as long as the call, where `auto` cut
    /// it short for a retry that could not follow now, as its body is gone, or who was left is down, or
    /// others had the budget. `None`: it is over. `may` is as in [`Upstream::poll_pick_among`].
    pub fn go_on(
        &mut self,
        call: &Call,
        replay: Replay,
        may: Option<May<'_>>,
        now: Instant,
    ) -> Option<Instant> {
        if !call.cut_short || call.went_on.get() || now >= call.deadline {
            return None;
        }
        let others = Wish {
            tried: call.tried.hosts(),
            may,
            ..Wish::default()
        };
        let budget = &self.settings.retry.budget;
        let follows = replay == Replay::Possible
            && self.balancer.has_another(others)
            && self.budget.has_room(0, budget, now);
        if follows {
            return None;
        }
        call.went_on.set(true);
        self.cut_short -= 1;
        Some(call.deadline)
    }

    /// Takes in what the trailers of an answer say that had only [`Outcome::Begun`].
    pub fn settle(&mut self, call: &mut Call, outcome: Outcome, now: Instant) {
        if let Stage::Answered { attempt, judged } = &mut call.stage
            && !*judged
        {
            *judged = true;
            let worked = !matches!(outcome, Outcome::Failed(_));
            self.balancer.judge_late(*attempt, worked, now);
        }
    }

    /// Ends a call, whatever it is at, and lets in who waits.
    pub fn end(&mut self, mut call: Call, ending: Ending, now: Instant) {
        self.cut_no_more(&mut call);
        match call.stage {
            Stage::New | Stage::Over => {}
            Stage::BackOff => self.budget.withdrawn(),
            Stage::Sent(attempt) => {
                self.balancer.abandon(attempt, now);
                self.balancer.release(attempt.endpoint);
            }
            Stage::Answered { attempt, judged } => {
                match ending {
                    Ending::Broken => self.balancer.judge_late(attempt, false, now),
                    Ending::Complete if !judged => self.balancer.judge_late(attempt, true, now),
                    Ending::Abandoned if !judged => {
                        self.balancer.judge(attempt, Outcome::NotJudged, now);
                    }
                    Ending::Complete | Ending::Abandoned => {}
                }
                self.balancer.release(attempt.endpoint);
            }
        }
        self.in_flight.leave(call.place, &self.settings.limits);
    }

    /// Returns the next change of the endpoints that was not taken yet.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.balancer.poll_change()
    }

    /// Returns the endpoints for people.
    pub fn endpoints(&self, now: Instant) -> impl Iterator<Item = EndpointView> {
        self.balancer.views(now)
    }

    /// Whether sick endpoints get calls because fewer than half are healthy.
    pub fn is_using_all(&self) -> bool {
        self.balancer.is_using_all()
    }

    fn after_failure(
        &mut self,
        call: &mut Call,
        attempt: Attempt,
        failure: Failure,
        replay: Replay,
        now: Instant,
    ) -> Next {
        let plan = RetryPlan {
            failure,
            replay,
            idempotent: call.shape.idempotent,
            attempts: call.attempts(),
            somebody_else: self.has_other(call),
            left: call.left(now),
        };
        let dice = self.balancer.dice();
        let next = plan.decide(&self.settings.retry, &mut self.budget, dice, now);
        let answered = matches!(
            failure,
            Failure::Unavailable | Failure::Shed | Failure::Error
        );
        if matches!(next, Next::Retry { .. }) {
            call.untouched = failure.untouched();
            call.stage = Stage::BackOff;
            self.balancer.release(attempt.endpoint);
        } else if !answered {
            call.stage = Stage::Over;
            self.balancer.release(attempt.endpoint);
        }
        next
    }

    /// Keeps how long heads take. A timeout counts as well: without those that took too long the
    /// p99 would never learn that a service became slower.
    fn measure(&mut self, attempt: Attempt, outcome: Outcome, now: Instant) {
        let measured = matches!(
            outcome,
            Outcome::Succeeded | Outcome::Begun | Outcome::Failed(Failure::Timeout)
        );
        if measured {
            self.latencies.observe(now - attempt.started, now);
        }
    }

    fn may_try_again(&self, call: &Call) -> bool {
        let idempotent = call.shape.idempotent || self.settings.retry.idempotent;
        idempotent && call.attempts() + 1 < self.settings.retry.attempts
    }

    /// Returns how long the attempt that was just chosen may take. `auto` cuts short only what
    /// could be tried elsewhere: otherwise it would make failures out of slow answers.
    fn try_until(&mut self, call: &mut Call, now: Instant) -> Instant {
        if let PerTry::Fixed(time) = self.settings.timeouts.per_try {
            return (now + time).min(call.deadline);
        }
        if !self.could_follow(call, now) {
            return call.deadline;
        }
        let Some(time) = self.short_try(now) else {
            return call.deadline;
        };
        call.cut_short = true;
        self.cut_short += 1;
        (now + time).min(call.deadline)
    }

    /// Returns after how long `auto` cuts a try; `None`: answers are known to take so long, or it is
    /// not known how long they take, that the next try might have too little time for one.
    fn short_try(&mut self, now: Instant) -> Option<Duration> {
        let time = (self.latencies.p99(now)? * PER_TRY_P99S).max(PER_TRY_MIN);
        let most = self.settings.timeouts.request / PER_TRY_SHARE;
        (time <= most).then_some(time)
    }

    fn could_follow(&mut self, call: &Call, now: Instant) -> bool {
        let idempotent = call.shape.idempotent || self.settings.retry.idempotent;
        idempotent
            && call.attempts() < self.settings.retry.attempts
            && self.has_other(call)
            && self
                .budget
                .has_room(self.cut_short, &self.settings.retry.budget, now)
    }

    fn has_other(&self, call: &Call) -> bool {
        let known = call.somebody_else;
        known.unwrap_or_else(|| self.balancer.has_other(call.tried.hosts()))
    }

    fn cut_no_more(&mut self, call: &mut Call) {
        let counts_on_retry = std::mem::take(&mut call.cut_short) && !call.went_on.take();
        self.cut_short -= u32::from(counts_on_retry);
    }

    fn wait_for_endpoint(
        &mut self,
        why: NoneReady,
        call: &mut Call,
        waker: &Waker,
        now: Instant,
    ) -> Poll<Pick> {
        let since = *self.none_ready_since.get_or_insert(now);
        let until = (since + self.settings.balance.none_ready_wait).min(call.deadline);
        if now >= until {
            return Poll::Ready(Pick::NoneReady(why));
        }
        call.poll_again_at = until;
        let waiting = &mut self.waiting_for_endpoint;
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        Poll::Pending
    }

    fn wake_if_ready(&mut self) {
        if self.balancer.is_ready() {
            self.none_ready_since = None;
            self.waiting_for_endpoint.drain(..).for_each(Waker::wake);
        }
    }
}

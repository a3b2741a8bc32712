//! Who gets a call: the endpoints of one service, their breakers, and a choice among those that
//! are ready. A choice allocates nothing.

mod choose;

use std::collections::VecDeque;
use std::time::Duration;

use model::ids::HostId;
use model::time::Instant;

use crate::breaker::Tripped;
use crate::change::Change;
use crate::dice::Dice;
use crate::endpoint::{Endpoint, EndpointView, Health, Told};
use crate::outcome::{Failure, Outcome};
use crate::settings::{BalanceSettings, BreakerSettings};

pub(crate) use choose::Wish;
pub use choose::{Choice, May, Why};

/// Changes that wait to be taken; more push out the oldest.
const CHANGES_MAX: usize = 64;

/// The endpoints of one service as one proxy thread sees them.
#[derive(Debug)]
pub struct Balancer {
    settings: BalanceSettings,
    breakers: BreakerSettings,
    /// In the order of their ids.
    endpoints: Vec<Endpoint>,
    /// The indices of those that get calls. Its room is that of all, so that it never grows.
    ready: Vec<usize>,
    /// Whether those are all, because fewer than half are healthy.
    using_all: bool,
    /// When the next ejected endpoint may be probed.
    next_probe: Option<Instant>,
    /// When the next call that asks one that its host calls down was evidently not refused.
    next_outlived: Option<Instant>,
    /// What a call takes usually, in seconds: for endpoints of which nothing is known.
    typical_secs: f64,
    dice: Dice,
    changes: VecDeque<Change>,
}

/// Why nobody gets a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoneReady {
    /// The service has no endpoints.
    NoEndpoints,
    /// All are known to be down, or not to be reached.
    AllDown,
    /// Those that there are have had this call.
    AllTried,
    /// Those that may have this call are down, and others are not.
    NotAllowed,
}

impl NoneReady {
    /// Returns the name in logs, metrics and headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEndpoints => "no_endpoints",
            Self::AllDown => "all_down",
            Self::AllTried => "all_tried",
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// One attempt that an endpoint was chosen for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) endpoint: HostId,
    pub(crate) started: Instant,
    pub(crate) probe: bool,
}

impl Balancer {
    /// Makes one without endpoints.
    pub fn new(settings: BalanceSettings, breakers: BreakerSettings, seed: [u8; 32]) -> Self {
        Self {
            settings,
            breakers,
            endpoints: Vec::new(),
            ready: Vec::new(),
            using_all: false,
            next_probe: None,
            next_outlived: None,
            typical_secs: 0.0,
            dice: Dice::from_seed(seed),
            changes: VecDeque::with_capacity(CHANGES_MAX),
        }
    }

    /// Replaces the settings; what is open stays open.
    pub fn set_settings(
        &mut self,
        settings: BalanceSettings,
        breakers: BreakerSettings,
        now: Instant,
    ) {
        self.settings = settings;
        self.breakers = breakers;
        self.close_those_above_the_limit(now);
        self.recount();
    }

    /// Replaces the endpoints. Those that stay keep their record; those that join one that serves
    /// already start slowly.
    pub fn set_endpoints(&mut self, endpoints: &[HostId], now: Instant) {
        let mut ids = endpoints.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let serves = !self.ready.is_empty();
        let mut known = std::mem::take(&mut self.endpoints).into_iter().peekable();
        self.endpoints = ids
            .into_iter()
            .map(|id| {
                while known.next_if(|endpoint| endpoint.id < id).is_some() {}
                known
                    .next_if(|endpoint| endpoint.id == id)
                    .unwrap_or_else(|| {
                        let mut endpoint = Endpoint::new(id, now);
                        endpoint.warming_from = serves.then_some(now);
                        endpoint
                    })
            })
            .collect();
        self.ready.reserve_exact(self.endpoints.len());
        self.close_those_above_the_limit(now);
        self.recount();
    }

    /// Takes in what an active check says. One that comes up again starts slowly.
    pub fn set_health(&mut self, endpoint: HostId, health: Health, now: Instant) {
        let serves = !self.ready.is_empty();
        let Some(endpoint) = self.endpoint(endpoint) else {
            return;
        };
        if endpoint.health.is_down() && !health.is_down() {
            endpoint.warming_from = serves.then_some(now);
            endpoint.latency.forget();
            endpoint.refused_until = None;
        }
        endpoint.health = health;
        (endpoint.told, endpoint.doubted) = (None, None);
        self.recount();
    }

    /// Takes in with which hosts sessions come about. Of those that are reached again nothing is
    /// known; what is known of the others stays.
    pub(crate) fn set_reachable(&mut self, is_reachable: impl Fn(HostId) -> bool, now: Instant) {
        for index in 0..self.endpoints.len() {
            let Endpoint { id, health, .. } = self.endpoints[index];
            match (is_reachable(id), health == Health::Unreachable) {
                (true, true) => self.set_health(id, Health::Unknown, now),
                (false, false) => self.set_health(id, Health::Unreachable, now),
                (true, false) | (false, true) => {}
            }
        }
    }

    /// Whether anybody would get a call.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether all get calls because fewer than half are healthy.
    pub fn is_using_all(&self) -> bool {
        self.using_all
    }

    /// Whether somebody who is not among `tried` would get a call.
    pub fn has_other(&self, tried: &[HostId]) -> bool {
        self.ready
            .iter()
            .any(|index| !tried.contains(&self.endpoints[*index].id))
    }

    /// Returns the endpoints for people.
    pub fn views(&self, now: Instant) -> impl Iterator<Item = EndpointView> {
        self.endpoints
            .iter()
            .map(move |endpoint| endpoint.view(&self.settings, now))
    }

    /// Returns the next change that was not taken yet.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    pub(crate) fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }

    /// Takes in what came of an attempt, `latency` after its begin.
    pub(crate) fn judge(&mut self, attempt: Attempt, outcome: Outcome, now: Instant) {
        let latency = now - attempt.started;
        match outcome {
            Outcome::NotJudged => return self.release_probe(attempt, now),
            Outcome::Failed(Failure::Unhealthy) => return self.told_down(attempt, now),
            Outcome::Failed(Failure::Unreachable) => {
                self.release_probe(attempt, now);
                return self.set_health(attempt.endpoint, Health::Unreachable, now);
            }
            Outcome::Failed(failure) if !failure.is_answer() => self.told_nothing(attempt, now),
            Outcome::Begun | Outcome::Succeeded | Outcome::Failed(_) => self.told_up(attempt, now),
        }
        let Some(endpoint) = self.endpoint(attempt.endpoint) else {
            return;
        };
        match outcome {
            Outcome::Begun => self.measure(attempt.endpoint, latency, now),
            Outcome::Succeeded => {
                endpoint.refused_until = None;
                if endpoint.breaker.succeeded(attempt.started, now) {
                    self.recover(attempt.endpoint, now);
                }
                self.measure(attempt.endpoint, latency, now);
            }
            Outcome::NotJudged => {}
            Outcome::Failed(failure) => self.fail(attempt, failure, latency, now),
        }
    }

    /// Takes in that trailers or the end of the body say what the head did not: that it worked, or
    /// not. The latency was the head's.
    pub(crate) fn judge_late(&mut self, attempt: Attempt, worked: bool, now: Instant) {
        let Some(endpoint) = self.endpoint(attempt.endpoint) else {
            return;
        };
        if !worked {
            self.fail(attempt, Failure::Error, Duration::ZERO, now);
        } else if endpoint.breaker.succeeded(attempt.started, now) {
            self.recover(attempt.endpoint, now);
        }
    }

    /// Takes in that the caller did not wait for the head: the endpoint is at least so slow.
    pub(crate) fn abandon(&mut self, attempt: Attempt, now: Instant) {
        let decay = self.settings.latency_decay;
        let latency = now - attempt.started;
        if let Some(endpoint) = self.endpoint(attempt.endpoint)
            && endpoint
                .latency
                .secs(decay, now)
                .is_some_and(|secs| latency.as_secs_f64() > secs)
        {
            endpoint.latency.observe(latency, decay, now);
        }
        self.release_probe(attempt, now);
    }

    /// Takes in that an attempt is over, its answer passed on.
    pub(crate) fn release(&mut self, endpoint: HostId) {
        if let Some(endpoint) = self.endpoint(endpoint) {
            endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
        }
    }

    fn endpoint(&mut self, id: HostId) -> Option<&mut Endpoint> {
        let index = self
            .endpoints
            .binary_search_by(|endpoint| endpoint.id.cmp(&id))
            .ok()?;
        Some(&mut self.endpoints[index])
    }

    fn measure(&mut self, id: HostId, latency: Duration, now: Instant) {
        let decay = self.settings.latency_decay;
        let secs = latency.as_secs_f64();
        self.typical_secs += (secs - self.typical_secs) / 16.0;
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.latency.observe(latency, decay, now);
        }
    }

    /// Takes in that the endpoint's own host calls it down: one call asks anew after a while.
    fn told_down(&mut self, attempt: Attempt, now: Instant) {
        self.release_probe(attempt, now);
        let pause = self.pause_of_asking();
        let Some(endpoint) = self.endpoint(attempt.endpoint) else {
            return;
        };
        let before = endpoint.told.replace(Told {
            since: endpoint.told.map_or(now, |told| told.since),
            ask_again: Some(now + pause),
            asked: None,
        });
        endpoint.doubted = None;
        endpoint.health = Health::Down;
        if before.is_none() {
            self.tell(Change::ToldDown {
                endpoint: attempt.endpoint,
            });
        }
        self.recount();
    }

    /// Takes in that a call that asked anew got no answer: what its host said before stands, and another
    /// asks after a while.
    fn told_nothing(&mut self, attempt: Attempt, now: Instant) {
        let pause = self.pause_of_asking();
        let Some(endpoint) = self.endpoint(attempt.endpoint).filter(|_| attempt.probe) else {
            return;
        };
        let doubted = endpoint.doubted.take();
        if let Some(told) = doubted {
            endpoint.health = Health::Down;
            endpoint.told = Some(told);
        }
        let Some(told) = &mut endpoint.told else {
            return;
        };
        told.ask_again.get_or_insert(now + pause);
        told.asked = None;
        if doubted.is_some() {
            self.tell(Change::ToldDown {
                endpoint: attempt.endpoint,
            });
        }
        self.recount();
    }

    /// Lets those have calls again whose host did not refuse the one that asks, though its answer may
    /// take long: others are not to wait for that.
    fn believe_the_outlived(&mut self, now: Instant) {
        if self.next_outlived.is_none_or(|at| at > now) {
            return;
        }
        for index in 0..self.endpoints.len() {
            let Endpoint { id, told, .. } = self.endpoints[index];
            let outlived = told.and_then(|told| told.outlived_at());
            if outlived.is_some_and(|at| at <= now) {
                self.set_health(id, Health::Unknown, now);
                self.endpoints[index].doubted = told;
                self.tell(Change::ToldUp { endpoint: id });
            }
        }
    }

    /// Returns how long an endpoint that its host calls down is not asked.
    fn pause_of_asking(&mut self) -> Duration {
        let pause = self.settings.ask_down_again;
        pause + self.dice.up_to(pause / 2)
    }

    /// Takes in that it answers, whatever it answers, if its host called it down before.
    fn told_up(&mut self, attempt: Attempt, now: Instant) {
        let Some(endpoint) = self.endpoint(attempt.endpoint) else {
            return;
        };
        let told = endpoint.told;
        endpoint.doubted = endpoint.doubted.filter(|told| told.since > attempt.started);
        if told.is_some_and(|told| told.since <= attempt.started) {
            self.set_health(attempt.endpoint, Health::Unknown, now);
            self.tell(Change::ToldUp {
                endpoint: attempt.endpoint,
            });
        }
    }

    fn fail(&mut self, attempt: Attempt, failure: Failure, latency: Duration, now: Instant) {
        let (decay, least) = (self.settings.latency_decay, self.settings.failure_latency);
        let breakers = self.breakers.clone();
        // Of several that take no calls not all are to be tried anew by one call.
        let jitter = self.dice.up_to(least / 2);
        let Some(endpoint) = self.endpoint(attempt.endpoint) else {
            return;
        };
        if failure.untouched() {
            endpoint.refused_until = Some(now + least + jitter);
        } else {
            endpoint.latency.observe(latency.max(least), decay, now);
        }
        let tripped = if attempt.probe && !endpoint.breaker.is_closed() {
            Some(Tripped::Probe)
        } else {
            endpoint.breaker.failed(attempt.started, &breakers, now)
        };
        if let Some(why) = tripped {
            self.trip(attempt.endpoint, why, now);
        }
    }

    fn trip(&mut self, id: HostId, why: Tripped, now: Instant) {
        let may = self.may_eject(id);
        let Self {
            endpoints,
            dice,
            breakers,
            ..
        } = self;
        let Some(endpoint) = endpoints.iter_mut().find(|endpoint| endpoint.id == id) else {
            return;
        };
        endpoint.tripped = Some(why);
        if may {
            let penalty = endpoint.breaker.open(breakers, dice, now);
            self.tell(Change::Ejected {
                endpoint: id,
                why,
                penalty,
            });
            self.recount();
        } else {
            endpoint.breaker.spare();
            self.tell(Change::Spared { endpoint: id, why });
        }
    }

    /// Whether one more may be ejected: within the limit, and with one left that works.
    fn may_eject(&self, id: HostId) -> bool {
        let others = || self.endpoints.iter().filter(|endpoint| endpoint.id != id);
        let ejected = others().filter(|endpoint| !endpoint.breaker.is_closed());
        ejected.count() < self.ejected_max() && others().any(Endpoint::is_healthy)
    }

    fn ejected_max(&self) -> usize {
        let all = self.endpoints.len();
        let share = all * self.breakers.ejected_percent_max as usize / 100;
        share.min(all.saturating_sub(1))
    }

    fn close_those_above_the_limit(&mut self, now: Instant) {
        let ejected = |endpoints: &[Endpoint]| {
            let open = endpoints.iter().filter(|e| !e.breaker.is_closed());
            open.count()
        };
        while ejected(&self.endpoints) > self.ejected_max() {
            let soonest = self
                .endpoints
                .iter_mut()
                .filter(|endpoint| !endpoint.breaker.is_closed())
                .min_by_key(|endpoint| endpoint.breaker.probe_at())
                .expect("more than none are ejected");
            soonest.breaker.close(now);
        }
    }

    fn recover(&mut self, id: HostId, now: Instant) {
        if let Some(endpoint) = self.endpoint(id) {
            endpoint.tripped = None;
            endpoint.warming_from = Some(now);
            // What it took while it failed says nothing of what it takes now.
            endpoint.latency.forget();
        }
        self.tell(Change::Recovered { endpoint: id });
        self.recount();
    }

    fn release_probe(&mut self, attempt: Attempt, now: Instant) {
        if attempt.probe
            && let Some(endpoint) = self.endpoint(attempt.endpoint)
        {
            endpoint.release_probe(now);
            self.recount();
        }
    }

    /// Works out anew who gets calls; after each change of an endpoint, never for a call.
    fn recount(&mut self) {
        let all = self.endpoints.len();
        let healthy = self.endpoints.iter().filter(|e| e.is_healthy()).count();
        let none_up = self.endpoints.iter().all(|e| e.health.is_down());
        let using_all = 2 * healthy < all && !none_up;
        self.ready.clear();
        if !none_up {
            let ready = self.endpoints.iter().enumerate();
            let ready = ready.filter(|(_, endpoint)| using_all || endpoint.is_healthy());
            self.ready.extend(ready.map(|(index, _)| index));
        }
        let probes = self.endpoints.iter().filter_map(Endpoint::probe_at);
        self.next_probe = probes.min();
        let told = self.endpoints.iter().filter_map(|e| e.told.as_ref());
        self.next_outlived = told.filter_map(Told::outlived_at).min();
        if using_all != self.using_all {
            self.using_all = using_all;
            self.tell(if using_all {
                Change::UsingAll { healthy, of: all }
            } else {
                Change::UsingHealthy { healthy, of: all }
            });
        }
    }

    fn tell(&mut self, change: Change) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }
}

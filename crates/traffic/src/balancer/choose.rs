//! The choice itself: look at all of a few, at two of many, follow a sticky key, or try one that
//! has served its penalty.

use model::ids::HostId;
use model::time::Instant;

use super::{Attempt, Balancer, NoneReady};
use crate::endpoint::Endpoint;
use crate::settings::BalanceSettings;

/// Up to so many are looked at all; of more, two.
const LOOK_AT_ALL_MAX: usize = 8;
/// How often the dice are rolled for one of two before all are looked at.
const DRAWS_MAX: usize = 4;
/// How long a probe waits for a call that could be sent again if it failed.
const PROBE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Who gets a call, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Who.
    pub endpoint: HostId,
    /// Why.
    pub why: Why,
    /// Of how many that were ready.
    pub of: usize,
    /// Whether sick ones were among them, because fewer than half are healthy.
    pub using_all: bool,
}

/// Why an endpoint was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Of all that were ready it had the least load.
    LeastLoaded,
    /// Of two that were drawn it had less load.
    LesserOfTwo,
    /// It is the one of the call's sticky key.
    Sticky,
    /// The key's own has too much to do; it is the next in the key's order.
    StickySpilled,
    /// It was left out for its time, and this call shows whether it works again.
    Probe,
}

impl Why {
    /// Returns the name in logs and explanations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeastLoaded => "least_loaded",
            Self::LesserOfTwo => "lesser_of_two",
            Self::Sticky => "sticky",
            Self::StickySpilled => "sticky_spilled",
            Self::Probe => "probe",
        }
    }
}

/// Says of an endpoint whether it may get a call.
pub type May<'m> = &'m dyn Fn(HostId) -> bool;

/// What a call asks of a choice.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish<'t> {
    /// Calls with the same key go to the same endpoint.
    pub(crate) key: Option<u64>,
    /// Who had this call already.
    pub(crate) tried: &'t [HostId],
    /// Whether one of them may have it again, if there is nobody else.
    pub(crate) again: bool,
    /// Whether it could be sent to another if this one failed.
    pub(crate) expendable: bool,
    /// Who may have it at all; `None`: all. It is asked about those only that would be chosen.
    pub(crate) may: Option<May<'t>>,
}

impl Wish<'_> {
    /// Whether the endpoint may have the call, and has not had it yet.
    fn suits(&self, endpoint: &Endpoint) -> bool {
        !self.tried.contains(&endpoint.id) && self.allows(endpoint)
    }

    fn allows(&self, endpoint: &Endpoint) -> bool {
        self.may.is_none_or(|may| may(endpoint.id))
    }
}

impl Balancer {
    /// Chooses who gets a call. The choice counts as under way until it is released.
    pub(crate) fn choose(
        &mut self,
        wish: Wish<'_>,
        now: Instant,
    ) -> Result<(Choice, Attempt), NoneReady> {
        self.believe_the_outlived(now);
        let (index, why) = match self.due_for_probe(wish, now) {
            Some(index) => (index, Why::Probe),
            None => self.choose_ready(wish, now)?,
        };
        let endpoint = &mut self.endpoints[index];
        endpoint.in_flight += 1;
        let endpoint = endpoint.id;
        if why == Why::Probe {
            self.endpoints[index].begin_probe(now);
            self.recount();
        }
        let choice = Choice {
            endpoint,
            why,
            of: self.ready.len(),
            using_all: self.using_all,
        };
        let attempt = Attempt {
            endpoint,
            started: now,
            probe: why == Why::Probe,
        };
        Ok((choice, attempt))
    }

    fn due_for_probe(&self, wish: Wish<'_>, now: Instant) -> Option<usize> {
        if self.next_probe.is_none_or(|at| at > now) {
            return None;
        }
        self.endpoints.iter().position(|endpoint| {
            // While its host says that it is down nothing of a call is seen there, and any can be sent
            // elsewhere. One that gets no answer at all may be lost: that is one call in a while.
            let patience = if wish.expendable || endpoint.told.is_some() {
                std::time::Duration::ZERO
            } else {
                PROBE_PATIENCE
            };
            endpoint.probe_at().is_some_and(|at| at + patience <= now) && wish.suits(endpoint)
        })
    }

    fn choose_ready(&mut self, wish: Wish<'_>, now: Instant) -> Result<(usize, Why), NoneReady> {
        if self.ready.is_empty() {
            return Err(if self.endpoints.is_empty() {
                NoneReady::NoEndpoints
            } else {
                NoneReady::AllDown
            });
        }
        let once_more = Wish { tried: &[], ..wish };
        self.choose_among(wish, now)
            .or_else(|| wish.again.then(|| self.choose_among(once_more, now))?)
            .or_else(|| wish.may.and_then(|_| self.choose_sick(wish, now)))
            .ok_or(if wish.may.is_some() && wish.tried.is_empty() {
                NoneReady::NotAllowed
            } else {
                NoneReady::AllTried
            })
    }

    fn choose_among(&mut self, wish: Wish<'_>, now: Instant) -> Option<(usize, Why)> {
        if let Some(key) = wish.key {
            return self.sticky(key, wish);
        }
        // While sick ones are among them all are looked at: two draws might both be sick.
        if self.ready.len() > LOOK_AT_ALL_MAX
            && !self.using_all
            && let Some(index) = self.lesser_of_two(wish, now)
        {
            return Some((index, Why::LesserOfTwo));
        }
        let index = self.least_loaded(wish, now)?;
        Some((index, Why::LeastLoaded))
    }

    /// Of a call that not everybody may have: those that may are perhaps ejected, all of them, while
    /// others are well. It gets the least loaded of them rather than nobody.
    fn choose_sick(&self, wish: Wish<'_>, now: Instant) -> Option<(usize, Why)> {
        let load =
            |index: usize| self.endpoints[index].load(&self.settings, self.typical_secs, now);
        let not_down = (0..self.endpoints.len()).filter(|index| {
            let endpoint = &self.endpoints[*index];
            !endpoint.health.is_down() && wish.suits(endpoint)
        });
        let least = not_down.min_by(|one, other| load(*one).total_cmp(&load(*other)));
        least.map(|index| (index, Why::LeastLoaded))
    }

    /// Whether somebody who is ready, may have the call and has not had it would get it.
    pub(crate) fn has_another(&self, wish: Wish<'_>) -> bool {
        let mut ready = self.ready.iter();
        ready.any(|index| wish.suits(&self.endpoints[*index]))
    }

    /// Looks at all; equals are drawn by lot. One in its slow start takes part as often as it is
    /// warm, and otherwise only if there is nobody else.
    fn least_loaded(&mut self, wish: Wish<'_>, now: Instant) -> Option<usize> {
        let Self {
            endpoints,
            ready,
            settings,
            typical_secs,
            dice,
            ..
        } = self;
        let (mut best, mut best_load, mut equals) = (None, f64::INFINITY, 1);
        let mut cold = None;
        for index in ready.iter().copied() {
            let endpoint = &endpoints[index];
            if wish.tried.contains(&endpoint.id) {
                continue;
            }
            if let Some(warmth) = endpoint.warmth(settings.slow_start, now)
                && dice.fraction() >= warmth
            {
                cold = cold.or_else(|| wish.allows(endpoint).then_some(index));
                continue;
            }
            let load = endpoint.load(settings, *typical_secs, now);
            if load > best_load || !wish.allows(endpoint) {
                continue;
            }
            if load < best_load || best.is_none() {
                (best, best_load, equals) = (Some(index), load, 1);
            } else {
                equals += 1;
                if dice.below(equals) == 0 {
                    best = Some(index);
                }
            }
        }
        best.or(cold)
    }

    /// Draws two that differ, and takes the one with less load.
    fn lesser_of_two(&mut self, wish: Wish<'_>, now: Instant) -> Option<usize> {
        let one = self.draw(wish, None, now)?;
        let Some(other) = self.draw(wish, Some(one), now) else {
            return Some(one);
        };
        let load =
            |index: usize| self.endpoints[index].load(&self.settings, self.typical_secs, now);
        Some(if load(other) < load(one) { other } else { one })
    }

    fn draw(&mut self, wish: Wish<'_>, but: Option<usize>, now: Instant) -> Option<usize> {
        for _ in 0..DRAWS_MAX {
            let index = self.ready[self.dice.below(self.ready.len())];
            let endpoint = &self.endpoints[index];
            if but == Some(index) || !wish.suits(endpoint) {
                continue;
            }
            let warmth = endpoint.warmth(self.settings.slow_start, now);
            if warmth.is_none_or(|warmth| self.dice.fraction() < warmth) {
                return Some(index);
            }
        }
        None
    }

    /// Rendezvous hashing with bounded load: the highest in the key's order that is not above the
    /// bound, healthy ones first.
    fn sticky(&self, key: u64, wish: Wish<'_>) -> Option<(usize, Why)> {
        let rank = |index: &usize| self.endpoints[*index].rank(key);
        let among = |healthy: bool| {
            self.ready.iter().copied().filter(move |index| {
                let endpoint = &self.endpoints[*index];
                (!healthy || endpoint.is_healthy()) && wish.suits(endpoint)
            })
        };
        let healthy = among(true).next().is_some();
        let own = among(healthy).max_by_key(rank)?;
        let bound = sticky_bound(among(healthy).map(|i| &self.endpoints[i]), &self.settings);
        let below = among(healthy).filter(|index| self.endpoints[*index].in_flight < bound);
        let chosen = below.max_by_key(rank).unwrap_or(own);
        let why = if chosen == own {
            Why::Sticky
        } else {
            Why::StickySpilled
        };
        Some((chosen, why))
    }
}

/// Returns how many calls an endpoint may have under way before a key goes to the next.
fn sticky_bound<'e>(
    endpoints: impl Iterator<Item = &'e Endpoint>,
    settings: &BalanceSettings,
) -> u32 {
    let (mut count, mut in_flight) = (0u64, 1u64);
    for endpoint in endpoints {
        count += 1;
        in_flight += u64::from(endpoint.in_flight);
    }
    let bound = (in_flight * u64::from(settings.sticky_load_percent)).div_ceil(100 * count.max(1));
    u32::try_from(bound).unwrap_or(u32::MAX)
}

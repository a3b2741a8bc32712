//! One endpoint as the balancer knows it.

use std::time::Duration;

use model::ids::HostId;
use model::time::Instant;

use crate::breaker::{Breaker, BreakerState, Tripped};
use crate::latency::PeakEwma;
use crate::settings::BalanceSettings;

/// What is known of an endpoint without a call of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing: nobody checks it, or no check has come back yet. It gets calls.
    #[default]
    Unknown,
    /// It works.
    Up,
    /// It does not, as those say who check it.
    Down,
    /// No session comes about with its host.
    Unreachable,
}

impl Health {
    /// Whether it can take no call.
    pub const fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::Unreachable)
    }
}

/// What its own host answered to a call of an endpoint that is down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// When it said so first.
    pub(crate) since: Instant,
    /// When one call is to ask it again; `None`: one does.
    pub(crate) ask_again: Option<Instant>,
    /// Since when a call asks it.
    pub(crate) asked: Option<Instant>,
}

/// How long a call that asks anew is under way until its host must have taken it: one that calls its
/// endpoint down says so at once, beyond any round trip.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

impl Told {
    /// Returns from when on the call that asks was evidently not refused.
    pub(crate) fn outlived_at(&self) -> Option<Instant> {
        self.asked.map(|asked| asked + REFUSED_WITHIN)
    }
}

/// One endpoint of one service.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) id: HostId,
    /// For rendezvous hashing; a function of the id, so that all threads and hosts agree.
    pub(crate) hash: u64,
    pub(crate) health: Health,
    /// There while it is down because its own host said so.
    pub(crate) told: Option<Told>,
    /// What was told, while nothing but a call that was not refused for it speaks against it.
    pub(crate) doubted: Option<Told>,
    pub(crate) breaker: Breaker,
    /// What opened the breaker last, or would have.
    pub(crate) tripped: Option<Tripped>,
    pub(crate) latency: PeakEwma,
    /// Until when it weighs as a slow one because it took no call: that says nothing of how long its
    /// calls take.
    pub(crate) refused_until: Option<Instant>,
    pub(crate) in_flight: u32,
    /// When its slow start began; `None` once it has its full share.
    pub(crate) warming_from: Option<Instant>,
}

impl Endpoint {
    pub(crate) fn new(id: HostId, now: Instant) -> Self {
        let hash = id
            .as_bytes()
            .chunks(8)
            .fold(0, |hash, chunk| mix(hash ^ word(chunk)));
        Self {
            id,
            hash,
            health: Health::Unknown,
            told: None,
            doubted: None,
            breaker: Breaker::new(now),
            tripped: None,
            latency: PeakEwma::default(),
            refused_until: None,
            in_flight: 0,
            warming_from: None,
        }
    }

    /// Whether it may get calls while enough endpoints may.
    pub(crate) fn is_healthy(&self) -> bool {
        !self.health.is_down() && self.breaker.is_closed()
    }

    /// Returns when one call may be spent on showing whether it works again.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        match self.health {
            Health::Unknown | Health::Up => self.breaker.probe_at(),
            Health::Down => self.told?.ask_again,
            Health::Unreachable => None,
        }
    }

    /// Takes the next call as the one that shows it.
    pub(crate) fn begin_probe(&mut self, now: Instant) {
        match &mut self.told {
            Some(told) => (told.ask_again, told.asked) = (None, Some(now)),
            None => self.breaker.begin_probe(now),
        }
    }

    /// Takes back a call that showed nothing.
    pub(crate) fn release_probe(&mut self, now: Instant) {
        if let Some(told) = &mut self.told {
            told.ask_again.get_or_insert(now);
            told.asked = None;
        }
        self.breaker.release_probe(now);
    }

    /// Returns how often it takes part in choices, of 1; `None` for always. It is the square of
    /// the time that has passed: who has little to do wins more choices than its share.
    pub(crate) fn warmth(&self, slow_start: Duration, now: Instant) -> Option<f64> {
        let elapsed = now - self.warming_from?;
        (elapsed < slow_start).then(|| {
            let passed = elapsed.as_secs_f64() / slow_start.as_secs_f64();
            (passed * passed).max(WARMTH_MIN)
        })
    }

    /// Returns how much one more call here would cost: latency × calls. Where nothing was measured it
    /// is half of `typical` seconds, so that it is measured even where all others are alike.
    pub(crate) fn load(&self, settings: &BalanceSettings, typical: f64, now: Instant) -> f64 {
        let mut secs = self
            .latency
            .secs(settings.latency_decay, now)
            .unwrap_or(typical / 2.0);
        let penalty = settings.failure_latency;
        let refuses = self.refused_until.is_some_and(|until| now < until);
        if refuses || !self.is_healthy() {
            secs = secs.max(penalty.as_secs_f64());
        }
        secs * f64::from(self.in_flight + 1)
    }

    /// Returns where it stands in the order of a sticky key; the highest is the key's own.
    pub(crate) fn rank(&self, key: u64) -> u64 {
        mix(key ^ self.hash)
    }
}

/// How often one takes part at least, so that it is measured at all.
const WARMTH_MIN: f64 = 0.05;

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// The finaliser of SplitMix64: each bit of the input changes half of the output's.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One endpoint for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointView {
    /// Which.
    pub endpoint: HostId,
    /// What is known without a call of it.
    pub health: Health,
    /// Since when its own host says that it is down, if that is how it is known.
    pub told_down_since: Option<Instant>,
    /// Whether it gets calls.
    pub breaker: BreakerState,
    /// Why not, or why it would not if there were more of them.
    pub tripped: Option<Tripped>,
    /// Calls under way.
    pub in_flight: u32,
    /// The average that it is weighed by; `None` when nothing was measured.
    pub latency: Option<Duration>,
    /// Whether it still gets less than its share.
    pub warming: bool,
}

impl Endpoint {
    pub(crate) fn view(&self, settings: &BalanceSettings, now: Instant) -> EndpointView {
        let secs = self.latency.secs(settings.latency_decay, now);
        let outlived = self.told.and_then(|told| told.outlived_at());
        let is_taken = outlived.is_some_and(|at| at <= now);
        let told = self.told.filter(|_| !is_taken);
        EndpointView {
            endpoint: self.id,
            health: if is_taken {
                Health::Unknown
            } else {
                self.health
            },
            told_down_since: told.map(|told| told.since),
            breaker: self.breaker.state(),
            tripped: self.tripped,
            in_flight: self.in_flight,
            latency: secs.map(Duration::from_secs_f64),
            warming: self.warmth(settings.slow_start, now).is_some(),
        }
    }
}

//! The numbers of one service: defaults, and what the policy says instead.

use std::time::Duration;

use model::rule::{PerTryTimeout, TrafficSettings};

/// How one service is called.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Who gets a call.
    pub balance: BalanceSettings,
    /// How long is waited.
    pub timeouts: TimeoutSettings,
    /// What is tried again.
    pub retry: RetrySettings,
    /// When an endpoint is left alone.
    pub breaker: BreakerSettings,
    /// How much goes on at once.
    pub limits: LimitSettings,
}

impl Settings {
    /// Returns what the policy says of a service, and the defaults where it says nothing.
    pub fn of(policy: &TrafficSettings) -> Self {
        let defaults = Self::default();
        Self {
            balance: defaults.balance,
            timeouts: TimeoutSettings::of(policy),
            retry: RetrySettings::of(&policy.retry),
            breaker: BreakerSettings::of(&policy.breaker),
            limits: LimitSettings::of(&policy.limits),
        }
    }

    /// Returns them for one of so many threads, which do not know of each other's retries.
    /// The limits stay: threads share their gauge.
    #[must_use]
    pub fn shared_by(mut self, threads: usize) -> Self {
        let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
        let budget = &mut self.retry.budget;
        budget.minimum_in_window = budget.minimum_in_window.div_ceil(threads);
        self
    }
}

/// Who gets a call.
#[derive(Clone, Debug, PartialEq)]
pub struct BalanceSettings {
    /// How fast an observed latency is forgotten: after this time it counts for 1/e.
    pub latency_decay: Duration,
    /// What a failed answer counts as, at least, so that failing fast attracts nothing. One that
    /// takes no call at all counts so for as long, up to half of it more, and as before from then on.
    pub failure_latency: Duration,
    /// How long an endpoint that joins or comes back gets less than its share.
    pub slow_start: Duration,
    /// How far above the average of calls in flight a sticky key may load an endpoint, in percent.
    pub sticky_load_percent: u32,
    /// How long calls wait when there is no endpoint; afterwards they fail at once until there is.
    pub none_ready_wait: Duration,
    /// How long an endpoint that its own host calls down gets nothing, until one call asks anew.
    pub ask_down_again: Duration,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self {
            latency_decay: Duration::from_secs(10), // Finagle, Linkerd: peak EWMA
            failure_latency: Duration::from_secs(1), // Linkerd load-biaser
            slow_start: Duration::from_secs(10),
            sticky_load_percent: 125, // "Consistent Hashing with Bounded Loads", c = 1.25
            none_ready_wait: Duration::from_secs(1), // Linkerd failfast
            ask_down_again: Duration::from_secs(1), // as long as a breaker's first penalty
        }
    }
}

/// How long is waited.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeoutSettings {
    /// For an endpoint to accept.
    pub connect: Duration,
    /// For the head of the answer, all attempts together.
    pub request: Duration,
    /// For the head of the answer, one attempt.
    pub per_try: PerTry,
    /// For the next byte of a connection of bytes, either way.
    pub idle_connection: Duration,
    /// For the next byte of a request or an answer, either way.
    pub idle_stream: Duration,
}

impl TimeoutSettings {
    fn of(policy: &TrafficSettings) -> Self {
        let defaults = Self::default();
        Self {
            connect: policy.connect_timeout.unwrap_or(defaults.connect),
            request: policy.request_timeout.unwrap_or(defaults.request),
            per_try: match policy.per_try_timeout {
                None | Some(PerTryTimeout::Auto) => PerTry::Auto,
                Some(PerTryTimeout::Fixed(time)) => PerTry::Fixed(time),
            },
            idle_connection: policy.idle_timeout.unwrap_or(defaults.idle_connection),
            idle_stream: policy.idle_timeout.unwrap_or(defaults.idle_stream),
        }
    }
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),  // Linkerd
            request: Duration::from_secs(15), // Envoy
            per_try: PerTry::Auto,
            idle_connection: Duration::from_secs(3600), // Envoy
            idle_stream: Duration::from_secs(300),      // Envoy
        }
    }
}

/// How long one attempt may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PerTry {
    /// clamp(3 × p99, 50 ms, request / 2), for attempts that another may follow; the last has all
    /// the time that is left.
    #[default]
    Auto,
    /// So long, the last one too.
    Fixed(Duration),
}

/// What is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrySettings {
    /// How often a call is tried, the first attempt included; at least 1.
    pub attempts: u8,
    /// Whether all calls of the service may be sent twice, whatever their method.
    pub idempotent: bool,
    /// The wait before the first retry is from zero to this, twice as much before each next one.
    pub backoff_base: Duration,
    /// What it may be at most.
    pub backoff_max: Duration,
    /// The largest body that is kept so that it can be sent again, in bytes.
    pub body_bytes_max: usize,
    /// How many there may be.
    pub budget: BudgetSettings,
}

impl RetrySettings {
    /// How many attempts a call has at most, whatever a service asks for.
    pub const ATTEMPTS_MAX: u8 = 8;

    fn of(policy: &model::rule::RetrySettings) -> Self {
        let defaults = Self::default();
        let asked = policy.attempts.unwrap_or(u32::from(defaults.attempts));
        let mut budget = defaults.budget;
        if let Some(percent) = policy.budget_percent {
            budget.percent = percent;
        }
        Self {
            attempts: asked.clamp(1, u32::from(Self::ATTEMPTS_MAX)) as u8,
            idempotent: policy.idempotent,
            budget,
            ..defaults
        }
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts: 2, // Istio
            idempotent: false,
            backoff_base: Duration::from_millis(25), // Envoy
            backoff_max: Duration::from_millis(250), // Envoy
            body_bytes_max: 64 * 1024,               // Linkerd
            budget: BudgetSettings::default(),
        }
    }
}

/// How many retries there may be within ten seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetSettings {
    /// For each hundred calls.
    pub percent: u32,
    /// However few calls there are.
    pub minimum_in_window: u32,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        // Finagle's RetryBudget has 10 a second; a host here is one caller of many: 3 a second.
        Self {
            percent: 20,
            minimum_in_window: 30,
        }
    }
}

/// When an endpoint is left alone.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerSettings {
    /// Failures in a row that open the breaker.
    pub consecutive_failures: u32,
    /// Calls that succeed in ten seconds, of a hundred; fewer open the breaker.
    pub success_percent_min: u32,
    /// Calls in ten seconds below which the rate says nothing.
    pub requests_min: u32,
    /// How long the first ejection lasts; each probe that fails doubles it.
    pub penalty_min: Duration,
    /// How long one lasts at most, without its jitter.
    pub penalty_max: Duration,
    /// By how much an ejection is lengthened at random at most, in percent.
    pub jitter_percent: u32,
    /// How many of the endpoints may be ejected at once, in percent; one is always kept.
    pub ejected_percent_max: u32,
}

impl BreakerSettings {
    fn of(policy: &model::rule::BreakerSettings) -> Self {
        let defaults = Self::default();
        let penalty_min = policy.penalty.unwrap_or(defaults.penalty_min);
        Self {
            consecutive_failures: policy
                .consecutive_failures
                .unwrap_or(defaults.consecutive_failures),
            success_percent_min: policy
                .success_rate_percent
                .unwrap_or(defaults.success_percent_min),
            penalty_min,
            penalty_max: penalty_min.max(defaults.penalty_max),
            ejected_percent_max: policy
                .ejected_percent_max
                .unwrap_or(defaults.ejected_percent_max),
            ..defaults
        }
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        // Linkerd's unified breaker, but for the last, which lets a breaker eject one of two.
        Self {
            consecutive_failures: 5,
            success_percent_min: 80,
            requests_min: 10,
            penalty_min: Duration::from_secs(1),
            penalty_max: Duration::from_secs(60),
            jitter_percent: 50,
            ejected_percent_max: 50,
        }
    }
}

/// How much goes on at once, from this host to the service.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSettings {
    /// Calls that are under way.
    pub in_flight: u32,
    /// Calls that wait for one of them to end.
    pub waiting: u32,
    /// How long one waits at most.
    pub wait_max: Duration,
}

impl LimitSettings {
    fn of(policy: &model::rule::LimitSettings) -> Self {
        let defaults = Self::default();
        Self {
            in_flight: policy.in_flight.unwrap_or(defaults.in_flight),
            waiting: policy.waiting.unwrap_or(defaults.waiting),
            wait_max: policy.wait.unwrap_or(defaults.wait_max),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            in_flight: 1024, // Envoy
            waiting: 256,
            wait_max: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_says_nothing_leaves_the_defaults() {
        assert_eq!(
            Settings::of(&TrafficSettings::default()),
            Settings::default()
        );
    }

    #[test]
    fn what_the_policy_says_replaces_the_default_and_nothing_else() {
        let policy = TrafficSettings {
            request_timeout: Some(Duration::from_secs(2)),
            per_try_timeout: Some(PerTryTimeout::Fixed(Duration::from_millis(300))),
            retry: model::rule::RetrySettings {
                attempts: Some(100),
                budget_percent: Some(5),
                idempotent: true,
            },
            breaker: model::rule::BreakerSettings {
                penalty: Some(Duration::from_secs(90)),
                ..Default::default()
            },
            ..TrafficSettings::default()
        };
        let settings = Settings::of(&policy);
        assert_eq!(settings.timeouts.request, Duration::from_secs(2));
        assert_eq!(settings.timeouts.connect, Duration::from_secs(1));
        let per_try = PerTry::Fixed(Duration::from_millis(300));
        assert_eq!(settings.timeouts.per_try, per_try);
        assert_eq!(settings.retry.attempts, RetrySettings::ATTEMPTS_MAX);
        assert_eq!(settings.retry.budget.percent, 5);
        assert!(settings.retry.idempotent);
        assert_eq!(settings.breaker.penalty_max, Duration::from_secs(90));
        assert_eq!(settings.limits, LimitSettings::default());
    }

    #[test]
    fn threads_share_the_least_number_of_retries() {
        let settings = Settings::default().shared_by(4);
        assert_eq!(settings.retry.budget.minimum_in_window, 8);
        assert_eq!(settings.retry.budget.percent, 20);
    }
}

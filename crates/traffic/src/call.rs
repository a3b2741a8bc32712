//! One call between its begin and its end: what it may do, who had it, how long it has.

use std::cell::Cell;
use std::time::Duration;

use model::ids::HostId;
use model::time::Instant;

use crate::balancer::Attempt;
use crate::in_flight::Place;
use crate::settings::RetrySettings;

/// What a call is, before it is sent anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallShape {
    /// A hash of what keeps its caller at one endpoint, for services that are sticky.
    pub key: Option<u64>,
    /// Whether doing it twice is doing it once; [`CallShape::is_idempotent`] says so of a method.
    pub idempotent: bool,
    /// When its caller stops waiting, if that was told (`grpc-timeout`, `mesh-deadline`).
    pub deadline: Option<Instant>,
}

impl CallShape {
    /// Whether a request of this method may be sent twice (RFC 9110, 9.2.2).
    pub fn is_idempotent(method: &str) -> bool {
        matches!(
            method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        )
    }
}

/// A call under way. What begins is ended, by [`crate::Upstream::end`].
#[derive(Debug)]
#[must_use = "a call that is not ended counts as under way for ever"]
pub struct Call {
    pub(crate) shape: CallShape,
    pub(crate) deadline: Instant,
    pub(crate) place: Place,
    pub(crate) stage: Stage,
    pub(crate) tried: Tried,
    pub(crate) try_until: Instant,
    /// Whether `try_until` counts on a retry.
    pub(crate) cut_short: bool,
    /// Whether it was not cut after all, because none could have followed then.
    pub(crate) went_on: Cell<bool>,
    /// Whether the endpoint that failed last did nothing, so that it may be asked again.
    pub(crate) untouched: bool,
    /// Whether somebody else could have it, where not everybody may.
    pub(crate) somebody_else: Option<bool>,
    pub(crate) poll_again_at: Instant,
}

/// What a call is waiting for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// To be sent for the first time.
    New,
    /// For the head of an answer.
    Sent(Attempt),
    /// For the end of an answer; `judged`: whether it was good is known.
    Answered { attempt: Attempt, judged: bool },
    /// For the end of its back-off.
    BackOff,
    /// For nothing: it failed, and is not tried again.
    Over,
}

impl Call {
    pub(crate) fn new(shape: CallShape, request: Duration, now: Instant) -> Self {
        let deadline = now + request;
        let deadline = shape.deadline.map_or(deadline, |told| told.min(deadline));
        Self {
            shape,
            deadline,
            place: Place::Outside,
            stage: Stage::New,
            tried: Tried::default(),
            try_until: deadline,
            cut_short: false,
            went_on: Cell::new(false),
            untouched: false,
            somebody_else: None,
            poll_again_at: deadline,
        }
    }

    /// Returns how often it was sent.
    pub fn attempts(&self) -> u8 {
        self.tried.count
    }

    /// Returns who had it, in their order, with repetitions.
    pub fn tried(&self) -> &[HostId] {
        self.tried.hosts()
    }

    /// Returns when the wait for the head of its answer ends, all attempts together.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the time that is left for the head of its answer: what is told to the other side.
    pub fn left(&self, now: Instant) -> Duration {
        self.deadline - now
    }

    /// Returns when the wait for the head of this attempt's answer ends.
    pub fn try_until(&self) -> Instant {
        if self.went_on.get() {
            self.deadline
        } else {
            self.try_until
        }
    }

    /// Returns when what is pending has to be polled again at the latest.
    pub fn poll_again_at(&self) -> Instant {
        self.poll_again_at
    }
}

/// Who had a call: as many as may be, without a heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    hosts: [HostId; RetrySettings::ATTEMPTS_MAX as usize],
    count: u8,
}

impl Default for Tried {
    fn default() -> Self {
        Self {
            hosts: [HostId::from_bytes([0; HostId::LEN]); RetrySettings::ATTEMPTS_MAX as usize],
            count: 0,
        }
    }
}

impl Tried {
    pub(crate) fn push(&mut self, host: HostId) {
        self.hosts[usize::from(self.count)] = host;
        self.count += 1;
    }

    pub(crate) fn hosts(&self) -> &[HostId] {
        &self.hosts[..usize::from(self.count)]
    }
}

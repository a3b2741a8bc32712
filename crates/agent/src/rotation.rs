//! When this host's WireGuard key changes, and where the change stands: the next key is on the disk
//! before anybody hears of it, it is offered to the coordinator until the host's record names it,
//! and the former one is kept for a while. A change that was begun is never given up: the record may
//! name the next key at any time from then on.

use std::time::Duration;

use model::ids::HostId;
use model::time::{Instant, Now, UnixTime};

use crate::backoff::Backoff;
use crate::dice::Dice;
use crate::keys::{FORMER_KEY_KEPT, HostKeys};
use crate::output::RequestId;
use crate::persistence::Version;
use crate::timer::{Timeout, earliest, is_due};

/// Where a change of the key stands.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// How old a key gets before it is changed without being asked to; `None`: as old as it likes.
    every: Option<Duration>,
    /// Who waits for the change, and until when.
    waiting: Option<(RequestId, Instant)>,
    /// What has to be durable before the next key is offered.
    saving: Option<Version>,
    /// When to offer the next key to a coordinator.
    offer_at: Option<Instant>,
    backoff: Backoff,
    /// By the monotonic clock, whatever the wall clock says.
    former_by: Option<Instant>,
    look_at: Instant,
}

/// How long an operator waits for the new record before it is told that it will come by itself.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY_BASE: Duration = Duration::from_secs(30);
/// Whoever refused may be able to grant it again soon: a full disk was emptied, a key was changed a
/// moment ago.
const RETRY_CAP: Duration = Duration::from_secs(180);
/// How often the wall clock is looked at, as it may jump while nobody looks.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// The keys of hosts that joined together do not change together: this part of the time between
/// two changes is spread over.
const SPREAD_FRACTION: u32 = 10;

impl Rotation {
    pub(crate) fn new(every: Option<Duration>, now: Instant) -> Self {
        Self {
            every,
            waiting: None,
            saving: None,
            offer_at: None,
            backoff: Backoff::new(RETRY_BASE, RETRY_CAP),
            former_by: None,
            look_at: now,
        }
    }

    /// Forgets what was under way, for a host that is no member any more.
    pub(crate) fn clear(&mut self, now: Instant) {
        *self = Self::new(self.every, now);
    }

    /// Returns whether somebody waits already.
    pub(crate) fn is_awaited(&self) -> bool {
        self.waiting.is_some()
    }

    /// Starts to offer the next key when `saving` is durable.
    pub(crate) fn begin(&mut self, request: Option<RequestId>, saving: Version, now: Instant) {
        self.waiting = request.map(|request| (request, now + PATIENCE));
        self.saving = Some(saving);
    }

    /// Takes up a change that a restart interrupted: its keys are on the disk.
    pub(crate) fn resume(&mut self, keys: &HostKeys, now: Instant) {
        if keys.next().is_some() {
            self.offer_at = Some(now);
        } else if keys.spare.is_some() {
            self.former_by = Some(now + FORMER_KEY_KEPT);
        }
    }

    /// Returns the version that has to be durable before the next key is offered.
    pub(crate) fn saving(&self) -> Option<Version> {
        self.saving
    }

    /// The next key is on the disk.
    pub(crate) fn handle_saved(&mut self, now: Instant) {
        self.saving = None;
        self.backoff.reset();
        self.offer_at = Some(now);
    }

    /// A coordinator listens: what an earlier one was offered may never have arrived.
    pub(crate) fn handle_welcome(&mut self, now: Instant) {
        if self.offer_at.is_some() {
            self.offer_at = Some(now);
        }
    }

    /// The coordinator refuses; the key is offered again later. Returns who waits.
    pub(crate) fn handle_refused(&mut self) -> Option<RequestId> {
        self.waiting.take().map(|(request, _)| request)
    }

    /// The record names the next key. Returns who waits.
    pub(crate) fn handle_done(&mut self, now: Instant) -> Option<RequestId> {
        self.offer_at = None;
        self.saving = None;
        self.former_by = Some(now + FORMER_KEY_KEPT);
        self.waiting.take().map(|(request, _)| request)
    }

    /// Returns who has waited long enough.
    pub(crate) fn take_impatient(&mut self, now: Instant) -> Option<RequestId> {
        let waiting = self.waiting.take_if(|(_, until)| is_due(*until, now));
        waiting.map(|(request, _)| request)
    }

    /// Returns whether to offer the next key now.
    pub(crate) fn take_offer(&mut self, now: Instant, is_online: bool, dice: &mut Dice) -> bool {
        let is_time = is_online && self.offer_at.is_some_and(|at| is_due(at, now));
        if is_time {
            self.offer_at = Some(now + self.backoff.next_wait(dice).max(RETRY_BASE));
        }
        is_time
    }

    /// Returns whether the key is old enough to be changed without being asked to.
    pub(crate) fn wants_next(&self, keys: &HostKeys, me: HostId, now: UnixTime) -> bool {
        let Some(every) = self.every.filter(|_| keys.next().is_none()) else {
            return false;
        };
        let early = every / SPREAD_FRACTION * u32::from(me.as_bytes()[0]) / 256;
        keys.wireguard_made + every.saturating_sub(early) <= now
    }

    /// Returns whether the former key has been kept for long enough.
    pub(crate) fn is_former_over(&self, keys: &HostKeys, now: Now) -> bool {
        let until = keys.spare.as_ref().and_then(|spare| spare.former_until);
        let by_clock = until.is_some_and(|until| until <= now.unix);
        let by_timer = self.former_by.is_some_and(|by| is_due(by, now.monotonic));
        until.is_some() && (by_clock || by_timer)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if is_due(self.look_at, now) {
            self.look_at = now + LOOK_EVERY;
        }
    }

    pub(crate) fn poll_timeout(&self, keys: &HostKeys, is_online: bool) -> Timeout {
        let looks = self.every.is_some() || keys.spare.is_some();
        let has_former = keys.spare.is_some() && keys.next().is_none();
        earliest([
            self.waiting
                .map(|(_, until)| (until, "tell that the key changes later")),
            self.offer_at
                .filter(|_| is_online)
                .map(|at| (at, "offer the next key")),
            self.former_by
                .filter(|_| has_former)
                .map(|by| (by, "forget the former key")),
            looks.then_some((self.look_at, "look at the key's age")),
        ])
    }
}

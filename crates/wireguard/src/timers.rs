//! When a tunnel must act without being asked: retries, rekeying, keepalives (section 6).
//!
//! Deadlines only; what is done at one is in [`crate::tunnel`]. A timer is armed at most once per
//! packet by a store, never searched for.

use std::time::Duration;

/// Age at which the initiator of a session renews it when it sends.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120); // section 6.1
/// Age at which a session's keys are refused and wiped.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180); // section 6.1
/// How long a handshake is tried before the tunnel gives up.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90); // section 6.1
/// Time between two initiations.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5); // section 6.1
/// Silence after which a received packet is answered by a keepalive.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10); // section 6.1
/// Silence after which a sent packet asks for a handshake.
pub const NO_REPLY_TIMEOUT: Duration = KEEPALIVE_TIMEOUT.saturating_add(REKEY_TIMEOUT); // 6.4
/// Age at which the initiator of a session renews it when it receives.
pub const REKEY_ON_RECEIVE_TIME: Duration = REJECT_AFTER_TIME.saturating_sub(NO_REPLY_TIMEOUT); // 6.2
/// Time between two initiations of one peer that are answered.
pub const INITIATION_INTERVAL: Duration = Duration::from_millis(50); // Linux: INITIATIONS_PER_SECOND = 20
/// The longest random delay that is added to a retry.
pub const JITTER_MAX: Duration = Duration::from_millis(333); // section 6.1

/// The shortest interval of a persistent keepalive.
pub const PERSISTENT_KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// What is due, see [`Timers::take_due`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The initiation got no answer.
    Retry,
    /// The handshake was tried for long enough.
    GiveUp,
    /// Packets were sent and nothing came back.
    NoReply,
    /// A packet came and nothing was sent back.
    Keepalive,
    /// The persistent keepalive's interval has passed.
    PersistentKeepalive,
}

/// The deadlines of one tunnel.
#[derive(Debug)]
pub(crate) struct Timers {
    attempt: Option<Attempt>,
    last_handshake_sent_at: Option<Duration>,
    no_reply_at: Option<Duration>,
    keepalive_at: Option<Duration>,
    persistent: Option<Persistent>,
    /// A deadline was set that was not there before: it may be the earliest.
    is_armed_anew: bool,
    jitter: Jitter,
}

/// A handshake that we try to initiate.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    since: Duration,
    retry_at: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Persistent {
    interval: Duration,
    at: Duration,
}

/// Whether an initiation may go out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Send it.
    Now,
    /// The last one was too recent or is under way; a timer is set.
    Later,
}

impl Timers {
    pub(crate) fn new(jitter_seed: u64) -> Self {
        Self {
            attempt: None,
            last_handshake_sent_at: None,
            no_reply_at: None,
            keepalive_at: None,
            persistent: None,
            is_armed_anew: false,
            jitter: Jitter(jitter_seed),
        }
    }

    /// Sets or stops the persistent keepalive; the first is due at once.
    pub(crate) fn set_persistent(&mut self, interval: Option<Duration>, now: Duration) {
        self.persistent = interval.map(|interval| Persistent {
            interval: interval.max(PERSISTENT_KEEPALIVE_MIN),
            at: now,
        });
        self.is_armed_anew = true;
    }

    /// Tells whether a deadline was set that was not there when this was last forgotten.
    #[inline]
    pub(crate) const fn is_armed_anew(&self) -> bool {
        self.is_armed_anew
    }

    /// A session has begun, which has an end.
    pub(crate) const fn session_begun(&mut self) {
        self.is_armed_anew = true;
    }

    /// The owner knows of every deadline.
    #[inline]
    pub(crate) const fn forget_armed(&mut self) {
        self.is_armed_anew = false;
    }

    /// Tells whether we try to initiate a handshake.
    #[inline]
    pub(crate) const fn is_trying(&self) -> bool {
        self.attempt.is_some()
    }

    /// A handshake is wanted. New wishes extend the time for which a running attempt is tried.
    pub(crate) fn want_handshake(&mut self, now: Duration) -> Start {
        if let Some(attempt) = &mut self.attempt {
            attempt.since = now;
            return Start::Later;
        }
        let free_at = self
            .last_handshake_sent_at
            .map_or(now, |sent| sent.saturating_add(REKEY_TIMEOUT));
        if now < free_at {
            let retry_at = free_at + self.jitter.next();
            self.attempt = Some(Attempt {
                since: now,
                retry_at,
            });
            self.is_armed_anew = true;
            return Start::Later;
        }
        self.try_again(now, now);
        Start::Now
    }

    /// An initiation goes out now, as part of an attempt that began at `since`.
    fn try_again(&mut self, since: Duration, now: Duration) {
        let retry_at = now + REKEY_TIMEOUT + self.jitter.next();
        self.attempt = Some(Attempt { since, retry_at });
        self.is_armed_anew = true;
        self.last_handshake_sent_at = Some(now);
    }

    /// An initiation or a response was sent: our own next initiation keeps its distance.
    pub(crate) fn handshake_sent(&mut self, now: Duration) {
        self.last_handshake_sent_at = Some(now);
        self.any_sent(now);
    }

    /// A session is in use: no handshake is needed.
    pub(crate) fn handshake_complete(&mut self) {
        self.attempt = None;
    }

    /// An authentic packet of any kind was sent.
    #[inline]
    pub(crate) fn any_sent(&mut self, now: Duration) {
        self.keepalive_at = None;
        self.any_traversal(now);
    }

    /// A packet with content was sealed.
    #[inline]
    pub(crate) fn data_sent(&mut self, now: Duration) {
        if self.no_reply_at.is_none() {
            self.no_reply_at = Some(now + NO_REPLY_TIMEOUT + self.jitter.next());
            self.is_armed_anew = true;
        }
    }

    /// An authentic packet of any kind was received.
    #[inline]
    pub(crate) fn any_received(&mut self, now: Duration) {
        self.no_reply_at = None;
        self.any_traversal(now);
    }

    /// A packet with content was opened.
    #[inline]
    pub(crate) fn data_received(&mut self, now: Duration) {
        if self.keepalive_at.is_none() {
            self.keepalive_at = Some(now + KEEPALIVE_TIMEOUT);
            self.is_armed_anew = true;
        }
    }

    #[inline]
    fn any_traversal(&mut self, now: Duration) {
        if let Some(persistent) = &mut self.persistent {
            persistent.at = now + persistent.interval;
        }
    }

    /// Returns the next deadline and its reason.
    pub(crate) fn next(&self) -> Option<(Duration, &'static str)> {
        [
            self.attempt
                .map(|attempt| (attempt.retry_at, "handshake retry")),
            self.no_reply_at.map(|at| (at, "no reply")),
            self.keepalive_at.map(|at| (at, "keepalive")),
            self.persistent
                .map(|persistent| (persistent.at, "persistent keepalive")),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes one thing that is due, and arms its timer anew where that is its nature.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<Due> {
        if let Some(attempt) = self.attempt
            && attempt.retry_at <= now
        {
            if now.saturating_sub(attempt.since) >= REKEY_ATTEMPT_TIME {
                self.attempt = None;
                return Some(Due::GiveUp);
            }
            self.try_again(attempt.since, now);
            return Some(Due::Retry);
        }
        if take_passed(&mut self.no_reply_at, now) {
            return Some(Due::NoReply);
        }
        if take_passed(&mut self.keepalive_at, now) {
            return Some(Due::Keepalive);
        }
        if let Some(persistent) = &mut self.persistent
            && persistent.at <= now
        {
            persistent.at = now + persistent.interval;
            return Some(Due::PersistentKeepalive);
        }
        None
    }
}

fn take_passed(deadline: &mut Option<Duration>, now: Duration) -> bool {
    let passed = deadline.is_some_and(|at| at <= now);
    if passed {
        *deadline = None;
    }
    passed
}

/// Small random delays that keep two peers from retrying in step (SplitMix64).
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    #[inline]
    fn next(&mut self) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Duration::from_millis(mixed % (JITTER_MAX.as_millis() as u64 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    /// Lets time pass until `end` and returns what was due, and when.
    fn due_until(timers: &mut Timers, end: Duration) -> Vec<(Duration, Due)> {
        let mut due = Vec::new();
        while let Some((at, _)) = timers.next().filter(|(at, _)| *at <= end) {
            due.extend(timers.take_due(at).map(|what| (at, what)));
        }
        due
    }

    #[test]
    fn an_unanswered_handshake_is_retried_for_ninety_seconds_and_then_given_up() {
        let mut timers = Timers::new(1);
        assert_eq!(timers.want_handshake(START), Start::Now);
        let due = due_until(&mut timers, START + Duration::from_secs(3_600));
        let (last, retries) = due.split_last().unwrap();
        assert_eq!(last.1, Due::GiveUp);
        assert!(last.0 - START >= REKEY_ATTEMPT_TIME);
        assert!(last.0 - START < REKEY_ATTEMPT_TIME + REKEY_TIMEOUT + JITTER_MAX);
        assert!(retries.iter().all(|(_, due)| *due == Due::Retry));
        let sent: Vec<_> = [START]
            .into_iter()
            .chain(retries.iter().map(|(at, _)| *at))
            .collect();
        for pair in sent.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(
                gap >= REKEY_TIMEOUT && gap <= REKEY_TIMEOUT + JITTER_MAX,
                "{gap:?}"
            );
        }
    }

    #[test]
    fn new_wishes_extend_the_time_for_which_a_handshake_is_tried() {
        let mut timers = Timers::new(1);
        timers.want_handshake(START);
        let later = START + Duration::from_secs(80);
        due_until(&mut timers, later);
        assert_eq!(timers.want_handshake(later), Start::Later);
        let due = due_until(&mut timers, later + REKEY_ATTEMPT_TIME);
        assert!(due.iter().all(|(_, due)| *due == Due::Retry), "{due:?}");
        let due = due_until(&mut timers, START + Duration::from_secs(3_600));
        assert_eq!(due.last().map(|(_, due)| *due), Some(Due::GiveUp));
    }

    #[test]
    fn a_persistent_keepalive_without_an_interval_still_lets_time_pass() {
        let mut timers = Timers::new(1);
        timers.set_persistent(Some(Duration::ZERO), START);
        assert_eq!(timers.take_due(START), Some(Due::PersistentKeepalive));
        assert_eq!(timers.take_due(START), None);
    }

    #[test]
    fn a_second_wish_within_the_timeout_waits_for_its_turn() {
        let mut timers = Timers::new(1);
        timers.want_handshake(START);
        timers.handshake_complete();
        let soon = START + Duration::from_secs(1);
        assert_eq!(timers.want_handshake(soon), Start::Later);
        let due = due_until(&mut timers, START + Duration::from_secs(6));
        assert_eq!(due.len(), 1);
        assert!(due[0].0 >= START + REKEY_TIMEOUT);
    }

    #[test]
    fn received_data_is_answered_once_and_keepalives_are_not() {
        let mut timers = Timers::new(1);
        timers.any_received(START);
        assert_eq!(timers.next(), None, "a keepalive needs no answer");
        timers.data_received(START);
        timers.data_received(START + Duration::from_secs(3));
        let due = due_until(&mut timers, START + Duration::from_secs(60));
        assert_eq!(due, [(START + KEEPALIVE_TIMEOUT, Due::Keepalive)]);
        timers.data_received(START);
        timers.any_sent(START);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn silence_after_sending_is_noticed_once() {
        let mut timers = Timers::new(1);
        timers.data_sent(START);
        timers.data_sent(START + Duration::from_secs(10));
        let due = due_until(&mut timers, START + Duration::from_secs(60));
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].1, Due::NoReply);
        assert!(due[0].0 >= START + NO_REPLY_TIMEOUT);
        timers.data_sent(START);
        timers.any_received(START);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn traffic_defers_the_persistent_keepalive() {
        let (mut timers, interval) = (Timers::new(1), Duration::from_secs(25));
        timers.set_persistent(Some(interval), START);
        assert_eq!(timers.take_due(START), Some(Due::PersistentKeepalive));
        assert_eq!(timers.take_due(START), None);
        timers.any_received(START + Duration::from_secs(20));
        let at = START + Duration::from_secs(45);
        assert_eq!(timers.next(), Some((at, "persistent keepalive")));
        timers.set_persistent(None, START);
        assert_eq!(timers.next(), None);
    }
}

//! The sync channel to a coordinator: when to open it, whether it still lives, when to come back.
//! There is never more than one, and what is said on it is not its business.

use std::time::Duration;

use model::control::{FromHost, Goodbye};
use model::time::Instant;

use crate::backoff::Backoff;
use crate::dice::Dice;
use crate::event::{ChannelError, ChannelErrorKind};
use crate::output::{Output, Outputs};
use crate::timer::{Timeout, is_due};

/// The sync channel.
#[derive(Debug)]
pub(crate) struct Channel {
    state: State,
    /// After failures to reach a coordinator.
    reach: Backoff,
    /// After coordinators that could be reached but said what cannot be believed.
    distrust: Backoff,
    /// What to wait at least, after the current channel.
    wait_at_least: Duration,
    last_error: Option<ChannelError>,
    last_heard: Option<Instant>,
    ping: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// None is wanted.
    Off,
    /// Opened when the time comes.
    Waiting { until: Instant },
    /// Asked for.
    Opening { until: Instant },
    /// Hello was said.
    Greeting { until: Instant },
    /// Welcome was answered.
    Open {
        since: Instant,
        heard: Instant,
        ping_at: Instant,
    },
    /// Asked to close. `wanted`: it is opened again afterwards.
    Closing { until: Instant, wanted: bool },
}

/// What the brain has to do about the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Ask for the channel.
    Open,
}

const REACH_BASE: Duration = Duration::from_secs(1);
const REACH_CAP: Duration = Duration::from_secs(30);
const DISTRUST_BASE: Duration = Duration::from_secs(5);
const DISTRUST_CAP: Duration = Duration::from_secs(600);
/// A coordinator cannot send a host away for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// The program tries several addresses, each with its own time-out.
const OPEN_PATIENCE: Duration = Duration::from_secs(90);
const WELCOME_PATIENCE: Duration = Duration::from_secs(15);
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(20);
/// Two pings and a bit without a word.
const DEAD_AFTER: Duration = Duration::from_secs(45);
/// A channel that lived this long was a success, whatever ended it.
const STEADY_AFTER: Duration = Duration::from_secs(30);

impl Channel {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Off,
            reach: Backoff::new(REACH_BASE, REACH_CAP),
            distrust: Backoff::new(DISTRUST_BASE, DISTRUST_CAP),
            wait_at_least: Duration::ZERO,
            last_error: None,
            last_heard: None,
            ping: 0,
        }
    }

    /// Returns whether a coordinator listens.
    pub(crate) fn is_online(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Returns why no coordinator listens, when that is known.
    pub(crate) fn last_error(&self) -> Option<&ChannelError> {
        self.last_error.as_ref().filter(|_| !self.is_online())
    }

    /// Returns when a coordinator said something last, since the daemon was started.
    pub(crate) const fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    /// Wants a channel from now on.
    pub(crate) fn turn_on(&mut self, now: Instant) {
        match &mut self.state {
            State::Off => self.state = State::Waiting { until: now },
            State::Closing { wanted, .. } => *wanted = true,
            _ => {}
        }
    }

    /// Wants no channel any more, and forgets what went before.
    pub(crate) fn turn_off(&mut self, now: Instant, out: &mut Outputs) {
        self.last_error = None;
        self.reach.reset();
        self.distrust.reset();
        match &mut self.state {
            State::Off => {}
            State::Waiting { .. } => self.state = State::Off,
            State::Closing { wanted, .. } => *wanted = false,
            _ => self.start_closing(false, now, out),
        }
    }

    /// Closes the channel because what came over it cannot be believed; opens it again later, and
    /// later each time.
    pub(crate) fn distrust(
        &mut self,
        why: String,
        now: Instant,
        dice: &mut Dice,
        out: &mut Outputs,
    ) {
        self.wait_at_least = self.distrust.next_wait(dice);
        self.last_error = Some(ChannelError::new(ChannelErrorKind::Protocol, why));
        self.start_closing(true, now, out);
    }

    /// Closes the channel to open it anew at once: something was lost on the way.
    pub(crate) fn restart(&mut self, now: Instant, out: &mut Outputs) {
        self.start_closing(true, now, out);
    }

    /// What came over the channel is in force: the coordinator can be believed.
    pub(crate) fn handle_believed(&mut self) {
        self.distrust.reset();
    }

    /// Returns whether the channel stands now and hello has to be said.
    pub(crate) fn handle_opened(&mut self, now: Instant) -> bool {
        let is_expected = matches!(self.state, State::Opening { .. });
        if is_expected {
            self.state = State::Greeting {
                until: now + WELCOME_PATIENCE,
            };
        }
        is_expected
    }

    /// Returns whether the welcome was awaited.
    pub(crate) fn handle_welcome(&mut self, now: Instant) -> bool {
        let is_expected = matches!(self.state, State::Greeting { .. });
        if is_expected {
            self.state = State::Open {
                since: now,
                heard: now,
                ping_at: now + PING_EVERY,
            };
            self.last_error = None;
            self.last_heard = Some(now);
        }
        is_expected
    }

    /// Notes that the coordinator said something.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        if let State::Open { heard, .. } = &mut self.state {
            *heard = now;
            self.last_heard = Some(now);
        }
    }

    /// The coordinator ends the channel and says when to come back.
    pub(crate) fn handle_goodbye(
        &mut self,
        goodbye: &Goodbye,
        now: Instant,
        dice: &mut Dice,
        out: &mut Outputs,
    ) {
        self.wait_at_least = jittered(goodbye.retry_after, dice);
        let why = format!("the coordinator said goodbye: {}", goodbye.reason);
        out.info(why.clone());
        self.last_error = Some(ChannelError::new(ChannelErrorKind::Interrupted, why));
        self.start_closing(true, now, out);
    }

    /// Takes the end of the channel. Returns whether it is news, for the log.
    pub(crate) fn handle_closed(
        &mut self,
        error: ChannelError,
        now: Instant,
        dice: &mut Dice,
    ) -> bool {
        match self.state {
            State::Off | State::Waiting { .. } => return false,
            State::Closing { wanted: false, .. } => {
                self.state = State::Off;
                return false;
            }
            State::Closing { wanted: true, .. } => {
                // Why it was closed is known better here than by who closed it.
                self.wait(now, dice);
                return false;
            }
            State::Open { since, .. } if now - since >= STEADY_AFTER => self.reach.reset(),
            _ => {}
        }
        if let Some(asked) = error.retry_after {
            self.wait_at_least = jittered(asked, dice);
        }
        let is_news = self.last_error.as_ref() != Some(&error);
        self.last_error = Some(error);
        self.wait(now, dice);
        is_news
    }

    /// Does what is due; returns what the brain has to do.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        dice: &mut Dice,
        out: &mut Outputs,
    ) -> Option<Want> {
        match self.state {
            State::Waiting { until } if is_due(until, now) => {
                self.state = State::Opening {
                    until: now + OPEN_PATIENCE,
                };
                return Some(Want::Open);
            }
            State::Opening { until } if is_due(until, now) => {
                self.give_up("no coordinator could be reached in time", now, out);
            }
            State::Greeting { until } if is_due(until, now) => {
                self.give_up("the coordinator did not answer the greeting", now, out);
            }
            State::Open { heard, .. } if is_due(heard + DEAD_AFTER, now) => {
                self.give_up("the coordinator fell silent", now, out);
            }
            State::Open {
                since,
                heard,
                ping_at,
            } if is_due(ping_at, now) => {
                self.ping = self.ping.wrapping_add(1);
                out.send(FromHost::Ping(self.ping));
                self.state = State::Open {
                    since,
                    heard,
                    ping_at: now + PING_EVERY,
                };
            }
            State::Closing { until, wanted } if is_due(until, now) => {
                // The program never said that it closed: it will, before it opens another.
                if wanted {
                    self.wait(now, dice)
                } else {
                    self.state = State::Off
                }
            }
            _ => {}
        }
        None
    }

    pub(crate) fn poll_timeout(&self) -> Timeout {
        match self.state {
            State::Off => None,
            State::Waiting { until } => Some((until, "reach a coordinator")),
            State::Opening { until } => Some((until, "no coordinator was reached")),
            State::Greeting { until } => Some((until, "no welcome came")),
            State::Open { heard, ping_at, .. } => Some(if ping_at <= heard + DEAD_AFTER {
                (ping_at, "ping the coordinator")
            } else {
                (heard + DEAD_AFTER, "the coordinator fell silent")
            }),
            State::Closing { until, .. } => Some((until, "the channel did not close")),
        }
    }

    fn give_up(&mut self, why: &str, now: Instant, out: &mut Outputs) {
        out.warn(format!("{why}; working from what is known"));
        self.last_error = Some(ChannelError::new(ChannelErrorKind::Interrupted, why));
        self.start_closing(true, now, out);
    }

    fn start_closing(&mut self, wanted: bool, now: Instant, out: &mut Outputs) {
        match &mut self.state {
            State::Off | State::Waiting { .. } => {}
            State::Closing {
                wanted: was_wanted, ..
            } => *was_wanted = wanted,
            state => {
                if matches!(state, State::Open { since, .. } if now - *since >= STEADY_AFTER) {
                    self.reach.reset();
                }
                self.state = State::Closing {
                    until: now + CLOSE_PATIENCE,
                    wanted,
                };
                out.push(Output::CloseChannel);
            }
        }
    }

    fn wait(&mut self, now: Instant, dice: &mut Dice) {
        let wait = self
            .reach
            .next_wait(dice)
            .max(std::mem::take(&mut self.wait_at_least));
        self.state = State::Waiting { until: now + wait };
    }
}

/// Returns how long to wait when a coordinator asks for it: at least that, within reason, and longer by
/// chance, so that who was sent away together does not come back together.
pub(crate) fn jittered(asked: Duration, dice: &mut Dice) -> Duration {
    let wait = asked.min(RETRY_AFTER_MAX);
    wait + dice.up_to(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        channel: Channel,
        dice: Dice,
        out: Outputs,
        now: Instant,
        opened: Vec<Instant>,
    }

    impl Bench {
        fn new(seed: u8) -> Self {
            let mut channel = Channel::new();
            channel.turn_on(Instant::START);
            Self {
                channel,
                dice: Dice::from_seed([seed; 32]),
                out: Outputs::default(),
                now: Instant::START,
                opened: Vec::new(),
            }
        }

        /// Lets the next timeout happen.
        fn wake(&mut self) -> Option<Want> {
            if let Some((at, _)) = self.channel.poll_timeout() {
                self.now = self.now.max(at);
            }
            let want = self
                .channel
                .handle_timeout(self.now, &mut self.dice, &mut self.out);
            if want == Some(Want::Open) {
                self.opened.push(self.now);
            }
            want
        }

        fn open(&mut self) {
            while self.wake().is_none() {}
            assert!(self.channel.handle_opened(self.now));
            assert!(self.channel.handle_welcome(self.now));
        }

        fn closed(&mut self, message: &str) -> bool {
            let error = ChannelError::new(ChannelErrorKind::Unreachable, message);
            self.channel.handle_closed(error, self.now, &mut self.dice)
        }

        fn said(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.out.pop()).collect()
        }
    }

    #[test]
    fn failures_back_off_and_only_news_is_news() {
        let mut bench = Bench::new(1);
        assert_eq!(bench.wake(), Some(Want::Open), "the first time at once");
        assert!(bench.closed("refused"));
        for _ in 0..50 {
            assert_eq!(bench.wake(), Some(Want::Open));
            assert!(!bench.closed("refused"));
        }
        assert!(bench.now.since_start() <= REACH_CAP * 51);
        assert!(
            bench.now.since_start() >= REACH_CAP * 10,
            "it does slow down"
        );
    }

    #[test]
    fn a_silent_coordinator_is_pinged_then_given_up() {
        let mut bench = Bench::new(2);
        bench.open();
        let opened = bench.now;
        while !bench
            .said()
            .iter()
            .any(|output| matches!(output, Output::CloseChannel))
        {
            bench.wake();
        }
        assert_eq!(bench.now, opened + DEAD_AFTER);
        assert!(!bench.channel.is_online());
        assert!(
            bench
                .channel
                .last_error()
                .unwrap()
                .message
                .contains("silent")
        );
    }

    #[test]
    fn a_coordinator_that_answers_is_kept() {
        let mut bench = Bench::new(3);
        bench.open();
        for _ in 0..1000 {
            bench.wake();
            bench.channel.handle_heard(bench.now);
        }
        assert!(bench.channel.is_online());
        let pings = bench.said();
        assert_eq!(pings.len(), 1000);
        assert!(
            pings
                .iter()
                .all(|ping| matches!(ping, Output::Send(FromHost::Ping(_))))
        );
    }

    #[test]
    fn retry_after_is_obeyed_with_jitter_and_within_reason() {
        for (asked, seed) in [(10, 4), (100, 5), (1_000_000, 6)] {
            let mut bench = Bench::new(seed);
            bench.open();
            let goodbye = Goodbye {
                reason: "busy".to_owned(),
                retry_after: Duration::from_secs(asked),
                tombstone: None,
            };
            bench
                .channel
                .handle_goodbye(&goodbye, bench.now, &mut bench.dice, &mut bench.out);
            bench.closed("closed as asked");
            let left = bench.now;
            bench.wake();
            let waited = bench.now - left;
            let asked = Duration::from_secs(asked).min(RETRY_AFTER_MAX);
            assert!(
                waited >= asked && waited <= asked * 2,
                "{asked:?} {waited:?}"
            );
            assert!(bench.channel.last_error().unwrap().message.contains("busy"));
        }
    }

    #[test]
    fn there_is_never_a_second_channel() {
        let mut bench = Bench::new(7);
        bench.open();
        bench.channel.restart(bench.now, &mut bench.out);
        bench.channel.turn_on(bench.now);
        assert!(
            !bench.channel.handle_opened(bench.now),
            "a late word of the old one"
        );
        assert!(matches!(bench.said()[..], [Output::CloseChannel]));
        assert_eq!(bench.opened.len(), 1, "not before the first is closed");
        bench.closed("closed as asked");
        assert_eq!(bench.wake(), Some(Want::Open));
    }

    #[test]
    fn turned_off_it_stays_off() {
        let mut bench = Bench::new(8);
        bench.open();
        bench.channel.turn_off(bench.now, &mut bench.out);
        bench.closed("closed as asked");
        assert_eq!(bench.channel.poll_timeout(), None);
        assert!(!bench.closed("late"));
        assert_eq!(bench.channel.poll_timeout(), None);
    }

    #[test]
    fn distrust_waits_longer_each_time_until_something_is_believed() {
        let mut bench = Bench::new(9);
        let mut waits = Vec::new();
        for _ in 0..12 {
            bench.open();
            bench
                .channel
                .distrust("a lie".into(), bench.now, &mut bench.dice, &mut bench.out);
            bench.closed("closed as asked");
            waits.push(bench.channel.poll_timeout().unwrap().0 - bench.now);
        }
        assert!(
            waits.iter().max().unwrap() > &Duration::from_secs(120),
            "{waits:?}"
        );
        assert!(waits.iter().max().unwrap() <= &DISTRUST_CAP);
    }
}

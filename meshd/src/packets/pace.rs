//! When a packet thread that goes first looks again: at once, so that nobody waits for it. But where
//! single packets come fast one after the other, it would wake up for each, and keep from its core
//! whoever sends them; then it looks a moment later and takes what has gathered, as network cards
//! moderate their interrupts. A packet that is waited for before the next is sent never gathers: the
//! pauses end soon where they bring nothing.
//!
//! ```text
//! AtOnce ── many turns, few packets in each ──> Gathering ── few still ──> AtOnce, and not soon again
//! ```

use std::time::Duration;

use model::time::Instant;

/// Between two turns, while packets gather: less than people or protocols notice.
const PAUSE: Duration = Duration::from_micros(100);
/// What is counted together.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// What came in a longer time than this says nothing of now.
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(4);
/// Turns in a millisecond that are many: one for each pause.
const TURNS_PER_MILLI: u32 = 10;
/// Packets in a turn that are few: a batch of them costs hardly more than one.
const FEW: u32 = 8;
/// Packets in a turn that a pause is worth.
const GATHERED_MIN: u32 = 3;
/// How long not to try again, at first and at most; each failure doubles it.
const PATIENCE_MIN: Duration = Duration::from_millis(50);
const PATIENCE_MAX: Duration = Duration::from_secs(2);

/// Of one thread.
#[derive(Debug)]
pub(super) struct Pace {
    state: State,
    patience: Duration,
    since: Instant,
    turns: u32,
    packets: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No pauses, and none is tried before then.
    AtOnce { until: Instant },
    /// Pauses that may bring nothing.
    Trying,
    /// Pauses that bring packets.
    Gathering,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::AtOnce { until: now },
            patience: PATIENCE_MIN,
            since: now,
            turns: 0,
            packets: 0,
        }
    }

    /// Takes that a turn is over, in which so many packets were taken from anybody. Returns how long
    /// to let them gather before the next.
    pub(super) fn handle_turn(&mut self, packets: usize, now: Instant) -> Option<Duration> {
        self.turns += 1;
        self.packets = self
            .packets
            .saturating_add(u32::try_from(packets).unwrap_or(u32::MAX));
        let elapsed = now.saturating_since(self.since);
        if elapsed >= LOOK_INTERVAL {
            self.look(elapsed, now);
            (self.since, self.turns, self.packets) = (now, 0, 0);
        }
        (!matches!(self.state, State::AtOnce { .. })).then_some(PAUSE)
    }

    fn look(&mut self, elapsed: Duration, now: Instant) {
        let is_recent = elapsed <= LOOK_INTERVAL_MAX;
        let has_many_turns = elapsed * TURNS_PER_MILLI <= Duration::from_millis(self.turns.into());
        let each = |packets: u32| self.turns.saturating_mul(packets);
        let is_worth_it = is_recent && self.packets >= each(GATHERED_MIN);
        self.state = match self.state {
            State::AtOnce { until }
                if now >= until && is_recent && has_many_turns && self.packets < each(FEW) =>
            {
                State::Trying
            }
            State::AtOnce { until } => State::AtOnce { until },
            State::Trying | State::Gathering if is_worth_it => {
                self.patience = PATIENCE_MIN;
                State::Gathering
            }
            State::Gathering => State::AtOnce { until: now },
            State::Trying => {
                let until = now + self.patience;
                self.patience = (self.patience * 2).min(PATIENCE_MAX);
                State::AtOnce { until }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// What sends to a thread: so many packets in a turn, after it has paused or not, and so long
    /// from one turn to the next without a pause.
    struct Traffic {
        packets: fn(Option<Duration>) -> usize,
        turn: Duration,
    }

    /// Runs for so long from where the clock is, and returns the part of turns after a pause.
    fn run(pace: &mut Pace, clock: &mut Instant, traffic: &Traffic, long: Duration) -> f64 {
        let end = *clock + long;
        let (mut turns, mut paused) = (0, 0);
        let mut pause = None;
        while *clock < end {
            *clock += traffic.turn + pause.unwrap_or_default();
            turns += 1;
            paused += u32::from(pause.is_some());
            pause = pace.handle_turn((traffic.packets)(pause), *clock);
        }
        f64::from(paused) / f64::from(turns)
    }

    fn part_of_a_second(traffic: &Traffic) -> f64 {
        let mut clock = Instant::START;
        let mut pace = Pace::new(clock);
        run(&mut pace, &mut clock, traffic, Duration::from_secs(1))
    }

    #[test]
    fn single_packets_that_come_fast_gather() {
        let part = part_of_a_second(&Traffic {
            packets: |pause| if pause.is_some() { 20 } else { 1 },
            turn: micros(10),
        });
        assert!(part > 0.9, "{part}");
    }

    #[test]
    fn who_waits_for_each_answer_is_hardly_ever_kept_waiting() {
        let part = part_of_a_second(&Traffic {
            packets: |_| 1,
            turn: micros(20),
        });
        assert!(part < 0.01, "{part}");
    }

    #[test]
    fn full_batches_and_rare_packets_are_taken_at_once() {
        for (packets, turn) in [(45, micros(50)), (1, micros(200))] {
            let packets = match packets {
                1 => |_| 1,
                _ => |_| 45,
            };
            assert!(part_of_a_second(&Traffic { packets, turn }) == 0.0);
        }
    }

    #[test]
    fn pauses_end_with_the_packets_and_begin_with_the_next() {
        let many = Traffic {
            packets: |pause| if pause.is_some() { 20 } else { 1 },
            turn: micros(10),
        };
        let few = Traffic {
            packets: |_| 1,
            turn: micros(300),
        };
        let mut clock = Instant::START;
        let mut pace = Pace::new(clock);
        for _ in 0..3 {
            let part = run(&mut pace, &mut clock, &many, micros(20_000));
            assert!(part > 0.5, "{part}");
            let part = run(&mut pace, &mut clock, &few, micros(20_000));
            assert!(part < 0.1, "{part}");
        }
    }
}

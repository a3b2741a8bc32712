//! Whether a packet thread goes before the programs of its host. What it does is what the kernel does for
//! them in interrupts: while it waits for its turn among them, packets wait in line, and they for the
//! packets ([decision](docs/decisions/packets-go-first.md)). Whoever floods the host must not take it all
//! by that, so a thread that leaves next to nothing of its core stands in line for a while, as the
//! kernel's `ksoftirqd` does.
//!
//! ```text
//! Ahead ── more than nine tenths of half a second ──> Aside ── half a second ──> Ahead
//! ```

use std::time::Duration;

use model::time::Instant;
use rustix::time::{ClockId, clock_gettime};

use crate::linux::precedence::{go_ahead, go_along};

/// How often to look at what was used, and how long to stand aside.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Of ten parts of a core's time, a thread that goes ahead leaves one.
const PARTS: u32 = 10;

/// Of the calling thread; it is its own.
#[derive(Debug)]
pub(super) struct Precedence {
    rank: Rank,
    looked_at: Instant,
    used: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    /// Before all ordinary threads.
    Ahead,
    /// Among them for a while.
    Aside,
    /// Among them, and the kernel has refused another place.
    Refused,
}

impl Precedence {
    /// Goes ahead, where the kernel lets the calling thread.
    pub(super) fn claim(now: Instant) -> Self {
        let rank = match go_ahead() {
            Ok(()) => Rank::Ahead,
            Err(error) => {
                tracing::info!(%error, "packets wait for their turn among the programs of this host: the kernel lets no thread go first");
                Rank::Refused
            }
        };
        Self {
            rank,
            looked_at: now,
            used: used(),
        }
    }

    /// Returns whether the thread goes before ordinary ones now.
    pub(super) fn is_ahead(&self) -> bool {
        self.rank == Rank::Ahead
    }

    /// Looks at how much of its core the thread takes, when it is time.
    pub(super) fn look_when_due(&mut self, now: Instant) {
        let elapsed = now.saturating_since(self.looked_at);
        if elapsed >= LOOK_INTERVAL && self.rank != Rank::Refused {
            self.look(used(), elapsed, now);
        }
    }

    fn look(&mut self, used: Duration, elapsed: Duration, now: Instant) {
        let rank = self.rank.after(used.saturating_sub(self.used), elapsed);
        (self.looked_at, self.used) = (now, used);
        let moved = match (self.rank, rank) {
            (Rank::Aside, Rank::Ahead) => go_ahead(),
            (Rank::Ahead, Rank::Aside) => go_along(),
            _ => return,
        };
        self.rank = match moved {
            Ok(()) => rank,
            Err(error) => {
                tracing::debug!(%error, ?rank, "a packet thread stays where it is");
                Rank::Refused
            }
        };
    }
}

impl Rank {
    fn after(self, used: Duration, elapsed: Duration) -> Self {
        let leaves_too_little = used > elapsed / PARTS * (PARTS - 1);
        match self {
            Self::Ahead if leaves_too_little => Self::Aside,
            Self::Aside => Self::Ahead,
            other => other,
        }
    }
}

/// The processor time that the calling thread has used.
fn used() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it counts from zero")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::precedence::tests::is_ahead;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_takes_all_of_a_core_stands_aside_and_comes_back() {
        let after = |rank: Rank, used| rank.after(millis(used), millis(500));
        assert_eq!(after(Rank::Ahead, 0), Rank::Ahead);
        assert_eq!(after(Rank::Ahead, 450), Rank::Ahead);
        assert_eq!(after(Rank::Ahead, 451), Rank::Aside);
        assert_eq!(after(Rank::Aside, 500), Rank::Ahead);
        assert_eq!(after(Rank::Refused, 500), Rank::Refused);
    }

    #[test]
    fn the_thread_is_where_it_says() {
        let start = Instant::START;
        let mut precedence = Precedence::claim(start);
        let first = precedence.is_ahead();
        assert_eq!(first, is_ahead());
        let mut used = precedence.used;
        let mut exhaust = || {
            used += LOOK_INTERVAL;
            precedence.look(used, LOOK_INTERVAL, start);
            (precedence.is_ahead(), is_ahead())
        };
        assert_eq!(exhaust(), (false, false));
        assert_eq!(exhaust(), (first, first));
    }
}

//! The one place that reads the kernel's clocks, for brains that may not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::time::{Instant, Now, UnixTime};

/// Further ahead no deadline is told apart: the kernel's clocks end before our numbers do.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Turns the kernel's clocks into `Now`. Copies of one clock agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// Starts a clock; its monotonic time counts from here.
    pub fn start() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }

    /// Reads both clocks. A wall clock before 1970 reads as 1970.
    pub fn now(&self) -> Now {
        Now {
            monotonic: Instant::from_start(self.start.elapsed()),
            unix: unix_now(),
        }
    }

    /// Returns how long from now until `deadline`, zero when it has passed.
    pub fn until(&self, deadline: Instant) -> Duration {
        deadline.saturating_since(Instant::from_start(self.start.elapsed()))
    }

    /// Returns the deadline as tokio waits for it; one in the far future comes a year from now.
    pub fn tokio_deadline(&self, deadline: Instant) -> tokio::time::Instant {
        let wait = self.until(deadline).min(WAIT_MAX);
        tokio::time::Instant::now() + wait
    }
}

/// Reads the wall clock alone.
pub fn unix_now() -> UnixTime {
    UnixTime::from_duration(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// Returns 32 bytes from the kernel's random generator: the seed of a brain, or a new key.
///
/// # Errors
/// The kernel has no random generator, as before early boot has finished.
pub fn random_seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0u8; 32];
    let mut filled = 0;
    while filled < seed.len() {
        filled +=
            rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_at_the_end_of_time_is_no_panic() {
        let never = Instant::from_start(Duration::MAX);
        assert!(Clock::start().tokio_deadline(never) > tokio::time::Instant::now());
    }
}

//! The one place that reads the kernel's clocks, for brains that may not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::time::{Instant, Now, UnixTime};
use rustix::time::{ClockId, clock_gettime};

/// Further ahead no deadline is told apart: the kernel's clocks end before our numbers do.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Turns the kernel's clocks into `Now`. Copies of one clock agree. Its monotonic time goes on while
/// the machine sleeps or is paused with a word to its kernel: keys and certificates age meanwhile,
/// and so does what peers and coordinators last said.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Since the machine was started.
    start: Duration,
}

impl Clock {
    /// Starts a clock; its monotonic time counts from here.
    pub fn start() -> Self {
        Self {
            start: since_boot(),
        }
    }

    /// Reads both clocks. A wall clock before 1970 reads as 1970.
    pub fn now(&self) -> Now {
        Now {
            monotonic: self.monotonic(),
            unix: unix_now(),
        }
    }

    /// Returns how long from now until `deadline`, zero when it has passed.
    pub fn until(&self, deadline: Instant) -> Duration {
        deadline.saturating_since(self.monotonic())
    }

    /// Reads the clock that never goes back.
    pub fn monotonic(&self) -> Instant {
        Instant::from_start(since_boot().saturating_sub(self.start))
    }

    /// Returns the deadline as tokio waits for it; one in the far future comes a year from now. Tokio's
    /// clock stands while the machine sleeps: a deadline that passed in its sleep may come late.
    pub fn tokio_deadline(&self, deadline: Instant) -> tokio::time::Instant {
        let wait = self.until(deadline).min(WAIT_MAX);
        tokio::time::Instant::now() + wait
    }
}

/// Time since the machine was started, asleep or awake.
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).expect("the kernel counts up from the start")
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

    /// A time namespace sets only the clock forward that goes on in sleep, as a sleep does.
    #[test]
    fn time_asleep_counts() {
        let uptime_secs = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime_secs: f64 = uptime_secs.split(' ').next().unwrap().parse().unwrap();
        assert!(since_boot().as_secs_f64() >= uptime_secs, "{uptime_secs}");
        if std::env::var_os(ASLEEP).is_some() {
            assert!(since_boot() > Duration::from_secs(SLEPT_SECS));
            return;
        }
        let asleep = std::process::Command::new("unshare")
            .args(["--time", "--boottime", &SLEPT_SECS.to_string()])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "clock::tests::time_asleep_counts"])
            .env(ASLEEP, "1")
            .status();
        assert!(asleep.unwrap().success());
    }

    const ASLEEP: &str = "MESH_TEST_ASLEEP";
    const SLEPT_SECS: u64 = 400 * 24 * 3600;

    #[test]
    fn a_deadline_at_the_end_of_time_is_no_panic() {
        let never = Instant::from_start(Duration::MAX);
        assert!(Clock::start().tokio_deadline(never) > tokio::time::Instant::now());
    }
}

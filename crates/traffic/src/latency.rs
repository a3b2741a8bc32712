//! How slow an endpoint is: up at once, down slowly, so that one that stalls is left within a call.

use std::time::Duration;

use model::time::Instant;

/// A moving average of latencies that jumps to each one that is above it.
///
/// What is not measured again fades, so that an endpoint that was slow once is tried again.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeakEwma {
    secs: f64,
    /// `None`: nothing was measured.
    at: Option<Instant>,
}

impl PeakEwma {
    /// Takes in one latency.
    pub fn observe(&mut self, latency: Duration, decay: Duration, now: Instant) {
        let sample = latency.as_secs_f64();
        let Some(at) = self.at.replace(now) else {
            self.secs = sample;
            return;
        };
        let kept = weight(now - at, decay);
        if sample > self.secs * kept {
            self.secs = sample;
        } else {
            self.secs = self.secs * kept + sample * (1.0 - kept);
        }
    }

    /// Returns the average in seconds, as far as it has not faded; `None` when nothing was measured.
    pub fn secs(&self, decay: Duration, now: Instant) -> Option<f64> {
        Some(self.secs * weight(now - self.at?, decay))
    }

    /// Forgets what was measured.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// What is left of a measurement after a time.
fn weight(elapsed: Duration, decay: Duration) -> f64 {
    (-elapsed.as_secs_f64() / decay.as_secs_f64().max(f64::MIN_POSITIVE)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn at(secs: u64) -> Instant {
        Instant::from_start(Duration::from_secs(secs))
    }

    #[test]
    fn it_rises_at_once_and_falls_with_time() {
        let mut latency = PeakEwma::default();
        assert_eq!(latency.secs(DECAY, at(0)), None);

        latency.observe(Duration::from_millis(10), DECAY, at(0));
        latency.observe(Duration::from_millis(500), DECAY, at(1));
        assert_eq!(latency.secs(DECAY, at(1)), Some(0.5));

        latency.observe(Duration::from_millis(10), DECAY, at(11));
        let fallen = latency.secs(DECAY, at(11)).expect("measured");
        let expected = 0.5 * (-1f64).exp() + 0.01 * (1.0 - (-1f64).exp());
        assert!(
            (fallen - expected).abs() < 1e-9,
            "{fallen} is not {expected}"
        );
    }

    #[test]
    fn what_is_not_measured_again_fades() {
        let mut latency = PeakEwma::default();
        latency.observe(Duration::from_secs(1), DECAY, at(0));
        let faded = latency.secs(DECAY, at(10)).expect("measured");
        assert!((faded - (-1f64).exp()).abs() < 1e-9, "{faded}");
    }
}

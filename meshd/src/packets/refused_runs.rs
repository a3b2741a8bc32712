//! Where the kernel does not take datagrams as runs: remembered for a while, so that each burst
//! towards there costs no call that is known to fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::linux::send_runs::Run;

/// How long it is believed: routes and their MTU change.
const BELIEVED: Duration = Duration::from_secs(60);
/// Destinations that are remembered; when there are more, all are asked again.
const REMEMBERED_MAX: usize = 4096;

/// Destinations, with the smallest datagrams of a run that was refused.
#[derive(Debug, Default)]
pub(super) struct RefusedRuns(BTreeMap<SocketAddr, Refused>);

#[derive(Clone, Copy, Debug)]
struct Refused {
    size: u16,
    until: Instant,
}

impl RefusedRuns {
    /// Returns whether a run is worth a try. Asks for the time only where there is doubt.
    pub(super) fn takes(&self, run: &Run<'_>, now: impl FnOnce() -> Instant) -> bool {
        let Some(size) = run.segment_size else {
            return true;
        };
        match self.0.get(&run.to) {
            Some(refused) => size < refused.size || now() >= refused.until,
            None => true,
        }
    }

    /// Takes that the kernel refused a run because it is larger than the path takes at once, or,
    /// with `whatever_size`, because it is one.
    pub(super) fn handle_refused(&mut self, run: &Run<'_>, whatever_size: bool, now: Instant) {
        let Some(size) = run.segment_size else { return };
        if self.0.len() >= REMEMBERED_MAX {
            self.0.clear();
        }
        let size = if whatever_size { 0 } else { size };
        let until = now + BELIEVED;
        self.0.insert(run.to, Refused { size, until });
    }
}

#[cfg(test)]
mod tests {
    use super::super::udp_sender::single;
    use super::*;

    #[test]
    fn only_runs_that_are_known_to_fail_are_not_tried() {
        let now = Instant::now();
        let to: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let run = |size| Run {
            segment_size: Some(size),
            ..single(to, None, b"abcdef")
        };
        let elsewhere = Run {
            to: "192.0.2.2:9".parse().unwrap(),
            ..run(1452)
        };
        let mut refused = RefusedRuns::default();
        refused.handle_refused(&run(1452), false, now);
        assert!(!refused.takes(&run(1452), || now));
        assert!(refused.takes(&run(1400), || now), "smaller ones pass");
        assert!(refused.takes(&elsewhere, || now));
        assert!(refused.takes(&single(to, None, b"abc"), || now));
        assert!(refused.takes(&run(1452), || now + BELIEVED));
        refused.handle_refused(&run(1452), true, now);
        assert!(!refused.takes(&run(2), || now));
    }
}

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
/// After so many destinations in a row that take no runs at all, it is the card that does not.
const EVERYWHERE_AFTER: usize = 8;

/// Destinations, with the smallest datagrams of a run that was refused.
#[derive(Debug, Default)]
pub(super) struct RefusedRuns {
    places: BTreeMap<SocketAddr, Refused>,
    /// Destinations that took none, since one took some.
    in_a_row: usize,
    everywhere_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    size: u16,
    until: Instant,
}

impl RefusedRuns {
    /// Returns whether a run is worth a try. Asks for the time only where there is doubt.
    pub(super) fn takes(&self, run: &Run<'_>, now: impl Fn() -> Instant) -> bool {
        let Some(size) = run.segment_size else {
            return true;
        };
        if self.everywhere_until.is_some_and(|until| now() < until) {
            return false;
        }
        match self.places.get(&run.to) {
            Some(refused) => size < refused.size || now() >= refused.until,
            None => true,
        }
    }

    /// Takes that the kernel took runs.
    pub(super) fn handle_taken(&mut self, runs: &[Run<'_>]) {
        if self.in_a_row > 0 && runs.iter().any(|run| run.segment_size.is_some()) {
            self.in_a_row = 0;
            self.everywhere_until = None;
        }
    }

    /// Takes that the kernel refused a run because it is larger than the path takes at once, or,
    /// with `whatever_size`, because it is one.
    pub(super) fn handle_refused(&mut self, run: &Run<'_>, whatever_size: bool, now: Instant) {
        let Some(size) = run.segment_size else { return };
        if self.places.len() >= REMEMBERED_MAX {
            self.places.clear();
        }
        let size = if whatever_size { 0 } else { size };
        let until = now + BELIEVED;
        let before = self.places.insert(run.to, Refused { size, until });
        if !whatever_size {
            return;
        }
        if before.is_none_or(|before| before.size > 0) {
            self.in_a_row += 1;
            if self.in_a_row == EVERYWHERE_AFTER {
                tracing::warn!(
                    "the network card does not finish datagrams that are sent as a run; they go one by one"
                );
            }
        }
        if self.in_a_row >= EVERYWHERE_AFTER {
            self.everywhere_until = Some(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::udp_sender::single;
    use super::*;

    fn run_to(host: u8, size: u16) -> Run<'static> {
        Run {
            segment_size: Some(size),
            ..single(([192, 0, 2, host], 9).into(), None, b"abcdef")
        }
    }

    #[test]
    fn only_runs_that_are_known_to_fail_are_not_tried() {
        let now = Instant::now();
        let run = |size| run_to(1, size);
        let mut refused = RefusedRuns::default();
        refused.handle_refused(&run(1452), false, now);
        assert!(!refused.takes(&run(1452), || now));
        assert!(refused.takes(&run(1400), || now), "smaller ones pass");
        assert!(refused.takes(&run_to(2, 1452), || now));
        assert!(refused.takes(&single(run(1).to, None, b"abc"), || now));
        assert!(refused.takes(&run(1452), || now + BELIEVED));
        refused.handle_refused(&run(1452), true, now);
        assert!(!refused.takes(&run(2), || now));
    }

    #[test]
    fn a_card_that_takes_no_runs_is_asked_once_a_minute_and_not_for_each_peer() {
        let now = Instant::now();
        let mut refused = RefusedRuns::default();
        let mut tries = 0;
        for minute in 0..3 {
            let now = now + BELIEVED * minute;
            for host in (0..200).chain(0..200) {
                if refused.takes(&run_to(host, 1452), || now) {
                    tries += 1;
                    refused.handle_refused(&run_to(host, 1452), true, now);
                }
            }
        }
        assert_eq!(tries, EVERYWHERE_AFTER + 2);
        // Another card, after the route has changed.
        let later = now + BELIEVED * 3;
        assert!(refused.takes(&run_to(1, 1452), || later));
        refused.handle_taken(&[run_to(1, 1452)]);
        assert!((0..200).all(|host| refused.takes(&run_to(host, 1452), || later)));
    }

    #[test]
    fn one_card_of_two_is_no_reason_not_to_ask_the_other() {
        let now = Instant::now();
        let mut refused = RefusedRuns::default();
        for host in 0..100 {
            refused.handle_refused(&run_to(host, 1452), true, now);
            refused.handle_taken(&[run_to(200, 1452)]);
        }
        assert!(refused.takes(&run_to(201, 1452), || now));
        refused.handle_taken(&[single(run_to(1, 1).to, None, b"abc")]);
        assert!(!refused.takes(&run_to(1, 1452), || now));
    }

    #[test]
    fn sizes_that_do_not_pass_say_nothing_of_the_card() {
        let now = Instant::now();
        let mut refused = RefusedRuns::default();
        for host in 0..100 {
            refused.handle_refused(&run_to(host, 8952), false, now);
        }
        assert!(refused.takes(&run_to(200, 8952), || now));
    }
}

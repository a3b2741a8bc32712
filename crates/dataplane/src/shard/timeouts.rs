//! Time: which tunnels and tables need the clock, and when.

use std::time::Duration;

use model::time::{Instant, Now};

use super::{Shard, tunnel_time};
use crate::flows::SWEEP_INTERVAL;
use crate::outbox::Outbox;

impl Shard {
    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut impl Outbox) {
        let time = tunnel_time(now);
        while let Some((at, index)) = self.timers.take_due(time) {
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            if peer.scheduled != Some(at) {
                continue;
            }
            peer.scheduled = None;
            peer.tunnel.handle_timeout(time);
            self.probe(index, now, out);
            self.settle(index, now, out);
            self.tend_lanes(index, now, out);
            self.tend_lane_end(index, now, out);
        }
        self.drop_overdue(now.monotonic);
        if self.next_sweep.is_some_and(|at| at <= now.monotonic) {
            self.flows.sweep(now.monotonic);
            self.claims.sweep(now.monotonic);
            self.counters.set_flows(&self.flows);
            self.next_sweep = (self.flows.len() > 0 || !self.claims.is_empty())
                .then(|| now.monotonic + SWEEP_INTERVAL);
        }
    }

    /// Returns when this shard next needs the clock, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let tunnels = self.timers.next().map(|at| (wake(at), "a tunnel's timer"));
        let flows = self.next_sweep.map(|at| (at, "flows that idled out"));
        let held = self.claims.deadline();
        let held = held.map(|at| (at, "packets whose sender nobody tells"));
        [tunnels, flows, held].into_iter().flatten().min()
    }
}

fn wake(at: Duration) -> Instant {
    Instant::from_start(at)
}

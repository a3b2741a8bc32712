//! What a packet thread does when another daemon takes over from its own, and when its own takes over
//! from another ([`Duty`]).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use dataplane::{Bequest, Event, Extent};
use model::time::Instant;

use super::super::crossing::{Crossed, Crossing};
use super::super::duty::{Duty, Resting};
use super::{BURST_DATAGRAMS, PacketLoop, Succession};

/// How long a daemon that takes over begins handshakes before it says with how many.
const BEGUN_WITHIN: Duration = Duration::from_secs(2);
/// How long it ends handshakes before it takes packets. What would wait for a session is more than
/// may, but nor may packets wait for those of a thousand peers.
const AGREED_WITHIN: Duration = Duration::from_millis(100);
/// Handshakes that wait for the handshake thread meanwhile: far fewer than a shard has room for.
const AGREED_ELSEWHERE_MAX: usize = 256;

impl PacketLoop {
    pub(super) fn rest(&mut self, crossing: Crossing) -> Bequest {
        self.duty = Duty::Resting(Box::new(Resting {
            crossing,
            jobs: Vec::new(),
            done: Vec::new(),
        }));
        self.shard.hold_lanes();
        self.shard.bequeath(Extent::Peers, self.clock.now())
    }

    pub(super) fn leave(&mut self) -> Bequest {
        // Flows that other shards gave before they rested are among it.
        self.take_handed_over();
        self.outbox.flush_for_good();
        self.duty = match std::mem::take(&mut self.duty) {
            Duty::Resting(resting) => {
                self.outbox.set_silent(true);
                self.sockets.open();
                Duty::Leaving(resting)
            }
            other => other,
        };
        let left = self.shard.bequeath(Extent::PeersAndFlows, self.clock.now());
        self.shard.abandon_pending();
        left
    }

    pub(super) fn resume(&mut self, successor: Succession) {
        self.outbox.set_silent(false);
        // The successor may have filtered what comes, and did not live to end it.
        self.sockets.open();
        let duty = std::mem::take(&mut self.duty);
        let now = self.clock.now();
        match successor {
            Succession::Begun => self.shard.reclaim_dates(now),
            Succession::Served => self.shard.reclaim(now, &mut self.outbox),
        }
        if let Duty::Resting(resting) | Duty::Leaving(resting) = duty {
            for done in resting.done {
                self.shard.handle_handshake(done, now, &mut self.outbox);
            }
            for job in resting.jobs {
                self.run_elsewhere(job);
            }
        }
    }

    /// Nobody else needs this thread yet: its predecessor serves.
    pub(super) fn inherit(&mut self, left: &Bequest) -> usize {
        let now = self.clock.now();
        self.shard.inherit_peers(left, now, &mut self.outbox);
        self.agree_here(now.monotonic + BEGUN_WITHIN);
        self.shard.inherited_begun()
    }

    pub(super) fn take_up(&mut self, left: &Bequest, device: Option<Arc<OwnedFd>>) -> usize {
        let now = self.clock.now();
        let flows = self.shard.inherit_flows(left, now);
        self.set_device(device);
        // As in `resume`, of the one before.
        self.sockets.open();
        // What the one before has passed on before it left is all there by now.
        self.take_crossed();
        let until = now.monotonic + AGREED_WITHIN;
        self.duty = match std::mem::take(&mut self.duty) {
            Duty::Waiting(waiting) => {
                for (path, ecn, mut datagram) in waiting.held {
                    let (now, outbox) = (self.clock.now(), &mut self.outbox);
                    self.shard
                        .handle_datagram(path, ecn, &mut datagram, now, outbox);
                    self.agree_here(until);
                }
                Duty::Following(waiting.crossing)
            }
            other => other,
        };
        let now = self.clock.now();
        self.shard.inherit_wishes(left, now, &mut self.outbox);
        self.agree_here(until);
        flows
    }

    /// Does public-key work on this thread, until the time is over; then as long as more of it waits
    /// elsewhere than should.
    fn agree_here(&mut self, until: Instant) {
        while let Some(event) = self.shard.poll_event() {
            match event {
                Event::Handshake(job) => {
                    let now = self.clock.now();
                    let is_late = now.monotonic >= until;
                    if is_late && self.shard.handshake_jobs() <= AGREED_ELSEWHERE_MAX {
                        self.run_elsewhere(job);
                        continue;
                    }
                    self.shard
                        .handle_handshake(job.run(), now, &mut self.outbox);
                    if self.outbox.datagrams_waiting() >= BURST_DATAGRAMS {
                        self.outbox.flush();
                    }
                }
                event => self.pass_on(event),
            }
        }
        self.outbox.flush();
    }

    /// Takes what the other daemon has passed on.
    pub(super) fn take_crossed(&mut self) {
        loop {
            let Self {
                shard,
                streams,
                outbox,
                clock,
                duty,
                shift,
                ..
            } = self;
            let crossed = match duty {
                Duty::Waiting(waiting) => waiting.take_one(*shift),
                Duty::Alone => return,
                other => {
                    let crossing = other.crossing_mut().expect("only who is alone has none");
                    crossing.take(|path, ecn, datagram| {
                        let now = clock.now();
                        if let Some(addressee) = proxy::Addressee::of(datagram)
                            && let Some(outcome) =
                                streams.give(addressee, path, ecn, datagram, now.monotonic)
                        {
                            return shard.count_stranger(datagram.len(), outcome);
                        }
                        shard.handle_datagram(path, ecn, datagram, now, outbox);
                    })
                }
            };
            match crossed {
                Crossed::Datagram => {}
                Crossed::Nothing => return,
                Crossed::Ended => {
                    self.other_ended();
                    return;
                }
            }
        }
    }

    /// The other daemon is gone. Whoever rests or leaves is told by its own daemon what to do then.
    fn other_ended(&mut self) {
        if matches!(self.duty, Duty::Following(_)) {
            self.duty = Duty::Alone;
        }
    }
}

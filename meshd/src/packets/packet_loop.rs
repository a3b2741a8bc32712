//! One packet thread: waits for packets, commands and deadlines, and runs its shard to completion for
//! each. Public-key work goes to a thread of its own, so that a storm of handshakes delays no packet.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::Duration;

use dataplane::{Bequest, Command, Event, HandshakeDone, HandshakeJob, Shard, Shift};
use runtime::clock::Clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{mpsc, oneshot};

use super::crossing::Crossing;
use super::duty::{Duty, Whose};
use super::hand_over::{HandOverInbox, HandedOver};
use super::outbox::BatchOutbox;
use super::pace::Pace;
use super::precedence::Precedence;
use super::stream_port::StreamGate;
use super::tun_queue::TunQueue;
use super::udp_socket::{Names, UdpSockets};
use super::worker::Job;

mod succession;

/// Reads from one source before the others have their turn.
const BURST_READS: usize = 64;
/// Datagrams that may wait for their burst's end: as much as keeps the caches warm.
const BURST_DATAGRAMS: usize = 256;
/// Rounds over the packets that waited before the thread asks what else does. A round that ended
/// because it was full is followed by another at once.
const ROUNDS_MAX: u32 = 8;
/// The longest sleep, so that a deadline that is far away needs no big numbers.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What one packet thread is told.
pub(super) enum ToLoop {
    /// Applied between two packets, all of them.
    Commands(Vec<Command>),
    /// Another queue of a TUN device, or none.
    Device(Option<Arc<OwnedFd>>),
    /// The queue of the TUN device is closed, and the sender dropped after it.
    Release(mpsc::Sender<()>),
    /// Public-key work is done.
    Handshake(Box<HandshakeDone>),
    /// A successor agrees on sessions with the peers; answered with what it should know of them.
    Rest(Crossing, oneshot::Sender<Bequest>),
    /// The successor serves from now on; answered with all that it should know.
    Leave(oneshot::Sender<Bequest>),
    /// The successor has failed, when it served or before.
    Resume(Succession),
    /// What the one before left of the peers; answered with how many handshakes were begun.
    Inherit(Arc<Bequest>, oneshot::Sender<usize>),
    /// The one before has left; answered with how many flows were taken.
    TakeUp {
        left: Arc<Bequest>,
        device: Option<Arc<OwnedFd>>,
        done: oneshot::Sender<usize>,
    },
    /// Whoever asks wants to know that this thread lives.
    Beat(oneshot::Sender<()>),
    /// The daemon stops.
    Stop,
}

/// How far a successor came that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Succession {
    /// It had begun handshakes.
    Begun,
    /// It may have taken over.
    Served,
}

/// Which sources have something.
#[derive(Clone, Copy, Default)]
struct Ready {
    wake: bool,
    /// As [`UdpSockets::queues_mut`] has them.
    sockets: [bool; 2],
    tun: bool,
    crossing: bool,
    /// Sockets that take datagrams again.
    room: [bool; 2],
}

impl Ready {
    /// Without the packets, when they are another daemon's: taken here they would be lost to it.
    fn of_who_serves(self, serves: bool) -> Self {
        Self {
            sockets: self.sockets.map(|it| it && serves),
            tun: self.tun && serves,
            ..self
        }
    }

    fn has_packets(self) -> bool {
        self.tun || self.sockets.contains(&true)
    }
}

/// What the thread owns.
pub(super) struct PacketLoop {
    pub(super) number: usize,
    pub(super) shard: Shard,
    pub(super) sockets: UdpSockets,
    /// For what comes to the same port and is not the tunnels'.
    pub(super) streams: StreamGate,
    pub(super) tun: Option<TunQueue>,
    pub(super) outbox: BatchOutbox,
    pub(super) inbox: Receiver<ToLoop>,
    pub(super) handed_over: HandOverInbox,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) jobs: SyncSender<Job>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) clock: Clock,
    pub(super) duty: Duty,
    pub(super) shift: Shift,
    /// Packets from anybody in this turn.
    pub(super) taken: usize,
}

impl PacketLoop {
    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        let start = self.clock.now().monotonic;
        let mut precedence = Precedence::claim(start);
        let mut pace = Pace::new(start);
        loop {
            self.taken = 0;
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "the packet thread cannot wait for packets and ends");
                    return;
                }
            };
            self.outbox.handle_room(ready.room);
            if ready.wake {
                if self.take_messages().is_break() {
                    return self.outbox.flush();
                }
                self.take_handed_over();
            }
            if ready.crossing {
                self.take_crossed();
            }
            // What it was told just now may be that another daemon takes these from here on.
            let mut ready = ready.of_who_serves(self.duty.serves());
            for _ in 0..ROUNDS_MAX {
                ready = self.take_packets(ready);
                if !ready.has_packets() || self.outbox.stall().is_some() {
                    break;
                }
                // Only the question what else does is saved: others wait for these.
                self.pass_events_on();
                if self.handed_over.is_waiting() {
                    self.take_handed_over();
                }
            }
            let now = self.clock.now();
            if self.duty.speaks()
                && self
                    .shard
                    .poll_timeout()
                    .is_some_and(|(deadline, _)| deadline <= now.monotonic)
            {
                self.shard.handle_timeout(now, &mut self.outbox);
            }
            while let Some(remote) = self.outbox.take_too_big() {
                self.shard
                    .handle_datagrams_too_big(remote, now, &mut self.outbox);
            }
            if self.duty.serves() {
                self.sockets.look_when_due(now.monotonic, &self.shard);
                if let Some(tun) = &mut self.tun {
                    tun.look_when_due(now.monotonic);
                }
            }
            self.pass_events_on();
            self.outbox.flush();
            precedence.look_when_due(now.monotonic);
            // Others find what has gathered while they waited for their turn.
            if precedence.is_ahead()
                && let Some(pause) = pace.handle_turn(self.taken, now.monotonic)
            {
                std::thread::sleep(pause);
            }
        }
    }

    /// Takes one burst from each source, and returns those that have more.
    fn take_packets(&mut self, ready: Ready) -> Ready {
        let sockets = self.take_datagrams(ready.sockets);
        self.outbox.flush();
        let tun = ready.tun && self.outbox.takes_super_packet() && self.take_overlay_packets();
        self.taken += self.outbox.datagrams_waiting();
        self.outbox.flush();
        Ready {
            sockets,
            tun,
            ..Ready::default()
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let of_shard = self.shard.poll_timeout().filter(|_| self.duty.speaks());
        let of_shard = of_shard.map(|(deadline, _)| deadline);
        let of_device = self.tun.as_ref().and_then(TunQueue::deadline);
        let of_sockets = self.sockets.deadline().into_iter().chain(of_device);
        let of_sockets = of_sockets.filter(|_| self.duty.serves());
        let deadlines = of_shard.into_iter().chain(of_sockets);
        let sleep = deadlines.min().map_or(SLEEP_MAX, |deadline| {
            self.clock.until(deadline).min(SLEEP_MAX)
        });
        let (stalled, sleep) = match self.outbox.stall() {
            Some((sockets, left)) => (sockets, sleep.min(left)),
            None => ([false; 2], sleep),
        };
        let timeout = Timespec::try_from(sleep).expect("at most a minute");
        // What is not there is the wake-up a second time.
        let awake = || PollFd::new(&*self.wake, PollFlags::IN);
        let mut polled = [awake(), awake(), awake(), awake(), awake()];
        let [_, v4, v6, tun, crossing] = &mut polled;
        let serves = self.duty.serves();
        let sockets = [v4, v6].into_iter().zip(self.sockets.descriptors());
        let device = self.tun.as_ref().filter(|_| stalled == [false; 2]);
        let device = device.map(|queue| (tun, queue.descriptor()));
        let network = sockets.chain(device).filter(|_| serves);
        let other = self.duty.crossing().and_then(Crossing::descriptor);
        let other = other.map(|descriptor| (crossing, descriptor));
        for (slot, source) in network.chain(other) {
            *slot = PollFd::from_borrowed_fd(source, PollFlags::IN);
        }
        let for_room = polled[1..]
            .iter_mut()
            .zip(stalled)
            .zip(self.sockets.descriptors());
        for ((slot, _), socket) in for_room.filter(|((_, is_stalled), _)| *is_stalled) {
            *slot = PollFd::from_borrowed_fd(socket, PollFlags::IN | PollFlags::OUT);
        }
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) => {
                // Also errors: reading tells them.
                let has_room = |at: usize| polled[at].revents().contains(PollFlags::OUT);
                let room = [has_room(1), has_room(2)];
                let ready = polled.map(|source| !(source.revents() - PollFlags::OUT).is_empty());
                let [wake, v4, v6, tun, crossing] = ready;
                let ready = Ready {
                    wake,
                    sockets: [v4, v6],
                    tun,
                    crossing: crossing && self.duty.crossing().is_some(),
                    room,
                };
                Ok(ready.of_who_serves(serves))
            }
            Err(rustix::io::Errno::INTR) => Ok(Ready::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_messages(&mut self) -> ControlFlow<()> {
        let mut drained = [0u8; 8];
        let _ = rustix::io::read(&*self.wake, &mut drained);
        while let Ok(message) = self.inbox.try_recv() {
            let now = self.clock.now();
            match message {
                ToLoop::Commands(commands) => {
                    self.shard.handle_commands(commands, now, &mut self.outbox)
                }
                ToLoop::Handshake(done) => match &mut self.duty {
                    Duty::Resting(waits) | Duty::Leaving(waits) => waits.done.push(*done),
                    _ => self.shard.handle_handshake(*done, now, &mut self.outbox),
                },
                ToLoop::Device(device) => self.set_device(device),
                ToLoop::Rest(crossing, answer) => {
                    let _ = answer.send(self.rest(crossing));
                }
                ToLoop::Leave(answer) => {
                    let _ = answer.send(self.leave());
                }
                ToLoop::Resume(successor) => self.resume(successor),
                ToLoop::Inherit(left, answer) => {
                    let _ = answer.send(self.inherit(&left));
                }
                ToLoop::TakeUp { left, device, done } => {
                    let _ = done.send(self.take_up(&left, device));
                }
                ToLoop::Beat(answer) => drop(answer.send(())),
                ToLoop::Release(held) => {
                    self.let_go_of_device();
                    drop(held);
                }
                ToLoop::Stop => {
                    // The sockets may be kept for another daemon.
                    if self.duty.serves() {
                        self.sockets.open();
                    }
                    return ControlFlow::Break(());
                }
            }
            self.pass_events_on();
        }
        ControlFlow::Continue(())
    }

    fn set_device(&mut self, device: Option<Arc<OwnedFd>>) {
        let queue = device.map(TunQueue::new);
        let writer = |(queue, joins): &(TunQueue, _)| (queue.writer(), *joins);
        self.outbox.set_device(queue.as_ref().map(writer));
        self.tun = queue.map(|(queue, _)| queue);
    }

    fn let_go_of_device(&mut self) {
        self.tun = None;
        self.outbox.set_device(None);
    }

    fn take_handed_over(&mut self) {
        let Self {
            shard,
            handed_over,
            outbox,
            clock,
            duty,
            ..
        } = self;
        let now = clock.now();
        let serves = duty.serves();
        handed_over.take_all(|handed| match handed {
            HandedOver::Datagram {
                from,
                ecn,
                mut bytes,
            } => shard.handle_datagram(from, ecn, &mut bytes, now, outbox),
            HandedOver::OverlayPacket { offload, bytes } if !serves => {
                shard.abandon_overlay_packet(offload, &bytes);
            }
            HandedOver::OverlayPacket { offload, mut bytes } => {
                shard.handle_overlay_packet(offload, &mut bytes, now, outbox);
            }
            HandedOver::Introduction(introduction) => {
                shard.handle_introduction(introduction, now, outbox);
            }
            HandedOver::Lane(message) => shard.handle_lane(message, now, outbox),
            HandedOver::Opened {
                peer,
                ecn,
                datagram_bytes,
                mut bytes,
            } => shard.handle_opened(peer, ecn, datagram_bytes, &mut bytes, now, outbox),
        });
    }

    /// Returns which sockets gave as much as one call takes.
    fn take_datagrams(&mut self, ready: [bool; 2]) -> [bool; 2] {
        let Self {
            shard,
            sockets,
            streams,
            outbox,
            clock,
            duty,
            shift,
            taken,
            ..
        } = self;
        let mut has_more = [false; 2];
        let queues = sockets.queues_mut().zip(ready).zip(&mut has_more);
        for ((queue, is_ready), has_more) in queues {
            if !is_ready {
                continue;
            }
            let now = clock.now();
            let is_watching = queue.is_watching();
            outbox.borrow(queue.memory());
            let received = queue.receive(|path, ecn, datagram| {
                *taken += 1;
                if let Some(addressee) = proxy::Addressee::of(datagram) {
                    // Connections of the one before end with it.
                    if let Duty::Following(former) = duty
                        && streams.is_others(addressee)
                    {
                        if !former.pass(path, ecn, datagram) {
                            outbox.count_not_crossed();
                        }
                        return Names::Nobody;
                    }
                    let given = streams.give(addressee, path, ecn, datagram, now.monotonic);
                    if let Some(outcome) = given {
                        shard.count_stranger(datagram.len(), outcome);
                        return Names::Nobody;
                    }
                }
                let names = match is_watching && shard.names_session(datagram) {
                    true => Names::Session,
                    false => Names::Nobody,
                };
                match duty.crossing() {
                    Some(crossing) if duty.whose(datagram, *shift) == Whose::Theirs => {
                        if !crossing.pass(path, ecn, datagram) {
                            outbox.count_not_crossed();
                        }
                        if matches!(duty, Duty::Following(_)) {
                            shard.handle_former(path, now, outbox);
                        }
                    }
                    _ => shard.handle_datagram(path, ecn, datagram, now, outbox),
                }
                names
            });
            outbox.give_back(queue.memory_mut());
            match received {
                Ok(is_full) => *has_more = is_full,
                Err(error) => tracing::debug!(%error, "cannot receive datagrams"),
            }
        }
        has_more
    }

    /// Returns whether the burst ended because it was full.
    fn take_overlay_packets(&mut self) -> bool {
        let Self {
            shard,
            tun: Some(tun),
            outbox,
            clock,
            ..
        } = self
        else {
            return false;
        };
        for read in 1..=BURST_READS {
            let now = clock.now();
            let received = tun.receive(|offload, packet, may_leave| match may_leave {
                true => shard.handle_overlay_packet(offload, packet, now, outbox),
                false => shard.shed_overlay_packet(offload, packet),
            });
            match received {
                Ok(true)
                    if outbox.datagrams_waiting() < BURST_DATAGRAMS
                        && outbox.takes_super_packet() => {}
                Ok(is_full) => {
                    tun.handle_burst(read, is_full);
                    return is_full;
                }
                Err(error) => {
                    tracing::error!(%error, "the TUN device is gone; overlay packets stop until it is made anew");
                    self.let_go_of_device();
                    return false;
                }
            }
        }
        tun.handle_burst(BURST_READS, true);
        true
    }

    fn pass_events_on(&mut self) {
        while let Some(event) = self.shard.poll_event() {
            match event {
                Event::Handshake(job) => match &mut self.duty {
                    Duty::Resting(waits) | Duty::Leaving(waits) => waits.jobs.push(job),
                    _ => self.run_elsewhere(job),
                },
                event => self.pass_on(event),
            }
        }
    }

    fn pass_on(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            tracing::warn!(
                "the daemon is too busy to hear what its packet thread says; news was lost"
            );
        }
    }

    fn run_elsewhere(&mut self, job: HandshakeJob) {
        match self.jobs.try_send((self.number, job)) {
            Ok(()) => {}
            // More than the thread can take: each job must be run, so this one is run here.
            Err(TrySendError::Full((_, job)) | TrySendError::Disconnected((_, job))) => {
                let done = job.run();
                self.shard
                    .handle_handshake(done, self.clock.now(), &mut self.outbox);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_were_seen_before_the_thread_left_are_not_taken_after() {
        let seen = Ready {
            wake: true,
            sockets: [true, false],
            tun: true,
            crossing: true,
            room: [false; 2],
        };
        let serving = seen.of_who_serves(true);
        assert!(serving.tun && serving.sockets == [true, false]);
        let left = seen.of_who_serves(false);
        assert!(!left.tun && left.sockets == [false; 2]);
        assert!(left.wake && left.crossing, "these are this thread's own");
    }
}

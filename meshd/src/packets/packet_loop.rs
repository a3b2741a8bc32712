//! One packet thread: waits for packets, commands and deadlines, and runs its shard to completion for
//! each. Public-key work goes to a thread of its own, so that a storm of handshakes delays no packet.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::Duration;

use dataplane::{Command, Event, HandshakeDone, HandshakeJob, Shard, VirtioHeader};
use runtime::clock::Clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;
use tun_rs::SyncDevice;

use super::hand_over::{HandOverInbox, HandedOver};
use super::outbox::BatchOutbox;
use super::tun_queue::TunQueue;
use super::udp_socket::UdpSockets;
use super::worker::Job;

/// Reads from one source before the others have their turn.
const BURST_READS: usize = 64;
/// Datagrams that may wait for their burst's end: as much as keeps the caches warm.
const BURST_DATAGRAMS: usize = 256;
/// The longest sleep, so that a deadline that is far away needs no big numbers.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What one packet thread is told.
pub(super) enum ToLoop {
    /// Applied between two packets, all of them.
    Commands(Vec<Command>),
    /// Another queue of a TUN device, or none.
    Device(Option<Arc<SyncDevice>>),
    /// The queue of the TUN device is closed, and the sender dropped after it.
    Release(mpsc::Sender<()>),
    /// Public-key work is done.
    Handshake(Box<HandshakeDone>),
    /// The daemon stops.
    Stop,
}

/// Which sources have something.
#[derive(Clone, Copy, Default)]
struct Ready {
    wake: bool,
    /// As [`UdpSockets::queues_mut`] has them.
    sockets: [bool; 2],
    tun: bool,
}

/// What the thread owns.
pub(super) struct PacketLoop {
    pub(super) number: usize,
    pub(super) shard: Shard,
    pub(super) sockets: UdpSockets,
    pub(super) tun: Option<TunQueue>,
    pub(super) outbox: BatchOutbox,
    pub(super) inbox: Receiver<ToLoop>,
    pub(super) handed_over: HandOverInbox,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) jobs: SyncSender<Job>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) clock: Clock,
}

impl PacketLoop {
    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "the packet thread cannot wait for packets and ends");
                    return;
                }
            };
            if ready.wake {
                if self.take_messages().is_break() {
                    return self.outbox.flush();
                }
                self.take_handed_over();
            }
            self.take_datagrams(ready.sockets);
            self.outbox.flush();
            if ready.tun {
                self.take_overlay_packets();
                self.outbox.flush();
            }
            let now = self.clock.now();
            if self
                .shard
                .poll_timeout()
                .is_some_and(|(deadline, _)| deadline <= now.monotonic)
            {
                self.shard.handle_timeout(now, &mut self.outbox);
            }
            self.pass_events_on();
            self.outbox.flush();
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let sleep = match self.shard.poll_timeout() {
            Some((deadline, _)) => self.clock.until(deadline).min(SLEEP_MAX),
            None => SLEEP_MAX,
        };
        let timeout = Timespec::try_from(sleep).expect("at most a minute");
        // What is not there is the wake-up a second time.
        let awake = || PollFd::new(&*self.wake, PollFlags::IN);
        let mut polled = [awake(), awake(), awake(), awake()];
        let [_, v4, v6, tun] = &mut polled;
        let slots = [v4, v6].into_iter().zip(self.sockets.descriptors());
        let device = self.tun.as_ref().map(|queue| (tun, queue.descriptor()));
        for (slot, source) in slots.chain(device) {
            *slot = PollFd::from_borrowed_fd(source, PollFlags::IN);
        }
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) => {
                // Also errors: reading tells them.
                let [wake, v4, v6, tun] = polled.map(|source| !source.revents().is_empty());
                Ok(Ready {
                    wake,
                    sockets: [v4, v6],
                    tun,
                })
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
                ToLoop::Handshake(done) => {
                    self.shard.handle_handshake(*done, now, &mut self.outbox)
                }
                ToLoop::Device(device) => {
                    let queue = device.map(TunQueue::new);
                    let writer = |(queue, joins): &(TunQueue, _)| (queue.writer(), *joins);
                    self.outbox.set_device(queue.as_ref().map(writer));
                    self.tun = queue.map(|(queue, _)| queue);
                }
                ToLoop::Release(held) => {
                    self.let_go_of_device();
                    drop(held);
                }
                ToLoop::Stop => return ControlFlow::Break(()),
            }
            self.pass_events_on();
        }
        ControlFlow::Continue(())
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
            ..
        } = self;
        let now = clock.now();
        handed_over.take_all(|handed| match handed {
            HandedOver::Datagram {
                from,
                ecn,
                mut bytes,
            } => shard.handle_datagram(from, ecn, &mut bytes, now, outbox),
            HandedOver::OverlayPacket(mut bytes) => {
                shard.handle_overlay_packet(VirtioHeader::default(), &mut bytes, now, outbox);
            }
            HandedOver::Introduction(introduction) => {
                shard.handle_introduction(introduction, now, outbox);
            }
        });
    }

    fn take_datagrams(&mut self, ready: [bool; 2]) {
        let Self {
            shard,
            sockets,
            outbox,
            clock,
            ..
        } = self;
        for (queue, is_ready) in sockets.queues_mut().zip(ready) {
            if !is_ready {
                continue;
            }
            let now = clock.now();
            let received = queue.receive(|path, ecn, datagram| {
                shard.handle_datagram(path, ecn, datagram, now, outbox);
            });
            if let Err(error) = received {
                tracing::debug!(%error, "cannot receive datagrams");
            }
        }
    }

    fn take_overlay_packets(&mut self) {
        let Self {
            shard,
            tun: Some(tun),
            outbox,
            clock,
            ..
        } = self
        else {
            return;
        };
        for _ in 0..BURST_READS {
            let now = clock.now();
            let received = tun.receive(|offload, packet| {
                shard.handle_overlay_packet(offload, packet, now, outbox);
            });
            match received {
                Ok(true) if outbox.datagrams_waiting() < BURST_DATAGRAMS => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "the TUN device is gone; overlay packets stop until it is made anew");
                    return self.let_go_of_device();
                }
            }
        }
    }

    fn pass_events_on(&mut self) {
        while let Some(event) = self.shard.poll_event() {
            match event {
                Event::Handshake(job) => self.run_elsewhere(job),
                event => {
                    if self.events.try_send(event).is_err() {
                        tracing::warn!(
                            "the daemon is too busy to hear what its packet thread says; news was lost"
                        );
                    }
                }
            }
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

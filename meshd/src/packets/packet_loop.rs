//! One packet thread: waits for packets, commands and deadlines, and runs its shard to completion for
//! each. Public-key work goes to a thread of its own, so that a storm of handshakes delays no packet.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::time::Duration;

use dataplane::{Command, Event, HandshakeDone, HandshakeJob, OverlayMeta, Shard};
use runtime::clock::Clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;
use tun_rs::SyncDevice;

use super::hand_over::{HandOverInbox, HandedOver};
use super::outbox::DirectOutbox;
use super::tun_queue::TunQueue;
use super::udp_socket::UdpSockets;
use super::worker::Job;

/// Packets taken from one source before the others have their turn.
const BURST_PACKETS: usize = 64;
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

/// What the thread owns.
pub(super) struct PacketLoop {
    pub(super) number: usize,
    pub(super) shard: Shard,
    pub(super) sockets: UdpSockets,
    pub(super) tun: Option<TunQueue>,
    pub(super) outbox: DirectOutbox,
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
            if let Err(error) = self.wait() {
                tracing::error!(%error, "the packet thread cannot wait for packets and ends");
                return;
            }
            if self.take_messages().is_break() {
                return;
            }
            self.take_handed_over();
            self.take_datagrams();
            self.take_overlay_packets();
            let now = self.clock.now();
            if self
                .shard
                .poll_timeout()
                .is_some_and(|(deadline, _)| deadline <= now.monotonic)
            {
                self.shard.handle_timeout(now, &mut self.outbox);
            }
            self.pass_events_on();
        }
    }

    fn wait(&self) -> io::Result<()> {
        let sleep = match self.shard.poll_timeout() {
            Some((deadline, _)) => self.clock.until(deadline).min(SLEEP_MAX),
            None => SLEEP_MAX,
        };
        let timeout = Timespec::try_from(sleep).expect("at most a minute");
        let awake = || PollFd::new(&*self.wake, PollFlags::IN);
        let mut polled = [awake(), awake(), awake(), awake()];
        let sources = self
            .sockets
            .descriptors()
            .chain(self.tun.as_ref().map(TunQueue::descriptor));
        for (slot, source) in polled[1..].iter_mut().zip(sources) {
            *slot = PollFd::from_borrowed_fd(source, PollFlags::IN);
        }
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
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
                    self.tun = device.map(TunQueue::new);
                    self.outbox.device = self.tun.as_ref().map(TunQueue::writer);
                }
                ToLoop::Release(held) => {
                    self.tun = None;
                    self.outbox.device = None;
                    drop(held);
                }
                ToLoop::Stop => return ControlFlow::Break(()),
            }
            self.pass_events_on();
        }
        ControlFlow::Continue(())
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
                shard.handle_overlay_packet(OverlayMeta::default(), &mut bytes, now, outbox);
            }
            HandedOver::Introduction(introduction) => {
                shard.handle_introduction(introduction, now, outbox);
            }
        });
    }

    fn take_datagrams(&mut self) {
        let Self {
            shard,
            sockets,
            outbox,
            clock,
            ..
        } = self;
        for queue in sockets.queues_mut() {
            for _ in 0..BURST_PACKETS {
                let now = clock.now();
                match queue.receive(|path, ecn, datagram| {
                    shard.handle_datagram(path, ecn, datagram, now, outbox)
                }) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::debug!(%error, "cannot receive a datagram");
                        break;
                    }
                }
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
        for _ in 0..BURST_PACKETS {
            let now = clock.now();
            let received = tun.receive(|packet| {
                shard.handle_overlay_packet(OverlayMeta::default(), packet, now, outbox)
            });
            match received {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "the TUN device is gone; overlay packets stop until it is made anew");
                    self.tun = None;
                    self.outbox.device = None;
                    return;
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

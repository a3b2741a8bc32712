//! The packet thread: waits for packets, commands and deadlines, and runs the shard to completion
//! for each. Public-key work goes to a thread of its own, so that a storm of handshakes delays no
//! packet.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::{
    Command, Counters, Event, HandshakeDone, HandshakeJob, OverlayMeta, Shard, ShardConfig,
};
use runtime::clock::Clock;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::mpsc;
use tun_rs::SyncDevice;

use super::outbox::{DirectOutbox, SendFailures};
use super::tun_queue::TunQueue;
use super::udp_socket::UdpSockets;

/// Messages that may wait for the packet thread.
const MESSAGES_MAX: usize = 1024;
/// Handshakes that may wait for the handshake thread.
const HANDSHAKES_MAX: usize = 1024;
/// Packets taken from one source before the others have their turn.
const BURST_PACKETS: usize = 64;
/// The longest sleep, so that a deadline that is far away needs no big numbers.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What the packet thread is told.
pub enum WorkerMessage {
    /// Applied between two packets, all of them.
    Commands(Vec<Command>),
    /// Another TUN device, or none.
    Device(Option<Arc<SyncDevice>>),
    /// Public-key work is done.
    Handshake(Box<HandshakeDone>),
    /// The daemon stops.
    Stop,
}

/// The packet thread is gone.
#[derive(Debug, thiserror::Error)]
#[error("the packet thread has ended")]
pub struct WorkerGone;

/// Talks to the packet thread.
#[derive(Clone)]
pub struct WorkerHandle {
    messages: SyncSender<WorkerMessage>,
    wake: Arc<OwnedFd>,
    counters: Arc<Counters>,
    failures: Arc<SendFailures>,
}

impl WorkerHandle {
    /// Hands over a message, waiting while the queue is full.
    ///
    /// # Errors
    /// The packet thread is gone.
    pub fn send(&self, message: WorkerMessage) -> Result<(), WorkerGone> {
        self.messages.send(message).map_err(|_| WorkerGone)?;
        // A full event counter wakes the thread just as well.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        Ok(())
    }

    /// Returns the shard's counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the packets that the kernel did not take.
    pub fn failures(&self) -> &SendFailures {
        &self.failures
    }
}

/// The packet thread and the handshake thread, joined when dropped after `Stop`.
pub struct PacketWorker {
    handle: WorkerHandle,
    threads: Vec<JoinHandle<()>>,
}

impl PacketWorker {
    /// Starts the threads. Events of the shard go to `events`; when nobody takes them in time they
    /// are lost and said so in the log.
    ///
    /// # Errors
    /// The kernel gives no thread or descriptor.
    pub fn start(
        config: ShardConfig,
        sockets: UdpSockets,
        seed: [u8; 32],
        clock: Clock,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let failures = Arc::new(SendFailures::default());
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (messages, inbox) = sync_channel(MESSAGES_MAX);
        let handle = WorkerHandle {
            messages,
            wake,
            counters: Arc::clone(&counters),
            failures: Arc::clone(&failures),
        };
        let (jobs, job_inbox) = sync_channel(HANDSHAKES_MAX);
        let outbox = DirectOutbox {
            sender: sockets.sender()?,
            device: None,
            failures,
            memory: Vec::new(),
        };
        let shard = Shard::new(config, seed, clock.now(), counters);
        let wake = Arc::clone(&handle.wake);
        let loop_state = PacketLoop {
            shard,
            sockets,
            tun: None,
            outbox,
            inbox,
            wake,
            jobs,
            events,
            clock,
        };
        let packets = std::thread::Builder::new()
            .name("packets".into())
            .spawn(move || loop_state.run())?;
        let back = handle.clone();
        let handshakes = std::thread::Builder::new()
            .name("handshakes".into())
            .spawn(move || run_jobs(&job_inbox, &back))?;
        Ok(Self {
            handle,
            threads: vec![packets, handshakes],
        })
    }

    /// Returns a handle.
    pub fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// Stops the threads and waits for them.
    pub fn stop(self) {
        let _ = self.handle.send(WorkerMessage::Stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a packet thread panicked");
            }
        }
    }
}

fn run_jobs(jobs: &Receiver<HandshakeJob>, worker: &WorkerHandle) {
    while let Ok(job) = jobs.recv() {
        if worker
            .send(WorkerMessage::Handshake(Box::new(job.run())))
            .is_err()
        {
            return;
        }
    }
}

struct PacketLoop {
    shard: Shard,
    sockets: UdpSockets,
    tun: Option<TunQueue>,
    outbox: DirectOutbox,
    inbox: Receiver<WorkerMessage>,
    wake: Arc<OwnedFd>,
    jobs: SyncSender<HandshakeJob>,
    events: mpsc::Sender<Event>,
    clock: Clock,
}

impl PacketLoop {
    fn run(mut self) {
        loop {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "the packet thread cannot wait for packets and ends");
                return;
            }
            if self.take_messages().is_break() {
                return;
            }
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

    fn take_messages(&mut self) -> std::ops::ControlFlow<()> {
        let mut drained = [0u8; 8];
        let _ = rustix::io::read(&*self.wake, &mut drained);
        while let Ok(message) = self.inbox.try_recv() {
            let now = self.clock.now();
            match message {
                WorkerMessage::Commands(commands) => {
                    self.shard.handle_commands(commands, now, &mut self.outbox)
                }
                WorkerMessage::Handshake(done) => {
                    self.shard.handle_handshake(*done, now, &mut self.outbox)
                }
                WorkerMessage::Device(device) => {
                    self.tun = device.map(TunQueue::new);
                    self.outbox.device = self.tun.as_ref().map(TunQueue::writer);
                }
                WorkerMessage::Stop => return std::ops::ControlFlow::Break(()),
            }
            self.pass_events_on();
        }
        std::ops::ControlFlow::Continue(())
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
        match self.jobs.try_send(job) {
            Ok(()) => {}
            // More than the thread can take: each job must be run, so this one is run here.
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                let done = job.run();
                self.shard
                    .handle_handshake(done, self.clock.now(), &mut self.outbox);
            }
        }
    }
}

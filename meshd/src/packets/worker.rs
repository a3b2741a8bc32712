//! The packet threads, one for each shard, and the thread for public-key work: started together,
//! told things together, counted together.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use dataplane::{Command, Counters, DropReason, Event, HandshakeJob, Place, Shard, ShardConfig};
use runtime::clock::Clock;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

use super::cores;
use super::crossing::Crossing;
use super::duty::{Duty, Waiting};
use super::hand_over::{HandOver, HandOverInbox, hand_over};
use super::outbox::{BatchOutbox, SendFailures};
use super::packet_loop::{PacketLoop, ToLoop};
use super::stream_port::{StreamGate, StreamPort};
use super::udp_socket::UdpSockets;

/// Messages that may wait for a packet thread.
const MESSAGES_MAX: usize = 1024;
/// Handshakes that may wait for the handshake thread.
const HANDSHAKES_MAX: usize = 1024;

/// What the packet threads are told.
pub enum WorkerMessage {
    /// Applied by each between two packets, all of them.
    Commands(Vec<Command>),
    /// Another TUN device, as many queues of it as there are shards.
    Device(Vec<Arc<OwnedFd>>),
    /// The daemon stops.
    Stop,
}

/// A packet thread is gone.
#[derive(Debug, thiserror::Error)]
#[error("the packet thread has ended")]
pub struct WorkerGone;

/// Talks to the packet threads.
#[derive(Clone)]
pub struct WorkerHandle {
    pub(super) shards: Arc<[ShardHandle]>,
    failures: Arc<SendFailures>,
    streams: Arc<StreamPort>,
}

/// Talks to one of them.
#[derive(Clone)]
pub(super) struct ShardHandle {
    messages: SyncSender<ToLoop>,
    wake: Arc<OwnedFd>,
    counters: Arc<Counters>,
}

impl ShardHandle {
    pub(super) fn send(&self, message: ToLoop) -> Result<(), WorkerGone> {
        self.messages.send(message).map_err(|_| WorkerGone)?;
        // A full event counter wakes the thread just as well.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        Ok(())
    }
}

impl WorkerHandle {
    /// Hands over a message to all threads, waiting while a queue is full.
    ///
    /// # Errors
    /// A packet thread is gone; the others have got the message.
    pub fn send(&self, message: WorkerMessage) -> Result<(), WorkerGone> {
        let mut outcome = Ok(());
        for (number, shard) in self.shards.iter().enumerate() {
            let sent = shard.send(match &message {
                WorkerMessage::Commands(commands) => ToLoop::Commands(commands.clone()),
                WorkerMessage::Device(queues) => ToLoop::Device(queues.get(number).cloned()),
                WorkerMessage::Stop => ToLoop::Stop,
            });
            outcome = outcome.and(sent);
        }
        outcome
    }

    /// Takes the TUN device away, and waits until no packet thread holds it any more: its name is
    /// free once the last holder has dropped it.
    pub async fn release_device(&self) {
        let (held, mut released) = mpsc::channel(1);
        for shard in &*self.shards {
            // A thread that is gone holds nothing.
            let _ = shard.send(ToLoop::Release(held.clone()));
        }
        drop(held);
        // Nobody sends anything: it ends with the last sender.
        let _ = released.recv().await;
    }

    /// Returns how many shards there are.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Returns each shard's counters.
    pub fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.shards.iter().map(|shard| &*shard.counters)
    }

    /// Returns what all shards dropped for a reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.counters().map(|shard| shard.dropped(reason)).sum()
    }

    /// Returns the flows of this host that peers denied, as they said.
    pub fn denied_by_peers(&self) -> u64 {
        self.counters().map(Counters::denied_by_peer).sum()
    }

    /// Returns the way of the proxy's QUIC, which shares the port.
    pub(crate) fn streams(&self) -> &Arc<StreamPort> {
        &self.streams
    }

    /// Returns the packets that the kernel did not take.
    pub fn failures(&self) -> &SendFailures {
        &self.failures
    }
}

/// The packet threads and the handshake thread, joined when dropped after `Stop`.
pub struct PacketWorker {
    handle: WorkerHandle,
    threads: Vec<JoinHandle<()>>,
}

/// Public-key work with the number of the shard that its result goes to.
pub(super) type Job = (usize, HandshakeJob);

impl PacketWorker {
    /// Starts one packet thread for each of the sockets, whose number is a power of two. News of the
    /// shards go to `events`; when nobody takes them in time they are lost and said so in the log.
    ///
    /// # Errors
    /// The kernel gives no thread or descriptor.
    pub fn start(
        config: ShardConfig,
        sockets: Vec<UdpSockets>,
        seed: [u8; 32],
        clock: Clock,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        Self::start_behind(None, config, sockets, seed, clock, events)
    }

    /// With `before`, another daemon serves until [`WorkerHandle::take_up`].
    ///
    /// # Errors
    /// As [`PacketWorker::start`].
    pub(crate) fn start_behind(
        before: Option<Before>,
        config: ShardConfig,
        sockets: Vec<UdpSockets>,
        seed: [u8; 32],
        clock: Clock,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let mut crossings = before.into_iter().flat_map(Before::duties);
        let count = u16::try_from(sockets.len()).expect("shards are few");
        let ends = (0..count)
            .map(|_| Ends::new())
            .collect::<io::Result<Vec<Ends>>>()?;
        let handles = ends.iter().map(|ends| ends.handle.clone());
        let handle = WorkerHandle {
            shards: handles.collect(),
            failures: Arc::default(),
            streams: StreamPort::new(&sockets[0], config.shift)?,
        };
        let ways: Vec<HandOver> = ends.iter().map(|ends| ends.way.clone()).collect();
        let (jobs, job_inbox) = sync_channel(HANDSHAKES_MAX);
        let mut threads = Vec::new();
        for ((number, ends), sockets) in (0..count).zip(ends).zip(sockets) {
            let config = ShardConfig {
                place: Place::new(number, count),
                ..config
            };
            let counters = Arc::clone(&ends.handle.counters);
            let failures = Arc::clone(&handle.failures);
            let outbox = BatchOutbox::new(sockets.sender()?, failures, ways.clone());
            let streams = Arc::clone(&handle.streams);
            let packets = PacketLoop {
                number: usize::from(number),
                shard: Shard::new(config, seed_of(number, seed), clock.now(), counters)
                    .with_cookie_seed(derived(b"mesh.v1.cookie-seed", &seed)),
                sockets,
                streams: StreamGate::new(streams, clock.now().monotonic),
                tun: None,
                outbox,
                inbox: ends.inbox,
                handed_over: ends.handed_over,
                wake: ends.handle.wake,
                jobs: jobs.clone(),
                events: events.clone(),
                clock,
                duty: crossings.next().unwrap_or_default(),
                shift: config.shift,
                taken: 0,
            };
            threads.push(spawn(format!("packets-{number}"), move || {
                cores::pin(number, count);
                packets.run();
            })?);
        }
        let back = handle.clone();
        threads.push(spawn("handshakes".to_owned(), move || {
            run_jobs(&job_inbox, &back);
        })?);
        Ok(Self { handle, threads })
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

/// The daemon that serves before this one does.
pub(crate) struct Before {
    /// What leads to its packet threads, one for each of ours.
    pub(crate) crossings: Vec<Crossing>,
    /// How many peers have answered handshakes of this daemon.
    pub(crate) answers: Arc<AtomicUsize>,
}

impl Before {
    fn duties(self) -> impl Iterator<Item = Duty> {
        let Self { crossings, answers } = self;
        let waiting = move |crossing| Waiting::new(crossing, Arc::clone(&answers));
        crossings
            .into_iter()
            .map(move |crossing| Duty::Waiting(Box::new(waiting(crossing))))
    }
}

/// What leads to one packet thread, and its own ends of it.
struct Ends {
    handle: ShardHandle,
    way: HandOver,
    inbox: Receiver<ToLoop>,
    handed_over: HandOverInbox,
}

impl Ends {
    fn new() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let (messages, inbox) = sync_channel(MESSAGES_MAX);
        let (way, handed_over) = hand_over(Arc::clone(&wake));
        let handle = ShardHandle {
            messages,
            wake,
            counters: Arc::default(),
        };
        Ok(Self {
            handle,
            way,
            inbox,
            handed_over,
        })
    }
}

/// Every shard throws other dice.
fn seed_of(number: u16, seed: [u8; 32]) -> [u8; 32] {
    let [high, low] = number.to_be_bytes();
    derived(b"mesh.v1.shard-seed", &[&seed[..], &[high, low]].concat())
}

fn derived(context: &[u8], secret: &[u8]) -> [u8; 32] {
    *trust::digest(context, secret).as_bytes()
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(work)
}

fn run_jobs(jobs: &Receiver<Job>, worker: &WorkerHandle) {
    while let Ok((number, job)) = jobs.recv() {
        let done = ToLoop::Handshake(Box::new(job.run()));
        if worker.shards[number].send(done).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_dead_shard_does_not_hear_the_others_do() {
        let (dead, alive) = (Ends::new().unwrap(), Ends::new().unwrap());
        let sockets = UdpSockets::bind(0).unwrap();
        let worker = WorkerHandle {
            shards: [dead.handle.clone(), alive.handle.clone()].into(),
            failures: Arc::default(),
            streams: StreamPort::new(&sockets, dataplane::Shift::First).unwrap(),
        };
        drop(dead.inbox);
        let told = worker.send(WorkerMessage::Commands(vec![Command::Report]));
        assert!(told.is_err());
        let heard = alive.inbox.try_recv();
        assert!(matches!(heard, Ok(ToLoop::Commands(commands)) if commands.len() == 1));
        // Nor does a dead one hold up who waits for the device.
        let answer = std::thread::spawn(move || drop(alive.inbox.recv()));
        worker.release_device().await;
        answer.join().unwrap();
    }
}

//! A sender and a receiver of numbered UDP datagrams that take little from those who are measured:
//! `sendmmsg` and `recvmmsg`, a large receive buffer that is emptied now and then, so that nobody has to
//! wake the receiver. Like most programs they know no segmentation offload.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::LabError;
use meshd::linux::send_runs::{RUNS_MAX, Run, send_runs};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use rustix::net::sockopt;

use crate::tunnels::ground::Ground;

const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// How often it is emptied: long before a million datagrams a second fill it.
const EMPTIED_EVERY: Duration = Duration::from_millis(1);
/// How long nothing must come before the receiver believes that all are there that will.
const SILENCE: Duration = Duration::from_millis(100);
/// How late the kernel may wake the sender.
const TIMER_SLACK_NANOS: Option<NonZeroU64> = NonZeroU64::new(1000);
/// The number of the trial, then that of the datagram.
const NUMBERS_LEN: usize = 16;

/// The two sockets.
pub(crate) struct Stream {
    sender: UdpSocket,
    receiver: Receiver,
    to: SocketAddr,
    size: usize,
    trials: u64,
}

/// What came of one trial.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) offered: u64,
    pub(crate) arrived: u64,
    /// By the sender.
    pub(crate) took: Duration,
}

impl Passed {
    pub(crate) fn offered_per_sec(&self) -> f64 {
        self.offered as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn arrived_per_sec(&self) -> f64 {
        self.arrived as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn lost_share(&self) -> f64 {
        1.0 - self.arrived as f64 / self.offered.max(1) as f64
    }
}

impl Stream {
    /// Opens both ends for datagrams with so many bytes.
    pub(crate) fn open(ground: &Ground, target: IpAddr, size: usize) -> Result<Self, LabError> {
        let failed = |error: io::Error| LabError::new(format!("cannot open a UDP socket: {error}"));
        let receiver = ground
            .right
            .namespace
            .inside(|| Receiver::bind(target, size))?
            .map_err(failed)?;
        let to = receiver.socket.local_addr().map_err(failed)?;
        let any = || UdpSocket::bind("0.0.0.0:0");
        let sender = ground.left.namespace.inside(any)?.map_err(failed)?;
        Ok(Self {
            sender,
            receiver,
            to,
            size: size.max(NUMBERS_LEN),
            trials: 0,
        })
    }

    /// Sends at a rate, or as fast as it goes, and returns how many arrived.
    pub(crate) fn send(
        &mut self,
        per_sec: Option<f64>,
        span: Duration,
    ) -> Result<Passed, LabError> {
        self.trials += 1;
        let Self {
            sender,
            receiver,
            to,
            size,
            trials,
        } = self;
        let is_over = AtomicBool::new(false);
        let (sent, received) = thread::scope(|scope| {
            let receiving = scope.spawn(|| receiver.count(*trials, &is_over));
            let sent = send(sender, *to, *size, *trials, per_sec, span);
            is_over.store(true, Ordering::Relaxed);
            (sent, receiving.join().expect("counting does not panic"))
        });
        let failed = |error: io::Error| LabError::new(format!("cannot receive datagrams: {error}"));
        let (offered, took) = sent;
        Ok(Passed {
            offered,
            arrived: received.map_err(failed)?,
            took,
        })
    }
}

/// Sends bursts, each when it is due; what the kernel refuses is offered, and lost.
fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    size: usize,
    trial: u64,
    per_sec: Option<f64>,
    span: Duration,
) -> (u64, Duration) {
    // Only makes the pace less even where it fails.
    let _ = rustix::thread::set_current_timer_slack(TIMER_SLACK_NANOS);
    let mut datagrams = vec![vec![0; size]; RUNS_MAX];
    let started = Instant::now();
    let mut offered = 0;
    loop {
        let elapsed = started.elapsed();
        if elapsed >= span {
            return (offered, elapsed);
        }
        let due = per_sec.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(offered as f64 / rate)
        });
        if let Some(early) = due.checked_sub(elapsed).filter(|early| !early.is_zero()) {
            thread::sleep(early);
            continue;
        }
        for datagram in &mut datagrams {
            datagram[..8].copy_from_slice(&trial.to_ne_bytes());
            datagram[8..NUMBERS_LEN].copy_from_slice(&u64::to_ne_bytes(offered));
            offered += 1;
        }
        let mut left = datagrams.as_slice();
        while let Some(first) = left.first() {
            let run = |bytes| Run {
                to,
                source: None,
                ecn: 0,
                segment_size: None,
                bytes,
            };
            let mut runs = [run(first); RUNS_MAX];
            for (slot, bytes) in runs.iter_mut().zip(left) {
                *slot = run(bytes);
            }
            let done = send_runs(socket, &runs[..left.len()]).unwrap_or(1);
            left = &left[done..];
        }
    }
}

struct Receiver {
    socket: UdpSocket,
    state: UdpSocketState,
    memory: Vec<u8>,
    size: usize,
}

impl Receiver {
    fn bind(address: IpAddr, size: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES)?;
        socket.set_nonblocking(true)?;
        // Prepared on another socket, so that the kernel joins no datagrams on this one: few programs
        // can take them so.
        let other = UdpSocket::bind("127.0.0.1:0")?;
        let size = size.max(NUMBERS_LEN);
        Ok(Self {
            state: UdpSocketState::new((&other).into())?,
            socket,
            memory: vec![0; size * BATCH_SIZE],
            size,
        })
    }

    /// Counts the datagrams of a trial, each once, until all were sent and no more come.
    fn count(&mut self, trial: u64, is_over: &AtomicBool) -> io::Result<u64> {
        let mut seen = Numbers::default();
        let mut heard = Instant::now();
        loop {
            // Asked before: what was sent by then has all of the silence to come.
            let was_over = is_over.load(Ordering::Relaxed);
            if self.empty(trial, &mut seen)? > 0 || !was_over {
                heard = Instant::now();
            } else if heard.elapsed() >= SILENCE {
                return Ok(seen.count);
            }
            thread::sleep(EMPTIED_EVERY);
        }
    }

    /// Takes what waits, and returns how much it was, of whatever trial.
    fn empty(&mut self, trial: u64, seen: &mut Numbers) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let mut rooms = self.memory.chunks_exact_mut(self.size);
            let mut buffers: [_; BATCH_SIZE] = std::array::from_fn(|_| {
                IoSliceMut::new(rooms.next().expect("as many as there are"))
            });
            let socket = (&self.socket).into();
            let received = match self.state.recv(socket, &mut buffers, &mut metas) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error),
            };
            taken += received;
            for buffer in &buffers[..received] {
                let number = |at: usize| {
                    let bytes = buffer[at..at + 8].try_into();
                    u64::from_ne_bytes(bytes.expect("eight bytes"))
                };
                if number(0) == trial {
                    seen.add(number(8));
                }
            }
        }
    }
}

/// Numbers that were seen, so that a copy does not count.
#[derive(Default)]
struct Numbers {
    words: Vec<u64>,
    count: u64,
}

impl Numbers {
    fn add(&mut self, number: u64) {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        if self.words[word] & bit == 0 {
            self.words[word] |= bit;
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_once() {
        let mut seen = Numbers::default();
        for number in [0, 63, 64, 1000, 64, 0] {
            seen.add(number);
        }
        assert_eq!(seen.count, 4);
    }

    #[test]
    fn what_is_sent_over_loopback_arrives() {
        let receiver = Receiver::bind("127.0.0.1".parse().unwrap(), 128).unwrap();
        let mut stream = Stream {
            sender: UdpSocket::bind("127.0.0.1:0").unwrap(),
            to: receiver.socket.local_addr().unwrap(),
            receiver,
            size: 128,
            trials: 0,
        };
        for _ in 0..2 {
            let passed = stream
                .send(Some(1000.0), Duration::from_millis(50))
                .unwrap();
            assert!(passed.offered >= RUNS_MAX as u64);
            assert_eq!(passed.arrived, passed.offered, "each trial counts its own");
        }
    }
}

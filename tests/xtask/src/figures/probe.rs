//! A datagram each millisecond through the tunnel, in both directions: how many get lost, and what the
//! longest time is in which none arrives.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::LabError;
use machines::Member;

/// The policy lets it through.
const PORT: u16 = 9;
const EVERY: Duration = Duration::from_millis(1);
/// How long the last datagrams may be under way.
const UNDER_WAY: Duration = Duration::from_millis(500);

/// What became of the datagrams of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    /// By the sender's kernel, such as for want of a route.
    pub(super) refused: u64,
    /// With those that were refused.
    pub(super) lost: u64,
    /// Between two that arrived, one after the other.
    pub(super) longest: Duration,
}

/// Sends both ways while something is done.
pub(super) fn probe_during<T: Send>(
    (one, other): (&Member, &Member),
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<(T, [Passed; 2]), LabError> {
    let ends = [bind(one)?, bind(other)?];
    let addresses = [one, other].map(|it| SocketAddr::from((it.overlay_v4, PORT)));
    let (is_done, sent) = (AtomicBool::new(false), [const { Sent::new() }; 2]);
    thread::scope(|scope| {
        for (from, to) in [(0, 1), (1, 0)] {
            let (ends, sent, is_done) = (&ends, &sent[from], &is_done);
            scope.spawn(move || send(&ends[from], addresses[to], sent, is_done));
        }
        let receivers = [1, 0].map(|at: usize| {
            let (end, is_done) = (&ends[at], &is_done);
            scope.spawn(move || receive(end, is_done))
        });
        let outcome = work();
        is_done.store(true, Ordering::Relaxed);
        let arrived = receivers.map(|it| it.join().expect("the receiver does not panic"));
        let passed = [0, 1].map(|at: usize| {
            let [all, refused] = [&sent[at].all, &sent[at].refused];
            let all = all.load(Ordering::Relaxed);
            let (count, longest) = arrived[at];
            Passed {
                refused: refused.load(Ordering::Relaxed),
                lost: all.saturating_sub(count),
                longest,
            }
        });
        Ok((outcome?, passed))
    })
}

fn bind(host: &Member) -> Result<UdpSocket, LabError> {
    let address = SocketAddr::from((host.overlay_v4, PORT));
    let failed = |error| LabError::new(format!("cannot listen at {address}: {error}"));
    let bound = host
        .machine
        .namespace()
        .inside(|| UdpSocket::bind(address))?;
    let socket = bound.map_err(failed)?;
    socket.set_read_timeout(Some(UNDER_WAY)).map_err(failed)?;
    Ok(socket)
}

/// What one end has sent.
struct Sent {
    all: AtomicU64,
    refused: AtomicU64,
}

impl Sent {
    const fn new() -> Self {
        Self {
            all: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

fn send(from: &UdpSocket, to: SocketAddr, sent: &Sent, is_done: &AtomicBool) {
    let mut next = Instant::now();
    while !is_done.load(Ordering::Relaxed) {
        if from.send_to(&[0; 100], to).is_err() {
            sent.refused.fetch_add(1, Ordering::Relaxed);
        }
        sent.all.fetch_add(1, Ordering::Relaxed);
        next += EVERY;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Until nothing comes any more after the end.
fn receive(at: &UdpSocket, is_done: &AtomicBool) -> (u64, Duration) {
    let (mut count, mut longest) = (0, Duration::ZERO);
    let mut last: Option<Instant> = None;
    let mut datagram = [0; 256];
    loop {
        if at.recv(&mut datagram).is_ok() {
            let now = Instant::now();
            longest = last.map_or(longest, |last| longest.max(now - last));
            (count, last) = (count + 1, Some(now));
        } else if is_done.load(Ordering::Relaxed) {
            return (count, longest);
        }
    }
}

//! Bytes over TCP in both directions at once, each compared with what was sent.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use lab::{LabError, Namespace, wait_until};

use crate::inside::inside;

/// How long nothing may move.
const STALL_MAX: Duration = Duration::from_secs(25);
const CHUNK_BYTES: usize = 64 << 10;
/// Has passed in each direction before something happens, and passes after it.
const BYTES_BEFORE: u64 = 1 << 20;
const BYTES_AFTER: u64 = 4 << 20;

/// One direction of a transfer.
#[derive(Default)]
struct Direction {
    sent: AtomicU64,
    received: AtomicU64,
}

/// Opens a connection to `address` in `to` and moves bytes both ways before, while and after
/// `meanwhile` happens.
///
/// # Errors
///
/// When the connection breaks or stalls, a byte is not the one that was sent, or `meanwhile` fails.
pub(crate) fn carry<T>(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    meanwhile: impl FnOnce() -> Result<T, LabError>,
) -> Result<T, LabError> {
    let (near, far) = connect(from, to, address)?;
    let (there, back) = (Direction::default(), Direction::default());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let movers = [
            scope.spawn(|| send(&near, 1, &there, &stop)),
            scope.spawn(|| receive(&far, 1, &there)),
            scope.spawn(|| send(&far, 2, &back, &stop)),
            scope.spawn(|| receive(&near, 2, &back)),
        ];
        let outcome = watch(&there, &back, meanwhile);
        stop.store(true, Ordering::Relaxed);
        if outcome.is_err() {
            // Nobody waits for a connection that has proven to be bad.
            let _ = near.shutdown(Shutdown::Both);
            let _ = far.shutdown(Shutdown::Both);
        }
        let moved: Vec<_> = movers
            .into_iter()
            .map(|mover| mover.join().expect("movers return their errors"))
            .collect();
        let value = outcome.map_err(|error| {
            LabError::new(format!(
                "{error}; {:?} bytes have passed: {moved:?}",
                received(&there, &back)
            ))
        })?;
        for result in moved {
            result.map_err(|error| LabError::new(format!("the transfer broke: {error}")))?;
        }
        for direction in [&there, &back] {
            assert_eq!(
                direction.sent.load(Ordering::Relaxed),
                direction.received.load(Ordering::Relaxed)
            );
        }
        Ok(value)
    })
}

fn connect(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
) -> Result<(TcpStream, TcpStream), LabError> {
    let listener = inside(to, "listen", || TcpListener::bind((address, 0)))?;
    let target = listener
        .local_addr()
        .expect("a bound socket has an address");
    let near = inside(from, "connect", || {
        TcpStream::connect_timeout(&target, STALL_MAX)
    })?;
    let (far, _) = listener.accept().expect("the connection is there already");
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(STALL_MAX)).expect("not zero");
        stream.set_write_timeout(Some(STALL_MAX)).expect("not zero");
    }
    Ok((near, far))
}

fn watch<T>(
    there: &Direction,
    back: &Direction,
    meanwhile: impl FnOnce() -> Result<T, LabError>,
) -> Result<T, LabError> {
    let wait_for = |wanted: [u64; 2]| {
        wait_until(&format!("{wanted:?} bytes have passed"), STALL_MAX, || {
            let now = received(there, back);
            Ok((now[0] >= wanted[0] && now[1] >= wanted[1]).then_some(()))
        })
    };
    wait_for([BYTES_BEFORE; 2])?;
    let value = meanwhile()?;
    wait_for(received(there, back).map(|bytes| bytes + BYTES_AFTER))?;
    Ok(value)
}

fn received(there: &Direction, back: &Direction) -> [u64; 2] {
    [there, back].map(|direction| direction.received.load(Ordering::Relaxed))
}

fn send(
    mut stream: &TcpStream,
    seed: u64,
    direction: &Direction,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut position = 0;
    while !stop.load(Ordering::Relaxed) {
        fill(&mut chunk, seed, position);
        stream.write_all(&chunk)?;
        position += chunk.len() as u64;
        direction.sent.store(position, Ordering::Relaxed);
    }
    stream.shutdown(Shutdown::Write)
}

fn receive(mut stream: &TcpStream, seed: u64, direction: &Direction) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut expected = vec![0; CHUNK_BYTES];
    let mut position = 0;
    loop {
        let mut filled = 0;
        while filled < chunk.len() {
            match stream.read(&mut chunk[filled..])? {
                0 => break,
                length => filled += length,
            }
        }
        fill(&mut expected, seed, position);
        if chunk[..filled] != expected[..filled] {
            return Err(io::Error::other(format!(
                "other bytes than were sent, behind byte {position}"
            )));
        }
        position += filled as u64;
        direction.received.store(position, Ordering::Relaxed);
        if filled < chunk.len() {
            return Ok(());
        }
    }
}

/// What stands at `position` of the stream of that seed; `position` is a multiple of 8.
fn fill(chunk: &mut [u8], seed: u64, position: u64) {
    for (word, bytes) in chunk.chunks_exact_mut(8).enumerate() {
        let mixed = (position / 8 + word as u64 + (seed << 56)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.copy_from_slice(&(mixed ^ (mixed >> 29)).to_be_bytes());
    }
}

/// Returns the sizes of UDP payloads in `0..=largest` that do not come back unchanged.
pub(crate) fn sizes_that_change(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    largest: usize,
) -> Result<Vec<usize>, LabError> {
    let echo = inside(to, "listen", || std::net::UdpSocket::bind((address, 0)))?;
    let target: SocketAddr = echo.local_addr().expect("a bound socket has an address");
    let asker = inside(from, "open a socket", || {
        let any: IpAddr = match address {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(target)?;
        Ok(socket)
    })?;
    for socket in [&asker, &echo] {
        let patience = Duration::from_secs(5);
        socket.set_read_timeout(Some(patience)).expect("not zero");
    }
    let mut wrong = Vec::new();
    let mut memory = vec![0; 1 << 16];
    let mut payload = vec![0; largest.next_multiple_of(8)];
    for size in 0..=largest {
        fill(&mut payload, 3, size as u64 * 8);
        let mut ask = || -> io::Result<bool> {
            asker.send(&payload[..size])?;
            let (length, back) = echo.recv_from(&mut memory)?;
            echo.send_to(&memory[..length], back)?;
            let length = asker.recv(&mut memory)?;
            Ok(memory[..length] == payload[..size])
        };
        if !ask().unwrap_or(false) {
            wrong.push(size);
        }
    }
    Ok(wrong)
}

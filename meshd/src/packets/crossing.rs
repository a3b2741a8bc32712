//! Between a daemon's packet thread and its successor's, while both are there: one socket for each
//! pair of them, on which each passes on the datagrams that are the other's.
//!
//! ```text
//! offset  size
//!      0    19  from: family (4, 6), address (16, IPv4 in the first 4), port (2, big endian)
//!     19    17  to: family (0 unknown, 4, 6), address
//!     36     1  ECN bits of the outer header
//!     37        the datagram
//! ```

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dataplane::Path;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

const HEADER_LEN: usize = 37;
const DATAGRAM_BYTES_MAX: usize = 65535;
/// What may wait for the other side: a fast sender's datagrams of some milliseconds.
const BUFFER_BYTES: usize = 4 << 20;

/// One end.
#[derive(Debug)]
pub(crate) struct Crossing {
    socket: OwnedFd,
    memory: Box<[u8]>,
    is_open: bool,
}

/// What came of looking for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crossed {
    /// One was handled.
    Datagram,
    /// There is none now.
    Nothing,
    /// The other side is gone: there will be none.
    Ended,
}

impl Crossing {
    /// Makes both ends; the second is for another process.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        for end in [&one, &other] {
            // Where it is refused, less may wait.
            let _ = sockopt::set_socket_send_buffer_size_force(end, BUFFER_BYTES);
        }
        Ok((Self::new(one), other))
    }

    /// Takes an end that another process made.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            memory: vec![0; HEADER_LEN + DATAGRAM_BYTES_MAX].into_boxed_slice(),
            is_open: true,
        }
    }

    /// Returns what to wait for, as long as anything may come.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.is_open.then(|| self.socket.as_fd())
    }

    /// Passes a datagram on. Returns whether there was room.
    pub(super) fn pass(&self, path: Path, ecn: u8, datagram: &[u8]) -> bool {
        let header = encode(path, ecn);
        let parts = [IoSlice::new(&header), IoSlice::new(datagram)];
        rustix::io::writev(&self.socket, &parts).is_ok()
    }

    /// Takes one datagram of the other side's.
    pub(super) fn take(&mut self, handle: impl FnOnce(Path, u8, &mut [u8])) -> Crossed {
        match rustix::io::read(&self.socket, &mut *self.memory) {
            Ok(0) => self.end(),
            Ok(length) => {
                if let Some((header, datagram)) = self.memory[..length].split_first_chunk_mut()
                    && let Some((path, ecn)) = decode(header)
                {
                    handle(path, ecn, datagram);
                }
                Crossed::Datagram
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Crossed::Nothing,
            Err(_) => self.end(),
        }
    }
}

impl Crossing {
    fn end(&mut self) -> Crossed {
        self.is_open = false;
        Crossed::Ended
    }
}

fn encode(path: Path, ecn: u8) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    put_ip(&mut header[..17], Some(path.remote.ip()));
    header[17..19].copy_from_slice(&path.remote.port().to_be_bytes());
    put_ip(&mut header[19..36], path.source);
    header[36] = ecn;
    header
}

fn decode(header: &[u8; HEADER_LEN]) -> Option<(Path, u8)> {
    let port = u16::from_be_bytes([header[17], header[18]]);
    let path = Path {
        remote: SocketAddr::new(take_ip(&header[..17])?, port),
        source: take_ip(&header[19..36]),
    };
    Some((path, header[36] & 0b11))
}

fn put_ip(room: &mut [u8], ip: Option<IpAddr>) {
    match ip {
        None => {}
        Some(IpAddr::V4(v4)) => {
            room[0] = 4;
            room[1..5].copy_from_slice(&v4.octets());
        }
        Some(IpAddr::V6(v6)) => {
            room[0] = 6;
            room[1..17].copy_from_slice(&v6.octets());
        }
    }
}

fn take_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes[0] {
        4 => Some(Ipv4Addr::from(*bytes[1..].first_chunk::<4>()?).into()),
        6 => Some(Ipv6Addr::from(*bytes[1..].first_chunk::<16>()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_cross_whole_with_their_path() {
        let (mut one, other) = Crossing::pair().unwrap();
        let other = Crossing::new(other);
        assert_eq!(one.take(|_, _, _| panic!("nothing yet")), Crossed::Nothing);
        let paths = [
            ("192.0.2.1:51820", Some("192.0.2.2")),
            ("[2001:db8::1]:7", None),
        ];
        for (remote, source) in paths {
            let path = Path {
                remote: remote.parse().unwrap(),
                source: source.map(|it| it.parse().unwrap()),
            };
            for datagram in [&[][..], b"hello", &[7; DATAGRAM_BYTES_MAX]] {
                assert!(other.pass(path, 2, datagram));
                let mut seen = None;
                let crossed = one.take(|path, ecn, bytes| seen = Some((path, ecn, bytes.to_vec())));
                assert_eq!(crossed, Crossed::Datagram);
                assert_eq!(seen, Some((path, 2, datagram.to_vec())));
            }
        }
        drop(other);
        assert_eq!(
            one.take(|_, _, _| panic!("nobody is there")),
            Crossed::Ended
        );
    }

    #[test]
    fn a_slow_other_side_is_not_waited_for() {
        let (one, _other) = Crossing::pair().unwrap();
        let path = Path {
            remote: "192.0.2.1:1".parse().unwrap(),
            source: None,
        };
        assert!((0..100_000).any(|_| !one.pass(path, 0, &[0; 1400])));
    }
}

//! `sendmmsg(2)` of runs: datagrams of one size to one place, which the kernel is given as one
//! message and cuts itself (`UDP_SEGMENT`, udp(7)).

#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

/// Runs that one call takes.
pub const RUNS_MAX: usize = 16;

/// Datagrams that lie one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where they go.
    pub to: SocketAddr,
    /// The address that they leave from; `None` leaves the choice to the kernel.
    pub source: Option<IpAddr>,
    /// The two ECN bits.
    pub ecn: u8,
    /// Bytes of each datagram but the last, when there are several.
    pub segment_size: Option<u16>,
    /// All of them.
    pub bytes: &'a [u8],
}

/// Sends the runs in their order, at most [`RUNS_MAX`], and returns how many the kernel took; less
/// than all when it refused one, which it names when it is the first of the next call.
///
/// # Errors
/// The kernel refused the first.
pub fn send_runs(socket: impl AsFd, runs: &[Run<'_>]) -> io::Result<usize> {
    let count = runs.len().min(RUNS_MAX);
    let mut names = [const { Name::EMPTY }; RUNS_MAX];
    let mut controls = [const { Control::EMPTY }; RUNS_MAX];
    let mut slices = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; RUNS_MAX];
    // SAFETY: all zeros are a valid `mmsghdr`: null pointers and lengths of zero.
    let mut messages: [libc::mmsghdr; RUNS_MAX] = unsafe { std::mem::zeroed() };
    for (at, run) in runs[..count].iter().enumerate() {
        names[at].write(run.to);
        controls[at].write(run);
        slices[at].iov_base = run.bytes.as_ptr().cast_mut().cast();
        slices[at].iov_len = run.bytes.len();
        let header = &mut messages[at].msg_hdr;
        header.msg_name = names[at].bytes.as_mut_ptr().cast();
        header.msg_namelen = names[at].length as libc::socklen_t;
        header.msg_iov = &raw mut slices[at];
        header.msg_iovlen = 1;
        if controls[at].length > 0 {
            header.msg_control = controls[at].bytes.as_mut_ptr().cast();
            header.msg_controllen = controls[at].length as _;
        }
    }
    loop {
        // SAFETY: the first `count` messages point to names, slices and controls that live in this
        // function, and through the slices to the runs' bytes, which the kernel only reads.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_fd().as_raw_fd(),
                messages.as_mut_ptr(),
                count as libc::c_uint,
                0,
            )
        };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A `sockaddr_in` or `sockaddr_in6`.
#[repr(C, align(8))]
struct Name {
    bytes: [u8; size_of::<libc::sockaddr_in6>()],
    length: usize,
}

impl Name {
    const EMPTY: Self = Self {
        bytes: [0; size_of::<libc::sockaddr_in6>()],
        length: 0,
    };

    fn write(&mut self, to: SocketAddr) {
        self.bytes[2..4].copy_from_slice(&to.port().to_be_bytes());
        let family = match to {
            SocketAddr::V4(v4) => {
                self.bytes[4..8].copy_from_slice(&v4.ip().octets());
                self.length = size_of::<libc::sockaddr_in>();
                libc::AF_INET
            }
            SocketAddr::V6(v6) => {
                self.bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                self.bytes[8..24].copy_from_slice(&v6.ip().octets());
                self.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                self.length = size_of::<libc::sockaddr_in6>();
                libc::AF_INET6
            }
        };
        self.bytes[..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
    }
}

/// Room for the three control messages that a run may have, each aligned (cmsg(3)).
const CONTROL_BYTES: usize = 24 + 24 + 40;
const CONTROL_HEADER_LEN: usize = size_of::<libc::cmsghdr>();

/// What a run says besides its address and bytes.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL_BYTES],
    length: usize,
}

impl Control {
    const EMPTY: Self = Self {
        bytes: [0; CONTROL_BYTES],
        length: 0,
    };

    fn write(&mut self, run: &Run<'_>) {
        let is_v4 = run.to.is_ipv4();
        if let Some(size) = run.segment_size {
            self.add(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        }
        if run.ecn != 0 {
            let mark = libc::c_int::from(run.ecn).to_ne_bytes();
            match is_v4 {
                true => self.add(libc::IPPROTO_IP, libc::IP_TOS, &mark),
                false => self.add(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &mark),
            }
        }
        match run.source {
            Some(IpAddr::V4(source)) if is_v4 => {
                self.add(libc::IPPROTO_IP, libc::IP_PKTINFO, &in_pktinfo(source));
            }
            Some(IpAddr::V6(source)) if !is_v4 => {
                self.add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &in6_pktinfo(source));
            }
            _ => {}
        }
    }

    /// Adds one message: length, level and type, then the data, padded to the next eight bytes.
    fn add(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let length = CONTROL_HEADER_LEN + data.len();
        let room = &mut self.bytes[self.length..][..length];
        room[..8].copy_from_slice(&length.to_ne_bytes());
        room[8..12].copy_from_slice(&level.to_ne_bytes());
        room[12..16].copy_from_slice(&kind.to_ne_bytes());
        room[16..].copy_from_slice(data);
        self.length += length.next_multiple_of(8);
    }
}

// The messages above are laid out by hand, as 64-bit Linux has them.
const _: () = assert!(CONTROL_HEADER_LEN == 16 && size_of::<usize>() == 8);

/// ip(7): interface, source, and an address that only the kernel fills in.
fn in_pktinfo(source: Ipv4Addr) -> [u8; 12] {
    let mut info = [0; 12];
    info[4..8].copy_from_slice(&source.octets());
    info
}

/// ipv6(7): source, then the interface.
fn in6_pktinfo(source: Ipv6Addr) -> [u8; 20] {
    let mut info = [0; 20];
    info[..16].copy_from_slice(&source.octets());
    info
}

/// Has the kernel give a socket's datagrams one by one, as one does that knows no `UDP_GRO` (before
/// Linux 5.0).
#[cfg(test)]
pub(crate) fn join_nothing(socket: impl AsFd) -> io::Result<()> {
    let off: libc::c_int = 0;
    // SAFETY: the kernel reads an int, which lives through the call (udp(7)).
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw const off).cast(),
            size_of_val(&off) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn runs_arrive_as_the_datagrams_that_they_are_made_of() {
        for (loopback, own) in [
            (IpAddr::from(Ipv4Addr::LOCALHOST), "127.0.0.7"),
            (IpAddr::from(Ipv6Addr::LOCALHOST), "::1"),
        ] {
            let receiver = UdpSocket::bind((loopback, 0)).unwrap();
            let any: IpAddr = match loopback {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let sender = UdpSocket::bind((any, 0)).unwrap();
            let run = Run {
                to: receiver.local_addr().unwrap(),
                source: own.parse().ok(),
                ecn: 2,
                segment_size: Some(3),
                bytes: b"abcdefgh",
            };
            let single = Run {
                source: None,
                ecn: 0,
                segment_size: None,
                bytes: b"last",
                ..run
            };
            assert_eq!(send_runs(&sender, &[run, single]).unwrap(), 2);
            let mut received = [0; 9];
            for (expected, from) in [
                (&b"abc"[..], own),
                (b"def", own),
                (b"gh", own),
                (b"last", &loopback.to_string()),
            ] {
                let (length, sender) = receiver.recv_from(&mut received).unwrap();
                assert_eq!(&received[..length], expected);
                assert_eq!(sender.ip().to_string(), from);
            }
        }
    }

    #[test]
    fn the_first_that_the_kernel_refuses_is_told() {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let good = Run {
            to: sender.local_addr().unwrap(),
            source: None,
            ecn: 0,
            segment_size: None,
            bytes: b"good",
        };
        let bad = Run {
            source: "192.0.2.1".parse().ok(),
            ..good
        };
        assert_eq!(send_runs(&sender, &[good, bad, good]).unwrap(), 1);
        assert!(send_runs(&sender, &[bad, good]).is_err());
    }
}

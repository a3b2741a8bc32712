//! One ICMP echo through the tunnel, sent by the daemon itself.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};

/// ICMP echo request and reply (RFC 792).
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const PAYLOAD: &[u8] = b"mesh ping";
const ECHO_HEADER_BYTES: usize = 8;
/// Without options (RFC 791 3.1).
const IPV4_HEADER_BYTES: usize = 20;

/// Numbers the requests of this process, so that an answer that comes late is not taken for that
/// of the next request.
static SEQUENCE: AtomicU16 = AtomicU16::new(0);

/// What an answer has to repeat.
#[derive(Clone, Copy)]
struct Echo {
    identifier: u16,
    sequence: u16,
}

/// The smallest IPv4 packet that an echo fits into.
pub const PACKET_BYTES_MIN: u16 = (IPV4_HEADER_BYTES + ECHO_HEADER_BYTES + PAYLOAD.len()) as u16;

/// What came of an echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered after this time.
    Answered(Duration),
    /// Nothing came in time.
    Unanswered,
    /// The interface, or the way to the peer as far as it is known, takes no packets of this size.
    TooBig,
}

/// Sends an echo request to an overlay address and waits for its answer, in an IPv4 packet of so
/// many bytes that nobody on the way may cut. Blocks for `timeout` at most.
///
/// # Errors
/// The kernel refuses to send, such as when the policy denies it.
pub fn echo(
    address: IpAddr,
    identifier: u16,
    packet_bytes: u16,
    timeout: Duration,
) -> io::Result<Outcome> {
    let IpAddr::V4(_) = address else {
        return Err(io::Error::other("pings go to IPv4 overlay addresses"));
    };
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    // Not cut here either, and whatever the kernel remembers of the path.
    sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    let started = Instant::now();
    let deadline = started + timeout;
    let echo = Echo {
        identifier,
        sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed),
    };
    match socket.send(&request(echo, packet_bytes)) {
        Ok(_) => {}
        Err(error) if is_too_big(&error) => return Ok(Outcome::TooBig),
        Err(error) => return Err(error),
    }
    let mut memory = vec![0u8; usize::from(u16::MAX)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Outcome::Unanswered);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut memory) {
            Ok(length) if is_reply(&memory[..length], echo) => {
                return Ok(Outcome::Answered(started.elapsed()));
            }
            Ok(_) => {}
            // The packet threads say by ICMP what passes.
            Err(error) if is_too_big(&error) => return Ok(Outcome::TooBig),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(Outcome::Unanswered);
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_too_big(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error())
}

fn request(echo: Echo, packet_bytes: u16) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0];
    message.extend(echo.identifier.to_be_bytes());
    message.extend(echo.sequence.to_be_bytes());
    message.extend(PAYLOAD);
    let wanted = usize::from(packet_bytes).saturating_sub(IPV4_HEADER_BYTES);
    message.resize(wanted.max(message.len()), 0);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A raw socket is given the IPv4 header too.
fn is_reply(packet: &[u8], echo: Echo) -> bool {
    let Some(first) = packet.first() else {
        return false;
    };
    let header = usize::from(first & 0x0f) * 4;
    let Some(icmp) = packet.get(header..) else {
        return false;
    };
    icmp.len() >= 8
        && icmp[0] == ECHO_REPLY
        && icmp[4..6] == echo.identifier.to_be_bytes()
        && icmp[6..8] == echo.sequence.to_be_bytes()
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to sixteen bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(identifier: u16, sequence: u16) -> Echo {
        Echo {
            identifier,
            sequence,
        }
    }

    #[test]
    fn a_request_sums_to_nothing() {
        for packet_bytes in [0, PACKET_BYTES_MIN, 1419, 1420] {
            let message = request(echo(77, 3), packet_bytes);
            assert_eq!(checksum(&message), 0);
            let length = usize::from(packet_bytes.max(PACKET_BYTES_MIN));
            assert_eq!(message.len() + IPV4_HEADER_BYTES, length);
        }
    }

    #[test]
    fn only_the_answer_to_this_request_counts() {
        let mut packet = vec![0x45; 1];
        packet.resize(20, 0);
        packet.extend([ECHO_REPLY, 0, 0, 0, 0, 77, 0, 3]);
        assert!(is_reply(&packet, echo(77, 3)));
        assert!(!is_reply(&packet, echo(78, 3)));
        assert!(!is_reply(&packet, echo(77, 4)), "the one before, late");
        assert!(!is_reply(&packet[..25], echo(77, 3)));
        assert!(!is_reply(&[], echo(77, 3)));
    }
}

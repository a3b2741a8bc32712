//! One ICMP echo through the tunnel, sent by the daemon itself.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// ICMP echo request and reply (RFC 792).
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const PAYLOAD: &[u8] = b"mesh ping";

/// Sends an echo request to an overlay address and waits for its answer; `None`: none in time.
/// Blocks for `timeout` at most.
///
/// # Errors
/// The kernel refuses to send, such as when the policy denies it.
pub fn echo(address: IpAddr, identifier: u16, timeout: Duration) -> io::Result<Option<Duration>> {
    let IpAddr::V4(_) = address else {
        return Err(io::Error::other("pings go to IPv4 overlay addresses"));
    };
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    let started = Instant::now();
    let deadline = started + timeout;
    socket.send(&request(identifier))?;
    let mut memory = [0u8; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut memory) {
            Ok(length) if is_reply(&memory[..length], identifier) => {
                return Ok(Some(started.elapsed()));
            }
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

fn request(identifier: u16) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(1u16.to_be_bytes());
    message.extend(PAYLOAD);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A raw socket is given the IPv4 header too.
fn is_reply(packet: &[u8], identifier: u16) -> bool {
    let Some(first) = packet.first() else {
        return false;
    };
    let header = usize::from(first & 0x0f) * 4;
    let Some(icmp) = packet.get(header..) else {
        return false;
    };
    icmp.len() >= 8 && icmp[0] == ECHO_REPLY && icmp[4..6] == identifier.to_be_bytes()
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

    #[test]
    fn a_request_sums_to_nothing() {
        let message = request(77);
        assert_eq!(checksum(&message), 0);
    }

    #[test]
    fn only_replies_with_our_identifier_count() {
        let mut packet = vec![0x45; 1];
        packet.resize(20, 0);
        packet.extend([ECHO_REPLY, 0, 0, 0, 0, 77, 0, 1]);
        assert!(is_reply(&packet, 77));
        assert!(!is_reply(&packet, 78));
        assert!(!is_reply(&packet[..25], 77));
        assert!(!is_reply(&[], 77));
    }
}

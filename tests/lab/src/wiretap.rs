//! What passes through a network's switch: frames, recorded as they are.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use crate::error::{Doing, LabError};
use crate::network::Network;

/// Every protocol; linux/if_ether.h, in network byte order as `packet(7)` wants it.
const ETH_P_ALL: u32 = (3u16.to_be()) as u32;
/// Larger than any frame of the lab.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// Records from when it is made; the kernel keeps what has not been read yet.
#[derive(Debug)]
pub struct Wiretap {
    socket: OwnedFd,
}

/// A UDP datagram over IPv4 that was overheard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overheard {
    /// From where, as it claims.
    pub source: SocketAddrV4,
    /// Where to.
    pub destination: SocketAddrV4,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Wiretap {
    /// Starts to listen at a network's switch.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn start(network: &Network) -> Result<Self, LabError> {
        let everything = NonZeroU32::new(ETH_P_ALL).map(Protocol::from_raw);
        let open = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            socket_with(AddressFamily::PACKET, SocketType::RAW, flags, everything)
        };
        let socket = network
            .switch()
            .inside(open)?
            .doing("listen to all frames")?;
        Ok(Self { socket })
    }

    /// The UDP datagrams over IPv4 since the last look, each once.
    ///
    /// # Errors
    ///
    /// When the kernel gives no frames.
    pub fn datagrams(&self) -> Result<Vec<Overheard>, LabError> {
        let mut found: Vec<Overheard> = Vec::new();
        let mut frame = vec![0; FRAME_BYTES_MAX];
        loop {
            let length = match recv(&self.socket, &mut frame[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(found),
                Err(error) => return Err(error).doing("read overheard frames"),
            };
            // A frame passes two ports and the bridge itself: it is heard several times.
            let datagram = parse(&frame[..length]);
            found.extend(datagram.filter(|new| !found.contains(new)));
        }
    }
}

/// Reads a datagram out of an Ethernet frame.
///
/// ```text
/// offset      0     6     12      14 IPv4   +9     +12     +16     +4*IHL: UDP     +8
/// field   to MAC from MAC type  IHL …   protocol source  dest.   from, to port   payload
/// ```
fn parse(frame: &[u8]) -> Option<Overheard> {
    const IPV4: [u8; 2] = [0x08, 0x00];
    const UDP: u8 = 17;
    let packet = frame.get(14..).filter(|_| frame[12..14] == IPV4)?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let address = |at: usize| {
        Some(Ipv4Addr::from(
            <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?,
        ))
    };
    let datagram = packet
        .get(header..total)
        .filter(|_| packet.get(9) == Some(&UDP))?;
    let port = |at: usize| {
        Some(u16::from_be_bytes(
            datagram.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    Some(Overheard {
        source: SocketAddrV4::new(address(12)?, port(0)?),
        destination: SocketAddrV4::new(address(16)?, port(2)?),
        payload: datagram.get(8..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(protocol: u8) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        frame.extend([0x45, 0, 0, 31, 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x01, 0x00, 0x02, 0x00, 0, 11, 0, 0]);
        frame.extend(b"abc");
        frame.extend(b"padding");
        frame
    }

    #[test]
    fn a_datagram_is_read_without_the_padding_of_its_frame() {
        let expected = Overheard {
            source: "10.0.0.1:256".parse().unwrap(),
            destination: "10.0.0.2:512".parse().unwrap(),
            payload: b"abc".to_vec(),
        };
        assert_eq!(parse(&frame(17)), Some(expected));
    }

    #[test]
    fn other_protocols_and_stumps_are_no_datagrams() {
        assert_eq!(parse(&frame(6)), None);
        let whole = frame(17);
        for length in 0..whole.len() - b"padding".len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
    }
}

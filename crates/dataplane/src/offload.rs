//! What goes with a packet to and from a TUN device that can do more than one at a time: the header
//! of virtio's network device, and the checksum that the kernel left to us.

use crate::checksum::{self, Sum};
use crate::drops::DropReason;

/// The checksum is to be completed (virtio 1.3, 5.1.6: `VIRTIO_NET_HDR_F_NEEDS_CSUM`).
const NEEDS_CHECKSUM: u8 = 1;
/// Segments were marked with ECN's bits (`VIRTIO_NET_HDR_GSO_ECN`).
const GSO_ECN: u8 = 0x80;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Where UDP has its checksum.
const UDP_CHECKSUM: u16 = 6;

/// The header of a TUN device's packets (virtio 1.3, 5.1.6). All zero: a plain packet whose
/// checksums are whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// Bit 0: the checksum is to be completed from `csum_start`.
    pub flags: u8,
    /// 0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80 added when ECN bits are set.
    pub gso_type: u8,
    /// Bytes of all headers; a hint that nothing here relies on.
    pub header_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where the checksum starts.
    pub csum_start: u16,
    /// Where it is stored, behind `csum_start`.
    pub csum_offset: u16,
}

/// What packets a super-packet stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segmentation {
    TcpV4,
    TcpV6,
    Udp,
}

impl VirtioHeader {
    /// Bytes in front of each packet.
    pub const LEN: usize = 10;

    /// Reads it, in the machine's order of bytes as TUN devices have it.
    pub const fn decode(bytes: [u8; Self::LEN]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h] = bytes;
        Self {
            flags,
            gso_type,
            header_len: u16::from_ne_bytes([a, b]),
            gso_size: u16::from_ne_bytes([c, d]),
            csum_start: u16::from_ne_bytes([e, f]),
            csum_offset: u16::from_ne_bytes([g, h]),
        }
    }

    /// Writes it.
    pub const fn encode(self) -> [u8; Self::LEN] {
        let [a, b] = self.header_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// Returns the header of a super-packet whose headers end at `header_len` and whose checksum
    /// field holds the sum of its pseudo header.
    pub(crate) const fn of_segments(
        segmentation: Segmentation,
        header_len: u16,
        upper_start: u16,
        gso_size: u16,
    ) -> Self {
        let (gso_type, csum_offset) = match segmentation {
            Segmentation::TcpV4 => (GSO_TCPV4, 16),
            Segmentation::TcpV6 => (GSO_TCPV6, 16),
            Segmentation::Udp => (GSO_UDP, UDP_CHECKSUM),
        };
        Self {
            flags: NEEDS_CHECKSUM,
            gso_type,
            header_len,
            gso_size,
            csum_start: upper_start,
            csum_offset,
        }
    }

    /// Returns what packets this one stands for; `None`: itself.
    pub(crate) const fn segmentation(self) -> Result<Option<Segmentation>, DropReason> {
        match self.gso_type & !GSO_ECN {
            GSO_NONE => Ok(None),
            GSO_TCPV4 => Ok(Some(Segmentation::TcpV4)),
            GSO_TCPV6 => Ok(Some(Segmentation::TcpV6)),
            GSO_UDP => Ok(Some(Segmentation::Udp)),
            _ => Err(DropReason::OffloadUnsupported),
        }
    }

    /// Completes the checksum that the kernel began: its field holds the sum of the pseudo header.
    pub(crate) fn complete_checksum(self, packet: &mut [u8]) -> Result<(), DropReason> {
        if self.flags & NEEDS_CHECKSUM == 0 {
            return Ok(());
        }
        let start = usize::from(self.csum_start);
        let covered = packet
            .get_mut(start..)
            .ok_or(DropReason::OffloadUnsupported)?;
        let offset = usize::from(self.csum_offset);
        let sum = Sum::default().add(covered).finish();
        let field = covered
            .get_mut(offset..)
            .and_then(|rest| rest.first_chunk_mut::<2>())
            .ok_or(DropReason::OffloadUnsupported)?;
        // No other protocol has its checksum there, and for none does it hurt.
        *field = match self.csum_offset {
            UDP_CHECKSUM => checksum::udp(sum),
            _ => sum,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = VirtioHeader {
            flags: 1,
            gso_type: 0x81,
            header_len: 52,
            gso_size: 1368,
            csum_start: 20,
            csum_offset: 16,
        };
        assert_eq!(VirtioHeader::decode(header.encode()), header);
        assert_eq!(header.segmentation(), Ok(Some(Segmentation::TcpV4)));
        assert_eq!(VirtioHeader::default().encode(), [0; 10]);
    }

    #[test]
    fn a_checksum_outside_the_packet_is_refused() {
        for (csum_start, csum_offset) in [(20, 7), (24, 4), (30, 0), (29, 0)] {
            let header = VirtioHeader {
                flags: 1,
                csum_start,
                csum_offset,
                ..VirtioHeader::default()
            };
            let mut packet = [0; 28];
            assert!(header.complete_checksum(&mut packet).is_err());
        }
    }

    #[test]
    fn a_udp_checksum_is_never_left_out() {
        let header = VirtioHeader {
            flags: 1,
            csum_offset: 6,
            ..VirtioHeader::default()
        };
        let mut datagram = [0xff, 0xff, 0, 0, 0, 0, 0, 0];
        header.complete_checksum(&mut datagram).unwrap();
        assert_eq!(datagram[6..], [0xff, 0xff]);
    }
}

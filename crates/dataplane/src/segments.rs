//! A super-packet of the kernel, cut into the packets that it stands for, each with headers and
//! checksums of its own. The payload is not copied.

use model::rule::ip_protocol::{TCP, UDP};

use crate::checksum::{self, Sum};
use crate::drops::DropReason;
use crate::offload::{Segmentation, VirtioHeader};
use crate::packet::{Fragment, Headers, Upper};

/// Room for the longest IPv6 header with options, and the longest TCP header.
const HEADERS_MAX: usize = 256;
const UDP_HEADER_LEN: usize = 8;

const FIN: u8 = 0x01; // RFC 9293 3.1
const PSH: u8 = 0x08;
const CWR: u8 = 0x80; // RFC 3168 6.1

/// The packets, one after the other.
pub(crate) struct Segments<'a> {
    /// Those of the super-packet, changed for each segment.
    headers: [u8; HEADERS_MAX],
    headers_len: usize,
    upper_start: usize,
    is_tcp: bool,
    /// Payload bytes of each segment but the last.
    size: usize,
    payload: &'a [u8],
    /// Payload bytes that went with the segments before.
    done: usize,
    is_over: bool,
    addresses: Sum,
    first_id: u16,
    first_sequence: u32,
    flags: u8,
}

impl<'a> Segments<'a> {
    /// Begins with a super-packet whose headers were read.
    ///
    /// # Errors
    /// The kernel's header says what the packet is not.
    pub(crate) fn new(
        offload: VirtioHeader,
        segmentation: Segmentation,
        headers: &Headers,
        packet: &'a [u8],
    ) -> Result<Self, DropReason> {
        let upper = &packet[headers.upper_start..headers.length];
        let is_v4 = headers.source.is_ipv4();
        let (is_tcp, upper_len) = match (segmentation, headers.upper) {
            (Segmentation::TcpV4, Upper::Tcp { .. }) if is_v4 => (true, tcp_header_len(upper)),
            (Segmentation::TcpV6, Upper::Tcp { .. }) if !is_v4 => (true, tcp_header_len(upper)),
            (Segmentation::Udp, Upper::Udp { .. }) => (false, UDP_HEADER_LEN),
            _ => return Err(DropReason::OffloadUnsupported),
        };
        let size = usize::from(offload.gso_size);
        Self::cut(headers, packet, is_tcp, upper_len, size)
    }

    /// Begins with a plain TCP segment whose headers were read and that is to leave as packets of
    /// at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Its headers take too much of that.
    pub(crate) fn of_segment(
        headers: &Headers,
        packet: &'a [u8],
        bytes_max: usize,
    ) -> Result<Self, DropReason> {
        let upper_len = tcp_header_len(&packet[headers.upper_start..headers.length]);
        let size = bytes_max.saturating_sub(headers.upper_start + upper_len);
        Self::cut(headers, packet, true, upper_len, size)
    }

    fn cut(
        headers: &Headers,
        packet: &'a [u8],
        is_tcp: bool,
        upper_len: usize,
        size: usize,
    ) -> Result<Self, DropReason> {
        let upper = &packet[headers.upper_start..headers.length];
        let headers_len = headers.upper_start + upper_len;
        if size == 0 || headers.fragment != Fragment::Whole || headers_len > HEADERS_MAX {
            return Err(DropReason::OffloadUnsupported);
        }
        let mut copied = [0; HEADERS_MAX];
        copied[..headers_len].copy_from_slice(&packet[..headers_len]);
        let ip_protocol = if is_tcp { TCP } else { UDP };
        let (first_id, first_sequence, flags) = match is_tcp {
            true => (id(packet), sequence(upper), upper[13]),
            false => (id(packet), 0, 0),
        };
        Ok(Self {
            headers: copied,
            headers_len,
            upper_start: headers.upper_start,
            is_tcp,
            size,
            payload: &packet[headers_len..headers.length],
            done: 0,
            is_over: false,
            addresses: Sum::default().add_pseudo_header(
                headers.source,
                headers.destination,
                ip_protocol,
                0,
            ),
            first_id,
            first_sequence,
            flags,
        })
    }

    /// Makes the packets no longer than so many bytes; to be called before the first.
    pub(crate) fn shorten(&mut self, bytes_max: usize) {
        self.size = self
            .size
            .min(bytes_max.saturating_sub(self.headers_len).max(1));
    }

    /// Returns how many packets the super-packet stands for; at least one.
    pub(crate) fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size).max(1)
    }

    /// Returns the bytes of the longest of them.
    pub(crate) fn longest(&self) -> usize {
        self.headers_len + self.size.min(self.payload.len())
    }

    /// Returns the bytes of all of them.
    pub(crate) fn total_bytes(&self) -> usize {
        self.headers_len * self.count() + self.payload.len()
    }

    /// Returns the next packet: its headers and its payload.
    pub(crate) fn next(&mut self) -> Option<(&[u8], &'a [u8])> {
        if self.is_over {
            return None;
        }
        let start = self.done;
        let end = self.payload.len().min(start + self.size);
        let payload = &self.payload[start..end];
        self.done = end;
        self.is_over = end == self.payload.len();
        self.write_ip(payload.len(), start / self.size);
        self.write_upper(payload, start);
        Some((&self.headers[..self.headers_len], payload))
    }

    fn write_ip(&mut self, payload_len: usize, number: usize) {
        let total = self.headers_len + payload_len;
        let ip = &mut self.headers[..self.upper_start];
        if ip[0] >> 4 == 6 {
            ip[4..6].copy_from_slice(&be(total - 40));
            return;
        }
        let id = self.first_id.wrapping_add(number as u16);
        ip[2..4].copy_from_slice(&be(total));
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        ip[10..12].fill(0);
        let checksum = Sum::default().add(ip).finish();
        ip[10..12].copy_from_slice(&checksum);
    }

    fn write_upper(&mut self, payload: &[u8], start: usize) {
        let upper = &mut self.headers[self.upper_start..self.headers_len];
        let length = upper.len() + payload.len();
        if self.is_tcp {
            let sequence = self.first_sequence.wrapping_add(start as u32);
            upper[4..8].copy_from_slice(&sequence.to_be_bytes());
            let mut flags = self.flags;
            if !self.is_over {
                flags &= !(FIN | PSH);
            }
            if start > 0 {
                flags &= !CWR;
            }
            upper[13] = flags;
        } else {
            upper[4..6].copy_from_slice(&be(length));
        }
        let field = if self.is_tcp { 16..18 } else { 6..8 };
        upper[field.clone()].fill(0);
        // The headers are of even length, so that the payload goes on where they end.
        let sum = self.addresses.add(&be(length)).add(upper).add(payload);
        let checksum = match self.is_tcp {
            true => sum.finish(),
            false => checksum::udp(sum.finish()),
        };
        upper[field].copy_from_slice(&checksum);
    }
}

/// Returns how many packets, and bytes in all of them, a packet stands for as the kernel gave it.
pub(crate) fn stands_for(offload: VirtioHeader, packet: &[u8]) -> (usize, usize) {
    let as_it_is = (1, packet.len());
    let (Ok(Some(segmentation)), Ok(headers)) = (offload.segmentation(), Headers::parse(packet))
    else {
        return as_it_is;
    };
    Segments::new(offload, segmentation, &headers, packet)
        .map_or(as_it_is, |it| (it.count(), it.total_bytes()))
}

fn be(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("segments are shorter than their super-packet")
        .to_be_bytes()
}

fn tcp_header_len(upper: &[u8]) -> usize {
    usize::from(upper[12] >> 4) * 4
}

fn id(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[4], packet[5]])
}

fn sequence(upper: &[u8]) -> u32 {
    u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]])
}

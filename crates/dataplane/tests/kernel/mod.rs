//! What a kernel does at its side of a TUN device. Going out it has something to send, and either
//! cuts it into packets itself or leaves that, and the checksums, to the device. Coming in it cuts
//! again what it is given joined. Written from virtio 1.3, 5.1.6, and from what Linux does in
//! `tcp_gso_segment`, `__udp_gso_segment` and `inet_gso_segment`; no line of it is the crate's.
#![allow(dead_code)] // Every test file uses its own part.

use std::net::IpAddr;

use dataplane::VirtioHeader;

pub(crate) mod cut;
pub(crate) mod generate;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What goes out at once, and the headers that it gets.
#[derive(Clone, Debug)]
pub(crate) struct Sending {
    pub(crate) addresses: (IpAddr, IpAddr),
    pub(crate) ports: (u16, u16),
    pub(crate) look: Look,
    pub(crate) tcp: Option<Tcp>,
    pub(crate) data: Vec<u8>,
    pub(crate) form: Form,
}

/// What else an IP header says.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Class of service and ECN's bits.
    pub(crate) class: u8,
    /// Of IPv6.
    pub(crate) flow_label: u32,
    pub(crate) hops: u8,
    /// Of IPv4.
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
    /// IPv4's options, or extension headers of IPv6, eight bytes each.
    pub(crate) options: usize,
}

/// What a TCP header says besides.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// A whole number of four bytes.
    pub(crate) options: Vec<u8>,
}

/// How it is given to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One packet with checksums.
    Whole,
    /// One packet whose sender put another upper checksum.
    Damaged,
    /// One packet; the checksum is left to the device.
    ChecksumLeft,
    /// One super-packet that stands for packets with so much payload.
    Super(u16),
    /// Pieces with so much of the whole, in units of eight bytes.
    Fragments(u16),
}

impl Sending {
    /// Returns the packets as a kernel makes them for a device without offloads.
    pub(crate) fn cut_by_kernel(&self) -> Vec<Vec<u8>> {
        match self.form {
            Form::Whole | Form::ChecksumLeft => vec![self.segment(0, self.data.len())],
            Form::Damaged => vec![self.damaged()],
            Form::Fragments(units) => self.fragments(usize::from(units) * 8),
            Form::Super(size) => {
                let size = usize::from(size);
                let starts = (0..self.data.len().max(1)).step_by(size);
                starts
                    .map(|start| self.segment(start, self.data.len().min(start + size)))
                    .collect()
            }
        }
    }

    /// Returns the packets as a kernel gives them to a device with offloads.
    pub(crate) fn left_to_device(&self) -> Vec<(VirtioHeader, Vec<u8>)> {
        match self.form {
            Form::ChecksumLeft => vec![self.unfinished(0, 0)],
            Form::Super(size) => vec![self.unfinished(self.gso_type(), size)],
            _ => {
                let packets = self.cut_by_kernel().into_iter();
                packets
                    .map(|packet| (VirtioHeader::default(), packet))
                    .collect()
            }
        }
    }

    fn gso_type(&self) -> u8 {
        let base = match (&self.tcp, self.addresses.0) {
            (None, _) => GSO_UDP,
            (Some(_), IpAddr::V4(_)) => GSO_TCPV4,
            (Some(_), IpAddr::V6(_)) => GSO_TCPV6,
        };
        let is_marked = self.tcp.as_ref().is_some_and(|tcp| tcp.flags & CWR != 0);
        base | if is_marked { GSO_ECN } else { 0 }
    }

    fn unfinished(&self, gso_type: u8, gso_size: u16) -> (VirtioHeader, Vec<u8>) {
        let mut upper = self.upper(0, self.data.len());
        let field = self.checksum_at();
        upper[field..field + 2].fill(0);
        let begun = sum(&self.pseudo_header(upper.len()), 0);
        upper[field..field + 2].copy_from_slice(&begun.to_be_bytes());
        let ip = self.ip_header(upper.len(), 0);
        let header = VirtioHeader {
            flags: NEEDS_CHECKSUM,
            gso_type,
            header_len: (ip.len() + self.upper_header_len()) as u16,
            gso_size,
            csum_start: ip.len() as u16,
            csum_offset: field as u16,
        };
        (header, [ip, upper].concat())
    }

    /// Returns the packet of a part of the data.
    fn segment(&self, start: usize, end: usize) -> Vec<u8> {
        let upper = self.upper(start, end);
        let number = match self.form {
            Form::Super(size) => start / usize::from(size),
            _ => 0,
        };
        [self.ip_header(upper.len(), number), upper].concat()
    }

    fn damaged(&self) -> Vec<u8> {
        let mut packet = self.segment(0, self.data.len());
        let upper_len = self.upper_header_len() + self.data.len();
        let field = packet.len() - upper_len + self.checksum_at();
        packet[field + 1] ^= 1;
        packet
    }

    fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        let upper = self.upper(0, self.data.len());
        let count = upper.len().div_ceil(size);
        let pieces = upper.chunks(size).enumerate();
        pieces
            .map(|(number, piece)| {
                let has_more = number + 1 < count;
                self.fragment(number * size, has_more, piece)
            })
            .collect()
    }

    fn fragment(&self, offset: usize, has_more: bool, piece: &[u8]) -> Vec<u8> {
        let units = (offset / 8) as u16;
        let whole = self.ip_header(piece.len(), 0);
        if self.addresses.0.is_ipv4() {
            let mut header = whole;
            let field = units | if has_more { 0x2000 } else { 0 };
            header[6..8].copy_from_slice(&field.to_be_bytes());
            header[10..12].fill(0);
            let checksum = !sum(&header, 0);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            return [&header[..], piece].concat();
        }
        let mut header = self.ip_header(8 + piece.len(), 0);
        let last_next = match self.look.options {
            0 => 6,
            _ => header.len() - 8,
        };
        let ip_protocol = std::mem::replace(&mut header[last_next], 44);
        let field = units << 3 | u16::from(has_more);
        let mut extension = vec![ip_protocol, 0];
        extension.extend(field.to_be_bytes());
        extension.extend(u32::from(self.look.id).to_be_bytes());
        [&header[..], &extension, piece].concat()
    }

    fn ip_header(&self, upper_len: usize, number: usize) -> Vec<u8> {
        let look = &self.look;
        let ip_protocol = if self.tcp.is_some() { TCP } else { UDP };
        match self.addresses {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = 20 + look.options * 8;
                let total = (header_len + upper_len) as u16;
                let mut header = vec![0x40 | (header_len / 4) as u8, look.class];
                header.extend(total.to_be_bytes());
                header.extend(look.id.wrapping_add(number as u16).to_be_bytes());
                header.extend([if look.dont_fragment { 0x40 } else { 0 }, 0]);
                header.extend([look.hops, ip_protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                // A router alert (RFC 2113), and four times nothing.
                for _ in 0..look.options {
                    header.extend([148, 4, 0, 0, 1, 1, 1, 1]);
                }
                let checksum = !sum(&header, 0);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let first = 6 << 28 | u32::from(look.class) << 20 | look.flow_label & 0x000f_ffff;
                let mut header = first.to_be_bytes().to_vec();
                header.extend(((look.options * 8 + upper_len) as u16).to_be_bytes());
                header.extend([ip_protocol, look.hops]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let mut next_at = 6;
                for _ in 0..look.options {
                    // Destination options of which all is padding (RFC 8200 4.2 and 4.6).
                    header[next_at] = 60;
                    next_at = header.len();
                    header.extend([ip_protocol, 0, 1, 4, 0, 0, 0, 0]);
                }
                header
            }
            _ => panic!("two families"),
        }
    }

    fn upper_header_len(&self) -> usize {
        self.tcp.as_ref().map_or(8, |tcp| 20 + tcp.options.len())
    }

    fn checksum_at(&self) -> usize {
        if self.tcp.is_some() { 16 } else { 6 }
    }

    fn upper(&self, start: usize, end: usize) -> Vec<u8> {
        let mut upper = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        match &self.tcp {
            Some(tcp) => {
                let sequence = tcp.sequence.wrapping_add(start as u32);
                upper.extend(sequence.to_be_bytes());
                upper.extend(tcp.acknowledgement.to_be_bytes());
                upper.push((self.upper_header_len() * 4) as u8);
                upper.push(self.flags(tcp.flags, start, end));
                upper.extend(tcp.window.to_be_bytes());
                upper.extend([0, 0]);
                upper.extend(tcp.urgent.to_be_bytes());
                upper.extend(&tcp.options);
            }
            None => {
                upper.extend(((8 + end - start) as u16).to_be_bytes());
                upper.extend([0, 0]);
            }
        }
        upper.extend(&self.data[start..end]);
        let field = self.checksum_at();
        let checksum = match !sum(&upper, sum(&self.pseudo_header(upper.len()), 0)) {
            0 if self.tcp.is_none() => 0xffff,
            checksum => checksum,
        };
        upper[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        upper
    }

    /// The last segment ends the connection and pushes; the first says that the window was reduced.
    fn flags(&self, flags: u8, start: usize, end: usize) -> u8 {
        let later = if start > 0 { CWR } else { 0 };
        let earlier = if end < self.data.len() { FIN | PSH } else { 0 };
        flags & !(later | earlier)
    }

    fn pseudo_header(&self, upper_len: usize) -> Vec<u8> {
        let octets = |address| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let ip_protocol = if self.tcp.is_some() { TCP } else { UDP };
        let mut header = octets(self.addresses.0);
        header.extend(octets(self.addresses.1));
        header.extend((upper_len as u32).to_be_bytes());
        header.extend([0, 0, 0, ip_protocol]);
        header
    }
}

/// RFC 1071, word by word: not inverted.
pub(crate) fn sum(bytes: &[u8], begun: u16) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum = u32::from(begun) + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

//! Packets that came out of the tunnel, joined where they lie: neighbours of one flow reach the kernel by
//! one `writev`, as one super-packet.

use std::io::IoSlice;

use crate::checksum::{Sum, write_ip};
use crate::cut::VIRTIO_HEADER_LEN;

/// Flows whose last packet may still grow.
const OPEN_MAX: usize = 4;
/// Packets in one super-packet, which may have 64 KiB.
const JOINED_MAX: usize = 64;
const BYTES_MAX: usize = 65535;
const NONE: u32 = u32::MAX;

const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const TCP: u8 = 6; // IANA protocol numbers
const UDP: u8 = 17;
const ACK: u8 = 0x10; // RFC 9293 3.1
const PSH: u8 = 0x08;

/// Packets in the order in which they are written.
#[derive(Default)]
pub(crate) struct Joiner {
    items: Vec<Item>,
    pieces: Vec<Piece>,
    open: [Option<u32>; OPEN_MAX],
    next_open: usize,
}

/// One packet, or several that are written as one.
struct Item {
    start: usize,
    length: usize,
    kind: Kind,
    /// Of all that is compared with what may follow: addresses, ports, and what TCP says.
    head: [u8; 60],
    headers_len: usize,
    size: usize,
    payload: usize,
    count: usize,
    is_pushed: bool,
    first_piece: u32,
    last_piece: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Other,
}

#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    length: usize,
    next: u32,
}

impl Joiner {
    /// Takes a packet that lies at `start` of the memory that it is written from.
    #[inline]
    pub(crate) fn add(&mut self, start: usize, packet: &[u8]) {
        let (kind, headers_len) = shape(packet);
        if kind != Kind::Other {
            let same_flow = |open: &Option<u32>| {
                open.is_some_and(|at| self.items[at as usize].is_same_flow(kind, packet))
            };
            if let Some(place) = self.open.iter().position(same_flow) {
                let at = self.open[place].expect("it was found there");
                let item = &mut self.items[at as usize];
                if item.continues_with(packet, headers_len) {
                    let piece = self.pieces.len() as u32;
                    let length = packet.len() - headers_len;
                    self.pieces.push(Piece {
                        start: start + headers_len,
                        length,
                        next: NONE,
                    });
                    match item.last_piece {
                        NONE => item.first_piece = piece,
                        last => self.pieces[last as usize].next = piece,
                    }
                    item.last_piece = piece;
                    item.payload += length;
                    item.count += 1;
                    item.is_pushed |= kind == Kind::Tcp && packet[IP_LEN + 13] & PSH != 0;
                    if item.is_pushed || length < item.size {
                        self.open[place] = None;
                    }
                    return;
                }
                self.open[place] = None;
            }
        }
        self.begin(start, packet, kind, headers_len);
    }

    #[inline]
    fn begin(&mut self, start: usize, packet: &[u8], kind: Kind, headers_len: usize) {
        let mut head = [0; 60];
        let known = headers_len.min(head.len());
        head[..known].copy_from_slice(&packet[..known]);
        let payload = packet.len() - headers_len;
        let may_grow = match kind {
            Kind::Tcp => packet[IP_LEN + 13] == ACK && payload > 0,
            Kind::Udp => payload > 0,
            Kind::Other => false,
        };
        self.items.push(Item {
            start,
            length: packet.len(),
            kind,
            head,
            headers_len,
            size: payload,
            payload,
            count: 1,
            is_pushed: false,
            first_piece: NONE,
            last_piece: NONE,
        });
        if may_grow {
            self.open[self.next_open] = Some(self.items.len() as u32 - 1);
            self.next_open = (self.next_open + 1) % OPEN_MAX;
        }
    }

    /// Writes everything: each packet as slices, the device's header first.
    pub(crate) fn write_all(&mut self, memory: &mut [u8], mut write: impl FnMut(&[IoSlice<'_>])) {
        for item in &self.items {
            let header = item.finish(&mut memory[item.start..item.start + item.length]);
            let mut slices = [IoSlice::new(&header); JOINED_MAX + 1];
            slices[1] = IoSlice::new(&memory[item.start..item.start + item.length]);
            let mut count = 2;
            let mut next = item.first_piece;
            while next != NONE {
                let piece = self.pieces[next as usize];
                slices[count] = IoSlice::new(&memory[piece.start..piece.start + piece.length]);
                count += 1;
                next = piece.next;
            }
            write(&slices[..count]);
        }
        self.items.clear();
        self.pieces.clear();
        self.open = [None; OPEN_MAX];
    }
}

impl Item {
    #[inline]
    fn is_same_flow(&self, kind: Kind, packet: &[u8]) -> bool {
        self.kind == kind && self.head[12..24] == packet[12..24]
    }

    /// Whether the kernel, cutting the joined packet, would make this one of what comes next.
    #[inline]
    fn continues_with(&self, packet: &[u8], headers_len: usize) -> bool {
        let length = packet.len() - headers_len;
        let fits = (1..=self.size).contains(&length)
            && self.count < JOINED_MAX
            && self.headers_len + self.payload + length <= BYTES_MAX;
        let head = &self.head[..self.headers_len];
        let same_ip = head[1] == packet[1] && head[6..9] == packet[6..9];
        let same_tcp = || {
            let (before, next) = (&head[IP_LEN..], &packet[IP_LEN..headers_len]);
            let sequence = |tcp: &[u8]| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            before.len() == next.len()
                && sequence(next) == sequence(before).wrapping_add(self.payload as u32)
                && next[13] & !PSH == ACK
                && before[8..13] == next[8..13]
                && before[14..16] == next[14..16]
                && before[20..] == next[20..]
        };
        fits && same_ip && (self.kind == Kind::Udp || same_tcp())
    }

    /// Makes the first packet's headers those of all, the checksum left to the kernel, and returns what
    /// goes in front of it.
    #[inline]
    fn finish(&self, packet: &mut [u8]) -> [u8; VIRTIO_HEADER_LEN] {
        if self.kind == Kind::Other {
            return [0; VIRTIO_HEADER_LEN];
        }
        let length = self.headers_len + self.payload;
        let (ip, upper) = packet.split_at_mut(IP_LEN);
        let upper_len = length - IP_LEN;
        let pseudo = Sum::default().add_pseudo_header(ip, upper_len).partial();
        let (gso_type, offset) = match self.kind {
            Kind::Tcp => (1, 16),
            _ => (5, 6),
        };
        if self.count > 1 {
            ip[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            write_ip(ip);
            match self.kind {
                Kind::Tcp if self.is_pushed => upper[13] |= PSH,
                Kind::Tcp => {}
                _ => upper[4..6].copy_from_slice(&(upper_len as u16).to_be_bytes()),
            }
        }
        upper[offset..offset + 2].copy_from_slice(&pseudo);
        let mut header = [0; VIRTIO_HEADER_LEN];
        header[0] = 1;
        if self.count > 1 {
            header[1] = gso_type;
            header[2..4].copy_from_slice(&(self.headers_len as u16).to_ne_bytes());
            header[4..6].copy_from_slice(&(self.size as u16).to_ne_bytes());
        }
        header[6..8].copy_from_slice(&(IP_LEN as u16).to_ne_bytes());
        header[8..10].copy_from_slice(&(offset as u16).to_ne_bytes());
        header
    }
}

/// What a packet is, and how long its headers are; what is not plain IPv4 is left as it is.
#[inline]
fn shape(packet: &[u8]) -> (Kind, usize) {
    let is_plain = packet.len() >= IP_LEN + UDP_LEN
        && packet[0] == 0x45
        && packet[6] & 0x3f == 0
        && packet[7] == 0;
    if !is_plain {
        return (Kind::Other, packet.len());
    }
    match packet[9] {
        TCP if packet.len() >= IP_LEN + 20 => {
            let headers_len = IP_LEN + usize::from(packet[IP_LEN + 12] >> 4) * 4;
            match (IP_LEN + 20..=packet.len()).contains(&headers_len) && headers_len <= 60 {
                true => (Kind::Tcp, headers_len),
                false => (Kind::Other, packet.len()),
            }
        }
        UDP if packet[IP_LEN + 6..IP_LEN + 8] != [0, 0] => (Kind::Udp, IP_LEN + UDP_LEN),
        _ => (Kind::Other, packet.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, flags: u8, payload: usize) -> Vec<u8> {
        let mut packet = vec![0; 40 + payload];
        let length = packet.len() as u16;
        packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP]);
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[24..28].copy_from_slice(&sequence.to_be_bytes());
        packet[32] = 5 << 4;
        packet[33] = flags;
        packet
    }

    fn written(packets: &[Vec<u8>]) -> Vec<(u8, usize)> {
        let mut memory = packets.concat();
        let mut joiner = Joiner::default();
        let mut start = 0;
        for packet in packets {
            joiner.add(start, packet);
            start += packet.len();
        }
        let mut all = Vec::new();
        joiner.write_all(&mut memory, |slices| {
            let bytes = slices[1..].iter().map(|slice| slice.len()).sum();
            all.push((slices[0][1], bytes));
        });
        all
    }

    #[test]
    fn segments_that_follow_each_other_are_written_as_one() {
        let run: Vec<_> = (0..3).map(|at| segment(at * 100, ACK, 100)).collect();
        assert_eq!(written(&run), [(1, 340)]);
    }

    #[test]
    fn what_has_a_gap_or_comes_after_a_push_stands_alone() {
        let gap = [segment(0, ACK, 100), segment(200, ACK, 100)];
        assert_eq!(written(&gap), [(0, 140), (0, 140)]);
        let pushed = [
            segment(0, ACK, 100),
            segment(100, ACK | PSH, 50),
            segment(150, ACK, 50),
        ];
        assert_eq!(written(&pushed), [(1, 190), (0, 90)]);
    }
}

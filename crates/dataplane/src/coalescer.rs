//! Packets to this host, gathered so that neighbours of one flow reach the kernel as one
//! super-packet, which it takes through its stack once.
//!
//! Packets are joined only when the kernel's own cut would give back the very same ones: the same
//! headers but for length, sequence and checksum, a right checksum each, and nothing after a
//! shorter one or a push. What comes later of a flow never overtakes what came earlier.

use model::rule::ip_protocol::{TCP, UDP};

use crate::checksum::Sum;
use crate::offload::{Segmentation, VirtioHeader};
use shape::Shape;

mod shape;

/// Flows whose last packet may still grow. Beyond a few, look-ups cost more than joining saves.
const OPEN_MAX: usize = 8;
/// Packets in one super-packet; the kernel's own limit for UDP (`UDP_MAX_SEGMENTS`).
const JOINED_MAX: u16 = 64;
/// Bytes of a super-packet, so that the length fields hold it.
const BYTES_MAX: usize = 65535;
/// No more pieces.
const NONE: u32 = u32::MAX;

/// Which packets the device takes joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// TCP segments.
    pub tcp: bool,
    /// UDP datagrams.
    pub udp: bool,
}

/// Gathers packets, and hands them out in the order in which they came.
pub struct Coalescer {
    joins: Joins,
    memory: Box<[u8]>,
    filled: usize,
    items: Vec<Item>,
    pieces: Vec<Piece>,
    open: [Option<u32>; OPEN_MAX],
    next_open: usize,
}

/// One packet for the kernel: as it came, or with more payload behind it.
struct Item {
    /// Of the first packet.
    start: usize,
    end: usize,
    shape: Option<Shape>,
    /// Payload bytes of the first packet, and of every other but the last.
    size: usize,
    payload_bytes: usize,
    count: u16,
    is_verified: bool,
    is_pushed: bool,
    first_piece: u32,
    last_piece: u32,
}

/// Payload that goes on where another ended.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    next: u32,
}

impl Coalescer {
    /// Slices that one packet is handed out in, at most.
    pub const PARTS_MAX: usize = JOINED_MAX as usize;

    /// Makes one with room for so many bytes.
    pub fn new(joins: Joins, bytes: usize) -> Self {
        Self {
            joins,
            memory: vec![0; bytes].into_boxed_slice(),
            filled: 0,
            items: Vec::new(),
            pieces: Vec::new(),
            open: [None; OPEN_MAX],
            next_open: 0,
        }
    }

    /// Joins these from now on: the device has turned out not to take others.
    pub fn set_joins(&mut self, joins: Joins) {
        self.joins = joins;
    }

    /// Returns whether so many bytes more can be taken.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.memory.len() - self.filled >= bytes
    }

    /// Lends `room` bytes, which [`Coalescer::has_room`] must have said are there; `write` returns
    /// how many it used, at 0 nothing is added.
    pub fn add(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let start = self.filled;
        let length = write(&mut self.memory[start..start + room]);
        if length == 0 {
            return;
        }
        let end = start + length;
        self.filled = end;
        let shape = Shape::of(&self.memory[start..end], self.joins);
        let Some(shape) = shape else {
            // It may belong to any of them.
            if shape::hides_its_flow(&self.memory[start..end]) {
                self.open = [None; OPEN_MAX];
            }
            return self.begin(start, end, None);
        };
        match self.find_open(start, &shape) {
            Some(place) if self.join(place, start, end, &shape) => {}
            // What follows of this flow must not be joined to what is before this packet.
            Some(place) => {
                self.open[place] = None;
                self.begin(start, end, Some(shape));
            }
            None => self.begin(start, end, Some(shape)),
        }
    }

    fn begin(&mut self, start: usize, end: usize, shape: Option<Shape>) {
        let payload_bytes = shape
            .as_ref()
            .map_or(0, |shape| end - start - shape.headers_len);
        let may_grow = shape.as_ref().is_some_and(|shape| shape.may_begin);
        self.items.push(Item {
            start,
            end,
            shape,
            size: payload_bytes,
            payload_bytes,
            count: 1,
            is_verified: false,
            is_pushed: false,
            first_piece: NONE,
            last_piece: NONE,
        });
        if may_grow {
            let place = self.place_for_open();
            self.open[place] = Some(index(self.items.len() - 1));
        }
    }

    /// Returns a place that is free, or else the one after that which was taken last.
    fn place_for_open(&mut self) -> usize {
        if let Some(free) = self.open.iter().position(Option::is_none) {
            return free;
        }
        self.next_open = (self.next_open + 1) % OPEN_MAX;
        self.next_open
    }

    fn find_open(&self, start: usize, shape: &Shape) -> Option<usize> {
        self.open.iter().position(|open| {
            open.is_some_and(|open| {
                let item = &self.items[open as usize];
                let before = item.shape.as_ref().expect("open items have a shape");
                before.is_same_flow(&self.memory[item.start..], shape, &self.memory[start..])
            })
        })
    }

    /// Joins a packet to the item of its flow, if it is the very next one.
    fn join(&mut self, place: usize, start: usize, end: usize, shape: &Shape) -> bool {
        let Self {
            memory,
            items,
            pieces,
            open,
            ..
        } = self;
        let item = &mut items[open[place].expect("the caller found it") as usize];
        let before = item.shape.as_ref().expect("open items have a shape");
        let payload = start + shape.headers_len..end;
        let bytes = item.end - item.start + item.payload_bytes - item.size + payload.len();
        let fits = (1..=item.size).contains(&payload.len())
            && item.count < JOINED_MAX
            && bytes <= BYTES_MAX;
        let continues = fits
            && shape.may_follow
            && before.is_followed_by(
                &memory[item.start..item.end],
                &memory[start..end],
                item.payload_bytes,
                item.count,
            );
        if !continues || !shape.is_intact(&memory[start..end]) {
            return false;
        }
        if !item.is_verified {
            item.is_verified = before.is_intact(&memory[item.start..item.end]);
            if !item.is_verified {
                return false;
            }
        }
        let ends = payload.len() < item.size || shape.is_pushed;
        item.is_pushed |= shape.is_pushed;
        item.payload_bytes += payload.len();
        item.count += 1;
        let piece = index(pieces.len());
        pieces.push(Piece {
            start: payload.start,
            end: payload.end,
            next: NONE,
        });
        match item.last_piece {
            NONE => item.first_piece = piece,
            last => pieces[last as usize].next = piece,
        }
        item.last_piece = piece;
        if ends {
            open[place] = None;
        }
        true
    }

    /// Hands out every packet with the header that goes in front of it, as slices that lie one
    /// after the other, at most [`Coalescer::PARTS_MAX`].
    pub fn take_all(&mut self, mut deliver: impl FnMut(VirtioHeader, &[&[u8]])) {
        for item in &self.items {
            let header = match &item.shape {
                Some(shape) if item.count > 1 => item.finish(shape, &mut self.memory),
                _ => VirtioHeader::default(),
            };
            let mut parts: [&[u8]; Self::PARTS_MAX] = [&[]; Self::PARTS_MAX];
            parts[0] = &self.memory[item.start..item.end];
            let mut count = 1;
            let mut next = item.first_piece;
            while next != NONE {
                let piece = self.pieces[next as usize];
                parts[count] = &self.memory[piece.start..piece.end];
                count += 1;
                next = piece.next;
            }
            deliver(header, &parts[..count]);
        }
        self.items.clear();
        self.pieces.clear();
        self.open = [None; OPEN_MAX];
        self.filled = 0;
    }
}

impl Item {
    /// Makes the first packet's headers those of all.
    fn finish(&self, shape: &Shape, memory: &mut [u8]) -> VirtioHeader {
        let headers = &mut memory[self.start..self.start + shape.headers_len];
        let (ip, upper) = headers.split_at_mut(shape.upper_start);
        let upper_len = upper.len() + self.payload_bytes;
        let addresses = if shape.is_v4 {
            ip[2..4].copy_from_slice(&be(shape.upper_start + upper_len));
            ip[10..12].fill(0);
            let checksum = Sum::default().add(ip).finish();
            ip[10..12].copy_from_slice(&checksum);
            &ip[12..20]
        } else {
            ip[4..6].copy_from_slice(&be(upper_len));
            &ip[8..40]
        };
        let ip_protocol = if shape.is_tcp { TCP } else { UDP };
        let pseudo = Sum::default()
            .add(addresses)
            .add_upper(ip_protocol, upper_len)
            .partial();
        let segmentation = match (shape.is_tcp, shape.is_v4) {
            (true, true) => Segmentation::TcpV4,
            (true, false) => Segmentation::TcpV6,
            (false, _) => Segmentation::Udp,
        };
        if shape.is_tcp {
            upper[13] |= if self.is_pushed { shape::PSH } else { 0 };
            upper[16..18].copy_from_slice(&pseudo);
        } else {
            upper[4..6].copy_from_slice(&be(upper_len));
            upper[6..8].copy_from_slice(&pseudo);
        }
        VirtioHeader::of_segments(
            segmentation,
            shape.headers_len as u16,
            shape.upper_start as u16,
            self.size as u16,
        )
    }
}

fn be(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("joined packets stay below 64 KiB")
        .to_be_bytes()
}

fn index(position: usize) -> u32 {
    u32::try_from(position).expect("memory for packets is far below 4 GiB")
}

#[cfg(test)]
mod tests;

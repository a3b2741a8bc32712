//! Packets to this host, gathered so that neighbours of one flow reach the kernel as one
//! super-packet, which it takes through its stack once.
//!
//! Packets are joined only when the kernel's own cut would give back the very same ones: the same
//! headers but for length, sequence and checksum, a right checksum each, and nothing after a
//! shorter one or a push. What comes later of a flow never overtakes what came earlier.

use model::rule::ip_protocol::{TCP, UDP};

use crate::checksum::Sum;
use crate::offload::{Segmentation, VirtioHeader};
use shape::{Head, Shape};

mod shape;

/// Flows whose last packet may still grow. Beyond a few, look-ups cost more than joining saves.
const OPEN_MAX: usize = 8;
/// Packets in one super-packet; the kernel's own limit for UDP (`UDP_MAX_SEGMENTS`).
const JOINED_MAX: u16 = 64;
/// Bytes of a super-packet, so that the length fields hold it.
const BYTES_MAX: usize = 65535;
/// No more pieces.
const NONE: u32 = u32::MAX;
/// Packets that are lent until they are handed out: all that 32 messages of the kernel's joining bring,
/// which joins 64 datagrams at most (`UDP_GRO_CNT_MAX`).
const LENT_MAX: usize = 32 * 64;

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
    memory: Box<[u8]>,
    filled: usize,
    runs: Runs,
}

/// The packets, wherever they lie.
struct Runs {
    joins: Joins,
    items: Vec<Item>,
    pieces: Vec<Piece>,
    lent: usize,
    open: [Option<u32>; OPEN_MAX],
    next_open: usize,
}

/// Whose memory a packet lies in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Own,
    Lent,
}

/// Where a packet lies, or a part of it.
#[derive(Clone, Copy)]
struct Place {
    memory: Memory,
    start: usize,
    end: usize,
}

/// One packet for the kernel: as it came, or with more payload behind it.
struct Item {
    /// The first packet.
    place: Place,
    head: Option<Head>,
    /// Payload bytes of the first packet, and of every other but the last.
    size: usize,
    payload_bytes: usize,
    count: u16,
    is_pushed: bool,
    first_piece: u32,
    last_piece: u32,
}

/// Payload that goes on where another ended.
#[derive(Clone, Copy)]
struct Piece {
    place: Place,
    next: u32,
}

impl Place {
    const fn len(&self) -> usize {
        self.end - self.start
    }

    fn of<'a>(&self, own: &'a [u8], lent: &'a [u8]) -> &'a [u8] {
        let memory = match self.memory {
            Memory::Own => own,
            Memory::Lent => lent,
        };
        &memory[self.start..self.end]
    }
}

impl Coalescer {
    /// Slices that one packet is handed out in, at most.
    pub const PARTS_MAX: usize = JOINED_MAX as usize;

    /// Makes one with room for so many bytes.
    pub fn new(joins: Joins, bytes: usize) -> Self {
        Self {
            memory: vec![0; bytes].into_boxed_slice(),
            filled: 0,
            runs: Runs {
                joins,
                items: Vec::new(),
                pieces: Vec::new(),
                lent: 0,
                open: [None; OPEN_MAX],
                next_open: 0,
            },
        }
    }

    /// Joins these from now on: the device has turned out not to take others.
    pub fn set_joins(&mut self, joins: Joins) {
        self.runs.joins = joins;
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
        let memory = Memory::Own;
        let place = Place { memory, start, end };
        self.runs.add(place, &self.memory[start..end]);
    }

    /// Takes a packet that stays where it is, at `start` of the memory that
    /// [`Coalescer::take_all_lent`] gets. Returns whether there was room for one more.
    pub fn add_lent(&mut self, start: usize, packet: &[u8]) -> bool {
        if self.runs.lent == LENT_MAX {
            return false;
        }
        self.runs.lent += 1;
        let place = Place {
            memory: Memory::Lent,
            start,
            end: start + packet.len(),
        };
        self.runs.add(place, packet);
        true
    }

    /// Returns whether there are packets that only [`Coalescer::take_all_lent`] can hand out.
    pub const fn has_lent(&self) -> bool {
        self.runs.lent > 0
    }

    /// Hands out every packet with the header that goes in front of it, as slices that lie one
    /// after the other, at most [`Coalescer::PARTS_MAX`]. None may be lent.
    pub fn take_all(&mut self, deliver: impl FnMut(VirtioHeader, &[&[u8]])) {
        self.take_all_lent(&mut [], deliver);
    }

    /// As [`Coalescer::take_all`], with the memory that packets were lent from, unchanged since.
    pub fn take_all_lent(
        &mut self,
        lent: &mut [u8],
        mut deliver: impl FnMut(VirtioHeader, &[&[u8]]),
    ) {
        let Self { memory, runs, .. } = self;
        for item in &runs.items {
            let header = match &item.head {
                Some(head) if item.count > 1 => {
                    let first = match item.place.memory {
                        Memory::Own => &mut *memory,
                        Memory::Lent => &mut *lent,
                    };
                    item.finish(&head.shape, &mut first[item.place.start..])
                }
                _ => VirtioHeader::default(),
            };
            let mut parts: [&[u8]; Self::PARTS_MAX] = [&[]; Self::PARTS_MAX];
            parts[0] = item.place.of(memory, lent);
            let mut count = 1;
            let mut next = item.first_piece;
            while next != NONE {
                let piece = runs.pieces[next as usize];
                parts[count] = piece.place.of(memory, lent);
                count += 1;
                next = piece.next;
            }
            deliver(header, &parts[..count]);
        }
        runs.clear();
        self.filled = 0;
    }
}

impl Runs {
    fn add(&mut self, place: Place, packet: &[u8]) {
        let Some(shape) = Shape::of(packet, self.joins) else {
            // It may belong to any of them.
            if shape::hides_its_flow(packet) {
                self.open = [None; OPEN_MAX];
            }
            return self.begin(place, None, false);
        };
        let is_intact = (shape.may_begin || shape.may_follow) && shape.is_intact(packet);
        let head = Head::new(shape, packet);
        match self.find_open(&head) {
            Some(open) if is_intact && self.join(open, place, &head) => {}
            // What follows of this flow must not be joined to what is before this packet.
            Some(open) => {
                self.open[open] = None;
                self.begin(place, Some(head), is_intact);
            }
            None => self.begin(place, Some(head), is_intact),
        }
    }

    fn begin(&mut self, place: Place, head: Option<Head>, is_intact: bool) {
        let payload_bytes = head
            .as_ref()
            .map_or(0, |head| place.len() - head.shape.headers_len);
        let may_grow = is_intact && head.as_ref().is_some_and(|head| head.shape.may_begin);
        self.items.push(Item {
            place,
            head,
            size: payload_bytes,
            payload_bytes,
            count: 1,
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
        let place = self.next_open;
        self.next_open = (place + 1) % OPEN_MAX;
        place
    }

    fn find_open(&self, head: &Head) -> Option<usize> {
        self.open.iter().position(|open| {
            open.is_some_and(|open| {
                let item = &self.items[open as usize];
                let before = item.head.as_ref().expect("open items have headers");
                before.is_same_flow(head)
            })
        })
    }

    /// Joins a packet whose checksums are right to the item of its flow, if it is the very next one.
    fn join(&mut self, place: usize, packet: Place, head: &Head) -> bool {
        let Self {
            items,
            pieces,
            open,
            ..
        } = self;
        let item = &mut items[open[place].expect("the caller found it") as usize];
        let before = item.head.as_ref().expect("open items have headers");
        let payload = Place {
            start: packet.start + head.shape.headers_len,
            ..packet
        };
        let bytes = item.place.len() + item.payload_bytes - item.size + payload.len();
        let fits = (1..=item.size).contains(&payload.len())
            && item.count < JOINED_MAX
            && bytes <= BYTES_MAX;
        let continues = fits
            && head.shape.may_follow
            && before.is_followed_by(head, item.payload_bytes, item.count);
        if !continues {
            return false;
        }
        let is_pushed = head.shape.is_pushed;
        let ends = payload.len() < item.size || is_pushed;
        item.is_pushed |= is_pushed;
        item.payload_bytes += payload.len();
        item.count += 1;
        let piece = index(pieces.len());
        pieces.push(Piece {
            place: payload,
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

    fn clear(&mut self) {
        self.items.clear();
        self.pieces.clear();
        self.lent = 0;
        self.open = [None; OPEN_MAX];
    }
}

impl Item {
    /// Makes the first packet's headers those of all.
    fn finish(&self, shape: &Shape, packet: &mut [u8]) -> VirtioHeader {
        let headers = &mut packet[..shape.headers_len];
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

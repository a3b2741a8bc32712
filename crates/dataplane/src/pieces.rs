//! An IPv4 packet that its sender lets be cut, as fragments (RFC 791 3.2), one after the other. The
//! payload is not copied.

use crate::checksum::Sum;

const HEADER_LEN: usize = 20;
/// A header is at most 15 words long.
const HEADER_LEN_MAX: usize = 60;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// The fragments.
pub(crate) struct Pieces<'a> {
    /// Of the first, and then of all others: those have the options alone that are to be copied.
    header: [u8; HEADER_LEN_MAX],
    header_len: usize,
    payload: &'a [u8],
    /// Bytes that went with the pieces before.
    done: usize,
    bytes_max: usize,
    /// As in the header of the packet, which may be a fragment itself.
    offset: u16,
    more: bool,
}

impl<'a> Pieces<'a> {
    /// Cuts a packet, whose headers were found consistent, into pieces of at most so many bytes.
    pub(crate) fn new(packet: &'a [u8], bytes_max: usize) -> Self {
        let header_len = usize::from(packet[0] & 0x0f) * 4;
        let mut header = [0; HEADER_LEN_MAX];
        header[..header_len].copy_from_slice(&packet[..header_len]);
        let field = u16::from_be_bytes([packet[6], packet[7]]);
        Self {
            header,
            header_len,
            payload: &packet[header_len..],
            done: 0,
            bytes_max,
            offset: field & OFFSET,
            more: field & MORE_FRAGMENTS != 0,
        }
    }

    /// Returns the next piece: its header and its payload.
    pub(crate) fn next(&mut self) -> Option<(&[u8], &'a [u8])> {
        if self.done == self.payload.len() {
            return None;
        }
        if self.done > 0 {
            self.keep_copied_options();
        }
        let rest = &self.payload[self.done..];
        // All but the last are of whole units of eight bytes.
        let room = (self.bytes_max - self.header_len) & !7;
        let payload = match rest.len() <= self.bytes_max - self.header_len {
            true => rest,
            false => &rest[..room],
        };
        let units = u16::try_from(self.done / 8).expect("packets are shorter than 64 KiB");
        self.done += payload.len();
        let more = self.more || self.done < self.payload.len();
        let field = (self.offset + units) & OFFSET | if more { MORE_FRAGMENTS } else { 0 };
        let length = self.header_len + payload.len();
        let length = u16::try_from(length).expect("pieces are shorter than their packet");
        let header = &mut self.header[..self.header_len];
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[6..8].copy_from_slice(&field.to_be_bytes());
        header[10..12].fill(0);
        let checksum = Sum::default().add(header).finish();
        header[10..12].copy_from_slice(&checksum);
        Some((header, payload))
    }

    /// Takes the options away that stand in the first piece only (RFC 791 3.1, the copied flag).
    fn keep_copied_options(&mut self) {
        const COPIED: u8 = 0x80;
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        let (mut read, mut written) = (HEADER_LEN, HEADER_LEN);
        while read < self.header_len && self.header[read] != END {
            let kind = self.header[read];
            let length = match kind {
                NO_OPERATION => 1,
                _ => usize::from(self.header[read + 1]),
            };
            if kind & COPIED != 0 {
                self.header.copy_within(read..read + length, written);
                written += length;
            }
            read += length;
        }
        let header_len = written.next_multiple_of(4);
        self.header[written..header_len].fill(END);
        self.header_len = header_len;
        self.header[0] = 0x40 | (header_len / 4) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Fragment, Headers};

    /// A UDP packet with these options and so many bytes behind its UDP header.
    fn packet(options: &[u8], payload: usize) -> Vec<u8> {
        let header_len = HEADER_LEN + options.len();
        let total = header_len + 8 + payload;
        let mut packet = vec![0; header_len];
        packet[0] = 0x40 | (header_len / 4) as u8;
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&[0xab, 0xcd]);
        (packet[8], packet[9]) = (64, 17);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[HEADER_LEN..].copy_from_slice(options);
        packet.extend([0, 1, 0, 2]);
        packet.extend(((8 + payload) as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend((0..payload).map(|at| (at % 251) as u8));
        packet
    }

    fn cut(packet: &[u8], bytes_max: usize) -> Vec<Vec<u8>> {
        let mut pieces = Pieces::new(packet, bytes_max);
        let mut all = Vec::new();
        while let Some((header, payload)) = pieces.next() {
            assert_eq!(Sum::default().add(header).finish(), [0, 0]);
            all.push([header, payload].concat());
        }
        all
    }

    /// Puts the pieces together as a receiver does.
    fn whole(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let headers = Headers::parse(piece).unwrap();
            let header_len = usize::from(piece[0] & 0x0f) * 4;
            assert_eq!(headers.length, piece.len());
            let more = piece[6] & 0x20 != 0;
            assert_eq!(more, number + 1 < pieces.len());
            match headers.fragment {
                Fragment::First { id } => assert_eq!((id, number), (0xabcd, 0)),
                Fragment::Later { id, offset } => {
                    assert_eq!((id, usize::from(offset) * 8), (0xabcd, payload.len()));
                }
                Fragment::Whole => assert_eq!(pieces.len(), 1),
            }
            payload.extend(&piece[header_len..]);
        }
        payload
    }

    #[test]
    fn the_pieces_are_the_packet() {
        for bytes_max in [576, 1220, 1279, 1280, 1340] {
            for payload in [1, 1200, 1312, 4000, 8880] {
                let packet = packet(&[], payload);
                let pieces = cut(&packet, bytes_max);
                assert!(pieces.iter().all(|piece| piece.len() <= bytes_max));
                assert_eq!(whole(&pieces), packet[HEADER_LEN..]);
            }
        }
    }

    #[test]
    fn a_piece_is_cut_again_where_it_lies() {
        let original = packet(&[], 4000);
        let first = cut(&original, 2000);
        let again: Vec<_> = first.iter().flat_map(|piece| cut(piece, 700)).collect();
        assert!(again.len() > first.len());
        assert_eq!(whole(&again), original[HEADER_LEN..]);
    }

    #[test]
    fn options_that_are_not_to_be_copied_stand_in_the_first_piece_only() {
        // Record route (7) is not copied, router alert (148) is (RFC 2113).
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0];
        let pieces = cut(&packet(&options, 3000), 1000);
        assert_eq!(pieces[0][HEADER_LEN..32], options);
        assert!(pieces.len() > 2);
        for piece in &pieces[1..] {
            assert_eq!((piece[0], &piece[20..24]), (0x46, &[148, 4, 0, 0][..]));
        }
    }
}

//! Tells datagrams of QUIC from all others that come to a shared port, and which proxy thread they are
//! for, by what anybody on the way can read. Nothing is proven by it.
//!
//! ```text
//! long header    1 byte 0xC0..=0xFF | 4 version | 1 length of the ID | the ID (8..=20) | ...
//! short header   1 byte 0x40..=0x7F | 8 the ID | ...                          RFC 9000 17.2, 17.3
//! ```
//!
//! WireGuard's messages begin with 1..=4, where QUIC has the bit 0x40: it must not be greased.
//!
//! Who begins makes up a longer ID than those that are given out here, for as long as it has heard no
//! other: our own ends take 20 bytes.

/// Bytes of the connection IDs that proxy threads give out.
pub(super) const ID_BYTES: usize = 8;
/// The only version that is spoken: RFC 9000.
const VERSION: [u8; 4] = 1_u32.to_be_bytes();
/// The longest ID of version 1.
const ID_BYTES_MAX: u8 = 20;
/// A datagram that begins a connection is at least as long: RFC 9000 14.1.
const FIRST_BYTES_MIN: usize = 1200;
/// No sealed packet with a short header is shorter: its first byte, the ID, and what RFC 9001 5.4.2
/// samples after four bytes for the packet number.
const SHORT_BYTES_MIN: usize = 1 + ID_BYTES + 4 + 16;
const LONG_HEADER: u8 = 0x80;
const QUIC: u8 = 0x40;
const KIND: u8 = 0x30;

/// In the first byte of an ID: which of two daemons gave it out, while one hands over to the other.
const SECOND_DAEMON: u8 = 0x80;

/// Whom a datagram of QUIC is for, as its sender says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressee {
    first_of_id: u8,
    is_given_out: bool,
    begins: bool,
}

/// What a header says.
struct Header {
    first_of_id: u8,
    id_bytes: usize,
    begins: bool,
}

impl Addressee {
    /// Looks at a datagram; `None`: it is nothing that QUIC's version 1 would send here.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        let first = *datagram.first()?;
        if first & QUIC == 0 {
            return None;
        }
        let header = match first & LONG_HEADER {
            0 if datagram.len() >= SHORT_BYTES_MIN => Header {
                first_of_id: datagram[1],
                id_bytes: ID_BYTES,
                begins: false,
            },
            0 => return None,
            _ => long_header(datagram)?,
        };
        Some(Self {
            first_of_id: header.first_of_id,
            is_given_out: header.id_bytes == ID_BYTES,
            begins: header.begins,
        })
    }

    /// Returns the proxy thread, of so many; there has to be one.
    pub const fn thread(self, threads: usize) -> usize {
        thread_of(self.first_of_id, threads)
    }

    /// Returns whether it may begin a connection, which costs more than anything that comes later.
    /// A server's first answer looks the same.
    pub const fn begins(self) -> bool {
        self.begins
    }

    /// Returns whether the second of two daemons gave out the ID; `None`: neither did, the other end
    /// made it up.
    pub const fn is_of_second(self) -> Option<bool> {
        match self.is_given_out {
            true => Some(self.first_of_id & SECOND_DAEMON != 0),
            false => None,
        }
    }
}

fn long_header(datagram: &[u8]) -> Option<Header> {
    let [first, v0, v1, v2, v3, length, first_of_id, ..] = *datagram else {
        return None;
    };
    let is_known = [v0, v1, v2, v3] == VERSION
        && (ID_BYTES as u8..=ID_BYTES_MAX).contains(&length)
        && datagram.len() > 6 + usize::from(length);
    let header = |begins| Header {
        first_of_id,
        id_bytes: usize::from(length),
        begins,
    };
    match (first & KIND) >> 4 {
        _ if !is_known => None,
        // Those of servers may be shorter, when they only acknowledge.
        0 => Some(header(datagram.len() >= FIRST_BYTES_MIN)),
        // Data ahead of the handshake is never taken.
        1 => None,
        _ => Some(header(false)),
    }
}

/// Returns the thread whose connections have IDs that begin so.
pub(super) const fn thread_of(first_of_id: u8, threads: usize) -> usize {
    (first_of_id & !SECOND_DAEMON) as usize % threads
}

/// Returns the first byte of an ID, made one of the first or the second of two daemons.
pub(super) const fn marked(first_of_id: u8, is_second: bool) -> u8 {
    match is_second {
        false => first_of_id & !SECOND_DAEMON,
        true => first_of_id | SECOND_DAEMON,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(kind: u8, id: &[u8], length: usize) -> Vec<u8> {
        let mut datagram = vec![LONG_HEADER | QUIC | kind << 4];
        datagram.extend(VERSION);
        datagram.push(id.len() as u8);
        datagram.extend(id);
        datagram.resize(length, 0);
        datagram
    }

    fn short(first_of_id: u8, length: usize) -> Vec<u8> {
        let mut datagram = vec![QUIC, first_of_id];
        datagram.resize(length, 0);
        datagram
    }

    #[test]
    fn each_thread_gets_what_names_its_ids() {
        for (first_of_id, thread) in [(0, 0), (1, 1), (2, 2), (3, 0), (0x80, 0), (0xff, 1)] {
            let id = [first_of_id; ID_BYTES];
            let (first, later) = (long(0, &id, 1200), long(2, &id, 60));
            for (datagram, begins) in [
                (short(first_of_id, 29), false),
                (first, true),
                (later, false),
            ] {
                let addressee = Addressee::of(&datagram).unwrap();
                assert_eq!(addressee.thread(3), thread);
                assert_eq!(addressee.begins(), begins);
                assert_eq!(addressee.is_of_second(), Some(first_of_id >= 0x80));
            }
        }
    }

    #[test]
    fn an_id_that_the_other_end_made_up_names_no_daemon() {
        let made_up = Addressee::of(&long(0, &[0xff; 20], 1200)).unwrap();
        assert_eq!((made_up.is_of_second(), made_up.begins()), (None, true));
    }

    #[test]
    fn wireguards_messages_are_none() {
        for kind in 1..=4 {
            let mut message = vec![kind, 0, 0, 0];
            message.resize(148, 0xff);
            assert_eq!(Addressee::of(&message), None);
        }
    }

    #[test]
    fn what_quic_would_not_send_is_none() {
        let mut other_version = long(0, &[7; 8], 1200);
        other_version[4] = 2;
        let mut negotiation = long(0, &[7; 8], 1200);
        negotiation[1..5].fill(0);
        for datagram in [
            Vec::new(),
            vec![QUIC],
            vec![0xff; 6],
            short(1, 28),
            long(0, &[7; 7], 1200),
            long(0, &[7; 21], 1200),
            long(0, &[7; 20], 26),
            long(1, &[7; 8], 1200),
            other_version,
            negotiation,
        ] {
            assert_eq!(Addressee::of(&datagram), None, "{datagram:02x?}");
        }
    }
}

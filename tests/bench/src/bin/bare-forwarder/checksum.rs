//! The Internet checksum (RFC 1071), in the machine's order of bytes.

/// A sum that is not yet folded.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last one is padded with zero.
    #[inline]
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let whole: u64 = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)))
            .sum();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(self.0 + whole + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds the pseudo header of an IPv4 packet whose header is given.
    #[inline]
    pub(crate) fn add_pseudo_header(self, ip: &[u8], upper_len: usize) -> Self {
        self.add(&ip[12..20])
            .add(&[0, ip[9]])
            .add(&(upper_len as u16).to_be_bytes())
    }

    /// The checksum field.
    #[inline]
    pub(crate) fn finish(self) -> [u8; 2] {
        let [a, b] = self.partial();
        [!a, !b]
    }

    /// The field of a checksum that the kernel is to complete.
    #[inline]
    pub(crate) fn partial(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_ne_bytes()
    }
}

/// Writes the checksum of an IPv4 header.
#[inline]
pub(crate) fn write_ip(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let checksum = Sum::default().add(ip).finish();
    ip[10..12].copy_from_slice(&checksum);
}

//! Addresses that begin alike, since whoever has one address may have many.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What mostly belongs to one machine, in bits of its prefix: an address of IPv4, a /64 of IPv6.
pub(super) const V4_MACHINE_BITS: u8 = 32;
pub(super) const V6_MACHINE_BITS: u8 = 64;

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    first: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Returns the addresses that have so many bits in common with one.
    pub(super) fn of(address: IpAddr, bits: u8) -> Self {
        let first = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let host_bits = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & !host_bits).into()
            }
            IpAddr::V6(v6) => {
                let host_bits = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & !host_bits).into()
            }
        };
        Self { first, bits }
    }

    /// Returns the addresses that mostly are of the same machine as one.
    pub(super) fn of_machine(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::of(address, V4_MACHINE_BITS),
            IpAddr::V6(_) => Self::of(address, V6_MACHINE_BITS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_an_address_of_ipv4_and_a_64_of_ipv6() {
        let machine = |text: &str| Prefix::of_machine(text.parse().unwrap());
        assert_eq!(machine("192.0.2.1"), machine("::ffff:192.0.2.1"));
        assert_ne!(machine("192.0.2.1"), machine("192.0.2.2"));
        assert_eq!(machine("2001:db8::1"), machine("2001:db8::ffff:0:0:1"));
        assert_ne!(machine("2001:db8::1"), machine("2001:db8:0:1::1"));
    }
}

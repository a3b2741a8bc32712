//! The overlay's address plan: which prefixes a fleet has, and which addresses are hosts'.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::FleetId;

/// The two prefixes that a fleet's hosts have their addresses in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OverlayPrefixes {
    /// A /8 to /26.
    pub v4: Ipv4Net,
    /// A /48 to /112.
    pub v6: Ipv6Net,
}

/// Prefixes that cannot be an overlay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// The IPv4 prefix length is out of bounds.
    #[error("{0} cannot hold a fleet: choose a prefix length from 8 to 26")]
    V4Length(Ipv4Net),
    /// The IPv6 prefix length is out of bounds.
    #[error("{0} cannot hold a fleet: choose a prefix length from 48 to 112")]
    V6Length(Ipv6Net),
    /// The address has bits set behind the prefix.
    #[error("{given} has host bits set: did you mean {meant}?")]
    HostBits {
        /// What was given.
        given: String,
        /// The network it lies in.
        meant: String,
    },
    /// Loopback, multicast, link-local or unspecified.
    #[error("{0} is not a unicast prefix that hosts can use")]
    NotUnicast(String),
}

impl OverlayPrefixes {
    /// Derives the default prefixes of a fleet: the /16 of 100.64.0.0/10 and the ULA /48 that its
    /// id points to, clear of 100.100.0.0/16, where some clouds and other overlays live.
    pub fn derived_from(fleet: FleetId) -> Self {
        let id = fleet.as_bytes();
        // 100.64/16 to 100.127/16 without 100.100/16: 63 choices.
        let choice = id[0] % 63;
        let second = if choice < 36 {
            64 + choice
        } else {
            65 + choice
        };
        // RFC 4193 3.1: fd, then 40 bits of global id.
        let v6 = Ipv6Addr::new(
            0xfd00 | u16::from(id[1]),
            u16::from_be_bytes([id[2], id[3]]),
            u16::from_be_bytes([id[4], id[5]]),
            0,
            0,
            0,
            0,
            0,
        );
        Self {
            v4: Ipv4Net::new_assert(Ipv4Addr::new(100, second, 0, 0), 16),
            v6: Ipv6Net::new_assert(v6, 48),
        }
    }

    /// Checks prefixes that an operator chose.
    ///
    /// # Errors
    /// Says which bound is broken and what would be right.
    pub fn checked(v4: Ipv4Net, v6: Ipv6Net) -> Result<Self, InvalidPrefix> {
        if !(8..=26).contains(&v4.prefix_len()) {
            return Err(InvalidPrefix::V4Length(v4));
        }
        if !(48..=112).contains(&v6.prefix_len()) {
            return Err(InvalidPrefix::V6Length(v6));
        }
        if v4.trunc() != v4 {
            return Err(InvalidPrefix::HostBits {
                given: v4.to_string(),
                meant: v4.trunc().to_string(),
            });
        }
        if v6.trunc() != v6 {
            return Err(InvalidPrefix::HostBits {
                given: v6.to_string(),
                meant: v6.trunc().to_string(),
            });
        }
        let first = v4.addr();
        if first.is_loopback()
            || first.is_multicast()
            || first.is_link_local()
            || first.octets()[0] == 0
            || first.octets()[0] >= 240
        {
            return Err(InvalidPrefix::NotUnicast(v4.to_string()));
        }
        let first = v6.addr();
        if first.is_loopback()
            || first.is_multicast()
            || first.is_unicast_link_local()
            || first.is_unspecified()
        {
            return Err(InvalidPrefix::NotUnicast(v6.to_string()));
        }
        Ok(Self { v4, v6 })
    }

    /// Returns whether the address lies in one of the prefixes.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(&v4),
            IpAddr::V6(v6) => self.v6.contains(&v6),
        }
    }

    /// Returns how many hosts fit in both prefixes: addresses without the first 16 (kept for the fleet)
    /// and the last.
    pub fn capacity(&self) -> u32 {
        let bits_v4 = 32 - self.v4.prefix_len();
        let bits_v6 = 128 - self.v6.prefix_len();
        let size = 1u64 << bits_v4.min(bits_v6);
        u32::try_from(size.saturating_sub(u64::from(FIRST_HOST) + 1)).unwrap_or(u32::MAX)
    }

    /// Returns the addresses of the host at `index`, from 0; `None` at `capacity()` and above.
    pub fn nth_host(&self, index: u32) -> Option<HostAddresses> {
        if index >= self.capacity() {
            return None;
        }
        let offset = FIRST_HOST + index;
        let v4 = Ipv4Addr::from(u32::from(self.v4.network()) + offset);
        let v6 = Ipv6Addr::from(u128::from(self.v6.network()) + u128::from(offset));
        Some(HostAddresses { v4, v6 })
    }

    /// Returns the index of a host's addresses: what `nth_host` makes them of; `None`: nobody's.
    pub fn index_of(&self, addresses: HostAddresses) -> Option<u32> {
        let offset = u32::from(addresses.v4).checked_sub(u32::from(self.v4.network()))?;
        let index = offset.checked_sub(FIRST_HOST)?;
        (self.nth_host(index) == Some(addresses)).then_some(index)
    }
}

/// The first addresses of a prefix are kept for the fleet itself.
const FIRST_HOST: u32 = 16;

/// The overlay addresses of one host.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct HostAddresses {
    /// In the fleet's IPv4 prefix.
    pub v4: Ipv4Addr,
    /// In the fleet's IPv6 prefix.
    pub v6: Ipv6Addr,
}

impl HostAddresses {
    /// Returns whether the address is one of the two.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4 == self.v4,
            IpAddr::V6(v6) => v6 == self.v6,
        }
    }
}

/// Returns whether a datagram to this address goes to one host: not to nobody, not to a group.
pub fn is_one_host(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Splits `host:port` or `[v6]:port`, the form in which coordinators are named. The host is a DNS
/// name or an IP address, returned without brackets; the port is not 0. `None` when it is neither.
pub fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| port.parse().ok())??;
    if port == 0 {
        return None;
    }
    match host.strip_prefix('[') {
        Some(v6) => {
            let v6 = v6.strip_suffix(']')?;
            v6.parse::<Ipv6Addr>().ok().map(|_| (v6, port))
        }
        None => is_dns_name(host).then_some((host, port)),
    }
}

/// Returns whether the text is a DNS name in letters, digits, `-` and `_`, without a dot at the
/// end. IPv4 addresses have the same shape.
fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mapped_address_is_judged_as_what_it_means() {
        for good in ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"] {
            assert!(is_one_host(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "192.0.2.1:0",
            "0.0.0.0:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "[::ffff:224.0.0.1]:1",
            "[::ffff:0.0.0.0]:1",
            "[::ffff:255.255.255.255]:1",
        ] {
            assert!(!is_one_host(bad.parse().unwrap()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn derived_prefixes_are_valid_and_clear_of_100_100(id: [u8; 16]) {
            let prefixes = OverlayPrefixes::derived_from(FleetId::from_bytes(id));
            prop_assert_eq!(OverlayPrefixes::checked(prefixes.v4, prefixes.v6), Ok(prefixes));
            prop_assert!("100.64.0.0/10".parse::<Ipv4Net>().unwrap().contains(&prefixes.v4));
            prop_assert!(prefixes.v4.addr().octets()[1] != 100);
        }

        #[test]
        fn hosts_have_distinct_addresses_inside(
            v4_length in 8u8..=26,
            v6_length in 48u8..=112,
            a: u32,
            b: u32,
        ) {
            let v4 = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), v4_length).unwrap();
            let v6 = Ipv6Net::new("fd00::".parse().unwrap(), v6_length).unwrap();
            let prefixes = OverlayPrefixes::checked(v4, v6).unwrap();
            let (a, b) = (a % prefixes.capacity(), b % prefixes.capacity());
            let (first, second) = (prefixes.nth_host(a).unwrap(), prefixes.nth_host(b).unwrap());
            prop_assert!(prefixes.contains(first.v4.into()) && prefixes.contains(first.v6.into()));
            prop_assert_eq!(first == second, a == b);
            prop_assert_eq!(prefixes.index_of(first), Some(a));
        }
    }

    #[test]
    fn host_bits_are_refused_with_what_was_meant() {
        let error =
            OverlayPrefixes::checked("10.1.2.3/16".parse().unwrap(), "fd00::/48".parse().unwrap());
        assert_eq!(
            error.unwrap_err().to_string(),
            "10.1.2.3/16 has host bits set: did you mean 10.1.0.0/16?"
        );
    }

    #[test]
    fn the_first_sixteen_and_the_last_address_are_nobodys() {
        let prefixes =
            OverlayPrefixes::checked("10.0.0.0/26".parse().unwrap(), "fd00::/48".parse().unwrap())
                .unwrap();
        assert_eq!(prefixes.capacity(), 47);
        assert_eq!(
            prefixes.nth_host(0).unwrap().v4,
            Ipv4Addr::new(10, 0, 0, 16)
        );
        assert_eq!(
            prefixes.nth_host(46).unwrap().v4,
            Ipv4Addr::new(10, 0, 0, 62)
        );
        assert_eq!(prefixes.nth_host(47), None);
    }

    #[test]
    fn the_smaller_prefix_says_how_many_hosts_fit() {
        let wide_v4 =
            OverlayPrefixes::checked("10.0.0.0/8".parse().unwrap(), "fd00::/112".parse().unwrap())
                .unwrap();
        let last = wide_v4.nth_host(wide_v4.capacity() - 1).unwrap();
        assert_eq!(last.v6, "fd00::fffe".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn coordinators_are_named_by_host_and_port() {
        assert_eq!(
            split_host_port("c1.example.com:7443"),
            Some(("c1.example.com", 7443))
        );
        assert_eq!(split_host_port("10.0.0.4:443"), Some(("10.0.0.4", 443)));
        assert_eq!(split_host_port("[fd00::1]:7443"), Some(("fd00::1", 7443)));
        for bad in [
            "",
            "c1",
            "c1:",
            "c1:0",
            "c1:+1",
            "c1:65536",
            ":1",
            "a b:1",
            "fd00::1:7443",
            "[c1]:1",
        ] {
            assert_eq!(split_host_port(bad), None, "{bad}");
        }
    }
}

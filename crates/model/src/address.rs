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

    /// Returns what is set apart for the virtual addresses of services: the highest sixteenth of the
    /// IPv4 prefix, and what ends the IPv6 prefix, a /64 or, where that is more, a sixteenth.
    pub fn services(&self) -> ServicePrefixes {
        let v4_length = self.v4.prefix_len() + SERVICES_SHARE_BITS;
        let v6_length = SERVICES_V6_LENGTH.max(self.v6.prefix_len() + SERVICES_SHARE_BITS);
        // Behind the first bits of the prefix all are set: it is the last network of that length.
        ServicePrefixes {
            v4: Ipv4Net::new_assert(self.v4.broadcast(), v4_length).trunc(),
            v6: Ipv6Net::new_assert(self.v6.broadcast(), v6_length).trunc(),
        }
    }

    /// Returns how many hosts get addresses: those in both prefixes without the first 16 (kept for the
    /// fleet) and without what is set apart for services.
    pub fn capacity(&self) -> u32 {
        let services = self.services();
        let below_v4 = u32::from(services.v4.network()) - u32::from(self.v4.network());
        let below_v6 = u128::from(services.v6.network()) - u128::from(self.v6.network());
        let below = below_v6.min(u128::from(below_v4));
        u32::try_from(below).map_or(u32::MAX, |below| below - FIRST_HOST)
    }

    /// Returns the addresses of the host at `index`, from 0; `None` where no host can be. At
    /// `capacity()` and above are only hosts of the time when nothing was set apart for services.
    pub fn nth_host(&self, index: u32) -> Option<HostAddresses> {
        if index >= self.former_capacity() {
            return None;
        }
        let offset = FIRST_HOST + index;
        let v4 = Ipv4Addr::from(u32::from(self.v4.network()) + offset);
        let v6 = Ipv6Addr::from(u128::from(self.v6.network()) + u128::from(offset));
        Some(HostAddresses { v4, v6 })
    }

    /// All addresses without the first 16 and the last.
    fn former_capacity(&self) -> u32 {
        let bits_v4 = 32 - self.v4.prefix_len();
        let bits_v6 = 128 - self.v6.prefix_len();
        let size = 1u64 << bits_v4.min(bits_v6);
        u32::try_from(size.saturating_sub(u64::from(FIRST_HOST) + 1)).unwrap_or(u32::MAX)
    }

    /// Returns the index of a host's addresses: what `nth_host` makes them of; `None`: nobody's.
    pub fn index_of(&self, addresses: HostAddresses) -> Option<u32> {
        let offset = u32::from(addresses.v4).checked_sub(u32::from(self.v4.network()))?;
        let index = offset.checked_sub(FIRST_HOST)?;
        (self.nth_host(index) == Some(addresses)).then_some(index)
    }
}

/// What is set apart for the virtual addresses of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServicePrefixes {
    /// In the overlay's IPv4 prefix.
    pub v4: Ipv4Net,
    /// In the overlay's IPv6 prefix.
    pub v6: Ipv6Net,
}

impl ServicePrefixes {
    /// Returns whether the address lies in one of the prefixes.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(&v4),
            IpAddr::V6(v6) => self.v6.contains(&v6),
        }
    }

    /// Returns how many services fit: the last address of each prefix is nobody's, for the kernel may
    /// take it for a broadcast.
    pub fn capacity(&self) -> u32 {
        let bits = (32 - self.v4.prefix_len()).min(128 - self.v6.prefix_len());
        u32::try_from((1u64 << bits) - 1).expect("the IPv4 part is a /12 or smaller")
    }

    /// Returns the addresses of the service at `index`, from 0; `None` at `capacity()` and above.
    pub fn nth_service(&self, index: u32) -> Option<HostAddresses> {
        (index < self.capacity()).then(|| HostAddresses {
            v4: Ipv4Addr::from(u32::from(self.v4.network()) + index),
            v6: Ipv6Addr::from(u128::from(self.v6.network()) + u128::from(index)),
        })
    }

    /// Returns the index of a service's addresses: what `nth_service` makes them of; `None`: nobody's.
    pub fn index_of(&self, addresses: HostAddresses) -> Option<u32> {
        let index = u32::from(addresses.v4).checked_sub(u32::from(self.v4.network()))?;
        (self.nth_service(index) == Some(addresses)).then_some(index)
    }
}

/// Services have a sixteenth of a prefix.
const SERVICES_SHARE_BITS: u8 = 4;

/// More IPv6 addresses than those of one network of hosts are never needed.
const SERVICES_V6_LENGTH: u8 = 64;

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

    proptest! {
        #[test]
        fn services_and_new_hosts_never_meet(
            v4_length in 8u8..=26,
            v6_length in 48u8..=112,
            host: u32,
            service: u32,
        ) {
            let v4 = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), v4_length).unwrap();
            let v6 = Ipv6Net::new("fd00::".parse().unwrap(), v6_length).unwrap();
            let prefixes = OverlayPrefixes::checked(v4, v6).unwrap();
            let services = prefixes.services();
            prop_assert!(prefixes.v4.contains(&services.v4) && prefixes.v6.contains(&services.v6));
            for host in [host % prefixes.capacity(), prefixes.capacity() - 1] {
                let host = prefixes.nth_host(host).unwrap();
                prop_assert!(!services.contains(host.v4.into()) && !services.contains(host.v6.into()));
            }
            for index in [service % services.capacity(), services.capacity() - 1] {
                let addresses = services.nth_service(index).unwrap();
                prop_assert!(services.contains(addresses.v4.into()));
                prop_assert!(services.contains(addresses.v6.into()));
                prop_assert_ne!(addresses.v4, prefixes.v4.broadcast());
                prop_assert_ne!(addresses.v6, prefixes.v6.broadcast());
                prop_assert_eq!(services.index_of(addresses), Some(index));
            }
            prop_assert_eq!(services.nth_service(services.capacity()), None);
        }
    }

    #[test]
    fn services_have_the_end_of_both_prefixes() {
        let prefixes = OverlayPrefixes::checked(
            "100.64.0.0/16".parse().unwrap(),
            "fd00::/48".parse().unwrap(),
        )
        .unwrap();
        let services = prefixes.services();
        assert_eq!(services.v4.to_string(), "100.64.240.0/20");
        assert_eq!(services.v6.to_string(), "fd00:0:0:ffff::/64");
        assert_eq!(services.capacity(), 4095);
        assert_eq!(prefixes.capacity(), 61_424);
        let last = prefixes.nth_host(prefixes.capacity() - 1).unwrap();
        assert_eq!(last.v4, Ipv4Addr::new(100, 64, 239, 255));
    }

    #[test]
    fn a_host_from_before_services_had_addresses_is_still_known_by_its_own() {
        let prefixes =
            OverlayPrefixes::checked("10.0.0.0/26".parse().unwrap(), "fd00::/48".parse().unwrap())
                .unwrap();
        let old = prefixes.nth_host(46).unwrap();
        assert!(prefixes.services().contains(old.v4.into()));
        assert_eq!(prefixes.index_of(old), Some(46));
    }

    #[test]
    fn the_first_sixteen_and_the_last_address_are_nobodys() {
        let prefixes =
            OverlayPrefixes::checked("10.0.0.0/26".parse().unwrap(), "fd00::/48".parse().unwrap())
                .unwrap();
        assert_eq!(prefixes.capacity(), 44);
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
        assert_eq!(last.v6, "fd00::efff".parse::<Ipv6Addr>().unwrap());
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

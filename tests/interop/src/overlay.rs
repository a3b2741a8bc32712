//! The overlay that all devices of a test share: its prefixes, its hosts' addresses, its MTU.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use model::address::{HostAddresses, OverlayPrefixes};

/// Bytes of the largest packet in the tunnel: an Ethernet frame less IPv6, UDP and WireGuard.
pub const OVERLAY_MTU: u16 = 1420;
/// The UDP port of every device; each has a namespace of its own.
pub const WIREGUARD_PORT: u16 = 51820;

/// Returns the prefixes that all devices have their addresses in.
pub fn overlay() -> OverlayPrefixes {
    OverlayPrefixes {
        v4: Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 16),
        v6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 0), 48),
    }
}

/// Returns the overlay addresses of the device with that number.
///
/// # Panics
/// The number is beyond what the overlay can hold.
pub fn addresses(number: u8) -> HostAddresses {
    overlay()
        .nth_host(u32::from(number))
        .expect("a /16 holds more than 256 hosts")
}

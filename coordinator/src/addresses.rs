//! Where this machine can be reached, when nobody says: what the kernel lists under /proc/net.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use model::address::{OverlayPrefixes, split_host_port};
use model::limits::Limits;

use crate::overlap;

/// How interfaces of `meshd` are called. Their addresses are the fleet's own: a host reaches them only
/// once it has joined.
const OVERLAY_INTERFACES: &str = "mesh";

/// Returns `host:port` for the addresses at which others may reach this machine, the one of its
/// default route first. Never empty: loopback when there is nothing else.
pub(crate) fn advertised(bound: SocketAddr) -> Vec<String> {
    let addresses = match bound.ip() {
        ip if !ip.is_unspecified() => vec![ip],
        IpAddr::V4(_) => usable(of_default_route(), listed_v4()),
        IpAddr::V6(_) => {
            let listed = listed_v4().into_iter().chain(listed_v6()).collect();
            usable(of_default_route(), listed)
        }
    };
    addresses
        .into_iter()
        .map(|ip| SocketAddr::new(ip, bound.port()).to_string())
        .collect()
}

/// Returns those of found addresses that do not lie in the fleet's overlay; loopback when there is
/// nothing else.
pub(crate) fn outside(
    overlay: OverlayPrefixes,
    found: Vec<String>,
    bound: SocketAddr,
) -> Vec<String> {
    let is_outside = |address: &String| {
        let host = split_host_port(address).map_or(address.as_str(), |(host, _)| host);
        let ip: Option<IpAddr> = host.parse().ok();
        ip.is_none_or(|ip| !overlay.contains(ip))
    };
    let outside: Vec<String> = found.into_iter().filter(is_outside).collect();
    match outside.is_empty() {
        true => vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bound.port()).to_string()],
        false => outside,
    }
}

fn usable(first: Option<IpAddr>, listed: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in first.into_iter().chain(listed) {
        let is_new = !addresses.contains(&ip);
        if is_new && is_usable(ip) && addresses.len() < Limits::COORDINATOR_ADDRESSES {
            addresses.push(ip);
        }
    }
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses
}

fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !(v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified()),
    }
}

/// Asks the kernel which address it would speak from; connecting a UDP socket sends nothing.
fn of_default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // TEST-NET-1 of RFC 5737: nobody's, hence behind the default route.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn listed_v4() -> Vec<IpAddr> {
    let local = parse_fib_trie(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default());
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    not_routed_to_overlays(local, &routes)
}

/// The kernel lists IPv4 addresses without their interfaces; an overlay's address lies in the route
/// that leads into it.
fn not_routed_to_overlays(mut addresses: Vec<IpAddr>, routes: &str) -> Vec<IpAddr> {
    let (heading, lines) = routes.split_once('\n').unwrap_or_default();
    let overlays = lines
        .lines()
        .filter(|line| line.starts_with(OVERLAY_INTERFACES));
    let overlays: Vec<&str> = std::iter::once(heading).chain(overlays).collect();
    let overlays = overlap::parse_v4(&overlays.join("\n"));
    addresses.retain(|ip| !overlays.iter().any(|route| route.contains(ip)));
    addresses
}

fn listed_v6() -> Vec<IpAddr> {
    parse_if_inet6(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default())
}

/// A local address is a leaf `|-- ADDRESS`, followed by a line `/32 host LOCAL`.
fn parse_fib_trie(text: &str) -> Vec<IpAddr> {
    let mut leaf = None;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(leaf.take().map(IpAddr::V4).filter(|ip| !found.contains(ip)));
        }
    }
    found
}

/// One line an address: 32 hexadecimal digits, then index, prefix length, scope (00 is global),
/// flags (0x80: not yet usable for good), device.
fn parse_if_inet6(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let bits = u128::from_str_radix(fields.next()?, 16).ok()?;
        let scope = fields.nth(2)?;
        let device = fields.nth(1)?;
        let is_reachable = scope == "00" && !device.starts_with(OVERLAY_INTERFACES);
        is_reachable.then(|| IpAddr::V6(Ipv6Addr::from(bits)))
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_found_among_routes() {
        let text = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                    +-- 10.1.0.0/24 2 0 2\n        |-- 10.1.0.0\n           /24 link UNICAST\n        \
                    |-- 10.1.0.7\n           /32 host LOCAL\n        |-- 10.1.0.255\n           \
                    /32 link BROADCAST\nMain:\n        |-- 10.1.0.7\n           /32 host LOCAL\n";
        assert_eq!(
            parse_fib_trie(text),
            ["10.1.0.7".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn global_ipv6_addresses_are_found() {
        let text = "fe800000000000000000000000000001 02 40 20 80     eth0\n\
                    20010db8000000000000000000000007 02 40 00 80     eth0\n\
                    00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(
            parse_if_inet6(text),
            ["2001:db8::7".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn addresses_of_an_overlay_are_nobodys_way_in() {
        let v6 = "20010db8000000000000000000000007 02 40 00 80     eth0\n\
                  fd000000000000000000000000000007 05 30 00 80    mesh0\n";
        assert_eq!(
            parse_if_inet6(v6),
            ["2001:db8::7".parse::<IpAddr>().unwrap()]
        );
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let routes = format!(
            "Iface\tDestination\tGateway\n\
             eth0\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n\
             mesh0\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n",
            word([10, 1, 0, 0]),
            word([255, 255, 0, 0]),
            word([10, 64, 0, 0]),
            word([255, 255, 0, 0]),
        );
        let [ours, overlays] = ["10.1.0.7", "10.64.0.9"].map(|ip| ip.parse().unwrap());
        assert_eq!(
            not_routed_to_overlays(vec![ours, overlays], &routes),
            [ours]
        );
    }

    #[test]
    fn addresses_in_the_overlay_are_left_out_whatever_their_interface_is_called() {
        let (v4, v6) = ("10.64.0.0/16", "fd12:3456:789a::/48");
        let overlay = OverlayPrefixes::checked(v4.parse().unwrap(), v6.parse().unwrap()).unwrap();
        let bound = "0.0.0.0:7443".parse().unwrap();
        let found = [
            "10.1.0.7:7443",
            "10.64.0.9:7443",
            "[fd12:3456:789a::9]:7443",
        ];
        let found = found.map(str::to_owned);
        assert_eq!(outside(overlay, found.to_vec(), bound), found[..1]);
        assert_eq!(
            outside(overlay, found[1..].to_vec(), bound),
            ["127.0.0.1:7443"]
        );
    }

    #[test]
    fn a_bound_address_is_the_only_one() {
        let bound = "[2001:db8::1]:443".parse().unwrap();
        assert_eq!(advertised(bound), ["[2001:db8::1]:443"]);
    }

    #[test]
    fn what_nobody_can_reach_is_left_out() {
        let listed = ["127.0.0.1", "169.254.1.1", "fe80::1", "::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(
            usable(None, listed.to_vec()),
            [IpAddr::V4(Ipv4Addr::LOCALHOST)]
        );
    }

    #[test]
    fn the_default_route_comes_first_and_once() {
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        assert_eq!(usable(Some(b), vec![a, b]), [b, a]);
    }
}

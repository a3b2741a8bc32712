//! Where this machine can be reached, when nobody says: what the kernel lists under /proc/net.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use model::limits::Limits;

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
    parse_fib_trie(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default())
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
        (scope == "00").then(|| IpAddr::V6(Ipv6Addr::from(bits)))
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

//! Whether a prefix that is meant for a new fleet's overlay is in use already, as far as the
//! coordinator's own machine can tell: its routes, and the addresses where hosts are to find it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::address::split_host_port;

/// Refuses a prefix that this machine has routes into.
///
/// # Errors
/// Names prefix and route, and says what to choose instead.
pub(crate) fn refuse_routes(prefix: IpNet) -> Result<(), String> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let routes = parse_v4(&v4).into_iter().chain(parse_v6(&v6));
    match overlapping(prefix, routes) {
        None => Ok(()),
        Some(route) => Err(format!(
            "the overlay's prefix {prefix} overlaps with the route {route} of this machine, and \
             hosts with such a route would refuse it; choose another with --overlay-{}",
            family(prefix)
        )),
    }
}

/// Refuses addresses of the coordinator that lie in the overlay: who is to join cannot reach them.
///
/// # Errors
/// Names the address and the prefix.
pub(crate) fn refuse_advertised(prefix: IpNet, advertise: &[String]) -> Result<(), String> {
    for address in advertise {
        let host = split_host_port(address).map_or(address.as_str(), |(host, _)| host);
        let ip: Option<IpAddr> = host.parse().ok();
        if ip.is_some_and(|ip| prefix.contains(&ip)) {
            return Err(format!(
                "the address {address} that hosts are told lies in the overlay ({prefix}), which \
                 they reach only once they have joined; advertise another with --advertise"
            ));
        }
    }
    Ok(())
}

fn family(prefix: IpNet) -> &'static str {
    match prefix {
        IpNet::V4(_) => "v4",
        IpNet::V6(_) => "v6",
    }
}

/// Default routes lead everywhere and overlap with nothing.
fn overlapping(prefix: IpNet, routes: impl IntoIterator<Item = IpNet>) -> Option<IpNet> {
    let mut routes = routes.into_iter().filter(|route| route.prefix_len() > 0);
    routes.find(|route| prefix.contains(route) || route.contains(&prefix))
}

/// After a heading one line a route: device, destination and gateway as hexadecimal words of this
/// machine's byte order, flags, three numbers, the mask likewise.
pub(crate) fn parse_v4(text: &str) -> Vec<IpNet> {
    let word = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::to_ne_bytes);
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, mask) = (word(fields.get(1)?)?, word(fields.get(7)?)?);
        Ipv4Net::with_netmask(Ipv4Addr::from(address), Ipv4Addr::from(mask)).ok()
    };
    let lines = text.lines().skip(1).filter_map(route);
    lines.map(IpNet::V4).collect()
}

/// One line a route: destination as 32 hexadecimal digits, length as two, and more.
fn parse_v6(text: &str) -> Vec<IpNet> {
    let route = |line: &str| {
        let mut fields = line.split_whitespace();
        let bits = u128::from_str_radix(fields.next()?, 16).ok()?;
        let length = u8::from_str_radix(fields.next()?, 16).ok()?;
        Ipv6Net::new(Ipv6Addr::from(bits), length).ok()
    };
    text.lines().filter_map(route).map(IpNet::V6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "10.64.0.0/16";
    const V6: &str = "fd12:3456:789a::/48";

    fn found(prefix: &str, routes: Vec<IpNet>) -> Option<String> {
        overlapping(prefix.parse().unwrap(), routes).map(|route| route.to_string())
    }

    #[test]
    fn routes_into_around_and_beside_the_overlay_are_told_apart() {
        let heading = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let line = |address: [u8; 4], mask: [u8; 4]| {
            let [address, mask] = [address, mask].map(u32::from_ne_bytes);
            format!("{heading}eth0\t{address:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0\n")
        };
        let inside = line([10, 64, 3, 0], [255, 255, 255, 0]);
        assert_eq!(found(V4, parse_v4(&inside)).unwrap(), "10.64.3.0/24");
        let around = line([10, 0, 0, 0], [255, 0, 0, 0]);
        assert_eq!(found(V4, parse_v4(&around)).unwrap(), "10.0.0.0/8");
        let beside = line([10, 65, 0, 0], [255, 255, 0, 0]);
        assert_eq!(found(V4, parse_v4(&beside)), None);
        let default = line([0, 0, 0, 0], [0, 0, 0, 0]);
        assert_eq!(parse_v4(&default).len(), 1);
        assert_eq!(found(V4, parse_v4(&default)), None);
    }

    #[test]
    fn ipv6_routes_are_read_as_the_kernel_writes_them() {
        let text = "fd12345678 9a\nfd123456789a00010000000000000000 40 \
                    00000000000000000000000000000000 00 00000000000000000000000000000000 \
                    00000100 00000001 00000000 00000001 eth0\n";
        assert_eq!(found(V6, parse_v6(text)).unwrap(), "fd12:3456:789a:1::/64");
        assert_eq!(found(V4, parse_v6(text)), None);
    }

    #[test]
    fn an_advertised_address_in_the_overlay_is_refused_by_name() {
        let advertise = ["c1.example.com:7443", "[fd12:3456:789a::5]:7443"].map(str::to_owned);
        let refused = refuse_advertised(V6.parse().unwrap(), &advertise).unwrap_err();
        assert!(refused.contains("[fd12:3456:789a::5]:7443"), "{refused}");
        assert!(refuse_advertised(V6.parse().unwrap(), &advertise[..1]).is_ok());
        assert!(refuse_advertised(V4.parse().unwrap(), &advertise).is_ok());
    }
}

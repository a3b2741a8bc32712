//! Which connections of this host's programs are caught on their way out and brought to the proxy:
//! two sets of the daemon's nftables table and the chain that asks them. The sets change element by
//! element; the chain outlives a crash of the daemon, so that what it caught is refused then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use model::address::{HostAddresses, OverlayPrefixes};
use model::rule::PortRange;

/// What the daemon's own sockets are marked with, so that what it dials is not caught. Only root and
/// who has `CAP_NET_ADMIN` or `CAP_NET_RAW` can mark a socket, and the chain believes root alone.
pub const OWN_MARK: u32 = 0x6d65_7368; // "mesh"

/// Before the chains of others at -100 (`dstnat`): the first that changes a destination wins.
const PRIORITY: i32 = -110;

/// Where connections are brought to, unless it is said otherwise; no well-known service has it.
pub const DEFAULT_PORT: u16 = 747;

/// What is caught on its way out of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interception {
    /// Where it is brought to: a port of this host below 1024, which no ordinary user can take.
    port: u16,
    /// Virtual addresses of services, with whatever port.
    services: BTreeSet<IpAddr>,
    /// Addresses and ports of other hosts; no two ranges of one address meet.
    direct: BTreeSet<(IpAddr, u16, u16)>,
}

impl Default for Interception {
    /// Nothing is caught yet.
    fn default() -> Self {
        Self::new(DEFAULT_PORT, [], [])
    }
}

impl Interception {
    /// Takes where connections are brought to, the virtual addresses of services, and the ports of
    /// other hosts that may not be dialled past the proxy.
    pub fn new(
        port: u16,
        services: impl IntoIterator<Item = HostAddresses>,
        direct: impl IntoIterator<Item = (HostAddresses, PortRange)>,
    ) -> Self {
        let both = |at: HostAddresses| [IpAddr::V4(at.v4), IpAddr::V6(at.v6)];
        let mut ranges: BTreeMap<IpAddr, Vec<PortRange>> = BTreeMap::new();
        for (host, range) in direct {
            for address in both(host) {
                ranges.entry(address).or_default().push(range);
            }
        }
        let joined = |(address, ranges): (IpAddr, Vec<PortRange>)| {
            let ranges = join(ranges).into_iter();
            ranges.map(move |(first, last)| (address, first, last))
        };
        Self {
            port,
            services: services.into_iter().flat_map(both).collect(),
            direct: ranges.into_iter().flat_map(joined).collect(),
        }
    }

    /// Whether there is nothing to catch.
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.direct.is_empty()
    }

    /// Returns the sets and the chain in the language of nft(8): nothing where there is nothing to
    /// catch, since with such a chain the kernel tracks every connection of the host.
    pub(super) fn rules(&self, overlay: OverlayPrefixes) -> String {
        let mut rules = String::new();
        if self.is_empty() {
            return rules;
        }
        for (name, kind, is_of_family) in families() {
            let services = self.services.iter().filter(|it| is_of_family(it));
            let services = elements(services.map(IpAddr::to_string));
            let direct = self.direct.iter().filter(|(ip, ..)| is_of_family(ip));
            let direct = elements(direct.map(element));
            let _ = write!(
                rules,
                "  set services_{name} {{\n    type {kind}\n{services}  }}\n  \
                   set direct_{name} {{\n    type {kind} . inet_service\n    flags interval\n{direct}  }}\n"
            );
        }
        let _ = write!(
            rules,
            r#"  chain caught {{
    type nat hook output priority {PRIORITY}; policy accept;
    ip daddr != {v4} accept
    ip6 daddr != {v6} accept
    meta mark {OWN_MARK:#x} meta skuid 0 accept comment "the daemon's own"
    ip daddr @services_v4 meta l4proto tcp redirect to :{port} comment "calls of services"
    ip6 daddr @services_v6 meta l4proto tcp redirect to :{port} comment "calls of services"
    ip daddr . tcp dport @direct_v4 redirect to :{port} comment "rules name workloads or requests"
    ip6 daddr . tcp dport @direct_v6 redirect to :{port} comment "rules name workloads or requests"
  }}
"#,
            v4 = overlay.v4,
            v6 = overlay.v6,
            port = self.port,
        );
        rules
    }

    /// Returns what makes this out of `before` in one transaction, element by element; `None`: the
    /// chain itself differs, and has to be made anew.
    pub(super) fn change(&self, before: &Self, table: &str) -> Option<String> {
        if self.port != before.port || self.is_empty() != before.is_empty() {
            return None;
        }
        let mut script = String::new();
        for (verb, from, to) in [("delete", before, self), ("add", self, before)] {
            for (name, _, is_of_family) in families() {
                let services = from.services.difference(&to.services);
                let services = services
                    .filter(|it| is_of_family(it))
                    .map(IpAddr::to_string);
                let direct = from.direct.difference(&to.direct);
                let direct = direct.filter(|(ip, ..)| is_of_family(ip)).map(element);
                for (set, items) in [
                    ("services", services.collect::<Vec<_>>()),
                    ("direct", direct.collect::<Vec<_>>()),
                ] {
                    if !items.is_empty() {
                        let items = items.join(", ");
                        let _ = writeln!(
                            script,
                            "{verb} element inet {table} {set}_{name} {{ {items} }}"
                        );
                    }
                }
            }
        }
        Some(script)
    }
}

type IsOfFamily = fn(&IpAddr) -> bool;

fn families() -> [(&'static str, &'static str, IsOfFamily); 2] {
    [
        ("v4", "ipv4_addr", IpAddr::is_ipv4),
        ("v6", "ipv6_addr", IpAddr::is_ipv6),
    ]
}

fn element((address, first, last): &(IpAddr, u16, u16)) -> String {
    match first == last {
        true => format!("{address} . {first}"),
        false => format!("{address} . {first}-{last}"),
    }
}

fn elements(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match items.is_empty() {
        true => String::new(),
        false => format!("    elements = {{ {} }}\n", items.join(", ")),
    }
}

/// Joins ranges that overlap or touch: the kernel takes no overlaps.
fn join(mut ranges: Vec<PortRange>) -> Vec<(u16, u16)> {
    ranges.sort_by_key(|range| (range.first, range.last));
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some((_, last)) if range.first <= last.saturating_add(1) => {
                *last = (*last).max(range.last);
            }
            _ => joined.push((range.first, range.last)),
        }
    }
    joined
}

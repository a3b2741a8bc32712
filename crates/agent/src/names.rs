//! What DNS answers: a snapshot of every name that the map has, replaced whole. Case, wire format
//! and sockets are the DNS server's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::address::{HostAddresses, OverlayPrefixes};
use model::ids::HostId;
use model::name::Name;
use model::rule::{Protocol, Rule, Selector, Service};

use crate::map::Map;

/// A snapshot of every name of the overlay that this host knows. Empty when it is no member.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Names {
    suffix: String,
    overlay: Option<OverlayPrefixes>,
    own: Option<HostAddresses>,
    entries: BTreeMap<Name, NameEntry>,
    reverse: BTreeMap<IpAddr, Name>,
}

/// What one name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// Host or service.
    pub kind: NameKind,
    /// Overlay addresses of the host, or of the endpoints of the service: ascending, none when it has
    /// no endpoint that this host knows.
    pub addresses: Vec<HostAddresses>,
}

/// Host or service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A host.
    Host,
    /// A service at its endpoints.
    Service {
        /// Where the endpoints listen.
        port: u16,
        /// What they speak.
        protocol: Protocol,
        /// The service's own addresses; `None`: it is reached at those of its endpoints.
        addresses: Option<HostAddresses>,
    },
}

impl NameEntry {
    /// Returns the IPv4 addresses that the name resolves to, for an A record.
    pub fn v4(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.resolved().iter().map(|addresses| addresses.v4)
    }

    /// Returns the IPv6 addresses that the name resolves to, for an AAAA record.
    pub fn v6(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.resolved().iter().map(|addresses| addresses.v6)
    }

    /// Returns the addresses that are nobody else's.
    fn own(&self) -> Vec<IpAddr> {
        match self.kind {
            NameKind::Service {
                addresses: None, ..
            } => Vec::new(),
            _ => {
                let v4 = self.v4().map(IpAddr::from);
                v4.chain(self.v6().map(IpAddr::from)).collect()
            }
        }
    }

    fn resolved(&self) -> &[HostAddresses] {
        match &self.kind {
            NameKind::Service {
                addresses: Some(own),
                ..
            } => std::slice::from_ref(own),
            _ => &self.addresses,
        }
    }
}

impl Names {
    /// Returns what follows every name, without dots at the ends; empty when this is no member.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// Returns the prefixes whose reverse zones this snapshot answers for.
    pub fn overlay(&self) -> Option<OverlayPrefixes> {
        self.overlay
    }

    /// Returns whether an address is this host's own in the overlay.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.is_some_and(|own| own.contains(address))
    }

    /// Looks up a single lower-case label, without the suffix.
    pub fn lookup(&self, name: &str) -> Option<&NameEntry> {
        self.entries.get(&name.parse::<Name>().ok()?)
    }

    /// Returns whether a name is that of a service here.
    pub fn has_service(&self, name: &Name) -> bool {
        let entry = self.entries.get(name);
        entry.is_some_and(|entry| entry.kind != NameKind::Host)
    }

    /// Returns the host or the service that has an overlay address.
    pub fn reverse(&self, address: IpAddr) -> Option<&Name> {
        self.reverse.get(&address)
    }

    /// Returns every name with what it stands for, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &NameEntry)> {
        self.entries.iter()
    }

    /// Returns whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes a snapshot of names that are known already, as tests of what uses one do.
    pub fn new(
        suffix: &str,
        overlay: OverlayPrefixes,
        entries: impl IntoIterator<Item = (Name, NameEntry)>,
    ) -> Self {
        let mut names = Self {
            suffix: suffix.to_owned(),
            overlay: Some(overlay),
            ..Self::default()
        };
        for (name, entry) in entries {
            names.add(name, entry);
        }
        names
    }

    /// Makes the snapshot of a map: services first, so that on a clash the host's name stays what
    /// its record says. Of a service there is only what this host offers itself or `may_reach`, and
    /// the bare name when a rule lets this host reach it, wherever it may once be.
    pub(crate) fn of(map: &Map, may_reach: impl Fn(HostId, &Service) -> bool) -> Self {
        let mut names = Self {
            suffix: map.statement().dns_suffix.clone(),
            overlay: Some(map.statement().overlay),
            own: Some(map.me().addresses),
            ..Self::default()
        };
        let named = services_named_for(map);
        for service in &map.bundle().services {
            let entry = service_entry(service, map, &may_reach);
            if !entry.addresses.is_empty() || named.contains(&service.name) {
                names.add(service.name.clone(), entry);
            }
        }
        for host in map.hosts() {
            let entry = NameEntry {
                kind: NameKind::Host,
                addresses: vec![host.addresses],
            };
            names.add(host.name.clone(), entry);
        }
        names
    }

    /// Takes the place of what had the name before.
    fn add(&mut self, name: Name, entry: NameEntry) {
        if let Some(before) = self.entries.remove(&name) {
            for address in before.own() {
                self.reverse.remove(&address);
            }
        }
        for address in entry.own() {
            self.reverse.insert(address, name.clone());
        }
        self.entries.insert(name, entry);
    }
}

/// Returns the services that an allow of this host names as what may be reached.
fn services_named_for(map: &Map) -> BTreeSet<&Name> {
    let bundle = map.bundle();
    let is_mine = |rule: &&Rule| {
        let mut from = rule.from.iter();
        from.any(|from| from.matches(map.me(), bundle))
    };
    let opened = bundle.allow.iter().filter(is_mine);
    opened
        .flat_map(|rule| &rule.to)
        .filter_map(|to| match to {
            Selector::Service(name) => Some(name),
            _ => None,
        })
        .collect()
}

fn service_entry(
    service: &Service,
    map: &Map,
    may_reach: &impl Fn(HostId, &Service) -> bool,
) -> NameEntry {
    let me = map.me().host;
    let mut addresses: Vec<HostAddresses> = map
        .hosts()
        .filter(|host| {
            service
                .endpoints
                .iter()
                .any(|endpoint| endpoint.selects(host))
        })
        .filter(|host| host.host == me || may_reach(host.host, service))
        .map(|host| host.addresses)
        .collect();
    addresses.sort_unstable();
    NameEntry {
        kind: NameKind::Service {
            port: service.port,
            protocol: service.protocol,
            addresses: service.addresses,
        },
        addresses,
    }
}

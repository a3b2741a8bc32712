//! From a map to what a proxy needs of it: the services with virtual addresses that this host may
//! call or offers, and the hosts at the other ends. It is made anew only when one of those changed,
//! so that a proxy is not told of every host that comes or goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::catalogue::{Catalogue, CatalogueHost, CatalogueService, STREAM_PORT};
use model::ids::HostId;
use model::name::Name;
use model::record::HostRecord;
use model::rule::{Direction, Rule, Selector, Service};
use policy::Gate;

use crate::enforcement::Enforcement;
use crate::map::{Map, Peer, Policy};
use crate::names::Names;

/// What the proxy was told.
#[derive(Debug, Default)]
pub(crate) struct Services {
    told: Option<Told>,
}

#[derive(Debug)]
struct Told {
    catalogue: Arc<Catalogue>,
    gate: Arc<Gate>,
    /// What the gate was made of, beside the hosts of the catalogue.
    policy: Arc<Policy>,
}

impl Services {
    /// Takes a map; returns what the proxy has to be told, if that is something else.
    pub(crate) fn change(
        &mut self,
        map: &Map,
        names: &Names,
        enforcement: &Enforcement,
    ) -> Option<(Arc<Catalogue>, Arc<Gate>)> {
        let catalogue = catalogue_of(map, names, enforcement);
        let before = self.told.take();
        let (is_same, gate) = match &before {
            Some(told) => (
                *told.catalogue == catalogue,
                told.decides_as(map, &catalogue).then(|| told.gate.clone()),
            ),
            None => (false, None),
        };
        if is_same && gate.is_some() {
            self.told = before;
            return None;
        }
        let gate = gate.unwrap_or_else(|| Arc::new(gate_of(map, &catalogue)));
        let catalogue = match before {
            Some(told) if is_same => told.catalogue,
            _ => Arc::new(catalogue),
        };
        self.told = Some(Told {
            catalogue: catalogue.clone(),
            gate: gate.clone(),
            policy: map.policy.clone(),
        });
        Some((catalogue, gate))
    }

    /// Returns what the proxy was told last.
    pub(crate) fn catalogue(&self) -> Option<&Catalogue> {
        self.told.as_ref().map(|told| &*told.catalogue)
    }

    /// Forgets it all; returns whether the proxy was told anything.
    pub(crate) fn clear(&mut self) -> bool {
        self.told.take().is_some()
    }
}

impl Told {
    /// Returns whether a gate of these would decide as the one that was told.
    fn decides_as(&self, map: &Map, catalogue: &Catalogue) -> bool {
        let is_same_policy = Arc::ptr_eq(&self.policy, &map.policy) || self.policy == map.policy;
        let (before, now) = (self.catalogue.hosts.values(), catalogue.hosts.values());
        is_same_policy && before.map(meant).eq(now.map(meant))
    }
}

/// What of a host rules can mean.
fn meant(host: &CatalogueHost) -> impl PartialEq + '_ {
    (host.host, &host.name, &host.labels, host.addresses)
}

fn gate_of(map: &Map, catalogue: &Catalogue) -> Gate {
    let peers: Vec<&HostRecord> = map
        .peer_records()
        .filter(|peer| catalogue.hosts.contains_key(&peer.host))
        .collect();
    Gate::compile(map.me(), &peers, map.bundle(), map.policy_version())
}

fn catalogue_of(map: &Map, names: &Names, enforcement: &Enforcement) -> Catalogue {
    let statement = map.statement();
    let services = services_of(map, names);
    let concerned = hosts_of(map, &services, enforcement);
    let peers = map.peers.iter().filter(|(id, _)| concerned.contains(id));
    let me = map.me();
    let hosts = peers.map(|(id, peer)| (*id, host_of(&peer.known.record, Some(peer))));
    Catalogue {
        fleet_name: statement.fleet_name.clone(),
        suffix: statement.dns_suffix.clone(),
        me: me.host,
        policy_version: map.policy_version(),
        service_prefixes: statement.overlay.services(),
        hosts: hosts.chain([(me.host, host_of(me, None))]).collect(),
        services,
    }
}

fn services_of(map: &Map, names: &Names) -> BTreeMap<Name, CatalogueService> {
    let services = map.bundle().services.iter();
    services
        // What has no name here is none of this host's.
        .filter(|service| names.has_service(&service.name))
        .filter_map(|service| {
            let mut endpoints: Vec<HostId> = map
                .hosts()
                .filter(|host| offers(host, service))
                .map(|host| host.host)
                .collect();
            endpoints.sort_unstable();
            let service = CatalogueService {
                addresses: service.addresses?,
                service: service.clone(),
                endpoints,
            };
            Some((service.service.name.clone(), service))
        })
        .collect()
}

/// Returns the peers that streams may come from or go to.
fn hosts_of(
    map: &Map,
    services: &BTreeMap<Name, CatalogueService>,
    enforcement: &Enforcement,
) -> BTreeSet<HostId> {
    let me = map.me().host;
    let mut hosts = BTreeSet::new();
    for service in services.values() {
        hosts.extend(&service.endpoints);
        if service.endpoints.contains(&me) {
            let calls =
                |peer: &HostId| enforcement.may_allow(Direction::Inbound, *peer, &service.service);
            hosts.extend(map.peers.keys().copied().filter(calls));
        }
    }
    let bundle = map.bundle();
    let rules = bundle.allow.iter().chain(&bundle.deny);
    for rule in rules.filter(|rule| rule.needs_more_than_packets()) {
        hosts.extend(others_of(rule, map));
    }
    hosts
}

/// Returns the peers at the ends of a rule that this host is at the other end of.
fn others_of<'m>(rule: &'m Rule, map: &'m Map) -> impl Iterator<Item = HostId> + 'm {
    let bundle = map.bundle();
    let is_in = move |selectors: &[Selector], host: &HostRecord| {
        selectors.iter().any(|it| it.matches(host, bundle))
    };
    let (from_me, to_me) = (is_in(&rule.from, map.me()), is_in(&rule.to, map.me()));
    map.peer_records()
        .filter(move |peer| {
            (from_me && is_in(&rule.to, peer)) || (to_me && is_in(&rule.from, peer))
        })
        .map(|peer| peer.host)
}

fn offers(host: &HostRecord, service: &Service) -> bool {
    service.endpoints.iter().any(|it| it.selects(host))
}

fn host_of(record: &HostRecord, peer: Option<&Peer>) -> CatalogueHost {
    CatalogueHost {
        host: record.host,
        name: record.name.clone(),
        addresses: record.addresses,
        tls_key_hash: record.tls_key_hash,
        labels: record.labels.clone(),
        streams: peer.map(streams_of).unwrap_or_default(),
        datagrams: peer.map(datagrams_of).unwrap_or_default(),
    }
}

/// Returns where a peer's streams may be reached: wherever its packets may, at its port for streams.
fn streams_of(peer: &Peer) -> Vec<SocketAddr> {
    let port = peer.stream_port.unwrap_or(STREAM_PORT);
    let mut streams = Vec::with_capacity(peer.endpoints.len());
    for endpoint in &peer.endpoints {
        let address = SocketAddr::new(endpoint.address.ip(), port);
        if !streams.contains(&address) {
            streams.push(address);
        }
    }
    streams
}

/// Returns where a peer's packets may be sent: to the port of its tunnels.
fn datagrams_of(peer: &Peer) -> Vec<SocketAddr> {
    let endpoints = peer.endpoints.iter();
    endpoints.map(|endpoint| endpoint.address).collect()
}

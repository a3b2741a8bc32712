//! The services that this host may reach or offers: what an operator here is told of them.

use std::net::{IpAddr, SocketAddr};

use model::address::HostAddresses;
use model::local::{ServiceEndpoint, ServiceView};
use model::record::HostRecord;
use model::rule::{Bundle, Rule, Selector, Service};
use policy::reference::decide;

use super::Agent;
use crate::at_most::widest;
use crate::map::Map;

impl Agent {
    pub(super) fn service_views(&self) -> Vec<ServiceView> {
        let Some(map) = self.staging.in_force() else {
            return Vec::new();
        };
        let widest = widest(map.bundle());
        let rules = widest.as_ref().unwrap_or(map.bundle());
        let mut views: Vec<ServiceView> = map
            .bundle()
            .services
            .iter()
            // What has no name in DNS here is none of this host's.
            .filter(|service| self.names.has_service(&service.name))
            .map(|service| self.view(service, map, rules))
            .collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        views
    }

    /// `rules`: what could be allowed at most.
    fn view(&self, service: &Service, map: &Map, rules: &Bundle) -> ServiceView {
        let mut endpoints: Vec<ServiceEndpoint> = map
            .hosts()
            .filter(|host| {
                let mut selectors = service.endpoints.iter();
                selectors.any(|selector| selector.selects(host))
            })
            .map(|host| ServiceEndpoint {
                streams: self.streams_for(service, host),
                ..endpoint(service, host, map, rules)
            })
            .collect();
        endpoints.sort_by(|one, other| one.host.cmp(&other.host));
        ServiceView {
            name: service.name.clone(),
            dns_name: format!("{}.{}", service.name, map.statement().dns_suffix),
            protocol: service.protocol.as_str().to_owned(),
            addresses: service.addresses.map(both).unwrap_or_default(),
            port: service.port,
            source: service.source.to_string(),
            selectors: service.endpoints.iter().map(ToString::to_string).collect(),
            endpoints,
            live: None,
            callers: Vec::new(),
        }
    }

    fn streams_for(&self, service: &Service, host: &HostRecord) -> Vec<SocketAddr> {
        let catalogue = self.services.catalogue();
        let known = catalogue.filter(|it| it.services.contains_key(&service.name));
        known
            .and_then(|catalogue| catalogue.hosts.get(&host.host))
            .map_or_else(Vec::new, |host| host.streams.clone())
    }
}

fn endpoint(service: &Service, host: &HostRecord, map: &Map, rules: &Bundle) -> ServiceEndpoint {
    let me = map.me();
    let here = host.host == me.host;
    let protocol = service.protocol.ip_protocol();
    let decision = (!here).then(|| decide(rules, me, host, protocol, service.port));
    let rule = decision.and_then(|decision| decision.rule);
    // What it asks for is left out of the widest rules.
    let bundle = map.bundle();
    let written = rule.and_then(|rule| bundle.allow.iter().find(|it| it.id == rule.id));
    ServiceEndpoint {
        host: host.name.clone(),
        addresses: both(host.addresses),
        here,
        allowed: decision.is_none_or(|decision| decision.allowed),
        rule: rule.map(|rule| rule.id.to_string()),
        only: written.map(asked_for).unwrap_or_default(),
        failing: None,
        streams: Vec::new(),
    }
}

fn both(addresses: HostAddresses) -> Vec<IpAddr> {
    vec![addresses.v4.into(), addresses.v6.into()]
}

/// Returns what a rule asks for beside hosts and ports.
fn asked_for(rule: &Rule) -> Vec<String> {
    let workloads = rule.from.iter().filter_map(|from| match from {
        Selector::Workload(name) => Some(format!("from {name}")),
        _ => None,
    });
    let is_open = rule.http.iter().any(|entry| entry.is_everything());
    let requests = rule
        .http
        .iter()
        .filter(|_| !is_open)
        .map(ToString::to_string);
    let when = rule.when.iter().map(|_| "at some hours".to_owned());
    workloads.chain(requests).chain(when).collect()
}

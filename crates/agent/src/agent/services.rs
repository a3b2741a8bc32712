//! The services that this host may reach or offers: what an operator here is told of them.

use std::net::IpAddr;

use model::local::{ServiceEndpoint, ServiceView};
use model::record::HostRecord;
use model::rule::Service;
use policy::reference::decide;

use super::Agent;
use crate::denials::protocol_name;
use crate::map::Map;

impl Agent {
    pub(super) fn service_views(&self) -> Vec<ServiceView> {
        let Some(map) = self.staging.in_force() else {
            return Vec::new();
        };
        let mut views: Vec<ServiceView> = map
            .bundle()
            .services
            .iter()
            // What has no name in DNS here is none of this host's.
            .filter(|service| self.names.has_service(&service.name))
            .map(|service| view(service, map))
            .collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        views
    }
}

fn view(service: &Service, map: &Map) -> ServiceView {
    let mut endpoints: Vec<ServiceEndpoint> = map
        .hosts()
        .filter(|host| {
            let mut selectors = service.endpoints.iter();
            selectors.any(|selector| selector.selects(host))
        })
        .map(|host| endpoint(service, host, map))
        .collect();
    endpoints.sort_by(|one, other| one.host.cmp(&other.host));
    ServiceView {
        name: service.name.clone(),
        dns_name: format!("{}.{}", service.name, map.statement().dns_suffix),
        protocol: protocol_name(service.protocol.ip_protocol()),
        port: service.port,
        source: service.source.to_string(),
        selectors: service.endpoints.iter().map(ToString::to_string).collect(),
        endpoints,
    }
}

fn endpoint(service: &Service, host: &HostRecord, map: &Map) -> ServiceEndpoint {
    let me = map.me();
    let here = host.host == me.host;
    let protocol = service.protocol.ip_protocol();
    let decision = (!here).then(|| decide(map.bundle(), me, host, protocol, service.port));
    let addresses: [IpAddr; 2] = [host.addresses.v4.into(), host.addresses.v6.into()];
    ServiceEndpoint {
        host: host.name.clone(),
        addresses: addresses.to_vec(),
        here,
        allowed: decision.is_none_or(|decision| decision.allowed),
        rule: decision
            .and_then(|decision| decision.rule)
            .map(|rule| rule.id.to_string()),
    }
}

//! Which leaves of a bundle's tree a host needs, so that it decides its own flows as the whole
//! bundle does.

use std::collections::BTreeSet;

use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, Protocol, Rule, Selector, Service, Traffic};

/// Returns the indices of the leaves that concern the host, ascending, in the order of
/// [`Bundle::leaves`]: the denies, the allows that it is an end of, and the services that these
/// name, that it offers, or that it may reach by their port; the workloads that it may run, and all
/// of them when a rule that it gets names one: who calls as another has to be told from who calls as
/// nobody. Depends on this host alone, so that other hosts that come and go change
/// nothing.
pub fn leaves_concerning(bundle: &Bundle, host: &HostRecord) -> Vec<u32> {
    let services = &bundle.services;
    let is_end = |ends: &[Selector]| ends.iter().any(|selector| selector.matches(host, bundle));
    let allows: Vec<(usize, &Rule)> = (1..)
        .zip(&bundle.allow)
        .filter(|(_, rule)| is_end(&rule.from) || is_end(&rule.to))
        .collect();
    let opened: Vec<&Traffic> = allows
        .iter()
        .filter(|(_, rule)| is_end(&rule.from))
        .map(|(_, rule)| &rule.traffic)
        .collect();
    let rules = allows.iter().map(|(_, rule)| *rule).chain(&bundle.deny);
    let needs_workloads = rules.clone().any(Rule::names_workload);
    let named: BTreeSet<&Name> = rules.flat_map(services_in).collect();
    let concerns = |service: &Service| {
        named.contains(&service.name)
            || service
                .endpoints
                .iter()
                .any(|endpoint| endpoint.selects(host))
            || opened.iter().any(|traffic| covers(traffic, service))
    };
    let services = (1 + bundle.allow.len()..)
        .zip(services)
        .filter(|(_, it)| concerns(it));
    let workloads = (1 + bundle.allow.len() + bundle.services.len()..)
        .zip(&bundle.workloads)
        .filter(|(_, it)| needs_workloads || it.hosts.iter().any(|hosts| hosts.selects(host)))
        .map(|(index, _)| index);
    let services = services.map(|(index, _)| index);
    std::iter::once(0)
        .chain(allows.iter().map(|(index, _)| *index))
        .chain(services)
        .chain(workloads)
        .map(|index| u32::try_from(index).expect("bounded by Limits::LEAVES"))
        .collect()
}

fn services_in(rule: &Rule) -> impl Iterator<Item = &Name> {
    rule.from
        .iter()
        .chain(&rule.to)
        .filter_map(|selector| match selector {
            Selector::Service(name) => Some(name),
            _ => None,
        })
}

/// Returns whether traffic to hosts includes the port of the service.
fn covers(traffic: &Traffic, service: &Service) -> bool {
    let Traffic::Ports { tcp, udp, .. } = traffic else {
        return *traffic == Traffic::All;
    };
    let ranges = match service.protocol {
        Protocol::Tcp | Protocol::Http | Protocol::Grpc | Protocol::Auto => tcp,
        Protocol::Udp => udp,
    };
    ranges.iter().any(|range| range.contains(service.port))
}

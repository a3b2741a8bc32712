//! One entry of `services:`.

use model::name::Name;
use model::rule::{HealthProbe, Protocol, Selector, Service, Workload};

use super::reader::{Fields, Section, text};
use super::selector::{self, Placed, Position};
use super::suggest::nearest;
use super::{Names, Nouns, ports};

mod settings;
use crate::diagnostic::{Complaint, Report, quoted};
use crate::yaml::{Entry, Node};

/// Reads a service.
///
/// `workloads` are those of the bundle that could be read: their hosts are endpoints where a service
/// names them.
pub(super) fn read(
    entry: &Entry,
    name: Name,
    nouns: &Nouns,
    workloads: &[Workload],
    names: &mut Names,
    report: &mut Report<'_>,
) -> Option<Service> {
    let place = entry.key_place;
    let fields = Fields::read(&entry.value, Section::Service, report)?;
    let missing = |key: &str, help: &str| {
        let complaint = Complaint::new(format!("service `{name}` has no `{key}`"));
        complaint.help(help)
    };
    let port = fields
        .required("port", place, report, || {
            missing("port", "for example `port: 5432`")
        })
        .and_then(|node| port(node, report));
    let protocol = fields
        .required("protocol", place, report, || {
            missing(
                "protocol",
                "write `protocol: http`, `grpc`, `tcp`, `udp` or `auto`",
            )
        })
        .and_then(|node| protocol(node, report));
    let endpoints = fields
        .required("endpoints", place, report, || {
            missing(
                "endpoints",
                "say which hosts offer it: `endpoints: [\"role=db\"]`",
            )
        })
        .and_then(|node| endpoints(node, nouns, workloads, names, report));
    let settings = settings::read(&fields, protocol, report);
    let (endpoints, offered_by) = endpoints?;
    let settings = settings?;
    let asks_units = settings
        .health
        .as_ref()
        .is_some_and(|it| it.probe == HealthProbe::Unit);
    if asks_units && !all_have_units(&offered_by, endpoints.len(), workloads) {
        let node = fields.node("health")?;
        let message = "`health: unit` asks the units of workloads, and not all endpoints are workloads \
                       with a unit";
        let help =
            "name workloads with `unit` as `endpoints`, or check `tcp` or `\"http /healthz\"`";
        report.error(node.place, Complaint::new(message).help(help));
        return None;
    }
    Some(Service {
        name,
        port: port?,
        protocol: protocol?,
        endpoints,
        workloads: offered_by,
        addresses: None,
        settings,
        source: place.source(report.files()),
    })
}

fn port(node: &Node, report: &mut Report<'_>) -> Option<u16> {
    let written = text(node, "`port`", report)?;
    report.check(node.place, ports::parse(written))
}

fn protocol(node: &Node, report: &mut Report<'_>) -> Option<Protocol> {
    let written = text(node, "`protocol`", report)?;
    report.check(node.place, parse_protocol(written))
}

fn parse_protocol(written: &str) -> Result<Protocol, Complaint> {
    let known = Protocol::ALL.into_iter().find(|it| it.as_str() == written);
    known.ok_or_else(|| {
        let complaint = Complaint::new(format!("{} is not a protocol", quoted(written)));
        match nearest(written, Protocol::ALL.map(Protocol::as_str)) {
            Some(meant) => complaint.suggest(Some(meant)),
            None => complaint.help("write `http`, `grpc`, `tcp`, `udp` or `auto`"),
        }
    })
}

/// Returns the hosts, and the workloads through which some of them were named.
fn endpoints(
    node: &Node,
    nouns: &Nouns,
    workloads: &[Workload],
    names: &mut Names,
    report: &mut Report<'_>,
) -> Option<(Vec<Selector>, Vec<Name>)> {
    let read = selector::read(
        node,
        "`endpoints`",
        Position::Endpoints,
        nouns,
        names,
        report,
    )?;
    let (mut endpoints, mut offered_by) = (Vec::new(), Vec::new());
    for Placed { selector, place } in read {
        match selector {
            Selector::Service(name) => {
                let message =
                    format!("`{name}` is a service, and endpoints are hosts or workloads");
                let help = "name the workload or the hosts, or select them by label";
                report.error(place, Complaint::new(message).help(help));
            }
            Selector::Workload(name) => {
                // One that could not be read is reported already.
                let workload = workloads.iter().find(|it| it.name == name)?;
                endpoints.extend(workload.hosts.iter().cloned());
                offered_by.push(name);
            }
            selector => endpoints.push(selector),
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    endpoints.retain(|selector| seen.insert(selector.clone()));
    Some((endpoints, offered_by))
}

/// Returns whether every endpoint comes from a workload that has a unit.
fn all_have_units(offered_by: &[Name], endpoint_count: usize, workloads: &[Workload]) -> bool {
    let named = || workloads.iter().filter(|it| offered_by.contains(&it.name));
    let hosts: std::collections::BTreeSet<&Selector> = named().flat_map(|it| &it.hosts).collect();
    named().all(|it| it.unit.is_some()) && hosts.len() == endpoint_count
}

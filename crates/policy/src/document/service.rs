//! One entry of `services:`.

use model::name::Name;
use model::rule::{Protocol, Selector, Service, TrafficSettings};

use super::reader::{Fields, Section, text};
use super::selector::{self, Placed};
use super::suggest::nearest;
use super::{Names, Services, later, ports};
use crate::diagnostic::{Complaint, Report, quoted};
use crate::yaml::{Entry, Node};

/// Reads a service.
///
/// `services` are the services named so far by the whole bundle, so that an endpoint that is one
/// can be told from a host.
pub(super) fn read(
    entry: &Entry,
    name: Name,
    services: &Services,
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
            missing("protocol", "write `protocol: tcp` or `udp`")
        })
        .and_then(|node| protocol(node, report));
    let endpoints = fields
        .required("endpoints", place, report, || {
            missing(
                "endpoints",
                "say which hosts offer it: `endpoints: [\"role=db\"]`",
            )
        })
        .and_then(|node| endpoints(node, services, names, report));
    Some(Service {
        name,
        port: port?,
        protocol: protocol?,
        endpoints: endpoints?,
        workloads: Vec::new(),
        addresses: None,
        settings: TrafficSettings::default(),
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
    match written {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        other => Err(later::protocol(other).unwrap_or_else(|| {
            let complaint = Complaint::new(format!("{} is not a protocol", quoted(other)));
            match nearest(other, ["tcp", "udp"]) {
                Some(meant) => complaint.suggest(Some(meant)),
                None => complaint.help("write `tcp` or `udp`"),
            }
        })),
    }
}

fn endpoints(
    node: &Node,
    services: &Services,
    names: &mut Names,
    report: &mut Report<'_>,
) -> Option<Vec<Selector>> {
    let read = selector::read(node, "`endpoints`", services, names, report)?;
    let mut endpoints = Vec::new();
    for Placed { selector, place } in read {
        if let Selector::Service(name) = &selector {
            let message = format!("`{name}` is a service, and endpoints are hosts");
            let help = "name the hosts, or select them by label";
            report.error(place, Complaint::new(message).help(help));
        }
        endpoints.push(selector);
    }
    Some(endpoints)
}

//! Selectors of hosts: `any`, `key=value,…`, a name, `host:NAME`, `service:NAME`.

use model::limits::Limits;
use model::name::{Label, Name};
use model::rule::Selector;

use super::later;
use super::reader::{one_or_more, text};
use super::suggest::nearest;
use super::{Names, Services};
use crate::diagnostic::{Complaint, Place, Report, quoted};
use crate::yaml::Node;

/// A selector and where it stands.
pub(super) struct Placed {
    pub(super) selector: Selector,
    pub(super) place: Place,
}

/// Reads one selector or a list of them, and notes which hosts they name.
pub(super) fn read(
    node: &Node,
    what: &str,
    services: &Services,
    names: &mut Names,
    report: &mut Report<'_>,
) -> Option<Vec<Placed>> {
    let items = one_or_more(node, what, Limits::SELECTORS_PER_LIST, report)?;
    let read: Vec<_> = items
        .iter()
        .map(|item| one(item, services, report))
        .collect();
    let read: Vec<Placed> = read.into_iter().collect::<Option<_>>()?;
    for Placed { selector, place } in &read {
        if let Selector::Host { name, .. } = selector {
            names.hosts.push((name.clone(), *place));
        }
        if read.len() > 1 && *selector == Selector::Any {
            let message = format!("`any` makes the other entries of {what} pointless");
            report.warn(
                *place,
                Complaint::new(message).help("keep `any`, or keep the others"),
            );
        }
    }
    Some(read)
}

fn one(node: &Node, services: &Services, report: &mut Report<'_>) -> Option<Placed> {
    let written = text(node, "a selector", report)?;
    let selector = report.check(node.place, parse(written, services))?;
    Some(Placed {
        selector,
        place: node.place,
    })
}

/// Parses a selector.
///
/// # Errors
/// Says what is wrong with it and what a selector looks like.
pub(super) fn parse(written: &str, services: &Services) -> Result<Selector, Complaint> {
    if written == "any" {
        return Ok(Selector::Any);
    }
    if let Some((kind, name)) = written.split_once(':') {
        return explicit(written, kind, name, services);
    }
    if written.contains('=') {
        return labels(written).map(Selector::Labels);
    }
    let name: Name = written
        .parse()
        .map_err(|error| not_a_selector(written, &error))?;
    if services.contains(&name) {
        return Ok(Selector::Service(name));
    }
    Ok(Selector::Host { name, id: None })
}

fn explicit(
    written: &str,
    kind: &str,
    name: &str,
    services: &Services,
) -> Result<Selector, Complaint> {
    if !matches!(kind, "host" | "service") {
        return Err(later::selector_kind(kind).unwrap_or_else(|| {
            Complaint::new(format!("{} is not a selector", quoted(written))).help(FORMS)
        }));
    }
    let name: Name = name.parse().map_err(|error| not_a_selector(name, &error))?;
    match (kind, services.contains(&name)) {
        ("service", true) => Ok(Selector::Service(name)),
        ("service", false) => {
            let complaint = Complaint::new(format!("there is no service `{name}` in this policy"));
            Err(match nearest(name.as_str(), services.names()) {
                Some(meant) => complaint.suggest(Some(meant)),
                None => complaint.help("describe it under `services:`"),
            })
        }
        (_, true) => Err(Complaint::new(format!(
            "`{name}` is a service of this policy, not a host"
        ))
        .help("hosts and services share one name space; write only the name")),
        (_, false) => Ok(Selector::Host { name, id: None }),
    }
}

fn labels(written: &str) -> Result<Vec<Label>, Complaint> {
    if written.split(',').count() > Limits::LABELS_PER_HOST {
        let message = format!("a host has at most {} labels", Limits::LABELS_PER_HOST);
        return Err(Complaint::new(message));
    }
    let mut labels: Vec<Label> = Vec::new();
    for part in written.split(',').map(str::trim) {
        let label: Label = part.parse().map_err(|error| {
            Complaint::new(format!("{error}")).help("write key=value,key=value")
        })?;
        if let Some(other) = labels.iter().find(|other| other.key == label.key) {
            let message = format!("no host matches {other} and {label}: a key has one value");
            let help = format!("for hosts with either, write a list: [\"{other}\", \"{label}\"]");
            return Err(Complaint::new(message).help(help));
        }
        labels.push(label);
    }
    Ok(labels)
}

const FORMS: &str = "a selector is `any`, `key=value`, the name of a host or service, \
                     `host:NAME` or `service:NAME`";

fn not_a_selector(written: &str, why: &model::name::InvalidName) -> Complaint {
    let looks_like_address = written.contains('/') || written.parse::<std::net::IpAddr>().is_ok();
    if looks_like_address {
        return Complaint::new(format!(
            "{} is an address, and rules name hosts",
            quoted(written)
        ))
        .help(
            "select hosts by label, as in `role=db`, or by name: addresses can be forged or move",
        );
    }
    if let Some(meant) = nearest(written, ["any"]) {
        return Complaint::new(format!("{} is not a selector", quoted(written)))
            .suggest(Some(meant));
    }
    Complaint::new(why.to_string()).help(FORMS)
}

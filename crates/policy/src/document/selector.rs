//! Selectors of hosts: `any`, `key=value,…`, a name, `host:NAME`, `service:NAME`, `workload:NAME`.

use model::limits::Limits;
use model::name::{Label, Name};
use model::rule::Selector;

use super::reader::{one_or_more, text};
use super::suggest::nearest;
use super::{Described, Names, Nouns};
use crate::diagnostic::{Complaint, Place, Report, quoted};
use crate::yaml::Node;

/// A selector and where it stands.
pub(super) struct Placed {
    pub(super) selector: Selector,
    pub(super) place: Place,
}

/// Where a selector stands: what a bare word means there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// A workload, a service or a host.
    From,
    /// A service or a host.
    To,
    /// A workload or a host; a service is refused by who reads them.
    Endpoints,
    /// Of a workload: a host.
    Hosts,
}

/// Reads one selector or a list of them, and notes which hosts they name.
pub(super) fn read(
    node: &Node,
    what: &str,
    position: Position,
    nouns: &Nouns,
    names: &mut Names,
    report: &mut Report<'_>,
) -> Option<Vec<Placed>> {
    let items = one_or_more(node, what, Limits::SELECTORS_PER_LIST, report)?;
    let read: Vec<_> = items
        .iter()
        .map(|item| one(item, position, nouns, report))
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

fn one(node: &Node, position: Position, nouns: &Nouns, report: &mut Report<'_>) -> Option<Placed> {
    let written = text(node, "a selector", report)?;
    let selector = report.check(node.place, parse(written, position, nouns))?;
    Some(Placed {
        selector,
        place: node.place,
    })
}

/// Parses a selector.
///
/// # Errors
/// Says what is wrong with it and what a selector looks like.
pub(super) fn parse(
    written: &str,
    position: Position,
    nouns: &Nouns,
) -> Result<Selector, Complaint> {
    if written == "any" {
        return Ok(Selector::Any);
    }
    if let Some((kind, name)) = written.split_once(':') {
        return explicit(written, kind, name, position, nouns);
    }
    if written.contains('=') {
        return labels(written).map(Selector::Labels);
    }
    let name: Name = written
        .parse()
        .map_err(|error| not_a_selector(written, &error))?;
    let is_workload = nouns.workloads.contains(&name);
    let may_be_workload = matches!(position, Position::From | Position::Endpoints);
    if is_workload && may_be_workload {
        return Ok(Selector::Workload(name));
    }
    if nouns.services.contains(&name) && position != Position::Hosts {
        return Ok(Selector::Service(name));
    }
    if is_workload {
        return Err(not_a_place(&name, position));
    }
    Ok(Selector::Host { name, id: None })
}

/// A workload where hosts are meant.
fn not_a_place(name: &Name, position: Position) -> Complaint {
    let message = match position {
        Position::Hosts => format!("`{name}` is a workload, and the hosts of one are hosts"),
        _ => format!("`{name}` is a workload, and rules say by service or host what is reached"),
    };
    let help = match position {
        Position::Hosts => {
            format!("select hosts by label; if a host is meant, write `host:{name}`")
        }
        _ => format!(
            "describe a service with `endpoints: [{name}]` and name that; if a host is meant, write \
             `host:{name}`"
        ),
    };
    Complaint::new(message).help(help)
}

fn explicit(
    written: &str,
    kind: &str,
    name: &str,
    position: Position,
    nouns: &Nouns,
) -> Result<Selector, Complaint> {
    if !is_kind(kind) {
        let complaint = Complaint::new(format!("{} is not a selector", quoted(written)));
        return Err(match kind {
            "unit" | "user" => {
                complaint.help("describe what runs as it under `workloads:`, and name the workload")
            }
            _ => complaint.help(FORMS),
        });
    }
    let name: Name = name.parse().map_err(|error| not_a_selector(name, &error))?;
    match (kind, nouns.services.contains(&name)) {
        ("workload", _) if !nouns.workloads.contains(&name) => {
            Err(not_described(&name, "workload", &nouns.workloads))
        }
        ("workload", _) if matches!(position, Position::To | Position::Hosts) => {
            Err(not_a_place(&name, position))
        }
        ("workload", _) => Ok(Selector::Workload(name)),
        ("service", true) if position == Position::Hosts => {
            let message = format!("`{name}` is a service, and the hosts of a workload are hosts");
            Err(Complaint::new(message).help("select hosts by label or name"))
        }
        ("service", true) => Ok(Selector::Service(name)),
        ("service", false) => Err(not_described(&name, "service", &nouns.services)),
        (_, true) => Err(Complaint::new(format!(
            "`{name}` is a service of this policy, not a host"
        ))
        .help("hosts and services share one name space; write only the name")),
        (_, false) => Ok(Selector::Host { name, id: None }),
    }
}

fn not_described(name: &Name, kind: &str, known: &Described) -> Complaint {
    let complaint = Complaint::new(format!("there is no {kind} `{name}` in this policy"));
    match nearest(name.as_str(), known.names()) {
        Some(meant) => complaint.suggest(Some(meant)),
        None => complaint.help(format!("describe it under `{kind}s:`")),
    }
}

/// Returns whether the word before a colon is a kind of selector.
pub(super) fn is_kind(word: &str) -> bool {
    matches!(word, "host" | "service" | "workload")
}

/// Parses `key=value,key=value`.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn labels(written: &str) -> Result<Vec<Label>, Complaint> {
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

const FORMS: &str = "a selector is `any`, `key=value`, the name of a workload, service or host, \
                     `workload:NAME`, `service:NAME` or `host:NAME`";

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

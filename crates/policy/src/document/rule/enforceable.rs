//! Whether what a rule asks for can be known of the traffic that it is about: who on a host sends for
//! TCP and UDP, the time of TCP connections, requests of services that have some. A rule that could
//! not be enforced is an error, never skipped.

use model::rule::{Protocol, Rule, Selector, Service, Traffic};

use crate::diagnostic::{Complaint, Place, Report};
use crate::document::reader::Fields;
use crate::reference::Effect;

/// Reports what cannot be enforced; returns whether all can be.
pub(super) fn check(
    rule: &Rule,
    place: Place,
    fields: &Fields<'_>,
    effect: Effect,
    services: &[Service],
    report: &mut Report<'_>,
) -> bool {
    let place_of = |key: &str| fields.node(key).map_or(place, |node| node.place);
    let complaint = if !rule.http.is_empty() {
        let complaint =
            without_requests(rule, services).or_else(|| not_tcp(rule, "`http`", effect, services));
        complaint.map(|it| (place_of("http"), it))
    } else if let Some(complaint) = without_sender(rule, effect) {
        Some((place_of("from"), complaint))
    } else if rule.when.is_some() {
        not_tcp(rule, "`when`", effect, services).map(|it| (place_of("when"), it))
    } else {
        None
    };
    match complaint {
        Some((place, complaint)) => {
            report.error(place, complaint);
            false
        }
        None => true,
    }
}

fn reached<'s>(rule: &'s Rule, services: &'s [Service]) -> impl Iterator<Item = &'s Service> {
    rule.to.iter().filter_map(|to| match to {
        Selector::Service(name) => services.iter().find(|service| service.name == *name),
        _ => None,
    })
}

/// A service that has no requests, in a rule about some.
fn without_requests(rule: &Rule, services: &[Service]) -> Option<Complaint> {
    let is_without = |service: &&Service| matches!(service.protocol, Protocol::Tcp | Protocol::Udp);
    let service = reached(rule, services).find(is_without)?;
    let (name, protocol) = (&service.name, service.protocol.as_str());
    let message = format!(
        "the service `{name}` speaks {protocol}, which has no requests that `http` could tell"
    );
    let help = match service.protocol {
        Protocol::Udp => "remove `http`".to_owned(),
        _ => format!("say `protocol: http` (or `auto`) of `{name}`, or remove `http`"),
    };
    Some(Complaint::new(message).help(help))
}

/// Traffic that no socket tells the sender of, in a rule that names workloads.
fn without_sender(rule: &Rule, effect: Effect) -> Option<Complaint> {
    if !rule.names_workload() {
        return None;
    }
    let help = match (&rule.traffic, effect) {
        (Traffic::All, Effect::Deny) => {
            "say `tcp: any, udp: any`, and deny what else is to be denied by host, in a rule of its own"
        }
        (Traffic::All, Effect::Allow) => "say `tcp: any`, `udp: any` or both",
        (Traffic::Ports { icmp: true, .. }, _) => {
            "put `icmp` into a rule of its own, which names hosts"
        }
        (Traffic::Ports { .. } | Traffic::Service, _) => return None,
    };
    let message = "a workload in `from` can be told of TCP and UDP only";
    Some(Complaint::new(message).help(help))
}

/// Traffic of which packets are all that is seen.
fn not_tcp(rule: &Rule, what: &str, effect: Effect, services: &[Service]) -> Option<Complaint> {
    let message = format!("{what} can be told of TCP connections only");
    let help = match &rule.traffic {
        Traffic::Service => {
            let service = reached(rule, services).find(|it| it.protocol == Protocol::Udp)?;
            format!("`{}` is a service of UDP: leave `when` out", service.name)
        }
        Traffic::All => match effect {
            Effect::Deny => {
                "say `tcp: any`, and deny what else is to be denied by host, in a rule of its own"
            }
            Effect::Allow => "say `tcp: any`",
        }
        .to_owned(),
        Traffic::Ports { tcp, udp, icmp } if tcp.is_empty() || !udp.is_empty() || *icmp => {
            "put `udp` and `icmp` into a rule of their own, which names hosts and holds always"
                .to_owned()
        }
        Traffic::Ports { .. } => return None,
    };
    Some(Complaint::new(message).help(help))
}

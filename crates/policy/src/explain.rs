//! Why a flow is allowed or denied, for people who have to find out at 3 a.m.: the rule that
//! decided, and the rules that nearly would have.

use std::fmt;

use model::record::HostRecord;
use model::rule::{Bundle, PortRange, Rule, Selector, Service, Traffic, ip_protocol};

use crate::reference::{Decision, Effect, Flow, decide, named, selects};

mod call;
mod near_misses;

pub(crate) use call::near_misses_of_denied;
pub use call::{RequestExplained, explain_call};
pub(crate) use near_misses::near_misses;

/// A decision with what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained<'b> {
    /// The decision.
    pub decision: Decision<'b>,
    /// One sentence each, the most useful first; at most [`Explained::NEAR_MISSES_MAX`].
    pub near_misses: Vec<String>,
}

impl Explained<'_> {
    /// How many near misses are told.
    pub const NEAR_MISSES_MAX: usize = 5;
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.allowed { "allowed" } else { "denied" };
        match self.rule {
            Some(rule) => write!(f, "{verdict} by rule {}", called(rule)),
            None => write!(f, "{verdict}: no rule allows it"),
        }
    }
}

/// Decides as [`decide`], and says which rules nearly decided otherwise.
pub fn explain<'b>(
    bundle: &'b Bundle,
    from: &HostRecord,
    to: &HostRecord,
    ip_protocol: u8,
    port: u16,
) -> Explained<'b> {
    let flow = Flow {
        from,
        to,
        ip_protocol,
        port,
        bundle,
    };
    let decision = decide(bundle, from, to, ip_protocol, port);
    let mut near_misses = match decision {
        Decision {
            allowed: true,
            rule,
        } => others_that_allow(bundle, flow, rule),
        Decision { rule: Some(_), .. } => allows_that_lose(bundle, flow),
        Decision { rule: None, .. } => allows_that_nearly_match(bundle, flow),
    };
    if near_misses.is_empty() && decision.rule.is_none() {
        near_misses.push(nothing_is_near(bundle, flow));
    }
    near_misses.truncate(Explained::NEAR_MISSES_MAX);
    Explained {
        decision,
        near_misses,
    }
}

fn others_that_allow(bundle: &Bundle, flow: Flow<'_>, decided: Option<&Rule>) -> Vec<String> {
    matching_allows(bundle, flow)
        .filter(|rule| decided != Some(*rule))
        .map(|rule| format!("rule {} allows it too", called(rule)))
        .collect()
}

fn allows_that_lose(bundle: &Bundle, flow: Flow<'_>) -> Vec<String> {
    matching_allows(bundle, flow)
        .map(|rule| {
            format!(
                "rule {} would allow it, but a deny always wins",
                called(rule)
            )
        })
        .collect()
}

fn matching_allows<'b>(bundle: &'b Bundle, flow: Flow<'b>) -> impl Iterator<Item = &'b Rule> {
    bundle
        .allow
        .iter()
        .filter(move |rule| flow.matches(rule, Effect::Allow))
}

/// Near is a rule in which one thing of from, to and traffic does not match. Wrong ports come
/// first: they are the most common mistake.
fn allows_that_nearly_match(bundle: &Bundle, flow: Flow<'_>) -> Vec<String> {
    let (mut traffic, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
    for rule in &bundle.allow {
        let matches_from = flow.matches_from(rule, Effect::Allow);
        let matches_to = flow.matches_to(rule, Effect::Allow);
        match (matches_from, matches_to, matches_some_traffic(rule, flow)) {
            (true, true, _) => traffic.push(traffic_miss(rule, flow)),
            (false, true, true) => from.push(host_miss(rule, "from", &rule.from, flow.from, flow)),
            (true, false, true) => to.push(host_miss(rule, "to", &rule.to, flow.to, flow)),
            _ => {}
        }
    }
    traffic.extend(from);
    traffic.extend(to);
    traffic
}

/// Returns whether the traffic matches, for a rule to services: at the endpoints if the host is
/// one, else anywhere.
fn matches_some_traffic(rule: &Rule, flow: Flow<'_>) -> bool {
    let Traffic::Service = rule.traffic else {
        return flow.matches_traffic(&rule.traffic);
    };
    let is_endpoint = flow.matches_to(rule, Effect::Allow);
    rule.to
        .iter()
        .filter(|to| !is_endpoint || selects(to, flow.to, flow.bundle, Effect::Allow))
        .flat_map(|to| named(to, &flow.bundle.services))
        .any(|service| {
            service.port == flow.port && service.protocol.ip_protocol() == flow.ip_protocol
        })
}

fn traffic_miss(rule: &Rule, flow: Flow<'_>) -> String {
    let asked = traffic_asked(flow.ip_protocol, flow.port);
    let allowed = match &rule.traffic {
        Traffic::Service => services_at(rule, flow),
        Traffic::All => "everything".to_owned(),
        Traffic::Ports { tcp, udp, icmp } => ports(tcp, udp, *icmp),
    };
    let what = if is_only_another_port(rule, flow) {
        "the port"
    } else {
        "the protocol"
    };
    format!(
        "rule {} matches except {what}: it allows {allowed}, not {asked}",
        called(rule)
    )
}

fn is_only_another_port(rule: &Rule, flow: Flow<'_>) -> bool {
    match (&rule.traffic, flow.ip_protocol) {
        (Traffic::Ports { tcp, .. }, ip_protocol::TCP) => !tcp.is_empty(),
        (Traffic::Ports { udp, .. }, ip_protocol::UDP) => !udp.is_empty(),
        (Traffic::Service, protocol) => rule
            .to
            .iter()
            .flat_map(|to| named(to, &flow.bundle.services))
            .any(|service| service.protocol.ip_protocol() == protocol),
        _ => false,
    }
}

/// Names the services of the rule that the host is an endpoint of.
fn services_at(rule: &Rule, flow: Flow<'_>) -> String {
    let services = rule
        .to
        .iter()
        .filter(|to| selects(to, flow.to, flow.bundle, Effect::Allow))
        .flat_map(|to| named(to, &flow.bundle.services))
        .map(|service| {
            let asked = traffic_asked(service.protocol.ip_protocol(), service.port);
            format!("service {} at {asked}", service.name)
        });
    some_of(services.collect(), ", ")
}

fn ports(tcp: &[PortRange], udp: &[PortRange], icmp: bool) -> String {
    let mut all: Vec<String> = tcp.iter().map(|range| range_of("tcp", range)).collect();
    all.extend(udp.iter().map(|range| range_of("udp", range)));
    all.extend(icmp.then(|| "icmp".to_owned()));
    some_of(all, ", ")
}

/// Returns how people write ports: `tcp 22`, `tcp 8000-8100`, `any tcp port`.
pub(crate) fn range_of(protocol: &str, range: &PortRange) -> String {
    if *range == PortRange::ALL {
        format!("any {protocol} port")
    } else {
        format!("{protocol} {range}")
    }
}

/// Returns how people write the traffic of a question: `tcp 22`, `icmp`, `IP protocol 47`.
pub(crate) fn traffic_asked(protocol: u8, port: u16) -> String {
    match protocol {
        ip_protocol::TCP => format!("tcp {port}"),
        ip_protocol::UDP => format!("udp {port}"),
        ip_protocol::ICMP | ip_protocol::ICMPV6 => "icmp".to_owned(),
        other => format!("IP protocol {other}"),
    }
}

fn host_miss(
    rule: &Rule,
    part: &str,
    selectors: &[Selector],
    host: &HostRecord,
    flow: Flow<'_>,
) -> String {
    let reasons = selectors
        .iter()
        .map(|selector| host_reason(selector, host, &flow.bundle.services));
    let reasons = some_of(reasons.collect(), "; or ");
    format!("rule {} matches except `{part}`: {reasons}", called(rule))
}

fn host_reason(selector: &Selector, host: &HostRecord, services: &[Service]) -> String {
    let host_name = &host.name;
    match selector {
        Selector::Any => format!("{host_name} is any host"),
        Selector::Host { name, .. } if name == host_name => {
            format!("it is for another host, which was called {name}")
        }
        Selector::Host { name, .. } => format!("it is for host {name}, not {host_name}"),
        Selector::Labels(labels) => {
            let wrong = labels
                .iter()
                .filter(|it| host.labels.get(&it.key) != Some(&it.value));
            let reasons = wrong.map(|label| match host.labels.get(&label.key) {
                Some(value) => format!("has {}={value}, needs {label}", label.key),
                None => format!("has no label {}, needs {label}", label.key),
            });
            format!("{host_name} {}", reasons.collect::<Vec<_>>().join(" and "))
        }
        Selector::Workload(name) => {
            format!("it is for workload {name}, not for whoever else sends from there")
        }
        Selector::Service(name) => match named(selector, services).next() {
            None => format!("service {name} is not in this policy"),
            Some(service) => format!(
                "{host_name} is not an endpoint of service {name} ({})",
                some_of(
                    service.endpoints.iter().map(Selector::to_string).collect(),
                    " or "
                ),
            ),
        },
    }
}

fn nothing_is_near(bundle: &Bundle, flow: Flow<'_>) -> String {
    let allows = &bundle.allow;
    if allows.is_empty() {
        "the policy has no allow rules at all".to_owned()
    } else if !allows
        .iter()
        .any(|rule| flow.matches_to(rule, Effect::Allow))
    {
        format!("no rule allows anybody to reach {}", described(flow.to))
    } else if !allows
        .iter()
        .any(|rule| flow.matches_from(rule, Effect::Allow))
    {
        format!("no rule allows {} to reach anything", described(flow.from))
    } else {
        format!(
            "no rule comes close: of `from`, `to` and ports at least two differ in each, for {} to {}",
            described(flow.from),
            described(flow.to),
        )
    }
}

/// Returns a host's name with its labels: `web-1 (env=prod,role=web)`.
pub(crate) fn described(host: &HostRecord) -> String {
    if host.labels.is_empty() {
        return format!("{} (no labels)", host.name);
    }
    let labels = host
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    format!("{} ({})", host.name, labels.collect::<Vec<_>>().join(","))
}

pub(crate) fn called(rule: &Rule) -> String {
    format!("`{}` ({})", rule.id, rule.source)
}

/// Joins the first few and counts the rest.
pub(crate) fn some_of(mut parts: Vec<String>, separator: &str) -> String {
    const SHOWN: usize = 4;
    let left = parts.len().saturating_sub(SHOWN);
    parts.truncate(SHOWN);
    let shown = parts.join(separator);
    if left == 0 {
        shown
    } else {
        format!("{shown} and {left} more")
    }
}

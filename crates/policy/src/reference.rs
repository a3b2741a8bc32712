//! The plain reading of a bundle: rule by rule, host by host. Slow and obvious, so that the
//! compiled table, the simulator and people can be checked against it.
//!
//! What a bundle leaves unsaid closes: a deny that names a service which the bundle does not
//! describe matches every host and packet, an allow that does so matches none. A coordinator that
//! withholds the service cannot widen access by it.
//!
//! [`decide`] reads what can be known of packets. A rule that asks for more (a request, who on a host
//! asks, the time) closes there too: as an allow it matches no packet, as a deny every one that it
//! may be about. Connections and requests are decided by [`decide_call`].

use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, Rule, Selector, Service, Traffic, ip_protocol};

pub(crate) mod call;

pub use call::{Call, decide_call, decide_claimed, may_vouch};

/// How a flow is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'b> {
    /// The verdict.
    pub allowed: bool,
    /// The rule that decided; `None`: no rule allows the flow.
    pub rule: Option<&'b Rule>,
}

/// Decides whether `from` may open a flow to `port` of `to`. The first deny of the bundle that
/// matches decides, else the first allow, else it is denied. ICMPv6 is decided as ICMP; `port`
/// counts for TCP and UDP only.
pub fn decide<'b>(
    bundle: &'b Bundle,
    from: &HostRecord,
    to: &HostRecord,
    ip_protocol: u8,
    port: u16,
) -> Decision<'b> {
    let flow = Flow {
        from,
        to,
        ip_protocol,
        port,
        bundle,
    };
    if let Some(rule) = bundle
        .deny
        .iter()
        .find(|rule| flow.matches(rule, Effect::Deny))
    {
        return Decision {
            allowed: false,
            rule: Some(rule),
        };
    }
    let rule = bundle
        .allow
        .iter()
        .find(|rule| flow.matches(rule, Effect::Allow));
    Decision {
        allowed: rule.is_some(),
        rule,
    }
}

/// What a rule does to the flows that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// A question, with what is needed to answer it.
#[derive(Clone, Copy)]
pub(crate) struct Flow<'q> {
    pub(crate) from: &'q HostRecord,
    pub(crate) to: &'q HostRecord,
    pub(crate) ip_protocol: u8,
    pub(crate) port: u16,
    pub(crate) bundle: &'q Bundle,
}

impl Flow<'_> {
    /// Returns whether the rule matches.
    pub(crate) fn matches(&self, rule: &Rule, effect: Effect) -> bool {
        (effect == Effect::Deny || rule.http.is_empty() && rule.when.is_none())
            && self.matches_from(rule, effect)
            && self.matches_target(rule, effect)
    }

    /// Returns whether the rule's `to` and traffic match.
    pub(crate) fn matches_target(&self, rule: &Rule, effect: Effect) -> bool {
        match rule.traffic {
            Traffic::Service => rule.to.iter().any(|to| self.matches_service(to, effect)),
            _ => self.matches_to(rule, effect) && self.matches_traffic(&rule.traffic),
        }
    }

    /// Returns whether the rule's `from` matches.
    pub(crate) fn matches_from(&self, rule: &Rule, effect: Effect) -> bool {
        rule.from
            .iter()
            .any(|selector| selects(selector, self.from, self.bundle, effect))
    }

    /// Returns whether the rule's `to` matches, whatever the traffic.
    pub(crate) fn matches_to(&self, rule: &Rule, effect: Effect) -> bool {
        rule.to
            .iter()
            .any(|selector| selects(selector, self.to, self.bundle, effect))
    }

    /// Returns whether the traffic of a rule to hosts matches.
    pub(crate) fn matches_traffic(&self, traffic: &Traffic) -> bool {
        match traffic {
            Traffic::All => true,
            Traffic::Service => false,
            Traffic::Ports { tcp, udp, icmp } => match self.ip_protocol {
                ip_protocol::TCP => tcp.iter().any(|range| range.contains(self.port)),
                ip_protocol::UDP => udp.iter().any(|range| range.contains(self.port)),
                ip_protocol::ICMP | ip_protocol::ICMPV6 => *icmp,
                _ => false,
            },
        }
    }

    /// Returns whether the flow goes to the port of the service at one of its endpoints.
    fn matches_service(&self, to: &Selector, effect: Effect) -> bool {
        let mut described = named(to, &self.bundle.services).peekable();
        if described.peek().is_none() {
            return effect == Effect::Deny;
        }
        described.any(|service| {
            service.protocol.ip_protocol() == self.ip_protocol
                && service.port == self.port
                && service
                    .endpoints
                    .iter()
                    .any(|endpoint| endpoint.selects(self.to))
        })
    }
}

/// Returns whether the selector selects the host in a rule of that effect, as far as packets tell:
/// whether they come from a workload that the host may run, nobody knows.
pub(crate) fn selects(
    selector: &Selector,
    host: &HostRecord,
    bundle: &Bundle,
    effect: Effect,
) -> bool {
    match (effect, selector) {
        (Effect::Allow, Selector::Workload(_)) => false,
        (Effect::Deny, Selector::Workload(name)) if bundle.workload(name).is_none() => true,
        (Effect::Deny, Selector::Service(_))
            if named(selector, &bundle.services).next().is_none() =>
        {
            true
        }
        _ => selector.matches(host, bundle),
    }
}

/// Returns the service of a name that is called by an IP protocol. Of several with one name, which only
/// a liar has, the first one counts.
pub(crate) fn service_named<'b>(
    bundle: &'b Bundle,
    name: &Name,
    ip_protocol: u8,
) -> Option<&'b Service> {
    let mut services = bundle.services.iter();
    services.find(|it| it.name == *name && it.protocol.ip_protocol() == ip_protocol)
}

/// Returns what the bundle says of the service that a selector names; nothing for other selectors.
pub(crate) fn named<'s>(
    selector: &'s Selector,
    services: &'s [Service],
) -> impl Iterator<Item = &'s Service> {
    services
        .iter()
        .filter(move |service| matches!(selector, Selector::Service(name) if *name == service.name))
}

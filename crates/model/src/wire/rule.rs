//! The leaves of a policy bundle: rules, selectors, traffic. Requests, services and workloads have
//! files of their own.

use super::generated::{leaf, selector, traffic};
use super::{WireError, field, generated};
use crate::limits::Limits;
use crate::rule::{CipherDemand, Denies, Leaf, PortRange, Rule, Selector, Source, Traffic};

mod http;
mod service;
mod when;
mod workload;

impl From<Leaf> for generated::Leaf {
    fn from(leaf: Leaf) -> Self {
        let kind = match leaf {
            Leaf::Denies(denies) => leaf::Kind::Denies(denies.into()),
            Leaf::Allow(rule) => leaf::Kind::Allow(rule.into()),
            Leaf::Service(service) => leaf::Kind::Service(service.into()),
            Leaf::Workload(workload) => leaf::Kind::Workload(workload.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<generated::Leaf> for Leaf {
    type Error = WireError;

    fn try_from(message: generated::Leaf) -> Result<Self, WireError> {
        match field::required("Leaf.kind", message.kind)? {
            leaf::Kind::Denies(denies) => denies.try_into().map(Self::Denies),
            leaf::Kind::Allow(rule) => rule.try_into().map(Self::Allow),
            leaf::Kind::Service(service) => service.try_into().map(Self::Service),
            leaf::Kind::Workload(workload) => workload.try_into().map(Self::Workload),
        }
    }
}

impl From<Denies> for generated::Denies {
    fn from(denies: Denies) -> Self {
        let cipher = match denies.cipher {
            CipherDemand::AsOffered => generated::CipherDemand::Unspecified,
            CipherDemand::Standard => generated::CipherDemand::Standard,
        };
        Self {
            rules: denies.rules.into_iter().map(Into::into).collect(),
            cipher: cipher.into(),
        }
    }
}

impl TryFrom<generated::Denies> for Denies {
    type Error = WireError;

    fn try_from(message: generated::Denies) -> Result<Self, WireError> {
        Ok(Self {
            rules: field::list(
                "Denies.rules",
                message.rules,
                Limits::RULES,
                TryInto::try_into,
            )?,
            cipher: cipher_demand(message.cipher)?,
        })
    }
}

/// A demand that is not understood cannot be met.
fn cipher_demand(value: i32) -> Result<CipherDemand, WireError> {
    match generated::CipherDemand::try_from(value) {
        Ok(generated::CipherDemand::Unspecified) => Ok(CipherDemand::AsOffered),
        Ok(generated::CipherDemand::Standard) => Ok(CipherDemand::Standard),
        Err(_) => Err(WireError::new(
            "Denies.cipher",
            format!("{value} is unknown"),
        )),
    }
}

impl From<Rule> for generated::Rule {
    fn from(rule: Rule) -> Self {
        Self {
            id: rule.id.into(),
            from: rule.from.into_iter().map(Into::into).collect(),
            to: rule.to.into_iter().map(Into::into).collect(),
            traffic: Some(rule.traffic.into()),
            source: Some(rule.source.into()),
            http: rule.http.into_iter().map(Into::into).collect(),
            when: rule.when.map(Into::into),
        }
    }
}

impl TryFrom<generated::Rule> for Rule {
    type Error = WireError;

    fn try_from(message: generated::Rule) -> Result<Self, WireError> {
        let rule = Self {
            id: field::parsed("Rule.id", &message.id)?,
            from: selectors("Rule.from", message.from)?,
            to: selectors("Rule.to", message.to)?,
            traffic: field::required("Rule.traffic", message.traffic)?.try_into()?,
            source: field::required("Rule.source", message.source)?.try_into()?,
            http: field::list(
                "Rule.http",
                message.http,
                Limits::HTTP_MATCHES_PER_RULE,
                TryInto::try_into,
            )?,
            when: message.when.map(TryInto::try_into).transpose()?,
        };
        if rule.to.iter().any(|to| matches!(to, Selector::Workload(_))) {
            return Err(WireError::new(
                "Rule.to",
                "a workload is not reached by its name",
            ));
        }
        let only_services = rule.to.iter().all(|to| matches!(to, Selector::Service(_)));
        if rule.traffic == Traffic::Service && !only_services {
            return Err(WireError::new(
                "Rule.to",
                "the traffic is that of services, but not all of it are services",
            ));
        }
        Ok(rule)
    }
}

fn selectors(
    field: &'static str,
    messages: Vec<generated::Selector>,
) -> Result<Vec<Selector>, WireError> {
    field::some_list(
        field,
        messages,
        Limits::SELECTORS_PER_LIST,
        TryInto::try_into,
    )
}

impl From<Selector> for generated::Selector {
    fn from(selector: Selector) -> Self {
        let kind = match selector {
            Selector::Any => selector::Kind::Any(true),
            Selector::Host { name, id } => selector::Kind::Host(generated::HostSelector {
                name: name.into(),
                host: id.map_or_else(Vec::new, |id| id.as_bytes().to_vec()),
            }),
            Selector::Labels(labels) => selector::Kind::Labels(generated::LabelSelector {
                matches: labels.into_iter().map(Into::into).collect(),
            }),
            Selector::Service(name) => selector::Kind::Service(name.into()),
            Selector::Workload(name) => selector::Kind::Workload(name.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<generated::Selector> for Selector {
    type Error = WireError;

    fn try_from(message: generated::Selector) -> Result<Self, WireError> {
        match field::required("Selector.kind", message.kind)? {
            selector::Kind::Any(true) => Ok(Self::Any),
            selector::Kind::Any(false) => Err(WireError::new("Selector.any", "it is false")),
            selector::Kind::Host(host) => Ok(Self::Host {
                name: field::parsed("HostSelector.name", &host.name)?,
                id: field::optional_id("HostSelector.host", &host.host)?,
            }),
            selector::Kind::Labels(labels) => field::some_list(
                "LabelSelector.matches",
                labels.matches,
                Limits::LABELS_PER_HOST,
                TryInto::try_into,
            )
            .map(Self::Labels),
            selector::Kind::Service(name) => {
                field::parsed("Selector.service", &name).map(Self::Service)
            }
            selector::Kind::Workload(name) => {
                field::parsed("Selector.workload", &name).map(Self::Workload)
            }
        }
    }
}

impl From<Traffic> for generated::Traffic {
    fn from(traffic: Traffic) -> Self {
        let kind = match traffic {
            Traffic::All => traffic::Kind::All(true),
            Traffic::Ports { tcp, udp, icmp } => traffic::Kind::Ports(generated::Ports {
                tcp: tcp.into_iter().map(Into::into).collect(),
                udp: udp.into_iter().map(Into::into).collect(),
                icmp,
            }),
            Traffic::Service => traffic::Kind::Service(true),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<generated::Traffic> for Traffic {
    type Error = WireError;

    fn try_from(message: generated::Traffic) -> Result<Self, WireError> {
        match field::required("Traffic.kind", message.kind)? {
            traffic::Kind::All(true) => Ok(Self::All),
            traffic::Kind::Service(true) => Ok(Self::Service),
            traffic::Kind::All(false) => Err(WireError::new("Traffic.all", "it is false")),
            traffic::Kind::Service(false) => Err(WireError::new("Traffic.service", "it is false")),
            traffic::Kind::Ports(ports) => ports.try_into(),
        }
    }
}

impl TryFrom<generated::Ports> for Traffic {
    type Error = WireError;

    fn try_from(message: generated::Ports) -> Result<Self, WireError> {
        if message.tcp.is_empty() && message.udp.is_empty() && !message.icmp {
            return Err(WireError::new(
                "Traffic.ports",
                "it is empty, at least one is needed",
            ));
        }
        Ok(Self::Ports {
            tcp: ports("Ports.tcp", message.tcp)?,
            udp: ports("Ports.udp", message.udp)?,
            icmp: message.icmp,
        })
    }
}

fn ports(
    field: &'static str,
    messages: Vec<generated::PortRange>,
) -> Result<Vec<PortRange>, WireError> {
    field::list(
        field,
        messages,
        Limits::PORT_RANGES_PER_LIST,
        TryInto::try_into,
    )
}

impl From<PortRange> for generated::PortRange {
    fn from(range: PortRange) -> Self {
        Self {
            first: range.first.into(),
            last: range.last.into(),
        }
    }
}

impl TryFrom<generated::PortRange> for PortRange {
    type Error = WireError;

    fn try_from(message: generated::PortRange) -> Result<Self, WireError> {
        let first = field::port("PortRange.first", message.first)?;
        let last = field::port("PortRange.last", message.last)?;
        if first > last {
            return Err(WireError::new(
                "PortRange.last",
                format!("{last} lies before {first}"),
            ));
        }
        Ok(Self { first, last })
    }
}

/// Selectors of hosts by themselves: of endpoints, and of what may run a workload.
fn hosts(
    field: &'static str,
    messages: Vec<generated::Selector>,
) -> Result<Vec<Selector>, WireError> {
    let selectors: Vec<Selector> = field::list(
        field,
        messages,
        Limits::SELECTORS_PER_LIST,
        TryInto::try_into,
    )?;
    let is_host = |it: &Selector| !matches!(it, Selector::Service(_) | Selector::Workload(_));
    if !selectors.iter().all(is_host) {
        return Err(WireError::new(field, "a service or workload is not a host"));
    }
    Ok(selectors)
}

impl From<Source> for generated::Source {
    fn from(source: Source) -> Self {
        Self {
            file: field::clipped(&source.file),
            line: source.line,
        }
    }
}

impl TryFrom<generated::Source> for Source {
    type Error = WireError;

    fn try_from(message: generated::Source) -> Result<Self, WireError> {
        Ok(Self {
            file: field::text("Source.file", message.file)?,
            line: message.line,
        })
    }
}

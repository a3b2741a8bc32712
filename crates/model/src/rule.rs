//! Rules and services as they are enforced: parsed, checked, names resolved. What operators write
//! is `policy::document`'s.

use std::fmt;

use crate::ids::HostId;
use crate::name::{Label, LabelKey, LabelValue, Name, RuleId};
use crate::record::HostRecord;

mod http;
mod service;
mod when;
mod workload;

pub use http::{
    HeaderMatch, HeaderName, HeaderText, HeaderValue, HostPattern, HttpMatch, Method, PathPattern,
    RequestPath,
};
pub use service::{
    BreakerSettings, HealthCheck, HealthProbe, LimitSettings, PerTryTimeout, Protocol,
    RetrySettings, Service, StaticAnswer, Sticky, TrafficSettings,
};
pub use when::{Days, Hours, TimeOfDay, When, ZoneName};
pub use workload::{UnitPattern, UserName, Workload};

/// Everything of one policy version that hosts enforce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Processes that rules can name.
    pub workloads: Vec<Workload>,
    /// Names with endpoints.
    pub services: Vec<Service>,
    /// What is allowed; a union.
    pub allow: Vec<Rule>,
    /// What is denied, whatever is allowed.
    pub deny: Vec<Rule>,
    /// What packets between two hosts are sealed with.
    pub cipher: CipherDemand,
}

/// One leaf of a bundle's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a leaf is decoded and taken apart at once, never kept"
)]
pub enum Leaf {
    /// All that is forbidden; always leaf 0, which every host gets.
    Denies(Denies),
    /// One allow.
    Allow(Rule),
    /// One service.
    Service(Service),
    /// One workload.
    Workload(Workload),
}

/// What a bundle forbids: what no host may leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denies {
    /// All denies.
    pub rules: Vec<Rule>,
    /// Which ciphers are left.
    pub cipher: CipherDemand,
}

/// What a bundle demands of the ciphers of tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CipherDemand {
    /// Nothing: two hosts use what both of their records offer.
    #[default]
    AsOffered,
    /// WireGuard's own ChaCha20-Poly1305, whatever hosts offer.
    Standard,
}

impl Bundle {
    /// Returns the leaves of this bundle in the order of the tree: denies, allows, services,
    /// workloads.
    pub fn leaves(&self) -> Vec<Leaf> {
        let mut leaves = vec![Leaf::Denies(Denies {
            rules: self.deny.clone(),
            cipher: self.cipher,
        })];
        leaves.extend(self.allow.iter().cloned().map(Leaf::Allow));
        leaves.extend(self.services.iter().cloned().map(Leaf::Service));
        leaves.extend(self.workloads.iter().cloned().map(Leaf::Workload));
        leaves
    }

    /// Puts a bundle together from leaves, in any order.
    pub fn from_leaves(leaves: impl IntoIterator<Item = Leaf>) -> Self {
        let mut bundle = Self::default();
        for leaf in leaves {
            match leaf {
                Leaf::Denies(denies) => {
                    bundle.deny.extend(denies.rules);
                    bundle.cipher = bundle.cipher.max(denies.cipher);
                }
                Leaf::Allow(rule) => bundle.allow.push(rule),
                Leaf::Service(service) => bundle.services.push(service),
                Leaf::Workload(workload) => bundle.workloads.push(workload),
            }
        }
        bundle
    }

    /// Returns the workload of a name.
    pub fn workload(&self, name: &Name) -> Option<&Workload> {
        self.workloads.iter().find(|it| it.name == *name)
    }
}

/// One allow or deny. It matches a flow when one of `from`, one of `to` and the traffic match, and
/// what else it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in its bundle.
    pub id: RuleId,
    /// Who opens the flow; at least one.
    pub from: Vec<Selector>,
    /// Who is reached; at least one.
    pub to: Vec<Selector>,
    /// What the flow carries.
    pub traffic: Traffic,
    /// Any of these requests; none: any request, and any bytes.
    pub http: Vec<HttpMatch>,
    /// Only then; `None`: always.
    pub when: Option<When>,
    /// Where it was written.
    pub source: Source,
}

/// A set of hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// Every host of the fleet.
    Any,
    /// One host.
    Host {
        /// As it was written.
        name: Name,
        /// The host it meant when the bundle was applied; `None` in a bundle that was only checked.
        id: Option<HostId>,
    },
    /// The hosts that have all these labels; at least one.
    Labels(Vec<Label>),
    /// The hosts that are endpoints of a service of the bundle.
    Service(Name),
    /// A workload of the bundle, in `from` only.
    Workload(Name),
}

impl Rule {
    /// Returns whether it takes more than packets to know whether the rule matches: a request, who
    /// on a host asks, or the time.
    pub fn needs_more_than_packets(&self) -> bool {
        !self.http.is_empty() || self.when.is_some() || self.names_workload()
    }

    /// Returns whether its `from` names a workload.
    pub fn names_workload(&self) -> bool {
        self.from
            .iter()
            .any(|from| matches!(from, Selector::Workload(_)))
    }
}

impl Selector {
    /// Returns whether the host is in the set, or may run the workload. Services and workloads are
    /// looked up in `bundle`; an unknown one has no hosts.
    pub fn matches(&self, host: &HostRecord, bundle: &Bundle) -> bool {
        match self {
            Self::Service(name) => bundle
                .services
                .iter()
                .filter(|service| service.name == *name)
                .flat_map(|service| &service.endpoints)
                .any(|endpoint| endpoint.selects(host)),
            Self::Workload(name) => bundle
                .workloads
                .iter()
                .filter(|workload| workload.name == *name)
                .flat_map(|workload| &workload.hosts)
                .any(|selector| selector.selects(host)),
            selector => selector.selects(host),
        }
    }

    /// Returns whether the selector selects the host by itself, as `any`, hosts and labels do.
    /// Services and workloads select nobody so: as endpoints of a service, or as hosts of a
    /// workload, `policy` refuses them.
    pub fn selects(&self, host: &HostRecord) -> bool {
        match self {
            Self::Any => true,
            Self::Host { id: Some(id), .. } => *id == host.host,
            Self::Host { name, id: None } => *name == host.name,
            Self::Labels(labels) => labels
                .iter()
                .all(|label| host.labels.get(&label.key) == Some(&label.value)),
            Self::Service(_) | Self::Workload(_) => false,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Host { name, .. } | Self::Service(name) | Self::Workload(name) => {
                write!(f, "{name}")
            }
            Self::Labels(labels) => {
                for (position, label) in labels.iter().enumerate() {
                    if position > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{label}")?;
                }
                Ok(())
            }
        }
    }
}

/// Which packets a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Every packet.
    All,
    /// These ports and protocols; at least one.
    Ports {
        /// TCP destination ports.
        tcp: Vec<PortRange>,
        /// UDP destination ports.
        udp: Vec<PortRange>,
        /// ICMP and ICMPv6.
        icmp: bool,
    },
    /// The port and protocol of each service in `to`, at its endpoints. `to` holds only services.
    Service,
}

/// Ports from `first` to `last`, both included, `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// Returns the range of one port.
    pub const fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Returns whether the port lies in the range.
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// IANA protocol numbers.
pub mod ip_protocol {
    /// ICMP; rules and questions use it for ICMPv6 too.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Where an operator wrote something: a file of the bundle's directory and a line from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Relative to the bundle's directory.
    pub file: String,
    /// From 1; 0 when it was not written by anyone, as in a fleet's first policy.
    pub line: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str("built in")
        } else {
            write!(f, "{}:{}", self.file, self.line)
        }
    }
}

/// Makes a label for tests and built-in rules.
impl From<(LabelKey, LabelValue)> for Label {
    fn from((key, value): (LabelKey, LabelValue)) -> Self {
        Self { key, value }
    }
}

/// Which way a flow was opened, seen from one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// This host reaches a peer.
    Outbound,
    /// A peer reaches this host.
    Inbound,
}

/// A question about a flow between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowQuery {
    /// Who opens it.
    pub from: HostId,
    /// Who is reached.
    pub to: HostId,
    /// TCP, UDP, ICMP or another number of `ip_protocol`; ICMPv6 is asked as ICMP.
    pub ip_protocol: u8,
    /// Destination port; 0 where the protocol has none.
    pub port: u16,
}

//! The rules as one host needs them: which of them concern it, with the peers as bits and the
//! ports as a tree, so that a decision is two lookups and no allocation.

use model::ids::PolicyVersion;
use model::map::PeerIndex;
use model::name::RuleId;
use model::record::HostRecord;
use model::rule::{Bundle, Direction, PortRange, Rule, Selector, Source, Traffic, ip_protocol};

use crate::reference::Effect;

pub(crate) mod peer_set;
mod port_index;

use peer_set::{PeerSets, SetBuilder};
use port_index::{Entry, PortIndex};

/// The decisions of one host, for its peers at the time of compilation.
#[derive(Debug, Default)]
pub struct Table {
    version: PolicyVersion,
    generation: u64,
    rules: Vec<RuleInfo>,
    sets: PeerSets,
    outbound: [Verdicts; CLASSES],
    inbound: [Verdicts; CLASSES],
}

/// Names a rule in one [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub(crate) u32);

/// What people are told of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// As its operator wrote it.
    pub id: RuleId,
    /// Where it was written.
    pub source: Source,
}

/// What is to be done with a flow, and which rule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it: this allow is the first that matches, and no deny does.
    Allow(RuleIndex),
    /// Refuse it: this deny is the first that matches.
    DenyByRule(RuleIndex),
    /// Refuse it: no rule allows it.
    DenyByDefault,
}

impl Verdict {
    /// Returns whether the flow may pass.
    pub const fn is_allowed(self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Returns the rule that decided.
    pub const fn rule(self) -> Option<RuleIndex> {
        match self {
            Self::Allow(rule) | Self::DenyByRule(rule) => Some(rule),
            Self::DenyByDefault => None,
        }
    }
}

impl Table {
    /// Compiles the rules that concern `me`. The indices of `peers` are dense and distinct.
    /// `generation` tells this table from every other of the process, for verdicts that are kept.
    pub fn compile(
        me: &HostRecord,
        peers: &[(PeerIndex, &HostRecord)],
        bundle: &Bundle,
        version: PolicyVersion,
        generation: u64,
    ) -> Self {
        let mut compiler = Compiler {
            me,
            sets: SetBuilder::new(peers, bundle),
            rules: Vec::new(),
            outbound: Default::default(),
            inbound: Default::default(),
        };
        for rule in &bundle.deny {
            compiler.add_rule(rule, Effect::Deny);
        }
        // One that asks for more than packets tell matches none of them, see `reference`.
        let plain = |rule: &&Rule| rule.http.is_empty() && rule.when.is_none();
        for rule in bundle.allow.iter().filter(plain) {
            compiler.add_rule(rule, Effect::Allow);
        }
        compiler.finish(version, generation)
    }

    /// Returns a table that denies everything, for a host that knows no policy yet.
    pub fn closed(generation: u64) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }

    /// Decides a flow between this host and a peer. `port` is the destination's, and counts for
    /// TCP and UDP only; ICMPv6 is decided as ICMP.
    pub fn decide(
        &self,
        direction: Direction,
        peer: PeerIndex,
        ip_protocol: u8,
        port: u16,
    ) -> Verdict {
        let class = Class::of(ip_protocol);
        let port = if class.has_ports() { port } else { 0 };
        let verdicts = match direction {
            Direction::Outbound => &self.outbound[class as usize],
            Direction::Inbound => &self.inbound[class as usize],
        };
        if let Some(rule) = verdicts.deny.first(port, peer, &self.sets) {
            return Verdict::DenyByRule(rule);
        }
        match verdicts.allow.first(port, peer, &self.sets) {
            Some(rule) => Verdict::Allow(rule),
            None => Verdict::DenyByDefault,
        }
    }

    /// Returns what people are told of a rule of a verdict of this table.
    ///
    /// # Panics
    /// When the index comes from another table.
    pub fn rule(&self, index: RuleIndex) -> &RuleInfo {
        &self.rules[index.0 as usize]
    }

    /// Returns the version of the policy that was compiled.
    pub const fn version(&self) -> PolicyVersion {
        self.version
    }

    /// Returns what tells this table from every other of the process.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns how many rules of the bundle concern this host and its peers.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }
}

/// Protocols that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Tcp,
    Udp,
    Icmp,
    Other,
}

const CLASSES: usize = 4;

impl Class {
    const ALL: [Self; CLASSES] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    const fn of(protocol: u8) -> Self {
        match protocol {
            ip_protocol::TCP => Self::Tcp,
            ip_protocol::UDP => Self::Udp,
            ip_protocol::ICMP | ip_protocol::ICMPV6 => Self::Icmp,
            _ => Self::Other,
        }
    }

    const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// The rules of one direction and class.
#[derive(Debug, Default)]
struct Verdicts {
    deny: PortIndex,
    allow: PortIndex,
}

/// The same while it is being collected.
#[derive(Default)]
struct Entries {
    deny: Vec<Entry>,
    allow: Vec<Entry>,
}

impl Entries {
    fn of(&mut self, effect: Effect) -> &mut Vec<Entry> {
        match effect {
            Effect::Deny => &mut self.deny,
            Effect::Allow => &mut self.allow,
        }
    }
}

struct Compiler<'b> {
    me: &'b HostRecord,
    sets: SetBuilder<'b>,
    rules: Vec<RuleInfo>,
    outbound: [Entries; CLASSES],
    inbound: [Entries; CLASSES],
}

/// One part of what a rule matches, the same for all its ports.
struct Part<'b> {
    class: Class,
    ports: PortRange,
    to: Reach<'b>,
}

/// Who a part of a rule is about.
#[derive(Clone, Copy)]
enum Reach<'b> {
    Selected(&'b [Selector]),
    /// An endpoint that is a service selects nobody, as in `Selector::matches`.
    Endpoints(&'b [Selector]),
    Everyone,
}

impl<'b> Compiler<'b> {
    fn add_rule(&mut self, rule: &'b Rule, effect: Effect) {
        let index = RuleIndex(u32::try_from(self.rules.len()).expect("bounded by Limits::RULES"));
        let from = Reach::Selected(&rule.from);
        let from_me = self.selects_me(from, effect);
        let mut concerns_us = false;
        for part in self.parts(rule, effect) {
            if from_me {
                concerns_us |= self.insert(Direction::Outbound, &part, part.to, index, effect);
            }
            if self.selects_me(part.to, effect) {
                concerns_us |= self.insert(Direction::Inbound, &part, from, index, effect);
            }
        }
        if concerns_us {
            self.rules.push(RuleInfo {
                id: rule.id.clone(),
                source: rule.source.clone(),
            });
        }
    }

    fn parts(&self, rule: &'b Rule, effect: Effect) -> Vec<Part<'b>> {
        let to = Reach::Selected(&rule.to);
        match &rule.traffic {
            Traffic::All => all_classes(to).collect(),
            Traffic::Ports { tcp, udp, icmp } => {
                let part = |class, ports| Part { class, ports, to };
                tcp.iter()
                    .map(|range| part(Class::Tcp, *range))
                    .chain(udp.iter().map(|range| part(Class::Udp, *range)))
                    .chain(icmp.then(|| part(Class::Icmp, PortRange::ALL)))
                    .collect()
            }
            Traffic::Service => rule
                .to
                .iter()
                .flat_map(|to| self.service_parts(to, effect))
                .collect(),
        }
    }

    /// See `reference` for what an unknown service means.
    fn service_parts(&self, to: &'b Selector, effect: Effect) -> Vec<Part<'b>> {
        let services = match to {
            Selector::Service(name) => self.sets.services_named(name),
            _ => &[],
        };
        if services.is_empty() {
            return match effect {
                Effect::Deny => all_classes(Reach::Everyone).collect(),
                Effect::Allow => Vec::new(),
            };
        }
        services
            .iter()
            .map(|service| Part {
                class: Class::of(service.protocol.ip_protocol()),
                ports: PortRange::single(service.port),
                to: Reach::Endpoints(&service.endpoints),
            })
            .collect()
    }

    fn selects_me(&self, reach: Reach<'b>, effect: Effect) -> bool {
        match reach {
            Reach::Everyone => true,
            Reach::Endpoints(endpoints) => endpoints.iter().any(|it| it.selects(self.me)),
            Reach::Selected(selectors) => selectors.iter().any(|it| self.selects_me_by(it, effect)),
        }
    }

    /// As `reference::selects`, but finds services by an index.
    fn selects_me_by(&self, selector: &Selector, effect: Effect) -> bool {
        match selector {
            Selector::Service(name) => match self.sets.services_named(name) {
                [] => effect == Effect::Deny,
                services => services
                    .iter()
                    .flat_map(|service| &service.endpoints)
                    .any(|endpoint| endpoint.selects(self.me)),
            },
            Selector::Workload(_) if effect == Effect::Allow => false,
            Selector::Workload(name) => match self.sets.workloads_named(name) {
                [] => true,
                workloads => workloads
                    .iter()
                    .flat_map(|workload| &workload.hosts)
                    .any(|hosts| hosts.selects(self.me)),
            },
            selector => selector.selects(self.me),
        }
    }

    /// Returns whether there is a peer that the part is about.
    fn insert(
        &mut self,
        direction: Direction,
        part: &Part<'b>,
        peers: Reach<'b>,
        rule: RuleIndex,
        effect: Effect,
    ) -> bool {
        let set = match peers {
            Reach::Everyone => self.sets.everyone(),
            Reach::Endpoints(endpoints) => self.sets.set_of_endpoints(endpoints),
            Reach::Selected(selectors) => self.sets.set_of(selectors, effect),
        };
        let Some(peers) = set else { return false };
        let classes = match direction {
            Direction::Outbound => &mut self.outbound,
            Direction::Inbound => &mut self.inbound,
        };
        let entry = Entry {
            ports: part.ports,
            rule,
            peers,
        };
        classes[part.class as usize].of(effect).push(entry);
        true
    }

    fn finish(self, version: PolicyVersion, generation: u64) -> Table {
        let sets = self.sets.finish();
        let index = |entries: Entries| Verdicts {
            deny: PortIndex::build(&entries.deny, &sets),
            allow: PortIndex::build(&entries.allow, &sets),
        };
        let outbound = self.outbound.map(index);
        let inbound = self.inbound.map(index);
        Table {
            version,
            generation,
            rules: self.rules,
            sets,
            outbound,
            inbound,
        }
    }
}

fn all_classes(to: Reach<'_>) -> impl Iterator<Item = Part<'_>> {
    Class::ALL.into_iter().map(move |class| Part {
        class,
        ports: PortRange::ALL,
        to,
    })
}

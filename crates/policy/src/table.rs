//! The rules as one host needs them: which of them concern it, with the peers as bits and the
//! ports as a tree, so that a decision is two lookups and no allocation.

use std::collections::BTreeMap;

use model::ids::PolicyVersion;
use model::map::PeerIndex;
use model::name::{Name, RuleId};
use model::record::HostRecord;
use model::rule::{Bundle, Direction, PortRange, Rule, Selector, Source, Traffic, ip_protocol};

use crate::reference::Effect;

mod claim_index;
pub(crate) mod peer_set;
mod port_index;

use claim_index::ClaimIndex;
use peer_set::{PeerSets, SetBuilder, SetId};
use port_index::{Entry, PortIndex, earlier};

/// The decisions of one host, for its peers at the time of compilation.
#[derive(Debug, Default)]
pub struct Table {
    version: PolicyVersion,
    generation: u64,
    rules: Vec<RuleInfo>,
    sets: PeerSets,
    workloads: BTreeMap<Name, Placed>,
    /// By rule, those that it names.
    named: Vec<Box<[WorkloadIndex]>>,
    outbound: [Verdicts; CLASSES],
    inbound: [Verdicts; CLASSES],
}

/// Names a workload in one table.
type WorkloadIndex = u32;

/// Where a workload may run.
#[derive(Clone, Copy, Debug)]
struct Placed {
    index: WorkloadIndex,
    is_here: bool,
    peers: Option<SetId>,
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

impl RuleInfo {
    pub(crate) fn of(rule: &Rule) -> Self {
        Self {
            id: rule.id.clone(),
            source: rule.source.clone(),
        }
    }
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
    /// Refuse it, since it is not known which program sends it: a deny of this rule may mean it, or
    /// this is the first allow that would allow it to one of its workloads.
    DenyUnknownWorkload(RuleIndex),
}

impl Verdict {
    /// Returns whether the flow may pass.
    pub const fn is_allowed(self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Returns whether it may pass, or might if it were known who sends it.
    pub const fn may_be_allowed(self) -> bool {
        matches!(self, Self::Allow(_) | Self::DenyUnknownWorkload(_))
    }

    /// Returns the rule that decided.
    pub const fn rule(self) -> Option<RuleIndex> {
        match self {
            Self::Allow(rule) | Self::DenyByRule(rule) | Self::DenyUnknownWorkload(rule) => {
                Some(rule)
            }
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
            workloads: BTreeMap::new(),
            named: Vec::new(),
            rules: Vec::new(),
            outbound: Default::default(),
            inbound: Default::default(),
        };
        compiler.place_workloads(bundle);
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

    /// Decides a flow between this host and a peer, where it is not known which program opened it.
    /// `port` is the destination's, and counts for TCP and UDP only; ICMPv6 is decided as ICMP.
    pub fn decide(
        &self,
        direction: Direction,
        peer: PeerIndex,
        ip_protocol: u8,
        port: u16,
    ) -> Verdict {
        let (verdicts, port) = self.about(direction, ip_protocol, port);
        let sure = verdicts.deny.first(port, peer, &self.sets);
        let any = |_| true;
        if let Some(rule) = verdicts.deny_claims.first(port, peer, &self.sets, any)
            && sure.is_none_or(|sure| rule < sure)
        {
            return Verdict::DenyUnknownWorkload(rule);
        }
        if let Some(rule) = sure {
            return Verdict::DenyByRule(rule);
        }
        if let Some(rule) = verdicts.allow.first(port, peer, &self.sets) {
            return Verdict::Allow(rule);
        }
        match verdicts.allow_claims.first(port, peer, &self.sets, any) {
            Some(rule) => Verdict::DenyUnknownWorkload(rule),
            None => Verdict::DenyByDefault,
        }
    }

    /// Decides as [`Table::decide`], where the host that opened the flow says which workload did. A
    /// host that may not run it is not believed.
    pub fn decide_claimed(
        &self,
        direction: Direction,
        peer: PeerIndex,
        ip_protocol: u8,
        port: u16,
        workload: &Name,
    ) -> Verdict {
        let Some(workload) = self.believed(direction, peer, workload) else {
            return self.decide(direction, peer, ip_protocol, port);
        };
        let (verdicts, port) = self.about(direction, ip_protocol, port);
        let names_it = |rule: RuleIndex| self.named[rule.0 as usize].contains(&workload);
        let first = |plain: &PortIndex, claims: &ClaimIndex| {
            let plain = plain.first(port, peer, &self.sets);
            earlier(plain, claims.first(port, peer, &self.sets, names_it))
        };
        if let Some(rule) = first(&verdicts.deny, &verdicts.deny_claims) {
            return Verdict::DenyByRule(rule);
        }
        match first(&verdicts.allow, &verdicts.allow_claims) {
            Some(rule) => Verdict::Allow(rule),
            None => Verdict::DenyByDefault,
        }
    }

    /// Returns the rules of a direction and protocol, and the port as they are asked about it.
    fn about(&self, direction: Direction, ip_protocol: u8, port: u16) -> (&Verdicts, u16) {
        let class = Class::of(ip_protocol);
        let port = if class.has_ports() { port } else { 0 };
        let verdicts = match direction {
            Direction::Outbound => &self.outbound[class as usize],
            Direction::Inbound => &self.inbound[class as usize],
        };
        (verdicts, port)
    }

    /// Returns a workload that the host which opens flows in a direction may run.
    fn believed(
        &self,
        direction: Direction,
        peer: PeerIndex,
        workload: &Name,
    ) -> Option<WorkloadIndex> {
        let placed = self.workloads.get(workload)?;
        let may_run = match direction {
            Direction::Outbound => placed.is_here,
            Direction::Inbound => {
                let peers = placed.peers;
                peers.is_some_and(|peers| self.sets.contains(peers, peer))
            }
        };
        may_run.then_some(placed.index)
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

/// The rules of one direction and class: those that match whoever sends, and those that match when
/// one of the workloads that they name does.
#[derive(Debug, Default)]
struct Verdicts {
    deny: PortIndex,
    allow: PortIndex,
    deny_claims: ClaimIndex,
    allow_claims: ClaimIndex,
}

/// The same while it is being collected.
#[derive(Default)]
struct Entries {
    deny: Vec<Entry>,
    allow: Vec<Entry>,
    deny_claims: Vec<Entry>,
    allow_claims: Vec<Entry>,
}

impl Entries {
    fn of(&mut self, effect: Effect, sender: Sender) -> &mut Vec<Entry> {
        match (effect, sender) {
            (Effect::Deny, Sender::Anybody) => &mut self.deny,
            (Effect::Allow, Sender::Anybody) => &mut self.allow,
            (Effect::Deny, Sender::Workload) => &mut self.deny_claims,
            (Effect::Allow, Sender::Workload) => &mut self.allow_claims,
        }
    }
}

/// Whom of the hosts that it is about an entry means.
#[derive(Clone, Copy)]
enum Sender {
    Anybody,
    /// One of the workloads that the rule names.
    Workload,
}

struct Compiler<'b> {
    me: &'b HostRecord,
    sets: SetBuilder<'b>,
    workloads: BTreeMap<Name, Placed>,
    named: Vec<Box<[WorkloadIndex]>>,
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
    /// Whoever on them calls.
    Callers(&'b [Selector]),
    /// An endpoint that is a service selects nobody, as in `Selector::matches`.
    Endpoints(&'b [Selector]),
    Everyone,
}

impl<'b> Compiler<'b> {
    fn place_workloads(&mut self, bundle: &'b Bundle) {
        for workload in &bundle.workloads {
            if self.workloads.contains_key(&workload.name) {
                continue;
            }
            let named = self.sets.workloads_named(&workload.name).to_vec();
            let hosts = || named.iter().flat_map(|it| &it.hosts);
            let index = WorkloadIndex::try_from(self.workloads.len());
            let placed = Placed {
                index: index.expect("bounded by Limits::WORKLOADS"),
                is_here: hosts().any(|hosts| hosts.selects(self.me)),
                peers: self.sets.set_of_hosts(hosts()),
            };
            self.workloads.insert(workload.name.clone(), placed);
        }
    }

    fn add_rule(&mut self, rule: &'b Rule, effect: Effect) {
        let index = RuleIndex(u32::try_from(self.rules.len()).expect("bounded by Limits::RULES"));
        let named = rule.from.iter().filter_map(|selector| match selector {
            Selector::Workload(name) => Some(name),
            _ => None,
        });
        let named: Vec<&'b Name> = named.collect();
        let placed = named.iter().filter_map(|name| self.workloads.get(*name));
        let placed: Vec<Placed> = placed.copied().collect();
        // As in `reference`: what is not described closes.
        let is_closed = effect == Effect::Deny && placed.len() < named.len();
        let callers = match is_closed {
            true => Reach::Everyone,
            false => Reach::Callers(&rule.from),
        };
        let vouched = named
            .iter()
            .flat_map(|name| self.sets.workloads_named(name));
        let vouched: Vec<&'b Selector> = vouched.flat_map(|workload| &workload.hosts).collect();
        let vouching = self.sets.set_of_hosts(vouched.into_iter());
        let from_me = self.selects_me(callers, effect);
        let from_my_workload = placed.iter().any(|workload| workload.is_here);
        let mut concerns_us = false;
        for part in self.parts(rule, effect) {
            let is_ours = from_me || from_my_workload;
            let to = is_ours.then(|| self.set_of(part.to, effect)).flatten();
            let mut insert = |compiler: &mut Self, direction, sender, peers: Option<SetId>| {
                let entry = peers.map(|peers| Entry {
                    ports: part.ports,
                    rule: index,
                    peers,
                });
                concerns_us |= entry.is_some();
                let entries = compiler.entries(direction, part.class);
                entries.of(effect, sender).extend(entry);
            };
            if from_me {
                insert(self, Direction::Outbound, Sender::Anybody, to);
            }
            if from_my_workload {
                insert(self, Direction::Outbound, Sender::Workload, to);
            }
            if self.selects_me(part.to, effect) {
                let callers = self.set_of(callers, effect);
                insert(self, Direction::Inbound, Sender::Anybody, callers);
                insert(self, Direction::Inbound, Sender::Workload, vouching);
            }
        }
        if concerns_us {
            self.rules.push(RuleInfo::of(rule));
            let named = placed.iter().map(|workload| workload.index);
            self.named.push(named.collect());
        }
    }

    fn entries(&mut self, direction: Direction, class: Class) -> &mut Entries {
        let classes = match direction {
            Direction::Outbound => &mut self.outbound,
            Direction::Inbound => &mut self.inbound,
        };
        &mut classes[class as usize]
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
        let any =
            |selectors: &[Selector]| selectors.iter().any(|it| self.selects_me_by(it, effect));
        match reach {
            Reach::Everyone => true,
            Reach::Endpoints(endpoints) => endpoints.iter().any(|it| it.selects(self.me)),
            Reach::Selected(selectors) => any(selectors),
            Reach::Callers(selectors) => selectors
                .iter()
                .filter(|it| !matches!(it, Selector::Workload(_)))
                .any(|it| self.selects_me_by(it, effect)),
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

    fn set_of(&mut self, reach: Reach<'b>, effect: Effect) -> Option<SetId> {
        match reach {
            Reach::Everyone => self.sets.everyone(),
            Reach::Endpoints(endpoints) => self.sets.set_of_endpoints(endpoints),
            Reach::Selected(selectors) => self.sets.set_of(selectors, effect),
            Reach::Callers(selectors) => self.sets.set_of_callers(selectors, effect),
        }
    }

    fn finish(self, version: PolicyVersion, generation: u64) -> Table {
        let sets = self.sets.finish();
        let index = |entries: Entries| Verdicts {
            deny: PortIndex::build(&entries.deny, &sets),
            allow: PortIndex::build(&entries.allow, &sets),
            deny_claims: ClaimIndex::build(&entries.deny_claims),
            allow_claims: ClaimIndex::build(&entries.allow_claims),
        };
        let outbound = self.outbound.map(index);
        let inbound = self.inbound.map(index);
        Table {
            version,
            generation,
            rules: self.rules,
            sets,
            workloads: self.workloads,
            named: self.named,
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

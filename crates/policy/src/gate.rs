//! The rules as a proxy needs them: which of them concern this host, by port, with the hosts as
//! bits and the requests as patterns, so that a decision about a connection or a request is a few
//! lookups and no allocation.

use std::collections::BTreeMap;

use model::ids::{HostId, PolicyVersion};
use model::map::PeerIndex;
use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, PortRange, UnitPattern, Workload};

use crate::call::{Process, Question, Ruling, Target};
use crate::port_tree::PortTree;
use crate::reference::Effect;
use crate::reference::call::{Call, Matching};
use crate::table::peer_set::{PeerSets, SetId};
use crate::table::{RuleIndex, RuleInfo};

mod compile;
mod rule;
mod unoffered;

use rule::GateRule;

/// Decides connections and requests, as one host needs it: at the source and at the destination
/// alike.
#[derive(Debug, Default)]
pub struct Gate {
    version: PolicyVersion,
    /// Ascending, with their places in the sets; this host is at place 0.
    hosts: Box<[(HostId, PeerIndex)]>,
    sets: PeerSets,
    rules: Box<[GateRule]>,
    tree: PortTree,
    /// By node of the tree.
    nodes: Box<[Node]>,
    services: BTreeMap<Name, GateService>,
    /// By name the place in `workload_hosts`.
    workloads: BTreeMap<Name, WorkloadIndex>,
    /// Where each may run; `None`: nowhere.
    workload_hosts: Box<[Option<SetId>]>,
    /// What this host may run, the most specific first.
    mine: Box<[Workload]>,
    caught: Box<[(HostId, PortRange)]>,
    /// What it was compiled from, for explanations.
    bundle: Bundle,
    records: BTreeMap<HostId, HostRecord>,
}

/// Names a workload in one gate.
type WorkloadIndex = u32;

const ME: PeerIndex = PeerIndex(0);

/// The rules about a range of ports, ascending.
#[derive(Debug, Default)]
struct Node {
    deny: Box<[Entry]>,
    allow: Box<[Entry]>,
}

/// A rule, or a part of it, and the hosts that it is about as what is reached.
#[derive(Clone, Copy, Debug)]
struct Entry {
    rule: RuleIndex,
    to: SetId,
}

#[derive(Debug)]
struct GateService {
    port: u16,
    endpoints: Option<SetId>,
    needs_workload: bool,
    needs_request: bool,
    needs_path: bool,
    /// Whether every rule about its port is about all of its endpoints or none.
    is_one_for_all: bool,
}

/// Who calls whom.
#[derive(Clone, Copy)]
struct Ends {
    from: PeerIndex,
    to: PeerIndex,
    /// One that the host may vouch for.
    workload: Option<WorkloadIndex>,
}

impl Gate {
    /// Compiles the rules that concern `me`.
    pub fn compile(
        me: &HostRecord,
        peers: &[&HostRecord],
        bundle: &Bundle,
        version: PolicyVersion,
    ) -> Self {
        compile::compile(me, peers, bundle, version)
    }

    /// Returns the version of the policy that was compiled.
    pub const fn version(&self) -> PolicyVersion {
        self.version
    }

    /// Decides a call that this host makes or gets. Hosts that it does not know are denied.
    pub fn decide(&self, question: &Question<'_>) -> Ruling {
        let Some((ends, port)) = self.ends(question) else {
            return Ruling::DenyByDefault;
        };
        if let Some((rule, matching)) = self.first(Effect::Deny, port, ends, question) {
            return match matching {
                Matching::Yes => Ruling::DenyByRule(rule),
                _ => Ruling::DenyUnknownWorkload(rule),
            };
        }
        match self.first(Effect::Allow, port, ends, question) {
            Some((rule, Matching::Yes)) => Ruling::Allow(rule),
            Some((rule, _)) => Ruling::DenyUnknownWorkload(rule),
            None => Ruling::DenyByDefault,
        }
    }

    /// Returns whether any rule about what is called names a workload.
    pub fn needs_workload(&self, target: Target<'_>) -> bool {
        match target {
            Target::Service(name) => self.services.get(name).is_some_and(|it| it.needs_workload),
            Target::Port(port) => self.any_rule_at(port, GateRule::needs_workload),
        }
    }

    /// Returns whether any rule about what is called looks at requests.
    pub fn needs_request(&self, target: Target<'_>) -> bool {
        match target {
            Target::Service(name) => self.services.get(name).is_some_and(|it| it.needs_request),
            Target::Port(port) => self.any_rule_at(port, GateRule::needs_request),
        }
    }

    /// Returns whether any rule about what is called looks at the paths of requests. Where none does,
    /// they may be what they like.
    pub fn needs_path(&self, target: Target<'_>) -> bool {
        match target {
            Target::Service(name) => self.services.get(name).is_some_and(|it| it.needs_path),
            Target::Port(port) => self.any_rule_at(port, GateRule::needs_path),
        }
    }

    /// Returns whether any rule about what is called looks at the hosts or headers of requests. Where
    /// none does, a request is decided by its method and path, which are kept of it longer.
    pub fn needs_headers(&self, target: Target<'_>) -> bool {
        let port = match target {
            Target::Service(name) => self.services.get(name).map(|it| it.port),
            Target::Port(port) => Some(port),
        };
        port.is_some_and(|port| self.any_rule_at(port, GateRule::needs_headers))
    }

    /// Returns whether a call is decided alike for all hosts that offer what is called, so that one of
    /// them need be asked about.
    pub fn is_one_for_all(&self, target: Target<'_>) -> bool {
        match target {
            Target::Service(name) => self.services.get(name).is_some_and(|it| it.is_one_for_all),
            Target::Port(_) => false,
        }
    }

    /// Returns whether the host is one that may be called with this.
    pub fn offers(&self, target: Target<'_>, host: HostId) -> bool {
        let Some(place) = self.host(host) else {
            return false;
        };
        match target {
            Target::Port(_) => true,
            Target::Service(name) => {
                let service = self.services.get(name);
                let endpoints = service.and_then(|service| service.endpoints);
                endpoints.is_some_and(|endpoints| self.sets.contains(endpoints, place))
            }
        }
    }

    /// Returns whether the policy places the workload on the host: only then may it vouch for it.
    pub fn may_vouch(&self, host: HostId, workload: &Name) -> bool {
        let known = self.host(host).zip(self.workloads.get(workload));
        known.is_some_and(|(host, workload)| self.may_run(host, *workload))
    }

    /// Returns the workload of a process of this host: the one that says most of it, by unit and user,
    /// by unit, by user; of several alike the one whose name comes first. `None`: it is nobody that
    /// the policy names.
    pub fn workload_of(&self, process: &Process<'_>) -> Option<&Name> {
        let is_it = |workload: &&Workload| {
            let unit = workload.unit.as_ref();
            let user = workload.user.as_ref();
            unit.is_none_or(|pattern| process.unit.is_some_and(|unit| pattern.matches(unit)))
                && user.is_none_or(|user| user.matches(process.user, process.uid))
        };
        self.mine.iter().find(is_it).map(|workload| &workload.name)
    }

    /// Returns which units a workload is, of those that this host may run; `None`: it may not run
    /// it, or the workload is told by its user alone.
    pub fn unit_of(&self, workload: &Name) -> Option<&UnitPattern> {
        let of_that_name = |it: &&Workload| it.name == *workload;
        self.mine.iter().find(of_that_name)?.unit.as_ref()
    }

    /// Returns what people are told of a rule of a ruling of this gate.
    ///
    /// # Panics
    /// When the index comes from another gate.
    pub fn rule(&self, index: RuleIndex) -> &RuleInfo {
        &self.rules[index.0 as usize].info
    }

    /// Returns which direct dials of peers have to be caught here, since a rule about them needs to
    /// know more than packets tell: ascending, ranges that do not touch.
    pub fn caught(&self) -> impl Iterator<Item = (HostId, PortRange)> {
        self.caught.iter().copied()
    }

    /// Says why a call is allowed or denied, and which rules nearly decided otherwise.
    pub fn explain(&self, question: &Question<'_>) -> crate::RequestExplained {
        match self.call(question) {
            None => crate::RequestExplained::of_strangers(),
            Some(call) => crate::explain_call(&self.bundle, &call),
        }
    }

    /// Says which rules come close to allowing a call that was denied, though not everything was kept of
    /// it; `is_by_rule`: a deny took it.
    pub fn near_misses(&self, question: &Question<'_>, is_by_rule: bool) -> Vec<String> {
        match self.call(question) {
            None => crate::RequestExplained::of_strangers().near_misses,
            Some(call) => crate::explain::near_misses_of_denied(&self.bundle, &call, is_by_rule),
        }
    }

    /// `None`: one of the hosts is not known here.
    fn call<'q>(&'q self, question: &Question<'q>) -> Option<Call<'q>> {
        Some(Call {
            from: self.records.get(&question.from)?,
            workload: question.workload,
            to: self.records.get(&question.to)?,
            target: question.target,
            request: question.request,
            at: Some(question.at),
        })
    }

    /// Returns who calls whom at which port; `None`: that is none of this host's business, or not
    /// offered there.
    fn ends(&self, question: &Question<'_>) -> Option<(Ends, u16)> {
        let (from, to) = (self.host(question.from)?, self.host(question.to)?);
        if from != ME && to != ME {
            return None;
        }
        let port = match question.target {
            Target::Port(port) => port,
            Target::Service(name) => {
                let service = self.services.get(name)?;
                let endpoints = service.endpoints?;
                self.sets.contains(endpoints, to).then_some(service.port)?
            }
        };
        let workload = question.workload.and_then(|name| self.workloads.get(name));
        let workload = workload.copied().filter(|it| self.may_run(from, *it));
        let ends = Ends { from, to, workload };
        Some((ends, port))
    }

    /// Returns the first rule of an effect that matches: of denies any, of allows one that matches for
    /// sure, if there is one.
    fn first(
        &self,
        effect: Effect,
        port: u16,
        ends: Ends,
        question: &Question<'_>,
    ) -> Option<(RuleIndex, Matching)> {
        let (mut sure, mut unsure) = (None, None);
        for node in self.tree.holding(port) {
            let entries = match effect {
                Effect::Deny => &self.nodes[node].deny,
                Effect::Allow => &self.nodes[node].allow,
            };
            for entry in entries {
                let settled = match effect {
                    Effect::Deny => earlier(sure, unsure),
                    Effect::Allow => sure,
                };
                if settled.is_some_and(|rule| rule <= entry.rule) {
                    break;
                }
                match self.matches(entry, ends, question, effect) {
                    Matching::Yes => sure = Some(entry.rule),
                    Matching::IfItIsTheWorkload => unsure = earlier(unsure, Some(entry.rule)),
                    Matching::No => {}
                }
            }
        }
        let is_sure = effect == Effect::Allow || unsure.is_none() || earlier(sure, unsure) == sure;
        match sure.filter(|_| is_sure) {
            Some(rule) => Some((rule, Matching::Yes)),
            None => unsure.map(|rule| (rule, Matching::IfItIsTheWorkload)),
        }
    }

    fn matches(
        &self,
        entry: &Entry,
        ends: Ends,
        question: &Question<'_>,
        effect: Effect,
    ) -> Matching {
        if !self.sets.contains(entry.to, ends.to) {
            return Matching::No;
        }
        let rule = &self.rules[entry.rule.0 as usize];
        let matching = self.matches_from(rule, ends);
        if matching != Matching::No
            && rule.matches_when(question.at, effect)
            && rule.matches_request(question.request.as_ref(), effect)
        {
            matching
        } else {
            Matching::No
        }
    }

    fn matches_from(&self, rule: &GateRule, ends: Ends) -> Matching {
        let contains = |set: Option<SetId>| set.is_some_and(|it| self.sets.contains(it, ends.from));
        if contains(rule.from_hosts) {
            return Matching::Yes;
        }
        match ends.workload {
            Some(workload) if rule.from_workloads.contains(&workload) => Matching::Yes,
            None if contains(rule.from_workload_hosts) => Matching::IfItIsTheWorkload,
            _ => Matching::No,
        }
    }

    fn may_run(&self, host: PeerIndex, workload: WorkloadIndex) -> bool {
        let hosts = self.workload_hosts[workload as usize];
        hosts.is_some_and(|hosts| self.sets.contains(hosts, host))
    }

    fn host(&self, host: HostId) -> Option<PeerIndex> {
        let position = self.hosts.binary_search_by_key(&host, |(host, _)| *host);
        position.ok().map(|position| self.hosts[position].1)
    }

    fn any_rule_at(&self, port: u16, is_it: impl Fn(&GateRule) -> bool) -> bool {
        self.tree.holding(port).any(|node| {
            let node = &self.nodes[node];
            let mut entries = node.deny.iter().chain(&node.allow);
            entries.any(|entry| is_it(&self.rules[entry.rule.0 as usize]))
        })
    }
}

fn earlier(one: Option<RuleIndex>, other: Option<RuleIndex>) -> Option<RuleIndex> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

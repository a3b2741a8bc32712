//! From a bundle to the gate of one host.

use std::collections::BTreeMap;

use model::ids::{HostId, PolicyVersion};
use model::map::PeerIndex;
use model::name::Name;
use model::record::HostRecord;
use model::rule::{Bundle, PortRange, Rule, Selector, Service, Traffic, Workload, ip_protocol};

use super::rule::GateRule;
use super::{Entry, Gate, GateService, ME, Node, WorkloadIndex};
use crate::port_tree::PortTree;
use crate::reference::Effect;
use crate::request_match::RequestPattern;
use crate::table::peer_set::{PeerSets, SetBuilder, SetId};
use crate::table::{RuleIndex, RuleInfo};
use crate::traffic_set::PortSet;
use crate::window::Window;

pub(super) fn compile(
    me: &HostRecord,
    peers: &[&HostRecord],
    bundle: &Bundle,
    version: PolicyVersion,
) -> Gate {
    let others = peers.iter().filter(|peer| peer.host != me.host).copied();
    let everyone: Vec<(PeerIndex, &HostRecord)> = (0..)
        .map(PeerIndex)
        .zip(std::iter::once(me).chain(others))
        .collect();
    let mut compiler = Compiler::new(&everyone, bundle);
    let denies = bundle
        .deny
        .iter()
        .map(|rule| compiler.rule(rule, Effect::Deny));
    let mut drafts: Vec<Draft> = denies.collect();
    let allows = bundle
        .allow
        .iter()
        .map(|rule| compiler.rule(rule, Effect::Allow));
    drafts.extend(allows.collect::<Vec<_>>());
    let services = compiler.services();
    let sets = compiler.sets.finish();
    drafts.retain_mut(|draft| draft.concerns_me(&sets));
    let caught = caught(&drafts, &sets, &everyone);
    let (tree, nodes) = index(&drafts);
    let mut hosts: Vec<(HostId, PeerIndex)> = everyone
        .iter()
        .map(|(place, host)| (host.host, *place))
        .collect();
    hosts.sort_unstable();
    let mut gate = Gate {
        version,
        hosts: hosts.into(),
        rules: drafts.into_iter().map(|draft| draft.rule).collect(),
        sets,
        tree,
        nodes,
        services,
        workloads: compiler.workloads,
        workload_hosts: compiler.workload_hosts.into(),
        mine: mine(me, bundle),
        caught,
        bundle: bundle.clone(),
        records: everyone
            .iter()
            .map(|(_, host)| (host.host, (*host).clone()))
            .collect(),
    };
    gate.note_needs();
    gate
}

/// A rule in the making, with what it is about.
struct Draft {
    effect: Effect,
    rule: GateRule,
    parts: Vec<(PortRange, SetId)>,
}

impl Draft {
    /// Leaves out the parts that this host is no end of; returns whether any are left.
    fn concerns_me(&mut self, sets: &PeerSets) -> bool {
        let is_from_me = self.is_from_me(sets);
        let is_from_anybody =
            self.rule.from_hosts.is_some() || self.rule.from_workload_hosts.is_some();
        self.parts
            .retain(|(_, to)| is_from_me || is_from_anybody && sets.contains(*to, ME));
        !self.parts.is_empty()
    }

    fn is_from_me(&self, sets: &PeerSets) -> bool {
        let from = [self.rule.from_hosts, self.rule.from_workload_hosts];
        from.into_iter().flatten().any(|set| sets.contains(set, ME))
    }
}

struct Compiler<'b> {
    bundle: &'b Bundle,
    sets: SetBuilder<'b>,
    workloads: BTreeMap<Name, WorkloadIndex>,
    workload_hosts: Vec<Option<SetId>>,
}

impl<'b> Compiler<'b> {
    fn new(hosts: &[(PeerIndex, &'b HostRecord)], bundle: &'b Bundle) -> Self {
        let mut sets = SetBuilder::new(hosts, bundle);
        let (mut workloads, mut workload_hosts) = (BTreeMap::new(), Vec::new());
        for workload in &bundle.workloads {
            workloads.entry(workload.name.clone()).or_insert_with(|| {
                let named = sets.workloads_named(&workload.name).to_vec();
                let hosts = named.iter().flat_map(|workload| &workload.hosts);
                workload_hosts.push(sets.set_of_hosts(hosts));
                WorkloadIndex::try_from(workload_hosts.len() - 1).expect("Limits::WORKLOADS")
            });
        }
        Self {
            bundle,
            sets,
            workloads,
            workload_hosts,
        }
    }

    fn rule(&mut self, rule: &'b Rule, effect: Effect) -> Draft {
        let named = rule.from.iter().filter_map(|selector| match selector {
            Selector::Workload(name) => Some(name),
            _ => None,
        });
        let named: Vec<&Name> = named.collect();
        // As in `reference`: what is not described closes.
        let is_open =
            effect == Effect::Allow || named.iter().all(|name| self.workloads.contains_key(*name));
        let from_hosts = if is_open {
            self.sets.set_of_callers(&rule.from, effect)
        } else {
            self.sets.everyone()
        };
        let hosts = named
            .iter()
            .flat_map(|name| self.sets.workloads_named(name).to_vec());
        let hosts: Vec<&'b Workload> = hosts.collect();
        let from_workload_hosts = self
            .sets
            .set_of_hosts(hosts.iter().flat_map(|workload| &workload.hosts));
        Draft {
            effect,
            parts: self.parts(rule, effect),
            rule: GateRule {
                info: RuleInfo::of(rule),
                from_hosts,
                from_workloads: named
                    .iter()
                    .filter_map(|name| self.workloads.get(*name).copied())
                    .collect(),
                from_workload_hosts,
                names_workload: !named.is_empty(),
                http: rule.http.iter().map(RequestPattern::new).collect(),
                when: rule.when.as_ref().map(Window::new),
            },
        }
    }

    /// Returns what of TCP a rule is about, and at which hosts.
    fn parts(&mut self, rule: &'b Rule, effect: Effect) -> Vec<(PortRange, SetId)> {
        let ranges = match &rule.traffic {
            Traffic::All => vec![PortRange::ALL],
            Traffic::Ports { tcp, .. } => tcp.clone(),
            Traffic::Service => return self.service_parts(rule, effect),
        };
        let to = self.sets.set_of(&rule.to, effect);
        let parts = to.into_iter();
        parts
            .flat_map(|to| ranges.iter().map(move |range| (*range, to)))
            .collect()
    }

    fn service_parts(&mut self, rule: &'b Rule, effect: Effect) -> Vec<(PortRange, SetId)> {
        let mut parts = Vec::new();
        for to in &rule.to {
            let described = match to {
                Selector::Service(name) => self.sets.services_named(name).to_vec(),
                _ => Vec::new(),
            };
            if described.is_empty() && effect == Effect::Deny {
                parts.extend(self.sets.everyone().map(|all| (PortRange::ALL, all)));
            }
            for service in described.into_iter().filter(is_tcp) {
                let endpoints = self.sets.set_of_endpoints(&service.endpoints);
                let port = PortRange::single(service.port);
                parts.extend(endpoints.map(|endpoints| (port, endpoints)));
            }
        }
        parts
    }

    /// Returns the services that can be called: of those with one name, which only a liar has, the
    /// first.
    fn services(&mut self) -> BTreeMap<Name, GateService> {
        let mut services = BTreeMap::new();
        for service in self.bundle.services.iter().filter(is_tcp) {
            let endpoints = self.sets.set_of_endpoints(&service.endpoints);
            services.entry(service.name.clone()).or_insert(GateService {
                port: service.port,
                endpoints,
                needs_workload: false,
                needs_request: false,
                needs_path: false,
                is_one_for_all: true,
            });
        }
        services
    }
}

fn is_tcp(service: &&Service) -> bool {
    service.protocol.ip_protocol() == ip_protocol::TCP
}

fn index(drafts: &[Draft]) -> (PortTree, Box<[Node]>) {
    let ranges = drafts.iter().flat_map(|draft| &draft.parts);
    let tree = PortTree::of(ranges.map(|(range, _)| *range));
    let mut lists: Vec<(Vec<Entry>, Vec<Entry>)> = Vec::new();
    lists.resize_with(tree.node_count(), Default::default);
    for (rule, draft) in (0..).map(RuleIndex).zip(drafts) {
        for (range, to) in &draft.parts {
            for node in tree.covering(*range) {
                let entry = Entry { rule, to: *to };
                match draft.effect {
                    Effect::Deny => lists[node].0.push(entry),
                    Effect::Allow => lists[node].1.push(entry),
                }
            }
        }
    }
    let node = |(deny, allow): (Vec<Entry>, Vec<Entry>)| Node {
        deny: deny.into(),
        allow: allow.into(),
    };
    (tree, lists.into_iter().map(node).collect())
}

/// Returns the direct dials from this host that a rule needs to know more of than packets tell.
fn caught(
    drafts: &[Draft],
    sets: &PeerSets,
    hosts: &[(PeerIndex, &HostRecord)],
) -> Box<[(HostId, PortRange)]> {
    let mut ranges: BTreeMap<PeerIndex, Vec<PortRange>> = BTreeMap::new();
    let asks_more = |draft: &&Draft| {
        let rule = &draft.rule;
        rule.names_workload || !rule.http.is_empty() || rule.when.is_some()
    };
    for draft in drafts.iter().filter(asks_more) {
        if !draft.is_from_me(sets) {
            continue;
        }
        for (range, to) in &draft.parts {
            for peer in sets.members(*to).filter(|peer| *peer != ME) {
                ranges.entry(peer).or_default().push(*range);
            }
        }
    }
    let mut caught: Vec<(HostId, PortRange)> = Vec::new();
    for (peer, ranges) in ranges {
        let (_, host) = hosts[peer.0 as usize];
        let ports = PortSet::of(ranges);
        caught.extend(ports.ranges().iter().map(|range| (host.host, *range)));
    }
    caught.sort_unstable();
    caught.into()
}

/// Returns the workloads that this host may run, the one that says most of a process first.
fn mine(me: &HostRecord, bundle: &Bundle) -> Box<[Workload]> {
    let may_run = |workload: &&Workload| workload.hosts.iter().any(|hosts| hosts.selects(me));
    let mut mine: Vec<Workload> = bundle.workloads.iter().filter(may_run).cloned().collect();
    mine.sort_by_cached_key(|workload| {
        let unit = workload.unit.as_ref();
        let says = (
            unit.is_some() && workload.user.is_some(),
            unit.is_some(),
            unit.is_some_and(|unit| !unit.is_pattern()),
            unit.map_or(0, |unit| unit.specificity()),
        );
        (std::cmp::Reverse(says), workload.name.clone())
    });
    mine.into()
}

impl Gate {
    /// Notes of each service whether a rule about its port at its endpoints needs more.
    fn note_needs(&mut self) {
        let mut services = std::mem::take(&mut self.services);
        for service in services.values_mut() {
            let Some(endpoints) = service.endpoints else {
                continue;
            };
            for node in self.tree.holding(service.port) {
                let node = &self.nodes[node];
                for entry in node.deny.iter().chain(&node.allow) {
                    if self.sets.intersect(entry.to, endpoints) {
                        let rule = &self.rules[entry.rule.0 as usize];
                        service.needs_workload |= rule.needs_workload();
                        service.needs_request |= rule.needs_request();
                        service.needs_path |= rule.needs_path();
                        service.is_one_for_all &= self.sets.covers(entry.to, endpoints);
                    }
                }
            }
        }
        self.services = services;
    }
}

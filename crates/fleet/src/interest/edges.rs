//! What the rules of one bundle connect, without any host: selectors, the sets that rules name (a
//! `from` or a `to`, equal ones once), which sets face each other, and which leaves belong to whom.

use std::collections::{BTreeMap, BTreeSet};

use model::name::Name;
use model::rule::{Bundle, PortRange, Rule, Selector, Traffic, Workload, ip_protocol};

use super::selectors::{SelectorId, SelectorIndex, SelectorInterner, Traits};

/// Names a set of hosts: an end of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetId(u32);

/// Names a service by its place in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceId(u32);

/// Names a workload by its place in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkloadId(u32);

/// Names an allow by its place in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AllowId(u32);

impl SetId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a host sits: all sets that it is in, all services that it offers, all workloads that it may
/// run.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat {
    /// Ascending.
    sets: Box<[SetId]>,
    /// Ascending.
    offers: Box<[ServiceId]>,
    /// Ascending.
    runs: Box<[WorkloadId]>,
}

impl Seat {
    pub(super) fn sets(&self) -> &[SetId] {
        &self.sets
    }
}

/// Sets that a host is connected with: ascending; only the set of every host, where that is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Targets(Vec<SetId>);

impl Targets {
    pub(super) fn sets(&self) -> &[SetId] {
        &self.0
    }
}

/// What the rules of one bundle connect.
#[derive(Debug, Default)]
pub(super) struct Edges {
    selectors: SelectorIndex,
    /// By `SelectorId`.
    selected: Vec<Selected>,
    /// By `ServiceId`: the sets that name it.
    sets_naming: Vec<Vec<SetId>>,
    /// By `SetId`.
    sets: Vec<Set>,
    everyone: Option<SetId>,
    /// By `AllowId`.
    allows: Vec<AllowLeaves>,
    /// The services that traffic to hosts covers, by what is allowed.
    openings: Vec<Vec<ServiceId>>,
    /// Named by denies: everybody needs them.
    denied: BTreeSet<ServiceId>,
    /// Some deny names a workload: everybody needs them all.
    denies_workload: bool,
    service_count: u32,
    workload_count: u32,
}

/// What follows from being selected by one selector.
#[derive(Clone, Debug, Default)]
struct Selected {
    sets: Vec<SetId>,
    offers: Vec<ServiceId>,
    runs: Vec<WorkloadId>,
}

/// A set, and the rules at it.
#[derive(Debug, Default)]
struct Set {
    /// The sets at the other end of some rule, ascending.
    facing: Vec<SetId>,
    from: Vec<AllowId>,
    to: Vec<AllowId>,
}

/// What an allow needs beside itself.
#[derive(Debug)]
struct AllowLeaves {
    named: Vec<ServiceId>,
    /// It names one, so that all are needed: see `policy::leaves_concerning`.
    names_workload: bool,
    /// Index in `openings`.
    opens: Option<usize>,
}

impl Edges {
    pub(super) fn compile(bundle: &Bundle) -> Self {
        let mut draft = Draft::new(bundle);
        for rule in &bundle.allow {
            draft.allow(rule);
        }
        for rule in &bundle.deny {
            let named = draft.services_in(rule);
            draft.edges.denied.extend(named);
            draft.edges.denies_workload |= rule.names_workload();
        }
        draft.finish()
    }

    pub(super) fn set_count(&self) -> usize {
        self.sets.len()
    }

    /// Returns where a host sits. Costs what names the host.
    pub(super) fn seat(&self, traits: &Traits<'_>) -> Seat {
        let (mut sets, mut offers) = (Vec::<SetId>::new(), Vec::<ServiceId>::new());
        let mut runs = Vec::<WorkloadId>::new();
        for selector in self.selectors.selecting(traits) {
            let selected = &self.selected[selector.index()];
            sets.extend(&selected.sets);
            offers.extend(&selected.offers);
            runs.extend(&selected.runs);
        }
        sort_once(&mut offers);
        for service in &offers {
            sets.extend(&self.sets_naming[service.0 as usize]);
        }
        sort_once(&mut sets);
        sort_once(&mut runs);
        Seat {
            sets: sets.into(),
            offers: offers.into(),
            runs: runs.into(),
        }
    }

    /// Returns whether some allow goes from one to the other or back.
    pub(super) fn connects(&self, one: &Seat, other: &Seat) -> bool {
        let faces = |set: &SetId| {
            let facing = &self.sets[set.index()].facing;
            other.sets.iter().any(|it| facing.binary_search(it).is_ok())
        };
        one.sets.iter().any(faces)
    }

    pub(super) fn targets(&self, seat: &Seat) -> Targets {
        let facing = seat.sets.iter().map(|set| &self.sets[set.index()].facing);
        let mut targets: Vec<SetId> = facing.flatten().copied().collect();
        sort_once(&mut targets);
        match self.everyone {
            Some(everyone) if targets.binary_search(&everyone).is_ok() => Targets(vec![everyone]),
            _ => Targets(targets),
        }
    }

    /// Returns the leaves for a seat, ascending: denies, allows, services, workloads.
    pub(super) fn leaves(&self, seat: &Seat) -> Vec<u32> {
        let (mut allows, mut openings) = (BTreeSet::<AllowId>::new(), BTreeSet::new());
        for set in &seat.sets {
            let set = &self.sets[set.index()];
            allows.extend(set.from.iter().chain(&set.to));
            let opens = set
                .from
                .iter()
                .map(|rule| self.allows[rule.0 as usize].opens);
            openings.extend(opens.flatten());
        }
        let mut services = self.denied.clone();
        services.extend(&seat.offers);
        let mut needs_workloads = self.denies_workload;
        for rule in &allows {
            let needed = &self.allows[rule.0 as usize];
            services.extend(&needed.named);
            needs_workloads |= needed.names_workload;
        }
        for opening in openings {
            services.extend(&self.openings[opening]);
        }
        let first_service = 1 + u32::try_from(self.allows.len()).expect("bounded by Limits::RULES");
        let first_workload = first_service + self.service_count;
        let workloads: Vec<u32> = if needs_workloads {
            (0..self.workload_count).collect()
        } else {
            seat.runs.iter().map(|workload| workload.0).collect()
        };
        std::iter::once(0)
            .chain(allows.iter().map(|rule| 1 + rule.0))
            .chain(services.iter().map(|service| first_service + service.0))
            .chain(workloads.iter().map(|workload| first_workload + workload))
            .collect()
    }
}

/// What the port of a service has to be in; `None`: it may be any.
type Opening = Option<(Vec<PortRange>, Vec<PortRange>)>;

/// Edges in the making.
struct Draft<'b> {
    edges: Edges,
    interner: SelectorInterner,
    services: BTreeMap<&'b Name, Vec<ServiceId>>,
    workloads: BTreeMap<&'b Name, Vec<&'b Workload>>,
    by_port: BTreeMap<(u8, u16), Vec<ServiceId>>,
    sets: BTreeMap<Vec<Part>, SetId>,
    openings: BTreeMap<Opening, usize>,
}

/// What a set is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Selector(SelectorId),
    Service(ServiceId),
}

impl<'b> Draft<'b> {
    fn new(bundle: &'b Bundle) -> Self {
        let mut draft = Self {
            edges: Edges::default(),
            interner: SelectorInterner::default(),
            services: BTreeMap::new(),
            workloads: BTreeMap::new(),
            by_port: BTreeMap::new(),
            sets: BTreeMap::new(),
            openings: BTreeMap::new(),
        };
        for (id, service) in (0..).map(ServiceId).zip(&bundle.services) {
            draft.services.entry(&service.name).or_default().push(id);
            let port = (service.protocol.ip_protocol(), service.port);
            draft.by_port.entry(port).or_default().push(id);
            draft.edges.sets_naming.push(Vec::new());
            for endpoint in &service.endpoints {
                if let Some(selector) = draft.selector(endpoint) {
                    draft.edges.selected[selector.index()].offers.push(id);
                }
            }
            draft.edges.service_count += 1;
        }
        for (id, workload) in (0..).map(WorkloadId).zip(&bundle.workloads) {
            let same_name = draft.workloads.entry(&workload.name).or_default();
            same_name.push(workload);
            draft.edges.workload_count += 1;
            for hosts in &workload.hosts {
                if let Some(selector) = draft.selector(hosts) {
                    draft.edges.selected[selector.index()].runs.push(id);
                }
            }
        }
        draft
    }

    fn selector(&mut self, selector: &Selector) -> Option<SelectorId> {
        let id = self.interner.intern(selector)?;
        self.edges
            .selected
            .resize_with(self.interner.count(), Selected::default);
        Some(id)
    }

    fn allow(&mut self, rule: &Rule) {
        let id = u32::try_from(self.edges.allows.len()).expect("bounded by Limits::RULES");
        let (from, to) = (self.set(&rule.from), self.set(&rule.to));
        self.edges.sets[from.index()].from.push(AllowId(id));
        self.edges.sets[to.index()].to.push(AllowId(id));
        if matches_something(&rule.traffic) {
            self.edges.sets[from.index()].facing.push(to);
            self.edges.sets[to.index()].facing.push(from);
        }
        let leaves = AllowLeaves {
            named: self.services_in(rule),
            names_workload: rule.names_workload(),
            opens: self.opening(&rule.traffic),
        };
        self.edges.allows.push(leaves);
    }

    /// Returns the set of a list of selectors: one for all lists that say the same.
    fn set(&mut self, selectors: &[Selector]) -> SetId {
        let mut parts = Vec::with_capacity(selectors.len());
        for selector in selectors {
            match selector {
                Selector::Service(name) => {
                    let services = self.services.get(name).into_iter().flatten();
                    parts.extend(services.map(|id| Part::Service(*id)));
                }
                Selector::Workload(name) => parts.extend(self.hosts_of(name)),
                _ => parts.extend(self.selector(selector).map(Part::Selector)),
            }
        }
        sort_once(&mut parts);
        let any = self.interner.any().map(Part::Selector);
        if any.is_some_and(|any| parts.contains(&any)) {
            parts = any.into_iter().collect();
        }
        if let Some(known) = self.sets.get(&parts) {
            return *known;
        }
        self.new_set(parts)
    }

    fn new_set(&mut self, parts: Vec<Part>) -> SetId {
        let id = SetId(u32::try_from(self.edges.sets.len()).expect("two per rule, which are few"));
        for part in &parts {
            match part {
                Part::Selector(selector) => self.edges.selected[selector.index()].sets.push(id),
                Part::Service(service) => {
                    self.edges.sets_naming[service.0 as usize].push(id);
                }
            }
        }
        self.edges.sets.push(Set::default());
        self.sets.insert(parts, id);
        id
    }

    /// Returns the hosts that may run a workload: its own selectors, which are known by now.
    fn hosts_of(&mut self, name: &Name) -> Vec<Part> {
        let workloads = self.workloads.get(name).cloned().unwrap_or_default();
        let hosts = workloads.iter().flat_map(|workload| &workload.hosts);
        hosts
            .filter_map(|selector| self.selector(selector).map(Part::Selector))
            .collect()
    }

    fn services_in(&self, rule: &Rule) -> Vec<ServiceId> {
        let mut named: Vec<_> = rule
            .from
            .iter()
            .chain(&rule.to)
            .filter_map(|selector| match selector {
                Selector::Service(name) => self.services.get(name),
                _ => None,
            })
            .flatten()
            .copied()
            .collect();
        sort_once(&mut named);
        named
    }

    /// Returns the services that traffic to hosts reaches by their port.
    fn opening(&mut self, traffic: &Traffic) -> Option<usize> {
        let opening: Opening = match traffic {
            Traffic::Service => return None,
            Traffic::All => None,
            Traffic::Ports { tcp, udp, .. } => Some((tcp.clone(), udp.clone())),
        };
        if let Some(known) = self.openings.get(&opening) {
            return Some(*known);
        }
        let mut covered = match &opening {
            None => self.by_port.values().flatten().copied().collect(),
            Some((tcp, udp)) => {
                let mut covered = self.services_on(ip_protocol::TCP, tcp);
                covered.extend(self.services_on(ip_protocol::UDP, udp));
                covered
            }
        };
        sort_once(&mut covered);
        let index = self.edges.openings.len();
        self.edges.openings.push(covered);
        self.openings.insert(opening, index);
        Some(index)
    }

    fn services_on(&self, protocol: u8, ranges: &[PortRange]) -> Vec<ServiceId> {
        let is_filled = |range: &&PortRange| range.first <= range.last;
        let within = |range: &PortRange| {
            self.by_port
                .range((protocol, range.first)..=(protocol, range.last))
        };
        let services = ranges.iter().filter(is_filled).flat_map(within);
        services
            .flat_map(|(_, services)| services)
            .copied()
            .collect()
    }

    fn finish(mut self) -> Edges {
        for set in &mut self.edges.sets {
            sort_once(&mut set.facing);
        }
        let any = self.interner.any();
        self.edges.everyone =
            any.and_then(|any| self.sets.get(&vec![Part::Selector(any)]).copied());
        self.edges.selectors = self.interner.finish();
        self.edges
    }
}

/// Returns whether an allow of this traffic lets any packet through.
fn matches_something(traffic: &Traffic) -> bool {
    match traffic {
        Traffic::All | Traffic::Service => true,
        Traffic::Ports { tcp, udp, icmp } => *icmp || !(tcp.is_empty() && udp.is_empty()),
    }
}

fn sort_once<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

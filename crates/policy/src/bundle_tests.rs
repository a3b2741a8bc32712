//! Running a bundle's own tests. A selector stands for a host that has exactly those labels, a
//! service for such a host per endpoint selector, a name for the real host where it is known.

use std::collections::BTreeSet;

use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, Revision};
use model::key::WireguardKey;
use model::name::{Labels, Name};
use model::record::HostRecord;
use model::rule::{Bundle, Protocol, Rule, Selector, Service, Source, ip_protocol};

use crate::call::{Headers, RequestFacts, Ruling, Target};
use crate::document::{Asked, AskedRequest, Checked, Expectation, Test};
use crate::explain::{described, explain, explain_call, traffic_asked};
use crate::reference::{Call, Decision, decide, decide_call, decide_claimed};

/// What came out of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// As it was written: `allow web -> db:5432`.
    pub test: String,
    /// How it came out.
    pub verdict: TestVerdict,
    /// What decided; of a failed test what was expected, what happened and what came close, one
    /// line each.
    pub message: String,
    /// Where it was written.
    pub source: Source,
}

/// How a test came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestVerdict {
    /// As expected, for every host that it stands for.
    Passed,
    /// Not as expected, for at least one of them.
    Failed,
    /// Not as expected for a host without labels; it names a host, whose labels only the fleet knows,
    /// and is run again when the bundle is applied.
    NeedsFleet,
}

/// Runs all tests; with an inventory, host names mean the real hosts.
pub fn run_tests(checked: &Checked, inventory: Option<&[HostRecord]>) -> Vec<TestOutcome> {
    let outcomes = run_tests_in_time(checked, inventory, &|| false);
    outcomes.expect("nobody says that it is late")
}

/// As [`run_tests`], until `is_late` says so: that is asked for each pair of hosts that a test stands
/// for, so that not one test goes on long after. `None`: it was late.
pub fn run_tests_in_time(
    checked: &Checked,
    inventory: Option<&[HostRecord]>,
    is_late: &dyn Fn() -> bool,
) -> Option<Vec<TestOutcome>> {
    let runner = Runner {
        bundle: &checked.bundle,
        inventory,
        source_name: unused_name(&checked.bundle, "source-host"),
        target_name: unused_name(&checked.bundle, "target-host"),
    };
    let tests = checked.tests.iter();
    tests.map(|test| runner.run(test, is_late)).collect()
}

/// Pairs of hosts that one test may stand for.
const PAIRS_MAX: usize = 4_096;

struct Runner<'c> {
    bundle: &'c Bundle,
    inventory: Option<&'c [HostRecord]>,
    source_name: Name,
    target_name: Name,
}

/// One question of a test.
struct Case<'h> {
    from: &'h HostRecord,
    to: &'h HostRecord,
    ip_protocol: u8,
    port: u16,
}

impl Runner<'_> {
    fn run(&self, test: &Test, is_late: &dyn Fn() -> bool) -> Option<TestOutcome> {
        if is_late() {
            return None;
        }
        if let Some(name) = self.stranger(test) {
            let message = format!(
                "not run: the fleet has no host `{name}` (is it mistyped, renamed or removed?)"
            );
            return Some(outcome(test, TestVerdict::Failed, message));
        }
        let from_hosts = self.hosts(&test.from, &self.source_name);
        let to_hosts = self.hosts(&test.to, &self.target_name);
        let (ip_protocol, port) = self.traffic(test);
        let pairs = from_hosts.len() * to_hosts.len();
        if pairs > PAIRS_MAX {
            let message = format!(
                "not run: it stands for {pairs} pairs of hosts, and at most {PAIRS_MAX} are tried; \
                 name fewer endpoints"
            );
            return Some(outcome(test, TestVerdict::Failed, message));
        }
        let mut first_decision = None;
        for from in &from_hosts {
            for to in &to_hosts {
                if is_late() {
                    return None;
                }
                let case = Case {
                    from,
                    to,
                    ip_protocol,
                    port,
                };
                let decision = match self.call(test, &case) {
                    Some(call) => self.decision(decide_call(self.bundle, &call)),
                    None => self.decide_packets(test, &case),
                };
                if !is_expected(test, decision) {
                    if self.may_differ_in_the_fleet(test) {
                        let message =
                            "it names a host, whose labels only the fleet knows".to_owned();
                        return Some(outcome(test, TestVerdict::NeedsFleet, message));
                    }
                    let message = self.failure(test, &case);
                    return Some(outcome(test, TestVerdict::Failed, message));
                }
                first_decision = first_decision.or(Some(decision));
            }
        }
        let message = first_decision.map(|it| it.to_string()).unwrap_or_default();
        Some(outcome(test, TestVerdict::Passed, message))
    }

    /// Returns the host that a test names and the fleet does not have.
    fn stranger<'t>(&self, test: &'t Test) -> Option<&'t Name> {
        let inventory = self.inventory?;
        let mut ends = [&test.from, &test.to].into_iter();
        ends.find_map(|end| {
            match end {
                Selector::Host { name, .. } => Some(name),
                _ => None,
            }
            .filter(|name| !inventory.iter().any(|record| record.name == **name))
        })
    }

    /// Returns the hosts that one end of a test stands for.
    fn hosts(&self, end: &Selector, called: &Name) -> Vec<HostRecord> {
        match end {
            Selector::Service(_) => self
                .services(end)
                .flat_map(|service| &service.endpoints)
                .flat_map(|endpoint| match endpoint {
                    Selector::Service(_) | Selector::Workload(_) => Vec::new(),
                    endpoint => self.hosts(endpoint, called),
                })
                .collect(),
            Selector::Host { name, .. } => {
                let known = self
                    .inventory
                    .unwrap_or(&[])
                    .iter()
                    .find(|record| record.name == *name)
                    .cloned();
                vec![known.unwrap_or_else(|| hypothetical(name.clone(), Labels::new()))]
            }
            Selector::Labels(labels) => {
                let labels = labels
                    .iter()
                    .map(|it| (it.key.clone(), it.value.clone()))
                    .collect();
                vec![hypothetical(called.clone(), labels)]
            }
            Selector::Workload(name) => self
                .bundle
                .workload(name)
                .into_iter()
                .flat_map(|workload| &workload.hosts)
                .flat_map(|hosts| self.hosts(hosts, called))
                .collect(),
            Selector::Any => vec![hypothetical(called.clone(), Labels::new())],
        }
    }

    /// Returns whether the labels of a host that only the fleet knows may have made the difference.
    fn may_differ_in_the_fleet(&self, test: &Test) -> bool {
        let is_host = |end: &Selector| matches!(end, Selector::Host { .. });
        self.inventory.is_none() && (is_host(&test.from) || is_host(&test.to))
    }

    fn traffic(&self, test: &Test) -> (u8, u16) {
        let service = self.services(&test.to).next();
        match test.asked {
            Asked::Icmp => (ip_protocol::ICMP, 0),
            Asked::Port { protocol, port } => {
                let of_service = service.map_or(Protocol::Tcp, |service| service.protocol);
                (protocol.unwrap_or(of_service).ip_protocol(), port)
            }
            Asked::ServicePort => {
                let service =
                    service.expect("only services of the bundle are asked without a port");
                (service.protocol.ip_protocol(), service.port)
            }
        }
    }

    /// Returns the question about a connection or a request, if the test is about more than packets.
    fn call<'q>(&self, test: &'q Test, case: &Case<'q>) -> Option<Call<'q>> {
        let workload = match &test.from {
            Selector::Workload(name) => Some(name),
            _ => None,
        };
        let is_call = workload.is_some() || test.request.is_some() || test.at.is_some();
        let is_tcp = case.ip_protocol == ip_protocol::TCP;
        (is_call && is_tcp).then(|| Call {
            from: case.from,
            workload,
            to: case.to,
            target: match (&test.to, test.asked) {
                (Selector::Service(name), Asked::ServicePort) => Target::Service(name),
                _ => Target::Port(case.port),
            },
            request: test.request.as_ref().map(|request| RequestFacts {
                method: &request.method,
                path: &request.path,
                host: request.host.as_deref().unwrap_or(called_by(&test.to)),
                headers: request,
            }),
            at: test.at,
        })
    }

    /// Decides what is no connection; of datagrams it may be known who sends them.
    fn decide_packets(&self, test: &Test, case: &Case<'_>) -> Decision<'_> {
        let Case {
            from,
            to,
            ip_protocol,
            port,
        } = *case;
        match &test.from {
            Selector::Workload(name) if ip_protocol == ip_protocol::UDP => {
                let sender = Some(name);
                self.decision(decide_claimed(
                    self.bundle,
                    from,
                    sender,
                    to,
                    ip_protocol,
                    port,
                ))
            }
            _ => decide(self.bundle, from, to, ip_protocol, port),
        }
    }

    fn decision<'r>(&self, ruling: Ruling<&'r Rule>) -> Decision<'r> {
        let is_deny = |rule: &Rule| self.bundle.deny.iter().any(|it| it.id == rule.id);
        let rule = match ruling {
            // An allow that who calls might have met decides nothing.
            Ruling::DenyUnknownWorkload(rule) if !is_deny(rule) => None,
            ruling => ruling.rule(),
        };
        Decision {
            allowed: ruling.is_allowed(),
            rule,
        }
    }

    fn services<'s>(&'s self, end: &'s Selector) -> impl Iterator<Item = &'s Service> {
        crate::reference::named(end, &self.bundle.services)
    }

    fn failure(&self, test: &Test, case: &Case<'_>) -> String {
        let Case {
            from,
            to,
            ip_protocol,
            port,
        } = *case;
        let (decision, said, near_misses) = match self.call(test, case) {
            Some(call) => {
                let explained = explain_call(self.bundle, &call);
                let decision = self.decision(decide_call(self.bundle, &call));
                (decision, explained.decision, explained.near_misses)
            }
            None => {
                let explained = explain(self.bundle, from, to, ip_protocol, port);
                let decision = self.decide_packets(test, case);
                (decision, decision.to_string(), explained.near_misses)
            }
        };
        let expected = match &test.rule {
            Some(rule) if is_verdict(test, decision) => format!("rule `{rule}` to decide"),
            _ => test.expect.as_str().to_owned(),
        };
        let mut message = format!(
            "expected {expected}, but {} -> {} {} is {said}",
            described(from),
            described(to),
            asked(test, ip_protocol, port),
        );
        for near_miss in &near_misses {
            message.push_str("\n  ");
            message.push_str(near_miss);
        }
        message
    }
}

/// Returns how people write what a test asks for: `tcp 22`, `GET /v1/items at tcp 8080`.
fn asked(test: &Test, ip_protocol: u8, port: u16) -> String {
    let traffic = traffic_asked(ip_protocol, port);
    match &test.request {
        Some(request) => format!("{} {} at {traffic}", request.method, request.path),
        None => traffic,
    }
}

/// Returns the host that a request is for when a test does not say it.
fn called_by(to: &Selector) -> &str {
    match to {
        Selector::Service(name) | Selector::Host { name, .. } => name.as_str(),
        _ => "",
    }
}

impl Headers for AskedRequest {
    fn each(&self, name: &str, look: &mut dyn FnMut(&[u8])) {
        let named = self.headers.iter().filter(|(it, _)| it == name);
        named.for_each(|(_, value)| look(value.as_bytes()));
    }
}

/// Returns a name that no rule means.
fn unused_name(bundle: &Bundle, called: &str) -> Name {
    let rules = bundle.allow.iter().chain(&bundle.deny);
    let ends = rules.flat_map(|rule| rule.from.iter().chain(&rule.to));
    let endpoints = bundle
        .services
        .iter()
        .flat_map(|service| &service.endpoints);
    let workloads = bundle.workloads.iter().flat_map(|workload| &workload.hosts);
    let used: BTreeSet<&str> = ends
        .chain(workloads)
        .chain(endpoints)
        .filter_map(|selector| match selector {
            Selector::Host { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let numbered = (2..).map(|number: u64| format!("{called}-{number}"));
    std::iter::once(called.to_owned())
        .chain(numbered)
        .find(|name| !used.contains(name.as_str()))
        .and_then(|name| name.parse().ok())
        .expect("a bundle names finitely many hosts")
}

fn is_expected(test: &Test, decision: Decision<'_>) -> bool {
    let decided_by = decision.rule.map(|rule| &rule.id);
    is_verdict(test, decision)
        && test
            .rule
            .as_ref()
            .is_none_or(|rule| decided_by == Some(rule))
}

fn is_verdict(test: &Test, decision: Decision<'_>) -> bool {
    decision.allowed == (test.expect == Expectation::Allow)
}

fn outcome(test: &Test, verdict: TestVerdict, message: String) -> TestOutcome {
    TestOutcome {
        test: test.text.clone(),
        verdict,
        message,
        source: test.source.clone(),
    }
}

/// Only its name and labels are ever looked at: the bundle of a test has no host ids.
pub(crate) fn hypothetical(name: Name, labels: Labels) -> HostRecord {
    HostRecord {
        fleet: FleetId::from_bytes([0; 16]),
        host: HostId::from_bytes([0; 16]),
        name,
        labels,
        wireguard_key: WireguardKey::from_bytes([0; 32]),
        tls_key_hash: Digest::from_bytes([0; 32]),
        addresses: HostAddresses {
            v4: [0, 0, 0, 0].into(),
            v6: [0; 16].into(),
        },
        offers_aes_256_gcm: false,
        revision: Revision::default(),
    }
}

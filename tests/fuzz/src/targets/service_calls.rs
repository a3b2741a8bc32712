//! A policy and requests: the gate of each host decides them as the plain reading of the rules does,
//! and what it says it need not know changes nothing.

use model::ids::PolicyVersion;
use model::name::Name;
use model::record::HostRecord;
use model::rule::Bundle;
use model::time::UnixTime;
use policy::{
    Call, Gate, Headers, Question, RequestFacts, Ruling, Target, decide_call, load, resolve,
};

use super::policy_documents;
use crate::Seed;

/// Stands between the policy and the requests: ASCII calls it the group separator.
const SEPARATOR: char = '\u{1d}';
/// So that an input stays fast.
const HOSTS_MAX: usize = 4;
const REQUESTS_MAX: usize = 3;
const NAMES_MAX: usize = 4;
const PORTS_MAX: usize = 5;
/// A Monday at noon, and a Saturday at night.
const TIMES: [UnixTime; 2] = [
    UnixTime::from_secs(1_700_481_600),
    UnixTime::from_secs(1_700_956_800),
];

/// Reads bytes as a policy, and lines of `METHOD PATH HOST HEADER=VALUE ...`.
pub fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (policy, requests) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
    let Ok(checked) = load(&policy_documents::files(policy)) else {
        return;
    };
    let mut hosts = policy_documents::fleet_for(&checked.bundle);
    let Ok(bundle) = resolve(&checked, &hosts) else {
        return;
    };
    hosts.truncate(HOSTS_MAX);
    let requests: Vec<Asked<'_>> = requests.lines().take(REQUESTS_MAX).map(Asked::of).collect();
    for me in &hosts {
        let others: Vec<&HostRecord> = hosts.iter().filter(|it| it.host != me.host).collect();
        let gate = Gate::compile(me, &others, &bundle, PolicyVersion(1));
        for other in &hosts {
            for (from, to) in [(me, other), (other, me)] {
                for_each_call(&bundle, from, to, &requests, &mut |call| {
                    same(&gate, &bundle, call);
                });
            }
        }
        endpoints_are_alike(&gate, me, &hosts, &bundle, &requests);
    }
}

/// A request as it is asked about.
struct Asked<'t> {
    method: &'t str,
    path: &'t str,
    host: &'t str,
    headers: Vec<(&'t str, &'t str)>,
}

impl<'t> Asked<'t> {
    fn of(line: &'t str) -> Self {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (method, path, host) = (next(), next(), next());
        let headers = words.filter_map(|word| word.split_once('='));
        Self {
            method,
            path,
            host,
            headers: headers.collect(),
        }
    }
}

impl Headers for Asked<'_> {
    fn each(&self, name: &str, look: &mut dyn FnMut(&[u8])) {
        self.headers.as_slice().each(name, look);
    }
}

fn for_each_call(
    bundle: &Bundle,
    from: &HostRecord,
    to: &HostRecord,
    requests: &[Asked<'_>],
    look: &mut dyn FnMut(&Call<'_>),
) {
    let services: Vec<&Name> = bundle.services.iter().map(|it| &it.name).collect();
    let services = services.into_iter().take(NAMES_MAX).map(Target::Service);
    let ports = policy_documents::telling_ports(bundle);
    let ports = ports.into_iter().take(PORTS_MAX).map(Target::Port);
    let workloads = bundle.workloads.iter().map(|it| Some(&it.name));
    let workloads: Vec<Option<&Name>> = [None]
        .into_iter()
        .chain(workloads.take(NAMES_MAX))
        .collect();
    for target in services.chain(ports) {
        for workload in &workloads {
            for request in [None].into_iter().chain(requests.iter().map(Some)) {
                for at in TIMES {
                    look(&Call {
                        from,
                        workload: *workload,
                        to,
                        target,
                        request: request.map(facts),
                        at: Some(at),
                    });
                }
            }
        }
    }
}

fn facts<'a>(request: &'a Asked<'a>) -> RequestFacts<'a> {
    RequestFacts {
        method: request.method,
        path: request.path,
        host: request.host,
        headers: request,
    }
}

fn question<'q>(call: &Call<'q>) -> Question<'q> {
    Question {
        from: call.from.host,
        workload: call.workload,
        to: call.to.host,
        target: call.target,
        request: call.request,
        at: call.at.expect("every call has its time"),
    }
}

fn same(gate: &Gate, bundle: &Bundle, call: &Call<'_>) {
    let bundle_says = decide_call(bundle, call);
    let gate_says = gate.decide(&question(call));
    let by_gate = named(gate_says, |rule| gate.rule(rule).id.to_string());
    assert_eq!(by_gate, named(bundle_says, |rule| rule.id.to_string()));
    if !gate.needs_request(call.target) {
        let blind = Call {
            request: None,
            ..*call
        };
        assert_eq!(gate.decide(&question(&blind)), gate_says);
    }
    if let Some(request) = call.request
        && !gate.needs_path(call.target)
    {
        let request = Some(RequestFacts {
            path: "//elsewhere",
            ..request
        });
        let elsewhere = Call { request, ..*call };
        assert_eq!(gate.decide(&question(&elsewhere)), gate_says);
    }
    if !gate.needs_workload(call.target) {
        let blind = Call {
            workload: None,
            ..*call
        };
        assert_eq!(gate.decide(&question(&blind)), gate_says);
    }
}

fn named<R>(ruling: Ruling<R>, name: impl Fn(R) -> String) -> (&'static str, Option<String>) {
    match ruling {
        Ruling::Allow(rule) => ("allow", Some(name(rule))),
        Ruling::DenyByRule(rule) => ("deny", Some(name(rule))),
        Ruling::DenyByDefault => ("default", None),
        Ruling::DenyUnknownWorkload(rule) => ("unknown", Some(name(rule))),
    }
}

fn endpoints_are_alike(
    gate: &Gate,
    me: &HostRecord,
    hosts: &[HostRecord],
    bundle: &Bundle,
    requests: &[Asked<'_>],
) {
    for service in bundle.services.iter().take(NAMES_MAX) {
        let called = Target::Service(&service.name);
        let endpoints = hosts.iter().filter(|host| gate.offers(called, host.host));
        let endpoints: Vec<&HostRecord> = endpoints.collect();
        let Some(first) = endpoints.first().filter(|_| gate.is_one_for_all(called)) else {
            continue;
        };
        for other in &endpoints {
            for_each_call(bundle, me, other, requests, &mut |call| {
                if call.target == called {
                    let there = gate.decide(&question(&Call { to: first, ..*call }));
                    assert_eq!(gate.decide(&question(call)), there);
                }
            });
        }
    }
}

pub(crate) fn seeds() -> Vec<Seed> {
    let with = |policy: &str| format!("{policy}{SEPARATOR}{REQUESTS}");
    vec![
        Seed::new("requests", with(POLICY)),
        Seed::new("hours", with(HOURS)),
        Seed::new("one-endpoint-apart", with(APART)),
    ]
}

const REQUESTS: &str = "GET /v1/items orders x-team=shop\nDELETE /admin/x api.example:80\nget * \n";

const POLICY: &str = r#"fleet: prod
workloads:
  web: { unit: web.service, hosts: "role=edge" }
  job: { user: job, hosts: any }
services:
  orders: { port: 8080, protocol: http, endpoints: ["role=app"] }
  db: { port: 5432, protocol: tcp, endpoints: [db-1] }
allow:
  - { id: read, from: web, to: orders, http: ["GET,HEAD /v1/**"] }
  - { id: team, from: any, to: orders, http: { methods: [PUT], host: "*.example", headers: { x-team: shop } } }
  - { id: db, from: [web, job], to: db }
  - { id: ssh, from: "role=edge", to: any, tcp: [22, "8000-8100"] }
deny:
  - { id: no-admin, from: any, to: orders, http: ["* /admin/**"] }
  - { id: no-job, from: job, to: orders }
"#;

const HOURS: &str = r#"fleet: prod
services:
  orders: { port: 80, protocol: auto, endpoints: [a, b] }
allow:
  - { id: day, from: any, to: orders, when: { days: mon-fri, time: "08:00-18:00", zone: Europe/Paris } }
deny:
  - { id: night, from: a, to: any, tcp: any, when: "22:00-06:00 UTC" }
"#;

const APART: &str = r#"fleet: prod
services:
  orders: { port: 80, protocol: http, endpoints: [a, b, c] }
allow:
  - { id: all, from: any, to: orders }
  - { id: also-c, from: any, to: c, tcp: [80], http: ["GET /x"] }
deny:
  - { id: not-b, from: any, to: b, tcp: any, http: ["* /v1/**"] }
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_decided() {
        for seed in seeds() {
            let text = std::str::from_utf8(&seed.bytes).unwrap();
            let (policy, requests) = text.split_once(SEPARATOR).unwrap();
            let checked = load(&policy_documents::files(policy));
            let checked = checked.unwrap_or_else(|why| panic!("{}: {why:?}", seed.name));
            let hosts = policy_documents::fleet_for(&checked.bundle);
            assert!(resolve(&checked, &hosts).is_ok(), "{}", seed.name);
            assert_eq!(requests.lines().count(), 3);
        }
    }
}

//! What a decision about a request takes at either end of a call: hosts, workloads, methods, paths and
//! headers against the rules of a fleet with a hundred services.

use std::fmt::Write as _;
use std::hint::black_box;

use model::ids::PolicyVersion;
use model::name::Name;
use model::record::HostRecord;
use model::time::UnixTime;
use policy::{Gate, Question, RequestFacts, SourceFile, Target, load, resolve};

use crate::measure::{Each, each};
use crate::policies::{ROLES, host};

const HOSTS: u16 = 1_000;
/// Of each service.
const CALLERS: u16 = 10;
/// A host with this number calls, and is called.
const ME: u16 = 3;

/// Prints the table.
pub(crate) fn measure() {
    let fleet = Fleet::new();
    println!("## Requests decided, one core\n");
    println!(
        "{ROLES} services, {} rules, {HOSTS} hosts\n",
        ROLES * (CALLERS + 2)
    );
    println!("| end | request | |");
    println!("|---|---|--:|");
    for (end, calls) in [("source", fleet.going()), ("destination", fleet.coming())] {
        for (what, path, allowed) in [
            ("allowed by method and path", "/v1/items/4711", true),
            ("allowed by a header as well", "/v1/reports/2026", true),
            ("denied by a rule", "/admin/users", false),
            ("denied since no rule allows it", "/v2/items", false),
        ] {
            let took = fleet.decide(&calls, path, allowed);
            println!("| {end} | {what} | {} |", took.shown());
        }
    }
}

/// What one host knows of a fleet.
struct Fleet {
    gate: Gate,
    hosts: Vec<HostRecord>,
    services: Vec<Name>,
    workloads: Vec<Name>,
}

/// A workload of a host calls a service at another, all by their numbers.
struct Call {
    from: u16,
    workload: u16,
    to: u16,
    service: u16,
}

impl Fleet {
    fn new() -> Self {
        let checked = load(&[SourceFile {
            path: "policy.yaml".to_owned(),
            text: rules(),
        }]);
        let hosts: Vec<HostRecord> = (0..HOSTS).map(host).collect();
        let bundle = resolve(&checked.expect("right"), &hosts).expect("right");
        let me = usize::from(ME);
        let peers: Vec<&HostRecord> = hosts[..me].iter().chain(&hosts[me + 1..]).collect();
        let named = |prefix: &str| {
            let all = (0..ROLES).map(|number| format!("{prefix}{number}").parse());
            all.map(|name| name.expect("a good one")).collect()
        };
        Self {
            gate: Gate::compile(&hosts[me], &peers, &bundle, PolicyVersion(2)),
            services: named("s"),
            workloads: named("w"),
            hosts,
        }
    }

    /// All that this host may call, at each endpoint.
    fn going(&self) -> Vec<Call> {
        let services = (1..=CALLERS).map(|before| (ME + ROLES - before) % ROLES);
        let at = |service| (service..HOSTS).step_by(ROLES.into());
        services
            .flat_map(|service| at(service).map(move |to| (to, service)))
            .map(|(to, service)| Call {
                from: ME,
                workload: ME,
                to,
                service,
            })
            .collect()
    }

    /// All that may call this host.
    fn coming(&self) -> Vec<Call> {
        let callers = (1..=CALLERS).map(|after| (ME + after) % ROLES);
        let at = |workload| (workload..HOSTS).step_by(ROLES.into());
        callers
            .flat_map(|workload| at(workload).map(move |from| (from, workload)))
            .map(|(from, workload)| Call {
                from,
                workload,
                to: ME,
                service: ME,
            })
            .collect()
    }

    fn decide(&self, calls: &[Call], path: &str, allowed: bool) -> Each {
        const ROUNDS: usize = 100;
        let headers = [
            ("user-agent", "bench"),
            ("accept", "*/*"),
            ("x-team", "shop"),
        ];
        let request = RequestFacts {
            method: "GET",
            path,
            host: "orders.mesh.internal:8080",
            headers: &headers,
        };
        each(ROUNDS * calls.len(), || {
            for call in (0..ROUNDS).flat_map(|_| calls) {
                let ruling = self.gate.decide(&Question {
                    from: self.hosts[usize::from(call.from)].host,
                    workload: Some(&self.workloads[usize::from(call.workload)]),
                    to: self.hosts[usize::from(call.to)].host,
                    target: Target::Service(&self.services[usize::from(call.service)]),
                    request: Some(request),
                    at: UnixTime::from_secs(1_795_340_000),
                });
                assert_eq!(black_box(ruling).is_allowed(), allowed, "{path}");
            }
        })
    }
}

/// Each service is offered by the hosts of a role and called by the workloads of the ten behind it.
fn rules() -> String {
    let mut text = "fleet: prod\n".to_owned();
    let mut part = |title: &str, line: &dyn Fn(&mut String, u16)| {
        text.push_str(title);
        (0..ROLES).for_each(|role| line(&mut text, role));
    };
    let written = "a String takes everything";
    part("workloads:\n", &|text, role| {
        let line = format!("  w{role}: {{ hosts: [\"role=r{role}\"], unit: w{role}.service }}");
        writeln!(text, "{line}").expect(written);
    });
    part("services:\n", &|text, role| {
        let line =
            format!("  s{role}: {{ port: 8080, protocol: http, endpoints: [\"role=r{role}\"] }}");
        writeln!(text, "{line}").expect(written);
    });
    part("deny:\n", &|text, role| {
        let line = format!("{{ id: no-{role}, from: any, to: s{role}, http: [\"* /admin/**\"] }}");
        writeln!(text, "  - {line}").expect(written);
    });
    part("allow:\n", &|text, role| {
        let of_team = "{ methods: [GET], path: /v1/reports/*, headers: { x-team: shop } }";
        writeln!(
            text,
            "  - {{ id: team-{role}, from: any, to: s{role}, http: {of_team} }}"
        )
        .expect(written);
        for after in 1..=CALLERS {
            let caller = (role + after) % ROLES;
            writeln!(
                text,
                "  - {{ id: a-{role}-{after}, from: w{caller}, to: s{role}, http: [\"GET,HEAD /v1/items/**\", \"POST /v1/items\"] }}"
            )
            .expect(written);
        }
    });
    text
}

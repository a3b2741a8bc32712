//! The gate decides connections and requests as the plain reading of the rules does, a slice as the
//! whole bundle, and no packet passes by itself that a rule about requests, workloads or hours would
//! have had to look at: for random bundles, fleets and calls.

#![allow(clippy::unwrap_used)] // in the makers of test data

use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::WireguardKey;
use model::name::{Labels, Name};
use model::record::HostRecord;
use model::rule::{
    Bundle, HeaderMatch, HeaderValue, HttpMatch, PortRange, Protocol, Rule, Selector, Service,
    Source, Traffic, TrafficSettings, When, Workload, ip_protocol,
};
use model::time::UnixTime;
use policy::{
    Call, Gate, Process, Question, RequestFacts, Ruling, Target, decide_call, leaves_concerning,
    may_vouch, reference,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

proptest! {
    #[test]
    fn the_gate_agrees_with_the_reference(fleet in fleet(), bundle in bundle()) {
        let me = &fleet[0];
        let peers: Vec<&HostRecord> = fleet[1..].iter().collect();
        let gate = Gate::compile(me, &peers, &bundle, PolicyVersion(3));
        for (from, to) in ends(&fleet) {
            for_each_call(&bundle, from, to, &mut |call| {
                let plain = decide_call(&bundle, call);
                let ruling = gate.decide(&question(call));
                let by_gate = named(ruling, |rule| gate.rule(rule).id.to_string());
                prop_assert_eq!(by_gate, named(plain, |rule| rule.id.to_string()));
                prop_assert_eq!(gate.explain(&question(call)).allowed, plain.is_allowed());
                Ok(())
            })?;
        }
        for host in &fleet {
            for name in names() {
                prop_assert_eq!(gate.may_vouch(host.host, &name), may_vouch(&bundle, host, &name));
            }
        }
    }

    #[test]
    fn a_slice_decides_calls_as_the_whole_bundle(fleet in fleet(), bundle in bundle()) {
        let leaves = bundle.leaves();
        let concerning = leaves_concerning(&bundle, &fleet[0]);
        let slice = Bundle::from_leaves(concerning.iter().map(|index| leaves[*index as usize].clone()));
        for (from, to) in ends(&fleet) {
            for_each_call(&bundle, from, to, &mut |call| {
                let sliced = decide_call(&slice, call);
                // A service that nothing here is about is not known here.
                let is_strange = matches!(call.target, Target::Service(name)
                    if !slice.services.iter().any(|it| it.name == *name));
                if !(is_strange && sliced == Ruling::DenyByDefault) {
                    prop_assert_eq!(decide_call(&bundle, call), sliced);
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn no_packet_passes_that_a_rule_would_have_looked_into(fleet in fleet(), bundle in bundle()) {
        for (from, to) in ends(&fleet).filter(|(from, to)| from.host != to.host) {
            for port in PORTS {
                if !reference::decide(&bundle, from, to, ip_protocol::TCP, port).allowed {
                    continue;
                }
                for_each_call_at(&bundle, from, to, Target::Port(port), &mut |call| {
                    prop_assert!(decide_call(&bundle, call).is_allowed(), "{} {port}", from.name);
                    Ok(())
                })?;
            }
        }
    }

    #[test]
    fn what_is_not_needed_changes_nothing(fleet in fleet(), bundle in bundle()) {
        let peers: Vec<&HostRecord> = fleet[1..].iter().collect();
        let gate = Gate::compile(&fleet[0], &peers, &bundle, PolicyVersion(1));
        for (from, to) in ends(&fleet) {
            for_each_call(&bundle, from, to, &mut |call| {
                let ruling = gate.decide(&question(call));
                if !gate.needs_request(call.target) {
                    let blind = Call { request: None, ..*call };
                    prop_assert_eq!(gate.decide(&question(&blind)), ruling);
                }
                if !gate.needs_path(call.target)
                    && let Some(request) = call.request
                {
                    for path in ["/v1/x/y", "//admin", "*"] {
                        let request = Some(RequestFacts { path, ..request });
                        let elsewhere = Call { request, ..*call };
                        prop_assert_eq!(gate.decide(&question(&elsewhere)), ruling);
                    }
                }
                if !gate.needs_headers(call.target)
                    && let Some(request) = call.request
                {
                    let bare = RequestFacts { host: "", headers: &[("", ""); 0], ..request };
                    let bare = Call { request: Some(bare), ..*call };
                    prop_assert_eq!(gate.decide(&question(&bare)), ruling);
                }
                if !gate.needs_workload(call.target) {
                    let blind = Call { workload: None, ..*call };
                    prop_assert_eq!(gate.decide(&question(&blind)), ruling);
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn what_is_decided_once_for_all_endpoints_is_decided_so_for_each(fleet in fleet(), bundle in bundle()) {
        let me = &fleet[0];
        let peers: Vec<&HostRecord> = fleet[1..].iter().collect();
        let gate = Gate::compile(me, &peers, &bundle, PolicyVersion(1));
        for service in names() {
            let target = Target::Service(&service);
            let endpoints = fleet.iter().filter(|host| gate.offers(target, host.host));
            let endpoints: Vec<&HostRecord> = endpoints.collect();
            for stranger in fleet.iter().filter(|host| !gate.offers(target, host.host)) {
                for_each_call_at(&bundle, me, stranger, target, &mut |call| {
                    prop_assert_eq!(gate.decide(&question(call)), Ruling::DenyByDefault);
                    Ok(())
                })?;
            }
            let Some(first) = endpoints.first().filter(|_| gate.is_one_for_all(target)) else {
                continue;
            };
            for other in &endpoints {
                for_each_call_at(&bundle, me, other, target, &mut |call| {
                    let ruling = gate.decide(&question(&Call { to: first, ..*call }));
                    prop_assert_eq!(gate.decide(&question(call)), ruling);
                    Ok(())
                })?;
            }
        }
    }

    #[test]
    fn dials_that_are_not_caught_need_nothing_beside_packets(fleet in fleet(), bundle in bundle()) {
        let me = &fleet[0];
        let peers: Vec<&HostRecord> = fleet[1..].iter().collect();
        let gate = Gate::compile(me, &peers, &bundle, PolicyVersion(1));
        for (peer, port) in peers.iter().flat_map(|peer| PORTS.map(|port| (*peer, port))) {
            let is_caught = gate.caught().any(|(host, range)| host == peer.host && range.contains(port));
            let allowed = reference::decide(&bundle, me, peer, ip_protocol::TCP, port).allowed;
            if !is_caught {
                for_each_call_at(&bundle, me, peer, Target::Port(port), &mut |call| {
                    prop_assert_eq!(decide_call(&bundle, call).is_allowed(), allowed);
                    Ok(())
                })?;
            }
        }
    }
}

const PORTS: [u16; 4] = [1, 22, 80, 8080];

const AT: [u64; 2] = [1_795_340_000, 1_795_370_000];

fn ends(fleet: &[HostRecord]) -> impl Iterator<Item = (&HostRecord, &HostRecord)> {
    let me = &fleet[0];
    fleet.iter().flat_map(move |peer| [(me, peer), (peer, me)])
}

fn question<'q>(call: &Call<'q>) -> Question<'q> {
    Question {
        from: call.from.host,
        workload: call.workload,
        to: call.to.host,
        target: call.target,
        request: call.request,
        at: call.at.unwrap(),
    }
}

fn named<R>(ruling: Ruling<R>, name: impl Fn(R) -> String) -> Ruling<String> {
    match ruling {
        Ruling::Allow(rule) => Ruling::Allow(name(rule)),
        Ruling::DenyByRule(rule) => Ruling::DenyByRule(name(rule)),
        Ruling::DenyUnknownWorkload(rule) => Ruling::DenyUnknownWorkload(name(rule)),
        Ruling::DenyByDefault => Ruling::DenyByDefault,
    }
}

type Check<'c> = &'c mut dyn FnMut(&Call<'_>) -> Result<(), TestCaseError>;

fn for_each_call(
    bundle: &Bundle,
    from: &HostRecord,
    to: &HostRecord,
    check: Check<'_>,
) -> Result<(), TestCaseError> {
    for service in names() {
        for_each_call_at(bundle, from, to, Target::Service(&service), check)?;
    }
    for port in PORTS {
        for_each_call_at(bundle, from, to, Target::Port(port), check)?;
    }
    Ok(())
}

fn for_each_call_at(
    _bundle: &Bundle,
    from: &HostRecord,
    to: &HostRecord,
    target: Target<'_>,
    check: Check<'_>,
) -> Result<(), TestCaseError> {
    let names = names();
    let workloads = std::iter::once(None).chain(names.iter().map(Some));
    let none: [(&str, &str); 0] = [];
    let (some, two) = ([("x-a", "1")], [("x-a", "1"), ("x-a", "2")]);
    let request = |method, path, host, headers| {
        Some(RequestFacts {
            method,
            path,
            host,
            headers,
        })
    };
    let requests = [
        None,
        request("GET", "/", "a.example", &none),
        request("GET", "/v1/x", "a.example:80", &some),
        request("get", "/v1/x/y", "A.EXAMPLE", &two),
        request("POST", "/v1/x/", "b.example", &some),
        request("OPTIONS", "*", "", &none),
    ];
    for workload in workloads {
        for request in requests {
            for at in AT {
                check(&Call {
                    from,
                    workload,
                    to,
                    target,
                    request,
                    at: Some(UnixTime::from_secs(at)),
                })?;
            }
        }
    }
    Ok(())
}

/// Of workloads and services alike; `n-3` is never described.
fn names() -> [Name; 4] {
    [0, 1, 2, 3].map(|number| format!("n-{number}").parse().unwrap())
}

fn fleet() -> impl Strategy<Value = Vec<HostRecord>> {
    let labels = vec((0..2usize, 0..2usize), 0..3).prop_map(|labels| {
        let label = |(key, value): (usize, usize)| {
            let (key, value) = (["role", "env"][key], ["a", "b"][value]);
            (key.parse().unwrap(), value.parse().unwrap())
        };
        labels.into_iter().map(label).collect::<Labels>()
    });
    vec(labels, 2..4).prop_map(|labels| (1u8..).zip(labels).map(record).collect())
}

fn record((number, labels): (u8, Labels)) -> HostRecord {
    HostRecord {
        fleet: FleetId::from_bytes([1; 16]),
        host: HostId::from_bytes([number; 16]),
        name: format!("host-{number}").parse().unwrap(),
        labels,
        wireguard_key: WireguardKey::from_bytes([number; 32]),
        tls_key_hash: Digest::from_bytes([number; 32]),
        addresses: HostAddresses {
            v4: [10, 0, 0, number].into(),
            v6: [number; 16].into(),
        },
        offers_aes_256_gcm: false,
        revision: Revision::new(1, 1),
    }
}

fn host_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        Just(Selector::Any),
        (1..5u8).prop_map(|number| Selector::Host {
            name: format!("host-{number}").parse().unwrap(),
            id: Some(HostId::from_bytes([number; 16])),
        }),
        Just(Selector::Labels(vec!["role=a".parse().unwrap()])),
        Just(Selector::Labels(vec![
            "role=b".parse().unwrap(),
            "env=a".parse().unwrap()
        ])),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    (0..4usize).prop_map(|number| names()[number].clone())
}

fn from() -> impl Strategy<Value = Selector> {
    prop_oneof![
        3 => host_selector(),
        3 => name().prop_map(Selector::Workload),
        1 => name().prop_map(Selector::Service),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    (0..PORTS.len()).prop_map(|number| PORTS[number])
}

fn target() -> impl Strategy<Value = (Vec<Selector>, Traffic)> {
    let ports = vec(
        prop_oneof![port().prop_map(PortRange::single), Just(PortRange::ALL)],
        0..3,
    );
    let ports = (ports, any::<bool>()).prop_map(|(tcp, icmp)| Traffic::Ports {
        tcp,
        udp: vec![PortRange::single(80)],
        icmp,
    });
    let traffic = prop_oneof![1 => Just(Traffic::All), 3 => ports];
    let to = prop_oneof![3 => host_selector(), 1 => name().prop_map(Selector::Service)];
    prop_oneof![
        (vec(to, 1..3), traffic),
        (
            vec(name().prop_map(Selector::Service), 1..3),
            Just(Traffic::Service)
        ),
    ]
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let methods = prop_oneof![
        Just(vec![]),
        Just(vec!["GET".parse().unwrap()]),
        Just(vec!["POST".parse().unwrap(), "GET".parse().unwrap()]),
    ];
    let path = (0..5usize).prop_map(|number| {
        let path = ["/**", "/", "/v1/*", "/v1/**", "/v1/x"][number];
        path.parse().unwrap()
    });
    let host =
        option::of((0..2usize).prop_map(|it| ["a.example", "*.example"][it].parse().unwrap()));
    let value = prop_oneof![
        Just(HeaderValue::Present),
        Just(HeaderValue::Exact("1".parse().unwrap())),
        Just(HeaderValue::Prefix("2".parse().unwrap())),
    ];
    let headers = option::of(value.prop_map(|value| HeaderMatch {
        name: "x-a".parse().unwrap(),
        value,
    }));
    (methods, path, host, headers).prop_map(|(methods, path, host, headers)| HttpMatch {
        methods,
        path,
        host,
        headers: headers.into_iter().collect(),
    })
}

fn when() -> impl Strategy<Value = When> {
    let zone = prop_oneof![4 => Just("Europe/Paris"), 1 => Just("No/Where")];
    (1u8..128, option::of((0u16..1440, 0u16..1440)), zone).prop_map(|(days, hours, zone)| {
        let time = |minutes| model::rule::TimeOfDay::from_minutes(minutes).unwrap();
        When {
            days: model::rule::Days::from_bits(days).unwrap(),
            hours: hours.map(|(from, until)| model::rule::Hours {
                from: time(from),
                until: time(until),
            }),
            zone: zone.parse().unwrap(),
        }
    })
}

fn rules(effect: &'static str, count: usize) -> impl Strategy<Value = Vec<Rule>> {
    let http = prop_oneof![2 => Just(vec![]), 2 => vec(http_match(), 1..3)];
    let when = prop_oneof![3 => Just(None), 1 => when().prop_map(Some)];
    vec((vec(from(), 1..3), target(), http, when), 0..count).prop_map(move |rules| {
        let rule = |(number, (from, (to, traffic), http, when))| Rule {
            id: format!("{effect}-{number}").parse().unwrap(),
            from,
            to,
            traffic,
            http,
            when,
            source: Source::default(),
        };
        rules.into_iter().enumerate().map(rule).collect()
    })
}

fn bundle() -> impl Strategy<Value = Bundle> {
    let protocol = prop_oneof![
        3 => Just(Protocol::Http),
        1 => Just(Protocol::Tcp),
        1 => Just(Protocol::Udp),
    ];
    let services = vec(
        (0..3usize, port(), protocol, vec(host_selector(), 0..3)),
        0..4,
    );
    let workloads = vec((0..3usize, vec(host_selector(), 1..3)), 0..4);
    (services, workloads, rules("allow", 8), rules("deny", 4)).prop_map(
        |(mut services, workloads, allow, deny)| Bundle {
            services: {
                // Of two with one name the first counts, which another part of the bundle may lack.
                services.sort_by_key(|(number, ..)| *number);
                services.dedup_by_key(|(number, ..)| *number);
                services.into_iter().map(service).collect()
            },
            workloads: workloads.into_iter().map(workload).collect(),
            allow,
            deny,
            ..Bundle::default()
        },
    )
}

fn service((number, port, protocol, endpoints): (usize, u16, Protocol, Vec<Selector>)) -> Service {
    Service {
        name: names()[number].clone(),
        port,
        protocol,
        endpoints,
        workloads: Vec::new(),
        addresses: None,
        settings: TrafficSettings::default(),
        source: Source::default(),
    }
}

fn workload((number, hosts): (usize, Vec<Selector>)) -> Workload {
    Workload {
        name: names()[number].clone(),
        unit: Some("a.service".parse().unwrap()),
        user: None,
        hosts,
        source: Source::default(),
    }
}

#[test]
fn a_process_is_the_workload_that_says_most_of_it() {
    let me = record((1, Labels::new()));
    let workload = |name: &str, unit: Option<&str>, user: Option<&str>, hosts| Workload {
        name: name.parse().unwrap(),
        unit: unit.map(|it| it.parse().unwrap()),
        user: user.map(|it| it.parse().unwrap()),
        hosts: vec![hosts],
        source: Source::default(),
    };
    let elsewhere = Selector::Labels(vec!["role=x".parse().unwrap()]);
    let bundle = Bundle {
        workloads: vec![
            workload("elsewhere", Some("web.service"), Some("www"), elsewhere),
            workload("by-user", None, Some("www"), Selector::Any),
            workload("any-web", Some("web*.service"), None, Selector::Any),
            workload("web", Some("web.service"), None, Selector::Any),
            workload("also-web", Some("web.service"), None, Selector::Any),
            workload("web-as-root", Some("web.service"), Some("0"), Selector::Any),
        ],
        ..Bundle::default()
    };
    let gate = Gate::compile(&me, &[], &bundle, PolicyVersion(1));
    let is = |unit, user, uid| {
        let found = gate.workload_of(&Process { unit, user, uid });
        found.map(Name::as_str)
    };
    assert_eq!(
        is(Some("web.service"), Some("root"), 0),
        Some("web-as-root")
    );
    assert_eq!(is(Some("web.service"), Some("www"), 33), Some("also-web"));
    assert_eq!(is(Some("web-2.service"), Some("www"), 33), Some("any-web"));
    assert_eq!(is(Some("cron.service"), Some("www"), 33), Some("by-user"));
    assert_eq!(is(None, Some("www"), 33), Some("by-user"));
    assert_eq!(is(None, None, 34), None);
}

fn checked(text: &str) -> policy::Checked {
    let file = policy::SourceFile {
        path: "policy.yaml".to_owned(),
        text: text.to_owned(),
    };
    policy::load(&[file]).unwrap_or_else(|errors| panic!("{}", errors[0].render()))
}

#[test]
fn tests_of_a_policy_are_about_requests_workloads_and_hours() {
    let checked = checked(include_str!("golden/services_and_requests.yaml"));
    for outcome in policy::run_tests(&checked, None) {
        let (test, message) = (outcome.test, outcome.message);
        assert_eq!(
            outcome.verdict,
            policy::TestVerdict::Passed,
            "{test}: {message}"
        );
    }
}

/// Each near miss is one thing that differs.
#[test]
fn a_failed_test_says_what_of_the_request_differs() {
    let text = include_str!("golden/services_and_requests.yaml");
    let (rules, _) = text.split_once("tests:\n").unwrap();
    let message = |test: &str| {
        let checked = checked(&format!("{rules}tests:\n  - {test}\n"));
        policy::run_tests(&checked, None).remove(0).message
    };
    let said = |test: &str, wanted: &[&str]| {
        let message = message(test);
        for wanted in wanted {
            assert!(message.contains(wanted), "{message}");
        }
    };
    said(
        "{ allow: \"web -> orders DELETE /v1/orders\" }",
        &[
            "DELETE /v1/orders at tcp 8080 is denied: no rule allows it",
            "rule `web-orders-write` (policy.yaml:11) matches except the method: it allows POST, not DELETE",
            "rule `web-orders-read` (policy.yaml:10) matches except the method: it allows GET, not DELETE",
        ],
    );
    said(
        "{ allow: \"web -> orders GET /v2\" }",
        &["matches except the path: it allows /v1/**, not /v2"],
    );
    said(
        "{ allow: \"role=edge -> orders GET /v1/items\" }",
        &[
            "who on source-host calls is not known, and rule `web-orders-read` (policy.yaml:10) has to know",
            "matches except `from`: it is for workload web, and who on source-host calls is not known",
        ],
    );
    said(
        "{ allow: \"orders -> orders GET /v1/items\" }",
        &["matches except `from`: source-host does not run workload web (role=edge does)"],
    );
    said(
        "{ allow: \"report -> orders GET /v1/export/1\", at: \"2026-11-23 12:00 Europe/Paris\" }",
        &["the time: it holds 22:00-06:00 Europe/Paris, and there it is mon 12:00"],
    );
    said(
        "{ allow: \"web -> orders GET /admin/x\" }",
        &["denied by rule `no-admin` (policy.yaml:16)"],
    );
    said(
        "{ allow: \"web -> orders\" }",
        &["tcp 8080 is denied by rule `no-admin` (policy.yaml:16)"],
    );
}

#[test]
fn an_empty_gate_denies_everything() {
    let gate = Gate::default();
    let nobody = HostId::from_bytes([9; 16]);
    let ruling = gate.decide(&Question {
        from: nobody,
        workload: None,
        to: nobody,
        target: Target::Port(22),
        request: None,
        at: UnixTime::from_secs(0),
    });
    assert_eq!(ruling, Ruling::DenyByDefault);
    assert!(!gate.needs_request(Target::Port(22)));
}

//! Random bundles, fleets and calls.

use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, Revision};
use model::key::WireguardKey;
use model::name::{Labels, Name};
use model::record::HostRecord;
use model::rule::{
    Bundle, HeaderMatch, HeaderValue, HttpMatch, PortRange, Protocol, Rule, Selector, Service,
    Source, Traffic, TrafficSettings, When, Workload,
};
use model::time::UnixTime;
use policy::{Call, Question, RequestFacts, Ruling, Target};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub(crate) const PORTS: [u16; 4] = [1, 22, 80, 8080];

const AT: [u64; 2] = [1_795_340_000, 1_795_370_000];

pub(crate) fn ends(fleet: &[HostRecord]) -> impl Iterator<Item = (&HostRecord, &HostRecord)> {
    let me = &fleet[0];
    fleet.iter().flat_map(move |peer| [(me, peer), (peer, me)])
}

pub(crate) fn question<'q>(call: &Call<'q>) -> Question<'q> {
    Question {
        from: call.from.host,
        workload: call.workload,
        to: call.to.host,
        target: call.target,
        request: call.request,
        at: call.at.unwrap(),
    }
}

pub(crate) fn named<R>(ruling: Ruling<R>, name: impl Fn(R) -> String) -> Ruling<String> {
    match ruling {
        Ruling::Allow(rule) => Ruling::Allow(name(rule)),
        Ruling::DenyByRule(rule) => Ruling::DenyByRule(name(rule)),
        Ruling::DenyUnknownWorkload(rule) => Ruling::DenyUnknownWorkload(name(rule)),
        Ruling::DenyByDefault => Ruling::DenyByDefault,
    }
}

pub(crate) type Check<'c> = &'c mut dyn FnMut(&Call<'_>) -> Result<(), TestCaseError>;

pub(crate) fn for_each_call(
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

pub(crate) fn for_each_call_at(
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
pub(crate) fn names() -> [Name; 4] {
    [0, 1, 2, 3].map(|number| format!("n-{number}").parse().unwrap())
}

pub(crate) fn fleet() -> impl Strategy<Value = Vec<HostRecord>> {
    let labels = vec((0..2usize, 0..2usize), 0..3).prop_map(|labels| {
        let label = |(key, value): (usize, usize)| {
            let (key, value) = (["role", "env"][key], ["a", "b"][value]);
            (key.parse().unwrap(), value.parse().unwrap())
        };
        labels.into_iter().map(label).collect::<Labels>()
    });
    vec(labels, 2..4).prop_map(|labels| (1u8..).zip(labels).map(record).collect())
}

pub(crate) fn record((number, labels): (u8, Labels)) -> HostRecord {
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

pub(crate) fn bundle() -> impl Strategy<Value = Bundle> {
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

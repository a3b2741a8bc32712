//! The index against the plain reading of the rules, over random bundles and changes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use model::address::HostAddresses;
use model::ids::{Digest, FleetId, Revision};
use model::key::WireguardKey;
use model::name::{Label, Labels, Name, RuleId};
use model::rule::{
    PortRange, Protocol, Rule, Selector, Service, Source, Traffic, TrafficSettings, Workload,
};
use proptest::prelude::*;

use super::*;

const NAMES: usize = 6;

fn name(number: usize) -> Name {
    format!("h{number}").parse().unwrap()
}

fn id(number: usize) -> HostId {
    HostId::from_bytes([u8::try_from(number).unwrap() + 1; 16])
}

fn record(number: usize, labels: Labels) -> HostRecord {
    let byte = u8::try_from(number).unwrap();
    HostRecord {
        fleet: FleetId::from_bytes([9; 16]),
        host: id(number),
        name: name(number),
        labels,
        wireguard_key: WireguardKey::from_bytes([byte; 32]),
        tls_key_hash: Digest::from_bytes([byte; 32]),
        addresses: HostAddresses {
            v4: Ipv4Addr::new(10, 0, 0, byte),
            v6: Ipv6Addr::from(u128::from(byte)),
        },
        offers_aes_256_gcm: false,
        revision: Revision::new(1, 1),
    }
}

fn labels() -> impl Strategy<Value = Labels> {
    let values = (prop::option::of(0..3u8), prop::option::of(0..2u8));
    values.prop_map(|(role, env)| {
        let pairs = [("role", role), ("env", env)];
        let pairs = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        pairs
            .map(|(key, value)| (key.parse().unwrap(), format!("v{value}").parse().unwrap()))
            .collect()
    })
}

fn label() -> impl Strategy<Value = Label> {
    let role = (0..3u8).prop_map(|value| format!("role=v{value}"));
    let env = (0..2u8).prop_map(|value| format!("env=v{value}"));
    prop_oneof![role, env].prop_map(|text| text.parse().unwrap())
}

fn host_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        1 => Just(Selector::Any),
        2 => (0..NAMES, any::<bool>()).prop_map(|(number, is_resolved)| Selector::Host {
            name: name(number),
            id: is_resolved.then(|| id(number)),
        }),
        5 => prop::collection::vec(label(), 1..3).prop_map(Selector::Labels),
    ]
}

/// The last of these is no service of the bundle.
fn service_selector() -> impl Strategy<Value = Selector> {
    (0..4u8).prop_map(|number| Selector::Service(format!("s{number}").parse().unwrap()))
}

fn port() -> impl Strategy<Value = u16> {
    1..5u16
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let range = (port(), port()).prop_map(|(first, last)| PortRange { first, last });
    prop::collection::vec(range, 0..3)
}

fn rule() -> impl Strategy<Value = Rule> {
    let selector = || prop_oneof![4 => host_selector(), 1 => service_selector()];
    let to_hosts = (
        prop::collection::vec(selector(), 1..3),
        prop_oneof![
            Just(Traffic::All),
            (ports(), ports(), any::<bool>()).prop_map(|(tcp, udp, icmp)| Traffic::Ports {
                tcp,
                udp,
                icmp
            }),
        ],
    );
    let to_services = (
        prop::collection::vec(service_selector(), 1..3),
        Just(Traffic::Service),
    );
    let to = prop_oneof![to_hosts, to_services];
    let from = prop_oneof![5 => selector(), 1 => workload_selector()];
    (prop::collection::vec(from, 1..3), to).prop_map(|(from, (to, traffic))| Rule {
        id: "r".parse::<RuleId>().unwrap(),
        from,
        to,
        traffic,
        http: Vec::new(),
        when: None,
        source: Source::default(),
    })
}

/// `w2` may not be described.
fn workload_selector() -> impl Strategy<Value = Selector> {
    (0..3u8).prop_map(|number| Selector::Workload(format!("w{number}").parse().unwrap()))
}

fn workloads() -> impl Strategy<Value = Vec<Workload>> {
    let hosts = prop::collection::vec(host_selector(), 1..3);
    prop::collection::vec(hosts, 0..4).prop_map(|workloads| {
        let numbered = workloads.into_iter().enumerate();
        let workload = |(number, hosts): (usize, Vec<Selector>)| Workload {
            name: format!("w{number}").parse().unwrap(),
            unit: Some("w.service".parse().unwrap()),
            user: None,
            hosts,
            source: Source::default(),
        };
        numbered.map(workload).collect()
    })
}

fn bundle() -> impl Strategy<Value = Bundle> {
    let protocol = prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Http)
    ];
    let service = (
        port(),
        protocol,
        prop::collection::vec(host_selector(), 1..3),
    );
    let services = prop::collection::vec(service, 3);
    let rules = |max| prop::collection::vec(rule(), 0..max);
    (services, workloads(), rules(4), rules(3)).prop_map(|(services, workloads, allow, deny)| {
        let services = services.into_iter().enumerate();
        let services = services.map(|(number, (port, protocol, endpoints))| Service {
            name: format!("s{number}").parse().unwrap(),
            port,
            protocol,
            endpoints,
            workloads: Vec::new(),
            addresses: None,
            settings: TrafficSettings::default(),
            source: Source::default(),
        });
        Bundle {
            services: services.collect(),
            workloads,
            allow,
            deny,
            ..Bundle::default()
        }
    })
}

/// Whether an allow lets anything pass from one host to the other, read rule by rule.
fn may_reach(bundle: &Bundle, from: &HostRecord, to: &HostRecord) -> bool {
    let selects = |selectors: &[Selector], host: &HostRecord| {
        selectors
            .iter()
            .any(|selector| selector.matches(host, bundle))
    };
    let carries = |traffic: &Traffic| match traffic {
        Traffic::Ports { tcp, udp, icmp } => *icmp || !tcp.is_empty() || !udp.is_empty(),
        Traffic::All | Traffic::Service => true,
    };
    let matching =
        |rule: &&Rule| selects(&rule.from, from) && selects(&rule.to, to) && carries(&rule.traffic);
    bundle.allow.iter().any(|rule| matching(&rule))
}

fn check(interest: &Interest, bundle: &Bundle, hosts: &BTreeMap<usize, HostRecord>) {
    for me in hosts.values() {
        let connected = |other: &&HostRecord| {
            other.host != me.host && (may_reach(bundle, me, other) || may_reach(bundle, other, me))
        };
        let expected: BTreeSet<HostId> = hosts
            .values()
            .filter(connected)
            .map(|other| other.host)
            .collect();
        assert_eq!(interest.peers_of(me.host), expected, "peers of {}", me.name);
        for other in hosts.values() {
            let connects = interest.connects(me.host, other.host);
            assert_eq!(connects, expected.contains(&other.host));
            for port in 0..6 {
                for protocol in [1, 6, 17, 99] {
                    let decision = policy::reference::decide(bundle, me, other, protocol, port);
                    let is_other = me.host != other.host;
                    assert!(
                        !(decision.allowed && is_other) || connects,
                        "allowed, but unknown"
                    );
                }
            }
        }
        let leaves = interest.leaves_for(interest.seat(me.host).unwrap());
        assert_eq!(
            leaves,
            policy::leaves_concerning(bundle, me),
            "leaves of {}",
            me.name
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Place(usize, Labels),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..NAMES, labels()).prop_map(|(number, labels)| Step::Place(number, labels)),
        1 => (0..NAMES).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn what_is_kept_up_to_date_is_what_the_rules_say(
        bundle in bundle(),
        steps in prop::collection::vec(step(), 1..16),
    ) {
        let mut interest = Interest::new(&bundle, []);
        let mut hosts = BTreeMap::new();
        for step in steps {
            let (number, moved) = match step {
                Step::Place(number, labels) => {
                    let record = record(number, labels);
                    let moved = interest.place(&record);
                    hosts.insert(number, record);
                    (number, moved)
                }
                Step::Remove(number) => {
                    hosts.remove(&number);
                    (number, interest.remove(id(number)))
                }
            };
            prop_assert_eq!(moved.host, id(number));
            prop_assert_eq!(moved.after, interest.seat(id(number)).cloned().unwrap_or_default());
            check(&interest, &bundle, &hosts);
        }
        let anew = Interest::new(&bundle, hosts.values());
        prop_assert_eq!(anew.members, interest.members);
        prop_assert_eq!(anew.seats, interest.seats);
    }
}

#[test]
fn equal_ends_of_rules_are_one_set() {
    let ends = |labels: &[&str]| {
        vec![Selector::Labels(
            labels.iter().map(|label| label.parse().unwrap()).collect(),
        )]
    };
    let allow = |from: &[&str], to: &[&str]| Rule {
        id: "r".parse().unwrap(),
        from: ends(from),
        to: ends(to),
        traffic: Traffic::All,
        http: Vec::new(),
        when: None,
        source: Source::default(),
    };
    let bundle = Bundle {
        allow: vec![
            allow(&["role=web", "env=prod"], &["role=db"]),
            allow(&["env=prod", "role=web"], &["role=web"]),
        ],
        ..Bundle::default()
    };
    assert_eq!(Interest::new(&bundle, []).members.len(), 3);
}

//! The compiled table decides as the naive reference does: for random bundles and fleets, both
//! directions, all protocols, and every port at which a rule begins or ends.

#![allow(clippy::unwrap_used)] // in the makers of test data

use model::address::HostAddresses;
use model::admin::{PlanChange, PlanWarningKind};
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::name::{Label, Labels, Name};
use model::record::HostRecord;
use model::rule::{
    Bundle, Direction, PortRange, Protocol, Rule, Selector, Service, Source, Traffic,
    TrafficSettings, Workload, ip_protocol,
};
use policy::{Ruling, Table, Verdict, reference};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn the_table_agrees_with_the_reference(fleet in fleet(), bundle in bundle()) {
        check_agreement(&fleet, &bundle)?;
    }

    #[test]
    fn a_slice_decides_as_the_whole_bundle(fleet in fleet(), bundle in bundle()) {
        let leaves = bundle.leaves();
        let me = &fleet[0];
        let concerning = policy::leaves_concerning(&bundle, me);
        let slice = Bundle::from_leaves(concerning.iter().map(|index| leaves[*index as usize].clone()));
        for (from, to) in fleet[1..].iter().flat_map(|peer| [(me, peer), (peer, me)]) {
            for protocol in PROTOCOLS {
                for port in interesting_ports(&bundle) {
                    let whole = reference::decide(&bundle, from, to, protocol, port);
                    let sliced = reference::decide(&slice, from, to, protocol, port);
                    prop_assert_eq!(whole, sliced);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_plan_tells_what_the_reference_decides(fleet in fleet(), old in bundle(), new in bundle()) {
        check_plan(&fleet, &old, &new)?;
    }

    #[test]
    fn a_plan_of_no_change_is_empty(fleet in fleet(), bundle in bundle()) {
        let plan = policy::plan(&bundle, &bundle, &fleet);
        prop_assert_eq!((plan.pairs_gaining, plan.pairs_losing, plan.groups.len()), (0, 0, 0));
        prop_assert!(plan.warnings.iter().all(|it| it.kind == PlanWarningKind::SelectsNoHost));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With this many rules for single peers at one port, the table decides by peer, not by rule.
    #[test]
    fn crowded_ports_agree_too(
        fleet in vec(host_labels(), 48..70).prop_map(records),
        rules in vec((host_name(48), 0usize..4), 120..200),
    ) {
        let rules = rules.into_iter().enumerate().map(|(number, (host, port))| Rule {
            id: format!("rule-{number}").parse().unwrap(),
            from: vec![host],
            to: vec![Selector::Any],
            traffic: Traffic::Ports {
                tcp: vec![PortRange::single([22, 22, 22, 80][port])],
                udp: vec![],
                icmp: false,
            },
            http: Vec::new(),
            when: None,
            source: Source::default(),
        });
        let (deny, allow) = rules.partition(|rule: &Rule| rule.id.as_str().ends_with('7'));
        check_agreement(&fleet, &Bundle { allow, deny, ..Bundle::default() })?;
    }
}

#[test]
fn a_closed_table_denies_everything() {
    let table = Table::closed(7);
    for direction in [Direction::Inbound, Direction::Outbound] {
        let verdict = table.decide(direction, PeerIndex(0), ip_protocol::TCP, 22);
        assert_eq!(verdict, Verdict::DenyByDefault);
    }
    assert_eq!(table.generation(), 7);
}

#[test]
fn a_peer_that_was_not_compiled_is_denied_by_default() {
    let fleet = records(vec![Labels::new(), Labels::new()]);
    let peers = [(PeerIndex(0), &fleet[1])];
    let bundle = policy::first_policy();
    let table = Table::compile(&fleet[0], &peers, &bundle, PolicyVersion(1), 1);
    let ping = |peer| table.decide(Direction::Inbound, peer, ip_protocol::ICMP, 0);
    assert!(ping(PeerIndex(0)).is_allowed());
    for unknown in [1, 64, u32::MAX] {
        assert_eq!(ping(PeerIndex(unknown)), Verdict::DenyByDefault);
    }
}

/// A coordinator that leaves out what a deny refers to must not open what the deny closed.
#[test]
fn a_deny_of_a_withheld_service_denies_more_and_not_less() {
    let fleet = records(vec![Labels::new(), Labels::new()]);
    let mut bundle = policy::first_policy();
    bundle.deny.push(Rule {
        id: "no-db".parse().unwrap(),
        from: vec![Selector::Any],
        to: vec![Selector::Service("db".parse().unwrap())],
        traffic: Traffic::Service,
        http: Vec::new(),
        when: None,
        source: Source::default(),
    });
    let peers = [(PeerIndex(0), &fleet[1])];
    let table = Table::compile(&fleet[0], &peers, &bundle, PolicyVersion(1), 1);
    let verdict = table.decide(Direction::Inbound, PeerIndex(0), ip_protocol::ICMP, 0);
    assert!(
        matches!(verdict, Verdict::DenyByRule(rule) if table.rule(rule).id.as_str() == "no-db")
    );
    check_agreement(&fleet, &bundle).unwrap();
}

/// Each host of the fleet compiles its table and is asked about every other one.
fn check_agreement(fleet: &[HostRecord], bundle: &Bundle) -> Result<(), TestCaseError> {
    let ports = interesting_ports(bundle);
    // Two are enough to have different ones, and keep the test quick.
    for me in fleet.iter().take(2) {
        let peers: Vec<_> = fleet
            .iter()
            .filter(|peer| peer.host != me.host)
            .enumerate()
            // Indices have holes where peers have gone.
            .map(|(position, peer)| (PeerIndex(u32::try_from(position).unwrap() * 3), peer))
            .collect();
        let table = Table::compile(me, &peers, bundle, PolicyVersion(3), 1);
        for (index, peer) in &peers {
            for protocol in PROTOCOLS {
                for port in &ports {
                    let there = reference::decide(bundle, me, peer, protocol, *port);
                    same(
                        &table,
                        table.decide(Direction::Outbound, *index, protocol, *port),
                        there,
                    )?;
                    let here = reference::decide(bundle, peer, me, protocol, *port);
                    same(
                        &table,
                        table.decide(Direction::Inbound, *index, protocol, *port),
                        here,
                    )?;
                    let flow = (*index, protocol, *port);
                    for sender in senders(bundle) {
                        let ends = [
                            (Direction::Outbound, me, *peer),
                            (Direction::Inbound, peer, me),
                        ];
                        for (direction, from, to) in ends {
                            let there = reference::decide_claimed(
                                bundle,
                                from,
                                sender.as_ref(),
                                to,
                                protocol,
                                *port,
                            );
                            same_claimed(&table, direction, flow, sender.as_ref(), there)?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Every pair that gains or loses something is counted once, and who is cut off is told.
fn check_plan(fleet: &[HostRecord], old: &Bundle, new: &Bundle) -> Result<(), TestCaseError> {
    let plan = policy::plan(old, new, fleet);
    prop_assert!(plan.complete);
    for (change, before, after) in [(PlanChange::Gain, old, new), (PlanChange::Lose, new, old)] {
        let mut pairs = ordered_pairs(fleet);
        pairs.retain(|(from, to)| {
            flows(old, new).any(|(protocol, port)| {
                reference::decide(after, from, to, protocol, port).allowed
                    && !reference::decide(before, from, to, protocol, port).allowed
            })
        });
        let groups = plan.groups.iter().filter(|group| group.change == change);
        let mut grouped = 0;
        for group in groups {
            grouped += group.pairs;
            prop_assert!(!group.causes.is_empty() && !group.traffic.is_empty());
            prop_assert!(group.pairs <= (group.from_hosts * group.to_hosts) as u64);
            for pair in &group.examples {
                let is_it = |(from, to): &(&HostRecord, &HostRecord)| {
                    from.name == pair.from && to.name == pair.to
                };
                prop_assert!(pairs.iter().any(is_it), "{pair:?}");
            }
        }
        let counted = if change == PlanChange::Gain {
            plan.pairs_gaining
        } else {
            plan.pairs_losing
        };
        prop_assert_eq!((counted, grouped), (pairs.len() as u64, pairs.len() as u64));
    }
    let reached = |bundle: &Bundle, to: &HostRecord| {
        let mut others = fleet.iter().filter(|from| from.host != to.host);
        others.any(|from| reference::decide(bundle, from, to, ip_protocol::TCP, 22).allowed)
    };
    let cut = fleet
        .iter()
        .filter(|host| reached(old, host) && !reached(new, host))
        .count();
    let told = plan
        .warnings
        .iter()
        .find(|it| it.kind == PlanWarningKind::CutsOwnWayIn);
    prop_assert_eq!(told.map_or(0, |it| it.examples.len()), cut.min(5));
    Ok(())
}

fn ordered_pairs(fleet: &[HostRecord]) -> Vec<(&HostRecord, &HostRecord)> {
    let pairs = fleet
        .iter()
        .flat_map(|from| fleet.iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| from.host != to.host).collect()
}

/// Every flow at which the bundles may begin to differ.
fn flows(old: &Bundle, new: &Bundle) -> impl Iterator<Item = (u8, u16)> {
    let ports = [interesting_ports(old), interesting_ports(new), vec![22]].concat();
    let protocols = PROTOCOLS.into_iter();
    protocols.flat_map(move |protocol| ports.clone().into_iter().map(move |port| (protocol, port)))
}

fn same(
    table: &Table,
    verdict: Verdict,
    decision: reference::Decision<'_>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(verdict.is_allowed(), decision.allowed);
    let by_table = match verdict {
        // An allow, if only it were known who sends: to packets it says nothing.
        Verdict::DenyUnknownWorkload(_) if decision.rule.is_none() => None,
        _ => verdict.rule().map(|rule| &table.rule(rule).id),
    };
    prop_assert_eq!(by_table, decision.rule.map(|rule| &rule.id));
    Ok(())
}

/// Nobody, everybody that the bundle names, and one that it does not.
fn senders(bundle: &Bundle) -> Vec<Option<Name>> {
    let named = bundle.workloads.iter().map(|it| Some(it.name.clone()));
    let stranger = "stranger".parse().unwrap();
    named.chain([None, Some(stranger)]).collect()
}

fn same_claimed(
    table: &Table,
    direction: Direction,
    (peer, protocol, port): (PeerIndex, u8, u16),
    sender: Option<&Name>,
    decided: Ruling<&Rule>,
) -> Result<(), TestCaseError> {
    let verdict = match sender {
        Some(sender) => table.decide_claimed(direction, peer, protocol, port, sender),
        None => table.decide(direction, peer, protocol, port),
    };
    let id = |rule| table.rule(rule).id.as_str();
    let by_table = match verdict {
        Verdict::Allow(rule) => ("allow", id(rule)),
        Verdict::DenyByRule(rule) => ("deny", id(rule)),
        Verdict::DenyUnknownWorkload(rule) => ("unknown", id(rule)),
        Verdict::DenyByDefault => ("default", ""),
    };
    let by_reference = match decided {
        Ruling::Allow(rule) => ("allow", rule.id.as_str()),
        Ruling::DenyByRule(rule) => ("deny", rule.id.as_str()),
        Ruling::DenyUnknownWorkload(rule) => ("unknown", rule.id.as_str()),
        Ruling::DenyByDefault => ("default", ""),
    };
    prop_assert_eq!(by_table, by_reference, "{:?} {:?}", direction, sender);
    Ok(())
}

const PROTOCOLS: [u8; 5] = [
    ip_protocol::TCP,
    ip_protocol::UDP,
    ip_protocol::ICMP,
    ip_protocol::ICMPV6,
    47,
];

fn interesting_ports(bundle: &Bundle) -> Vec<u16> {
    let mut ports = vec![0, 1, u16::MAX];
    for rule in bundle.allow.iter().chain(&bundle.deny) {
        if let Traffic::Ports { tcp, udp, .. } = &rule.traffic {
            for range in tcp.iter().chain(udp) {
                ports.extend([range.first.saturating_sub(1), range.first]);
                ports.extend([range.last, range.last.saturating_add(1)]);
            }
        }
    }
    ports.extend(bundle.services.iter().map(|service| service.port));
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn fleet() -> impl Strategy<Value = Vec<HostRecord>> {
    vec(host_labels(), 2..8).prop_map(records)
}

fn host_labels() -> impl Strategy<Value = Labels> {
    vec(label(), 0..3).prop_map(|labels| {
        labels
            .into_iter()
            .map(|label| (label.key, label.value))
            .collect()
    })
}

fn label() -> impl Strategy<Value = Label> {
    (0..2usize, 0..3usize).prop_map(|(key, value)| {
        format!("{}={}", ["role", "env"][key], ["a", "b", "c"][value])
            .parse()
            .unwrap()
    })
}

fn records(labels: Vec<Labels>) -> Vec<HostRecord> {
    (1u8..)
        .zip(labels)
        .map(|(number, labels)| record(number, labels))
        .collect()
}

fn record(number: u8, labels: Labels) -> HostRecord {
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

/// Hosts by id, by name, and by an id that has not the host's name any more.
fn host_name(number_max: u8) -> impl Strategy<Value = Selector> {
    (1..=number_max, 1..=number_max, 0..3).prop_map(|(number, other, kind)| Selector::Host {
        name: format!("host-{}", if kind == 2 { other } else { number })
            .parse()
            .unwrap(),
        id: (kind > 0).then(|| HostId::from_bytes([number; 16])),
    })
}

fn host_selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        1 => Just(Selector::Any),
        2 => host_name(9),
        3 => vec(label(), 1..3).prop_map(Selector::Labels),
    ]
}

/// `svc-3` is never described.
fn service_name() -> impl Strategy<Value = Selector> {
    (0..4u8).prop_map(|number| Selector::Service(format!("svc-{number}").parse().unwrap()))
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![4 => host_selector(), 1 => service_name()]
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    // The last may be one that no parser lets through: an endpoint that is a service.
    let endpoint = prop_oneof![6 => host_selector(), 1 => service_name()];
    let one = (0..3u8, port(), any::<bool>(), vec(endpoint, 1..3));
    vec(one, 0..4).prop_map(|services| {
        let service = |(number, port, is_udp, endpoints): (u8, _, _, _)| Service {
            name: format!("svc-{number}").parse().unwrap(),
            port,
            protocol: if is_udp { Protocol::Udp } else { Protocol::Tcp },
            endpoints,
            workloads: Vec::new(),
            addresses: None,
            settings: TrafficSettings::default(),
            source: Source::default(),
        };
        services.into_iter().map(service).collect()
    })
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![1u16..30, Just(u16::MAX), any::<u16>()]
}

fn range() -> impl Strategy<Value = PortRange> {
    prop_oneof![
        port().prop_map(PortRange::single),
        Just(PortRange::ALL),
        (port(), port()).prop_map(|(a, b)| PortRange {
            first: a.min(b),
            last: a.max(b)
        }),
    ]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    prop_oneof![
        1 => Just(Traffic::All),
        6 => (vec(range(), 0..3), vec(range(), 0..3), any::<bool>())
            .prop_map(|(tcp, udp, icmp)| Traffic::Ports { tcp, udp, icmp }),
    ]
}

/// With what it asks for beside packets: nothing, a request, or hours.
type RuleParts = ((Vec<Selector>, Vec<Selector>, Traffic), u8);

fn rule_parts() -> impl Strategy<Value = RuleParts> {
    let from = || vec(prop_oneof![5 => selector(), 1 => workload_name()], 1..3);
    let parts = prop_oneof![
        3 => (from(), vec(selector(), 1..3), traffic()),
        1 => (from(), vec(service_name(), 1..3), Just(Traffic::Service)),
        // No parser lets this through, and hosts have to agree on it all the same.
        1 => (from(), vec(selector(), 1..3), Just(Traffic::Service)),
    ];
    (
        parts,
        prop_oneof![6 => Just(0u8), 1 => Just(1), 1 => Just(2)],
    )
}

/// `load-2` is never described.
fn workload_name() -> impl Strategy<Value = Selector> {
    (0..3u8).prop_map(|number| Selector::Workload(format!("load-{number}").parse().unwrap()))
}

fn workloads() -> impl Strategy<Value = Vec<Workload>> {
    vec((0..2u8, vec(host_selector(), 1..3)), 0..3).prop_map(|workloads| {
        let workload = |(number, hosts)| Workload {
            name: format!("load-{number}").parse().unwrap(),
            unit: Some("load.service".parse().unwrap()),
            user: None,
            hosts,
            source: Source::default(),
        };
        workloads.into_iter().map(workload).collect()
    })
}

fn bundle() -> impl Strategy<Value = Bundle> {
    (
        services(),
        workloads(),
        vec(rule_parts(), 0..12),
        vec(rule_parts(), 0..4),
    )
        .prop_map(|(services, workloads, allow, deny)| Bundle {
            services,
            workloads,
            allow: rules("allow", allow),
            deny: rules("deny", deny),
            ..Bundle::default()
        })
}

fn rules(effect: &str, parts: Vec<RuleParts>) -> Vec<Rule> {
    let request = || model::rule::HttpMatch {
        methods: Vec::new(),
        path: "/a".parse().unwrap(),
        host: None,
        headers: Vec::new(),
    };
    let night = || model::rule::When {
        days: model::rule::Days::ALL,
        hours: None,
        zone: "UTC".parse().unwrap(),
    };
    let rule = |(number, ((from, to, traffic), asks)): (usize, RuleParts)| Rule {
        id: format!("{effect}-{number}").parse().unwrap(),
        from,
        to,
        traffic,
        http: (asks == 1).then(request).into_iter().collect(),
        when: (asks == 2).then(night),
        source: Source {
            file: "rules.yaml".to_owned(),
            line: 1,
        },
    };
    parts.into_iter().enumerate().map(rule).collect()
}

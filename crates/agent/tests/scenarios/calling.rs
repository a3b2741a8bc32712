//! What the proxy of a host is told: the services that concern it, where their hosts take streams,
//! who this host is; and that it is not told of what does not concern it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::Output;
use model::address::HostAddresses;
use model::catalogue::{Catalogue, StreamIdentity};
use model::control::{FromHost, ToHost};
use model::ids::HostId;
use model::map::{MapDelta, PeerEntry};
use model::rule::{Bundle, HttpMatch, PathPattern, Rule, Selector, Source, Traffic, Workload};
use model::time::UnixTime;
use policy::{Gate, Question, Ruling, Target};

use crate::coordinator::{Coordinator, START, bundle_with_service};
use crate::host::Host;

type Told = Option<(Arc<Catalogue>, Arc<Gate>)>;

fn told(host: &mut Host) -> Vec<Told> {
    host.take(|output| match output {
        Output::Services(known) => Some(known.clone()),
        _ => None,
    })
}

fn last(host: &mut Host) -> (Arc<Catalogue>, Arc<Gate>) {
    let told = told(host).pop().expect("the proxy was told something");
    told.expect("it is a member")
}

fn identities(host: &mut Host) -> Vec<Option<Arc<StreamIdentity>>> {
    host.take(|output| match output {
        Output::StreamIdentity(identity) => Some(identity.clone()),
        _ => None,
    })
}

/// `orders` at db, with addresses of its own.
fn bundle(coordinator: &Coordinator) -> (Bundle, HostAddresses) {
    let addresses = coordinator.statement.overlay.services().nth_service(7);
    let mut bundle = bundle_with_service(8080);
    bundle.services[0].addresses = addresses;
    bundle.allow[0].to = vec![Selector::Service("orders".parse().unwrap())];
    bundle.allow[0].traffic = Traffic::Service;
    (bundle, addresses.unwrap())
}

/// web-1 beside db and a stranger, with `orders` at db.
fn member(change: impl FnOnce(&mut Bundle)) -> (Coordinator, Host, HostId, HostId) {
    let mut coordinator = Coordinator::new(1);
    let (db, stranger) = (coordinator.add_host("db"), coordinator.add_host("stranger"));
    let (mut policy, _) = bundle(&coordinator);
    let web = Selector::Host {
        name: "web-1".parse().unwrap(),
        id: None,
    };
    policy.allow[0].from = vec![web];
    change(&mut policy);
    coordinator.apply(policy);
    let host = Host::member_of(&mut coordinator);
    (coordinator, host, db, stranger)
}

fn calls(host: &Host, db: HostId, at: UnixTime) -> Question<'static> {
    static ORDERS: std::sync::OnceLock<model::name::Name> = std::sync::OnceLock::new();
    Question {
        from: host.id(),
        workload: None,
        to: db,
        target: Target::Service(ORDERS.get_or_init(|| "orders".parse().unwrap())),
        request: None,
        at,
    }
}

#[test]
fn the_proxy_knows_a_service_before_its_name_resolves_to_its_own_address() {
    let (coordinator, mut host, db, stranger) = member(|_| {});
    let (_, addresses) = bundle(&coordinator);
    let services = host
        .said
        .iter()
        .rposition(|it| matches!(it, Output::Services(Some((it, _))) if !it.services.is_empty()));
    let names = host.said.iter().rposition(|it| match it {
        Output::Names(names) => names.lookup("orders").is_some(),
        _ => false,
    });
    assert!(services.unwrap() < names.unwrap());

    let Some(Output::Names(names)) = names.map(|it| host.said[it].clone()) else {
        unreachable!("it was found above");
    };
    let entry = names.lookup("orders").unwrap();
    assert_eq!(entry.v4().collect::<Vec<_>>(), [addresses.v4]);
    assert_eq!(entry.v6().collect::<Vec<_>>(), [addresses.v6]);
    let endpoint = coordinator.hosts[&db].addresses;
    assert_eq!(entry.addresses, [endpoint], "what SRV names");
    let name = |address| names.reverse(address).unwrap().as_str();
    assert_eq!(name(addresses.v4.into()), "orders");
    assert_eq!(name(endpoint.v6.into()), "db");

    let (catalogue, gate) = last(&mut host);
    let service = catalogue.service_at(addresses.v6.into()).unwrap();
    assert_eq!(service.endpoints, [db]);
    let known: Vec<_> = catalogue.hosts.keys().copied().collect();
    assert!(known.contains(&db) && known.contains(&host.id()) && !known.contains(&stranger));
    let streams = &catalogue.hosts[&db].streams;
    assert_eq!(
        streams,
        &[SocketAddr::from(([192, 0, 2, db.as_bytes()[3]], 7444))]
    );
    assert!(catalogue.hosts[&host.id()].streams.is_empty());
    assert!(matches!(
        gate.decide(&calls(&host, db, START)),
        Ruling::Allow(_)
    ));
}

#[test]
fn a_host_that_concerns_no_service_concerns_no_proxy() {
    let (mut coordinator, mut host, db, stranger) = member(|_| {});
    let (before, gate) = last(&mut host);
    coordinator.change(stranger, |record| record.name = "other".parse().unwrap());
    coordinator.add_host("third");
    host.map(coordinator.whole_map(host.id()));
    assert_eq!(told(&mut host).len(), 0);

    coordinator.change(db, |record| record.name = "db-2".parse().unwrap());
    let (mut bundle, _) = bundle(&coordinator);
    bundle.services[0].endpoints = vec![Selector::Host {
        name: "db".parse().unwrap(),
        id: Some(db),
    }];
    coordinator.apply(bundle);
    host.map(coordinator.whole_map(host.id()));
    let (after, other) = last(&mut host);
    assert_eq!(after.hosts[&db].name.as_str(), "db-2");
    assert!(!Arc::ptr_eq(&before, &after) && !Arc::ptr_eq(&gate, &other));
}

#[test]
fn another_place_of_an_endpoint_is_told_with_the_rules_as_they_were() {
    let (coordinator, mut host, db, stranger) = member(|_| {});
    let (_, gate) = last(&mut host);
    let moved = |id| PeerEntry {
        stream_port: Some(9444),
        ..coordinator.entry(id)
    };
    let hint = |entry| MapDelta {
        peers: vec![entry],
        ..coordinator.delta(coordinator.revision)
    };
    host.map(hint(moved(stranger)));
    assert_eq!(told(&mut host).len(), 0);
    host.map(hint(moved(db)));
    let (catalogue, same) = last(&mut host);
    assert_eq!(catalogue.hosts[&db].streams[0].port(), 9444);
    assert!(Arc::ptr_eq(&gate, &same));
    // A coordinator that has not heard it yet takes nothing away.
    let forgetful = PeerEntry {
        stream_port: None,
        ..coordinator.entry(db)
    };
    host.map(hint(forgetful));
    assert_eq!(told(&mut host).len(), 0);
}

#[test]
fn whoever_may_send_some_requests_finds_the_service_though_no_packet_passes() {
    let (_, mut host, db, _) = member(|policy| {
        policy.allow[0].http = vec![HttpMatch {
            methods: vec!["GET".parse().unwrap()],
            path: PathPattern::any(),
            host: None,
            headers: Vec::new(),
        }];
    });
    let names = host.take(|output| match output {
        Output::Names(names) => Some(names.clone()),
        _ => None,
    });
    let names = names.last().unwrap();
    assert_eq!(names.lookup("orders").unwrap().addresses.len(), 1);
    let (catalogue, gate) = last(&mut host);
    let orders = catalogue.services.values().next().unwrap();
    assert_eq!(orders.endpoints, [db]);
    let bytes = gate.decide(&calls(&host, db, START));
    assert!(!matches!(bytes, Ruling::Allow(_)), "bytes are no request");
}

#[test]
fn the_other_end_of_a_rule_that_names_a_workload_is_known() {
    let (coordinator, mut host, db, stranger) = member(|policy| {
        policy.services.clear();
        policy.workloads = vec![Workload {
            name: "report".parse().unwrap(),
            unit: Some("report.service".parse().unwrap()),
            user: None,
            hosts: vec![Selector::Host {
                name: "web-1".parse().unwrap(),
                id: None,
            }],
            source: Source::default(),
        }];
        policy.allow = vec![Rule {
            from: vec![Selector::Workload("report".parse().unwrap())],
            to: vec![Selector::Host {
                name: "db".parse().unwrap(),
                id: None,
            }],
            ..bundle_with_service(5432).allow[0].clone()
        }];
    });
    assert_eq!(coordinator.bundle.services.len(), 0);
    let (catalogue, gate) = last(&mut host);
    assert!(catalogue.hosts.contains_key(&db) && !catalogue.hosts.contains_key(&stranger));
    let caught: Vec<_> = gate.caught().collect();
    assert_eq!(caught, [(db, model::rule::PortRange::single(5432))]);
}

#[test]
fn a_host_alone_tells_its_proxy_from_its_disk() {
    let (_, mut host, _, _) = member(|_| {});
    let (before, _) = last(&mut host);
    let shown = identities(&mut host).pop().flatten().unwrap();
    host.restart();
    let (after, _) = last(&mut host);
    assert_eq!(before, after);
    assert_eq!(identities(&mut host), [Some(shown)]);
}

#[test]
fn a_proxy_shows_the_newest_certificate_and_none_when_the_host_has_left() {
    let (mut coordinator, mut host, _, _) = member(|_| {});
    let shown = identities(&mut host);
    let [Some(first)] = &shown[..] else {
        panic!("{shown:?}");
    };
    assert_eq!(first.roots, coordinator.statement.root_certificates);
    let request = wanted_certificate(&mut host);
    coordinator.clock = host.now.unix;
    let record = coordinator.hosts[&host.id()].clone();
    let chain = coordinator.certify(&record, &request);
    host.told(ToHost::Certificate(Ok(chain.clone())));
    let renewed = identities(&mut host).pop().flatten().unwrap();
    assert_eq!(renewed.chain, chain);
    assert_eq!(renewed.private_key, first.private_key);

    last(&mut host);
    let farewell = coordinator.goodbye_for_ever(host.id());
    host.leave();
    host.told(farewell);
    assert_eq!(identities(&mut host), [None]);
    assert!(matches!(told(&mut host)[..], [None]));
}

/// Waits until the host asks for another certificate.
fn wanted_certificate(host: &mut Host) -> Vec<u8> {
    for _ in 0..24 * 360 {
        host.advance(Duration::from_secs(10));
        let asked = host.sent(|message| Some(message.clone()));
        for message in asked {
            match message {
                FromHost::Ping(nonce) => host.told(ToHost::Pong(nonce)),
                FromHost::Renew(request) => return request,
                _ => {}
            }
        }
    }
    panic!("it never asks");
}

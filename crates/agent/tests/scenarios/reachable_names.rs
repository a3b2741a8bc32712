//! Which services a host is told of: those that its rules let it reach, and those that it offers.

use std::sync::Arc;

use agent::{Names, Output};
use model::rule::{Bundle, Rule, Selector, Service, Traffic};

use crate::coordinator::{Coordinator, bundle_with_service};
use crate::host::Host;

/// A member named web-1 beside a host named db, under this policy.
fn under(bundle: Bundle) -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    coordinator.apply(bundle);
    let host = Host::member_of(&mut coordinator);
    (coordinator, host)
}

fn names(host: &mut Host) -> Arc<Names> {
    let mut told = host.take(|output| match output {
        Output::Names(names) => Some(Arc::clone(names)),
        _ => None,
    });
    told.pop().expect("names were told")
}

#[test]
fn a_service_has_a_name_only_where_a_rule_lets_it_be_reached() {
    let (mut coordinator, mut host) = under(bundle_with_service(22));
    assert_eq!(names(&mut host).lookup("orders"), None);
    assert!(host.agent.services().is_empty());

    coordinator.apply(bundle_with_service(8080));
    host.map(coordinator.whole_map(host.id()));
    let names = names(&mut host);
    let db = names.lookup("db").unwrap().addresses.clone();
    assert_eq!(names.lookup("orders").unwrap().addresses, db);
    let services = host.agent.services();
    assert_eq!(services[0].dns_name, "orders.mesh.internal");
    let endpoint = &services[0].endpoints[0];
    assert_eq!(endpoint.host.as_str(), "db");
    assert!(endpoint.allowed && !endpoint.here);
    assert_eq!(endpoint.rule.as_deref(), Some("only"));
}

#[test]
fn an_endpoint_that_a_deny_closes_is_no_address_of_the_service() {
    let mut bundle = bundle_with_service(8080);
    bundle.deny = vec![Rule {
        id: "closed".parse().unwrap(),
        traffic: Traffic::All,
        ..bundle.allow[0].clone()
    }];
    let (_, mut host) = under(bundle);
    assert_eq!(names(&mut host).lookup("orders"), None);
}

#[test]
fn a_service_that_a_rule_names_has_a_name_before_it_has_endpoints() {
    let mut bundle = bundle_with_service(8080);
    let nobody = Selector::Labels(vec!["role=none".parse().unwrap()]);
    bundle.services[0].endpoints = vec![nobody];
    bundle.allow[0].to = vec![Selector::Service("orders".parse().unwrap())];
    bundle.allow[0].traffic = Traffic::Service;
    let (_, mut host) = under(bundle);
    let names = names(&mut host);
    assert!(names.lookup("orders").unwrap().addresses.is_empty());
}

#[test]
fn a_host_has_a_name_for_the_service_that_it_offers_itself() {
    let mut bundle = bundle_with_service(22);
    bundle.services[0].endpoints = vec![Selector::Any];
    bundle.services.push(Service {
        name: "hidden".parse().unwrap(),
        endpoints: vec![Selector::Labels(vec!["role=none".parse().unwrap()])],
        ..bundle.services[0].clone()
    });
    let (_, mut host) = under(bundle);
    let names = names(&mut host);
    let own = names.lookup("web-1").unwrap().addresses.clone();
    // The other endpoint may not be reached at the service's port.
    assert_eq!(names.lookup("orders").unwrap().addresses, own);
    assert_eq!(names.lookup("hidden"), None);
    assert!(names.is_own(own[0].v4.into()));
    assert!(!names.is_own(names.lookup("db").unwrap().addresses[0].v4.into()));
}

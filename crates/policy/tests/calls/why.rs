//! What `why` says of calls of which not everything is known: never contradicted by a call, and with
//! all that there is to know what the gate decides.

use model::ids::PolicyVersion;
use model::name::Name;
use model::question::{CallFacts, HeaderFact, Verdict};
use model::record::HostRecord;
use model::rule::{Bundle, Protocol, ip_protocol};
use model::time::UnixTime;
use policy::reference::decide_claimed;
use policy::{Answer, Asked, Call, Gate, Ruling, Target, why, why_at_any};
use proptest::prelude::*;

use crate::some_policies::{
    PORTS, bundle, ends, fleet, for_each_call, named, names, question, record,
};

proptest! {
    #[test]
    fn why_with_all_facts_is_what_the_gate_decides(fleet in fleet(), bundle in bundle()) {
        let peers: Vec<&HostRecord> = fleet[1..].iter().collect();
        let gate = Gate::compile(&fleet[0], &peers, &bundle, PolicyVersion(1));
        for (from, to) in ends(&fleet) {
            for_each_call(&bundle, from, to, &mut |call| {
                let Some(facts) = facts(&bundle, call) else { return Ok(()) };
                // Nobody knows who calls where it was not said, and what is no request where it may be one.
                let is_open = call.workload.is_none() || call.request.is_none()
                    && protocol(&bundle, call) == Some(Protocol::Auto);
                if is_open {
                    return Ok(());
                }
                let answer = answer(&bundle, call, &facts);
                let ruling = named(gate.decide(&question(call)), |rule| gate.rule(rule).id.to_string());
                let expected = match ruling {
                    Ruling::Allow(_) => Verdict::Allowed,
                    _ => Verdict::Denied,
                };
                prop_assert_eq!(answer.verdict, expected, "{:?}", answer);
                if let Ruling::Allow(rule) | Ruling::DenyByRule(rule) = ruling {
                    prop_assert_eq!(answer.rule.map(|rule| rule.id.to_string()), Some(rule));
                }
                Ok(())
            })?;
        }
    }

    #[test]
    fn no_call_contradicts_why(
        fleet in fleet(),
        bundle in bundle(),
        left_out in prop_oneof![Just(0x7f_u8), any::<u8>()],
    ) {
        let peers: Vec<&HostRecord> = fleet[1..].iter().collect();
        let gate = Gate::compile(&fleet[0], &peers, &bundle, PolicyVersion(1));
        for (from, to) in ends(&fleet) {
            for_each_call(&bundle, from, to, &mut |call| {
                let Some(facts) = facts(&bundle, call) else { return Ok(()) };
                let answer = answer(&bundle, call, &without(facts, left_out));
                let is_allowed = gate.decide(&question(call)).is_allowed();
                match answer.verdict {
                    Verdict::Allowed => prop_assert!(is_allowed, "{:?}", answer),
                    Verdict::Denied => prop_assert!(!is_allowed, "{:?}", answer),
                    Verdict::Depends => {
                        prop_assert!(!answer.depends_on.is_empty() && answer.rule.is_none());
                        prop_assert!(!answer.notes.is_empty());
                    }
                }
                prop_assert!(answer.notes.len() <= Answer::NOTES_MAX);
                Ok(())
            })?;
        }
    }

    #[test]
    fn no_datagram_contradicts_why(fleet in fleet(), bundle in bundle()) {
        let udp = ip_protocol::UDP;
        for (from, to) in ends(&fleet) {
            for port in PORTS {
                let ask = |facts: &CallFacts| {
                    let now = UnixTime::from_secs(0);
                    why(&bundle, &Asked { from, to, ip_protocol: udp, port, facts, now }).verdict
                };
                let open = ask(&CallFacts::default());
                for name in names() {
                    let said = CallFacts { workload: Some(name.clone()), ..CallFacts::default() };
                    let ruling = decide_claimed(&bundle, from, Some(&name), to, udp, port);
                    let is_allowed = ruling.is_allowed();
                    prop_assert_eq!(ask(&said) == Verdict::Allowed, is_allowed);
                    prop_assert_ne!(ask(&said), Verdict::Depends);
                    prop_assert!(open == Verdict::Depends || (open == Verdict::Allowed) == is_allowed);
                }
            }
        }
    }
}

fn answer(bundle: &Bundle, call: &Call<'_>, facts: &CallFacts) -> Answer {
    let port = match call.target {
        Target::Port(port) => port,
        Target::Service(name) => {
            bundle
                .services
                .iter()
                .find(|it| it.name == *name)
                .unwrap()
                .port
        }
    };
    let asked = Asked {
        from: call.from,
        to: call.to,
        ip_protocol: ip_protocol::TCP,
        port,
        facts,
        now: UnixTime::from_secs(0),
    };
    why(bundle, &asked)
}

/// What is spoken there; `None`: there is no such service of TCP.
fn protocol(bundle: &Bundle, call: &Call<'_>) -> Option<Protocol> {
    match call.target {
        Target::Port(_) => Some(Protocol::Auto),
        Target::Service(name) => {
            let service = bundle.services.iter().find(|it| it.name == *name)?;
            Some(service.protocol).filter(|it| *it != Protocol::Udp)
        }
    }
}

/// Says all of a call; `None`: there is none such, or it cannot be said.
fn facts(bundle: &Bundle, call: &Call<'_>) -> Option<CallFacts> {
    let mut facts = CallFacts {
        service: match call.target {
            Target::Service(name) => Some(name.clone()),
            Target::Port(_) => None,
        },
        workload: call.workload.cloned(),
        at_secs: call.at.map(|at| at.as_secs()),
        ..CallFacts::default()
    };
    let protocol = protocol(bundle, call)?;
    let Some(request) = &call.request else {
        return (!protocol.is_http()).then_some(facts);
    };
    if protocol == Protocol::Tcp {
        return None;
    }
    facts.method = Some(request.method.parse().ok()?);
    facts.path = Some(request.path.parse().ok()?);
    facts.host = Some(request.host.parse().ok()?);
    request.headers.each("x-a", &mut |value| {
        facts.headers.push(HeaderFact {
            name: "x-a".parse().unwrap(),
            value: Some(std::str::from_utf8(value).unwrap().parse().unwrap()),
        });
    });
    if facts.headers.is_empty() {
        let name = "x-a".parse().unwrap();
        facts.headers.push(HeaderFact { name, value: None });
    }
    Some(facts)
}

fn without(facts: CallFacts, left_out: u8) -> CallFacts {
    let is_said = |bit: u8| left_out & (1 << bit) == 0;
    CallFacts {
        service: facts.service,
        workload: facts.workload.filter(|_| is_said(0)),
        method: facts.method.filter(|_| is_said(1)),
        path: facts.path.filter(|_| is_said(2)),
        host: facts.host.filter(|_| is_said(3)),
        headers: facts.headers.into_iter().filter(|_| is_said(4)).collect(),
        at_secs: facts.at_secs.filter(|_| is_said(5)),
    }
}

const RULES: &str = "\
fleet: prod
workloads:
  web: { unit: web.service, hosts: \"role=edge\" }
  batch: { unit: batch.service, hosts: \"role=edge\" }
services:
  orders: { port: 8080, protocol: http, endpoints: [\"role=app\"] }
  dns: { port: 53, protocol: udp, endpoints: [\"role=app\"] }
  db: { port: 5432, protocol: tcp, endpoints: [\"role=app\"] }
allow:
  - { id: items, from: web, to: orders, http: [\"GET,HEAD /v1/items/**\"] }
  - { id: all-day, from: batch, to: orders, when: \"08:00-18:00 Europe/Paris\" }
  - { id: edge-db, from: \"role=edge\", to: db }
  - { id: web-dns, from: web, to: dns }
  - { id: to-one, from: \"role=web\", to: app-1, tcp: [9000] }
deny:
  - id: no-debug
    from: any
    to: orders
    http: [{ path: \"/**\", headers: { x-debug: \"*\" } }]
  - { id: no-batch, from: batch, to: db }
";

fn host(number: u8, role: &str, name: &str) -> HostRecord {
    let label = ("role".parse().unwrap(), role.parse().unwrap());
    HostRecord {
        name: name.parse().unwrap(),
        ..record((number, [label].into_iter().collect()))
    }
}

/// What is said of calls from `edge-1` to an endpoint of a service.
fn said(service: &str, facts: CallFacts) -> Answer {
    let bundle = super::checked(RULES).bundle;
    let (edge, app) = (host(1, "edge", "edge-1"), host(2, "app", "app-1"));
    let name: Name = service.parse().unwrap();
    let service = bundle.services.iter().find(|it| it.name == name).unwrap();
    let facts = CallFacts {
        service: Some(name),
        ..facts
    };
    let asked = Asked {
        from: &edge,
        to: &app,
        ip_protocol: service.protocol.ip_protocol(),
        port: service.port,
        facts: &facts,
        now: UnixTime::from_secs(1_795_340_000), // a Sunday
    };
    why(&bundle, &asked)
}

#[test]
fn what_is_not_known_is_told_with_each_rule_that_looks_at_it() {
    let open = said("orders", CallFacts::default());
    assert_eq!(open.verdict, Verdict::Depends);
    assert_eq!(
        open.depends_on,
        [
            "which workload calls",
            "the method",
            "the path",
            "the header x-debug",
            "the time"
        ]
    );
    assert_eq!(
        open.notes,
        [
            "workload batch: depends on the header x-debug, the time",
            "  rule `no-debug` (policy.yaml:16) denies it if there is the header `x-debug: *`",
            "  rule `all-day` (policy.yaml:11) allows it if it is 08:00-18:00 Europe/Paris (it is so now, sun 10:33)",
            "workload web: depends on the method, the path, the header x-debug",
            "  rule `no-debug` (policy.yaml:16) denies it if there is the header `x-debug: *`",
            "  rule `items` (policy.yaml:10) allows it if the method is GET or HEAD and the path is /v1/items/**",
            "a process of no workload: denied, no rule allows it",
        ]
    );
}

fn by_web(method: Option<&str>, path: Option<&str>, debug: bool) -> CallFacts {
    CallFacts {
        workload: Some("web".parse().unwrap()),
        method: method.map(|it| it.parse().unwrap()),
        path: path.map(|it| it.parse().unwrap()),
        headers: vec![HeaderFact {
            name: "x-debug".parse().unwrap(),
            value: debug.then(|| "1".parse().unwrap()),
        }],
        ..CallFacts::default()
    }
}

#[test]
fn each_fact_that_is_told_leaves_less_to_depend_on() {
    let answer = |facts| {
        let answer = said("orders", facts);
        let rule = answer.rule.map(|rule| rule.id.to_string());
        (
            answer.verdict,
            rule.unwrap_or_default(),
            answer.depends_on.join(", "),
        )
    };
    let items = Some("/v1/items/7");
    assert_eq!(
        answer(by_web(None, items, false)),
        (Verdict::Depends, String::new(), "the method".to_owned())
    );
    let allowed = (Verdict::Allowed, "items".to_owned(), String::new());
    assert_eq!(answer(by_web(Some("GET"), items, false)), allowed);
    let denied = |rule: &str| (Verdict::Denied, rule.to_owned(), String::new());
    assert_eq!(answer(by_web(Some("GET"), items, true)), denied("no-debug"));
    assert_eq!(answer(by_web(None, None, true)), denied("no-debug"));
    assert_eq!(answer(by_web(Some("PUT"), None, false)), denied(""));
    let near = said("orders", by_web(Some("PUT"), None, false)).notes;
    assert_eq!(
        near,
        [
            "rule `items` (policy.yaml:10) matches except the method: it allows GET,HEAD, not PUT",
            "rule `all-day` (policy.yaml:11) matches except `from`: it is for workload batch, and web calls",
        ]
    );
}

#[test]
fn services_of_bytes_and_datagrams_depend_on_who_sends() {
    let db = said("db", CallFacts::default());
    assert_eq!(
        (db.verdict, &db.depends_on[..]),
        (Verdict::Depends, &["which workload calls".to_owned()][..])
    );
    assert_eq!(
        db.notes,
        [
            "workload web: allowed by rule `edge-db` (policy.yaml:12)",
            "workload batch, or a process of none: denied by rule `no-batch` (policy.yaml:20)",
        ]
    );
    let dns = said("dns", CallFacts::default());
    assert_eq!(dns.verdict, Verdict::Depends);
    assert_eq!(
        dns.notes[0],
        "workload web: allowed by rule `web-dns` (policy.yaml:13)"
    );
    let by_web = said("dns", by_web(Some("GET"), None, false));
    assert_eq!(by_web.verdict, Verdict::Allowed);
    assert!(
        by_web.notes[0].contains("nobody looks for requests in service dns (udp)"),
        "{:?}",
        by_web.notes
    );
}

#[test]
fn a_workload_that_cannot_be_there_is_nobody_and_it_is_said() {
    let facts = CallFacts {
        workload: Some("nightly".parse().unwrap()),
        ..CallFacts::default()
    };
    let answer = said("orders", facts);
    assert_eq!(answer.verdict, Verdict::Denied);
    let last = answer.notes.last().unwrap();
    assert!(
        last.contains("edge-1 may not run workload nightly (this policy does not have it)"),
        "{last}"
    );
}

#[test]
fn a_service_is_as_its_best_endpoint_and_datagrams_are_up_to_theirs() {
    let rules =
        format!("{RULES}  - {{ id: not-two, from: any, to: app-2, tcp: [5432], udp: [53] }}\n");
    let bundle = super::checked(&rules).bundle;
    let (edge, one, two) = (
        host(1, "edge", "edge-1"),
        host(2, "app", "app-1"),
        host(3, "app", "app-2"),
    );
    let answer = |service: &str| {
        let facts = CallFacts {
            service: Some(service.parse().unwrap()),
            workload: Some("web".parse().unwrap()),
            ..CallFacts::default()
        };
        let service = bundle
            .services
            .iter()
            .find(|it| it.name.as_str() == service)
            .unwrap();
        let asked = Asked {
            from: &edge,
            to: &edge,
            ip_protocol: service.protocol.ip_protocol(),
            port: service.port,
            facts: &facts,
            now: UnixTime::from_secs(0),
        };
        let (to, answer) = why_at_any(&bundle, &asked, &[&two, &one]);
        (to.name.to_string(), answer)
    };
    let (to, db) = answer("db");
    assert_eq!((&*to, db.verdict), ("app-1", Verdict::Allowed));
    assert_eq!(
        db.notes,
        ["to app-2: denied by rule `not-two` (policy.yaml:21)"]
    );
    let (_, dns) = answer("dns");
    assert_eq!(
        (dns.verdict, &*dns.depends_on[0]),
        (Verdict::Depends, "the endpoint")
    );
}

//! `why`: the policy's word and that of both ends.

use std::time::Duration;

use fleet::{AdminRequest, Rejection, Reply, RequestId, SessionId};
use model::admin::{EndAnswer, EndReport, WhyReport, WhyRequest};
use model::control::{Explanation, FromHost, RefusalCode, ToHost};
use model::ids::PolicyVersion;
use model::pair::PairFacts;
use model::question::{CallFacts, Verdict};
use model::rule::FlowQuery;

use crate::world::{World, name};

fn question(to: &str, protocol: &str, port: Option<u16>) -> AdminRequest {
    AdminRequest::Why(WhyRequest {
        from: "a".into(),
        to: to.into(),
        protocol: protocol.into(),
        port,
        call: CallFacts::default(),
    })
}

/// Makes hosts a and b, both online.
fn two_hosts() -> (World, SessionId, SessionId) {
    let mut world = World::new();
    let sessions = ["a", "b"].map(|host| {
        let (machine, _) = world.join(host, u16::from(host.as_bytes()[0]));
        let session = world.open(&machine, host);
        world.hello(session, None);
        session
    });
    world.advance(Duration::from_secs(1));
    for session in sessions {
        world.taken(session);
    }
    (world, sessions[0], sessions[1])
}

fn asked(world: &mut World, session: SessionId) -> (u64, FlowQuery) {
    match &world.taken(session)[..] {
        [ToHost::Explain { id, query, .. }] => (*id, *query),
        other => panic!("{other:?}"),
    }
}

fn explanation(id: u64, allowed: bool) -> FromHost {
    FromHost::Explanation(Explanation {
        id,
        policy: PolicyVersion(1),
        allowed,
        verdict: None,
        depends_on: Vec::new(),
        rule: None,
        source: None,
        notes: vec!["a note".into()],
        pair: Some(PairFacts::default()),
    })
}

fn answer(world: &mut World, id: RequestId) -> Option<Result<WhyReport, Rejection>> {
    Some(world.replies.remove(&id)?.map(|reply| match reply {
        Reply::Why(report) => report,
        other => panic!("{other:?}"),
    }))
}

#[test]
fn both_ends_are_asked_and_their_answers_given() {
    let (mut world, a, b) = two_hosts();
    let id = world.ask(question("b", "tcp", Some(22)));
    let (question_a, query) = asked(&mut world, a);
    let (question_b, _) = asked(&mut world, b);
    assert_eq!((query.ip_protocol, query.port), (6, 22));
    world.say(a, explanation(question_a, false));
    assert!(answer(&mut world, id).is_none());
    world.say(b, explanation(question_b, true));
    let report = answer(&mut world, id).unwrap().unwrap();
    assert!(!report.policy.allowed && report.policy.rule.is_none());
    let EndAnswer::Answered(source) = report.source else {
        panic!("{report:?}")
    };
    let EndAnswer::Answered(destination) = report.destination else {
        panic!()
    };
    let allowed = |report: &EndReport| report.decision.allowed;
    assert_eq!((allowed(&source), allowed(&destination)), (false, true));
    assert_eq!(source.decision.notes, ["a note"]);
    assert_eq!(source.pair, Some(PairFacts::default()));
}

#[test]
fn an_end_that_does_not_answer_is_silent_after_three_seconds() {
    let (mut world, a, _) = two_hosts();
    let id = world.ask(question("b", "icmp", None));
    let (question, _) = asked(&mut world, a);
    world.say(a, explanation(question, true));
    world.advance(Duration::from_millis(2900));
    assert!(answer(&mut world, id).is_none());
    world.advance(Duration::from_millis(100));
    let report = answer(&mut world, id).unwrap().unwrap();
    assert_eq!((report.port, report.destination), (0, EndAnswer::Silent));
    assert!(report.policy.allowed);
    assert_eq!(report.policy.rule.as_deref(), Some("ping"));
}

#[test]
fn an_end_that_is_away_or_goes_away_is_offline() {
    let (mut world, a, b) = two_hosts();
    world.fleet.handle_session_closed(b, world.now);
    let id = world.ask(question("b", "udp", Some(53)));
    world.fleet.handle_session_closed(a, world.now);
    world.drain();
    let report = answer(&mut world, id).unwrap().unwrap();
    assert_eq!(
        (report.source, report.destination),
        (EndAnswer::Offline, EndAnswer::Offline)
    );
}

#[test]
fn nobody_answers_for_another() {
    let (mut world, a, b) = two_hosts();
    let id = world.ask(question("b", "tcp", Some(22)));
    let (question, _) = asked(&mut world, a);
    world.say(a, explanation(question, true));
    world.say(a, explanation(question, false)); // again, as if it were b
    assert!(answer(&mut world, id).is_none());
    world.say(b, explanation(question + 1, false)); // of a question that nobody asked
    assert!(answer(&mut world, id).is_none());
    world.advance(Duration::from_secs(3));
    let report = answer(&mut world, id).unwrap().unwrap();
    assert_eq!(report.destination, EndAnswer::Silent);
}

#[test]
fn a_service_means_one_of_its_endpoints_and_its_port() {
    let (mut world, ..) = two_hosts();
    world.set_labels("b", &[("role", "db")]);
    let yaml = "fleet: prod\nservices:\n  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }\n\
                allow:\n  - { id: a-db, from: a, to: db }\n";
    world.apply_policy(yaml).unwrap();
    let id = world.ask(question("db", "tcp", None));
    world.advance(Duration::from_secs(3));
    let report = answer(&mut world, id).unwrap().unwrap();
    assert_eq!((report.to, report.port), (name("b"), 5432));
    assert_eq!(report.policy.rule.as_deref(), Some("a-db"));
}

const SERVICES: &str = "\
fleet: prod
workloads:
  web: { unit: web.service, hosts: a }
services:
  dns: { port: 53, protocol: udp, endpoints: [\"role=app\"] }
  orders: { port: 8080, protocol: http, endpoints: [\"role=app\"] }
allow:
  - { id: a-dns, from: a, to: dns }
  - { id: items, from: web, to: orders, http: [\"GET /v1/items\"] }
";

#[test]
fn a_service_is_asked_about_by_its_own_protocol_and_as_far_as_calls_are_known() {
    let (mut world, a, b) = two_hosts();
    world.set_labels("b", &[("role", "app")]);
    world.apply_policy(SERVICES).unwrap();
    for session in [a, b] {
        world.taken(session);
    }
    let ask = |world: &mut World, to: &str, call: CallFacts| {
        let id = world.ask(AdminRequest::Why(WhyRequest {
            from: "a".into(),
            to: to.into(),
            protocol: String::new(),
            port: None,
            call,
        }));
        let told = world.taken(b);
        world.advance(Duration::from_secs(3));
        world.taken(a);
        (answer(world, id).unwrap().unwrap(), told)
    };
    let (dns, _) = ask(&mut world, "dns", CallFacts::default());
    assert_eq!((&*dns.protocol, dns.port), ("udp", 53));
    assert_eq!(dns.service, Some(name("dns")));
    assert_eq!(dns.policy.verdict, Some(Verdict::Allowed));
    assert_eq!(dns.policy.rule.as_deref(), Some("a-dns"));
    let get = CallFacts {
        workload: Some(name("web")),
        method: Some("GET".parse().unwrap()),
        ..CallFacts::default()
    };
    let (orders, told) = ask(&mut world, "orders", get.clone());
    assert!(!orders.policy.allowed);
    assert_eq!(orders.policy.depends_on, ["the path"]);
    // The ends are asked the same.
    let of_orders = CallFacts {
        service: Some(name("orders")),
        ..get.clone()
    };
    assert!(
        matches!(&told[..], [ToHost::Explain { call: Some(call), .. }] if **call == of_orders),
        "{told:?}"
    );
    let items = CallFacts {
        path: Some("/v1/items".parse().unwrap()),
        ..get
    };
    let (orders, _) = ask(&mut world, "orders", items);
    assert_eq!(orders.policy.verdict, Some(Verdict::Allowed));
    assert_eq!(orders.policy.rule.as_deref(), Some("items"));
}

#[test]
fn questions_without_sense_are_refused() {
    let (mut world, ..) = two_hosts();
    for (request, code) in [
        (question("nobody", "tcp", Some(1)), RefusalCode::NotFound),
        (question("b", "tcp", None), RefusalCode::Invalid),
        (question("b", "sctp", Some(1)), RefusalCode::Invalid),
        (question("B!", "tcp", Some(1)), RefusalCode::Invalid),
        (question("a", "tcp", Some(1)), RefusalCode::Invalid),
    ] {
        let id = world.ask(request);
        assert_eq!(
            answer(&mut world, id).unwrap().unwrap_err().refusal.code,
            code
        );
    }
}

#[test]
fn an_overlay_address_stands_for_its_host_at_either_end() {
    let (mut world, ..) = two_hosts();
    let address = |world: &mut World, at: usize| world.hosts()[at].addresses;
    let (a, b) = (address(&mut world, 0), address(&mut world, 1));
    let asked = WhyRequest {
        from: a.v6.to_string(),
        to: b.v4.to_string(),
        protocol: "icmp".into(),
        port: None,
        call: CallFacts::default(),
    };
    let id = world.ask(AdminRequest::Why(asked));
    world.advance(Duration::from_secs(5));
    let report = answer(&mut world, id).unwrap().unwrap();
    assert_ne!(report.from, report.to);
    assert_eq!(
        report.addresses,
        [std::net::IpAddr::from(b.v4), b.v6.into()]
    );
    let refused = world
        .admin(question("192.0.2.1", "icmp", None))
        .unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::NotFound, "{refused}");
}

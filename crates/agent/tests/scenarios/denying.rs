//! Denials as an operator reads them, and the answers to "why".

use std::net::SocketAddr;
use std::time::Duration;

use agent::Output;
use dataplane::{Denial, Event};
use model::control::{RefusalCode, ToHost};
use model::ids::{HostId, PolicyVersion};
use model::local::LocalWhyRequest;
use model::map::PeerIndex;
use model::question::{CallFacts, Verdict};
use model::rule::{
    Direction, FlowQuery, HttpMatch, Protocol, Rule, Selector, Source, Traffic, ip_protocol,
};

use crate::coordinator::{Coordinator, bundle_with_service};
use crate::host::Host;

fn member() -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    coordinator.apply(bundle_with_service(22));
    let mut host = Host::member_of(&mut coordinator);
    host.said.clear();
    (coordinator, host)
}

fn why(from: &str, to: &str, protocol: &str, port: Option<u16>) -> LocalWhyRequest {
    LocalWhyRequest {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: protocol.to_owned(),
        port,
        call: CallFacts::default(),
    }
}

/// The host opens a connection to its peer, and a rule denies it.
fn denial_to_db(coordinator: &Coordinator, host: &Host, version: PolicyVersion) -> Denial {
    let db = host.agent.peers(host.now)[0].id;
    let address = |host: &HostId| coordinator.hosts[host].addresses.v4.into();
    Denial {
        direction: Direction::Outbound,
        peer: PeerIndex(0),
        ip_protocol: ip_protocol::TCP,
        source: SocketAddr::new(address(&host.id()), 40_000),
        destination: SocketAddr::new(address(&db), 5432),
        rule: Some("no-admin".parse().unwrap()),
        needs_workload: false,
        workload: None,
        version,
    }
}

#[test]
fn a_denial_names_rule_hosts_port_and_version() {
    let (coordinator, mut host) = member();
    let denial = denial_to_db(&coordinator, &host, PolicyVersion(3));
    let mine = denial.source.ip();
    host.shard(Event::Denied(denial.clone()));
    host.shard(Event::Denied(Denial {
        rule: None,
        ..denial
    }));
    assert_eq!(
        host.notices(),
        [
            format!(
                "denied by rule `no-admin`: tcp web-1 ({mine}:40000) -> db:5432 (policy version 3)"
            ),
            format!(
                "denied, no rule allows it: tcp web-1 ({mine}:40000) -> db:5432 (policy version 3)"
            ),
        ]
    );
}

#[test]
fn a_denial_says_that_it_is_for_want_of_a_workload_or_which_one_sends() {
    let (coordinator, mut host) = member();
    let denial = denial_to_db(&coordinator, &host, PolicyVersion(3));
    let mine = denial.source.ip();
    host.shard(Event::Denied(Denial {
        ip_protocol: ip_protocol::UDP,
        needs_workload: true,
        ..denial.clone()
    }));
    host.shard(Event::Denied(Denial {
        ip_protocol: ip_protocol::UDP,
        rule: None,
        workload: Some("batch".parse().unwrap()),
        ..denial
    }));
    let flow = format!("udp web-1 ({mine}:40000) -> db:5432");
    assert_eq!(
        host.notices(),
        [
            format!(
                "denied, since rule `no-admin` names workloads, and no workload of this policy is known to send it: {flow} (policy version 3)"
            ),
            format!("denied, no rule allows it: {flow}, sent by workload batch (policy version 3)"),
        ]
    );
}

#[test]
fn an_overlay_address_stands_for_its_host() {
    let (coordinator, host) = member();
    let db = host.agent.peers(host.now)[0].id;
    let addresses = coordinator.hosts[&db].addresses;
    for address in [addresses.v4.to_string(), addresses.v6.to_string()] {
        let asked = why("web-1", &address, "tcp", Some(5432));
        let report = host.agent.why(&asked, host.now).unwrap();
        assert_eq!(report.to.as_str(), "db");
        let peer = host.agent.resolve_peer(&address).unwrap();
        assert_eq!(peer.id, db);
    }
    let asked = why("web-1", "192.0.2.1", "tcp", Some(5432));
    let refused = host.agent.why(&asked, host.now).unwrap_err();
    assert!(refused.message.contains("192.0.2.1"), "{refused}");
}

#[test]
fn what_a_peer_denied_is_told_as_its_word_and_remembered() {
    let (coordinator, mut host) = member();
    let denial = denial_to_db(&coordinator, &host, PolicyVersion(4));
    let mine = denial.source.ip();
    host.shard(Event::Rejected(Denial {
        rule: None,
        version: PolicyVersion(0),
        ..denial.clone()
    }));
    host.shard(Event::Rejected(denial));
    let flow = format!("tcp web-1 ({mine}:40000) -> db:5432");
    assert_eq!(
        host.notices(),
        [
            format!("db says: not allowed: {flow}"),
            format!("db says: denied by rule `no-admin`: {flow} (policy version 4 there)"),
        ]
    );
    let question = why("web-1", "db", "tcp", Some(5432));
    let report = host.agent.why(&question, host.now).unwrap();
    let last = report.pair.last_drop.unwrap();
    assert_eq!(last.rule, Some("no-admin".parse().unwrap()));
}

#[test]
fn why_answers_for_hosts_services_and_suffixes() {
    let (_, host) = member();
    let report = host
        .agent
        .why(&why("web-1", "db", "tcp", Some(22)), host.now)
        .unwrap();
    assert!(report.decision.allowed);
    assert_eq!(report.decision.rule.as_deref(), Some("only"));
    assert_eq!(report.decision.rule_source.as_deref(), Some("mesh.yaml:3"));
    assert_eq!(report.decision.version, PolicyVersion(2));

    let report = host
        .agent
        .why(&why("web-1", "orders.mesh.internal", "tcp", None), host.now)
        .unwrap();
    assert_eq!((report.to.as_str(), report.port), ("db", 8080));
    assert!(!report.decision.allowed);
    assert_eq!(report.decision.rule, None);

    let question = why("DB", "web-1", "icmp", None);
    let inbound = host.agent.why(&question, host.now).unwrap();
    assert_eq!((inbound.port, inbound.decision.allowed), (0, false));
    assert_eq!((report.inbound, inbound.inbound), (false, true));
}

#[test]
fn questions_without_sense_are_refused_with_a_hint() {
    let (_, host) = member();
    for (question, code, hint) in [
        (
            why("web-1", "nobody", "tcp", Some(1)),
            RefusalCode::NotFound,
            "meshctl peers",
        ),
        (
            why("web-1", "web-1", "tcp", Some(1)),
            RefusalCode::Invalid,
            "this host",
        ),
        (
            why("db", "db", "tcp", Some(1)),
            RefusalCode::Invalid,
            "this host",
        ),
        (
            why("web-1", "db", "sctp", Some(1)),
            RefusalCode::Invalid,
            "tcp, udp or icmp",
        ),
        (
            why("web-1", "db", "tcp", None),
            RefusalCode::Invalid,
            "db:PORT",
        ),
        (
            why("web-1", "???", "tcp", None),
            RefusalCode::Invalid,
            "not a valid name",
        ),
    ] {
        let refusal = host.agent.why(&question, host.now).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(hint), "{refusal}");
    }
    let stranger = Host::new();
    let question = why("a", "b", "tcp", Some(1));
    let refusal = stranger.agent.why(&question, stranger.now).unwrap_err();
    assert!(refusal.message.contains("meshctl join"));
}

#[test]
fn the_coordinator_s_question_is_answered_by_what_is_in_force() {
    let (_, mut host) = member();
    let (me, db) = (host.id(), host.agent.peers(host.now)[0].id);
    for (port, allowed) in [(22, true), (23, false)] {
        let query = FlowQuery {
            from: db,
            to: me,
            ip_protocol: ip_protocol::TCP,
            port,
        };
        host.told(ToHost::Explain {
            id: u64::from(port),
            query,
            call: None,
        });
        let (answers, looked_for): (Vec<_>, Vec<_>) = host
            .take(|output| match output {
                Output::Explain {
                    explanation,
                    listener_at,
                } => Some((explanation.clone(), *listener_at)),
                _ => None,
            })
            .into_iter()
            .unzip();
        assert_eq!(answers.len(), 1);
        assert_eq!(
            looked_for,
            [allowed.then_some(query)],
            "what is denied tells nothing of what listens"
        );
        assert_eq!(
            (answers[0].id, answers[0].allowed),
            (u64::from(port), allowed)
        );
        assert_eq!(answers[0].policy, PolicyVersion(2));
        assert_eq!(answers[0].rule.is_some(), allowed);
        let pair = answers[0].pair.as_ref().unwrap();
        assert_eq!((pair.addresses.len(), &pair.last_drop), (2, &None));
    }
}

#[test]
fn a_call_is_answered_as_far_as_it_is_known() {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut bundle = bundle_with_service(22);
    bundle.services[0].protocol = Protocol::Http;
    bundle.allow.push(Rule {
        id: "items".parse().unwrap(),
        from: vec![Selector::Any],
        to: vec![Selector::Service("orders".parse().unwrap())],
        traffic: Traffic::Service,
        http: vec![HttpMatch {
            methods: vec!["GET".parse().unwrap()],
            path: "/v1/**".parse().unwrap(),
            host: None,
            headers: Vec::new(),
        }],
        when: None,
        source: Source::default(),
    });
    coordinator.apply(bundle);
    let mut host = Host::member_of(&mut coordinator);
    let get = CallFacts {
        method: Some("GET".parse().unwrap()),
        ..CallFacts::default()
    };
    let asked = LocalWhyRequest {
        call: get.clone(),
        ..why("web-1", "orders", "", None)
    };
    let report = host.agent.why(&asked, host.now).unwrap();
    assert_eq!((&*report.protocol, report.port), ("tcp", 8080));
    assert_eq!(report.decision.verdict, Some(Verdict::Depends));
    assert_eq!(report.decision.depends_on, ["the path"]);

    let query = FlowQuery {
        from: host.id(),
        to: host.agent.peers(host.now)[0].id,
        ip_protocol: ip_protocol::TCP,
        port: 8080,
    };
    let service = Some("orders".parse().unwrap());
    let call = Some(Box::new(CallFacts { service, ..get }));
    host.told(ToHost::Explain { id: 1, query, call });
    let said = host.take(|output| match output {
        Output::Explain { explanation, .. } => Some(explanation.clone()),
        _ => None,
    });
    assert_eq!(
        (said[0].allowed, said[0].verdict),
        (false, Some(Verdict::Depends))
    );
    assert_eq!(said[0].depends_on, ["the path"]);
    assert_eq!(said[0].notes, report.decision.notes);
}

#[test]
fn a_host_that_no_rule_connects_is_like_one_that_does_not_exist() {
    let (mut coordinator, mut host) = member();
    let stranger = coordinator.add_host("stranger");
    let refusal = |name: &str| {
        let question = why("web-1", name, "tcp", Some(22));
        let refusal = host.agent.why(&question, host.now).unwrap_err();
        (refusal.code, refusal.message.replace(name, "NAME"))
    };
    assert_eq!(refusal("stranger"), refusal("nobody"));
    let query = FlowQuery {
        from: stranger,
        to: host.id(),
        ip_protocol: ip_protocol::TCP,
        port: 22,
    };
    host.told(ToHost::Explain {
        id: 1,
        query,
        call: None,
    });
    let answers = host.take(|output| match output {
        Output::Explain {
            explanation,
            listener_at,
        } => Some((explanation.clone(), *listener_at)),
        _ => None,
    });
    let (explanation, listener_at) = &answers[0];
    assert!(!explanation.allowed);
    assert_eq!((&explanation.pair, listener_at), (&None, &None));
}

#[test]
fn the_last_denial_with_a_peer_is_remembered() {
    let (coordinator, mut host) = member();
    let db = host.agent.peers(host.now)[0].id;
    let (mine, theirs) = (
        coordinator.hosts[&host.id()].addresses.v4,
        coordinator.hosts[&db].addresses.v4,
    );
    host.shard(Event::Denied(Denial {
        direction: Direction::Inbound,
        peer: PeerIndex(0),
        ip_protocol: ip_protocol::TCP,
        source: SocketAddr::new(theirs.into(), 40_000),
        destination: SocketAddr::new(mine.into(), 5432),
        rule: None,
        needs_workload: false,
        workload: None,
        version: PolicyVersion(2),
    }));
    host.advance(Duration::from_secs(90));
    let question = why("db", "web-1", "tcp", Some(22));
    let report = host.agent.why(&question, host.now).unwrap();
    let last = report.pair.last_drop.unwrap();
    assert_eq!((last.secs_ago, last.port, last.inbound), (90, 5432, true));
}

#[test]
fn a_denial_says_where_its_rule_stands() {
    let (mut coordinator, mut host) = member();
    let mut bundle = bundle_with_service(22);
    let mut deny = bundle.allow[0].clone();
    deny.id = "no-ssh".parse().unwrap();
    deny.source.line = 9;
    bundle.deny = vec![deny];
    coordinator.apply(bundle);
    host.map(coordinator.whole_map(host.id()));
    host.said.clear();
    let addresses = |id| coordinator.hosts[&id].addresses.v4.into();
    let db = host.agent.peers(host.now)[0].id;
    host.shard(Event::Denied(Denial {
        direction: Direction::Inbound,
        peer: PeerIndex(0),
        ip_protocol: ip_protocol::TCP,
        source: SocketAddr::new(addresses(db), 40_000),
        destination: SocketAddr::new(addresses(host.id()), 22),
        rule: Some("no-ssh".parse().unwrap()),
        needs_workload: false,
        workload: None,
        version: PolicyVersion(3),
    }));
    let line = host.notice_with("denied by rule");
    assert!(
        line.starts_with("denied by rule `no-ssh` (mesh.yaml:9): tcp db "),
        "{line}"
    );
}

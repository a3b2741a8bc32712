//! What `why` says where there are very many rules or endpoints, and where not all endpoints count.

use std::fmt::Write;

use model::question::{CallFacts, Verdict};
use model::record::HostRecord;
use model::rule::Bundle;
use model::time::UnixTime;
use policy::{Answer, Asked, why_at_any};

use crate::some_policies::record;

const HEAD: &str = "\
fleet: prod
workloads:
  web: { unit: web.service, hosts: \"role=edge\" }
services:
  orders: { port: 8080, protocol: http, endpoints: [\"role=app\"] }
  dns: { port: 53, protocol: udp, endpoints: [\"role=app\"] }
  ledger: { port: 9000, protocol: http, endpoints: [\"role=app\"], residency: \"zone=eu\" }
allow:
";

fn host(number: u8, labels: &[(&str, &str)]) -> HostRecord {
    let labels = labels.iter();
    let labels = labels.map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()));
    HostRecord {
        name: format!("host-{number}").parse().unwrap(),
        ..record((number, labels.collect()))
    }
}

/// Of calls by `web` of the first host.
fn said(
    bundle: &Bundle,
    service: &str,
    endpoints: &[HostRecord],
    facts: CallFacts,
) -> (String, Answer) {
    let service = bundle
        .services
        .iter()
        .find(|it| it.name.as_str() == service)
        .unwrap();
    let facts = CallFacts {
        service: Some(service.name.clone()),
        workload: Some("web".parse().unwrap()),
        ..facts
    };
    let from = host(1, &[("role", "edge")]);
    let asked = Asked {
        from: &from,
        to: &endpoints[0],
        ip_protocol: service.protocol.ip_protocol(),
        port: service.port,
        facts: &facts,
        now: UnixTime::from_secs(0),
    };
    let endpoints: Vec<&HostRecord> = endpoints.iter().collect();
    let (to, answer) = why_at_any(bundle, &asked, &endpoints);
    (to.name.to_string(), answer)
}

#[test]
fn who_looked_at_some_endpoints_does_not_speak_for_all() {
    let rules = "  - { id: one, from: any, to: host-42, tcp: [8080], udp: [53] }\n";
    let bundle = super::checked(&format!("{HEAD}{rules}")).bundle;
    // Forty, of which the last may be called.
    let endpoints: Vec<HostRecord> = (3..=42).map(|it| host(it, &[("role", "app")])).collect();
    for service in ["orders", "dns"] {
        let (_, answer) = said(&bundle, service, &endpoints, CallFacts::default());
        assert_eq!(answer.verdict, Verdict::Depends, "{answer:?}");
        assert_eq!(answer.depends_on, ["the endpoint"]);
        let last = answer.notes.last().unwrap();
        assert_eq!(last, "this is of 32 of its 40 endpoints");
        let (_, answer) = said(&bundle, service, &endpoints[..32], CallFacts::default());
        assert_eq!(answer.verdict, Verdict::Denied, "{answer:?}");
    }
    // One that may be called is enough for calls, and is not for datagrams.
    let endpoints: Vec<HostRecord> = endpoints.into_iter().rev().collect();
    let (to, answer) = said(&bundle, "orders", &endpoints, CallFacts::default());
    assert_eq!((&*to, answer.verdict), ("host-42", Verdict::Allowed));
    let all = "  - { id: all, from: any, to: \"role=app\", udp: [53] }\n";
    let bundle = super::checked(&format!("{HEAD}{all}")).bundle;
    let (_, answer) = said(&bundle, "dns", &endpoints, CallFacts::default());
    assert_eq!(answer.verdict, Verdict::Depends, "{answer:?}");
    assert_eq!(
        answer.notes[0],
        "to host-42: allowed by rule `all` (policy.yaml:9)"
    );
}

#[test]
fn an_endpoint_that_no_data_may_go_to_allows_nothing() {
    let rules = "  - { id: one, from: any, to: host-2, tcp: [9000] }\n";
    let bundle = super::checked(&format!("{HEAD}{rules}")).bundle;
    let abroad = host(2, &[("role", "app"), ("zone", "us")]);
    let resident = host(3, &[("role", "app"), ("zone", "eu")]);
    let both = [abroad.clone(), resident];
    let (to, answer) = said(&bundle, "ledger", &both, CallFacts::default());
    assert_eq!((&*to, answer.verdict), ("host-3", Verdict::Denied));
    let note = "no call goes to host-2: its residency is zone=eu";
    assert_eq!(answer.notes.last().unwrap(), note);
    let (to, answer) = said(&bundle, "ledger", &[abroad], CallFacts::default());
    assert_eq!((&*to, answer.verdict), ("host-2", Verdict::Allowed));
    assert_eq!(answer.notes.last().unwrap(), note);
}

#[test]
fn where_there_are_too_many_rules_to_tell_it_depends_on_them() {
    let mut rules = String::new();
    for number in 0..2_000 {
        let path = format!("http: [\"GET /v1/{number}/**\", \"PUT /v2/{number}/**\"]");
        writeln!(
            rules,
            "  - {{ id: a-{number}, from: web, to: orders, {path} }}"
        )
        .unwrap();
    }
    rules.push_str("deny:\n");
    for number in 0..2_000 {
        let path = format!("http: [\"* /v1/*/{number}/**\"]");
        writeln!(
            rules,
            "  - {{ id: d-{number}, from: any, to: orders, {path} }}"
        )
        .unwrap();
    }
    let bundle = super::checked(&format!("{HEAD}{rules}")).bundle;
    let endpoints: Vec<HostRecord> = (3..=42).map(|it| host(it, &[("role", "app")])).collect();
    let (_, answer) = said(&bundle, "orders", &endpoints, CallFacts::default());
    assert_eq!(answer.verdict, Verdict::Depends);
    assert_eq!(answer.depends_on, ["which of very many rules match"]);
    assert_eq!(
        answer.notes[0],
        "4000 rules are about it, too many to tell: say more of the call, as its workload, method or path"
    );
    // What is known of the request leaves few of them.
    let at = |path: &str| CallFacts {
        method: Some("GET".parse().unwrap()),
        path: Some(path.parse().unwrap()),
        ..CallFacts::default()
    };
    for (path, expected) in [
        ("/v1/7/x", Verdict::Allowed),
        ("/v1/7/8", Verdict::Denied),
        ("/v3", Verdict::Denied),
    ] {
        let (_, answer) = said(&bundle, "orders", &endpoints[..1], at(path));
        assert_eq!(answer.verdict, expected, "{path}: {answer:?}");
    }
}

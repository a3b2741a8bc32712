//! The gate decides connections and requests as the plain reading of the rules does, a slice as the
//! whole bundle, and no packet passes by itself that a rule about requests, workloads or hours would
//! have had to look at: for random bundles, fleets and calls.

#![allow(clippy::unwrap_used)] // in the makers of test data

use model::ids::{HostId, PolicyVersion};
use model::name::{Labels, Name};
use model::record::HostRecord;
use model::rule::{Bundle, Selector, Source, Workload, ip_protocol};
use model::time::UnixTime;
use policy::{
    Call, Gate, Process, Question, RequestFacts, Ruling, Target, decide_call, leaves_concerning,
    may_vouch, reference,
};
use proptest::prelude::*;

mod some_policies;
mod why;
mod why_of_many;

use some_policies::{
    PORTS, bundle, ends, fleet, for_each_call, for_each_call_at, named, names, question, record,
};

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
    fn what_would_be_allowed_is_allowed_wherever_it_is_offered(fleet in fleet(), bundle in bundle()) {
        let peers: Vec<&HostRecord> = fleet[1..].iter().collect();
        let gate = Gate::compile(&fleet[0], &peers, &bundle, PolicyVersion(1));
        for (from, to) in ends(&fleet) {
            for_each_call(&bundle, from, to, &mut |call| {
                let question = question(call);
                let is_known = from.host == fleet[0].host && gate.offers(call.target, to.host);
                if is_known && gate.would_allow(&question) {
                    let ruling = gate.decide(&question);
                    // A deny may be about some of its endpoints alone.
                    prop_assert!(!matches!(ruling, Ruling::DenyByDefault), "{ruling:?}");
                }
                Ok(())
            })?;
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
    let checked = checked(include_str!("../golden/services_and_requests.yaml"));
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
    let text = include_str!("../golden/services_and_requests.yaml");
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

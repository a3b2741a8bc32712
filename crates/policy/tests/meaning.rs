//! From text to meaning: what a bundle's own tests say, how names are bound to hosts, and how
//! decisions are explained.

#![allow(clippy::unwrap_used)] // in the makers of test data

use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, Revision};
use model::key::WireguardKey;
use model::record::HostRecord;
use model::rule::{Selector, Source, ip_protocol};
use policy::{
    Checked, SourceFile, TestVerdict, explain, first_policy, first_policy_files, load, resolve,
    run_tests, run_tests_in_time,
};

const WHOLE_LANGUAGE: &str = include_str!("golden/whole_language.yaml");

#[test]
fn the_first_policy_is_what_its_files_say() {
    let checked = load(&first_policy_files(&"prod".parse().unwrap())).unwrap();
    assert_eq!(checked.fleet.as_str(), "prod");
    assert!(checked.warnings.is_empty());
    let mut bundle = resolve(&checked, &[]).unwrap();
    bundle.allow[0].source = Source::default();
    assert_eq!(bundle, first_policy());
    assert!(
        run_tests(&checked, None)
            .iter()
            .all(|outcome| outcome.verdict == TestVerdict::Passed)
    );
}

#[test]
fn every_promise_of_the_example_holds() {
    for outcome in run_tests(&checked(WHOLE_LANGUAGE), None) {
        assert_eq!(
            outcome.verdict,
            TestVerdict::Passed,
            "{}: {}",
            outcome.test,
            outcome.message
        );
    }
}

#[test]
fn a_failed_test_says_what_happened_and_what_came_near() {
    let checked = checked(
        "
fleet: prod
services:
  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\", spare] }
allow:
  - { id: ops-ssh, from: role=ops, to: any, tcp: [22] }
  - { id: app-db, from: role=app, to: db }
deny:
  - { id: no-x, from: state=x, to: any }
tests:
  - { allow: \"role=ops -> db:2222\" }
  - { allow: \"role=web -> db\" }
  - { deny: \"role=app -> db\" }
  - { allow: \"state=x,role=app -> db\" }
  - { deny: \"any -> any:1\", rule: no-x }
  - { allow: \"role=app -> spare:5432\" }
",
    );
    let said: Vec<_> = run_tests(&checked, None)
        .into_iter()
        .map(|outcome| {
            format!(
                "{} [{}] {}",
                outcome.verdict == TestVerdict::Passed,
                outcome.source,
                outcome.message
            )
        })
        .collect();
    let expected = [
        "false [policy.yaml:11] expected allow, but source-host (role=ops) -> target-host (role=db) tcp 2222 is denied: no rule allows it
  rule `ops-ssh` (policy.yaml:6) matches except the port: it allows tcp 22, not tcp 2222",
        "false [policy.yaml:12] expected allow, but source-host (role=web) -> target-host (role=db) tcp 5432 is denied: no rule allows it
  rule `app-db` (policy.yaml:7) matches except `from`: source-host has role=web, needs role=app",
        "false [policy.yaml:13] expected deny, but source-host (role=app) -> target-host (role=db) tcp 5432 is allowed by rule `app-db` (policy.yaml:7)",
        "false [policy.yaml:14] expected allow, but source-host (role=app,state=x) -> target-host (role=db) tcp 5432 is denied by rule `no-x` (policy.yaml:9)
  rule `app-db` (policy.yaml:7) would allow it, but a deny always wins",
        "false [policy.yaml:15] expected rule `no-x` to decide, but source-host (no labels) -> target-host (no labels) tcp 1 is denied: no rule allows it
  no rule allows source-host (no labels) to reach anything",
        "true [policy.yaml:16] allowed by rule `app-db` (policy.yaml:7)",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_test_that_stands_for_many_hosts_ends_in_the_middle_when_it_is_late() {
    let endpoints: Vec<String> = (0..50).map(|number| format!("role=db-{number}")).collect();
    let checked = checked(&format!(
        "
fleet: prod
services:
  db: {{ port: 5432, protocol: tcp, endpoints: [{}] }}
allow:
  - {{ id: app-db, from: role=app, to: db }}
tests:
  - {{ allow: \"role=app -> db\" }}
",
        endpoints.join(", ")
    ));
    let asked = std::cell::Cell::new(0);
    let late_after = |calls: u32| {
        asked.set(0);
        let is_late = || {
            asked.set(asked.get() + 1);
            asked.get() > calls
        };
        run_tests_in_time(&checked, None, &is_late).map(|outcomes| outcomes.len())
    };
    assert_eq!(late_after(10), None);
    assert_eq!(asked.get(), 11, "it went no further");
    assert_eq!(late_after(1000), Some(1));
}

#[test]
fn a_host_name_in_a_test_means_the_real_host_where_it_is_known() {
    let checked = checked(
        "
fleet: prod
allow:
  - { id: ssh, from: role=ops, to: any, tcp: [22] }
tests:
  - { allow: \"laptop -> any:22\" }
",
    );
    let verdict = |inventory: Option<&[_]>| run_tests(&checked, inventory)[0].verdict;
    assert_eq!(verdict(None), TestVerdict::NeedsFleet);
    assert_eq!(
        verdict(Some(&[host(1, "laptop", &["role=ops"])])),
        TestVerdict::Passed
    );
    assert_eq!(
        verdict(Some(&[host(1, "laptop", &[])])),
        TestVerdict::Failed
    );
}

#[test]
fn names_are_bound_to_the_hosts_that_have_them_now() {
    let inventory = [
        host(7, "web-1", &[]),
        host(8, "resolver", &[]),
        host(9, "batch-1", &[]),
    ];
    let bundle = resolve(&checked(WHOLE_LANGUAGE), &inventory).unwrap();
    let id = Some(HostId::from_bytes([7; 16]));
    assert_eq!(
        bundle.allow[3].to,
        [Selector::Host {
            name: "web-1".parse().unwrap(),
            id
        }]
    );
    let named_web_1_later = host(10, "web-1", &[]);
    assert!(!bundle.allow[3].to[0].matches(&named_web_1_later, &bundle));
}

#[test]
fn unknown_and_clashing_names_are_told_where_they_stand() {
    let inventory = [
        host(1, "web-2", &[]),
        host(2, "resolver", &[]),
        host(3, "db", &[]),
    ];
    let errors = resolve(&checked(WHOLE_LANGUAGE), &inventory).unwrap_err();
    let rendered: Vec<_> = errors.iter().map(policy::Diagnostic::render).collect();
    assert_eq!(
        rendered.join("\n"),
        "error: the service `db` has the name of a host
 --> policy.yaml:3:3
  |
3 |   db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }
  |   ^^
  = help: hosts and services share one name space: rename the service

error: no host or service is called `batch-1`
 --> policy.yaml:7:36
  |
7 |   - { id: app-db, from: [role=app, host:batch-1], to: db }
  |                                    ^^^^^^^^^^^^
  = help: `meshctl hosts list` shows all hosts; select hosts that have yet to join by label

error: no host or service is called `web-1`
 --> policy.yaml:9:30
  |
9 |   - { id: web, from: db, to: web-1, tcp: any, udp: [53] }
  |                              ^^^^^
  = help: did you mean `web-2`?
"
    );
}

#[test]
fn a_former_name_is_told_with_the_new_one_and_is_bound_where_an_old_version_comes_back() {
    let checked =
        checked("fleet: prod\nallow: [{ id: web, from: host:old, to: host:gone, tcp: any }]\n");
    let inventory = [host(7, "new", &[])];
    let id = |number| HostId::from_bytes([number; 16]);
    let name = |text: &str| text.parse::<model::name::Name>().unwrap();
    let once = |number, now: Option<&str>| policy::FormerName {
        host: id(number),
        now: now.map(name),
    };
    let mut former = policy::FormerNames {
        names: [
            (name("old"), once(7, Some("new"))),
            (name("gone"), once(8, None)),
        ]
        .into(),
        are_bound: false,
    };
    let errors = policy::resolve_with_former(&checked, &inventory, &former).unwrap_err();
    let said: Vec<_> = errors
        .iter()
        .map(|it| (it.line, it.message.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (2, "`old` is called `new` now"),
            (2, "`gone` is no host of the fleet any more"),
        ]
    );
    former.are_bound = true;
    let (bundle, warnings) = policy::resolve_with_former(&checked, &inventory, &former).unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].message.contains("is called `new` now"));
    assert!(bundle.allow[0].from[0].matches(&inventory[0], &bundle));
    let bound = |selector: &Selector| match selector {
        Selector::Host { id, .. } => *id,
        _ => None,
    };
    assert_eq!(bound(&bundle.allow[0].to[0]), Some(id(8)));
}

#[test]
fn a_name_that_another_host_took_means_its_former_host_where_an_old_version_comes_back() {
    let checked =
        checked("fleet: prod\nallow: [{ id: ssh, from: host:bastion, to: host:db, tcp: [22] }]\n");
    let inventory = [
        host(7, "bastion-old", &[]),
        host(8, "bastion", &[]),
        host(9, "db", &[]),
    ];
    let id = |number| HostId::from_bytes([number; 16]);
    let name = |text: &str| text.parse::<model::name::Name>().unwrap();
    let once = |number, now: Option<&str>| policy::FormerName {
        host: id(number),
        now: now.map(name),
    };
    let resolved = |who: policy::FormerName, are_bound| {
        let former = policy::FormerNames {
            names: [(name("bastion"), who), (name("db"), once(9, Some("db")))].into(),
            are_bound,
        };
        let (bundle, warnings) =
            policy::resolve_with_former(&checked, &inventory, &former).unwrap();
        let Selector::Host { id, .. } = bundle.allow[0].from[0] else {
            panic!("{bundle:?}")
        };
        (id, warnings)
    };
    let (bound, warnings) = resolved(once(7, Some("bastion-old")), true);
    assert_eq!(bound, Some(id(7)));
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    let said = "`bastion` is another host now; the one that is meant here, as before, is called \
                `bastion-old`";
    assert_eq!(warning.message, said);
    let (bound, warnings) = resolved(once(6, None), true);
    assert_eq!((bound, warnings.len()), (Some(id(6)), 1));
    // Files mean the hosts of now.
    let (bound, warnings) = resolved(once(7, Some("bastion-old")), false);
    assert_eq!((bound, warnings.len()), (Some(id(8)), 0));
}

#[test]
fn an_answer_of_the_coordinator_is_shown_with_the_local_line() {
    let files = [file(WHOLE_LANGUAGE)];
    let errors = resolve(&load(&files).unwrap(), &[]).unwrap_err();
    let view = model::admin::DiagnosticView::from(&errors[0]);
    let shown = policy::Diagnostic::from_view(&view, &files).render();
    assert!(shown.contains("4 |   dns: { port: 53"), "{shown}");
}

#[test]
fn explanations_name_what_differs() {
    let checked = checked(
        "
fleet: prod
services:
  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }
  cache: { port: 6379, protocol: tcp, endpoints: [\"role=db\"] }
allow:
  - { id: ops-ssh, from: \"role=ops,env=prod\", to: any, tcp: [22, \"8000-8100\"], udp: any }
  - { id: app-db, from: [role=app, host:batch-1], to: [db, cache] }
  - { id: ping, from: any, to: any, icmp: true }
",
    );
    let (ops, app) = (
        host(1, "ops-1", &["role=ops", "env=prod"]),
        host(2, "app-1", &["role=app"]),
    );
    let (db, web) = (host(3, "db-1", &["role=db"]), host(4, "web-1", &[]));
    let told = |from: &HostRecord, to: &HostRecord, protocol: u8, port: u16| {
        let explained = explain(&checked.bundle, from, to, protocol, port);
        let mut lines = vec![explained.decision.to_string()];
        lines.extend(explained.near_misses);
        lines
    };
    assert_eq!(
        told(&ops, &db, ip_protocol::TCP, 22),
        ["allowed by rule `ops-ssh` (policy.yaml:7)"]
    );
    assert_eq!(
        told(&ops, &db, ip_protocol::TCP, 23),
        [
            "denied: no rule allows it",
            "rule `ops-ssh` (policy.yaml:7) matches except the port: it allows tcp 22, tcp 8000-8100, any udp port, not tcp 23",
            "rule `ping` (policy.yaml:9) matches except the protocol: it allows icmp, not tcp 23",
        ]
    );
    assert_eq!(
        told(&web, &db, ip_protocol::TCP, 5432),
        [
            "denied: no rule allows it",
            "rule `ping` (policy.yaml:9) matches except the protocol: it allows icmp, not tcp 5432",
            "rule `app-db` (policy.yaml:8) matches except `from`: web-1 has no label role, needs role=app; or it is for host batch-1, not web-1",
        ]
    );
    assert_eq!(
        told(&app, &db, ip_protocol::TCP, 22)[1],
        "rule `app-db` (policy.yaml:8) matches except the port: it allows service db at tcp 5432, service cache at tcp 6379, not tcp 22"
    );
    assert!(told(&app, &web, ip_protocol::TCP, 5432).contains(&"rule `app-db` (policy.yaml:8) matches except `to`: web-1 is not an endpoint of service db (role=db); or web-1 is not an endpoint of service cache (role=db)".to_owned()));
}

fn file(text: &str) -> SourceFile {
    SourceFile {
        path: "policy.yaml".to_owned(),
        text: text.to_owned(),
    }
}

fn checked(text: &str) -> Checked {
    load(&[file(text)]).unwrap_or_else(|errors| panic!("{}", errors[0].render()))
}

fn host(number: u8, name: &str, labels: &[&str]) -> HostRecord {
    let labels = labels
        .iter()
        .map(|label| label.parse::<model::name::Label>().unwrap());
    HostRecord {
        fleet: FleetId::from_bytes([1; 16]),
        host: HostId::from_bytes([number; 16]),
        name: name.parse().unwrap(),
        labels: labels.map(|label| (label.key, label.value)).collect(),
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

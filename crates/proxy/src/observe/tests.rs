//! Reports of made-up calls, and what is seen of them.

use std::sync::LazyLock;
use std::time::Duration;

use http::Method;
use model::address::OverlayPrefixes;
use model::catalogue::CatalogueService;
use model::ids::{FleetId, HostId, PolicyVersion};
use model::local::CallPart;
use model::name::Name;
use model::rule::{Protocol, Service, Source, TrafficSettings};
use model::time::Now;

use super::*;
use crate::marks::Aim;
use crate::refusal::Reason;
use crate::report::Side;
use crate::some_hosts::record;
use crate::stages::{Stage, Stages};

const ME: HostId = HostId::from_bytes([1; HostId::LEN]);
const OTHER: HostId = HostId::from_bytes([2; HostId::LEN]);

static WEB: LazyLock<Name> = LazyLock::new(|| "web".parse().unwrap());
static ORDERS: LazyLock<Aim> = LazyLock::new(|| Aim::Service("orders".parse().unwrap()));

/// A call of `web` to a service that went well.
pub(super) fn report(id: u64) -> CallReport<'static> {
    CallReport {
        id: CallId::from_number(id),
        side: Side::Source,
        from: ME,
        workload: Some(&WEB),
        tried: &[OTHER],
        choice: None,
        gave_up: None,
        aim: &ORDERS,
        dialled: None,
        method: Some(&Method::GET),
        path: Some("/v1/items"),
        status: 200,
        grpc_status: None,
        reason: None,
        rule: None,
        policy: PolicyVersion(1),
        trace: None,
        began: Now::default(),
        stages: Stages::default()
            .with(Stage::Queue, Duration::from_millis(1))
            .with(Stage::Tunnel, Duration::from_millis(4))
            .with(Stage::ServerQueue, Duration::from_millis(1))
            .with(Stage::FirstByte, Duration::from_millis(15))
            .with(Stage::Body, Duration::from_millis(2)),
        request_bytes: 10,
        answer_bytes: 100,
    }
}

/// What is known of a fleet with services that nobody offers.
fn fleet(services: &[&str]) -> (Arc<Catalogue>, Arc<Gate>) {
    let service = |name: &&str| {
        let name: Name = name.parse().unwrap();
        let service = CatalogueService {
            service: Service {
                name: name.clone(),
                port: 80,
                protocol: Protocol::Http,
                endpoints: Vec::new(),
                workloads: Vec::new(),
                addresses: None,
                settings: TrafficSettings::default(),
                source: Source::default(),
            },
            addresses: record(9).addresses,
            endpoints: Vec::new(),
        };
        (name, service)
    };
    let catalogue = Catalogue {
        fleet_name: "prod".parse().unwrap(),
        suffix: "mesh".to_owned(),
        me: ME,
        policy_version: PolicyVersion(1),
        service_prefixes: OverlayPrefixes::derived_from(FleetId::from_bytes([1; 16])).services(),
        services: services.iter().map(service).collect(),
        hosts: BTreeMap::new(),
    };
    (Arc::new(catalogue), Arc::default())
}

/// Lets the observatory see such a call, changed by `change`.
fn call<'c>(observatory: &Observatory, id: u64, change: impl FnOnce(&mut CallReport<'c>)) {
    let mut report = report(id);
    change(&mut report);
    observatory.call_ended((id % 2) as usize, &report);
}

#[test]
fn calls_are_counted_by_who_calls_what_over_all_threads() {
    let observatory = Observatory::new(2, Telling::default());
    for id in 0..10 {
        call(&observatory, id, |_| {});
    }
    call(&observatory, 10, |report| {
        (report.status, report.reason) = (403, Some(Reason::Denied));
    });
    call(&observatory, 11, |report| report.status = 503);
    call(&observatory, 12, |report| report.tried = &[OTHER, ME]);
    let edges = observatory.edges();
    let [edge] = &edges[..] else {
        panic!("{edges:?}");
    };
    assert_eq!(
        (edge.part, &*edge.from, &*edge.to),
        (Some(CallPart::Source), "web", "orders")
    );
    let ended: Vec<_> = edge.ended().collect();
    assert_eq!(
        ended,
        [("2xx", "", 11), ("4xx", "denied", 1), ("5xx", "", 1)]
    );
    let counts = edge.counts();
    assert_eq!(
        (counts.calls, counts.failed, counts.denied, counts.retries),
        (13, 2, 1, 1)
    );
    assert_eq!((counts.request_bytes, counts.answer_bytes), (130, 1300));
    let [(bound, 13)] = counts.latencies[..] else {
        panic!("{:?}", counts.latencies);
    };
    assert!((21_000..26_500).contains(&bound), "{bound}");
    let stages: Vec<_> = counts
        .stages
        .iter()
        .map(|it| (&*it.stage, it.calls, it.micros))
        .collect();
    assert_eq!(
        stages,
        [
            ("queue", 13, 13_000),
            ("connect", 0, 0),
            ("tunnel", 13, 52_000),
            ("server_queue", 13, 13_000),
            ("first_byte", 13, 195_000),
            ("body", 13, 26_000),
        ]
    );
    assert_eq!(edge.to_answer().sum(), Duration::from_millis(13 * 21));
}

#[test]
fn callers_without_a_workload_and_dialled_ports_are_edges_of_their_own() {
    let observatory = Observatory::new(1, Telling::default());
    call(&observatory, 0, |_| {});
    call(&observatory, 2, |report| report.workload = None);
    let port = Aim::Port(5432);
    call(&observatory, 4, |report| report.aim = &port);
    call(&observatory, 6, |report| report.side = Side::Destination);
    let edges = observatory.edges();
    let named: Vec<_> = edges.iter().map(|edge| (&*edge.from, &*edge.to)).collect();
    let (me, other) = (ME.to_string(), OTHER.to_string());
    let dialled = format!("{other}:5432");
    assert_eq!(
        named,
        [
            (&*me, "orders"),
            ("web", &*dialled),
            ("web", "orders"),
            ("web", "orders"),
        ]
    );
}

#[test]
fn edges_above_the_bound_are_counted_together_and_none_is_lost() {
    let observatory = Observatory::new(1, Telling::default());
    for port in 1..=2000_u16 {
        let aim = Aim::Port(port);
        call(&observatory, u64::from(port) * 2, |report| {
            report.aim = &aim
        });
    }
    let edges = observatory.edges();
    assert!(edges.len() <= 513, "{}", edges.len());
    assert_eq!(edges[0].part, None);
    assert!(edges[0].counts().calls > 1000);
    assert_eq!(
        edges.iter().map(|edge| edge.counts().calls).sum::<u64>(),
        2000
    );
}

/// Where one host may ask for anything, it must not take the room of what others do.
#[test]
fn what_is_asked_for_in_vain_gets_no_edges_of_its_own() {
    let observatory = Observatory::new(1, Telling::default());
    let from_other = |id: u64, reason, aim: &Aim, workload: &Name| {
        let mut report = report(2 * id);
        (report.side, report.from, report.tried) = (Side::Destination, OTHER, &[ME]);
        (report.aim, report.workload, report.reason) = (aim, Some(workload), Some(reason));
        report.stages = Stages::default();
        observatory.call_ended(0, &report);
    };
    for number in 1..=600_u16 {
        let name: Name = format!("made-up-{number}").parse().unwrap();
        let (port, service) = (Aim::Port(number), Aim::Service(name.clone()));
        from_other(1, Reason::Denied, &port, &WEB);
        from_other(2, Reason::ConnectionRefused, &port, &WEB);
        from_other(3, Reason::Denied, &service, &WEB);
        from_other(4, Reason::ClaimRefused, &port, &name);
        // The source dialled a port of nobody that is told.
        call(&observatory, 10, |report| {
            (report.aim, report.tried) = (&port, &[]);
            (report.reason, report.stages) = (Some(Reason::Denied), Stages::default());
        });
    }
    let port = Aim::Port(5432);
    call(&observatory, 12, |report| report.aim = &port);
    call(&observatory, 14, |report| {
        (report.aim, report.reason) = (&port, Some(Reason::Unreachable));
    });
    let edges = observatory.edges();
    let counted: Vec<_> = edges
        .iter()
        .map(|edge| (&*edge.from, &*edge.to, edge.counts().calls))
        .collect();
    let others = format!("{ME}:others");
    let (other, dialled) = (OTHER.to_string(), format!("{OTHER}:5432"));
    assert_eq!(
        counted,
        [
            ("web", &*dialled, 2),
            ("web", "others", 600),
            (&*other, &*others, 600),
            ("web", &*others, 1800),
        ]
    );
}

#[test]
fn denials_of_a_service_that_the_policy_has_are_counted_by_its_name() {
    let observatory = Observatory::new(1, Telling::default());
    let (catalogue, gate) = fleet(&["orders"]);
    observatory.follow(catalogue, gate);
    call(&observatory, 2, |report| {
        (report.status, report.reason) = (403, Some(Reason::Denied));
        (report.tried, report.stages) = (&[], Stages::default());
    });
    let edges = observatory.edges();
    assert_eq!((&*edges[0].from, &*edges[0].to), ("web", "orders"));
    assert_eq!(edges[0].counts().denied, 1);
}

#[test]
fn denials_are_kept_when_ordinary_calls_of_the_time_are_forgotten() {
    let observatory = Observatory::new(1, Telling::default());
    call(&observatory, 2, |_| {});
    call(&observatory, 4, |report| {
        (report.status, report.reason) = (403, Some(Reason::Denied));
    });
    for id in 0..10_000 {
        call(&observatory, 100 + 2 * id, |_| {});
    }
    assert!(observatory.explain(CallId::from_number(2)).is_empty());
    let explained = observatory.explain(CallId::from_number(4));
    assert_eq!(explained.len(), 1);
    assert_eq!(explained[0].reason.as_deref(), Some("denied"));
    assert_eq!(explained[0].workload.as_deref(), Some("web"));
    assert_eq!(explained[0].decision, "denied: no rule allows it");
}

#[test]
fn a_long_path_is_cut_at_a_letter_and_says_how_long_it_was() {
    let observatory = Observatory::new(1, Telling::default());
    let path = "/é".repeat(500);
    call(&observatory, 2, |report| report.path = Some(&path));
    let explained = observatory.explain(CallId::from_number(2));
    let kept = explained[0].path.as_deref().unwrap();
    assert!(
        kept.ends_with("… (1500 bytes)") && kept.len() < 300,
        "{kept}"
    );
}

/// Policy refuses such paths where it reads any; where it does not, they are calls like others.
#[test]
fn what_a_terminal_obeys_is_not_kept_of_a_path() {
    let observatory = Observatory::new(1, Telling::default());
    call(&observatory, 2, |report| {
        report.path = Some("/\u{9b}2J/\u{85}/\u{1b}[0m/é");
    });
    let explained = observatory.explain(CallId::from_number(2));
    assert_eq!(
        explained[0].path.as_deref(),
        Some("/\u{fffd}2J/\u{fffd}/\u{fffd}[0m/é")
    );
}

#[test]
fn the_rule_that_decided_is_named_whatever_policy_came_after() {
    static RULE: LazyLock<policy::RuleInfo> = LazyLock::new(|| policy::RuleInfo {
        id: "no-admin".parse().unwrap(),
        source: Source {
            file: "policy.yaml".into(),
            line: 12,
        },
    });
    let observatory = Observatory::new(1, Telling::default());
    call(&observatory, 2, |report| {
        (report.status, report.reason) = (403, Some(Reason::Denied));
        report.rule = Some(&RULE);
    });
    let explained = &observatory.explain(CallId::from_number(2))[0];
    let sentence = "denied by rule no-admin (policy.yaml:12)";
    assert_eq!(explained.decision, sentence);
    assert_eq!(explained.source.as_deref(), Some("policy.yaml:12"));
}

/// Operators look each of them up.
#[test]
fn the_documentation_has_each_reason_with_its_status() {
    const DOCUMENT: &str = include_str!("../../../../docs/seeing-calls.md");
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} | ", reason.name(), reason.status().as_u16());
        assert!(DOCUMENT.contains(&row), "{row}");
    }
}

//! What changed between two bundles, rule by rule. Order, files and lines mean nothing in the
//! language, and nothing here; what a change does to the hosts of a fleet is `plan`'s.

use std::collections::{BTreeMap, BTreeSet};

use model::admin::{ChangeKind, PartChange, PolicyChange, PolicyDiff, PolicyItem};
use model::rule::{Bundle, CipherDemand, Rule, Selector, Service, Source, Traffic};

use crate::document::Checked;
use crate::traffic_set::TrafficSet;
use crate::words;

/// Compares two bundles.
pub fn diff(old: &Checked, new: &Checked) -> PolicyDiff {
    let mut changes = settings_diff(&old.bundle, &new.bundle);
    changes.extend(compare(
        PolicyItem::Rule,
        rules(&old.bundle),
        rules(&new.bundle),
    ));
    changes.extend(compare(
        PolicyItem::Service,
        services(&old.bundle),
        services(&new.bundle),
    ));
    changes.extend(workloads_diff(&old.bundle, &new.bundle));
    changes.extend(compare(PolicyItem::Test, tests(old), tests(new)));
    PolicyDiff { changes }
}

/// Something of a bundle, taken apart.
struct Item<'b> {
    name: String,
    /// `None`: it has no place of its own.
    source: Option<&'b Source>,
    parts: Vec<(&'static str, BTreeSet<String>)>,
}

fn compare(kind: PolicyItem, old: Vec<Item<'_>>, new: Vec<Item<'_>>) -> Vec<PolicyChange> {
    let mut gone: BTreeMap<&str, &Item<'_>> =
        old.iter().map(|item| (item.name.as_str(), item)).collect();
    let mut changes = Vec::new();
    for item in &new {
        match gone.remove(item.name.as_str()) {
            None => changes.push(change(
                kind,
                ChangeKind::Added,
                item,
                between(None, Some(item)),
            )),
            Some(before) => {
                let parts = between(Some(before), Some(item));
                if !parts.is_empty() {
                    changes.push(change(kind, ChangeKind::Changed, item, parts));
                }
            }
        }
    }
    let gone = old
        .iter()
        .filter(|item| gone.contains_key(item.name.as_str()));
    changes.extend(
        gone.map(|item| change(kind, ChangeKind::Removed, item, between(Some(item), None))),
    );
    changes
}

fn change(
    kind: PolicyItem,
    change: ChangeKind,
    item: &Item<'_>,
    parts: Vec<PartChange>,
) -> PolicyChange {
    PolicyChange {
        kind,
        name: item.name.clone(),
        change,
        source: item.source.map_or_else(String::new, Source::to_string),
        parts,
    }
}

/// Returns the parts that differ. Both items of a kind have the same parts.
fn between(old: Option<&Item<'_>>, new: Option<&Item<'_>>) -> Vec<PartChange> {
    let part_of = |item: Option<&Item<'_>>, position: usize| {
        item.map_or_else(BTreeSet::new, |item| item.parts[position].1.clone())
    };
    let Some(some) = new.or(old) else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    for (position, (part, _)) in some.parts.iter().enumerate() {
        let (before, after) = (part_of(old, position), part_of(new, position));
        if before != after {
            changes.push(PartChange {
                part: (*part).to_owned(),
                added: after.difference(&before).cloned().collect(),
                removed: before.difference(&after).cloned().collect(),
            });
        }
    }
    changes
}

/// Compares what two bundles say of the whole fleet, apart from rules.
pub(crate) fn settings_diff(old: &Bundle, new: &Bundle) -> Vec<PolicyChange> {
    compare(PolicyItem::Setting, settings(old), settings(new))
}

fn workloads_diff(old: &Bundle, new: &Bundle) -> Vec<PolicyChange> {
    compare(PolicyItem::Workload, workloads(old), workloads(new))
}

/// Compares what two bundles say beside which packets may pass: of the whole fleet, of workloads, of
/// requests, of hours, and of how services are called.
pub(crate) fn diff_beside_packets(old: &Bundle, new: &Bundle) -> Vec<PolicyChange> {
    let only = |bundle: &Bundle| {
        let mut asking = bundle.clone();
        asking.allow.retain(Rule::needs_more_than_packets);
        asking.deny.retain(Rule::needs_more_than_packets);
        // What packets tell of a service is told by who gains and loses it.
        for service in &mut asking.services {
            service.port = 0;
            service.endpoints.clear();
        }
        asking
    };
    let (before, after) = (only(old), only(new));
    let mut changes = settings_diff(old, new);
    changes.extend(compare(PolicyItem::Rule, rules(&before), rules(&after)));
    let services = compare(PolicyItem::Service, services(&before), services(&after));
    changes.extend(
        services
            .into_iter()
            .filter(|it| it.change == ChangeKind::Changed),
    );
    changes.extend(workloads_diff(&before, &after));
    changes
}

fn settings(bundle: &Bundle) -> Vec<Item<'_>> {
    match bundle.cipher {
        CipherDemand::AsOffered => Vec::new(),
        CipherDemand::Standard => vec![Item {
            name: "cipher: standard".to_owned(),
            source: None,
            parts: Vec::new(),
        }],
    }
}

fn rules(bundle: &Bundle) -> Vec<Item<'_>> {
    let allows = bundle.allow.iter().map(|rule| ("allow", rule));
    let denies = bundle.deny.iter().map(|rule| ("deny", rule));
    allows
        .chain(denies)
        .map(|(effect, rule)| Item {
            name: rule.id.to_string(),
            source: Some(&rule.source),
            parts: vec![
                ("effect", one(effect)),
                ("from", selectors(&rule.from)),
                ("to", selectors(&rule.to)),
                ("traffic", traffic(rule)),
                ("http", rule.http.iter().map(ToString::to_string).collect()),
                ("when", rule.when.iter().map(ToString::to_string).collect()),
            ],
        })
        .collect()
}

fn traffic(rule: &Rule) -> BTreeSet<String> {
    match &rule.traffic {
        Traffic::Service => one("the ports of the services"),
        traffic => TrafficSet::of_rule(traffic).parts().into_iter().collect(),
    }
}

fn services(bundle: &Bundle) -> Vec<Item<'_>> {
    let parts = |service: &Service| {
        let settings = words::settings(&service.settings).into_iter();
        let workloads = service.workloads.iter().map(ToString::to_string);
        vec![
            ("port", one(&service.port.to_string())),
            ("protocol", one(service.protocol.as_str())),
            ("endpoints", selectors(&service.endpoints)),
            ("workloads", workloads.collect()),
            (
                "settings",
                settings
                    .map(|(key, value)| format!("{key}: {value}"))
                    .collect(),
            ),
        ]
    };
    let services = bundle.services.iter();
    services
        .map(|service| Item {
            name: service.name.to_string(),
            source: Some(&service.source),
            parts: parts(service),
        })
        .collect()
}

fn workloads(bundle: &Bundle) -> Vec<Item<'_>> {
    let text = |text: Option<String>| text.into_iter().collect();
    let workloads = bundle.workloads.iter();
    workloads
        .map(|workload| Item {
            name: workload.name.to_string(),
            source: Some(&workload.source),
            parts: vec![
                (
                    "unit",
                    text(workload.unit.as_ref().map(ToString::to_string)),
                ),
                (
                    "user",
                    text(workload.user.as_ref().map(ToString::to_string)),
                ),
                ("hosts", selectors(&workload.hosts)),
            ],
        })
        .collect()
}

/// The same test written twice is one; one that another rule has to decide is another test.
fn tests(checked: &Checked) -> Vec<Item<'_>> {
    let mut seen = BTreeSet::new();
    let items = checked.tests.iter().map(|test| Item {
        name: match &test.rule {
            Some(rule) => format!("{} by rule {rule}", test.text),
            None => test.text.clone(),
        },
        source: Some(&test.source),
        parts: Vec::new(),
    });
    items
        .filter(|item| seen.insert(item.name.clone()))
        .collect()
}

fn selectors(selectors: &[Selector]) -> BTreeSet<String> {
    selectors.iter().map(Selector::to_string).collect()
}

fn one(text: &str) -> BTreeSet<String> {
    BTreeSet::from([text.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceFile;

    fn checked(text: &str) -> Checked {
        let file = SourceFile {
            path: "policy.yaml".to_owned(),
            text: format!("fleet: prod\n{text}"),
        };
        crate::load(&[file]).unwrap_or_else(|errors| panic!("{}", errors[0].render()))
    }

    fn said(old: &str, new: &str) -> Vec<String> {
        let diff = diff(&checked(old), &checked(new));
        let line = |change: &PolicyChange| {
            let parts = change.parts.iter().map(|part| {
                let (added, removed) = (part.added.join("|"), part.removed.join("|"));
                format!(" {} +{added} -{removed}", part.part)
            });
            let (kind, what) = (change.kind, change.change);
            let parts: String = parts.collect();
            format!(
                "{what:?} {kind:?} {} ({}){parts}",
                change.name, change.source
            )
        };
        diff.changes.iter().map(line).collect()
    }

    #[test]
    fn order_lists_and_ways_to_write_ports_make_no_difference() {
        let old = "allow:
  - { id: a, from: [x=1, y=1], to: any, tcp: [22, 23, 80] }
  - { id: b, from: any, to: any, icmp: true }
tests: [{ allow: \"any -> any icmp\" }]
";
        let new = "tests: [{ allow: \"any -> any icmp\" }, { allow: \"any -> any icmp\" }]
allow:
  - { id: b, from: any, to: [any], icmp: true, }
  - { id: a, from: [y=1, x=1], to: any, tcp: [80, \"22-23\"] }
";
        assert_eq!(said(old, new), Vec::<String>::new());
    }

    #[test]
    fn requests_windows_workloads_and_settings_are_parts() {
        let old = "workloads:
  web: { unit: web.service, hosts: role=web }
services:
  orders: { port: 80, protocol: http, endpoints: [a], retry: off }
allow:
  - { id: read, from: web, to: orders, http: [\"GET /v1/**\", \"GET /v2/**\"] }
";
        let new = "workloads:
  web: { unit: web2.service, user: www, hosts: role=web }
services:
  orders: { port: 80, protocol: http, endpoints: [a], timeout: 2s }
allow:
  - { id: read, from: web, to: orders, http: [\"GET /v2/**\"], when: \"08:00-18:00 UTC\" }
";
        assert_eq!(
            said(old, new),
            [
                "Changed Rule read (policy.yaml:7) http + -GET /v1/** when +08:00-18:00 UTC -",
                "Changed Service orders (policy.yaml:5) settings +timeout: { request: 2s } -retry: { attempts: 1 }",
                "Changed Workload web (policy.yaml:3) unit +web2.service -web.service user +www -",
            ]
        );
    }

    #[test]
    fn each_change_names_the_part() {
        let old = "cipher: standard
services:
  db: { port: 5432, protocol: tcp, endpoints: [db-1, db-2] }
  old: { port: 1, protocol: udp, endpoints: [a] }
allow:
  - { id: ssh, from: [role=ops, laptop], to: any, tcp: [22], icmp: true }
  - { id: app-db, from: role=app, to: db }
tests:
  - { deny: \"any -> any:1\" }
  - { allow: \"role=app -> db\" }
";
        let new = "services:
  db: { port: 5433, protocol: tcp, endpoints: [db-2, db-3] }
allow:
  - { id: ssh, from: [role=ops], to: any, tcp: [\"22-23\"], icmp: true }
  - { id: new, from: any, to: any, udp: any }
deny:
  - { id: app-db, from: role=app, to: any }
tests:
  - { deny: \"role=app -> db\", rule: app-db }
  - { deny: \"any -> any:1\" }
";
        assert_eq!(
            said(old, new),
            [
                "Removed Setting cipher: standard ()",
                "Changed Rule ssh (policy.yaml:5) from + -laptop traffic +tcp 22-23 -tcp 22",
                "Added Rule new (policy.yaml:6) effect +allow - from +any - to +any - traffic +any udp port -",
                "Changed Rule app-db (policy.yaml:8) effect +deny -allow to +any -db traffic +everything -the ports of the services",
                "Changed Service db (policy.yaml:3) port +5433 -5432 endpoints +db-3 -db-1",
                "Removed Service old (policy.yaml:5) port + -1 protocol + -udp endpoints + -a",
                "Added Test deny role=app -> db by rule app-db (policy.yaml:10)",
                "Removed Test allow role=app -> db (policy.yaml:11)",
            ]
        );
    }
}

//! Policy files: read or refused with messages that can be shown; what is accepted is decided by
//! the compiled tables of all hosts as by the plain reading of the rules.

use std::collections::BTreeSet;

use model::address::OverlayPrefixes;
use model::admin::PolicyFile;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::name::{Label, Labels, Name};
use model::record::HostRecord;
use model::rule::{Bundle, Direction, Rule, Selector, Traffic, ip_protocol};
use policy::{Checked, Diagnostic, Table, Verdict, load, reference, resolve, run_tests};

use crate::Seed;

/// Stands between the files of one input: ASCII calls it the file separator.
pub(crate) const FILE_SEPARATOR: char = '\u{1c}';
/// Hosts of the fleet that is made for a policy.
const HOSTS_MAX: usize = 6;
/// Ports at which each pair of hosts is asked.
const PORTS_MAX: usize = 12;

pub(crate) const PROTOCOLS: [u8; 5] = [
    ip_protocol::TCP,
    ip_protocol::UDP,
    ip_protocol::ICMP,
    ip_protocol::ICMPV6,
    47,
];

/// Reads bytes as the files of a policy.
pub fn target(bytes: &[u8]) {
    let files = files(&String::from_utf8_lossy(bytes));
    match load(&files) {
        Ok(checked) => decide_everywhere(&checked),
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "a refusal says why");
            show(&diagnostics);
        }
    }
}

pub(crate) fn files(text: &str) -> Vec<PolicyFile> {
    let numbered = text.split(FILE_SEPARATOR).enumerate();
    numbered
        .map(|(number, text)| PolicyFile {
            path: format!("{number}.yaml"),
            text: text.to_owned(),
        })
        .collect()
}

pub(crate) fn show(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let shown = diagnostic.render();
        let is_dangerous = |it: char| it.is_control() && it != '\n';
        assert!(!shown.contains(is_dangerous), "terminals obey {shown:?}");
    }
}

fn decide_everywhere(checked: &Checked) {
    show(&checked.warnings);
    let hosts = fleet_for(&checked.bundle);
    run_tests(checked, None);
    run_tests(checked, Some(&hosts));
    match resolve(checked, &hosts) {
        Ok(bundle) => compare(&bundle, &hosts),
        Err(diagnostics) => show(&diagnostics),
    }
}

/// Hosts of the names and with the labels that the policy speaks of.
pub(crate) fn fleet_for(bundle: &Bundle) -> Vec<HostRecord> {
    let mut names: BTreeSet<Name> = BTreeSet::new();
    let mut labels: BTreeSet<Label> = BTreeSet::new();
    for selector in selectors(bundle) {
        match selector {
            Selector::Host { name, .. } => {
                names.insert(name.clone());
            }
            Selector::Labels(all) => labels.extend(all.iter().cloned()),
            Selector::Any | Selector::Service(_) | Selector::Workload(_) => {}
        }
    }
    let strangers = (0..2).map(|number| format!("stranger-{number}").parse().expect("a name"));
    let names: BTreeSet<Name> = names.into_iter().take(HOSTS_MAX).chain(strangers).collect();
    let numbered = names.into_iter().enumerate();
    numbered
        .map(|(number, name)| record(number, name, &labels))
        .collect()
}

/// Every host has another part of the labels.
fn record(number: usize, name: Name, labels: &BTreeSet<Label>) -> HostRecord {
    let mut own = Labels::new();
    for (position, label) in labels.iter().enumerate() {
        if (position + number).is_multiple_of(3) || number.is_multiple_of(4) {
            own.insert(label.key.clone(), label.value.clone());
        }
    }
    let fleet = FleetId::from_bytes([7; 16]);
    HostRecord {
        fleet,
        host: HostId::from_bytes([number as u8; 16]),
        name,
        labels: own,
        wireguard_key: WireguardKey::from_bytes([number as u8; 32]),
        tls_key_hash: Digest::from_bytes([number as u8; 32]),
        addresses: OverlayPrefixes::derived_from(fleet)
            .nth_host(number as u32)
            .expect("a fleet of few hosts"),
        offers_aes_256_gcm: false,
        revision: Revision::new(1, 1),
    }
}

fn selectors(bundle: &Bundle) -> impl Iterator<Item = &Selector> {
    let endpoints = bundle
        .services
        .iter()
        .flat_map(|service| &service.endpoints);
    endpoints.chain(rules(bundle).flat_map(|rule| rule.from.iter().chain(&rule.to)))
}

fn rules(bundle: &Bundle) -> impl Iterator<Item = &Rule> {
    bundle.allow.iter().chain(&bundle.deny)
}

fn compare(bundle: &Bundle, hosts: &[HostRecord]) {
    let ports = telling_ports(bundle);
    for own in hosts {
        let others = hosts.iter().filter(|it| it.host != own.host).zip(0..);
        let peers: Vec<_> = others
            .map(|(host, index)| (PeerIndex(index), host))
            .collect();
        let table = Table::compile(own, &peers, bundle, PolicyVersion(1), 1);
        for (index, peer) in peers {
            for (protocol, port) in PROTOCOLS
                .iter()
                .flat_map(|it| ports.iter().map(move |port| (*it, *port)))
            {
                let out = table.decide(Direction::Outbound, index, protocol, port);
                same(
                    &table,
                    out,
                    reference::decide(bundle, own, peer, protocol, port),
                );
                let back = table.decide(Direction::Inbound, index, protocol, port);
                same(
                    &table,
                    back,
                    reference::decide(bundle, peer, own, protocol, port),
                );
            }
        }
    }
}

fn same(table: &Table, verdict: Verdict, plain: reference::Decision<'_>) {
    assert_eq!(verdict.is_allowed(), plain.allowed, "{verdict:?} {plain:?}");
    let by_table = verdict.rule().map(|rule| &table.rule(rule).id);
    assert_eq!(
        by_table,
        plain.rule.map(|rule| &rule.id),
        "the same rule decides"
    );
}

/// Ports at which rules begin and end, and beside them.
pub(crate) fn telling_ports(bundle: &Bundle) -> Vec<u16> {
    let mut ports = BTreeSet::from([0, u16::MAX]);
    for rule in rules(bundle) {
        if let Traffic::Ports { tcp, udp, .. } = &rule.traffic {
            for range in tcp.iter().chain(udp) {
                ports.extend([range.first.saturating_sub(1), range.first]);
                ports.extend([range.last, range.last.saturating_add(1)]);
            }
        }
    }
    ports.extend(bundle.services.iter().map(|service| service.port));
    ports.into_iter().take(PORTS_MAX).collect()
}

/// The whole language, a policy in two files, and shorter ones to build upon.
pub(crate) fn seeds() -> Vec<Seed> {
    vec![
        Seed::new("whole-language", WHOLE_LANGUAGE),
        Seed::new("two-files", format!("{SHORT}{FILE_SEPARATOR}{SECOND_FILE}")),
        Seed::new("short", SHORT),
        Seed::new("block-style", BLOCK_STYLE),
        Seed::new("refused", REFUSED),
    ]
}

const WHOLE_LANGUAGE: &str = r#"fleet: prod
services:
  db: { port: 5432, protocol: tcp, endpoints: ["role=db"] }
  dns: { port: 53, protocol: udp, endpoints: [resolver, "role=dns,env=prod"] }
allow:
  - { id: ops-ssh, from: "role=bastion", to: "env=prod", tcp: [22, "8000-8100"] }
  - { id: app-db, from: [role=app, host:batch-1], to: db }
  - { id: all-dns, from: any, to: service:dns }
  - { id: web, from: db, to: web-1, tcp: any, udp: [53] }
  - { id: ping, from: any, to: any, icmp: true }
deny:
  - { id: quarantine, from: "state=suspect", to: any }
tests:
  - { allow: "role=app -> db" }
  - { deny: "role=app -> db:22" }
  - { allow: "any -> dns:53/udp" }
  - { deny: "state=suspect -> any icmp", rule: quarantine }
"#;

const SHORT: &str = "fleet: prod
allow:
  - { id: a, from: any, to: host:b, tcp: [1-9] }
";

const SECOND_FILE: &str = "deny:
  - { id: d, from: role=x, to: b, tcp: [5] }
";

const BLOCK_STYLE: &str = "# Who may reach what.
fleet: 'prod'
allow:
  - id: web
    from:
      - any
    to:
      - web-1   # the only one
    tcp:
      - 80
      - \"443\"
";

const REFUSED: &str = "fleet: &f prod
allow: [ { id: x y, from: nobody=, to: *f, tcp: 70000 } ]
tests: [ { deny: 'a -> b:0/tcp' } ]
fleet: ~
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_decided_by_tables() {
        for seed in seeds().iter().filter(|seed| seed.name != "refused") {
            let files = files(std::str::from_utf8(&seed.bytes).unwrap());
            let checked = load(&files).unwrap_or_else(|why| panic!("{}: {why:?}", seed.name));
            let hosts = fleet_for(&checked.bundle);
            assert!(resolve(&checked, &hosts).is_ok(), "{}", seed.name);
        }
    }
}

//! What a daemon has to be able to do to enforce a bundle, by name. A daemon says in its hello what
//! it can; one that lacks something would leave a rule out or widen it, so it is not given one.

use std::collections::BTreeSet;

use model::record::HostRecord;
use model::rule::{
    Bundle, CipherDemand, Protocol, Rule, Selector, Service, Traffic, TrafficSettings,
};

use crate::slice::leaves_concerning;

/// Returns what a host has to be able to do to enforce its part of a bundle; `None`: all of it.
pub fn features(bundle: &Bundle, host: Option<&HostRecord>) -> BTreeSet<&'static str> {
    match host {
        None => of_bundle(bundle),
        Some(host) => of_bundle(&part_of(bundle, host)),
    }
}

fn of_bundle(bundle: &Bundle) -> BTreeSet<&'static str> {
    let services = bundle
        .services
        .iter()
        .map(|service| match service.protocol {
            Protocol::Tcp => "services.tcp",
            Protocol::Udp => "services.udp",
            Protocol::Http => "services.http",
            Protocol::Grpc => "services.grpc",
            Protocol::Auto => "services.auto",
        });
    let mut all_rules = bundle.allow.iter().chain(&bundle.deny);
    let has_http = all_rules.clone().any(|rule| !rule.http.is_empty());
    let has_when = all_rules.clone().any(|rule| rule.when.is_some());
    let has_senders = all_rules.any(|rule| asks_who_sends(rule, bundle));
    let any_service = |is_it: fn(&Service) -> bool| bundle.services.iter().any(is_it);
    let has_settings = any_service(|it| it.settings != TrafficSettings::default());
    let has_addresses = any_service(|it| it.addresses.is_some());
    let has_workloads = !bundle.workloads.is_empty() || any_service(|it| !it.workloads.is_empty());
    let rules = [
        (!bundle.allow.is_empty()).then_some("allow"),
        (!bundle.deny.is_empty()).then_some("deny"),
        (bundle.cipher == CipherDemand::Standard).then_some("cipher.standard"),
        has_workloads.then_some("workloads"),
        has_senders.then_some("workloads.udp"),
        has_http.then_some("http"),
        has_when.then_some("when"),
        has_settings.then_some("services.settings"),
        has_addresses.then_some("services.addresses"),
    ];
    services.chain(rules.into_iter().flatten()).collect()
}

/// Whether a rule is about UDP of workloads.
fn asks_who_sends(rule: &Rule, bundle: &Bundle) -> bool {
    let reaches_udp = match &rule.traffic {
        Traffic::All => false,
        Traffic::Ports { udp, .. } => !udp.is_empty(),
        Traffic::Service => rule.to.iter().any(|to| {
            let mut services = bundle.services.iter();
            matches!(to, Selector::Service(name)
                if services.any(|it| it.name == *name && it.protocol == Protocol::Udp))
        }),
    };
    rule.names_workload() && reaches_udp
}

fn part_of(bundle: &Bundle, host: &HostRecord) -> Bundle {
    let leaves = bundle.leaves();
    let concerning = leaves_concerning(bundle, host);
    Bundle::from_leaves(
        concerning
            .into_iter()
            .map(|index| leaves[index as usize].clone()),
    )
}

#[cfg(test)]
mod tests {
    use model::name::Labels;

    use super::*;
    use crate::bundle_tests::hypothetical;
    use crate::{SourceFile, first_policy, load};

    #[test]
    fn what_a_rule_asks_for_beside_packets_is_needed_by_its_ends() {
        let text = "fleet: prod
workloads:
  web: { unit: web.service, hosts: role=web }
services:
  orders: { port: 80, protocol: http, endpoints: [\"role=app\"], timeout: 2s }
allow:
  - { id: read, from: web, to: orders, http: [\"GET /**\"], when: \"08:00-18:00 UTC\" }
  - { id: ping, from: any, to: any, icmp: true }
";
        let file = SourceFile {
            path: "policy.yaml".to_owned(),
            text: text.to_owned(),
        };
        let mut bundle = load(&[file]).unwrap().bundle;
        bundle.services[0].addresses =
            Some(hypothetical("x".parse().unwrap(), Labels::new()).addresses);
        let host = |value: &str| {
            let labels = [("role".parse().unwrap(), value.parse().unwrap())].into();
            hypothetical("vm-1".parse().unwrap(), labels)
        };
        for role in ["web", "app"] {
            let needed: Vec<&str> = features(&bundle, Some(&host(role))).into_iter().collect();
            assert_eq!(
                needed,
                [
                    "allow",
                    "http",
                    "services.addresses",
                    "services.http",
                    "services.settings",
                    "when",
                    "workloads"
                ],
                "{role}"
            );
        }
        let of_other: Vec<&str> = features(&bundle, Some(&host("other")))
            .into_iter()
            .collect();
        assert_eq!(of_other, ["allow"]);
    }

    #[test]
    fn workloads_that_rules_of_udp_name_are_needed_by_the_ends_and_of_a_deny_by_all() {
        let text = |section: &str| {
            format!(
                "fleet: prod
workloads:
  web: {{ unit: web.service, hosts: role=web }}
services:
  dns: {{ port: 53, protocol: udp, endpoints: [\"role=dns\"] }}
allow:
  - {{ id: ping, from: any, to: any, icmp: true }}
{section}
"
            )
        };
        let needing = |section: &str| {
            let file = SourceFile {
                path: "policy.yaml".to_owned(),
                text: text(section),
            };
            let bundle = load(&[file]).unwrap().bundle;
            ["web", "dns", "other"].map(|role| {
                let labels = [("role".parse().unwrap(), role.parse().unwrap())].into();
                let host = hypothetical("vm-1".parse().unwrap(), labels);
                features(&bundle, Some(&host)).contains("workloads.udp")
            })
        };
        let by_service = needing("  - { id: names, from: web, to: dns }");
        assert_eq!(by_service, [true, true, false]);
        let by_port = needing("  - { id: names, from: web, to: role=dns, udp: [53] }");
        assert_eq!(by_port, [true, true, false]);
        let of_tcp = needing("  - { id: names, from: web, to: role=dns, tcp: [53] }");
        assert_eq!(of_tcp, [false; 3]);
        let denied = needing("deny:\n  - { id: no-dns, from: web, to: any, udp: [53] }");
        assert_eq!(denied, [true; 3]);
    }

    #[test]
    fn a_host_needs_what_its_own_part_of_a_bundle_needs() {
        let text = "fleet: prod
services:
  time: { port: 123, protocol: udp, endpoints: [\"role=clock\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: ntp, from: \"role=vm\", to: time }
";
        let file = SourceFile {
            path: "policy.yaml".to_owned(),
            text: text.to_owned(),
        };
        let bundle = load(&[file]).unwrap().bundle;
        let labels =
            |value: &str| -> Labels { [("role".parse().unwrap(), value.parse().unwrap())].into() };
        let host = |value: &str| hypothetical("vm-1".parse().unwrap(), labels(value));
        let needed = |host: Option<&HostRecord>| features(&bundle, host).into_iter().collect();
        let all: Vec<&str> = needed(None);
        assert_eq!(all, ["allow", "services.udp"]);
        let of_vm: Vec<&str> = needed(Some(&host("vm")));
        assert_eq!(of_vm, ["allow", "services.udp"]);
        let of_other: Vec<&str> = needed(Some(&host("other")));
        assert_eq!(of_other, ["allow"]);
        assert_eq!(features(&first_policy(), None).len(), 1);

        let demanding = Bundle {
            cipher: CipherDemand::Standard,
            ..first_policy()
        };
        let of_anybody = features(&demanding, Some(&host("other")));
        assert!(
            of_anybody.contains("cipher.standard"),
            "it is for everybody"
        );
    }
}

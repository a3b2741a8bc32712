//! What a plan says of real-looking changes; that its numbers are true is in `agreement.rs`.

#![allow(clippy::unwrap_used)] // in the makers of test data

use model::address::HostAddresses;
use model::admin::{PlanChange, PlanGroup, PlanWarningKind, PolicyPlan};
use model::ids::{Digest, FleetId, HostId, Revision};
use model::key::WireguardKey;
use model::record::HostRecord;
use model::rule::Bundle;
use policy::{SourceFile, load, resolve};

const OLD: &str = "
services:
  db: { port: 5432, protocol: tcp, endpoints: [role=db] }
allow:
  - { id: ops-ssh, from: role=ops, to: any, tcp: [22] }
  - { id: web-db, from: role=web, to: db }
deny:
  - { id: no-lab, from: env=lab, to: db }
";

#[test]
fn gains_and_losses_are_grouped_by_the_rules_that_make_them() {
    let new = OLD
        .replace(
            "from: role=web, to: db",
            "from: [role=web, role=batch], to: db",
        )
        .replace("from: env=lab", "from: role=web")
        .replace(
            "from: role=ops, to: any",
            "from: role=ops, to: [role=db, role=web]",
        );
    let plan = planned(OLD, &new);
    assert_eq!(
        told(&plan),
        [
            "Lose tcp 5432: role=web -> db, 6 pairs 3x2, web-1 -> db-1, no-lab Denies",
            "Gain tcp 5432: role=batch,role=web -> db, 2 pairs 1x2, batch-1 -> db-1, web-db Allows",
            "Lose tcp 22: role=ops -> any, 1 pairs 1x1, ops-1 -> batch-1, ops-ssh AllowsNoLonger",
        ]
    );
    assert_eq!((plan.pairs_gaining, plan.pairs_losing), (2, 7));
}

#[test]
fn other_words_for_the_same_change_nothing() {
    let new = OLD
        .replace("ops-ssh", "ssh")
        .replace("from: role=ops", "from: [ops-1, role=ops]")
        .replace("to: db }", "to: role=db, tcp: [5432] }");
    let plan = planned(OLD, &new);
    assert_eq!(told(&plan), Vec::<String>::new());
    assert!(plan.warnings.is_empty());
}

#[test]
fn a_way_in_that_is_cut_is_told() {
    let plan = planned(
        OLD,
        &OLD.replace("to: any, tcp: [22]", "to: role=db, tcp: [22]"),
    );
    let warning = &plan.warnings[0];
    assert_eq!(warning.kind, PlanWarningKind::CutsOwnWayIn);
    assert_eq!(
        warning.message,
        "no host can reach tcp 22 of 4 hosts any longer: make sure that there is another way in"
    );
    let examples: Vec<&str> = warning.examples.iter().map(|name| name.as_str()).collect();
    assert_eq!(examples, ["batch-1", "web-1", "web-2", "web-3"]);
}

#[test]
fn a_way_in_by_another_rule_is_one() {
    let new = OLD.replace("from: role=ops, to: any", "from: role=db, to: any");
    let plan = planned(OLD, &new);
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn a_rule_that_makes_every_host_know_every_other_is_told_once() {
    let wide = OLD.replace(
        "deny:",
        "  - { id: wide, from: any, to: any, tcp: [9100] }\ndeny:",
    );
    let plan = planned(OLD, &wide);
    assert_eq!(plan.warnings.len(), 1);
    assert_eq!(plan.warnings[0].kind, PlanWarningKind::AllToAll);
    assert_eq!(plan.warnings[0].rule.as_deref(), Some("wide"));
    let wider = wide.replace("9100", "9100, 9200");
    assert!(
        planned(&wide, &wider).warnings.is_empty(),
        "the maps are whole already"
    );
}

#[test]
fn a_rule_that_selects_nobody_is_told_with_its_end() {
    let new = OLD.replace("from: role=web, to: db", "from: role=wbe, to: db");
    let messages: Vec<_> = planned(OLD, &new)
        .warnings
        .into_iter()
        .map(|it| it.message)
        .collect();
    assert_eq!(
        messages,
        ["rule `web-db` does nothing yet: no host is selected by its `from` (role=wbe)"]
    );
}

#[test]
fn a_plan_for_a_large_fleet_ends() {
    let hosts: Vec<HostRecord> = (0..2_000)
        .map(|number| {
            host(
                number,
                &format!("vm-{number}"),
                &[&format!("role=r{}", number % 50)],
            )
        })
        .collect();
    // Each host is named, so that no two hosts are alike to the rules.
    let rules: String = (0..2_000)
        .map(|number| {
            let peer = (number + 1) % 2_000;
            format!("  - {{ id: r{number}, from: vm-{number}, to: vm-{peer}, tcp: [22] }}\n")
        })
        .collect();
    let old = bundle(&format!("\nallow:\n{rules}"), &hosts);
    let moved = rules.replace("tcp: [22]", "tcp: [2222]");
    let plan = policy::plan(&old, &bundle(&format!("\nallow:\n{moved}"), &hosts), &hosts);
    assert!(plan.complete);
    assert_eq!((plan.pairs_gaining, plan.pairs_losing), (2_000, 2_000));
    assert_eq!(plan.groups.len() + plan.groups_left_out, 4_000);
}

fn planned(old: &str, new: &str) -> PolicyPlan {
    let hosts = [
        host(1, "ops-1", &["role=ops"]),
        host(2, "web-1", &["role=web"]),
        host(3, "web-2", &["role=web"]),
        host(4, "web-3", &["role=web"]),
        host(5, "batch-1", &["role=batch"]),
        host(6, "db-1", &["role=db"]),
        host(7, "db-2", &["role=db", "env=lab"]),
    ];
    policy::plan(&bundle(old, &hosts), &bundle(new, &hosts), &hosts)
}

fn told(plan: &PolicyPlan) -> Vec<String> {
    let line = |group: &PlanGroup| {
        let causes = group.causes.iter();
        let causes: Vec<_> = causes
            .map(|it| format!("{} {:?}", it.rule, it.effect))
            .collect();
        let change = match group.change {
            PlanChange::Gain => "Gain",
            PlanChange::Lose => "Lose",
        };
        format!(
            "{change} {}: {} -> {}, {} pairs {}x{}, {} -> {}, {}",
            group.traffic.join(","),
            group.from.join(","),
            group.to.join(","),
            group.pairs,
            group.from_hosts,
            group.to_hosts,
            group.examples[0].from,
            group.examples[0].to,
            causes.join(";"),
        )
    };
    plan.groups.iter().map(line).collect()
}

fn bundle(text: &str, hosts: &[HostRecord]) -> Bundle {
    let file = SourceFile {
        path: "policy.yaml".to_owned(),
        text: format!("fleet: prod{text}"),
    };
    let checked = load(&[file]).unwrap_or_else(|errors| panic!("{}", errors[0].render()));
    resolve(&checked, hosts).unwrap_or_else(|errors| panic!("{}", errors[0].render()))
}

fn host(number: u16, name: &str, labels: &[&str]) -> HostRecord {
    let labels = labels
        .iter()
        .map(|label| label.parse::<model::name::Label>().unwrap());
    let [high, low] = number.to_be_bytes();
    let mut id = [0; 16];
    id[..2].copy_from_slice(&[high, low]);
    HostRecord {
        fleet: FleetId::from_bytes([1; 16]),
        host: HostId::from_bytes(id),
        name: name.parse().unwrap(),
        labels: labels.map(|label| (label.key, label.value)).collect(),
        wireguard_key: WireguardKey::from_bytes([low; 32]),
        tls_key_hash: Digest::from_bytes([low; 32]),
        addresses: HostAddresses {
            v4: [10, 0, high, low].into(),
            v6: id.into(),
        },
        offers_aes_256_gcm: false,
        revision: Revision::new(1, 1),
    }
}

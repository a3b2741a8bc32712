//! How long a large bundle takes. It prints figures and judges none of them: whoever runs it knows
//! the machine. `cargo test --release -p policy --test speed -- --ignored --nocapture`

#![allow(clippy::disallowed_methods)] // measuring needs a clock
#![allow(clippy::print_stdout)] // figures are for people
#![allow(clippy::unwrap_used)] // in the makers of test data

use std::hint::black_box;
use std::time::{Duration, Instant};

use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::record::HostRecord;
use model::rule::{Direction, ip_protocol};
use policy::{SourceFile, Table, load, plan, resolve};

const RULES: u16 = 10_000;
const HOSTS: u16 = 2_000;
const ROLES: u16 = 100;

#[test]
#[ignore = "long: measures, best with --release"]
fn ten_thousand_rules_of_roles() {
    measure(by_roles());
}

#[test]
#[ignore = "long: measures, best with --release"]
fn ten_thousand_rules_that_all_concern_one_host_at_the_same_ports() {
    measure(crowded());
}

#[test]
#[ignore = "long: measures, best with --release"]
fn rules_that_name_each_host_at_both_ends() {
    measure(by_names());
}

fn measure(text: String) {
    let file = |text: String| SourceFile {
        path: "policy.yaml".to_owned(),
        text,
    };
    let hosts: Vec<HostRecord> = (0..HOSTS).map(host).collect();
    let files = [file(text)];
    let checked = timed("parse and check", || load(&files).expect("right"));
    let bundle = timed("bind to hosts", || {
        resolve(&checked, &hosts).expect("right")
    });
    let peers: Vec<_> = (0..).map(PeerIndex).zip(&hosts[1..]).collect();
    let table = timed("compile for one host", || {
        Table::compile(&hosts[0], &peers, &bundle, PolicyVersion(2), 1)
    });
    println!("{:>40} {}", "rules that concern it", table.rule_count());
    decide(&table, peers.len());
    let formatted = timed("format", || policy::format(&files[0]).expect("strict"));
    assert_eq!(formatted, files[0].text);
    for (what, with) in [
        (
            "plan one host to any",
            files[0].text.replacen("to: vm-3,", "to: any,", 1),
        ),
        (
            "plan any to any",
            format!(
                "{}  - {{ id: new, from: any, to: any, udp: [9] }}\n",
                files[0].text
            ),
        ),
    ] {
        let new = load(&[file(with)]).expect("right");
        let plan = timed(what, || plan(&checked.bundle, &new.bundle, &hosts));
        let (pairs, complete) = (plan.pairs_gaining, plan.complete);
        println!("{:>40} {pairs} (complete: {complete})", "pairs that gain");
        assert!(pairs > 0);
    }
}

/// Asks about peers and ports that follow no pattern, so that few are in a cache.
fn decide(table: &Table, peers: usize) {
    const QUESTIONS: u32 = 1_000_000;
    let (mut state, mut allowed) = (1u32, 0u32);
    let start = Instant::now();
    for _ in 0..QUESTIONS {
        // Numerical Recipes 7.1, a linear congruential generator.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let peer = PeerIndex((state >> 8) % u32::try_from(peers).unwrap());
        let port = u16::try_from(state >> 16).unwrap() % RULES;
        let direction = if state & 0x80 == 0 {
            Direction::Inbound
        } else {
            Direction::Outbound
        };
        let verdict = table.decide(direction, peer, ip_protocol::TCP, port);
        allowed += u32::from(black_box(verdict).is_allowed());
    }
    let each = start.elapsed() / QUESTIONS;
    println!(
        "{:>40} {each:?} ({allowed} of {QUESTIONS} allowed)",
        "decide a first packet"
    );
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = black_box(work());
    let took: Duration = start.elapsed();
    println!("{what:>40} {took:?}");
    done
}

/// Each role may reach others, many of them every host, at ports of their own; some roles may not.
fn by_roles() -> String {
    let mut text = "fleet: prod\ndeny:\n".to_owned();
    for number in 0..100 {
        text += &format!("  - {{ id: d{number}, from: role=r{number}, to: state=quarantine }}\n");
    }
    text += "allow:\n";
    for number in 0..RULES - 100 {
        let (from, port) = (number % ROLES, 1 + number);
        let to = match number % 4 {
            0 => "any".to_owned(),
            1 => format!("[role=r{}, role=r{}]", number / ROLES % ROLES, number % 7),
            2 => format!("role=r{}", number % 3),
            _ => format!("vm-{}", number % HOSTS),
        };
        text += &format!(
            "  - {{ id: a{number}, from: role=r{from}, to: {to}, tcp: [{port}, \"{port}-{}\"] }}\n",
            port + 9
        );
    }
    text
}

/// Each host may reach a few at ports that overlap with those of all others.
fn crowded() -> String {
    let mut text = "fleet: prod\nallow:\n".to_owned();
    for number in 0..RULES {
        let from = number % HOSTS;
        let to = if number == 3 {
            "vm-3"
        } else {
            "[vm-0, vm-1, vm-2]"
        };
        let (first, last) = (1 + number % 97, 20_000 + number);
        text += &format!(
            "  - {{ id: a{number}, from: vm-{from}, to: {to}, tcp: [22, \"{first}-{last}\"] }}\n"
        );
    }
    text
}

/// No two hosts are alike to the rules, which is the worst for a plan.
fn by_names() -> String {
    let mut text = "fleet: prod\nallow:\n".to_owned();
    for number in 0..HOSTS {
        let (from, to) = ((number + 1) % HOSTS, (number + 4) % HOSTS);
        text += &format!("  - {{ id: a{number}, from: vm-{from}, to: vm-{to}, tcp: [22] }}\n");
    }
    text
}

fn host(number: u16) -> HostRecord {
    let [high, low] = number.to_be_bytes();
    let mut id = [0; 16];
    id[..2].copy_from_slice(&[high, low]);
    let state = if number.is_multiple_of(50) {
        "quarantine"
    } else {
        "good"
    };
    let labels = [
        ("role", format!("r{}", number % ROLES)),
        ("state", state.to_owned()),
    ];
    HostRecord {
        fleet: FleetId::from_bytes([1; 16]),
        host: HostId::from_bytes(id),
        name: format!("vm-{number}").parse().unwrap(),
        labels: labels
            .into_iter()
            .map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()))
            .collect(),
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

//! How long large policies take: checked, bound, compiled for one host, decided, planned.

use std::hint::black_box;

use model::address::HostAddresses;
use model::ids::{Digest, FleetId, HostId, PolicyVersion, Revision};
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::record::HostRecord;
use model::rule::{Direction, ip_protocol};
use policy::{SourceFile, Table, load, plan, resolve};

use crate::measure::{Each, each, once};

const RULES: u16 = 10_000;
const HOSTS: u16 = 2_000;
/// Roles that hosts have, by their numbers.
pub(crate) const ROLES: u16 = 100;

/// Prints the table of each kind of policy.
pub(crate) fn measure() {
    println!("## Large policies, one core\n");
    println!("| policy | | |");
    println!("|---|---|--:|");
    for (name, text) in [
        ("10,000 rules of roles", by_roles()),
        (
            "10,000 rules that all concern one host at the same ports",
            crowded(),
        ),
        ("2,000 rules that name each host at both ends", by_names()),
    ] {
        measure_one(name, text);
    }
}

fn measure_one(name: &str, text: String) {
    let timed = Timed(name);
    let show = |what: &str, figure: String| println!("| {name} | {what} | {figure} |");
    let file = |text: String| SourceFile {
        path: "policy.yaml".to_owned(),
        text,
    };
    let hosts: Vec<HostRecord> = (0..HOSTS).map(host).collect();
    let files = [file(text)];
    let checked = timed.of("parse and check", || load(&files).expect("right"));
    let bundle = timed.of("bind to hosts", || {
        resolve(&checked, &hosts).expect("right")
    });
    let peers: Vec<_> = (0..).map(PeerIndex).zip(&hosts[1..]).collect();
    let table = timed.of("compile for one host", || {
        Table::compile(&hosts[0], &peers, &bundle, PolicyVersion(2), 1)
    });
    show("rules that concern it", table.rule_count().to_string());
    show("decide a first packet", decide(&table, peers.len()).shown());
    let formatted = timed.of("format", || policy::format(&files[0]).expect("strict"));
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
        let plan = timed.of(what, || plan(&checked.bundle, &new.bundle, &hosts));
        let (pairs, complete) = (plan.pairs_gaining, plan.complete);
        show(
            "pairs that gain",
            format!("{pairs}{}", if complete { "" } else { " and more" }),
        );
        assert!(pairs > 0);
    }
}

/// Asks about peers and ports that follow no pattern, so that few are in a cache.
fn decide(table: &Table, peers: usize) -> Each {
    const QUESTIONS: u32 = 1_000_000;
    let mut state = 1u32;
    each(QUESTIONS as usize, || {
        for _ in 0..QUESTIONS {
            // Numerical Recipes 7.1, a linear congruential generator.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let peer = PeerIndex((state >> 8) % peers as u32);
            let port = (state >> 16) as u16 % RULES;
            let direction = match state & 0x80 {
                0 => Direction::Inbound,
                _ => Direction::Outbound,
            };
            black_box(table.decide(direction, peer, ip_protocol::TCP, port));
        }
    })
}

/// Prints what each step of a policy takes.
struct Timed<'a>(&'a str);

impl Timed<'_> {
    fn of<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        let (done, took) = once(work);
        println!("| {} | {what} | {} |", self.0, Each::new(took, 1).shown());
        done
    }
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

/// Returns a host of a large fleet; its role is its number's rest.
pub(crate) fn host(number: u16) -> HostRecord {
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
        name: format!("vm-{number}").parse().expect("a good one"),
        labels: labels
            .into_iter()
            .map(|(key, value)| {
                (
                    key.parse().expect("a good one"),
                    value.parse().expect("a good one"),
                )
            })
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

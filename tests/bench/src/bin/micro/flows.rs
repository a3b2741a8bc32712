//! Finding a flow among many, and deciding about a new one by many rules.

use dataplane::{DataCipher, VirtioHeader};
use model::rule::{Bundle, PortRange, Rule, Selector, Traffic};

use crate::measure::{Each, each, grouped, once};
use crate::packets::{self, SYN};
use crate::pair::{Host, Pair, bundle, rule};

const RULES: u16 = 10_000;
const FLOWS: u32 = 100_000;
const BYTES: usize = 64;

/// Prints the table.
pub(crate) fn measure() {
    println!(
        "## {} flows under {} rules, one core: packets of {BYTES} bytes, sealed\n",
        grouped(f64::from(FLOWS)),
        grouped(f64::from(RULES))
    );
    println!("| | each | more than a packet of one known flow |");
    println!("|---|--:|--:|");
    let (known, first, again) = measured();
    for (what, each) in [
        ("a packet of one known flow", known),
        ("first packet: flow missed, rules asked, flow kept", first),
        ("a packet of any of the flows", again),
    ] {
        let more = each.nanoseconds() - known.nanoseconds();
        println!("| {what} | {} | {more:.0} ns |", each.shown());
    }
}

/// A packet of one flow by itself, each flow's first, and each flow's second.
fn measured() -> (Each, Each, Each) {
    let mut pair = Pair::with_rules(DataCipher::Aes256Gcm, &ten_thousand());
    let addresses = pair.addresses();
    let mut packets: Vec<Vec<u8>> = (0..FLOWS)
        .map(|number| {
            // In an order that no cache foresees, and each once: the factor is odd.
            let mixed = number.wrapping_mul(0x9e37_79b1) >> 3;
            let ports = (
                1024 + (number % 50_000) as u16,
                1 + 2 * ((mixed % 2_000 + number / 50_000 * 2_000) as u16),
            );
            packets::segment(addresses, ports, SYN, 1, BYTES)
        })
        .collect();
    let now = pair.now;
    let host = &mut pair.hosts[0];
    let sent = host.counters.sent().0;
    let (_, took) = once(|| host.send_all(&mut packets, now));
    let first = Each::new(took, packets.len());
    assert_eq!(host.counters.sent().0 - sent, u64::from(FLOWS));
    let again = each(packets.len(), || host.send_all(&mut packets, now));
    let mut one = vec![packets[0].clone(); 1000];
    let known = each(one.len(), || host.send_all(&mut one, now));
    (known, first, again)
}

impl Host {
    fn send_all(&mut self, packets: &mut [Vec<u8>], now: model::time::Now) {
        let Self { shard, burst, .. } = self;
        for packet in packets {
            shard.handle_overlay_packet(VirtioHeader::default(), packet, now, burst);
            burst.sent();
        }
    }
}

/// Half concern this pair, at ports of their own; half concern nobody here.
fn ten_thousand() -> Bundle {
    let numbered = |number: u16| -> Rule {
        let traffic = Traffic::Ports {
            tcp: vec![PortRange::single(1 + number)],
            udp: Vec::new(),
            icmp: false,
        };
        let rule = rule(&format!("r{number}"), traffic);
        if number.is_multiple_of(2) {
            return rule;
        }
        let nobody = "role=nobody".parse().expect("a label");
        Rule {
            to: vec![Selector::Labels(vec![nobody])],
            ..rule
        }
    };
    bundle((0..RULES).map(numbered).collect())
}

//! What a receiver's denial does at the caller: its application fails at once, its operator reads
//! the rule; and what a peer that lies about denials can do.

mod pair;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{Command, DataCipher, DropReason, PeerKind};
use model::address::HostAddresses;
use model::ids::{HostId, PolicyVersion};
use model::map::PeerIndex;
use model::record::HostRecord;
use model::rule::{Bundle, Direction, Traffic};
use pair::packets::{self, ACK, ICMP, RST, SYN, TCP, UDP};
use pair::rogue::Rogue;
use pair::{A, B, PEER, Pair, bundle, only, public, record, rule, tcp_port};
use policy::Table;
use proptest::prelude::*;

fn everything() -> Bundle {
    bundle(vec![rule("all", Traffic::All)], Vec::new())
}

fn nothing() -> Bundle {
    bundle(Vec::new(), Vec::new())
}

fn no_telnet() -> Bundle {
    let mut deny = rule("no-telnet", tcp_port(23));
    deny.from = only(A);
    bundle(vec![rule("all", Traffic::All)], vec![deny])
}

/// A believes that everything is allowed, and B knows better.
fn with_rules_at_b(bundle: &Bundle) -> Pair {
    let mut pair = Pair::with_bundle(&everything());
    pair.set_bundle_at(B, bundle);
    pair
}

/// A rejection as its layout says, made independently of the crate.
fn rejection(ip_protocol: u8, rule: &str, version: u64, quote: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xf1, 1, 4, ip_protocol];
    bytes.extend(version.to_be_bytes());
    bytes.extend([rule.len() as u8, quote.len() as u8]);
    bytes.extend(rule.as_bytes());
    bytes.extend(quote);
    bytes
}

/// Tells a host that the other one's program is another.
fn set_kind(pair: &mut Pair, host: usize, kind: PeerKind) {
    let Command::SetPeer {
        index,
        key,
        addresses,
        preshared,
        keepalive,
        ..
    } = pair.peer(host)
    else {
        unreachable!("a peer is introduced by this command");
    };
    let command = Command::SetPeer {
        index,
        kind,
        key,
        addresses,
        preshared,
        keepalive,
        cipher: DataCipher::default(),
    };
    pair.command(host, vec![command]);
}

#[test]
fn a_connection_that_the_receiver_denies_fails_at_once_and_names_the_rule() {
    let mut pair = with_rules_at_b(&no_telnet());
    let syn = pair.tcp(A, 40000, 23, SYN);
    pair.send(A, &syn);
    let told = pair.delivered(A);
    assert_eq!(told.len(), 1);
    let upper = &told[0][20..];
    assert_eq!(
        (upper[..4].to_vec(), upper[13]),
        (vec![0, 23, 0x9c, 0x40], RST | ACK)
    );
    assert_eq!(upper[8..12], 1001u32.to_be_bytes(), "acknowledges the SYN");
    let said = pair.rejections(A);
    assert_eq!(said.len(), 1);
    assert_eq!(
        (said[0].direction, said[0].peer),
        (Direction::Outbound, PEER)
    );
    assert_eq!(said[0].rule, Some("no-telnet".parse().unwrap()));
    assert_eq!(said[0].version, PolicyVersion(3), "B's, not A's");
    assert_eq!(said[0].destination.to_string(), "100.64.0.2:23");
    assert_eq!(pair.hosts[A].counters.denied_by_peer(), 1);
    assert_eq!(pair.hosts[B].counters.rejections(), 1);
    assert_eq!(pair.hosts[A].counters.flows(), 0, "and is forgotten");
}

#[test]
fn a_denial_by_default_says_no_more_than_that() {
    let mut pair = with_rules_at_b(&nothing());
    let datagrams = [pair.v4(A), pair.v6(A)].map(|(from, to)| packets::udp(from, to, 7, 53, b"?"));
    for (datagram, (upper, kind)) in datagrams.iter().zip([(20, [3, 13]), (40, [1, 1])]) {
        pair.send(A, datagram);
        let told = pair.delivered(A).pop().expect("the application is told");
        assert_eq!(told[upper..upper + 2], kind);
        let quoted = &told[upper + 8..];
        assert_eq!(quoted[upper..upper + 4], [0, 7, 0, 53]);
    }
    let said = pair.rejections(A);
    assert_eq!(said.len(), 2);
    for said in said {
        assert_eq!((said.rule, said.version), (None, PolicyVersion(0)));
    }
}

#[test]
fn a_connection_that_a_new_policy_ends_at_the_receiver_is_reset_at_the_caller() {
    let mut pair = with_rules_at_b(&everything());
    for (from, ports, flags) in [
        (A, (40000, 23), SYN),
        (B, (23, 40000), SYN | ACK),
        (A, (40000, 23), ACK),
    ] {
        let segment = pair.tcp(from, ports.0, ports.1, flags);
        pair.send(from, &segment);
        assert_eq!(pair.delivered(1 - from), [segment]);
    }
    pair.set_bundle_at(B, &no_telnet());
    let segment = pair.tcp(A, 40000, 23, ACK);
    pair.send(A, &segment);
    let told = pair.delivered(A).pop().expect("the application is told");
    assert_eq!(told[33], RST);
    assert_eq!(
        told[24..28],
        2000u32.to_be_bytes(),
        "where the segment expects the next"
    );
}

#[test]
fn pings_are_answered_and_resets_and_errors_are_not() {
    let mut pair = with_rules_at_b(&nothing());
    let (from, to) = pair.v4(A);
    pair.send(A, &packets::echo(from, to, true, 9));
    assert_eq!(pair.delivered(A)[0][20..22], [3, 13]);
    let reset = pair.tcp(A, 40000, 23, RST);
    pair.send(A, &reset);
    assert_eq!(pair.hosts[B].counters.rejections(), 1);
    assert!(pair.delivered(A).is_empty());
}

#[test]
fn a_standard_peer_gets_ip_packets_and_nothing_else() {
    let mut pair = with_rules_at_b(&nothing());
    set_kind(&mut pair, B, PeerKind::Standard);
    let syn = pair.tcp(A, 40000, 23, SYN);
    pair.send(A, &syn);
    assert_eq!(pair.dropped(B, DropReason::DeniedInbound), 1);
    assert_eq!(pair.hosts[B].counters.rejections(), 0);
    assert!(pair.delivered(A).is_empty());
}

#[test]
fn a_standard_peer_s_word_is_no_packet() {
    let mut pair = with_rules_at_b(&nothing());
    set_kind(&mut pair, A, PeerKind::Standard);
    let syn = pair.tcp(A, 40000, 23, SYN);
    pair.send(A, &syn);
    assert_eq!(pair.dropped(A, DropReason::NotIp), 1);
    assert!(pair.delivered(A).is_empty() && pair.rejections(A).is_empty());
}

#[test]
fn a_flood_of_denied_packets_is_answered_sparsely_and_keeps_nobody_else_waiting() {
    let mut pair = with_rules_at_b(&nothing());
    for port in 1..3000 {
        let datagram = pair.udp(A, 7, port);
        pair.send(A, &datagram);
    }
    let limits = dataplane::Limits::default();
    let of_one = u64::from(limits.rejections_per_peer_per_sec);
    assert_eq!(pair.hosts[B].counters.rejections(), of_one);
    assert!(
        of_one * 10 < u64::from(limits.rejections_per_sec),
        "others have their share"
    );
    assert_eq!(pair.dropped(B, DropReason::DeniedInbound), 2999);
}

/// B has opened a connection to A's port 22; in A's place sits a rogue.
fn rogue_that_b_called() -> (Pair, Rogue, Vec<u8>) {
    let mut pair = Pair::with_bundle(&everything());
    let mut rogue = Rogue::in_place_of_a(&mut pair);
    rogue.sends(&mut pair, &[]);
    let syn = pair.tcp(B, 40000, 22, SYN);
    pair.offer(B, &syn);
    pair.events(B);
    (pair, rogue, syn[20..].to_vec())
}

#[test]
fn a_peer_can_reject_a_flow_once() {
    let (mut pair, mut rogue, quote) = rogue_that_b_called();
    for _ in 0..2 {
        rogue.sends(&mut pair, &rejection(TCP, "its-rule", 9, &quote));
    }
    assert_eq!(pair.delivered(B).len(), 1);
    assert_eq!(pair.rejections(B).len(), 1);
    assert_eq!(pair.dropped(B, DropReason::UnrelatedRejection), 1);
}

#[test]
fn a_replayed_rejection_does_not_end_the_next_connection() {
    let mut pair = with_rules_at_b(&no_telnet());
    let syn = pair.tcp(A, 40000, 23, SYN);
    pair.send(A, &syn);
    let answer = pair.seen.last().cloned().expect("the rejection came last");
    pair.set_bundle_at(B, &everything());
    pair.delivered(A);
    pair.send(A, &syn);
    pair.receive(A, answer.from, 0, &answer.bytes);
    assert_eq!(pair.dropped(A, DropReason::Replayed), 1);
    assert_eq!(pair.hosts[A].counters.flows(), 1);
    assert!(pair.delivered(A).is_empty());
}

#[test]
fn a_peer_cannot_reject_what_was_not_sent_to_it() {
    let (mut pair, mut rogue, quote) = rogue_that_b_called();
    // B opens a flow from the next port with a third host.
    let addresses = HostAddresses {
        v4: Ipv4Addr::new(100, 64, 0, 3),
        v6: "fd00::3".parse().unwrap(),
    };
    let [own, third] = introduce_third(&mut pair, addresses);
    let to_third = packets::tcp(own, third, 40001, 22, SYN);
    pair.offer(B, &to_third);
    assert_eq!(pair.hosts[B].counters.flows(), 2);
    for lie in [
        // What the third host was sent, another protocol, the answering direction, another family.
        rejection(TCP, "", 0, &to_third[20..]),
        rejection(UDP, "", 0, &[0x9c, 0x40, 0, 22, 0, 8, 0, 0]),
        rejection(TCP, "", 0, &[&[0, 22, 0x9c, 0x40], &quote[4..]].concat()),
        {
            let mut other_family = rejection(TCP, "", 0, &quote);
            other_family[2] = 6;
            other_family
        },
    ] {
        rogue.sends(&mut pair, &lie);
    }
    assert_eq!(pair.dropped(B, DropReason::UnrelatedRejection), 4);
    // What the rogue itself opened is B's to deny, not its own.
    let (from, to) = pair.v4(A);
    rogue.sends(&mut pair, &packets::udp(from, to, 5, 6, b"!"));
    assert_eq!(pair.delivered(B).len(), 1);
    rogue.sends(&mut pair, &rejection(UDP, "", 0, &[0, 6, 0, 5, 0, 8, 0, 0]));
    assert_eq!(pair.dropped(B, DropReason::UnrelatedRejection), 5);
    assert_eq!(pair.hosts[B].counters.flows(), 3);
    assert!(pair.delivered(B).is_empty() && pair.rejections(B).is_empty());
}

/// Tells B of a third host to which everything is allowed too; returns B's address and its own.
fn introduce_third(pair: &mut Pair, addresses: HostAddresses) -> [IpAddr; 2] {
    let index = PeerIndex(1);
    let introduction = Command::SetPeer {
        index,
        kind: PeerKind::Mesh,
        key: public([3; 32]),
        addresses,
        preshared: None,
        keepalive: None,
        cipher: DataCipher::default(),
    };
    let (a, b) = (record(&pair.hosts[A]), record(&pair.hosts[B]));
    let third = HostRecord {
        host: HostId::from_bytes([3; 16]),
        addresses,
        ..a.clone()
    };
    let peers = [(PEER, &a), (index, &third)];
    let table = Table::compile(&b, &peers, &everything(), PolicyVersion(9), 9);
    pair.command(B, vec![introduction, Command::SetTable(Arc::new(table))]);
    [b.addresses.v4.into(), addresses.v4.into()]
}

#[test]
fn what_is_no_rejection_is_counted_and_does_nothing() {
    let (mut pair, mut rogue, quote) = rogue_that_b_called();
    let good = rejection(TCP, "its-rule", 9, &quote);
    // The tunnel's padding adds a few zeros, and no more.
    let mut longer_than_it_is = good.clone();
    longer_than_it_is[13] = 60;
    let mut lies = vec![
        vec![0xf1],
        longer_than_it_is,
        rejection(TCP, "not a rule id", 9, &quote),
        rejection(TCP, "its-rule", 9, &quote[..7]),
        // Not a segment, ICMP about ICMP of the other family, a routing header.
        rejection(TCP, "its-rule", 9, &[0; 20]),
        rejection(packets::ICMPV6, "its-rule", 9, &[128, 0, 0, 0, 0, 9, 0, 1]),
        rejection(ICMP, "its-rule", 9, &[3, 3, 0]),
    ];
    let mut unknown_kind = good.clone();
    unknown_kind[1] = 0xff;
    let mut extension = rejection(44, "its-rule", 9, &[6, 0, 0, 0, 0, 0, 0, 1]);
    extension[2] = 6;
    lies.extend([unknown_kind, extension]);
    let count = lies.len() as u64;
    for lie in lies {
        rogue.sends(&mut pair, &lie);
    }
    assert_eq!(pair.dropped(B, DropReason::BadControl), count);
    assert!(pair.delivered(B).is_empty() && pair.rejections(B).is_empty());
    rogue.sends(&mut pair, &good);
    assert_eq!(
        pair.rejections(B).len(),
        1,
        "the connection stood all the while"
    );
}

#[test]
fn a_flood_of_lies_fills_nothing() {
    let (mut pair, mut rogue, quote) = rogue_that_b_called();
    for port in 0..20_000u16 {
        let quote = [&port.to_be_bytes(), &quote[2..]].concat();
        rogue.sends(&mut pair, &rejection(TCP, "its-rule", 9, &quote));
    }
    assert_eq!(pair.dropped(B, DropReason::UnrelatedRejection), 20_000);
    assert!(pair.events(B).is_empty() && pair.delivered(B).is_empty());
    assert_eq!(pair.hosts[B].counters.flows(), 1);
    pair.pass(Duration::from_secs(1));
}

proptest! {
    /// The balance is checked after each step.
    #[test]
    fn whatever_a_peer_calls_a_rejection_harms_nothing(
        mut message in proptest::collection::vec(any::<u8>(), 1..200),
        is_rejection in any::<bool>(),
        family in prop::sample::select(vec![4u8, 6]),
        protocol in prop::sample::select(vec![1u8, 6, 17, 44, 58, 132]),
    ) {
        let (mut pair, mut rogue, _) = rogue_that_b_called();
        message[0] = 0xf1;
        if is_rejection && message.len() > 14 {
            message[1..4].copy_from_slice(&[1, family, protocol]);
            message[12] %= 4;
            message[13] %= 80;
        }
        rogue.sends(&mut pair, &message);
        prop_assert!(pair.delivered(B).is_empty());
    }
}

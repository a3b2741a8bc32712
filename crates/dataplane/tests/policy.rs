//! What the rules let through: flows and replies, denials and what is told of them, revocation,
//! connections in the middle, ICMP errors, fragments.

mod pair;

use std::time::Duration;

use dataplane::DropReason;
use model::name::RuleId;
use model::rule::{Bundle, Direction, Traffic};
use model::time::UnixTime;
use pair::packets::{self, ACK, FIN, RST, SYN};
use pair::{A, B, PEER, Pair, bundle, icmp, only, rule, tcp_port, udp_port};

/// From A to B: ssh, DNS and ping.
fn a_to_b() -> Bundle {
    let of_a = |mut rule: model::rule::Rule| {
        (rule.from, rule.to) = (only(A), only(B));
        rule
    };
    let allow = [
        rule("ssh", tcp_port(22)),
        rule("dns", udp_port(53)),
        rule("ping", icmp()),
    ];
    bundle(allow.into_iter().map(of_a).collect(), Vec::new())
}

fn everything() -> Bundle {
    bundle(vec![rule("all", Traffic::All)], Vec::new())
}

fn nothing() -> Bundle {
    bundle(Vec::new(), Vec::new())
}

/// A connection from A to B's port 22, open.
fn connected() -> Pair {
    let mut pair = Pair::with_bundle(&a_to_b());
    for (from, source, destination, flags) in [
        (A, 40000, 22, SYN),
        (B, 22, 40000, SYN | ACK),
        (A, 40000, 22, ACK),
    ] {
        let segment = pair.tcp(from, source, destination, flags);
        pair.send(from, &segment);
        assert_eq!(pair.delivered(1 - from), [segment]);
    }
    pair
}

fn sends(pair: &mut Pair, from: usize, packet: &[u8]) -> bool {
    pair.send(from, packet);
    pair.delivered(1 - from)
        .iter()
        .any(|delivered| delivered == packet)
}

#[test]
fn replies_pass_and_other_packets_do_not() {
    let mut pair = Pair::with_bundle(&a_to_b());
    let (query, reply) = (pair.udp(A, 5000, 53), pair.udp(B, 53, 5000));
    assert!(
        !sends(&mut pair, B, &reply),
        "before the query it is no reply"
    );
    assert!(sends(&mut pair, A, &query));
    assert!(sends(&mut pair, B, &reply));
    let other = pair.udp(B, 53, 5001);
    assert!(!sends(&mut pair, B, &other));
    assert_eq!(pair.dropped(B, DropReason::DeniedOutbound), 2);
}

#[test]
fn a_reply_that_comes_too_late_does_not_pass() {
    let mut pair = Pair::with_bundle(&a_to_b());
    let (query, reply) = (pair.udp(A, 5000, 53), pair.udp(B, 53, 5000));
    assert!(sends(&mut pair, A, &query));
    pair.pass(Duration::from_secs(31));
    assert!(!sends(&mut pair, B, &reply));
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.hosts[B].counters.flows(), 0, "and is forgotten");
}

#[test]
fn a_denied_connection_fails_at_once_and_the_denial_is_told() {
    let mut pair = Pair::with_bundle(&a_to_b());
    let syn = pair.tcp(A, 40000, 23, SYN);
    pair.send(A, &syn);
    let told = pair.delivered(A);
    assert_eq!(told.len(), 1);
    let upper = &told[0][20..];
    assert_eq!(
        upper[..4],
        [0, 23, 0x9c, 0x40],
        "from the port that was dialled"
    );
    assert_eq!(upper[13], RST | ACK);
    assert_eq!(upper[8..12], 1001u32.to_be_bytes());
    let denials = pair.denials(A);
    assert_eq!(denials.len(), 1);
    assert_eq!(
        (denials[0].direction, denials[0].peer),
        (Direction::Outbound, PEER)
    );
    assert_eq!(denials[0].destination.port(), 23);
    assert_eq!(denials[0].rule, None);
    assert_eq!(pair.dropped(A, DropReason::DeniedOutbound), 1);
}

#[test]
fn a_denied_datagram_is_answered_by_icmp_in_both_families() {
    let mut pair = Pair::with_bundle(&a_to_b());
    for (source, destination, kind) in [(pair.v4(A), [3, 13]), (pair.v6(A), [1, 1])]
        .map(|((source, destination), kind)| (source, destination, kind))
    {
        let datagram = packets::udp(source, destination, 1, 2, b"?");
        pair.send(A, &datagram);
        let told = pair.delivered(A).pop().unwrap();
        let upper = if source.is_ipv4() { 20 } else { 40 };
        assert_eq!(told[upper..upper + 2], kind);
        assert_eq!(told[upper + 8..], datagram);
    }
}

#[test]
fn the_receiver_enforces_its_own_rules() {
    let mut pair = Pair::with_bundle(&everything());
    let mut deny = rule("no-telnet", tcp_port(23));
    deny.from = only(A);
    pair.set_bundle_at(B, &bundle(vec![rule("all", Traffic::All)], vec![deny]));
    let syn = pair.tcp(A, 40000, 23, SYN);
    assert!(!sends(&mut pair, A, &syn));
    assert_eq!(pair.dropped(B, DropReason::DeniedInbound), 1);
    let denials = pair.denials(B);
    assert_eq!(denials[0].direction, Direction::Inbound);
    assert_eq!(
        denials[0].rule,
        Some("no-telnet".parse::<RuleId>().unwrap())
    );
    assert_eq!(denials[0].source.port(), 40000);
}

#[test]
fn a_flood_of_denials_is_told_sparsely_and_counted_wholly() {
    let mut pair = Pair::with_bundle(&nothing());
    for port in 0..2000 {
        let datagram = pair.udp(A, 1, port);
        pair.offer(A, &datagram);
    }
    assert_eq!(pair.dropped(A, DropReason::DeniedOutbound), 2000);
    assert_eq!(pair.denials(A).len(), 20);
    assert_eq!(pair.delivered(A).len(), 1000, "answers are bounded too");
    assert_eq!(pair.hosts[A].counters.flows(), 0);
}

#[test]
fn without_rules_nothing_passes() {
    let mut pair = Pair::strangers(Default::default());
    pair.introduce(A);
    let datagram = pair.udp(A, 1, 2);
    pair.send(A, &datagram);
    assert_eq!(pair.dropped(A, DropReason::NoPolicy), 1);
}

#[test]
fn a_new_policy_reaches_open_flows() {
    let mut pair = connected();
    pair.set_bundle_at(B, &nothing());
    let segment = pair.tcp(A, 40000, 22, ACK);
    assert!(!sends(&mut pair, A, &segment));
    assert_eq!(pair.dropped(B, DropReason::DeniedInbound), 1);
    assert_eq!(pair.denials(B)[0].destination.port(), 22);
    let reply = pair.tcp(B, 22, 40000, ACK);
    pair.send(B, &reply);
    let told = pair.delivered(B);
    assert_eq!(told[0][33], RST, "the server's end is closed");
    pair.set_bundle_at(B, &a_to_b());
    assert!(sends(&mut pair, A, &segment), "allowed again");
}

#[test]
fn an_open_flow_is_decided_again_the_way_it_was_opened() {
    let mut pair = connected();
    pair.set_bundle(&a_to_b());
    let reply = pair.tcp(B, 22, 40000, ACK);
    assert!(
        sends(&mut pair, B, &reply),
        "B may not open to A's port 40000, but may reply"
    );
}

#[test]
fn a_server_cannot_open_a_connection_back() {
    let mut pair = connected();
    let syn = pair.tcp(B, 22, 40000, SYN);
    assert!(!sends(&mut pair, B, &syn));
    let segment = pair.tcp(A, 40000, 22, ACK);
    assert!(
        sends(&mut pair, A, &segment),
        "the connection itself lives on"
    );
}

#[test]
fn a_closed_connection_may_be_opened_again_if_allowed() {
    let mut pair = connected();
    let fin = pair.tcp(A, 40000, 22, FIN | ACK);
    assert!(sends(&mut pair, A, &fin));
    let syn = pair.tcp(A, 40000, 22, SYN);
    assert!(sends(&mut pair, A, &syn));
    assert_eq!(pair.hosts[B].counters.flows(), 1);
}

#[test]
fn connections_survive_a_restart_of_either_end() {
    for host in [A, B] {
        for first in [A, B] {
            let mut pair = connected();
            let floor = UnixTime::from_secs(pair::UNIX_START + 3600);
            pair.restart(host, &a_to_b(), floor);
            pair.pass(Duration::from_secs(1));
            let segments = [pair.tcp(A, 40000, 22, ACK), pair.tcp(B, 22, 40000, ACK)];
            pair.send(first, &segments[first]);
            // Who was not restarted still seals under the old session until it notices.
            pair.pass(Duration::from_secs(40));
            pair.delivered(1 - first);
            assert!(
                sends(&mut pair, first, &segments[first]),
                "restarted {host}, first {first}"
            );
            assert!(sends(&mut pair, 1 - first, &segments[1 - first]));
        }
    }
}

#[test]
fn a_restarted_host_reaches_back_to_who_still_uses_the_old_session() {
    let mut pair = connected();
    // The size of what passes is found out meanwhile: nothing is asked under the old session later.
    pair.pass(Duration::from_secs(1));
    let floor = UnixTime::from_secs(pair::UNIX_START + 3600);
    pair.restart(B, &a_to_b(), floor);
    pair.pass(Duration::from_secs(1));
    let segment = pair.tcp(A, 40000, 22, ACK);
    assert!(!sends(&mut pair, A, &segment), "under the old session");
    assert!(
        sends(&mut pair, A, &segment),
        "the new session is there without waiting"
    );
}

#[test]
fn a_restarted_host_does_not_reach_back_for_ever() {
    let mut pair = connected();
    let floor = UnixTime::from_secs(pair::UNIX_START + 3600);
    pair.restart(B, &a_to_b(), floor);
    let old = pair.tcp(A, 40000, 22, ACK);
    pair.offer(A, &old);
    let sealed = pair.network.pop_back().unwrap();
    let before = pair.hosts[B].counters.handshakes_started();
    let began = pair.now.monotonic;
    // Its peer is gone: nobody answers, and somebody repeats what it sent once.
    let gone = Pair::strangers(Default::default());
    let [gone, _] = gone.hosts;
    pair.hosts[A] = gone;
    while pair.now.monotonic - began < Duration::from_secs(170) {
        pair.receive(B, sealed.from, 0, &sealed.bytes);
        pair.pass(Duration::from_secs(1));
    }
    let tried = pair.hosts[B].counters.handshakes_started() - before;
    assert!((15..=19).contains(&tried), "for 90 seconds: {tried}");
}

#[test]
fn a_connection_in_the_middle_needs_a_rule_for_one_way() {
    let mut pair = Pair::with_bundle(&a_to_b());
    let segment = pair.tcp(B, 23, 40000, ACK);
    assert!(!sends(&mut pair, B, &segment));
    let answer = pair.tcp(B, 22, 40000, SYN | ACK);
    assert!(
        !sends(&mut pair, B, &answer),
        "a SYN-ACK answers a SYN and nothing else"
    );
}

#[test]
fn long_after_the_start_a_peer_cannot_pose_as_a_server() {
    let mut pair = Pair::with_bundle(&a_to_b());
    pair.set_bundle_at(B, &everything());
    let segment = pair.tcp(B, 22, 40000, ACK);
    pair.pass(Duration::from_secs(3 * 3600));
    assert!(!sends(&mut pair, B, &segment));
    assert_eq!(pair.dropped(A, DropReason::DeniedInbound), 1);
}

#[test]
fn pings_are_answered_and_unasked_replies_are_not_delivered() {
    let mut pair = Pair::with_bundle(&a_to_b());
    let ends = [pair.v4(A), pair.v6(A)];
    // An identifier of 0 is as good as any.
    for ((source, destination), identifier) in ends.into_iter().zip([7, 0]) {
        let request = packets::echo(source, destination, true, identifier);
        let reply = packets::echo(destination, source, false, identifier);
        let other = packets::echo(destination, source, false, 8);
        let back = packets::echo(destination, source, true, identifier);
        assert!(sends(&mut pair, A, &request));
        assert!(sends(&mut pair, B, &reply));
        assert!(!sends(&mut pair, B, &other));
        assert!(!sends(&mut pair, B, &back), "asking is not replying");
    }
    assert_eq!(pair.dropped(B, DropReason::UnrelatedReply), 2);
    assert_eq!(pair.dropped(B, DropReason::DeniedOutbound), 2);
}

#[test]
fn icmp_errors_pass_when_they_are_about_a_flow() {
    let mut pair = Pair::with_bundle(&a_to_b());
    for (source, destination) in [pair.v4(A), pair.v6(A)] {
        let query = packets::udp(source, destination, 5000, 53, b"?");
        let error = packets::unreachable(destination, source, &query);
        assert!(!sends(&mut pair, B, &error), "about nothing");
        assert!(sends(&mut pair, A, &query));
        assert!(sends(&mut pair, B, &error));
        let elsewhere = packets::udp(source, source, 5000, 53, b"?");
        let lie = packets::unreachable(destination, source, &elsewhere);
        assert!(!sends(&mut pair, B, &lie));
    }
    assert_eq!(pair.dropped(B, DropReason::UnrelatedIcmp), 4);
    assert!(pair.delivered(B).len() <= 2, "errors are never answered");
}

#[test]
fn redirects_have_no_place() {
    let mut pair = Pair::with_bundle(&everything());
    let (source, destination) = pair.v4(A);
    let redirect = packets::ip(
        source,
        destination,
        packets::ICMP,
        &[5, 1, 0, 0, 1, 2, 3, 4],
    );
    assert!(!sends(&mut pair, A, &redirect));
    assert_eq!(pair.dropped(A, DropReason::ForbiddenIcmp), 1);
}

#[test]
fn fragments_follow_their_first() {
    let mut pair = Pair::with_bundle(&a_to_b());
    let (source, destination) = pair.v4(A);
    let whole = packets::udp(source, destination, 5000, 53, &[7; 1192]);
    let fragment = |offset_and_flags: u16, upper: &[u8]| {
        let mut packet = packets::ip(source, destination, packets::UDP, upper);
        packet[6..8].copy_from_slice(&offset_and_flags.to_be_bytes());
        packet
    };
    let first = fragment(0x2000, &whole[20..620]);
    let second = fragment(75, &whole[620..]);
    assert!(!sends(&mut pair, A, &second));
    assert_eq!(pair.dropped(A, DropReason::UnknownFragment), 1);
    assert!(sends(&mut pair, A, &first));
    assert!(sends(&mut pair, A, &second));
    pair.set_bundle(&nothing());
    assert!(!sends(&mut pair, A, &second), "under new rules");
}

#[test]
fn packets_above_the_mtu_are_answered_with_it() {
    let mut pair = Pair::with_bundle(&everything());
    for (source, destination) in [pair.v4(A), pair.v6(A)] {
        let big = packets::udp(source, destination, 1, 2, &[0; 1421]);
        pair.send(A, &big);
        let told = pair.delivered(A).pop().unwrap();
        let upper = if source.is_ipv4() { 20 } else { 40 };
        assert_eq!(told[upper], if source.is_ipv4() { 3 } else { 2 });
        assert_eq!(told[upper + 4..upper + 8], 1420u32.to_be_bytes());
    }
    assert_eq!(pair.dropped(A, DropReason::TooBig), 2);
}

#[test]
fn what_is_not_for_a_host_of_the_overlay_is_dropped_for_its_own_reason() {
    let mut pair = Pair::with_bundle(&everything());
    let (own, own6) = (pair.v4(A).0, pair.v6(A).0);
    let to = |destination: &str| packets::udp(own, destination.parse().unwrap(), 1, 2, b"");
    let to6 = |destination: &str| packets::udp(own6, destination.parse().unwrap(), 1, 2, b"");
    let solicitation = packets::ip(
        "fe80::1".parse().unwrap(),
        "ff02::2".parse().unwrap(),
        packets::ICMPV6,
        &[133, 0, 0, 0, 0, 0, 0, 0],
    );
    let foreign = packets::udp("10.9.9.9".parse().unwrap(), pair.v4(A).1, 1, 2, b"");
    let cases = [
        (to("224.0.0.251"), DropReason::Multicast),
        (to6("ff02::fb"), DropReason::Multicast),
        (to("255.255.255.255"), DropReason::Broadcast),
        (to("169.254.1.1"), DropReason::LinkLocal),
        (to6("fe80::1"), DropReason::LinkLocal),
        (to("127.0.0.1"), DropReason::NotUnicast),
        (to("100.64.0.1"), DropReason::OwnAddress),
        (solicitation, DropReason::RouterSolicitation),
        (foreign, DropReason::ForeignSource),
    ];
    for (packet, reason) in cases {
        let before = pair.dropped(A, reason);
        pair.send(A, &packet);
        assert_eq!(pair.dropped(A, reason), before + 1, "{reason:?}");
    }
    assert!(pair.delivered(A).is_empty(), "none of them is answered");
    pair.send(A, &to("100.64.9.9"));
    assert_eq!(pair.dropped(A, DropReason::UnknownDestination), 1);
    assert_eq!(pair.delivered(A)[0][20..22], [3, 1]);
}

#[test]
fn congestion_marks_travel_through_the_tunnel() {
    const ECT_0: u8 = 2;
    const CONGESTION: u8 = 3;
    let mut pair = Pair::with_bundle(&everything());
    let plain = pair.udp(A, 1, 2);
    pair.send(A, &plain);
    pair.delivered(B);
    let capable = packets::with_ecn(plain.clone(), ECT_0);
    pair.offer(A, &capable);
    assert_eq!(pair.network[0].ecn, ECT_0);
    pair.network[0].ecn = CONGESTION;
    pair.run();
    assert_eq!(
        pair.delivered(B),
        [packets::with_ecn(plain.clone(), CONGESTION)]
    );
    pair.offer(A, &plain);
    pair.network[0].ecn = CONGESTION;
    pair.run();
    assert!(pair.delivered(B).is_empty());
    assert_eq!(pair.dropped(B, DropReason::CongestionUnmarkable), 1);
}

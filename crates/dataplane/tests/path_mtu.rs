//! Paths that take less than the interface, or more than is common: found by probes, and kept to.
//! The network drops what is too large and tells nobody, not even in fragments.

mod pair;

use std::time::Duration;

use dataplane::{
    Command, DropReason, Event, PathMtuReport, PeerKind, ShardConfig, Standing, VirtioHeader,
};
use pair::packets::{self, ACK, SYN, TCP};
use pair::{A, B, Pair, bundle, rule};

/// UDP and IPv4 around a datagram.
const AROUND: usize = 28;
const SECOND: Duration = Duration::from_secs(1);

/// Two hosts with interfaces of 8920 bytes that allow each other everything.
fn jumbo() -> Pair {
    let config = ShardConfig {
        mtu: 8920,
        ..ShardConfig::default()
    };
    let mut pair = Pair::strangers(config);
    for host in [A, B] {
        pair.introduce(host);
        pair.set_path(host, pair.hosts[1 - host].underlay);
    }
    pair.set_bundle(&bundle(
        vec![rule("all", model::rule::Traffic::All)],
        Vec::new(),
    ));
    pair
}

fn set_underlay(pair: &mut Pair, bytes: usize) {
    pair.datagram_max = bytes - AROUND;
}

/// A datagram from A to B of so many bytes in all, for ports that both know.
fn udp(pair: &Pair, is_ipv6: bool, bytes: usize) -> Vec<u8> {
    let ((source, destination), headers) = match is_ipv6 {
        true => (pair.v6(A), 48),
        false => (pair.v4(A), 28),
    };
    packets::udp(source, destination, 40000, 53, &vec![7; bytes - headers])
}

/// Sends something small, and lets the path be found.
fn find(pair: &mut Pair) -> PathMtuReport {
    let small = udp(pair, false, 100);
    pair.send(A, &small);
    pair.pass(5 * SECOND);
    pair.delivered(A);
    pair.delivered(B);
    report(pair)
}

fn report(pair: &mut Pair) -> PathMtuReport {
    pair.command(A, vec![Command::Report]);
    let report = pair
        .events(A)
        .into_iter()
        .rev()
        .find_map(|event| match event {
            Event::Report(report) => Some(report),
            _ => None,
        });
    report.expect("it was asked for").peers[0].path_mtu
}

fn proven(bytes: u16) -> PathMtuReport {
    PathMtuReport {
        bytes,
        standing: Standing::Proven,
        black_holes: 0,
    }
}

fn sends(pair: &mut Pair, packet: &[u8]) -> bool {
    pair.send(A, packet);
    pair.delivered(B).iter().any(|it| it == packet)
}

/// Bytes of the largest datagram that was seen since the last call.
fn largest_seen(pair: &mut Pair) -> usize {
    let seen = std::mem::take(&mut pair.seen);
    seen.iter().map(|it| it.bytes.len()).max().unwrap_or(0)
}

/// A TCP super-packet, or a plain segment, from A to B with so many bytes of data; what the kernel
/// gives has no checksum, and what is delivered has one.
fn tcp(pair: &Pair, is_ipv6: bool, flags: u8, data: usize) -> Vec<u8> {
    let (source, destination) = if is_ipv6 { pair.v6(A) } else { pair.v4(A) };
    let mut upper = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1];
    upper.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    upper.extend((0..data).map(|at| at as u8));
    packets::ip(source, destination, TCP, &upper)
}

fn super_header(is_ipv6: bool, size: u16) -> VirtioHeader {
    VirtioHeader {
        flags: 1,
        gso_type: if is_ipv6 { 4 } else { 1 },
        header_len: 0,
        gso_size: size,
        csum_start: if is_ipv6 { 40 } else { 20 },
        csum_offset: 16,
    }
}

/// Puts the data of delivered segments together, which must be whole and in order.
fn data_of(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    for packet in packets {
        let headers = dataplane::packet::Headers::parse(packet).expect("a whole packet");
        let upper = &packet[headers.upper_start..];
        let sequence = u32::from_be_bytes([upper[4], upper[5], upper[6], upper[7]]);
        assert_eq!(sequence as usize, 1 + data.len());
        let pseudo = [
            &packet[if packet[0] >> 4 == 4 { 12..20 } else { 8..40 }],
            &(upper.len() as u32).to_be_bytes(),
            &[0, 0, 0, TCP],
            upper,
        ];
        assert_eq!(packets::checksum(&pseudo.concat()), [0, 0]);
        data.extend(&upper[20..]);
    }
    data
}

#[test]
fn jumbo_frames_are_used_where_they_pass() {
    let mut pair = jumbo();
    set_underlay(&mut pair, 9000);
    assert_eq!(find(&mut pair), proven(8920));
    for is_ipv6 in [false, true] {
        let packet = udp(&pair, is_ipv6, 8920);
        assert!(sends(&mut pair, &packet));
    }
    assert_eq!(largest_seen(&mut pair), 8920 + 32);
}

#[test]
fn a_narrow_path_is_kept_to_by_every_kind_of_packet() {
    let mut pair = jumbo();
    set_underlay(&mut pair, 1400);
    assert_eq!(find(&mut pair), proven(1340));
    for is_ipv6 in [false, true] {
        let data = 20_000;
        let mut packet = tcp(&pair, is_ipv6, ACK, data);
        pair.offer_with(A, super_header(is_ipv6, 8860), &mut packet.clone());
        pair.run();
        let delivered = pair.delivered(B);
        assert!(delivered.iter().all(|it| it.len() <= 1340));
        let sent: Vec<u8> = (0..data).map(|at| at as u8).collect();
        assert_eq!(data_of(&delivered), sent);
        // A plain segment that the kernel made for the interface.
        packet = tcp(&pair, is_ipv6, ACK, 4000);
        pair.send(A, &packet);
        let delivered = pair.delivered(B);
        assert_eq!(data_of(&delivered), sent[..4000]);
        assert_eq!(delivered.len(), 4);
    }
    assert!(largest_seen(&mut pair) <= 1400 - AROUND);
    assert_eq!(pair.hosts[A].counters.packets_cut(), 4);
}

#[test]
fn senders_are_told_what_passes() {
    let mut pair = jumbo();
    set_underlay(&mut pair, 1400);
    find(&mut pair);
    for (is_ipv6, upper) in [(false, 20), (true, 40)] {
        let kinds = [3, 2];
        let packet = udp(&pair, is_ipv6, 1341);
        assert!(!sends(&mut pair, &packet));
        let told = pair.delivered(A).pop().expect("an ICMP error");
        assert_eq!(told[upper], kinds[usize::from(is_ipv6)]);
        assert_eq!(told[upper + 4..upper + 8], 1340u32.to_be_bytes());
        let fits = udp(&pair, is_ipv6, 1340);
        assert!(sends(&mut pair, &fits));
        // TCP passes all the same, and hears of it so that it sends what fits.
        let segment = tcp(&pair, is_ipv6, ACK, 4000);
        pair.send(A, &segment);
        assert_eq!(pair.delivered(B).len(), 4);
        let told = pair.delivered(A).pop().expect("an ICMP error");
        assert_eq!(told[upper + 4..upper + 8], 1340u32.to_be_bytes());
        assert_eq!(told[upper + 8..][..40], segment[..40]);
    }
    assert_eq!(pair.dropped(A, DropReason::TooBig), 2);
    // Not for each of them.
    for _ in 0..100 {
        let segment = tcp(&pair, false, ACK, 4000);
        pair.send(A, &segment);
    }
    assert!(pair.delivered(A).len() <= 4);
}

#[test]
fn what_may_be_cut_is_cut_and_a_syn_is_not() {
    let mut pair = jumbo();
    set_underlay(&mut pair, 1400);
    find(&mut pair);
    let mut packet = udp(&pair, false, 4000);
    packet[6] &= !0x40;
    packet[10..12].fill(0);
    let checksum = packets::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum);
    pair.send(A, &packet);
    let delivered = pair.delivered(B);
    assert!(delivered.len() > 1 && delivered.iter().all(|it| it.len() <= 1340));
    let payload: Vec<u8> = delivered.iter().flat_map(|it| it[20..].to_vec()).collect();
    assert_eq!(payload, packet[20..]);
    let opening = tcp(&pair, false, SYN, 4000);
    assert!(!sends(&mut pair, &opening));
    assert_eq!(pair.dropped(A, DropReason::TooBig), 1);
}

#[test]
fn until_a_path_is_known_everything_leaves_as_it_did() {
    let mut pair = jumbo();
    let opening = udp(&pair, false, 100);
    pair.send(A, &opening);
    pair.delivered(B);
    // The network could have cut it, and nobody is told of a size that is about to change.
    let large = udp(&pair, false, 5000);
    assert!(sends(&mut pair, &large));
    assert!(pair.delivered(A).is_empty());
    pair.offer_with(
        A,
        super_header(false, 8880),
        &mut tcp(&pair, false, ACK, 9000),
    );
    pair.run();
    let delivered = pair.delivered(B);
    assert!(delivered.iter().all(|it| it.len() <= 1420));
    assert!(pair.delivered(A).is_empty());
}

#[test]
fn a_black_hole_is_left_while_packets_flow() {
    let mut pair = jumbo();
    set_underlay(&mut pair, 1500);
    assert_eq!(find(&mut pair), proven(1440));
    set_underlay(&mut pair, 1400);
    let mut lost = 0;
    for _ in 0..100 {
        pair.offer_with(
            A,
            super_header(false, 1400),
            &mut tcp(&pair, false, ACK, 1400),
        );
        pair.pass(SECOND / 10);
        lost += usize::from(pair.delivered(B).is_empty());
    }
    assert!((1..=60).contains(&lost), "{lost} of 100 in ten seconds");
    let found = PathMtuReport {
        black_holes: 1,
        ..proven(1340)
    };
    assert_eq!(report(&mut pair), found);
    // It grows again, and that is found when it is looked for.
    set_underlay(&mut pair, 9000);
    for _ in 0..620 {
        pair.offer_with(
            A,
            super_header(false, 1400),
            &mut tcp(&pair, false, ACK, 1400),
        );
        pair.pass(SECOND);
    }
    assert_eq!(report(&mut pair).bytes, 8920);
}

#[test]
fn a_peer_that_knows_no_probes_keeps_what_is_assumed() {
    let mut pair = jumbo();
    // To B, A is a device, whose daemon says nothing: as an older version, it drops what it is asked.
    let Command::SetPeer {
        index,
        key,
        addresses,
        preshared,
        keepalive,
        cipher,
        ..
    } = pair.peer(B)
    else {
        unreachable!("it introduces a peer");
    };
    let device = Command::SetPeer {
        index,
        kind: PeerKind::Standard,
        key,
        addresses,
        preshared,
        keepalive,
        cipher,
    };
    pair.command(B, vec![device]);
    let assumed = PathMtuReport {
        bytes: 1420,
        standing: Standing::Assumed,
        black_holes: 0,
    };
    assert_eq!(find(&mut pair), assumed);
    let asked = pair.hosts[A].counters.path_probes();
    assert_eq!(asked, 3);
    for (is_ipv6, bytes, passes) in [
        (false, 1420, true),
        (true, 1420, true),
        (false, 1421, false),
    ] {
        let packet = udp(&pair, is_ipv6, bytes);
        assert_eq!(sends(&mut pair, &packet), passes);
    }
    // Nor does it ask.
    let answer = packets::udp(pair.v4(B).0, pair.v4(B).1, 53, 40000, b"answer");
    pair.send(B, &answer);
    pair.pass(5 * SECOND);
    assert_eq!(pair.hosts[B].counters.path_probes(), 0);
}

#[test]
fn who_has_moved_is_asked_anew() {
    let mut pair = jumbo();
    set_underlay(&mut pair, 9000);
    find(&mut pair);
    set_underlay(&mut pair, 1500);
    pair.hosts[B].underlay = "[2001:db8::7]:51820".parse().unwrap();
    let answer = packets::udp(pair.v4(B).0, pair.v4(B).1, 53, 40000, b"answer");
    pair.send(B, &answer);
    let assumed = report(&mut pair);
    assert_eq!((assumed.bytes, assumed.standing), (1420, Standing::Assumed));
    // By IPv6 there is less room; the network of these tests counts IPv4's headers.
    assert_eq!(find(&mut pair), proven(1420));
}

#[test]
fn an_idle_peer_costs_nothing() {
    let mut pair = jumbo();
    find(&mut pair);
    let asked = pair.hosts[A].counters.path_probes();
    let large = udp(&pair, false, 8000);
    assert!(sends(&mut pair, &large));
    // One proof of what is used, and no more.
    pair.pass(3600 * SECOND);
    assert_eq!(pair.hosts[A].counters.path_probes(), asked + 1);
}

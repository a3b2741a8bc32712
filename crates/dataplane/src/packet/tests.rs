//! Packets that are right, and each way to be wrong.

use proptest::prelude::*;

use super::*;

fn v4(ip_protocol: u8, upper: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((20 + upper.len()) as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = ip_protocol;
    packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
    packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
    packet.extend_from_slice(upper);
    packet
}

fn v6(next_header: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
    packet[6] = next_header;
    packet[7] = 64;
    (packet[8], packet[23]) = (0xfd, 1);
    (packet[24], packet[39]) = (0xfd, 2);
    packet.extend_from_slice(rest);
    packet
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
    header[12] = 5 << 4;
    header[13] = flags;
    header
}

fn udp(length: u16) -> Vec<u8> {
    let mut header = vec![0, 53, 0xab, 0xcd, 0, 0, 0, 0];
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header
}

fn error(packet: &[u8]) -> DropReason {
    Headers::parse(packet).unwrap_err()
}

#[test]
fn ports_and_flags_are_read_from_both_families() {
    for packet in [v4(6, &tcp(2)), v6(6, &tcp(2))] {
        let headers = Headers::parse(&packet).unwrap();
        assert_eq!(headers.ports(), (0x1234, 80));
        assert!(matches!(headers.upper, Upper::Tcp { flags, .. } if flags.opens()));
        assert_eq!(headers.length, packet.len());
    }
    let headers = Headers::parse(&v4(17, &udp(8))).unwrap();
    assert_eq!(headers.ports(), (53, 0xabcd));
    let headers = Headers::parse(&v6(128 - 70, &[128, 0, 0, 0, 7, 8, 0, 0])).unwrap();
    assert_eq!(headers.upper, Upper::EchoRequest { identifier: 0x0708 });
}

#[test]
fn padding_behind_the_packet_is_ignored() {
    let mut packet = v4(17, &udp(8));
    packet.extend_from_slice(&[0; 5]);
    assert_eq!(Headers::parse(&packet).unwrap().length, 28);
}

#[test]
fn lengths_that_contradict_are_refused() {
    assert_eq!(error(&[]), DropReason::NotIp);
    assert_eq!(error(&[0x50; 40]), DropReason::NotIp);
    assert_eq!(error(&v4(17, &udp(8))[..27]), DropReason::Truncated);
    assert_eq!(error(&v6(17, &udp(8))[..47]), DropReason::Truncated);
    assert_eq!(error(&v4(17, &udp(9))), DropReason::BadTransport);
    assert_eq!(error(&v4(17, &udp(7))), DropReason::BadTransport);
    assert_eq!(error(&v4(6, &tcp(2)[..19])), DropReason::Truncated);
    let mut short_header = v4(17, &udp(8));
    short_header[0] = 0x44;
    assert_eq!(error(&short_header), DropReason::BadHeader);
    let mut short_total = v4(17, &udp(8));
    short_total[3] = 19;
    assert_eq!(error(&short_total), DropReason::BadHeader);
    let mut short_offset = tcp(2);
    short_offset[12] = 4 << 4;
    assert_eq!(error(&v4(6, &short_offset)), DropReason::BadTransport);
}

#[test]
fn flags_that_no_sender_makes_are_refused() {
    assert_eq!(error(&v4(6, &tcp(0x03))), DropReason::BadTransport);
    assert_eq!(error(&v4(6, &tcp(0x06))), DropReason::BadTransport);
}

#[test]
fn icmp_of_the_other_family_is_refused() {
    assert_eq!(
        error(&v4(58, &[128, 0, 0, 0, 0, 0, 0, 0])),
        DropReason::BadTransport
    );
    assert_eq!(
        error(&v6(1, &[8, 0, 0, 0, 0, 0, 0, 0])),
        DropReason::BadTransport
    );
}

#[test]
fn source_routes_are_refused() {
    let mut packet = v4(17, &udp(8));
    packet[0] = 0x46;
    packet[3] += 4;
    packet.splice(20..20, [131, 3, 4, 0]);
    assert_eq!(error(&packet), DropReason::SourceRouted);
    packet[20] = 7;
    assert!(Headers::parse(&packet).is_ok(), "another option");
    packet[21] = 5;
    assert_eq!(
        error(&packet),
        DropReason::BadHeader,
        "it ends behind the header"
    );
    packet[21] = 1;
    assert_eq!(error(&packet), DropReason::BadHeader, "it would never end");
    let routing = |segments_left| {
        let mut rest = vec![17, 0, 0, segments_left, 0, 0, 0, 0];
        rest.extend(udp(8));
        v6(43, &rest)
    };
    assert_eq!(error(&routing(1)), DropReason::SourceRouted);
    assert_eq!(Headers::parse(&routing(0)).unwrap().upper_start, 48);
}

#[test]
fn the_walk_over_extension_headers_is_bounded() {
    let chain = |count: usize| {
        let mut rest = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count - 1);
        rest.extend([17, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend(udp(8));
        v6(60, &rest)
    };
    assert_eq!(Headers::parse(&chain(6)).unwrap().ports(), (53, 0xabcd));
    assert_eq!(error(&chain(7)), DropReason::TooManyExtensions);
    assert_eq!(
        error(&v6(60, &[17, 1, 0, 0, 0, 0, 0, 0])),
        DropReason::Truncated
    );
    let late_hop_by_hop = [[0, 0, 0, 0, 0, 0, 0, 0], [17, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(error(&v6(60, &late_hop_by_hop)), DropReason::BadHeader);
}

#[test]
fn fragments_are_told_apart() {
    let fragmented = |offset_and_flags: u16, upper: &[u8]| {
        let mut packet = v4(17, upper);
        packet[4..6].copy_from_slice(&[0xbe, 0xef]);
        packet[6..8].copy_from_slice(&offset_and_flags.to_be_bytes());
        packet
    };
    let first = Headers::parse(&fragmented(0x2000, &udp(3000))).unwrap();
    assert_eq!(first.fragment, Fragment::First { id: 0xbeef });
    assert_eq!(first.ports(), (53, 0xabcd));
    let later = Headers::parse(&fragmented(0x0003, &[0; 16])).unwrap();
    assert_eq!(
        later.fragment,
        Fragment::Later {
            id: 0xbeef,
            offset: 3
        }
    );
    assert_eq!(later.upper, Upper::Opaque);
    assert_eq!(
        error(&fragmented(0x2000, &[0; 4])),
        DropReason::UnsafeFragment
    );
    let mut over_flags = fragmented(0x0001, &[0; 16]);
    over_flags[9] = 6;
    assert_eq!(error(&over_flags), DropReason::UnsafeFragment);
    let mut rest = vec![17, 0, 0, 1, 0, 0, 0, 9];
    rest.extend(udp(3000));
    let first = Headers::parse(&v6(44, &rest)).unwrap();
    assert_eq!(first.fragment, Fragment::First { id: 9 });
}

#[test]
fn an_error_quotes_the_flow_that_went_wrong() {
    let quoted = v4(17, &udp(500));
    let mut upper = vec![3, 3, 0, 0, 0, 0, 0, 0];
    upper.extend(&quoted);
    let packet = v4(1, &upper);
    let headers = Headers::parse(&packet).unwrap();
    assert_eq!(headers.upper, Upper::IcmpError);
    let quote = Quoted::parse(&headers, &packet).unwrap();
    assert_eq!(
        quote.upper,
        Upper::Udp {
            source_port: 53,
            destination_port: 0xabcd
        }
    );
    let short = v4(1, &upper[..8 + 20 + 7]);
    assert_eq!(
        Quoted::parse(&Headers::parse(&short).unwrap(), &short),
        None
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(headers) = Headers::parse(&bytes) {
            prop_assert!(headers.upper_start <= headers.length && headers.length <= bytes.len());
            let _ = Quoted::parse(&headers, &bytes);
        }
    }

    #[test]
    fn damaged_packets_never_panic(at in 0usize..80, value: u8, six: bool, cut in 0usize..90) {
        let mut upper = vec![3, 3, 0, 0, 0, 0, 0, 0];
        upper.extend(v4(6, &tcp(2)));
        let mut packet = if six { v6(58, &upper) } else { v4(1, &upper) };
        let at = at % packet.len();
        packet[at] = value;
        packet.truncate(cut.max(1));
        if let Ok(headers) = Headers::parse(&packet) {
            let _ = Quoted::parse(&headers, &packet);
        }
    }
}

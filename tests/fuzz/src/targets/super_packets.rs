//! What a kernel with offloads gives: a virtio header, and a packet that may stand for many. Each
//! that leaves is whole, and together they hold what was given, or nothing leaves.

use dataplane::VirtioHeader;
use dataplane::packet::Headers;

use crate::Seed;
use crate::kernel::{GSO_TCPV4, GSO_TCPV6, GSO_UDP, NEEDS_CHECKSUM, Parts};
use crate::live::Live;
use crate::packets::{self, Way};

/// Packets that one may stand for here, so that an input stays quick.
const SEGMENTS_MAX: usize = 300;

/// Reads ten bytes as the header of those behind them, and has a shard send them.
pub fn target(bytes: &[u8]) {
    let Some((header, packet)) = bytes.split_first_chunk() else {
        return;
    };
    let header = VirtioHeader::decode(*header);
    assert_eq!(VirtioHeader::decode(header.encode()), header);
    if packet.len() / usize::from(header.gso_size.max(1)) > SEGMENTS_MAX {
        return;
    }
    let arrived = send(header, packet);
    if header.gso_type & 0x7f == 0 {
        assert!(arrived.len() <= 1, "it stands for itself");
        assert!(arrived.iter().all(|it| it.len() <= packet.len()));
    } else if !arrived.is_empty() {
        check_segments(header, packet, &arrived);
    }
}

fn send(header: VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut live = Live::new();
    live.send_offloaded(header, packet);
    live.carry();
    let mut arrived = live.take_arrived();
    for packet in &mut arrived {
        // A tunnel pads.
        let length = Headers::parse(packet).map_or(0, |headers| headers.length);
        packet.truncate(length);
    }
    arrived
}

fn check_segments(header: VirtioHeader, packet: &[u8], arrived: &[Vec<u8>]) {
    let size = usize::from(header.gso_size);
    let mut payload = Vec::new();
    for segment in arrived {
        let parts = Parts::of(segment).expect("it was cut into whole packets");
        assert!(parts.is_whole(segment), "{segment:?}");
        payload.extend_from_slice(&segment[parts.payload_start..]);
        assert!(segment.len() - parts.payload_start <= size);
    }
    let headers_len = Parts::of(&arrived[0]).map_or(0, |parts| parts.payload_start);
    let given = &packet[headers_len..];
    assert!(given.starts_with(&payload), "what was given, but padding");
    assert_eq!(arrived.len(), payload.len().div_ceil(size).max(1));
}

/// Super-packets of each kind, one of a single segment, and a checksum that was left to us.
pub(crate) fn seeds() -> Vec<Seed> {
    let data: Vec<u8> = (0..600).map(|at| (at % 251) as u8).collect();
    let mut seeds = Vec::new();
    for (version, way, gso_tcp) in [
        ("v4", Way::out(), GSO_TCPV4),
        ("v6", Way::out_v6(), GSO_TCPV6),
    ] {
        let mut tcp = way.tcp(40000, 443, packets::SYN);
        tcp.extend_from_slice(&data);
        let mut udp = way.udp(5000, 53, &data);
        for (kind, packet, gso_type) in [("tcp", &mut tcp, gso_tcp), ("udp", &mut udp, GSO_UDP)] {
            packets::set_length(packet);
            let parts = Parts::of(packet).expect("it is good");
            parts.mend(packet);
            parts.leave_checksum(packet);
            for (name, gso_type, gso_size) in [
                ("cut", gso_type, 250),
                ("one", gso_type, 1000),
                ("plain", 0, 0),
            ] {
                let header = VirtioHeader {
                    flags: NEEDS_CHECKSUM,
                    gso_type,
                    header_len: parts.payload_start as u16,
                    gso_size,
                    csum_start: parts.upper_start as u16,
                    csum_offset: if kind == "tcp" { 16 } else { 6 },
                };
                let bytes = [&header.encode()[..], packet].concat();
                seeds.push(Seed::new(format!("{version}-{kind}-{name}"), bytes));
            }
        }
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_leave_as_what_they_stand_for() {
        for seed in seeds() {
            let (header, packet) = seed.bytes.split_first_chunk().unwrap();
            let header = VirtioHeader::decode(*header);
            let expected = if seed.name.ends_with("cut") { 3 } else { 1 };
            let arrived = send(header, packet);
            assert_eq!(arrived.len(), expected, "{}", seed.name);
            for packet in arrived {
                assert!(
                    Parts::of(&packet).unwrap().is_whole(&packet),
                    "{}",
                    seed.name
                );
            }
        }
    }
}

//! Packets that are joined for the kernel: what it cuts again are the very same packets, and none
//! of a flow overtakes another.

use std::net::IpAddr;

use dataplane::packet::Headers;
use dataplane::{Coalescer, Joins};

use crate::Seed;
use crate::kernel::{Parts, cut};
use crate::packets::{self, Way};

/// Packets in one run, so that an input stays quick.
const PACKETS_MAX: usize = 200;
const ROOM: usize = 1 << 16;

/// The first byte says which kinds are joined, and whether the senders put checksums right; then
/// come packets, each behind its length in two bytes.
pub fn target(bytes: &[u8]) {
    let Some((choices, rest)) = bytes.split_first() else {
        return;
    };
    let joins = Joins {
        tcp: choices & 1 == 0,
        udp: choices & 2 == 0,
    };
    let mut packets = read(rest);
    if choices & 4 == 0 {
        packets.iter_mut().for_each(|packet| mend(packet));
    }
    packets.retain(|packet| is_delivered(packet));
    let (_, delivered) = through(joins, &packets);
    let flows = |packets: &[Vec<u8>]| {
        let mut packets = packets.to_vec();
        packets.iter_mut().for_each(|packet| forget_id(packet));
        // Stable: within a flow they stay in order.
        packets.sort_by_key(|packet| flow_of(packet));
        packets
    };
    assert_eq!(flows(&delivered), flows(&packets));
}

fn read(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk()
        && packets.len() < PACKETS_MAX
    {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (packet, rest) = rest.split_at(length);
        if !packet.is_empty() {
            packets.push(packet.to_vec());
        }
        bytes = rest;
    }
    packets
}

/// Returns whether a shard may deliver such a packet: one that it could read, without padding.
fn is_delivered(packet: &[u8]) -> bool {
    Headers::parse(packet).is_ok_and(|headers| headers.length == packet.len())
}

fn mend(packet: &mut [u8]) {
    if let Some(parts) = Parts::of(packet) {
        parts.mend(packet);
    }
}

/// Of an IPv4 packet that may not be fragmented the identification means nothing (RFC 6864, 4.1).
fn forget_id(packet: &mut [u8]) {
    let is_atomic = Parts::of(packet).is_some() && packet[0] >> 4 == 4 && packet[6] & 0x40 != 0;
    if is_atomic {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
}

/// Returns how many the kernel gets, and what it makes of them.
fn through(joins: Joins, packets: &[Vec<u8>]) -> (usize, Vec<Vec<u8>>) {
    let mut coalescer = Coalescer::new(joins, ROOM);
    let (mut given, mut delivered) = (0, Vec::new());
    let mut flush = |coalescer: &mut Coalescer| {
        coalescer.take_all(|header, parts| {
            assert!(parts.len() <= Coalescer::PARTS_MAX);
            let packet = parts.concat();
            assert!(packet.len() <= usize::from(u16::MAX));
            given += 1;
            delivered.extend(cut(header, &packet));
        });
    };
    for packet in packets {
        if !coalescer.has_room(packet.len()) {
            flush(&mut coalescer);
        }
        coalescer.add(packet.len(), |room| {
            room[..packet.len()].copy_from_slice(packet);
            packet.len()
        });
    }
    flush(&mut coalescer);
    (given, delivered)
}

/// Returns addresses, protocol and ports.
fn flow_of(packet: &[u8]) -> (IpAddr, IpAddr, u8, (u16, u16)) {
    let headers = Headers::parse(packet).expect("others are not delivered");
    let Headers {
        source,
        destination,
        ip_protocol,
        ..
    } = headers;
    (source, destination, ip_protocol, headers.ports())
}

fn written(choices: u8, packets: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![choices];
    for packet in packets {
        bytes.extend(packets::length(packet.len()));
        bytes.extend_from_slice(packet);
    }
    bytes
}

/// Segments of one flow, of two by turns, with a fragment between, and datagrams.
pub(crate) fn seeds() -> Vec<Seed> {
    let segment = |way: Way, port: u16, number: u32, bytes: usize| {
        let mut packet = way.tcp(port, 22, packets::ACK);
        let parts = Parts::of(&packet).expect("it is good");
        let at = parts.upper_start + 4;
        packet[at..at + 4].copy_from_slice(&(1000 + number * 100).to_be_bytes());
        packet.extend((0..bytes).map(|at| at as u8));
        packets::set_length(&mut packet);
        mend(&mut packet);
        packet
    };
    let (v4, v6) = (Way::out().back(), Way::out_v6().back());
    let of = |way: Way| -> Vec<Vec<u8>> { (0..6).map(|n| segment(way, 9, n, 100)).collect() };
    let by_turns: Vec<_> = (0..8)
        .map(|n| segment(v4, 9 + (n % 2) as u16, n / 2, 100))
        .collect();
    let mut torn = of(v4);
    torn.insert(3, packets::fragment_v4(v4.udp(5000, 53, &[7; 64]), 8, true));
    let datagrams: Vec<_> = (0..6).map(|_| v4.udp(5000, 53, &[7; 64])).collect();
    let mut shorter = of(v4);
    shorter.insert(4, segment(v4, 9, 6, 40));
    let runs = [
        ("tcp-v4", of(v4)),
        ("tcp-v6", of(v6)),
        ("two-by-turns", by_turns),
        ("torn", torn),
        ("udp", datagrams),
        ("one-shorter", shorter),
    ];
    runs.map(|(name, packets)| Seed::new(name, written(0, &packets)))
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_flows_are_joined() {
        let all = Joins {
            tcp: true,
            udp: true,
        };
        for (name, expected) in [("tcp-v4", 1), ("tcp-v6", 1), ("two-by-turns", 2)] {
            let seed = seeds().into_iter().find(|seed| seed.name == name).unwrap();
            let mut packets = read(&seed.bytes[1..]);
            packets.iter_mut().for_each(|packet| mend(packet));
            assert_eq!(through(all, &packets).0, expected, "{name}");
        }
    }
}

//! Packets through a shard with one peer, out and in, beside sealing and opening alone.

use std::time::Duration;

use dataplane::{DataCipher, VirtioHeader};
use wireguard::sealed_len;

use crate::measure::{Each, each, each_after, grouped};
use crate::packets::{self, ACK};
use crate::pair::{Host, Pair};
use crate::tunnels::{self, End};

/// Packets that go through at once.
const BURST: usize = 46;
/// Bytes of the largest overlay packet.
const MTU: usize = 1420;

/// Prints the table of each cipher.
pub(crate) fn measure() {
    println!("## A shard, one core, no kernel\n");
    println!("| cipher | packets | | each | packets/s | Gb/s | sealing or opening alone = 1 |");
    println!("|---|---|---|--:|--:|--:|--:|");
    for (name, cipher) in [
        ("ChaCha20-Poly1305", DataCipher::ChaCha20Poly1305),
        ("AES-256-GCM", DataCipher::Aes256Gcm),
    ] {
        for bytes in [64, MTU] {
            let show = |what: &str, way: &str, each: Each, alone: Each| {
                let (rate, gigabits) = (each.per_second(), each.per_second() * bytes as f64 * 8e-9);
                println!(
                    "| {name} | {what} | {way} | {} | {} | {gigabits:.2} | {:.2} |",
                    each.shown(),
                    grouped(rate),
                    each.ratio(alone)
                );
            };
            let (sealed, opened) = (sealing(cipher, bytes), opening(cipher, bytes));
            let one = format!("{bytes} bytes");
            show(&one, "sealed alone", sealed, sealed);
            show(&one, "out", out(cipher, bytes), sealed);
            if bytes == MTU {
                let left = out_unfinished(cipher);
                show("1420 bytes, checksum left to us", "out", left, sealed);
                let at_once = super_packets_out(cipher);
                show("the same, 46 at once", "out", at_once, sealed);
            }
            show(&one, "opened alone", opened, opened);
            show(
                &one,
                "in, not joined",
                incoming(cipher, bytes, Joined::No),
                opened,
            );
            show(
                &one,
                "in, joined",
                incoming(cipher, bytes, Joined::Yes),
                opened,
            );
        }
    }
}

/// Whether what comes in is of one flow and goes on, or a flow of its own each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    Yes,
    No,
}

fn sealing(cipher: DataCipher, bytes: usize) -> Each {
    let (mut one, _) = established(cipher);
    let packet = vec![7; bytes];
    let mut datagram = vec![0; sealed_len(bytes, MTU)];
    each(BURST, || {
        for _ in 0..BURST {
            seal(&mut one, &packet, &mut datagram);
        }
    })
}

fn opening(cipher: DataCipher, bytes: usize) -> Each {
    let (mut one, mut other) = established(cipher);
    let packet = vec![7; bytes];
    let make = || {
        let sealed = |_| {
            let mut datagram = vec![0; sealed_len(bytes, MTU)];
            seal(&mut one, &packet, &mut datagram);
            datagram
        };
        (0..BURST).map(sealed).collect::<Vec<_>>()
    };
    each_after(BURST, make, |mut datagrams| {
        for datagram in &mut datagrams {
            let opened = other.tunnel.open_in_place(datagram, Duration::ZERO);
            std::hint::black_box(opened.expect("sealed just now"));
        }
        datagrams
    })
}

fn established(cipher: DataCipher) -> (End, End) {
    let (mut one, mut other) = tunnels::ends(cipher);
    let initiation = one.initiate(1, Duration::ZERO);
    let read = other.read(&initiation, cipher);
    let response = other.respond(read, Duration::ZERO);
    one.complete(&response, Duration::ZERO);
    (one, other)
}

fn seal(end: &mut End, packet: &[u8], datagram: &mut [u8]) {
    let sealed = end
        .tunnel
        .seal_into(&[packet], MTU, datagram, Duration::ZERO);
    std::hint::black_box(sealed.expect("there is a session"));
}

fn out(cipher: DataCipher, bytes: usize) -> Each {
    let mut pair = Pair::new(cipher);
    let mut packet = packets::segment(pair.addresses(), (5, 80), ACK, 1, bytes);
    let (now, Host { shard, burst, .. }) = (pair.now, &mut pair.hosts[0]);
    each(BURST, || {
        for _ in 0..BURST {
            shard.handle_overlay_packet(VirtioHeader::default(), &mut packet, now, burst);
        }
        assert_eq!(burst.datagrams.len(), BURST);
        burst.sent();
    })
}

fn out_unfinished(cipher: DataCipher) -> Each {
    let mut pair = Pair::new(cipher);
    let (mut header, given) = packets::super_packet(pair.addresses(), (5, 80), 1);
    header.gso_type = 0;
    let mut packet = given.clone();
    let (now, Host { shard, burst, .. }) = (pair.now, &mut pair.hosts[0]);
    each(BURST, || {
        for _ in 0..BURST {
            // Only its checksum was changed.
            packet[36..38].copy_from_slice(&given[36..38]);
            shard.handle_overlay_packet(header, &mut packet, now, burst);
        }
        assert_eq!(burst.datagrams.len(), BURST);
        burst.sent();
    })
}

fn super_packets_out(cipher: DataCipher) -> Each {
    let mut pair = Pair::new(cipher);
    let (header, mut packet) = packets::super_packet(pair.addresses(), (5, 80), BURST);
    let (now, Host { shard, burst, .. }) = (pair.now, &mut pair.hosts[0]);
    each(BURST, || {
        shard.handle_overlay_packet(header, &mut packet, now, burst);
        assert_eq!(burst.datagrams.len(), BURST);
        burst.sent();
    })
}

fn incoming(cipher: DataCipher, bytes: usize, joined: Joined) -> Each {
    let mut pair = Pair::new(cipher);
    let (addresses, from, now) = (pair.addresses(), pair.path_of_first(), pair.now);
    let payload = bytes - 52;
    let mut given: Vec<Vec<u8>> = (0..BURST as u32)
        .map(|number| {
            let (port, sequence) = match joined {
                Joined::Yes => (5, number * payload as u32),
                Joined::No => (5 + number as u16, 1),
            };
            packets::segment(addresses, (port, 80), ACK, sequence, bytes)
        })
        .collect();
    let [sender, receiver] = &mut pair.hosts;
    let Host { shard, burst, .. } = sender;
    let make = || {
        for packet in &mut given {
            shard.handle_overlay_packet(VirtioHeader::default(), packet, now, burst);
        }
        let end = burst.datagrams.last().map_or(0, |last| last.end);
        let made = (burst.memory[..end].to_vec(), burst.datagrams.clone());
        burst.sent();
        made
    };
    let Host { shard, burst, .. } = receiver;
    each_after(BURST, make, |(mut memory, datagrams)| {
        for datagram in &datagrams {
            shard.handle_datagram(from, 0, &mut memory[datagram.clone()], now, burst);
        }
        let writes = if joined == Joined::Yes { 1 } else { BURST };
        assert_eq!(burst.delivered(), writes);
        (memory, datagrams)
    })
}

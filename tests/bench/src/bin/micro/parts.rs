//! The parts that are small and on every packet's way.

use dataplane::{Coalescer, Joins};
use wireguard::replay::ReplayWindow;

use crate::measure::{Each, each, each_after};
use crate::packets::{self, ACK};

const PACKETS: usize = 1 << 16;
/// Segments that are joined, at once.
const RUN: usize = 40;
const BYTES: usize = 1420;

/// Prints the table.
pub(crate) fn measure() {
    println!("## Parts, one core\n");
    println!("| | each |");
    println!("|---|--:|");
    let show = |what: &str, each: Each| println!("| {what} | {} |", each.shown());
    show("replay window, in order", replay(|at| at));
    show("replay window, pairs swapped", replay(|at| at ^ 1));
    show("replay window, 64 late by turns", replay(|at| at ^ 63));
    for flows in [1, 4, 8, 16] {
        let joins = Joins {
            tcp: true,
            udp: true,
        };
        let what = format!("coalescer, a segment of {BYTES} bytes, {flows} flows by turns");
        show(&what, coalescing(flows, joins));
    }
    show(
        "coalescer that joins nothing",
        coalescing(1, Joins::default()),
    );
}

fn replay(order: impl Fn(u64) -> u64) -> Each {
    each_after(PACKETS, ReplayWindow::default, |mut window| {
        for at in 0..PACKETS as u64 {
            assert!(window.mark(order(at)));
        }
        window
    })
}

/// With the copy into the coalescer's memory.
fn coalescing(flows: usize, joins: Joins) -> Each {
    let addresses = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let payload = BYTES - 52;
    let packets: Vec<Vec<u8>> = (0..RUN * flows)
        .map(|number| {
            let (port, number) = (number % flows, number / flows);
            let sequence = (number * payload) as u32;
            packets::segment(addresses, (port as u16, 80), ACK, sequence, BYTES)
        })
        .collect();
    let mut coalescer = Coalescer::new(joins, 1 << 20);
    each(packets.len(), || {
        for packet in &packets {
            coalescer.add(packet.len(), |room| {
                room.copy_from_slice(packet);
                packet.len()
            });
        }
        coalescer.take_all(|header, parts| {
            std::hint::black_box((header, parts));
        });
    })
}

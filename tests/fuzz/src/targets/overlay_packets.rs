//! Packets at a shard with a live session: from the host's own kernel, and from a peer that seals
//! what is no packet, not its own, or not allowed. What must hold is `live`'s.

use crate::live::Live;
use crate::{Seed, packets};

/// Gives bytes to a shard from both sides.
pub fn target(bytes: &[u8]) {
    let mut live = Live::new();
    live.send(bytes);
    live.carry();
    live.receive_sealed(bytes);
    live.carry();
}

/// Packets of every kind.
pub(crate) fn seeds() -> Vec<Seed> {
    packets::seeds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_come_through_both_ways() {
        let (mut out, mut back) = (0, 0);
        for seed in seeds() {
            let mut live = Live::new();
            live.send(&seed.bytes);
            live.carry();
            out += live.arrived();
            live.receive_sealed(&seed.bytes);
            back += live.delivered().len();
        }
        assert!(out > 5 && back > 5, "{out} out, {back} back");
    }
}

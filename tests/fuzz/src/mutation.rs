//! Damage to good inputs, the same on every machine: what a replay does in seconds, so that a
//! parser that breaks easily breaks in the ordinary tests already.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Inputs do not grow beyond this.
const BYTES_MAX: usize = 8192;
/// Damages done to one input, at most.
const STEPS_MAX: u32 = 4;
/// Bytes at which signs, lengths and flags change their meaning.
const TELLING_BYTES: [u8; 12] = [
    0, 1, 4, 0x0f, 0x10, 0x20, 0x40, 0x7f, 0x80, 0xf0, 0xfe, 0xff,
];

/// Makes damaged inputs out of good ones.
pub(crate) struct Mutator {
    dice: ChaCha8Rng,
}

impl Mutator {
    /// The same name gives the same damage.
    pub(crate) fn new(name: &str) -> Self {
        let seed = trust::sha256(name.as_bytes());
        Self {
            dice: ChaCha8Rng::from_seed(*seed.as_bytes()),
        }
    }

    /// Takes one of the inputs, which are at least one, and damages it.
    pub(crate) fn damaged(&mut self, inputs: &[&[u8]]) -> Vec<u8> {
        let mut bytes = self.one_of(inputs).to_vec();
        for _ in 0..=self.below(STEPS_MAX as usize) {
            self.step(&mut bytes, inputs);
            bytes.truncate(BYTES_MAX);
        }
        bytes
    }

    fn step(&mut self, bytes: &mut Vec<u8>, inputs: &[&[u8]]) {
        if bytes.is_empty() {
            bytes.extend_from_slice(self.one_of(inputs));
            return;
        }
        let at = self.below(bytes.len());
        match self.below(9) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = TELLING_BYTES[self.below(TELLING_BYTES.len())],
            2 => bytes[at] = self.dice.next_u32() as u8,
            3 => {
                bytes[at] = bytes[at]
                    .wrapping_add(1)
                    .wrapping_sub(2 * self.below(2) as u8)
            }
            4 => bytes.truncate(at),
            5 => {
                let end = (at + 1 + self.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            6 => {
                let end = (at + 1 + self.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            7 => {
                let count = 1 + self.below(8);
                let noise: Vec<u8> = (0..count).map(|_| self.dice.next_u32() as u8).collect();
                bytes.splice(at..at, noise);
            }
            _ => self.splice(bytes, at, inputs),
        }
    }

    /// Puts a piece of another input over this one.
    fn splice(&mut self, bytes: &mut Vec<u8>, at: usize, inputs: &[&[u8]]) {
        let other = self.one_of(inputs);
        let start = self.below(other.len().max(1)).min(other.len());
        let end = (start + self.below(64)).min(other.len());
        let over = (at + self.below(64)).min(bytes.len());
        bytes.splice(at..over, other[start..end].iter().copied());
    }

    fn one_of<'i>(&mut self, inputs: &[&'i [u8]]) -> &'i [u8] {
        inputs[self.below(inputs.len())]
    }

    fn below(&mut self, end: usize) -> usize {
        (self.dice.next_u64() % end as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_damage() {
        let inputs: [&[u8]; 2] = [b"good", b""];
        let damage = |name| {
            let mut mutator = Mutator::new(name);
            (0..100)
                .map(|_| mutator.damaged(&inputs))
                .collect::<Vec<_>>()
        };
        assert_eq!(damage("a"), damage("a"));
        assert_ne!(damage("a"), damage("b"));
    }

    #[test]
    fn damage_stays_within_its_bound() {
        let long = vec![7; BYTES_MAX];
        let inputs = [long.as_slice()];
        let mut mutator = Mutator::new("long");
        assert!((0..1000).all(|_| mutator.damaged(&inputs).len() <= BYTES_MAX));
    }
}

//! Randomness from the seed that a proxy thread was given: choices and jitter, nothing secret.

use std::fmt;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The only source of randomness of an upstream.
pub struct Dice(ChaCha8Rng);

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice(..)")
    }
}

impl Dice {
    /// Makes dice that roll the same for the same seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha8Rng::from_seed(seed))
    }

    /// Returns a whole number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // Multiply and shift: no division, and a bias of at most bound / 2^32.
        ((u64::from(self.0.next_u32()) * bound as u64) >> 32) as usize
    }

    /// Returns a number from 0 (included) to 1 (not included).
    pub fn fraction(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    /// Returns a duration from zero to `bound`.
    pub fn up_to(&mut self, bound: Duration) -> Duration {
        bound.mul_f64(self.fraction())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_numbers_within_the_bounds() {
        let (mut one, mut other) = (Dice::from_seed([1; 32]), Dice::from_seed([1; 32]));
        let mut seen = [false; 5];
        for _ in 0..200 {
            let rolled = one.below(5);
            assert_eq!(rolled, other.below(5));
            seen[rolled] = true;
            let waited = one.up_to(Duration::from_secs(1));
            assert_eq!(waited, other.up_to(Duration::from_secs(1)));
            assert!(waited < Duration::from_secs(1));
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(one.up_to(Duration::ZERO), Duration::ZERO);
    }
}

//! Randomness from the seed that the brain was born with: keys, jitter, nonces.

use std::fmt;
use std::time::Duration;

use model::key::Secret;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The only source of randomness of the agent.
pub(crate) struct Dice(ChaCha20Rng);

impl fmt::Debug for Dice {
    /// Keeps the state to itself: keys came out of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice(..)")
    }
}

impl Dice {
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    pub(crate) fn secret(&mut self) -> Secret {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        Secret::from_bytes(bytes)
    }

    /// Returns a duration from zero to `bound`, both included, in whole milliseconds.
    pub(crate) fn up_to(&mut self, bound: Duration) -> Duration {
        let millis = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.0.next_u64() % (millis + 1))
    }

    /// Returns a whole number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.0.next_u32() % (high - low + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_numbers_within_the_bounds() {
        let (mut one, mut other) = (Dice::from_seed([1; 32]), Dice::from_seed([1; 32]));
        for _ in 0..100 {
            let rolled = one.up_to(Duration::from_secs(1));
            assert_eq!(rolled, other.up_to(Duration::from_secs(1)));
            assert!(rolled <= Duration::from_secs(1));
            assert!((40..=60).contains(&one.between(40, 60)));
            other.between(40, 60);
        }
        assert_eq!(one.up_to(Duration::ZERO), Duration::ZERO);
    }
}

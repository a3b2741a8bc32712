//! The secrets behind the cookies of a host: another every two minutes, the same at all its shards.
//! A peer keeps one cookie for a host, and may have it from another shard than the one it comes to.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use wireguard::cookie::COOKIE_LIFETIME;
use zeroize::Zeroizing;

/// Makes the secret of any moment out of one seed.
pub(crate) struct CookieSecrets(Zeroizing<[u8; 32]>);

impl CookieSecrets {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// Returns the secret of this moment, and since when it is good.
    pub(crate) fn at(&self, now: Duration) -> (Zeroizing<[u8; 32]>, Duration) {
        let period = now.as_secs() / COOKIE_LIFETIME.as_secs();
        let mut dice = ChaCha20Rng::from_seed(*self.0);
        dice.set_stream(period);
        let mut secret = Zeroizing::new([0; 32]);
        dice.fill_bytes(&mut *secret);
        let since = Duration::from_secs(period * COOKIE_LIFETIME.as_secs());
        (secret, since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_same_everywhere_and_another_every_two_minutes() {
        let (here, there) = (CookieSecrets::new([7; 32]), CookieSecrets::new([7; 32]));
        let first = here.at(Duration::from_secs(240));
        assert_eq!(first, there.at(Duration::from_millis(359_999)));
        assert_eq!(first.1, Duration::from_secs(240));
        assert_ne!(first.0, here.at(Duration::from_secs(360)).0);
        let other = CookieSecrets::new([8; 32]);
        assert_ne!(first.0, other.at(Duration::from_secs(240)).0);
    }
}

//! This host's key pairs: made here, from the seed, and never leaving the host. While its WireGuard
//! key changes there is a spare one: the next, until the fleet's record names it, then the former,
//! until every peer has had the time to learn that.

use std::time::Duration;

use model::ids::Digest;
use model::key::{Secret, WireguardKey};
use model::time::UnixTime;
use model::wire::stored::SpareKey;
use trust::enrolment::{TlsKey, wireguard_public};

use crate::dice::Dice;

/// This host's private keys, and what others know of them.
#[derive(Clone, Debug)]
pub(crate) struct HostKeys {
    /// X25519.
    pub(crate) wireguard: Secret,
    pub(crate) wireguard_public: WireguardKey,
    pub(crate) wireguard_made: UnixTime,
    pub(crate) spare: Option<Spare>,
    /// Seed of an Ed25519 key.
    pub(crate) tls: Secret,
    pub(crate) tls_key_hash: Digest,
}

/// Another WireGuard key of this host.
#[derive(Clone, Debug)]
pub(crate) struct Spare {
    pub(crate) private: Secret,
    pub(crate) public: WireguardKey,
    /// It was the key before, and is good until then; `None`: it is to be the next.
    pub(crate) former_until: Option<UnixTime>,
}

/// How long the former key is good: who is away from the coordinator for longer has to hear from it
/// before it reaches this host again.
pub(crate) const FORMER_KEY_KEPT: Duration = Duration::from_secs(24 * 3600);

impl HostKeys {
    pub(crate) fn generate(dice: &mut Dice, now: UnixTime) -> Self {
        Self::from_secrets(dice.secret(), dice.secret(), now)
    }

    pub(crate) fn from_secrets(wireguard: Secret, tls: Secret, wireguard_made: UnixTime) -> Self {
        Self {
            wireguard_public: wireguard_public(&wireguard),
            wireguard_made: UnixTime::from_secs(wireguard_made.as_secs()),
            spare: None,
            tls_key_hash: TlsKey::from_seed(tls.clone()).public_key_hash(),
            wireguard,
            tls,
        }
    }

    pub(crate) fn with_spare(self, spare: Option<SpareKey>) -> Self {
        let spare = spare.map(|spare| Spare {
            public: wireguard_public(&spare.private_key),
            private: spare.private_key,
            former_until: spare.former_until,
        });
        Self { spare, ..self }
    }

    pub(crate) fn stored_spare(&self) -> Option<SpareKey> {
        self.spare.as_ref().map(|spare| SpareKey {
            private_key: spare.private.clone(),
            former_until: spare.former_until,
        })
    }

    /// Returns the key that is to be the next.
    pub(crate) fn next(&self) -> Option<&Spare> {
        self.spare.as_ref().filter(|it| it.former_until.is_none())
    }

    /// Makes the key that is to be the next, unless there is one; a former one goes.
    pub(crate) fn make_next(&mut self, dice: &mut Dice) {
        if self.next().is_none() {
            let private = dice.secret();
            self.spare = Some(Spare {
                public: wireguard_public(&private),
                private,
                former_until: None,
            });
        }
    }

    /// Takes the key that the fleet's record of this host names: when it is the spare one, the two
    /// change places. Returns whether they did.
    pub(crate) fn follow(&mut self, named: WireguardKey, now: UnixTime) -> bool {
        let Some(spare) = self.spare.take_if(|spare| spare.public == named) else {
            return false;
        };
        let now = UnixTime::from_secs(now.as_secs());
        self.spare = Some(Spare {
            private: std::mem::replace(&mut self.wireguard, spare.private),
            public: std::mem::replace(&mut self.wireguard_public, spare.public),
            former_until: Some(now + FORMER_KEY_KEPT),
        });
        self.wireguard_made = now;
        true
    }

    /// Forgets the former key; returns whether there was one.
    pub(crate) fn forget_former(&mut self) -> bool {
        let former = self.spare.take_if(|spare| spare.former_until.is_some());
        former.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    #[test]
    fn a_key_is_next_then_in_force_and_the_other_former_then_gone() {
        let mut dice = Dice::from_seed([1; 32]);
        let mut keys = HostKeys::generate(&mut dice, NOW);
        let first = keys.wireguard_public;
        keys.make_next(&mut dice);
        let next = keys.next().unwrap().public;
        keys.make_next(&mut dice);
        assert_eq!(
            keys.next().unwrap().public,
            next,
            "one that was offered stays"
        );
        assert!(!keys.follow(first, NOW) && !keys.forget_former());
        assert!(keys.follow(next, NOW));
        assert_eq!(keys.wireguard_public, next);
        assert_eq!(wireguard_public(&keys.wireguard), next);
        assert_eq!(keys.spare.as_ref().unwrap().public, first);
        assert!(keys.next().is_none());
        let again = HostKeys::from_secrets(keys.wireguard.clone(), keys.tls.clone(), NOW)
            .with_spare(keys.stored_spare());
        assert_eq!(
            again.spare.unwrap().former_until,
            Some(NOW + FORMER_KEY_KEPT)
        );
        // A coordinator that was restored from a backup names the former key again.
        assert!(keys.follow(first, NOW));
        assert_eq!(keys.wireguard_public, first);
        assert!(keys.forget_former());
        assert!(keys.spare.is_none());
    }
}

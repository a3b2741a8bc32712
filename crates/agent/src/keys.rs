//! This host's two key pairs: made here, from the seed, and never leaving the host.

use model::ids::Digest;
use model::key::{Secret, WireguardKey};
use trust::enrolment::{TlsKey, wireguard_public};

use crate::dice::Dice;

/// This host's private keys, and what others know of them.
#[derive(Clone, Debug)]
pub(crate) struct HostKeys {
    /// X25519.
    pub(crate) wireguard: Secret,
    pub(crate) wireguard_public: WireguardKey,
    /// Seed of an Ed25519 key.
    pub(crate) tls: Secret,
    pub(crate) tls_key_hash: Digest,
}

impl HostKeys {
    pub(crate) fn generate(dice: &mut Dice) -> Self {
        Self::from_secrets(dice.secret(), dice.secret())
    }

    pub(crate) fn from_secrets(wireguard: Secret, tls: Secret) -> Self {
        Self {
            wireguard_public: wireguard_public(&wireguard),
            tls_key_hash: TlsKey::from_seed(tls.clone()).public_key_hash(),
            wireguard,
            tls,
        }
    }
}

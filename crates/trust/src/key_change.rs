//! How a member proves that it has the WireGuard key that it wants to have from now on. Its
//! certificate says who it is; the key, which cannot sign, makes a MAC that only it and the
//! authority can make.

use aws_lc_rs::hmac;
use model::ids::{FleetId, HostId};
use model::key::{Secret, WireguardKey};

use crate::enrolment::{InvalidProof, LowOrderKey, proof_key, wireguard_public};

/// Everything that a change of a key binds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The fleet.
    pub fleet: FleetId,
    /// The member.
    pub host: HostId,
    /// The key that it will have.
    pub wireguard_key: WireguardKey,
}

/// Proves to the owner of `enrolment_key`, and to nobody else, that this host has the private half
/// of the new key: HMAC-SHA256 keyed by the X25519 secret that both share.
///
/// # Errors
/// No secret can be shared with the enrolment key.
pub fn prove_key_change(
    private: &Secret,
    enrolment_key: &[u8; 32],
    change: &KeyChange,
) -> Result<[u8; 32], LowOrderKey> {
    let key = proof_key(private, enrolment_key)?;
    let tag = hmac::sign(&key, &message(enrolment_key, change));
    Ok(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
}

/// Verifies a proof with the private half of the enrolment key, in constant time.
///
/// # Errors
/// The host does not have the private key, or something of the change was changed.
pub fn verify_key_change(
    enrolment_secret: &Secret,
    change: &KeyChange,
    proof: &[u8; 32],
) -> Result<(), InvalidProof> {
    let key = proof_key(enrolment_secret, change.wireguard_key.as_bytes())
        .map_err(|LowOrderKey| InvalidProof)?;
    let enrolment_key = wireguard_public(enrolment_secret);
    hmac::verify(&key, &message(enrolment_key.as_bytes(), change), proof).map_err(|_| InvalidProof)
}

/// The context and a zero byte; then fleet, host, enrolment key, new key, which have fixed lengths.
fn message(enrolment_key: &[u8; 32], change: &KeyChange) -> Vec<u8> {
    [
        b"mesh.v1.key-change\0",
        change.fleet.as_bytes().as_slice(),
        change.host.as_bytes(),
        enrolment_key,
        change.wireguard_key.as_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENROLMENT: Secret = Secret::from_bytes([5; 32]);
    const NEXT: Secret = Secret::from_bytes([6; 32]);

    fn change() -> KeyChange {
        KeyChange {
            fleet: FleetId::from_bytes([1; 16]),
            host: HostId::from_bytes([2; 16]),
            wireguard_key: wireguard_public(&NEXT),
        }
    }

    fn proof() -> [u8; 32] {
        let enrolment_key = wireguard_public(&ENROLMENT);
        prove_key_change(&NEXT, enrolment_key.as_bytes(), &change()).unwrap()
    }

    #[test]
    fn who_has_the_new_key_proves_it() {
        assert_eq!(verify_key_change(&ENROLMENT, &change(), &proof()), Ok(()));
    }

    #[test]
    fn a_proof_is_for_one_host_one_fleet_and_one_key() {
        let others = [
            KeyChange {
                fleet: FleetId::from_bytes([9; 16]),
                ..change()
            },
            KeyChange {
                host: HostId::from_bytes([9; 16]),
                ..change()
            },
            KeyChange {
                wireguard_key: wireguard_public(&Secret::from_bytes([9; 32])),
                ..change()
            },
            // No secret can be shared with it.
            KeyChange {
                wireguard_key: WireguardKey::from_bytes([0; 32]),
                ..change()
            },
        ];
        for other in others {
            assert_eq!(
                verify_key_change(&ENROLMENT, &other, &proof()),
                Err(InvalidProof),
                "{other:?}"
            );
        }
        let other_authority = Secret::from_bytes([7; 32]);
        assert_eq!(
            verify_key_change(&other_authority, &change(), &proof()),
            Err(InvalidProof)
        );
    }
}

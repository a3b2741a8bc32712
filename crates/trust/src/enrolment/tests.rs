//! A host proves its own keys, for one enrolment, to one authority.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::HEXLOWER;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fixture::{authority, name, seeds};

fn secret(byte: u8) -> Secret {
    Secret::from_bytes([byte; 32])
}

fn bytes(hex: &str) -> [u8; 32] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

#[test]
fn public_keys_are_those_of_rfc_7748() {
    // RFC 7748 6.1.
    let private = bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let public = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    assert_eq!(
        wireguard_public(&Secret::from_bytes(private)).as_bytes(),
        &public
    );
}

#[test]
fn a_request_proves_its_key() {
    let key = TlsKey::from_seed(secret(5));
    let facts = check_certificate_request(&key.certificate_request(&name("web-1"))).unwrap();
    assert_eq!(facts.public_key, key.public());
    assert_eq!(facts.tls_key_hash, key.public_key_hash());
    assert_eq!(sha256(&facts.spki), facts.tls_key_hash);
}

#[test]
fn a_request_is_the_same_each_time() {
    let request = || TlsKey::from_seed(secret(5)).certificate_request(&name("web-1"));
    assert_eq!(request(), request());
}

#[test]
fn a_changed_request_is_refused() {
    let request = TlsKey::from_seed(secret(5)).certificate_request(&name("web-1"));
    for position in 0..request.len() {
        for bit in 0..8 {
            let mut tampered = request.clone();
            tampered[position] ^= 1 << bit;
            assert!(
                check_certificate_request(&tampered).is_err(),
                "byte {position}, bit {bit}"
            );
        }
        assert!(
            check_certificate_request(&request[..position]).is_err(),
            "cut at {position}"
        );
    }
    let trailing = [request.as_slice(), &[0]].concat();
    assert_eq!(
        check_certificate_request(&trailing),
        Err(InvalidRequest::Malformed)
    );
}

/// BER allows a length in more bytes than it needs, DER does not (X.690 10.1).
#[test]
fn a_request_is_written_in_one_way() {
    let request = TlsKey::from_seed(secret(5)).certificate_request(&name("web-1"));
    let [0x30, 0x81, length, content @ ..] = request.as_slice() else {
        panic!("a request has 128 to 255 bytes");
    };
    let longer = [&[0x30, 0x82, 0, *length], content].concat();
    assert_eq!(
        check_certificate_request(&longer),
        Err(InvalidRequest::Malformed)
    );
}

#[test]
fn requests_for_names_of_every_length_are_good() {
    let key = TlsKey::from_seed(secret(5));
    for length in [1, 20, 63] {
        let request = key.certificate_request(&name(&"a".repeat(length)));
        assert!(check_certificate_request(&request).is_ok(), "{length}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_request(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(check_certificate_request(&bytes).is_err());
    }
}

#[test]
fn a_request_for_the_key_of_another_host_is_refused() {
    let (mine, theirs) = (TlsKey::from_seed(secret(5)), TlsKey::from_seed(secret(6)));
    let mut request = mine.certificate_request(&name("web-1"));
    let position = request
        .windows(32)
        .position(|window| window == mine.public())
        .unwrap();
    request[position..position + 32].copy_from_slice(&theirs.public());
    assert_eq!(
        check_certificate_request(&request),
        Err(InvalidRequest::BadSignature)
    );
}

#[test]
fn a_request_of_another_kind_of_key_is_refused() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    assert_eq!(
        check_certificate_request(request.der()),
        Err(InvalidRequest::NotEd25519)
    );
}

#[test]
fn tls_libraries_read_the_private_key() {
    let key = TlsKey::from_seed(secret(5));
    let read = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.pkcs8_der().expose()).unwrap();
    assert_eq!(read.public_key().as_ref(), key.public());
}

struct Enrolment {
    private: Secret,
    name: Name,
    request: Vec<u8>,
}

impl Enrolment {
    fn new() -> Self {
        let name = name("web-1");
        let request = TlsKey::from_seed(secret(5)).certificate_request(&name);
        Self {
            private: secret(8),
            name,
            request,
        }
    }

    fn transcript(&self) -> Transcript<'_> {
        Transcript {
            fleet: authority(1).fleet_id(),
            token: TokenId::from_bytes([3; 8]),
            name: &self.name,
            wireguard_key: wireguard_public(&self.private),
            certificate_request: &self.request,
        }
    }

    fn proof(&self) -> [u8; 32] {
        wireguard_proof(
            &self.private,
            &authority(1).enrolment_key(),
            &self.transcript(),
        )
        .unwrap()
    }
}

#[test]
fn the_owner_of_the_key_is_believed() {
    let enrolment = Enrolment::new();
    let authority = authority(1);
    let verified = authority.verify_wireguard_proof(&enrolment.transcript(), &enrolment.proof());
    assert_eq!(verified, Ok(()));
}

#[test]
fn a_proof_with_another_key_is_refused() {
    let enrolment = Enrolment::new();
    let authority = authority(1);
    // A thief of the public key signs with a key of their own.
    let proof = wireguard_proof(
        &secret(9),
        &authority.enrolment_key(),
        &enrolment.transcript(),
    )
    .unwrap();
    let refused = authority.verify_wireguard_proof(&enrolment.transcript(), &proof);
    assert_eq!(refused, Err(InvalidProof));
}

#[test]
fn a_proof_holds_for_one_enrolment_only() {
    let enrolment = Enrolment::new();
    let (proof, transcript) = (enrolment.proof(), enrolment.transcript());
    let (other_name, other_request) = (name("web-2"), vec![1, 2, 3]);
    let others = [
        Transcript {
            fleet: authority(2).fleet_id(),
            ..transcript
        },
        Transcript {
            token: TokenId::from_bytes([4; 8]),
            ..transcript
        },
        Transcript {
            name: &other_name,
            ..transcript
        },
        Transcript {
            wireguard_key: wireguard_public(&secret(9)),
            ..transcript
        },
        Transcript {
            certificate_request: &other_request,
            ..transcript
        },
    ];
    for other in others {
        assert_eq!(
            authority(1).verify_wireguard_proof(&other, &proof),
            Err(InvalidProof)
        );
    }
    assert_eq!(
        authority(2).verify_wireguard_proof(&transcript, &proof),
        Err(InvalidProof)
    );
    for position in 0..32 {
        let mut changed = proof;
        changed[position] ^= 1;
        assert_eq!(
            authority(1).verify_wireguard_proof(&transcript, &changed),
            Err(InvalidProof)
        );
    }
}

#[test]
fn points_of_low_order_are_refused() {
    // The points of order 1, 2, 4 and 8, and their encodings above the prime
    // (https://cr.yp.to/ecdh.html#validate).
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let enrolment = Enrolment::new();
    for point in points.map(bytes) {
        let transcript = enrolment.transcript();
        let made = wireguard_proof(&enrolment.private, &point, &transcript);
        assert_eq!(made, Err(LowOrderKey));
        let wireguard_key = WireguardKey::from_bytes(point);
        let weak = Transcript {
            wireguard_key,
            ..transcript
        };
        let verified = verify_wireguard_proof(&seeds(1).enrolment, &weak, &[0; 32]);
        assert_eq!(verified, Err(InvalidProof));
    }
}

//! Certificates of this fleet's members are believed in their time, and no others.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use super::*;
use crate::authority::HOST_CERTIFICATE_LIFETIME;
use crate::enrolment::TlsKey;
use crate::fixture::{NOW, authority, name, seeds};
use crate::{Authority, CoordinatorIdentity, HostIdentity, SigningKey, issue};

const HOUR: Duration = Duration::from_secs(3600);
const SERIAL: [u8; 16] = [0xff; 16];

fn key(byte: u8) -> TlsKey {
    TlsKey::from_seed(model::key::Secret::from_bytes([byte; 32]))
}

fn host_chain(authority: &Authority) -> Vec<Vec<u8>> {
    let identity = HostIdentity {
        fleet_name: name("prod"),
        host_name: name("web-1"),
    };
    let request = key(5).certificate_request(&name("web-1"));
    authority
        .issue_host(&identity, &request, NOW, HOST_CERTIFICATE_LIFETIME, SERIAL)
        .unwrap()
}

fn coordinator_chain(authority: &Authority) -> Vec<Vec<u8>> {
    let identity = CoordinatorIdentity {
        fleet_name: name("prod"),
        coordinator_name: name("c1"),
        dns_names: vec!["mesh.example.com".into()],
        addresses: vec!["10.0.0.4".parse().unwrap(), "fd00::4".parse().unwrap()],
    };
    authority
        .issue_coordinator(&identity, &key(6), NOW, SERIAL)
        .unwrap()
}

fn roots(authority: &Authority) -> Vec<Vec<u8>> {
    vec![authority.root_certificate().to_vec()]
}

fn later(by: Duration) -> UnixTime {
    NOW + by
}

fn earlier(by: Duration) -> UnixTime {
    UnixTime::from_duration(NOW.since_epoch() - by)
}

#[test]
fn a_hosts_certificate_is_believed() {
    let authority = authority(1);
    let facts = verify_chain(&host_chain(&authority), &roots(&authority), NOW).unwrap();
    assert_eq!(facts.spiffe.to_string(), "spiffe://prod/host/web-1");
    assert_eq!(facts.not_before, earlier(HOUR));
    assert_eq!(facts.not_after, later(HOST_CERTIFICATE_LIFETIME));
    assert_eq!(facts.tls_key_hash, key(5).public_key_hash());
    assert_eq!(facts.check_host(&name("prod")), Ok(&name("web-1")));
}

#[test]
fn a_coordinators_certificate_is_believed_by_roots_and_by_pin() {
    let authority = authority(1);
    let chain = coordinator_chain(&authority);
    let facts = verify_chain(&chain, &roots(&authority), NOW).unwrap();
    assert_eq!(facts.check_coordinator(&name("prod")), Ok(()));
    assert_eq!(
        verify_pinned_chain(&chain, &authority.root_pin(), NOW),
        Ok(facts)
    );
}

#[test]
fn a_host_does_not_pass_for_a_coordinator_nor_the_other_way_round() {
    let authority = authority(1);
    let roots = roots(&authority);
    let wrong = |result| matches!(result, Err(CertificateError::WrongIdentity { .. }));
    let host = verify_chain(&host_chain(&authority), &roots, NOW).unwrap();
    assert!(wrong(host.check_coordinator(&name("prod"))));
    assert!(wrong(host.check_host(&name("test")).map(|_| ())));
    let coordinator = verify_chain(&coordinator_chain(&authority), &roots, NOW).unwrap();
    assert!(wrong(coordinator.check_host(&name("prod")).map(|_| ())));
    assert!(wrong(coordinator.check_coordinator(&name("test"))));
    let pinned = verify_pinned_chain(&host_chain(&authority), &authority.root_pin(), NOW);
    assert!(wrong(pinned.map(|_| ())));
}

#[test]
fn the_first_and_the_last_second_are_good() {
    let authority = authority(1);
    let (chain, roots) = (host_chain(&authority), roots(&authority));
    assert!(verify_chain(&chain, &roots, earlier(HOUR)).is_ok());
    let last = later(HOST_CERTIFICATE_LIFETIME);
    assert!(verify_chain(&chain, &roots, last).is_ok());
    assert!(verify_chain(&chain, &roots, last + Duration::from_millis(999)).is_ok());
}

#[test]
fn an_expired_certificate_says_when_and_what_the_clock_says() {
    let authority = authority(1);
    let now = later(HOST_CERTIFICATE_LIFETIME + HOUR);
    let error = verify_chain(&host_chain(&authority), &roots(&authority), now).unwrap_err();
    let not_after = later(HOST_CERTIFICATE_LIFETIME);
    assert_eq!(error, CertificateError::Expired { not_after, now });
    assert_eq!(
        error.to_string(),
        "the certificate expired on Mon, 23 Nov 2026 12:00:00 +0000, and this machine's clock says \
         Mon, 23 Nov 2026 13:00:00 +0000; if the clock is wrong, set it (`timedatectl set-ntp \
         true`), else the certificate has to be renewed"
    );
}

#[test]
fn a_clock_a_year_slow_is_told_so() {
    let authority = authority(1);
    let now = earlier(365 * 24 * HOUR);
    let error = verify_pinned_chain(&coordinator_chain(&authority), &authority.root_pin(), now)
        .unwrap_err();
    assert_eq!(
        error,
        CertificateError::NotYetValid {
            not_before: earlier(HOUR),
            now
        }
    );
    assert_eq!(
        error.to_string(),
        "the certificate is valid from Sun, 22 Nov 2026 11:00:00 +0000, but this machine's clock \
         says Sat, 22 Nov 2025 12:00:00 +0000; set the clock (`timedatectl set-ntp true`) and try \
         again"
    );
}

#[test]
fn another_fleets_authority_is_not_believed() {
    let (ours, theirs) = (authority(1), authority(2));
    let untrusted = |result| matches!(result, Err(CertificateError::Untrusted { .. }));
    assert!(untrusted(verify_chain(
        &host_chain(&theirs),
        &roots(&ours),
        NOW
    )));
    assert!(untrusted(verify_chain(&host_chain(&ours), &[], NOW)));
    // Who issued it matters more than when.
    let late = later(1000 * 24 * HOUR);
    assert!(untrusted(verify_chain(
        &host_chain(&theirs),
        &roots(&ours),
        late
    )));
}

#[test]
fn a_pin_names_one_authority() {
    let (ours, theirs) = (authority(1), authority(2));
    let error = verify_pinned_chain(&coordinator_chain(&theirs), &ours.root_pin(), NOW);
    let wrong = CertificateError::WrongPin {
        expected: ours.root_pin(),
        found: theirs.root_pin(),
    };
    assert_eq!(error, Err(wrong));

    // Bringing the right root along does not help who was not issued by it.
    let mut mixed = coordinator_chain(&theirs);
    mixed.push(ours.root_certificate().to_vec());
    let error = verify_pinned_chain(&mixed, &ours.root_pin(), NOW).unwrap_err();
    assert!(
        matches!(error, CertificateError::Untrusted { .. }),
        "{error}"
    );
}

#[test]
fn a_change_of_any_byte_is_noticed() {
    let authority = authority(1);
    let (chain, roots) = (host_chain(&authority), roots(&authority));
    for position in 0..chain[0].len() {
        let mut tampered = chain.clone();
        tampered[0][position] ^= 1;
        assert!(
            verify_chain(&tampered, &roots, NOW).is_err(),
            "byte {position}"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(chain in vec(vec(any::<u8>(), 0..200), 0..5)) {
        prop_assert!(verify_chain(&chain, &chain, NOW).is_err());
    }

    #[test]
    fn damaged_certificates_never_panic(
        damage in vec((any::<Index>(), any::<u8>()), 1..5), cut: Index,
    ) {
        let authority = authority(1);
        let mut chain = coordinator_chain(&authority);
        for (position, value) in damage {
            let position = position.index(chain[0].len());
            chain[0][position] = value;
        }
        let _ = facts(&chain[0]);
        let length = cut.index(chain[0].len());
        chain[0].truncate(length);
        prop_assert!(verify_chain(&chain, &roots(&authority), NOW).is_err());
    }
}

#[test]
fn empty_long_and_senseless_chains_are_refused() {
    let authority = authority(1);
    let roots = roots(&authority);
    let malformed = |chain: &[Vec<u8>]| {
        matches!(
            verify_chain(chain, &roots, NOW),
            Err(CertificateError::Malformed { .. })
        )
    };
    assert!(malformed(&[]));
    assert!(malformed(&[b"hello".to_vec()]));
    assert!(malformed(&vec![host_chain(&authority)[0].clone(); 5]));
    let mut trailing = host_chain(&authority);
    trailing[0].push(0);
    assert!(malformed(&trailing));
    assert!(malformed(&[authority.root_certificate().to_vec()]));
}

/// What a host says of a certificate that its authority issued with `change`.
fn odd(change: impl FnOnce(&mut CertificateParams)) -> Result<(), CertificateError> {
    let authority = authority(1);
    let root = SigningKey::from_seed(seeds(1).root);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![uri("spiffe://prod/host/web-1")];
    change(&mut params);
    let chain = vec![
        issue::sign(
            &params,
            &key(5).public(),
            &root,
            authority.root_certificate(),
        )
        .unwrap(),
    ];
    verify_chain(&chain, &roots(&authority), NOW).map(|_| ())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn is_malformed(result: Result<(), CertificateError>, why: &str) -> bool {
    matches!(&result, Err(CertificateError::Malformed { why: found }) if found.contains(why))
}

#[test]
fn exactly_one_identity_is_named() {
    assert_eq!(odd(|_| ()), Ok(()));
    assert!(is_malformed(
        odd(|params| params.subject_alt_names.clear()),
        "no identity"
    ));
    let two = |params: &mut CertificateParams| {
        params
            .subject_alt_names
            .push(uri("spiffe://prod/coordinator/c1"));
    };
    assert!(is_malformed(odd(two), "more than one"));
    let foreign = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![uri("https://prod/host/web-1")];
    };
    assert!(is_malformed(odd(foreign), "not an identity of this mesh"));
}

#[test]
fn a_member_is_no_authority_and_signs_handshakes_only() {
    let authority = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    assert!(is_malformed(odd(authority), "an authority's"));
    let signs_certificates =
        |params: &mut CertificateParams| params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    assert!(is_malformed(odd(signs_certificates), "key usage"));
    assert!(is_malformed(
        odd(|params| params.key_usages.clear()),
        "key usage"
    ));
    let no_client = |params: &mut CertificateParams| {
        params.extended_key_usages.truncate(1);
    };
    assert!(is_malformed(odd(no_client), "clients and servers"));
    assert!(is_malformed(
        odd(|params| params.extended_key_usages.clear()),
        "clients and servers"
    ));
}

#[test]
fn a_member_cannot_issue_certificates() {
    let authority = authority(1);
    let member = SigningKey::from_seed(model::key::Secret::from_bytes([5; 32]));
    let host = host_chain(&authority);
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![uri("spiffe://prod/coordinator/evil")];
    let forged = issue::sign(&params, &key(9).public(), &member, &host[0]).unwrap();
    let chain = [vec![forged], host].concat();
    let error = verify_chain(&chain, &roots(&authority), NOW).unwrap_err();
    assert!(
        matches!(error, CertificateError::Untrusted { .. }),
        "{error}"
    );
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    assert_eq!(
        authority(1).root_certificate(),
        authority(1).root_certificate()
    );
    assert_eq!(host_chain(&authority(1)), host_chain(&authority(1)));
    assert_eq!(
        coordinator_chain(&authority(1)),
        coordinator_chain(&authority(1))
    );
}

#[test]
fn any_serial_number_and_any_clock_makes_a_certificate() {
    for (serial, now) in [
        ([0; 16], UnixTime::from_secs(0)),
        ([0xff; 16], UnixTime::from_secs(u64::MAX)),
        ([0x80; 16], NOW),
    ] {
        let authority = Authority::create(&name("prod"), seeds(1), now);
        let identity = HostIdentity {
            fleet_name: name("prod"),
            host_name: name("web-1"),
        };
        let request = key(5).certificate_request(&name("web-1"));
        let chain = authority
            .issue_host(&identity, &request, now, HOUR, serial)
            .unwrap();
        assert!(facts(&chain[0]).is_ok());
    }
}

#[test]
fn an_authority_is_taken_up_again_with_its_own_root_only() {
    let (ours, theirs) = (authority(1), authority(2));
    let again = Authority::load(seeds(1), ours.root_certificate().to_vec()).unwrap();
    assert_eq!(again.root_pin(), ours.root_pin());
    assert_eq!(again.record_key(), ours.record_key());
    let mixed = Authority::load(seeds(1), theirs.root_certificate().to_vec()).unwrap_err();
    assert_eq!(mixed, crate::authority::AuthorityError::OtherKey);
    assert!(Authority::load(seeds(1), host_chain(&ours).remove(0)).is_err());
}

#[test]
fn secrets_do_not_print() {
    let printed = format!("{:?} {:?} {:?}", authority(1), seeds(1), key(5));
    assert!(
        !printed.contains("1, 1, 1") && !printed.contains("0101"),
        "{printed}"
    );
}

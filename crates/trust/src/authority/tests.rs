//! While a fleet changes its keys, who knows only the old root and who knows only the new one
//! believe the same coordinator, hosts and records.

use proptest::prelude::*;

use super::*;
use crate::TrustAnchors;
use crate::anchors::TrustError;
use crate::certificate::{CertificateError, verify_chain, verify_pinned_chain};
use crate::fixture::{NOW, anchors, authority, name, record, seeds, statement};

/// An authority that has a next generation too.
fn rotating() -> Authority {
    let name = name("prod");
    authority(1).with_next(&name, 2, seeds(2), NOW).unwrap()
}

/// The authority after the change.
fn rotated() -> Authority {
    Authority::load_all(rotating().keys().split_off(1)).unwrap()
}

fn next(before: &TrustStatement, signer: &Authority, listed: &Authority) -> TrustStatement {
    TrustStatement {
        serial: before.serial + 1,
        root_certificates: listed.root_certificates(),
        record_keys: listed.record_keys(),
        enrolment_key: listed.enrolment_key(),
        previous: Some(sha256(&signer.sign_trust(before).payload)),
        ..before.clone()
    }
}

/// The founding statement, the one of the overlap, the one after it.
fn statements() -> [(TrustStatement, Signed); 3] {
    let (first, both, last) = (authority(1), rotating(), rotated());
    let founding = statement(&first);
    let overlap = next(&founding, &first, &both);
    let after = next(&overlap, &both, &last);
    [
        (founding.clone(), first.sign_trust(&founding)),
        (overlap.clone(), both.sign_trust(&overlap)),
        (after.clone(), both.sign_trust(&after)),
    ]
}

fn chain(of: &Authority) -> Vec<Vec<u8>> {
    let identity = CoordinatorIdentity {
        fleet_name: name("prod"),
        coordinator_name: name("c1"),
        dns_names: Vec::new(),
        addresses: Vec::new(),
    };
    let key = TlsKey::from_seed(Secret::from_bytes([9; 32]));
    of.issue_coordinator(&identity, &key, NOW, [5; 16]).unwrap()
}

#[test]
fn who_knows_either_root_believes_what_is_issued_meanwhile() {
    let both = rotating();
    let shown = chain(&both);
    for root in both.root_certificates() {
        verify_chain(&shown, std::slice::from_ref(&root), NOW).unwrap();
        verify_pinned_chain(&shown, &sha256(&root), NOW).unwrap();
    }
    verify_chain(&shown, &both.root_certificates(), NOW).unwrap();
}

#[test]
fn what_is_issued_afterwards_leads_to_the_new_root_only() {
    let shown = chain(&rotated());
    verify_chain(&shown, &rotated().root_certificates(), NOW).unwrap();
    let old = authority(1).root_certificates();
    let refused = verify_chain(&shown, &old, NOW);
    assert!(matches!(refused, Err(CertificateError::Untrusted { .. })));
    let refused = verify_pinned_chain(&shown, &authority(1).root_pin(), NOW);
    assert!(matches!(refused, Err(CertificateError::WrongPin { .. })));
}

#[test]
fn what_the_old_root_issued_is_believed_until_it_is_retired() {
    let shown = chain(&authority(1));
    verify_chain(&shown, &rotating().root_certificates(), NOW).unwrap();
    assert!(verify_chain(&shown, &rotated().root_certificates(), NOW).is_err());
}

#[test]
fn a_chain_is_the_same_after_the_keys_were_read_back() {
    let again = Authority::load_all(rotating().keys()).unwrap();
    assert_eq!(chain(&again), chain(&rotating()));
}

#[test]
fn a_record_of_the_overlap_is_believed_before_and_after_it() {
    let signed = rotating().sign_record(&record(&authority(1)));
    let [(_, first), (_, overlap), (_, after)] = statements();
    let (old, new) = (authority(1).root_pin(), rotated().root_pin());
    for (statement, pin) in [
        (first, old),
        (overlap.clone(), old),
        (overlap, new),
        (after, new),
    ] {
        let (anchors, _) = TrustAnchors::from_statement(&statement, &pin).unwrap();
        anchors.verify_record(&signed).unwrap();
    }
}

#[test]
fn it_is_known_what_has_to_be_signed_again() {
    let old = authority(1).sign_record(&record(&authority(1)));
    assert!(authority(1).has_signed(&old));
    assert!(!rotating().has_signed(&old));
    assert!(rotating().has_signed(&rotating().sign_record(&record(&authority(1)))));
}

#[test]
fn the_fleet_keeps_its_id() {
    let [(founding, _), _, (after, signed)] = statements();
    assert_eq!(after.fleet, founding.fleet);
    let (anchors, _) = TrustAnchors::from_statement(&signed, &rotated().root_pin()).unwrap();
    assert_eq!(anchors.fleet(), founding.fleet);
}

#[test]
fn one_that_missed_statements_follows_them_in_order() {
    let [_, (_, overlap), (_, after)] = statements();
    let start = anchors(&authority(1));
    let earlier = [overlap.clone()];
    let (newest, steps) = start.follow(&earlier, &after).unwrap().unwrap();
    assert_eq!(newest.newest_root(), rotated().root_pin());
    assert_eq!(steps, [&overlap]);
    assert_eq!(
        newest.follow(&earlier, &after),
        Ok(None),
        "nothing is new twice"
    );
    assert!(!newest.covers(&start) && start.covers(&start));
}

#[test]
fn one_that_knows_only_a_root_from_before_finds_the_way() {
    let [(_, founding), (_, overlap), (_, after)] = statements();
    let pin = authority(1).root_pin();
    let earlier = [founding, overlap.clone()];
    let (newest, steps) = TrustAnchors::from_statements(&earlier, &after, &pin).unwrap();
    assert_eq!(newest.newest_root(), rotated().root_pin());
    assert_eq!(steps, [&overlap]);
    assert_eq!(
        TrustAnchors::from_statements(&[], &after, &pin),
        Err(TrustError::WrongPin { pin })
    );
}

#[test]
fn the_old_keys_are_proven_to_while_they_last() {
    use crate::key_change::prove_key_change;
    let private = Secret::from_bytes([6; 32]);
    let change = KeyChange {
        fleet: authority(1).fleet_id(),
        host: model::ids::HostId::from_bytes([2; 16]),
        wireguard_key: enrolment::wireguard_public(&private),
    };
    let prove = |to: &Authority| prove_key_change(&private, &to.enrolment_key(), &change).unwrap();
    for known in [authority(1), rotated()] {
        assert_eq!(
            rotating().verify_key_change(&change, &prove(&known)),
            Ok(())
        );
    }
    let refused = rotated().verify_key_change(&change, &prove(&authority(1)));
    assert_eq!(refused, Err(InvalidProof));
}

#[test]
fn no_third_generation_begins_before_the_first_is_retired() {
    let third = rotating().with_next(&name("prod"), 3, seeds(3), NOW);
    assert_eq!(third.err(), Some(AuthorityError::Generations { count: 3 }));
    assert!(Authority::load_all(Vec::new()).is_err());
    let only_new = rotating()
        .limited_to(&rotated().root_certificates())
        .unwrap();
    assert_eq!(only_new.root_pins(), rotated().root_pins());
    assert!(rotating().limited_to(&[]).is_none());
}

proptest! {
    /// Whatever part of the statements reaches a host, in whatever order, mixed with another fleet's:
    /// its number never falls, and it never believes a root that its own fleet did not list.
    #[test]
    fn no_order_of_statements_misleads_a_host(order in proptest::collection::vec(0_usize..6, 0..12)) {
        let ours: Vec<Signed> = statements().into_iter().map(|(_, signed)| signed).collect();
        let foreign = authority(7);
        let known = [authority(1).root_pin(), rotated().root_pin()];
        let mut anchors = anchors(&authority(1));
        for index in order {
            let before = anchors.statement().serial;
            let signed = match ours.get(index) {
                Some(signed) => signed.clone(),
                None => foreign.sign_trust(&TrustStatement {
                    serial: index as u64,
                    ..anchors.statement().clone()
                }),
            };
            if let Ok(Some(newer)) = anchors.update(&signed) {
                anchors = newer;
            }
            prop_assert!(anchors.statement().serial >= before);
            prop_assert!(known.contains(&anchors.newest_root()));
        }
    }
}

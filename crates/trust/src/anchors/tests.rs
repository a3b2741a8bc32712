//! Nothing is believed that was changed, that somebody else signed, or that is about another fleet.

use model::record::Signature;

use super::*;
use crate::fixture::{anchors, authority, record, seeds, statement, tombstone};
use crate::signing::SigningKey;

#[test]
fn records_and_tombstones_of_the_fleet_are_believed() {
    let authority = authority(1);
    let anchors = anchors(&authority);
    let (record, tombstone) = (record(&authority), tombstone(&authority));
    assert_eq!(
        anchors.verify_record(&authority.sign_record(&record)),
        Ok(record)
    );
    assert_eq!(
        anchors.verify_tombstone(&authority.sign_tombstone(&tombstone)),
        Ok(tombstone)
    );
}

#[test]
fn a_change_of_any_byte_is_noticed() {
    let authority = authority(1);
    let anchors = anchors(&authority);
    let signed = authority.sign_record(&record(&authority));
    for position in 0..signed.payload.len() {
        let mut tampered = signed.clone();
        tampered.payload[position] ^= 1;
        assert_eq!(
            anchors.verify_record(&tampered),
            Err(TrustError::BadSignature)
        );
    }
    for position in 0..64 {
        let mut tampered = signed.clone();
        tampered.signatures[0].value[position] ^= 1;
        assert_eq!(
            anchors.verify_record(&tampered),
            Err(TrustError::BadSignature)
        );
    }
}

#[test]
fn a_signature_over_one_kind_is_none_over_another() {
    let authority = authority(1);
    let anchors = anchors(&authority);
    let records = SigningKey::from_seed(seeds(1).records);
    let payload = authority.sign_record(&record(&authority)).payload;
    for context in [TOMBSTONE, BUNDLE_HEAD, TRUST_STATEMENT] {
        let signatures = vec![records.sign(context, &payload)];
        let signed = Signed {
            payload: payload.clone(),
            signatures,
        };
        assert_eq!(
            anchors.verify_record(&signed),
            Err(TrustError::BadSignature)
        );
    }
    let tombstone = authority.sign_tombstone(&tombstone(&authority));
    assert_eq!(
        anchors.verify_record(&tombstone),
        Err(TrustError::BadSignature)
    );
    assert_eq!(
        anchors.verify_head(&tombstone),
        Err(TrustError::BadSignature)
    );
}

#[test]
fn another_fleets_authority_is_not_believed() {
    let (ours, theirs) = (authority(1), authority(2));
    let signed = theirs.sign_record(&record(&ours));
    assert_eq!(
        anchors(&ours).verify_record(&signed),
        Err(TrustError::UnknownSigner)
    );
}

#[test]
fn a_record_of_another_fleet_is_refused_even_from_our_key() {
    let (ours, theirs) = (authority(1), authority(2));
    let signed = ours.sign_record(&record(&theirs));
    let refused = TrustError::OtherFleet {
        expected: ours.fleet_id(),
        found: theirs.fleet_id(),
    };
    assert_eq!(anchors(&ours).verify_record(&signed), Err(refused));
}

#[test]
fn signatures_by_unknown_keys_neither_help_nor_harm() {
    let (ours, theirs) = (authority(1), authority(2));
    let anchors = anchors(&ours);
    let signed = ours.sign_record(&record(&ours));
    let foreign = theirs.sign_record(&record(&ours)).signatures.remove(0);

    let mut both = signed.clone();
    both.signatures.insert(0, foreign.clone());
    assert_eq!(anchors.verify_record(&both), Ok(record(&ours)));

    let alone = Signed {
        signatures: vec![foreign],
        ..signed.clone()
    };
    assert_eq!(
        anchors.verify_record(&alone),
        Err(TrustError::UnknownSigner)
    );

    let unsigned = Signed {
        signatures: Vec::new(),
        ..signed
    };
    assert_eq!(
        anchors.verify_record(&unsigned),
        Err(TrustError::UnknownSigner)
    );
}

#[test]
fn a_bad_signature_of_a_known_key_spoils_a_good_one() {
    let authority = authority(1);
    let other = SigningKey::from_seed(seeds(3).records);
    let mut wider = statement(&authority);
    wider.record_keys.push(other.public());
    let pin = authority.root_pin();
    let (anchors, _) = TrustAnchors::from_statement(&authority.sign_trust(&wider), &pin).unwrap();
    let mut signed = authority.sign_record(&record(&authority));
    signed.signatures.push(Signature {
        key_id: other.key_id(),
        value: [0; 64],
    });
    assert_eq!(
        anchors.verify_record(&signed),
        Err(TrustError::BadSignature)
    );
}

#[test]
fn a_root_key_signs_no_records_and_a_record_key_no_statements() {
    let authority = authority(1);
    let anchors = anchors(&authority);
    let (root, records) = (
        SigningKey::from_seed(seeds(1).root),
        SigningKey::from_seed(seeds(1).records),
    );
    let payload = authority.sign_record(&record(&authority)).payload;
    let signatures = vec![root.sign(HOST_RECORD, &payload)];
    let signed = Signed {
        payload,
        signatures,
    };
    assert_eq!(
        anchors.verify_record(&signed),
        Err(TrustError::UnknownSigner)
    );

    let payload = wire::encode_trust_statement(&statement(&authority));
    let signatures = vec![records.sign(TRUST_STATEMENT, &payload)];
    let signed = Signed {
        payload,
        signatures,
    };
    let pin = authority.root_pin();
    assert_eq!(
        TrustAnchors::from_statement(&signed, &pin),
        Err(TrustError::UnknownSigner)
    );
    assert_eq!(anchors.update(&signed), Err(TrustError::UnknownSigner));
}

#[test]
fn a_statement_has_to_come_from_the_pinned_root() {
    let (ours, theirs) = (authority(1), authority(2));
    let pin = ours.root_pin();
    let signed = theirs.sign_trust(&statement(&theirs));
    assert_eq!(
        TrustAnchors::from_statement(&signed, &pin),
        Err(TrustError::WrongPin { pin })
    );

    // The pinned root is listed, but another one signs.
    let mut mixed = statement(&ours);
    mixed
        .root_certificates
        .push(theirs.root_certificate().to_vec());
    let signed = theirs.sign_trust(&mixed);
    assert_eq!(
        TrustAnchors::from_statement(&signed, &pin),
        Err(TrustError::UnknownSigner)
    );
}

#[test]
fn a_statement_about_another_fleet_is_refused() {
    let (ours, theirs) = (authority(1), authority(2));
    let mut other = statement(&ours);
    other.fleet = theirs.fleet_id();
    let signed = ours.sign_trust(&other);
    let refused = TrustError::OtherFleet {
        expected: ours.fleet_id(),
        found: theirs.fleet_id(),
    };
    assert_eq!(
        TrustAnchors::from_statement(&signed, &ours.root_pin()),
        Err(refused)
    );
}

#[test]
fn a_changed_statement_is_refused() {
    let authority = authority(1);
    let mut signed = authority.sign_trust(&statement(&authority));
    let mut changed = statement(&authority);
    changed.record_keys = vec![[6; 32]];
    signed.payload = wire::encode_trust_statement(&changed);
    let refused = TrustAnchors::from_statement(&signed, &authority.root_pin());
    assert_eq!(refused, Err(TrustError::BadSignature));
}

#[test]
fn a_newer_statement_replaces_the_keys() {
    let authority = authority(1);
    let first = anchors(&authority);
    let next_key = SigningKey::from_seed(seeds(3).records);
    let mut next = statement(&authority);
    next.serial = 2;
    next.previous = Some(sha256(
        &authority.sign_trust(&statement(&authority)).payload,
    ));
    next.record_keys = vec![next_key.public()];
    let updated = first.update(&authority.sign_trust(&next)).unwrap().unwrap();
    assert_eq!(updated.statement(), &next);
    let old = authority.sign_record(&record(&authority));
    assert_eq!(updated.verify_record(&old), Err(TrustError::UnknownSigner));
}

#[test]
fn the_same_statement_again_changes_nothing() {
    let authority = authority(1);
    let signed = authority.sign_trust(&statement(&authority));
    assert_eq!(anchors(&authority).update(&signed), Ok(None));
}

/// What a host that has serial 5 says of a statement that `change` made.
fn update_from_serial_5(change: impl FnOnce(&mut TrustStatement)) -> Result<bool, TrustError> {
    let authority = authority(1);
    let mut seen = statement(&authority);
    seen.serial = 5;
    let signed = authority.sign_trust(&seen);
    let (anchors, _) = TrustAnchors::from_statement(&signed, &authority.root_pin()).unwrap();
    let mut next = seen;
    change(&mut next);
    anchors
        .update(&authority.sign_trust(&next))
        .map(|newer| newer.is_some())
}

#[test]
fn an_older_statement_is_refused() {
    let stale = |result| matches!(result, Err(TrustError::Stale { .. }));
    assert!(stale(update_from_serial_5(|next| next.serial = 4)));
    assert!(stale(update_from_serial_5(|next| (
        next.epoch,
        next.serial
    ) = (0, 9))));
}

#[test]
fn a_restored_epoch_or_a_gap_is_newer() {
    assert_eq!(
        update_from_serial_5(|next| (next.epoch, next.serial) = (2, 1)),
        Ok(true)
    );
    assert_eq!(update_from_serial_5(|next| next.serial = 7), Ok(true));
}

#[test]
fn a_statement_that_contradicts_is_refused() {
    let forked = Err(TrustError::Forked);
    assert_eq!(
        update_from_serial_5(|next| next.dns_suffix = "other".into()),
        forked
    );
    assert_eq!(update_from_serial_5(|next| next.serial = 6), forked);
    let wrong_previous = |next: &mut TrustStatement| {
        next.serial = 6;
        next.previous = Some(Digest::from_bytes([0; 32]));
    };
    assert_eq!(update_from_serial_5(wrong_previous), forked);
}

#[test]
fn an_update_by_another_root_is_refused() {
    let (ours, theirs) = (authority(1), authority(2));
    let mut next = statement(&ours);
    next.serial = 2;
    next.root_certificates
        .push(theirs.root_certificate().to_vec());
    let signed = theirs.sign_trust(&next);
    assert_eq!(
        anchors(&ours).update(&signed),
        Err(TrustError::UnknownSigner)
    );
}

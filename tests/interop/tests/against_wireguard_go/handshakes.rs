//! Who begins, with and without a preshared key, over both families; and what passes then.

use interop::OVERLAY_MTU;
use lab::{LabError, wait_until};
use model::key::Secret;

use crate::pair::{Initiator, Pair, SOON, Terms};
use crate::transfer::{carry, sizes_that_change};

/// Lets bytes pass over both families, from the one that begins, and checks that the other has
/// learnt where it is.
fn assert_bytes_pass(initiator: Initiator, terms: &Terms) -> Result<(), LabError> {
    let pair = Pair::joined(initiator, terms)?;
    let (from, to) = pair.in_order(initiator);
    for address in [to.overlay_v4(), to.overlay_v6()] {
        carry(from.namespace(), to.namespace(), address, || Ok(()))?;
    }
    let learnt = to.device.only_peer()?;
    assert_eq!(learnt.endpoint, Some(from.endpoint(terms.over_ipv6)));
    for station in [&pair.ours, &pair.theirs] {
        let peer = station.device.only_peer()?;
        assert!(peer.latest_handshake.is_some(), "{peer:?}");
    }
    Ok(())
}

fn with_preshared() -> Terms {
    Terms {
        preshared: Some(Secret::from_bytes([9; 32])),
        ..Terms::default()
    }
}

#[test]
fn we_begin() -> Result<(), LabError> {
    assert_bytes_pass(Initiator::Ours, &Terms::default())
}

#[test]
fn they_begin() -> Result<(), LabError> {
    assert_bytes_pass(Initiator::Theirs, &Terms::default())
}

#[test]
fn we_begin_with_a_preshared_key() -> Result<(), LabError> {
    assert_bytes_pass(Initiator::Ours, &with_preshared())
}

#[test]
fn they_begin_with_a_preshared_key() -> Result<(), LabError> {
    assert_bytes_pass(Initiator::Theirs, &with_preshared())
}

#[test]
fn we_begin_over_ipv6() -> Result<(), LabError> {
    let terms = Terms {
        over_ipv6: true,
        ..with_preshared()
    };
    assert_bytes_pass(Initiator::Ours, &terms)
}

/// Each knows where the other is, and has something to say at the same moment.
#[test]
fn both_begin_at_once() -> Result<(), LabError> {
    let terms = Terms::default();
    let pair = Pair::joined(Initiator::Ours, &terms)?;
    let (us, them) = (
        pair.us(Initiator::Theirs, &terms),
        pair.them(Initiator::Ours, &terms),
    );
    pair.theirs.device.update_peer(&us)?;
    for _ in 0..5 {
        pair.theirs.device.renew_peer(&us)?;
        pair.ours.device.renew_peer(&them)?;
        std::thread::scope(|scope| {
            let pair = &pair;
            [Initiator::Ours, Initiator::Theirs]
                .map(|who| scope.spawn(move || pair.wait_for_session(who)))
                .into_iter()
                .try_for_each(|begun| begun.join().expect("it returns its errors"))
        })?;
    }
    let (ours, theirs) = (pair.ours.namespace(), pair.theirs.namespace());
    carry(ours, theirs, pair.theirs.overlay_v4(), || Ok(()))
}

#[test]
fn different_preshared_keys_make_no_session() -> Result<(), LabError> {
    let pair = Pair::joined(Initiator::Ours, &with_preshared())?;
    let other = Terms {
        preshared: Some(Secret::from_bytes([8; 32])),
        ..Terms::default()
    };
    let us = pair.us(Initiator::Ours, &other);
    pair.theirs.device.configure(&[us])?;
    let target = pair.theirs.overlay_v4().to_string();
    let ping = pair.ours.namespace().launch("ping");
    let ran = ping.args(["-c1", "-W1", &target]).run()?;
    assert!(!ran.status.success(), "{}", ran.stdout);
    wait_until("they answer our handshake", SOON, || {
        Ok((pair.theirs.said("Sending handshake response")? > 0).then_some(()))
    })?;
    wait_until("we refuse the answer", SOON, || {
        pair.ours.device.only_peer()?;
        Ok((pair.ours.said("handshake_forged")? > 0).then_some(()))
    })?;
    assert_eq!(pair.ours.device.only_peer()?.latest_handshake, None);
    Ok(())
}

#[test]
fn packets_of_every_size_pass() -> Result<(), LabError> {
    let pair = Pair::joined(Initiator::Ours, &Terms::default())?;
    pair.wait_for_session(Initiator::Ours)?;
    let (ours, theirs) = (pair.ours.namespace(), pair.theirs.namespace());
    let mtu = usize::from(OVERLAY_MTU);
    // The UDP header and that of IPv4 or IPv6.
    let over_v4 = sizes_that_change(ours, theirs, pair.theirs.overlay_v4(), mtu - 28)?;
    assert_eq!(over_v4, Vec::<usize>::new());
    let over_v6 = sizes_that_change(ours, theirs, pair.theirs.overlay_v6(), mtu - 48)?;
    assert_eq!(over_v6, Vec::<usize>::new());
    Ok(())
}

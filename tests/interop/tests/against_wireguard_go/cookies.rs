//! A side under load asks for proof of address, and the other gives it.

use interop::{Flood, public_key};
use lab::{LabError, wait_until};

use crate::pair::{Initiator, Pair, SOON, Terms, ours};

/// What `wireguard-go` says when it is sent a cookie, and when it sends one.
const COOKIE_RECEIVED: &str = "Receiving cookie response";
const COOKIE_SENT: &str = "Sending cookie response";

fn loaded(initiator: Initiator) -> Result<Pair, LabError> {
    let pair = Pair::start(&ours().with("--always-loaded"))?;
    pair.join(initiator, &Terms::default())?;
    Ok(pair)
}

#[test]
fn they_begin_and_prove_their_address_to_us() -> Result<(), LabError> {
    let pair = loaded(Initiator::Theirs)?;
    pair.wait_for_session(Initiator::Theirs)?;
    assert!(pair.theirs.said(COOKIE_RECEIVED)? > 0);
    Ok(())
}

#[test]
fn their_first_answer_to_us_needs_no_proof() -> Result<(), LabError> {
    let pair = loaded(Initiator::Ours)?;
    pair.wait_for_session(Initiator::Ours)?;
    assert_eq!(pair.theirs.said(COOKIE_RECEIVED)?, 0, "it was awaited");
    Ok(())
}

#[test]
fn we_prove_our_address_to_them_in_the_middle_of_a_flood() -> Result<(), LabError> {
    let pair = Pair::start(&ours())?;
    let stranger = pair.lab.namespace("stranger")?;
    pair.network.attach(&stranger, "eth0")?;
    let _flood = Flood::start(&stranger, public_key(1), pair.theirs.endpoint(false))?;
    wait_until("they feel the load", SOON, || {
        Ok((pair.theirs.said(COOKIE_SENT)? > 0).then_some(()))
    })?;
    pair.join(Initiator::Ours, &Terms::default())?;
    pair.wait_for_session(Initiator::Ours)?;
    // Asked, our side says what it has dropped.
    pair.ours.device.only_peer()?;
    assert_eq!(pair.ours.said("cookie_rejected")?, 0);
    Ok(())
}

//! New sessions while bytes flow, begun by either side, and after a restart of ours.

use std::time::Duration;

use lab::{LabError, wait_until};

use crate::pair::{Initiator, Pair, SOON, Station, Terms};
use crate::transfer::carry;

const SESSION: &str = "session established";
/// What `wireguard-go` says of the handshakes in which it is the initiator, and the responder.
const THEY_BEGAN: &str = "Received handshake response";
const WE_BEGAN: &str = "Received handshake initiation";

fn wait_for_more(station: &Station, text: &str, before: usize) -> Result<(), LabError> {
    wait_until(&format!("the log says \"{text}\" again"), SOON, || {
        Ok((station.said(text)? > before).then_some(()))
    })
}

/// One side forgets the other while bytes flow, and has to begin anew.
fn assert_renewed(who: Initiator, sign: &str) -> Result<(), LabError> {
    let terms = Terms::default();
    let pair = Pair::joined(who, &terms)?;
    let (from, to) = pair.in_order(who);
    carry(from.namespace(), to.namespace(), to.overlay_v4(), || {
        let begun = pair.theirs.said(sign)?;
        let sessions = pair.ours.said(SESSION)?;
        match who {
            Initiator::Ours => pair.ours.device.renew_peer(&pair.them(who, &terms))?,
            Initiator::Theirs => pair.theirs.device.renew_peer(&pair.us(who, &terms))?,
        }
        wait_for_more(&pair.theirs, sign, begun)?;
        wait_for_more(&pair.ours, SESSION, sessions)
    })
}

#[test]
fn a_handshake_that_we_begin_renews_the_session_under_a_transfer() -> Result<(), LabError> {
    assert_renewed(Initiator::Ours, WE_BEGAN)
}

#[test]
fn a_handshake_that_they_begin_renews_the_session_under_a_transfer() -> Result<(), LabError> {
    assert_renewed(Initiator::Theirs, THEY_BEGAN)
}

#[test]
fn after_a_crash_of_ours_they_take_us_back() -> Result<(), LabError> {
    let terms = Terms::default();
    let mut pair = Pair::joined(Initiator::Ours, &terms)?;
    pair.wait_for_session(Initiator::Ours)?;
    pair.ours.device = pair.ours.device.restart()?;
    let them = pair.them(Initiator::Ours, &terms);
    pair.ours.device.configure(&[them])?;
    pair.wait_for_session(Initiator::Ours)
}

#[test]
fn after_a_restart_of_theirs_we_take_them_back() -> Result<(), LabError> {
    let terms = Terms::default();
    let mut pair = Pair::joined(Initiator::Theirs, &terms)?;
    pair.wait_for_session(Initiator::Theirs)?;
    pair.theirs.device = pair.theirs.device.restart()?;
    let us = pair.us(Initiator::Theirs, &terms);
    pair.theirs.device.configure(&[us])?;
    pair.wait_for_session(Initiator::Theirs)
}

/// Ten echo requests a second for longer than a session lives, each answered.
fn assert_nothing_is_lost_over_a_rekey(who: Initiator, sign: &str) -> Result<(), LabError> {
    let pair = Pair::joined(who, &Terms::default())?;
    pair.wait_for_session(who)?;
    let (from, to) = pair.in_order(who);
    let ping = from.namespace().launch("ping");
    let ran = ping
        .args(["-q", "-i0.1", "-c1300", "-W5", &to.overlay_v4().to_string()])
        .within(Duration::from_secs(200))
        .run()?
        .success()?;
    assert!(
        ran.stdout
            .contains("1300 packets transmitted, 1300 received"),
        "{}",
        ran.stdout
    );
    assert!(pair.theirs.said(sign)? >= 2, "the session was not renewed");
    assert!(pair.ours.said(SESSION)? >= 2, "the session was not renewed");
    Ok(())
}

#[test]
#[ignore = "long: waits for REKEY_AFTER_TIME, two minutes"]
fn we_renew_by_time_and_nothing_is_lost() -> Result<(), LabError> {
    assert_nothing_is_lost_over_a_rekey(Initiator::Ours, WE_BEGAN)
}

#[test]
#[ignore = "long: waits for REKEY_AFTER_TIME, two minutes"]
fn they_renew_by_time_and_nothing_is_lost() -> Result<(), LabError> {
    assert_nothing_is_lost_over_a_rekey(Initiator::Theirs, THEY_BEGAN)
}

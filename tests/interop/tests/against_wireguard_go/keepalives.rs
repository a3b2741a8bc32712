//! Persistent keepalives: they open a session without traffic, and they are sent.

use std::time::Duration;

use lab::{LabError, wait_until};

use crate::pair::{Initiator, Pair, SOON, Station, Terms};

/// A data message without content (whitepaper 5.4.6): header 16, tag 16.
const KEEPALIVE_BYTES: u64 = 32;
const INTERVAL: Option<Duration> = Some(Duration::from_secs(1));

/// Waits until three keepalives have come in since the first look; nothing else comes.
fn assert_keepalives_arrive(at: &Station) -> Result<(), LabError> {
    let received = || at.device.only_peer().map(|peer| peer.received_bytes);
    wait_until("a session without traffic", SOON, || {
        Ok(at.device.only_peer()?.latest_handshake)
    })?;
    let start = received()?;
    wait_until("three keepalives have come", SOON, || {
        let more = received()? - start;
        assert_eq!(more % KEEPALIVE_BYTES, 0, "something else has come");
        Ok((more >= 3 * KEEPALIVE_BYTES).then_some(()))
    })
}

#[test]
fn ours_reach_them() -> Result<(), LabError> {
    let terms = Terms {
        our_keepalive: INTERVAL,
        ..Terms::default()
    };
    let pair = Pair::joined(Initiator::Ours, &terms)?;
    assert_keepalives_arrive(&pair.theirs)
}

#[test]
fn theirs_reach_us() -> Result<(), LabError> {
    let terms = Terms {
        their_keepalive: INTERVAL,
        ..Terms::default()
    };
    let pair = Pair::joined(Initiator::Theirs, &terms)?;
    assert_keepalives_arrive(&pair.ours)
}

//! The end of sessions: renewal by time, refusal of old keys, giving up, wiping.

use std::time::Duration;

use wireguard::timers::{
    NO_REPLY_TIMEOUT, REJECT_AFTER_TIME, REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT,
};
use wireguard::{Action, SealError};

use crate::host::{Fate, PLAINTEXT_MAX, connected, exchange, padded, pair, run_until};

const START: Duration = Duration::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_initiator_renews_an_old_session_when_it_sends_and_no_packet_waits() {
    let (mut alice, mut bob) = connected(START);
    let old = START + REKEY_AFTER_TIME;
    alice.send(b"x", old - SECOND);
    assert_eq!(alice.count(Action::SendInitiation), 0);
    for _ in 0..1_000 {
        alice.send(b"x", old);
    }
    assert_eq!(
        alice.count(Action::SendInitiation),
        1,
        "once, however many packets"
    );
    exchange(&mut alice, &mut bob, old);
    assert_eq!(bob.inbox.len(), 1_001);
    assert_eq!(alice.tunnel.last_handshake_at(), Some(old));
}

#[test]
fn the_responder_does_not_renew_by_time() {
    let (mut alice, mut bob) = connected(START);
    bob.send(b"x", START + REJECT_AFTER_TIME - SECOND);
    assert_eq!(bob.count(Action::SendInitiation), 0);
    exchange(&mut alice, &mut bob, START + REJECT_AFTER_TIME - SECOND);
    assert_eq!(
        alice.count(Action::SendInitiation),
        1,
        "the initiator does, on receiving"
    );
}

#[test]
fn the_initiator_renews_late_when_it_only_receives() {
    let (mut alice, mut bob) = connected(START);
    let due = START + REJECT_AFTER_TIME - NO_REPLY_TIMEOUT;
    bob.send(b"x", due - SECOND);
    exchange(&mut alice, &mut bob, due - SECOND);
    assert_eq!(alice.count(Action::SendInitiation), 0);
    bob.send(b"x", due);
    exchange(&mut alice, &mut bob, due);
    assert_eq!(alice.count(Action::SendInitiation), 1);
    assert_eq!(bob.inbox, Vec::<Vec<u8>>::new(), "a keepalive confirms");
    assert_eq!(alice.inbox.len(), 2);
}

#[test]
fn nothing_is_sealed_with_expired_keys() {
    let (mut alice, _) = connected(START);
    let expired = START + REJECT_AFTER_TIME;
    let mut out = [0; 200];
    let sealed = alice
        .tunnel
        .seal_into(&[b"late"], PLAINTEXT_MAX, &mut out, expired);
    assert_eq!(sealed, Err(SealError::NeedsHandshake));
    assert!(!alice.tunnel.has_session(expired));
    assert_eq!(out, [0; 200]);
    assert_eq!(alice.tunnel.poll_action(), Some(Action::SendInitiation));
}

#[test]
fn nothing_is_opened_with_expired_keys() {
    let (mut alice, mut bob) = connected(START);
    let expired = START + REJECT_AFTER_TIME;
    alice.send(b"late", expired - Duration::from_millis(1));
    let datagram = alice.sent().expect("a packet");
    let fate = bob.receive_from(&datagram, alice.address, expired);
    assert_eq!(
        fate,
        Fate::Dropped("the session of the packet has expired".to_owned())
    );
    bob.handle_timeout(expired);
    assert_eq!(bob.tunnel.live_indices().count(), 0);
}

#[test]
fn a_session_that_was_never_confirmed_expires_too() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    bob.receive_from(&alice.sent().expect("an initiation"), alice.address, START);
    alice.receive_from(&bob.sent().expect("a response"), bob.address, START);
    let held_back = alice.sent().expect("a packet");
    let expired = START + REJECT_AFTER_TIME;
    assert_ne!(
        bob.receive_from(&held_back, alice.address, expired),
        Fate::Taken
    );
    assert!(!bob.tunnel.has_session(expired));
    bob.handle_timeout(expired);
    assert_eq!(bob.tunnel.live_indices().count(), 0);
}

#[test]
fn all_keys_are_gone_long_before_three_times_the_reject_time() {
    let (mut alice, mut bob) = connected(START);
    alice.send(b"x", START + SECOND);
    alice.outbox.clear();
    bob.outbox.clear();
    let mut now = START;
    while let Some((at, _)) = alice.tunnel.poll_timeout() {
        now = at;
        alice.handle_timeout(now);
        alice.outbox.clear();
    }
    assert!(
        now < START + REJECT_AFTER_TIME * 3,
        "then it is quiet for ever"
    );
    assert_eq!(alice.tunnel.live_indices().count(), 0);
    assert_eq!(alice.count(Action::Expired), 1);
}

#[test]
fn a_dead_peer_is_given_up_after_ninety_seconds_until_the_next_packet() {
    let (mut alice, _) = pair(START);
    alice.send(b"x", START);
    while let Some((at, _)) = alice.tunnel.poll_timeout() {
        assert!(at < START + REKEY_ATTEMPT_TIME + REKEY_TIMEOUT * 2);
        alice.handle_timeout(at);
    }
    let tries = alice.count(Action::SendInitiation);
    assert!((16..=18).contains(&tries), "{tries}");
    assert_eq!(alice.actions.last(), Some(&Action::Expired));
    alice.send(b"y", START + Duration::from_secs(500));
    assert_eq!(alice.count(Action::SendInitiation), tries + 1);
}

#[test]
fn silence_after_sending_brings_a_new_handshake() {
    let (mut alice, mut bob) = connected(START);
    let now = START + SECOND * 30;
    run_until(&mut alice, &mut bob, now);
    alice.send(b"lost", now);
    alice.outbox.clear();
    run_until(&mut alice, &mut bob, now + NO_REPLY_TIMEOUT - SECOND);
    assert_eq!(alice.count(Action::SendInitiation), 0);
    run_until(&mut alice, &mut bob, now + NO_REPLY_TIMEOUT + SECOND);
    assert_eq!(alice.count(Action::SendInitiation), 1);
    assert!(alice.tunnel.last_handshake_at() > Some(START));
}

#[test]
fn packets_of_the_session_before_still_open_after_a_renewal() {
    let (mut alice, mut bob) = connected(START);
    let now = START + REKEY_AFTER_TIME;
    bob.send(b"on its way", now);
    let held_back = bob.sent().expect("a packet");
    alice.send(b"x", now);
    exchange(&mut alice, &mut bob, now);
    assert_eq!(
        alice.receive_from(&held_back, bob.address, now),
        Fate::Taken
    );
    assert_eq!(alice.inbox, [padded(b"on its way")]);
    let again = alice.receive_from(&held_back, bob.address, now);
    assert_ne!(again, Fate::Taken, "but once");
}

#[test]
fn a_packet_of_one_session_is_forged_in_another() {
    let (mut alice, mut bob) = connected(START);
    let now = START + REKEY_AFTER_TIME;
    alice.send(b"of the first", now);
    let mut datagram = alice.outbox[0].clone();
    exchange(&mut alice, &mut bob, now);
    alice.send(b"of the second", now);
    let index_of_second = alice.outbox[0][4..8].to_vec();
    assert_ne!(datagram[4..8], index_of_second);
    datagram[4..8].copy_from_slice(&index_of_second);
    datagram[8..16].copy_from_slice(&1_000_u64.to_le_bytes());
    let fate = bob.receive_from(&datagram, alice.address, now);
    assert_eq!(
        fate,
        Fate::Dropped("the packet is not authentic".to_owned())
    );
}

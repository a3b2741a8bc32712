//! Handshakes between two tunnels: replays, floods, forgeries, cookies, lost jobs.

use std::time::Duration;

use proptest::prelude::*;
use wireguard::timers::{INITIATION_INTERVAL, REKEY_TIMEOUT};
use wireguard::{Action, CookieReply, Load, PresharedKey, Timestamp, Tunnel};

use crate::host::{
    CIPHER, Fate, Host, config, connected, exchange, padded, pair, private_key, run_until,
};

const START: Duration = Duration::from_secs(1_000);

fn dropped(reason: &str) -> Fate {
    Fate::Dropped(reason.to_owned())
}

#[test]
fn a_packet_that_waits_brings_up_the_tunnel_and_both_directions_work() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"to bob", START);
    alice.send(b"again", START);
    exchange(&mut alice, &mut bob, START);
    assert_eq!(bob.inbox, [padded(b"to bob"), padded(b"again")]);
    bob.send(b"to alice", START);
    exchange(&mut alice, &mut bob, START);
    assert_eq!(alice.inbox, [padded(b"to alice")]);
    assert_eq!(alice.count(Action::SendInitiation), 1);
    assert_eq!(
        alice.count(Action::SendKeepalive),
        0,
        "the packets confirm the session"
    );
    assert_eq!(alice.tunnel.last_handshake_at(), Some(START));
}

#[test]
fn a_preshared_key_must_be_the_same_at_both_ends() {
    let with_key = |key: u8, peer: u8, psk: u8| {
        let mut config = config(peer, u64::from(key));
        config.preshared_key = PresharedKey::from_bytes([psk; 32]);
        Host::with_config(key, config, START)
    };
    let (mut alice, mut bob) = (with_key(1, 2, 7), with_key(2, 1, 7));
    alice.send(b"x", START);
    exchange(&mut alice, &mut bob, START);
    assert_eq!(bob.inbox.len(), 1);

    let (mut alice, mut bob) = (with_key(1, 2, 7), with_key(2, 1, 8));
    alice.send(b"x", START);
    exchange(&mut alice, &mut bob, START);
    assert!(bob.inbox.is_empty() && !alice.tunnel.has_session(START));
}

#[test]
fn a_replayed_initiation_is_refused_however_late() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    let initiation = alice.sent().expect("an initiation");
    assert_eq!(
        bob.receive_from(&initiation, alice.address, START),
        Fate::Taken
    );
    let refused = dropped("the initiation is a replay, or the peer's clock was set back");
    for later in [0, 1, 60, 3_600].map(Duration::from_secs) {
        let elsewhere = "203.0.113.9:9".parse().expect("an address");
        let fate = bob.receive_from(&initiation, elsewhere, START + later);
        assert_eq!(fate, refused);
    }
    assert_eq!(bob.outbox.len(), 1, "one response");
}

#[test]
fn an_older_initiation_that_was_held_back_is_refused() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    let held_back = alice.sent().expect("an initiation");
    let retry_at = START + REKEY_TIMEOUT + Duration::from_secs(1);
    alice.handle_timeout(retry_at);
    let newer = alice.sent().expect("another");
    assert_eq!(
        bob.receive_from(&newer, alice.address, retry_at),
        Fate::Taken
    );
    let later = retry_at + Duration::from_secs(1);
    assert_ne!(
        bob.receive_from(&held_back, alice.address, later),
        Fate::Taken
    );
}

#[test]
fn timestamps_grow_even_when_the_clock_was_set_back() {
    let (alice, bob) = pair(START);
    let mut tunnel = Tunnel::new(config(2, 0), START);
    let mut last = Timestamp::default();
    for unix in [5_000, 4_000, 4_000, 3] {
        let clock = Timestamp::from_unix(Duration::from_secs(unix));
        let job = tunnel.begin_initiation(private_key(9), 1, clock);
        tunnel.request_handshake(START);
        let created = job.run(&alice.keys).expect("the key is good");
        let datagram = tunnel
            .install_initiation(created, START)
            .expect("it is wanted");
        let message = wireguard::Initiation::parse(&datagram).expect("an initiation");
        let consumed = wireguard::consume_initiation(&bob.keys, &message, &[CIPHER]).expect("ours");
        assert!(consumed.timestamp() > last);
        last = consumed.timestamp();
    }
}

#[test]
fn a_flood_of_initiations_of_one_peer_is_thinned() {
    let (alice, mut bob) = pair(START);
    let mut tunnel = Tunnel::new(config(2, 0), START);
    tunnel.request_handshake(START);
    let (mut answered, step) = (0, Duration::from_millis(1));
    for tick in 0..200 {
        let clock = Timestamp::from_unix(Duration::from_secs(u64::from(tick)));
        let job = tunnel.begin_initiation(private_key(9), tick, clock);
        let created = job.run(&alice.keys).expect("the key is good");
        let datagram = tunnel
            .install_initiation(created, START)
            .expect("it is wanted");
        let now = START + step * tick;
        answered += usize::from(bob.receive_from(&datagram, alice.address, now) == Fate::Taken);
    }
    assert_eq!(answered, 200 / INITIATION_INTERVAL.as_millis() as usize);
}

#[test]
fn a_forged_response_does_not_spoil_the_wait_for_the_real_one() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    let initiation = alice.sent().expect("an initiation");
    bob.receive_from(&initiation, alice.address, START);
    let response = bob.sent().expect("a response");
    let mut forged = response.clone();
    forged[20] ^= 1;
    wireguard::CookieJar::new(alice.keys.public()).sign(&mut forged, START);
    let fate = alice.receive_from(&forged, bob.address, START);
    assert!(matches!(fate, Fate::Dropped(reason) if reason.contains("does not decrypt")));
    assert_eq!(
        alice.receive_from(&response, bob.address, START),
        Fate::Taken
    );
    let again = alice.receive_from(&response, bob.address, START);
    assert_eq!(again, dropped("no response is awaited"));
}

#[test]
fn a_response_that_was_understood_twice_makes_one_session() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    bob.receive_from(&alice.sent().expect("an initiation"), alice.address, START);
    let datagram = bob.sent().expect("a response");
    let response = wireguard::Response::parse(&datagram).expect("a response");
    let jobs = [0, 1].map(|_| {
        alice
            .tunnel
            .begin_completion(response.clone())
            .expect("awaited")
    });
    let keys = jobs.map(|job| job.run(&alice.keys).expect("authentic"));
    let installed = keys.map(|keys| alice.tunnel.install_session(keys, START).is_ok());
    assert_eq!(installed, [true, false]);
    assert_eq!(alice.tunnel.live_indices().count(), 1);
}

#[test]
fn a_response_to_an_initiation_that_was_replaced_meanwhile_is_superseded() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    bob.receive_from(&alice.sent().expect("an initiation"), alice.address, START);
    let response = wireguard::Response::parse(&bob.sent().expect("a response")).expect("one");
    let job = alice.tunnel.begin_completion(response).expect("awaited");
    let retry_at = START + REKEY_TIMEOUT + Duration::from_secs(1);
    alice.handle_timeout(retry_at);
    let keys = job.run(&alice.keys).expect("authentic");
    assert!(alice.tunnel.install_session(keys, retry_at).is_err());
    exchange(&mut alice, &mut bob, retry_at);
    assert_eq!(bob.inbox, [padded(b"x")], "the retry is still awaited");
}

#[test]
fn who_has_just_answered_leaves_the_initiative_to_the_peer() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    bob.receive_from(&alice.sent().expect("an initiation"), alice.address, START);
    bob.outbox.clear(); // the response is lost
    bob.send(b"y", START + Duration::from_secs(1));
    assert_eq!(bob.count(Action::SendInitiation), 0);
    bob.handle_timeout(START + REKEY_TIMEOUT + Duration::from_secs(1));
    assert_eq!(bob.count(Action::SendInitiation), 1, "but not for ever");
}

#[test]
fn a_session_from_the_peer_ends_our_own_attempt() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    alice.outbox.clear(); // the initiation is lost
    bob.send(b"y", START);
    exchange(&mut alice, &mut bob, START);
    assert_eq!((alice.inbox.len(), bob.inbox.len()), (1, 1));
    assert_eq!(
        alice.tunnel.live_indices().count(),
        1,
        "nothing waits for a response"
    );
}

#[test]
fn a_wish_that_a_session_has_met_before_it_was_polled_is_withdrawn() {
    let (mut alice, mut bob) = pair(START);
    bob.send(b"x", START);
    alice.receive_from(&bob.sent().expect("an initiation"), bob.address, START);
    bob.receive_from(&alice.sent().expect("a response"), alice.address, START);
    let later = START + REKEY_TIMEOUT;
    let unsealed = alice.tunnel.seal_into(&[b"y"], 1420, &mut [0; 100], later);
    assert!(unsealed.is_err(), "the session is not confirmed yet");
    let mut datagram = bob.sent().expect("a packet");
    alice
        .tunnel
        .open_in_place(&mut datagram, later)
        .expect("it confirms the session");
    assert_eq!(alice.tunnel.poll_action(), Some(Action::SessionReady));
    assert_eq!(alice.tunnel.poll_action(), None);
}

#[test]
fn an_initiation_whose_job_is_lost_is_tried_again() {
    let mut tunnel = Tunnel::new(config(2, 0), START);
    tunnel.request_handshake(START);
    assert_eq!(tunnel.poll_action(), Some(Action::SendInitiation));
    assert_eq!(tunnel.poll_action(), None);
    let (retry_at, reason) = tunnel.poll_timeout().expect("a timer");
    assert_eq!(reason, "handshake retry");
    tunnel.handle_timeout(retry_at);
    assert_eq!(tunnel.poll_action(), Some(Action::SendInitiation));
}

#[test]
fn an_initiation_that_nobody_wants_any_more_is_not_sent() {
    let (mut alice, mut bob) = pair(START);
    alice.tunnel.request_handshake(START);
    assert_eq!(alice.tunnel.poll_action(), Some(Action::SendInitiation));
    let job = alice
        .tunnel
        .begin_initiation(private_key(9), 1, Timestamp::default());
    bob.send(b"x", START);
    exchange(&mut alice, &mut bob, START);
    assert!(alice.tunnel.has_session(START), "the peer was faster");
    let created = job.run(&alice.keys).expect("the key is good");
    assert!(alice.tunnel.install_initiation(created, START).is_err());
}

#[test]
fn under_load_a_handshake_takes_a_cookie_and_one_retry() {
    let (mut alice, mut bob) = pair(START);
    bob.load = Load::Heavy;
    alice.send(b"x", START);
    let before = alice.tunnel.poll_timeout();
    exchange(&mut alice, &mut bob, START);
    assert!(!alice.tunnel.has_session(START));
    assert_eq!(
        alice.tunnel.poll_timeout(),
        before,
        "a cookie reply moves no timer"
    );
    run_until(&mut alice, &mut bob, START + Duration::from_secs(6));
    assert_eq!(bob.inbox, [padded(b"x")]);
    assert_eq!(alice.count(Action::SendInitiation), 2);
}

#[test]
fn a_cookie_is_bound_to_the_address_it_was_sent_to() {
    let (mut alice, mut bob) = pair(START);
    bob.load = Load::Heavy;
    alice.send(b"x", START);
    exchange(&mut alice, &mut bob, START);
    alice.handle_timeout(START + Duration::from_secs(6));
    let with_cookie = alice.sent().expect("a retry");
    let elsewhere = "203.0.113.9:51820".parse().expect("an address");
    let now = START + Duration::from_secs(6);
    assert_eq!(
        bob.receive_from(&with_cookie, elsewhere, now),
        dropped("cookie asked for")
    );
    assert_eq!(
        bob.receive_from(&with_cookie, alice.address, now),
        Fate::Taken
    );
}

#[test]
fn a_cookie_reply_to_nothing_is_refused_and_changes_nothing() {
    let (mut alice, _) = connected(START);
    let reply = CookieReply {
        receiver_index: alice.tunnel.live_indices().next().expect("a session"),
        nonce: [1; 24],
        encrypted_cookie: [2; 32],
    };
    let before = alice.tunnel.poll_timeout();
    let fate = alice.receive_from(
        &reply.encode(),
        "203.0.113.9:9".parse().expect("one"),
        START,
    );
    assert_eq!(fate, dropped("the cookie reply is not authentic"));
    assert_eq!(
        (alice.actions.len(), alice.tunnel.poll_timeout()),
        (0, before)
    );
}

#[test]
fn a_new_session_counts_from_zero_in_both_directions() {
    let (mut alice, mut bob) = connected(START);
    for _ in 0..20 {
        alice.send(b"x", START);
    }
    exchange(&mut alice, &mut bob, START);
    let later = START + Duration::from_secs(10);
    alice.tunnel.request_handshake(later);
    alice.act(later);
    exchange(&mut alice, &mut bob, later);
    bob.inbox.clear();
    alice.send(b"after", later);
    bob.send(b"after", later);
    let counter = |datagram: &[u8]| {
        wireguard::DataHeader::parse(datagram)
            .expect("data")
            .counter
    };
    assert_eq!(counter(&alice.outbox[0]), 1, "the keepalive was 0");
    assert_eq!(counter(&bob.outbox[0]), 0);
    exchange(&mut alice, &mut bob, later);
    assert_eq!((alice.inbox.len(), bob.inbox.len()), (1, 1));
}

#[test]
fn the_first_packet_of_a_session_confirms_it_once() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"one", START);
    alice.send(b"two", START);
    exchange(&mut alice, &mut bob, START);
    assert_eq!(bob.inbox.len(), 2);
    assert_eq!(bob.actions, [Action::SessionReady]);
    assert_eq!(bob.tunnel.live_indices().count(), 1);
}

proptest! {
    #[test]
    fn a_clock_that_goes_backwards_breaks_nothing(times in proptest::collection::vec(0_u64..400, 1..40)) {
        let (mut alice, mut bob) = pair(START);
        for seconds in times {
            let now = Duration::from_secs(seconds);
            alice.send(b"x", now);
            bob.handle_timeout(now);
            alice.handle_timeout(now);
            exchange(&mut alice, &mut bob, now);
        }
    }
}

//! Keepalives: enough of them, and never more.

use std::time::Duration;

use wireguard::Action;
use wireguard::timers::KEEPALIVE_TIMEOUT;

use crate::host::{Host, config, connected, exchange, pair, run_until};

const START: Duration = Duration::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_session_without_packets_is_confirmed_by_one_keepalive_and_then_silent() {
    let (mut alice, mut bob) = pair(START);
    alice.tunnel.request_handshake(START);
    alice.act(START);
    run_until(&mut alice, &mut bob, START + Duration::from_secs(3_600));
    assert_eq!(alice.count(Action::SendKeepalive), 1);
    assert_eq!(
        bob.count(Action::SendKeepalive),
        0,
        "keepalives are not answered"
    );
    assert_eq!(
        alice.count(Action::SendInitiation),
        1,
        "and nobody renews an idle tunnel"
    );
    assert_eq!(bob.count(Action::SessionReady), 1);
}

#[test]
fn one_way_traffic_is_answered_every_ten_seconds() {
    let (mut alice, mut bob) = connected(START);
    for tick in 1..=60 {
        let now = START + SECOND * tick;
        run_until(&mut alice, &mut bob, now);
        alice.send(b"x", now);
        exchange(&mut alice, &mut bob, now);
    }
    let keepalives = bob.count(Action::SendKeepalive);
    assert!((5..=6).contains(&keepalives), "{keepalives}");
    assert_eq!(
        alice.count(Action::SendInitiation),
        0,
        "so that the sender hears something"
    );
}

#[test]
fn two_way_traffic_needs_no_keepalive() {
    let (mut alice, mut bob) = connected(START);
    for tick in 1..=60 {
        let now = START + SECOND * tick;
        run_until(&mut alice, &mut bob, now);
        alice.send(b"x", now);
        bob.send(b"y", now);
        exchange(&mut alice, &mut bob, now);
    }
    run_until(&mut alice, &mut bob, START + SECOND * 60);
    assert_eq!(
        alice.count(Action::SendKeepalive) + bob.count(Action::SendKeepalive),
        0
    );
}

#[test]
fn a_keepalive_that_is_due_is_withdrawn_when_a_packet_is_sent_first() {
    let (mut alice, mut bob) = connected(START);
    alice.send(b"x", START);
    exchange(&mut alice, &mut bob, START);
    let now = START + KEEPALIVE_TIMEOUT;
    bob.tunnel.handle_timeout(now);
    bob.send(b"y", now);
    assert_eq!(bob.count(Action::SendKeepalive), 0);
}

#[test]
fn a_persistent_keepalive_brings_up_the_tunnel_and_keeps_it_up() {
    let interval = Duration::from_secs(25);
    let mut config = config(2, 1);
    config.persistent_keepalive = Some(interval);
    let (mut alice, mut bob) = (Host::with_config(1, config, START), Host::new(2, 1, START));
    let end = START + Duration::from_secs(3_600);
    run_until(&mut alice, &mut bob, end);
    assert!(alice.tunnel.has_session(end) && bob.tunnel.has_session(end));
    let keepalives = alice.count(Action::SendKeepalive);
    assert!((130..=175).contains(&keepalives), "{keepalives}");
    let handshakes = alice.count(Action::SendInitiation);
    assert!((24..=30).contains(&handshakes), "{handshakes}");
    assert_eq!(
        bob.count(Action::SendInitiation),
        0,
        "the two do not fight over the roles"
    );
}

#[test]
fn persistent_keepalives_at_both_ends_do_not_multiply_handshakes() {
    let host = |key: u8, peer: u8| {
        let mut config = config(peer, u64::from(key));
        config.persistent_keepalive = Some(Duration::from_secs(25));
        Host::with_config(key, config, START)
    };
    let (mut alice, mut bob) = (host(1, 2), host(2, 1));
    run_until(&mut alice, &mut bob, START + Duration::from_secs(3_600));
    let handshakes = alice.count(Action::SendInitiation) + bob.count(Action::SendInitiation);
    assert!((24..=62).contains(&handshakes), "{handshakes}");
}

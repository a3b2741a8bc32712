//! Both ends initiate at once, in every order of arrival: neither may end up deaf.

use std::time::Duration;

use proptest::prelude::*;

use crate::host::{Fate, Host, connected, exchange, pair, run_until};

const START: Duration = Duration::from_secs(1_000);

/// Lets both hosts initiate at `now`.
fn cross(alice: &mut Host, bob: &mut Host, now: Duration) {
    for host in [alice, bob] {
        host.tunnel.request_handshake(now);
        host.act(now);
    }
}

/// Delivers what is under way in the order that `order` says, until nothing is left.
fn deliver(alice: &mut Host, bob: &mut Host, order: &[bool], now: Duration) {
    let mut order = order.iter().copied().chain(std::iter::repeat(true));
    while !alice.outbox.is_empty() || !bob.outbox.is_empty() {
        let (sender, receiver) = match order.next() {
            Some(true) if !alice.outbox.is_empty() => (&mut *alice, &mut *bob),
            _ if !bob.outbox.is_empty() => (&mut *bob, &mut *alice),
            _ => (&mut *alice, &mut *bob),
        };
        if let Some(datagram) = sender.sent() {
            receiver.receive_from(&datagram, sender.address, now);
        }
    }
}

/// Sends a packet each way and expects that both arrive.
fn assert_both_hear(alice: &mut Host, bob: &mut Host, now: Duration) {
    alice.inbox.clear();
    bob.inbox.clear();
    alice.send(b"to bob", now);
    bob.send(b"to alice", now);
    exchange(alice, bob, now);
    assert_eq!((alice.inbox.len(), bob.inbox.len()), (1, 1));
}

proptest! {
    #[test]
    fn both_hear_each_other_whatever_arrives_first(order in proptest::collection::vec(any::<bool>(), 12)) {
        let (mut alice, mut bob) = pair(START);
        cross(&mut alice, &mut bob, START);
        deliver(&mut alice, &mut bob, &order, START);
        assert_both_hear(&mut alice, &mut bob, START);
    }

    #[test]
    fn packets_of_every_session_still_open_after_crossing(order in proptest::collection::vec(any::<bool>(), 12)) {
        let (mut alice, mut bob) = connected(START);
        let now = START + Duration::from_secs(30);
        alice.send(b"held back", now);
        bob.send(b"held back", now);
        let from_alice = alice.sent().expect("a packet");
        let from_bob = bob.sent().expect("a packet");
        cross(&mut alice, &mut bob, now);
        deliver(&mut alice, &mut bob, &order, now);
        prop_assert_eq!(bob.receive_from(&from_alice, alice.address, now), Fate::Taken);
        prop_assert_eq!(alice.receive_from(&from_bob, bob.address, now), Fate::Taken);
        assert_both_hear(&mut alice, &mut bob, now);
    }

    #[test]
    fn many_crossings_in_a_row_never_leave_one_side_deaf(
        orders in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 12), 1..30),
    ) {
        let (mut alice, mut bob) = pair(START);
        let mut now = START;
        for order in orders {
            cross(&mut alice, &mut bob, now);
            deliver(&mut alice, &mut bob, &order, now);
            assert_both_hear(&mut alice, &mut bob, now);
            now += Duration::from_secs(20);
            run_until(&mut alice, &mut bob, now);
        }
    }
}

#[test]
fn a_lost_response_while_crossing_leaves_the_old_session_audible() {
    let (mut alice, mut bob) = connected(START);
    let now = START + Duration::from_secs(30);
    cross(&mut alice, &mut bob, now);
    let (from_alice, from_bob) = (alice.sent().expect("one"), bob.sent().expect("one"));
    alice.receive_from(&from_bob, bob.address, now);
    bob.receive_from(&from_alice, alice.address, now);
    alice.outbox.clear(); // the response of Alice is lost
    alice.receive_from(&bob.sent().expect("a response"), bob.address, now);
    alice.outbox.clear(); // and so is the keepalive that would tell Bob
    bob.send(b"with the old keys", now);
    let datagram = bob.sent().expect("a packet");
    assert_eq!(alice.receive_from(&datagram, bob.address, now), Fate::Taken);
}

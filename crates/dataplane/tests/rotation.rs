//! A host's key changes under traffic: sessions and flows live on, and peers that heard of it early,
//! late or not yet all reach the host.

mod pair;

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::{Command, DataCipher, DropReason, Event, PeerKind};
use model::key::Secret;
use model::time::UnixTime;
use pair::{A, B, PEER, Pair, public};

const NEXT: [u8; 32] = [77; 32];
const SECOND: Duration = Duration::from_secs(1);

fn established(pair: &mut Pair, host: usize) -> usize {
    let is_established = |event: &Event| matches!(event, Event::SessionEstablished { .. });
    pair.events(host)
        .iter()
        .filter(|event| is_established(event))
        .count()
}

/// The host answers to this key too.
fn accept(pair: &mut Pair, host: usize, key: Option<[u8; 32]>) {
    let key = key.map(Secret::from_bytes);
    pair.command(host, vec![Command::AcceptKey(key)]);
}

/// The host takes `NEXT` as its own key; the former is its spare one.
fn promote(pair: &mut Pair, host: usize) {
    pair.hosts[host].private = NEXT;
    let identity = pair.identity(host, UnixTime::default());
    pair.command(host, vec![identity]);
}

/// The other host hears of `NEXT`.
fn tell_peer(pair: &mut Pair, host: usize) {
    let set = Command::SetPeer {
        index: PEER,
        kind: PeerKind::Mesh,
        key: public(NEXT),
        addresses: pair.hosts[host].overlay,
        preshared: None,
        keepalive: None,
        cipher: DataCipher::default(),
    };
    pair.command(1 - host, vec![set]);
}

/// One packet a second each way, for long enough that the session is renewed several times;
/// returns how many were lost.
fn traffic(pair: &mut Pair, seconds: usize) -> usize {
    let (there, back) = (pair.udp(A, 1, 2), pair.udp(B, 2, 1));
    for _ in 0..seconds {
        pair.send(A, &there);
        pair.send(B, &back);
        pair.pass(SECOND);
    }
    2 * seconds - pair.delivered(A).len() - pair.delivered(B).len()
}

fn open_pair() -> Pair {
    let mut pair = Pair::new();
    assert_eq!(traffic(&mut pair, 10), 0);
    assert_eq!(established(&mut pair, A), 1);
    pair
}

#[test]
fn a_change_that_all_hear_of_loses_no_packet_and_no_session() {
    let mut pair = open_pair();
    accept(&mut pair, B, Some(NEXT));
    tell_peer(&mut pair, B);
    promote(&mut pair, B);
    assert_eq!(traffic(&mut pair, 400), 0);
    assert!(
        established(&mut pair, A) >= 3,
        "it is renewed with the new key"
    );
    accept(&mut pair, B, None);
    assert_eq!(traffic(&mut pair, 400), 0);
}

#[test]
fn a_peer_that_hears_of_it_first_reaches_the_host() {
    let mut pair = open_pair();
    accept(&mut pair, B, Some(NEXT));
    tell_peer(&mut pair, B);
    assert_eq!(traffic(&mut pair, 400), 0);
    promote(&mut pair, B);
    assert_eq!(traffic(&mut pair, 400), 0);
}

#[test]
fn a_peer_that_hears_of_it_late_reaches_the_host_and_is_reached() {
    let mut pair = open_pair();
    accept(&mut pair, B, Some(NEXT));
    promote(&mut pair, B);
    assert_eq!(traffic(&mut pair, 400), 0);
    // Nothing is open any more: the host itself has to find the key that its peer knows.
    pair.pass(Duration::from_secs(600));
    let packet = pair.udp(B, 3, 4);
    pair.send(B, &packet);
    pair.pass(Duration::from_secs(12));
    assert_eq!(pair.delivered(A), [packet]);
    tell_peer(&mut pair, B);
    assert_eq!(traffic(&mut pair, 400), 0);
}

/// How often a host gives up a path on which nobody answers, within a minute.
fn paths_given_up(spare: Option<[u8; 32]>) -> usize {
    let mut pair = Pair::new();
    accept(&mut pair, B, spare);
    pair.set_path(B, SocketAddr::new([203, 0, 113, 9].into(), 1));
    let packet = pair.udp(B, 3, 4);
    for _ in 0..60 {
        pair.send(B, &packet);
        pair.pass(SECOND);
    }
    let is_given_up = |event: &Event| matches!(event, Event::PathUnanswered { .. });
    pair.events(B)
        .iter()
        .filter(|event| is_given_up(event))
        .count()
}

/// Else keys and paths might change in step, and a peer hear of each key on one path only.
#[test]
fn both_keys_are_tried_on_a_path_before_it_is_given_up() {
    let (with_one_key, with_two) = (paths_given_up(None), paths_given_up(Some(NEXT)));
    assert!(with_two > 0);
    assert!(
        2 * with_two <= with_one_key + 1,
        "{with_two} of {with_one_key}"
    );
}

#[test]
fn without_the_former_key_who_has_not_heard_is_out() {
    let mut pair = open_pair();
    accept(&mut pair, B, Some(NEXT));
    promote(&mut pair, B);
    accept(&mut pair, B, None);
    assert_eq!(traffic(&mut pair, 100), 0, "what is open lives on");
    pair.pass(Duration::from_secs(600));
    let packet = pair.udp(A, 3, 4);
    pair.send(A, &packet);
    pair.pass(Duration::from_secs(20));
    assert!(pair.delivered(B).is_empty());
    assert!(pair.dropped(B, DropReason::HandshakeBadMac) > 0);
}

#[test]
fn a_key_that_was_not_accepted_before_ends_every_session() {
    let mut pair = open_pair();
    promote(&mut pair, B);
    tell_peer(&mut pair, B);
    pair.pass(6 * SECOND);
    assert_eq!(established(&mut pair, A), 1);
    assert_eq!(traffic(&mut pair, 10), 0);
}

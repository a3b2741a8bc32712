//! Datagrams at a shard that has a session, and at one that waits for an answer to its handshake.
//! Only the genuine one is taken, and nothing else spoils what the genuine one does afterwards.

use std::time::Duration;

use model::time::Now;

use crate::Seed;
use crate::live::{Live, Peer, underlay};
use crate::packets::Way;

/// Gives bytes to a shard as a datagram.
pub fn target(bytes: &[u8]) {
    at_a_session(bytes);
    at_a_handshake(bytes);
}

fn at_a_session(bytes: &[u8]) {
    let mut live = Live::new();
    let genuine = genuine(&mut live);
    live.receive(bytes);
    let early = live.delivered().len();
    assert_eq!(
        early,
        usize::from(bytes == genuine),
        "only the genuine one is opened"
    );
    live.carry();
    live.receive(&genuine);
    assert_eq!(
        early + live.delivered().len(),
        1,
        "the genuine one is opened once"
    );
}

fn at_a_handshake(bytes: &[u8]) {
    let mut live = Live::strangers();
    live.send(&question());
    live.receive(bytes);
    live.carry();
    assert!(
        live.peer.has_session(live.now),
        "the genuine answer still counts"
    );
    assert_eq!(live.arrived(), 1, "what waited for the session is sent");
}

/// A packet that the rules let in, sealed by the peer.
fn genuine(live: &mut Live) -> Vec<u8> {
    let packet = Way::out().back().udp(4000, 5000, b"hello");
    live.peer
        .seal(&packet, live.now)
        .expect("there is a session")
}

/// A packet that the rules let out.
fn question() -> Vec<u8> {
    Way::out().udp(5000, 53, b"question")
}

/// What is genuine in the two situations, and what others send who know the host's key.
pub(crate) fn seeds() -> Vec<Seed> {
    let mut live = Live::new();
    let mut seeds = vec![
        Seed::new("data", genuine(&mut live)),
        Seed::new("keepalive", seal(&mut live, b"")),
        Seed::new("sealed-noise", seal(&mut live, b"no packet")),
    ];
    let mut waiting = Live::strangers();
    waiting.send(&question());
    let initiation = waiting.in_flight().next().expect("it begins").to_vec();
    let cookie = waiting.peer.cookie_reply(&initiation, underlay(1));
    seeds.push(Seed::new("cookie-reply", cookie.expect("to an initiation")));
    let now = waiting.now;
    let response = waiting.peer.receive(&initiation, now).remove(0);
    seeds.push(Seed::new("response", response));
    let later = Now {
        unix: now.unix + Duration::from_secs(10),
        ..now
    };
    seeds.push(Seed::new(
        "initiation",
        Peer::of_live(now).initiation(later),
    ));
    seeds.push(Seed::new(
        "initiation-of-a-stranger",
        Peer::stranger(now).initiation(later),
    ));
    seeds.push(Seed::new("initiation-to-the-peer", initiation));
    seeds
}

fn seal(live: &mut Live, plaintext: &[u8]) -> Vec<u8> {
    live.peer
        .seal(plaintext, live.now)
        .expect("there is a session")
}

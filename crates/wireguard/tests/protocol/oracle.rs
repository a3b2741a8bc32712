//! The same protocol as another implementation speaks it: `boringtun`, in both roles.
//!
//! Its clock is the real one, so that only our side's time is virtual here.

use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use wireguard::timers::{INITIATION_INTERVAL, REKEY_AFTER_TIME, REKEY_TIMEOUT};
use wireguard::{Action, Kind, Load, PresharedKey, classify};

use crate::host::{Fate, Host, config};

const START: Duration = Duration::from_secs(1_000);
const OUR_KEY: u8 = 1;
const THEIR_KEY: u8 = 2;

/// The other implementation, and what it gave back.
struct Oracle {
    tunnel: Tunn,
    inbox: Vec<Vec<u8>>,
}

impl Oracle {
    fn new(psk: Option<[u8; 32]>, limiter: Option<Arc<RateLimiter>>) -> Self {
        let ours = x25519::StaticSecret::from([OUR_KEY; 32]);
        let theirs = x25519::StaticSecret::from([THEIR_KEY; 32]);
        let peer = x25519::PublicKey::from(&ours);
        Self {
            tunnel: Tunn::new(theirs, peer, psk, None, 7, limiter),
            inbox: Vec::new(),
        }
    }

    fn overloaded() -> Self {
        let public = x25519::PublicKey::from(&x25519::StaticSecret::from([THEIR_KEY; 32]));
        Self::new(None, Some(Arc::new(RateLimiter::new(&public, 0))))
    }

    /// Gives it a packet to send and returns the datagram it sends.
    fn send(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 2048];
        match self.tunnel.encapsulate(packet, &mut out) {
            TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
            other => panic!("nothing was sent: {other:?}"),
        }
    }

    /// Gives it a datagram and returns the datagrams that it answers.
    fn receive(&mut self, datagram: &[u8], host: &Host) -> Vec<Vec<u8>> {
        let (mut out, mut answers) = (vec![0; 2048], Vec::new());
        let mut input = datagram;
        loop {
            match self
                .tunnel
                .decapsulate(Some(host.address.ip()), input, &mut out)
            {
                TunnResult::WriteToNetwork(datagram) => answers.push(datagram.to_vec()),
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    self.inbox.push(packet.to_vec());
                }
                // What it refuses is missed where the test counts packets.
                TunnResult::Done | TunnResult::Err(_) => return answers,
            }
            input = &[];
        }
    }
}

fn our_host() -> Host {
    Host::new(OUR_KEY, THEIR_KEY, START)
}

/// An IPv4 packet, because the oracle looks inside.
fn packet(length: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..length).map(|index| index as u8).collect();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet
}

/// Carries datagrams both ways until none is left.
fn exchange(host: &mut Host, oracle: &mut Oracle, now: Duration) {
    while let Some(datagram) = host.sent() {
        for answer in oracle.receive(&datagram, host) {
            let source = "192.0.2.2:51820".parse().expect("an address");
            assert_eq!(host.receive_from(&answer, source, now), Fate::Taken);
        }
    }
}

fn hand_over(host: &mut Host, datagram: &[u8], now: Duration) {
    let source = "192.0.2.2:51820".parse().expect("an address");
    assert_eq!(host.receive_from(datagram, source, now), Fate::Taken);
}

/// Sends packets of many lengths both ways and expects them whole at the other end.
fn assert_both_hear(host: &mut Host, oracle: &mut Oracle, now: Duration) {
    for length in [20, 21, 36, 100, 1000, 1409, 1420] {
        host.send(&packet(length), now);
        exchange(host, oracle, now);
        assert_eq!(
            oracle.inbox.pop(),
            Some(packet(length)),
            "padding is cut off by the length"
        );
        let datagram = oracle.send(&packet(length));
        hand_over(host, &datagram, now);
        assert_eq!(
            host.inbox.pop(),
            Some(packet(length)),
            "the oracle does not pad"
        );
    }
}

#[test]
fn we_initiate_and_both_directions_work() {
    let (mut host, mut oracle) = (our_host(), Oracle::new(None, None));
    host.send(&packet(60), START);
    exchange(&mut host, &mut oracle, START);
    assert_eq!(oracle.inbox.pop(), Some(packet(60)));
    assert_both_hear(&mut host, &mut oracle, START);
}

#[test]
fn they_initiate_and_both_directions_work() {
    let (mut host, mut oracle) = (our_host(), Oracle::new(None, None));
    let initiation = oracle.send(&packet(60));
    hand_over(&mut host, &initiation, START);
    assert!(
        !host.tunnel.has_session(START),
        "the responder waits for a packet"
    );
    let response = host.sent().expect("a response");
    for datagram in oracle.receive(&response, &host) {
        hand_over(&mut host, &datagram, START);
    }
    assert_eq!(host.count(Action::SessionReady), 1);
    assert_eq!(host.inbox.pop(), Some(packet(60)), "what waited there");
    assert_both_hear(&mut host, &mut oracle, START);
}

#[test]
fn preshared_keys_are_mixed_the_same_way_in_both_roles() {
    let psk = [0x5a; 32];
    for we_initiate in [true, false] {
        let mut config = config(THEIR_KEY, 0);
        config.preshared_key = PresharedKey::from_bytes(psk);
        let mut host = Host::with_config(OUR_KEY, config, START);
        let mut oracle = Oracle::new(Some(psk), None);
        if we_initiate {
            host.send(&packet(60), START);
            exchange(&mut host, &mut oracle, START);
        } else {
            let initiation = oracle.send(&packet(60));
            hand_over(&mut host, &initiation, START);
            let response = host.sent().expect("a response");
            for datagram in oracle.receive(&response, &host) {
                hand_over(&mut host, &datagram, START);
            }
        }
        assert_both_hear(&mut host, &mut oracle, START);
    }
}

#[test]
fn our_keepalive_is_understood() {
    let (mut host, mut oracle) = (our_host(), Oracle::new(None, None));
    host.tunnel.request_handshake(START);
    host.act(START);
    exchange(&mut host, &mut oracle, START);
    assert_eq!(host.count(Action::SendKeepalive), 1);
    assert!(oracle.inbox.is_empty());
    let datagram = oracle.send(&packet(40));
    hand_over(&mut host, &datagram, START);
    assert_eq!(host.inbox.len(), 1, "the keepalive confirmed the session");
}

#[test]
fn we_obey_their_cookie_reply() {
    let (mut host, mut oracle) = (our_host(), Oracle::overloaded());
    host.send(&packet(60), START);
    let initiation = host.sent().expect("an initiation");
    let answers = oracle.receive(&initiation, &host);
    assert_eq!(classify(&answers[0]), Some(Kind::CookieReply));
    hand_over(&mut host, &answers[0], START);
    let later = START + REKEY_TIMEOUT + Duration::from_secs(1);
    host.handle_timeout(later);
    exchange(&mut host, &mut oracle, later);
    assert_eq!(oracle.inbox.pop(), Some(packet(60)));
}

#[test]
fn they_obey_our_cookie_reply() {
    let (mut host, mut oracle) = (our_host(), Oracle::new(None, None));
    host.load = Load::Heavy;
    let source = "192.0.2.2:51820".parse().expect("an address");
    let initiation = oracle.send(&packet(60));
    assert_ne!(host.receive_from(&initiation, source, START), Fate::Taken);
    let reply = host.sent().expect("a cookie reply");
    assert_eq!(classify(&reply), Some(Kind::CookieReply));
    assert!(oracle.receive(&reply, &host).is_empty());
    let mut out = vec![0; 2048];
    let TunnResult::WriteToNetwork(retry) =
        oracle.tunnel.format_handshake_initiation(&mut out, true)
    else {
        panic!("no retry");
    };
    let now = START + REKEY_TIMEOUT;
    assert_eq!(
        host.receive_from(retry, source, now),
        Fate::Taken,
        "with mac2"
    );
}

#[test]
fn we_renew_the_session_and_nothing_is_lost_on_the_way() {
    let (mut host, mut oracle) = (our_host(), Oracle::new(None, None));
    let mut now = START;
    for round in 1..=5 {
        host.send(&packet(60), now);
        exchange(&mut host, &mut oracle, now);
        assert_eq!(oracle.inbox.pop(), Some(packet(60)));
        assert_both_hear(&mut host, &mut oracle, now);
        assert_eq!(host.count(Action::SendInitiation), round);
        now += REKEY_AFTER_TIME;
    }
}

#[test]
fn crossing_initiations_leave_both_able_to_talk() {
    let (mut host, mut oracle) = (our_host(), Oracle::new(None, None));
    let from_oracle = oracle.send(&packet(60));
    host.send(&packet(80), START);
    let from_host = host.sent().expect("an initiation");
    let response = oracle.receive(&from_host, &host);
    hand_over(&mut host, &from_oracle, START);
    let now = START + INITIATION_INTERVAL; // because the oracle initiates anew at once
    for datagram in response {
        hand_over(&mut host, &datagram, now);
    }
    exchange(&mut host, &mut oracle, now);
    assert_both_hear(&mut host, &mut oracle, now);
}

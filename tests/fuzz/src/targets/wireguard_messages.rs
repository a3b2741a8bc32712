//! WireGuard messages as such: each is one kind or none, survives being written again, and says
//! nothing to who has no part in the handshake.

use std::time::Duration;

use model::time::{Instant, Now, UnixTime};
use wireguard::{
    CookieChecker, CookieJar, CookieReply, DataCipher, DataHeader, Initiation, KeyPair, Kind, Load,
    MacVerdict, PrivateKey, Response, classify, consume_initiation, receiver_index,
};

use crate::Seed;
use crate::live::{Peer, underlay};
use crate::targets::datagrams;

const NOW: Duration = Duration::from_secs(1000);
/// What is signed anew on every way.
const MACS_LEN: usize = wireguard::message::MACS_LEN;

/// Reads bytes as each message.
pub fn target(bytes: &[u8]) {
    let kind = classify(bytes);
    survives(bytes, kind);
    check_macs(bytes, kind);
    let keys = KeyPair::new(&PrivateKey::from_bytes([1; 32]));
    if let Some(message) = Initiation::parse(bytes)
        && let Ok(consumed) = consume_initiation(&keys, &message, &[DataCipher::default()])
    {
        let known =
            [[2; 32], [3; 32]].map(|key| *KeyPair::new(&PrivateKey::from_bytes(key)).public());
        assert!(known.contains(consumed.peer()), "nobody else made one");
    }
    if kind.is_some() {
        let now = Now {
            monotonic: Instant::from_start(NOW),
            unix: UnixTime::from_secs(1_800_000_000),
        };
        let mut peer = Peer::of_live(now);
        peer.initiation(now);
        peer.receive(bytes, now);
        assert!(!peer.has_session(now), "nobody answered this peer");
        assert!(peer.opened().is_empty());
    }
}

fn survives(bytes: &[u8], kind: Option<Kind>) {
    let body = bytes.len().saturating_sub(MACS_LEN);
    let initiation = Initiation::parse(bytes);
    let response = Response::parse(bytes);
    let reply = CookieReply::parse(bytes);
    let header = DataHeader::parse(bytes);
    assert_eq!(initiation.is_some(), kind == Some(Kind::Initiation));
    assert_eq!(response.is_some(), kind == Some(Kind::Response));
    assert_eq!(reply.is_some(), kind == Some(Kind::CookieReply));
    assert_eq!(header.is_some(), kind == Some(Kind::Data));
    if let Some(message) = &initiation {
        assert_eq!(message.encode()[..body], bytes[..body]);
    }
    if let Some(message) = &response {
        assert_eq!(message.encode()[..body], bytes[..body]);
        assert_eq!(receiver_index(bytes), Some(message.receiver_index));
    }
    if let Some(message) = &reply {
        assert_eq!(message.encode(), bytes);
        assert_eq!(receiver_index(bytes), Some(message.receiver_index));
    }
    if let Some(header) = &header {
        assert_eq!(header.encode(), bytes[..DataHeader::LEN]);
        assert_eq!(receiver_index(bytes), Some(header.receiver_index));
    }
}

/// Whoever signs is heard, and proves an address only to who knows the cookie.
fn check_macs(bytes: &[u8], kind: Option<Kind>) {
    let keys = KeyPair::new(&PrivateKey::from_bytes([1; 32]));
    let checker = CookieChecker::new(keys.public(), [6; 32], NOW);
    let source = underlay(2);
    let verdict = checker.check(bytes, source, Load::Normal);
    assert_ne!(verdict, MacVerdict::AskForCookie, "there is no load");
    let heavy = checker.check(bytes, source, Load::Heavy);
    assert_ne!(heavy, MacVerdict::Accept, "nobody has a cookie");
    let is_handshake = matches!(kind, Some(Kind::Initiation | Kind::Response));
    assert!(is_handshake || verdict == MacVerdict::Reject);
    if !is_handshake {
        return;
    }
    let mut jar = CookieJar::new(keys.public());
    let mut message = bytes.to_vec();
    jar.sign(&mut message, NOW);
    assert_eq!(
        checker.check(&message, source, Load::Normal),
        MacVerdict::Accept
    );
    assert_eq!(
        checker.check(&message, source, Load::Heavy),
        MacVerdict::AskForCookie
    );
    let reply = checker
        .reply(&message, source, [8; 24])
        .expect("it is signed");
    let reply = CookieReply::parse(&reply).expect("its own message");
    jar.consume(&reply, NOW).expect("it answers the message");
    jar.sign(&mut message, NOW);
    assert_eq!(
        checker.check(&message, source, Load::Heavy),
        MacVerdict::Accept
    );
}

/// The messages of a real handshake and session.
pub(crate) fn seeds() -> Vec<Seed> {
    datagrams::seeds()
}

//! Nobody between two hosts talks them into another cipher: whatever is done to their handshakes,
//! there is the one that both were told, or none.

mod pair;

use std::time::Duration;

use dataplane::{Command, DataCipher, DropReason, Event};
use pair::{A, B, Datagram, Pair};
use wireguard::{Initiation, KeyPair, Kind, PrivateKey, classify, consume_initiation};

const AES: DataCipher = DataCipher::Aes256Gcm;
const STANDARD: DataCipher = DataCipher::ChaCha20Poly1305;
/// So that a host tries again (WireGuard whitepaper 6.1: REKEY_TIMEOUT, and its jitter).
const NEXT_TRY: Duration = Duration::from_secs(6);

/// Tells both hosts what the sessions are sealed with that they begin.
fn tell(pair: &mut Pair, chosen: DataCipher) {
    for host in [A, B] {
        let mut introduction = pair.peer(host);
        if let Command::SetPeer { cipher, .. } = &mut introduction {
            *cipher = chosen;
        }
        pair.command(host, vec![introduction]);
    }
}

fn pair_with(cipher: DataCipher) -> Pair {
    let mut pair = Pair::new();
    tell(&mut pair, cipher);
    pair
}

/// What a host's packets are sealed with now.
fn cipher(pair: &mut Pair, host: usize) -> Option<DataCipher> {
    pair.events(host);
    pair.command(host, vec![Command::Report]);
    let report = |event| match event {
        Event::Report(report) => Some(report.peers[0].cipher),
        _ => None,
    };
    let mut events = pair.events(host).into_iter();
    events.find_map(report).expect("a report was asked for")
}

/// Has A send a packet, and takes what leaves.
fn first_datagram(pair: &mut Pair) -> Datagram {
    let packet = pair.udp(A, 1, 2);
    pair.offer(A, &packet);
    pair.network.pop_front().expect("a handshake begins")
}

/// Fails unless no packet was sealed so far, and the next handshake that nobody touches leads to the
/// cipher that was told.
fn assert_only_aes(pair: &mut Pair) {
    let is_sealed = |datagram: &&Datagram| classify(&datagram.bytes) == Some(Kind::Data);
    assert_eq!(pair.seen.iter().filter(is_sealed).count(), 0);
    assert_eq!([A, B].map(|host| cipher(pair, host)), [None; 2]);
    pair.pass(NEXT_TRY);
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    assert_eq!([A, B].map(|host| cipher(pair, host)), [Some(AES); 2]);
}

#[test]
fn dropped_handshakes_lead_to_no_session_and_to_no_other_cipher() {
    let mut pair = pair_with(AES);
    let packet = pair.udp(A, 1, 2);
    let responder = KeyPair::new(&PrivateKey::from_bytes(pair.hosts[B].private));
    // What is sent there nobody gets.
    let nowhere = "192.0.2.99:51820".parse().expect("an address");
    pair.set_path(A, nowhere);
    // Far longer than a host tries at once (6.1: REKEY_ATTEMPT_TIME).
    for _ in 0..60 {
        pair.send(A, &packet);
        pair.pass(Duration::from_secs(5));
    }
    assert!(pair.seen.len() > 20, "it went on trying");
    for datagram in &pair.seen {
        let initiation = Initiation::parse(&datagram.bytes).expect("nothing else leaves");
        assert!(consume_initiation(&responder, &initiation, &[AES]).is_ok());
        assert!(consume_initiation(&responder, &initiation, &[STANDARD]).is_err());
    }
    pair.set_path(A, pair.hosts[B].underlay);
    assert_only_aes(&mut pair);
}

#[test]
fn an_altered_initiation_leads_to_no_session() {
    for at in 0..Initiation::LEN {
        let mut pair = pair_with(AES);
        let mut initiation = first_datagram(&mut pair);
        initiation.bytes[at] ^= 1;
        pair.network.push_back(initiation);
        pair.run();
        // The last sixteen count only under load.
        match at < Initiation::LEN - 16 {
            true => assert_only_aes(&mut pair),
            false => assert_eq!([A, B].map(|host| cipher(&mut pair, host)), [Some(AES); 2]),
        }
    }
}

#[test]
fn an_altered_answer_leads_to_no_session() {
    const RESPONSE_LEN: usize = wireguard::Response::LEN;
    for at in 0..RESPONSE_LEN - 16 {
        let mut pair = pair_with(AES);
        let initiation = first_datagram(&mut pair);
        pair.receive(B, initiation.from, 0, &initiation.bytes);
        let mut response = pair.network.pop_front().expect("B answers");
        response.bytes[at] ^= 1;
        pair.receive(A, response.from, 0, &response.bytes);
        pair.run();
        assert_eq!(cipher(&mut pair, A), None, "at {at}");
    }
}

#[test]
fn an_initiation_from_before_is_no_way_back_to_the_other_cipher() {
    let mut pair = pair_with(STANDARD);
    let initiation = first_datagram(&mut pair);
    pair.network.push_back(initiation.clone());
    pair.run();
    assert_eq!(cipher(&mut pair, B), Some(STANDARD));
    tell(&mut pair, AES);
    // Long enough that the session of before is over.
    pair.pass(Duration::from_secs(600));
    let packet = pair.udp(A, 1, 2);
    pair.send(A, &packet);
    assert_eq!([A, B].map(|host| cipher(&mut pair, host)), [Some(AES); 2]);
    let replayed = pair.dropped(B, DropReason::HandshakeReplayed);
    pair.pass(NEXT_TRY);
    pair.receive(B, initiation.from, 0, &initiation.bytes);
    assert!(pair.network.is_empty(), "it is not answered");
    assert_eq!(pair.dropped(B, DropReason::HandshakeReplayed), replayed + 1);
    assert_eq!([A, B].map(|host| cipher(&mut pair, host)), [Some(AES); 2]);
}

#[test]
fn packets_of_one_cipher_are_none_of_the_other() {
    // The same hosts with the same dice: only what seals differs.
    let [mut aes, mut standard] = [AES, STANDARD].map(pair_with);
    let packet = aes.udp(A, 1, 2);
    for pair in [&mut aes, &mut standard] {
        pair.send(A, &packet);
        pair.offer(A, &packet);
    }
    let sealed = standard.network.pop_front().expect("there is a session");
    let forged = aes.dropped(B, DropReason::Forged);
    aes.receive(B, sealed.from, 0, &sealed.bytes);
    assert_eq!(aes.dropped(B, DropReason::Forged), forged + 1);
}

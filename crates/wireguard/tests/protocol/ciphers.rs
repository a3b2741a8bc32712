//! Data ciphers: the initiator of a session chooses, no third party does, and a change waits for the
//! next handshake.

use std::time::Duration;

use wireguard::timers::{REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME};
use wireguard::{Action, DataCipher, Initiation, consume_initiation};

use crate::host::{Host, config, exchange, padded, pair};

const START: Duration = Duration::from_secs(1_000);
const SECOND: Duration = Duration::from_secs(1);

fn host_with(key: u8, peer: u8, cipher: DataCipher) -> Host {
    let mut config = config(peer, u64::from(key));
    config.cipher = cipher;
    Host::with_config(key, config, START)
}

#[test]
fn the_session_has_the_cipher_of_who_began_it() {
    for [ours, theirs] in [[0, 0], [0, 1], [1, 0]] {
        let [ours, theirs] = [ours, theirs].map(|it: usize| DataCipher::ALL[it]);
        let (mut alice, mut bob) = (host_with(1, 2, ours), host_with(2, 1, theirs));
        alice.send(b"to bob", START);
        exchange(&mut alice, &mut bob, START);
        bob.send(b"to alice", START);
        exchange(&mut alice, &mut bob, START);
        assert_eq!(bob.inbox, [padded(b"to bob")]);
        assert_eq!(alice.inbox, [padded(b"to alice")]);
        assert_eq!(alice.tunnel.cipher(), Some(ours));
        assert_eq!(bob.tunnel.cipher(), Some(ours));
    }
}

#[test]
fn another_cipher_is_for_the_next_session() {
    let (mut alice, mut bob) = pair(START);
    alice.send(b"x", START);
    exchange(&mut alice, &mut bob, START);
    alice.tunnel.set_cipher(DataCipher::Aes256Gcm);
    alice.send(b"x", START + SECOND);
    exchange(&mut alice, &mut bob, START + SECOND);
    let standard = Some(DataCipher::ChaCha20Poly1305);
    assert_eq!([&alice, &bob].map(|it| it.tunnel.cipher()), [standard; 2]);

    let renewed = START + REKEY_AFTER_TIME;
    for _ in 0..2 {
        alice.send(b"x", renewed);
        exchange(&mut alice, &mut bob, renewed);
    }
    let changed = Some(DataCipher::Aes256Gcm);
    assert_eq!([&alice, &bob].map(|it| it.tunnel.cipher()), [changed; 2]);
    assert_eq!(bob.inbox.len(), 4);
}

#[test]
fn whoever_drops_the_handshakes_of_one_cipher_gets_none_of_another() {
    let mut alice = host_with(1, 2, DataCipher::Aes256Gcm);
    let bob = host_with(2, 1, DataCipher::Aes256Gcm);
    alice.send(b"x", START);
    let mut now = START;
    let mut tries = 0;
    while now < START + 2 * REKEY_ATTEMPT_TIME {
        while let Some(datagram) = alice.sent() {
            let message = Initiation::parse(&datagram).expect("nothing else is sent");
            let standard = [DataCipher::ChaCha20Poly1305];
            assert!(consume_initiation(&bob.keys, &message, &standard).is_err());
            let consumed = consume_initiation(&bob.keys, &message, &DataCipher::ALL);
            assert_eq!(
                consumed.map(|it| it.cipher()).ok(),
                Some(DataCipher::Aes256Gcm)
            );
            tries += 1;
        }
        now += SECOND;
        alice.handle_timeout(now);
        if alice.count(Action::Expired) > 0 {
            break;
        }
    }
    assert!(tries > 10, "it tried {tries} times before it gave up");
}

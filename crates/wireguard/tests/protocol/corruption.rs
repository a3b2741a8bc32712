//! Whatever is done to a datagram: no panic, and nothing that was changed is taken.

use std::time::Duration;

use proptest::prelude::*;

use crate::host::{Fate, Host, connected, exchange, pair};

const START: Duration = Duration::from_secs(1_000);

/// Every kind of message, and the host that should get it, in the state to take it.
fn message(kind: usize) -> (Vec<u8>, Host, Host) {
    let (mut alice, mut bob) = pair(START);
    match kind {
        0 => {
            alice.send(b"x", START);
            (alice.sent().expect("an initiation"), alice, bob)
        }
        1 => {
            bob.send(b"x", START);
            alice.receive_from(&bob.sent().expect("an initiation"), bob.address, START);
            (alice.sent().expect("a response"), alice, bob)
        }
        2 => {
            alice.load = wireguard::Load::Heavy;
            bob.send(b"x", START);
            alice.receive_from(&bob.sent().expect("an initiation"), bob.address, START);
            (alice.sent().expect("a cookie reply"), alice, bob)
        }
        _ => {
            let (mut alice, bob) = connected(START);
            alice.send(b"a packet of some length", START);
            (alice.sent().expect("data"), alice, bob)
        }
    }
}

#[test]
fn every_kind_of_message_is_taken_unchanged() {
    for kind in 0..4 {
        let (datagram, alice, mut bob) = message(kind);
        assert_eq!(
            bob.receive_from(&datagram, alice.address, START),
            Fate::Taken,
            "{kind}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_changed_message_is_never_taken(kind in 0_usize..4, at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (mut datagram, mut alice, mut bob) = message(kind);
        let at = at.index(datagram.len());
        // Without load nobody looks at mac2, which protects the receiver, not the message.
        prop_assume!(kind > 1 || at < datagram.len() - 16);
        let genuine = datagram.clone();
        datagram[at] ^= flip;
        prop_assert_ne!(bob.receive_from(&datagram, alice.address, START), Fate::Taken);
        prop_assert_eq!(bob.inbox.len(), 0);
        prop_assert_eq!(bob.receive_from(&genuine, alice.address, START), Fate::Taken);
        exchange(&mut alice, &mut bob, START);
    }

    #[test]
    fn a_truncated_or_lengthened_message_is_never_taken(kind in 0_usize..4, length in 0_usize..200) {
        let (mut datagram, alice, mut bob) = message(kind);
        prop_assume!(length != datagram.len());
        datagram.resize(length, 0);
        prop_assert_ne!(bob.receive_from(&datagram, alice.address, START), Fate::Taken);
    }

    #[test]
    fn noise_is_never_taken(
        kind in 0_u8..6,
        length in prop_oneof![Just(148_usize), Just(92), Just(64), 0_usize..300],
        noise in proptest::collection::vec(any::<u8>(), 300),
    ) {
        let (alice, mut bob) = connected(START);
        let mut datagram = noise[..length].to_vec();
        for (byte, header) in datagram.iter_mut().zip([kind, 0, 0, 0]) {
            *byte = header;
        }
        prop_assert_ne!(bob.receive_from(&datagram, alice.address, START), Fate::Taken);
    }
}

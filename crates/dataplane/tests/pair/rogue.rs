//! A peer that keeps to no rule: it has host A's key and seals whatever it likes.

use std::time::Duration;

use wireguard::{
    DataCipher, KeyPair, PresharedKey, PrivateKey, PublicKey, Response, Timestamp, Tunnel,
    TunnelConfig, sealed_len,
};

use super::{A, B, Pair, public};

pub(crate) struct Rogue {
    tunnel: Tunnel,
}

impl Rogue {
    /// Shakes hands with B as A would.
    pub(crate) fn in_place_of_a(pair: &mut Pair) -> Self {
        let time = pair.now.monotonic.since_start();
        let keys = KeyPair::new(&PrivateKey::from_bytes(pair.hosts[A].private));
        let mut tunnel = tunnel(pair, time);
        tunnel.request_handshake(time);
        // Later than what A itself may have sent.
        let date = Timestamp::from_unix(pair.now.unix.since_epoch() + Duration::from_secs(10));
        let job = tunnel.begin_initiation(PrivateKey::from_bytes([5; 32]), 7, date);
        let created = job.run(&keys).expect("B has a good key");
        let initiation = tunnel
            .install_initiation(created, time)
            .expect("it was asked for");
        let from = pair.hosts[A].underlay;
        pair.receive(B, from, 0, &initiation);
        let response = pair.network.pop_back().expect("B answers");
        let response = Response::parse(&response.bytes).expect("with a response");
        let job = tunnel
            .begin_completion(response)
            .expect("to our initiation");
        let keys = job.run(&keys).expect("made with our keys");
        tunnel
            .install_session(keys, time)
            .expect("nothing came between");
        Self { tunnel }
    }

    /// Seals the bytes and gives them to B, from A's address.
    pub(crate) fn sends(&mut self, pair: &mut Pair, plaintext: &[u8]) {
        let time = pair.now.monotonic.since_start();
        let mut datagram = vec![0; sealed_len(plaintext.len(), 1420)];
        // After three minutes the session is over, for rogues too.
        if self
            .tunnel
            .seal_into(&[plaintext], 1420, &mut datagram, time)
            .is_ok()
        {
            let from = pair.hosts[A].underlay;
            pair.receive(B, from, 0, &datagram);
        }
    }
}

fn tunnel(pair: &Pair, time: Duration) -> Tunnel {
    let config = TunnelConfig {
        peer: PublicKey::from_bytes(*public(pair.hosts[B].private).as_bytes()),
        preshared_key: PresharedKey::default(),
        persistent_keepalive: None,
        cipher: DataCipher::default(),
        jitter_seed: 0,
    };
    Tunnel::new(config, time)
}

//! Two ends of a tunnel of `wireguard`, without anything around them.

use std::time::Duration;

use wireguard::{
    ConsumedInitiation, DataCipher, Initiation, KeyPair, PresharedKey, PrivateKey, PublicKey,
    Response, Timestamp, Tunnel, TunnelConfig, consume_initiation,
};

/// One end, with its host's keys.
pub(crate) struct End {
    pub(crate) keys: KeyPair,
    pub(crate) tunnel: Tunnel,
}

impl End {
    pub(crate) fn new(private: [u8; 32], peer: &PublicKey, cipher: DataCipher) -> Self {
        let config = TunnelConfig {
            peer: *peer,
            preshared_key: PresharedKey::default(),
            persistent_keepalive: None,
            cipher,
            jitter_seed: 0,
        };
        Self {
            keys: KeyPair::new(&PrivateKey::from_bytes(private)),
            tunnel: Tunnel::new(config, Duration::ZERO),
        }
    }

    /// Begins a handshake; `date` is in seconds, and later each time.
    pub(crate) fn initiate(&mut self, date: u64, now: Duration) -> [u8; Initiation::LEN] {
        self.tunnel.request_handshake(now);
        let date = Timestamp::from_unix(Duration::from_secs(date));
        let ephemeral = PrivateKey::from_bytes([3; 32]);
        let job = self.tunnel.begin_initiation(ephemeral, 7, date);
        let created = job.run(&self.keys).expect("the peer has a real key");
        self.tunnel
            .install_initiation(created, now)
            .expect("it was asked for")
    }

    /// Reads who it is that begins one.
    pub(crate) fn read(&self, initiation: &[u8], cipher: DataCipher) -> ConsumedInitiation {
        let message = Initiation::parse(initiation).expect("an initiation");
        consume_initiation(&self.keys, &message, &[cipher]).expect("for this host")
    }

    /// Answers.
    pub(crate) fn respond(&mut self, read: ConsumedInitiation, now: Duration) -> Vec<u8> {
        let ephemeral = PrivateKey::from_bytes([5; 32]);
        let job = self
            .tunnel
            .accept_initiation(read, ephemeral, 9, now)
            .expect("it is newer than those before");
        let created = job.run().expect("the keys are real");
        self.tunnel.install_response(created, now).to_vec()
    }

    /// Takes the answer.
    pub(crate) fn complete(&mut self, response: &[u8], now: Duration) {
        let response = Response::parse(response).expect("a response");
        let job = self.tunnel.begin_completion(response).expect("to this end");
        let keys = job.run(&self.keys).expect("made with our keys");
        self.tunnel.install_session(keys, now).expect("asked for");
    }
}

/// Returns the initiator's end and the responder's.
pub(crate) fn ends(cipher: DataCipher) -> (End, End) {
    let (one, other) = ([1; 32], [2; 32]);
    let public = |private| KeyPair::new(&PrivateKey::from_bytes(private));
    let initiator = End::new(one, public(other).public(), cipher);
    let responder = End::new(other, public(one).public(), cipher);
    (initiator, responder)
}

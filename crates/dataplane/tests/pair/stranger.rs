//! Somebody who is no peer and knows a host's key: makes initiations that cost the host work.

use std::time::Duration;

use model::key::WireguardKey;
use wireguard::{
    CookieReply, DataCipher, Initiation, KeyPair, PresharedKey, PrivateKey, PublicKey, Timestamp,
    Tunnel, TunnelConfig,
};

pub(crate) struct Stranger {
    keys: KeyPair,
    tunnel: Tunnel,
    sent: u32,
}

impl Stranger {
    pub(crate) fn new(number: u32, victim: WireguardKey) -> Self {
        let mut private = [0x77; 32];
        private[..4].copy_from_slice(&number.to_be_bytes());
        let config = TunnelConfig {
            peer: PublicKey::from_bytes(*victim.as_bytes()),
            preshared_key: PresharedKey::default(),
            persistent_keepalive: None,
            cipher: DataCipher::default(),
            jitter_seed: 0,
        };
        Self {
            keys: KeyPair::new(&PrivateKey::from_bytes(private)),
            tunnel: Tunnel::new(config, Duration::ZERO),
            sent: 0,
        }
    }

    /// Its next initiation, with the cookie that it was sent, if there was one.
    pub(crate) fn initiation(&mut self, now: Duration) -> [u8; Initiation::LEN] {
        self.sent += 1;
        self.tunnel.request_handshake(now);
        let date = Timestamp::from_unix(now + Duration::from_secs(self.sent.into()));
        let ephemeral = PrivateKey::from_bytes([self.sent as u8 | 1; 32]);
        let job = self.tunnel.begin_initiation(ephemeral, self.sent, date);
        let created = job.run(&self.keys).expect("the victim has a real key");
        self.tunnel
            .install_initiation(created, now)
            .expect("it was asked for")
    }

    pub(crate) fn take_cookie(&mut self, reply: &[u8], now: Duration) {
        let reply = CookieReply::parse(reply).expect("a cookie reply");
        self.tunnel
            .handle_cookie_reply(&reply, now)
            .expect("to the last initiation");
    }
}

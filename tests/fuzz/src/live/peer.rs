//! The other end of a tunnel: the protocol without a shard's judgement about packets.

use std::net::SocketAddr;
use std::time::Duration;

use model::time::Now;
use wireguard::{
    Action, CookieChecker, CookieReply, DataCipher, Initiation, KeyPair, Kind, PresharedKey,
    PrivateKey, PublicKey, Response, Timestamp, Tunnel, TunnelConfig, classify, consume_initiation,
    sealed_len,
};

const MTU: usize = 1420;

/// A peer with the right keys, that seals what it is given.
pub(crate) struct Peer {
    keys: KeyPair,
    tunnel: Tunnel,
    cookies: CookieChecker,
    /// Counts what has to be new every time.
    fresh: u8,
    opened: Vec<Vec<u8>>,
}

impl Peer {
    pub(super) fn new(private: [u8; 32], other: [u8; 32], now: Now) -> Self {
        let keys = KeyPair::new(&PrivateKey::from_bytes(private));
        let config = TunnelConfig {
            peer: PublicKey::from_bytes(other),
            preshared_key: PresharedKey::default(),
            persistent_keepalive: None,
            cipher: DataCipher::default(),
            jitter_seed: 3,
        };
        Self {
            tunnel: Tunnel::new(config, time(now)),
            cookies: CookieChecker::new(keys.public(), [6; 32], time(now)),
            keys,
            fresh: 0,
            opened: Vec::new(),
        }
    }

    pub(crate) fn has_session(&self, now: Now) -> bool {
        self.tunnel.has_session(time(now))
    }

    /// Begins a handshake.
    pub(crate) fn initiation(&mut self, now: Now) -> [u8; Initiation::LEN] {
        self.tunnel.request_handshake(time(now));
        let date = Timestamp::from_unix(now.unix.since_epoch());
        let (ephemeral, index) = self.fresh();
        let created = self
            .tunnel
            .begin_initiation(ephemeral, index, date)
            .run(&self.keys)
            .expect("the other's key is a good one");
        self.tunnel
            .install_initiation(created, time(now))
            .expect("it was asked for")
    }

    /// Seals bytes, when there is a session.
    pub(crate) fn seal(&mut self, plaintext: &[u8], now: Now) -> Option<Vec<u8>> {
        let mut datagram = vec![0; sealed_len(plaintext.len(), MTU)];
        let length = self
            .tunnel
            .seal_into(&[plaintext], MTU, &mut datagram, time(now))
            .ok()?;
        datagram.truncate(length);
        Some(datagram)
    }

    /// Asks the sender of a handshake message to prove its address.
    pub(crate) fn cookie_reply(&self, message: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        let reply = self.cookies.reply(message, from, [8; 24])?;
        Some(reply.to_vec())
    }

    /// Takes a datagram and returns the answers to it.
    pub(crate) fn receive(&mut self, datagram: &[u8], now: Now) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        match classify(datagram) {
            Some(Kind::Initiation) => datagrams.extend(self.answer(datagram, now)),
            Some(Kind::Response) => self.complete(datagram, now),
            Some(Kind::CookieReply) => self.take_cookie(datagram, now),
            Some(Kind::Data) => self.open(datagram, now),
            None => panic!("the shard sent what is no WireGuard: {datagram:02x?}"),
        }
        datagrams.extend(self.act(now));
        datagrams
    }

    /// Takes the packets that were opened since the last call.
    pub(crate) fn opened(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.opened)
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Now) -> Vec<Vec<u8>> {
        self.tunnel.handle_timeout(time(now));
        self.act(now)
    }

    fn act(&mut self, now: Now) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        while let Some(action) = self.tunnel.poll_action() {
            match action {
                Action::SendInitiation => datagrams.push(self.initiation(now).to_vec()),
                Action::SendKeepalive => datagrams.extend(self.seal(b"", now)),
                Action::SessionReady | Action::IndexRemoved(_) | Action::Expired => {}
            }
        }
        datagrams
    }

    fn answer(&mut self, datagram: &[u8], now: Now) -> Option<Vec<u8>> {
        let message = Initiation::parse(datagram)?;
        let consumed = consume_initiation(&self.keys, &message, &[DataCipher::default()]).ok()?;
        let (ephemeral, index) = self.fresh();
        let job = self
            .tunnel
            .accept_initiation(consumed, ephemeral, index, time(now))
            .ok()?;
        let created = job.run().ok()?;
        Some(self.tunnel.install_response(created, time(now)).to_vec())
    }

    fn complete(&mut self, datagram: &[u8], now: Now) {
        let job = Response::parse(datagram).and_then(|it| self.tunnel.begin_completion(it));
        if let Some(Ok(keys)) = job.map(|job| job.run(&self.keys)) {
            let _ = self.tunnel.install_session(keys, time(now));
        }
    }

    fn take_cookie(&mut self, datagram: &[u8], now: Now) {
        if let Some(reply) = CookieReply::parse(datagram) {
            let _ = self.tunnel.handle_cookie_reply(&reply, time(now));
        }
    }

    fn open(&mut self, datagram: &[u8], now: Now) {
        let mut datagram = datagram.to_vec();
        if let Ok(plaintext) = self.tunnel.open_in_place(&mut datagram, time(now))
            && !plaintext.is_empty()
        {
            self.opened.push(datagram[plaintext].to_vec());
        }
    }

    fn fresh(&mut self) -> (PrivateKey, u32) {
        self.fresh = self.fresh.wrapping_add(1);
        let key = PrivateKey::from_bytes([self.fresh.wrapping_add(100); 32]);
        (key, 0x1000 + u32::from(self.fresh))
    }
}

const fn time(now: Now) -> Duration {
    now.monotonic.since_start()
}

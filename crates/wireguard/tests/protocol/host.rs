//! A host for tests: owns a tunnel as the data plane does, with queue, index table and dice, and
//! keeps what it sends in memory.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use wireguard::{
    Action, CookieChecker, CookieReply, DataCipher, Initiation, KeyPair, Kind, Load, MacVerdict,
    PresharedKey, PrivateKey, PublicKey, Response, SealError, Timestamp, Tunnel, TunnelConfig,
    classify, consume_initiation, receiver_index,
};

pub(crate) const CIPHER: DataCipher = DataCipher::ChaCha20Poly1305;
pub(crate) const PLAINTEXT_MAX: usize = 1420;
/// What the hosts' clocks show at the start of virtual time.
const UNIX_AT_START: Duration = Duration::from_secs(1_700_000_000);

/// A source of numbers that repeats itself for a seed (SplitMix64).
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.roll().to_le_bytes());
        }
        bytes
    }
}

pub(crate) fn private_key(byte: u8) -> PrivateKey {
    PrivateKey::from_bytes([byte; 32])
}

pub(crate) fn public_key(byte: u8) -> PublicKey {
    *KeyPair::new(&private_key(byte)).public()
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was authentic.
    Taken,
    /// It was dropped or answered with a cookie reply, for the reason given.
    Dropped(String),
}

pub(crate) struct Host {
    pub(crate) keys: KeyPair,
    pub(crate) tunnel: Tunnel,
    pub(crate) checker: CookieChecker,
    pub(crate) load: Load,
    pub(crate) address: SocketAddr,
    /// Datagrams on their way to the peer.
    pub(crate) outbox: VecDeque<Vec<u8>>,
    /// Plaintexts from the peer.
    pub(crate) inbox: Vec<Vec<u8>>,
    /// Actions other than removed indices, in order.
    pub(crate) actions: Vec<Action>,
    waiting: VecDeque<Vec<u8>>,
    indices: BTreeSet<u32>,
    /// When the tunnel next needed the clock, as it last said.
    known_timeout: Option<Duration>,
    dice: Dice,
}

impl Host {
    pub(crate) fn new(key: u8, peer: u8, now: Duration) -> Self {
        Self::with_config(key, config(peer, u64::from(key)), now)
    }

    pub(crate) fn with_config(key: u8, config: TunnelConfig, now: Duration) -> Self {
        let keys = KeyPair::new(&private_key(key));
        Self {
            checker: CookieChecker::new(keys.public(), [key; 32], now),
            keys,
            tunnel: Tunnel::new(config, now),
            load: Load::Normal,
            address: SocketAddr::from(([192, 0, 2, key], 51820)),
            outbox: VecDeque::new(),
            inbox: Vec::new(),
            actions: Vec::new(),
            waiting: VecDeque::new(),
            indices: BTreeSet::new(),
            known_timeout: None,
            dice: Dice(u64::from(key) << 32),
        }
    }

    /// Makes keys and indices differ from those of an earlier life.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.dice = Dice(seed);
    }

    /// Sends a packet, now or when there is a session.
    pub(crate) fn send(&mut self, packet: &[u8], now: Duration) {
        if !self.seal(packet, now) {
            self.waiting.push_back(packet.to_vec());
        }
        self.act(now);
    }

    /// Handles a datagram that came from `source`.
    pub(crate) fn receive_from(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Duration,
    ) -> Fate {
        let result = match classify(datagram) {
            None => Err("not WireGuard".to_owned()),
            Some(Kind::Initiation) => self.initiation(datagram, source, now),
            Some(Kind::Response) => self.response(datagram, source, now),
            Some(Kind::CookieReply) => self.cookie_reply(datagram, now),
            Some(Kind::Data) => self.data(datagram, now),
        };
        self.act(now);
        result.map_or_else(Fate::Dropped, |()| Fate::Taken)
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        self.tunnel.handle_timeout(now);
        self.act(now);
    }

    /// Polls one datagram that was sent.
    pub(crate) fn sent(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// How often an action was asked for.
    pub(crate) fn count(&self, action: Action) -> usize {
        self.actions.iter().filter(|seen| **seen == action).count()
    }

    fn initiation(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Duration,
    ) -> Result<(), String> {
        self.check_macs(datagram, source)?;
        let message = Initiation::parse(datagram).expect("it was classified");
        let consumed = consume_initiation(&self.keys, &message, &DataCipher::ALL).map_err(text)?;
        let (ephemeral, index) = self.fresh();
        let job = self
            .tunnel
            .accept_initiation(consumed, ephemeral, index, now)
            .map_err(text)?;
        let created = job.run().map_err(text)?;
        assert!(self.indices.insert(index), "index {index} is in use");
        let response = self.tunnel.install_response(created, now);
        self.outbox.push_back(response.to_vec());
        Ok(())
    }

    fn response(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Duration,
    ) -> Result<(), String> {
        self.check_macs(datagram, source)?;
        let message = Response::parse(datagram).expect("it was classified");
        let job = self
            .tunnel
            .begin_completion(message)
            .ok_or("no response is awaited")?;
        let keys = job.run(&self.keys).map_err(text)?;
        self.tunnel.install_session(keys, now).map_err(text)
    }

    fn cookie_reply(&mut self, datagram: &[u8], now: Duration) -> Result<(), String> {
        let reply = CookieReply::parse(datagram).expect("it was classified");
        self.tunnel.handle_cookie_reply(&reply, now).map_err(text)
    }

    fn data(&mut self, datagram: &[u8], now: Duration) -> Result<(), String> {
        let index = receiver_index(datagram).expect("data has an index");
        if !self.indices.contains(&index) {
            return Err("the index is not in the table".to_owned());
        }
        let mut datagram = datagram.to_vec();
        let plaintext = self
            .tunnel
            .open_in_place(&mut datagram, now)
            .map_err(text)?;
        if !plaintext.is_empty() {
            self.inbox.push(datagram[plaintext].to_vec());
        }
        Ok(())
    }

    fn check_macs(&mut self, datagram: &[u8], source: SocketAddr) -> Result<(), String> {
        match self.checker.check(datagram, source, self.load) {
            MacVerdict::Accept => Ok(()),
            MacVerdict::Reject => Err("mac1".to_owned()),
            MacVerdict::AskForCookie => {
                let mut nonce = [0; 24];
                nonce.copy_from_slice(&self.dice.bytes()[..24]);
                let reply = self.checker.reply(datagram, source, nonce);
                self.outbox.push_back(reply.expect("it has MACs").to_vec());
                Err("cookie asked for".to_owned())
            }
        }
    }

    /// Does what the tunnel asks for, and checks that the index table agrees with it.
    pub(crate) fn act(&mut self, now: Duration) {
        if self.tunnel.is_settled() {
            assert_eq!(
                self.tunnel.poll_action(),
                None,
                "a settled tunnel asks for nothing"
            );
            let next = self.tunnel.poll_timeout().map(|(at, _)| at);
            let is_earlier =
                next.is_some_and(|at| self.known_timeout.is_none_or(|known| at < known));
            assert!(!is_earlier, "{next:?} is before {:?}", self.known_timeout);
        }
        while let Some(action) = self.tunnel.poll_action() {
            match action {
                Action::IndexRemoved(index) => {
                    assert!(self.indices.remove(&index), "index {index} was not live");
                    continue;
                }
                Action::SessionReady => self.flush(now),
                Action::SendInitiation => self.initiate(now),
                Action::SendKeepalive => assert!(self.seal(&[], now), "there is a session"),
                Action::Expired => self.waiting.clear(),
            }
            self.actions.push(action);
        }
        self.tunnel.mark_settled();
        self.known_timeout = self.tunnel.poll_timeout().map(|(at, _)| at);
        let live: Vec<u32> = self.tunnel.live_indices().collect();
        assert_eq!(
            live.len(),
            self.indices.len(),
            "no index is live twice or leaked"
        );
        assert!(live.iter().all(|index| self.indices.contains(index)));
    }

    fn initiate(&mut self, now: Duration) {
        let (ephemeral, index) = self.fresh();
        let clock = Timestamp::from_unix(UNIX_AT_START + now);
        let job = self.tunnel.begin_initiation(ephemeral, index, clock);
        let created = job.run(&self.keys).expect("the peer's key is good");
        let initiation = self.tunnel.install_initiation(created, now);
        assert!(self.indices.insert(index), "index {index} is in use");
        self.outbox
            .push_back(initiation.expect("it was asked for").to_vec());
    }

    fn flush(&mut self, now: Duration) {
        while let Some(packet) = self.waiting.pop_front() {
            assert!(self.seal(&packet, now), "the session is ready");
        }
    }

    fn seal(&mut self, packet: &[u8], now: Duration) -> bool {
        let mut out = vec![0; 2048];
        match self
            .tunnel
            .seal_into(&[packet], PLAINTEXT_MAX, &mut out, now)
        {
            Ok(length) => {
                out.truncate(length);
                self.outbox.push_back(out);
                true
            }
            Err(SealError::NeedsHandshake) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn fresh(&mut self) -> (PrivateKey, u32) {
        (
            PrivateKey::from_bytes(self.dice.bytes()),
            self.dice.roll() as u32,
        )
    }
}

pub(crate) fn config(peer: u8, jitter_seed: u64) -> TunnelConfig {
    TunnelConfig {
        peer: public_key(peer),
        preshared_key: PresharedKey::default(),
        persistent_keepalive: None,
        cipher: CIPHER,
        jitter_seed,
    }
}

/// Two hosts that know each other.
pub(crate) fn pair(now: Duration) -> (Host, Host) {
    (Host::new(1, 2, now), Host::new(2, 1, now))
}

/// Carries datagrams both ways until none is left.
pub(crate) fn exchange(alice: &mut Host, bob: &mut Host, now: Duration) {
    loop {
        if let Some(datagram) = alice.sent() {
            bob.receive_from(&datagram, alice.address, now);
        } else if let Some(datagram) = bob.sent() {
            alice.receive_from(&datagram, bob.address, now);
        } else {
            return;
        }
    }
}

/// Two hosts with a session that the first initiated, at `now`, and nothing under way.
pub(crate) fn connected(now: Duration) -> (Host, Host) {
    let (mut alice, mut bob) = pair(now);
    alice.send(b"first", now);
    exchange(&mut alice, &mut bob, now);
    assert_eq!(
        padded(b"first"),
        bob.inbox.pop().expect("the packet arrives")
    );
    alice.actions.clear();
    bob.actions.clear();
    (alice, bob)
}

/// A packet as it comes out at the other end.
pub(crate) fn padded(packet: &[u8]) -> Vec<u8> {
    let mut padded = packet.to_vec();
    padded.resize(packet.len().next_multiple_of(16), 0);
    padded
}

/// Lets the clock of two hosts run until `end`, carrying datagrams without delay.
pub(crate) fn run_until(alice: &mut Host, bob: &mut Host, end: Duration) {
    exchange(alice, bob, end);
    while let Some(now) = next_timeout(alice, bob).filter(|at| *at <= end) {
        alice.handle_timeout(now);
        bob.handle_timeout(now);
        exchange(alice, bob, now);
    }
}

fn next_timeout(alice: &Host, bob: &Host) -> Option<Duration> {
    [alice.tunnel.poll_timeout(), bob.tunnel.poll_timeout()]
        .into_iter()
        .flatten()
        .map(|(at, _)| at)
        .min()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

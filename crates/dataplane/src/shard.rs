//! One core's packet machine. The state is here; what happens to it is told by noun: packets out
//! and in, verdicts, handshakes, commands, sessions (what tunnels ask for) and time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use model::key::WireguardKey;
use model::map::PeerIndex;
use model::time::{Instant, Now, UnixTime};
use policy::Table;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use wireguard::PrivateKey;
use zeroize::Zeroizing;

use crate::claims::Claims;
use crate::config::ShardConfig;
use crate::cookie_secrets::CookieSecrets;
use crate::counters::Counters;
use crate::denials::Denials;
use crate::event::Event;
use crate::flows::Flows;
use crate::fragments::Fragments;
use crate::identity::Identity;
use crate::indices::Indices;
use crate::outbox::{Outbox, Path};
use crate::peers::Peers;
use crate::rate::Rate;
use crate::routes::Routes;
use crate::stamps::Stamps;
use crate::timers::Timers;

mod claims;
mod commands;
mod handshakes;
mod inbound;
mod lane_ends;
mod lanes;
mod load;
mod misdirected;
mod outbound;
mod probing;
mod rejections;
mod sessions;
mod spreading;
mod succession;
mod timeouts;
mod verdicts;

pub use misdirected::Introduction;
pub use succession::HANDSHAKES_APART;

use load::Load;
use misdirected::Elsewhere;
use succession::Heirs;

/// Looks a second for the peer whose old session a datagram is sealed under. Each is a walk over
/// the peers, and strangers can cause it.
const REACHES_BACK_PER_SEC: u32 = 50;

/// One core's share of a host's packets.
///
/// After every `handle_*`, drain [`Shard::poll_event`] and ask [`Shard::poll_timeout`].
pub struct Shard {
    config: ShardConfig,
    counters: Arc<Counters>,
    dice: ChaCha20Rng,
    cookie_secrets: CookieSecrets,
    /// For the time in which connections of before a restart are taken over.
    started_at: Instant,
    identity: Option<Identity>,
    table: Option<Arc<Table>>,
    peers: Peers,
    keys: HashMap<WireguardKey, PeerIndex, FixedState>,
    routes: Routes,
    /// The peers of the host's other shards, by index.
    elsewhere: Vec<Option<Elsewhere>>,
    indices: Indices,
    flows: Flows,
    claims: Claims,
    fragments: Fragments,
    /// To which shards first fragments went.
    fragment_ways: Fragments,
    denials: Denials,
    refusals: Rate,
    rejections: Rate,
    reaches_back: Rate,
    stamps: Stamps,
    load: Load,
    heirs: Heirs,
    /// Lanes neither open nor close, since a successor is told of the flows.
    holds_lanes: bool,
    timers: Timers,
    next_sweep: Option<Instant>,
    /// Bytes of all packets that wait for sessions.
    pending_bytes: usize,
    /// Counts identities and peers, so that each has its own number.
    incarnations: u64,
    events: VecDeque<Event>,
}

impl Shard {
    /// Makes a shard that knows nobody yet. The seed is secret and never used twice; `counters`
    /// are this shard's alone.
    pub fn new(config: ShardConfig, seed: [u8; 32], now: Now, counters: Arc<Counters>) -> Self {
        let mut dice = ChaCha20Rng::from_seed(seed);
        let limits = config.limits;
        let mut cookie_seed = [0; 32];
        dice.fill_bytes(&mut cookie_seed);
        Self {
            counters,
            started_at: now.monotonic,
            identity: None,
            table: None,
            peers: Peers::default(),
            keys: HashMap::with_hasher(FixedState::with_seed(dice.next_u64())),
            routes: Routes::new(dice.next_u64()),
            elsewhere: Vec::new(),
            indices: Indices::new(config.place, config.shift, dice.next_u64()),
            flows: Flows::new(limits.flows, limits.flows_per_peer, dice.next_u64()),
            claims: Claims::new(
                limits.senders_asked,
                limits.claims,
                limits.claims_per_peer,
                dice.next_u64(),
            ),
            fragments: Fragments::new(limits.fragments, dice.next_u64()),
            fragment_ways: Fragments::new(limits.fragments, dice.next_u64()),
            denials: Denials::new(limits.denials_per_sec, dice.next_u64()),
            refusals: Rate::per_sec(limits.refusals_per_sec),
            rejections: Rate::per_sec(limits.rejections_per_sec),
            reaches_back: Rate::per_sec(REACHES_BACK_PER_SEC),
            stamps: Stamps::new(UnixTime::default()),
            load: Load::new(&limits, dice.next_u64()),
            heirs: Heirs::default(),
            holds_lanes: false,
            timers: Timers::default(),
            next_sweep: None,
            pending_bytes: 0,
            incarnations: 0,
            events: VecDeque::new(),
            cookie_secrets: CookieSecrets::new(cookie_seed),
            config,
            dice,
        }
    }

    /// Makes cookies as the host's other shards do, which have the same secret seed.
    #[must_use]
    pub fn with_cookie_seed(mut self, seed: [u8; 32]) -> Self {
        self.cookie_secrets = CookieSecrets::new(seed);
        self
    }

    /// Returns the next thing that the caller should know or do.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn emit(&mut self, event: Event) {
        if self.events.len() < self.config.limits.events {
            self.events.push_back(event);
        } else {
            self.counters.add_lost_event();
        }
    }

    fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    fn random_key(&mut self) -> PrivateKey {
        PrivateKey::from_bytes(*self.random_secret())
    }

    fn random_secret(&mut self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.dice.fill_bytes(&mut *bytes);
        bytes
    }
}

/// The time of `wireguard`.
const fn tunnel_time(now: Now) -> Duration {
    now.monotonic.since_start()
}

/// Sends a message that is not about an overlay packet.
fn send_message(message: &[u8], via: Path, out: &mut impl Outbox) {
    out.datagram(via, 0, message.len(), |room| {
        room[..message.len()].copy_from_slice(message);
        message.len()
    });
}

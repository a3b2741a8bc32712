//! Who sends the flows of UDP that a rule asks it of: this host's, as its kernel told, with the
//! packets that wait to be told; and peers', as they claim.

use std::collections::VecDeque;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use model::map::PeerIndex;
use model::name::Name;
use model::rule::Direction;
use model::time::Instant;

use crate::flows::FlowKey;
use crate::pending::{Pending, PendingLimits};

mod table;

use table::{Known, Standing, Table};

/// How long packets wait to be told whose they are: a busy daemon takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of one flow, before it is known whose it is.
const HELD: PendingLimits = PendingLimits {
    packets: 16,
    bytes: 24 << 10,
};
/// How old an answer may be before it is asked again, while packets go on.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Time between two questions about one flow.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
/// How long an answer holds for what this host sends, which waits for another then: for so long at most
/// a program that took another's port passes for it. What comes to it in the flow cannot wait, and is
/// let in by the last answer.
const ANSWER_HOLDS: Duration = Duration::from_secs(2);
/// A claim that was not heard goes ahead of the next packet again, when so much time has passed.
const TELL_AGAIN: Duration = Duration::from_millis(5);
/// One that was heard is told again after this, while the flow lives.
const REFRESH: Duration = Duration::from_secs(20);
/// How long a claim is remembered without being told again: as long as a flow of UDP.
const CLAIM_HOLDS: Duration = Duration::from_secs(180);

/// The claims of one shard. Every table is bounded.
pub(crate) struct Claims {
    asked: HashMap<FlowKey, Pending, FixedState>,
    /// The same, by since when.
    asked_since: VecDeque<(Instant, FlowKey)>,
    own: Table<Own>,
    heard: Table<Heard>,
    asked_max: usize,
}

/// Who sends a flow of this host.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// `None`: nobody that the policy names.
    pub(crate) workload: Option<Name>,
    /// The table that was in force when the kernel was asked.
    known_under: u64,
    known_at: Instant,
    asked_at: Instant,
    asked_under: u64,
    told_at: Option<Instant>,
    is_heard: bool,
}

/// Who a peer says sends a flow of its own.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) workload: Name,
    at: Instant,
}

/// The claims of flows that go to another shard.
#[derive(Debug, Default)]
pub(crate) struct GivenClaims {
    own: Vec<Known<Own>>,
    heard: Vec<Known<Heard>>,
}

impl GivenClaims {
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.heard.is_empty()
    }
}

impl Claims {
    pub(crate) fn new(
        asked_max: usize,
        claims_max: usize,
        heard_per_peer_max: usize,
        seed: u64,
    ) -> Self {
        Self {
            asked: HashMap::with_hasher(FixedState::with_seed(seed)),
            asked_since: VecDeque::new(),
            own: Table::new(claims_max, claims_max, seed),
            heard: Table::new(claims_max, heard_per_peer_max, seed),
            asked_max,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.own.is_empty() && self.heard.is_empty()
    }
}

/// This host's flows.
impl Claims {
    /// Returns who sends a flow, where that is known well enough for a packet in a direction.
    pub(crate) fn own_mut(
        &mut self,
        key: &FlowKey,
        direction: Direction,
        now: Instant,
    ) -> Option<&mut Known<Own>> {
        let holds = match direction {
            Direction::Outbound => ANSWER_HOLDS,
            Direction::Inbound => CLAIM_HOLDS,
        };
        let own = self.own.get_mut(key)?;
        (now.saturating_since(own.value.known_at) < holds).then_some(own)
    }

    /// Returns whether there was room for an answer.
    pub(crate) fn is_known(&self, key: &FlowKey) -> bool {
        self.own.get(key).is_some()
    }

    /// Notes that it is asked who sends a flow; `None`: too much is asked already, `Some(false)`: this
    /// is.
    pub(crate) fn ask(&mut self, key: FlowKey, now: Instant) -> Option<bool> {
        if self.asked.contains_key(&key) {
            return Some(false);
        }
        if self.asked.len() >= self.asked_max {
            return None;
        }
        self.asked.insert(key, Pending::default());
        self.asked_since.push_back((now, key));
        Some(true)
    }

    /// Keeps a packet of a flow that is asked about, and returns how many older ones had to go;
    /// `None`: it does not fit.
    pub(crate) fn hold(&mut self, key: &FlowKey, packet: &[u8]) -> Option<usize> {
        self.asked.get_mut(key)?.push(packet, HELD)
    }

    /// Returns when packets have waited for too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let (since, _) = self.asked_since.front()?;
        Some(*since + PATIENCE)
    }

    /// Takes the packets of a flow that has waited for too long.
    pub(crate) fn take_overdue(&mut self, now: Instant) -> Option<Pending> {
        let is_over = self.deadline().is_some_and(|deadline| deadline <= now);
        let (_, key) = self.asked_since.pop_front_if(|_| is_over)?;
        self.asked.remove(&key)
    }

    /// Takes an answer to what was asked under a table, and which allows it, if there is room for it,
    /// and returns the packets that waited for it; `None`: nobody asked.
    pub(crate) fn learn(
        &mut self,
        key: FlowKey,
        workload: Option<Name>,
        asked_under: u64,
        allowed_under: Option<u64>,
        now: Instant,
    ) -> Option<Pending> {
        let held = self.forget_question(&key);
        if let Some(Known {
            standing, value, ..
        }) = self.own.get_mut(&key)
        {
            if value.workload != workload {
                (value.told_at, value.is_heard) = (None, false);
                value.workload = workload;
            }
            standing.allowed_under = allowed_under;
            (value.known_at, value.known_under) = (now, asked_under);
            return Some(held.unwrap_or_default());
        }
        let held = held?;
        let value = Own {
            workload,
            known_under: asked_under,
            known_at: now,
            asked_at: now,
            asked_under,
            told_at: None,
            is_heard: false,
        };
        let standing = Standing::new(allowed_under, now);
        let known = Known {
            key,
            standing,
            value,
        };
        self.own.insert(known, now);
        Some(held)
    }

    /// Returns whether it is time to ask again who sends a flow, and notes that it is asked.
    pub(crate) fn asks_again(&mut self, key: &FlowKey, generation: u64, now: Instant) -> bool {
        let Some(Known { value: own, .. }) = self.own.get_mut(key) else {
            return false;
        };
        let is_old = now.saturating_since(own.known_at) >= ASK_AGAIN;
        let is_due = is_old || own.known_under != generation;
        let may = own.asked_under != generation
            || now.saturating_since(own.asked_at) >= BETWEEN_QUESTIONS;
        if is_due && may {
            (own.asked_at, own.asked_under) = (now, generation);
        }
        is_due && may
    }

    /// Returns the claim that goes ahead of the next packet of a flow.
    pub(crate) fn due(&mut self, key: &FlowKey, now: Instant) -> Option<&Name> {
        let own = &self.own.get(key)?.value;
        let is_due = match own.told_at {
            None => true,
            Some(at) if own.is_heard => now.saturating_since(at) >= REFRESH,
            Some(at) => now.saturating_since(at) >= TELL_AGAIN,
        };
        own.workload.as_ref().filter(|_| is_due)
    }

    /// A claim has been sent.
    pub(crate) fn note_told(&mut self, key: &FlowKey, now: Instant) {
        if let Some(Known { value: own, .. }) = self.own.get_mut(key) {
            (own.told_at, own.is_heard) = (Some(now), false);
        }
    }

    /// The peer says that it has heard a claim, or that it has not. False when there is none.
    pub(crate) fn note_answer(&mut self, key: &FlowKey, is_heard: bool) -> bool {
        let Some(Known { value: own, .. }) = self.own.get_mut(key) else {
            return false;
        };
        own.is_heard = is_heard;
        if !is_heard {
            own.told_at = None;
        }
        true
    }

    fn forget_question(&mut self, key: &FlowKey) -> Option<Pending> {
        let packets = self.asked.remove(key)?;
        self.asked_since.retain(|(_, asked)| asked != key);
        Some(packets)
    }
}

/// Peers' flows.
impl Claims {
    /// Returns who a peer says sends a flow.
    pub(crate) fn heard_mut(&mut self, key: &FlowKey, now: Instant) -> Option<&mut Known<Heard>> {
        let heard = self.heard.get_mut(key)?;
        (now.saturating_since(heard.value.at) < CLAIM_HOLDS).then_some(heard)
    }

    /// Takes a claim, and which table allows it. False when there is no room for it.
    pub(crate) fn hear(
        &mut self,
        key: FlowKey,
        workload: Name,
        allowed_under: Option<u64>,
        now: Instant,
    ) -> bool {
        let value = Heard { workload, at: now };
        if let Some(heard) = self.heard.get_mut(&key) {
            heard.standing.allowed_under = allowed_under;
            heard.value = value;
            return true;
        }
        let standing = Standing::new(allowed_under, now);
        let known = Known {
            key,
            standing,
            value,
        };
        self.heard.insert(known, now)
    }
}

/// Between the shards of a host.
impl Claims {
    /// Returns what is known of some flows.
    pub(crate) fn of_flows(&self, is_its: impl Fn(&FlowKey) -> bool) -> GivenClaims {
        GivenClaims {
            own: of_flows(&self.own, &is_its),
            heard: of_flows(&self.heard, &is_its),
        }
    }

    /// Forgets what is known of some flows, which another shard has now.
    pub(crate) fn give(&mut self, is_its: impl Fn(&FlowKey) -> bool) {
        self.own.remove_where(|own| is_its(&own.key));
        self.heard.remove_where(|heard| is_its(&heard.key));
    }

    /// Takes what another shard knew; what finds no room is asked and claimed anew.
    pub(crate) fn take(&mut self, given: GivenClaims, now: Instant) {
        for own in given.own {
            self.own.insert(own, now);
        }
        for heard in given.heard {
            self.heard.insert(heard, now);
        }
    }
}

fn of_flows<T: Clone>(table: &Table<T>, is_its: impl Fn(&FlowKey) -> bool) -> Vec<Known<T>> {
    let its = table.iter().filter(|known| is_its(&known.key));
    its.cloned().collect()
}

/// What is over.
impl Claims {
    /// Forgets what nobody uses any more.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.own.sweep(now);
        self.heard.sweep(now);
    }

    /// Forgets everything about a peer, and returns the packets that waited.
    pub(crate) fn forget_peer(&mut self, peer: PeerIndex) -> Vec<Pending> {
        self.give(|key| key.peer() == peer);
        self.forget_questions(|key| key.peer() == peer)
    }

    /// Forgets every question, and returns the packets that waited.
    pub(crate) fn forget_all_questions(&mut self) -> Vec<Pending> {
        self.forget_questions(|_| true)
    }

    fn forget_questions(&mut self, is_over: impl Fn(&FlowKey) -> bool) -> Vec<Pending> {
        self.asked_since.retain(|(_, key)| !is_over(key));
        let gone = self.asked.extract_if(|key, _| is_over(key));
        gone.map(|(_, packets)| packets).collect()
    }
}

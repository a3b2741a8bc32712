//! Who may come in while more comes than this thread can take. The kernel's buffer of a socket is one
//! queue for all senders: once it is full, whoever sends most has most of it. So when much of what comes
//! is dropped there, this looks at who costs how much, and lets the kernel drop what is above a fair
//! share, before it costs anybody anything ([decision](docs/decisions/peers-have-fair-shares.md)).
//!
//! ```text
//! Open ── much is dropped ──> Watching ── still ──> Sharing ── calm for a second ──> Open
//! ```

mod arrivals;
mod plan;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use model::time::Instant;

use self::arrivals::{Arrivals, Claims};
use self::plan::{Family, Network, Plan, SESSIONS_MAX};
use super::floods::{
    CALM_LOOKS, EMPTIED_OFTEN, LOOK_INTERVAL, LOOK_INTERVAL_MAX, PART_MIN, REMEMBERED_PART,
    is_flood,
};
use super::shares::{fair_level, part};
use crate::drops::SocketDrops;
use crate::linux::classic_bpf::{filter, unfilter};

#[cfg(test)]
mod tests;

/// A network's claim that is forgotten: a fraction of a datagram in a second.
const CLAIM_MIN: f64 = 1.0;
/// How often the log tells of floods.
const NEWS_INTERVAL: Duration = Duration::from_secs(60);

/// What one socket lets in.
#[derive(Debug)]
pub(super) struct Admission {
    family: Family,
    drops: Arc<SocketDrops>,
    state: State,
    looked_at: Instant,
    dropped: u64,
    tally: Tally,
    /// Made at the first flood.
    arrivals: Option<Box<Arrivals>>,
    news: News,
}

#[derive(Debug)]
enum State {
    /// Nothing is known of anybody, and all may come in.
    Open,
    /// Much was dropped: it is asked of whom.
    Watching,
    /// Much was dropped, and is let in by shares while it lasts.
    Sharing(Sharing),
}

#[derive(Debug, Default)]
struct Sharing {
    /// What this thread can take in a second.
    room: f64,
    plan: Plan,
    claims: Claims,
    calm_looks: u32,
}

/// What the last look has shown.
#[derive(Clone, Copy, Debug)]
struct Flood {
    secs: f64,
    is_on: bool,
    /// How many came for one that was received.
    factor: f64,
}

/// When this was last told in the log.
#[derive(Debug, Default)]
struct News(Option<Instant>);

/// What was received since the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// As the kernel had joined them.
    messages: u64,
    /// Calls after which nothing waited.
    emptied: u32,
}

impl Admission {
    /// Lets everybody in.
    pub(super) fn new(is_v4: bool, drops: Arc<SocketDrops>) -> Self {
        Self {
            family: if is_v4 { Family::V4 } else { Family::V6 },
            drops,
            state: State::Open,
            looked_at: Instant::START,
            dropped: 0,
            tally: Tally::default(),
            arrivals: None,
            news: News::default(),
        }
    }

    /// Returns what the socket drops.
    pub(super) fn drops(&self) -> &Arc<SocketDrops> {
        &self.drops
    }

    /// Returns whether [`Admission::charge`] wants to know of each datagram.
    pub(super) fn is_watching(&self) -> bool {
        !matches!(self.state, State::Open)
    }

    /// Takes a datagram that came in, and the session of ours that it names.
    pub(super) fn charge(&mut self, session: Option<u32>, from: SocketAddr, bytes: usize) {
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.charge(session, Network::of(from), bytes);
        }
    }

    /// Takes how much one call received, and whether more may wait.
    pub(super) fn handle_received(&mut self, messages: usize, is_full: bool) {
        self.tally.messages += messages as u64;
        self.tally.emptied += u32::from(!is_full);
    }

    /// Returns when to look again even if nothing comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.is_watching().then(|| self.looked_at + LOOK_INTERVAL)
    }

    /// Looks at how things are, when it is time; only for whoever receives from the socket. `sessions`
    /// are those that there are, as the filter sees them.
    pub(super) fn look_when_due(
        &mut self,
        socket: BorrowedFd<'_>,
        now: Instant,
        sessions: &dyn Fn() -> Vec<u32>,
    ) {
        let elapsed = now.saturating_since(self.looked_at);
        if elapsed < LOOK_INTERVAL {
            return;
        }
        let tally = std::mem::take(&mut self.tally);
        let dropped = self.drops.total();
        let dropped_since = dropped - self.dropped;
        (self.dropped, self.looked_at) = (dropped, now);
        let flood = Flood {
            secs: elapsed.as_secs_f64(),
            is_on: elapsed <= LOOK_INTERVAL_MAX && is_flood(dropped_since, tally.messages),
            // What came in stands for what found no room, too.
            factor: 1.0 + dropped_since as f64 / tally.messages.max(1) as f64,
        };
        match &mut self.state {
            State::Open if flood.is_on => self.watch(),
            State::Open => {}
            State::Watching if flood.is_on => {
                self.state = State::Sharing(Sharing::default());
                self.share(socket, tally, flood, sessions);
            }
            State::Watching => self.state = State::Open,
            State::Sharing(_) => self.share(socket, tally, flood, sessions),
        }
    }

    /// Lets everybody in, at once: the filter is the kernel's, and whoever has the socket next does not
    /// know of it. It may also be that of another daemon, which had the socket meanwhile.
    pub(super) fn open(&mut self, socket: BorrowedFd<'_>) {
        lift(socket, &self.drops);
        self.state = State::Open;
    }

    fn watch(&mut self) {
        let new = || Box::new(Arrivals::new());
        self.arrivals.get_or_insert_with(new).begin(&Plan::OPEN);
        self.state = State::Watching;
    }

    /// Gives everybody their share from now on, of what they have asked for.
    fn share(
        &mut self,
        socket: BorrowedFd<'_>,
        tally: Tally,
        flood: Flood,
        sessions: &dyn Fn() -> Vec<u32>,
    ) {
        let (State::Sharing(sharing), Some(arrivals)) = (&mut self.state, &mut self.arrivals)
        else {
            return;
        };
        let cut = sharing.plan.cuts();
        sharing.plan = match (cut, flood.is_on) {
            // What the kernel drops now, the plan asked for.
            (true, _) => {
                sharing.adjust_room(tally);
                sharing.plan_for(arrivals.claims(1.0 / flood.secs), &sessions())
            }
            (false, true) => {
                sharing.room = arrivals.cost() / flood.secs;
                sharing.plan_for(arrivals.claims(flood.factor / flood.secs), &sessions())
            }
            (false, false) => Plan::OPEN,
        };
        if sharing.plan.cuts() && !impose(socket, &mut sharing.plan, self.family, &self.drops) {
            sharing.plan = Plan::OPEN;
        }
        match (cut, sharing.plan.cuts()) {
            // Also when it did not cut before: nothing but a plan may filter the socket.
            (_, false) => lift(socket, &self.drops),
            (false, true) => self.news.tell(self.looked_at),
            (true, true) => {}
        }
        arrivals.begin(&sharing.plan);
        sharing.calm_looks = if sharing.plan.cuts() {
            0
        } else {
            sharing.calm_looks + 1
        };
        if sharing.calm_looks >= CALM_LOOKS {
            self.state = State::Open;
        }
    }
}

impl News {
    fn tell(&mut self, now: Instant) {
        if self
            .0
            .is_some_and(|at| now.saturating_since(at) < NEWS_INTERVAL)
        {
            return;
        }
        self.0 = Some(now);
        tracing::warn!(
            "more datagrams come than this host can take: who sends most is cut to a fair share (`meshctl drops` counts them)"
        );
    }
}

/// Lets the kernel drop what is above the parts. Returns whether it does.
fn impose(socket: BorrowedFd<'_>, plan: &mut Plan, family: Family, drops: &SocketDrops) -> bool {
    loop {
        // Before it, so that nothing that it drops is counted as if the buffer had been full.
        drops.set_shedding(true);
        let Err(error) = filter(socket, &mut plan.program(family)) else {
            return true;
        };
        if plan.sessions.is_empty() {
            tracing::debug!(%error, "the kernel takes no filter: a flood harms all peers alike");
            return false;
        }
        // More than the machine's bound for options of sockets allows (net.core.optmem_max). Of those
        // that have the same part, whoever asks for most is named first.
        plan.sessions
            .sort_by(|one, other| one.1.total_cmp(&other.1));
        plan.sessions.truncate(plan.sessions.len() / 2);
    }
}

fn lift(socket: BorrowedFd<'_>, drops: &SocketDrops) {
    // It fails only where there is none.
    let _ = unfilter(socket);
    drops.set_shedding(false);
}

impl Sharing {
    /// Less when something always waited, more when often nothing did, or nothing came at all.
    fn adjust_room(&mut self, tally: Tally) {
        if tally.messages == 0 || tally.emptied >= EMPTIED_OFTEN {
            self.room *= 1.1;
        } else if tally.emptied == 0 {
            self.room *= 0.85;
        }
    }

    fn plan_for(&mut self, claims: Claims, sessions: &[u32]) -> Plan {
        self.claims = remembering(&self.claims, claims, sessions);
        plan(&self.claims, self.room)
    }
}

/// Who asks for less than before asks for it only after a while: a sender that is cut to next to
/// nothing may seem to have ended. All sessions that there are have a claim, be it 0, so that a quiet
/// one is not taken for a stranger; where there are too many, those that ask for least have none.
fn remembering(before: &Claims, mut now: Claims, sessions: &[u32]) -> Claims {
    let asked_before: HashMap<u32, f64> = before.sessions.iter().copied().collect();
    let asked_now: HashMap<u32, f64> = now.sessions.iter().copied().collect();
    let asked = |by: &HashMap<u32, f64>, index: &u32| by.get(index).copied().unwrap_or_default();
    let claim =
        |index: &u32| asked(&asked_now, index).max(asked(&asked_before, index) * REMEMBERED_PART);
    now.sessions = sessions.iter().map(|it| (*it, claim(it))).collect();
    now.sessions.sort_by(|one, other| other.1.total_cmp(&one.1));
    now.sessions.truncate(SESSIONS_MAX);
    for (network, claim) in &mut now.networks {
        let before = before.networks.iter().find(|(it, _)| it == network);
        *claim = claim.max(before.map_or(0.0, |(_, before)| *before) * REMEMBERED_PART);
    }
    now.networks.retain(|(_, claim)| *claim >= CLAIM_MIN);
    now.others = now.others.max(before.others * REMEMBERED_PART);
    now
}

/// Shares the room: each session has as much as any other, and all strangers together as much as one
/// session, which they share by their networks.
fn plan(claims: &Claims, room: f64) -> Plan {
    let of_strangers = claims.of_strangers();
    let sessions = claims.sessions.iter().map(|(_, claim)| *claim);
    let level = fair_level(sessions.chain([of_strangers]), room);
    let Some(room_of_each) = level else {
        return Plan::OPEN;
    };
    let networks = claims.networks.iter().map(|(_, claim)| *claim);
    let of_each = fair_level(
        networks.chain([claims.others]),
        of_strangers.min(room_of_each),
    );
    let parts = |claim, level| part(claim, level).max(PART_MIN);
    let networks = claims.networks.iter();
    let networks = networks.map(|(network, claim)| (*network, parts(*claim, of_each)));
    let networks: Vec<_> = networks.filter(|(_, part)| *part < 1.0).collect();
    let others = parts(claims.others, of_each);
    let strangers_are_cut = others < 1.0 || !networks.is_empty();
    let sessions = claims.sessions.iter();
    let sessions = sessions.map(|(index, claim)| (*index, parts(*claim, level)));
    Plan {
        // Where strangers are cut, sessions that are not must be known from them.
        sessions: sessions
            .filter(|(_, part)| strangers_are_cut || *part < 1.0)
            .collect(),
        networks,
        others,
    }
}

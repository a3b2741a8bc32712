//! How large packets to one peer may be: found by probes inside the tunnel, after RFC 8899
//! (datagram packetization layer path MTU discovery), and found anew when the path changes.
//!
//! ```text
//! Fresh ── data ──> Knocking ── answered ──> Searching ──> Settled <──> Confirming
//!   ^                   └──── unanswered ──> Resting          ^             │ a black hole
//!   └──────── later, or another path ───────────┘             └─ Searching <┘
//! ```
//!
//! RFC 8899 names the states BASE, SEARCHING, SEARCH_COMPLETE and ERROR: here Knocking, Searching,
//! Settled with Confirming, and Resting. Nothing is asked unless packets flow: an idle peer costs
//! nothing. Who sends the probes is the shard.

use std::time::Duration;

use candidates::candidates;

use crate::probe::ProbeMessage;
use crate::rate::Rate;

mod candidates;

pub(crate) use candidates::Volley;

/// How long an answer is waited for (RFC 8899 5.1.1, PROBE_TIMER: at least 1 s).
const PROBE_TIMER: Duration = Duration::from_secs(1);
/// Probes of one size without an answer until it counts as too large (RFC 8899 5.1.2, MAX_PROBES).
const MAX_PROBES: u8 = 3;
/// How long nothing larger is tried (RFC 8899 5.1.1, PMTU_RAISE_TIMER), nor anything at all with a
/// peer that answers none.
const PMTU_RAISE_TIMER: Duration = Duration::from_secs(600);
/// From one proof of the same size to the next while packets flow that are large enough to be lost
/// in a black hole (RFC 8899 5.1.1, CONFIRMATION_TIMER: frequent enough that little is lost).
const CONFIRMATION_TIMER: Duration = Duration::from_secs(2);

/// The smallest probe: it passes wherever anything does.
const KNOCK_BYTES: u16 = ProbeMessage::LEN as u16;
/// Packets up to this size pass every path that is searched, so that none of them is watched.
const SMALL_BYTES: usize = 1200; // RFC 8899 5.1.2, BASE_PLPMTU
/// What the tunnel takes after a black hole until the search is over: what IPv6 needs.
const BASE_BYTES: u16 = 1280; // RFC 8200 5
/// Bytes around a packet: UDP, and WireGuard's header and tag.
const TUNNEL_OVERHEAD: u16 = 8 + 32;
const IPV4_OVERHEAD: u16 = TUNNEL_OVERHEAD + 20;
const IPV6_OVERHEAD: u16 = TUNNEL_OVERHEAD + 40;
/// Senders of TCP that are told a second that their segments are cut.
const TELLS_PER_SEC: u32 = 4;

/// How large overlay packets to a peer may be, as it is known now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtuReport {
    /// Bytes of the largest packet.
    pub bytes: u16,
    /// How that is known.
    pub standing: Standing,
    /// How often a size that had passed did not pass any more, while smaller packets did.
    pub black_holes: u32,
}

/// How it is known what passes to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Assumed: nothing was sent yet, or the peer answers no probes.
    Assumed,
    /// Being found out.
    Searching,
    /// A probe of this size was answered.
    Proven,
    /// The peer answers small probes, and none of the smallest size that IPv6 needs: larger packets
    /// pass in fragments, if at all.
    Narrow,
}

impl Standing {
    /// Returns the name that the local API uses; it never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assumed => "assumed",
            Self::Searching => "searching",
            Self::Proven => "proven",
            Self::Narrow => "narrow",
        }
    }
}

/// What is known of one peer's path, and what is asked.
#[derive(Clone, Debug)]
pub(crate) struct PathMtu {
    /// Of the overlay's interface: nothing larger comes.
    interface: u16,
    /// Of packets whose path is not proven.
    assumed: u16,
    /// The peer may understand probes.
    is_mesh: bool,
    /// It has answered one.
    has_answered: bool,
    overhead: u16,
    phase: Phase,
    proven: Option<u16>,
    /// Of packets now.
    limit: u16,
    /// The limit will not rise soon, so that senders may be told of it.
    is_certain: bool,
    /// A packet that is larger has something asked.
    wakes_above: usize,
    due: Option<Duration>,
    attempts: u8,
    /// The number of the last probes, and of the first whose answers count.
    round: u32,
    first_round: u32,
    confirmed_at: Duration,
    raise_at: Duration,
    black_holes: u32,
    tells: Rate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was asked of this path.
    Fresh,
    /// Whether the peer answers at all.
    Knocking,
    /// Which sizes pass: `best` was answered, what is as large as `refused` does not leave the host.
    Searching { best: u16, refused: u16 },
    /// What passes is proven.
    Settled,
    /// Whether it still passes, and the smallest does.
    Confirming { small_passes: bool },
    /// The peer does not answer, or nothing passes that is large enough: not asked for a while.
    Resting { is_narrow: bool },
}

impl PathMtu {
    pub(crate) fn new(interface: u16, assumed: u16, is_mesh: bool) -> Self {
        let mut path_mtu = Self {
            interface,
            assumed: assumed.min(interface),
            is_mesh,
            has_answered: false,
            overhead: IPV6_OVERHEAD,
            phase: Phase::Fresh,
            proven: None,
            limit: 0,
            is_certain: false,
            wakes_above: usize::MAX,
            due: None,
            attempts: 0,
            round: 0,
            first_round: 1,
            confirmed_at: Duration::ZERO,
            raise_at: Duration::ZERO,
            black_holes: 0,
            tells: Rate::per_sec(TELLS_PER_SEC),
        };
        path_mtu.begin_anew();
        path_mtu
    }

    /// The peer is elsewhere: what was proven was proven of another path.
    pub(crate) fn follow(&mut self, is_ipv6: bool) {
        self.overhead = if is_ipv6 {
            IPV6_OVERHEAD
        } else {
            IPV4_OVERHEAD
        };
        self.begin_anew();
    }

    /// The peer's program is another.
    pub(crate) fn set_mesh(&mut self, is_mesh: bool) {
        if self.is_mesh != is_mesh {
            self.is_mesh = is_mesh;
            self.begin_anew();
        }
    }

    /// The peer has agreed on a session: it may be of a version now that answers.
    pub(crate) fn handle_session(&mut self) {
        if self.phase == (Phase::Resting { is_narrow: false }) {
            self.begin_anew();
        }
    }

    fn begin_anew(&mut self) {
        self.phase = Phase::Fresh;
        self.proven = None;
        self.limit = self.assumed;
        self.is_certain = !self.is_mesh;
        self.wakes_above = if self.is_mesh { 0 } else { usize::MAX };
        self.due = None;
        self.expect_answers_from_now();
    }

    fn expect_answers_from_now(&mut self) {
        self.attempts = 0;
        self.first_round = self.round.wrapping_add(1);
    }

    /// Returns the bytes of the largest packet that should leave as it is. IPv6 takes no less than
    /// 1280 for an answer: on a narrower path, such packets leave in datagrams that may be cut.
    #[inline]
    pub(crate) fn limit(&self, is_ipv6: bool) -> usize {
        let least = if is_ipv6 { BASE_BYTES } else { 0 };
        usize::from(self.limit.max(least))
    }

    /// Returns whether who sends more than [`PathMtu::limit`] should be told. If not, more may turn
    /// out to pass at any moment.
    pub(crate) const fn is_certain(&self) -> bool {
        self.is_certain
    }

    /// Returns whether a sender of TCP may be told that its segments are cut.
    pub(crate) fn may_tell(&mut self, now: model::time::Instant) -> bool {
        self.is_certain && self.tells.take(now)
    }

    pub(crate) fn report(&self) -> PathMtuReport {
        let standing = match self.phase {
            _ if self.proven.is_some() => Standing::Proven,
            Phase::Resting { is_narrow: true } => Standing::Narrow,
            Phase::Searching { .. } => Standing::Searching,
            _ => Standing::Assumed,
        };
        PathMtuReport {
            bytes: self.limit,
            standing,
            black_holes: self.black_holes,
        }
    }

    /// Takes that a packet was sealed for the peer.
    #[inline]
    pub(crate) fn note_sent(&mut self, bytes: usize, now: Duration) {
        if bytes > self.wakes_above {
            self.wake(now);
        }
    }

    #[cold]
    fn wake(&mut self, now: Duration) {
        self.wakes_above = usize::MAX;
        self.due = Some(match self.phase {
            Phase::Settled => now.max(self.confirmed_at + CONFIRMATION_TIMER),
            _ => now,
        });
    }

    /// The kernel refused datagrams to the peer for their size: what was proven is asked for at
    /// once.
    pub(crate) fn handle_refused_datagrams(&mut self, now: Duration) {
        if self.phase == Phase::Settled {
            self.due = Some(now);
            self.wakes_above = usize::MAX;
        }
    }

    /// Returns when the clock is needed.
    #[inline]
    pub(crate) const fn poll_timeout(&self) -> Option<Duration> {
        self.due
    }
}

/// Asking.
impl PathMtu {
    /// Returns the probes that are due. To be called until there are none: what the host itself
    /// refuses, see [`PathMtu::handle_refused`], is answered at once.
    pub(crate) fn poll_volley(&mut self, now: Duration) -> Option<Volley> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        match self.phase {
            Phase::Fresh if self.has_answered => self.begin_search(),
            Phase::Fresh => self.begin(Phase::Knocking),
            Phase::Settled if now >= self.raise_at && self.may_be_larger() => self.begin_search(),
            Phase::Settled => self.begin(Phase::Confirming {
                small_passes: false,
            }),
            Phase::Resting { .. } => {
                self.begin_anew();
                return None;
            }
            _ if self.attempts < MAX_PROBES => {}
            Phase::Knocking => {
                self.rest(false, now);
                return None;
            }
            Phase::Searching { best, .. } => {
                self.conclude(best, now);
                return None;
            }
            Phase::Confirming { small_passes: true } => self.fall_into_black_hole(),
            // Nothing passes at all: it is not the size.
            Phase::Confirming { .. } => {
                self.settle(now);
                return None;
            }
        }
        self.attempts += 1;
        self.round = self.round.wrapping_add(1);
        self.due = Some(now + PROBE_TIMER);
        Some(match self.phase {
            Phase::Searching { best, refused } => Volley::new(
                self.round,
                self.sizes().filter(|it| (best + 1..refused).contains(it)),
            ),
            Phase::Confirming { .. } => {
                let smallest = (self.attempts > 1).then_some(KNOCK_BYTES);
                Volley::new(self.round, self.proven.into_iter().chain(smallest))
            }
            _ => Volley::new(self.round, [KNOCK_BYTES]),
        })
    }

    /// Takes that a probe did not leave the host, for its size.
    pub(crate) fn handle_refused(&mut self, size: u16, now: Duration) {
        match &mut self.phase {
            Phase::Searching { refused, best } => {
                *refused = size.min(*refused);
                let best = *best;
                self.conclude_if_all_known(best, now);
            }
            Phase::Confirming { .. } => {
                self.fall_into_black_hole();
                self.due = Some(now);
            }
            _ => {}
        }
    }

    /// Takes that no probe can leave now: there is no session. What was asked for is asked again
    /// when packets flow.
    pub(crate) fn handle_no_session(&mut self, now: Duration) {
        match (self.phase, self.proven) {
            (_, Some(_)) => self.settle(now),
            _ => self.begin_anew(),
        }
    }

    /// Takes the peer's answer to a probe.
    pub(crate) fn handle_answer(&mut self, id: u32, size: u16, now: Duration) {
        let is_awaited =
            id.wrapping_sub(self.first_round) <= self.round.wrapping_sub(self.first_round);
        if !is_awaited || self.attempts == 0 {
            return;
        }
        let is_candidate = self.sizes().any(|it| it == size);
        match &mut self.phase {
            Phase::Knocking => {
                self.has_answered = true;
                self.begin_search();
                self.due = Some(now);
            }
            Phase::Searching { best, .. } if size > *best && is_candidate => {
                *best = size;
                self.limit = self.limit.max(size);
                self.conclude_if_all_known(size, now);
            }
            Phase::Confirming { .. } if Some(size) == self.proven => self.settle(now),
            Phase::Confirming { small_passes } if size == KNOCK_BYTES => *small_passes = true,
            _ => {}
        }
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.wakes_above = usize::MAX;
        self.expect_answers_from_now();
    }

    /// Looks for what is larger than what is proven, if anything is.
    fn begin_search(&mut self) {
        self.begin(Phase::Searching {
            best: self.proven.unwrap_or(0),
            refused: u16::MAX,
        });
    }

    fn fall_into_black_hole(&mut self) {
        self.black_holes = self.black_holes.saturating_add(1);
        self.proven = None;
        self.limit = BASE_BYTES.min(self.limit);
        self.is_certain = false;
        self.begin_search();
    }

    fn conclude_if_all_known(&mut self, best: u16, now: Duration) {
        let Phase::Searching { refused, .. } = self.phase else {
            return;
        };
        if !self.sizes().any(|it| (best + 1..refused).contains(&it)) {
            self.conclude(best, now);
        }
    }

    fn conclude(&mut self, best: u16, now: Duration) {
        if best == 0 {
            return self.rest(true, now);
        }
        self.proven = Some(best);
        self.limit = best;
        self.raise_at = now + PMTU_RAISE_TIMER;
        self.settle(now);
    }

    /// Sleeps until a packet comes that is worth to be watched.
    fn settle(&mut self, now: Duration) {
        self.phase = Phase::Settled;
        self.is_certain = true;
        self.confirmed_at = now;
        self.due = None;
        self.wakes_above = SMALL_BYTES;
    }

    fn rest(&mut self, is_narrow: bool, now: Duration) {
        self.phase = Phase::Resting { is_narrow };
        self.limit = self.assumed;
        self.is_certain = true;
        self.wakes_above = usize::MAX;
        self.due = Some(now + PMTU_RAISE_TIMER);
    }

    fn may_be_larger(&self) -> bool {
        let proven = self.proven.unwrap_or(0);
        self.sizes().any(|it| it > proven)
    }

    fn sizes(&self) -> impl Iterator<Item = u16> + use<> {
        candidates(self.interface, self.overhead)
    }
}

#[cfg(test)]
mod tests;

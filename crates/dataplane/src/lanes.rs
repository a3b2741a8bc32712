//! Lanes: further sessions with a peer, each in another shard, so that two hosts can use several
//! cores for what they have to say to each other. See `docs/decisions/lanes-spread-a-pair-of-hosts.md`.
//!
//! ```text
//! the peer's home shard                       the shard of lane k: home + k, modulo their number
//!
//! greets, and is greeted: n lanes at most
//! much traffic ────────────── Begin ──────────> handshake with the peer's shard of lane k
//! Ended ──> Begun                                  │
//!             │ <──────────── Ready ───────────── session
//!           Open ──────────── Open, flows ──────> open: packets of these flows are handled here
//!             │ <──────────── Closed, flows ───── no session any more, or not worth one
//!           Begun
//! ```
//!
//! The home shard alone says which lanes are open; what it says is numbered, so that an answer to
//! what it said before is not taken for one to what it says now. Messages between two shards keep
//! their order, and one that finds no room is said again.

use std::time::Duration;

use model::address::HostAddresses;
use model::key::{Secret, WireguardKey};
use model::map::PeerIndex;
use model::time::Instant;
use wireguard::{DataCipher, Timestamp};

use crate::bequest::PeerBequest;
use crate::claims::GivenClaims;
use crate::event::PeerReport;
use crate::flows::Flow;
use crate::outbox::Path;
use crate::path_mtu::{PathMtu, PathMtuReport};
use crate::shard::Introduction;

/// Bits of a mark. With the number of the lane above them they fit where a timestamp has room.
pub(crate) const MARK_BITS: u32 = 18;
/// How long the answer to a greeting is waited for.
pub(crate) const GREETED_WITHIN: Duration = Duration::from_secs(2);
/// When what found no room in another shard's queue is said again.
pub(crate) const SAID_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A session is renewed by time after 120 s (WireGuard whitepaper 6.2); what asks for a handshake
/// earlier has not heard of the peer.
const RENEWAL_AGE: Duration = Duration::from_secs(110);
/// From one look at the traffic to the next.
const WINDOW: Duration = Duration::from_secs(1);
/// Looks at traffic, one after the other, that must find it worth lanes for the patient end.
const PATIENCE: u8 = 4;

/// What initiations of lanes must bear that a host answers: random, told inside the tunnel, and
/// another one after every restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark(pub(crate) u32);

impl Mark {
    pub(crate) const fn of_random(random: u32) -> Self {
        Self(random & ((1 << MARK_BITS) - 1))
    }

    /// Puts it, and the lane, into the date of an initiation.
    pub(crate) const fn date(self, lane: u16, date: Timestamp) -> Timestamp {
        date.with_mark((lane as u32) << MARK_BITS | self.0)
    }
}

/// Returns the lane that an initiation of a mesh daemon is for, 0 for the main session, and its mark.
pub(crate) const fn lane_of_date(date: &Timestamp) -> (u16, Mark) {
    let mark = date.mark();
    ((mark >> MARK_BITS) as u16, Mark::of_random(mark))
}

/// What one end of a lane is told by the other of this host's two shards that have to do with it.
#[derive(Debug)]
pub struct LaneMessage {
    pub(crate) peer: PeerIndex,
    /// Says which host it is about, should the index be another's meanwhile.
    pub(crate) addresses: HostAddresses,
    pub(crate) lane: u16,
    pub(crate) word: Word,
}

/// Flows that go to another shard, with what is known of who sends them.
#[derive(Debug, Default)]
pub(crate) struct GivenFlows {
    pub(crate) flows: Vec<Flow>,
    pub(crate) claims: GivenClaims,
}

impl GivenFlows {
    pub(crate) fn is_empty(&self) -> bool {
        self.flows.is_empty() && self.claims.is_empty()
    }
}

/// What is said.
#[derive(Debug)]
pub(crate) enum Word {
    /// Home to the lane: agree on a session with the peer, or answer the peer, which wants to.
    Begin(Box<Begin>),
    /// Home to the lane: these flows are yours.
    Open {
        epoch: u32,
        count: u16,
        flows: GivenFlows,
    },
    /// Home to the lane: no more of it.
    End,
    /// Home to the lane: the peer is there now.
    Path(Path),
    /// Home to every shard: which lanes are open, and when the one of that shard was last opened.
    Standing { view: View, epoch: u32 },
    /// The lane to home: there is a session.
    Ready { mark: Mark },
    /// The lane to home: these flows are yours again.
    Closed { epoch: u32, flows: GivenFlows },
    /// The lane to home: there is nothing left of it.
    Gone,
    /// The lane to home: the peer was heard from there.
    Moved(Path),
}

/// What the shard of a lane needs to know of the peer.
#[derive(Debug)]
pub(crate) struct Begin {
    pub(crate) preshared: Option<Secret>,
    pub(crate) cipher: DataCipher,
    pub(crate) path: Option<Path>,
    pub(crate) path_mtu: PathMtu,
    /// What the peer wants initiations to bear.
    pub(crate) mark: Mark,
    /// An initiation of the peer, for this lane.
    pub(crate) introduction: Option<Introduction>,
}

/// Which lanes to a peer are open, as a shard knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Lanes that flows are spread over.
    pub(crate) count: u16,
    /// Bit k for lane k; never bit 0, the main session.
    pub(crate) open: u64,
}

impl Default for View {
    fn default() -> Self {
        Self { count: 1, open: 0 }
    }
}

impl View {
    pub(crate) const fn is_open(self, lane: u16) -> bool {
        self.open & 1 << lane != 0
    }

    pub(crate) fn set_open(&mut self, lane: u16, is_open: bool) {
        match is_open {
            true => self.open |= 1 << lane,
            false => self.open &= !(1 << lane),
        }
    }
}

/// How the home shard knows a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody wants it.
    #[default]
    Ended,
    /// Its shard agrees on a session, or has one.
    Begun,
    /// Its shard has a session, and is still to be given its flows.
    Ready,
    /// Its shard is still to be told that it has ended.
    Ending,
}

/// One lane, at home.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lane {
    pub(crate) stage: Stage,
    /// How often it was opened.
    pub(crate) epoch: u32,
}

/// What a peer's home shard knows of the lanes to it.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// What the peer is told that its initiations must bear.
    pub(crate) own_mark: Mark,
    /// What it has told.
    pub(crate) peer_mark: Option<Mark>,
    pub(crate) view: View,
    /// By number; empty until the first is wanted.
    pub(crate) all: Vec<Lane>,
    /// Shards that were not told of the view, by bit.
    pub(crate) untold: u64,
    /// A greeting waits for its answer since.
    pub(crate) asked_at: Option<Duration>,
    pub(crate) greetings: u8,
    pub(crate) say_again_at: Option<Duration>,
    /// The peer's path is another one, and its lanes are to hear of it.
    pub(crate) has_moved: bool,
    traffic: Traffic,
}

impl Lanes {
    /// Greetings of one session that a peer may leave unanswered.
    pub(crate) const GREETINGS_MAX: u8 = 3;

    pub(crate) fn new(own_mark: Mark) -> Self {
        Self {
            own_mark,
            peer_mark: None,
            view: View::default(),
            all: Vec::new(),
            untold: 0,
            asked_at: None,
            greetings: 0,
            say_again_at: None,
            has_moved: false,
            traffic: Traffic::default(),
        }
    }

    pub(crate) fn lane_mut(&mut self, lane: u16) -> &mut Lane {
        let place = usize::from(lane);
        if place >= self.all.len() {
            self.all.resize(place + 1, Lane::default());
        }
        &mut self.all[place]
    }

    pub(crate) fn stage(&self, lane: u16) -> Stage {
        self.all
            .get(usize::from(lane))
            .map_or(Stage::Ended, |lane| lane.stage)
    }

    /// Returns the lanes that are at this stage.
    pub(crate) fn in_stage(&self, stage: Stage) -> impl Iterator<Item = u16> {
        let lanes = (0..).zip(&self.all);
        let found = lanes.filter(move |(_, lane)| lane.stage == stage);
        found.map(|(number, _)| number)
    }

    /// Returns whether the shard of a lane is still to be told that it opens or has ended.
    pub(crate) fn has_unsaid(&self) -> bool {
        let is_unsaid = |lane: &Lane| matches!(lane.stage, Stage::Ready | Stage::Ending);
        self.all.iter().any(is_unsaid)
    }

    /// Opens a lane for flows, or closes it; every shard is to hear of it.
    pub(crate) fn set_open(&mut self, lane: u16, is_open: bool) {
        self.view.set_open(lane, is_open);
        self.untold = u64::MAX;
    }

    /// Ends all of them; their shards are to hear of it.
    pub(crate) fn end_all(&mut self) {
        for lane in &mut self.all {
            if matches!(lane.stage, Stage::Begun | Stage::Ready) {
                lane.stage = Stage::Ending;
            }
        }
        if self.view.open != 0 {
            self.view.open = 0;
            self.untold = u64::MAX;
        }
    }

    /// Returns when something is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let asked = self.asked_at.map(|at| at + GREETED_WITHIN);
        [asked, self.say_again_at].into_iter().flatten().min()
    }

    /// Returns whether it is for this end to begin lanes, since the peer's main session carries more
    /// than that many bytes a second; `bytes` are all that it ever did. One end is patient, so that
    /// the two do not begin the same lane.
    pub(crate) fn is_wanted(&mut self, bytes: u64, bytes_per_sec: u64, now: Instant) -> bool {
        let Some(peer_mark) = self.peer_mark else {
            return false;
        };
        let windows = if self.own_mark.0 < peer_mark.0 {
            1
        } else {
            PATIENCE
        };
        self.traffic.busy_windows(bytes, bytes_per_sec, now) >= windows
    }
}

/// How much passes.
#[derive(Debug, Default)]
struct Traffic {
    since: Option<Instant>,
    bytes: u64,
    busy_windows: u8,
}

impl Traffic {
    /// Returns how many windows in a row were busy.
    fn busy_windows(&mut self, bytes: u64, bytes_per_sec: u64, now: Instant) -> u8 {
        let passed = self.since.map(|since| now.saturating_since(since));
        if let Some(passed) = passed {
            if passed < WINDOW {
                return self.busy_windows;
            }
            let limit = u128::from(bytes_per_sec) * passed.as_millis() / 1000;
            let is_busy = u128::from(bytes.saturating_sub(self.bytes)) >= limit;
            self.busy_windows = if is_busy {
                self.busy_windows.saturating_add(1)
            } else {
                0
            };
        }
        (self.since, self.bytes) = (Some(now), bytes);
        self.busy_windows
    }
}

/// What the shard of a lane knows of it: the peer there has its session and its timers as any other.
#[derive(Debug)]
pub(crate) struct LaneEnd {
    pub(crate) number: u16,
    /// What the peer wants initiations to bear.
    pub(crate) mark: Mark,
    pub(crate) is_open: bool,
    /// Nothing is begun any more; what comes is opened as long as there is a session.
    pub(crate) is_ended: bool,
    /// The home shard wants a session, whatever the one before was worth.
    pub(crate) is_wanted: bool,
    /// It was begun anew while its flows waited to go home, where they are thought to be.
    pub(crate) is_closing: bool,
    /// The home shard is to hear of the session.
    pub(crate) is_ready: bool,
    /// How often it was opened.
    pub(crate) epoch: u32,
    /// Bytes when the session began: one that carried little is not renewed.
    pub(crate) bytes_before: u64,
    /// The peer is somewhere else, and the home shard is to hear of it.
    pub(crate) has_moved: bool,
}

impl LaneEnd {
    pub(crate) const fn new(number: u16, mark: Mark) -> Self {
        Self {
            number,
            mark,
            is_open: false,
            is_ended: false,
            is_wanted: true,
            is_closing: false,
            is_ready: false,
            epoch: 0,
            bytes_before: 0,
            has_moved: false,
        }
    }
}

/// What a lane does when its session asks for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// It was due: the lane goes on.
    Due,
    /// The peer does not answer here, and the main session knows why: flows go home meanwhile.
    Unanswered,
    /// The lane carried too little: it ends.
    NotWorth,
}

impl Renewal {
    /// Judges by the session's age, whether it has sealed as many packets as it may, and whether it
    /// carried enough.
    pub(crate) fn of(age: Duration, is_worn: bool, is_worth_it: bool) -> Self {
        // Sooner than by time, and not by count either.
        if age < RENEWAL_AGE && !is_worn {
            Self::Unanswered
        } else if is_worth_it {
            Self::Due
        } else {
            Self::NotWorth
        }
    }
}

/// What is remembered of a lane that is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Past {
    pub(crate) number: u16,
    pub(crate) path_mtu: PathMtuReport,
    /// The date of the peer's last initiation: older ones are replays.
    pub(crate) last_initiation: Option<Timestamp>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

impl Past {
    /// Its bytes are left to a successor too, and flows that found no room at home.
    pub(crate) const fn bequeath(
        &self,
        key: WireguardKey,
        addresses: HostAddresses,
    ) -> PeerBequest {
        PeerBequest {
            key,
            addresses,
            path: None,
            wants_session: false,
            last_initiation: None,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            flows: Vec::new(),
        }
    }

    /// Its bytes belong to what the peer sent and got.
    pub(crate) fn report(&self, peer: PeerIndex) -> PeerReport {
        PeerReport {
            peer,
            lane: self.number,
            path: None,
            path_mtu: self.path_mtu,
            cipher: None,
            last_handshake: None,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_says_its_lane_and_mark_and_main_sessions_have_none() {
        let date = Timestamp::from_unix(Duration::from_millis(1_900_000_000_123));
        assert_eq!(lane_of_date(&date), (0, Mark(0)));
        for lane in [1, 2, 63] {
            for mark in [0, 1, (1 << MARK_BITS) - 1].map(Mark) {
                assert_eq!(lane_of_date(&mark.date(lane, date)), (lane, mark));
            }
        }
    }

    #[test]
    fn busy_is_who_passes_the_limit_for_a_whole_window() {
        let mut traffic = Traffic::default();
        let mut at = |millis, bytes| {
            let now = Instant::START + Duration::from_millis(millis);
            traffic.busy_windows(bytes, 1000, now)
        };
        assert_eq!(at(0, 1_000_000), 0, "no window yet");
        assert_eq!(at(999, 1_900_000), 0);
        assert_eq!(at(2000, 1_002_000), 1);
        assert_eq!(at(2999, 1_002_000), 1, "until the next look");
        assert_eq!(at(3000, 1_003_000), 2);
        assert_eq!(at(4000, 1_003_999), 0);
        // A burst after a long rest is no lasting traffic.
        assert_eq!(at(44_000, 1_043_998), 0);
        assert_eq!(at(84_000, 1_083_998), 1);
    }

    #[test]
    fn a_session_that_asks_early_is_unanswered_unless_it_is_worn() {
        let (early, late) = (Duration::from_secs(20), Duration::from_secs(120));
        assert_eq!(Renewal::of(early, false, true), Renewal::Unanswered);
        assert_eq!(Renewal::of(early, false, false), Renewal::Unanswered);
        assert_eq!(Renewal::of(early, true, true), Renewal::Due);
        assert_eq!(Renewal::of(late, false, true), Renewal::Due);
        assert_eq!(Renewal::of(late, false, false), Renewal::NotWorth);
    }

    #[test]
    fn one_end_is_patient() {
        let ends = [(1, 2), (2, 1)].map(|(own, peer)| {
            let mut lanes = Lanes::new(Mark(own));
            lanes.peer_mark = Some(Mark(peer));
            let at = |second| Instant::START + Duration::from_secs(second);
            (0..10).position(|second| lanes.is_wanted(second * 1000, 1000, at(second)))
        });
        assert_eq!(ends, [Some(1), Some(4)]);
    }
}

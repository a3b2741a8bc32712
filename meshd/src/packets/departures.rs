//! Who may send while the programs of this host send more than this thread can take. The TUN device's
//! ring is one queue for all destinations: once it is full, whoever sends most has most of it. So when
//! the kernel drops much there, this looks at which peer's packets cost how much, and lets those above a
//! fair share go before anything is sealed, which makes room in the ring for the others
//! ([decision](docs/decisions/peers-have-fair-shares.md)).
//!
//! ```text
//! Open ── much is dropped ──> Watching ── still ──> Sharing ── calm for a second ──> Open
//! ```

use std::time::Duration;

use model::time::Instant;

use super::floods::{
    CALM_LOOKS, DROPS_MIN, EMPTIED_OFTEN, LOOK_INTERVAL, LOOK_INTERVAL_MAX, PART_MIN,
    REMEMBERED_PART, is_flood,
};
use super::shares::{fair_level, part};

#[cfg(test)]
mod tests;

/// The room is not thought less than this part of what left when the flood began: reading costs more
/// than there is, and whoever sends little has no gain from fewer that leave.
const ROOM_PART_MIN: f64 = 0.25;
/// A ring overflows when full bursts are this many times as frequent as those that empty it. The kernel
/// counts for the device, whose other queues have rings and threads of their own.
const FULL_TIMES: u32 = 4;
/// What a packet costs beside its bytes, as that many bytes.
const PACKET_COST: f64 = 1024.0;
/// Destinations that are told apart: the overlay numbers its hosts from the lowest address on, in both
/// families alike, so that the low bits of an address are its host's, and share an account only with
/// hosts of a larger fleet.
const ACCOUNTS: usize = 1024;

/// What the packets of one queue of the TUN device may cost, by destination.
#[derive(Debug)]
pub(super) struct Departures {
    state: State,
    looked_at: Instant,
    tally: Tally,
    /// What the kernel had dropped when it was asked last.
    dropped: Option<u64>,
    /// Made at the first flood.
    accounts: Option<Box<Accounts>>,
    dice: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// All may leave, and nobody is looked at.
    Open,
    /// Much was dropped: it is asked whose.
    Watching,
    /// Much was dropped, and leaves by shares while that lasts.
    Sharing { room: Room, calm_looks: u32 },
}

/// What this thread can take in a second.
#[derive(Clone, Copy, Debug)]
struct Room {
    is: f64,
    at_least: f64,
}

/// What was read since the last look.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    packets: u64,
    /// Bursts that ended because they were full; the ring does not overflow without one.
    full: u32,
    /// Bursts after which nothing waited.
    emptied: u32,
}

#[derive(Debug)]
struct Accounts {
    /// What was asked for since the last look.
    asked: [f64; ACCOUNTS],
    /// What of it left.
    left: f64,
    /// In a second.
    claims: [f64; ACCOUNTS],
    /// The highest throw of the dice that lets a packet leave.
    passes: [u32; ACCOUNTS],
}

impl Departures {
    /// Lets everything leave.
    pub(super) fn new() -> Self {
        Self {
            state: State::Open,
            looked_at: Instant::START,
            tally: Tally::default(),
            dropped: None,
            accounts: None,
            // Any but 0.
            dice: 0x9e37_79b9,
        }
    }

    /// Takes a packet of this host, and returns whether it may leave.
    #[inline]
    pub(super) fn admits(&mut self, packet: &[u8]) -> bool {
        match self.state {
            State::Open => true,
            _ => self.charge(packet),
        }
    }

    fn charge(&mut self, packet: &[u8]) -> bool {
        let (Some(account), Some(accounts)) = (account_of(packet), &mut self.accounts) else {
            return true;
        };
        let cost = packet.len() as f64 + PACKET_COST;
        accounts.asked[account] += cost;
        let may_leave = throw(&mut self.dice) <= accounts.passes[account];
        if may_leave {
            accounts.left += cost;
        }
        may_leave
    }

    /// Takes how many packets one burst has read, and whether more may wait.
    pub(super) fn handle_burst(&mut self, packets: usize, is_full: bool) {
        self.tally.packets += packets as u64;
        self.tally.full += u32::from(is_full);
        self.tally.emptied += u32::from(!is_full);
    }

    /// Returns when to look again even if nothing is sent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!matches!(self.state, State::Open)).then(|| self.looked_at + LOOK_INTERVAL)
    }

    /// Looks at how things are, when it is time. `dropped`: what the kernel has dropped in front of the
    /// device since it was made; it is asked for only while bursts are full.
    pub(super) fn look_when_due(&mut self, now: Instant, dropped: impl FnOnce() -> Option<u64>) {
        let elapsed = now.saturating_since(self.looked_at);
        if elapsed < LOOK_INTERVAL {
            return;
        }
        self.looked_at = now;
        let tally = std::mem::take(&mut self.tally);
        let before = self.dropped.take();
        if tally.full > 0 {
            self.dropped = dropped();
        }
        let since = self.dropped.zip(before);
        let dropped = since.map_or(0, |(now, before)| now.saturating_sub(before));
        let is_flooded = elapsed <= LOOK_INTERVAL_MAX && tally.is_flooded(dropped);
        self.state = match self.state {
            State::Open if is_flooded => {
                let new = || Box::new(Accounts::new());
                self.accounts.get_or_insert_with(new).begin();
                State::Watching
            }
            State::Open => State::Open,
            State::Watching if is_flooded => self.share(None, elapsed, tally, dropped),
            State::Watching => State::Open,
            State::Sharing { room, calm_looks } => {
                self.share(Some((room, calm_looks)), elapsed, tally, dropped)
            }
        };
    }

    /// Gives everybody their share from now on, of what they have asked for. `before`: the room and the
    /// looks without too much so far, where there are shares already.
    fn share(
        &mut self,
        before: Option<(Room, u32)>,
        elapsed: Duration,
        tally: Tally,
        dropped: u64,
    ) -> State {
        let Some(accounts) = &mut self.accounts else {
            return State::Open;
        };
        let secs = elapsed.as_secs_f64();
        let (room, calm_looks) = match before {
            Some((room, calm_looks)) => (room.times(tally.room_is(dropped)), calm_looks),
            None => (Room::of_all(accounts.left / secs), 0),
        };
        // What was read stands for what found no room, too.
        let factor = 1.0 + dropped as f64 / tally.packets.max(1) as f64;
        let cuts = accounts.share(room.is, factor / secs);
        let calm_looks = if cuts { 0 } else { calm_looks + 1 };
        match calm_looks < CALM_LOOKS {
            true => State::Sharing { room, calm_looks },
            false => State::Open,
        }
    }
}

impl Room {
    fn of_all(left: f64) -> Self {
        Self {
            is: left,
            at_least: left * ROOM_PART_MIN,
        }
    }

    fn times(self, factor: f64) -> Self {
        Self {
            is: (self.is * factor).max(self.at_least),
            ..self
        }
    }
}

impl Tally {
    fn is_flooded(self, dropped: u64) -> bool {
        self.overflows(dropped) && is_flood(dropped, self.packets)
    }

    /// Whether it is this queue's ring that had no room.
    fn overflows(self, dropped: u64) -> bool {
        dropped >= DROPS_MIN && self.emptied * FULL_TIMES <= self.full
    }

    /// How the room turned out: much less than thought when the ring overflowed, less when something
    /// always waited, more when often nothing did, or nothing was sent at all.
    fn room_is(self, dropped: u64) -> f64 {
        match self.emptied {
            _ if self.overflows(dropped) => 0.75,
            0 if self.packets > 0 => 0.95,
            emptied if emptied >= EMPTIED_OFTEN || self.packets == 0 => 1.05,
            _ => 1.0,
        }
    }
}

impl Accounts {
    fn new() -> Self {
        Self {
            asked: [0.0; ACCOUNTS],
            left: 0.0,
            claims: [0.0; ACCOUNTS],
            passes: [u32::MAX; ACCOUNTS],
        }
    }

    /// Begins to watch: nothing is known of anybody.
    fn begin(&mut self) {
        *self = Self::new();
    }

    /// Shares the room by what was asked for; `rate` makes of that what is asked for in a second.
    /// Returns whether anybody has less than that. Who asks for less than before asks for it only after a
    /// while.
    fn share(&mut self, room: f64, rate: f64) -> bool {
        for (claim, asked) in self.claims.iter_mut().zip(&mut self.asked) {
            *claim = (std::mem::take(asked) * rate).max(*claim * REMEMBERED_PART);
        }
        self.left = 0.0;
        let claims = self.claims.iter().copied().filter(|claim| *claim > 0.0);
        let level = fair_level(claims, room);
        for (passes, claim) in self.passes.iter_mut().zip(&self.claims) {
            let part = part(*claim, level).max(PART_MIN);
            // Rounds to at most the largest number.
            *passes = (part * f64::from(u32::MAX)) as u32;
        }
        level.is_some()
    }
}

/// Returns the account of the host that a packet is to; `None`: it is no IP packet.
fn account_of(packet: &[u8]) -> Option<usize> {
    let low_bits = match packet.first()? >> 4 {
        4 => packet.get(18..20)?,
        6 => packet.get(38..40)?,
        _ => return None,
    };
    Some(usize::from(u16::from_be_bytes(low_bits.try_into().ok()?)) % ACCOUNTS)
}

/// Marsaglia's xorshift of 32 bits ("Xorshift RNGs", 2003): nobody gains by foretelling it.
fn throw(dice: &mut u32) -> u32 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 17;
    *dice ^= *dice << 5;
    *dice
}

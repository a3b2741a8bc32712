//! A ring, programs that fill it and a thread that empties it, in told time.

use std::collections::VecDeque;

use super::*;

/// As the TUN device's.
const RING: usize = 500;
/// As `packet_loop` reads.
const BURST: usize = 64;
/// In each millisecond.
const TURNS: usize = 25;
/// What a packet costs this thread that leaves, and one that does not, in microseconds.
const SEALED_US: u64 = 6;
const LET_GO_US: u64 = 1;

fn packet(to: u8) -> Vec<u8> {
    let mut packet = vec![0; 128];
    packet[0] = 0x45;
    packet[16..20].copy_from_slice(&[100, 64, 0, to]);
    packet
}

/// Programs that each send so many packets in a millisecond to one destination.
struct World {
    departures: Departures,
    ring: VecDeque<u8>,
    dropped: u64,
    /// In a millisecond, by other queues of the device.
    elsewhere: u64,
    sent: [u64; 4],
    left: [u64; 4],
    now: Duration,
    asked: u32,
    /// In which order programs have their turn.
    order: u32,
}

impl World {
    fn new() -> Self {
        Self {
            departures: Departures::new(),
            ring: VecDeque::new(),
            dropped: 0,
            elsewhere: 0,
            sent: [0; 4],
            left: [0; 4],
            now: Duration::from_secs(1),
            asked: 0,
            order: 1,
        }
    }

    /// Programs send this to the destinations 0 to 3 in each millisecond.
    fn run(&mut self, millis: u64, rates: [usize; 4]) {
        for _ in 0..millis {
            // In turns, as on several cores.
            let mut spent = 0;
            for turn in 1..=TURNS {
                let part = |rate: usize| rate * turn / TURNS - rate * (turn - 1) / TURNS;
                let all = rates.map(part);
                let mut all: Vec<usize> = (0..4)
                    .flat_map(|to| std::iter::repeat_n(to, all[to]))
                    .collect();
                for at in (1..all.len()).rev() {
                    all.swap(at, throw(&mut self.order) as usize % (at + 1));
                }
                for to in all {
                    self.send(to);
                }
                let until = (1000 * turn / TURNS) as u64;
                while spent < until && !self.read(&mut spent, until) {}
                // Nobody saves time for later.
                spent = spent.max(until);
            }
            self.now += Duration::from_millis(1);
            self.dropped += self.elsewhere;
            let (dropped, asked) = (self.dropped, &mut self.asked);
            let now = Instant::from_start(self.now);
            self.departures.look_when_due(now, || {
                *asked += 1;
                Some(dropped)
            });
        }
    }

    fn send(&mut self, to: usize) {
        self.sent[to] += 1;
        match self.ring.len() < RING {
            true => self.ring.push_back(to as u8),
            false => self.dropped += 1,
        }
    }

    /// Reads a burst, if there is time left for it. Returns whether nothing waits.
    fn read(&mut self, spent: &mut u64, until: u64) -> bool {
        let mut packets = 0;
        while packets < BURST && *spent < until {
            let Some(to) = self.ring.pop_front() else {
                self.departures.handle_burst(packets, false);
                return true;
            };
            packets += 1;
            let may_leave = self.departures.admits(&packet(to));
            *spent += if may_leave { SEALED_US } else { LET_GO_US };
            self.left[usize::from(to)] += u64::from(may_leave);
        }
        self.departures.handle_burst(packets, true);
        false
    }

    /// Forgets what was sent until now, and returns which part of it left.
    fn parts(&mut self) -> [f64; 4] {
        let sent = std::mem::take(&mut self.sent);
        let left = std::mem::take(&mut self.left);
        std::array::from_fn(|to| left[to] as f64 / sent[to].max(1) as f64)
    }
}

#[test]
fn a_flood_to_one_peer_leaves_room_for_what_goes_to_others() {
    let mut world = World::new();
    world.run(100, [700, 2, 0, 0]);
    let [flood, other, ..] = world.parts();
    assert!(other < 0.5, "without shares {other}, of the flood {flood}");
    world.run(400, [700, 2, 0, 0]);
    world.parts();
    world.run(500, [700, 2, 0, 0]);
    let [flood, other, ..] = world.parts();
    assert!(other > 0.9, "{other}");
    // Of some 166 packets that could leave in a millisecond when nothing else is to be done.
    assert!((0.03..0.3).contains(&flood), "{flood}");
}

#[test]
fn a_flood_that_is_more_than_can_be_read_does_no_more_harm_than_without_shares() {
    let mut world = World::new();
    world.run(100, [1500, 2, 0, 0]);
    let [_, without, ..] = world.parts();
    world.run(2000, [1500, 2, 0, 0]);
    world.parts();
    world.run(500, [1500, 2, 0, 0]);
    let [_, other, ..] = world.parts();
    assert!(other > 2.0 * without, "{other} instead of {without}");
}

#[test]
fn a_flood_on_another_queue_of_the_device_changes_nothing_here() {
    let mut world = World::new();
    world.elsewhere = 100;
    world.run(2000, [130, 2, 0, 0]);
    assert_eq!(world.parts()[..2], [1.0, 1.0]);
}

#[test]
fn two_that_send_too_much_have_as_much_as_each_other() {
    let mut world = World::new();
    world.run(1500, [500, 250, 5, 0]);
    world.parts();
    world.run(1000, [500, 250, 5, 0]);
    let (_, left) = (world.sent, world.left);
    let ratio = left[0] as f64 / left[1] as f64;
    assert!((0.7..1.4).contains(&ratio), "{left:?}");
    let [.., other, _] = world.parts();
    assert!(other > 0.9, "{other}");
}

#[test]
fn all_is_as_before_a_while_after_a_flood() {
    let mut world = World::new();
    world.run(1000, [700, 2, 0, 0]);
    assert!(matches!(world.departures.state, State::Sharing { .. }));
    world.run(5000, [40, 2, 0, 0]);
    assert!(matches!(world.departures.state, State::Open));
    assert_eq!(world.departures.deadline(), None);
    world.parts();
    world.run(100, [40, 2, 0, 0]);
    assert_eq!(world.parts()[..2], [1.0, 1.0]);
}

#[test]
fn what_fits_is_never_looked_at() {
    let mut world = World::new();
    world.run(500, [40, 20, 20, 20]);
    assert_eq!(world.parts(), [1.0; 4]);
    assert_eq!(
        world.asked, 0,
        "the kernel is asked only when bursts are full"
    );
    assert!(world.departures.accounts.is_none());
}

#[test]
fn losses_that_senders_heed_change_nothing() {
    let mut departures = Departures::new();
    let mut dropped = 0;
    for look in 1..100 {
        departures.handle_burst(1000, true);
        dropped += 40;
        let now = Instant::from_start(LOOK_INTERVAL * look);
        departures.look_when_due(now, || Some(dropped));
        assert!(matches!(departures.state, State::Open));
    }
}

#[test]
fn a_device_that_is_made_anew_counts_from_nothing() {
    let mut departures = Departures::new();
    for (look, dropped) in [(1, Some(1_000_000)), (2, Some(3)), (3, None), (4, Some(9))] {
        departures.handle_burst(100, true);
        let now = Instant::from_start(LOOK_INTERVAL * look);
        departures.look_when_due(now, || dropped);
        assert!(matches!(departures.state, State::Open));
    }
}

#[test]
fn both_addresses_of_a_host_are_one_account() {
    let mut v6 = vec![0u8; 60];
    v6[0] = 0x60;
    v6[39] = 7;
    assert_eq!(account_of(&packet(7)), Some(7));
    assert_eq!(account_of(&v6), Some(7));
    for broken in [&[][..], &[0x45; 10], &[0x60; 39], &[0x10; 60]] {
        assert_eq!(account_of(broken), None);
    }
}

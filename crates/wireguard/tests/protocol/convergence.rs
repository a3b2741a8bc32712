//! Two tunnels over a bad network and through restarts: once the network is good, both ends hear
//! each other within bounded time, and no packet is ever delivered twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use wireguard::Action;
use wireguard::timers::{NO_REPLY_TIMEOUT, REKEY_TIMEOUT};

use crate::host::{Dice, Host};

const START: Duration = Duration::from_secs(1_000);
/// Silence is noticed, an initiation is due, and two jitters and round trips pass.
const RECOVERY_MAX: Duration = NO_REPLY_TIMEOUT
    .saturating_add(REKEY_TIMEOUT)
    .saturating_add(Duration::from_secs(2));
const CALM_DELAY: Duration = Duration::from_millis(30);

/// What the network does to a datagram while it is bad.
#[derive(Clone, Debug)]
struct Weather {
    loss_percent: u64,
    duplicate_percent: u64,
    delay_max_millis: u64,
    restarts: u64,
}

enum Event {
    /// A datagram arrives at a host.
    Arrival(usize, Vec<u8>),
    /// A host has a packet to send.
    Packet(usize),
    /// A host forgets everything but its keys.
    Restart(usize),
}

struct World {
    hosts: [Host; 2],
    events: BTreeMap<(Duration, u64), Event>,
    order: u64,
    now: Duration,
    dice: Dice,
    sent_at: Vec<(usize, Duration)>,
    delivered: BTreeSet<u64>,
    initiations: [usize; 2],
    restarts: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            hosts: [Host::new(1, 2, START), Host::new(2, 1, START)],
            events: BTreeMap::new(),
            order: 0,
            now: START,
            dice: Dice(seed),
            sent_at: Vec::new(),
            delivered: BTreeSet::new(),
            initiations: [0; 2],
            restarts: 0,
        }
    }

    fn at(&mut self, when: Duration, event: Event) {
        self.order += 1;
        self.events.insert((when, self.order), event);
    }

    fn run_until(&mut self, end: Duration, weather: Option<&Weather>) {
        loop {
            let event_at = self.events.keys().next().map(|(at, _)| *at);
            let timeouts = self
                .hosts
                .iter()
                .filter_map(|host| host.tunnel.poll_timeout());
            let timeout_at = timeouts.map(|(at, _)| at).min();
            let Some(next) = [event_at, timeout_at].into_iter().flatten().min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if timeout_at == Some(next) {
                let now = self.now;
                self.hosts
                    .iter_mut()
                    .for_each(|host| host.handle_timeout(now));
            } else if let Some((_, event)) = self.events.pop_first() {
                self.handle(event);
            }
            self.carry(weather);
        }
        self.now = end;
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrival(to, datagram) => {
                let source = self.hosts[1 - to].address;
                self.hosts[to].receive_from(&datagram, source, now);
                for packet in std::mem::take(&mut self.hosts[to].inbox) {
                    let number = packet[..8].try_into().expect("packets carry their number");
                    let fresh = self.delivered.insert(u64::from_le_bytes(number));
                    assert!(fresh, "a packet was delivered twice");
                }
            }
            Event::Packet(from) => {
                let number = self.sent_at.len() as u64;
                self.sent_at.push((from, now));
                self.hosts[from].send(&number.to_le_bytes(), now);
            }
            Event::Restart(host) => {
                self.restarts += 1;
                self.initiations[host] += self.hosts[host].count(Action::SendInitiation);
                let (key, peer) = [(1, 2), (2, 1)][host];
                let mut fresh = Host::new(key, peer, now);
                fresh.reseed(self.dice.roll());
                self.hosts[host] = fresh;
            }
        }
    }

    /// Takes what the hosts have sent and lets the network have its way with it.
    fn carry(&mut self, weather: Option<&Weather>) {
        for from in 0..2 {
            while let Some(datagram) = self.hosts[from].sent() {
                let Some(weather) = weather else {
                    self.at(self.now + CALM_DELAY, Event::Arrival(1 - from, datagram));
                    continue;
                };
                let copies = 1 + u64::from(self.dice.below(100) < weather.duplicate_percent);
                for _ in 0..copies {
                    let delay = self.dice.below(weather.delay_max_millis + 1);
                    if self.dice.below(100) >= weather.loss_percent {
                        let arrival = Event::Arrival(1 - from, datagram.clone());
                        self.at(self.now + Duration::from_millis(delay), arrival);
                    }
                }
            }
        }
    }

    fn storm(&mut self, weather: &Weather, length: Duration) {
        let millis = length.as_millis() as u64;
        let bursts = 1 + self.dice.below(6);
        for _ in 0..bursts {
            let (start, from) = (self.dice.below(millis), self.dice.below(2) as usize);
            for _ in 0..self.dice.below(30) {
                let when = START + Duration::from_millis(start + self.dice.below(20_000));
                self.at(when, Event::Packet(from));
            }
        }
        for from in 0..2 {
            self.at(START, Event::Packet(from)); // both initiate at once
        }
        for _ in 0..weather.restarts {
            let when = START + Duration::from_millis(self.dice.below(millis));
            let host = self.dice.below(2) as usize;
            self.at(when, Event::Restart(host));
        }
        self.run_until(START + length, Some(weather));
    }

    /// Lets the speakers send a packet every second, and expects that all arrive but the first.
    fn calm(&mut self, speakers: &[usize], length: Duration) {
        let begin = self.now;
        for second in 0..length.as_secs() {
            for &from in speakers {
                self.at(begin + Duration::from_secs(second), Event::Packet(from));
            }
        }
        self.run_until(begin + length + CALM_DELAY * 10, None);
        for (number, (from, at)) in self.sent_at.iter().enumerate() {
            if *at >= begin + RECOVERY_MAX {
                let heard = self.delivered.contains(&(number as u64));
                assert!(
                    heard,
                    "packet of host {from}, {:?} into the calm, is lost",
                    *at - begin
                );
            }
        }
    }

    fn assert_few_initiations(&mut self) {
        let possible = (self.now - START).as_secs() / REKEY_TIMEOUT.as_secs() + 1;
        for (host, before) in self.hosts.iter().zip(self.initiations) {
            let sent = before + host.count(Action::SendInitiation);
            assert!(
                sent <= possible as usize + self.restarts,
                "{sent} initiations"
            );
        }
    }
}

fn weather() -> impl Strategy<Value = Weather> {
    let restarts = prop_oneof![2 => Just(0_u64), 1 => 1_u64..4];
    (0_u64..80, 0_u64..50, 1_u64..8_000, restarts).prop_map(
        |(loss_percent, duplicate_percent, delay_max_millis, restarts)| Weather {
            loss_percent,
            duplicate_percent,
            delay_max_millis,
            restarts,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn after_any_storm_both_ends_hear_each_other_again(
        seed in any::<u64>(),
        weather in weather(),
        storm_secs in 1_u64..500,
        speakers in prop_oneof![Just(vec![0]), Just(vec![1]), Just(vec![0, 1])],
    ) {
        let mut world = World::new(seed);
        world.storm(&weather, Duration::from_secs(storm_secs));
        world.calm(&speakers, Duration::from_secs(60));
        world.assert_few_initiations();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn hours_of_steady_traffic_lose_nothing(seed in any::<u64>()) {
        let mut world = World::new(seed);
        let mut when = START;
        while when < START + Duration::from_secs(7_200) {
            when += Duration::from_millis(world.dice.below(20_000));
            let from = world.dice.below(2) as usize;
            world.at(when, Event::Packet(from));
        }
        world.run_until(when + Duration::from_secs(10), None);
        prop_assert_eq!(world.delivered.len(), world.sent_at.len());
    }
}

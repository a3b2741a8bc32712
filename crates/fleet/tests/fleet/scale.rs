//! What one change costs a large fleet: processor time of the brain, bytes to those concerned and to
//! the others. Prints what it measures, and asserts only bytes: time depends on the machine.
//!
//! `cargo test --release -p fleet scale -- --ignored --nocapture`

#![allow(clippy::disallowed_methods)] // reads the processor time of its thread
#![allow(clippy::print_stdout)] // a measurement is for people to read

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{AdminRequest, SessionId};
use model::admin::CreateToken;
use model::control::{EndpointReport, FromHost, ToHost};
use model::map::{Endpoint, EndpointKind};
use model::wire::encode_to_host;

use crate::machine::Machine;
use crate::world::{World, apply, hour_token, labels, name};

const HOSTS: u16 = 10_000;

/// Each application has as many hosts, half of them behind the other half.
const HOSTS_PER_APPLICATION: u16 = 100;

/// How often small things are done: their time is that of all by their number.
const TIMES: u16 = 200;

struct Large {
    world: World,
    streams: BTreeMap<SessionId, u16>,
}

/// What hosts were sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    concerned: usize,
    bytes_to_concerned: usize,
    unconcerned: usize,
    bytes_to_unconcerned: usize,
}

fn application(host: u16) -> u16 {
    host / HOSTS_PER_APPLICATION
}

fn called(host: u16) -> String {
    format!("vm-{host}")
}

/// An allow for each application, one for all, and some denies.
fn policy(extra: &str) -> String {
    let mut text = "fleet: prod\nallow:\n".to_owned();
    for app in 0..HOSTS / HOSTS_PER_APPLICATION {
        text.push_str(&format!(
            "  - {{ id: app-{app}, from: \"app=a{app},tier=web\", to: \"app=a{app},tier=db\", tcp: [5432] }}\n"
        ));
    }
    text.push_str(extra);
    text.push_str("deny:\n  - { id: no-telnet, from: any, to: any, tcp: [23] }\n");
    text
}

impl Large {
    /// Makes a fleet where everybody is at a stream and up to date.
    fn new() -> Self {
        let mut large = Self {
            world: World::new(),
            streams: BTreeMap::new(),
        };
        large.world.apply_policy(&policy("")).unwrap();
        for host in 0..HOSTS {
            let machine = large.join(host);
            let session = large.world.open(&machine, &called(host));
            large.world.hello(session, None);
            large.world.taken(session);
            large.streams.insert(session, host);
        }
        large.world.advance(Duration::from_secs(1));
        large.world.sent.clear();
        large
    }

    fn join(&mut self, host: u16) -> Machine {
        let app = format!("a{}", application(host));
        let tier = if host.is_multiple_of(2) { "web" } else { "db" };
        let token = self.world.token_with(CreateToken {
            labels: labels(&[("app", &app), ("tier", tier)]),
            ..hour_token()
        });
        let machine = Machine::new(host);
        let request = machine.request(&self.world, &token, &called(host));
        self.world.enrol(request).unwrap();
        machine
    }

    /// Does something that concerns application 7 a number of times; prints what it costs, and
    /// returns what was sent the first time.
    fn measure(&mut self, what: &str, mut action: impl FnMut(&mut World, u16)) -> Sent {
        let (mut first, mut spent) = (None, Duration::ZERO);
        for time in 0..TIMES {
            let start = processor_time();
            action(&mut self.world, time);
            spent += processor_time().saturating_sub(start);
            let sent = self.sent(7);
            first.get_or_insert(sent);
        }
        let sent = first.unwrap_or_default();
        println!("{what}: {:?}; {sent:?}", spent / u32::from(TIMES));
        sent
    }

    /// Returns what was sent since this was asked last, to hosts of an application and to others.
    fn sent(&mut self, concerned: u16) -> Sent {
        self.world.drain();
        let mut sent = Sent::default();
        for (session, messages) in std::mem::take(&mut self.world.sent) {
            let bytes: usize = messages
                .iter()
                .map(|message| encode_to_host(message).len())
                .sum();
            let host = self.streams.get(&session);
            if host.is_some_and(|host| application(*host) == concerned) {
                sent.concerned += 1;
                sent.bytes_to_concerned += bytes;
            } else {
                sent.unconcerned += 1;
                sent.bytes_to_unconcerned += bytes;
            }
        }
        sent
    }
}

/// Prints the processor time of something large.
fn timed<T>(what: &str, action: impl FnOnce() -> T) -> T {
    let start = processor_time();
    let result = action();
    println!("{what}: {:?}", processor_time().saturating_sub(start));
    result
}

/// Returns how long this thread has run: the first number of its `schedstat`, in nanoseconds.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

#[test]
#[ignore = "long: makes a fleet of 10,000 hosts"]
fn scale_of_one_change_in_a_fleet_of_ten_thousand() {
    let mut large = timed("10,000 hosts joined, and sent their maps", Large::new);

    let token = large.world.token_with(CreateToken {
        labels: labels(&[("app", "a7"), ("tier", "web")]),
        ..hour_token()
    });
    let machines: Vec<Machine> = (0..TIMES).map(|time| Machine::new(HOSTS + time)).collect();
    let newcomer = |time: u16| format!("newcomer-{time}");
    let request =
        |time: u16| machines[usize::from(time)].request(&large.world, &token, &newcomer(time));
    let mut requests: Vec<_> = (0..TIMES).map(request).collect();
    let sent = large.measure(
        "a join, the store included, until it is told",
        |world, _| {
            world.enrol(requests.remove(0)).unwrap();
            world.advance(Duration::from_millis(20));
        },
    );
    assert_eq!((sent.concerned, sent.unconcerned), (50, 0));

    let sent = large.measure(
        "a label that changes sides, until it is told",
        |world, time| {
            world.set_labels(&newcomer(time), &[("app", "a7"), ("tier", "db")]);
            world.advance(Duration::from_millis(20));
        },
    );
    assert_eq!((sent.concerned, sent.unconcerned), (100, 0));

    let mut sessions = Vec::new();
    large.measure("a hello, answered with a whole map", |world, time| {
        let session = world.open(&machines[usize::from(time)], &newcomer(time));
        world.hello(session, None);
        sessions.push(session);
    });
    let sent = large.measure("a report of endpoints, until it is told", |world, time| {
        let endpoints = vec![Endpoint {
            address: "192.0.2.1:51820".parse().unwrap(),
            kind: EndpointKind::Interface,
        }];
        let report = FromHost::Endpoints(EndpointReport {
            endpoints,
            listen_port: 51820,
            stream_port: None,
        });
        world.say(sessions[usize::from(time)], report);
        world.advance(Duration::from_millis(200));
    });
    assert_eq!((sent.concerned, sent.unconcerned), (50, 0));

    let sent = large.measure("a removal, until it is told", |world, time| {
        world.remove_host(&newcomer(time));
    });
    assert_eq!(
        (sent.concerned, sent.unconcerned),
        (50, 1),
        "others, and its own farewell"
    );

    let rule = "  - { id: new, from: \"app=a7,tier=web\", to: \"app=a8,tier=db\", tcp: [80] }\n";
    timed(
        "one policy with a rule between two applications, until it is told",
        || {
            large.world.apply_policy(&policy(rule)).unwrap();
            large.world.advance(Duration::from_millis(1));
        },
    );
    let sent = large.sent(7);
    println!("one policy: {sent:?}");
    assert_eq!(
        sent.concerned + sent.unconcerned,
        usize::from(HOSTS),
        "all get the new head"
    );

    let changed = policy(rule).replace("id: app-50,", "id: app-fifty,");
    timed("one policy with one rule changed, until it is told", || {
        large.world.apply_policy(&changed).unwrap();
        large.world.advance(Duration::from_millis(1));
    });
    let sent = large.sent(50);
    println!("one rule changed: {sent:?}");
    assert!(sent.bytes_to_unconcerned <= 600 * sent.unconcerned);

    let have = large.world.status().revision;
    large.world.crash();
    let machines: Vec<Machine> = (0..HOSTS).map(Machine::new).collect();
    let now_told = timed(
        "10,000 hosts come back to a restarted coordinator, up to date",
        || {
            let mut maps = 0;
            for (host, machine) in (0..HOSTS).zip(&machines) {
                let session = large.world.open(machine, &called(host));
                large.world.hello(session, Some(have));
                let messages = large.world.taken(session);
                maps += messages
                    .iter()
                    .filter(|it| matches!(it, ToHost::Map(_)))
                    .count();
            }
            maps
        },
    );
    assert_eq!(now_told, 0);
    assert_eq!(large.world.hosts()[0].name, name("vm-0"));
}

#[test]
#[ignore = "long: makes a fleet of 10,000 hosts that all know each other"]
fn scale_of_a_policy_that_parts_ten_thousand_acquaintances() {
    let mut large = Large {
        world: World::new(), // ping from any to any
        streams: BTreeMap::new(),
    };
    let machines: Vec<Machine> = (0..HOSTS).map(|host| large.join(host)).collect();
    let have = large.world.status().revision;
    timed(
        "10,000 hosts come to a fleet of acquaintances, up to date",
        || {
            for (host, machine) in (0..HOSTS).zip(&machines) {
                let session = large.world.open(machine, &called(host));
                large.world.hello(session, Some(have));
                large.streams.insert(session, host);
            }
        },
    );
    large.world.sent.clear();

    timed("one label that all are told of", || {
        large
            .world
            .set_labels("vm-0", &[("app", "a0"), ("tier", "web"), ("rack", "7")]);
        large.world.advance(Duration::from_millis(20));
    });
    println!("one label: {:?}", large.sent(0));

    let (mut forgotten, mut most_at_once) = (0, 0);
    timed(
        "one policy that parts all applications, until it is told",
        || {
            large
                .world
                .ask(AdminRequest::ApplyPolicy(apply(&policy(""))));
            large.world.settle();
            loop {
                let sent = std::mem::take(&mut large.world.sent);
                let maps = sent.values().flatten().map(|message| match message {
                    ToHost::Map(delta) => delta.forgotten.len(),
                    other => panic!("{other:?}"),
                });
                let at_once: usize = maps.sum();
                forgotten += at_once;
                most_at_once = most_at_once.max(at_once);
                let Some((due, "changes to tell hosts")) = large.world.fleet.poll_timeout() else {
                    break;
                };
                large
                    .world
                    .advance(due.saturating_since(large.world.now.monotonic));
            }
        },
    );
    println!("{forgotten} acquaintances forgotten, at most {most_at_once} at once");
    let (all, peers) = (usize::from(HOSTS), usize::from(HOSTS_PER_APPLICATION / 2));
    assert_eq!(forgotten, all * (all - 1 - peers));
    assert!(most_at_once <= 100_000 + all);
}

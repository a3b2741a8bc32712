//! What one member can make the coordinator do, however often it asks.

use std::net::SocketAddr;
use std::time::Duration;

use fleet::{AdminRequest, FleetLimits, Reply};
use model::control::{Applied, EndpointReport, FromHost, ToHost};
use model::ids::PolicyVersion;
use model::map::{Endpoint, EndpointKind, MapDelta};

use crate::world::{World, name};

const SECOND: Duration = Duration::from_secs(1);

fn whole_maps(messages: &[ToHost]) -> usize {
    let is_whole = |message: &&ToHost| matches!(message, ToHost::Map(MapDelta { base: None, .. }));
    messages.iter().filter(is_whole).count()
}

fn goodbye(messages: &[ToHost]) -> Option<(&str, Duration)> {
    messages.iter().find_map(|message| match message {
        ToHost::Goodbye(goodbye) => Some((goodbye.reason.as_str(), goodbye.retry_after)),
        _ => None,
    })
}

#[test]
fn a_host_that_keeps_forgetting_is_told_everything_a_few_times_only() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let mut told = 0;
    let mut wait = Duration::ZERO;
    for _ in 0..12 {
        let session = world.open(&machine, "a");
        world.hello(session, None);
        let messages = world.taken(session);
        told += whole_maps(&messages);
        wait = goodbye(&messages).map_or(wait, |(_, retry_after)| retry_after);
        world.fleet.handle_session_closed(session, world.now);
    }
    assert_eq!(told, 8);
    world.advance(wait);
    let session = world.open(&machine, "a");
    world.hello(session, None);
    assert_eq!(
        whole_maps(&world.taken(session)),
        1,
        "when it was told to come"
    );
}

#[test]
fn a_host_that_fails_again_and_again_is_told_everything_a_few_times_only() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let session = world.open(&machine, "a");
    world.hello(session, None);
    let mut messages = world.taken(session);
    for turn in 0..20 {
        let applied = Applied {
            revision: world.status().revision,
            policy: PolicyVersion(1),
            error: (turn % 2 == 0).then(|| "no".into()),
            ..Applied::default()
        };
        world.say(session, FromHost::Applied(applied));
        messages.extend(world.taken(session));
    }
    assert_eq!(whole_maps(&messages), 8);
    let (reason, _) = goodbye(&messages).unwrap();
    assert!(reason.contains("several times in a row"), "{reason}");
}

#[test]
fn messages_are_counted_over_all_streams_of_a_host() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let have = world.status().revision;
    let mut messages = Vec::new();
    for _ in 0..2 {
        let session = world.open(&machine, "a");
        world.hello(session, Some(have));
        for nonce in 0..u64::from(FleetLimits::MESSAGES_BURST / 2) {
            world.say(session, FromHost::Ping(nonce));
        }
        messages = world.taken(session);
        world.fleet.handle_session_closed(session, world.now);
    }
    let (reason, _) = goodbye(&messages).unwrap();
    assert!(reason.contains("too many messages"), "{reason}");
}

#[test]
fn peers_are_told_of_endpoints_that_change_all_the_time_now_and_then() {
    let mut world = World::new();
    let (flapping, _) = world.join("a", 1);
    let (peer, _) = world.join("b", 2);
    let [flapping, peer] = [(&flapping, "a"), (&peer, "b")].map(|(machine, host)| {
        let session = world.open(machine, host);
        world.hello(session, None);
        session
    });
    world.advance(SECOND);
    world.taken(peer);
    let report = |world: &mut World, port: u16| {
        let endpoint = Endpoint {
            address: SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            kind: EndpointKind::Interface,
        };
        let report = EndpointReport {
            endpoints: vec![endpoint],
            listen_port: port,
            stream_port: None,
        };
        world.say(flapping, FromHost::Endpoints(report));
    };
    let mut told = 0;
    for port in 1..=60 {
        report(&mut world, port);
        world.advance(SECOND);
        world.say(peer, FromHost::Ping(1));
        told += maps_in(&world.taken(peer));
    }
    assert!((10..=20).contains(&told), "{told} in a minute");
    world.advance(5 * SECOND);
    let messages = world.taken(peer);
    let last = messages.iter().rev().find_map(|message| match message {
        ToHost::Map(map) => Some(map.peers[0].endpoints[0].address.port()),
        _ => None,
    });
    assert_eq!(last, Some(60), "the last of them in the end");
}

fn maps_in(messages: &[ToHost]) -> usize {
    let is_map = |message: &&ToHost| matches!(message, ToHost::Map(_));
    messages.iter().filter(is_map).count()
}

#[test]
fn what_a_host_tells_of_others_is_bounded() {
    let mut world = World::new();
    let (talker, _) = world.join("a", 1);
    let (_, other) = world.join("b", 2);
    let session = world.open(&talker, "a");
    world.hello(session, None);
    let ip = "192.0.2.1".parse().unwrap();
    for port in 1..=1000 {
        let told = FromHost::Observation {
            peer: other.host,
            address: SocketAddr::new(ip, port),
        };
        world.say(session, told);
    }
    let Reply::Host(seen) = world.admin(AdminRequest::ShowHost(name("b"))).unwrap() else {
        panic!()
    };
    assert_eq!(seen.endpoints, [SocketAddr::new(ip, 256)]);
}

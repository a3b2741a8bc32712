//! Streams: who may open one, what is answered on it, and how it ends.

use std::time::Duration;

use fleet::{AdminRequest, FleetLimits, Reply, SessionPeer};
use model::control::{Applied, EndpointReport, FromHost, Goodbye, ToHost};
use model::identity::SpiffeId;
use model::ids::PolicyVersion;
use model::map::{Endpoint, EndpointKind, MapDelta};
use trust::certificate::verify_chain;

use crate::machine::Machine;
use crate::world::{World, name};

fn goodbye(messages: &[ToHost]) -> &Goodbye {
    match messages.last() {
        Some(ToHost::Goodbye(goodbye)) => goodbye,
        other => panic!("no goodbye but {other:?}"),
    }
}

fn maps(messages: Vec<ToHost>) -> Vec<MapDelta> {
    let maps = messages.into_iter().filter_map(|message| match message {
        ToHost::Map(delta) => Some(delta),
        _ => None,
    });
    maps.collect()
}

#[test]
fn hello_is_answered_with_welcome_and_a_whole_map() {
    let mut world = World::new();
    let (machine, enrolled) = world.join("a", 1);
    world.join("b", 2);
    let observed = "198.51.100.7".parse().unwrap();
    let session = world.open_from(&machine, "a", Some(observed));
    world.hello(session, None);
    let messages = world.taken(session);
    let [ToHost::Welcome(welcome), ToHost::Map(map)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!(welcome.observed, Some(observed));
    assert_eq!(welcome.unix, world.now.unix);
    assert_eq!((map.base, map.revision), (None, world.status().revision));
    assert_eq!(map.record.as_ref(), Some(&enrolled.record));
    assert_eq!(map.peers.len(), 1);
}

#[test]
fn a_certificate_of_another_key_fleet_or_kind_opens_nothing() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let host = |fleet: &str, host: &str| SpiffeId::Host {
        fleet: name(fleet),
        host: name(host),
    };
    let coordinator = SpiffeId::Coordinator {
        fleet: name("prod"),
        coordinator: name("a"),
    };
    for (identity, key) in [
        (host("prod", "a"), Machine::new(9).tls_key_hash()),
        (host("staging", "a"), machine.tls_key_hash()),
        (coordinator, machine.tls_key_hash()),
    ] {
        let session = world.next_session();
        let peer = SessionPeer {
            identity,
            tls_key_hash: key,
            not_before: world.now.unix,
            not_after: world.now.unix,
        };
        world
            .fleet
            .handle_session_opened(session, peer, None, world.now);
        let messages = world.taken(session);
        assert!(goodbye(&messages).tombstone.is_none());
        assert!(world.closed.contains(&session));
    }
    assert_eq!(world.status().hosts_online, 0);
}

#[test]
fn a_host_that_was_renamed_while_it_was_away_renews_though_another_has_its_name() {
    let mut world = World::new();
    let (away, enrolled) = world.join("a", 1);
    let rename = AdminRequest::RenameHost {
        host: name("a"),
        name: name("a-2"),
    };
    world.admin(rename).unwrap();
    world.advance(Duration::from_secs(25 * 3600));
    world.join("a", 2);
    let session = world.open(&away, "a");
    world.hello(session, None);
    let messages = world.taken(session);
    assert!(matches!(messages[..], [ToHost::Welcome(_)]), "{messages:?}");
    world.say(session, FromHost::Renew(away.certificate_request("a-2")));
    let messages = world.taken(session);
    let [ToHost::Certificate(Ok(chain)), ToHost::Map(map)] = &messages[..] else {
        panic!("{messages:?}")
    };
    let (anchors, _) = world.anchors();
    let facts = verify_chain(chain, anchors.root_certificates(), world.now.unix).unwrap();
    let own = anchors.verify_record(map.record.as_ref().unwrap()).unwrap();
    assert_eq!((own.host, own.name), (enrolled.host, name("a-2")));
    assert!(facts.spiffe.to_string().ends_with("/host/a-2"));
}

#[test]
fn a_newer_stream_closes_the_older() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let older = world.open(&machine, "a");
    world.hello(older, None);
    let newer = world.open(&machine, "a");
    world.hello(newer, None);
    assert!(goodbye(&world.taken(older)).reason.contains("newer stream"));
    assert!(world.closed.contains(&older) && !world.closed.contains(&newer));
    world.fleet.handle_session_closed(older, world.now);
    assert_eq!(world.status().hosts_online, 1);
}

#[test]
fn two_machines_with_one_host_s_keys_are_told_of_each_other() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let places = ["192.0.2.1", "192.0.2.2"].map(|it| Some(it.parse().unwrap()));
    let mut sessions = Vec::new();
    for turn in 0..5 {
        let session = world.open_from(&machine, "a", places[turn % 2]);
        world.hello(session, None);
        sessions.push(session);
        world.advance(Duration::from_secs(6));
    }
    let reasons: Vec<String> = sessions[..4]
        .iter()
        .map(|&session| goodbye(&world.taken(session)).reason.clone())
        .collect();
    assert!(reasons[1].contains("newer stream"), "{reasons:?}");
    assert!(
        reasons[2].contains("another machine, at 192.0.2.2, uses this host's keys"),
        "{reasons:?}"
    );
    assert!(
        reasons[3].contains("another machine, at 192.0.2.1"),
        "{reasons:?}"
    );
    let told = world
        .notices
        .iter()
        .filter(|it| it.contains("two machines use the keys of a"));
    assert_eq!(told.count(), 1, "{:?}", world.notices);
}

#[test]
fn a_silent_host_is_given_up_and_one_that_pings_is_not() {
    let mut world = World::new();
    let (silent, _) = world.join("a", 1);
    let (lively, _) = world.join("b", 2);
    let [silent, lively] = [(silent, "a"), (lively, "b")].map(|(machine, host)| {
        let session = world.open(&machine, host);
        world.hello(session, None);
        session
    });
    for nonce in 0..6 {
        world.advance(Duration::from_secs(20));
        world.say(lively, FromHost::Ping(nonce));
    }
    assert!(
        goodbye(&world.taken(silent))
            .reason
            .contains("nothing was heard")
    );
    assert!(!world.closed.contains(&lively));
    assert!(world.taken(lively).contains(&ToHost::Pong(5)));
    assert_eq!(world.status().hosts_online, 1);
}

#[test]
fn a_stream_without_hello_is_closed() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let session = world.open(&machine, "a");
    world.advance(Duration::from_secs(30));
    assert!(goodbye(&world.taken(session)).reason.contains("no hello"));
}

#[test]
fn hosts_that_break_the_rules_are_sent_away() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let endpoint = Endpoint {
        address: "192.0.2.1:1".parse().unwrap(),
        kind: EndpointKind::Interface,
    };
    let too_many = EndpointReport {
        endpoints: vec![endpoint; 17],
        listen_port: 1,
        stream_port: None,
    };

    let session = world.open(&machine, "a");
    world.say(session, FromHost::Ping(1));
    assert!(goodbye(&world.taken(session)).reason.contains("no hello"));

    let session = world.open(&machine, "a");
    world.hello(session, None);
    world.hello(session, None);
    assert!(
        goodbye(&world.taken(session))
            .reason
            .contains("hello twice")
    );

    let session = world.open(&machine, "a");
    world.hello(session, None);
    world.say(session, FromHost::Endpoints(too_many));
    assert!(
        goodbye(&world.taken(session))
            .reason
            .contains("too many endpoints")
    );

    let session = world.open(&machine, "a");
    world.hello(session, None);
    for nonce in 0..=u64::from(FleetLimits::MESSAGES_BURST) {
        world.say(session, FromHost::Ping(nonce));
    }
    assert!(
        goodbye(&world.taken(session))
            .reason
            .contains("too many messages")
    );
    assert_eq!(world.notices.len(), 4);
}

#[test]
fn a_removed_host_is_told_now_and_whenever_it_comes_back() {
    let mut world = World::new();
    let (machine, enrolled) = world.join("a", 1);
    let (peer, _) = world.join("b", 2);
    let [session, peer] = [(&machine, "a"), (&peer, "b")].map(|(machine, host)| {
        let session = world.open(machine, host);
        world.hello(session, None);
        session
    });
    world.taken(peer);
    world.remove_host("a");
    let sent = world.taken(session);
    assert!(world.is_removed_by(enrolled.host, goodbye(&sent)));
    let told = maps(world.taken(peer));
    let tombstone = world
        .anchors()
        .0
        .verify_tombstone(&told[0].tombstones[0])
        .unwrap();
    assert_eq!((tombstone.host, tombstone.name), (enrolled.host, name("a")));
    let record = world.record(&enrolled);
    assert!(tombstone.revision > record.revision);

    world.crash();
    let session = world.open(&machine, "a");
    let messages = world.taken(session);
    assert!(
        matches!(&messages[0], ToHost::Welcome(_)),
        "a host that lost its map has to know whose signature it is"
    );
    assert!(world.is_removed_by(enrolled.host, goodbye(&messages)));
}

#[test]
fn a_host_that_leaves_is_removed_durably_before_it_is_told() {
    let mut world = World::new();
    let (machine, enrolled) = world.join("a", 1);
    let session = world.open(&machine, "a");
    world.hello(session, None);
    world.taken(session);
    world.say(session, FromHost::Leave);
    assert!(world.taken(session).is_empty());
    world.settle();
    let sent = world.taken(session);
    assert!(world.is_removed_by(enrolled.host, goodbye(&sent)));
    assert!(world.hosts().is_empty());
}

#[test]
fn a_host_that_cannot_be_removed_now_is_told_why() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let session = world.open(&machine, "a");
    world.hello(session, None);
    world.say(session, FromHost::Leave);
    world.fail(0);
    let messages = world.taken(session);
    assert!(goodbye(&messages).tombstone.is_none());
    assert!(goodbye(&messages).reason.contains("no space left"));
    assert_eq!(world.hosts().len(), 1);
}

#[test]
fn a_certificate_is_renewed_for_the_key_of_the_record_only() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let session = world.open(&machine, "a");
    world.hello(session, None);
    world.taken(session);
    world.advance(Duration::from_secs(60));
    world.say(session, FromHost::Renew(machine.certificate_request("a")));
    world.say(
        session,
        FromHost::Renew(Machine::new(9).certificate_request("a")),
    );
    world.say(session, FromHost::Renew(vec![1, 2, 3]));
    let messages = world.taken(session);
    let [
        ToHost::Certificate(Ok(chain)),
        ToHost::Certificate(Err(other_key)),
        ToHost::Certificate(Err(_)),
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    let (anchors, _) = world.anchors();
    let facts = verify_chain(chain, anchors.root_certificates(), world.now.unix).unwrap();
    assert_eq!(facts.tls_key_hash, machine.tls_key_hash());
    assert!(other_key.contains("another key"), "{other_key}");
}

#[test]
fn an_expired_certificate_opens_nothing_but_its_renewal() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let session = world.open_expired(&machine, "a");
    assert!(world.fleet.is_of_member(session));
    world.hello(session, None);
    world.say(session, FromHost::Ping(3));
    let failed = Applied {
        revision: world.status().revision,
        policy: PolicyVersion(1),
        error: Some("give me a map".into()),
        ..Applied::default()
    };
    world.say(session, FromHost::Applied(failed));
    world.join("b", 2);
    world.advance(Duration::from_secs(1));
    let messages = world.taken(session);
    assert!(
        matches!(messages[..], [ToHost::Welcome(_), ToHost::Pong(3)]),
        "{messages:?}"
    );
    // Another key does not help.
    let other = Machine::new(9).certificate_request("a");
    world.say(session, FromHost::Renew(other));
    let messages = world.taken(session);
    assert!(matches!(messages[..], [ToHost::Certificate(Err(_))]));

    world.say(session, FromHost::Renew(machine.certificate_request("a")));
    let messages = world.taken(session);
    let [ToHost::Certificate(Ok(_)), ToHost::Map(map)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert_eq!((map.base, map.peers.len()), (None, 1));
    world.join("c", 3);
    world.advance(Duration::from_secs(1));
    assert_eq!(
        maps(world.taken(session)).len(),
        1,
        "it follows from now on"
    );
}

#[test]
fn a_certificate_of_a_clock_that_ran_ahead_opens_nothing_but_its_renewal() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let year = Duration::from_secs(365 * 24 * 3600);
    let (then, later) = (world.now.unix + year, world.now.unix + 2 * year);
    let session = world.open_valid_in(&machine, "a", (then, later));
    world.hello(session, None);
    let messages = world.taken(session);
    assert!(matches!(messages[..], [ToHost::Welcome(_)]), "{messages:?}");
    world.say(session, FromHost::Renew(machine.certificate_request("a")));
    let messages = world.taken(session);
    assert!(
        matches!(messages[..], [ToHost::Certificate(Ok(_)), ToHost::Map(_)]),
        "{messages:?}"
    );
}

#[test]
fn who_does_not_renew_what_expired_is_sent_away() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let session = world.open_expired(&machine, "a");
    world.hello(session, None);
    for _ in 0..7 {
        world.advance(Duration::from_secs(50));
        world.say(session, FromHost::Ping(1));
    }
    let messages = world.taken(session);
    let goodbye = messages.iter().find_map(|message| match message {
        ToHost::Goodbye(goodbye) => Some(goodbye.reason.as_str()),
        _ => None,
    });
    assert!(goodbye.is_some_and(|reason| reason.contains("not renewed")));
}

#[test]
fn a_removed_host_does_not_renew() {
    let mut world = World::new();
    let (machine, enrolled) = world.join("a", 1);
    world.remove_host("a");
    let session = world.open_expired(&machine, "a");
    let sent = world.taken(session);
    assert!(world.is_removed_by(enrolled.host, goodbye(&sent)));
    assert!(!world.fleet.is_of_member(session));
    world.say(session, FromHost::Renew(machine.certificate_request("a")));
    assert!(world.taken(session).is_empty());
}

#[test]
fn a_host_that_cannot_apply_a_change_gets_one_whole_map() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let session = world.open(&machine, "a");
    let have = world.status().revision;
    world.hello(session, Some(have));
    world.taken(session);
    let failed = FromHost::Applied(Applied {
        revision: have,
        policy: PolicyVersion(1),
        error: Some("gap".into()),
        ..Applied::default()
    });
    world.say(session, failed.clone());
    let first = maps(world.taken(session));
    assert_eq!(first.iter().map(|map| map.base).collect::<Vec<_>>(), [None]);
    world.say(session, failed);
    assert!(world.taken(session).is_empty(), "not again and again");
    let Reply::Host(host) = world.admin(AdminRequest::ShowHost(name("a"))).unwrap() else {
        panic!()
    };
    assert_eq!(host.apply_error.as_deref(), Some("gap"));
}

#[test]
fn a_host_is_offered_where_the_coordinator_and_its_peers_see_it() {
    let mut world = World::new();
    let (a, _) = world.join("a", 1);
    let (b, enrolled) = world.join("b", 2);
    let seen: std::net::IpAddr = "198.51.100.7".parse().unwrap();
    let [a, b] = [(&a, "a", None), (&b, "b", Some(seen))].map(|(machine, host, observed)| {
        let session = world.open_from(machine, host, observed);
        world.hello(session, None);
        session
    });
    world.taken(a);
    let report = EndpointReport {
        endpoints: Vec::new(),
        listen_port: 51820,
        stream_port: None,
    };
    world.say(b, FromHost::Endpoints(report));
    let by_peer = "203.0.113.5:4000".parse().unwrap();
    world.say(
        a,
        FromHost::Observation {
            peer: enrolled.host,
            address: by_peer,
        },
    );
    assert!(world.taken(a).is_empty(), "storms are gathered first");
    world.advance(Duration::from_millis(200));
    let deltas = maps(world.taken(a));
    assert_eq!(deltas.len(), 1);
    let expected = [
        Endpoint {
            address: by_peer,
            kind: EndpointKind::Peer,
        },
        Endpoint {
            address: (seen, 51820).into(),
            kind: EndpointKind::Coordinator,
        },
    ];
    assert_eq!(deltas[0].peers[0].endpoints, expected);
}

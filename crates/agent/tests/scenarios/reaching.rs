//! Paths to peers, and where this host says that it can be reached.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use agent::Output;
use dataplane::{Command, DataCipher, Event, Path, PathMtuReport, PeerReport, Report, Standing};
use model::control::FromHost;
use model::map::{Endpoint, EndpointKind, PeerIndex};

use crate::coordinator::{Coordinator, endpoint};
use crate::host::Host;

fn path(remote: SocketAddr) -> Path {
    Path {
        remote,
        source: None,
    }
}

fn member() -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::new();
    host.enrol(&mut coordinator);
    host.connect(&coordinator);
    let mut map = coordinator.whole_map(host.id());
    let second = Endpoint {
        address: "198.51.100.1:51820".parse().unwrap(),
        kind: EndpointKind::Coordinator,
    };
    assert_eq!(coordinator.entry(db).endpoints, [endpoint(db)]);
    map.peers[0].endpoints.push(second);
    host.map(map);
    host.said.clear();
    (coordinator, host)
}

#[test]
fn an_unanswered_path_is_followed_by_the_next() {
    let (_, mut host) = member();
    let first = host.agent.peers(host.now)[0].candidates[0];
    host.shard(Event::PathUnanswered {
        peer: PeerIndex(0),
        path: Some(path(first)),
    });
    assert!(matches!(
        host.commands()[..],
        [Command::SetPath { index: PeerIndex(0), path }] if path.remote.port() == 51820
            && path.remote != first
    ));
    host.shard(Event::PathUnanswered {
        peer: PeerIndex(77),
        path: None,
    });
    assert!(host.commands().is_empty(), "nobody knows that peer");
}

#[test]
fn what_others_saw_of_a_peer_does_not_take_away_what_it_said_itself() {
    let (coordinator, mut host) = member();
    let db = host.agent.peers(host.now)[0].id;
    let seen = Endpoint {
        address: "203.0.113.9:4000".parse().unwrap(),
        kind: EndpointKind::Peer,
    };
    // A coordinator that started anew has heard of the peer from another one only, or not at all.
    for (told, known) in [
        (vec![seen], vec![endpoint(db).address, seen.address]),
        (vec![], vec![endpoint(db).address]),
    ] {
        let mut map = coordinator.whole_map(host.id());
        map.peers[0].endpoints = told;
        host.map(map);
        let candidates = host.agent.peers(host.now)[0].candidates.clone();
        assert_eq!(candidates, known);
    }
    let elsewhere = Endpoint {
        address: "198.51.100.77:51820".parse().unwrap(),
        ..endpoint(db)
    };
    let mut map = coordinator.whole_map(host.id());
    map.peers[0].endpoints = vec![elsewhere];
    host.map(map);
    let candidates = host.agent.peers(host.now)[0].candidates.clone();
    assert_eq!(candidates, [elsewhere.address], "it said so itself");
}

#[test]
fn a_peer_seen_elsewhere_is_shown_and_told_to_the_coordinator_once() {
    let (_, mut host) = member();
    let seen: SocketAddr = "203.0.113.77:4242".parse().unwrap();
    let peer = host.agent.peers(host.now)[0].id;
    host.shard(Event::SessionEstablished {
        peer: PeerIndex(0),
        path: path(seen),
    });
    host.shard(Event::PeerMoved {
        peer: PeerIndex(0),
        path: path(seen),
    });
    host.advance(Duration::from_secs(3));
    let told = host.sent(|message| match message {
        FromHost::Observation { peer, address } => Some((*peer, *address)),
        _ => None,
    });
    assert_eq!(told, [(peer, seen)]);
    let view = &host.agent.peers(host.now)[0];
    assert_eq!(view.endpoint, Some(seen));
    assert_eq!(view.last_handshake_secs, Some(3));
}

/// A session with the first peer begins; returns whether the shard is asked how it is within a second.
fn is_asked_about(host: &mut Host) -> bool {
    host.said.clear();
    host.shard(Event::SessionEstablished {
        peer: PeerIndex(0),
        path: path("203.0.113.77:4242".parse().unwrap()),
    });
    host.advance(Duration::from_secs(1));
    host.has_said(|output| match output {
        Output::Shard(commands) => commands.iter().any(|it| matches!(it, Command::Report)),
        _ => false,
    })
}

#[test]
fn a_first_session_is_asked_about_soon() {
    let (_, mut host) = member();
    assert!(is_asked_about(&mut host));
    let cipher = Some(DataCipher::Aes256Gcm);
    let report = PeerReport { cipher, ..report() };
    host.shard(Event::Report(Report {
        peers: vec![report],
    }));
    assert_eq!(
        host.agent.peers(host.now)[0].cipher.as_deref(),
        Some("aes-256-gcm")
    );
    assert!(!is_asked_about(&mut host), "what is renewed is known");
}

fn report() -> PeerReport {
    PeerReport {
        peer: PeerIndex(0),
        lane: 0,
        path: None,
        path_mtu: PathMtuReport {
            bytes: 1420,
            standing: Standing::Assumed,
            black_holes: 0,
        },
        cipher: None,
        last_handshake: None,
        received_bytes: 7,
        sent_bytes: 9,
    }
}

#[test]
fn counters_come_from_the_shard_s_reports() {
    let (_, mut host) = member();
    let report = report();
    let lane = |number, cipher| PeerReport {
        lane: number,
        cipher,
        ..report.clone()
    };
    let lanes = vec![lane(1, Some(DataCipher::Aes256Gcm)), lane(2, None)];
    host.shard(Event::Report(Report {
        peers: vec![report.clone()],
    }));
    let view = &host.agent.peers(host.now)[0];
    assert_eq!((view.received_bytes, view.sent_bytes), (7, 9));
    assert_eq!(view.mtu, Some(1420));
    assert_eq!(view.mtu_standing.as_deref(), Some("assumed"));
    // Another shard tells of lanes; what is gone still counts in the sums.
    for _ in 0..2 {
        host.shard(Event::Report(Report {
            peers: lanes.clone(),
        }));
    }
    let view = &host.agent.peers(host.now)[0];
    assert_eq!((view.received_bytes, view.sent_bytes), (21, 27));
    assert_eq!(view.lanes, 1);
}

#[test]
fn a_new_address_of_this_host_is_told_after_a_moment() {
    let (_, mut host) = member();
    let addresses: Vec<IpAddr> = ["127.0.0.1", "192.0.2.200", "fe80::1"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    host.agent.handle_interfaces(addresses, host.now);
    host.drain();
    host.advance(Duration::from_secs(3));
    let reports = host.sent(|message| match message {
        FromHost::Endpoints(report) => Some(report.clone()),
        _ => None,
    });
    let addresses: Vec<String> = reports[0]
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    assert_eq!(addresses, ["203.0.113.5:51820", "192.0.2.200:51820"]);
}

#[test]
fn a_peer_is_found_by_its_name_with_or_without_the_suffix() {
    let (_, host) = member();
    for name in ["db", "DB", "db.mesh.internal", "db.mesh.internal."] {
        assert_eq!(
            host.agent.resolve_peer(name).unwrap().name.as_str(),
            "db",
            "{name}"
        );
    }
    for name in ["web-1", "nobody", "", "db.example.org"] {
        assert_eq!(host.agent.resolve_peer(name), None, "{name}");
    }
}

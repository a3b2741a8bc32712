//! Starting from a disk: with everything else down, with damage, with files from another time.

use agent::{LoadError, Output, StoredFiles};
use model::local::HostState;

use crate::coordinator::Coordinator;
use crate::host::Host;

fn member() -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let host = Host::member_of(&mut coordinator);
    (coordinator, host)
}

#[test]
fn a_restart_without_a_coordinator_brings_everything_back_at_once() {
    let (coordinator, mut host) = member();
    host.restart();
    let interface = host
        .said
        .iter()
        .position(|o| matches!(o, Output::Interface(Some(_))));
    let shard = host.said.iter().position(|o| matches!(o, Output::Shard(_)));
    let names = host.said.iter().position(|o| matches!(o, Output::Names(_)));
    assert!(interface.is_some() && interface < names);
    assert!(interface < shard, "once its dates are on the disk");
    assert_eq!(host.commands().len(), 4, "identity, peer, path, table");
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert_eq!(host.state(), HostState::Autonomous);
    assert_eq!(host.agent.peers(host.now)[0].name.as_str(), "db");
}

#[test]
fn a_copied_state_directory_is_not_used_on_another_machine() {
    let (mut coordinator, mut host) = member();
    let identity = host.disk.identity.clone();
    host.config.machine_id = "clone".to_owned();
    host.restart();
    host.advance(std::time::Duration::from_secs(600));
    assert_eq!(host.state(), HostState::Cloned);
    let speaks = |output: &Output| {
        let is_heard = matches!(output, Output::OpenSync { .. } | Output::Shard(_));
        is_heard || matches!(output, Output::Interface(_))
    };
    assert!(
        !host.has_said(speaks),
        "neither coordinator nor peers hear of it"
    );
    assert!(
        host.disk.identity == identity,
        "the old id would bring it back"
    );
    let alarms = host.detail().alarms;
    assert!(
        alarms.iter().any(|alarm| alarm.contains("cloned")),
        "{alarms:?}"
    );
    host.enrol(&mut coordinator);
    host.connect(&coordinator);
    assert_eq!(host.state(), HostState::Online);
    host.restart();
    assert_eq!(host.state(), HostState::Autonomous);
}

#[test]
fn every_start_is_counted() {
    let (coordinator, mut host) = member();
    let mut counters = Vec::new();
    for _ in 0..3 {
        host.restart();
        host.advance(std::time::Duration::ZERO);
        host.channel(agent::ChannelEvent::Opened);
        counters.extend(host.sent(|message| match message {
            model::control::FromHost::Hello(hello) => Some(hello.boot_counter),
            _ => None,
        }));
    }
    assert_eq!(counters.len(), 3);
    assert!(
        counters.is_sorted_by(|one, next| one < next),
        "{counters:?}"
    );
    drop(coordinator);
}

#[test]
fn a_damaged_map_is_named_and_replaced() {
    for damage in ["cut", "flipped", "empty", "gone"] {
        let (coordinator, mut host) = member();
        let map = host.disk.map.as_mut().unwrap();
        match damage {
            "cut" => map.truncate(map.len() / 2),
            "flipped" => {
                let middle = map.len() / 2;
                map[middle] ^= 0x40;
            }
            "empty" => map.clear(),
            _ => host.disk.map = None,
        }
        host.restart();
        assert!(host.commands().is_empty(), "{damage}");
        assert_eq!(host.state(), HostState::Autonomous);
        if damage == "cut" || damage == "flipped" {
            assert!(
                host.detail().alarms[0].contains("the map in the state directory"),
                "{damage}"
            );
        }
        assert_eq!(host.connect(&coordinator), None);
        host.map(coordinator.whole_map(host.id()));
        assert_eq!(host.revision(), Some(coordinator.revision), "{damage}");
        assert!(host.detail().alarms.is_empty());
    }
}

#[test]
fn a_map_from_an_older_backup_is_refused_but_a_newer_one_is_taken() {
    let (mut coordinator, mut host) = member();
    let old = host.disk.clone();
    let base = coordinator.revision;
    let cache = coordinator.add_host("cache");
    let mut delta = coordinator.delta(base);
    delta.peers = vec![coordinator.entry(cache)];
    host.map(delta);
    let new = host.disk.clone();

    host.disk.map = old.map;
    host.restart();
    assert!(host.commands().is_empty());
    assert!(
        host.detail().alarms[0].contains("older than"),
        "{:?}",
        host.detail().alarms
    );

    // As after a crash between the two writes.
    host.disk = StoredFiles {
        high_water: old.high_water,
        ..new
    };
    host.restart();
    assert_eq!(host.revision(), Some(coordinator.revision));
}

#[test]
fn a_damaged_identity_stops_the_start_and_says_what_to_do() {
    let (_, mut host) = member();
    let identity = host.disk.identity.as_mut().unwrap();
    identity.truncate(identity.len() - 9);
    let error = host.try_restart().unwrap_err();
    assert!(matches!(error, LoadError::Identity { .. }));
    assert!(error.to_string().contains("meshctl join"), "{error}");
}

#[test]
fn damaged_marks_are_named_and_taken_from_the_map() {
    let (coordinator, mut host) = member();
    host.disk.high_water = Some(vec![0xff; 5]);
    host.restart();
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert!(host.detail().alarms[0].contains("high-water"));
    host.restart();
    assert!(host.detail().alarms.is_empty(), "they were written anew");
}

#[test]
fn files_that_are_missing_are_named() {
    let (coordinator, mut host) = member();
    host.disk.high_water = None;
    host.restart();
    host.notice_with("there is no high-water file");
    assert_eq!(host.revision(), Some(coordinator.revision));
    host.restart();
    let again = host.notices();
    assert!(!again.iter().any(|notice| notice.contains("high-water")));

    host.disk.identity = None;
    host.restart();
    host.notice_with("has a map, but no identity file");
    assert_eq!(host.state(), HostState::Unenrolled);
}

#[test]
fn another_fleet_s_map_is_not_believed() {
    let (_, mut host) = member();
    let mut other = Coordinator::new(2);
    other.add_host("db");
    host.disk.map = Host::member_of(&mut other).disk.map;
    host.restart();
    assert!(host.commands().is_empty());
    assert!(host.detail().alarms[0].contains("cannot be used"));
}

#[test]
fn an_empty_state_directory_is_ready_to_join_and_writes_nothing() {
    let host = Host::new();
    assert_eq!(host.state(), HostState::Unenrolled);
    assert!(host.said.is_empty());
    assert_eq!(host.agent.poll_timeout(), None);
    let leftovers = StoredFiles {
        map: Some(vec![1, 2, 3]),
        ..StoredFiles::default()
    };
    let host = Host::start(leftovers, host.now).unwrap();
    assert_eq!(host.state(), HostState::Unenrolled);
}

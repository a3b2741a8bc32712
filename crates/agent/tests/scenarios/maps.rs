//! Maps and changes of them: what reaches the shard, the interface, DNS and the disk, and when.

use std::sync::Arc;
use std::time::Duration;

use agent::{NameKind, Output, StateFile};
use dataplane::Command;
use model::control::{FromHost, ToHost};
use model::map::{MapDelta, PeerIndex, PolicyStep};
use trust::BundleTree;
use trust::bundle::step_between;

use crate::coordinator::{Coordinator, bundle_with_service, endpoint};
use crate::host::Host;

fn shape(commands: &[Command]) -> Vec<String> {
    commands
        .iter()
        .map(|command| match command {
            Command::SetIdentity { .. } => "identity".to_owned(),
            Command::SetPeer { index, .. } => format!("peer {}", index.0),
            Command::RemovePeer { index } => format!("remove {}", index.0),
            Command::SetPath { index, path } => format!("path {} {}", index.0, path.remote),
            Command::SetTable(table) => format!("table {}", table.version()),
            Command::AcceptKey(_) => "accept key".to_owned(),
            Command::Sender { .. } => "sender".to_owned(),
            Command::Report => "report".to_owned(),
        })
        .collect()
}

#[test]
fn a_first_map_brings_interface_identity_peers_paths_table_and_names() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    let remote = endpoint(db).address;
    assert_eq!(
        shape(&host.commands()),
        [
            "identity".to_owned(),
            "peer 0".to_owned(),
            format!("path 0 {remote}"),
            "table 1".into()
        ]
    );
    assert!(host.has_said(|output| matches!(output, Output::Interface(Some(_)))));
    let names = host.take(|output| match output {
        Output::Names(names) => Some(names.clone()),
        _ => None,
    });
    let names = names.last().unwrap();
    assert_eq!(names.suffix(), "mesh.internal");
    let addresses = coordinator.hosts[&db].addresses;
    assert_eq!(names.lookup("db").unwrap().addresses, [addresses]);
    assert_eq!(names.reverse(addresses.v6.into()).unwrap().as_str(), "db");
    assert!(names.lookup("web-1").is_some(), "a host knows its own name");
    assert!(names.lookup("nobody").is_none());
}

#[test]
fn a_change_costs_only_what_it_touches() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.commands();

    let base = coordinator.revision;
    let cache = coordinator.add_host("cache");
    let mut delta = coordinator.delta(base);
    delta.peers = vec![coordinator.entry(cache)];
    host.map(delta);
    let remote = endpoint(cache).address;
    assert_eq!(
        shape(&host.commands()),
        [
            "peer 1".to_owned(),
            format!("path 1 {remote}"),
            "table 1".to_owned()
        ]
    );

    let base = coordinator.revision;
    coordinator.change(db, |record| {
        record
            .labels
            .insert("role".parse().unwrap(), "db".parse().unwrap());
    });
    let mut delta = coordinator.delta(base);
    delta.peers = vec![coordinator.entry(db)];
    host.map(delta);
    assert_eq!(
        shape(&host.commands()),
        ["table 1"],
        "a label moves no tunnel"
    );

    let base = coordinator.revision;
    coordinator.revision.counter += 1;
    let mut delta = coordinator.delta(base);
    let mut moved = coordinator.entry(db);
    moved.endpoints[0].address = "198.51.100.9:51820".parse().unwrap();
    delta.peers = vec![moved];
    host.map(delta);
    assert_eq!(
        shape(&host.commands()),
        ["path 0 198.51.100.9:51820"],
        "hints move no rule"
    );

    let base = coordinator.revision;
    coordinator.apply(bundle_with_service(22));
    let mut delta = coordinator.delta(base);
    delta.policy = Some(coordinator.slice());
    host.map(delta);
    assert_eq!(shape(&host.commands()), ["table 2"]);

    let base = coordinator.revision;
    coordinator.revision.counter += 1;
    let mut delta = coordinator.delta(base);
    delta.tombstones = vec![coordinator.tombstone(db, coordinator.revision)];
    delta.forgotten = vec![cache];
    host.map(delta);
    assert_eq!(shape(&host.commands()), ["remove 0", "remove 1", "table 2"]);
    assert_eq!(host.detail().peers, 0);
}

#[test]
fn generations_rise_and_indices_are_used_again() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    let base = coordinator.revision;
    let cache = coordinator.add_host("cache");
    let mut delta = coordinator.delta(base);
    delta.forgotten = vec![db];
    delta.peers = vec![coordinator.entry(cache)];
    host.map(delta);
    let commands = host.commands();
    let generations: Vec<u64> = commands
        .iter()
        .filter_map(|command| match command {
            Command::SetTable(table) => Some(table.generation()),
            _ => None,
        })
        .collect();
    assert_eq!(generations, [1, 2]);
    assert!(commands.iter().any(|command| matches!(
        command,
        Command::SetPeer { index: PeerIndex(0), key, .. }
            if *key == coordinator.hosts[&cache].wireguard_key
    )));
}

#[test]
fn nothing_is_enforced_before_map_and_marks_are_durable() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    host.said.clear();
    host.holds_writes = true;
    let base = coordinator.revision;
    let db = coordinator.add_host("db");
    let mut delta = coordinator.delta(base);
    delta.peers = vec![coordinator.entry(db)];
    host.map(delta);
    for file in [StateFile::Map, StateFile::HighWater] {
        let writes: Vec<_> = host
            .held
            .iter()
            .map(|(_, write)| write.as_ref().unwrap().0)
            .collect();
        assert_eq!(writes, [file]);
        assert!(host.commands().is_empty() && host.applied().is_empty());
        assert_eq!(host.revision(), Some(base));
        host.write_held();
        host.drain();
    }
    assert!(host.held.is_empty());
    assert_eq!(shape(&host.commands())[0], "peer 0");
    let applied = host.applied();
    assert_eq!(applied.len(), 1);
    assert_eq!(
        (applied[0].revision, &applied[0].error),
        (coordinator.revision, &None)
    );
}

#[test]
fn changes_that_come_while_the_disk_writes_build_on_each_other_and_none_waits_for_ever() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    host.holds_writes = true;
    let mut enforced = Vec::new();
    for number in 0..12 {
        let base = coordinator.revision;
        let id = coordinator.add_host(&format!("host-{number}"));
        let mut delta = coordinator.delta(base);
        delta.peers = vec![coordinator.entry(id)];
        host.map(delta);
        host.write_held();
        host.drain();
        enforced.push(host.revision());
    }
    enforced.dedup();
    assert!(
        enforced.len() >= 4,
        "it keeps up while changes keep coming: {enforced:?}"
    );
    for _ in 0..4 {
        host.write_held();
        host.drain();
    }
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert_eq!(host.detail().peers, 12);
}

#[test]
fn a_duplicate_is_nothing_and_a_gap_asks_for_the_whole_map() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    let base = coordinator.revision;
    coordinator.revision.counter += 1;
    let delta = coordinator.delta(base);
    host.map(delta.clone());
    host.said.clear();
    host.map(delta);
    assert!(host.said.is_empty(), "{:?}", host.said);

    coordinator.revision.counter += 1;
    let lost = coordinator.revision;
    coordinator.revision.counter += 1;
    host.map(coordinator.delta(lost));
    assert!(host.has_said(|output| matches!(output, Output::CloseChannel)));
    host.closed(agent::ChannelErrorKind::Interrupted, "closed as asked");
    assert_eq!(
        host.connect(&coordinator),
        None,
        "it says that it has nothing"
    );
    host.map(coordinator.whole_map(host.id()));
    assert_eq!(host.revision(), Some(coordinator.revision));
}

#[test]
fn hints_are_used_at_once_without_a_revision_and_without_a_disk() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.commands();
    let mut hint = coordinator.delta(coordinator.revision);
    let mut moved = coordinator.entry(db);
    moved.endpoints[0].address = "198.51.100.9:51820".parse().unwrap();
    hint.peers = vec![moved];
    host.disk_error = Some("No space left on device");
    host.map(hint);
    assert_eq!(shape(&host.commands()), ["path 0 198.51.100.9:51820"]);
    host.disk_error = None;
    host.advance(Duration::from_secs(631));
    host.restart();
    assert!(shape(&host.commands()).contains(&"path 0 198.51.100.9:51820".to_owned()));
}

#[test]
fn what_waits_for_the_disk_is_written_by_who_ends() {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.map(moved(&coordinator, 9));
    host.restart();
    let moved_to = "path 0 198.51.100.9:51820".to_owned();
    assert!(
        !shape(&host.commands()).contains(&moved_to),
        "it was cut off"
    );
    host.connect(&coordinator);
    host.map(moved(&coordinator, 9));
    host.end();
    host.restart();
    assert!(shape(&host.commands()).contains(&moved_to));
}

/// A hint that the only peer, which answers at `tail` now, has moved.
fn moved(coordinator: &Coordinator, tail: u8) -> MapDelta {
    let db = *coordinator.hosts.keys().next().unwrap();
    let mut entry = coordinator.entry(db);
    entry.endpoints[0].address = format!("198.51.100.{tail}:51820").parse().unwrap();
    let mut hint = coordinator.delta(coordinator.revision);
    hint.peers = vec![entry];
    hint
}

fn writes(host: &mut Host) -> usize {
    let is_write = |output: &Output| matches!(output, Output::Persist { .. }).then_some(());
    host.take(is_write).len()
}

#[test]
fn a_storm_of_hints_wears_out_no_disk() {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.said.clear();
    for tail in 0..100 {
        host.map(moved(&coordinator, tail));
        host.advance(Duration::from_secs(1));
    }
    assert_eq!(host.commands().len(), 100, "each is used at once");
    let written = writes(&mut host);
    assert!((1..=10).contains(&written), "{written}");
    host.advance(Duration::from_secs(600));
    assert_eq!(writes(&mut host), 1);
    host.advance(Duration::from_secs(600));
    assert_eq!(writes(&mut host), 0);
    host.restart();
    assert!(shape(&host.commands()).contains(&"path 0 198.51.100.99:51820".to_owned()));
}

#[test]
fn hints_that_come_while_the_disk_writes_ask_for_no_other_write() {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.said.clear();
    host.holds_writes = true;
    let base = coordinator.revision;
    coordinator.revision.counter += 1;
    host.map(coordinator.delta(base));
    for tail in 0..100 {
        host.map(moved(&coordinator, tail));
        if tail == 50 {
            host.write_held();
            host.drain();
        }
    }
    host.write_held();
    host.drain();
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert_eq!(shape(&host.commands()), ["path 0 198.51.100.99:51820"]);
    assert_eq!(writes(&mut host), 2, "the map and the marks");
    assert!(host.held.is_empty());
}

#[test]
fn a_reconnect_says_what_is_there_and_brings_only_the_difference() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    host.closed(
        agent::ChannelErrorKind::Interrupted,
        "the coordinator restarts",
    );
    assert_eq!(host.connect(&coordinator), Some(coordinator.revision));
}

#[test]
fn services_are_names_of_their_endpoints_this_host_included() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    coordinator.apply(bundle_with_service(8080));
    let mut host = Host::member_of(&mut coordinator);
    let names = host.take(|output| match output {
        Output::Names(names) => Some(names.clone()),
        _ => None,
    });
    let entry = names.last().unwrap().lookup("orders").unwrap().clone();
    assert_eq!(entry.addresses, [coordinator.hosts[&db].addresses]);
    assert!(matches!(entry.kind, NameKind::Service { port: 8080, .. }));

    let base = coordinator.revision;
    let mut bundle = bundle_with_service(8080);
    bundle.services[0].endpoints = vec![model::rule::Selector::Any];
    coordinator.apply(bundle);
    let mut delta = coordinator.delta(base);
    delta.policy = Some(coordinator.slice());
    host.map(delta);
    let names = host.take(|output| match output {
        Output::Names(names) => Some(names.clone()),
        _ => None,
    });
    assert_eq!(
        names
            .last()
            .unwrap()
            .lookup("orders")
            .unwrap()
            .addresses
            .len(),
        2
    );
}

#[test]
fn a_new_trust_statement_is_believed_written_down_and_used() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    let previous = trust::sha256(&coordinator.trust().payload);
    coordinator.statement.serial += 1;
    coordinator.statement.dns_suffix = "example.internal".to_owned();
    coordinator.statement.previous = Some(previous);
    host.closed(
        agent::ChannelErrorKind::Interrupted,
        "the coordinator restarts",
    );
    host.connect(&coordinator);
    assert_eq!(host.detail().dns_suffix, "example.internal");
    host.restart();
    assert_eq!(host.detail().dns_suffix, "example.internal");
}

#[test]
fn where_a_new_peer_may_be_is_on_the_disk_soon() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::member_of(&mut coordinator);
    let base = coordinator.revision;
    let cache = coordinator.add_host("cache");
    let mut delta = coordinator.delta(base);
    delta.peers = vec![coordinator.entry(cache)];
    delta.peers[0].endpoints.clear();
    host.map(delta);
    let mut hint = coordinator.delta(coordinator.revision);
    hint.peers = vec![coordinator.entry(cache)];
    host.map(hint);
    host.advance(Duration::from_secs(2));
    host.restart();
    let candidates = &host.agent.peers(host.now)[0].candidates;
    assert_eq!(candidates[..], [endpoint(cache).address]);
}

#[test]
fn where_a_peer_moved_is_on_the_disk_before_long() {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.map(moved(&coordinator, 9));
    host.advance(Duration::from_secs(11));
    host.restart();
    assert!(shape(&host.commands()).contains(&"path 0 198.51.100.9:51820".to_owned()));
}

/// A policy of three services, and what leads from it to one in which one of them is elsewhere.
fn step() -> (Coordinator, Host, MapDelta) {
    let services = |port: u16| {
        let mut bundle = bundle_with_service(22);
        for (name, port) in [("db", 5432), ("cache", port)] {
            let mut service = bundle.services[0].clone();
            service.name = name.parse().unwrap();
            service.port = port;
            bundle.services.push(service);
        }
        bundle
    };
    let mut coordinator = Coordinator::new(1);
    coordinator.apply(services(6379));
    let mut host = Host::member_of(&mut coordinator);
    let (before, base) = (BundleTree::new(&coordinator.bundle), coordinator.revision);
    coordinator.apply(services(6380));
    let after = BundleTree::new(&coordinator.bundle);
    let all: Vec<u32> = (0..after.leaf_count()).collect();
    let head = coordinator.slice().head;
    let mut delta = coordinator.delta(base);
    delta.policy_step = Some(Arc::new(step_between(
        (&before, &all),
        (&after, &all),
        head,
    )));
    host.said.clear();
    (coordinator, host, delta)
}

#[test]
fn a_step_of_the_policy_is_as_good_as_the_whole_and_survives_a_restart() {
    let (coordinator, mut host, delta) = step();
    let sent = delta.policy_step.as_ref().unwrap();
    assert_eq!(sent.leaves.len(), 1, "only the service that changed");
    host.map(delta);
    assert_eq!(host.revision(), Some(coordinator.revision));
    host.restart();
    assert_eq!(host.revision(), Some(coordinator.revision));
    host.told(ToHost::Recall);
    let told = host.sent(|message| match message {
        FromHost::Memory(part) => part.policy.clone(),
        _ => None,
    });
    assert_eq!(told, [coordinator.slice()]);
}

#[test]
fn a_step_that_leads_elsewhere_changes_nothing() {
    let spoil: [fn(&mut PolicyStep); 5] = [
        |step| step.dropped.push(0),
        |step| step.leaves[0].leaf.push(0),
        |step| step.leaves.clear(),
        |step| step.nodes.clear(),
        |step| step.head.payload[0] ^= 1,
    ];
    for spoil in spoil {
        let (_, mut host, mut delta) = step();
        let before = host.revision();
        spoil(Arc::make_mut(delta.policy_step.as_mut().unwrap()));
        host.map(delta);
        assert_eq!(host.revision(), before);
        assert!(host.commands().is_empty());
    }
}

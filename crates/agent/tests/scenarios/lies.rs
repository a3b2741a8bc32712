//! A coordinator that lies, errs or was restored from a backup: nothing of it is enforced, the
//! host keeps what it has, says so, and comes back ever more slowly.

use std::time::Duration;

use agent::{ChannelErrorKind, Output};
use model::ids::{Digest, Revision};
use model::key::WireguardKey;
use model::local::HostState;
use model::map::MapDelta;

use crate::coordinator::{Coordinator, bundle_with_service};
use crate::host::Host;

/// Sends a lie to a member and checks that it changes nothing and is reported as `expected`.
fn is_refused(coordinator: &mut Coordinator, host: &mut Host, lie: MapDelta, expected: &str) {
    let before = (host.revision(), host.detail().policy, host.detail().peers);
    host.said.clear();
    host.map(lie);
    assert_eq!(
        (host.revision(), host.detail().policy, host.detail().peers),
        before
    );
    assert!(host.commands().is_empty());
    let alarms = host.detail().alarms;
    assert!(
        alarms.iter().any(|alarm| alarm.contains(expected)),
        "{expected}: {alarms:#?}"
    );
    let applied = host.applied();
    assert!(
        applied
            .iter()
            .any(|it| it.error.as_ref().is_some_and(|why| why.contains(expected)))
    );
    assert!(host.has_said(|output| matches!(output, Output::CloseChannel)));
    host.closed(ChannelErrorKind::Interrupted, "closed as asked");
    // The truth mends it: after a wait, with a whole map.
    assert_eq!(host.connect(coordinator), None);
    coordinator.revision.counter += 1;
    host.map(coordinator.whole_map(host.id()));
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert!(
        host.detail().alarms.is_empty(),
        "{:?}",
        host.detail().alarms
    );
}

fn member() -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let host = Host::member_of(&mut coordinator);
    (coordinator, host)
}

fn next_whole_map(coordinator: &mut Coordinator, host: &Host) -> MapDelta {
    coordinator.revision.counter += 1;
    coordinator.whole_map(host.id())
}

#[test]
fn a_bad_signature_is_refused() {
    let (mut coordinator, mut host) = member();
    let mut lie = next_whole_map(&mut coordinator, &host);
    *lie.peers[0].record.payload.last_mut().unwrap() ^= 1;
    is_refused(
        &mut coordinator,
        &mut host,
        lie,
        "a peer's record does not hold",
    );
}

#[test]
fn another_fleet_s_records_are_refused() {
    let (mut coordinator, mut host) = member();
    let mut other = Coordinator::new(2);
    let foreign = other.add_host("foreign");
    let mut lie = next_whole_map(&mut coordinator, &host);
    lie.peers.push(other.entry(foreign));
    is_refused(&mut coordinator, &mut host, lie, "does not hold");
}

#[test]
fn a_revision_that_goes_back_is_refused_with_a_guess_at_the_cause() {
    let (mut coordinator, mut host) = member();
    let mut lie = coordinator.whole_map(host.id());
    lie.revision = Revision::new(1, coordinator.revision.counter - 1);
    lie.head = Some(coordinator.map_head(lie.revision));
    is_refused(&mut coordinator, &mut host, lie, "restored from a backup");
}

#[test]
fn a_revision_that_the_fleet_did_not_reach_pins_nobody() {
    let (mut coordinator, mut host) = member();
    let far = Revision::new(u64::MAX, u64::MAX);
    let signed = coordinator.map_head(coordinator.revision);
    let foreign = Coordinator::new(2).map_head(far);
    for (head, expected) in [
        (None, "its revision is not signed"),
        (Some(signed), "is signed"),
        (Some(foreign), "its revision does not hold"),
    ] {
        let mut lie = next_whole_map(&mut coordinator, &host);
        (lie.revision, lie.head) = (far, head.clone());
        is_refused(&mut coordinator, &mut host, lie, expected);
        let mut lie = coordinator.delta(coordinator.revision);
        (lie.revision, lie.head) = (far, head);
        is_refused(&mut coordinator, &mut host, lie, expected);
        // Also not after a restart: nothing of it was written down.
        host.restart();
        host.connect(&coordinator);
    }
}

#[test]
fn an_older_record_of_a_peer_is_refused() {
    let (mut coordinator, mut host) = member();
    let db = host.agent.peers(host.now)[0].id;
    let old = coordinator.entry(db);
    let base = coordinator.revision;
    coordinator.change(db, |record| {
        record
            .labels
            .insert("role".parse().unwrap(), "db".parse().unwrap());
    });
    let mut delta = coordinator.delta(base);
    delta.peers = vec![coordinator.entry(db)];
    host.map(delta);
    let mut lie = next_whole_map(&mut coordinator, &host);
    lie.peers = vec![old];
    is_refused(
        &mut coordinator,
        &mut host,
        lie,
        "its record of db is at revision",
    );
}

#[test]
fn a_slice_without_the_denies_is_refused() {
    let (mut coordinator, mut host) = member();
    let mut lie = next_whole_map(&mut coordinator, &host);
    lie.policy.as_mut().unwrap().leaves.remove(0);
    is_refused(&mut coordinator, &mut host, lie, "the policy does not hold");
}

#[test]
fn an_older_policy_is_refused() {
    let (mut coordinator, mut host) = member();
    let old = coordinator.slice();
    let base = coordinator.revision;
    coordinator.apply(bundle_with_service(22));
    let mut delta = coordinator.delta(base);
    delta.policy = Some(coordinator.slice());
    host.map(delta);
    let mut lie = next_whole_map(&mut coordinator, &host);
    lie.policy = Some(old);
    is_refused(&mut coordinator, &mut host, lie, "older than version 2");
}

#[test]
fn a_record_of_this_host_with_another_key_is_refused() {
    let (mut coordinator, mut host) = member();
    let me = host.id();
    let right = coordinator.hosts[&me].clone();
    coordinator.change(me, |record| {
        record.wireguard_key = WireguardKey::from_bytes([0xee; 32])
    });
    let lie = coordinator.whole_map(me);
    coordinator.hosts.insert(me, right);
    is_refused(
        &mut coordinator,
        &mut host,
        lie,
        "keys that this host does not have",
    );
}

#[test]
fn somebody_else_s_record_as_this_host_s_is_refused() {
    let (mut coordinator, mut host) = member();
    let db = host.agent.peers(host.now)[0].id;
    let mut lie = next_whole_map(&mut coordinator, &host);
    lie.record = Some(coordinator.entry(db).record);
    is_refused(&mut coordinator, &mut host, lie, "is that of db");
}

#[test]
fn two_hosts_with_one_key_are_refused() {
    let (mut coordinator, mut host) = member();
    let db = host.agent.peers(host.now)[0].id;
    let key = coordinator.hosts[&db].wireguard_key;
    let twin = coordinator.add_host("twin");
    coordinator.change(twin, |record| record.wireguard_key = key);
    let lie = coordinator.whole_map(host.id());
    coordinator.hosts.remove(&twin);
    is_refused(
        &mut coordinator,
        &mut host,
        lie,
        "share a name, a key or an address",
    );
}

#[test]
fn a_map_without_the_own_record_or_the_policy_is_refused() {
    let (mut coordinator, mut host) = member();
    let mut lie = next_whole_map(&mut coordinator, &host);
    lie.record = None;
    is_refused(
        &mut coordinator,
        &mut host,
        lie,
        "lacks this host's own record",
    );
    let mut lie = next_whole_map(&mut coordinator, &host);
    lie.policy = None;
    is_refused(&mut coordinator, &mut host, lie, "lacks the policy");
}

#[test]
fn more_than_a_hint_without_a_new_revision_is_refused() {
    let (mut coordinator, mut host) = member();
    let mut lie = coordinator.delta(coordinator.revision);
    lie.policy = Some(coordinator.slice());
    is_refused(
        &mut coordinator,
        &mut host,
        lie,
        "changes more than where peers may be",
    );
    let mut lie = coordinator.delta(coordinator.revision);
    lie.forgotten = vec![host.agent.peers(host.now)[0].id];
    is_refused(
        &mut coordinator,
        &mut host,
        lie,
        "changes more than where peers may be",
    );
}

#[test]
fn a_tombstone_beats_a_record_that_comes_with_it_or_after_it() {
    let (mut coordinator, mut host) = member();
    let db = host.agent.peers(host.now)[0].id;
    let entry = coordinator.entry(db);
    let base = coordinator.revision;
    coordinator.revision.counter += 1;
    let mut delta = coordinator.delta(base);
    delta.tombstones = vec![coordinator.tombstone(db, coordinator.revision)];
    delta.peers = vec![entry.clone()];
    host.map(delta);
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert_eq!(host.detail().peers, 0);

    // Replayed in a whole map, and after a restart.
    host.restart();
    host.connect(&coordinator);
    let mut whole = next_whole_map(&mut coordinator, &host);
    whole.peers = vec![entry];
    host.map(whole);
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert_eq!(host.detail().peers, 0);
}

#[test]
fn another_policy_of_the_same_version_is_refused() {
    let (mut coordinator, mut host) = member();
    let truth = std::mem::replace(&mut coordinator.bundle, bundle_with_service(22));
    let lie = next_whole_map(&mut coordinator, &host);
    coordinator.bundle = truth;
    is_refused(
        &mut coordinator,
        &mut host,
        lie,
        "another policy version 1 than the one that was in force here",
    );
}

#[test]
fn a_policy_that_follows_another_one_is_refused_also_without_the_map() {
    let (mut coordinator, mut host) = member();
    coordinator.apply(bundle_with_service(22));
    let truth = coordinator.previous;
    coordinator.previous = Some(Digest::from_bytes([9; 32]));
    let lie = next_whole_map(&mut coordinator, &host);
    coordinator.previous = truth;
    let expected = "was made after another version 1";
    is_refused(&mut coordinator, &mut host, lie, expected);
    assert_eq!(host.detail().policy, Some(coordinator.policy));

    // The marks alone remember what was believed.
    host.disk.map = None;
    host.restart();
    host.connect(&coordinator);
    coordinator.apply(bundle_with_service(23));
    coordinator.previous = None;
    let lie = next_whole_map(&mut coordinator, &host);
    host.map(lie);
    assert_eq!(host.revision(), None);
    let alarms = host.detail().alarms;
    let is_told = alarms
        .iter()
        .any(|alarm| alarm.contains("was made after another version 2"));
    assert!(is_told, "{alarms:?}");
}

#[test]
fn a_record_does_not_go_back_by_being_forgotten() {
    let (mut coordinator, mut host) = member();
    let db = host.agent.peers(host.now)[0].id;
    let old = coordinator.entry(db);
    coordinator.change(db, |record| {
        record.wireguard_key = WireguardKey::from_bytes([0xcc; 32]);
    });
    let whole = coordinator.whole_map(host.id());
    host.map(whole);

    let base = coordinator.revision;
    coordinator.revision.counter += 1;
    let mut forgetting = coordinator.delta(base);
    forgetting.forgotten = vec![db];
    host.map(forgetting);
    for restarts in 0..2 {
        let base = coordinator.revision;
        coordinator.revision.counter += 1;
        let mut replay = coordinator.delta(base);
        replay.peers = vec![old.clone()];
        host.map(replay);
        assert_eq!(host.revision(), Some(coordinator.revision));
        assert_eq!(host.detail().peers, 0, "after {restarts} restarts");
        host.notice_with("the coordinator's record of db is older");
        host.restart();
        host.connect(&coordinator);
    }

    // A whole map that leaves it out forgets it too, and the latest record comes back.
    let mut whole = next_whole_map(&mut coordinator, &host);
    host.map(whole.clone());
    assert_eq!(host.detail().peers, 1);
    for peers in [Vec::new(), vec![old]] {
        whole = next_whole_map(&mut coordinator, &host);
        whole.peers = peers;
        host.map(whole);
        assert_eq!(host.revision(), Some(coordinator.revision));
        assert_eq!(host.detail().peers, 0);
    }
}

#[test]
fn a_liar_is_asked_ever_more_rarely() {
    let (mut coordinator, mut host) = member();
    let mut lie = next_whole_map(&mut coordinator, &host);
    lie.record = None;
    for _ in 0..8 {
        host.map(lie.clone());
        host.closed(ChannelErrorKind::Interrupted, "closed as asked");
        host.connect(&coordinator);
    }
    let start = host.now.monotonic;
    host.map(lie);
    host.closed(ChannelErrorKind::Interrupted, "closed as asked");
    host.connect(&coordinator);
    assert!(host.now.monotonic - start <= Duration::from_secs(600));
    assert!(host.now.monotonic.since_start() > Duration::from_secs(60));
    assert_eq!(host.state(), HostState::Online);
}

#[test]
fn a_trust_statement_of_another_authority_is_refused() {
    let (coordinator, mut host) = member();
    let other = Coordinator::new(2);
    host.closed(ChannelErrorKind::Interrupted, "the coordinator restarts");
    host.connect(&other);
    assert_eq!(host.state(), HostState::Autonomous);
    assert!(host.detail().alarms[0].contains("trust statement does not hold"));
    host.closed(ChannelErrorKind::Interrupted, "closed as asked");
    host.connect(&coordinator);
    assert!(host.detail().alarms.is_empty());
}

#[test]
fn a_map_before_the_welcome_means_nothing() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::new();
    host.enrol(&mut coordinator);
    host.advance(Duration::ZERO);
    let map = coordinator.whole_map(host.id());
    host.map(map);
    assert_eq!(host.revision(), None);
}

//! Leaving and being removed: what is taken down, what is kept, who is told.

use std::time::Duration;

use agent::{ChannelErrorKind, Output, Reply, StoredFiles};
use dataplane::Command;
use model::control::{FromHost, Goodbye, RefusalCode, ToHost};
use model::ids::Revision;
use model::local::HostState;
use model::record::Signed;

use crate::coordinator::Coordinator;
use crate::host::Host;

fn member() -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.said.clear();
    (coordinator, host)
}

/// A coordinator ends the stream, and shows this for a removal.
fn goodbye(tombstone: Option<Signed>) -> ToHost {
    ToHost::Goodbye(Goodbye {
        reason: "as you wish".to_owned(),
        retry_after: Duration::ZERO,
        tombstone,
    })
}

fn is_taken_down(host: &mut Host) {
    let commands = host.commands();
    assert!(matches!(
        commands[..],
        [Command::RemovePeer { .. }, Command::SetTable(_)]
    ));
    assert!(host.has_said(|output| matches!(output, Output::Interface(None))));
    assert!(host.has_said(|output| matches!(output, Output::Names(names) if names.is_empty())));
    assert!(host.agent.peers(host.now).is_empty());
}

fn left(host: &mut Host, request: agent::RequestId) -> bool {
    match host.reply(request) {
        Some(Ok(Reply::Left(left))) => left.coordinator_told,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leave_tells_the_coordinator_and_erases_everything() {
    let (mut coordinator, mut host) = member();
    let farewell = coordinator.goodbye_for_ever(host.id());
    let request = host.leave();
    assert!(host.has_said(|output| matches!(output, Output::Send(FromHost::Leave))));
    assert_eq!(host.reply(request), None, "it waits for the coordinator");
    host.told(farewell);
    is_taken_down(&mut host);
    assert!(left(&mut host, request));
    assert_eq!(host.state(), HostState::Unenrolled);
    assert!(host.disk.identity.is_none() && host.disk.map.is_none());
    host.closed(ChannelErrorKind::Interrupted, "closed as asked");
    host.advance(Duration::from_secs(600));
    assert!(!host.has_said(|output| matches!(output, Output::OpenSync { .. })));
}

#[test]
fn a_silent_coordinator_delays_a_leave_by_three_seconds() {
    let (_, mut host) = member();
    let request = host.leave();
    host.advance(Duration::from_millis(2900));
    assert_eq!(host.reply(request), None);
    host.advance(Duration::from_millis(200));
    assert!(!left(&mut host, request));
    is_taken_down(&mut host);
}

#[test]
fn without_a_coordinator_a_leave_is_at_once() {
    let (_, mut host) = member();
    host.closed(ChannelErrorKind::Unreachable, "gone");
    let request = host.leave();
    assert!(!left(&mut host, request));
    is_taken_down(&mut host);
}

#[test]
fn after_a_leave_the_host_can_join_another_fleet() {
    let (_, mut host) = member();
    host.closed(ChannelErrorKind::Unreachable, "gone");
    host.leave();
    let mut other = Coordinator::new(2);
    host.enrol(&mut other);
    host.connect(&other);
    host.map(other.whole_map(host.id()));
    assert_eq!(
        host.revision(),
        Some(other.revision),
        "its revisions start anew"
    );
    host.restart();
    assert_eq!(host.revision(), Some(other.revision));
}

#[test]
fn who_is_no_member_has_nothing_to_leave() {
    let mut host = Host::new();
    let request = host.leave();
    let refusal = host.reply(request).unwrap().unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotFound);
}

#[test]
fn a_leave_gives_up_a_join() {
    let coordinator = Coordinator::new(1);
    let mut host = Host::new();
    let join = host.join(&coordinator.token());
    let request = host.leave();
    assert!(
        host.reply(join)
            .unwrap()
            .unwrap_err()
            .message
            .contains("given up")
    );
    assert!(!left(&mut host, request));
    assert_eq!(host.state(), HostState::Unenrolled);
}

#[test]
fn a_state_directory_that_cannot_be_erased_is_named() {
    let (_, mut host) = member();
    host.closed(ChannelErrorKind::Unreachable, "gone");
    host.disk_error = Some("Read-only file system");
    let request = host.leave();
    let refusal = host.reply(request).unwrap().unwrap_err();
    assert!(
        refusal.message.contains("Read-only file system"),
        "{refusal}"
    );
    assert!(refusal.message.contains("by hand"), "{refusal}");
}

#[test]
fn a_removed_host_drops_everything_says_so_and_remembers_it() {
    let (mut coordinator, mut host) = member();
    host.told(coordinator.goodbye_for_ever(host.id()));
    is_taken_down(&mut host);
    assert_eq!(host.state(), HostState::Removed);
    let notice = host.notice_with("was removed from fleet prod");
    assert!(
        notice.contains("meshctl join") && notice.contains("meshctl leave"),
        "{notice}"
    );
    assert!(host.disk.identity.is_some());

    host.restart();
    assert_eq!(host.state(), HostState::Removed);
    assert!(host.commands().is_empty() && !host.has_said(|o| matches!(o, Output::Interface(_))));
    assert!(host.detail().alarms[0].contains("taken out of service"));
    host.advance(Duration::from_secs(600));
    assert!(!host.has_said(|output| matches!(output, Output::OpenSync { .. })));
}

#[test]
fn a_removed_host_joins_again_with_new_keys_also_another_fleet() {
    for seed in [1, 2] {
        let (mut first, mut host) = member();
        let old = first.hosts[&host.id()].wireguard_key;
        let removed = host.id();
        host.told(first.goodbye_for_ever(removed));
        first.hosts.remove(&removed);
        let mut other = Coordinator::new(2);
        let next = if seed == 1 { &mut first } else { &mut other };
        host.said.clear();
        host.enrol(next);
        host.connect(next);
        host.map(next.whole_map(host.id()));
        assert_eq!(host.revision(), Some(next.revision));
        assert_ne!(next.hosts[&host.id()].wireguard_key, old);
    }
}

#[test]
fn a_tombstone_of_this_host_removes_it_too() {
    let (mut coordinator, mut host) = member();
    let base = coordinator.revision;
    coordinator.revision.counter += 1;
    let mut delta = coordinator.delta(base);
    delta.tombstones = vec![coordinator.tombstone(host.id(), coordinator.revision)];
    host.map(delta);
    assert_eq!(host.state(), HostState::Removed);
    let request = host.leave();
    assert!(left(&mut host, request), "who removed it knows");
    assert_eq!(host.disk.identity, StoredFiles::default().identity);
}

/// Tells a member goodbye with this for a removal, and checks that it believes none of it.
fn is_not_removed_by(host: &mut Host, tombstone: Option<Signed>) {
    let before = (host.revision(), host.detail().peers);
    host.told(goodbye(tombstone));
    assert_eq!(host.state(), HostState::Autonomous);
    assert_eq!((host.revision(), host.detail().peers), before);
    assert!(host.commands().is_empty());
    host.closed(ChannelErrorKind::Interrupted, "closed as asked");
}

#[test]
fn only_the_fleet_s_signature_removes_a_host() {
    let (mut coordinator, mut host) = member();
    let me = host.id();
    let later = Revision::new(1, coordinator.revision.counter + 1);
    let peer = host.agent.peers(host.now)[0].id;
    let other_fleet = Coordinator::new(2);
    let mut changed = coordinator.tombstone(me, later);
    *changed.payload.last_mut().unwrap() ^= 1;
    for lie in [
        None,
        Some(changed),
        Some(other_fleet.tombstone(me, later)),
        Some(coordinator.tombstone(peer, later)),
    ] {
        is_not_removed_by(&mut host, lie);
        host.connect(&coordinator);
    }
    host.restart();
    host.connect(&coordinator);
    assert_eq!(host.state(), HostState::Online);
    host.told(coordinator.goodbye_for_ever(me));
    assert_eq!(host.state(), HostState::Removed);
}

#[test]
fn an_old_tombstone_holds_against_a_later_record() {
    // Ids are never given twice: a coordinator that was restored did not know of the removal, and
    // signed another record of this host.
    let (coordinator, mut host) = member();
    let me = host.id();
    host.told(goodbye(Some(
        coordinator.tombstone(me, Revision::new(1, 0)),
    )));
    assert_eq!(host.state(), HostState::Removed);
}

#[test]
fn a_removed_host_that_lost_its_map_learns_the_keys_first() {
    let (mut coordinator, mut host) = member();
    let me = host.id();
    host.disk.map = None;
    host.restart();
    let farewell = coordinator.goodbye_for_ever(me);
    // As the coordinator does it: it welcomes, and says goodbye.
    host.connect(&coordinator);
    host.told(farewell);
    assert_eq!(host.state(), HostState::Removed);
}

#[test]
fn silence_removes_nothing() {
    let (coordinator, mut host) = member();
    host.closed(ChannelErrorKind::Unreachable, "gone");
    for _ in 0..200 {
        host.advance(Duration::from_secs(3600));
        host.closed(ChannelErrorKind::Unreachable, "gone");
    }
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert_eq!(host.detail().peers, 1);
    assert!(host.commands().is_empty());
    assert!(
        host.detail().alarms[0].contains("expired"),
        "it only says that it cannot renew"
    );
}

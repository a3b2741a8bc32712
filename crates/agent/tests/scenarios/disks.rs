//! A disk that is full: nothing is enforced that is not on it, everybody is told, and when there is
//! room again everything goes on by itself.

use std::time::Duration;

use agent::{ChannelErrorKind, ChannelEvent, StateFile};
use dataplane::Event;
use model::control::{FromHost, NewKey, ToHost};
use model::local::HostState;
use model::time::UnixTime;

use crate::coordinator::Coordinator;
use crate::host::{Host, NO_SPACE};

fn member() -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let host = Host::member_of(&mut coordinator);
    (coordinator, host)
}

#[test]
fn a_full_disk_enforces_nothing_alarms_and_goes_on_when_there_is_room() {
    let (mut coordinator, mut host) = member();
    host.said.clear();
    let before = host.revision();
    host.disk_error = Some("No space left on device");
    for number in 0..3 {
        let base = coordinator.revision;
        let id = coordinator.add_host(&format!("host-{number}"));
        let mut delta = coordinator.delta(base);
        delta.peers = vec![coordinator.entry(id)];
        host.map(delta);
    }
    assert_eq!(host.revision(), before);
    assert!(host.commands().is_empty());
    let alarms = host.detail().alarms;
    assert!(alarms[0].contains("No space left on device"), "{alarms:?}");
    let reported = host.applied();
    assert!(
        reported
            .iter()
            .all(|applied| Some(applied.revision) == before)
    );
    assert!(
        reported[0]
            .error
            .as_ref()
            .unwrap()
            .contains("No space left")
    );

    host.disk_error = None;
    host.advance(Duration::from_secs(31));
    assert_eq!(
        host.revision(),
        Some(coordinator.revision),
        "also what came meanwhile"
    );
    assert!(host.detail().alarms.is_empty());
}

#[test]
fn a_crash_with_a_full_disk_comes_back_with_the_old_map() {
    let (mut coordinator, mut host) = member();
    let before = host.revision();
    host.disk_error = Some("No space left on device");
    let base = coordinator.revision;
    let id = coordinator.add_host("cache");
    let mut delta = coordinator.delta(base);
    delta.peers = vec![coordinator.entry(id)];
    host.map(delta);
    host.restart();
    assert_eq!(host.revision(), before);
    assert_eq!(host.detail().peers, 1);
}

#[test]
fn timestamps_that_the_shard_used_are_written_down_and_given_back() {
    let (_, mut host) = member();
    let used = UnixTime::from_secs(1_900_000_000);
    host.shard(Event::TimestampUsed(used));
    host.shard(Event::TimestampUsed(UnixTime::from_secs(5)));
    assert!(host.has_said(|output| matches!(
        output,
        agent::Output::Persist {
            file: StateFile::HighWater,
            ..
        }
    )));
    host.restart();
    let floors: Vec<UnixTime> = host
        .commands()
        .iter()
        .filter_map(|command| match command {
            dataplane::Command::SetIdentity {
                timestamp_floor, ..
            } => Some(*timestamp_floor),
            _ => None,
        })
        .collect();
    assert_eq!(floors, [used]);
}

#[test]
fn the_shard_begins_when_its_first_dates_are_on_the_disk_or_the_disk_does_not_work() {
    let began = |host: &mut Host| !host.commands().is_empty();
    for error in [None, Some(NO_SPACE)] {
        let (_, mut host) = member();
        host.holds_writes = true;
        host.restart();
        assert!(!began(&mut host));
        host.disk_error = error;
        host.write_held();
        host.drain();
        assert!(began(&mut host), "{error:?}");
    }
}

#[test]
fn dates_are_reserved_although_the_shard_s_word_was_lost() {
    let (coordinator, mut host) = member();
    host.connect(&coordinator);
    host.advance(Duration::from_secs(6 * 3600));
    let used = host.now.unix;
    // A crash, and a clock that was set back a year by it.
    host.now.unix = UnixTime::from_secs(used.since_epoch().as_secs() - 365 * 86_400);
    host.restart();
    let floor = host
        .commands()
        .into_iter()
        .find_map(|command| match command {
            dataplane::Command::SetIdentity {
                timestamp_floor, ..
            } => Some(timestamp_floor),
            _ => None,
        });
    assert!(floor.unwrap() > used);
}

/// Joins, and again when the disk did not take what a join needs.
fn join(host: &mut Host, coordinator: &mut Coordinator) {
    for _ in 0..2 {
        let request = host.join(&coordinator.token());
        host.channel(ChannelEvent::Described(Ok(coordinator.description())));
        match host.reply(request) {
            Some(Err(refusal)) => assert!(refusal.message.contains(NO_SPACE), "{refusal}"),
            Some(other) => panic!("{other:?}"),
            None => return host.answer_enrol(coordinator),
        }
    }
    panic!("there is space for the second");
}

/// Time for what failed to be written again.
fn wait(host: &mut Host, coordinator: &Coordinator) {
    host.advance(Duration::from_secs(31));
    if host.state() == HostState::Autonomous {
        host.connect(coordinator);
    }
}

fn sent_key(host: &mut Host) -> NewKey {
    let offers = host.sent(|message| match message {
        FromHost::NewKey(new) => Some(*new),
        _ => None,
    });
    *offers.last().expect("it offers the key")
}

/// The life of a host, with no space at one of its writes.
fn live(fails_after: usize) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut host = Host::new();
    host.fails_after = Some(fails_after);
    join(&mut host, &mut coordinator);
    wait(&mut host, &coordinator);
    host.map(coordinator.whole_map(host.id()));
    wait(&mut host, &coordinator);
    assert_eq!(host.revision(), Some(coordinator.revision));

    let base = coordinator.revision;
    let cache = coordinator.add_host("cache");
    let mut delta = coordinator.delta(base);
    delta.peers = vec![coordinator.entry(cache)];
    host.map(delta);
    wait(&mut host, &coordinator);
    assert_eq!(host.detail().peers, 2);

    let half_a_life = Duration::from_secs(14 * 3600);
    coordinator.clock = coordinator.clock + half_a_life;
    host.now.unix = host.now.unix + half_a_life;
    host.now.monotonic += half_a_life;
    host.closed(ChannelErrorKind::Interrupted, "the machine slept");
    host.connect(&coordinator);
    let me = coordinator.hosts[&host.id()].clone();
    let requests = host.sent(|message| match message {
        FromHost::Renew(request) => Some(request.clone()),
        _ => None,
    });
    let chain = coordinator.certify(&me, requests.last().expect("it renews"));
    host.told(ToHost::Certificate(Ok(chain)));
    wait(&mut host, &coordinator);
    let expires = host.detail().certificate_expires_secs;

    host.rotate();
    wait(&mut host, &coordinator);
    let new = sent_key(&mut host);
    coordinator.change(me.host, |record| record.wireguard_key = new.wireguard_key);
    host.map(coordinator.whole_map(me.host));
    wait(&mut host, &coordinator);
    assert!(host.detail().alarms.is_empty(), "{fails_after}");

    let revision = host.revision();
    host.restart();
    assert_eq!(host.revision(), revision, "{fails_after}");
    assert_eq!(host.detail().certificate_expires_secs, expires);
    assert_eq!(host.detail().peers, 2);
    let request = host.leave();
    match host.reply(request) {
        Some(Ok(_)) => assert!(host.disk.identity.is_none()),
        Some(Err(refusal)) => assert!(refusal.message.contains("by hand"), "{refusal}"),
        None => panic!("a leave is answered"),
    }
}

#[test]
fn no_space_at_any_one_write_of_a_life_costs_a_wait_and_nothing_else() {
    for fails_after in 0..24 {
        live(fails_after);
    }
}

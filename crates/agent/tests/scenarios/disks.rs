//! A disk that is full: nothing is enforced that is not on it, everybody is told, and when there is
//! room again everything goes on by itself.

use std::time::Duration;

use agent::StateFile;
use dataplane::Event;
use model::time::UnixTime;

use crate::coordinator::Coordinator;
use crate::host::Host;

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

//! The host's WireGuard key changes: at every step what is on the disk is enough to go on, peers that
//! know either key are answered, and nobody but the fleet's record decides which is the one.

use std::time::Duration;

use agent::{ChannelErrorKind, Reply, RequestId};
use dataplane::Command;
use model::control::{FromHost, NewKey, RefusalCode, ToHost};
use model::key::WireguardKey;
use model::local::KeyRotated;
use model::map::MapDelta;
use trust::enrolment::wireguard_public;
use trust::key_change::KeyChange;

use crate::coordinator::Coordinator;
use crate::host::Host;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn member() -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.said.clear();
    (coordinator, host)
}

fn offers(host: &mut Host) -> Vec<NewKey> {
    host.sent(|message| match message {
        FromHost::NewKey(new) => Some(*new),
        _ => None,
    })
}

/// Believes the proof and makes the record, as the coordinator does; returns the change of the map.
fn grant(coordinator: &mut Coordinator, host: &Host, new: NewKey) -> MapDelta {
    let (me, base) = (host.id(), coordinator.revision);
    let change = KeyChange {
        fleet: coordinator.statement.fleet,
        host: me,
        wireguard_key: new.wireguard_key,
    };
    coordinator
        .authority
        .verify_key_change(&change, &new.proof)
        .unwrap();
    coordinator.change(me, |record| record.wireguard_key = new.wireguard_key);
    let mut delta = coordinator.delta(base);
    delta.record = Some(coordinator.authority.sign_record(&coordinator.hosts[&me]));
    delta
}

fn rotated(host: &mut Host, request: RequestId) -> Option<KeyRotated> {
    match host.reply(request)? {
        Ok(Reply::KeyRotated(rotated)) => Some(rotated),
        other => panic!("{other:?}"),
    }
}

/// The key that the shard initiates with, and the one that it answers to as well, as told last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    own: Option<WireguardKey>,
    spare: Option<WireguardKey>,
}

impl Told {
    fn follow(&mut self, host: &mut Host) {
        for command in host.commands() {
            match command {
                Command::SetIdentity { private_key, .. } => {
                    self.own = Some(wireguard_public(&private_key));
                }
                Command::AcceptKey(key) => self.spare = key.map(|key| wireguard_public(&key)),
                _ => {}
            }
        }
    }
}

#[test]
fn a_key_changes_with_both_accepted_until_a_day_later() {
    let (mut coordinator, mut host) = member();
    let first = coordinator.hosts[&host.id()].wireguard_key;
    let request = host.rotate();
    let mut told = Told::default();
    told.follow(&mut host);
    let new = offers(&mut host).pop().unwrap();
    assert_eq!(
        told.spare,
        Some(new.wireguard_key),
        "peers may hear of it before this host does"
    );
    assert_eq!(rotated(&mut host, request), None, "it waits for the record");
    let delta = grant(&mut coordinator, &host, new);
    host.map(delta);
    told.follow(&mut host);
    let expected = Told {
        own: Some(new.wireguard_key),
        spare: Some(first),
    };
    assert_eq!(told, expected);
    let answer = rotated(&mut host, request).unwrap();
    assert_eq!(
        (answer.wireguard_key, answer.next),
        (new.wireguard_key, None)
    );
    host.advance(DAY - Duration::from_secs(3600));
    told.follow(&mut host);
    assert_eq!(told, expected);
    host.advance(Duration::from_secs(2 * 3600));
    told.follow(&mut host);
    assert_eq!(told.spare, None);
    host.restart();
    let mut after = Told::default();
    after.follow(&mut host);
    let own = Some(new.wireguard_key);
    assert_eq!(after, Told { own, spare: None });
}

/// A stop after each write, and before it: the host goes on with the same keys.
#[test]
fn a_stop_at_any_write_of_a_change_loses_nothing() {
    for stop_after in 0..8 {
        let (mut coordinator, mut host) = member();
        let first = coordinator.hosts[&host.id()].wireguard_key;
        host.holds_writes = true;
        host.rotate();
        let mut granted = None;
        // Carries the change on, one write at a time, until the stop.
        for write in 0..=stop_after {
            if let (Some(new), None) = (offers(&mut host).pop(), granted) {
                let delta = grant(&mut coordinator, &host, new);
                granted = Some(new.wireguard_key);
                host.map(delta);
            }
            if write < stop_after {
                host.write_one();
            }
        }
        host.holds_writes = false;
        host.restart();
        let mut told = Told::default();
        told.follow(&mut host);
        assert!(
            host.revision().is_some(),
            "{stop_after}: it has its map from the disk"
        );
        if let Some(granted) = granted {
            assert!(
                [told.own, told.spare].contains(&Some(granted)),
                "{stop_after}: peers know {granted}, the host has {told:?}"
            );
        }
        assert!(
            [told.own, told.spare].contains(&Some(first)),
            "{stop_after}"
        );
        // With a coordinator it comes to its end.
        host.connect(&coordinator);
        if let Some(new) = offers(&mut host).pop()
            && granted.is_none()
        {
            let delta = grant(&mut coordinator, &host, new);
            granted = Some(new.wireguard_key);
            host.map(delta);
        }
        coordinator.revision.counter += 1;
        host.map(coordinator.whole_map(host.id()));
        told.follow(&mut host);
        let is = coordinator.hosts[&host.id()].wireguard_key;
        assert_eq!(told.own, Some(is), "{stop_after}");
        assert_eq!(granted.unwrap_or(first), is);
        assert!(host.detail().alarms.is_empty(), "{stop_after}");
    }
}

#[test]
fn a_second_change_within_a_day_ends_the_first_key_and_comes_to_rest() {
    let (mut coordinator, mut host) = member();
    host.rotate();
    let first = offers(&mut host).pop().unwrap();
    let delta = grant(&mut coordinator, &host, first);
    host.map(delta);
    host.rotate();
    let mut told = Told::default();
    told.follow(&mut host);
    let second = offers(&mut host).pop().unwrap();
    let expected = Told {
        own: Some(first.wireguard_key),
        spare: Some(second.wireguard_key),
    };
    assert_eq!(told, expected);
    // The first change would be over now; the second is not even granted.
    host.closed(ChannelErrorKind::Unreachable, "gone");
    host.advance(DAY + DAY);
    told.follow(&mut host);
    assert_eq!(told, expected);
}

#[test]
fn without_a_coordinator_the_change_waits_and_says_so() {
    let (mut coordinator, mut host) = member();
    host.closed(ChannelErrorKind::Unreachable, "gone");
    let request = host.rotate();
    host.advance(Duration::from_secs(11));
    let answer = rotated(&mut host, request).unwrap();
    assert!(answer.next.is_some());
    assert!(answer.note.unwrap().contains("by itself"));
    host.restart();
    host.connect(&coordinator);
    let new = offers(&mut host).pop().unwrap();
    assert_eq!(Some(new.wireguard_key), answer.next, "the same key again");
    let delta = grant(&mut coordinator, &host, new);
    host.map(delta);
    assert_eq!(host.revision(), Some(coordinator.revision));
}

#[test]
fn a_refusal_is_told_and_the_next_key_stays_good() {
    let (mut coordinator, mut host) = member();
    let request = host.rotate();
    let new = offers(&mut host).pop().unwrap();
    host.told(ToHost::KeyRefused("the disk is full".to_owned()));
    let refusal = host.reply(request).unwrap().unwrap_err();
    assert!(refusal.message.contains("the disk is full"), "{refusal}");
    // Whoever refused may have granted it before, or lie.
    let delta = grant(&mut coordinator, &host, new);
    host.map(delta);
    assert_eq!(host.revision(), Some(coordinator.revision));
    assert!(host.detail().alarms.is_empty());
}

#[test]
fn a_key_that_was_refused_often_is_soon_taken_when_it_can_be() {
    let (mut coordinator, mut host) = member();
    host.told(ToHost::RotateKey);
    let new = offers(&mut host).pop().unwrap();
    for _ in 0..10 {
        for _ in 0..18 {
            host.told(ToHost::KeyRefused("the disk is full".to_owned()));
            host.advance(Duration::from_secs(10));
        }
        assert_eq!(offers(&mut host).pop(), Some(new));
    }
    let delta = grant(&mut coordinator, &host, new);
    host.map(delta);
    assert_eq!(host.revision(), Some(coordinator.revision));
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let (mut coordinator, mut host) = member();
    host.rotate();
    let first = offers(&mut host);
    host.closed(ChannelErrorKind::Interrupted, "gone");
    host.connect(&coordinator);
    assert_eq!(offers(&mut host), first);
    let delta = grant(&mut coordinator, &host, first[0]);
    host.map(delta);
    host.advance(Duration::from_secs(30));
    assert_eq!(offers(&mut host), []);
}

#[test]
fn an_operator_elsewhere_can_ask_for_it() {
    let (mut coordinator, mut host) = member();
    host.told(ToHost::RotateKey);
    let new = offers(&mut host).pop().unwrap();
    host.told(ToHost::RotateKey);
    assert_eq!(
        offers(&mut host).pop().unwrap_or(new),
        new,
        "not another one"
    );
    let delta = grant(&mut coordinator, &host, new);
    host.map(delta);
    assert_eq!(
        coordinator.hosts[&host.id()].wireguard_key,
        new.wireguard_key
    );
}

#[test]
fn two_at_a_time_and_none_without_a_fleet_are_refused() {
    let (_, mut host) = member();
    host.rotate();
    let second = host.rotate();
    let refusal = host.reply(second).unwrap().unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Unavailable);
    let mut stranger = Host::new();
    let request = stranger.rotate();
    let refusal = stranger.reply(request).unwrap().unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotFound);
}

#[test]
fn who_leaves_meanwhile_is_answered() {
    let (_, mut host) = member();
    let request = host.rotate();
    host.leave();
    assert!(host.reply(request).unwrap().is_err());
}

#[test]
fn a_key_that_is_old_enough_changes_by_itself_once() {
    let (mut coordinator, mut host) = member();
    host.config.rotate_key_every = Some(30 * DAY);
    host.restart();
    host.connect(&coordinator);
    let mut changes = 0;
    for _ in 0..(35 * 24) {
        host.advance(Duration::from_secs(10));
        host.now.unix = host.now.unix + Duration::from_secs(3590);
        host.now.monotonic += Duration::from_secs(3590);
        host.closed(ChannelErrorKind::Interrupted, "an hour has passed");
        host.connect(&coordinator);
        while let Some(new) = offers(&mut host).pop() {
            changes += 1;
            let delta = grant(&mut coordinator, &host, new);
            host.map(delta);
        }
        host.said.clear();
    }
    assert_eq!(changes, 1);
}

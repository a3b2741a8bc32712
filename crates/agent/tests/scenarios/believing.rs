//! A fleet changes its authority's keys: a host follows, at its stream, asleep, across restarts; and
//! does not follow anybody who is not its fleet.

use std::time::Duration;

use agent::{ChannelErrorKind, Output};
use model::control::{FromHost, HeldTrust, ToHost};
use model::ids::Digest;
use trust::{Authority, sha256};

use crate::coordinator::Coordinator;
use crate::host::Host;

fn member() -> (Coordinator, Host) {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    let host = Host::member_of(&mut coordinator);
    (coordinator, host)
}

fn newest(authority: &Authority) -> Digest {
    authority.root_pin()
}

/// Answers what the host asks in the next two minutes.
fn certify(host: &mut Host, coordinator: &mut Coordinator) -> usize {
    let mut renewals = 0;
    for _ in 0..12 {
        host.advance(Duration::from_secs(10));
        let asked = host.sent(|message| match message {
            FromHost::Ping(nonce) => Some(Err(*nonce)),
            FromHost::Renew(request) => Some(Ok(request.clone())),
            _ => None,
        });
        for message in asked {
            match message {
                Err(nonce) => host.told(ToHost::Pong(nonce)),
                Ok(request) => {
                    renewals += 1;
                    let record = coordinator.hosts[&host.id()].clone();
                    let chain = coordinator.certify(&record, &request);
                    host.told(ToHost::Certificate(Ok(chain)));
                }
            }
        }
    }
    renewals
}

fn last_held(host: &mut Host) -> Option<HeldTrust> {
    host.applied().into_iter().rev().find_map(|it| it.trust)
}

/// A member of the overlap, with a certificate of the new root.
fn moved() -> (Coordinator, Host) {
    let (mut coordinator, mut host) = member();
    let base = coordinator.revision;
    coordinator.rotate_authority();
    host.map(coordinator.trust_delta(base));
    certify(&mut host, &mut coordinator);
    (coordinator, host)
}

fn works(host: &mut Host, coordinator: &mut Coordinator) {
    let peer = *coordinator
        .hosts
        .keys()
        .find(|id| **id != host.id())
        .unwrap();
    let base = coordinator.revision;
    coordinator.change(peer, |_| {});
    let mut delta = coordinator.delta(base);
    delta.peers.push(coordinator.entry(peer));
    host.map(delta);
    assert_eq!(host.revision(), Some(coordinator.revision));
}

#[test]
fn a_host_at_its_stream_follows_and_says_so_when_it_is_on_the_disk() {
    let (mut coordinator, mut host) = member();
    let old = newest(&coordinator.authority);
    let base = coordinator.revision;
    coordinator.rotate_authority();
    host.applied();
    host.holds_writes = true;
    host.map(coordinator.trust_delta(base));
    assert_eq!(last_held(&mut host), None, "nothing is on the disk");
    host.holds_writes = false;
    host.write_held();
    host.drain();
    let held = last_held(&mut host).unwrap();
    assert_eq!((held.serial, held.certified_by), (2, old));
    assert_eq!(
        certify(&mut host, &mut coordinator),
        1,
        "one certificate is enough"
    );
    let held = last_held(&mut host).unwrap();
    assert_eq!(held.certified_by, newest(&coordinator.authority));
    works(&mut host, &mut coordinator);
}

#[test]
fn a_certificate_is_told_of_only_once_it_is_on_the_disk() {
    let (mut coordinator, mut host) = member();
    let base = coordinator.revision;
    coordinator.rotate_authority();
    host.map(coordinator.trust_delta(base));
    host.applied();
    host.holds_writes = true;
    certify(&mut host, &mut coordinator);
    assert_eq!(last_held(&mut host), None);
    host.holds_writes = false;
    host.write_held();
    host.drain();
    let held = last_held(&mut host).unwrap();
    assert_eq!(held.certified_by, newest(&coordinator.authority));
}

#[test]
fn the_old_keys_are_believed_no_more_once_they_are_retired() {
    let (mut coordinator, mut host) = moved();
    let both = Authority::load_all(coordinator.authority.keys()).unwrap();
    host.map(coordinator.whole_map(host.id()));
    let base = coordinator.revision;
    coordinator.retire_authority();
    host.map(coordinator.trust_delta(base));
    assert_eq!(host.revision(), Some(coordinator.revision));
    host.restart();
    assert_eq!(
        host.revision(),
        Some(coordinator.revision),
        "what it wrote down holds"
    );
    assert_eq!(host.connect(&coordinator), Some(coordinator.revision));
    works(&mut host, &mut coordinator);
    // Whoever has only the old keys tells it nothing any more.
    let before = host.revision();
    let new = std::mem::replace(&mut coordinator.authority, oldest(&both));
    let base = coordinator.revision;
    coordinator.revision.counter += 1;
    host.map(coordinator.delta(base));
    assert_eq!(host.revision(), before);
    coordinator.authority = new;
}

fn oldest(both: &Authority) -> Authority {
    let mut keys = both.keys();
    keys.truncate(1);
    Authority::load_all(keys).unwrap()
}

#[test]
fn what_old_keys_signed_is_asked_for_anew_when_they_are_retired() {
    let (mut coordinator, mut host) = moved();
    let base = coordinator.revision;
    // The host has nothing but what the old keys signed.
    coordinator.retire_authority();
    host.map(coordinator.trust_delta(base));
    assert_eq!(host.revision(), Some(base), "whole or not at all");
    host.restart();
    assert_eq!(host.revision(), Some(base), "and it starts as it was");
    host.connect(&coordinator);
    host.map(coordinator.whole_map(host.id()));
    assert_eq!(host.revision(), Some(coordinator.revision));
    host.restart();
    assert_eq!(host.revision(), Some(coordinator.revision));
}

#[test]
fn a_restart_at_any_write_of_the_change_leaves_a_host_that_works() {
    for writes in 0..8 {
        let (mut coordinator, mut host) = member();
        host.holds_writes = true;
        let base = coordinator.revision;
        coordinator.rotate_authority();
        host.map(coordinator.trust_delta(base));
        let mut left = writes;
        for _ in 0..40 {
            host.advance(Duration::from_secs(3));
            while left > 0 && !host.held.is_empty() {
                host.write_one();
                left -= 1;
            }
            let asked = host.sent(|message| match message {
                FromHost::Ping(nonce) => Some(Err(*nonce)),
                FromHost::Renew(request) => Some(Ok(request.clone())),
                _ => None,
            });
            for message in asked {
                match message {
                    Err(nonce) => host.told(ToHost::Pong(nonce)),
                    Ok(request) => {
                        let record = coordinator.hosts[&host.id()].clone();
                        let chain = coordinator.certify(&record, &request);
                        host.told(ToHost::Certificate(Ok(chain)));
                    }
                }
            }
        }
        host.holds_writes = false;
        host.restart();
        assert!(
            host.revision() >= Some(base),
            "after {writes} writes: {:?}",
            host.detail()
        );
        host.connect(&coordinator);
        host.map(coordinator.whole_map(host.id()));
        certify(&mut host, &mut coordinator);
        let held = last_held(&mut host).unwrap();
        assert_eq!(
            held.certified_by,
            newest(&coordinator.authority),
            "after {writes} writes"
        );
        works(&mut host, &mut coordinator);
    }
}

#[test]
fn one_that_was_off_meanwhile_catches_up_with_several_statements() {
    let (mut coordinator, mut host) = moved();
    let off = host.now;
    host.closed(ChannelErrorKind::Unreachable, "off");
    for _ in 0..2 {
        coordinator.retire_authority();
        coordinator.rotate_authority();
    }
    host.restart();
    host.connect(&coordinator);
    assert!(host.now.monotonic >= off.monotonic);
    host.map(coordinator.whole_map(host.id()));
    assert_eq!(host.revision(), Some(coordinator.revision));
    certify(&mut host, &mut coordinator);
    host.restart();
    assert_eq!(host.revision(), Some(coordinator.revision));
}

#[test]
fn one_without_a_map_finds_the_way_from_the_root_that_it_was_given() {
    let (mut coordinator, mut host) = member();
    coordinator.rotate_authority();
    host.disk.map = None;
    host.restart();
    host.connect(&coordinator);
    host.map(coordinator.whole_map(host.id()));
    assert_eq!(host.revision(), Some(coordinator.revision));
}

#[test]
fn an_older_statement_is_not_believed_again() {
    let (mut coordinator, mut host) = moved();
    coordinator.retire_authority();
    host.map(coordinator.whole_map(host.id()));
    let before = coordinator.earlier.pop().unwrap();
    let mut welcome = coordinator.welcome();
    welcome.trust = before;
    host.restart();
    host.connect(&coordinator);
    host.closed(ChannelErrorKind::Unreachable, "again");
    host.said.clear();
    while !host.has_said(|output| matches!(output, Output::OpenSync { .. })) {
        let (at, _) = host.agent.poll_timeout().unwrap();
        host.advance(at.saturating_since(host.now.monotonic));
    }
    host.channel(agent::ChannelEvent::Opened);
    host.told(ToHost::Welcome(welcome));
    let alarms = host.detail().alarms;
    assert!(
        alarms.iter().any(|it| it.contains("trust statement")),
        "{alarms:?}"
    );
}

#[test]
fn nobody_else_moves_a_host_to_a_root_of_its_own() {
    let (coordinator, mut host) = member();
    let mut thief = Coordinator::new(2);
    let mut forged = coordinator.statement.clone();
    forged.serial += 1;
    forged.previous = Some(sha256(&coordinator.trust().payload));
    forged
        .root_certificates
        .push(thief.authority.root_certificate().to_vec());
    forged.record_keys.push(thief.authority.record_key());
    thief.statement = forged;
    let mut delta = coordinator.delta(coordinator.revision);
    delta.revision.counter += 1;
    delta.head = Some(thief.map_head(delta.revision));
    delta.trust = vec![thief.trust()];
    host.map(delta);
    assert_eq!(host.revision(), Some(coordinator.revision));
    let alarms = host.detail().alarms;
    assert!(
        alarms.iter().any(|it| it.contains("trust statement")),
        "{alarms:?}"
    );
}

#[test]
fn one_that_slept_through_all_of_it_is_told_what_to_do() {
    let (_, mut host) = member();
    host.advance(Duration::ZERO);
    host.closed(
        ChannelErrorKind::Untrusted,
        "10.0.0.1:7443 answered, but is not believed",
    );
    let alarms = host.detail().alarms;
    let alarm = alarms.iter().find(|it| it.contains("retired")).unwrap();
    assert!(
        alarm.contains("meshctl leave") && alarm.contains("meshctl hosts remove"),
        "{alarm}"
    );
}

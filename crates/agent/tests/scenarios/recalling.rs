//! A coordinator that was restored asks what a host remembers; and what follows in a new epoch.

use model::control::{FromHost, ToHost};
use model::ids::Revision;
use model::memory::Memory;

use crate::coordinator::{Coordinator, bundle_with_service};
use crate::host::Host;

fn asked(host: &mut Host) -> Vec<Memory> {
    host.told(ToHost::Recall);
    host.sent(|message| match message {
        FromHost::Memory(part) => Some((**part).clone()),
        _ => None,
    })
}

#[test]
fn a_host_tells_its_whole_map_before_it_is_welcomed() {
    let mut coordinator = Coordinator::new(1);
    let db = coordinator.add_host("db");
    let mut host = Host::member_of(&mut coordinator);
    host.restart();
    let parts = asked(&mut host);
    assert_eq!(parts.len(), 1);
    let part = &parts[0];
    assert!(part.last);
    assert_eq!(part.trust, coordinator.trust());
    assert_eq!(
        part.record,
        coordinator
            .authority
            .sign_record(&coordinator.hosts[&host.id()])
    );
    assert_eq!(part.records, [coordinator.entry(db).record]);
    assert_eq!(
        part.policy.as_ref().unwrap().leaves,
        coordinator.slice().leaves
    );
}

#[test]
fn what_fits_no_message_is_told_in_parts() {
    let mut coordinator = Coordinator::new(1);
    for number in 0..2000 {
        coordinator.add_host(&format!("vm-{number}"));
    }
    let mut host = Host::member_of(&mut coordinator);
    let parts = asked(&mut host);
    assert!(parts.len() > 1, "{}", parts.len());
    let (last, others) = parts.split_last().unwrap();
    assert!(last.last && others.iter().all(|part| !part.last));
    let records: usize = parts.iter().map(|part| part.records.len()).sum();
    assert_eq!(records, 2000);
    for part in parts {
        let bytes = model::wire::encode_from_host(&FromHost::Memory(Box::new(part)));
        assert!(
            bytes.len() <= model::limits::Limits::REPORT_BYTES,
            "{}",
            bytes.len()
        );
    }
}

#[test]
fn a_new_epoch_beats_every_revision_before_it_and_never_the_other_way() {
    let mut coordinator = Coordinator::new(1);
    coordinator.add_host("db");
    coordinator.apply(bundle_with_service(22));
    coordinator.revision = Revision::new(1, 1000);
    let mut host = Host::member_of(&mut coordinator);
    let old = coordinator.whole_map(host.id());

    coordinator.statement.epoch = 2;
    coordinator.statement.previous = Some(trust::sha256(&coordinator.trust().payload));
    coordinator.revision = Revision::new(2, 3);
    coordinator.apply(bundle_with_service(80));
    host.restart();
    host.connect(&coordinator);
    host.map(coordinator.whole_map(host.id()));
    assert_eq!(host.revision(), Some(coordinator.revision));
    host.map(old);
    assert_eq!(
        host.revision(),
        Some(coordinator.revision),
        "nothing goes back"
    );
}

#[test]
fn only_who_has_something_to_tell_says_that_it_can() {
    let mut coordinator = Coordinator::new(1);
    let mut host = Host::new();
    host.enrol(&mut coordinator);
    let recall = "recall".to_owned();
    let hello = host.greet(&coordinator);
    assert!(!hello.features.contains(&recall), "it has no map yet");
    host.map(coordinator.whole_map(host.id()));
    host.restart();
    let hello = host.greet(&coordinator);
    assert!(hello.features.contains(&recall));
}

//! Joining: what a member gets, and who is refused with which words.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::AdminRequest;
use model::admin::CreateToken;
use model::control::RefusalCode;
use model::identity::SpiffeId;
use trust::certificate::verify_chain;

use crate::machine::Machine;
use crate::world::{World, hour_token, labels, name};

#[test]
fn a_joining_host_gets_a_signed_record_and_a_certificate_for_its_key() {
    let mut world = World::new();
    let token = world.token_with(CreateToken {
        labels: labels(&[("role", "web")]),
        ..hour_token()
    });
    let machine = Machine::new(1);
    let enrolled = world
        .enrol(machine.request(&world, &token, "web-1"))
        .unwrap();

    let record = world.record(&enrolled);
    assert_eq!((record.host, record.name), (enrolled.host, name("web-1")));
    assert_eq!(record.labels, labels(&[("role", "web")]));
    assert_eq!(record.tls_key_hash, machine.tls_key_hash());
    assert_eq!(record.addresses.v4.to_string(), "10.0.0.16");
    let (anchors, _) = world.anchors();
    let chain = &enrolled.certificate_chain;
    let facts = verify_chain(chain, anchors.root_certificates(), world.now.unix).unwrap();
    assert_eq!(
        facts.spiffe,
        SpiffeId::Host {
            fleet: name("prod"),
            host: name("web-1")
        }
    );
    assert_eq!(facts.tls_key_hash, machine.tls_key_hash());
}

#[test]
fn nothing_is_answered_before_the_commit_is_durable() {
    let mut world = World::new();
    let token = world.token(None);
    let id = world.start_enrolment(Machine::new(1).request(&world, &token, "a"));
    assert_eq!(world.asked.len(), 1);
    world.carry_out(0);
    assert!(world.taken_enrolment(id).is_none());
    world.report(0);
    assert!(world.taken_enrolment(id).unwrap().is_ok());
}

#[test]
fn an_unknown_token_and_a_wrong_secret_are_refused_alike() {
    let mut world = World::new();
    let token = world.token(None);
    let mut wrong_secret = Machine::new(1).request(&world, &token, "a");
    wrong_secret.token_secret[0] ^= 1;
    let mut unknown = wrong_secret.clone();
    unknown.token = model::ids::TokenId::from_bytes([0xee; 8]);
    let texts = [
        world.refused_enrolment(wrong_secret),
        world.refused_enrolment(unknown),
    ];
    assert_eq!(texts[0], texts[1]);
    assert!(texts[0].contains("not known here"), "{}", texts[0]);
}

#[test]
fn an_expired_token_is_refused_with_the_time() {
    let mut world = World::new();
    let token = world.token(None);
    world.advance(Duration::from_secs(3600 + 300));
    let text = world.refused_enrolment(Machine::new(1).request(&world, &token, "a"));
    assert!(
        text.starts_with("this join token expired at 2026-11-22 "),
        "{text}"
    );
    assert!(text.contains("(5 minutes ago"), "{text}");
}

#[test]
fn a_revoked_token_is_refused() {
    let mut world = World::new();
    let token = world.token(None);
    world.admin(AdminRequest::RevokeToken(token.id)).unwrap();
    let text = world.refused_enrolment(Machine::new(1).request(&world, &token, "a"));
    assert!(text.contains("was revoked"), "{text}");
}

#[test]
fn a_used_up_token_is_refused_and_says_how_often_it_was_good() {
    let mut world = World::new();
    let token = world.token(Some(1));
    world
        .enrol(Machine::new(1).request(&world, &token, "a"))
        .unwrap();
    let rejection = world
        .enrol(Machine::new(2).request(&world, &token, "b"))
        .unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Denied);
    assert!(
        rejection.to_string().contains("1 of 1 hosts"),
        "{rejection}"
    );
}

#[test]
fn a_token_permits_only_its_names() {
    let mut world = World::new();
    let names = vec!["web-*".to_owned(), "db".to_owned()];
    let token = world.token_with(CreateToken {
        names,
        ..hour_token()
    });
    let text = world.refused_enrolment(Machine::new(1).request(&world, &token, "evil"));
    assert!(text.contains("it is for web-*, db"), "{text}");
    assert!(
        world
            .enrol(Machine::new(1).request(&world, &token, "web-7"))
            .is_ok()
    );
}

#[test]
fn a_taken_name_says_whose_it_is_and_what_to_do() {
    let mut world = World::new();
    let (_, first) = world.join("a", 1);
    let token = world.token(None);
    let text = world.refused_enrolment(Machine::new(2).request(&world, &token, "a"));
    assert!(
        text.contains(&first.host.to_string()) && text.contains("--name"),
        "{text}"
    );
}

#[test]
fn the_name_of_a_service_is_refused() {
    let mut world = World::new();
    let yaml =
        "fleet: prod\nservices:\n  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }\n";
    world.apply_policy(yaml).unwrap();
    let token = world.token(None);
    let text = world.refused_enrolment(Machine::new(1).request(&world, &token, "db"));
    assert!(text.contains("service in policy version 2"), "{text}");
}

#[test]
fn the_same_keys_on_a_second_machine_are_named_a_clone() {
    let mut world = World::new();
    let (machine, first) = world.join("a", 1);
    let token = world.token(None);
    let clone = machine.cloned_to("another");
    let text = world.refused_enrolment(clone.request(&world, &token, "b"));
    assert!(
        text.contains(&first.host.to_string()) && text.contains("cloned"),
        "{text}"
    );
    assert!(text.contains("/var/lib/mesh"), "{text}");
}

#[test]
fn clones_with_the_token_in_their_image_are_told_apart_by_machine() {
    let mut world = World::new();
    let token = world.token(None);
    let machine = Machine::new(1);
    world.enrol(machine.request(&world, &token, "a")).unwrap();
    let clone = machine.cloned_to("another");
    let text = world.refused_enrolment(clone.request(&world, &token, "a"));
    assert!(text.contains("cloned"), "{text}");
}

#[test]
fn a_tls_key_of_another_host_is_refused() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let token = world.token(None);
    let thief = Machine::new(2).with_tls_key_of(&machine);
    let text = world.refused_enrolment(thief.request(&world, &token, "b"));
    assert!(text.contains("these keys belong to host a"), "{text}");
}

#[test]
fn a_lost_answer_is_given_again_without_a_second_use() {
    let mut world = World::new();
    let token = world.token(Some(1));
    let machine = Machine::new(1);
    let first = world.enrol(machine.request(&world, &token, "a")).unwrap();
    world.advance(Duration::from_secs(7200)); // the token has expired by now
    let again = world.enrol(machine.request(&world, &token, "a")).unwrap();
    assert_eq!((again.host, &again.record), (first.host, &first.record));
    assert_eq!(world.hosts().len(), 1);
    let (anchors, _) = world.anchors();
    let chain = &again.certificate_chain;
    assert!(verify_chain(chain, anchors.root_certificates(), world.now.unix).is_ok());
}

#[test]
fn asking_again_under_another_name_is_refused() {
    let mut world = World::new();
    let token = world.token(None);
    let machine = Machine::new(1);
    world.enrol(machine.request(&world, &token, "a")).unwrap();
    let text = world.refused_enrolment(machine.request(&world, &token, "b"));
    assert!(text.contains("a member already, as a"), "{text}");
}

#[test]
fn a_wrong_proof_and_a_wrong_request_are_refused() {
    let mut world = World::new();
    let token = world.token(None);
    let good = Machine::new(1).request(&world, &token, "a");
    let mut wrong_proof = good.clone();
    wrong_proof.wireguard_proof[0] ^= 1;
    assert!(
        world
            .refused_enrolment(wrong_proof)
            .contains("does not prove")
    );
    let mut other_key = good.clone();
    other_key.wireguard_key = model::key::WireguardKey::from_bytes([9; 32]);
    assert!(
        world
            .refused_enrolment(other_key)
            .contains("does not prove")
    );
    let mut changed_request = good;
    let last = changed_request.certificate_request.len() - 1;
    changed_request.certificate_request[last] ^= 1;
    assert_eq!(
        world.enrol(changed_request).unwrap_err().refusal.code,
        RefusalCode::Invalid
    );
    assert!(world.hosts().is_empty());
}

#[test]
fn a_second_host_with_one_machine_id_is_noticed_and_let_in() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    let token = world.token(None);
    let twin = machine.with_fresh_keys(2);
    world.enrol(twin.request(&world, &token, "b")).unwrap();
    assert!(
        world.notices[0].contains("machine id of a"),
        "{:?}",
        world.notices
    );
}

#[test]
fn the_name_of_a_removed_host_is_kept_for_its_machine_and_then_free() {
    let mut world = World::new();
    let (machine, first) = world.join("a", 1);
    world.remove_host("a");
    let token = world.token(None);
    let stranger = Machine::new(2);
    let text = world.refused_enrolment(stranger.request(&world, &token, "a"));
    assert!(
        text.contains("it is kept from other machines for 15 minutes"),
        "{text}"
    );

    let fresh_keys = machine.with_fresh_keys(3);
    let again = world
        .enrol(fresh_keys.request(&world, &token, "a"))
        .unwrap();
    assert_ne!(again.host, first.host);

    world.remove_host("a");
    world.advance(Duration::from_secs(15 * 60));
    assert!(world.enrol(stranger.request(&world, &token, "a")).is_ok());
}

#[test]
fn addresses_of_removed_hosts_rest_before_they_are_given_again() {
    let mut world = World::with_v4("10.0.0.0/26");
    let token = world.token_with(CreateToken {
        valid_for_secs: 1_000_000,
        ..hour_token()
    });
    let mut given = BTreeSet::new();
    for seed in 0..44 {
        let host = format!("h{seed}");
        let enrolled = world
            .enrol(Machine::new(seed).request(&world, &token, &host))
            .unwrap();
        given.insert(world.record(&enrolled).addresses);
    }
    assert_eq!(given.len(), 44, "the last sixteenth is for services");
    world.remove_host("h5");
    let late = Machine::new(100);
    let text = world.refused_enrolment(late.request(&world, &token, "late"));
    assert!(
        text.contains("no free address; the addresses of a removed host"),
        "{text}"
    );
    world.advance(Duration::from_secs(24 * 3600));
    let enrolled = world.enrol(late.request(&world, &token, "late")).unwrap();
    assert_eq!(
        world.record(&enrolled).addresses.v4.to_string(),
        "10.0.0.21"
    );
}

#[test]
fn a_freed_address_is_not_the_next_that_is_given() {
    let mut world = World::new();
    world.join("a", 1);
    world.remove_host("a");
    world.advance(Duration::from_secs(48 * 3600));
    let (_, second) = world.join("b", 2);
    assert_eq!(world.record(&second).addresses.v4.to_string(), "10.0.0.17");
    world.crash();
    let (_, third) = world.join("c", 3);
    assert_eq!(world.record(&third).addresses.v4.to_string(), "10.0.0.18");
}

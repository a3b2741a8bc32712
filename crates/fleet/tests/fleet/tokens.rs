//! Tokens and credentials: shown once, kept as hashes, bounded by what they say.

use std::time::Duration;

use fleet::{AdminRequest, FleetLimits, Reply};
use model::admin::{CreateAdmin, CreateToken, Role};
use model::control::RefusalCode;

use crate::machine::Machine;
use crate::world::{ADVERTISED, World, hour_token, name};

#[test]
fn a_token_leads_to_the_coordinator_and_counts_its_uses() {
    let mut world = World::new();
    let token = world.token(Some(3));
    assert_eq!(token.addresses, [ADVERTISED]);
    assert_eq!(token.pin.to_string(), world.status().root_pin);
    world
        .enrol(Machine::new(1).request(&world, &token, "a"))
        .unwrap();
    world.remove_host("a"); // a use stays used
    let Reply::Tokens(views) = world.admin(AdminRequest::ListTokens).unwrap() else {
        panic!()
    };
    assert_eq!(
        (views[0].id, views[0].uses, views[0].used),
        (token.id, Some(3), 1)
    );
}

#[test]
fn a_token_without_a_limit_remembers_its_last_uses_and_counts_all() {
    const REMEMBERED: usize = 1024;
    let mut world = World::new();
    let token = world.token(None);
    for number in 0..REMEMBERED as u16 + 10 {
        let request = Machine::new(number).request(&world, &token, &format!("vm-{number}"));
        world.enrol(request).unwrap();
    }
    world.crash();
    let keys = world.store.keys.keys();
    let uses = keys.filter(|key| key.as_str().starts_with("uses/")).count();
    assert_eq!(uses, REMEMBERED);
    let Reply::Tokens(views) = world.admin(AdminRequest::ListTokens).unwrap() else {
        panic!()
    };
    assert_eq!(views[0].used as usize, REMEMBERED + 10);
}

#[test]
fn no_secret_is_stored() {
    let mut world = World::new();
    let token = world.token(None);
    let shown = String::from_utf8_lossy(&token.secret).into_owned();
    let secret_of_admin = world.credential.rsplit('.').next().unwrap().to_owned();
    let hex: String = token
        .secret
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for stored in world.store.keys.values() {
        let text = String::from_utf8_lossy(&stored.value);
        for secret in [&shown, &hex, &token.encode(), &secret_of_admin] {
            assert!(!text.contains(secret.as_str()), "{}", stored.key);
        }
    }
}

#[test]
fn senseless_tokens_are_refused() {
    let mut world = World::new();
    for create in [
        CreateToken {
            valid_for_secs: 0,
            ..hour_token()
        },
        CreateToken {
            valid_for_secs: 400 * 24 * 3600,
            ..hour_token()
        },
        CreateToken {
            uses: Some(0),
            ..hour_token()
        },
        CreateToken {
            uses: Some(u32::MAX),
            ..hour_token()
        },
        CreateToken {
            names: vec!["No Name".into()],
            ..hour_token()
        },
        CreateToken {
            comment: "x".repeat(2000),
            ..hour_token()
        },
    ] {
        let rejection = world.admin(AdminRequest::CreateToken(create)).unwrap_err();
        assert_eq!(rejection.refusal.code, RefusalCode::Invalid, "{rejection}");
    }
}

#[test]
fn the_first_credential_is_an_admins_and_others_can_be_made_and_withdrawn() {
    let mut world = World::new();
    let first = world
        .fleet
        .authenticate_admin(&world.credential, world.now)
        .unwrap();
    assert_eq!((first.name.as_str(), first.role), ("admin", Role::Admin));

    let create = CreateAdmin {
        name: name("eve"),
        role: Role::Viewer,
        valid_for_secs: None,
    };
    let reply = world.admin(AdminRequest::CreateAdmin(create)).unwrap();
    let Reply::AdminCreated(created) = reply else {
        panic!()
    };
    let caller = world
        .fleet
        .authenticate_admin(&created.credential, world.now)
        .unwrap();
    assert_eq!(caller.role, Role::Viewer);
    let refused = world.ask_as(caller, AdminRequest::RemoveHost(name("a")));
    let rejection = world.replies[&refused].clone().unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Denied);

    world.admin(AdminRequest::RevokeAdmin(name("eve"))).unwrap();
    assert_eq!(
        world
            .fleet
            .authenticate_admin(&created.credential, world.now),
        Err(fleet::Unwelcome::Unknown)
    );
}

#[test]
fn a_credential_with_another_name_or_secret_is_nobodys() {
    let mut world = World::new();
    let create = CreateAdmin {
        name: name("eve"),
        role: Role::Viewer,
        valid_for_secs: None,
    };
    world.admin(AdminRequest::CreateAdmin(create)).unwrap();
    let secret = world.credential.rsplit('.').next().unwrap();
    for wrong in [
        format!("mesh-admin1.eve.{secret}"),
        format!("mesh-admin1.mallory.{secret}"),
        "mesh-admin1.admin.aaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned(),
        String::new(),
    ] {
        assert_eq!(
            world.fleet.authenticate_admin(&wrong, world.now),
            Err(fleet::Unwelcome::Unknown),
            "{wrong}"
        );
    }
}

#[test]
fn expired_tokens_make_room_and_good_ones_do_not() {
    let mut world = World::new();
    let first = world.token(None);
    world
        .enrol(Machine::new(1).request(&world, &first, "a"))
        .unwrap();
    for _ in 1..FleetLimits::TOKENS_MAX {
        world.ask(AdminRequest::CreateToken(CreateToken {
            valid_for_secs: 7200,
            ..hour_token()
        }));
    }
    world.settle();
    let rejection = world
        .admin(AdminRequest::CreateToken(hour_token()))
        .unwrap_err();
    assert_eq!(rejection.refusal.code, RefusalCode::Exhausted);
    world.advance(Duration::from_secs(3600));
    world.token(None);
    let Reply::Tokens(views) = world.admin(AdminRequest::ListTokens).unwrap() else {
        panic!()
    };
    assert_eq!(views.len(), FleetLimits::TOKENS_MAX);
    assert!(views.iter().all(|view| view.id != first.id));
    let left = world
        .store
        .keys
        .keys()
        .filter(|key| key.as_str().starts_with("uses/"));
    assert_eq!(left.count(), 0);
    assert_eq!(world.hosts().len(), 1);
}

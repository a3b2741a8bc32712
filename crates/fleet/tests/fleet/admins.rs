//! Credentials of operators: how long they are good for, and that somebody can always make others.

use std::time::Duration;

use fleet::{AdminRequest, Rejection, Reply, Unwelcome};
use model::admin::{AuditQuery, CreateAdmin, CreatedAdmin, Role};
use model::control::RefusalCode;

use crate::world::{World, name};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn create(world: &mut World, who: &str, role: Role, valid: Option<Duration>) -> CreatedAdmin {
    let order = CreateAdmin {
        name: name(who),
        role,
        valid_for_secs: valid.map(|it| it.as_secs()),
    };
    match world.admin(AdminRequest::CreateAdmin(order)) {
        Ok(Reply::AdminCreated(created)) => created,
        other => panic!("{other:?}"),
    }
}

fn replace(world: &mut World, who: &str) -> Result<CreatedAdmin, Rejection> {
    match world.admin(AdminRequest::ReplaceCredential(name(who)))? {
        Reply::AdminCreated(created) => Ok(created),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_credential_opens_nothing_from_its_end_on_also_after_a_restart() {
    let mut world = World::new();
    let eve = create(&mut world, "eve", Role::Viewer, Some(DAY));
    let end = world.now.unix.as_secs() + DAY.as_secs();
    assert_eq!(eve.view.expires_secs, Some(end));
    world.advance(DAY - Duration::from_secs(1));
    let asks = |world: &World| world.fleet.authenticate_admin(&eve.credential, world.now);
    assert!(asks(&world).is_ok());
    world.advance(Duration::from_secs(1));
    assert_eq!(asks(&world), Err(Unwelcome::Expired { at_secs: end }));
    world.crash();
    assert_eq!(asks(&world), Err(Unwelcome::Expired { at_secs: end }));
    let forever = world.fleet.authenticate_admin(&world.credential, world.now);
    assert!(forever.is_ok());
}

#[test]
fn another_credential_in_the_place_of_one_ends_when_that_would_have() {
    let mut world = World::new();
    let first = create(&mut world, "eve", Role::Viewer, Some(DAY));
    let second = replace(&mut world, "eve").unwrap();
    assert_eq!(second.view.expires_secs, first.view.expires_secs);
    world.advance(DAY);
    let refused = replace(&mut world, "eve").unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict, "{refused}");
}

#[test]
fn the_last_who_can_make_credentials_is_not_revoked() {
    let mut world = World::new();
    create(&mut world, "eve", Role::Operator, None);
    create(&mut world, "guest", Role::Admin, Some(DAY));
    world.advance(DAY);
    let revoke = |who: &str| AdminRequest::RevokeAdmin(name(who));
    let refused = world.admin(revoke("admin")).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict, "{refused}");
    world.admin(revoke("eve")).unwrap();
    world.admin(revoke("guest")).unwrap();
    create(&mut world, "ada", Role::Admin, None);
    world.admin(revoke("admin")).unwrap();
}

#[test]
fn one_whose_credential_ends_sooner_does_not_stand_in_for_another() {
    let mut world = World::new();
    let revoke = |who: &str| AdminRequest::RevokeAdmin(name(who));
    create(&mut world, "guest", Role::Admin, Some(DAY));
    let refused = world.admin(revoke("admin")).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict, "{refused}");
    assert!(refused.to_string().contains("as long as"), "{refused}");
    // One that ends may go, as long as there is one that ends later.
    create(&mut world, "late", Role::Admin, Some(2 * DAY));
    world.admin(revoke("guest")).unwrap();
}

#[test]
fn of_two_admins_who_revoke_each_other_at_once_one_stays() {
    let mut world = World::new();
    create(&mut world, "ada", Role::Admin, None);
    let asked = ["admin", "ada"].map(|who| world.ask(AdminRequest::RevokeAdmin(name(who))));
    world.settle();
    let done = asked.map(|id| world.replies.remove(&id).unwrap().is_ok());
    assert_eq!(done, [true, false]);
    let Ok(Reply::Admins(left)) = world.admin(AdminRequest::ListAdmins) else {
        panic!("admins are listed")
    };
    assert_eq!(left.len(), 1);
}

#[test]
fn a_credential_is_good_for_a_while_that_clocks_can_hold() {
    let mut world = World::new();
    for secs in [0, u64::MAX] {
        let order = CreateAdmin {
            name: name("eve"),
            role: Role::Viewer,
            valid_for_secs: Some(secs),
        };
        let refused = world.admin(AdminRequest::CreateAdmin(order)).unwrap_err();
        assert_eq!(refused.refusal.code, RefusalCode::Invalid, "{refused}");
    }
}

#[test]
fn the_log_tells_when_a_credential_ends() {
    let mut world = World::new();
    create(&mut world, "eve", Role::Viewer, Some(DAY));
    let query = AuditQuery {
        newest: true,
        ..AuditQuery::default()
    };
    let Ok(Reply::Audit(page)) = world.admin(AdminRequest::ListAudit(query)) else {
        panic!("the log is shown")
    };
    let entry = page.entries.last().unwrap();
    assert_eq!(entry.action, "admin.create");
    let fields: Vec<&str> = entry.changes.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, ["role", "expires"]);
}

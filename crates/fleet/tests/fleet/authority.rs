//! The fleet's authority changes its keys: hosts follow, nothing is lost whenever the coordinator
//! dies, and nobody is left behind unless somebody says so.

use std::time::Duration;

use fleet::{AdminRequest, Caller, LoadError, Rejection, Reply, SessionId, verify};
use model::admin::{AuthorityView, Role};
use model::control::{Applied, FromHost, HeldTrust, RefusalCode, ToHost};
use model::ids::PolicyVersion;
use model::map::MapDelta;
use trust::{Authority, AuthorityKeys, TrustAnchors};

use crate::machine::Machine;
use crate::world::{World, name};

const A_WHILE: Duration = Duration::from_secs(20);

fn authority(reply: Result<Reply, Rejection>) -> AuthorityView {
    match reply.unwrap() {
        Reply::Authority(view) => view,
        other => panic!("{other:?}"),
    }
}

impl World {
    pub(crate) fn rotate(&mut self) -> AuthorityView {
        authority(self.admin(AdminRequest::RotateAuthority))
    }

    pub(crate) fn retire(&mut self, force: bool) -> Result<AuthorityView, Rejection> {
        let reply = self.admin(AdminRequest::RetireAuthority { force })?;
        Ok(authority(Ok(reply)))
    }

    pub(crate) fn show(&mut self) -> AuthorityView {
        authority(self.admin(AdminRequest::ShowAuthority))
    }

    /// Lets the coordinator do what it does by itself; hosts do not fall silent.
    pub(crate) fn work(&mut self, sessions: &[SessionId]) {
        for _ in 0..40 {
            self.advance(Duration::from_millis(500));
            self.settle();
            for session in sessions {
                self.say(*session, FromHost::Ping(1));
            }
        }
    }

    pub(crate) fn held(&self) -> HeldTrust {
        let (anchors, statement) = self.anchors();
        HeldTrust {
            epoch: statement.epoch,
            serial: statement.serial,
            certified_by: anchors.newest_root(),
        }
    }

    /// A host says that it has on its disk what the coordinator told last.
    pub(crate) fn moves(&mut self, session: SessionId) {
        let trust = Some(self.held());
        self.says_held(session, trust);
    }

    fn says_held(&mut self, session: SessionId, trust: Option<HeldTrust>) {
        let applied = Applied {
            trust,
            revision: self.status().revision,
            policy: PolicyVersion(1),
            error: None,
            trouble: None,
        };
        self.say(session, FromHost::Applied(applied));
    }

    fn maps(&mut self, session: SessionId) -> Vec<MapDelta> {
        let messages = self.taken(session).into_iter();
        messages
            .filter_map(|message| match message {
                ToHost::Map(delta) => Some(delta),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn new_keys_only(&self) -> Authority {
        Authority::load_all(vec![self.keys.last().unwrap().clone()]).unwrap()
    }
}

pub(crate) struct Two {
    pub(crate) world: World,
    pub(crate) machines: [Machine; 2],
    pub(crate) sessions: [SessionId; 2],
}

/// Two members at their streams.
pub(crate) fn two() -> Two {
    let mut world = World::new();
    let machines = [("alpha", 1), ("beta", 2)].map(|(host, seed)| world.join(host, seed).0);
    let mut open = |machine: &Machine, host: &str| {
        let session = world.open(machine, host);
        world.hello(session, None);
        world.taken(session);
        session
    };
    let sessions = [open(&machines[0], "alpha"), open(&machines[1], "beta")];
    Two {
        world,
        machines,
        sessions,
    }
}

#[test]
fn hosts_are_told_the_new_keys_and_everything_is_signed_again() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    let (before, _) = world.anchors();
    let view = world.rotate();
    assert_eq!((view.roots.len(), view.moved, view.to_sign), (2, 0, 3));
    assert_eq!(world.shown, Some(world.keys.clone()));
    world.work(&sessions);
    assert_eq!(world.show().to_sign, 0);
    let maps = world.maps(sessions[0]);
    let (last, earlier) = maps[0].trust.split_last().unwrap();
    let (after, _) = before.follow(earlier, last).unwrap().unwrap();
    for map in &maps {
        after.verify_map_head(map.head.as_ref().unwrap()).unwrap();
    }
    let signed_again = maps.iter().flat_map(|map| &map.peers);
    let records: Vec<_> = signed_again.map(|peer| &peer.record).collect();
    assert_eq!(records.len(), 1, "the peer's, once");
    assert_eq!(records[0].signatures.len(), 2);
    before.verify_record(records[0]).unwrap();
    assert!(
        maps.iter()
            .any(|map| map.policy.is_some() || map.policy_step.is_some()),
        "its head is signed again"
    );
}

#[test]
fn a_root_is_retired_once_every_host_has_moved() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    world.rotate();
    world.work(&sessions);
    world.moves(sessions[0]);
    world.work(&sessions);
    let refused = world.retire(false).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict);
    assert!(
        refused
            .to_string()
            .contains("1 of 2 hosts have not moved to the new root: beta"),
        "{refused}"
    );
    assert!(refused.to_string().contains("meshctl join"), "{refused}");
    world.moves(sessions[1]);
    world.work(&sessions);
    assert_eq!(world.show().missing, []);
    let view = world.retire(false).unwrap();
    assert_eq!((view.roots.len(), view.to_erase), (1, 1));
    world.settle();
    assert_eq!(world.keys.len(), 1);
    assert_eq!(world.show().to_erase, 0);
    // What is stored needs the new keys and no others.
    let listing = world.store.listing();
    verify(
        &world.new_keys_only().root_pins(),
        &listing,
        world.store.revision,
    )
    .unwrap();
}

#[test]
fn one_that_says_less_has_not_moved() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    let old = world.held();
    world.rotate();
    let new = world.held();
    let certified_by_old = HeldTrust {
        certified_by: old.certified_by,
        ..new
    };
    for held in [None, Some(old), Some(certified_by_old)] {
        world.says_held(sessions[0], held);
        world.work(&sessions);
        assert_eq!(world.show().moved, 0, "{held:?}");
    }
    assert!(world.show().missing[0].believes);
    world.moves(sessions[0]);
    world.work(&sessions);
    assert_eq!(world.show().moved, 1);
}

#[test]
fn who_has_moved_counts_after_a_restart_of_the_coordinator() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    world.rotate();
    for session in sessions {
        world.moves(session);
    }
    world.work(&sessions);
    world.crash();
    world.work(&[]);
    assert_eq!(world.show().moved, 2);
    world.retire(false).unwrap();
}

#[test]
fn who_was_set_back_has_not_moved_also_after_a_restart_of_the_coordinator() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    let old = world.held();
    world.rotate();
    for session in sessions {
        world.moves(session);
    }
    world.work(&sessions);
    assert_eq!(world.show().moved, 2);
    // Its disk is that of last week again; the first time nothing can be stored.
    world.says_held(sessions[0], Some(old));
    world.advance(Duration::from_secs(1));
    world.fail(0);
    world.work(&sessions);
    world.crash();
    world.work(&[]);
    assert_eq!(world.show().moved, 1);
    let refused = world.retire(false).unwrap_err();
    assert!(refused.to_string().contains("1 of 2"), "{refused}");
}

#[test]
fn what_is_told_while_the_opposite_is_being_stored_holds() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    let old = world.held();
    world.rotate();
    world.work(&sessions);
    let applied = |trust| Applied {
        trust: Some(trust),
        revision: model::ids::Revision::new(1, 1),
        policy: PolicyVersion(1),
        error: None,
        trouble: None,
    };
    let new = world.held();
    world.say(sessions[0], FromHost::Applied(applied(new)));
    world.advance(Duration::from_secs(1));
    assert_eq!(world.asked.len(), 1, "that it has moved is being stored");
    world.say(sessions[0], FromHost::Applied(applied(old)));
    world.work(&sessions);
    world.crash();
    assert_eq!(world.show().moved, 0);
}

#[test]
fn those_left_behind_are_named() {
    let Two {
        mut world,
        sessions,
        ..
    } = two();
    world.rotate();
    world.moves(sessions[1]);
    world.work(&sessions);
    let view = world.retire(true).unwrap();
    assert_eq!(view.left_behind, [name("alpha")]);
}

#[test]
fn a_root_is_not_retired_before_everything_is_signed_again_not_even_by_force() {
    let mut world = two().world;
    world.rotate();
    let refused = world.retire(true).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Unavailable);
    assert!(refused.to_string().contains("3 records"), "{refused}");
}

#[test]
fn one_rotation_at_a_time_and_none_to_retire_without_one() {
    let mut world = World::new();
    let refused = world.retire(true).unwrap_err();
    assert_eq!(refused.refusal.code, RefusalCode::Conflict);
    world.rotate();
    let refused = world.admin(AdminRequest::RotateAuthority).unwrap_err();
    assert!(refused.to_string().contains("rotated already"), "{refused}");
}

#[test]
fn only_admins_change_the_authority_and_anybody_may_look() {
    let mut world = World::new();
    for request in [
        AdminRequest::RotateAuthority,
        AdminRequest::RetireAuthority { force: true },
    ] {
        for role in [Role::Viewer, Role::Operator, Role::PolicyEditor] {
            let id = world.ask_as(Caller::new("eve", role), request.clone());
            world.settle();
            let refused = world.replies.remove(&id).unwrap().unwrap_err();
            assert_eq!(refused.refusal.code, RefusalCode::Denied);
        }
    }
    assert!(AdminRequest::ShowAuthority.allowed_for(Role::Viewer));
    assert_eq!(world.keys.len(), 1);
}

#[test]
fn keys_are_on_the_disk_before_a_statement_names_them() {
    let mut world = World::new();
    let id = world.ask(AdminRequest::RotateAuthority);
    assert!(world.asked.is_empty(), "nothing is stored before");
    world.fail_keys();
    let refused = world.replies.remove(&id).unwrap().unwrap_err();
    assert!(refused.to_string().contains("no space left"), "{refused}");
    assert_eq!(world.show().roots.len(), 1);
    world.rotate();
}

#[test]
fn keys_that_could_not_be_erased_are_shown_and_tried_again() {
    let mut world = World::new();
    world.rotate();
    world.work(&[]);
    let id = world.ask(AdminRequest::RetireAuthority { force: true });
    world.carry_out(0);
    world.report(0);
    let view = authority(world.replies.remove(&id).unwrap());
    assert_eq!((view.roots.len(), view.to_erase), (1, 1));
    world.fail_keys();
    let view = world.show();
    assert_eq!(view.to_erase, 1);
    assert_eq!(view.erase_trouble.unwrap(), "no space left on device");
    world.advance(Duration::from_secs(61));
    world.write_keys();
    let view = world.show();
    assert_eq!((view.to_erase, view.erase_trouble), (0, None));
    assert_eq!(world.keys.len(), 1);
    // What was the key file is a matter of its own.
    world
        .fleet
        .handle_left_over_keys(Some("a full disk".into()));
    let view = world.show();
    assert_eq!(
        (view.to_erase, view.erase_trouble.unwrap()),
        (1, "a full disk".into())
    );
    world.fleet.handle_left_over_keys(None);
    assert_eq!(world.show().to_erase, 0);
}

#[test]
fn a_rotation_that_could_not_be_stored_is_done_again_with_the_same_keys() {
    let mut world = World::new();
    let id = world.ask(AdminRequest::RotateAuthority);
    world.write_keys();
    let prepared = world.keys.clone();
    world.fail(0);
    assert!(world.replies.remove(&id).unwrap().is_err());
    world.crash();
    assert_eq!(world.show().roots.len(), 1);
    world.rotate();
    assert_eq!(world.keys, prepared);
}

#[test]
fn a_coordinator_that_dies_at_any_step_goes_on_and_erases_the_old_keys() {
    for deaths_after in 0..30 {
        let Two {
            mut world,
            machines,
            mut sessions,
        } = two();
        let mut steps = 0;
        let mut has_died = false;
        let mut retired = false;
        for _ in 0..400 {
            // One thing at a time, and the end of all of them somewhere between.
            let did = if !world.done.is_empty() {
                world.report(0);
                true
            } else if !world.asked.is_empty() {
                world.carry_out(0);
                true
            } else if !world.keeps.is_empty() {
                let (_, keys) = world.keeps.front().unwrap().clone();
                world.keys = keys;
                steps += 1;
                if steps == deaths_after && !has_died {
                    has_died = true;
                    world.crash();
                    world.drain();
                    sessions = reopen(&mut world, &machines);
                } else {
                    world.write_keys();
                }
                true
            } else {
                false
            };
            if did {
                steps += 1;
                if steps == deaths_after && !has_died {
                    has_died = true;
                    world.crash();
                    world.drain();
                    sessions = reopen(&mut world, &machines);
                }
                continue;
            }
            let (_, statement) = world.anchors();
            match (statement.serial, statement.root_certificates.len()) {
                (1, 1) => {
                    world.ask(AdminRequest::RotateAuthority);
                }
                (_, 2) => {
                    for session in sessions {
                        let trust = Some(world.held());
                        let applied = Applied {
                            trust,
                            revision: model::ids::Revision::new(1, 1),
                            policy: PolicyVersion(1),
                            error: None,
                            trouble: None,
                        };
                        world.say(session, FromHost::Applied(applied));
                    }
                    world.ask(AdminRequest::RetireAuthority { force: false });
                    world.advance(Duration::from_secs(1));
                }
                _ if world.keys.len() > 1 => world.advance(A_WHILE),
                _ => {
                    retired = true;
                    break;
                }
            }
        }
        assert!(retired, "it ends, dying after {deaths_after} steps");
        assert_eq!(world.keys.len(), 1, "dying after {deaths_after} steps");
        let listing = world.store.listing();
        verify(
            &world.new_keys_only().root_pins(),
            &listing,
            world.store.revision,
        )
        .unwrap();
        world.load().unwrap();
    }
}

fn reopen(world: &mut World, machines: &[Machine; 2]) -> [SessionId; 2] {
    [(&machines[0], "alpha"), (&machines[1], "beta")].map(|(machine, host)| {
        let session = world.open(machine, host);
        world.hello(session, None);
        session
    })
}

#[test]
fn hosts_join_with_tokens_of_either_root_meanwhile_and_of_the_new_one_afterwards() {
    let mut world = World::new();
    let old = world.token(None);
    let before = Machine::new(1).request(&world, &old, "alpha");
    world.rotate();
    let new = world.token(None);
    assert_ne!(old.pin, new.pin);
    assert_eq!(new.pin, world.held().certified_by);
    for (seed, token, host) in [(2, &old, "beta"), (3, &new, "gamma")] {
        let description = world.fleet.describe(world.now);
        let (anchors, _) = TrustAnchors::from_statement(&description.trust, &token.pin).unwrap();
        let request = Machine::new(seed).request(&world, token, host);
        let enrolled = world.enrol(request).unwrap();
        anchors.verify_record(&enrolled.record).unwrap();
        let roots = anchors.root_certificates();
        trust::certificate::verify_chain(&enrolled.certificate_chain, roots, world.now.unix)
            .unwrap();
    }
    // One that asked what the fleet is just before.
    world.enrol(before).unwrap();
    world.work(&[]);
    world.retire(true).unwrap();
    assert_eq!(world.token(None).pin, new.pin);
}

#[test]
fn one_that_was_off_is_handed_the_statements_that_it_lacks() {
    let Two {
        mut world,
        machines,
        sessions,
    } = two();
    let (first, _) = world.anchors();
    let held = world.held();
    for _ in 0..2 {
        world.rotate();
        world.moves(sessions[1]);
        world.work(&sessions[1..]);
        world.retire(true).unwrap();
        world.settle();
    }
    let session = world.open(&machines[0], "alpha");
    world.hello_holding(session, None, Some(held));
    let welcome = world
        .taken(session)
        .into_iter()
        .find_map(|message| match message {
            ToHost::Welcome(welcome) => Some(welcome),
            _ => None,
        });
    let welcome = welcome.unwrap();
    assert_eq!(welcome.earlier.len(), 3, "and not those that it has");
    let (now, _) = first
        .follow(&welcome.earlier, &welcome.trust)
        .unwrap()
        .unwrap();
    assert_eq!(now.newest_root(), world.held().certified_by);
}

#[test]
fn files_of_different_times_are_told_apart() {
    let mut world = World::new();
    let (old_keys, old_store) = (world.keys.clone(), world.store.listing());
    world.rotate();
    let old_revision = world.store.revision;
    // The store is older than the keys: the new ones wait.
    let load = |keys: &Vec<AuthorityKeys>, listing: Vec<model::store::KeyValue>| {
        let pins = Authority::load_all(keys.clone()).unwrap().root_pins();
        verify(&pins, &listing, old_revision)
    };
    load(&world.keys, old_store).unwrap();
    let refused = load(&old_keys, world.store.listing()).unwrap_err();
    assert!(
        refused.contains("older than the last rotation"),
        "{refused}"
    );
    world.keys = old_keys;
    assert!(matches!(
        world.load(),
        Err(LoadError::OtherAuthority { .. })
    ));
}

#[test]
fn the_log_tells_which_roots_were_believed_before_and_after() {
    let mut world = World::new();
    world.rotate();
    let entry = world
        .audited
        .iter()
        .find(|it| it.action == "authority.rotate")
        .unwrap();
    let change = entry
        .changes
        .iter()
        .find(|it| it.subject == "authority")
        .unwrap();
    assert_eq!(change.field, "roots");
    assert!(
        change
            .after
            .as_ref()
            .unwrap()
            .contains(&world.held().certified_by.to_string())
    );
}

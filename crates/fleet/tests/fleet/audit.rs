//! The audit log: each change has its entry, no entry tells of what was not done, and a store that
//! somebody tampered with is found.

use fleet::{AdminRequest, Caller, CommitError, Reply};
use model::admin::{AuditEntry, AuditOutcome, AuditPage, AuditQuery, CreateAdmin, Role};
use model::store::{Key, KeyValue};
use trust::audit::{AuditBreak, AuditChain};

use crate::machine::Machine;
use crate::world::{World, hour_token, name};

const RULES: &str = "
fleet: prod
allow:
  - { id: ssh, from: any, to: any, tcp: [22] }
";

impl World {
    fn page(&mut self, query: AuditQuery) -> AuditPage {
        match self.admin(AdminRequest::ListAudit(query)).unwrap() {
            Reply::Audit(page) => page,
            other => panic!("{other:?}"),
        }
    }

    fn log(&mut self) -> Vec<AuditEntry> {
        let limit = AuditPage::LIMIT_MAX;
        self.page(AuditQuery {
            limit,
            ..AuditQuery::default()
        })
        .entries
    }

    fn last(&mut self) -> AuditEntry {
        self.log().pop().unwrap()
    }

    /// Follows the chain as a reader does.
    fn check_log(&mut self) -> Result<(), AuditBreak> {
        let page = self.page(AuditQuery {
            limit: 500,
            ..AuditQuery::default()
        });
        let mut chain = AuditChain::from(page.first);
        for entry in &page.entries {
            chain.follow(entry)?;
        }
        chain.end(page.last, page.last_hash)
    }

    fn entry_key(number: u64) -> Key {
        Key::new(format!("audit/entries/{number:020}")).unwrap()
    }

    /// Changes a stored value as somebody with an editor would.
    fn tamper(&mut self, number: u64, from: &str, to: &str) {
        let stored: &mut KeyValue = self.store.keys.get_mut(&Self::entry_key(number)).unwrap();
        let text = String::from_utf8(stored.value.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        stored.value = text.replace(from, to).into_bytes();
    }
}

fn changes(entry: &AuditEntry) -> Vec<String> {
    let text = |it: &model::admin::AuditChange| {
        let (before, after) = (it.before.as_deref(), it.after.as_deref());
        format!("{} {}: {before:?} {after:?}", it.subject, it.field)
    };
    entry.changes.iter().map(text).collect()
}

#[test]
fn a_change_has_an_entry_that_says_who_what_from_where_why_and_the_difference() {
    let mut world = World::new();
    world.join("a", 1);
    let caller = Caller {
        from: "192.0.2.7".into(),
        reason: "it moved".into(),
        ..Caller::new("eve", Role::Operator)
    };
    let set = model::admin::SetLabels {
        labels: crate::world::labels(&[("role", "web")]),
        base: None,
    };
    let request = AdminRequest::SetLabels {
        host: name("a"),
        set,
    };
    world.ask_as(caller, request);
    world.settle();
    let entry = world.last();
    assert_eq!(
        (
            entry.who.as_str(),
            entry.from.as_str(),
            entry.reason.as_str()
        ),
        ("eve", "192.0.2.7", "it moved")
    );
    assert_eq!(
        (entry.action.as_str(), entry.outcome),
        ("host.labels", AuditOutcome::Done)
    );
    assert_eq!(changes(&entry), [r#"host a labels.role: None Some("web")"#]);
    assert_eq!(world.audited.last(), Some(&entry), "the program got a copy");
}

#[test]
fn the_log_begins_with_the_fleet_and_knows_every_kind_of_change() {
    let mut world = World::new();
    let (machine, _) = world.join("a", 1);
    world.apply_policy(RULES).unwrap();
    let create = CreateAdmin {
        name: name("eve"),
        role: Role::Viewer,
        valid_for_secs: None,
    };
    world.admin(AdminRequest::CreateAdmin(create)).unwrap();
    world
        .admin(AdminRequest::ReplaceCredential(name("eve")))
        .unwrap();
    world.admin(AdminRequest::RevokeAdmin(name("eve"))).unwrap();
    let token = world.token(None);
    world.admin(AdminRequest::RevokeToken(token.id)).unwrap();
    let session = world.open(&machine, "a");
    world.hello(session, None);
    world.say(session, model::control::FromHost::Leave);
    world.settle();
    let actions: Vec<_> = world.log().iter().map(|it| it.action.clone()).collect();
    assert_eq!(
        actions,
        [
            "fleet.found",
            "token.create",
            "host.join",
            "policy.apply",
            "admin.create",
            "admin.replace",
            "admin.revoke",
            "token.create",
            "token.revoke",
            "host.leave"
        ]
    );
    assert!(world.log().iter().skip(1).all(|it| !it.changes.is_empty()));
    assert_eq!(world.check_log(), Ok(()));
}

#[test]
fn a_policy_entry_names_the_rules_that_came_and_went() {
    let mut world = World::new();
    world.apply_policy(RULES).unwrap();
    let told = changes(&world.last());
    let has = |part: &str| told.iter().any(|it| it.contains(part));
    assert!(has("policy version 2 allow ssh: None"), "{told:?}");
    assert!(has("allow ping: Some"), "{told:?}");
    assert!(has(r#"policy version: Some("1") Some("2")"#), "{told:?}");
    assert_eq!(world.last().reason, "because", "the message of the policy");
}

#[test]
fn what_was_not_done_has_no_entry_and_breaks_no_chain() {
    let mut world = World::new();
    let before = world.log().len();
    // Ten on their way at once, each entry on the one before; the third finds no room.
    for _ in 0..10 {
        world.ask(AdminRequest::CreateToken(hour_token()));
    }
    assert_eq!(world.asked.len(), 10, "they are under way together");
    world.carry_out(0);
    world.carry_out(0);
    let (id, _) = world.asked.pop_front().unwrap();
    let full = CommitError::Failed("no space left on device".into());
    world.fleet.handle_commit(id, Err(full), world.now);
    world.settle();
    world.advance(std::time::Duration::from_secs(1));
    world.settle();
    assert_eq!(world.log().len(), before + 9);
    assert_eq!(world.check_log(), Ok(()));
}

#[test]
fn a_full_disk_is_named_to_everybody_who_waited_on_the_commit_that_met_it() {
    let mut world = World::new();
    let ids: Vec<_> = (0..5)
        .map(|_| world.ask(AdminRequest::CreateToken(hour_token())))
        .collect();
    while ids.iter().any(|id| !world.replies.contains_key(id)) {
        while !world.asked.is_empty() {
            world.fail(0);
        }
        world.advance(std::time::Duration::from_secs(1));
    }
    for id in ids {
        let refused = world.replies[&id].clone().unwrap_err().to_string();
        assert!(refused.contains("no space left"), "{refused}");
    }
    world.token(None);
    assert_eq!(world.check_log(), Ok(()));
}

#[test]
fn a_tampered_store_is_found_at_the_next_start_and_by_readers() {
    type Tampering = fn(&mut World);
    let tamperings: [(Tampering, &str); 4] = [
        (
            |world| world.tamper(3, "host.join", "host.leave"),
            "entry 3 was altered",
        ),
        (
            |world| drop(world.store.keys.remove(&World::entry_key(2))),
            "entries 2 to 2 are missing",
        ),
        (
            |world| drop(world.store.keys.remove(&World::entry_key(4))),
            "entries 4 to 4 are missing",
        ),
        (
            |world| world.tamper(3, "{\"v\":1", "{\"v\":"),
            "entries 3 to 3 are missing",
        ),
    ];
    for (tamper, expected) in tamperings {
        let mut world = World::new();
        world.join("a", 1);
        world.set_labels("a", &[("role", "web")]);
        assert_eq!(world.check_log(), Ok(()));
        tamper(&mut world);
        world.crash();
        world.drain();
        assert!(
            world.notices.iter().any(|it| it.contains(expected)),
            "{:?}",
            world.notices
        );
        assert_eq!(
            world.check_log().unwrap_err().to_string().split(':').next(),
            Some(expected)
        );
        // It is told of, and work goes on.
        world.set_labels("a", &[("role", "db")]);
    }
}

#[test]
fn without_its_tip_the_log_goes_on_after_its_last_entry() {
    let mut world = World::new();
    world
        .store
        .keys
        .retain(|key, _| !key.as_str().starts_with("audit/tip/"));
    world.crash();
    world.token(None);
    assert_eq!(world.check_log(), Ok(()));
}

#[test]
fn refusals_that_matter_are_noted_within_a_budget() {
    let mut world = World::new();
    let viewer = Caller::new("eve", Role::Viewer);
    world.ask_as(viewer, AdminRequest::RemoveHost(name("a")));
    world.settle();
    let denied = world.last();
    assert_eq!(
        (denied.who.as_str(), denied.outcome),
        ("eve", AuditOutcome::Refused)
    );
    assert!(
        denied.reason.contains("needs the role"),
        "{}",
        denied.reason
    );
    for _ in 0..1000 {
        let now = world.now;
        world.fleet.handle_unknown_credential(
            "mesh-admin1.admin.aaaaaaaaaaaaaaaaaaaaaaaaaa",
            "192.0.2.9",
            now,
        );
    }
    world.settle();
    let wrong = world.last();
    assert_eq!(
        (wrong.who.as_str(), wrong.from.as_str()),
        ("unknown as admin", "192.0.2.9")
    );
    assert!(world.log().len() < 20, "a flood of strangers fills no disk");
    let mut request = {
        let token = world.token(None);
        Machine::new(1).request(&world, &token, "a")
    };
    request.token_secret[0] ^= 1;
    world.refused_enrolment(request);
    world.settle();
    assert_eq!(
        (world.last().action.as_str(), world.last().outcome),
        ("host.join", AuditOutcome::Refused)
    );
    assert_eq!(world.check_log(), Ok(()));
}

#[test]
fn readers_page_through_what_they_ask_for() {
    let mut world = World::new();
    for _ in 0..25 {
        world.token(None);
    }
    let query = |after| AuditQuery {
        after,
        limit: 10,
        ..AuditQuery::default()
    };
    let mut after = 0;
    let mut numbers = Vec::new();
    loop {
        let page = world.page(query(after));
        numbers.extend(page.entries.iter().map(|it| it.number));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(numbers, (1..=26).collect::<Vec<_>>());
    let newest = world.page(AuditQuery {
        newest: true,
        ..query(0)
    });
    assert_eq!(newest.entries.first().unwrap().number, 17);
    let nobody = world.page(AuditQuery {
        who: Some("nobody".into()),
        ..query(0)
    });
    assert!(nobody.entries.is_empty() && nobody.last == 26);
    let later = world.now.unix.as_secs() + 1;
    assert!(
        world
            .page(AuditQuery {
                since: later,
                ..query(0)
            })
            .entries
            .is_empty()
    );
}

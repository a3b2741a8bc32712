//! Many at once: all hosts of a fleet come back, ten thousand machines join. Some are let in, each of
//! the others is told when its turn is, and all are in at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{AdminRequest, FleetLimits, SessionId};
use model::control::{RefusalCode, ToHost};
use model::time::Instant;

use crate::machine::Machine;
use crate::world::World;

const BURST: usize = FleetLimits::ADMISSION_BURST as usize;

fn called(number: u16) -> String {
    format!("vm-{number}")
}

/// Returns when the host may come back; `None`: it was let in.
fn turn(world: &mut World, session: SessionId) -> Option<Duration> {
    world.taken(session).iter().find_map(|it| match it {
        ToHost::Goodbye(goodbye) => Some(goodbye.retry_after),
        _ => None,
    })
}

#[test]
fn hosts_that_come_back_together_are_let_in_at_a_pace() {
    const HOSTS: u16 = 3000;
    let mut world = World::new();
    let machines: Vec<_> = (0..HOSTS).map(|it| world.join(&called(it), it).0).collect();
    world.pace();
    world.crash();
    // When each comes: at first all at once, later when they were told.
    let mut coming: BTreeMap<(Instant, u16), ()> = (0..HOSTS)
        .map(|it| ((world.now.monotonic, it), ()))
        .collect();
    let start = world.now.monotonic;
    let (mut let_in, mut attempts) = (0, 0);
    while let Some(((at, number), ())) = coming.pop_first() {
        world.advance(at.saturating_since(world.now.monotonic));
        attempts += 1;
        let session = world.open(&machines[usize::from(number)], &called(number));
        match turn(&mut world, session) {
            Some(wait) => drop(coming.insert((world.now.monotonic + wait, number), ())),
            None => {
                world.hello(session, None);
                let_in += 1;
            }
        }
        if at == start {
            assert!(let_in <= BURST, "no more than the burst at once");
        }
    }
    assert_eq!(let_in, usize::from(HOSTS), "nobody is lost");
    assert!(
        attempts <= 3 * usize::from(HOSTS),
        "{attempts}: a turn that is given holds"
    );
    let took = world.now.monotonic.saturating_since(start).as_secs();
    let pace = u64::from(FleetLimits::ADMISSION_PER_SEC);
    assert!(took <= 2 * u64::from(HOSTS) / pace, "{took} s");
}

#[test]
fn ten_thousand_machines_that_join_at_once_are_all_members_soon() {
    const MACHINES: u16 = 10_000;
    let mut world = World::paced();
    let token = world.token(None);
    let mut coming: BTreeMap<(Instant, u16), ()> = (0..MACHINES)
        .map(|it| ((world.now.monotonic, it), ()))
        .collect();
    let mut under_way_most = 0;
    while let Some((&(at, _), ())) = coming.first_key_value() {
        world.advance(at.saturating_since(world.now.monotonic));
        let mut asked = Vec::new();
        while let Some(entry) = coming.first_entry().filter(|entry| entry.key().0 <= at) {
            let (_, number) = *entry.key();
            entry.remove();
            let request = Machine::new(number).request(&world, &token, &called(number));
            asked.push((number, world.start_enrolment(request)));
        }
        under_way_most = under_way_most.max(world.asked.len());
        world.settle();
        for (number, id) in asked {
            if let Err(rejection) = world.taken_enrolment(id).unwrap() {
                assert_eq!(
                    rejection.refusal.code,
                    RefusalCode::Unavailable,
                    "{rejection}"
                );
                let wait = rejection.retry_after.expect("it is told when its turn is");
                coming.insert((world.now.monotonic + wait, number), ());
            }
        }
    }
    assert_eq!(world.status().hosts, usize::from(MACHINES), "none is lost");
    assert!(
        under_way_most <= BURST,
        "{under_way_most} commits under way"
    );
}

#[test]
fn strangers_without_a_token_take_nobodys_turn() {
    let mut world = World::paced();
    let token = world.token(None);
    let mut wrong = Machine::new(1).request(&world, &token, "a");
    wrong.token_secret[0] ^= 1;
    for _ in 0..3 * BURST {
        let id = world.start_enrolment(wrong.clone());
        let refused = world.taken_enrolment(id).unwrap().unwrap_err();
        assert_eq!(refused.refusal.code, RefusalCode::Denied);
    }
    world
        .enrol(Machine::new(2).request(&world, &token, "b"))
        .unwrap();
}

#[test]
fn tokens_that_are_good_no_more_take_nobodys_turn() {
    let mut world = World::paced();
    let (used_up, expired) = (world.token(Some(1)), world.token(None));
    world
        .enrol(Machine::new(1).request(&world, &used_up, "a"))
        .unwrap();
    world.advance(Duration::from_secs(3600));
    let fresh = world.token(None);
    let stale = [&used_up, &expired].map(|token| Machine::new(2).request(&world, token, "b"));
    for _ in 0..BURST {
        for request in &stale {
            let id = world.start_enrolment(request.clone());
            let refused = world.taken_enrolment(id).unwrap().unwrap_err();
            assert_ne!(refused.refusal.code, RefusalCode::Unavailable, "{refused}");
        }
    }
    world
        .enrol(Machine::new(3).request(&world, &fresh, "c"))
        .unwrap();
}

#[test]
fn a_member_that_comes_again_and_again_takes_nobodys_turn() {
    let mut world = World::new();
    let (restless, _) = world.join("a", 1);
    let (other, _) = world.join("b", 2);
    world.pace();
    world.crash();
    let mut let_in = 0;
    for _ in 0..3 * BURST {
        let session = world.open(&restless, "a");
        let_in += usize::from(turn(&mut world, session).is_none());
    }
    assert_eq!(let_in, 16);
    let session = world.open(&other, "b");
    assert_eq!(turn(&mut world, session), None);
    world.advance(Duration::from_secs(5));
    let session = world.open(&restless, "a");
    assert_eq!(turn(&mut world, session), None, "it has a turn of its own");
}

#[test]
fn a_credential_that_asks_too_often_waits_and_others_do_not() {
    let mut world = World::paced();
    let wild = world
        .fleet
        .authenticate_admin(&world.credential, world.now)
        .unwrap();
    let ids: Vec<_> = (0..2 * FleetLimits::CALLER_BURST)
        .map(|_| world.ask_as(wild.clone(), AdminRequest::Status))
        .collect();
    let refused = ids
        .iter()
        .filter_map(|id| world.replies[id].as_ref().err())
        .collect::<Vec<_>>();
    assert_eq!(refused.len(), FleetLimits::CALLER_BURST as usize);
    assert!(refused.iter().all(|it| it.retry_after.is_some()));
    assert_eq!(refused[0].refusal.code, RefusalCode::Exhausted);
    world.admin(AdminRequest::Status).unwrap();
    world.advance(Duration::from_secs(1));
    let later = world.ask_as(wild, AdminRequest::Status);
    assert!(world.replies[&later].is_ok());
}

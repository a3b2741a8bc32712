//! Every invariant can fail: each test breaks something by hand in a world in which all is well, and
//! sees that it is noticed.

use agent::{PersistId, StateFile};
use dataplane::Balance;
use model::control::ToHost;
use model::ids::{PolicyVersion, Revision};
use model::map::MapDelta;
use model::wire::stored::{decode_map, encode_map};

use super::paths::Sights;
use super::quiet::Said;
use super::*;
use crate::network::Place;
use crate::operator::Errand;
use crate::packet;
use crate::traffic::{FlowId, Reason, Speech, Wish};

/// Eight hosts to which nothing happened, when the pairs begin to be tried.
pub(super) fn settled(seed: u64) -> World {
    until(seed, |phase| matches!(phase, Phase::Probing { .. }))
}

fn until(seed: u64, is_there: impl Fn(Phase) -> bool) -> World {
    let scenario = Scenario {
        hosts: 8,
        natted_per_mille: 0,
        ..Scenario::quiet()
    };
    let mut world = World::new(scenario, seed);
    while !is_there(world.phase) {
        assert!(world.step(), "{:?}", world.violation);
    }
    world
}

/// Runs on until something is wrong, and says what.
fn run_on(world: &mut World) -> &'static str {
    while world.step() {}
    broken(world)
}

fn broken(world: &World) -> &'static str {
    let violation = world.violation.as_ref();
    violation.expect("the invariant is looked at").rule
}

fn members(world: &World) -> Vec<HostIndex> {
    let members = world.hosts.iter().filter(|host| host.identity().is_some());
    members.map(|host| host.index).collect()
}

/// Opens a flow that the policy allows, or denies, without sending anything.
fn flow(world: &mut World, is_allowed: bool, reason: Reason) -> (FlowId, HostIndex) {
    let members = members(world);
    for opener in &members {
        for target in members.iter().filter(|it| *it != opener) {
            let here = world.host(*opener).in_force.clone().expect("a member");
            let there = world.host(*target).in_force.clone().expect("a member");
            let knows = there.peers.contains_key(&here.me.host);
            let speech = Speech::every().into_iter().find(|speech| {
                let (protocol, port) = (speech.ip_protocol(), speech.port());
                knows && there.allows(&here.me, &there.me, protocol, port) == is_allowed
            });
            if let Some(speech) = speech {
                let wish = Wish {
                    opener: *opener,
                    source: here.me.addresses.v4.into(),
                    destination: there.me.addresses.v4.into(),
                    speech,
                    reason,
                };
                let id = world.traffic.open(wish, Some(here.me.host));
                return (id, *target);
            }
        }
    }
    panic!("the policy of this seed has no such pair");
}

fn first_packet(world: &mut World, flow: FlowId) -> Vec<u8> {
    let step = world.traffic.go_on(flow, world.now);
    step.and_then(|step| step.packet).expect("it begins")
}

#[test]
fn a_denied_packet_that_is_delivered_is_noticed() {
    let mut world = settled(1);
    let (id, target) = flow(&mut world, false, Reason::Work);
    let packet = first_packet(&mut world, id);
    world.packet_delivered(target, &packet);
    assert_eq!(broken(&world), "no denied packet is delivered");
}

#[test]
fn a_packet_that_is_delivered_twice_is_noticed() {
    let mut world = settled(1);
    let (id, target) = flow(&mut world, true, Reason::Work);
    let packet = first_packet(&mut world, id);
    world.packet_delivered(target, &packet);
    assert_eq!(world.violation, None);
    world.packet_delivered(target, &packet);
    assert_eq!(broken(&world), "no packet is delivered twice");
}

#[test]
fn a_packet_that_was_changed_on_the_way_is_noticed() {
    let mut world = settled(1);
    let (id, target) = flow(&mut world, true, Reason::Work);
    let mut packet = first_packet(&mut world, id);
    *packet.last_mut().expect("it is not empty") ^= 0x80;
    world.packet_delivered(target, &packet);
    assert!(world.violation.is_some());
}

#[test]
fn who_is_believed_to_be_another_is_noticed() {
    let mut world = settled(1);
    let (id, target) = flow(&mut world, true, Reason::Forgery);
    let packet = first_packet(&mut world, id);
    world.packet_delivered(target, &packet);
    assert_eq!(broken(&world), "nobody speaks as another");
}

#[test]
fn an_answer_at_a_third_host_is_noticed() {
    let mut world = settled(1);
    let (id, target) = flow(&mut world, true, Reason::Work);
    world.traffic.get_mut(id).expect("it is open").opener = HostIndex(77);
    world.traffic.get_mut(id).expect("it is open").identity = None;
    let opened = first_packet(&mut world, id);
    let (_, packet::Reading::Flow(tag)) = packet::read(&opened) else {
        panic!("applications send tagged packets");
    };
    let answer = world.traffic.get(id).expect("it is open").answer(tag, None);
    let others = members(&world).into_iter().filter(|it| *it != target);
    let asker = others
        .into_iter()
        .find(|it| {
            let map = world.host(*it).in_force.as_ref().expect("a member");
            Some(map.me.addresses.v4.into()) == world.traffic.get(id).map(|flow| flow.source)
        })
        .expect("somebody has the address");
    world.packet_delivered(asker, &answer);
    assert_eq!(broken(&world), "answers reach who asked");
}

#[test]
fn a_lost_packet_is_noticed() {
    let mut world = settled(1);
    let lost = Balance {
        received: 1,
        ..Balance::default()
    };
    world.check_balance(HostIndex(0), lost);
    assert_eq!(broken(&world), "every packet is delivered or counted");
}

#[test]
fn a_revision_that_goes_back_is_noticed() {
    let mut world = settled(1);
    let index = members(&world)[0];
    let now = world.now;
    let host = world.host_mut(index);
    assert_eq!(host.note_in_force(now), Ok(()));
    let (id, ..) = host.highest.expect("something was in force");
    host.highest = Some((id, Revision::new(1, 9999), PolicyVersion(1)));
    assert!(host.note_in_force(now).is_err());
}

#[test]
fn an_address_that_two_hosts_have_is_noticed() {
    let mut world = settled(1);
    let members = members(&world);
    let taken = world.running_mut(members[0]).interface;
    world.set_interface(members[1], taken);
    assert_eq!(broken(&world), "no two hosts have one address");
}

#[test]
fn a_host_that_knows_whom_no_rule_connects_it_with_is_noticed() {
    let mut world = settled(1);
    let knows_some = |world: &World, index: HostIndex| {
        let map = world.host(index).in_force.clone();
        map.is_some_and(|map| !map.peers.is_empty())
    };
    let index = members(&world)
        .into_iter()
        .find(|index| knows_some(&world, *index))
        .expect("the policy connects some");
    let bytes = world.host(index).disk.map().expect("a member has a map");
    let mut stored = decode_map(bytes).expect("it can be read");
    let policy = stored.map.policy.as_mut().expect("it has a policy");
    policy.leaves.truncate(1);
    world.write(index, PersistId(9999), StateFile::Map, encode_map(&stored));
    assert_eq!(
        broken(&world),
        "hosts know only whom a rule connects them with"
    );
}

#[test]
fn a_stranger_with_an_interface_is_noticed() {
    let mut world = settled(1);
    let taken = world.running_mut(members(&world)[0]).interface;
    let stranger = world.hosts.iter().find(|host| !host.is_wanted);
    let stranger = stranger.expect("some stay out").index;
    world.running_mut(stranger).interface = taken;
    assert_eq!(
        run_on(&mut world),
        "who is no member enforces and resolves nothing"
    );
}

#[test]
fn a_store_that_forgets_is_noticed() {
    let mut world = until(1, |phase| matches!(phase, Phase::Joining));
    let empty = loop {
        assert!(world.step());
        let (keys, _) = world.coordinator.store.listing();
        if !keys.is_empty() {
            break world.coordinator.store.backup();
        }
    };
    while !matches!(world.phase, Phase::Settling { .. }) {
        assert!(world.step());
    }
    world.crash_coordinator(false);
    world.coordinator.store.restore(&empty);
    world.start_coordinator();
    assert_eq!(broken(&world), "what was acknowledged stays");
}

#[test]
fn a_brain_that_spins_is_noticed() {
    let mut world = settled(1);
    let (index, due) = (members(&world)[0], world.now);
    let running = world.running_mut(index);
    (running.spins, running.wake) = (SPINS_MAX, Some(due));
    let run = running.run;
    world.host_wakes(index, run, due);
    assert_eq!(broken(&world), "no brain spins");
}

#[test]
fn a_fleet_that_does_not_become_right_in_time_is_noticed() {
    let mut world = until(1, |phase| matches!(phase, Phase::Settling { .. }));
    world.network.part(vec![Place::Host(HostIndex(0))]);
    world.network.part(vec![Place::Host(HostIndex(1))]);
    world.network.part(vec![Place::Host(HostIndex(2))]);
    assert_eq!(run_on(&mut world), "everything becomes right in time");
}

#[test]
fn a_pair_that_cannot_talk_is_noticed() {
    let mut world = settled(1);
    for index in members(&world) {
        world.network.part(vec![Place::Host(index)]);
    }
    let rule = "allowed pairs can talk, denied ones are refused";
    assert_eq!(run_on(&mut world), rule);
}

#[test]
fn a_map_that_is_sent_when_nothing_changed_is_noticed() {
    let mut world = settled(1);
    let steward = world.coordinator.running.as_ref().expect("it runs");
    let connection = *steward.sessions.values().next().expect("hosts are online");
    world.note_told(connection, &ToHost::Map(MapDelta::default()), 100);
    assert_eq!(run_on(&mut world), "where nothing changes nothing is told");
}

#[test]
fn a_storm_of_hints_is_noticed() {
    let mut world = settled(1);
    let index = members(&world)[0];
    for _ in 0..100 {
        world.note_reported(index, 10);
    }
    assert_eq!(run_on(&mut world), "where nothing changes nothing is told");
}

#[test]
fn a_word_to_a_host_that_a_change_does_not_concern_is_noticed() {
    for seed in 1..50 {
        let mut world = settled(seed);
        let truth = world.truth.clone();
        let members = members(&world);
        let id = |index: &HostIndex| world.host(*index).identity().expect("a member");
        let apart = members.iter().find_map(|one| {
            let mut others = members.iter().filter(|it| *it != one);
            let other = others.find(|other| !truth.links(id(one), id(other)))?;
            Some((*one, *other))
        });
        let Some((changed, other)) = apart else {
            continue;
        };
        let changed = world.host(changed).identity().expect("a member");
        world.listen();
        world.check_unconcerned(changed, &truth);
        assert_eq!(world.violation, None);
        let said = Said {
            durable: 1,
            ..Said::default()
        };
        world.loudness.to.insert(other, said);
        world.check_unconcerned(changed, &truth);
        assert_eq!(broken(&world), "who is not concerned hears nothing");
        return;
    }
    panic!("no seed has a policy that leaves two hosts apart");
}

#[test]
fn nothing_is_settled_while_a_key_waits_for_a_coordinator_with_a_full_disk() {
    let mut world = settled(1);
    let index = members(&world)[0];
    let (truth, policy) = (world.truth.clone(), world.operator.policies.newest());
    assert_eq!(world.what_is_not_settled(&truth, policy), None);
    world.coordinator.store.is_full = true;
    world.run_errand(Errand::RotateKey(index));
    for _ in 0..1000 {
        assert!(world.step(), "{:?}", world.violation);
    }
    let what = world.what_is_not_settled(&truth, policy);
    assert!(what.is_some_and(|what| what.contains("change its key")));
}

#[test]
fn nothing_is_settled_while_operators_are_about_to_do_something() {
    let mut world = settled(1);
    let (truth, policy) = (world.truth.clone(), world.operator.policies.newest());
    world.push_errand(Errand::RollBack, 1);
    let what = world.what_is_not_settled(&truth, policy);
    assert!(what.is_some_and(|what| what.contains("RollBack")));
}

#[test]
fn hosts_with_two_packet_threads_have_lanes_and_find_what_links_take() {
    let mut world = World::new(Scenario::spread(), 1);
    while world.step() {}
    assert_eq!(world.violation, None);
    let Sights { lanes, narrow } = world.sights;
    assert!(lanes > 0 && narrow > 0, "{:?}", world.sights);
}

//! Another version of the policy costs a host what it changes: the leaves that are new to it, and a few
//! hashes for those that stay.

use std::fmt::Write;
use std::time::Duration;

use fleet::SessionId;
use model::control::{FromHost, Hello, ToHost};
use model::map::MapDelta;
use model::wire::encode_to_host;

use crate::machine::Machine;
use crate::model_host::ModelHost;
use crate::world::{World, name};

/// Each of so many applications has a rule of its own.
const APPLICATIONS: u16 = 300;

/// A rule for each application, at this port for one of them.
fn policy(changed: u16, port: u16) -> String {
    let mut text = "fleet: prod\nallow:\n".to_owned();
    for app in 0..APPLICATIONS {
        let port = if app == changed { port } else { 5432 };
        let (from, to) = (
            format!("app=a{app},tier=web"),
            format!("app=a{app},tier=db"),
        );
        writeln!(
            text,
            "  - {{ id: app-{app}, from: \"{from}\", to: \"{to}\", tcp: [{port}] }}"
        )
        .unwrap();
    }
    text.push_str("deny:\n  - { id: no-telnet, from: any, to: any, tcp: [23] }\n");
    text
}

/// A host of an application at its stream, and what it knows.
struct Follower {
    machine: Machine,
    called: String,
    session: SessionId,
    known: ModelHost,
}

impl Follower {
    fn of_application(world: &mut World, app: u16) -> Self {
        let called = format!("web-{app}");
        let (machine, _) = world.join(&called, app);
        world.set_labels(&called, &[("app", &format!("a{app}")), ("tier", "web")]);
        let session = world.open(&machine, &called);
        world.hello(session, None);
        let mut follower = Self {
            machine,
            called,
            session,
            known: ModelHost::default(),
        };
        follower.hear(world);
        follower
    }

    /// Returns the maps that it was told.
    fn hear(&mut self, world: &mut World) -> Vec<MapDelta> {
        let messages = world.taken(self.session);
        self.known.apply_all(world, &messages);
        let maps = messages.into_iter().filter_map(|message| match message {
            ToHost::Map(delta) => Some(delta),
            _ => None,
        });
        maps.collect()
    }

    /// Returns what a host knows that was told everything anew.
    fn anew(&mut self, world: &mut World) -> ModelHost {
        self.session = world.open(&self.machine, &self.called);
        world.hello(self.session, None);
        let mut known = ModelHost::default();
        let messages = world.taken(self.session);
        known.apply_all(world, &messages);
        known
    }
}

fn bytes(map: &MapDelta) -> usize {
    encode_to_host(&ToHost::Map(map.clone())).len()
}

#[test]
fn one_changed_rule_is_one_leaf_to_whom_it_concerns_and_none_to_others() {
    let mut world = World::new();
    world.apply_policy(&policy(7, 5432)).unwrap();
    let mut followers = [7, 8].map(|app| Follower::of_application(&mut world, app));
    world.apply_policy(&policy(7, 5433)).unwrap();
    let told = followers.each_mut().map(|it| it.hear(&mut world).remove(0));
    let leaves = told.each_ref().map(|map| {
        let step = map.policy_step.as_ref().unwrap();
        (step.leaves.len(), step.dropped.len())
    });
    assert_eq!(leaves, [(1, 0), (0, 0)]);
    // The signed head of the map, the signed head of the policy, and a hash for each leaf that stays.
    let bytes = told.each_ref().map(bytes);
    assert!(bytes[1] <= 600, "{bytes:?} bytes");
    for follower in &mut followers {
        let stepped = follower.known.policy.clone();
        assert_eq!(follower.anew(&mut world).policy, stepped);
    }
}

#[test]
fn a_rule_that_comes_or_goes_moves_no_others() {
    let mut world = World::new();
    world.apply_policy(&policy(7, 5432)).unwrap();
    let mut other = Follower::of_application(&mut world, 200);
    let rule = "  - { id: new, from: \"app=a7\", to: \"app=a9\", tcp: [80] }\ndeny:";
    let with_rule = policy(7, 5432).replace("deny:", rule);
    for (changed, yaml) in [("came", with_rule), ("went", policy(7, 5432))] {
        world.apply_policy(&yaml).unwrap();
        let told = other.hear(&mut world).remove(0);
        let step = told.policy_step.as_ref().unwrap();
        let leaves: Vec<u32> = step.leaves.iter().map(|leaf| leaf.index).collect();
        assert_eq!(
            leaves,
            [0],
            "{changed}: the denies stand in another line now"
        );
    }
    let stepped = other.known.policy.clone();
    assert_eq!(other.anew(&mut world).policy, stepped);
}

#[test]
fn a_label_brings_and_takes_the_leaves_of_the_version_in_force() {
    let mut world = World::new();
    world.apply_policy(&policy(7, 5432)).unwrap();
    let mut mover = Follower::of_application(&mut world, 7);
    world.set_labels("web-7", &[("app", "a8"), ("tier", "web")]);
    world.advance(Duration::from_millis(20));
    let told = mover.hear(&mut world).remove(0);
    let step = told.policy_step.unwrap();
    assert_eq!((step.leaves.len(), step.dropped.len()), (1, 1));
    // Two changes before the next message are one slice.
    world.set_labels("web-7", &[("app", "a9"), ("tier", "web")]);
    world.set_labels("web-7", &[("app", "a10"), ("tier", "web")]);
    world.advance(Duration::from_millis(20));
    let told = mover.hear(&mut world).remove(0);
    assert!(told.policy.is_some() && told.policy_step.is_none());
    let known = mover.known.knowledge();
    assert_eq!(mover.anew(&mut world).knowledge(), known);
}

#[test]
fn a_host_that_takes_no_steps_gets_its_leaves_whole() {
    let mut world = World::new();
    world.apply_policy(&policy(7, 5432)).unwrap();
    let (machine, _) = world.join("old", 1);
    let session = world.open(&machine, "old");
    let hello = Hello {
        have: None,
        software_version: "0.1.0".into(),
        features: ["allow", "deny"].map(str::to_owned).into(),
        boot_counter: 1,
        trust: None,
    };
    world.say(session, FromHost::Hello(hello));
    world.taken(session);
    world.apply_policy(&policy(7, 5433)).unwrap();
    let messages = world.taken(session);
    let [ToHost::Map(told)] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert!(told.policy.is_some() && told.policy_step.is_none());
}

#[test]
fn versions_keep_their_order_through_a_restart() {
    let mut world = World::new();
    world.apply_policy(&policy(7, 5432)).unwrap();
    let mut other = Follower::of_application(&mut world, 8);
    let gone = policy(7, 5432).replace("id: app-3,", "id: app-three,");
    world.apply_policy(&gone).unwrap();
    other.hear(&mut world);
    world.crash();
    let stepped = other.known.policy.clone();
    assert_eq!(other.anew(&mut world).policy, stepped);
    // The same files are the same policy, in whatever order its leaves stand.
    assert!(!world.apply_policy(&gone).unwrap().changed);
    world.apply_policy(&policy(7, 5433)).unwrap();
    other.known = ModelHost::default();
    let anew = other.anew(&mut world);
    let slice = anew.policy.unwrap();
    let (head, bundle) = world.anchors().0.verify_slice(&slice).unwrap();
    assert_eq!((head.version.0, bundle.allow.len()), (4, 1));
    assert_eq!(bundle.allow[0].id.as_str(), name("app-8").as_str());
}

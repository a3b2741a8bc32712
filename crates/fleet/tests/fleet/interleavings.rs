//! Whatever order commits happen and are reported in, whatever fails, and whenever the coordinator
//! dies: nothing that may exist once exists twice, no acknowledged host is lost, no token is used
//! more often than it says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet::{AdminRequest, CommitError, RequestId};
use model::ids::HostId;
use proptest::prelude::*;
use trust::JoinToken;

use crate::machine::Machine;
use crate::world::{World, name};

const LIMITED_USES: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Enrol {
        machine: u16,
        host: u8,
        limited: bool,
    },
    Remove {
        host: u8,
    },
    Label {
        host: u8,
        value: u8,
    },
    CarryOut(usize),
    Report(usize),
    FailDisk(usize),
    Conflict(usize),
    Wait,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u16..10, 0u8..8, any::<bool>())
            .prop_map(|(machine, host, limited)| Step::Enrol { machine, host, limited }),
        1 => (0u8..8).prop_map(|host| Step::Remove { host }),
        1 => (0u8..8, 0u8..3).prop_map(|(host, value)| Step::Label { host, value }),
        6 => any::<usize>().prop_map(Step::CarryOut),
        6 => any::<usize>().prop_map(Step::Report),
        1 => any::<usize>().prop_map(Step::FailDisk),
        1 => any::<usize>().prop_map(Step::Conflict),
        1 => Just(Step::Wait),
        1 => Just(Step::Crash),
    ]
}

struct Run {
    world: World,
    limited: JoinToken,
    unlimited: JoinToken,
    open: Vec<RequestId>,
    acknowledged: BTreeSet<HostId>,
    /// Removals were asked for: acknowledged hosts may be gone.
    removals: bool,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        let (limited, unlimited) = (world.token(Some(LIMITED_USES)), world.token(None));
        let acknowledged = BTreeSet::new();
        Self {
            world,
            limited,
            unlimited,
            open: Vec::new(),
            acknowledged,
            removals: false,
        }
    }

    fn take(&mut self, step: &Step) {
        let world = &mut self.world;
        let (asked, done) = (world.asked.len(), world.done.len());
        match *step {
            Step::Enrol {
                machine,
                host,
                limited,
            } => {
                let token = if limited {
                    &self.limited
                } else {
                    &self.unlimited
                };
                let request = Machine::new(machine).request(world, token, &format!("h{host}"));
                self.open.push(world.start_enrolment(request));
            }
            Step::Remove { host } => {
                self.removals = true;
                world.ask(AdminRequest::RemoveHost(name(&format!("h{host}"))));
            }
            Step::Label { host, value } => {
                let text = format!("v{value}");
                let set = model::admin::SetLabels {
                    labels: crate::world::labels(&[("role", &text)]),
                    base: None,
                };
                world.ask(AdminRequest::SetLabels {
                    host: name(&format!("h{host}")),
                    set,
                });
            }
            Step::CarryOut(at) if asked > 0 => world.carry_out(at % asked),
            Step::Report(at) if done > 0 => world.report(at % done),
            Step::FailDisk(at) if asked > 0 => world.fail(at % asked),
            Step::Conflict(at) if asked > 0 => {
                let (id, _) = world.asked.remove(at % asked).unwrap();
                world
                    .fleet
                    .handle_commit(id, Err(CommitError::Conflict), world.now);
                world.drain();
            }
            Step::Wait => world.advance(Duration::from_millis(25)),
            Step::Crash => {
                self.open.clear(); // nobody is answered any more
                world.crash();
            }
            _ => {}
        }
        self.note_answers();
        self.check_uses();
    }

    fn note_answers(&mut self) {
        let open = std::mem::take(&mut self.open);
        for id in open {
            match self.world.taken_enrolment(id) {
                Some(Ok(enrolled)) => {
                    self.acknowledged.insert(enrolled.host);
                }
                Some(Err(_)) => {}
                None => self.open.push(id),
            }
        }
    }

    fn check_uses(&self) {
        let prefix = format!("uses/{}/", self.limited.id);
        let used = self
            .world
            .store
            .keys
            .keys()
            .filter(|key| key.as_str().starts_with(&prefix));
        assert!(used.count() <= LIMITED_USES as usize);
    }

    fn finish(mut self) {
        for _ in 0..20 {
            self.world.settle();
            self.world.advance(Duration::from_secs(1));
        }
        self.note_answers();
        assert!(self.open.is_empty(), "every request is answered");
        self.check_uses();
        let hosts = self.world.hosts();
        let (mut names, mut addresses, mut keys) =
            <(BTreeSet<_>, BTreeSet<_>, BTreeSet<_>)>::default();
        for host in &hosts {
            assert!(
                names.insert(host.name.clone()),
                "two hosts named {}",
                host.name
            );
            assert!(
                addresses.insert(host.addresses),
                "two hosts at {:?}",
                host.addresses
            );
            assert!(keys.insert(host.wireguard_key), "two hosts with one key");
        }
        let members: BTreeMap<HostId, _> = hosts.iter().map(|host| (host.id, host)).collect();
        if !self.removals {
            let lost = self
                .acknowledged
                .iter()
                .find(|id| !members.contains_key(id));
            assert_eq!(lost, None, "an acknowledged host is lost");
        }
        self.world.crash();
        assert_eq!(
            self.world.hosts(),
            hosts,
            "what is loaded is what was known"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_is_twice_and_nothing_acknowledged_is_lost(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
        }
        run.finish();
    }
}

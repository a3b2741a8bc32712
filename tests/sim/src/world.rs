//! The world: everything that there is, the event loop, and what is checked after every event. How
//! each kind of event is carried out is told by noun.

use std::rc::Rc;
use std::time::Duration;

use model::time::Instant;

use crate::control::{Control, Way};
use crate::coordinator::Coordinator;
use crate::dice::Dice;
use crate::event::{Event, HostIndex, Note, Who};
use crate::host::Host;
use crate::ledger::Ledger;
use crate::network::{Network, Place};
use crate::operator::Operator;
use crate::queue::EventQueue;
use crate::scenario::Scenario;
use crate::store::Backup;
use crate::trace::Trace;
use crate::traffic::Traffic;
use crate::truth::Truth;

mod channels;
mod clones;
mod coordination;
mod faults;
mod flows;
mod hosts;
mod paths;
mod phases;
mod probing;
mod quiet;
mod restoring;
mod rogues;
mod rotating;
pub(crate) mod services;
mod settling;
mod shards;
#[cfg(test)]
mod tests;

pub(crate) use phases::Phase;
use quiet::Loudness;

/// Everything that there is.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: Instant,
    pub(crate) queue: EventQueue<Event>,
    pub(crate) trace: Trace,
    /// Lines and disks.
    pub(crate) dice: Dice,
    /// Faults, and what follows from each.
    pub(crate) fate: Dice,
    pub(crate) network: Network,
    pub(crate) control: Control,
    pub(crate) coordinator: Coordinator,
    pub(crate) hosts: Vec<Host>,
    pub(crate) operator: Operator,
    pub(crate) ledger: Ledger,
    pub(crate) service_addresses: services::ServiceAddresses,
    pub(crate) traffic: Traffic,
    /// What the fleet agreed on when everything was right the last time.
    pub(crate) truth: Rc<Truth>,
    pub(crate) phase: Phase,
    pub(crate) loudness: Loudness,
    pub(crate) backup: Option<Backup>,
    /// The coordinator was restored, and not everything is right since.
    pub(crate) is_recovering: bool,
    /// The authority was rotated, and its old root retired.
    pub(crate) is_rotated: bool,
    pub(crate) violation: Option<Violation>,
    /// Of the ways between hosts.
    pub(crate) sights: paths::Sights,
    /// What a host and the coordinator say to each other, for whoever listens in.
    pub(crate) tapped: Option<Tap>,
}

/// What one host and the coordinator said to each other, in its order.
pub(crate) struct Tap {
    pub(crate) host: HostIndex,
    pub(crate) said: Vec<(Way, Vec<u8>)>,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) detail: String,
}

/// How often a brain may be woken at one moment: it may take two steps at once, not many.
pub(crate) const SPINS_MAX: u32 = 4;
/// What a brain may want done after one input: a policy that cuts every flow tells of each.
pub(crate) const OUTPUTS_MAX: u32 = 2000;

impl World {
    pub(crate) fn new(scenario: Scenario, seed: u64) -> Self {
        let mut keys = Dice::new(seed, "keys");
        let mut places = Dice::new(seed, "places");
        let mut network = Network::new(scenario.nat_boxes());
        network.is_uneven = scenario.is_spread;
        let hosts = (0..scenario.hosts)
            .map(|index| {
                let index = HostIndex(index);
                let realm = network.some_realm(scenario.natted_per_mille, &mut places);
                Host::new(index, network.settle(index, realm))
            })
            .collect();
        let now = Instant::START;
        let mut world = Self {
            coordinator: Coordinator::new(&mut keys, now),
            operator: Operator::new(Dice::new(seed, "operator"), scenario.sites),
            traffic: Traffic::new(Dice::new(seed, "traffic")),
            dice: Dice::new(seed, "lines"),
            fate: Dice::new(seed, "fate"),
            queue: EventQueue::new(),
            trace: Trace::new(),
            control: Control::default(),
            truth: Rc::new(Truth::new(&[], None)),
            ledger: Ledger::default(),
            service_addresses: services::ServiceAddresses::default(),
            phase: Phase::Joining,
            loudness: Loudness::default(),
            backup: None,
            is_recovering: false,
            is_rotated: false,
            violation: None,
            sights: paths::Sights::default(),
            tapped: None,
            scenario,
            now,
            network,
            hosts,
        };
        world.begin();
        world
    }

    /// Lets one event happen. Returns false when the scenario is over or something is wrong.
    pub(crate) fn step(&mut self) -> bool {
        if self.violation.is_some() || self.phase == Phase::Over {
            return false;
        }
        let Some((at, _, event)) = self.queue.pop() else {
            self.violate("the world goes on", "nothing is left to happen".to_owned());
            return false;
        };
        self.now = at;
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Datagram(datagram) => self.datagram_arrives(datagram),
            Event::HostWakes { host, run, due } => self.host_wakes(host, run, due),
            Event::CoordinatorWakes { run, due } => self.coordinator_wakes(run, due),
            Event::Handshake {
                host,
                run,
                shard,
                job,
            } => self.handshake_ends(host, run, shard, job),
            Event::Persisted { host, run, id } => self.write_ends(host, run, id),
            Event::Flush { run } => self.store_flushes(run),
            Event::Frame { connection, way } => self.frame_arrives(connection, way),
            Event::CallExpires { connection } => self.call_expires(connection),
            Event::ChannelCloses { connection } => self.channel_closes(connection),
            Event::Packet { host, run, packet } => self.application_sends(host, run, packet),
            Event::FlowContinues(flow) => self.flow_continues(flow),
            Event::FlowOpens => self.flow_opens(),
            Event::FaultStrikes => self.fault_strikes(),
            Event::PartitionHeals(partition) => {
                self.network.heal(partition);
                self.say(Who::Fault, format!("partition {} is healed", partition.0));
            }
            Event::StormEnds => self.storm_ends(),
            Event::HostStarts { host, since } if self.host(host).last_run == since => {
                self.start_host(host);
            }
            Event::CoordinatorStarts { since } if self.coordinator.last_run == since => {
                self.start_coordinator();
            }
            Event::HostStarts { .. } | Event::CoordinatorStarts { .. } => {}
            Event::ClockIsSet(host) => self.host_mut(host).clock_error = 0,
            Event::DiskRecovers(host) => self.host_mut(host).disk.recover(),
            Event::StoreRecovers => self.coordinator.store.recover(),
            Event::CoordinatorClockIsSet => self.coordinator.clock_error = 0,
            Event::RogueActs { host, run } => self.rogue_acts(host, run),
            Event::RogueEnds(host) => self.put_rogue_right(host),
            Event::CloneIsWiped(host) => self.wipe_clone(host),
            Event::Errand(errand) => self.errand_is_due(errand),
            Event::Tick => self.tick(),
        }
    }

    pub(crate) fn host(&self, index: HostIndex) -> &Host {
        &self.hosts[index.position()]
    }

    pub(crate) fn host_mut(&mut self, index: HostIndex) -> &mut Host {
        &mut self.hosts[index.position()]
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.trace.note(self.now, note);
    }

    pub(crate) fn say(&mut self, who: Who, text: String) {
        self.note(Note::Says(who, text));
    }

    /// Notes that an invariant does not hold; the first one ends the run.
    pub(crate) fn violate(&mut self, rule: &'static str, detail: String) {
        self.say(Who::World, format!("BROKEN: {rule}: {detail}"));
        self.violation.get_or_insert(Violation { rule, detail });
    }

    /// Notes that an invariant does not hold when `objection` says why.
    pub(crate) fn object(&mut self, rule: &'static str, objection: Option<String>) {
        if let Some(detail) = objection {
            self.violate(rule, detail);
        }
    }

    pub(crate) fn push_in(&mut self, after: Duration, event: Event) {
        self.queue.push(self.now + after, event);
    }

    /// Returns whether a machine has power.
    pub(crate) fn is_lit(&self, place: Place) -> bool {
        match place {
            Place::Host(index) => !self.host(index).is_dark,
            Place::Coordinator => !self.coordinator.is_dark,
        }
    }
}

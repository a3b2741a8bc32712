//! Hosts at work: inputs for agents and shards, and carrying out what they want done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent::{
    Agent, AgentConfig, InterfaceConfig, NoticeLevel, Output, PersistId, Reply, RequestId,
    StateFile,
};
use dataplane::{Command, Counters, Shard};
use model::catalogue::STREAM_PORT;
use model::control::{FromHost, Refusal, RefusalCode};
use model::ids::PolicyVersion;
use model::local::JoinRequest;
use model::name::Name;
use model::time::Instant;

use super::{OUTPUTS_MAX, Phase, SPINS_MAX, World};
use crate::event::{Event, HostIndex, Note, Run, Who};
use crate::host::{Host, LISTEN_PORT, LocalRequest, Running};
use crate::operator::Errand;
use crate::reference::KnownMap;

/// How often a machine is refused its name before it gets another.
const CLASHES_MAX: u32 = 5;

/// Inputs.
impl World {
    /// Starts a machine's daemon from what is on its disk.
    pub(crate) fn start_host(&mut self, index: HostIndex) {
        if self.host(index).running.is_some() {
            return;
        }
        let (world, seed, shard_seed) = (self.now, self.fate.secret(), self.fate.secret());
        let scenario = self.scenario;
        let host = self.host_mut(index);
        host.last_run.0 += 1;
        host.is_dark = false;
        let config = AgentConfig {
            software_version: "sim".to_owned(),
            machine_id: host.machine_id(),
            listen_port: LISTEN_PORT,
            stream_port: STREAM_PORT,
            configured_endpoints: Vec::new(),
            interface: "mesh0".to_owned(),
            mtu: 1420,
            // One machine in two has instructions for it.
            offers_aes_256_gcm: index.0.is_multiple_of(2),
            rotate_key_every: None,
        };
        let now = host.clocks(world, world);
        let (stored, home) = (host.disk.stored(), host.home);
        if let Some(Ok(map)) = host
            .disk
            .map()
            .filter(|it| !it.is_empty())
            .map(KnownMap::read)
        {
            host.remember(map);
        }
        let agent = match Agent::new(config, stored, seed, now) {
            Ok(agent) => agent,
            Err(error) => return self.violate("a host starts from its disk", error.to_string()),
        };
        let shard = |number: u16| {
            let counters = Arc::new(Counters::default());
            let config = scenario.shard_config(index, number);
            let mut seed = shard_seed;
            seed[0] ^= number.to_le_bytes()[0];
            (Shard::new(config, seed, now, counters.clone()), counters)
        };
        let shards = (0..scenario.shards_of(index)).map(shard).collect();
        let mut running = Running {
            run: host.last_run,
            booted_at: world,
            agent,
            shards,
            names: Arc::default(),
            catalogue: None,
            stream_identity: None,
            interface: None,
            peers: BTreeMap::new(),
            forged: None,
            channel: None,
            wake: None,
            requests: BTreeMap::new(),
            next_request: 0,
            spins: 0,
        };
        running.agent.handle_interfaces(vec![home], now);
        host.running = Some(running);
        self.say(Who::Host(index), "starts".to_owned());
        self.drive_host(index);
    }

    /// Stops a machine's daemon without a warning; `is_dark`: the machine with it.
    pub(crate) fn crash_host(&mut self, index: HostIndex, is_dark: bool) {
        self.say(
            Who::Host(index),
            format!("crashes{}", if is_dark { ", dark" } else { "" }),
        );
        self.host_mut(index).running = None;
        self.host_mut(index).is_dark = is_dark;
        self.host_mut(index).note_nothing_in_force();
        self.hosts[index.position()].disk.crash(&mut self.fate);
        self.abandon_host_connections(index);
    }

    pub(crate) fn host_wakes(&mut self, index: HostIndex, run: Run, due: Instant) {
        let now = self.host(index).now(self.now);
        let Some(running) = &mut self.hosts[index.position()].running else {
            return;
        };
        if running.run != run || running.wake != Some(due) {
            return;
        }
        running.wake = None;
        running.spins += 1;
        if running.spins > SPINS_MAX {
            let shards: Vec<_> = running
                .shards
                .iter()
                .map(|(it, _)| it.poll_timeout())
                .collect();
            let why = (running.agent.poll_timeout(), shards);
            return self.violate("no brain spins", format!("{index} at {now:?}: {why:?}"));
        }
        let is_due =
            |timeout: Option<(Instant, &str)>| timeout.is_some_and(|(at, _)| at <= now.monotonic);
        self.note(Note::Wake(Who::Host(index)));
        let running = self.hosts[index.position()]
            .running
            .as_mut()
            .expect("it runs");
        if is_due(running.agent.poll_timeout()) {
            running.agent.handle_timeout(now);
        }
        let due: Vec<usize> = (0..)
            .zip(&running.shards)
            .filter(|(_, (shard, _))| is_due(shard.poll_timeout()))
            .map(|(number, _)| number)
            .collect();
        for number in due {
            self.with_shard(index, number, |shard, now, out| {
                shard.handle_timeout(now, out);
            });
        }
        self.drive_host(index);
    }

    pub(crate) fn write_ends(&mut self, index: HostIndex, run: Run, id: PersistId) {
        if !self.is_running(index, run) {
            return;
        }
        let now = self.host(index).now(self.now);
        let host = self.host_mut(index);
        let Some(result) = host.disk.finish(id) else {
            return;
        };
        let running = host.running.as_mut().expect("it runs");
        running.agent.handle_persisted(id, result, now);
        self.note(Note::Persisted(index, id));
        self.drive_host(index);
    }

    /// Somebody at the machine types `meshctl join`.
    pub(crate) fn join_with(&mut self, index: HostIndex, token: String) {
        let now = self.host(index).now(self.now);
        let name = Some(self.name_to_ask_for(index).to_string());
        let Some(running) = &mut self.host_mut(index).running else {
            return;
        };
        if !running.requests.is_empty() {
            return;
        }
        let id = running.new_request(LocalRequest::Join);
        running
            .agent
            .handle_join(id, JoinRequest { token, name }, now);
        self.drive_host(index);
    }

    /// Now and then somebody asks for the name of another machine.
    fn name_to_ask_for(&mut self, index: HostIndex) -> Name {
        let is_slip = self.phase == Phase::Faults && self.operator.dice.chance(40);
        match is_slip {
            true => self.operator.dice.pick(&self.hosts).name.clone(),
            false => self.host(index).name.clone(),
        }
    }

    /// Somebody at the machine types `meshctl leave`; returns whether anybody listens.
    pub(crate) fn leave(&mut self, index: HostIndex) -> bool {
        let now = self.host(index).now(self.now);
        let host = self.host_mut(index);
        let Some(running) = &mut host.running else {
            return false;
        };
        if !running.requests.is_empty() {
            return false;
        }
        let member = running.agent.status(now).detail.map(|detail| detail.id);
        let id = running.new_request(LocalRequest::Leave);
        running.agent.handle_leave(id, now);
        if let Some(member) = member {
            self.ledger.may_be_removed(member);
        }
        self.say(Who::Host(index), "leaves".to_owned());
        self.drive_host(index);
        true
    }

    /// The machine gets another underlay address.
    pub(crate) fn move_host(&mut self, index: HostIndex) {
        let realm = self
            .network
            .some_realm(self.scenario.natted_per_mille, &mut self.fate);
        let home = self.network.settle(index, realm);
        let now = self.host(index).now(self.now);
        let host = self.host_mut(index);
        host.home = home;
        if let Some(running) = &mut host.running {
            running.agent.handle_interfaces(vec![home], now);
        }
        self.note(Note::Moved(index, home));
        self.drive_host(index);
    }

    pub(crate) fn is_running(&self, index: HostIndex, run: Run) -> bool {
        self.host(index)
            .running
            .as_ref()
            .is_some_and(|running| running.run == run)
    }
}

/// Outputs.
impl World {
    /// Carries out everything that a host's agent wants done, and sees that it is woken.
    pub(crate) fn drive_host(&mut self, index: HostIndex) {
        let mut outputs = 0;
        while let Some(running) = &mut self.hosts[index.position()].running {
            let Some(output) = running.agent.poll_output() else {
                break;
            };
            outputs += 1;
            if outputs > OUTPUTS_MAX {
                return self.violate("outputs are bounded", format!("{index}: {output:?}"));
            }
            self.carry_out(index, output);
        }
        self.schedule_host(index);
    }

    fn schedule_host(&mut self, index: HostIndex) {
        let world = self.now;
        let late = self
            .dice
            .between(Duration::ZERO, Duration::from_micros(400));
        let Some(running) = &mut self.hosts[index.position()].running else {
            return;
        };
        let shards = running.shards.iter().map(|(it, _)| it.poll_timeout());
        let timeouts = std::iter::once(running.agent.poll_timeout()).chain(shards);
        let Some((at, _)) = timeouts.flatten().min() else {
            return;
        };
        let asked = running.booted_at + at.since_start();
        if asked > world {
            running.spins = 0;
        }
        let due = asked.max(world) + late;
        // Woken early enough already; a wake that finds nothing due is asked for anew.
        if running.wake.is_some_and(|wake| wake <= due && wake > world) {
            return;
        }
        running.wake = Some(due);
        let run = running.run;
        self.queue.push(
            due,
            Event::HostWakes {
                host: index,
                run,
                due,
            },
        );
    }

    fn carry_out(&mut self, index: HostIndex, output: Output) {
        match output {
            Output::Persist { id, file, contents } => {
                self.write(index, id, file, contents.expose().to_vec());
            }
            Output::Erase { id } => {
                self.host_mut(index).disk.erase(id);
                self.finish_write_later(index, id);
            }
            Output::Describe { pin, .. } => self.call_describe(index, pin),
            Output::Enrol { pin, request, .. } => self.call_enrol(index, pin, request),
            Output::OpenSync { channel, .. } => self.open_sync(index, channel),
            Output::Send(message) => self.host_says(index, message),
            // Nobody listens in a simulation: it has packets and no programs.
            Output::Explain { explanation, .. } => {
                self.host_says(index, FromHost::Explanation(explanation));
            }
            Output::CloseChannel => self.close_sync(index),
            Output::Shard(commands) => self.command_shard(index, commands),
            Output::Interface(interface) => self.set_interface(index, interface),
            Output::Names(names) => self.running_mut(index).names = names,
            Output::Services(known) => self.host_knows_services(index, known),
            Output::StreamIdentity(identity) => {
                self.running_mut(index).stream_identity = identity;
            }
            Output::Reply { id, result } => self.host_replies(index, id, result),
            Output::Notice { level, message } => {
                let mark = if level == NoticeLevel::Error {
                    "ERROR: "
                } else {
                    ""
                };
                self.say(Who::Host(index), format!("{mark}{message}"));
            }
        }
    }

    pub(super) fn set_interface(&mut self, index: HostIndex, interface: Option<InterfaceConfig>) {
        self.running_mut(index).interface = interface;
        let Some(InterfaceConfig { addresses, .. }) = interface else {
            return;
        };
        let shares = |host: &&Host| {
            let other = host.running.as_ref().and_then(|running| running.interface);
            let is_other = host.index != index && !host.is_clone;
            is_other
                && other.is_some_and(|it| {
                    let shared = [addresses.v4.into(), addresses.v6.into()];
                    shared.iter().any(|address| it.addresses.contains(*address))
                })
        };
        let mut others = self.hosts.iter();
        let other = others.find(shares).map(|host| host.index);
        let other = other.filter(|_| !self.host(index).is_clone);
        self.object(
            "no two hosts have one address",
            other.map(|other| format!("{index} and {other} have {addresses:?}")),
        );
    }

    pub(super) fn write(
        &mut self,
        index: HostIndex,
        id: PersistId,
        file: StateFile,
        contents: Vec<u8>,
    ) {
        if file == StateFile::Map && !contents.is_empty() {
            match KnownMap::read(&contents) {
                Ok(map) => {
                    let stranger = map.stranger().map(|name| format!("{index} knows {name}"));
                    self.object("hosts know only whom a rule connects them with", stranger);
                    self.host_mut(index).remember(map);
                }
                Err(why) => self.violate("what is stored can be read", format!("{index}: {why}")),
            }
        }
        match self.host_mut(index).disk.write(id, file, contents) {
            Ok(()) => self.finish_write_later(index, id),
            Err(why) => self.violate("one write of a file at a time", format!("{index}: {why}")),
        }
    }

    fn finish_write_later(&mut self, index: HostIndex, id: PersistId) {
        let after = self.hosts[index.position()].disk.write_time(&mut self.dice);
        let run = self.running_mut(index).run;
        self.push_in(
            after,
            Event::Persisted {
                host: index,
                run,
                id,
            },
        );
    }

    fn command_shard(&mut self, index: HostIndex, commands: Vec<Command>) {
        let table = commands.iter().rev().find_map(|command| match command {
            Command::SetTable(table) => Some(table.version()),
            _ => None,
        });
        let is_about_hosts = commands.iter().any(|command| {
            matches!(
                command,
                Command::SetIdentity { .. } | Command::SetPeer { .. } | Command::RemovePeer { .. }
            )
        });
        let world = self.now;
        if table == Some(PolicyVersion(0)) {
            self.host_mut(index).note_nothing_in_force();
        } else if table.is_some() || is_about_hosts {
            if let Err(why) = self.host_mut(index).note_in_force(world) {
                self.violate(
                    "what is in force never goes back",
                    format!("{index}: {why}"),
                );
            }
            if let Some(map) = &self.host(index).in_force {
                let note = Note::Enforces(index, map.revision, map.version);
                self.note(note);
            }
        }
        let commands = self.obeyed(index, commands);
        for number in 0..self.running_mut(index).shards.len() {
            let commands = commands.clone();
            self.with_shard(index, number, |shard, now, out| {
                shard.handle_commands(commands, now, out)
            });
        }
    }

    fn host_says(&mut self, index: HostIndex, message: FromHost) {
        if let FromHost::Applied(applied) = &message
            && let Some(error) = &applied.error
            && !self.host(index).disk.is_full
            && !error.contains("no space left")
            && !self.is_recovering
            && !self.host(index).has_twin()
        {
            self.violate(
                "hosts believe an honest coordinator",
                format!("{index}: {error}"),
            );
        }
        self.send_up(index, &message);
    }

    fn host_replies(&mut self, index: HostIndex, id: RequestId, result: Result<Reply, Refusal>) {
        let request = self.running_mut(index).requests.remove(&id);
        let Some(request) = request else {
            return self.violate("a request is answered once", format!("{index}: {result:?}"));
        };
        self.say(Who::Host(index), format!("{request:?}: {result:?}"));
        match (request, result) {
            (LocalRequest::Join, Ok(Reply::Joined(_))) => {}
            (LocalRequest::Leave, Ok(Reply::Left(_))) => {}
            (LocalRequest::Join, Err(refusal)) => self.join_refused(index, &refusal),
            (LocalRequest::Leave, Err(_)) => {}
            (request, Ok(reply)) => {
                self.violate(
                    "a request is answered in kind",
                    format!("{request:?}: {reply:?}"),
                );
            }
        }
    }

    /// A clash means that the coordinator still has the machine as another host, or that its name
    /// rests because another machine had it: an operator follows the advice in the refusal.
    fn join_refused(&mut self, index: HostIndex, refusal: &Refusal) {
        let host = self.host_mut(index);
        if refusal.code != RefusalCode::Conflict || !host.is_wanted {
            return;
        }
        host.clashes += 1;
        if host.clashes < CLASHES_MAX {
            let name = host.name.clone();
            self.push_errand(Errand::Remove(name), 10);
        } else {
            host.take_another_name();
        }
    }

    pub(crate) fn running_mut(&mut self, index: HostIndex) -> &mut Running {
        self.host_mut(index)
            .running
            .as_mut()
            .expect("only a running host wants something done")
    }
}

impl Running {
    fn new_request(&mut self, request: LocalRequest) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, request);
        id
    }
}

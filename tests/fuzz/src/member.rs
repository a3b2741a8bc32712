//! A host of the small fleet: a real agent that joined it, word by word.

use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, AgentConfig, ChannelEvent, Names, Output, RequestId, StoredFiles};
use model::control::{EnrolRequest, Enrolled, FromHost, ToHost};
use model::local::JoinRequest;
use model::record::HostRecord;
use model::time::{Instant, Now};

use crate::small_fleet::{NOW, SmallFleet};

/// More outputs than one word of a coordinator can have.
const OUTPUTS_MAX: usize = 1000;
/// More timers than an agent has.
const TIMEOUTS_AT_ONCE_MAX: usize = 64;
/// Longer than anything in a join takes.
const JOIN_TIME: Duration = Duration::from_secs(60);

/// The agent of `web-1`, its coordinator, and what it said.
pub(crate) struct Member {
    pub(crate) fleet: SmallFleet,
    agent: Agent,
    now: Now,
    names: Arc<Names>,
    sent: Vec<FromHost>,
    /// A channel is open or was asked for.
    is_connected: bool,
}

impl Member {
    /// Joins, and has the whole map.
    pub(crate) fn new() -> Self {
        let fleet = SmallFleet::new();
        let now = Now {
            monotonic: Instant::START,
            unix: NOW,
        };
        let agent = Agent::new(config(), StoredFiles::default(), [1; 32], now)
            .expect("an empty disk is a good one");
        let join = JoinRequest {
            token: fleet.token().encode(),
            name: Some("web-1".to_owned()),
        };
        let mut member = Self {
            fleet,
            agent,
            now,
            names: Arc::default(),
            sent: Vec::new(),
            is_connected: false,
        };
        member.agent.handle_join(RequestId(1), join, now);
        member.wait(JOIN_TIME);
        assert!(!member.names.is_empty(), "it joined and knows names");
        member
    }

    /// Returns what DNS may answer at the host.
    pub(crate) fn names(&self) -> Arc<Names> {
        self.names.clone()
    }

    /// Returns whether the coordinator can say something.
    pub(crate) const fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The coordinator says something, on the channel that is open.
    pub(crate) fn hear(&mut self, message: ToHost) {
        self.channel(ChannelEvent::Message(message));
        self.drain();
    }

    /// Takes what the host said since the last call.
    pub(crate) fn sent(&mut self) -> Vec<FromHost> {
        std::mem::take(&mut self.sent)
    }

    /// Lets time pass on both clocks; a coordinator that is asked answers well.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        let mut timeouts_at_once = 0;
        loop {
            self.drain();
            let Some((at, why)) = self.agent.poll_timeout().filter(|(at, _)| *at <= end) else {
                break;
            };
            timeouts_at_once = if at > self.now.monotonic {
                0
            } else {
                timeouts_at_once + 1
            };
            assert!(timeouts_at_once < TIMEOUTS_AT_ONCE_MAX, "it spins: {why}");
            self.move_clock(at.max(self.now.monotonic));
            self.agent.handle_timeout(self.now);
        }
        self.move_clock(end);
        // Whatever it was told, it can say how it is.
        let status = self.agent.status(self.now);
        assert!(!status.version.is_empty());
        self.agent.peers(self.now);
    }

    fn move_clock(&mut self, monotonic: Instant) {
        let passed = monotonic - self.now.monotonic;
        self.now = Now {
            monotonic,
            unix: self.now.unix + passed,
        };
    }

    fn drain(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            match self.agent.poll_output() {
                Some(output) => self.carry_out(output),
                None => return,
            }
        }
        panic!("it never comes to rest");
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Names(names) => self.names = names,
            Output::Persist { id, .. } | Output::Erase { id } => {
                self.agent.handle_persisted(id, Ok(()), self.now);
            }
            Output::Describe { .. } => {
                let description = self.fleet.description();
                self.channel(ChannelEvent::Described(Ok(description)));
            }
            Output::Enrol { request, .. } => {
                let enrolled = enrol(&mut self.fleet, &request);
                self.channel(ChannelEvent::Enrolled(Ok(enrolled)));
            }
            Output::OpenSync { .. } => {
                self.is_connected = true;
                self.channel(ChannelEvent::Opened);
                self.channel(ChannelEvent::Message(ToHost::Welcome(self.fleet.welcome())));
                self.channel(ChannelEvent::Message(ToHost::Map(self.fleet.map())));
            }
            Output::CloseChannel => self.is_connected = false,
            Output::Send(message) => self.sent.push(message),
            Output::Explain { explanation, .. } => {
                self.sent.push(FromHost::Explanation(explanation));
            }
            _ => {}
        }
    }

    fn channel(&mut self, event: ChannelEvent) {
        self.agent.handle_channel(event, self.now);
    }
}

fn config() -> AgentConfig {
    AgentConfig {
        software_version: "1.0.0".to_owned(),
        machine_id: "machine".to_owned(),
        listen_port: 51820,
        stream_port: 7444,
        configured_endpoints: Vec::new(),
        interface: "mesh0".to_owned(),
        mtu: 1420,
        offers_aes_256_gcm: false,
        rotate_key_every: None,
    }
}

/// The first host of the fleet gets the keys of who asks.
fn enrol(fleet: &mut SmallFleet, request: &EnrolRequest) -> Enrolled {
    let facts = trust::enrolment::check_certificate_request(&request.certificate_request)
        .expect("the agent makes good requests");
    fleet.hosts[0] = HostRecord {
        wireguard_key: request.wireguard_key,
        tls_key_hash: facts.tls_key_hash,
        ..fleet.hosts[0].clone()
    };
    let record = &fleet.hosts[0];
    Enrolled {
        host: record.host,
        record: fleet.authority.sign_record(record),
        certificate_chain: fleet.host_chain(&record.name, &request.certificate_request),
    }
}

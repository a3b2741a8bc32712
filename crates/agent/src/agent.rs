//! The brain's struct and its verbs: what it is told, what it asks for, when it next needs the
//! clock. Each part of what it does has its own file; here they meet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::{Command, Event};
use model::address::HostAddresses;
use model::catalogue::StreamIdentity;
use model::control::{Refusal, RefusalCode};
use model::ids::HostId;
use model::local::{
    HostStatus, JoinRequest, LocalWhyReport, LocalWhyRequest, PeerView, ServiceView,
};
use model::name::Name;
use model::time::{Instant, Now, UnixTime};
use model::wire::stored::StoredHighWater;

use crate::alarms::{AlarmKind, Alarms};
use crate::catalogue::Services;
use crate::certificate::Renewal;
use crate::channel::Channel;
use crate::denials::Denials;
use crate::dice::Dice;
use crate::endpoints::OwnEndpoints;
use crate::enforcement::Enforcement;
use crate::enrolment::{Enrolment, Fleet};
use crate::event::ChannelEvent;
use crate::last_denials::LastDenials;
use crate::names::Names;
use crate::output::{Output, Outputs, PersistId, RequestId};
use crate::paths::Paths;
use crate::persistence::{Disk, DiskEvent, Version};
use crate::rotation::Rotation;
use crate::skew::CoordinatorClock;
use crate::staging::{Staging, put_high_water};
use crate::timer::{earliest, is_due};

mod believing;
mod conversation;
mod dating;
mod explain;
mod figures;
mod joining;
mod leaving;
mod naming;
mod news;
mod recall;
mod restart;
mod rotating;
mod services;
mod status;
mod streams;

pub use figures::Figures;
pub use restart::LoadError;

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Version of `meshd`.
    pub software_version: String,
    /// Names the machine, hashed; empty when it has none.
    pub machine_id: String,
    /// WireGuard's port.
    pub listen_port: u16,
    /// The TCP port that this host takes the streams of services at.
    pub stream_port: u16,
    /// Where the operator says that this host can be reached.
    pub configured_endpoints: Vec<SocketAddr>,
    /// The overlay interface's name, for the status.
    pub interface: String,
    /// The overlay interface's MTU in bytes.
    pub mtu: u16,
    /// Whether this machine seals with AES-256-GCM as fast as with ChaCha20-Poly1305 or faster, or
    /// should offer it all the same.
    pub offers_aes_256_gcm: bool,
    /// How old the WireGuard key gets before it is changed by itself; `None`: it is not.
    pub rotate_key_every: Option<Duration>,
}

/// The state directory as it was found; `None` for a file that is not there.
#[derive(Clone, Debug, Default)]
pub struct StoredFiles {
    /// `StateFile::Identity`
    pub identity: Option<Vec<u8>>,
    /// `StateFile::Map`
    pub map: Option<Vec<u8>>,
    /// `StateFile::HighWater`
    pub high_water: Option<Vec<u8>>,
}

/// A peer that a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPeer {
    /// Its name.
    pub name: Name,
    /// Its id.
    pub id: HostId,
    /// Its overlay addresses.
    pub addresses: HostAddresses,
    /// Where its packets go now, as far as is known.
    pub endpoint: Option<SocketAddr>,
}

/// The brain of one host.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    dice: Dice,
    out: Outputs,
    alarms: Alarms,
    disk: Disk,
    high_water: StoredHighWater,
    enrolment: Enrolment,
    channel: Channel,
    /// What is believed of the fleet; `None` before the first word of a coordinator.
    fleet: Option<Fleet>,
    staging: Staging,
    /// The next hello asks for a whole map.
    wants_whole_map: bool,
    enforcement: Enforcement,
    names: Arc<Names>,
    services: Services,
    stream_identity: Option<Arc<StreamIdentity>>,
    paths: Paths,
    endpoints: OwnEndpoints,
    renewal: Option<Renewal>,
    rotation: Rotation,
    belief: believing::Belief,
    coordinator_clock: Option<CoordinatorClock>,
    denials: Denials,
    last_denials: LastDenials,
    report_at: Option<Instant>,
    /// Why the host is not in the overlay, as the program says.
    trouble: Option<String>,
    /// Handshakes of the daemons before this one are dated up to here.
    dates_floor: UnixTime,
    /// Dates of handshakes that the shard waits for.
    first_dates: Option<Version>,
}

/// How often the shard is asked how the peers are.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// When it is asked for sessions of which it has told nothing yet: many may begin at once.
const REPORT_SOON: Duration = Duration::from_millis(250);

impl Agent {
    /// Takes up what the state directory holds. A member's interface, peers, rules and names are
    /// among the first outputs, whether or not a coordinator can be reached.
    ///
    /// # Errors
    /// The identity is there and cannot be used; the daemon should not start without it.
    pub fn new(
        config: AgentConfig,
        stored: StoredFiles,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, LoadError> {
        let endpoints = OwnEndpoints::new(
            config.configured_endpoints.clone(),
            config.listen_port,
            config.stream_port,
        );
        let rotation = Rotation::new(config.rotate_key_every, now.monotonic);
        let mut agent = Self {
            config,
            dice: Dice::from_seed(seed),
            out: Outputs::default(),
            alarms: Alarms::default(),
            disk: Disk::new(),
            high_water: StoredHighWater::default(),
            enrolment: Enrolment::Unenrolled(None),
            channel: Channel::new(),
            fleet: None,
            staging: Staging::default(),
            wants_whole_map: false,
            enforcement: Enforcement::default(),
            names: Arc::default(),
            services: Services::default(),
            stream_identity: None,
            paths: Paths::default(),
            endpoints,
            renewal: None,
            rotation,
            belief: believing::Belief::default(),
            coordinator_clock: None,
            denials: Denials::default(),
            last_denials: LastDenials::default(),
            report_at: None,
            trouble: None,
            dates_floor: UnixTime::default(),
            first_dates: None,
        };
        agent.load(stored, now)?;
        agent.tend(now);
        Ok(agent)
    }

    /// Joins a fleet. Answered by `Output::Reply`, always.
    pub fn handle_join(&mut self, request: RequestId, join: JoinRequest, now: Now) {
        self.start_join(request, &join, now);
        self.tend(now);
    }

    /// Leaves the fleet and forgets it. Answered by `Output::Reply`, always.
    pub fn handle_leave(&mut self, request: RequestId, now: Now) {
        self.start_leave(request, now);
        self.tend(now);
    }

    /// Changes the host's WireGuard key; its tunnels live on. Answered by `Output::Reply`, always.
    pub fn handle_rotate_key(&mut self, request: RequestId, now: Now) {
        self.start_rotation(Some(request), now);
        self.tend(now);
    }

    /// Takes the addresses of the host's interfaces, all of them, whenever they change.
    pub fn handle_interfaces(&mut self, addresses: Vec<IpAddr>, now: Now) {
        self.endpoints.handle_interfaces(addresses, now.monotonic);
        self.tend(now);
    }

    /// Takes where the operator says that this host can be reached, when that has changed.
    pub fn handle_configured_endpoints(&mut self, endpoints: Vec<SocketAddr>, now: Now) {
        self.endpoints.handle_configured(endpoints, now.monotonic);
        self.tend(now);
    }

    /// Takes why the overlay does not stand on this host, or that it does: operators see it where
    /// they see the fleet.
    pub fn handle_trouble(&mut self, trouble: Option<String>, now: Now) {
        if self.trouble != trouble {
            self.trouble = trouble;
            self.report_applied(None);
        }
        self.tend(now);
    }

    /// Takes what happened on the control channel.
    pub fn handle_channel(&mut self, event: ChannelEvent, now: Now) {
        match event {
            ChannelEvent::Described(result) => self.handle_described(result, now),
            ChannelEvent::Enrolled(result) => self.handle_enrolled(result, now),
            ChannelEvent::Opened => self.handle_opened(now),
            ChannelEvent::Message(message) => self.handle_message(message, now),
            ChannelEvent::Closed(error) => self.handle_closed(error, now),
        }
        self.tend(now);
    }

    /// Takes the answer to `Output::Persist` and `Output::Erase`; the text says why it failed.
    pub fn handle_persisted(&mut self, id: PersistId, result: Result<(), String>, now: Now) {
        let event =
            self.disk
                .handle_persisted(id, result, now.monotonic, &mut self.dice, &mut self.out);
        match event {
            Some(DiskEvent::Durable(file)) => {
                self.alarms.clear(AlarmKind::Disk(file), &mut self.out);
                self.handle_join_durable(now);
                self.handle_map_durable(now);
                self.handle_belief_durable();
                self.handle_dates_durable();
            }
            Some(DiskEvent::Failed(file, why)) => {
                let message = format!(
                    "cannot write the {} file of the state directory: {why}; free some space or \
                     fix the disk. It is tried again until it works",
                    file.name()
                );
                self.alarms
                    .raise(AlarmKind::Disk(file), message.clone(), &mut self.out);
                self.handle_join_undurable(file, &why);
                self.report_undurable_map(file, message);
                self.handle_dates_undurable(file);
            }
            Some(DiskEvent::Erased(result)) => self.handle_erased(result),
            None => {}
        }
        self.tend(now);
    }

    /// Takes an event of the shard. `Event::Handshake` is the program's own to run.
    pub fn handle_shard(&mut self, event: Event, now: Now) {
        self.handle_news(event, now);
        self.tend(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.tend(now);
    }

    /// Asks for writing at once what would wait for more to be written with it: the program is about
    /// to end.
    pub fn write_what_waits(&mut self) {
        self.staging.write_hints(&mut self.disk, &mut self.out);
    }

    /// Returns the next thing to do; drained to `None` after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// Returns when this agent next needs the clock, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let is_online = self.channel.is_online();
        earliest([
            self.enrolment.poll_timeout(),
            self.channel.poll_timeout(),
            self.disk.poll_timeout(),
            self.staging.poll_timeout(),
            self.paths.poll_timeout(),
            self.endpoints.poll_timeout(),
            self.renewal
                .as_ref()
                .and_then(|renewal| renewal.poll_timeout(is_online)),
            self.enrolment
                .member()
                .and_then(|member| self.rotation.poll_timeout(&member.keys, is_online)),
            self.denials.poll_timeout(),
            self.report_at
                .map(|at| (at, "ask the shard how the peers are")),
        ])
    }

    /// Returns the state of this host, without the detail: for those who may not see it.
    pub fn summary(&self) -> HostStatus {
        self.host_summary()
    }

    /// Returns the state of this host. The interface's drops are the program's to add.
    pub fn status(&self, now: Now) -> HostStatus {
        self.host_status(now)
    }

    /// Returns what metrics tell of this host.
    pub fn figures(&self, now: Now) -> Figures {
        self.current_figures(now)
    }

    /// Returns one row per peer, in the order of their names.
    pub fn peers(&self, now: Now) -> Vec<PeerView> {
        self.peer_views(now)
    }

    /// Returns how this host decides a flow, and why.
    ///
    /// # Errors
    /// The question names what this host does not know, or no flow of its own.
    pub fn why(&self, question: &LocalWhyRequest, now: Now) -> Result<LocalWhyReport, Refusal> {
        self.explain_locally(question, now)
    }

    /// Returns the services that this host may reach or offers, in the order of their names.
    pub fn services(&self) -> Vec<ServiceView> {
        self.service_views()
    }

    /// Returns this host's own addresses in the overlay.
    pub fn overlay_addresses(&self) -> Option<HostAddresses> {
        Some(self.staging.in_force()?.me().addresses)
    }

    /// Returns the peer that a name means, with or without the fleet's suffix.
    pub fn resolve_peer(&self, name: &str) -> Option<ResolvedPeer> {
        let record = self.peer_called(name)?;
        Some(ResolvedPeer {
            name: record.name.clone(),
            id: record.host,
            addresses: record.addresses,
            endpoint: self
                .paths
                .get(record.host)
                .and_then(|paths| paths.endpoint()),
        })
    }

    /// Does everything that is due: after every input, and when the clock says so.
    fn tend(&mut self, now: Now) {
        self.tend_join(now);
        self.tend_leave(now);
        self.tend_channel(now);
        self.tend_certificate(now);
        self.tend_stream_identity();
        self.tend_rotation(now);
        self.tend_clock(now);
        self.tend_dates(now);
        self.disk.handle_timeout(now.monotonic, &mut self.out);
        self.staging
            .handle_timeout(now.monotonic, &mut self.disk, &mut self.out);
        let is_online = self.channel.is_online();
        self.paths
            .handle_timeout(now.monotonic, is_online, &mut self.out);
        let overlay = self
            .fleet
            .as_ref()
            .map(|fleet| fleet.trusted.statement.overlay);
        let overlay = overlay.as_ref().filter(|_| is_online);
        self.endpoints
            .handle_timeout(now.monotonic, overlay, &mut self.out);
        self.denials.handle_timeout(now.monotonic, &mut self.out);
        if self.report_at.is_some_and(|at| is_due(at, now.monotonic)) {
            self.report_at = Some(now.monotonic + REPORT_EVERY);
            self.out.shard(vec![Command::Report]);
        }
    }

    fn save_high_water(&mut self) -> Version {
        put_high_water(&self.high_water, &mut self.disk, &mut self.out)
    }
}

/// Returns the refusal of something that may work later.
fn unavailable(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::Unavailable, message)
}

//! The task that owns the `Agent`: it feeds inputs in one at a time and carries outputs out in
//! order. Nothing else in the daemon decides anything.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::{
    Agent, ChannelEvent, Figures, LoadError, Names, NoticeLevel, Output, PersistId, Reply,
    RequestId, ResolvedPeer,
};
use arc_swap::ArcSwap;
use dataplane::{Command, DropReason, Event};
use model::address::HostAddresses;
use model::control::{Explanation, FromHost, Refusal};
use model::local::{
    DropCount, DropsView, HostState, HostStatus, JoinRequest, Joined, KeyRotated, Left,
    LocalWhyReport, LocalWhyRequest, PeerView, ServiceView,
};
use model::rule::FlowQuery;
use runtime::clock::Clock;
use runtime::metrics::Trouble;
use runtime::state_dir::{StateDir, StateError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::channel::{self, Channel};
use crate::drops::{
    DropLedger, KernelDrops, OVERLAY_QUEUE_FULL, UNDERLAY_ABOVE_SHARE, UNDERLAY_QUEUE_FULL,
};
use crate::linux::interface::underlay_addresses;
use crate::listeners;
use crate::machine;
use crate::overlay::OverlayHandle;
use crate::packets::{WorkerHandle, WorkerMessage};
use crate::reload::Reload;
use crate::services::ServicesHandle;
use crate::state_files::{StateWriter, Work};
use crate::stopping::Stop;

mod resting;
mod staged;

use resting::{Next, Resting};
pub use staged::Staged;

/// Inputs that may wait for the brain.
const INPUTS_MAX: usize = 4096;
/// How often the host's addresses are looked at.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(10);
/// The longest sleep, so that a deadline that is far away needs no big numbers.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long the disk may take when the daemon stops.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
/// How long calls of services may take to end when the daemon stops.
const CALLS_END_WITHIN: Duration = Duration::from_secs(2);
/// How often the shard is asked how its peers are.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

type Answer<T> = oneshot::Sender<T>;

/// What the brain is told or asked.
pub enum Input {
    /// `POST /v1/join`
    Join(JoinRequest, Answer<Result<Joined, Refusal>>),
    /// `POST /v1/leave`
    Leave(Answer<Result<Left, Refusal>>),
    /// `POST /v1/keys/rotate`
    RotateKey(Answer<Result<KeyRotated, Refusal>>),
    /// `GET /v1/status`
    Status(Answer<HostStatus>),
    /// The same, of somebody who may not see the detail.
    Summary(Answer<HostStatus>),
    /// What do metrics tell of this host?
    Figures(Answer<Figures>),
    /// `GET /v1/peers`
    Peers(Answer<Vec<PeerView>>),
    /// `POST /v1/why`
    Why(LocalWhyRequest, Answer<Result<LocalWhyReport, Refusal>>),
    /// `GET /v1/drops`
    Drops(Answer<DropsView>),
    /// `GET /v1/services`
    Services(Answer<Vec<ServiceView>>),
    /// Which addresses does this host have in the overlay?
    OwnAddresses(Answer<Option<HostAddresses>>),
    /// An answer for the coordinator, on the channel of this number.
    Explained(u64, Explanation),
    /// Who has this name?
    Resolve(String, Answer<Option<ResolvedPeer>>),
    /// Something happened on the channel of this number.
    Channel(u64, ChannelEvent),
    /// The host's addresses now.
    Interfaces(Vec<IpAddr>),
    /// An operator has changed the settings.
    Reload(Reload),
    /// Another daemon is about to take over; answered when nothing is written any more.
    Rest(Answer<Result<(), String>>),
    /// It has failed.
    Resume,
    /// It has taken over; answered when everything is left to it.
    Vanish(Answer<()>),
    /// The daemon stops; answered when everything is taken back that is not for the next one.
    Stop(Stop, Answer<()>),
}

/// Talks to the brain.
#[derive(Clone)]
pub struct BrainHandle(mpsc::Sender<Input>);

/// The brain has ended, as at the end of the daemon.
#[derive(Debug, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct BrainGone;

impl BrainHandle {
    /// Asks something and waits for the answer.
    ///
    /// # Errors
    /// The brain has ended.
    pub async fn ask<T>(&self, input: impl FnOnce(Answer<T>) -> Input) -> Result<T, BrainGone> {
        let (answer, answered) = oneshot::channel();
        self.0.send(input(answer)).await.map_err(|_| BrainGone)?;
        answered.await.map_err(|_| BrainGone)
    }

    /// Puts settings in force.
    pub async fn reload(&self, settings: Reload) {
        self.tell(Input::Reload(settings)).await;
    }

    /// Goes on, after another daemon has failed to take over.
    pub(crate) async fn resume(&self) {
        self.tell(Input::Resume).await;
    }

    async fn tell(&self, input: Input) {
        // The brain's end is the daemon's end: nobody is left to tell.
        let _ = self.0.send(input).await;
    }
}

/// Everything that the brain's outputs act on.
pub struct Surroundings {
    /// Where keys and maps are kept.
    pub state: Arc<StateDir>,
    /// The packet thread.
    pub worker: WorkerHandle,
    /// News of the shard.
    pub events: mpsc::Receiver<Event>,
    /// What DNS answers from.
    pub names: Arc<ArcSwap<Names>>,
    /// What carries calls of services.
    pub services: ServicesHandle,
    /// The overlay on this host.
    pub overlay: OverlayHandle,
    /// The overlay's interface, whose addresses are none of the underlay.
    pub interface: String,
    /// The overlay's nftables table.
    pub nft_table: String,
    /// What the kernel dropped before this program saw it.
    pub kernel_drops: Arc<KernelDrops>,
    /// Why nobody is answered who asks for metrics.
    pub metrics_trouble: Trouble,
    /// Time.
    pub clock: Clock,
}

/// The task's state.
pub struct Brain {
    agent: Agent,
    around: Surroundings,
    inputs: mpsc::Receiver<Input>,
    handle: BrainHandle,
    disk: StateWriter,
    requests: Requests,
    channel: Option<Channel>,
    channel_number: u64,
    drop_ledger: DropLedger,
    /// What the agent has asked for before the brain ran.
    staged: VecDeque<Output>,
    resting: Option<Resting>,
}

/// Requests of the local API that wait for the agent.
#[derive(Default)]
struct Requests {
    last: u64,
    joins: Vec<(RequestId, Answer<Result<Joined, Refusal>>)>,
    leaves: Vec<(RequestId, Answer<Result<Left, Refusal>>)>,
    rotations: Vec<(RequestId, Answer<Result<KeyRotated, Refusal>>)>,
}

impl Requests {
    fn is_any_open(&self) -> bool {
        !(self.joins.is_empty() && self.leaves.is_empty() && self.rotations.is_empty())
    }

    fn next(&mut self) -> RequestId {
        self.last += 1;
        RequestId(self.last)
    }

    fn reply(&mut self, id: RequestId, result: Result<Reply, Refusal>) {
        if let Some(position) = self.joins.iter().position(|(waiting, _)| *waiting == id) {
            let (_, answer) = self.joins.swap_remove(position);
            let joined = result.map(|reply| match reply {
                Reply::Joined(joined) => joined,
                other => unreachable!("a join is answered by {other:?}"),
            });
            let _ = answer.send(joined);
        } else if let Some(position) = self.leaves.iter().position(|(waiting, _)| *waiting == id) {
            let (_, answer) = self.leaves.swap_remove(position);
            let left = result.map(|reply| match reply {
                Reply::Left(left) => left,
                other => unreachable!("a leave is answered by {other:?}"),
            });
            let _ = answer.send(left);
        } else if let Some(position) = self.rotations.iter().position(|(it, _)| *it == id) {
            let (_, answer) = self.rotations.swap_remove(position);
            let rotated = result.map(|reply| match reply {
                Reply::KeyRotated(rotated) => rotated,
                other => unreachable!("a change of the key is answered by {other:?}"),
            });
            let _ = answer.send(rotated);
        }
    }
}

impl Brain {
    /// Takes an agent and its surroundings.
    pub fn new(staged: Staged, around: Surroundings) -> (Self, BrainHandle) {
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let handle = BrainHandle(sender);
        let brain = Self {
            agent: staged.agent,
            drop_ledger: DropLedger::new(around.clock.now()),
            disk: StateWriter::start(Arc::clone(&around.state)),
            around,
            inputs,
            handle: handle.clone(),
            requests: Requests::default(),
            channel: None,
            channel_number: 0,
            staged: staged.outputs,
            resting: None,
        };
        (brain, handle)
    }

    /// Runs until `Input::Stop` or `Input::Vanish`.
    ///
    /// # Errors
    /// The packet thread is gone.
    pub async fn run(mut self) -> io::Result<()> {
        let mut interfaces = tokio::time::interval(INTERFACES_INTERVAL);
        let mut reports = tokio::time::interval(REPORT_INTERVAL);
        self.carry_out().await?;
        let state = self.agent.status(self.around.clock.now()).state;
        let is_member = matches!(state, HostState::Online | HostState::Autonomous);
        self.around.overlay.begin(is_member).await;
        loop {
            let deadline = self.deadline();
            let is_awake = self.resting.is_none();
            tokio::select! {
                input = self.inputs.recv() => {
                    let Some(input) = input else { return Ok(()) };
                    match self.sift(input).await {
                        Next::Handle(Input::Stop(stop, done)) => {
                            self.write_down().await?;
                            self.take_back(stop).await;
                            let _ = done.send(());
                            return Ok(());
                        }
                        Next::Vanish(done) => {
                            let _ = done.send(());
                            return Ok(());
                        }
                        Next::Handle(Input::Reload(settings)) => self.reload(settings).await,
                        Next::Handle(input) => self.handle(input),
                        Next::Wait => {}
                    }
                }
                Some(event) = self.around.events.recv(), if is_awake => self.hear(event),
                (id, result) = self.disk.answer() => self.agent.handle_persisted(id, result, self.around.clock.now()),
                () = sleep_until(deadline), if is_awake => self.agent.handle_timeout(self.around.clock.now()),
                _ = interfaces.tick(), if is_awake => self.look_at_interfaces(),
                _ = reports.tick(), if is_awake => {
                    self.look_at_drops();
                    let trouble = self.around.overlay.trouble();
                    self.agent.handle_trouble(trouble, self.around.clock.now());
                    self.to_worker(WorkerMessage::Commands(vec![Command::Report]))?;
                }
            }
            self.carry_out().await?;
            self.grant_rest();
        }
    }

    /// News of the packet threads.
    fn hear(&mut self, event: Event) {
        match event {
            Event::WhoSends(of) => self.around.services.who_sends(of),
            event => self.agent.handle_shard(event, self.around.clock.now()),
        }
    }

    fn deadline(&self) -> Instant {
        let agent = self
            .agent
            .poll_timeout()
            .map(|(deadline, _)| self.around.clock.tokio_deadline(deadline));
        let latest = Instant::now() + SLEEP_MAX;
        agent.map_or(latest, |deadline| deadline.min(latest))
    }

    fn handle(&mut self, input: Input) {
        let now = self.around.clock.now();
        match input {
            Input::Join(join, answer) => {
                let join = machine::named(join, self.agent.status(now).state);
                let id = self.requests.next();
                self.requests.joins.push((id, answer));
                self.agent.handle_join(id, join, now);
            }
            Input::Leave(answer) => {
                let id = self.requests.next();
                self.requests.leaves.push((id, answer));
                self.agent.handle_leave(id, now);
            }
            Input::RotateKey(answer) => {
                let id = self.requests.next();
                self.requests.rotations.push((id, answer));
                self.agent.handle_rotate_key(id, now);
            }
            Input::Status(answer) => drop(answer.send(self.status())),
            Input::Summary(answer) => drop(answer.send(self.summary())),
            Input::Figures(answer) => drop(answer.send(self.agent.figures(now))),
            Input::Peers(answer) => drop(answer.send(self.agent.peers(now))),
            Input::Why(question, answer) => drop(answer.send(self.agent.why(&question, now))),
            Input::Services(answer) => drop(answer.send(self.agent.services())),
            Input::OwnAddresses(answer) => drop(answer.send(self.agent.overlay_addresses())),
            Input::Drops(answer) => {
                self.look_at_drops();
                drop(answer.send(self.drop_ledger.view()));
            }
            Input::Resolve(name, answer) => drop(answer.send(self.agent.resolve_peer(&name))),
            Input::Channel(number, event) if number == self.channel_number => {
                if matches!(event, ChannelEvent::Closed(_)) {
                    self.channel = None;
                }
                self.agent.handle_channel(event, now);
            }
            Input::Channel(..) => {}
            Input::Explained(number, explanation) => {
                let current = self.channel.as_ref();
                if let Some(channel) = current.filter(|_| number == self.channel_number) {
                    channel.send(FromHost::Explanation(explanation));
                }
            }
            Input::Interfaces(addresses) => self.agent.handle_interfaces(addresses, now),
            Input::Reload(_)
            | Input::Stop(..)
            | Input::Rest(_)
            | Input::Resume
            | Input::Vanish(_) => unreachable!("taken by run"),
        }
    }

    async fn reload(&mut self, settings: Reload) {
        let now = self.around.clock.now();
        self.agent
            .handle_configured_endpoints(settings.endpoints, now);
        self.around.overlay.reload(settings.resolver).await;
    }

    async fn carry_out(&mut self) -> io::Result<()> {
        while let Some(output) = self.next_output() {
            match output {
                Output::Persist { id, file, contents } => {
                    self.on_disk(id, Work::Write(file, contents));
                }
                Output::Erase { id } => self.on_disk(id, Work::Erase),
                Output::Describe { coordinators, pin } => self.in_background(async move {
                    ChannelEvent::Described(channel::describe(&coordinators, pin).await)
                }),
                Output::Enrol {
                    coordinators,
                    pin,
                    request,
                } => self.in_background(async move {
                    ChannelEvent::Enrolled(channel::enrol(&coordinators, pin, &request).await)
                }),
                Output::OpenSync {
                    coordinators,
                    channel,
                } => {
                    let events = self.channel_events();
                    self.channel = Some(Channel::open(coordinators, channel, events));
                }
                Output::Send(message) => {
                    if let Some(channel) = &self.channel {
                        channel.send(message);
                    }
                }
                Output::Explain {
                    explanation,
                    listener_at,
                } => self.explain(explanation, listener_at),
                // The task sees its queue end and closes the stream, after what was sent before.
                Output::CloseChannel => self.channel = None,
                Output::Shard(commands) => self.to_worker(WorkerMessage::Commands(commands))?,
                Output::Interface(wanted) => self.around.overlay.want(wanted).await,
                Output::Names(names) => {
                    self.around.names.store(names);
                    self.around.overlay.names_changed().await;
                }
                Output::Services(fleet) => self.around.services.set_fleet(fleet),
                Output::StreamIdentity(identity) => self.around.services.set_identity(identity),
                Output::Reply { id, result } => self.requests.reply(id, result),
                Output::Notice { level, message } => log(level, &message),
            }
        }
        Ok(())
    }

    fn next_output(&mut self) -> Option<Output> {
        let staged = self.staged.pop_front();
        staged.or_else(|| self.agent.poll_output())
    }

    fn on_disk(&mut self, id: PersistId, work: Work) {
        if let Err(error) = self.disk.ask(id, work) {
            let now = self.around.clock.now();
            self.agent.handle_persisted(id, Err(error.to_string()), now);
        }
    }

    /// Channel work of its own: what an older one still says is not heard any more.
    fn channel_events(
        &mut self,
    ) -> Arc<impl Fn(ChannelEvent) -> futures_util::future::BoxFuture<'static, ()> + use<>> {
        self.channel_number += 1;
        let (number, handle) = (self.channel_number, self.handle.clone());
        Arc::new(move |event| {
            let handle = handle.clone();
            let told: futures_util::future::BoxFuture<'static, ()> =
                Box::pin(async move { handle.tell(Input::Channel(number, event)).await });
            told
        })
    }

    fn in_background(&mut self, work: impl Future<Output = ChannelEvent> + Send + 'static) {
        let events = self.channel_events();
        tokio::spawn(async move { events(work.await).await });
    }

    /// Looks whether anything listens for the flow, then answers the coordinator.
    fn explain(&self, mut explanation: Explanation, listener_at: Option<FlowQuery>) {
        let (number, handle) = (self.channel_number, self.handle.clone());
        let own = self.agent.overlay_addresses();
        tokio::spawn(async move {
            if let (Some(flow), Some(own), Some(pair)) = (listener_at, own, &mut explanation.pair) {
                let look = move || listeners::look(flow.ip_protocol, flow.port, own);
                pair.listener = tokio::task::spawn_blocking(look).await.ok().flatten();
            }
            handle.tell(Input::Explained(number, explanation)).await;
        });
    }

    fn look_at_drops(&mut self) {
        let counts = self.drops();
        self.drop_ledger.observe(&counts, self.around.clock.now());
    }

    fn to_worker(&self, message: WorkerMessage) -> io::Result<()> {
        self.around.worker.send(message).map_err(io::Error::other)
    }

    fn look_at_interfaces(&self) {
        let (name, handle) = (self.around.interface.clone(), self.handle.clone());
        tokio::spawn(async move {
            match underlay_addresses(&name).await {
                Ok(addresses) => handle.tell(Input::Interfaces(addresses)).await,
                Err(error) => tracing::warn!(%error, "cannot list this host's addresses"),
            }
        });
    }

    /// Lets the disk have what it does not have yet; one that hangs is not waited for.
    async fn write_down(&mut self) -> io::Result<()> {
        if self.resting.is_some() {
            // The files are another daemon's.
            return Ok(());
        }
        self.agent.write_what_waits();
        self.carry_out().await?;
        let give_up = Instant::now() + WRITTEN_WITHIN;
        while !self.disk.is_idle() {
            let Ok((id, result)) = timeout_at(give_up, self.disk.answer()).await else {
                tracing::warn!(
                    "the state directory is not written in time; the last changes may be lost"
                );
                return Ok(());
            };
            let now = self.around.clock.now();
            self.agent.handle_persisted(id, result, now);
            self.carry_out().await?;
        }
        Ok(())
    }

    async fn take_back(&mut self, stop: Stop) {
        self.channel = None;
        // What is caught meanwhile is refused; then nothing is caught any more.
        self.around.services.retire(CALLS_END_WITHIN).await;
        match stop {
            Stop::ForGood => self.around.overlay.stop().await,
            Stop::ToStartAgain => self.around.overlay.abandon().await,
        }
    }

    fn summary(&self) -> HostStatus {
        self.with_overlay(self.agent.summary())
    }

    /// The agent knows what is in force, and the keeper of the overlay whether it stands.
    fn with_overlay(&self, mut status: HostStatus) -> HostStatus {
        let stands = self.around.overlay.trouble().is_none();
        status.up = status.up.map(|up| up && stands);
        status
    }

    fn status(&self) -> HostStatus {
        let mut status = self.with_overlay(self.agent.status(self.around.clock.now()));
        if let Some(detail) = &mut status.detail {
            detail.alarms.extend(self.around.overlay.alarms());
            detail.alarms.extend(self.around.services.alarms());
            detail.alarms.extend(self.around.metrics_trouble.told());
            detail.drops = self.drops();
            detail.shards = self.around.worker.shard_count();
            detail.binary_replaced = is_replaced();
            let identity = self.around.state.file("identity");
            detail.state_dir = identity.parent().map(|it| it.display().to_string());
            detail.nft_table = Some(self.around.nft_table.clone());
        }
        status
    }

    /// Packets that the kernel dropped before this program saw them.
    fn dropped_by_kernel(&self) -> [(&'static str, u64); 3] {
        let drops = &self.around.kernel_drops;
        [
            (OVERLAY_QUEUE_FULL, drops.overlay_queue_full()),
            (UNDERLAY_QUEUE_FULL, drops.underlay_queue_full()),
            (UNDERLAY_ABOVE_SHARE, drops.underlay_above_share()),
        ]
    }

    fn drops(&self) -> Vec<DropCount> {
        let worker = &self.around.worker;
        let denied_by_peers = [("denied_by_peer", worker.denied_by_peers())];
        let outside = denied_by_peers.into_iter();
        let outside = outside.chain(worker.failures().by_reason());
        let outside = outside.chain(self.dropped_by_kernel());
        DropReason::ALL
            .iter()
            .map(|reason| (reason.name(), worker.dropped(*reason)))
            .chain(outside)
            .filter(|(_, packets)| *packets > 0)
            .map(|(reason, packets)| DropCount {
                reason: reason.to_owned(),
                packets,
            })
            .collect()
    }
}

/// The kernel says so of a running program whose file is another one by now (proc_pid_exe(5)).
fn is_replaced() -> bool {
    let own = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    own.as_os_str().as_encoded_bytes().ends_with(b" (deleted)")
}

fn log(level: NoticeLevel, message: &str) {
    match level {
        NoticeLevel::Info => tracing::info!("{message}"),
        NoticeLevel::Warning => tracing::warn!("{message}"),
        NoticeLevel::Error => tracing::error!("{message}"),
    }
}

/// Why the brain cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrainError {
    /// The state directory cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// What it holds cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
}

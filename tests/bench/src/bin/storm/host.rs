//! One host of the storm: the agent, and the daemon's own end of the control channel. Its disk takes
//! everything at once; what is for packets, interface and DNS is dropped.

use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, AgentConfig, ChannelEvent, NoticeLevel, Output, RequestId, StoredFiles};
use futures_util::future::BoxFuture;
use meshd::channel::{self, Channel};
use model::local::JoinRequest;
use runtime::clock::{Clock, random_seed};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Events that may wait for the agent.
const EVENTS_MAX: usize = 64;
/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long after a join that failed it is tried again.
const JOIN_PAUSE: Duration = Duration::from_secs(1);

type Events = mpsc::Sender<(u64, ChannelEvent)>;

struct Host {
    agent: Agent,
    clock: Clock,
    events: Events,
    channel: Option<Channel>,
    channel_number: u64,
    /// When to try to join; `None`: it does, or has.
    joins_at: Option<Instant>,
}

/// Joins with a token, and stays until the program ends.
pub(crate) async fn run(number: usize, token: String) {
    let (events, mut happened) = mpsc::channel(EVENTS_MAX);
    let mut host = Host::new(number, events);
    let join = JoinRequest {
        token,
        name: Some(format!("vm-{number}")),
    };
    let mut tries = 0;
    loop {
        if host.joins_at.is_some_and(|at| at <= Instant::now()) {
            host.joins_at = None;
            tries += 1;
            host.agent
                .handle_join(RequestId(tries), join.clone(), host.clock.now());
        }
        host.carry_out();
        let deadline = host.deadline();
        tokio::select! {
            Some((number, event)) = happened.recv() => host.happened(number, event),
            () = sleep_until(deadline) => host.agent.handle_timeout(host.clock.now()),
        }
    }
}

impl Host {
    fn new(number: usize, events: Events) -> Self {
        let clock = Clock::start();
        let config = AgentConfig {
            software_version: "storm".into(),
            machine_id: format!("storm-{number}"),
            listen_port: 51820,
            stream_port: 7444,
            configured_endpoints: Vec::new(),
            interface: "mesh0".into(),
            mtu: 1420,
            offers_aes_256_gcm: false,
            rotate_key_every: None,
        };
        let seed = random_seed().expect("the kernel gives randomness");
        let agent = Agent::new(config, StoredFiles::default(), seed, clock.now());
        Self {
            agent: agent.expect("an empty state directory can be used"),
            clock,
            events,
            channel: None,
            channel_number: 0,
            joins_at: Some(Instant::now()),
        }
    }

    fn deadline(&self) -> Instant {
        let latest = Instant::now() + SLEEP_MAX;
        let due = self.agent.poll_timeout();
        due.map_or(latest, |(due, _)| {
            self.clock.tokio_deadline(due).min(latest)
        })
    }

    fn happened(&mut self, number: u64, event: ChannelEvent) {
        if number != self.channel_number {
            return;
        }
        if matches!(event, ChannelEvent::Closed(_)) {
            self.channel = None;
        }
        self.agent.handle_channel(event, self.clock.now());
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Persist { id, .. } | Output::Erase { id } => {
                    self.agent.handle_persisted(id, Ok(()), self.clock.now());
                }
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
                Output::CloseChannel => self.channel = None,
                Output::Reply { result, .. } => {
                    // Whoever sets machines up tries again.
                    if result.is_err() {
                        self.joins_at = Some(Instant::now() + JOIN_PAUSE);
                    }
                }
                Output::Notice {
                    level: NoticeLevel::Error,
                    message,
                } => tracing::error!("{message}"),
                Output::Explain { .. }
                | Output::Shard(_)
                | Output::Interface(_)
                | Output::Names(_)
                | Output::Services(_)
                | Output::StreamIdentity(_)
                | Output::Notice { .. } => {}
            }
        }
    }

    /// What an older channel still says is not heard any more.
    fn channel_events(&mut self) -> Arc<impl Fn(ChannelEvent) -> BoxFuture<'static, ()> + use<>> {
        self.channel_number += 1;
        let (number, events) = (self.channel_number, self.events.clone());
        Arc::new(move |event| {
            let events = events.clone();
            let told: BoxFuture<'static, ()> = Box::pin(async move {
                // A host that has ended hears nothing.
                let _ = events.send((number, event)).await;
            });
            told
        })
    }

    fn in_background(&mut self, work: impl Future<Output = ChannelEvent> + Send + 'static) {
        let events = self.channel_events();
        tokio::spawn(async move { events(work.await).await });
    }
}

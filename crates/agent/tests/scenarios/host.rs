//! A host around the brain: it carries outputs out, keeps a disk, and can be told to fail.

use std::net::SocketAddr;
use std::time::Duration;

use agent::{
    Agent, AgentConfig, ChannelError, ChannelErrorKind, ChannelEvent, LoadError, Output, PersistId,
    Reply, RequestId, StateFile, StoredFiles,
};
use dataplane::Command;
use model::control::{Applied, FromHost, Hello, Refusal, ToHost};
use model::ids::{HostId, Revision};
use model::local::{HostDetail, HostState, JoinRequest};
use model::map::MapDelta;
use model::time::{Instant, Now};

use crate::coordinator::{Coordinator, START};

/// A write: a file and its contents, or `None` to erase all.
pub(crate) type Write = Option<(StateFile, Vec<u8>)>;

/// The brain, its disk, its clocks, and what it said that nobody looked at yet.
pub(crate) struct Host {
    pub(crate) agent: Agent,
    pub(crate) now: Now,
    pub(crate) disk: StoredFiles,
    /// Why the disk refuses to write, when it does.
    pub(crate) disk_error: Option<&'static str>,
    /// Writes until the one that finds no space, when one does; those after it find space again.
    pub(crate) fails_after: Option<usize>,
    /// Writes are answered when the test says so, not at once.
    pub(crate) holds_writes: bool,
    pub(crate) held: Vec<(PersistId, Write)>,
    pub(crate) said: Vec<Output>,
    pub(crate) config: AgentConfig,
    next_request: u64,
}

/// What a full disk says.
pub(crate) const NO_SPACE: &str = "No space left on device";

pub(crate) fn config() -> AgentConfig {
    AgentConfig {
        software_version: "1.0.0".to_owned(),
        machine_id: "machine".to_owned(),
        listen_port: 51820,
        stream_port: 7444,
        configured_endpoints: vec![SocketAddr::from(([203, 0, 113, 5], 51820))],
        interface: "mesh0".to_owned(),
        mtu: 1420,
        offers_aes_256_gcm: false,
        rotate_key_every: None,
    }
}

impl Host {
    /// A host with an empty disk.
    pub(crate) fn new() -> Self {
        Self::start(
            StoredFiles::default(),
            Now {
                monotonic: Instant::START,
                unix: START,
            },
        )
        .unwrap()
    }

    /// A host that starts from a disk.
    pub(crate) fn start(disk: StoredFiles, now: Now) -> Result<Self, LoadError> {
        let agent = Agent::new(config(), disk.clone(), [1; 32], now)?;
        let mut host = Self {
            agent,
            now,
            disk,
            disk_error: None,
            fails_after: None,
            holds_writes: false,
            held: Vec::new(),
            said: Vec::new(),
            config: config(),
            next_request: 0,
        };
        host.drain();
        Ok(host)
    }

    /// Stops without a word, and starts again from the disk with another seed.
    pub(crate) fn restart(&mut self) {
        self.try_restart().unwrap();
    }

    pub(crate) fn try_restart(&mut self) -> Result<(), LoadError> {
        let seed = [self.now.monotonic.since_start().subsec_nanos() as u8 ^ 0x55; 32];
        self.agent = Agent::new(self.config.clone(), self.disk.clone(), seed, self.now)?;
        self.said.clear();
        self.held.clear();
        self.drain();
        Ok(())
    }

    /// Ends the program in good order.
    pub(crate) fn end(&mut self) {
        self.agent.write_what_waits();
        self.drain();
    }

    /// Carries out what the brain asks, until it asks nothing more.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match &output {
                Output::Persist { id, file, contents } => {
                    let write = (*file, contents.expose().to_vec());
                    self.held.push((*id, Some(write)));
                }
                Output::Erase { id } => self.held.push((*id, None)),
                _ => {}
            }
            self.said.push(output);
            if !self.holds_writes {
                self.write_held();
            }
        }
    }

    /// Carries out the writes that were held back, in order.
    pub(crate) fn write_held(&mut self) {
        for (id, write) in std::mem::take(&mut self.held) {
            let is_full = self.fails_after == Some(0);
            self.fails_after = self.fails_after.map(|writes| writes.wrapping_sub(1));
            let error = self.disk_error.or(is_full.then_some(NO_SPACE));
            let result = error.map_or(Ok(()), |why| Err(why.to_owned()));
            if result.is_ok() {
                match write {
                    Some((file, bytes)) => *self.file(file) = Some(bytes),
                    None => self.disk = StoredFiles::default(),
                }
            }
            self.agent.handle_persisted(id, result, self.now);
        }
    }

    fn file(&mut self, file: StateFile) -> &mut Option<Vec<u8>> {
        match file {
            StateFile::Identity => &mut self.disk.identity,
            StateFile::Map => &mut self.disk.map,
            StateFile::HighWater => &mut self.disk.high_water,
        }
    }

    /// Lets time pass on both clocks, waking the brain whenever it asked for it.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        for _ in 0..100_000 {
            let next = self.agent.poll_timeout().map_or(end, |(at, _)| at.min(end));
            let step = next.saturating_since(self.now.monotonic);
            self.now.monotonic += step;
            self.now.unix = self.now.unix + step;
            self.agent.handle_timeout(self.now);
            self.drain();
            let is_idle = self.agent.poll_timeout().is_none_or(|(at, _)| at > end);
            if self.now.monotonic >= end && is_idle {
                return;
            }
        }
        panic!(
            "the brain does not come to rest: it waits for {:?}",
            self.agent.poll_timeout()
        );
    }

    pub(crate) fn channel(&mut self, event: ChannelEvent) {
        self.agent.handle_channel(event, self.now);
        self.drain();
    }

    pub(crate) fn told(&mut self, message: ToHost) {
        self.channel(ChannelEvent::Message(message));
    }

    pub(crate) fn closed(&mut self, kind: ChannelErrorKind, why: &str) {
        self.channel(ChannelEvent::Closed(ChannelError::new(kind, why)));
    }

    pub(crate) fn shard(&mut self, event: dataplane::Event) {
        self.agent.handle_shard(event, self.now);
        self.drain();
    }

    pub(crate) fn join(&mut self, token: &str) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let join = JoinRequest {
            token: token.to_owned(),
            name: Some("web-1".to_owned()),
        };
        self.agent.handle_join(id, join, self.now);
        self.drain();
        id
    }

    pub(crate) fn leave(&mut self) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.agent.handle_leave(id, self.now);
        self.drain();
        id
    }

    pub(crate) fn rotate(&mut self) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.agent.handle_rotate_key(id, self.now);
        self.drain();
        id
    }

    /// Carries out the first of the writes that were held back.
    pub(crate) fn write_one(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let later = self.held.split_off(1);
        self.write_held();
        self.held.splice(0..0, later);
        self.drain();
    }

    /// Joins up to the enrolment's answer, without a channel yet.
    pub(crate) fn enrol(&mut self, coordinator: &mut Coordinator) -> RequestId {
        let request = self.join(&coordinator.token());
        self.channel(ChannelEvent::Described(Ok(coordinator.description())));
        self.answer_enrol(coordinator);
        request
    }

    pub(crate) fn answer_enrol(&mut self, coordinator: &mut Coordinator) {
        let enrol = self.take(|output| match output {
            Output::Enrol { request, .. } => Some(request.clone()),
            _ => None,
        });
        let enrolled = coordinator.enrol(enrol.last().expect("it asks to be enrolled"));
        self.channel(ChannelEvent::Enrolled(Ok(enrolled)));
    }

    /// Opens the channel that the brain asked for; returns what its hello says that it has.
    pub(crate) fn connect(&mut self, coordinator: &Coordinator) -> Option<Revision> {
        self.greet(coordinator).have
    }

    /// As `connect`, returning all that it says in its hello.
    pub(crate) fn greet(&mut self, coordinator: &Coordinator) -> Hello {
        self.advance(Duration::ZERO);
        for _ in 0..100 {
            if self.has_said(|output| matches!(output, Output::OpenSync { .. })) {
                break;
            }
            let (at, _) = self
                .agent
                .poll_timeout()
                .expect("it waits to open the channel");
            self.advance(at.saturating_since(self.now.monotonic));
        }
        self.take(|output| matches!(output, Output::OpenSync { .. }).then_some(()));
        self.channel(ChannelEvent::Opened);
        let hello = self.sent(|message| match message {
            FromHost::Hello(hello) => Some(hello.clone()),
            _ => None,
        });
        self.told(ToHost::Welcome(coordinator.welcome()));
        hello.last().expect("it says hello").clone()
    }

    /// A member of the fleet with the whole map in force.
    pub(crate) fn member_of(coordinator: &mut Coordinator) -> Self {
        let mut host = Self::new();
        host.enrol(coordinator);
        host.connect(coordinator);
        host.map(coordinator.whole_map(host.id()));
        assert_eq!(host.revision(), Some(coordinator.revision));
        host
    }

    pub(crate) fn map(&mut self, delta: MapDelta) {
        self.told(ToHost::Map(delta));
    }

    pub(crate) fn detail(&self) -> HostDetail {
        self.agent.status(self.now).detail.expect("it is a member")
    }

    pub(crate) fn state(&self) -> HostState {
        self.agent.status(self.now).state
    }

    pub(crate) fn id(&self) -> HostId {
        self.detail().id
    }

    pub(crate) fn revision(&self) -> Option<Revision> {
        self.detail().revision
    }

    /// Takes what the filter wants out of what was said.
    pub(crate) fn take<T>(&mut self, wanted: impl Fn(&Output) -> Option<T>) -> Vec<T> {
        let mut taken = Vec::new();
        self.said.retain(|output| match wanted(output) {
            Some(found) => {
                taken.push(found);
                false
            }
            None => true,
        });
        taken
    }

    pub(crate) fn has_said(&self, wanted: impl Fn(&Output) -> bool) -> bool {
        self.said.iter().any(wanted)
    }

    pub(crate) fn sent<T>(&mut self, wanted: impl Fn(&FromHost) -> Option<T>) -> Vec<T> {
        self.take(|output| match output {
            Output::Send(message) => wanted(message),
            _ => None,
        })
    }

    pub(crate) fn applied(&mut self) -> Vec<Applied> {
        self.sent(|message| match message {
            FromHost::Applied(applied) => Some(applied.clone()),
            _ => None,
        })
    }

    pub(crate) fn commands(&mut self) -> Vec<Command> {
        self.take(|output| match output {
            Output::Shard(commands) => Some(commands.clone()),
            _ => None,
        })
        .into_iter()
        .flatten()
        .filter(|command| !matches!(command, Command::Report))
        .collect()
    }

    pub(crate) fn reply(&mut self, request: RequestId) -> Option<Result<Reply, Refusal>> {
        let mut replies = self.take(|output| match output {
            Output::Reply { id, result } if *id == request => Some(result.clone()),
            _ => None,
        });
        assert!(replies.len() <= 1, "a request is answered once");
        replies.pop()
    }

    pub(crate) fn notices(&mut self) -> Vec<String> {
        self.take(|output| match output {
            Output::Notice { message, .. } => Some(message.clone()),
            _ => None,
        })
    }

    /// The last notice that says something.
    pub(crate) fn notice_with(&mut self, text: &str) -> String {
        let notices = self.notices();
        let found = notices.iter().rfind(|notice| notice.contains(text));
        found
            .unwrap_or_else(|| panic!("no notice with {text:?} in {notices:#?}"))
            .clone()
    }
}

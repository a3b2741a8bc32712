//! Whatever happens in whatever order: no panic, no way back for a revision, nothing in force that
//! is not on the disk, every request answered at most once, and always a rest.

use std::time::Duration;

use agent::{ChannelError, ChannelErrorKind, ChannelEvent, EnrolError, Output};
use dataplane::{Event, Path};
use model::control::{FromHost, Goodbye, Refusal, RefusalCode, ToHost};
use model::ids::Revision;
use model::local::HostState;
use model::map::PeerIndex;
use model::record::HostRecord;
use model::time::UnixTime;
use model::wire::stored::{decode_high_water, decode_map};
use proptest::prelude::*;

use crate::coordinator::{Coordinator, bundle_with_service};
use crate::host::Host;

#[derive(Clone, Debug)]
enum Input {
    Join,
    Leave,
    Describe(bool),
    Enrol(u8),
    Open,
    Welcome,
    Whole,
    Change(u8),
    Lie(u8),
    Replay,
    Goodbye(u8),
    Close(u8),
    Certificate(bool),
    Shard(u8),
    Wait(u32),
    Jump(i32),
    DiskFails(bool),
    HoldWrites(bool),
    Write,
    Restart,
    Rotate,
    Grant,
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let input = prop_oneof![
        2 => Just(Input::Join),
        1 => Just(Input::Leave),
        3 => prop::bool::weighted(0.8).prop_map(Input::Describe),
        3 => any::<u8>().prop_map(Input::Enrol),
        4 => Just(Input::Open),
        4 => Just(Input::Welcome),
        4 => Just(Input::Whole),
        6 => any::<u8>().prop_map(Input::Change),
        2 => any::<u8>().prop_map(Input::Lie),
        2 => Just(Input::Replay),
        1 => any::<u8>().prop_map(Input::Goodbye),
        2 => any::<u8>().prop_map(Input::Close),
        1 => any::<bool>().prop_map(Input::Certificate),
        2 => any::<u8>().prop_map(Input::Shard),
        4 => (0u32..200_000).prop_map(Input::Wait),
        1 => any::<i32>().prop_map(Input::Jump),
        1 => any::<bool>().prop_map(Input::DiskFails),
        1 => any::<bool>().prop_map(Input::HoldWrites),
        3 => Just(Input::Write),
        1 => Just(Input::Restart),
        1 => Just(Input::Rotate),
        2 => Just(Input::Grant),
    ];
    prop::collection::vec(input, 1..120)
}

struct World {
    coordinator: Coordinator,
    host: Host,
    /// A change that was sent before.
    replay: Option<ToHost>,
    seen: Option<Revision>,
    /// After a stop between two writes the map is ahead of the marks until they are written.
    is_catching_up: bool,
}

impl World {
    fn new() -> Self {
        let mut coordinator = Coordinator::new(1);
        coordinator.add_host("db");
        Self {
            coordinator,
            host: Host::new(),
            replay: None,
            seen: None,
            is_catching_up: false,
        }
    }

    fn step(&mut self, input: Input) {
        let Self {
            coordinator, host, ..
        } = self;
        match input {
            Input::Join => drop(host.join(&coordinator.token())),
            Input::Leave => drop(host.leave()),
            Input::Describe(true) => {
                host.channel(ChannelEvent::Described(Ok(coordinator.description())));
            }
            Input::Describe(false) => host.channel(ChannelEvent::Described(Err(trouble(0)))),
            Input::Enrol(how) => self.enrol(how),
            Input::Open => host.channel(ChannelEvent::Opened),
            Input::Welcome => host.told(ToHost::Welcome(coordinator.welcome())),
            Input::Whole => self.whole(),
            Input::Change(what) => self.change(what),
            Input::Lie(what) => self.lie(what),
            Input::Replay => {
                if let Some(message) = self.replay.clone() {
                    host.told(message);
                }
            }
            Input::Goodbye(how) => {
                let detail = host.agent.status(host.now).detail;
                let removed = detail.filter(|_| how % 8 == 0).map(|detail| detail.id);
                let after = Revision::new(1, coordinator.revision.counter + 1);
                host.told(ToHost::Goodbye(Goodbye {
                    reason: "goodbye".to_owned(),
                    retry_after: Duration::from_secs(u64::from(how)),
                    tombstone: removed.map(|id| coordinator.tombstone(id, after)),
                }));
            }
            Input::Rotate => drop(host.rotate()),
            Input::Grant => self.grant(),
            Input::Close(how) => host.channel(ChannelEvent::Closed(trouble(how))),
            Input::Certificate(is_granted) => self.certificate(is_granted),
            Input::Shard(what) => host.shard(event(what)),
            Input::Wait(millis) => host.advance(Duration::from_millis(u64::from(millis))),
            Input::Jump(secs) => {
                let unix = host
                    .now
                    .unix
                    .as_secs()
                    .saturating_add_signed(i64::from(secs));
                host.now.unix = UnixTime::from_secs(unix);
            }
            Input::DiskFails(fails) => host.disk_error = fails.then_some("full"),
            Input::HoldWrites(holds) => host.holds_writes = holds,
            Input::Write => {
                host.write_held();
                host.drain();
            }
            Input::Restart => {
                host.restart();
                self.is_catching_up = true;
            }
        }
        self.check();
    }

    fn me(&self) -> Option<model::ids::HostId> {
        let is_member = matches!(self.host.state(), HostState::Online | HostState::Autonomous);
        self.host
            .agent
            .status(self.host.now)
            .detail
            .filter(|_| is_member)
            .map(|it| it.id)
    }

    fn enrol(&mut self, how: u8) {
        let offers = self.host.take(|output| match output {
            Output::Enrol { request, .. } => Some(request.clone()),
            _ => None,
        });
        let result = match (how % 4, offers.last()) {
            (0, _) => Err(EnrolError::Refused(Refusal::new(
                RefusalCode::Conflict,
                "taken",
            ))),
            (1, _) => Err(EnrolError::Channel(trouble(how))),
            (_, Some(offer)) => Ok(self.coordinator.enrol(offer)),
            (_, None) => return,
        };
        self.host.channel(ChannelEvent::Enrolled(result));
    }

    /// Grants the key that the host offered last, when it is one of this fleet.
    fn grant(&mut self) {
        let offers = self.host.sent(|message| match message {
            FromHost::NewKey(new) => Some(*new),
            _ => None,
        });
        if let (Some(new), Some(me)) = (offers.last(), self.me()) {
            let change = |record: &mut HostRecord| record.wireguard_key = new.wireguard_key;
            self.coordinator.change(me, change);
        }
    }

    fn whole(&mut self) {
        if let Some(me) = self.me() {
            self.send(ToHost::Map(self.coordinator.whole_map(me)));
        }
    }

    fn change(&mut self, what: u8) {
        let base = self.coordinator.revision;
        self.coordinator.revision.counter += 1;
        let mut delta = self.coordinator.delta(base);
        let ids: Vec<_> = self.coordinator.hosts.keys().copied().collect();
        let id = ids[usize::from(what) % ids.len()];
        match what % 4 {
            0 if ids.len() < 200 => {
                let added = self.coordinator.add_host(&format!("host-{}", base.counter));
                delta.revision = self.coordinator.revision;
                delta.peers = vec![self.coordinator.entry(added)];
            }
            1 => {
                self.coordinator.apply(bundle_with_service(u16::from(what)));
                delta.revision = self.coordinator.revision;
                delta.policy = Some(self.coordinator.slice());
            }
            2 if Some(id) != self.me() => delta.peers = vec![self.coordinator.entry(id)],
            _ => delta.forgotten = vec![id],
        }
        self.send(ToHost::Map(delta));
    }

    fn lie(&mut self, what: u8) {
        let Some(me) = self.me() else { return };
        let mut map = self.coordinator.whole_map(me);
        match what % 5 {
            0 => map.record = None,
            1 => map.revision.counter = u64::from(what),
            2 => map.policy.as_mut().unwrap().leaves.clear(),
            3 => map.base = Some(Revision::new(9, 9)),
            _ => {
                if let Some(peer) = map.peers.first_mut() {
                    peer.record.payload.truncate(usize::from(what));
                }
            }
        }
        self.host.told(ToHost::Map(map));
    }

    fn certificate(&mut self, is_granted: bool) {
        let requests = self.host.sent(|message| match message {
            FromHost::Renew(request) => Some(request.clone()),
            _ => None,
        });
        let record = self
            .me()
            .and_then(|me| self.coordinator.hosts.get(&me))
            .cloned();
        let result = match (is_granted, record, requests.last()) {
            (true, Some(record), Some(request)) => Ok(self.coordinator.certify(&record, request)),
            _ => Err("no".to_owned()),
        };
        self.host.told(ToHost::Certificate(result));
    }

    fn send(&mut self, message: ToHost) {
        self.replay = Some(message.clone());
        self.host.told(message);
    }

    fn check(&mut self) {
        let status = self.host.agent.status(self.host.now);
        let revision = status.detail.and_then(|detail| detail.revision);
        if let Some(revision) = revision {
            assert!(
                Some(revision) >= self.seen,
                "from {:?} back to {revision}",
                self.seen
            );
            let map = decode_map(self.host.disk.map.as_ref().unwrap()).unwrap();
            assert!(
                map.map.revision >= revision,
                "in force, but not on the disk"
            );
            let marks = decode_high_water(self.host.disk.high_water.as_ref().unwrap()).unwrap();
            self.is_catching_up &= marks.revision < revision;
            assert!(marks.revision >= revision || self.is_catching_up);
        }
        // Between two memberships the revisions start anew.
        self.seen = match status.state {
            HostState::Online | HostState::Autonomous => self.seen.max(revision),
            _ => None,
        };
        let _ = self.host.agent.peers(self.host.now);
        self.host.said.retain(|output| {
            matches!(
                output,
                Output::Enrol { .. } | Output::Send(FromHost::Renew(_))
            )
        });
    }
}

fn trouble(how: u8) -> ChannelError {
    let kinds = [
        ChannelErrorKind::Unreachable,
        ChannelErrorKind::Interrupted,
        ChannelErrorKind::Untrusted,
        ChannelErrorKind::Clock,
        ChannelErrorKind::Rejected,
        ChannelErrorKind::Protocol,
    ];
    ChannelError::new(kinds[usize::from(how) % kinds.len()], "trouble")
}

fn event(what: u8) -> Event {
    let peer = PeerIndex(u32::from(what % 7));
    let remote = ([192, 0, 2, what], 51820).into();
    let path = Path {
        remote,
        source: None,
    };
    match what % 5 {
        0 => Event::PathUnanswered {
            peer,
            path: Some(path),
        },
        1 => Event::PathUnanswered { peer, path: None },
        2 => Event::PeerMoved { peer, path },
        3 => Event::SessionEstablished { peer, path },
        _ => Event::TimestampUsed(UnixTime::from_secs(u64::from(what))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_panic_and_no_way_back(inputs in inputs()) {
        let mut world = World::new();
        for input in inputs {
            world.step(input);
        }
    }

    /// The same, from a member on: most random beginnings never get there.
    #[test]
    fn whatever_happens_to_a_member_no_panic_and_no_way_back(inputs in inputs()) {
        let mut world = World::new();
        world.host = Host::member_of(&mut world.coordinator);
        for input in inputs {
            world.step(input);
        }
    }
}

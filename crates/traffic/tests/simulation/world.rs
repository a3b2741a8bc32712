//! Servers, callers and a clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use model::ids::HostId;
use model::time::Instant;
use traffic::{
    Admission, Call, CallShape, Change, Ending, Failure, GiveUp, Next, Outcome, Pick, Replay,
    Settings, Upstream,
};

/// A moment of the simulation.
pub(crate) fn at(millis: u64) -> Instant {
    Instant::from_start(Duration::from_millis(millis))
}

/// The host of one server.
pub(crate) fn host(server: usize) -> HostId {
    let mut bytes = [0; HostId::LEN];
    bytes[..8].copy_from_slice(&(server as u64).to_be_bytes());
    HostId::from_bytes(bytes)
}

/// What a server does with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// Answers after a time.
    Answers(Duration),
    /// Fails after a time.
    Fails(Duration, Failure),
    /// Accepts, and never answers.
    Hangs,
}

impl Fate {
    /// Answers after so many milliseconds.
    pub(crate) fn answers(millis: u64) -> Self {
        Self::Answers(Duration::from_millis(millis))
    }

    /// Fails after a millisecond.
    pub(crate) fn fails(failure: Failure) -> Self {
        Self::Fails(Duration::from_millis(1), failure)
    }
}

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Calls that were answered well.
    pub good: usize,
    /// Calls that were not, by why they were not tried again.
    pub bad: Vec<Option<GiveUp>>,
    /// When each server got an attempt.
    pub attempts: Vec<Vec<Instant>>,
    /// How long calls took.
    pub times: Vec<Duration>,
    /// The most attempts that each server had at once.
    pub crowd: Vec<usize>,
}

/// One service, called by some proxies.
pub(crate) struct World {
    pub now: Instant,
    pub proxies: Vec<Upstream>,
    pub servers: Vec<Fate>,
    pub tally: Tally,
    pub changes: Vec<(Instant, Change)>,
    active: Vec<usize>,
    shape: CallShape,
    calls: Vec<Option<(usize, Call, Instant)>>,
    events: BinaryHeap<Reverse<(Instant, usize, Event)>>,
    events_made: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begin {
        proxy: usize,
    },
    Send {
        call: usize,
    },
    Head {
        call: usize,
        server: usize,
        answer: Instant,
        good: bool,
    },
}

impl World {
    /// Makes one proxy that calls the servers.
    pub(crate) fn new(settings: Settings, servers: Vec<Fate>) -> Self {
        Self::of_proxies(1, settings, servers)
    }

    /// Makes some proxies that do not know of each other.
    pub(crate) fn of_proxies(proxies: usize, settings: Settings, servers: Vec<Fate>) -> Self {
        let hosts: Vec<_> = (0..servers.len()).map(host).collect();
        let proxies = (0..proxies)
            .map(|proxy| {
                let seed = [proxy as u8; 32];
                let mut upstream = Upstream::new(settings.clone(), Arc::default(), seed, at(0));
                upstream.set_endpoints(&hosts, at(0));
                upstream
            })
            .collect();
        Self {
            now: at(0),
            proxies,
            tally: Tally {
                attempts: vec![Vec::new(); servers.len()],
                crowd: vec![0; servers.len()],
                ..Tally::default()
            },
            changes: Vec::new(),
            active: vec![0; servers.len()],
            servers,
            shape: CallShape {
                idempotent: true,
                ..CallShape::default()
            },
            calls: Vec::new(),
            events: BinaryHeap::new(),
            events_made: 0,
        }
    }

    /// Makes the calls that follow ones that must not be sent twice.
    pub(crate) fn not_idempotent(mut self) -> Self {
        self.shape.idempotent = false;
        self
    }

    /// Adds a server.
    pub(crate) fn join(&mut self, fate: Fate) {
        self.servers.push(fate);
        self.tally.attempts.push(Vec::new());
        self.tally.crowd.push(0);
        self.active.push(0);
        let hosts: Vec<_> = (0..self.servers.len()).map(host).collect();
        for proxy in &mut self.proxies {
            proxy.set_endpoints(&hosts, self.now);
        }
    }

    /// Forgets what was counted.
    pub(crate) fn count_anew(&mut self) {
        let servers = self.servers.len();
        self.tally = Tally {
            attempts: vec![Vec::new(); servers],
            crowd: self.active.clone(),
            ..Tally::default()
        };
    }

    /// Lets each proxy make calls at a rate, one after the other's turn, for a time.
    pub(crate) fn run(&mut self, calls_per_sec: u64, time: Duration) {
        let (begin, end) = (self.now, self.now + time);
        let calls = calls_per_sec * time.as_millis() as u64 / 1000;
        for proxy in 0..self.proxies.len() {
            for call in 0..calls {
                let turn = call as f64 + proxy as f64 / self.proxies.len() as f64;
                let when = begin + Duration::from_secs_f64(turn / calls_per_sec as f64);
                self.push(when, Event::Begin { proxy });
            }
        }
        while let Some(Reverse((when, _, _))) = self.events.peek()
            && *when <= end
        {
            let Reverse((when, _, event)) = self.events.pop().expect("it was peeked");
            self.now = when;
            self.handle(event);
        }
        self.now = end;
    }

    /// How many attempts a server got.
    pub(crate) fn attempts(&self, server: usize) -> usize {
        self.tally.attempts[server].len()
    }

    /// How many attempts all got.
    pub(crate) fn attempts_of_all(&self) -> usize {
        self.tally.attempts.iter().map(Vec::len).sum()
    }

    /// How many attempts a server got from one moment to another.
    pub(crate) fn attempts_between(&self, server: usize, from: Instant, to: Instant) -> usize {
        let attempts = self.tally.attempts[server].iter();
        attempts
            .filter(|when| from <= **when && **when < to)
            .count()
    }

    fn push(&mut self, when: Instant, event: Event) {
        self.events_made += 1;
        self.events.push(Reverse((when, self.events_made, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Begin { proxy } => self.begin(proxy),
            Event::Send { call } => self.send(call),
            Event::Head {
                call,
                server,
                answer,
                good,
            } => self.head(call, server, answer, good),
        }
        for proxy in &mut self.proxies {
            while let Some(change) = proxy.poll_change() {
                self.changes.push((self.now, change));
            }
        }
    }

    fn begin(&mut self, proxy: usize) {
        let upstream = &mut self.proxies[proxy];
        let mut call = upstream.begin(self.shape, self.now);
        let admitted = upstream.poll_admission(&mut call, Waker::noop(), self.now);
        assert_eq!(
            admitted,
            Poll::Ready(Admission::Go),
            "the world is not so crowded"
        );
        self.calls.push(Some((proxy, call, self.now)));
        self.send(self.calls.len() - 1);
    }

    fn send(&mut self, number: usize) {
        let (proxy, call, _) = self.calls[number].as_mut().expect("it is under way");
        let picked = self.proxies[*proxy].poll_pick(call, Waker::noop(), self.now);
        let Poll::Ready(Pick::Chosen(choice)) = picked else {
            return self.end(number, Some(None));
        };
        let server = (0..self.servers.len()).find(|server| host(*server) == choice.endpoint);
        let server = server.expect("an endpoint is a server");
        let (answer, good) = match self.servers[server] {
            Fate::Answers(after) => (self.now + after, true),
            Fate::Fails(after, _) => (self.now + after, false),
            Fate::Hangs => (call.deadline(), false),
        };
        let when = answer.min(call.try_until());
        self.tally.attempts[server].push(self.now);
        self.active[server] += 1;
        self.tally.crowd[server] = self.tally.crowd[server].max(self.active[server]);
        self.push(
            when,
            Event::Head {
                call: number,
                server,
                answer,
                good,
            },
        );
    }

    fn head(&mut self, number: usize, server: usize, answer: Instant, good: bool) {
        let (proxy, call, _) = self.calls[number].as_mut().expect("it is under way");
        let is_late = self.now < answer;
        let upstream = &mut self.proxies[*proxy];
        if is_late && let Some(until) = upstream.go_on(call, Replay::Possible, None, self.now) {
            let head = Event::Head {
                call: number,
                server,
                answer,
                good,
            };
            return self.push(answer.min(until), head);
        }
        self.active[server] -= 1;
        let outcome = match self.servers[server] {
            _ if good && !is_late => Outcome::Succeeded,
            Fate::Fails(_, failure) if !is_late => Outcome::Failed(failure),
            _ => Outcome::Failed(Failure::Timeout),
        };
        let next = self.proxies[*proxy].finished(call, outcome, Replay::Possible, self.now);
        match next {
            Next::PassOn => self.end(number, None),
            Next::GiveUp(why) => self.end(number, Some(Some(why))),
            Next::Retry { after } => self.push(self.now + after, Event::Send { call: number }),
        }
    }

    fn end(&mut self, number: usize, bad: Option<Option<GiveUp>>) {
        let (proxy, call, begun) = self.calls[number].take().expect("it is under way");
        self.proxies[proxy].end(call, Ending::Complete, self.now);
        self.tally.times.push(self.now - begun);
        match bad {
            None => self.tally.good += 1,
            Some(why) => self.tally.bad.push(why),
        }
    }
}

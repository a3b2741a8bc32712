//! The services that one thread calls, with what it has learned of their endpoints. They are made
//! when they are first called and follow the catalogue from then on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use model::catalogue::{Catalogue, CatalogueService};
use model::ids::HostId;
use model::name::Name;
use model::rule::TrafficSettings;
use model::time::Instant;
use traffic::{Change, Gauge, Settings, Upstream};

use crate::marks::Aim;
use crate::report::UpstreamSeen;
use crate::sessions::Sessions;

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A service.
    Service(Name),
    /// A port of a host.
    Port(HostId, u16),
}

/// One service as one thread calls it, or a port of a host, which is like a service with one
/// endpoint.
#[derive(Debug)]
pub(crate) struct Called {
    /// Which.
    pub key: Key,
    /// What is known of its endpoints.
    pub upstream: RefCell<Upstream>,
    /// What the policy says of its calls.
    pub settings: RefCell<Rc<TrafficSettings>>,
}

/// The calls under way, counted by all threads together.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    all: Mutex<BTreeMap<Key, Arc<Gauge>>>,
}

/// All that one thread calls.
pub(crate) struct Upstreams {
    gauges: Arc<Gauges>,
    /// Who is reached.
    sessions: Rc<Sessions>,
    seed: u64,
    known: RefCell<BTreeMap<Key, Rc<Called>>>,
}

impl Gauges {
    fn of(&self, key: &Key) -> Arc<Gauge> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(key.clone()).or_default())
    }

    /// Forgets those that nobody counts with any more.
    fn sweep(&self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, gauge| Arc::strong_count(gauge) > 1);
    }
}

impl Key {
    /// Returns what is called, and at which host where it is not a service.
    pub(crate) fn new(aim: &Aim, host: HostId) -> Self {
        match aim {
            Aim::Service(name) => Self::Service(name.clone()),
            Aim::Port(port) => Self::Port(host, *port),
        }
    }
}

impl Upstreams {
    /// Begins without any. The seed is this thread's own.
    pub(crate) fn new(gauges: Arc<Gauges>, sessions: Rc<Sessions>, seed: u64) -> Self {
        Self {
            gauges,
            sessions,
            seed,
            known: RefCell::default(),
        }
    }

    /// Returns what is known of one; it is made when it is first called.
    pub(crate) fn called(&self, key: &Key, catalogue: &Catalogue, now: Instant) -> Rc<Called> {
        if let Some(called) = self.known.borrow().get(key) {
            return Rc::clone(called);
        }
        let mut known = self.known.borrow_mut();
        let gauge = self.gauges.of(key);
        let upstream = Upstream::new(Settings::default(), gauge, self.seed_of(known.len()), now);
        let called = Rc::new(Called {
            key: key.clone(),
            upstream: RefCell::new(upstream),
            settings: RefCell::default(),
        });
        called.follow(catalogue, now);
        called.follow_sessions(&self.sessions, now);
        known.insert(key.clone(), Rc::clone(&called));
        called
    }

    /// Follows a new catalogue.
    pub(crate) fn follow(&self, catalogue: &Catalogue, now: Instant) {
        for called in self.known.borrow().values() {
            called.follow(catalogue, now);
            called.follow_sessions(&self.sessions, now);
        }
    }

    /// Follows who is reached and who is not.
    pub(crate) fn follow_sessions(&self, now: Instant) {
        for called in self.known.borrow().values() {
            called.follow_sessions(&self.sessions, now);
        }
    }

    /// Forgets what is gone from the catalogue or was a port, when nobody calls it; tells what changed
    /// of the others.
    pub(crate) fn sweep(&self, catalogue: &Catalogue) {
        self.known.borrow_mut().retain(|key, called| {
            let is_kept = match key {
                Key::Service(name) => catalogue.services.contains_key(name),
                Key::Port(..) => false,
            };
            is_kept || Rc::strong_count(called) > 1
        });
        self.gauges.sweep();
        for called in self.known.borrow().values() {
            called.tell_changes(catalogue);
        }
    }

    /// Returns what is known of all of them now.
    pub(crate) fn seen(&self, now: Instant) -> Vec<UpstreamSeen> {
        let known = self.known.borrow();
        known.values().map(|called| called.seen(now)).collect()
    }

    /// Each has its own dice.
    fn seed_of(&self, number: usize) -> [u8; 32] {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        seed
    }
}

impl Called {
    fn follow(&self, catalogue: &Catalogue, now: Instant) {
        let mut upstream = self.upstream.borrow_mut();
        match &self.key {
            Key::Port(host, _) => upstream.set_endpoints(&[*host], now),
            Key::Service(name) => match catalogue.services.get(name) {
                Some(service) => {
                    let settings = &service.service.settings;
                    upstream.set_settings(Settings::of(settings), now);
                    upstream.set_endpoints(&resident(service, catalogue), now);
                    if **self.settings.borrow() != *settings {
                        self.settings.replace(Rc::new(settings.clone()));
                    }
                }
                None => upstream.set_endpoints(&[], now),
            },
        }
    }

    fn follow_sessions(&self, sessions: &Sessions, now: Instant) {
        let mut upstream = self.upstream.borrow_mut();
        upstream.set_reachable(|host| sessions.is_reachable(host), now);
    }

    fn seen(&self, now: Instant) -> UpstreamSeen {
        let upstream = self.upstream.borrow();
        let (aim, host) = match &self.key {
            Key::Service(name) => (Aim::Service(name.clone()), None),
            Key::Port(host, port) => (Aim::Port(*port), Some(*host)),
        };
        UpstreamSeen {
            aim,
            host,
            at: now,
            in_flight: upstream.gauge().in_flight(),
            waiting: upstream.gauge().waiting(),
            using_all: upstream.is_using_all(),
            endpoints: upstream.endpoints(now).collect(),
        }
    }

    fn tell_changes(&self, catalogue: &Catalogue) {
        let name = |host: &HostId| {
            let host = catalogue.hosts.get(host);
            host.map_or_else(
                || "an unknown host".to_owned(),
                |host| host.name.to_string(),
            )
        };
        let service = match &self.key {
            Key::Service(service) => service.to_string(),
            Key::Port(host, port) => format!("{}:{port}", name(host)),
        };
        while let Some(change) = self.upstream.borrow_mut().poll_change() {
            match change {
                Change::Ejected {
                    endpoint,
                    why,
                    penalty,
                } => tracing::warn!(
                    %service, endpoint = name(&endpoint), ?why, ?penalty,
                    "an endpoint gets no calls for a while"
                ),
                Change::Spared { endpoint, why } => tracing::warn!(
                    %service, endpoint = name(&endpoint), ?why,
                    "an endpoint fails and gets calls nevertheless: too many are ejected already"
                ),
                Change::ToldDown { endpoint } => tracing::warn!(
                    %service, endpoint = name(&endpoint),
                    "an endpoint gets no calls: its program fails the health checks of its host"
                ),
                Change::ToldUp { endpoint } => tracing::info!(
                    %service, endpoint = name(&endpoint), "an endpoint that was down answers again"
                ),
                Change::Recovered { endpoint } => tracing::info!(
                    %service, endpoint = name(&endpoint), "an endpoint gets calls again"
                ),
                Change::UsingAll { healthy, of } => tracing::warn!(
                    %service, healthy, of, "fewer than half of the endpoints are well: all get calls"
                ),
                Change::UsingHealthy { healthy, of } => tracing::info!(
                    %service, healthy, of, "only endpoints that are well get calls again"
                ),
            }
        }
    }
}

/// Returns the endpoints that data of the service may go to; nothing relaxes that.
fn resident(service: &CatalogueService, catalogue: &Catalogue) -> Vec<HostId> {
    let residency = &service.service.settings.residency;
    let is_resident = |endpoint: &&HostId| {
        residency.is_empty()
            || catalogue.hosts.get(endpoint).is_some_and(|host| {
                residency
                    .iter()
                    .all(|label| host.labels.get(&label.key) == Some(&label.value))
            })
    };
    service
        .endpoints
        .iter()
        .filter(is_resident)
        .copied()
        .collect()
}

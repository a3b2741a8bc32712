//! What one proxy thread holds: everything in it stays on that thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use model::address::HostAddresses;
use model::ids::HostId;
use model::name::Name;
use model::time::Now;
use runtime::clock::Clock;
use tokio::sync::watch;
use tokio::time::interval;

use crate::config::ProxyLimits;
use crate::directory::Directory;
use crate::health::Ailing;
use crate::local_apps::LocalApps;
use crate::marks::{CallId, CallIds};
use crate::report::Observer;
use crate::sessions::{Datagrams, Outages, Sessions};
use crate::snapshot::{Snapshot, Snapshots};
use crate::standing::Standing;
use crate::surroundings::Surroundings;
use crate::unparsed::Unparsed;
use crate::upstreams::{Gauges, Upstreams};

/// How often idle connections and services are looked after.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// One thread's proxy.
pub(crate) struct Worker {
    /// Which thread it is, from 0.
    pub thread: usize,
    /// Its bounds.
    pub limits: ProxyLimits,
    /// The machine.
    pub surroundings: Arc<dyn Surroundings>,
    /// What is known of the fleet.
    pub snapshots: Arc<Snapshots>,
    /// The time.
    pub clock: Clock,
    /// To other hosts.
    pub sessions: Rc<Sessions>,
    /// From and to other hosts where only UDP passes; `None`: there is nothing but TCP here.
    pub datagrams: Option<Rc<Datagrams>>,
    /// To programs of this host.
    pub apps: LocalApps,
    /// Who has which address.
    pub directory: Directory,
    /// What is called.
    pub upstreams: Upstreams,
    /// What is under way.
    pub standing: Rc<Standing>,
    /// Which programs of this host are not well.
    pub ailing: Arc<Ailing>,
    /// Who is told of calls.
    pub observer: Arc<dyn Observer>,
    /// Becomes true when the proxy is to stop.
    pub stop: watch::Receiver<bool>,
    /// Connections of programs.
    pub connections: Cell<usize>,
    /// How many of them each user has; `None`: nobody knows who.
    pub connections_of_users: RefCell<BTreeMap<Option<u32>, usize>>,
    /// Requests that could not be read.
    pub unparsed: Unparsed,
    call_ids: RefCell<CallIds>,
    callers: RefCell<BTreeMap<HostId, Vec<KnownCaller>>>,
}

/// A caller that programs were told of before.
struct KnownCaller {
    workload: Option<Name>,
    headers: CallerHeaders,
}

/// What a program is told of its caller.
#[derive(Clone, Debug)]
pub(crate) struct CallerHeaders {
    /// Its SPIFFE ID.
    pub identity: HeaderValue,
    /// The overlay address of its host.
    pub address: HeaderValue,
}

/// What the threads of a proxy have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Bounds of each thread.
    pub limits: ProxyLimits,
    /// The machine.
    pub surroundings: Arc<dyn Surroundings>,
    /// What is known of the fleet.
    pub snapshots: Arc<Snapshots>,
    /// The time.
    pub clock: Clock,
    /// Who is told of calls.
    pub observer: Arc<dyn Observer>,
    /// Calls under way.
    pub gauges: Arc<Gauges>,
    /// Hosts that are not reached.
    pub outages: Arc<Outages>,
    /// Which programs of this host are not well.
    pub ailing: Arc<Ailing>,
    /// Becomes true when the proxy is to stop.
    pub stop: watch::Receiver<bool>,
    /// Of dice and ids.
    pub seed: u64,
    /// Where the proxy listens.
    pub own_ports: Arc<[u16]>,
    /// How many they are.
    pub threads: usize,
}

impl Worker {
    /// Begins on this thread.
    pub(crate) fn new(thread: usize, shared: Shared) -> Rc<Self> {
        let surroundings = Arc::clone(&shared.surroundings);
        let make_socket = Rc::new(move |to| surroundings.dial_underlay(to));
        let datagrams = datagrams(thread, &shared);
        // Far apart, whatever the seed.
        let seed = shared.seed ^ (thread as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let sessions = Sessions::of_thread(
            Arc::clone(&shared.snapshots),
            make_socket,
            datagrams.clone(),
            shared.outages,
        );
        Rc::new(Self {
            thread,
            upstreams: Upstreams::new(shared.gauges, Rc::clone(&sessions), seed),
            sessions,
            datagrams,
            apps: LocalApps::new(
                Arc::clone(&shared.surroundings),
                shared.limits.clone(),
                shared.own_ports,
            ),
            directory: Directory::default(),
            standing: Rc::default(),
            connections: Cell::new(0),
            connections_of_users: RefCell::default(),
            unparsed: Unparsed::default(),
            call_ids: RefCell::new(CallIds::new(seed)),
            callers: RefCell::default(),
            limits: shared.limits,
            surroundings: shared.surroundings,
            snapshots: shared.snapshots,
            clock: shared.clock,
            ailing: shared.ailing,
            observer: shared.observer,
            stop: shared.stop,
        })
    }

    /// Returns a name for the next call.
    pub(crate) fn next_call(&self) -> CallId {
        self.call_ids.borrow_mut().next()
    }

    /// Reads the clocks.
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Follows what is known of the fleet, and decides again what is under way: when something
    /// changes, and now and then because of rules that know the time of day.
    pub(crate) async fn follow(self: Rc<Self>) {
        let mut changes = self.snapshots.watch();
        let mut outages = self.sessions.watch_outages();
        let mut again = interval(self.limits.decide_again_every);
        let mut sweep = interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.adopt();
                }
                Ok(()) = outages.changed() => self.upstreams.follow_sessions(self.now().monotonic),
                _ = again.tick() => self.decide_again(),
                _ = sweep.tick() => {
                    self.apps.sweep();
                    self.upstreams.sweep(&self.snapshots.current().catalogue);
                    let now = self.now().monotonic;
                    // Connections come and go without an outage, too.
                    self.upstreams.follow_sessions(now);
                    let seen = self.upstreams.seen(now);
                    self.observer.endpoints_seen(self.thread, seen);
                    self.observer.connections_seen(self.thread, self.sessions.seen());
                    if self.thread == 0 {
                        self.observer.outages_seen(self.sessions.outages_seen());
                    }
                }
            }
        }
    }

    fn adopt(&self) {
        let snapshot = self.snapshots.to_keep();
        self.callers.borrow_mut().clear();
        self.sessions.review();
        self.upstreams
            .follow(&snapshot.catalogue, self.now().monotonic);
        self.decide_again();
    }

    fn decide_again(&self) {
        let gate = Arc::clone(&self.snapshots.current().gate);
        let cut = self.standing.decide_again(&gate, self.now().unix);
        if cut > 0 {
            tracing::info!(
                cut,
                "calls under way were cut: the policy does not allow them any more"
            );
        }
    }

    /// Returns what a program is told of its caller.
    pub(crate) fn caller_headers(
        &self,
        snapshot: &Snapshot,
        host: HostId,
        workload: Option<&Name>,
    ) -> Option<CallerHeaders> {
        if let Some(of_host) = self.callers.borrow().get(&host)
            && let Some(known) = of_host.iter().find(|it| it.workload.as_ref() == workload)
        {
            return Some(known.headers.clone());
        }
        let catalogue = &snapshot.catalogue;
        let record = catalogue.hosts.get(&host)?;
        let fleet = &catalogue.fleet_name;
        let identity = match workload {
            Some(workload) => format!("spiffe://{fleet}/workload/{workload}"),
            None => format!("spiffe://{fleet}/host/{}", record.name),
        };
        let headers = CallerHeaders {
            identity: HeaderValue::try_from(identity).ok()?,
            address: HeaderValue::try_from(record.addresses.v4.to_string()).ok()?,
        };
        let mut callers = self.callers.borrow_mut();
        callers.entry(host).or_default().push(KnownCaller {
            workload: workload.cloned(),
            headers: headers.clone(),
        });
        Some(headers)
    }
}

/// Has to run in the thread's runtime.
fn datagrams(thread: usize, shared: &Shared) -> Option<Rc<Datagrams>> {
    let port = shared.surroundings.datagrams(thread, shared.threads);
    let port = port.unwrap_or_else(|error| {
        tracing::error!(%error, "calls of services go over TCP alone");
        None
    })?;
    Some(Datagrams::new(port, thread, shared.threads))
}

/// Returns the overlay addresses of this host; `None`: nobody knows them yet.
pub(crate) fn my_addresses(snapshot: &Snapshot) -> Option<HostAddresses> {
    let catalogue = &snapshot.catalogue;
    catalogue
        .hosts
        .get(&catalogue.me)
        .map(|host| host.addresses)
}

//! What is seen of calls: counts by who calls what, and the calls of late by their ids. Each proxy
//! thread writes to what is its own, without ever waiting; who asks puts it together.

mod access_log;
mod edges;
mod explain;
mod lately;
mod latencies;
mod live;
mod otlp;
mod record;
mod telling;
mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use model::catalogue::Catalogue;
use model::local::{CallCounts, CallExplained, EdgeCounts, LateEdge, LiveService};
use model::name::Name;
use policy::Gate;

pub use access_log::AccessLog;
pub use edges::EdgeSum;
use edges::{EdgeKey, EdgeTable};
use lately::Lately;
pub use otlp::Collector;
pub use telling::Telling;
pub use trace::Trace;

use record::Recent;
use telling::Teller;

use crate::marks::CallId;
use crate::report::{CallReport, CheckSeen, Observer, UpstreamSeen};
use crate::sessions::{ConnectionsSeen, OutageSeen};

/// Policies of which the rules are kept to explain calls that they decided.
const POLICIES_KEPT: usize = 3;

/// Sees all calls of one proxy.
#[derive(Debug)]
pub struct Observatory {
    threads: Box<[Thread]>,
    began: Instant,
    /// Who writes calls down elsewhere, if anybody.
    teller: Option<Teller>,
    known: Mutex<VecDeque<Known>>,
    lately: Mutex<Lately>,
    outages: Mutex<Vec<OutageSeen>>,
    checks: Mutex<Vec<CheckSeen>>,
}

/// What one proxy thread writes.
#[derive(Debug)]
struct Thread {
    edges: EdgeTable,
    /// Locked by the thread for each call, and by whoever asks about one: the thread does not wait
    /// for that, it leaves the call out.
    recent: Mutex<Recent>,
    endpoints: Mutex<Vec<UpstreamSeen>>,
    connections: Mutex<Vec<ConnectionsSeen>>,
}

/// What gives hosts and rules their names.
#[derive(Clone, Debug)]
struct Known {
    catalogue: Arc<Catalogue>,
    gate: Arc<Gate>,
}

impl Observatory {
    /// Begins to see so many threads, and to write down elsewhere what is asked for.
    pub fn new(threads: usize, telling: Telling) -> Arc<Self> {
        let threads = threads.max(1);
        Arc::new_cyclic(|this| Self {
            threads: std::iter::repeat_with(|| Thread::of(threads))
                .take(threads)
                .collect(),
            began: Instant::now(),
            teller: Teller::start(telling, this.clone()),
            known: Mutex::default(),
            lately: Mutex::default(),
            outages: Mutex::default(),
            checks: Mutex::default(),
        })
    }

    /// Takes what gives hosts and rules their names from now on.
    pub fn follow(&self, catalogue: Arc<Catalogue>, gate: Arc<Gate>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known
            .front()
            .is_some_and(|it| it.gate.version() == gate.version())
        {
            known.pop_front();
        }
        known.push_front(Known { catalogue, gate });
        known.truncate(POLICIES_KEPT);
    }

    /// Returns what is known of a call: a host may have had both parts, and attempts of it.
    pub fn explain(&self, id: CallId) -> Vec<CallExplained> {
        let known = self.known();
        let mut found = Vec::new();
        for thread in &self.threads {
            let recent = thread.recent.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(recent.find(id).map(|call| explain::explain(call, &known)));
        }
        found.sort_by_key(|call| (call.began_millis, call.part));
        found
    }

    /// Returns the counts of all threads together, by who calls what.
    pub fn edges(&self) -> Vec<EdgeSum> {
        let known = self.known();
        let mut sums: BTreeMap<Option<EdgeKey>, EdgeSum> = BTreeMap::new();
        for edge in self.threads.iter().flat_map(|thread| thread.edges.all()) {
            let named = || EdgeSum::named(edge.key(), known.first().map(|it| &*it.catalogue));
            sums.entry(edge.key().cloned())
                .or_insert_with(named)
                .absorb(edge);
        }
        sums.into_values().collect()
    }

    /// Returns the endpoints that are called from here.
    pub fn services(&self) -> Vec<LiveService> {
        let known = self.known();
        let seen: Vec<Vec<UpstreamSeen>> = self
            .threads
            .iter()
            .map(|thread| {
                thread
                    .endpoints
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            })
            .collect();
        let catalogue = known.first().map(|it| &*it.catalogue);
        let seen = live::Seen {
            threads: &seen,
            connections: &self.connections(),
            outages: &self.outages.lock().unwrap_or_else(PoisonError::into_inner),
        };
        live::services(&seen, catalogue)
    }

    /// Returns the connections to other hosts, thread by thread.
    pub fn connections(&self) -> Vec<ConnectionsSeen> {
        let of_thread = |thread: &Thread| {
            let seen = thread.connections.lock();
            seen.unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.threads.iter().flat_map(of_thread).collect()
    }

    /// Returns what was found out of the programs of this host that services have checked, in the order
    /// of the services.
    pub fn checks(&self) -> Vec<CheckSeen> {
        let checks = self.checks.lock();
        checks.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns who called what within the last minute or so.
    pub fn lately(&self) -> BTreeMap<String, Vec<LateEdge>> {
        let now = self.edge_counts();
        let lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.since(self.micros(), now)
    }

    /// Returns what `meshctl top` makes rates of.
    pub fn counts(&self) -> CallCounts {
        CallCounts {
            at_micros: self.micros(),
            edges: self.edge_counts(),
            services: self.services(),
        }
    }

    fn edge_counts(&self) -> Vec<EdgeCounts> {
        self.edges().iter().map(EdgeSum::counts).collect()
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Keeps the counts, now and then, to tell what was called of late.
    fn keep_counts(&self) {
        if let Ok(mut lately) = self.lately.try_lock() {
            lately.keep(self.micros(), || self.edge_counts());
        }
    }

    /// Returns the calls that were not written down because nobody took them in time, and the spans
    /// that no collector took.
    pub fn lost(&self) -> (u64, u64) {
        self.teller.as_ref().map_or((0, 0), Teller::lost)
    }

    /// Whether the policy of now has a service. A proxy thread does not wait to hear it: while the
    /// policy is exchanged nobody knows.
    fn is_known(&self, service: &Name) -> bool {
        let Ok(known) = self.known.try_lock() else {
            return false;
        };
        let newest = known.front();
        newest.is_some_and(|it| it.catalogue.services.contains_key(service))
    }

    fn known(&self) -> Vec<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().cloned().collect()
    }
}

impl Thread {
    fn of(threads: usize) -> Self {
        Self {
            edges: EdgeTable::default(),
            recent: Mutex::new(Recent::of(threads)),
            endpoints: Mutex::default(),
            connections: Mutex::default(),
        }
    }
}

impl Observer for Observatory {
    fn call_ended(&self, thread: usize, report: &CallReport<'_>) {
        let Some(thread) = self.threads.get(thread) else {
            return;
        };
        let edge = thread.edges.edge(report, |service| self.is_known(service));
        edge.count(report);
        if let Ok(mut recent) = thread.recent.try_lock() {
            recent.keep(report);
        }
        if let Some(teller) = &self.teller {
            teller.tell(report);
        }
    }

    fn traces(&self) -> bool {
        self.teller.as_ref().is_some_and(Teller::traces)
    }

    fn endpoints_seen(&self, thread: usize, seen: Vec<UpstreamSeen>) {
        if let Some(Ok(mut endpoints)) = self.threads.get(thread).map(|it| it.endpoints.try_lock())
        {
            *endpoints = seen;
        }
        if thread == 0 {
            self.keep_counts();
        }
    }

    fn connections_seen(&self, thread: usize, seen: Vec<ConnectionsSeen>) {
        let thread = self.threads.get(thread);
        if let Some(Ok(mut connections)) = thread.map(|it| it.connections.try_lock()) {
            *connections = seen;
        }
    }

    fn outages_seen(&self, seen: Vec<OutageSeen>) {
        if let Ok(mut outages) = self.outages.try_lock() {
            *outages = seen;
        }
    }

    fn checks_seen(&self, seen: Vec<CheckSeen>) {
        if let Ok(mut checks) = self.checks.try_lock() {
            *checks = seen;
        }
    }
}

/// Returns the name of a host, or its id where it has none any more.
fn host_name(host: model::ids::HostId, catalogue: Option<&Catalogue>) -> String {
    let known = catalogue.and_then(|catalogue| catalogue.hosts.get(&host));
    known.map_or_else(|| host.to_string(), |known| known.name.to_string())
}

#[cfg(test)]
mod tests;

//! Counts by who calls what. A table of a fixed size for each thread: reading it takes no lock, an
//! edge is entered once, and what has no room is counted together.

use std::hash::BuildHasher;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use model::catalogue::Catalogue;
use model::ids::HostId;
use model::local::{CallPart, EdgeCounts, StageCounts};
use model::name::Name;
use runtime::metrics::Histogram;

use super::host_name;
use super::latencies::Latencies;
use crate::marks::Aim;
use crate::refusal::Reason;
use crate::report::{CallReport, Side};
use crate::stages::Stage;

/// Edges that are counted apart, by one thread: more than what a host's policy names and its programs
/// offer is hard to reach.
const EDGES_MAX: usize = 512;
/// Places that are looked at for an edge.
const PROBES_MAX: usize = 16;

/// Who calls what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EdgeKey<N = Name> {
    side: Side,
    from: HostId,
    workload: Option<N>,
    to: To<N>,
}

/// What is called, as far as it is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum To<N> {
    Port(HostId, u16),
    Service(N),
    /// What else was asked for, of a host where it is known of which.
    Other(Option<HostId>),
}

impl<'c> EdgeKey<&'c Name> {
    fn of(report: &CallReport<'c>) -> Self {
        let is_claimed_in_vain = report.reason == Some(Reason::ClaimRefused);
        Self {
            side: report.side,
            from: report.from,
            workload: report.workload.filter(|_| !is_claimed_in_vain),
            to: match (report.aim, reached(report)) {
                (Aim::Service(name), _) => To::Service(name),
                (Aim::Port(port), Some(host)) => To::Port(host, *port),
                (Aim::Port(_), None) => To::Other(None),
            },
        }
    }

    fn hash(&self) -> u64 {
        foldhash::fast::FixedState::default().hash_one(self)
    }

    fn to_owned(self) -> EdgeKey {
        EdgeKey {
            side: self.side,
            from: self.from,
            workload: self.workload.cloned(),
            to: match self.to {
                To::Service(name) => To::Service(name.clone()),
                To::Port(host, port) => To::Port(host, port),
                To::Other(host) => To::Other(host),
            },
        }
    }
}

impl EdgeKey {
    const fn as_ref(&self) -> EdgeKey<&Name> {
        EdgeKey {
            side: self.side,
            from: self.from,
            workload: self.workload.as_ref(),
            to: match &self.to {
                To::Service(name) => To::Service(name),
                To::Port(host, port) => To::Port(*host, *port),
                To::Other(host) => To::Other(*host),
            },
        }
    }
}

/// What a call's answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusClass {
    /// Bytes, or no answer.
    None,
    Good,
    Redirect,
    CallersFault,
    ServersFault,
}

impl StatusClass {
    const ALL: [Self; 5] = [
        Self::None,
        Self::Good,
        Self::Redirect,
        Self::CallersFault,
        Self::ServersFault,
    ];

    fn of(report: &CallReport<'_>) -> Self {
        match (report.grpc_status, report.status) {
            // What gRPC says of a call stands in its own status.
            (Some(0), _) => Self::Good,
            (Some(2 | 4 | 8 | 12 | 13 | 14 | 15), _) => Self::ServersFault,
            (Some(_), _) => Self::CallersFault,
            (None, 100..=299) => Self::Good,
            (None, 300..=399) => Self::Redirect,
            (None, 400..=499) => Self::CallersFault,
            (None, 500..) => Self::ServersFault,
            (None, _) => Self::None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Good => "2xx",
            Self::Redirect => "3xx",
            Self::CallersFault => "4xx",
            Self::ServersFault => "5xx",
        }
    }
}

/// Reasons, and none.
const REASONS: usize = Reason::ALL.len() + 1;

/// The counts of one edge.
#[derive(Debug)]
pub(super) struct Edge {
    /// `None`: all that have no edge of their own.
    key: Option<EdgeKey>,
    ended: [[AtomicU64; REASONS]; StatusClass::ALL.len()],
    retries: AtomicU64,
    request_bytes: AtomicU64,
    answer_bytes: AtomicU64,
    stages: [Histogram; Stage::ALL.len()],
    /// From a call's arrival to the head of its answer; for metrics, and finer for `meshctl top`.
    to_answer: Histogram,
    latencies: Latencies,
}

impl Edge {
    fn new(key: Option<EdgeKey>) -> Self {
        Self {
            key,
            ended: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            retries: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            answer_bytes: AtomicU64::new(0),
            stages: Default::default(),
            to_answer: Histogram::default(),
            latencies: Latencies::default(),
        }
    }

    pub(super) const fn key(&self) -> Option<&EdgeKey> {
        self.key.as_ref()
    }

    pub(super) fn count(&self, report: &CallReport<'_>) {
        let reason = report.reason.map_or(0, |reason| 1 + reason as usize);
        let class = StatusClass::of(report) as usize;
        self.ended[class][reason].fetch_add(1, Ordering::Relaxed);
        let retries = report.tried.len().saturating_sub(1) as u64;
        for (count, more) in [
            (&self.retries, retries),
            (&self.request_bytes, report.request_bytes),
            (&self.answer_bytes, report.answer_bytes),
        ] {
            if more > 0 {
                count.fetch_add(more, Ordering::Relaxed);
            }
        }
        for (histogram, stage) in self.stages.iter().zip(Stage::ALL) {
            if let Some(took) = report.stages.of(stage) {
                histogram.observe(took);
            }
        }
        let to_answer = report.stages.to_answer();
        self.to_answer.observe(to_answer);
        self.latencies.observe(to_answer);
    }

    fn absorb(&self, other: &Self) {
        let counts = self.ended.iter().flatten();
        for (mine, other) in counts.zip(other.ended.iter().flatten()).chain([
            (&self.retries, &other.retries),
            (&self.request_bytes, &other.request_bytes),
            (&self.answer_bytes, &other.answer_bytes),
        ]) {
            mine.fetch_add(other.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for (mine, other) in self.stages.iter().zip(&other.stages) {
            mine.absorb(other);
        }
        self.to_answer.absorb(&other.to_answer);
        self.latencies.absorb(&other.latencies);
    }
}

/// The edges of one thread.
#[derive(Debug)]
pub(super) struct EdgeTable {
    places: Box<[OnceLock<Box<Edge>>]>,
    others: Edge,
}

impl Default for EdgeTable {
    fn default() -> Self {
        Self {
            places: std::iter::repeat_with(OnceLock::new)
                .take(EDGES_MAX)
                .collect(),
            others: Edge::new(None),
        }
    }
}

impl EdgeTable {
    /// Returns the edge that a call is counted on; it is made when it is the first. Edges stay, and
    /// anybody can ask for what there is not: what names no service that `is_known`, and was not
    /// answered by a program either, gets none of its own.
    pub(super) fn edge(
        &self,
        report: &CallReport<'_>,
        is_known: impl FnOnce(&Name) -> bool,
    ) -> &Edge {
        let key = EdgeKey::of(report);
        let place = self.place(key);
        if let Some(edge) = place.and_then(OnceLock::get) {
            return edge;
        }
        let is_there = was_answered(report)
            || match report.aim {
                Aim::Service(name) => is_known(name),
                Aim::Port(_) => false,
            };
        if is_there {
            return self.enter(place, key);
        }
        let to = To::Other(reached(report));
        let key = EdgeKey { to, ..key };
        self.enter(self.place(key), key)
    }

    /// Returns where the edge is, or would be; `None`: there is no room. The thread whose table it
    /// is enters edges, and nobody else, so that a place stays free until then.
    fn place(&self, key: EdgeKey<&Name>) -> Option<&OnceLock<Box<Edge>>> {
        let start = key.hash() as usize;
        let mut probes = (0..PROBES_MAX).map(|probe| &self.places[(start + probe) % EDGES_MAX]);
        probes.find(|place| {
            let edge = place.get();
            edge.is_none_or(|edge| edge.key().is_some_and(|it| it.as_ref() == key))
        })
    }

    fn enter<'t>(
        &'t self,
        place: Option<&'t OnceLock<Box<Edge>>>,
        key: EdgeKey<&Name>,
    ) -> &'t Edge {
        let new = || Box::new(Edge::new(Some(key.to_owned())));
        place.map_or(&self.others, |place| place.get_or_init(new))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Edge> {
        let used = self.places.iter().filter_map(|place| place.get());
        let has_others = !self.others.latencies.by_bound().is_empty();
        used.map(|edge| &**edge)
            .chain(has_others.then_some(&self.others))
    }
}

/// Returns the host that had the call, or was to have it.
fn reached(report: &CallReport<'_>) -> Option<HostId> {
    report.tried.last().copied().or(report.dialled)
}

/// Whether a program answered, and not the mesh.
fn was_answered(report: &CallReport<'_>) -> bool {
    report.reason.is_none() && report.stages.of(Stage::Body).is_some()
}

/// The counts of one edge, of all threads together, with its names.
#[derive(Debug)]
pub struct EdgeSum {
    /// Whose part of the calls; `None`: all that have no edge of their own.
    pub part: Option<CallPart>,
    /// The workload, or else the host.
    pub from: String,
    /// The service, or the host and port; `others` in place of what is not counted apart.
    pub to: String,
    sum: Edge,
}

impl EdgeSum {
    pub(super) fn named(key: Option<&EdgeKey>, catalogue: Option<&Catalogue>) -> Self {
        let (part, from, to) = match key {
            None => (None, "others".to_owned(), "others".to_owned()),
            Some(key) => {
                let part = match key.side {
                    Side::Source => CallPart::Source,
                    Side::Destination => CallPart::Destination,
                };
                let workload = key.workload.as_ref().map(ToString::to_string);
                let from = workload.unwrap_or_else(|| host_name(key.from, catalogue));
                let name = |host: HostId| host_name(host, catalogue);
                let to = match &key.to {
                    To::Service(service) => service.to_string(),
                    To::Port(host, port) => format!("{}:{port}", name(*host)),
                    To::Other(Some(host)) => format!("{}:others", name(*host)),
                    To::Other(None) => "others".to_owned(),
                };
                (Some(part), from, to)
            }
        };
        Self {
            part,
            from,
            to,
            sum: Edge::new(None),
        }
    }

    pub(super) fn absorb(&mut self, edge: &Edge) {
        self.sum.absorb(edge);
    }

    /// Returns how many calls ended how: the class of their status, the reason of the mesh or
    /// nothing, and the number.
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        StatusClass::ALL.into_iter().flat_map(move |class| {
            let by_reason = self.sum.ended[class as usize].iter().enumerate();
            by_reason.filter_map(move |(reason, count)| {
                let count = count.load(Ordering::Relaxed);
                let reason = reason.checked_sub(1).map(|index| Reason::ALL[index]);
                let reason = reason.map_or("", Reason::name);
                (count > 0).then_some((class.name(), reason, count))
            })
        })
    }

    /// Returns how long a stage took.
    pub const fn stage(&self, stage: Stage) -> &Histogram {
        &self.sum.stages[stage as usize]
    }

    /// Returns how long calls took to the head of their answer.
    pub const fn to_answer(&self) -> &Histogram {
        &self.sum.to_answer
    }

    /// Returns the attempts after the first.
    pub fn retries(&self) -> u64 {
        self.sum.retries.load(Ordering::Relaxed)
    }

    /// Returns the bytes from and to the caller.
    pub fn bytes(&self) -> (u64, u64) {
        let bytes = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (
            bytes(&self.sum.request_bytes),
            bytes(&self.sum.answer_bytes),
        )
    }

    fn stage_counts(&self, stage: Stage) -> StageCounts {
        let histogram = self.stage(stage);
        let micros = u64::try_from(histogram.sum().as_micros());
        StageCounts {
            stage: stage.name().to_owned(),
            calls: histogram.count(),
            micros: micros.unwrap_or(u64::MAX),
        }
    }

    pub(super) fn counts(&self) -> EdgeCounts {
        let (request_bytes, answer_bytes) = self.bytes();
        let mut counts = EdgeCounts {
            part: self.part,
            from: self.from.clone(),
            to: self.to.clone(),
            retries: self.retries(),
            request_bytes,
            answer_bytes,
            latencies: self.sum.latencies.by_bound(),
            stages: Stage::ALL.map(|stage| self.stage_counts(stage)).into(),
            ..EdgeCounts::default()
        };
        for (class, reason, count) in self.ended() {
            counts.calls += count;
            if class == StatusClass::ServersFault.name() || !reason.is_empty() {
                counts.failed += count;
            }
            let reason = Reason::of_name(reason.as_bytes());
            if reason.is_some_and(Reason::is_of_policy) {
                counts.denied += count;
            }
        }
        counts
    }
}

//! Counts by who calls what. A table of a fixed size for each thread: reading it takes no lock, an
//! edge is entered once, and what has no room is counted together.

use std::hash::{BuildHasher, Hash, Hasher};
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

/// Edges that are counted apart, by one thread. More than a host's policy names is hard to reach:
/// direct dials of many hosts' ports do.
const EDGES_MAX: usize = 512;
/// Places that are looked at for an edge.
const PROBES_MAX: usize = 16;

/// Who calls what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EdgeKey {
    side: Side,
    from: HostId,
    workload: Option<Name>,
    service: Option<Name>,
    /// Where it is no service.
    port: Option<(HostId, u16)>,
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
    /// Returns the edge that a call is counted on; it is made when it is the first.
    pub(super) fn edge(&self, report: &CallReport<'_>) -> &Edge {
        let start = hash(report) as usize;
        for probe in 0..PROBES_MAX {
            let place = &self.places[(start + probe) % EDGES_MAX];
            let edge = place.get_or_init(|| Box::new(Edge::new(Some(key_of(report)))));
            if edge.key().is_some_and(|key| is_of(key, report)) {
                return edge;
            }
        }
        &self.others
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Edge> {
        let used = self.places.iter().filter_map(|place| place.get());
        let has_others = !self.others.latencies.by_bound().is_empty();
        used.map(|edge| &**edge)
            .chain(has_others.then_some(&self.others))
    }
}

fn port_of(report: &CallReport<'_>) -> Option<(HostId, u16)> {
    match report.aim {
        Aim::Service(_) => None,
        Aim::Port(port) => Some((*report.tried.last().unwrap_or(&report.from), *port)),
    }
}

const fn service_of<'c>(report: &CallReport<'c>) -> Option<&'c Name> {
    match report.aim {
        Aim::Service(name) => Some(name),
        Aim::Port(_) => None,
    }
}

fn key_of(report: &CallReport<'_>) -> EdgeKey {
    EdgeKey {
        side: report.side,
        from: report.from,
        workload: report.workload.cloned(),
        service: service_of(report).cloned(),
        port: port_of(report),
    }
}

fn is_of(key: &EdgeKey, report: &CallReport<'_>) -> bool {
    key.side == report.side
        && key.from == report.from
        && key.workload.as_ref() == report.workload
        && key.service.as_ref() == service_of(report)
        && key.port == port_of(report)
}

fn hash(report: &CallReport<'_>) -> u64 {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    report.side.hash(&mut hasher);
    report.from.hash(&mut hasher);
    report.workload.hash(&mut hasher);
    service_of(report).hash(&mut hasher);
    port_of(report).hash(&mut hasher);
    hasher.finish()
}

/// The counts of one edge, of all threads together, with its names.
#[derive(Debug)]
pub struct EdgeSum {
    /// Whose part of the calls; `None`: all that have no edge of their own.
    pub part: Option<CallPart>,
    /// The workload, or else the host.
    pub from: String,
    /// The service, or the host and port.
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
                let to = match (&key.service, key.port) {
                    (Some(service), _) => service.to_string(),
                    (None, Some((host, port))) => {
                        format!("{}:{port}", host_name(host, catalogue))
                    }
                    (None, None) => "others".to_owned(),
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

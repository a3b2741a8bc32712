//! The calls of late, as they were reported. Records are written over one another, so that keeping
//! one takes no memory once there are as many as are kept.

use std::fmt::Write as _;

use http::Method;
use model::ids::{HostId, PolicyVersion};
use model::name::Name;
use model::time::Now;
use policy::RuleInfo;
use traffic::{Choice, GiveUp};

use super::trace::Trace;
use crate::marks::{Aim, CallId};
use crate::refusal::Reason;
use crate::report::{CallReport, Side};
use crate::stages::Stages;

/// Calls that are kept, by all threads together.
const ORDINARY_MAX: usize = 4096;
/// Calls that the mesh refused or ended, kept apart so that ordinary ones do not push them out.
const NOTED_MAX: usize = 8192;
/// Bytes of a path that are kept.
const PATH_BYTES_MAX: usize = 256;

/// What one thread keeps.
#[derive(Debug)]
pub(super) struct Recent {
    ordinary: Ring,
    noted: Ring,
}

impl Recent {
    /// Keeps one thread's share.
    pub(super) fn of(threads: usize) -> Self {
        Self {
            ordinary: Ring::of(ORDINARY_MAX.div_ceil(threads)),
            noted: Ring::of(NOTED_MAX.div_ceil(threads)),
        }
    }

    pub(super) fn keep(&mut self, report: &CallReport<'_>) {
        let ring = match report.reason {
            None => &mut self.ordinary,
            Some(_) => &mut self.noted,
        };
        ring.keep(report);
    }

    pub(super) fn find(&self, id: CallId) -> impl Iterator<Item = &Record> {
        let all = self.noted.records.iter().chain(&self.ordinary.records);
        all.filter(move |record| record.id == id)
    }
}

#[derive(Debug)]
struct Ring {
    records: Vec<Record>,
    /// Whose turn it is to be written over.
    oldest: usize,
    max: usize,
}

impl Ring {
    const fn of(max: usize) -> Self {
        Self {
            records: Vec::new(),
            oldest: 0,
            max,
        }
    }

    fn keep(&mut self, report: &CallReport<'_>) {
        if self.records.len() < self.max {
            self.records.push(Record::of(report));
            return;
        }
        self.records[self.oldest].take(report);
        self.oldest = (self.oldest + 1) % self.max;
    }
}

/// One call.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: CallId,
    pub(super) side: Side,
    pub(super) from: HostId,
    pub(super) workload: Option<Name>,
    pub(super) tried: Vec<HostId>,
    pub(super) choice: Option<Choice>,
    pub(super) gave_up: Option<GiveUp>,
    pub(super) aim: Aim,
    pub(super) dialled: Option<HostId>,
    pub(super) method: Option<Method>,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) grpc_status: Option<u16>,
    pub(super) reason: Option<Reason>,
    pub(super) rule: Option<RuleInfo>,
    pub(super) policy: PolicyVersion,
    pub(super) trace: Option<Trace>,
    pub(super) began: Now,
    pub(super) stages: Stages,
    pub(super) request_bytes: u64,
    pub(super) answer_bytes: u64,
}

impl Record {
    pub(super) fn of(report: &CallReport<'_>) -> Self {
        let mut record = Self {
            id: report.id,
            side: report.side,
            from: report.from,
            workload: report.workload.cloned(),
            tried: Vec::new(),
            choice: None,
            gave_up: None,
            aim: report.aim.clone(),
            dialled: report.dialled,
            method: None,
            path: String::new(),
            status: 0,
            grpc_status: None,
            reason: None,
            rule: None,
            policy: report.policy,
            trace: None,
            began: report.began,
            stages: Stages::default(),
            request_bytes: 0,
            answer_bytes: 0,
        };
        record.take(report);
        record
    }

    /// Becomes the record of another call. Names are those of few services and rules: most stay.
    fn take(&mut self, report: &CallReport<'_>) {
        self.id = report.id;
        self.side = report.side;
        self.from = report.from;
        if self.workload.as_ref() != report.workload {
            self.workload = report.workload.cloned();
        }
        if self.aim != *report.aim {
            self.aim = report.aim.clone();
        }
        self.dialled = report.dialled;
        if self.method.as_ref() != report.method {
            self.method = report.method.cloned();
        }
        self.tried.clear();
        self.tried.extend_from_slice(report.tried);
        self.take_path(report.path.unwrap_or_default());
        self.choice = report.choice;
        self.gave_up = report.gave_up;
        self.status = report.status;
        self.grpc_status = report.grpc_status;
        self.reason = report.reason;
        if self.rule.as_ref() != report.rule {
            self.rule = report.rule.cloned();
        }
        self.policy = report.policy;
        self.trace = report.trace;
        self.began = report.began;
        self.stages = report.stages;
        self.request_bytes = report.request_bytes;
        self.answer_bytes = report.answer_bytes;
    }

    /// Keeps the path without what a terminal obeys: it is shown on one.
    fn take_path(&mut self, path: &str) {
        self.path.clear();
        let kept = path.floor_char_boundary(PATH_BYTES_MAX);
        let harmless = |it: char| if it.is_control() { '\u{fffd}' } else { it };
        self.path.extend(path[..kept].chars().map(harmless));
        if kept < path.len() {
            write!(self.path, "… ({} bytes)", path.len()).expect("a String takes everything");
        }
    }
}

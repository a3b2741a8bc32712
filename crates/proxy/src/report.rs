//! What is told of each call when it is over, at both ends of it: for metrics, logs, traces and
//! explanations, which are not this module's.

use std::time::Duration;

use model::ids::{HostId, PolicyVersion};
use model::name::Name;
use model::time::Now;
use policy::RuleIndex;

use crate::marks::{Aim, CallId};
use crate::refusal::Reason;

/// Is told of calls. It is called on proxy threads and must be quick.
pub trait Observer: Send + Sync + 'static {
    /// One is over.
    fn call_ended(&self, thread: usize, report: &CallReport<'_>);
}

/// Whose part of a call it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The caller's host.
    Source,
    /// The endpoint's host, if it is another.
    Destination,
}

/// One call, when it is over.
#[derive(Debug)]
pub struct CallReport<'c> {
    /// Which.
    pub id: CallId,
    /// Whose part.
    pub side: Side,
    /// Where it came from.
    pub from: HostId,
    /// Who called, as far as it is known.
    pub workload: Option<&'c Name>,
    /// Who had it, in their order; empty: nobody.
    pub tried: &'c [HostId],
    /// What was called.
    pub aim: &'c Aim,
    /// The method; `None`: it was a connection of bytes.
    pub method: Option<&'c http::Method>,
    /// The path as it was sent, without its query.
    pub path: Option<&'c str>,
    /// The status of the answer; 0: there was none, or it was a connection of bytes.
    pub status: u16,
    /// The status of a gRPC call, if the answer had one.
    pub grpc_status: Option<u16>,
    /// Why the mesh answered, or ended it.
    pub reason: Option<Reason>,
    /// The rule that allowed or denied it.
    pub rule: Option<RuleIndex>,
    /// Of which policy.
    pub policy: PolicyVersion,
    /// When it began.
    pub began: Now,
    /// How long it took.
    pub stages: Stages,
    /// Bytes of the request's body, or from the caller.
    pub request_bytes: u64,
    /// Bytes of the answer's body, or to the caller.
    pub answer_bytes: u64,
}

/// How long a call was at what. Each is the time since the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Until it was decided and an endpoint had room for it, back-off included.
    pub queue: Duration,
    /// Until the head of the last attempt's answer.
    pub answer: Duration,
    /// Until the answer's end.
    pub body: Duration,
}

/// Tells nobody.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn call_ended(&self, _: usize, _: &CallReport<'_>) {}
}

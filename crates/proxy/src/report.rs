//! What is told of each call when it is over, at both ends of it: for metrics, logs, traces and
//! explanations, which are not this module's.

use model::ids::{HostId, PolicyVersion};
use model::name::Name;
use model::time::{Instant, Now};
use policy::RuleInfo;
use traffic::{Choice, EndpointView, GiveUp};

use crate::marks::{Aim, CallId};
use crate::observe::Trace;
use crate::refusal::Reason;
use crate::sessions::{ConnectionsSeen, OutageSeen};
use crate::stages::Stages;

/// Is told of calls. It is called on proxy threads and must be quick.
pub trait Observer: Send + Sync + 'static {
    /// One is over.
    fn call_ended(&self, thread: usize, report: &CallReport<'_>);

    /// Whether it wants to know which traces calls belong to.
    fn traces(&self) -> bool {
        false
    }

    /// What a thread knows of the endpoints that it calls; now and then, all of them.
    fn endpoints_seen(&self, _thread: usize, _seen: Vec<UpstreamSeen>) {}

    /// What connections to other hosts a thread has; now and then, all of them.
    fn connections_seen(&self, _thread: usize, _seen: Vec<ConnectionsSeen>) {}

    /// The hosts with which no session comes about, as all threads know it; now and then, all of them.
    fn outages_seen(&self, _seen: Vec<OutageSeen>) {}

    /// What was found out of the programs of this host that services have checked; now and then, all of
    /// them.
    fn checks_seen(&self, _seen: Vec<CheckSeen>) {}
}

/// What was found out of the program of this host that offers a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSeen {
    /// The service.
    pub service: Name,
    /// Why it fails its health check; `None`: it does not.
    pub failing: Option<String>,
}

/// What one thread knows of the endpoints of one service.
#[derive(Clone, Debug)]
pub struct UpstreamSeen {
    /// The service, or a port.
    pub aim: Aim,
    /// Whose port.
    pub host: Option<HostId>,
    /// When it was looked at.
    pub at: Instant,
    /// Calls under way, of all threads.
    pub in_flight: u32,
    /// Calls that wait, of all threads.
    pub waiting: u32,
    /// Fewer than half of the endpoints are well, and all get calls.
    pub using_all: bool,
    /// The endpoints.
    pub endpoints: Vec<EndpointView>,
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
    /// Why the last of them was chosen.
    pub choice: Option<Choice>,
    /// Why it was not sent once more, if it failed.
    pub gave_up: Option<GiveUp>,
    /// What was called.
    pub aim: &'c Aim,
    /// The host whose port was dialled; `None`: a service was called.
    pub dialled: Option<HostId>,
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
    pub rule: Option<&'c RuleInfo>,
    /// Of which policy.
    pub policy: PolicyVersion,
    /// The trace that it belongs to, where the observer asks for that.
    pub trace: Option<Trace>,
    /// When it began.
    pub began: Now,
    /// How long it was at what.
    pub stages: Stages,
    /// Bytes of the request's body, or from the caller.
    pub request_bytes: u64,
    /// Bytes of the answer's body, or to the caller.
    pub answer_bytes: u64,
}

/// Tells nobody.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn call_ended(&self, _: usize, _: &CallReport<'_>) {}
}

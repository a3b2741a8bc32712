//! Calls of services as this host carried them: one of them explained, and all of them counted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::PolicyVersion;

/// Whose part of a call a host had.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CallPart {
    /// The caller's host.
    Source,
    /// The endpoint's host.
    Destination,
}

/// One of `GET /v1/calls/ID`: a host may have had both parts of a call, and attempts of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallExplained {
    /// As it stands in `mesh-call` and in answers that the mesh makes.
    pub id: String,
    /// Whose part this is.
    pub part: CallPart,
    /// Unix milliseconds when it began.
    pub began_millis: u64,
    /// The calling host.
    pub from: String,
    /// Who on it called; `None`: the policy names nobody there.
    pub workload: Option<String>,
    /// The service, or the host and port.
    pub to: String,
    /// The service that the host offers at that port, where it was not called by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `None`: it was a connection of bytes.
    pub method: Option<String>,
    /// Without its query; `None`: it was a connection of bytes.
    pub path: Option<String>,
    /// Of the answer; `None`: there was none, or it was a connection of bytes.
    pub status: Option<u16>,
    /// Of a gRPC call, if its answer had one.
    pub grpc_status: Option<u16>,
    /// Why the mesh answered or ended it; `None`: it did not.
    pub reason: Option<String>,
    /// The policy that was in force.
    pub policy: PolicyVersion,
    /// What it decided, a sentence.
    pub decision: String,
    /// The rule that decided.
    pub rule: Option<String>,
    /// `file:line` where it was written.
    pub source: Option<String>,
    /// Rules that nearly decided otherwise, one sentence each.
    pub near_misses: Vec<String>,
    /// The hosts that it was sent to, in their order.
    pub tried: Vec<String>,
    /// Why the last of them was chosen.
    pub choice: Option<String>,
    /// Why it was not sent once more after it failed.
    pub gave_up: Option<String>,
    /// Microseconds until an endpoint had room for it, back-off included.
    pub queue_micros: u64,
    /// Microseconds from then to the head of the answer.
    pub answer_micros: u64,
    /// Of them, those until there was a session with the endpoint's host; `None` here and below: it did
    /// not come to that, or nobody told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_micros: Option<u64>,
    /// Those from one host to the other and back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_micros: Option<u64>,
    /// Those until the endpoint's host had decided and connected a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_queue_micros: Option<u64>,
    /// Those until the program had begun with its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_micros: Option<u64>,
    /// Microseconds from then to the answer's end.
    pub body_micros: u64,
    /// Bytes of the request's body, or from the caller.
    pub request_bytes: u64,
    /// Bytes of the answer's body, or to the caller.
    pub answer_bytes: u64,
}

/// `GET /v1/top`: counts since the daemon began to carry calls. Two of them make a rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallCounts {
    /// Microseconds on a clock that never goes back.
    pub at_micros: u64,
    /// Who calls what.
    pub edges: Vec<EdgeCounts>,
    /// What is called from here.
    pub services: Vec<LiveService>,
}

/// Calls of one caller to one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeCounts {
    /// Whose part this host has; `None`: those above the number of edges that are counted apart.
    pub part: Option<CallPart>,
    /// The workload, or else the host.
    pub from: String,
    /// The service, or the host and port.
    pub to: String,
    /// Calls that have ended.
    pub calls: u64,
    /// Those that failed: answered with 5xx or by the mesh, or broken off.
    pub failed: u64,
    /// Those of them that the policy denied.
    pub denied: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Bytes from the caller.
    pub request_bytes: u64,
    /// Bytes to the caller.
    pub answer_bytes: u64,
    /// How long calls took to the head of their answer: upper bounds in microseconds, each with the
    /// calls that took so long and longer than the bound before.
    pub latencies: Vec<(u64, u64)>,
    /// How long calls were at what, in the order in which they come to it.
    #[serde(default)]
    pub stages: Vec<StageCounts>,
}

/// Calls of one caller to one service, at one stage of their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StageCounts {
    /// `queue connect tunnel server_queue first_byte body`
    pub stage: String,
    /// Calls that came to it.
    pub calls: u64,
    /// Microseconds that they were at it, all together.
    pub micros: u64,
}

/// A service that is called from here, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LiveService {
    /// Its name, or the host and port.
    pub service: String,
    /// Calls under way.
    pub in_flight: u32,
    /// Calls that wait until there is room for them.
    pub waiting: u32,
    /// Fewer than half of its endpoints are well, and all get calls.
    pub using_all: bool,
    /// Its endpoints.
    pub endpoints: Vec<LiveEndpoint>,
}

/// Calls of one caller to a service, of those that have ended within the last minute or so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LateEdge {
    /// Whose part this host has.
    pub part: CallPart,
    /// The workload, or else the host.
    pub from: String,
    /// Microseconds that they are of.
    pub within_micros: u64,
    /// All.
    pub calls: u64,
    /// Those that failed: answered with 5xx or by the mesh, or broken off.
    pub failed: u64,
    /// Those of them that the policy denied.
    pub denied: u64,
    /// How long calls took to the head of their answer: upper bounds in microseconds, each with the
    /// calls that took so long and longer than the bound before.
    pub latencies: Vec<(u64, u64)>,
}

/// Why no session with a host comes about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnreachableHost {
    /// Seconds since when.
    pub secs: u64,
    /// Why the last try failed; a sentence.
    pub why: String,
}

/// An endpoint, as the proxy sees it now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LiveEndpoint {
    /// Its host.
    pub host: String,
    /// Calls under way.
    pub in_flight: u32,
    /// The average latency that it is weighed by, in microseconds; `None`: nothing was measured.
    pub latency_micros: Option<u64>,
    /// Proxy threads that send it no calls for a while; each learns by itself.
    pub ejected_by: u32,
    /// Proxy threads that know it.
    pub known_by: u32,
    /// Milliseconds, a second ago at most, until the first of them tries whether it works again; `None`:
    /// none has to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_for_millis: Option<u64>,
    /// Why they do, or would if there were more endpoints; a sentence.
    pub why: Option<String>,
    /// It gets no calls: its host says that its program fails its health checks, or its host is not
    /// reached.
    pub down: bool,
    /// Seconds since its host said so first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_secs: Option<u64>,
    /// No session with its host comes about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<UnreachableHost>,
    /// It gets less than its share because it has just joined or come back.
    pub warming: bool,
    /// What the connections to it are over: `tcp`, or `quic` where TCP does not get through, or both for
    /// a while; empty: there are none, or it is this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub over: Vec<String>,
}
